"""Which places answer of late: a circuit breaker each, and until when a place asked to be left alone. Per process."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

log = logging.getLogger("tollkeeper.gateway")

FAILURES = 5  # in a row open a breaker
OPEN_SECONDS = 30.0
LONGEST_ASIDE_SECONDS = 3_600.0
MOST_PLACES = 10_000  # that are remembered: callers may invent deployments, each of which fails
_PROBE_SECONDS = 1.0  # how long a probe is expected to take, for whoever has to wait for its end

PlaceKey = tuple[str, str]
"""Endpoint id and deployment: quotas and outages are theirs."""


@dataclass(slots=True)
class _State:
    failures: int = 0
    open_until: float = 0.0
    aside_until: float = 0.0
    probing: bool = False


class Breakers:
    """One breaker per place. Closed until `FAILURES` in a row; then open for `OPEN_SECONDS`; then half-open.

    Half-open admits exactly one attempt, the probe, and nobody else until that has ended: a backend that comes back
    must not be hit by everyone who waited. What attempts from before the opening still bring is old news and ignored.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._states: dict[PlaceKey, _State] = {}  # of places with something to remember only

    def wait_seconds(self, place: PlaceKey) -> float:
        """Until the place may be tried; 0.0 now."""
        state = self._states.get(place)
        if state is None:
            return 0.0
        now = self._clock()
        wait = max(state.aside_until, state.open_until) - now
        if wait > 0:
            return wait
        return _PROBE_SECONDS if state.probing else 0.0

    def is_open(self, place: PlaceKey) -> bool:
        """Whether the place failed so often that it is left alone; one that only asked for it is not open."""
        state = self._states.get(place)
        return state is not None and state.failures >= FAILURES

    def begin(self, place: PlaceKey) -> bool | None:
        """Take part in trying the place: None when it may not be tried now, True for the probe of a half-open breaker.

        Whoever got True or False tells the end by `succeeded`, `failed` or `abandoned`, with it.
        """
        if self.wait_seconds(place) > 0:
            return None
        state = self._states.get(place)
        if state is None or state.failures < FAILURES:
            return False
        state.probing = True
        return True

    def succeeded(self, place: PlaceKey, *, probe: bool) -> None:
        """The place answered. A probe's success closes the breaker."""
        if probe:
            log.warning("breaker_closed: deployment %s at endpoint %s answers again", place[1], place[0])
        state = self._states.get(place)
        if state is not None and (probe or state.failures < FAILURES):
            state.failures = 0
            state.probing = False
            if state.aside_until <= self._clock():
                del self._states[place]

    def failed(self, place: PlaceKey, *, probe: bool) -> None:
        """The place failed. The one too many, or the probe, opens the breaker."""
        state = self._state(place)
        if not probe and state.failures >= FAILURES:
            return
        state.probing = False
        state.failures = FAILURES if probe else state.failures + 1
        if state.failures >= FAILURES:
            state.open_until = self._clock() + OPEN_SECONDS
            message = "breaker_open: deployment %s at endpoint %s keeps failing and is left alone for %d s"
            log.warning(message, place[1], place[0], OPEN_SECONDS)

    def abandoned(self, place: PlaceKey, *, probe: bool) -> None:
        """The attempt ended without saying anything about the place; the next one may probe."""
        state = self._states.get(place)
        if probe and state is not None:
            state.probing = False

    def set_aside(self, place: PlaceKey, seconds: float) -> None:
        """Leave the place alone for so long: it asked for that."""
        state = self._state(place)
        state.aside_until = max(state.aside_until, self._clock() + min(seconds, LONGEST_ASIDE_SECONDS))

    def _state(self, place: PlaceKey) -> _State:
        """What is remembered of the place; the place that was the first to fail is forgotten for the one too many."""
        state = self._states.get(place)
        if state is None:
            if len(self._states) >= MOST_PLACES:
                del self._states[next(iter(self._states))]
            state = self._states[place] = _State()
        return state
