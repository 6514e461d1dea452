"""The circuit breaker, with a clock that moves only when told."""

from __future__ import annotations

import pytest

from shared.budgets.breaker import CircuitBreaker


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock) -> CircuitBreaker:
    """Opens after three failures in a row, for two seconds."""
    return CircuitBreaker(failures=3, open_seconds=2.0, clock=clock)


def fail(breaker: CircuitBreaker, times: int) -> None:
    for _ in range(times):
        breaker.failed()


def test_a_closed_breaker_lets_calls_through(breaker):
    """Before the limit of failures nothing changes."""
    fail(breaker, 2)
    assert all(breaker.allows() for _ in range(10))


def test_failures_in_a_row_open_it(breaker, clock):
    """While it is open nobody waits for a server that is away."""
    fail(breaker, 3)
    assert not breaker.allows()
    clock.now += 1.999
    assert not breaker.allows()


def test_a_success_in_between_starts_the_count_anew(breaker):
    """Only failures in a row count; now and then one is normal."""
    fail(breaker, 2)
    breaker.succeeded()
    fail(breaker, 2)
    assert breaker.allows()


def test_half_open_lets_one_probe_through(breaker, clock):
    """A server that comes back is asked by one call, not by all that have queued up."""
    fail(breaker, 3)
    clock.now += 2
    assert [breaker.allows() for _ in range(5)] == [True, False, False, False, False]


def test_a_probe_that_succeeds_closes_it(breaker, clock):
    """After one good answer all calls go through again."""
    fail(breaker, 3)
    clock.now += 2
    assert breaker.allows()
    breaker.succeeded()
    assert all(breaker.allows() for _ in range(5))


def test_a_probe_that_fails_keeps_it_open(breaker, clock):
    """The time starts anew."""
    fail(breaker, 3)
    clock.now += 2
    assert breaker.allows()
    breaker.failed()
    clock.now += 1.9
    assert not breaker.allows()
    clock.now += 0.1
    assert breaker.allows()


def test_a_probe_that_never_answers_is_followed_by_another(breaker, clock):
    """A caller that vanished must not keep the breaker open for ever."""
    fail(breaker, 3)
    clock.now += 2
    assert breaker.allows()
    clock.now += 2
    assert breaker.allows()
