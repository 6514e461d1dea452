"""Keeps C#'s `context` of a call equal to what the policies made of it, sending only what changed and is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from local.apim.errors import CallFailed
from local.apim.expressions import (
    Body,
    Context,
    ContextParts,
    CSharpObject,
    ExpressionError,
    RequestMessage,
    ResponseMessage,
    StreamedBodyRead,
    Value,
)
from local.apim.messages import Headers, Request, Response

if TYPE_CHECKING:
    from local.apim.call import Call


class Bridge:
    """One call's context. Opened before the first policy, closed after the last."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._context: Context | None = None
        self._request_is_stale = self._response_is_stale = True
        self._request_body: Body | None = None
        self._response_body: Body | None = None
        self.message_variables: dict[str, Response] = {}

    def open(self) -> None:
        """Tell C# what is known before the first policy."""
        call, host = self._call, self._call.gateway.host
        if host is None:
            return
        self._context = host.open(_parts(call))
        self.changed(call.request, body=True)

    def close(self) -> None:
        """Forget the context."""
        if self._context is not None:
            self._context.close()

    def changed(self, message: Request | Response, *, body: bool = False) -> None:
        """A policy changed this message; `body` when its bytes are others now."""
        if isinstance(message, Request):
            self._request_is_stale = True
            if body:
                self._request_body = Body(message.body or b"")
        elif message is self._call.response:
            self._response_is_stale = True
            if body:
                self._response_body = _body(message)

    async def evaluate(self, expression: int) -> Value:
        """An expression's value. Raises CallFailed when it throws."""
        with self._evaluating() as context:
            return await context.evaluate(expression)

    async def store(self, expression: int, variable: str) -> None:
        """Keep an expression's object in a variable. Raises CallFailed when it throws."""
        with self._evaluating() as context:
            await context.store(expression, variable)

    @contextmanager
    def _evaluating(self) -> Iterator[Context]:
        context = self._current()
        try:
            yield context
        except StreamedBodyRead as error:
            self._call.gateway.violate(f"{error.where}: {error.message}")
            raise _failed(error) from error
        except ExpressionError as error:
            raise _failed(error) from error
        finally:
            self._note_consumed()
            self._call.gateway.traces += context.traces
            context.traces.clear()

    def set_variable(self, name: str, value: Any) -> None:
        """Put a plain value into a variable."""
        if isinstance(value, CSharpObject):
            raise CallFailed("CacheValueNotSupported", f"a {value.type} cannot be kept in the cache")
        if self._context is not None:
            self._context.set_variable(name, value)

    def remove_variable(self, name: str) -> None:
        """Forget a variable."""
        if self._context is not None:
            self._context.remove_variable(name)

    def set_jwt_variable(self, name: str, token: str) -> None:
        """Put a validated token into a variable."""
        if self._context is not None:
            self._context.set_jwt_variable(name, token)

    def set_message_variable(self, name: str, response: Response) -> None:
        """Put a response into a variable."""
        self.message_variables[name] = response
        if self._context is not None:
            self._context.set_message_variable(name, _response_message(response, _body(response)))

    async def show_failure(self, failure: CallFailed) -> None:
        """Make context.LastError and context.Response say what failed, for conditions and for on-error."""
        if self._context is not None:
            self._context.set_last_error(last_error(failure))
        if self._call.response is not None:
            await self._call.response.close()
        self._call.response = error_response(failure, str(self._call.request_id))
        self.changed(self._call.response, body=True)

    def set_backend(self, backend_id: str | None) -> None:
        """context.Backend."""
        if self._context is not None:
            self._context.set_part("backend", {"Id": backend_id} if backend_id else None)

    def _current(self) -> Context:
        assert self._context is not None, "a policy without expressions evaluated one"
        call = self._call
        if self._request_is_stale:
            self._request_is_stale = False
            self._context.set_request(
                RequestMessage(
                    method=call.request.method,
                    url=call.request.target,
                    original_url=call.request.original_url,
                    headers=call.request.headers.grouped(),
                    body=self._request_body,
                    ip_address=call.request.ip_address,
                    matched_parameters=call.request.matched_parameters,
                )
            )
        if self._response_is_stale:
            self._response_is_stale = False
            response = call.response
            message = None if response is None else _response_message(response, self._response_body)
            self._context.set_response(message)
        return self._context

    def _note_consumed(self) -> None:
        if self._request_body is not None and self._request_body.consumed:
            self._call.request.body_is_consumed = True
        if self._call.response is not None and self._response_body is not None and self._response_body.consumed:
            self._call.response.body_is_consumed = True


def last_error(failure: CallFailed) -> dict[str, Any]:
    """context.LastError."""
    return {
        "Source": failure.source,
        "Reason": failure.reason,
        "Message": failure.message,
        "Scope": "api",
        "Section": failure.section,
        "Path": failure.path,
        "PolicyId": failure.policy_id,
    }


def error_response(failure: CallFailed, activity_id: str) -> Response:
    """What the caller gets when on-error changes nothing."""
    message = failure.shown.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    activity = f', "activityId": "{activity_id}"' if failure.status == 500 else ""
    body = f'{{ "statusCode": {failure.status}, "message": "{message}"{activity} }}'.encode()
    headers = Headers([("Content-Type", "application/json"), *failure.headers.items()])
    return Response(failure.status, "", headers, body)


def _failed(error: ExpressionError) -> CallFailed:
    message = f"Expression evaluation failed. {error.message}"
    return CallFailed("ExpressionValueEvaluationFailure", message)


def _body(response: Response) -> Body | None:
    if response.is_streamed:
        return Body(b"", streamed=True)
    if response.is_too_large:
        return Body(b"", size=sum(map(len, response.first_pieces)))
    return Body(response.body or b"")


def _response_message(response: Response, body: Body | None) -> ResponseMessage:
    return ResponseMessage(response.status, response.reason, response.headers.grouped(), body)


def _parts(call: Call) -> ContextParts:
    options, api = call.gateway.options, call.gateway.policy.api
    operation, subscription = call.operation, call.subscription_id
    return ContextParts(
        request_id=call.request_id,
        timestamp=call.timestamp_utc,
        api={
            "Id": api.id,
            "Name": api.name,
            "Path": api.path.strip("/"),
            "SubscriptionKeyParameterNames": {"Header": "api-key", "Query": "subscription-key"},
        },
        deployment={"ServiceName": options.service_name, "ServiceId": options.service_name, "Region": options.region},
        operation={
            "Id": operation.id,
            "Name": operation.name,
            "Method": operation.method,
            "UrlTemplate": operation.template,
        }
        if operation
        else None,
        subscription={"Id": subscription, "Name": subscription, "Key": call.subscription_key} if subscription else None,
        product={"Id": call.product_id, "Name": call.product_id} if call.product_id else None,
    )
