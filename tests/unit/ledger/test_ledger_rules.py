"""Keys, codec and rollups as pure functions."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from shared.ledger.codec import decode, encode
from shared.ledger.family import Pair
from shared.ledger.keys import hour_end_key, hour_key, partition_key, quarter_start, row_key
from shared.ledger.pairs import EncodedPair, _transactions
from shared.ledger.rating import output_tokens_sample
from shared.ledger.rollup import Through, extend, roll
from shared.ledger.row import Position
from shared.months import month_after
from tests.ledger_rows import TEN, usage


def test_row_key_is_fixed_for_ever():
    """The key of a known event is written down: were it to change, every retried event would be billed twice."""
    assert row_key("apim/prod-weu", "5b2f") == "ce23875fdc273edda7c3a836dd9dbfdf"


def test_source_and_id_do_not_run_into_each_other():
    """("a", "bc") and ("ab", "c") are two identities."""
    assert row_key("a", "bc") != row_key("ab", "c")


def test_partition_is_the_utc_hour_of_the_event():
    """An event stamped in another zone lands in the same hour as in UTC."""
    in_kolkata = TEN.astimezone(timezone(timedelta(hours=5, minutes=30)))
    assert partition_key(in_kolkata, "7f") == partition_key(TEN, "7f") == "2026112110-3"


def test_end_of_a_range_of_hours():
    """The end is exclusive, and an hour that was only begun belongs to the range."""
    assert hour_end_key(TEN) == "2026112110"
    assert hour_end_key(TEN + timedelta(microseconds=1)) == "2026112111"
    assert hour_key(TEN) == "2026112110"


def test_month_after_december():
    """The year turns."""
    assert (month_after("2026-12"), month_after("2026-01")) == ("2027-01", "2026-02")


@given(
    time_utc=st.datetimes(datetime(2020, 1, 1), datetime(2090, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
    scopes=st.dictionaries(st.text(min_size=1, max_size=9), st.text(min_size=1, max_size=50), max_size=16),
    charge=st.integers(-(2**63), 2**63 - 1),
    cost=st.none() | st.integers(-(2**63), 2**63 - 1),
    tokens=st.dictionaries(st.text(max_size=12), st.integers(0, 2**62), max_size=8),
    measured=st.booleans(),
)
def test_any_row_survives_the_codec(time_utc, scopes, charge, cost, tokens, measured):
    """Every amount, time and text comes back exactly, to the microsecond and the nano-dollar."""
    row = usage(
        1,
        time_utc=time_utc,
        scopes=scopes,
        charge_nano_usd=charge,
        cost_nano_usd=cost,
        tokens=tokens,
        measured=measured,
    )
    assert decode(encode(row)) == row


def test_roll_sums_what_agrees_and_keeps_apart_what_does_not():
    """Rows of one quarter hour and the same dimensions share a cell; unknown costs are counted, not taken for zero."""
    rows = [
        usage(1),
        usage(2, time_utc=TEN + timedelta(minutes=14)),
        usage(3, time_utc=TEN + timedelta(minutes=15)),
        usage(4, cost_nano_usd=None, pricing_status="unpriced"),
        usage(
            5,
            kind="correction",
            charge_nano_usd=0,
            cost_nano_usd=-100,
            tokens={},
            lines_nano_usd={},
            why="invoice of October",
        ),
        usage(6, kind="grant", charge_nano_usd=-7, cost_nano_usd=0, tokens={}, cell="team:search|month|UTC|1"),
    ]
    cells = roll(rows)
    assert [(c.quarter_utc, c.requests, c.cost_nano_usd, c.charge_nano_usd, c.unpriced) for c in cells] == [
        (TEN, 2, 1_001 + 1_002, 1_001 + 1_002, 0),
        (TEN + timedelta(minutes=15), 1, 1_003, 1_003, 0),
        (TEN, 1, 0, 1_004, 1),
        (TEN, 0, -100, 0, 0),
        (TEN, 0, 0, -7, 0),
    ]
    assert cells[0].tokens == {"input": 10 + 10, "output": 5 + 5}
    assert (cells[3].correction, cells[3].remark) == ("adjustment", "invoice of October")
    assert cells[4].cell == "team:search|month|UTC|1"


def test_quarter_hours_are_utc():
    """Zones that are off by 45 minutes (Kathmandu) still start their days on a quarter hour."""
    kathmandu = timezone(timedelta(hours=5, minutes=45))
    midnight = datetime(2026, 11, 22, tzinfo=kathmandu)
    assert quarter_start(midnight) == midnight


positions = st.builds(Position, st.just("s"), st.integers(0, 30_000), st.integers(0, 40))


@given(rows=st.lists(positions, min_size=1, max_size=8), mark=positions)
def test_a_reach_within_the_mark_proves_it_for_every_row(rows, mark):
    """Position order is not transitive around its slack; a rollup must still never vouch for a row beyond the mark."""
    reach: dict[str, Through] = {}
    for row in rows:
        extend(reach, row)
    if reach["s"].within(mark):
        assert all(row.at_or_before(mark) for row in rows)


def test_encode_leaves_defaults_out():
    """An entity is billed by size: what holds its default is no column."""
    assert {"streamed", "status", "attempt", "cell", "who"}.isdisjoint(encode(usage(1)))


def test_unknown_cost_is_no_column():
    """Unknown is not zero, in the table as well."""
    assert "cost_nano_usd" not in encode(usage(1, cost_nano_usd=None))
    assert decode(encode(usage(1, cost_nano_usd=None))).cost_nano_usd is None


@pytest.mark.parametrize("amount", [0, 1, 2**63 - 1, -(2**63)])
def test_amounts_are_int64(amount):
    """The whole range of the counters fits into a column."""
    assert encode(usage(1, charge_nano_usd=amount))["charge_nano_usd"] == (amount, "Edm.Int64")


def test_an_accrual_its_reversal_and_its_true_up_are_one_measured_call():
    """What the reversal takes back is gone from every sum of estimates, whether or not either price is known."""
    accrual = usage(1, kind="accrual", measured=False, tokens={"input": 10, "output": 5})
    unpriced = {"cost_nano_usd": None, "pricing_status": "unpriced"}
    for before, after in [({}, {}), (unpriced, {}), ({}, unpriced), (unpriced, unpriced)]:
        cost = before.get("cost_nano_usd", -1_001)
        taken_back = {
            "kind": "reversal",
            "measured": False,
            "charge_nano_usd": -1_001,
            "tokens": {"input": -10, "output": -5},
        }
        rows = [
            replace(accrual, **before),
            usage(2, **taken_back, **{**before, "cost_nano_usd": cost}),
            usage(3, kind="true_up", charge_nano_usd=700, **{"cost_nano_usd": 700, **after}),
        ]
        cells = roll(rows)
        estimated = [cell for cell in cells if not cell.measured]
        assert [(c.requests, c.cost_nano_usd, c.charge_nano_usd, c.unpriced) for c in estimated] == [(0, 0, 0, 0)]
        assert set(estimated[0].tokens.values()) == {0}
        [measured] = [cell for cell in cells if cell.measured]
        assert (measured.requests, measured.charge_nano_usd, measured.unpriced) == (1, 700, int(bool(after)))
        assert measured.cost_nano_usd == (0 if after else 700)


def test_reversal_and_true_up_stand_beside_their_accrual():
    """One partition, so that one transaction writes both; and not under a hash of their own ids, where whoever sends
    events could have put something before."""
    accrual = usage(1, kind="accrual", id="a/2")
    for kind, id_ in (("reversal", "a/2/reversal"), ("true_up", "a/2/true-up")):
        row = usage(2, kind=kind, id=id_)
        entity, beside = encode(row), encode(accrual)
        assert entity["PartitionKey"] == beside["PartitionKey"]
        assert entity["RowKey"] == f"{beside['RowKey']}-{kind}"
        assert encode(usage(3, id=id_))["RowKey"] != entity["RowKey"]
        assert decode(entity) == row


def test_a_transaction_never_parts_a_reversal_from_what_replaces_its_row():
    """A reader between two transactions would see the call taken back and not billed."""
    pairs = []
    for n in range(400):
        pair = Pair(
            usage(n, kind="reversal", id=f"{n}/reversal", call_id=f"{n}"),
            usage(n, kind="re_rate", id=f"{n}/re-rate/{n:012x}", call_id=f"{n}"),
        )
        pairs.append(EncodedPair(pair, (encode(pair.reversal), encode(pair.replacement))))
    chunks = list(_transactions(pairs))
    assert max(map(len, chunks)) <= 50
    assert sorted(each.keys for chunk in chunks for each in chunk) == sorted(each.keys for each in pairs)
    assert all(len({each.partition for each in chunk}) == 1 for chunk in chunks)


@pytest.mark.parametrize(("status", "sample"), [(200, 5), (0, None), (302, None), (429, None), (500, None)])
def test_only_an_answer_of_a_model_teaches_its_length(status, sample):
    """A call that no model answered wrote nothing; learning that would train the estimate down before a burst."""
    assert output_tokens_sample(usage(1, status=status)) == sample
