"""The live counters in Redis. Every decision and every settlement is one script call on keys that share `{tenant}`."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import msgspec

from shared.budgets.cells import Cell, parse_cell
from shared.budgets.connect import MAX_CONNECTIONS
from shared.budgets.keys import tenant_keys
from shared.budgets.matching import expire_at_ms
from shared.budgets.redis_errors import is_refusal
from shared.budgets.reservation import Reservation
from shared.budgets.scripts import Script
from shared.budgets.trips import RedisClient, SharedTrips
from shared.ledger.row import POSITION_SLACK_MS, Position

log = logging.getLogger("tollkeeper.budgets")

_PATIENCE_SECONDS = 5.0  # settling a large batch takes longer than a check may
_LEARNED_KEEP_MS = 30 * 24 * 3_600_000


class CheckReply(NamedTuple):
    """What check.lua answered; amounts in nano-USD. `candidate` and `binding` count from 0, -1 = none."""

    outcome: str  # ok, reserved, exhausted, unready, stale, crowded
    now_ms: int
    candidate: int = 0
    binding: int = -1
    estimate_nano_usd: int = 0
    output_tokens: int = 0
    output_tokens_mean: int = 0
    bucket: int = 0
    ordinal: int = 0
    generation: str = ""
    watermark_ms: int = 0
    figures: tuple[int, ...] = ()  # spent, held per cell; then carry per budget


class Charge(NamedTuple):
    """A sum to add to one counter."""

    cell: Cell
    amount_nano_usd: int
    idle_ms: int


class SettleBatch(NamedTuple):
    """One tenant's part of one partition's batch. Positions are of the first and last event; None = releases only."""

    stream: str
    first: Position | None
    last: Position | None
    last_seen: Position | None
    row_below_mark: bool
    charges: Sequence[Charge]
    releases: Sequence[Reservation]
    samples: Mapping[str, Sequence[int]]  # learned-estimate name -> output tokens


class Settled(NamedTuple):
    """What settle.lua answered. `overlap`: the batch starts at or before this mark; nothing was applied."""

    overlap: Position | None
    generation: str = ""
    ready: bool = False
    went_back: bool = False
    spent_nano_usd: tuple[int, ...] = ()


class Cut(NamedTuple):
    """Counters and marks read at one instant."""

    generation: str
    fence: str
    dirty: str
    marks: dict[str, Position]
    spent_nano_usd: tuple[int, ...]


class TenantState(NamedTuple):
    """How a tenant's counters are. `families` are the ids of the seeded ones."""

    generation: str
    ready: bool
    dirty: bool
    watermark_ms: int
    expired_holds: int
    families: frozenset[str]


class BudgetStore:
    """The counters of all tenants on one Redis server or cluster. Errors of the client pass through."""

    def __init__(
        self, client: RedisClient, hold_ttl_ms: int, bucket_ms: int, max_asserted_cells: int = 100_000
    ) -> None:
        self._client = client
        self._hold_ttl_ms = hold_ttl_ms
        self._bucket_ms = bucket_ms
        self._max_asserted_cells = max_asserted_cells
        self._redis = SharedTrips(client, MAX_CONNECTIONS, _PATIENCE_SECONDS)
        self._check, self._settle = Script("check.lua"), Script("settle.lua")
        self._begin, self._cut, self._adjust = Script("begin.lua"), Script("cut.lua"), Script("adjust.lua")

    async def check(
        self,
        keys: Sequence[str],
        plan: bytes,
        estimates: Sequence[int],
        observe: bool,
    ) -> CheckReply:
        """One look and hold; see check.lua for the arguments. The caller bounds its time."""
        head = (self._hold_ttl_ms, self._bucket_ms, "1" if observe else "0", self._max_asserted_cells, plan)
        raw = await self._check.call(self._redis, keys, (*head, *estimates))
        outcome = raw[0].decode()
        if len(raw) < 11:
            return CheckReply(outcome, int(raw[1]), binding=int(raw[2]) - 1 if len(raw) > 2 else -1)
        return CheckReply(
            outcome, int(raw[1]), raw[2] - 1, raw[3] - 1, int(raw[4]), raw[5], raw[6], raw[7], raw[8], raw[9].decode(),
            int(raw[10]), tuple(map(int, raw[11:])),
        )  # fmt: skip

    async def settle(self, tenant: str, batch: SettleBatch) -> Settled:
        """Apply a batch exactly once, or say where it overlaps what was applied already."""
        keys = tenant_keys(tenant)
        names = [keys.meta, keys.bits, keys.index, keys.asserted, keys.marks]
        numbers: dict[str, int] = {}  # of the cells' keys, counted as Lua counts

        def number(cell_id: str) -> int:
            known = numbers.get(cell_id)
            if known is None:
                names.append(keys.cell(cell_id))
                known = numbers[cell_id] = len(names)
            return known

        charges = [
            (number(cell.id), str(amount), expire_at_ms(cell), idle_ms) for cell, amount, idle_ms in batch.charges
        ]
        releases = [
            (held.generation, held.bucket, held.ordinal, str(held.amount_nano_usd), list(map(number, held.cells)))
            for held in batch.releases
        ]
        learned = list(enumerate(batch.samples.values(), len(names) + 1))
        names += [keys.learned(name) for name in batch.samples]
        args = (
            batch.stream, *_position_args(batch.first), *_position_args(batch.last), *_position_args(batch.last_seen),
            POSITION_SLACK_MS, "1" if batch.row_below_mark else "0", _LEARNED_KEEP_MS,
            msgspec.msgpack.encode((charges, releases, learned)),
        )  # fmt: skip
        raw = await self._settle.call(self._redis, names, args)
        if raw[0] == b"overlap":
            return Settled(Position(batch.stream, int(raw[1]), int(raw[2])))
        return Settled(None, raw[1].decode(), bool(raw[2]), raw[3] == b"1", tuple(map(int, raw[4:])))

    async def release(self, reservation: Reservation) -> None:
        """Give one reservation back. A second time, after it expired or after a flush it does nothing."""
        await self.settle(reservation.tenant, SettleBatch("", None, None, None, False, (), (reservation,), {}))

    async def begin(self, tenant: str, generation: str, positions: Iterable[Position]) -> str:
        """Open a generation where there is none and raise marks to these positions; returns the generation in force."""
        keys = tenant_keys(tenant)
        args = [str(part) for position in positions for part in position]
        head = [generation, POSITION_SLACK_MS]
        return cast("bytes", await self._begin.call(self._redis, [keys.meta, keys.marks], [*head, *args])).decode()

    async def cut(self, tenant: str, cells: Sequence[Cell]) -> Cut:
        """Read the counters of these cells and all marks at one instant."""
        keys = tenant_keys(tenant)
        names = [keys.meta, keys.marks, *(keys.cell(cell.id) for cell in cells)]
        generation, fence, dirty, marks, spent = await self._cut.call(self._redis, names, [])
        return Cut(
            generation.decode(),
            fence.decode(),
            dirty.decode(),
            {
                stream.decode(): Position(stream.decode(), *map(int, mark.split()))
                for stream, mark in zip(marks[::2], marks[1::2], strict=True)
            },
            tuple(map(int, spent)),
        )

    async def adjust(
        self, tenant: str, cut: Cut, differences: Sequence[Charge], families: Iterable[str], ready: bool
    ) -> bool:
        """Add the differences if nothing the cut relied on has changed; False when it has. `ready` opens the tenant."""
        keys = tenant_keys(tenant)
        args: list[Any] = [cut.generation, cut.fence, cut.dirty, "1" if ready else "0", POSITION_SLACK_MS]
        args += [len(cut.marks), len(differences)]
        args += [part for position in cut.marks.values() for part in position]
        for cell, amount, idle_ms in differences:
            args += (amount, expire_at_ms(cell), idle_ms)
        names = [
            keys.meta,
            keys.marks,
            keys.index,
            keys.asserted,
            *(keys.cell(charge.cell.id) for charge in differences),
        ]
        return bool(await self._adjust.call(self._redis, names, [*args, *families]) == b"ok")

    async def state(self, tenant: str) -> TenantState:
        """How the tenant's counters are."""
        raw = await self._redis.execute_command("HGETALL", tenant_keys(tenant).meta)
        fields = {name.decode(): value.decode() for name, value in _pairs(raw)}
        families = frozenset(name.removeprefix("fam:") for name in fields if name.startswith("fam:"))
        return TenantState(
            fields.get("gen", ""), "ready" in fields, "dirty" in fields, int(fields.get("wm", 0)),
            int(fields.get("expired", 0)), families,
        )  # fmt: skip

    async def set_watermark(self, tenant: str, watermark_ms: int) -> None:
        """Everything enqueued before this instant has been processed: holds older than it plus their TTL may expire."""
        await self._redis.execute_command("HSET", tenant_keys(tenant).meta, "wm", watermark_ms)

    async def mark_dirty(self, tenant: str) -> None:
        """Ask for a reconciliation."""
        await self._redis.execute_command("HINCRBY", tenant_keys(tenant).meta, "dirty", 1)

    async def cells(self, tenant: str, now_ms: int) -> list[Cell]:
        """Every counter of the tenant that is alive."""
        keys = tenant_keys(tenant)
        names = await self._redis.execute_command("ZRANGEBYSCORE", keys.index, now_ms, "+inf")
        names += await self._redis.execute_command("ZRANGEBYSCORE", keys.asserted, now_ms, "+inf")
        found = []
        for name in names:
            try:
                found.append(parse_cell(name.decode().removeprefix(keys.cell(""))))
            except ValueError:  # a country changed its clocks: no period starts there any more
                log.exception("cell_unreadable", extra={"tenant": tenant})
        return found

    async def figures(self, tenant: str, cell: Cell) -> tuple[int, int, dict[str, int]]:
        """Spent, held and the carries by field of one counter, in nano-USD; zeros when it does not exist."""
        raw = await self._redis.execute_command("HGETALL", tenant_keys(tenant).cell(cell.id))
        fields = {name.decode(): int(value) for name, value in _pairs(raw)}
        carries = {name: value for name, value in fields.items() if name.startswith("carry:")}
        return fields.get("spent", 0), max(0, fields.get("held", 0)), carries

    async def exists(self, tenant: str, cell: Cell) -> bool:
        """Whether the counter was ever touched and is still kept."""
        return bool(await self._redis.execute_command("EXISTS", tenant_keys(tenant).cell(cell.id)))

    async def set_carry(
        self, tenant: str, cell: Cell, field: str, carry_nano_usd: int, *, asserted: bool = False
    ) -> None:
        """Record what a rollover budget carried into the cell's period. A client-asserted cell keeps its idle time."""
        key, expire_at = tenant_keys(tenant).cell(cell.id), expire_at_ms(cell)
        await self._redis.execute_command("HSET", key, field, carry_nano_usd)
        if expire_at and not asserted:
            await self._redis.execute_command("PEXPIREAT", key, expire_at)

    async def forget_families(self, tenant: str, families: Iterable[str]) -> None:
        """Families that no budget needs any more count as unseeded from now on."""
        fields = [f"fam:{family}" for family in families]
        await self._redis.execute_command("HDEL", tenant_keys(tenant).meta, *fields)

    async def eviction_policy(self) -> str:
        """The server's maxmemory-policy, or an empty text where it does not say, as managed ones may not."""
        try:
            raw = await self._redis.execute_command("CONFIG GET", "maxmemory-policy")
        except Exception as error:
            if is_refusal(error):
                return ""
            raise
        values = [value for _, value in _pairs(raw)]  # redis-py decodes the reply to this command
        return str(values[0]) if values else ""

    async def now_ms(self) -> int:
        """Redis's own clock: the one that holds are timed by."""
        seconds, microseconds = await self._redis.execute_command("TIME")
        return int(seconds) * 1000 + int(microseconds) // 1000

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def ping(self) -> None:
        """Raise when the server cannot be reached."""
        await self._redis.execute_command("PING")


def _position_args(position: Position | None) -> tuple[int | str, int | str]:
    return ("", "") if position is None else (position.enqueued_ms, position.sequence)


def _pairs(raw: Any) -> Iterable[tuple[bytes, bytes]]:
    """Field and value pairs of a hash reply, which redis-py hands out as a dict or as a flat list."""
    return raw.items() if isinstance(raw, dict) else zip(raw[::2], raw[1::2], strict=True)
