"""What a request tells the simulated model to do beside answering: its `x-sim-*` headers."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from local.model.faults import FAULTS, Fault

FAILING_STATUS = 503  # of the attempts that x-sim-fail-first lets fail, unless x-sim-status names another


@dataclass(frozen=True)
class Knobs:
    """The knobs of one request, read once."""

    call_id: str | None  # names the call whose attempts these are, and under which it is counted
    output_tokens: int | None  # how long the answer would be, before the request's cap cuts it
    latency_ms: int  # before the first byte
    chunk_ms: int  # between the pieces of a stream
    status: int | None  # answer with this error
    fail_first: int  # only so many attempts of this call fail, the next is served
    retry_after: str | None  # the Retry-After of an error; 429 and 503 say 1 without being asked
    break_after: int | None  # cut the connection after so many pieces of a stream
    hold_after: int | None  # wait after so many pieces until POST /sim/release/{call id}
    without_usage_chunk: bool  # leave usage out of a stream although it was asked for
    answer_bytes: int  # make a whole answer at least so large; what it counts stays the same
    chunked: bool  # send a whole answer without Content-Length
    echo: bool  # begin the answer with the words of the last message
    fault: Fault | None = None  # what goes wrong with the answer
    fault_after: int | None = None  # so many pieces were fine; None: before the head, where a fault can be that early


def read_knobs(headers: Mapping[str, str]) -> Knobs:
    """Knobs from a request's headers; what is no number is as if it were not there."""
    return Knobs(
        call_id=headers.get("x-sim-call-id") or None,
        output_tokens=_number(headers, "x-sim-output-tokens"),
        latency_ms=_number(headers, "x-sim-latency-ms") or 0,
        chunk_ms=_number(headers, "x-sim-chunk-ms") or 0,
        status=_number(headers, "x-sim-status"),
        fail_first=_number(headers, "x-sim-fail-first") or 0,
        retry_after=headers.get("x-sim-retry-after"),
        break_after=_number(headers, "x-sim-break-after"),
        hold_after=_number(headers, "x-sim-hold-after"),
        without_usage_chunk=_number(headers, "x-sim-no-usage-chunk") == 1,
        answer_bytes=_number(headers, "x-sim-answer-bytes") or 0,
        chunked=_number(headers, "x-sim-chunked") == 1,
        echo=_number(headers, "x-sim-echo") == 1,
        fault=next((fault for fault in FAULTS if headers.get("x-sim-fault") == fault), None),
        fault_after=_number(headers, "x-sim-fault-after"),
    )


@dataclass
class StandingKnobs:
    """Knobs that hold for every request to a deployment, model or place, until they are taken away or run out."""

    by_name: dict[str, tuple[dict[str, str], float | None]]  # `*` is every name; until, in monotonic seconds

    def hold(self, name: str, headers: Mapping[str, str], seconds: float | None) -> None:
        """Set them for a name; none at all takes them away."""
        if headers:
            until = None if seconds is None else time.monotonic() + seconds
            self.by_name[name] = ({key.lower(): value for key, value in headers.items()}, until)
        else:
            self.by_name.pop(name, None)

    def headers(self, names: Collection[str]) -> dict[str, str]:
        """The knobs that stand for any of these names, `*` weakest."""
        found: dict[str, str] = {}
        for name in ("*", *names):
            headers, until = self.by_name.get(name, ({}, None))
            if until is None or time.monotonic() < until:
                found |= headers
        return found


def knobs_for(headers: Mapping[str, str], standing: StandingKnobs, names: Collection[str]) -> Knobs:
    """The knobs of a request to what bears these names. `x-sim-at` keeps a request's own for the names it lists."""
    own = {name.lower(): value for name, value in headers.items() if name.lower().startswith("x-sim-")}
    at = {name.strip() for name in own.pop("x-sim-at", "").split(",") if name.strip()}
    if at and not at & set(names):
        own = {name: value for name, value in own.items() if name == "x-sim-call-id"}
    return read_knobs({**standing.headers(names), **own})


def failing_status(knobs: Knobs, attempt: int) -> int | None:
    """The error that this attempt (1 is the first) of a call gets; None when it is to be served."""
    if knobs.fail_first:
        return (knobs.status or FAILING_STATUS) if attempt <= knobs.fail_first else None
    return knobs.status if knobs.status is not None and knobs.status >= 400 else None


def _number(headers: Mapping[str, str], name: str) -> int | None:
    text = headers.get(name, "")
    return int(text) if text.isascii() and text.isdigit() else None
