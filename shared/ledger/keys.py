"""Where a row lives: the hour of its own time plus a hash shard, under a hash of its identity.

A function of the event alone, so every retry of the event lands on the same row, whichever worker writes it.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from hashlib import blake2b

SHARDS = 4  # never changes: with another count a retried event would land on another row and be billed twice
ONE_HOUR = timedelta(hours=1)


def row_key(source: str, event_id: str) -> str:
    """32 hex digits of the identity. The length prefix keeps ("a", "bc") and ("ab", "c") apart."""
    text = f"{len(source)}:{source}{event_id}".encode()
    return blake2b(text, digest_size=16).hexdigest()


def adjustment_key(call_key: str, suffix: str) -> str:
    """The row key of what corrects a call: beside the call, in its partition, where one transaction writes it.

    `suffix` is what stands behind the call's id in the row's: `/reversal`, `/true-up`, `/true-up/reversal`,
    `/re-rate/<run>`. Not a hash of the row's own id: whoever sends events could then store one under it and keep the
    correction out.
    """
    return call_key + suffix.replace("-", "_").replace("/", "-")


def family_range(first_call_key: str, last_call_key: str) -> tuple[str, str]:
    """The half-open range of row keys of these calls, of all between them, and of all that corrects them."""
    return first_call_key, f"{last_call_key}."  # the dot follows the hyphen


def call_key_of(key: str) -> str:
    """The row key of the call that a row, itself or one that corrects it, belongs to."""
    return key.partition("-")[0]


def hour_key(time_utc: datetime) -> str:
    """`yyyymmddHH` of an instant, in UTC. Sorts like time."""
    return time_utc.astimezone(UTC).strftime("%Y%m%d%H")


def partition_key(time_utc: datetime, key: str) -> str:
    """`yyyymmddHH-<shard>` of the row with this row key."""
    return f"{hour_key(time_utc)}-{int(key[0], 16) % SHARDS}"


def hour_start(hour: str) -> datetime:
    """The instant at which an hour key starts. Raises ValueError when it is no hour key."""
    return datetime.strptime(hour, "%Y%m%d%H").replace(tzinfo=UTC)


def partitions_of(hour: str) -> list[str]:
    """The partitions that hold an hour's rows; they can be read in parallel."""
    return [f"{hour}-{shard}" for shard in range(SHARDS)]


def quarter_start(time_utc: datetime) -> datetime:
    """The quarter hour an instant falls into: the finest grid on which any time zone starts its days."""
    at = time_utc.astimezone(UTC)
    return at.replace(minute=at.minute // 15 * 15, second=0, microsecond=0)


def hour_end_key(end_utc: datetime) -> str:
    """The first hour key that lies wholly at or after `end_utc`: the exclusive bound of a range of hours."""
    whole = end_utc.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    return hour_key(whole if whole == end_utc else whole + ONE_HOUR)
