"""Dead letters and the outbox: kept once, exactly, until dealt with."""

import asyncio

import pytest

from shared.ledger.deadletters import MAX_INLINE_BYTES, DeadLetters
from shared.ledger.tables import Tables
from shared.notify.outbox import Outbox
from tests.ledger_rows import position


@pytest.fixture
def letters(tables: Tables) -> DeadLetters:
    """Empty dead letters."""
    return DeadLetters(tables.deadletters, tables.bodies)


@pytest.mark.parametrize(
    "body",
    [b"", b"\xff\xfe\x00 not utf-8", b'{"a": 1}', bytes(range(256)) * 200, b"x" * MAX_INLINE_BYTES],
    ids=["empty", "binary", "json", "large binary", "largest inline"],
)
async def test_bodies_come_back_byte_for_byte(letters: DeadLetters, body: bytes) -> None:
    """Replaying must send exactly what was delivered, or the event would become another one."""
    letter_id = await letters.put("invalid_json", "no JSON", body, position(1))
    (letter,) = await letters.take([letter_id])
    assert (letter.body, letter.position, letter.code) == (body, position(1), "invalid_json")


async def test_redelivery_keeps_one_letter_and_its_first_reason(letters: DeadLetters) -> None:
    """A redelivered batch does not multiply its bad events, nor does it undo the mark of a replay."""
    first = await letters.put("price_missing", "first", b"body", position(1))
    await letters.mark_replayed([first], "oid-1")
    assert await letters.put("other", "second", b"body", position(1)) == first
    (listed,) = await letters.list()
    assert (listed["code"], listed["message"], listed["replayed_by"]) == ("price_missing", "first", "oid-1")


async def test_list_is_newest_first_and_narrowed(letters: DeadLetters) -> None:
    """An operator sees the latest trouble first, of one tenant or one code when asked for."""
    for number in range(5):
        body = b'{"source": "s", "id": "e%d", "data": {"tenant": "contoso"}}' % number
        await letters.put("id_conflict" if number % 2 else "too_large", "m", body, position(number))
    await letters.put("invalid_json", "m", b"{", position(9))
    await letters.put("invalid_json", "m", b"no position", None)
    assert [letter["event_id"] for letter in await letters.list(tenant="contoso")] == ["e4", "e3", "e2", "e1", "e0"]
    assert [letter["event_id"] for letter in await letters.list(code="id_conflict")] == ["e3", "e1"]
    assert [letter["event_id"] for letter in await letters.list(limit=2)] == [None, "e4"]
    assert await letters.list(tenant="x' or tenant ne '") == []
    newest, *_, last = await letters.list()
    assert newest["position"] == {"stream": "ns/usage/0", "enqueued_ms": 1_763_700_000_009, "sequence": 9}
    assert last["position"] is None


async def test_unknown_ids_are_left_out(letters: DeadLetters) -> None:
    """A mistyped or hostile id finds nothing and breaks nothing."""
    kept = await letters.put("invalid_json", "m", b"x", position(1))
    taken = await letters.take([kept, kept, "hub-1-2", "no id", "a'b/c\\d", "body-" + "0" * 32])
    assert [letter.id for letter in taken] == [kept]


async def test_a_notice_is_added_once_for_ever(tables: Tables) -> None:
    """Many workers see the same threshold crossed: one of them adds the notice, and sending it does not reopen it."""
    outbox = Outbox(tables.outbox)
    key = "threshold|contoso|team:a/b#c?|2026-11|warn"
    added = await asyncio.gather(*(outbox.add_once(key, "threshold", {"n": n}) for n in range(8)))
    assert sum(added) == 1
    (notice,) = await outbox.waiting()
    assert (notice.key, notice.kind, notice.payload) == (key, "threshold", {"n": added.index(True)})
    await outbox.mark_sent(notice.id)
    assert await outbox.waiting() == []
    assert await outbox.add_once(key, "threshold", {}) is False
    assert await outbox.waiting() == []
