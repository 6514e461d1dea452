"""The order in which a call's places are tried."""

from types import SimpleNamespace

import pytest

from gateway.asking import Asking
from gateway.attempts import LONGEST_WAIT_SECONDS, Attempts
from gateway.breakers import FAILURES, Breakers
from gateway.call import call_of
from gateway.events import EventQueue
from gateway.providers.base import Target
from shared.config.model import Config, Endpoint, Model
from shared.routing.router import ANYWHERE, Bounds

CAN = frozenset({"chat", "tools"})
EU = Endpoint(id="eu", provider="house", api="openai", url="https://eu.test", region="westeurope", data_zone="eu")
US = Endpoint(id="us", provider="house", api="openai", url="https://us.test", region="eastus", data_zone="us")
MODELS = {
    "main": Model("main", "house", ("main-eu", "main-us", "main-lost"), CAN, fallbacks=("plain", "spare")),
    "plain": Model("plain", "house", ("plain-eu",), frozenset({"chat"})),
    "spare": Model("spare", "house", ("spare-eu",), CAN),
}
CALL = call_of("chat", {"model": "main", "messages": []}, 100)


class Clock:
    """Time that passes when told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def endpoint_of(provider, deployment):
    return {"eu": EU, "us": US}.get(deployment.rpartition("-")[2])


def attempts(clock=None):
    config = Config("1", {}, {}, (), MODELS)
    return Attempts(endpoint_of, lambda: config, Breakers(clock or Clock()))


def answer(deployment="main-eu"):
    return SimpleNamespace(model="main", provider="house", deployment=deployment, routing=None)


def order(known, call=CALL, deployment="main-eu", bounds=ANYWHERE):
    return known.order(call, answer(deployment), bounds)


def names(places):
    return [place.deployment for place, _ in places]


def test_own_deployment_then_the_others_then_fallbacks():
    """The one that the check named comes first, wherever config lists it; what no endpoint serves is left out."""
    assert names(order(attempts())) == ["main-eu", "main-us", "plain-eu", "spare-eu"]
    assert names(order(attempts(), deployment="main-us")) == ["main-us", "main-eu", "plain-eu", "spare-eu"]


def test_needs_and_bounds_hold_for_all_of_them():
    """A call with tools skips the fallback without; one that must stay in the EU skips what lies elsewhere."""
    tools = [{"type": "function", "function": {"name": "f"}}]
    with_tools = call_of("chat", {"model": "main", "messages": [], "tools": tools}, 100)
    assert names(order(attempts(), with_tools)) == ["main-eu", "main-us", "spare-eu"]
    assert names(order(attempts(), bounds=Bounds(data_zone="eu"))) == ["main-eu", "plain-eu", "spare-eu"]


def test_the_first_ones_name_may_be_written_over_on_the_way():
    """Whoever tries another place notes it in the answer; the order goes on from where it was."""
    known = attempts()
    said = answer()
    found = []
    for place, _ in known.order(CALL, said, ANYWHERE):
        found.append(place.deployment)
        said.deployment = place.deployment
    assert found == ["main-eu", "main-us", "plain-eu", "spare-eu"]


def test_what_is_left_alone_comes_last_if_it_is_worth_the_wait():
    """A busy place is waited for after all others, a little longer than it asked; one that is busy for long is not."""
    clock = Clock()
    known = attempts(clock)
    known.breakers.set_aside(("eu", "main-eu"), 1)
    known.breakers.set_aside(("us", "main-us"), LONGEST_WAIT_SECONDS + 1)
    places = list(order(known))
    assert names(places) == ["plain-eu", "spare-eu", "main-eu"]
    assert [wait for _, wait in places[:2]] == [0, 0]
    assert 1 <= places[2][1] <= 1.5


def test_what_failed_is_tried_once_more_after_all_others():
    """Only where that may help, after a pause, and never a third time."""
    known = attempts()
    tries = order(known)
    found = []
    for place, wait in tries:
        found.append((place.deployment, wait > 0))
        tries.failed(place, again=place.deployment != "main-us")
    first = [("main-eu", False), ("main-us", False), ("plain-eu", False), ("spare-eu", False)]
    assert found == [*first, ("main-eu", True), ("plain-eu", True), ("spare-eu", True)]


def test_a_model_that_the_budget_refused_is_not_asked_again():
    """Its other deployments cost the same."""
    tries = order(attempts())
    found = []
    for place, _ in tries:
        found.append(place.deployment)
        tries.close("main")
    assert found == ["main-eu", "plain-eu", "spare-eu"]


@pytest.mark.parametrize(
    ("is_open", "code", "status"), [(True, "upstream_unavailable", 503), (False, "upstream_busy", 429)]
)
def test_nothing_to_try_says_until_when(is_open, code, status):
    """Broken and busy are told apart, and Retry-After is the time until the first place may be tried."""
    known = attempts()
    for key, seconds in (
        (("eu", "main-eu"), 20),
        (("us", "main-us"), 10),
        (("eu", "plain-eu"), 30),
        (("eu", "spare-eu"), 30),
    ):
        known.breakers.set_aside(key, seconds)
        for _ in range(FAILURES if is_open else 0):
            known.breakers.failed(key, probe=False)
    tries = order(known)
    assert list(tries) == []
    error = tries.nowhere()
    assert (error.code, error.http_status, error.retry_after_seconds) == (code, status, 30 if is_open else 10)


def test_a_model_that_nobody_serves_is_named():
    """The caller learns that it is the gateway's configuration, not the model's mood."""
    known = attempts()
    tries = known.order(CALL, answer("main-eu"), Bounds(region="moon"))
    assert list(tries) == []
    error = tries.nowhere()
    assert (error.code, error.http_status) == ("model_not_served", 404)
    assert "region moon" in error.message


async def test_an_attempt_that_comes_too_late_says_when_to_come_again():
    """Between the order's look and the attempt another call may find the place busy: the client is told a time."""
    breakers, queue = Breakers(Clock()), EventQueue(SimpleNamespace())
    breakers.set_aside(("eu", "main-eu"), 7.0)
    queue.reserve()
    exchange = SimpleNamespace(call=CALL, answer=SimpleNamespace(disabled_tools=[]))
    target = Target("main", "house", "main-eu", EU, None)
    outcome = await Asking(SimpleNamespace(), queue, breakers).ask(exchange, ("eu", "main-eu"), target, None)
    assert outcome.reply.headers()["Retry-After"] == "7"
    assert queue._taken == 0
