"""What can go wrong while an expression is evaluated."""

from __future__ import annotations


class ExpressionError(Exception):
    """An expression threw: `type` is the full name of the C# exception, `message` its message."""

    def __init__(self, type_name: str, message: str, *, where: str = "", text: str = "") -> None:
        place = f"{where}: " if where else ""
        super().__init__(f"{place}{type_name}: {message}")
        self.type = type_name
        self.message = message
        self.where = where
        self.text = text


class StreamedBodyRead(ExpressionError):
    """An expression read the body of a streamed response: in API Management the stream would stop until its end."""


class HostLostError(Exception):
    """The mono process ended or stopped answering; the message quotes what it wrote to stderr."""
