"""Values on their way between Python and C#; csharp/Values.cs is the other side."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

_INT_RANGE = range(-(2**31), 2**31)
_TICKS_PER_MICROSECOND = 10


@dataclass(frozen=True)
class Value:
    """What an expression returned.

    `value` is its Python form: C# bool, string and null are bool, str and None; whole numbers int; decimal Decimal;
    double float; byte[] bytes; Guid UUID; DateTime and DateTimeOffset datetime; TimeSpan timedelta; JToken what
    json.loads gives; any other object a CSharpObject. `text` is what API Management writes where an expression stands
    in an attribute or a text: null is "", true is "True". `type` is the full name of the C# type, None for null.
    """

    value: Any
    text: str
    type: str | None


@dataclass(frozen=True)
class CSharpObject:
    """The Python form of an object that has none, an IResponse for example. It is useful in C# only."""

    type: str
    text: str


def encode(value: Any) -> dict[str, Any]:
    """For C#: dict and list become JObject and JArray, an int the smaller of int and long. Raises TypeError."""
    if value is None:
        return {"type": "null", "value": None}
    if isinstance(value, bool):
        return {"type": "bool", "value": value}
    if isinstance(value, int):
        return {"type": "int" if value in _INT_RANGE else "long", "value": value}
    if isinstance(value, float):
        return {"type": "double", "value": repr(value)}
    if isinstance(value, Decimal):
        return {"type": "decimal", "value": str(value)}
    if isinstance(value, str):
        return {"type": "string", "value": value}
    if isinstance(value, bytes):
        return {"type": "bytes", "value": base64.b64encode(value).decode()}
    if isinstance(value, datetime):
        return {"type": "time", "value": value.isoformat()}
    if isinstance(value, uuid.UUID):
        return {"type": "guid", "value": str(value)}
    if isinstance(value, dict | list):
        return {"type": "json", "value": json.dumps(value)}
    raise TypeError(f"a context variable cannot hold a {type(value).__name__}")


def decode(result: dict[str, Any]) -> Value:
    """What C# answered."""
    return Value(_decoded(result["type"], result["value"], result["text"]), result["text"], result["type"])


def _decoded(type_name: str | None, value: Any, text: str) -> Any:
    if type_name is None or (isinstance(value, bool | int) and type_name != "System.TimeSpan"):
        return value
    decoder = _DECODERS.get(type_name)
    if decoder is not None:
        return decoder(value)
    if type_name.startswith("Newtonsoft.Json.Linq.J"):
        try:
            return json.loads(value)
        except RecursionError:  # C# nests deeper than Python can
            return CSharpObject(type_name, text)
    return CSharpObject(type_name, text)


_DECODERS: dict[str, Callable[[Any], Any]] = {
    "System.String": str,
    "System.Char": str,
    "System.Decimal": Decimal,
    "System.Double": float,
    "System.Single": float,
    "System.UInt64": int,
    "System.Byte[]": base64.b64decode,
    "System.Guid": uuid.UUID,
    "System.DateTime": datetime.fromisoformat,
    "System.DateTimeOffset": datetime.fromisoformat,
    "System.TimeSpan": lambda ticks: timedelta(microseconds=ticks // _TICKS_PER_MICROSECOND),
}
