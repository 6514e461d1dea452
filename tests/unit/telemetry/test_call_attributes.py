"""What a span says of a call: names of the pinned conventions, exact amounts, nothing personal."""

from __future__ import annotations

import json
from typing import Any

import pytest

from shared.telemetry import names
from shared.telemetry.calls import call_attributes, span_ids, span_name
from tests.ledger_rows import usage


def attributes(with_people: bool = False, **changes: Any) -> dict[str, Any]:
    return dict(call_attributes(usage(1, **changes), with_people=with_people))


def test_names_are_those_of_the_installed_conventions() -> None:
    """An upgrade of the package that renames one fails here, not in somebody's dashboard."""
    from opentelemetry.semconv._incubating.attributes import gen_ai_attributes as known

    ours = {value for name, value in vars(names).items() if isinstance(value, str) and value.startswith("gen_ai.")}
    assert ours <= {value for name, value in vars(known).items() if name.startswith("GEN_AI_")}


def test_input_holds_cached_tokens_and_output_holds_reasoning() -> None:
    """600 plain + 300 cached + 100 written = 1,000 in; 50 out, of which 20 reasoning: never counted twice."""
    tokens = {"input": 600, "cached_input": 300, "cache_write": 100, "output": 50, "reasoning": 20}
    said = attributes(tokens=tokens)
    assert said[names.INPUT_TOKENS] == said[names.OI_PROMPT_TOKENS] == 1_000
    assert said[names.OUTPUT_TOKENS] == said[names.OI_COMPLETION_TOKENS] == 50
    assert said[names.OI_TOTAL_TOKENS] == 1_050
    assert (said[names.CACHE_READ_TOKENS], said[names.CACHE_WRITE_TOKENS]) == (300, 100)
    assert said[names.REASONING_TOKENS] == 20
    assert json.loads(said[names.LF_USAGE]) == {
        "input": 600,
        "input_cached_tokens": 300,
        "input_cache_creation": 100,
        "output": 50,
    }


def test_cost_is_exact_where_it_can_be() -> None:
    """1,000 + 1 nano-USD: an integer, a decimal text, JSON numbers with all digits; fractions for display."""
    said = attributes()
    assert said[names.COST_NANO_USD] == 1_001
    assert said[names.COST_USD] == "0.000001001"
    assert said[names.LF_COST] == '{"input":0.000001,"output":0.000000001,"total":0.000001001}'
    assert said[names.OI_TOTAL_COST] == pytest.approx(1.001e-6)


def test_unknown_cost_is_left_out_not_zero() -> None:
    """A call of an unpriced model says so."""
    said = attributes(cost_nano_usd=None, lines_nano_usd={}, pricing_status="unpriced")
    assert said[names.PRICING_STATUS] == "unpriced"
    assert not [name for name in said if "cost" in name]


def test_people_are_named_only_when_asked_for() -> None:
    """Team and app always; user, session and labels of the house only with people."""
    scopes = {"team": "search", "app": "a-1", "user": "u-1", "session": "s-1", "desk": "ada"}
    said = {str(value) for value in attributes(scopes=scopes).values()}
    assert not {"u-1", "s-1", "ada"} & said
    named = attributes(with_people=True, scopes=scopes)
    assert (named[names.USER], named[names.SESSION], named["tollkeeper.scope.desk"]) == ("u-1", "s-1", "ada")


def test_ids_follow_from_the_call() -> None:
    """A true-up is the same span as its call would be; another call is another."""
    call, other = usage(1), usage(2)
    true_up = usage(3, id="call-1/true-up", call_id="call-1", kind="true_up")
    assert span_ids(call) == span_ids(true_up) != span_ids(other)
    trace, span = span_ids(call)
    assert 0 < trace < 1 << 128
    assert 0 < span < 1 << 64


def test_failed_call_is_an_error_and_embeddings_are_no_chat() -> None:
    """So that tools count errors and do not expect an answer of an embedding."""
    assert attributes(status=429)[names.ERROR_TYPE] == "429"
    assert attributes(operation="embeddings")[names.OI_KIND] == "EMBEDDING"
    assert span_name(usage(1, operation="responses")) == "chat gpt-4o"
