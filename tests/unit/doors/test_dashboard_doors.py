"""The dashboard's page and the doors that only it needs."""

from __future__ import annotations

import gzip
import hashlib
import re
from base64 import b64encode
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from door_fakes import Doors, Recorder, principal

from functions.dashboard_page.page import bundle, dashboard_page
from shared.errors import ConfigInvalid
from shared.reports.manifest import Manifest, PublishedFile, PublishedTeam
from shared.reports.published import Download
from shared.settings import Settings

SAME = {"sec-fetch-site": "same-origin"}
READER, ADMIN = principal("Chargeback.Read", oid="ada"), principal("Chargeback.Admin", oid="grace")
FINANCE = principal("Chargeback.Read", oid="fay", groups=["finance-group"])


async def test_the_page_comes_to_anybody_even_while_the_app_is_not_ready(
    doors: Doors, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It holds no figures, and it is what tells a person that the app cannot serve yet."""

    async def refused() -> None:
        raise ConfigInvalid("team file is broken")

    monkeypatch.setattr("shared.bootstrap.app", refused)
    reply = await doors.call("dashboard", as_="none")
    assert (reply.status, reply.media_type) == (200, "text/html")
    assert (await doors.call("me", as_=READER)).code == "not_ready"


async def test_the_policy_names_exactly_the_script_and_style_of_the_page(doors: Doors) -> None:
    """Every inline text has its hash in the policy, nothing else may run, and no tag or attribute needs more."""
    reply = await doors.call("dashboard")
    html, policy = reply.raw.decode(), dict(part.split(" ", 1) for part in _policy(reply.headers))
    for tag in ("script", "style"):
        (text,) = re.findall(f"<{tag}[^>]*>(.*?)</{tag}>", html, re.DOTALL)
        assert policy[f"{tag}-src"] == f"'sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
    assert policy["default-src"] == policy["base-uri"] == policy["form-action"] == policy["frame-ancestors"] == "'none'"
    assert policy["connect-src"] == "'self'"
    assert policy["require-trusted-types-for"] == "'script'"
    assert not re.search(r"\s(on\w+|style|srcset)=", html.split("<script")[0])
    assert not re.findall(r'(?:src|href)="(?!#|data:)', html.split("<script")[0])
    assert (reply.headers["X-Content-Type-Options"], reply.headers["Referrer-Policy"]) == ("nosniff", "no-referrer")
    assert "camera=()" in reply.headers["Permissions-Policy"]


def _policy(headers: Any) -> list[str]:
    return [part.strip() for part in headers["Content-Security-Policy"].split(";")]


def test_no_source_makes_markup_from_text() -> None:
    """What would need it is what names could be smuggled through."""
    assert not re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", bundle())


async def test_the_page_travels_small_and_once(doors: Doors) -> None:
    """Compressed for whoever takes it, and not at all for whoever has this version."""
    plain = await doors.call("dashboard")
    packed = await doors.call("dashboard", headers={"accept-encoding": "br, gzip"})
    assert packed.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(packed.raw) == plain.raw == dashboard_page().html
    assert len(packed.raw) < 40_000
    again = await doors.call("dashboard", headers={"if-none-match": plain.headers["ETag"]})
    assert (again.status, again.raw) == (304, b"")


@pytest.mark.parametrize(
    ("who", "tenants"),
    [
        (READER, [("contoso", False, ["search"]), ("fabrikam", False, ["fab"])]),
        (FINANCE, [("contoso", True, [])]),
        (ADMIN, [("contoso", True, []), ("default", True, []), ("fabrikam", True, [])]),
        (principal("Chargeback.Read", oid="mallory"), []),
    ],
    ids=["member", "finance", "admin", "stranger"],
)
async def test_me_lists_the_tenants_and_teams_within_reach(
    doors: Doors, services: SimpleNamespace, who: str, tenants: list[tuple[str, bool, list[str]]]
) -> None:
    """What the page offers is what the other doors will answer."""
    found = (await doors.call("me", as_=who)).json
    assert [(each["id"], each["tenant_wide"], each["teams"]) for each in found["tenants"]] == tenants
    assert found["admin"] is (who == ADMIN)


async def test_me_offers_to_sign_out_where_one_signs_in(doors: Doors, services: SimpleNamespace) -> None:
    """On the laptop there is no session to end."""
    assert (await doors.call("me", as_=READER)).json["sign_out"] is None
    services.settings = Settings(environment="production", auth_enabled=True)
    assert (await doors.call("me", as_=READER)).json["sign_out"].startswith("/.auth/logout?")


RESET = {"tenant": "contoso", "scope": "team:search", "why": "test"}


@pytest.mark.parametrize(
    ("headers", "refused"),
    [
        ({"sec-fetch-site": "cross-site"}, True),
        ({"sec-fetch-site": "same-site"}, True),  # another app of azurewebsites.net is no friend
        ({"sec-fetch-site": "cross-site", "origin": "https://tollkeeper.example"}, True),
        ({"origin": "https://evil.example"}, True),
        ({"origin": "null"}, True),
        ({"origin": "https://app.example.evil.example", "host": "app.example"}, True),
        (SAME, False),
        ({"sec-fetch-site": "none"}, False),
        ({"origin": "https://app.example", "host": "app.example"}, False),
        ({"origin": "https://tollkeeper.example", "host": "app-1.azurewebsites.net"}, False),
        ({}, False),
    ],
)
async def test_another_site_cannot_make_a_signed_in_browser_change_anything(
    doors: Doors, services: SimpleNamespace, headers: dict[str, str], refused: bool
) -> None:
    """The session is a cookie, which the browser sends along for any site; machines send neither header."""
    services.settings = Settings(environment="development", public_url="https://tollkeeper.example")
    reply = await doors.call("budget_reset", body=RESET, headers=headers, as_=ADMIN)
    if refused:
        assert (reply.status, reply.code) == (403, "cross_site_request")
        assert services.reset.reset.calls == []
    else:
        assert reply.status == 202


async def test_reading_needs_no_such_proof(doors: Doors, services: SimpleNamespace) -> None:
    """A link from a chat or a mail is cross-site too, and only ever reads."""
    reply = await doors.call("spend", query={"tenant": "contoso"}, headers={"sec-fetch-site": "cross-site"}, as_=READER)
    assert reply.status == 200


def _file(name: str, team: str | None = None, size: int = 3) -> PublishedFile:
    kind = "text/html" if name.endswith("html") else "text/csv"
    path = f"teams/{team}/{name}" if team else name
    return PublishedFile(
        name=name, path=path, format=name[-4:], media_type=kind, team=team, rows=1, bytes=size, sha256="0" * 64
    )


MANIFEST = Manifest(
    tenant="contoso",
    period="2026-10",
    number="contoso-2026-10",
    status="final",
    as_of=datetime(2026, 11, 3, tzinfo=UTC),
    currency="USD",
    total="30.00",
    ledger_cost="30.00",
    charges=3,
    digest="0123456789ab",
    notes=("2 calls of ads have no price",),
    teams=tuple(PublishedTeam(team=team, slug=team, total="15.00", ledger_cost="15.00") for team in ("ads", "search")),
    files=(_file("a.csv"), _file("a.csv", "ads"), _file("a.csv", "search"), _file("a.html", "search")),
)


class FakePublished:
    """One published month."""

    def __init__(self) -> None:
        self.all = Recorder([MANIFEST])

    async def open(self, tenant: str, period: str, name: str, team: str | None = None) -> Download:
        file = MANIFEST.file(name, team)
        assert file is not None

        async def chunks() -> AsyncIterator[bytes]:
            yield b"a,"
            yield b"b"

        return Download(file, chunks())


@pytest.fixture
def published(services: SimpleNamespace) -> SimpleNamespace:
    """The fakes with one published month."""
    services.published = FakePublished()
    return services


async def test_a_member_is_offered_their_teams_files_and_nothing_of_the_tenant(
    doors: Doors, published: SimpleNamespace
) -> None:
    """No other team's name, amount or file, and no note that may speak of one; finance gets all of it."""
    query = {"tenant": "contoso"}
    (own,) = (await doors.call("statement_list", query=query, as_=READER)).json["periods"]
    assert (own["total"], own["notes"]) == (None, [])
    assert own["teams"] == [{"team": "search", "total": "15.00"}]
    assert [(each["name"], each["team"]) for each in own["files"]] == [("a.csv", "search"), ("a.html", "search")]
    (whole,) = (await doors.call("statement_list", query=query, as_=FINANCE)).json["periods"]
    assert (whole["total"], len(whole["files"]), len(whole["teams"])) == ("30.00", 4, 2)


@pytest.mark.parametrize("query", [{}, {"team": "ads"}, {"team": "no-such-team"}])
async def test_a_member_gets_no_file_but_their_own_teams(
    doors: Doors, published: SimpleNamespace, query: dict[str, str]
) -> None:
    """Neither the tenant's file nor another team's, whether it exists or not."""
    route = {"period": "2026-10", "file": "a.csv"}
    reply = await doors.call("statement_file", route=route, query={"tenant": "contoso", **query}, as_=READER)
    assert (reply.status, reply.code) == (403, "scope_not_allowed")


async def test_a_file_is_saved_and_a_printable_one_looked_at_in_a_sandbox(
    doors: Doors, published: SimpleNamespace
) -> None:
    """It comes from our own origin and holds names that others chose, so nothing in it may run."""
    query = {"tenant": "contoso", "team": "search"}
    saved = await doors.call("statement_file", route={"period": "2026-10", "file": "a.csv"}, query=query, as_=READER)
    assert (saved.raw, saved.media_type) == (b"a,b", "text/csv")
    assert saved.headers["Content-Disposition"] == 'attachment; filename="contoso-search-2026-10-a.csv"'
    seen = await doors.call("statement_file", route={"period": "2026-10", "file": "a.html"}, query=query, as_=READER)
    assert seen.headers["Content-Disposition"].startswith("inline;")
    assert seen.headers["Content-Security-Policy"].startswith("sandbox")
    assert "script" not in seen.headers["Content-Security-Policy"]


async def test_texts_say_their_charset_once_and_other_files_none(
    doors: Doors, published: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A CSV in another charset than it says breaks names, and Parquet has none."""
    said = []
    for media_type in ("text/csv", "text/csv; charset=utf-8", "application/vnd.apache.parquet"):
        file = msgspec.structs.replace(_file("a.csv", "search"), media_type=media_type)
        monkeypatch.setattr(Manifest, "file", lambda *_, file=file: file)
        route, query = {"period": "2026-10", "file": "a.csv"}, {"tenant": "contoso", "team": "search"}
        reply = await doors.call("statement_file", route=route, query=query, as_=READER)
        said.append(reply.headers["Content-Type"])
    assert said == ["text/csv; charset=utf-8", "text/csv; charset=utf-8", "application/vnd.apache.parquet"]
    assert (await doors.call("me", as_=READER)).headers["Content-Type"] == "application/json"


async def test_a_filter_may_name_a_value_with_a_comma(doors: Doors, services: SimpleNamespace) -> None:
    """A backslash takes the comma's meaning away; without one it still separates."""
    query = {"tenant": "contoso", "session": r"a\,b,c\\"}
    assert (await doors.call("usage_summary", query=query, as_=FINANCE)).status == 200
    ((arguments, _),) = services.summaries.summarize.calls
    assert arguments[4] == {"session": ["a,b", "c\\"]}
