"""Asking one place: one request out, one answer in, one usage event, and a word to the place's breaker."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import httpx
import msgspec

from gateway.answers import Caller, Streamed, Whole, report_stream
from gateway.decompression import pieces_of
from gateway.events import EventQueue
from gateway.exchange import Exchange
from gateway.failures import (
    Failure,
    UpstreamUnavailable,
    failure_of,
    is_callers_own,
    is_failure,
    is_misconfigured,
)
from gateway.providers import api_of
from gateway.providers.base import AnswerFailed, AnswerStream, AnswerUnreadable, Api, ProviderRequest, Target
from gateway.tools import dropped_tools
from gateway.upstream import Upstream, UpstreamBroken, UpstreamRefused, UpstreamUnreachable, client_headers
from shared.errors import InvalidRequest, TollkeeperError
from shared.pricing.deployments import compact_region
from shared.usage.estimate import tokens_of_text

if TYPE_CHECKING:
    from gateway.breakers import Breakers, PlaceKey

log = logging.getLogger("tollkeeper.gateway")

MOST_ANSWER_BYTES = 64 * 1024 * 1024  # of an answer in one piece
_MOST_COMMENT_BYTES = 64 * 1024  # some providers keep a connection open with comments before their first event
Outcome = Whole | Streamed | Failure


class UpstreamGarbled(TollkeeperError):
    """The model answered what nobody can read: it is billed by estimate, and asking again would bill it twice."""

    code, http_status, kind = "upstream_failed", 502, "server_error"


class Asking:
    """Asks places over one HTTP client."""

    def __init__(self, upstream: Upstream, events: EventQueue, breakers: Breakers) -> None:
        self._upstream = upstream
        self._events = events
        self._breakers = breakers

    async def ask(self, exchange: Exchange, place: PlaceKey, target: Target, caller: Caller) -> Outcome:
        """Try the target once. A place for the event is reserved; it is used or given back however this ends.

        A Failure is one that another attempt may make good. Raises InvalidRequest when the target's API cannot serve
        the call, and TollkeeperError for what no other attempt could change.
        """
        api = api_of(target.endpoint.api)
        try:
            request = api.request(exchange.call, target, exchange.answer.disabled_tools)
            probe = self._breakers.begin(place)
        except RecursionError:  # it could just be read, but not be written again
            self._events.give_back()
            raise InvalidRequest("the body is nested too deep") from None
        except BaseException:
            self._events.give_back()
            raise
        if probe is None:  # another call's attempt took the probe, or failed, a moment ago
            self._events.give_back()
            wait_seconds = max(1, math.ceil(self._breakers.wait_seconds(place)))
            message = "the model backend is left alone for a moment"
            return Failure(UpstreamUnavailable(message, retry_after_seconds=wait_seconds), again=True)
        outcome: Outcome | None = None
        try:
            outcome = await self._exchange(exchange, api, target, request, caller)
            if isinstance(outcome, Streamed):
                outcome.tell_place = partial(self._tell_end, place)
        finally:
            self._tell(place, outcome, probe=probe)
        return outcome

    def _tell(self, place: PlaceKey, outcome: Outcome | None, *, probe: bool) -> None:
        if isinstance(outcome, Failure):
            if outcome.aside_seconds is not None:
                self._breakers.set_aside(place, outcome.aside_seconds)
            if outcome.counts:
                self._breakers.failed(place, probe=probe)
            else:
                self._breakers.abandoned(place, probe=probe)
        elif outcome is None:
            self._breakers.abandoned(place, probe=probe)
        elif probe or isinstance(outcome, Whole):  # a stream that merely began is success enough for a probe
            self._breakers.succeeded(place, probe=probe)

    def _tell_end(self, place: PlaceKey, is_whole: bool) -> None:
        """How a stream ended: a place that breaks off one stream after the other is no place to go to."""
        if is_whole:
            self._breakers.succeeded(place, probe=False)
        else:
            self._breakers.failed(place, probe=False)

    async def _exchange(
        self, exchange: Exchange, api: Api, target: Target, request: ProviderRequest, caller: Caller
    ) -> Outcome:
        streamed = exchange.call.streamed
        try:
            upstream = await self._upstream.send(target, request, caller.headers)
        except (UpstreamUnreachable, UpstreamRefused) as error:
            self._events.give_back()  # nothing was sent, so there is nothing to put on record
            return Failure(error, again=isinstance(error, UpstreamUnreachable))
        except UpstreamBroken as error:
            # The model may have seen it, so it is on record; without usage it costs nothing and frees its hold.
            exchange.report(self._events, status=error.http_status, usage=None, streamed=streamed)
            return Failure(error, again=not isinstance(error.__cause__, httpx.TimeoutException))
        except asyncio.CancelledError:
            exchange.report(self._events, status=UpstreamBroken.http_status, usage=None, streamed=streamed)
            raise
        except BaseException:
            self._events.give_back()
            raise
        exchange.region = compact_region(target.endpoint.region or upstream.headers.get("x-ms-region", ""))
        headers = _client_headers(exchange, upstream)
        if upstream.status_code < 400 and _is_event_stream(upstream):
            return await self._stream(exchange, api, target, upstream, headers)
        return await self._whole(exchange, api, target, upstream, headers)

    async def _whole(
        self, exchange: Exchange, api: Api, target: Target, upstream: httpx.Response, headers: dict[str, str]
    ) -> Outcome:
        status = upstream.status_code
        usage: dict[str, Any] | None = None
        tier = ""
        output_tokens: int | None = None
        problem: TollkeeperError | None = None
        is_cut = True
        try:
            content = said = await _read(upstream)
            if status < 400:
                answer = api.whole(exchange.call, content)
                content, usage, tier = answer.content, answer.usage, answer.tier
                if usage is None:
                    output_tokens = _generated_tokens(exchange, answer.output_bytes)
                    log.warning("%s told no usage of deployment %s", target.endpoint.id, target.deployment)
            else:
                content, headers = api.failure(exchange.call, status, content), _as_json(headers)
            is_cut = False
        except AnswerFailed as failed:
            status, content, usage = failed.status, failed.content, failed.usage
            is_cut = False
        except (AnswerUnreadable, RecursionError):
            problem = UpstreamGarbled("the model backend answered what is no JSON")
        except httpx.HTTPError:
            problem = UpstreamBroken("the model backend ended its answer early")
        finally:
            # An answer that began with success was made, whether or not all of it arrived: it is billed by estimate.
            exchange.report(
                self._events,
                status=status,
                usage=exchange.billable(usage),
                streamed=False,
                aborted=is_cut,
                tier=tier,
                output_tokens_estimate=output_tokens,
            )
            await upstream.aclose()
        if problem is not None:
            return _problem(problem, headers, exchange)
        return _judged(Whole(status, content, headers, usage, exchange, tier), exchange, target, upstream, said)

    async def _stream(
        self, exchange: Exchange, api: Api, target: Target, upstream: httpx.Response, headers: dict[str, str]
    ) -> Outcome:
        """A stream whose first event is here: until then nobody has seen anything of it, and another may do better."""
        stream = api.stream(exchange.call)
        pieces = pieces_of(upstream)
        try:
            first = await _first_event(stream, pieces)
        except httpx.HTTPError as error:
            usage = exchange.billable(stream.usage)
            exchange.report(self._events, status=UpstreamBroken.http_status, usage=usage, streamed=True)
            await upstream.aclose()
            again = not isinstance(error, httpx.TimeoutException)
            broken = UpstreamBroken("the model backend began a stream and sent nothing")
            return Failure(broken, again=again, is_billed=usage is not None)
        except BaseException:
            report_stream(exchange, self._events, api, stream, upstream.status_code)
            await upstream.aclose()
            raise
        if not stream.failed or stream.output_deltas:  # what was generated is billed, so nobody may make it anew
            # Nothing needs what was asked any more, and it may be 32 MiB, for as long as the answer takes.
            exchange.call = replace(exchange.call, body={})
            return Streamed(upstream, api, stream, first, pieces, headers, exchange, self._events)
        failed = _stream_failure(api, stream)
        usage = exchange.billable(stream.usage or stream.input_usage)
        exchange.report(self._events, status=failed.status, usage=usage, streamed=True, tier=stream.tier)
        await upstream.aclose()
        whole = Whole(failed.status, failed.content, _as_json(headers), usage, exchange, stream.tier)
        return _judged(whole, exchange, target, upstream, failed.content)


async def _first_event(stream: AnswerStream, pieces: AsyncIterator[bytes]) -> bytes:
    """What the client may see of a stream up to its first event. Raises httpx.HTTPError for one that ends without."""
    first = b""
    async for piece in pieces:
        first += stream.feed(piece)
        if b"data:" in first or stream.failed or len(first) > _MOST_COMMENT_BYTES:
            return first
    first += stream.rest()
    if b"data:" not in first and stream.usage is None:
        raise httpx.ReadError("the stream ended before it began")
    return first


def _stream_failure(api: Api, stream: AnswerStream) -> AnswerFailed:
    if stream.error:
        return api.stream_failure(stream.error)
    garbled = UpstreamGarbled("the model backend began its answer with what cannot be read")
    return AnswerFailed(garbled.http_status, msgspec.json.encode(garbled.body()))


def _judged(whole: Whole, exchange: Exchange, target: Target, upstream: httpx.Response, said: bytes) -> Outcome:
    """The answer for the client, or the failure that it is; `said` is how the provider put it."""
    status = whole.status
    if not is_failure(status) or is_callers_own(exchange.call.operation, status, said):
        return whole
    reply: Whole | TollkeeperError = whole
    if is_misconfigured(status):
        log.error("misconfigured: %s answers %d for deployment %s", target.endpoint.id, status, target.deployment)
        if status in (401, 402, 403):  # passed on, it would tell of a wrong key or a spent budget of the caller's
            reply = UpstreamRefused("the model backend does not accept the gateway's credential")
    return replace(failure_of(status, upstream.headers, reply, said), is_billed=whole.usage is not None)


def _generated_tokens(exchange: Exchange, output_bytes: int) -> int:
    """What an answer without usage is billed for."""
    return 0 if exchange.call.operation == "embeddings" else max(1, tokens_of_text(output_bytes))


async def _read(upstream: httpx.Response) -> bytes:
    """The whole body. Raises httpx.RequestError for one that no answer would be as large as."""
    pieces, size = [], 0
    async for piece in pieces_of(upstream):
        size += len(piece)
        if size > MOST_ANSWER_BYTES:
            raise httpx.ReadError("the answer is larger than any model's")
        pieces.append(piece)
    return b"".join(pieces)


def _client_headers(exchange: Exchange, upstream: httpx.Response) -> dict[str, str]:
    answer = exchange.answer
    headers = {**client_headers(upstream), **answer.headers, "x-request-id": exchange.request_id}
    if answer.disabled_tools and (dropped := dropped_tools(exchange.call.tools, answer.disabled_tools)):
        headers["x-budget-disabled-tools"] = ",".join(dropped)
    return headers


def _problem(problem: TollkeeperError, headers: dict[str, str], exchange: Exchange) -> Whole:
    content = msgspec.json.encode(problem.body())
    return Whole(problem.http_status, content, _as_json(headers), exchange=exchange)


def _as_json(headers: dict[str, str]) -> dict[str, str]:
    return {**headers, "content-type": "application/json"}


def _is_event_stream(response: httpx.Response) -> bool:
    return str(response.headers.get("content-type", "")).startswith("text/event-stream")
