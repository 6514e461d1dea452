"""The breaker of each place: when it opens, who may probe, and for how long a place is left alone."""

from gateway.breakers import FAILURES, MOST_PLACES, OPEN_SECONDS, Breakers

PLACE, OTHER = ("azure-weu", "gpt-4o-weu"), ("azure-weu", "gpt-4o-mini-weu")


class Clock:
    """Time that passes when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def opened(clock: Clock) -> Breakers:
    breakers = Breakers(clock)
    for _ in range(FAILURES):
        assert breakers.begin(PLACE) is False
        breakers.failed(PLACE, probe=False)
    return breakers


def test_failures_in_a_row_open_it_for_this_place_only():
    """A success in between starts the count anew; another deployment of the same endpoint is not concerned."""
    clock = Clock()
    breakers = Breakers(clock)
    for _ in range(FAILURES - 1):
        breakers.failed(PLACE, probe=False)
    breakers.succeeded(PLACE, probe=False)
    for _ in range(FAILURES - 1):
        breakers.failed(PLACE, probe=False)
    assert breakers.begin(PLACE) is False
    breakers.failed(PLACE, probe=False)
    assert breakers.begin(PLACE) is None
    assert breakers.wait_seconds(PLACE) == OPEN_SECONDS
    assert breakers.begin(OTHER) is False


def test_half_open_admits_exactly_one_probe_until_it_has_ended(caplog):
    """However long the probe takes, nobody else is let through meanwhile; its success lets everybody in.

    Whoever runs the gateway hears of both.
    """
    clock = Clock()
    breakers = opened(clock)
    clock.now += OPEN_SECONDS
    assert breakers.begin(PLACE) is True
    clock.now += 10 * OPEN_SECONDS
    assert [breakers.begin(PLACE) for _ in range(3)] == [None, None, None]
    assert breakers.wait_seconds(PLACE) > 0
    breakers.succeeded(PLACE, probe=True)
    assert [breakers.begin(PLACE) for _ in range(3)] == [False, False, False]
    assert [record.message.partition(":")[0] for record in caplog.records] == ["breaker_open", "breaker_closed"]


def test_a_probe_that_fails_opens_it_again():
    """One failure is enough then; and after the next pause there is again one probe."""
    clock = Clock()
    breakers = opened(clock)
    clock.now += OPEN_SECONDS
    assert breakers.begin(PLACE) is True
    breakers.failed(PLACE, probe=True)
    assert breakers.wait_seconds(PLACE) == OPEN_SECONDS
    clock.now += OPEN_SECONDS
    assert [breakers.begin(PLACE) for _ in range(2)] == [True, None]


def test_a_probe_that_says_nothing_leaves_the_next_one_to_find_out():
    """A client that left, or a backend that is merely busy: the breaker stays half-open and another call may probe."""
    clock = Clock()
    breakers = opened(clock)
    clock.now += OPEN_SECONDS
    assert breakers.begin(PLACE) is True
    breakers.abandoned(PLACE, probe=True)
    assert [breakers.begin(PLACE) for _ in range(2)] == [True, None]


def test_old_news_change_nothing():
    """Calls begun before it opened end later: their success does not close it, their failure does not keep it open."""
    clock = Clock()
    breakers = opened(clock)
    breakers.succeeded(PLACE, probe=False)
    clock.now += OPEN_SECONDS / 2
    breakers.failed(PLACE, probe=False)
    assert breakers.wait_seconds(PLACE) == OPEN_SECONDS / 2
    clock.now += OPEN_SECONDS / 2
    assert breakers.begin(PLACE) is True


def test_a_busy_place_is_left_alone_for_as_long_as_it_asked():
    """Retry-After is about everybody's calls; the longest that was asked for holds, and no failure is counted."""
    clock = Clock()
    breakers = Breakers(clock)
    breakers.set_aside(PLACE, 8)
    breakers.set_aside(PLACE, 2)
    breakers.succeeded(PLACE, probe=False)  # a call that was under way
    assert (breakers.wait_seconds(PLACE), breakers.begin(PLACE)) == (8, None)
    assert not breakers.is_open(PLACE)
    clock.now += 8
    assert breakers.begin(PLACE) is False


def test_places_that_callers_invent_fill_no_memory():
    """Each unknown deployment fails at the backend and is remembered; the first are forgotten for the last."""
    breakers = opened(Clock())
    for number in range(MOST_PLACES):
        breakers.failed(("azure-weu", f"invented-{number}"), probe=False)
    assert len(breakers._states) == MOST_PLACES
    breakers.abandoned(PLACE, probe=True)  # of one that is forgotten meanwhile
    assert breakers.begin(PLACE) is False
