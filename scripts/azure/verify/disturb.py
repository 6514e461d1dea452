"""Points that only a gateway told to fail can show. Each change is for all callers, and taken back at the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import quote

from scripts.azure.arm import ArmError
from scripts.azure.gateway import API_VERSION, named_value, set_named_value
from scripts.azure.verify.calls import MODELS, Call
from scripts.azure.verify.errors import NotRestoredError
from scripts.azure.verify.observe import Observer
from scripts.azure.verify.points_calls import EVENT_TIME, judge_event_time
from scripts.azure.verify.points_log import LOGGED
from scripts.azure.verify.points_settings import LOCAL_AUTH, judge_keyless, judge_local_auth
from scripts.azure.verify.probe import Point, Verdict, as_assumed, differs, not_measured
from scripts.azure.verify.resources import API, NAMESPACE_VERSION
from scripts.azure.verify.seen import Answer, Event

DEAD_OPENID = "https://tk-verify.invalid/.well-known/openid-configuration"
DEAD_BACKEND, DEAD_BACKEND_URL = "tk-verify-refuses", "https://127.0.0.1:9/openai"
LIST = Call("models", MODELS)
LIST_BY_TOKEN = Call("models by token", MODELS, credential="token")
_ROUNDED_SECONDS = 1.0  # Retry-After is whole seconds, rounded up


class Outcome(NamedTuple):
    """The answer that a change was made for (None: none in time), and the refusals of another kind before it."""

    answer: Answer | None
    others: tuple[str, ...] = ()


class Workshop:
    """Changes the gateway for a while."""

    def __init__(self, observer: Observer) -> None:
        self.observer = observer
        self.system = observer.system
        self.arm = self.system.arm
        self.gateway_id = self.system.gateway_id
        self.say = self.system.say

    @contextmanager
    def changed(self, name: str, change: Callable[[str], str]) -> Iterator[None]:
        """A named value is another while the block runs."""
        old = named_value(self.arm, self.gateway_id, name)
        new = change(old)
        by_hand = f"az apim nv update {self._in_cli} --named-value-id {name} --value '{old}'"
        self.say(f"CHANGE {name} from {old!r} to {new!r}; to restore by hand: {by_hand}")
        try:
            set_named_value(self.arm, self.gateway_id, name, new)
            yield
        finally:
            try:
                # Azure may have refused the change, but also have made it and failed afterwards.
                if named_value(self.arm, self.gateway_id, name) != old:
                    set_named_value(self.arm, self.gateway_id, name, old)
            except ArmError as error:
                raise NotRestoredError(f"{name} IS STILL CHANGED ({error}); run: {by_hand}") from error
            self.say(f"RESTORED {name}")

    @contextmanager
    def dead_backend(self) -> Iterator[None]:
        """A backend that refuses connections exists while the block runs."""
        path = f"{self.gateway_id}/backends/{DEAD_BACKEND}"
        by_hand = f"az rest --method delete --headers If-Match=* --url '{path}?api-version={API_VERSION}'"
        self.say(f"CREATE the backend {DEAD_BACKEND}; to delete by hand: {by_hand}")
        try:
            self.arm.put(path, API_VERSION, {"properties": {"url": DEAD_BACKEND_URL, "protocol": "http"}})
            yield
        finally:
            try:
                self.arm.delete(path, API_VERSION)
            except ArmError as error:
                raise NotRestoredError(
                    f"the backend {DEAD_BACKEND} IS STILL THERE ({error}); run: {by_hand}"
                ) from error
            self.say(f"DELETED the backend {DEAD_BACKEND}")

    @contextmanager
    def keyless_log(self) -> Iterator[None]:
        """The namespace of the LLM log takes no shared keys while the block runs."""
        path = self.system.namespace_id
        by_hand = f"az resource update --ids {path} --set properties.disableLocalAuth=false"
        self.say(f"CHANGE disableLocalAuth of {path} to true; to restore by hand: {by_hand}")
        try:
            self._set_keyless(path, is_keyless=True)
            yield
        finally:
            try:
                self._set_keyless(path, is_keyless=False)
            except ArmError as error:
                raise NotRestoredError(f"{path} STILL TAKES NO KEYS ({error}); run: {by_hand}") from error
            self.say("RESTORED disableLocalAuth")

    def save_policy(self) -> None:
        """Save the API's policy as it is."""
        path = f"{self.gateway_id}/apis/{API}/policies/policy"
        policy = self.arm.get(path, API_VERSION, format="rawxml")["properties"]["value"]
        body = {"properties": {"format": "rawxml", "value": policy}}
        self.arm.put(path, API_VERSION, body, if_match="*")

    def until(self, name: str, call: Call, is_effect: Callable[[Answer], bool]) -> Outcome:
        """Repeat a call until the change shows."""
        patience = self.system.patience
        deadline = time.monotonic() + patience.change
        others: dict[str, None] = {}
        while True:
            answer = self.system.caller.ask(call)
            if is_effect(answer):
                self.say(f"{name}: {answer.told()}")
                return Outcome(answer, tuple(others))
            if answer.status != 200:
                others[answer.told()] = None
            if time.monotonic() >= deadline:
                self.say(f"{name}: no effect after {patience.change:.0f} s")
                return Outcome(None, tuple(others))
            time.sleep(patience.change_poll)

    def _set_keyless(self, path: str, *, is_keyless: bool) -> None:
        self.arm.patch(path, NAMESPACE_VERSION, {"properties": {"disableLocalAuth": is_keyless}})

    @property
    def _in_cli(self) -> str:
        parts = self.gateway_id.split("/")
        return f"--resource-group {parts[4]} --service-name {parts[-1]}"


def refused_as(code: str) -> Callable[[Answer], bool]:
    """Whether an answer is this refusal."""
    return lambda answer: answer.error_code == code


LIMITS = (
    ("tk-rate-calls", "rate_limit_exceeded", 429),
    ("tk-tokens-per-minute", "token_limit_exceeded", 429),
    ("tk-token-quota", "token_quota_exceeded", 403),
)


def measure_limits(workshop: Workshop) -> Verdict:
    """Each limit at 1, one after the other."""
    outcomes = {}
    for name, code, _ in LIMITS:
        call = LIST if name == "tk-rate-calls" else workshop.system.calls["whole"]
        with workshop.changed(name, lambda _: "1"):
            outcomes[name] = workshop.until(name, call, refused_as(code))
    return judge_limits(outcomes)


def judge_limits(outcomes: Mapping[str, Outcome]) -> Verdict:
    """Whether each limit ends in its own code and status."""
    wrong, unseen = [], []
    for name, code, status in LIMITS:
        answer, others = outcomes[name]
        if answer is None and others:
            wrong.append(f"{name} = 1 ended in {', '.join(others)} instead of {code}")
        elif answer is None:
            unseen.append(name)
        elif answer.status != status:
            wrong.append(f"{code} came as {answer.status}")
    if wrong:
        return differs("; ".join(wrong))
    if unseen:
        return not_measured(f"no refusal in time after {', '.join(unseen)} = 1")
    return as_assumed(", ".join(f"{status} {code}" for _, code, status in LIMITS))


def measure_dead_issuer(workshop: Workshop) -> Verdict:
    """A valid token while the issuer's keys cannot be read."""
    workshop.system.caller.token = workshop.system.token(
        named_value(workshop.arm, workshop.gateway_id, "tk-entra-audience")
    )
    before = workshop.system.caller.ask(LIST_BY_TOKEN)
    if before.status != 200:
        return not_measured(f"a token of this caller is not accepted to begin with: {before.told()}")
    with workshop.changed("tk-entra-openid-config", lambda _: DEAD_OPENID):
        outcome = workshop.until("dead issuer", LIST_BY_TOKEN, lambda answer: answer.status in (401, 500, 503))
    return judge_dead_issuer(outcome.answer)


def judge_dead_issuer(answer: Answer | None) -> Verdict:
    """Whether it is told as an outage, not as a bad token."""
    if answer is None:
        return not_measured("tokens were accepted as before: the keys are still remembered")
    seen = answer.told()
    return as_assumed(seen) if seen == "503 identity_unavailable" else differs(seen)


def measure_dead_backend(workshop: Workshop) -> Verdict:
    """A call while no connection to the model can be made."""
    tries = int(named_value(workshop.arm, workshop.gateway_id, "tk-retry-count")) + 1
    whole = workshop.system.calls["whole"]
    with workshop.dead_backend(), workshop.changed("tk-backend-id", lambda _: DEAD_BACKEND):
        outcome = workshop.until("dead backend", whole, lambda answer: answer.status >= 500)
    if outcome.answer is None:
        return judge_dead_backend(None, [], tries)
    workshop.observer.seen.answers["dead backend"] = outcome.answer
    return judge_dead_backend(outcome.answer, workshop.observer.wait_for_event("dead backend"), tries)


def judge_dead_backend(answer: Answer | None, events: Sequence[Event], tries: int) -> Verdict:
    """Whether retry tries again after a refused connection, and one event tells."""
    if answer is None:
        return not_measured("calls were served as before")
    if answer.told() != "502 upstream_unreachable":
        return not_measured(f"the connection was not refused: {answer.told()}")
    attempts = [event.data.get("attempt") for event in events]
    told = f"{len(events)} event, attempt {attempts[0] if attempts else '-'} of {tries}"
    return as_assumed(told) if attempts == [tries] else differs(told)


def measure_unenforced(workshop: Workshop) -> Verdict:
    """A call of a caller whom nobody checks."""
    entry = f"s:{quote(workshop.system.subscription.lower(), safe='')}=off"
    seen = workshop.observer.seen

    def is_unchecked(answer: Answer) -> bool:
        seen.answers["unenforced"] = answer
        return any(event.data.get("decision") == "off" for event in workshop.observer.wait_for_event("unenforced"))

    with workshop.changed("tk-enforcement-by-caller", lambda old: entry if old == "-" else f"{entry},{old}"):
        outcome = workshop.until("unenforced", workshop.system.calls["whole"], is_unchecked)
    if outcome.answer is None:
        return not_measured("no call passed unchecked in time")
    return judge_event_time(seen, "unenforced")


def measure_save(workshop: Workshop) -> Verdict:
    """A caller at the rate limit while the API's policy is saved."""
    passed = False
    with workshop.changed("tk-rate-calls", lambda _: "2"):
        refused = workshop.until("limited", LIST, refused_as("rate_limit_exceeded")).answer
        if refused is not None:
            over = time.monotonic() + float(refused.headers.get("retry-after", "1")) - _ROUNDED_SECONDS
            workshop.save_policy()
            while time.monotonic() < over and not passed:
                passed = workshop.system.caller.ask(LIST).status == 200 and time.monotonic() < over
                time.sleep(min(workshop.system.patience.change_poll, max(0.0, over - time.monotonic())))
    return judge_save(refused, passed=passed)


def judge_save(refused: Answer | None, *, passed: bool) -> Verdict:
    """Whether the counter survived."""
    if refused is None:
        return not_measured("the limit did not show in time")
    if passed:
        return differs("a call passed before Retry-After was over: a save begins the counter anew")
    return as_assumed("calls stayed refused until Retry-After was over")


def measure_keyless(workshop: Workshop) -> Verdict:
    """The log of a call that is made while its namespace takes no shared keys."""
    observer, system = workshop.observer, workshop.system
    before = judge_local_auth(observer.seen)
    if observer.seen.settings.local_auth_disabled is not False or not any(map(observer.seen.records_of, LOGGED)):
        return before
    with workshop.keyless_log():
        time.sleep(system.patience.keyless)
        answer = observer.seen.answers["keyless log"] = system.caller.ask(system.calls["whole"])
        records = observer.wait_for_record("keyless log") if answer.status == 200 else []
    return judge_keyless(answer, records, system.patience.log)


@dataclass(frozen=True)
class Disturbance:
    """A point, what is changed for it, and how it is measured."""

    point: Point
    changes: str
    measure: Callable[[Workshop], Verdict]
    series: int = 0  # of calls that cost something, each repeated until the change shows


DISTURBANCES = (
    Disturbance(
        Point("10", "a call above each limit", "ends in the limit's own code and status"),
        "tk-rate-calls, tk-tokens-per-minute and tk-token-quota to 1: callers are refused",
        measure_limits,
        series=2,
    ),
    Disturbance(
        Point("11", "a token while its issuer is away", "is 503 identity_unavailable, not 401"),
        "tk-entra-openid-config to an address that is none: callers with tokens are refused",
        measure_dead_issuer,
    ),
    Disturbance(
        Point("13", "a backend that refuses connections", "is tried again; one event tells"),
        "tk-backend-id to a backend that refuses connections: no call is served",
        measure_dead_backend,
        series=1,
    ),
    Disturbance(
        EVENT_TIME,
        "tk-enforcement-by-caller: the subscription of this run is not checked",
        measure_unenforced,
        series=1,
    ),
    Disturbance(
        Point("22", "a save of the API's policy", "begins no rate counter anew"),
        "tk-rate-calls to 2, and the API's policy is saved as it is: callers are refused",
        measure_save,
    ),
    Disturbance(
        LOCAL_AUTH,
        "disableLocalAuth of the LLM log's namespace for up to 20 minutes: streams of that time may stay estimates",
        measure_keyless,
        series=1,
    ),
)
