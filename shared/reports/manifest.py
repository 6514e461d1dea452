"""What was published of a month: the one file that readers start from. It is written last, in one request."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from datetime import datetime

import msgspec

from shared.money import decimal_from_nano, nano_from_decimal
from shared.reports.basis import Previous
from shared.reports.statement import Statement, Status

MANIFEST = "manifest.json"
BASIS = "basis.json"
_DIGEST_CHARS = 12
_SLUG = re.compile(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9_-])?")  # no segment of a blob's name may end with a dot
_SLUG_DIGEST_CHARS = 32  # names may be chosen to collide: two teams must never write one file


class PublishedFile(msgspec.Struct, frozen=True, kw_only=True):
    """One file. `path` is below the month's folder; `team` is None for the tenant's."""

    name: str
    path: str
    format: str
    media_type: str
    team: str | None = None
    rows: int  # charges in it; of forms that show no charges, usage lines
    bytes: int
    sha256: str


class PublishedTeam(msgspec.Struct, frozen=True, kw_only=True):
    """A team's amounts, as decimal strings: what is due in the statement's currency, and the ledger's cost in USD."""

    team: str
    slug: str
    total: str
    ledger_cost: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """A tenant's month as it was published."""

    tenant: str
    period: str
    number: str
    status: Status
    as_of: datetime
    currency: str
    total: str
    ledger_cost: str  # USD
    charges: int
    digest: str  # folder of the files; equal content has an equal digest
    notes: tuple[str, ...] = ()
    teams: tuple[PublishedTeam, ...] = ()
    files: tuple[PublishedFile, ...] = ()
    carried: Mapping[str, str] = msgspec.field(default_factory=dict)  # `budget id|scope` -> USD carried into the month

    @property
    def previous(self) -> Previous:
        """What the next month's statement takes over from this one."""
        return Previous(
            currency=self.currency,
            totals_nano={team.team: nano_from_decimal(team.total) for team in self.teams},
            carried_nano_usd={key: nano_from_decimal(amount) for key, amount in self.carried.items()},
        )

    def file(self, name: str, team: str | None = None) -> PublishedFile | None:
        """A file by its name, of the tenant or of a team."""
        return next((file for file in self.files if (file.name, file.team) == (name, team)), None)


decode_manifest = msgspec.json.Decoder(Manifest).decode


def month_folder(tenant: str, period: str) -> str:
    """Where a month's manifest and basis lie, and its digest folders are."""
    return f"{tenant}/{period}/"


def make_manifest(statement: Statement, files: Iterable[PublishedFile], digest: str, charges: int) -> Manifest:
    """The manifest of a statement's files."""
    return Manifest(
        tenant=statement.tenant,
        period=statement.period,
        number=statement.number,
        status=statement.status,
        as_of=statement.as_of_utc,
        currency=statement.currency,
        total=decimal_from_nano(statement.total_nano),
        ledger_cost=decimal_from_nano(statement.totals.cost_nano_usd),
        charges=charges,
        digest=digest,
        notes=statement.notes,
        teams=tuple(
            PublishedTeam(
                team=team,
                slug=team_slug(team),
                total=decimal_from_nano(part.total_nano),
                ledger_cost=decimal_from_nano(part.totals.cost_nano_usd),
            )
            for team, part in statement.by_team()
        ),
        files=tuple(files),
        carried={
            f"{budget.id}|{budget.scope}": decimal_from_nano(budget.carried_nano_usd)
            for budget in statement.budgets
            if budget.carried_nano_usd
        },
    )


def content_digest(files: Mapping[str, str]) -> str:
    """The folder name of files given as {path: sha256}: equal content, equal name."""
    digest = hashlib.sha256()
    for path, sha256 in sorted(files.items()):
        digest.update(f"{len(path.encode())}:{path}:{sha256}\n".encode())
    return digest.hexdigest()[:_DIGEST_CHARS]


def team_slug(team: str) -> str:
    """A team's folder name. Names come from events and may hold anything; only harmless ones stand for themselves."""
    if _SLUG.fullmatch(team):
        return team
    readable = re.sub(r"[^a-z0-9]+", "-", team.lower()).strip("-")[:40] or "team"
    return f"{readable}~{hashlib.sha256(team.encode()).hexdigest()[:_SLUG_DIGEST_CHARS]}"
