"""Shared round trips: everyone gets their own reply, and what breaks a trip reaches all who were on it."""

from __future__ import annotations

import asyncio

import pytest

from shared.budgets.trips import SharedTrips


class _Server:
    """A client that records what went out together and answers each command with its own words."""

    def __init__(self) -> None:
        self.trips: list[list[tuple]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def execute_command(self, *args):
        return (await self.answer([args]))[0]

    def pipeline(self, transaction):
        assert transaction is False
        return _Pipeline(self)

    async def answer(self, commands):
        self.trips.append(list(commands))
        await asyncio.sleep(0)  # a round trip is never instant
        await self.gate.wait()
        if ("BREAK",) in commands:
            raise ConnectionError("the line is cut")
        return [ValueError("refused") if command == ("REFUSE",) else command for command in commands]


class _Pipeline:
    def __init__(self, server: _Server) -> None:
        self.server, self.commands = server, []

    def execute_command(self, *args):
        self.commands.append(args)

    async def execute(self, raise_on_error):
        assert raise_on_error is False
        return await self.server.answer(self.commands)


async def test_a_lone_command_goes_alone():
    """One caller after the other: one trip each, nobody waits for company."""
    server = _Server()
    trips = SharedTrips(server, 4, 1)
    assert [await trips.execute_command("A"), await trips.execute_command("B")] == [("A",), ("B",)]
    assert server.trips == [[("A",)], [("B",)]]


async def test_callers_of_the_same_instant_share_a_trip_and_get_their_own_replies():
    """Twenty at once need four trips, not twenty, and no reply is swapped."""
    server = _Server()
    trips = SharedTrips(server, 4, 1)
    replies = await asyncio.gather(*(trips.execute_command("GET", n) for n in range(20)))
    assert replies == [("GET", n) for n in range(20)]
    assert [len(trip) for trip in server.trips] == [1, 8, 8, 3]


async def test_a_refused_command_does_not_disturb_its_company():
    """The server's error for one command is that caller's alone."""
    trips = SharedTrips(_Server(), 4, 1)
    asked = (trips.execute_command(word) for word in ("A", "B", "REFUSE", "C"))
    a, b, refused, c = await asyncio.gather(*asked, return_exceptions=True)
    assert (a, b, c) == (("A",), ("B",), ("C",))
    assert isinstance(refused, ValueError)


async def test_a_broken_trip_fails_for_everyone_on_it():
    """Nobody is left waiting for a reply that will never come, and the next caller is served again."""
    trips = SharedTrips(_Server(), 4, 1)
    asked = (trips.execute_command(word) for word in ("A", "B", "BREAK"))
    replies = await asyncio.gather(*asked, return_exceptions=True)
    assert replies[0] == ("A",)
    assert [type(reply) for reply in replies[1:]] == [ConnectionError, ConnectionError]
    assert await trips.execute_command("D") == ("D",)


async def test_a_trip_that_never_ends_is_given_up():
    """A server that hangs costs its callers the timeout, together or alone."""
    server = _Server()
    server.gate.clear()
    trips = SharedTrips(server, 4, 0.02)
    replies = await asyncio.gather(*(trips.execute_command(n) for n in range(3)), return_exceptions=True)
    assert [type(reply) for reply in replies] == [TimeoutError] * 3


async def test_who_gave_up_before_departure_is_not_sent():
    """With all slots taken, a caller whose time ran out must not hold budget for a call that will not be made."""
    server = _Server()
    server.gate.clear()
    trips = SharedTrips(server, 1, 1)
    first = asyncio.create_task(trips.execute_command("A"))
    await asyncio.sleep(0)
    hasty, patient = (asyncio.create_task(trips.execute_command(word)) for word in ("B", "C"))
    await asyncio.sleep(0)
    hasty.cancel()
    server.gate.set()
    assert (await first, await patient) == (("A",), ("C",))
    with pytest.raises(asyncio.CancelledError):
        await hasty
    assert server.trips == [[("A",)], [("C",)]]
