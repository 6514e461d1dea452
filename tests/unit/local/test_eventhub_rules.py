"""The pure parts of the Event Hubs server: the codec, message sections, positions and readers."""

import contextlib
import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local.eventhub import codec, wire
from local.eventhub.broker import MAX_READERS_PER_GROUP, AmqpError, Broker, Hub, Partition
from local.eventhub.codec import Described, Long, Symbol, Timestamp, Uint, Ulong, decode, encode, value_length

INT32 = st.integers(-(2**31), 2**31 - 1)
VALUES = st.recursive(
    st.none() | st.booleans() | INT32 | st.text(max_size=300) | st.binary(max_size=300) | st.uuids(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=5),
    max_leaves=20,
)


@given(VALUES)
def test_values_survive_the_codec(value: Any) -> None:
    """What is encoded is decoded to the same value, and its length is known without decoding it."""
    encoded = encode(value)
    assert decode(encoded) == (value, len(encoded))
    assert value_length(encoded, 0) == len(encoded)


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (Uint(0), 0),
        (Uint(2**32 - 1), 2**32 - 1),
        (Ulong(2**64 - 1), 2**64 - 1),
        (Long(-(2**63)), -(2**63)),
        (Timestamp(1_700_000_000_000), 1_700_000_000_000),
        (Symbol("amqp:not-found"), "amqp:not-found"),
        (codec.Array(("0", "1")), ["0", "1"]),
        (Described(0x24, []), Described(0x24, [])),
        (1.5, 1.5),
    ],
)
def test_typed_values_survive_the_codec(value: Any, plain: Any) -> None:
    """Every wrapper type is read back as the plain value it holds."""
    encoded = encode(value)
    assert decode(encoded) == (plain, len(encoded))
    assert value_length(encoded, 0) == len(encoded)


@given(st.binary(max_size=40))
def test_garbage_is_a_value_error(garbage: bytes) -> None:
    """No bytes a client could send make the decoder fail in another way than ValueError."""
    with contextlib.suppress(ValueError):
        decode(garbage)
    with pytest.raises(ValueError, match="malformed"):
        decode(b"\xc1\x03\x02\x45\x40")


def _message(body: bytes, **annotations: str) -> bytes:
    encoded = encode(Described(wire.DATA, body))
    if annotations:
        named = {Symbol(name.replace("_", "-")): value for name, value in annotations.items()}
        encoded = encode(Described(wire.MESSAGE_ANNOTATIONS, named)) + encoded
    return encoded


def test_stamping_replaces_only_the_brokers_annotations() -> None:
    """A forwarded event gets new broker annotations and keeps its own annotations and its body, byte for byte."""
    event = _message(b"\x00body", x_opt_sequence_number="99", x_opt_partition_key="team", x_own="kept")
    stamped = wire.stamp(wire.parse(event), None, 7, 700, 1_000)
    assert wire.message_annotations(stamped) == {
        "x-opt-sequence-number": 7,
        "x-opt-offset": "700",
        "x-opt-enqueued-time": 1_000,
        "x-opt-partition-key": "team",
        "x-own": "kept",
    }
    assert wire.body(stamped) == b"\x00body"


def test_a_batch_is_split_into_its_events() -> None:
    """Each data section of a batch is one event; the envelope's partition key is for all of them."""
    events = [_message(b"a"), _message(b"b")]
    envelope = encode(Described(wire.MESSAGE_ANNOTATIONS, {Symbol("x-opt-partition-key"): "team"}))
    envelope += b"".join(encode(Described(wire.DATA, event)) for event in events)
    assert wire.split_batch(envelope) == (events, b"team")


def _filled(count: int) -> Partition:
    partition = Partition(0)
    for number in range(count):
        partition.append([wire.parse(_message(f"{number}".encode()))], None)
    return partition


@pytest.mark.parametrize(
    ("expression", "index"),
    [
        (None, 0),
        ("amqp.annotation.x-opt-offset > '-1'", 0),
        ("amqp.annotation.x-opt-offset > '@latest'", 5),
        ("amqp.annotation.x-opt-sequence-number > '2'", 3),
        ("amqp.annotation.x-opt-sequence-number >= '2'", 2),
        ("amqp.annotation.x-opt-sequence-number > '4'", 5),
        ("amqp.annotation.x-opt-enqueued-time > '0'", 0),
        ("amqp.annotation.x-opt-enqueued-time > '99999999999999'", 5),
    ],
)
def test_positions_in_a_log(expression: str | None, index: int) -> None:
    """A filter names the first event a reader gets."""
    assert _filled(5).find(expression) == index


@pytest.mark.parametrize("expression", ["nonsense", "amqp.annotation.x-opt-offset > 'abc'"])
def test_bad_filters_are_refused(expression: str) -> None:
    """A position that cannot be read is an error instead of the beginning of the log."""
    with pytest.raises(AmqpError, match="argument-error"):
        _filled(1).find(expression)


def test_a_position_after_the_end_is_refused() -> None:
    """It can only come from an earlier hub of the name."""
    with pytest.raises(AmqpError, match="The supplied sequence-number '5' is invalid"):
        _filled(5).find("amqp.annotation.x-opt-sequence-number > '5'")


class _Reader:
    def __init__(self, epoch: int | None, group: str = "$default") -> None:
        self.consumer_group = group
        self.epoch = epoch
        self.errors: list[AmqpError] = []

    def detach(self, error: AmqpError) -> None:
        self.errors.append(error)

    def deliver(self) -> None:
        """Nothing is read in these tests."""


def test_epochs_decide_who_reads() -> None:
    """An equal or higher epoch displaces, a lower one and none are refused; other groups are not touched."""
    partition = Partition(0)
    plain, other, first, second = _Reader(None), _Reader(None, "other"), _Reader(0), _Reader(0)
    partition.admit(plain)
    partition.admit(other)
    partition.admit(first)
    assert [error.condition for error in plain.errors] == ["amqp:link:stolen"]
    partition.admit(second)
    assert [error.condition for error in first.errors] == ["amqp:link:stolen"]
    for late in (_Reader(None), _Reader(-1)):
        with pytest.raises(AmqpError, match="amqp:link:stolen"):
            partition.admit(late)
    assert partition.readers == [other, second]


def test_readers_without_an_epoch_are_limited() -> None:
    """As in Azure, five may read a partition in one consumer group."""
    partition = Partition(0)
    for _ in range(MAX_READERS_PER_GROUP):
        partition.admit(_Reader(None))
    with pytest.raises(AmqpError, match="resource-limit-exceeded"):
        partition.admit(_Reader(None))


def test_partition_keys_are_stable_across_hubs() -> None:
    """A key leads to the same partition after a restart."""
    keys = [uuid.uuid5(uuid.NAMESPACE_DNS, str(n)).bytes for n in range(50)]
    first, second = Hub("a", 4), Hub("b", 4)
    assert [first.route(key).id for key in keys] == [second.route(key).id for key in keys]
    assert {first.route(key).id for key in keys} == {0, 1, 2, 3}


def test_hub_names_have_no_case_and_are_unique() -> None:
    """`Usage` and `usage` are one hub."""
    broker = Broker({"usage": 1})
    assert broker.hub("USAGE").name == "usage"
    with pytest.raises(ValueError, match="exists"):
        broker.create_hub("Usage")
    broker.delete_hub("usage")
    with pytest.raises(AmqpError, match="amqp:not-found"):
        broker.hub("usage")
