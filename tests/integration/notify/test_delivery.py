"""Delivery over a real outbox (Azurite) to real HTTP and SMTP servers: at least once, whatever fails in between."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult

from local.azurite import Azurite
from local.process import free_port
from shared.config.model import AlertRoute
from shared.ledger.deadletters import DeadLetters
from shared.ledger.row import Position
from shared.ledger.tables import open_tables
from shared.notify.channels import Channels
from shared.notify.dead_letter_notices import DeadLetterNotices
from shared.notify.delivery import Delivery
from shared.notify.notice import GIVE_UP_AFTER, UNROUTED_AFTER
from shared.notify.outbox import Outbox
from shared.settings import Settings
from tests.support.entra_redis import Authority
from tests.support.http_server import Reply, Request, serving

SECRET = "whsec_" + "c2VjcmV0" * 4
THRESHOLD = {"tenant": "acme", "scope": "team:search", "threshold": "warn", "spent": "81.20", "limit": "100.00"}


WORKER = """
import asyncio, sys
from shared.config.model import AlertRoute
from shared.ledger.tables import open_tables
from shared.notify.channels import Channels
from shared.notify.delivery import Delivery
from shared.notify.outbox import Outbox
from shared.settings import Settings

storage, prefix, port, secret = sys.argv[1:]
routes = [AlertRoute(("*",), "webhook", "ALERT_HOOK", "ALERT_SECRET")]
targets = {"ALERT_HOOK": f"http://127.0.0.1:{port}/x", "ALERT_SECRET": secret}


async def main():
    tables = await open_tables(Settings(storage_connection=storage, table_prefix=prefix))
    channels = Channels(Settings(environment="development", alert_targets=targets), None)
    await Delivery(Outbox(tables.outbox), lambda: routes, channels).run()


asyncio.run(main())
"""


class Receiver:
    """A webhook's other end: answers what the test says, keeps what it took."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.replies: list[Reply] = []  # one for each coming request; then 200
        self.wait_seconds = 0.0

    def answer(self, request: Request) -> Reply:
        self.requests.append(request)
        time.sleep(self.wait_seconds)
        return self.replies.pop(0) if self.replies else Reply("ok")


class World:
    """One outbox, its receivers, and a clock that the test turns."""

    def __init__(self, outbox: Outbox, stack: ExitStack) -> None:
        self.outbox = outbox
        self.now = datetime.now(UTC)
        self.receivers: dict[str, Receiver] = {}
        self.routes: list[AlertRoute] = []
        self.targets: dict[str, str] = {"ALERT_SECRET": SECRET}
        self.storage = self.prefix = ""
        self._stack = stack

    def route(self, name: str, channel: Any = "webhook", kinds: tuple[str, ...] = ("*",), **more: Any) -> Receiver:
        """A route to a receiver of its own, behind the app setting ALERT_<name>."""
        receiver = self.receivers[name] = Receiver()
        self.targets[f"ALERT_{name}"] = f"http://127.0.0.1:{self._stack.enter_context(serving(receiver.answer))}/x"
        secret = "ALERT_SECRET" if channel == "webhook" else None
        self.routes.append(AlertRoute(kinds, channel, f"ALERT_{name}", secret, **more))
        return receiver

    def delivery(self, **settings: Any) -> Delivery:
        """A worker."""
        wanted = {"environment": "development", "alert_targets": self.targets, **settings}

        async def token() -> str:
            return "of-the-identity"

        return Delivery(self.outbox, lambda: self.routes, Channels(Settings(**wanted), token), lambda: self.now)

    async def later(self, **duration: float) -> None:
        """Turn the clock and run a worker."""
        self.now += timedelta(**duration)
        await self.delivery().run()


@pytest.fixture
async def world(azurite: Azurite) -> AsyncIterator[World]:
    """An empty outbox without routes."""
    prefix = f"t{uuid.uuid4().hex[:12]}"
    tables = await open_tables(Settings(storage_connection=azurite.connection_string, table_prefix=prefix))
    with ExitStack() as stack:
        world = World(Outbox(tables.outbox), stack)
        world.storage, world.prefix = azurite.connection_string, prefix
        yield world
    await tables.close()


async def test_notice_goes_once_to_every_route_that_wants_it(world: World) -> None:
    """Kinds, tenants and scopes choose; two routes to one address are one destination; then the outbox is empty."""
    everything, of_acme = world.route("ALL"), world.route("ACME", tenants=frozenset({"acme"}))
    others = [
        world.route("OTHER_KIND", kinds=("drift",)),
        world.route("OTHER_TENANT", tenants=frozenset({"globex"})),
        world.route("OTHER_SCOPE", scopes=("team:support",)),
    ]
    teams = world.route("TEAMS", scopes=("team:*",))
    world.routes.append(world.routes[0])
    await world.outbox.add_once("k", "threshold", THRESHOLD)
    assert (await world.delivery().run()).sent == 3
    await world.delivery().run()
    assert [len(each.requests) for each in (everything, of_acme, teams, *others)] == [1, 1, 1, 0, 0, 0]
    assert await world.outbox.waiting() == []


async def test_one_failing_route_neither_blocks_nor_repeats_the_others(world: World) -> None:
    """The good route has it after the first run and never again, while the bad one is tried until it takes it."""
    bad, good = world.route("BAD"), world.route("GOOD")
    bad.replies = [Reply("broken", 500), Reply("broken", 503)]
    await world.outbox.add_once("k", "threshold", THRESHOLD)
    await world.delivery().run()
    await world.later(seconds=31)
    await world.later(seconds=61)
    assert (len(bad.requests), len(good.requests)) == (3, 1)
    assert {request.headers["webhook-id"] for request in bad.requests} == {good.requests[0].headers["webhook-id"]}
    assert await world.outbox.waiting() == []


async def test_waits_grow_and_retry_after_is_kept(world: World) -> None:
    """30 s, then 60 s, and 600 s when the receiver asks for them; earlier runs leave the route alone."""
    receiver = world.route("SLOW", "slack")
    receiver.replies = [Reply("", 500), Reply("", 500), Reply("", 429, {"Retry-After": "600"})]
    await world.outbox.add_once("k", "threshold", THRESHOLD)
    await world.delivery().run()
    for seconds, tries in ((29, 1), (2, 2), (58, 2), (3, 3), (595, 3), (6, 4)):
        await world.later(seconds=seconds)
        assert len(receiver.requests) == tries, seconds
    assert await world.outbox.waiting() == []


async def test_worker_that_is_killed_after_sending_repeats_the_message_under_the_same_id(world: World) -> None:
    """SIGKILL the moment the receiver has it: the claim runs out, another worker sends, the receiver can tell."""
    taken: list[Request] = []
    workers: list[int] = []

    def kill_at_first(request: Request) -> Reply:
        taken.append(request)
        if len(taken) == 1:
            os.kill(workers[0], signal.SIGKILL)
        return Reply("ok")

    await world.outbox.add_once("k", "threshold", THRESHOLD)
    with serving(kill_at_first) as port:
        world.targets["ALERT_HOOK"] = f"http://127.0.0.1:{port}/x"
        world.routes.append(AlertRoute(("*",), "webhook", "ALERT_HOOK", "ALERT_SECRET"))
        command = [sys.executable, "-c", WORKER, world.storage, world.prefix, str(port), SECRET]
        worker = await asyncio.create_subprocess_exec(*command)
        workers.append(worker.pid)
        assert await asyncio.wait_for(worker.wait(), 60) == -signal.SIGKILL
        await world.delivery().run()
        assert len(taken) == 1, "the dead worker's claim still holds"
        await world.later(minutes=3)
    assert len(taken) == 2
    assert len({request.headers["webhook-id"] for request in taken}) == 1
    assert await world.outbox.waiting() == []


async def test_two_workers_at_once_send_each_notice_once(world: World) -> None:
    """A notice is claimed by one of them, so 12 notices make 12 messages."""
    receiver = world.route("HOOK")
    for number in range(12):
        await world.outbox.add_once(f"k{number}", "threshold", THRESHOLD)
    await asyncio.gather(world.delivery().run(), world.delivery().run())
    assert len(receiver.requests) == len({request.headers["webhook-id"] for request in receiver.requests}) == 12


async def test_destination_that_is_away_is_not_asked_for_every_notice(world: World) -> None:
    """Of 30 notices a few are tried, the rest wait untouched; the other route gets all 30 in the same run."""
    bad, good = world.route("BAD"), world.route("GOOD")
    bad.replies = [Reply("", 503)] * 100
    for number in range(30):
        await world.outbox.add_once(f"k{number}", "threshold", THRESHOLD)
    await world.delivery().run()
    assert len(good.requests) == 30
    assert len(bad.requests) <= 8
    bad.replies = []
    for _ in range(3):
        await world.later(minutes=5)
    assert len({request.headers["webhook-id"] for request in bad.requests}) == 30
    assert len(good.requests) == 30


async def test_route_that_fails_for_days_is_given_up_visibly(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """The notice is kept apart with the reason and a log record says so; it is not tried any more."""
    receiver = world.route("GONE")
    receiver.replies = [Reply("no such hook", 404)] * 100
    await world.outbox.add_once("k", "threshold", THRESHOLD)
    await world.delivery().run()
    await world.later(seconds=GIVE_UP_AFTER.total_seconds())
    tried = len(receiver.requests)
    await world.later(days=1)
    assert len(receiver.requests) == tried
    (dead,) = await world.outbox.given_up()
    assert dead.payload == THRESHOLD
    assert dead.progress["webhook:ALERT_GONE"].error == "HTTP 404 no such hook"
    assert [record.levelname for record in caplog.records if record.message == "notice_given_up"] == ["ERROR"]
    assert await world.outbox.waiting() == []


async def test_missing_setting_waits_for_whoever_sets_it(world: World) -> None:
    """The reason names the setting; once it is there the notice goes."""
    receiver = world.route("LATE")
    address = world.targets.pop("ALERT_LATE")
    await world.outbox.add_once("k", "threshold", THRESHOLD)
    await world.delivery().run()
    (notice,) = await world.outbox.waiting()
    assert "ALERT_LATE is not set" in notice.progress["webhook:ALERT_LATE"].error
    world.targets["ALERT_LATE"] = address
    await world.later(minutes=1)
    assert len(receiver.requests) == 1


async def test_notice_without_a_route_waits_a_week_for_one(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """A route that is added finds it; after a week it goes, and the log says that nobody was told."""
    await world.outbox.add_once("k", "threshold", THRESHOLD)
    await world.outbox.add_once("drift", "drift", {"tenant": "acme"})
    await world.later(days=1)
    receiver = world.route("NEW", kinds=("threshold",))
    await world.later(days=1)
    assert len(receiver.requests) == 1
    await world.later(seconds=UNROUTED_AFTER.total_seconds())
    assert await world.outbox.waiting() == []
    assert [r.kind for r in caplog.records if r.message == "notice_without_route"] == ["drift"]  # type: ignore[attr-defined]


async def test_slow_receiver_is_given_up_on_after_its_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A receiver that does not answer is a failure like any other, and holds nobody else up."""
    monkeypatch.setattr("shared.notify.post.post.__kwdefaults__", {"accepted": (), "timeout_seconds": 0.2})
    slow, good = world.route("SLOW"), world.route("GOOD")
    slow.wait_seconds = 1.0
    await world.outbox.add_once("k", "threshold", THRESHOLD)
    await world.delivery().run()
    (notice,) = await world.outbox.waiting()
    assert notice.progress["webhook:ALERT_SLOW"].error == "no answer within 0.2 seconds"
    assert len(good.requests) == 1


async def test_redirects_and_plain_http_are_refused(world: World) -> None:
    """Neither a receiver nor a typo may send what concerns a tenant elsewhere or in the clear; no address is kept."""
    receiver = world.route("HOOK", "slack")
    receiver.replies = [Reply("", 302, {"Location": "http://169.254.169.254/"})]
    await world.outbox.add_once("k", "threshold", THRESHOLD)
    await world.delivery().run()
    (notice,) = await world.outbox.waiting()
    assert "redirects are not followed" in notice.progress["slack:ALERT_HOOK"].error
    world.now += timedelta(minutes=1)
    await world.delivery(environment="production").run()
    (notice,) = await world.outbox.waiting()
    assert notice.progress["slack:ALERT_HOOK"].error == "the address does not start with https://"
    assert len(receiver.requests) == 1
    assert "127.0.0.1" not in str(notice.progress)


async def test_receiver_that_names_the_path_it_was_asked_for_gives_no_secret_away(world: World) -> None:
    """A Slack or Teams address is its own password, and many servers say which path they do not know."""
    secret = "B0SECRETSECRET"
    receiver = world.route("HOOK", "slack")
    world.targets["ALERT_HOOK"] += f"/{secret}/T%2B0token?sig={secret[::-1]}"
    said = f"Cannot POST /x/{secret}/T%2B0token (T+0token) with sig={secret[::-1]}"
    receiver.replies = [Reply(said, 404)]
    await world.outbox.add_once("k", "threshold", THRESHOLD)
    await world.delivery().run()
    (notice,) = await world.outbox.waiting()
    error = notice.progress["slack:ALERT_HOOK"].error
    assert error.startswith("HTTP 404 Cannot POST ***")
    assert not any(part in error for part in (secret, "0token", secret[::-1]))


async def test_receiver_that_asks_for_an_endless_wait_holds_up_nobody(world: World) -> None:
    """It is asked again after the longest wait; the notices of other routes go out in the same run."""
    receiver, good = world.route("ENDLESS"), world.route("GOOD")
    receiver.replies = [Reply("", 429, {"Retry-After": "9" * 400})]
    await world.outbox.add_once("k", "threshold", THRESHOLD)
    await world.delivery().run()
    await world.later(hours=6, seconds=1)
    assert (len(receiver.requests), len(good.requests)) == (2, 1)


async def test_every_channel_posts_its_own_form(world: World) -> None:
    """Slack blocks, a Teams card in its envelope, a signed webhook: each as JSON over its own address."""
    slack, teams, hook = world.route("S", "slack"), world.route("T", "teams"), world.route("W")
    await world.outbox.add_once("k", "threshold", THRESHOLD)
    await world.delivery().run()
    assert slack.requests[0].json()["blocks"][0]["type"] == "header"
    assert teams.requests[0].json()["attachments"][0]["content"]["type"] == "AdaptiveCard"
    assert hook.requests[0].json()["data"]["payload"] == THRESHOLD
    assert {each.requests[0].headers["content-type"] for each in (slack, teams, hook)} == {"application/json"}


async def test_mail_by_communication_services_repeats_under_one_operation_id(world: World) -> None:
    """As the managed identity; an answer that got lost leads to 409 on the retry, which means that it was taken."""
    service = Receiver()
    service.replies = [Reply("", 500), Reply({"error": {"code": "Conflict"}}, 409)]
    world.targets["ALERT_MAIL"] = "ada@example.com, bob@example.com"
    world.routes.append(AlertRoute(("*",), "email", "ALERT_MAIL"))
    await world.outbox.add_once("k", "threshold", THRESHOLD)
    with serving(service.answer) as port:
        options = {"communication_endpoint": f"http://127.0.0.1:{port}", "mail_from": "budgets@example.com"}
        await world.delivery(**options).run()
        world.now += timedelta(minutes=1)
        await world.delivery(**options).run()
    first, second = service.requests
    assert (first.path, first.query["api-version"]) == ("/emails:send", "2023-03-31")
    assert first.headers["authorization"] == "Bearer of-the-identity"
    assert first.headers["operation-id"] == second.headers["operation-id"]
    assert first.json()["recipients"] == {"to": [{"address": "ada@example.com"}, {"address": "bob@example.com"}]}
    assert await world.outbox.waiting() == []


async def test_broken_channel_does_not_hold_up_the_others(world: World) -> None:
    """Whatever a channel raises, such as no token, is that route's failure alone."""
    good = world.route("GOOD")
    world.targets["ALERT_MAIL"] = "ada@example.com"
    world.routes.append(AlertRoute(("*",), "email", "ALERT_MAIL"))
    await world.outbox.add_once("k", "threshold", THRESHOLD)

    async def no_token() -> str:
        raise RuntimeError("the identity endpoint is away")

    settings = Settings(
        environment="development",
        alert_targets=world.targets,
        communication_endpoint="http://127.0.0.1:9",
        mail_from="budgets@example.com",
    )
    report = await Delivery(world.outbox, lambda: world.routes, Channels(settings, no_token), lambda: world.now).run()
    assert (report.sent, report.failed) == (1, 1)
    assert len(good.requests) == 1


@pytest.fixture
def mailbox() -> Iterator[Any]:
    """A real SMTP server on loopback and what it took."""

    class Keep:
        def __init__(self) -> None:
            self.port = free_port()
            self.taken: list[Any] = []
            self.refusals: list[str] = []

        async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
            if self.refusals:
                return self.refusals.pop(0)
            self.taken.append(envelope)
            return "250 OK"

    keep = Keep()
    controller = Controller(keep, hostname="127.0.0.1", port=keep.port)
    controller.start()
    yield keep
    controller.stop()


async def test_mail_by_smtp_is_retried_and_carries_one_message_id(world: World, mailbox: Any) -> None:
    """A server that is busy (451) gets it later, under the same Message-ID; both recipients are in one e-mail."""
    mailbox.refusals = ["451 busy"]
    world.targets["ALERT_MAIL"] = "ada@example.com, bob@example.com"
    world.routes.append(AlertRoute(("*",), "email", "ALERT_MAIL"))
    await world.outbox.add_once("k", "threshold", THRESHOLD)
    options = {"smtp_url": f"smtp://127.0.0.1:{mailbox.port}", "mail_from": "budgets@example.com"}
    await world.delivery(**options).run()
    (notice,) = await world.outbox.waiting()
    assert notice.progress["email:ALERT_MAIL"].error == "SMTP 451 busy"
    world.now += timedelta(minutes=1)
    await world.delivery(**options).run()
    (envelope,) = mailbox.taken
    assert envelope.rcpt_tos == ["ada@example.com", "bob@example.com"]
    assert f"Message-ID: <{notice.digest}.".encode() in envelope.content
    assert await world.outbox.waiting() == []


async def test_mail_never_goes_without_tls_outside_development(world: World, mailbox: Any) -> None:
    """A server that offers no STARTTLS gets nothing, not even the password."""
    world.targets["ALERT_MAIL"] = "ada@example.com"
    world.routes.append(AlertRoute(("*",), "email", "ALERT_MAIL"))
    await world.outbox.add_once("k", "threshold", THRESHOLD)
    url = f"smtp://user:password@127.0.0.1:{mailbox.port}"
    await world.delivery(environment="production", smtp_url=url, mail_from="budgets@example.com").run()
    (notice,) = await world.outbox.waiting()
    assert notice.progress["email:ALERT_MAIL"].error == "SMTP: the connection failed (SMTPNotSupportedError)"
    assert mailbox.taken == []


async def test_mail_goes_over_starttls_to_a_server_that_proves_its_name(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """User and password too; a server that anybody could have set up gets neither."""
    authority, taken = Authority(tmp_path), []

    class Keep:
        async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
            taken.append((session.ssl is not None, session.auth_data.login, envelope.rcpt_tos))
            return "250 OK"

    def may_sign_in(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        return AuthResult(success=data.password == b"p@ss", auth_data=data)

    port = free_port()
    controller = Controller(
        Keep(),
        hostname="127.0.0.1",
        port=port,
        tls_context=authority.server_context("localhost"),
        require_starttls=True,
        authenticator=may_sign_in,
        auth_required=True,
    )
    controller.start()
    world.targets["ALERT_MAIL"] = "ada@example.com"
    world.routes.append(AlertRoute(("*",), "email", "ALERT_MAIL"))
    await world.outbox.add_once("k", "threshold", THRESHOLD)
    options = {
        "environment": "production",
        "smtp_url": f"smtp://me:p%40ss@localhost:{port}",
        "mail_from": "b@x.example",
    }
    await world.delivery(**options).run()
    (notice,) = await world.outbox.waiting()
    assert "SSLCertVerificationError" in notice.progress["email:ALERT_MAIL"].error
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.path))
    world.now += timedelta(minutes=1)
    await world.delivery(**options).run()
    controller.stop()
    assert taken == [(True, b"me", ["ada@example.com"])]


async def test_dead_letters_are_noticed_once_per_code_and_day(azurite: Azurite) -> None:
    """With the count so far, and on the next day the whole count of the day before."""
    prefix = f"t{uuid.uuid4().hex[:12]}"
    tables = await open_tables(Settings(storage_connection=azurite.connection_string, table_prefix=prefix))
    letters, outbox = DeadLetters(tables.deadletters, tables.bodies), Outbox(tables.outbox)
    job, now = DeadLetterNotices(letters, outbox), datetime.now(UTC)
    now_ms = int(now.timestamp() * 1000)
    body = b'{"data": {"tenant": "acme"}}'
    for number in range(3):
        await letters.put("tenant_unknown", "not configured", body, Position("ns/usage/0", now_ms, number))
    await letters.put("invalid_event", "no id", b"{}", None)
    assert await job.run(now) == 2
    await letters.put("tenant_unknown", "not configured", body, Position("ns/usage/0", now_ms, 9))
    assert await job.run(now) == 0
    payloads = {notice.payload["code"]: notice.payload for notice in await outbox.waiting()}
    day = f"{now:%Y-%m-%d}"
    assert payloads["tenant_unknown"] == {
        "code": "tenant_unknown",
        "day": day,
        "count": 3,
        "count_the_day_before": 0,
        "tenants": {"acme": 3},
    }
    assert payloads["invalid_event"]["tenants"] == {}
    yesterday = now - timedelta(days=1)
    assert [code async for code, _, _ in letters.received_since(yesterday)].count("tenant_unknown") == 4
    assert [each async for each in letters.received_since(datetime.now(UTC) + timedelta(minutes=1))] == []
    await tables.close()
