"""Messages: what each channel is sent, by the receiver's documented form, and harmless whatever names stand in it."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest

from shared.config.model import AlertRoute
from shared.notify.kinds import NOTICE_KINDS
from shared.notify.mail import addresses, communication_services_body, html, mail, subject
from shared.notify.message import Message, clean, compose
from shared.notify.notice import Notice
from shared.notify.routes import destinations
from shared.notify.slack import slack_payload
from shared.notify.teams import teams_payload
from shared.notify.webhook import signed_headers, webhook_body

ROOT = Path(__file__).parents[3]
HOSTILE = (
    "<!channel> <https://evil.example|x> *b* [l](https://evil.example) <script>&\r\nBcc: all@example.com\u202eexe.\x00"
)


def notice(kind: str = "threshold", **payload: Any) -> Notice:
    base = {"tenant": "acme", "budget": "acme/team:search/month/UTC", "scope": "team:search", "threshold": "degrade"}
    return Notice("waiting-0123abcd", "k", kind, {**base, **payload}, "2026-11-21T10:00:00+00:00")


def message(kind: str = "threshold", **payload: Any) -> Message:
    return compose(notice(kind, **payload), "https://budgets.example")


def texts(value: Any) -> list[dict[str, Any]]:
    """Every object with a `text` of its own in a payload."""
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    found = [each for part in inside for each in texts(part)]
    return [*found, value] if isinstance(value, dict) and isinstance(value.get("text"), str) else found


def test_message_says_what_happened_the_figures_what_to_do_and_where_to_look() -> None:
    """The link leads to the budget's own page; money stands as it was stored."""
    made = message(spent="90.120000", limit="100.00")
    assert made.title == "Budget team:search is served by cheaper models now"
    assert dict(made.facts)["Spent"] == "90.120000 USD"
    assert "Raise the limit" in made.advice
    assert made.link == (
        "https://budgets.example/api/v1/dashboard#/budgets/acme%2Fteam%3Asearch%2Fmonth%2FUTC?tenant=acme"
    )
    assert compose(notice(), None).link == ""


def test_every_kind_that_is_added_is_known_and_documented() -> None:
    """A kind without words would reach people as a riddle."""
    calls = (
        node
        for path in (ROOT / "shared").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("add_once")
    )
    named = {call.args[1].value for call in calls if isinstance(call.args[1], ast.Constant)}
    added = {*named, "dead_letters", "weekly_digest"}
    documented = (ROOT / "docs/operations.md").read_text()
    assert added >= {"threshold", "unpriced_model", "drift", "holds_expired"}
    assert added <= set(NOTICE_KINDS)
    assert not [kind for kind in NOTICE_KINDS if f"| `{kind}` |" not in documented]


@pytest.mark.parametrize("kind", [*NOTICE_KINDS, "of_a_later_version"])
def test_every_kind_makes_a_message_of_any_payload(kind: str) -> None:
    """Also of one without a single field: a notice that cannot be written must not stay for ever."""
    for payload in ({}, {"tenant": None, "scope": 7, "list": [{"a": 1}, "b"], "map": {"a": {"b": 1}}}):
        made = compose(Notice("waiting-1", "k", kind, payload, "2026-11-21T10:00:00+00:00"), "https://b.example")
        assert made.title
        assert slack_payload(made)
        assert teams_payload(made)
        assert mail(made, "a@example.com", ["b@example.com"], "1").as_bytes()


def test_cleaned_text_is_one_visible_line() -> None:
    """Line breaks forge headers and lines, direction marks turn text around, NUL ends it early; scripts stay."""
    assert clean("a\r\nb\x00c\u202ed\u2028e") == "a b c d e"
    assert clean("Ünïcode 日本 🦊 مرحبا") == "Ünïcode 日本 🦊 مرحبا"
    assert len(clean("x" * 5_000)) == 300


def test_slack_message_has_the_documented_form() -> None:
    """Header of at most 150 characters, sections of at most ten fields, a fallback text, no unfurling."""
    payload = slack_payload(message(**{f"figure_{n}": str(n) for n in range(25)}, scope="s" * 500))
    header, *rest = payload["blocks"]
    assert header["type"] == "header"
    assert len(header["text"]["text"]) <= 150
    assert [len(block["fields"]) for block in rest if "fields" in block] == [10, 10, 9]
    assert all(len(each["text"]) <= 2_000 for each in texts(rest))
    assert payload["text"]
    assert payload["unfurl_links"] is False


def test_slack_interprets_nothing_that_came_from_outside() -> None:
    """Names stand in plain_text; the one text with markup is our own link; the fallback text is escaped."""
    payload = slack_payload(message(scope=HOSTILE, model=HOSTILE))
    marked = [each for each in texts(payload["blocks"]) if each["type"] == "mrkdwn"]
    assert [each["text"].partition("|")[2] for each in marked] == ["Open the dashboard>"]
    assert "<" not in payload["text"]
    assert "&lt;!channel&gt;" in payload["text"]


def test_teams_message_is_a_card_in_the_envelope_of_workflows() -> None:
    """type message, one attachment of the card's content type, contentUrl null; the card is of version 1.4."""
    payload = teams_payload(message())
    assert set(payload) == {"type", "attachments"}
    (attachment,) = payload["attachments"]
    assert payload["type"] == "message"
    assert attachment["contentType"] == "application/vnd.microsoft.card.adaptive"
    assert attachment["contentUrl"] is None
    card = attachment["content"]
    assert (card["type"], card["version"]) == ("AdaptiveCard", "1.4")
    assert card["actions"] == [{"type": "Action.OpenUrl", "title": "Open the dashboard", "url": message().link}]


def test_teams_reads_no_markdown_in_names() -> None:
    """Only runs of RichTextBlocks hold text: TextBlock and FactSet would make links of it."""
    payload = teams_payload(message(scope=HOSTILE, model=HOSTILE))
    card = payload["attachments"][0]["content"]
    assert {block["type"] for block in card["body"]} == {"RichTextBlock"}
    assert {each["type"] for each in texts(card["body"])} == {"TextRun"}


def test_mail_takes_no_header_from_a_name_and_no_html() -> None:
    """A line break in a name stays inside the subject; markup arrives as text in both parts."""
    made = message(scope=HOSTILE, model=HOSTILE)
    email = mail(made, "budgets@example.com", ["ada@example.com"], "abc")
    assert email["Bcc"] is None
    assert "\n" not in subject(made)
    assert "<script>" not in html(made)
    assert "&lt;script&gt;" in html(made)
    assert email["Message-ID"] == "<abc@tollkeeper.invalid>"
    assert [part.get_content_type() for part in email.iter_parts()] == ["text/plain", "text/html"]
    body = communication_services_body(made, "budgets@example.com", ["ada@example.com"])
    assert "\n" not in body["content"]["subject"]
    assert body["content"]["html"] == html(made)


@pytest.mark.parametrize("text", ["", "ada", "ada@", "a b@example.com", "ada@example.com\r\nBcc: x@y", "ok@x.org, <y>"])
def test_broken_addresses_are_refused(text: str) -> None:
    """By position: an address must not be repeated into a log."""
    with pytest.raises(ValueError, match="address"):
        addresses(text)


def test_webhook_is_signed_as_the_standard_says() -> None:
    """The example of the Standard Webhooks specification, and both secrets while one is being replaced."""
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    headers = signed_headers(secret, "p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }
    both = signed_headers(f"{secret} whsec_{'c2VjcmV0' * 4}", "p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b"{}")
    assert re.fullmatch(r"v1,\S{44} v1,\S{44}", both["webhook-signature"])


@pytest.mark.parametrize("secret", ["", "c2VjcmV0" * 4, "whsec_c2VjcmV0", "whsec_not base64!" * 4])
def test_weak_signing_secret_is_refused_without_repeating_it(secret: str) -> None:
    """Fewer than 24 bytes, or no whsec_ in front."""
    with pytest.raises(ValueError, match="signing secret") as refused:
        signed_headers(secret, "1", 1, b"{}")
    assert not secret or secret not in str(refused.value)


def test_webhook_carries_the_figures_as_they_are() -> None:
    """Machines get the payload untouched; escaping is theirs."""
    assert HOSTILE.encode("unicode_escape").split(b" ")[0] in webhook_body(notice(scope=HOSTILE), message())


def test_team_route_gets_what_concerns_its_team() -> None:
    """An anomaly of one model of a team is the team's; a notice about nothing in particular is for no scope."""
    route = AlertRoute(("*",), "slack", "ALERT_A", scopes=("team:search",))
    every_team = AlertRoute(("*",), "slack", "ALERT_B", scopes=("team:*",))

    def to(**payload: str) -> list[str]:
        about = Notice("waiting-1", "k", "anomaly", {"tenant": "acme", **payload}, "2026-11-21T10:00:00+00:00")
        return list(destinations(about, [route, every_team]))

    assert to(scope="team:search model:gpt-4o", team="search") == ["slack:ALERT_A", "slack:ALERT_B"]
    assert to(scope="team:searching") == ["slack:ALERT_B"]
    assert to(scope="tenant:acme") == to() == []
