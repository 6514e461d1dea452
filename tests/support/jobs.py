"""What the tests of whole jobs share: calls whose cost is arithmetic, and a receiver of signed notices.

A price per million tokens in USD is a price per token in micro-USD, so `10 * 1 + 99 * 10` is what ten tokens in at 1.00
and 99 out at 10.00 cost, in micro-USD; `usd` spells it as the API does.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from shared.money import decimal_from_nano
from tests.support.http_server import Reply, Request, serving
from tests.support.laptop import CHAT, Laptop

PROMPT = "What did we spend on tokens this Monday?"
PROMPT_TOKENS = 10  # 40 characters, as the simulated model counts them
LONGEST_JOB_SECONDS = 150
WEBHOOK_KEY = "whsec_" + base64.b64encode(b"a key of thirty-two bytes, or so").decode()


def keep_clear_of_midnight() -> None:
    """Wait for the new day when the old one (in UTC) is nearly over: budgets of a day would begin anew half-way."""
    now = datetime.now(UTC)
    midnight = (now + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    left_seconds = (midnight - now).total_seconds()
    if left_seconds < LONGEST_JOB_SECONDS:
        time.sleep(left_seconds + 1)


def usd(micro_usd: int) -> str:
    """An amount as the API spells it."""
    return decimal_from_nano(micro_usd * 1000)


def prompt_of(name: str, tokens: int) -> str:
    """A text of so many tokens that no other prompt begins with: nothing of it is in the model's cache."""
    return f"{name}: {'word ' * tokens}"[: 4 * tokens]


def ask(
    laptop: Laptop,
    team: str,
    model: str,
    output_tokens: int,
    *,
    prompt: str = PROMPT,
    call: str | None = None,
    **fields: Any,
) -> httpx.Response:
    """One chat call of `PROMPT_TOKENS` in and so many out; `x_...` are headers, all else belongs to the body."""
    headers = {name: fields.pop(name) for name in list(fields) if name.startswith("x_")}
    body = {"model": model, "messages": [{"role": "user", "content": prompt}], **fields}
    return laptop.post(team, CHAT, body, call=call, x_sim_output_tokens=str(output_tokens), **headers)


def spend_of(laptop: Laptop, scope_type: str, key: str, tenant: str = "default") -> list[dict[str, Any]]:
    """The counters of one scope with rate and projection, as `GET /spend/{type}/{key}` shows them."""
    answer = httpx.get(f"{laptop.functions_url}/spend/{scope_type}/{key}", params={"tenant": tenant}, timeout=20)
    found: list[dict[str, Any]] = answer.raise_for_status().json()["budgets"]
    return found


@dataclass
class Notices:
    """The other end of a webhook: the notices it got, each of them with a signature that holds."""

    address: str = ""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    forged: list[str] = field(default_factory=list)  # ids whose signature did not hold

    def answer(self, request: Request) -> Reply:
        """Keep a notice, as an operator's own receiver would."""
        signed = f"{request.headers['webhook-id']}.{request.headers['webhook-timestamp']}.".encode() + request.body
        key = base64.b64decode(WEBHOOK_KEY.removeprefix("whsec_"))
        expected = base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
        if request.headers["webhook-signature"] != f"v1,{expected}":
            self.forged.append(request.headers["webhook-id"])
        self.bodies.append(request.json())
        return Reply("ok")

    def thresholds(self, scope: str) -> list[tuple[str, str]]:
        """(threshold, what was spent) of each notice about a scope, in the order they came."""
        payloads = [body["data"]["payload"] for body in self.bodies if body["type"] == "notice.threshold"]
        return [(payload["threshold"], payload["spent"]) for payload in payloads if payload["scope"] == scope]


@contextmanager
def receiving_notices() -> Iterator[Notices]:
    """A receiver on a port of its own."""
    notices = Notices()
    with serving(notices.answer) as port:
        notices.address = f"http://127.0.0.1:{port}/notices"
        yield notices
