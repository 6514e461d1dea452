"""`make verify` around the verdicts: what a run costs, what it changes and restores, what it waits for, how it ends."""

from __future__ import annotations

import io
import json
import os
import re
import signal
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from azure.core.exceptions import ServiceRequestError

from scripts.azure.arm import ArmError
from scripts.azure.verify import __main__ as command
from scripts.azure.verify.calls import Call, planned_calls
from scripts.azure.verify.disturb import DEAD_BACKEND, DISTURBANCES, LIST, Workshop
from scripts.azure.verify.errors import CannotRunError, NotRestoredError
from scripts.azure.verify.hubs import CONSUMER_GROUP, LLM_LOGS, USAGE, Message
from scripts.azure.verify.ledger import TABLE
from scripts.azure.verify.observe import Observer, Patience, System
from scripts.azure.verify.points import points
from scripts.azure.verify.run import verify, wanted_points
from scripts.azure.verify.seen import Answer
from scripts.azure.verify.target import caller_of, most_usd, read_outputs, target_of
from shared.config.loader import load_config
from shared.config.model import Config
from shared.config.source import DirectorySource

GATEWAY = "/subscriptions/0/resourceGroups/rg/providers/Microsoft.ApiManagement/service/apim"
RATE = f"{GATEWAY}/namedValues/tk-rate-calls"
OUTPUTS: dict[str, Any] = {
    "AZURE_SUBSCRIPTION_ID": "0",
    "AZURE_RESOURCE_GROUP": "rg",
    "GATEWAY_URL": "https://apim.azure-api.net",
    "GATEWAY_ID": GATEWAY,
    "USAGE_NAMESPACE": "usage.servicebus.windows.net",
    "USAGE_HUB": "usage",
    "LLM_LOGS_NAMESPACE": "logs.servicebus.windows.net",
    "LLM_LOGS_HUB": "llm-logs",
    "LEDGER_ACCOUNT": "ledger",
    "SUBSCRIPTIONS": {"search": ["search-prod"], "research": ["research-prod"]},
    "MODEL_DEPLOYMENTS": ["gpt-4o-weu", "gpt-4o-mini-weu", "o4-mini-weu", "text-embedding-3-small-weu"],
}
REPOSITORY = Path(__file__).parents[3]


class FakeArm:
    """Named values and the namespace, kept."""

    def __init__(self, refuses: Callable[[str, Any], bool] = lambda path, value: False) -> None:
        self.values: dict[str, Any] = {RATE: "600"}
        self.refuses = refuses

    def get(self, path: str, api_version: str, **query: str) -> dict[str, Any]:
        """A named value."""
        if path not in self.values:
            raise ArmError(404, "ResourceNotFound", path)
        return {"properties": {"displayName": "x", "value": self.values[path]}}

    def get_all(self, path: str, api_version: str, **query: str) -> list[dict[str, Any]]:
        """Nothing is listed."""
        return []

    def patch(self, path: str, api_version: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Keep its one property, or refuse to."""
        (value,) = body["properties"].values()
        if self.refuses(path, value):
            raise ArmError(409, "Conflict", "the service is being updated")
        self.values[path] = value
        return {}


class FakeCaller:
    """Answers what it is told to, one after the other, the last again and again."""

    token = ""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    def ask(self, call: Call) -> Answer:
        """The next answer."""
        self.asked.append(call.name)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


class FakeHubs:
    """Hubs that hold these messages."""

    def __init__(self, *messages: Message) -> None:
        self.held = list(messages)
        self.is_open = False

    def start(self) -> None:
        """Open."""
        self.is_open = True

    def messages(self) -> list[Message]:
        """What is new."""
        new, self.held = self.held, []
        return new

    def close(self) -> None:
        """Closed."""
        self.is_open = False


def system(caller: FakeCaller, hubs: FakeHubs | None = None, arm: FakeArm | None = None, **more: Any) -> System:
    """A system of fakes that has no patience."""
    said: list[str] = more.pop("said", [])
    patience = Patience(events=0.05, log=0.05, late_records=0, ledger=0.05, poll=0.01, change=0.05, change_poll=0.01)
    given: dict[str, Any] = {
        "caller": caller,
        "calls": planned_calls("gpt-4o-mini-weu", "word", "session", 1000),
        "hubs": hubs or FakeHubs(),
        "arm": arm or FakeArm(),
        "read_rows": lambda ids, times: [],
        "gateway_id": GATEWAY,
        "namespace_id": "n",
        "subscription": "search-prod",
        "word": "word",
        "scope_type": "session",
        "token": lambda audience: "token",
        "patience": patience,
        "say": said.append,
    }
    return System(**given | more)


def ok(request_id: str = "a") -> Answer:
    """A served call."""
    now = datetime.now(UTC)
    return Answer(200, {"x-request-id": request_id}, "{}", started=now, ended=now)


@pytest.fixture(scope="module")
def config() -> Config:
    """The project's own configuration."""
    return load_config(DirectorySource(REPOSITORY / "config").read(), "config")


def test_every_point_of_the_readme_is_listed_once() -> None:
    """And those that only the hubs and the ledger show."""
    assert [point.id for point in points()] == [*map(str, range(1, 24)), *"abcdefg"]
    text = (REPOSITORY / "apim-policies" / "README.md").read_text()
    assert "\n23. " in text
    assert "\n24. " not in text


def test_the_cheapest_model_that_can_speak_is_called(config: Config) -> None:
    """No embedding, nothing that is not deployed, and a model that thinks only where there is no other."""
    who = caller_of(target_of(OUTPUTS), config, None, None)
    assert (who.deployment, who.subscription, who.scope_type) == ("gpt-4o-mini-weu", "research-prod", "session")
    thinking = {**OUTPUTS, "MODEL_DEPLOYMENTS": ["gpt-5.4-mini", "gpt-5.4-nano", "text-embedding-3-small-weu"]}
    assert caller_of(target_of(thinking), config, None, None).deployment == "gpt-5.4-nano"
    assert caller_of(target_of(OUTPUTS), config, "search-prod", "gpt-4o-weu").deployment == "gpt-4o-weu"
    with pytest.raises(CannotRunError, match="lists no such deployment"):
        caller_of(target_of(OUTPUTS), config, None, "gpt-9")
    with pytest.raises(CannotRunError, match="lists a subscription"):
        caller_of(target_of({**OUTPUTS, "SUBSCRIPTIONS": {}}), config, None, None)


def test_a_run_costs_a_fraction_of_a_cent(config: Config) -> None:
    """White space costs nothing; a call that no model answers neither."""
    who = caller_of(target_of(OUTPUTS), config, None, None)
    calls = planned_calls(who.deployment, "word", "session", 2_000_000)
    assert 0 < most_usd(calls.values(), who) < 0.001
    assert most_usd([calls["unknown key"], LIST], who) == 0
    assert len(calls["unread"].content) > 2_000_000
    assert calls["unread"].input_tokens < 100


def test_a_model_that_thinks_is_given_the_tokens_for_it(config: Config) -> None:
    """With the few tokens of a short answer it would say nothing; and it refuses `max_tokens`."""
    thinking = {**OUTPUTS, "MODEL_DEPLOYMENTS": ["gpt-5.4-nano"]}
    who = caller_of(target_of(thinking), config, None, None)
    calls = planned_calls(who.deployment, "word", "session", 2_000_000, reasons=who.reasons)
    bodies = {name: call.body or {} for name, call in calls.items()}
    assert {name for name, body in bodies.items() if "max_tokens" in body} == set()
    assert {name for name, body in bodies.items() if body.get("reasoning_effort") != "low"} == {"response stream"}
    assert bodies["response stream"]["reasoning"] == {"effort": "low"}
    assert min(call.output_tokens for call in calls.values() if call.output_tokens) > 1000
    assert 0 < most_usd(calls.values(), who) < 0.02


def test_outputs_that_are_not_there_are_named(tmp_path: Path) -> None:
    """A file that is none, an output that an older template lacks."""
    file = tmp_path / "outputs.json"
    for text in ("", "[]", '{"GATEWAY_URL": "x"}'):
        file.write_text(text)
        with pytest.raises(CannotRunError, match=r"outputs\.json"):
            read_outputs("dev", file)
    with pytest.raises(CannotRunError, match="name no LEDGER_ACCOUNT"):
        target_of({name: value for name, value in OUTPUTS.items() if name != "LEDGER_ACCOUNT"})


@pytest.mark.parametrize("ending", [RuntimeError, KeyboardInterrupt])
def test_a_change_is_taken_back_however_the_run_ends(ending: type[BaseException]) -> None:
    """And the way to do it by hand is told before."""
    arm, said = FakeArm(), []
    workshop = Workshop(Observer(system(FakeCaller(ok()), arm=arm, said=said)))

    def meanwhile() -> None:
        assert arm.values[RATE] == "6000"
        assert said == [
            "CHANGE tk-rate-calls from '600' to '6000'; to restore by hand: az apim nv update --resource-group rg "
            "--service-name apim --named-value-id tk-rate-calls --value '600'"
        ]
        raise ending

    with pytest.raises(ending), workshop.changed("tk-rate-calls", lambda old: f"{old}0"):
        meanwhile()
    assert arm.values[RATE] == "600"
    assert said[-1] == "RESTORED tk-rate-calls"


def test_a_change_that_cannot_be_taken_back_is_told() -> None:
    """With the command."""
    arm, said = FakeArm(lambda path, value: value == "600"), []
    workshop = Workshop(Observer(system(FakeCaller(ok()), arm=arm, said=said)))
    with pytest.raises(NotRestoredError, match=r"IS STILL CHANGED .*--value '600'"):  # noqa: SIM117 - raised at its end
        with workshop.changed("tk-rate-calls", lambda old: "1"):
            pass
    assert said[-1].startswith("CHANGE")
    arm.values[RATE] = "600"
    with pytest.raises(NotRestoredError):  # the run ends with it, whatever else there is to measure
        verify(system(FakeCaller(ok()), arm=arm), {"10", "22"}, disturb=True)


def test_keys_of_the_log_that_cannot_be_switched_on_again_are_told() -> None:
    """With the command: without them no stream is measured."""
    arm, said = FakeArm(lambda path, value: value is False), []
    workshop = Workshop(Observer(system(FakeCaller(ok()), arm=arm, said=said)))
    with pytest.raises(NotRestoredError, match=r"STILL TAKES NO KEYS .*disableLocalAuth=false"), workshop.keyless_log():
        assert arm.values["n"] is True
    assert len(said) == 1


def test_a_change_that_azure_refuses_is_no_verdict() -> None:
    """Nothing was changed, so nothing was learned; the run goes on and closes what it opened."""
    hubs = FakeHubs()
    fakes = system(FakeCaller(ok()), hubs, FakeArm(lambda path, value: True))
    results, _ = verify(fakes, {"10"}, disturb=True)
    assert results[0].verdict.word == "not measured"
    assert "Azure refuses the change: Conflict (409)" in results[0].verdict.seen
    assert not hubs.is_open


def test_without_disturb_nothing_is_changed() -> None:
    """Each such point says what it would change."""
    arm = FakeArm(lambda path, value: pytest.fail("changed"))
    results, _ = verify(system(FakeCaller(ok()), arm=arm), {each.point.id for each in DISTURBANCES}, disturb=False)
    assert {result.verdict.word for result in results} == {"not measured"}
    assert all("--disturb would change" in result.verdict.seen for result in results)


def test_a_plain_call_that_is_refused_ends_the_run() -> None:
    """Nothing behind it could be looked at; the hubs are closed."""
    hubs = FakeHubs()
    refusal = Answer(402, {}, json.dumps({"error": {"code": "budget_exhausted", "message": "spent"}}))
    with pytest.raises(CannotRunError, match="402 budget_exhausted spent"):
        verify(system(FakeCaller(refusal), hubs), {"14"}, disturb=False)
    assert not hubs.is_open


def test_only_what_the_points_need_is_called() -> None:
    """One point, one call."""
    caller = FakeCaller(ok())
    verify(system(caller), {"8"}, disturb=False)
    assert caller.asked == ["unknown key"]


def test_what_others_say_is_not_kept() -> None:
    """Of other callers' messages only ids stay, of our own prompts only that they were found."""
    theirs = {
        "category": "GatewayLlmLogs",
        "time": "2999-01-01T00:00:00Z",
        "correlationId": "b",
        "properties": {"x": 1},
    }
    ours = {"category": "GatewayLlmLogs", "correlationId": "A", "properties": {"requestMessages": "the word"}}
    now = datetime.now(UTC)
    hubs = FakeHubs(
        Message(LLM_LOGS, json.dumps({"Records": [theirs, ours, "?"]}).encode(), now),
        Message(USAGE, b'{"id": "b", "data": {}}', now),
        Message(USAGE, b'{"id": "a", "time": "t", "data": {"status": 200}}', now),
        Message(USAGE, b"no json", now),
    )
    observer = Observer(system(FakeCaller(ok("a")), hubs))
    observer.call("whole")
    observer.take_in()
    assert [record.correlation_id for record in observer.seen.records] == ["a"]
    assert observer.seen.strangers == ["b"]
    assert observer.seen.prompt_in_log
    assert [event.id for event in observer.seen.events] == ["a"]


def test_a_ledger_out_of_reach_leaves_its_point_alone() -> None:
    """The others are measured."""

    def read(ids: object, times: object) -> list[Any]:
        raise ServiceRequestError("no route to ledger.table.core.windows.net")

    results, cost = verify(system(FakeCaller(ok()), read_rows=read), {"8", "g"}, disturb=False)
    assert {result.point.id: result.verdict.word for result in results} == {"8": "differs", "g": "not measured"}
    assert "no route" in results[1].verdict.seen
    assert cost == "not known, the ledger was not read"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--points", "99"], "99: is no point"),
        (["--outputs", "nowhere.json"], "nowhere.json"),
        (["--max-cost-usd", "0.0000001"], "above the cap"),
        (["--disturb"], "not confirmed"),
    ],
)
def test_what_stops_a_run_is_said_in_a_sentence(
    arguments: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, before any call."""
    file = tmp_path / "outputs.json"
    file.write_text(json.dumps({name: {"value": value} for name, value in OUTPUTS.items()}))

    class Arm(FakeArm):
        def __init__(self, credential: object) -> None:
            super().__init__()
            self.values = {f"{GATEWAY}/namedValues/tk-buffer-bytes": "2097152"}

        def __enter__(self) -> Arm:
            return self

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(command.signal, "signal", lambda *_: None)
    monkeypatch.setattr(command, "open_credential", lambda: None)
    monkeypatch.setattr(command, "Arm", Arm)
    monkeypatch.setattr("sys.stdin", io.StringIO("no\n"))
    assert command.main(["dev", "--outputs", str(file), *arguments]) == 2
    assert told in capsys.readouterr().err


def test_without_api_management_there_is_nothing_to_measure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing differs from what is assumed of it, and the run says why."""
    file = tmp_path / "outputs.json"
    file.write_text(json.dumps({name: {"value": value} for name, value in (OUTPUTS | {"GATEWAY_ID": ""}).items()}))
    monkeypatch.setattr(command.signal, "signal", lambda *_: None)
    assert command.main(["dev", "--outputs", str(file)]) == 0
    assert "api_management is false" in capsys.readouterr().err


def test_the_list_needs_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """No environment, no sign-in."""
    assert command.main(["--list"]) == 0
    assert "\n18 a stream's correlationId" in capsys.readouterr().out


def test_points_are_chosen_by_id() -> None:
    """All when none is named."""
    assert wanted_points(["12", "a"]) == {"12", "a"}
    assert len(wanted_points([])) == 30


def test_a_cancelled_pipeline_takes_its_change_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGTERM arrives while the gateway is changed; the command ends as after Ctrl-C."""
    arm = FakeArm()

    class Cancelled(FakeCaller):
        def ask(self, call: Call) -> Answer:
            assert arm.values[RATE] == "1"
            os.kill(os.getpid(), signal.SIGTERM)
            return super().ask(call)

    hubs, before = FakeHubs(), {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGHUP)}
    monkeypatch.setattr(command, "_run", lambda _: verify(system(Cancelled(ok()), hubs, arm), {"10"}, disturb=True))
    try:
        assert command.main(["dev"]) == 2
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert arm.values[RATE] == "600"
    assert not hubs.is_open


def test_names_are_those_of_the_templates() -> None:
    """Its consumer group, the ledger's table, and the named values and the API that it changes."""
    names = yaml.safe_load((REPOSITORY / "infra" / "names.yaml").read_text())
    assert all(CONSUMER_GROUP in hub["consumer_groups"] for hub in names["hubs"].values())
    assert names["table_prefix"] + "ledger" == TABLE
    listed = {each["name"] for each in yaml.safe_load((REPOSITORY / "apim-policies" / "named-values.yaml").read_text())}
    used = set(re.findall(r'"(tk-[a-z-]+)"', (REPOSITORY / "scripts/azure/verify/disturb.py").read_text()))
    assert used - {DEAD_BACKEND} <= listed
