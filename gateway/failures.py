"""What a failed attempt means: whether to go on elsewhere, whether the same place may be asked again. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from shared.errors import TollkeeperError

if TYPE_CHECKING:
    from gateway.answers import Whole

_MISCONFIGURED = (401, 402, 403, 404)  # our credential, credit, right or deployment's name: not the caller's to mend
_NO_SUCH_MODEL = (b"DeploymentNotFound", b"model_not_found")
_FLAGGED = b'"flagged_input"'  # how OpenRouter says that the prompt itself is refused
_BUSY = (429, 503, 529)  # the last is Anthropic's, for an overload of its own
_BUSY_SECONDS = 1.0  # what a place is taken to mean that refuses calls for their number and does not say for how long


@dataclass(frozen=True)
class Failure:
    """An attempt that another one may make good, because the client has seen nothing of it yet."""

    reply: Whole | TollkeeperError  # what the client gets when nothing else helps
    again: bool  # whether asking the same place once more may help
    aside_seconds: float | None = None  # for how long the place wants to be left alone
    is_billed: bool = False  # whether the provider counted tokens all the same
    counts: bool = True  # whether it says that something is wrong with the place: being busy does not


class UpstreamBusy(TollkeeperError):
    """Every place that could serve the call asked to be left alone for a while."""

    code, http_status, kind = "upstream_busy", 429, "server_error"


class UpstreamUnavailable(TollkeeperError):
    """Every place that could serve the call failed again and again, and is left alone for a while."""

    code, http_status, kind = "upstream_unavailable", 503, "server_error"


def is_failure(status: int) -> bool:
    """Whether another place may do better: nothing is wrong with the call itself."""
    return status in (408, 429, *_MISCONFIGURED) or status >= 500


def is_callers_own(operation: str, status: int, content: bytes) -> bool:
    """Whether an answer that looks like our misconfiguration is about what the caller sent.

    Responses refer to stored answers and files, which may not exist; a provider may refuse a prompt, and carrying that
    to the next one would get around its rules.
    """
    if status == 404:
        return operation == "responses" and not _names_no_model(content)
    return status == 403 and _FLAGGED in content


def speaks_against_place(status: int, content: bytes = b"") -> bool:
    """Whether a failure of this status says that something is wrong with the place.

    What a caller could provoke at will does not, nor does being busy: one caller's requests must not close the place to
    all others.
    """
    if status in _MISCONFIGURED:
        return status == 401 or (status == 404 and _names_no_model(content))
    return is_failure(status) and status != 429


def failure_of(status: int, headers: Mapping[str, str], reply: Whole | TollkeeperError, content: bytes) -> Failure:
    """The failure that a status stands for."""
    aside_seconds = retry_after_seconds(status, headers)
    if status == 429 and aside_seconds is None:
        aside_seconds = _BUSY_SECONDS
    counts = speaks_against_place(status, content)
    return Failure(reply, again=status not in _MISCONFIGURED, aside_seconds=aside_seconds, counts=counts)


def is_misconfigured(status: int) -> bool:
    """Whether whoever runs the gateway has to mend something."""
    return status in _MISCONFIGURED


def retry_after_seconds(status: int, headers: Mapping[str, str], now_utc: datetime | None = None) -> float | None:
    """For how long a busy place asks to be left alone; None when it does not say so or is not busy.

    Understands `retry-after-ms`, and `Retry-After` in seconds or as a date.
    """
    if status not in _BUSY:
        return None
    if (milliseconds := _number(headers.get("retry-after-ms", ""))) is not None:
        return milliseconds / 1000
    text = headers.get("retry-after", "").strip()
    if (seconds := _number(text)) is not None:
        return seconds
    try:
        at_utc = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    if at_utc.tzinfo is None:
        at_utc = at_utc.replace(tzinfo=UTC)
    return max(0.0, (at_utc - (now_utc or datetime.now(UTC))).total_seconds())


def _names_no_model(content: bytes) -> bool:
    return any(code in content for code in _NO_SUCH_MODEL)


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None
