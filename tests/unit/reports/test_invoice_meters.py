"""Names of invoice meters, in the spellings that price lists and cost exports of Azure show."""

from __future__ import annotations

import pytest

from shared.config.reconciliation import MeterRule
from shared.reports.reconcile.meters import MeterKey, Meters, is_provisioned

MODELS = (
    *("gpt-4o", "gpt-4o-mini", "gpt-4.1", "gpt-4.1-mini", "gpt-5", "gpt-5-pro", "gpt-5-codex"),
    *("gpt-5.4", "gpt-5.4-mini", "gpt-5.5", "gpt-5.6-sol", "o3", "o4-mini", "text-embedding-3-large"),
)


@pytest.mark.parametrize(
    ("meter", "model", "kind", "place", "tier"),
    [
        ("gpt 4o 1120 Inp glbl Tokens", "gpt-4o", "input", "global", "standard"),
        ("gpt-4o-0806-Outp-regnl Tokens", "gpt-4o", "output", "regional", "standard"),
        ("gpt-4o-mini-0718-Inp-glbl Tokens", "gpt-4o-mini", "input", "global", "standard"),
        ("gpt-4o-mini-0718-Batch-Inp-glbl Tokens", "gpt-4o-mini", "input", "global", "batch"),
        ("gpt 4o 0513 Input Data Zone Tokens", "gpt-4o", "input", "data-zone", "standard"),
        ("gpt 4.1 cached Inp glbl Tokens", "gpt-4.1", "cached_input", "global", "standard"),
        ("gpt 4.1 mini Inp regnl Tokens", "gpt-4.1-mini", "input", "regional", "standard"),
        ("GPT 5 Inpt Glbl 1M Tokens", "gpt-5", "input", "global", "standard"),
        ("gpt 5 pro out glbl Tokens", "gpt-5-pro", "output", "global", "standard"),
        ("gpt-5-codex-ccchd-inp-glbl Tokens", "gpt-5-codex", "cached_input", "global", "standard"),
        ("5.4 opt Gl 1M Tokens", "gpt-5.4", "output", "global", "standard"),
        ("5.4 mini cd Inp Gl 1M Tokens", "gpt-5.4-mini", "cached_input", "global", "standard"),
        ("5.4 pp inp Dz 1M Tokens", "gpt-5.4", "input", "data-zone", "priority"),
        ("5.5 ShortCo inp Gl 1M Tokens", "gpt-5.5", "input", "global", "standard"),
        ("5.5 LongCo cd inp Gl 1M Tokens", "gpt-5.5", "cached_input", "global", "standard"),
        ("5.6 sol ShortCo Cd Wr Std Gl 1M Tokens", "gpt-5.6-sol", "cache_write", "global", "standard"),
        ("o4-mini 0416 Inp glbl Tokens", "o4-mini", "input", "global", "standard"),
        ("o3 0416 cached Inp glbl Tokens", "o3", "cached_input", "global", "standard"),
        ("text-embedding-3-large-regional Tokens", "text-embedding-3-large", "input", "regional", "standard"),
    ],
)
def test_known_spelling_is_understood(meter: str, model: str, kind: str, place: str, tier: str) -> None:
    """Each name means one model, token kind, deployment type and tier."""
    assert Meters(MODELS, {}).key(meter) == MeterKey(model, kind, place, tier)


@pytest.mark.parametrize(
    "meter",
    [
        "5.4 nano Inp Gl 1M Tokens",  # a variant that is not configured must not pass for its bigger sister
        "5.7 inp Gl 1M Tokens",
        "gpt 4o Inp Tokens",  # no deployment type: global and regional prices differ
        "gpt 4o glbl Tokens",  # neither input nor output
        "gpt 4o cached Outp glbl Tokens",
        "gpt 4o Inp glbl regnl Tokens",
        "gpt-4o-rt-txt-1217 Inp glbl Tokens",
        "gpt-4o-mini-ft-Inp-glbl Tokens",
        "Assistants-File Search-glbl GB",
        "Model Routers GL 1M Tokens",
        "",
    ],
)
def test_name_that_leaves_a_doubt_is_no_match(meter: str) -> None:
    """A wrong match would compare one price with another; no match is listed for a person to map."""
    assert Meters(MODELS, {}).key(meter) is None


def test_override_says_what_a_name_does_not() -> None:
    """billing.yaml maps a meter in any letter case, and can set one aside."""
    rules = {
        "embedding-ada-glbl tokens": MeterRule(model="text-embedding-3-large", kind="input"),
        "assistants-file search-glbl gb": MeterRule(ignore=True),
    }
    meters = Meters(MODELS, rules)
    assert meters.key("Embedding-Ada-glbl Tokens") == MeterKey("text-embedding-3-large", "input", "global", "standard")
    assert meters.ignores("Assistants-File Search-glbl GB")
    assert meters.key("Assistants-File Search-glbl GB") is None


def test_models_that_differ_by_date_alone_are_not_guessed_between() -> None:
    """`gpt 4o 1120` could be either of two configured versions of which none is dated so."""
    meters = Meters(("gpt-4o-2024-05-13", "gpt-4o-2024-08-06"), {})
    assert meters.key("gpt 4o 1120 Inp glbl Tokens") is None
    assert meters.model("gpt-4o-2024-08-06") == "gpt-4o-2024-08-06"
    assert Meters(("gpt-4o",), {}).model("gpt-4o-2024-08-06") == "gpt-4o"


@pytest.mark.parametrize(
    "meter", [f"Provisioned Managed {place} Unit" for place in ("Global", "Data Zone", "Regional")]
)
def test_throughput_by_the_hour_is_told_from_tokens(meter: str) -> None:
    """Provisioned units are capacity, not tokens."""
    assert is_provisioned(meter)
    assert not is_provisioned("gpt 4.1 Inp glbl Tokens")
