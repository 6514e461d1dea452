"""The modes that hold for every caller whom the generated maps do not name: an operator's switches for an emergency."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from starlette.responses import Response

from local.apim.settings import POLICIES
from tests.support.policy_bench import Says, admission, refusal, start_bench

MINI = {"decision": "downgrade", "model": "gpt-4o-mini", "deployment": "gpt-4o-mini-weu"}
TOOLS = [{"type": "web_search"}]
SAYS: dict[str, Says] = {
    "refuses": lambda asked: refusal(402, "budget_exhausted"),
    "is away": lambda asked: Response("no", 500),
    "downgrades": lambda asked: admission(asked, disabled_tools=["web_search"], **MINI),
}


@pytest.mark.parametrize(
    ("enforcement", "outcomes"),
    [
        ("on", {"refuses": (402, None), "is away": (503, None), "downgrades": (200, "downgrade")}),
        (
            "observe",
            {
                "refuses": (200, "observe_refuse"),
                "is away": (200, "fail_open"),
                "downgrades": (200, "observe_downgrade"),
            },
        ),
        ("off", {"refuses": (200, "off"), "is away": (200, "off"), "downgrades": (200, "off")}),
    ],
)
async def test_enforcement_of_everybody(
    mono: None, enforcement: str, outcomes: dict[str, tuple[int, str | None]]
) -> None:
    """on obeys, observe asks and serves what was asked for, off asks nobody; each call served has one event."""
    async with start_bench({"tk-enforcement": enforcement}) as bench:
        for service, (status, decision) in outcomes.items():
            answer = await bench.post(bench.subscribe(says=SAYS[service]), tools=TOOLS)
            decisions = [event["data"]["decision"] for event in await bench.events(answer)]
            assert (service, answer.status_code, decisions) == (service, status, [decision] if decision else [])
            if enforcement != "on":
                sent = bench.model.last[2]
                assert (sent["model"], sent["tools"]) == ("gpt-4o-weu", TOOLS)
        assert len(bench.service.asked) == (0 if enforcement == "off" else len(outcomes))


async def test_a_caller_of_the_maps_keeps_its_own_enforcement(mono: None) -> None:
    """The switch for everybody does not reach those whose tenant says otherwise."""
    async with start_bench({"tk-enforcement": "off"}) as bench:
        answer = await bench.post(bench.subscribe("observed", SAYS["refuses"]))
        assert (await bench.event(answer))["data"]["decision"] == "observe_refuse"


@pytest.mark.parametrize(
    ("fail_mode", "known", "unknown"), [("closed", 503, 503), ("open", 200, 200), ("cached", 200, 503)]
)
async def test_fail_mode_of_everybody(mono: None, fail_mode: str, known: int, unknown: int) -> None:
    """open serves everybody, closed nobody, cached whoever was admitted for the same call before."""
    async with start_bench({"tk-fail-mode": fail_mode}) as bench:
        regular, stranger = bench.subscribe("regular"), bench.subscribe(says=SAYS["is away"])
        assert (await bench.post(regular)).status_code == 200
        bench.service.says["regular"] = SAYS["is away"]
        statuses = [(await bench.post(key)).status_code for key in (regular, stranger)]
        assert statuses == [known, unknown]


@pytest.mark.parametrize("edited", ["s:edited,gpt-4o", " ,,=,s:edited=open=off,gpt-4o=a=b"])
async def test_maps_that_were_edited_wrongly_change_nothing(mono: None, edited: str) -> None:
    """An entry without a mode, or with two, is none: its caller is checked and refused like one that no map names."""
    maps = ("tk-enforcement-by-caller", "tk-fail-mode-by-caller", "tk-asserted-scopes-by-caller", "tk-deployments")
    async with start_bench(dict.fromkeys(maps, edited)) as bench:
        key = bench.subscribe("edited")
        assert (await bench.post(key, headers={"x-budget-scope-session": "s-1"})).status_code == 200
        assert bench.service.asked[-1]["scopes"] == {"session": "s-1"}
        bench.service.says["edited"] = SAYS["is away"]
        assert (await bench.post(key, max_tokens=5)).status_code == 503
    async with start_bench({"tk-enforcement": "off", "tk-deployments": edited}) as bench:
        answer = await bench.post(bench.subscribe("edited"))
        assert (await bench.event(answer))["data"]["deployment"] == "gpt-4o"


async def test_cache_miss_that_sets_null_is_a_miss(mono: None, tmp_path: Path) -> None:
    """The reference says both that a miss sets no variable and that it sets null: neither may be an error, nor may all
    callers whose team is unknown count as one team."""
    policies = Path(shutil.copytree(POLICIES, tmp_path / "policies"))
    for fragment in ("tk-limit-rate", "tk-check-budget"):
        path = policies / "fragments" / f"{fragment}.xml"
        text = path.read_text()
        assert text.count("<cache-lookup-value ") == 1
        path.write_text(text.replace("<cache-lookup-value ", "<cache-lookup-value default-value='@((string)null)' "))
    async with start_bench({"tk-rate-calls": "1"}, policies=policies) as bench:
        statuses = [
            (await bench.post(bench.subscribe(name, says), stream=stream)).status_code
            for name, says, stream in (
                ("one", None, False),
                ("another", None, False),
                ("opened", SAYS["is away"], True),
                ("kept", SAYS["is away"], False),
            )
        ]
        assert statuses == [200, 200, 200, 503]
