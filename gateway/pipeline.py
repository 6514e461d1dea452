"""One model call: check the budget, try the model, answer, report what was used.

Routes hand in a call and a caller; what comes out is whole or streamed, and knows everything that a route may want to
say about it. Nothing here knows HTTP's server side.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx
import msgspec

from gateway.attempts import Attempts
from gateway.call import ModelCall
from gateway.events import EventQueue
from gateway.exchange import Exchange
from gateway.generated import generated_tokens
from gateway.providers import api_of
from gateway.providers.base import AnswerStream, Api, Target
from gateway.tools import dropped_tools
from gateway.upstream import Upstream, UpstreamBroken, UpstreamRefused, client_headers
from shared.budgets.request import CheckRequest
from shared.errors import TollkeeperError

if TYPE_CHECKING:
    from shared.bootstrap import Services
    from shared.budgets.answer import CheckAnswer

log = logging.getLogger("tollkeeper.gateway")


@dataclass(frozen=True)
class Caller:
    """Who calls, and what else the call's envelope says."""

    identity: Mapping[str, Any]  # validated claims, as a budget check takes them
    scopes: Mapping[str, str]  # client-asserted
    headers: Mapping[str, str] = field(default_factory=dict)  # of the request: the simulated model reads some
    api_version: str | None = None  # of Azure's paths by deployment


@dataclass(frozen=True)
class Whole:
    """An answer in one piece, be it the model's or a refusal."""

    status: int
    content: bytes
    headers: dict[str, str]
    usage: dict[str, Any] | None = None  # the provider's own object
    exchange: Exchange | None = None  # the attempt that answered; None when no model was asked
    tier: str = ""  # of processing, where the provider says


@dataclass(frozen=True)
class Streamed:
    """An answer that comes piece by piece. Whoever relays it calls `ended` once, then closes `upstream`."""

    upstream: httpx.Response
    stream: AnswerStream
    headers: dict[str, str]
    exchange: Exchange
    events: EventQueue

    def ended(self) -> None:
        """Report what the stream used; without the provider's count, what went by is all that anybody knows."""
        stream = self.stream
        is_counted = stream.usage is not None
        self.exchange.report(
            self.events,
            status=self.upstream.status_code,
            usage=stream.usage if is_counted else stream.input_usage,
            streamed=True,
            aborted=not is_counted and not stream.finished,
            tier=stream.tier,
            output_tokens_estimate=None if is_counted else generated_tokens(stream),
        )


class Pipeline:
    """The order of things, over one set of services."""

    def __init__(self, services: Services, upstream: Upstream, events: EventQueue, name: str) -> None:
        """`name` tells gateways apart in the events' source."""
        self._services = services
        self._upstream = upstream
        self._events = events
        self._attempts = Attempts(upstream)
        self._source = f"gateway/{name}"

    async def run(self, call: ModelCall, caller: Caller, request_id: str) -> Whole | Streamed:
        """Answer one call. Raises TollkeeperError for what is neither the model's answer nor the budget's."""
        check = CheckRequest(
            model=call.model,
            identity=dict(caller.identity),
            scopes=dict(caller.scopes),
            operation=call.operation,
            tools=list(call.tools),
            input_tokens=call.input_tokens,
            max_output_tokens=call.max_output_tokens,
            choices=call.choices,
            request_id=request_id,
        )
        self._events.reserve()
        try:
            answer = await self._services.budget.check(check)
        except BaseException:
            self._events.give_back()
            raise
        if answer.decision == "refuse":
            self._events.give_back()
            content = msgspec.json.encode(answer.body)
            headers = {"content-type": "application/json", **answer.headers, "x-request-id": request_id}
            return Whole(answer.status, content, headers)
        exchange = Exchange(source=self._source, request_id=request_id, call=call, answer=answer)
        return await self._forward(caller, exchange)

    async def _forward(self, caller: Caller, exchange: Exchange) -> Whole | Streamed:
        call, answer = exchange.call, exchange.answer
        try:
            target = self._attempts.target(answer, caller.api_version)
            api = api_of(target.endpoint.api)
            request = api.request(call, target, answer.disabled_tools)
            upstream = await self._upstream.send(target, request, caller.headers)
        except (UpstreamBroken, asyncio.CancelledError):
            # The model may have seen it, so it is on record; without usage it costs nothing and frees its hold.
            exchange.report(self._events, status=UpstreamBroken.http_status, usage=None, streamed=call.streamed)
            raise
        except Exception:
            # The model never saw the call: what was held for it is free again at once.
            self._events.give_back()
            await self._release(answer)
            raise
        return await self._answer(exchange, target, api, upstream)

    async def _answer(self, exchange: Exchange, target: Target, api: Api, upstream: httpx.Response) -> Whole | Streamed:
        call = exchange.call
        region = target.endpoint.region or upstream.headers.get("x-ms-region", "")
        exchange.region = region.lower().replace(" ", "")
        if upstream.status_code in (401, 403):
            # Passed on, it would tell the caller that the caller's key is wrong.
            exchange.report(self._events, status=upstream.status_code, usage=None, streamed=call.streamed)
            await upstream.aclose()
            raise UpstreamRefused("the model backend does not accept the gateway's credential")
        headers = self._response_headers(exchange, upstream)
        if upstream.status_code < 400 and _is_event_stream(upstream):
            return Streamed(upstream, api.stream(call), headers, exchange, self._events)
        return await self._whole_answer(exchange, api, upstream, headers)

    async def _whole_answer(
        self, exchange: Exchange, api: Api, upstream: httpx.Response, headers: dict[str, str]
    ) -> Whole:
        usage, tier = None, ""
        status = UpstreamBroken.http_status
        try:
            content = await upstream.aread()
            status = upstream.status_code
            if status < 400:
                content, usage, tier = api.whole(exchange.call, content)
            else:
                content = api.failure(exchange.call, status, content)
        except httpx.HTTPError as error:
            raise UpstreamBroken("the model backend ended its answer early") from error
        finally:
            exchange.report(self._events, status=status, usage=usage, streamed=False, tier=tier)
            await upstream.aclose()
        return Whole(status, content, headers, usage, exchange, tier)

    async def _release(self, answer: CheckAnswer) -> None:
        if answer.reservation is None:
            return
        try:
            await self._services.budget.release(answer.reservation)
        except TollkeeperError as error:
            # The hold then ends with its time to live: budget is tied up for minutes, nothing is lost.
            log.warning("a reservation could not be released: %s", error.code)

    def _response_headers(self, exchange: Exchange, upstream: httpx.Response) -> dict[str, str]:
        headers = {**client_headers(upstream), **exchange.answer.headers, "x-request-id": exchange.request_id}
        if dropped := dropped_tools(exchange.call.tools, exchange.answer.disabled_tools):
            headers["x-budget-disabled-tools"] = ",".join(dropped)
        return headers


def _is_event_stream(response: httpx.Response) -> bool:
    return str(response.headers.get("content-type", "")).startswith("text/event-stream")
