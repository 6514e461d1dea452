"""Messages of the LLM log: what is read, what is refused, and that no text of a prompt is ever kept."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.usage.llm_log import LogRecord, decode_log, log_bytes

CANARY = "canary-5d1f"
ID = "6F9619FF-8B86-D011-B42D-00CF4FC964FF"


def record(**properties: Any) -> dict[str, Any]:
    """A record as the gateway writes it, with texts."""
    tokens = {"promptTokens": 812, "completionTokens": 240, "totalTokens": 1052, "sequenceNumber": 1}
    texts = {"requestMessages": f'[{{"content":"{CANARY}"}}]', "responseMessages": [{"content": CANARY}]}
    known = {"modelName": "gpt-4o", "isStreamCompletion": True, **tokens, **texts}
    return {
        "time": "2026-11-21T10:00:00Z",
        "category": "GatewayLlmLogs",
        "correlationId": ID,
        "properties": known | properties,
    }


def message(*records: Any) -> bytes:
    return json.dumps({"records": records}).encode()


NAMES = ["records", "Category", "correlationId", "properties", "promptTokens", "lastError"]
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(NAMES) | st.text(), inner),
)
READ = LogRecord(ID.lower(), 1, 812, 240, True)


def in_case(value: Any, change: Any) -> Any:
    """The names of all members, and the category, in another letter case."""
    if isinstance(value, list):
        return [in_case(each, change) for each in value]
    if isinstance(value, dict):
        return {
            change(name): change(each) if name.lower() == "category" else in_case(each, change)
            for name, each in value.items()
        }
    return value


@pytest.mark.parametrize("change", [str, str.lower, str.upper, str.swapcase, str.title])
def test_names_and_categories_have_no_case(change: Any) -> None:
    """The copies that reach a hub spell names as they like; a name not recognised would be a call never measured."""
    decoded = decode_log(json.dumps(in_case({"records": [record()]}, change)).encode())
    assert decoded == ([READ], [], 0)


@pytest.mark.parametrize("written", ["812", 812, 812.0, "812.0"])
def test_numbers_come_as_numbers_or_texts(written: Any) -> None:
    """All of these are 812."""
    assert decode_log(message(record(promptTokens=written))).records == [READ]


def test_one_is_known_from_the_total_and_the_other() -> None:
    """A row that leaves one out says it all the same."""
    assert decode_log(message(record(completionTokens=None))).records == [READ]
    assert decode_log(message(record(promptTokens=0))).records == [READ]


def test_zero_means_that_the_row_does_not_say() -> None:
    """A call's rows without counts carry zeros: taken for a measurement, the answer would be billed as empty."""
    nothing = record(promptTokens=0, completionTokens=0, totalTokens=0)
    half = record(promptTokens=812, completionTokens=0, totalTokens=812)
    decoded = decode_log(message(nothing, half))
    assert decoded.ignored == 1
    assert decoded.records == [READ._replace(completion_tokens=None)]


@pytest.mark.parametrize(
    ("bad", "code", "field"),
    [
        (record(promptTokens=-1), "usage_unreadable", "properties.promptTokens"),
        (record(completionTokens=10**9), "usage_unreadable", "properties.completionTokens"),
        (record(completionTokens=1.5), "usage_unreadable", "properties.completionTokens"),
        (record(completionTokens=CANARY), "usage_unreadable", "properties.completionTokens"),
        (record(completionTokens=[CANARY]), "usage_unreadable", "properties.completionTokens"),
        (record(promptTokens=True), "usage_unreadable", "properties.promptTokens"),
        (record(totalTokens=3), "usage_unreadable", "properties.totalTokens"),
        (record(sequenceNumber="x"), "usage_unreadable", "properties.sequenceNumber"),
        ({**record(), "correlationId": None}, "correlation_missing", "correlationId"),
        ({**record(), "correlationId": ""}, "correlation_missing", "correlationId"),
        ({**record(), "correlationId": f"{CANARY} with words"}, "correlation_missing", "correlationId"),
        ({**record(), "correlationId": {"text": CANARY}}, "correlation_missing", "correlationId"),
        ({**record(), "properties": CANARY}, "invalid_record", "properties"),
        ({"category": "GatewayLlmLogs", "correlationId": ID}, "invalid_record", "properties"),
        (CANARY, "invalid_record", ""),
        ([CANARY], "invalid_record", ""),
    ],
)
def test_a_bad_record_names_its_field_and_spares_the_others(bad: Any, code: str, field: str) -> None:
    """Its neighbours are read; what is kept of it can be sent again and holds no text."""
    decoded = decode_log(message(record(), bad, record()))
    assert decoded.records == [READ, READ]
    [(reason, kept)] = decoded.refused
    assert (reason.code, reason.param) == (code, f"records[1].{field}".rstrip("."))
    assert CANARY not in reason.message + kept.decode()
    assert [each.reason.code for each in decode_log(kept).refused] in ([code], [])


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (f'{{"records": [{{"a": "{CANARY}"'.encode(), "invalid_json"),
        (f'"{CANARY}"'.encode(), "invalid_record"),
        (f'{{"records": "{CANARY}"}}'.encode(), "invalid_record"),
        (f'{{"{CANARY}": []}}'.encode(), "invalid_record"),
        (b'{"records": [' + b"[" * 100_000, "invalid_json"),
        (CANARY.encode() + b"\xff\xfe", "invalid_json"),
        (b"", "invalid_json"),
    ],
)
def test_a_message_that_cannot_be_read_is_kept_without_its_content(body: bytes, code: str) -> None:
    """Nobody can tell where in it a prompt stands; size and digest identify it."""
    records, [(reason, kept)], _ = decode_log(body)
    assert (records, reason.code) == ([], code)
    assert CANARY not in reason.message + kept.decode()
    assert json.loads(kept)["unreadable"]["bytes"] == len(body)


def test_other_categories_are_counted_and_ignored() -> None:
    """A diagnostic setting may send more than was asked for."""
    other = {**record(), "category": "WebSocketConnectionLogs"}
    assert decode_log(message(other, {"category": None}, {}, {"category": "GatewayLogs"})) == ([], [], 4)


@pytest.mark.parametrize(
    "properties",
    [
        {"lastError": {"reason": "ClientConnectionFailure", "message": CANARY}},
        {"LASTERRORREASON": "clientconnectionfailure"},
    ],
)
def test_a_gateway_log_that_shows_an_abort_is_taken(properties: dict[str, Any]) -> None:
    """It is the only word of a client that went away; any other gateway log says nothing of tokens."""
    entry = {"category": "GatewayLogs", "correlationId": ID, "properties": properties}
    assert decode_log(message(entry)).records == [LogRecord(ID.lower(), aborted=True)]
    for reason in ({"reason": "Timeout"}, None, {}):
        entry["properties"] = {"lastError": reason}
        assert decode_log(message(entry)) == ([], [], 1)


def test_a_record_written_again_reads_the_same() -> None:
    """A dead letter of a record is replayed as what it was."""
    assert decode_log(log_bytes(READ)).records == [READ]


@given(anything)
def test_nothing_that_is_json_breaks_it(value: Any) -> None:
    """One message that raised would be delivered again for ever, and its partition would stand still."""
    decode_log(json.dumps({"records": [value, {"category": "GatewayLlmLogs", "properties": value}]}).encode())
    decode_log(json.dumps(value).encode())


@given(st.binary())
def test_nothing_at_all_breaks_it(body: bytes) -> None:
    """Nor does what is no JSON."""
    decode_log(body)
