"""The C# expressions of policies: compiled by the real compiler, evaluated against the `context` that APIM documents.

How to use it:

    compiled = compile_expressions([Expression("@(context.Request.Method)", where="inbound-policy.xml:12")])
    async with ExpressionHost(compiled) as host:
        context = host.open(ContextParts(...))
        context.set_request(RequestMessage("POST", "http://...", {"api-key": ["x"]}, body=Body(b"{}")))
        method = (await context.evaluate(0)).value  # the expression's index in the compiled sequence
        context.close()

Everything that API Management would refuse when the policy is deployed raises PolicyError from compile_expressions.
What an expression throws while it runs raises ExpressionError. A read of a streamed response's body raises
StreamedBodyRead, even when the expression catches what it sees itself.
"""

from __future__ import annotations

from local.apim.expressions.compiler import Compiled, Expression, MonoMissingError, compile_expressions, require_mono
from local.apim.expressions.context import Context
from local.apim.expressions.errors import ExpressionError, HostLostError, StreamedBodyRead
from local.apim.expressions.host import ExpressionHost
from local.apim.expressions.parts import BUFFER_LIMIT_BYTES, Body, ContextParts, RequestMessage, ResponseMessage
from local.apim.expressions.values import CSharpObject, Value

__all__ = [
    "BUFFER_LIMIT_BYTES",
    "Body",
    "CSharpObject",
    "Compiled",
    "Context",
    "ContextParts",
    "Expression",
    "ExpressionError",
    "ExpressionHost",
    "HostLostError",
    "MonoMissingError",
    "RequestMessage",
    "ResponseMessage",
    "StreamedBodyRead",
    "Value",
    "compile_expressions",
    "require_mono",
]
