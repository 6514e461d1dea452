"""A gateway that is told to stop, or killed: real processes, a hub that is there or not, and no event lost."""

import signal
import threading
from urllib.parse import urlsplit

import httpx
import pytest

from local.process import is_listening
from tests.support.gateway_rig import BODY, CHAT, open_rig
from tests.support.laptop import eventually

ENDED_BY_ITSELF = (0, -signal.SIGTERM)  # uvicorn raises the signal again once it has done everything


@pytest.fixture(scope="module")
def rig(tmp_path_factory):
    with open_rig(tmp_path_factory.mktemp("shutdown")) as rig:
        yield rig


class Reader(threading.Thread):
    """A client that reads one stream to its end, whatever that is."""

    def __init__(self, gateway, call, **knobs):
        super().__init__()
        self.gateway, self.call, self.knobs = gateway, call, knobs
        self.text, self.error = b"", None
        self.first = threading.Event()
        self.start()
        assert self.first.wait(20)

    def run(self):
        headers = self.gateway.headers(self.call, **self.knobs)
        body = {**BODY, "stream": True}
        try:
            with httpx.stream("POST", f"{self.gateway.url}{CHAT}", json=body, headers=headers, timeout=30) as answer:
                for piece in answer.iter_raw():
                    self.text += piece
                    self.first.set()
        except httpx.HTTPError as error:
            self.error = error


def terminate(gateway, seconds=30):
    """SIGTERM, as a container platform sends it; returns the exit code."""
    gateway.process._child.send_signal(signal.SIGTERM)
    eventually(lambda: gateway.process.exit_code is not None, seconds)
    return gateway.process.exit_code


def test_streams_end_within_the_grace_and_the_rest_is_cut_and_billed(rig):
    """SIGTERM: no new call is taken; a stream that ends in time is whole and measured; one that does not gets an error
    event, and what went by of it is billed. The log tells of it without a traceback.
    """
    gateway = rig.start_gateway(SHUTDOWN_GRACE_SECONDS="3", SHUTDOWN_FLUSH_SECONDS="10")
    short = Reader(gateway, "short", x_sim_output_tokens=20, x_sim_chunk_ms=60)
    long = Reader(gateway, "long", x_sim_output_tokens=60, x_sim_chunk_ms=400)
    stopping = threading.Thread(target=terminate, args=(gateway,))
    stopping.start()
    eventually(lambda: not is_listening(urlsplit(gateway.url).port))
    with pytest.raises(httpx.HTTPError):
        gateway.post("too-late", timeout=5)
    for thread in (stopping, short, long):
        thread.join(40)
    assert gateway.process.exit_code in ENDED_BY_ITSELF
    assert short.text.endswith(b"data: [DONE]\n\n")
    assert b"gateway_stopping" in long.text
    assert "Traceback" not in gateway.process.log_path.read_text()
    bills = rig.billed(["short", "long"])
    (row,) = bills["short"].rows
    assert (bills["short"].billed, row.measured) == (bills["short"].served, True)
    (row,) = bills["long"].rows
    produced = bills["long"].broken[1]
    assert not row.measured
    assert 0 < bills["long"].billed[1] <= produced <= bills["long"].billed[1] + 2  # pieces on their way when it was cut
    rig.assert_nothing_held()


def test_events_that_the_hub_did_not_take_outlive_the_process(rig):
    """SIGTERM while the hub is away: the events stay on disk and the next gateway sends them."""
    gateway = rig.start_gateway(SHUTDOWN_GRACE_SECONDS="1", SHUTDOWN_FLUSH_SECONDS="1")
    rig.hub.set("refusing")
    calls = [f"kept-{n}" for n in range(3)]
    assert [gateway.post(call).status_code for call in calls] == [200] * 3
    assert terminate(gateway) in ENDED_BY_ITSELF
    assert sum(path.stat().st_size for path in rig.spool.glob("*/*.events")) > 0
    assert not any(bill.rows for bill in rig.bills(calls).values())
    rig.hub.set("up")
    rig.start_gateway()
    for bill in rig.billed(calls).values():
        (row,) = bill.rows
        assert (bill.billed, row.measured) == (bill.served, True)
    eventually(lambda: not list(rig.spool.glob("*/*.events")))
    rig.assert_nothing_held()


def test_a_kill_loses_nothing_that_was_spooled(rig):
    """SIGKILL in the middle of an outage, two other gateways on the same spool: one of them takes it over, and each
    event is billed once.
    """
    gateway, rig_two = rig.start_gateway(), rig.start_gateway()
    rig.hub.set("refusing")
    calls = [f"killed-{n}" for n in range(4)]
    assert [gateway.post(call).status_code for call in calls] == [200] * 4
    assert rig_two.post("of-two").status_code == 200
    health = eventually(lambda: found if (found := gateway.health())["spool"]["events"] == 4 else None)
    assert (health["status"], health["pending_events"], health["spool"]["writable"]) == ("backlog", 4, True)
    gateway.process.kill()
    rig.hub.set("up")
    rig.start_gateway()
    for bill in rig.billed([*calls, "of-two"]).values():
        (row,) = bill.rows
        assert (bill.billed, row.measured) == (bill.served, True)
    rig.assert_nothing_held()
    rig.assert_counters_are_the_ledger()
