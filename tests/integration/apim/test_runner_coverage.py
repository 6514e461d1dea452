"""The coverage figure is 100 only when every element, expression and outcome was executed."""

from __future__ import annotations

from pathlib import Path

import httpx

from local.apim.coverage import Coverage, merge
from tests.integration.apim.conftest import Start

CHAT = "/openai/v1/chat/completions"


async def test_what_did_not_run_is_named_by_file_and_line(start: Start, client: httpx.AsyncClient) -> None:
    """Each outcome of a condition, each fall-through, each policy, in sections and fragments."""
    runner = await start(
        """<choose>
          <when condition='@(context.Request.Headers.ContainsKey("a"))'>
            <set-header name="x"><value>@("1")</value></set-header>
          </when>
        </choose>
        <include-fragment fragment-id="f" />""",
        fragments={
            "f": """<choose><when condition='@(context.Request.Headers.ContainsKey("b"))'>
            <set-variable name="x" value="1" /></when>
            <otherwise><set-variable name="x" value="2" /></otherwise></choose>"""
        },
    )
    assert runner.coverage.report().percent == 0
    await client.post(runner.url + CHAT)
    first = runner.coverage.report()
    assert first.missing == [
        "inbound-policy.xml:3: <when> was never executed",
        "inbound-policy.xml:3: <when> condition was never true",
        "inbound-policy.xml:4: <set-header> was never executed",
        "inbound-policy.xml:4: <value> was never evaluated",
        "fragments/f.xml:2: <when> was never executed",
        "fragments/f.xml:2: <when> condition was never true",
        "fragments/f.xml:3: <set-variable> was never executed",
    ]
    await client.post(runner.url + CHAT, headers={"a": "1", "b": "1"})
    assert (runner.coverage.report().percent, runner.coverage.report().missing) == (100.0, [])


async def test_a_choose_that_never_falls_through_is_not_covered(start: Start, client: httpx.AsyncClient) -> None:
    """Without an otherwise, doing nothing is a branch of its own."""
    runner = await start('<choose><when condition="true"><set-variable name="x" value="1" /></when></choose>')
    await client.post(runner.url + CHAT)
    assert runner.coverage.report().missing == ["inbound-policy.xml:2: <choose> never fell through"]


def test_runs_are_merged(tmp_path: Path) -> None:
    """Two test processes each cover a half; together they cover the whole."""
    for number, hit in enumerate(("a", "b")):
        coverage = Coverage()
        coverage.expect("a", "f.xml:1: a")
        coverage.expect("b", "f.xml:2: b")
        coverage.hit(hit)
        assert coverage.report().percent == 50.0
        coverage.write(tmp_path / f"{number}.json")
    merged = merge(sorted(tmp_path.glob("*.json")))
    assert merged.report().percent == 100.0
    assert str(merged.report()) == "policy coverage 100.0 % (2 of 2)"


def test_a_hundred_percent_is_never_rounded_up() -> None:
    """One place of two thousand missing shows."""
    coverage = Coverage()
    for number in range(2001):
        coverage.expect(str(number), str(number))
        if number:
            coverage.hit(str(number))
    assert coverage.report().percent == 99.9
