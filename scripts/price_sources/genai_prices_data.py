"""genai-prices' data module: USD per million tokens by provider and model, some of it with start dates.

The module builds its data from constructor calls. It is read as a syntax tree, so nothing of the package runs.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from typing import Any

from scripts.price_sources.quotes import Quote, pico
from shared.pricing.catalog import UNDATED

DATA_FILE = "genai_prices/data.py"
PROVIDERS = {
    "azure": "azure-openai",
    "openai": "openai",
    "anthropic": "anthropic",
    "openrouter": "openrouter",
    "databricks": "databricks",
}

PER_MILLION = Decimal(1_000_000)

KIND_BY_FIELD = {
    "input_mtok": "input",
    "cache_read_mtok": "cached_input",
    "cache_write_mtok": "cache_write",
    "cache_write_1h_mtok": "cache_write_1h",
    "input_audio_mtok": "input_audio",
    "input_image_mtok": "input_image",
    "output_mtok": "output",
    "output_audio_mtok": "output_audio",
    "output_image_mtok": "output_image",
}


def parse_providers(text: str) -> dict[str, dict[str, Any]]:
    """The providers by id, each constructor call as a dict of its keywords with `_` naming the class."""
    for statement in ast.parse(text).body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.value, ast.List):
            return {provider["id"]: provider for provider in _value(statement.value)}
    raise ValueError(f"{DATA_FILE} has no list of providers; the package changed its layout")


def model_names(model: dict[str, Any]) -> list[str]:
    """The exact names a model answers under, its id first. Prefix and pattern clauses are not carried: no guessing."""
    names = [model["id"], *_exact_clauses(model["match"])]
    return list(dict.fromkeys(names))


def quotes(provider: dict[str, Any], version: str, problems: list[str]) -> Iterator[Quote]:
    """The standard-tier quotes of every model, its dated history in order of date."""
    name = PROVIDERS[provider["id"]]
    for model in provider["models"]:
        source = f"genai-prices {version} {provider['id']}/{model['id']}"
        try:
            for start, prices in _dated(model):
                base, bands = _prices(source, prices, problems)
                if "input" not in base or ("output" not in base and "embedding" not in model["id"]):
                    continue  # priced by the hour, the request or the image: not a token price
                yield Quote(name, model["id"], "global", "standard", base, source, bands, start)
        except ValueError as error:
            problems.append(f"left out {source}: {error}")


def _dated(model: dict[str, Any]) -> list[tuple[date, dict[str, Any]]]:
    prices = model["prices"]
    if isinstance(prices, dict):
        return [(UNDATED, prices)]
    dated = []
    for conditional in prices:
        constraint = conditional.get("constraint")
        if constraint and constraint["_"] != "StartDateConstraint":
            raise ValueError("its price depends on the time of day")
        dated.append((constraint["start_date"] if constraint else UNDATED, conditional["prices"]))
    return sorted(dated, key=lambda item: item[0])


def _prices(
    source: str, listing: dict[str, Any], problems: list[str]
) -> tuple[dict[str, int], dict[int, dict[str, int]]]:
    """Base prices and long-context bands. A price without tiers of its own holds in every band.

    A kind whose price is 0, which may mean free or unknown, or finer than a pico-USD is left out and so is unpriced.
    """
    base: dict[str, int] = {}
    tiers: dict[int, dict[str, int]] = {}
    for field, price in listing.items():
        kind = KIND_BY_FIELD.get(field)
        if kind is None:
            continue
        steps = [(tier["start"], tier["price"]) for tier in price["tiers"]] if isinstance(price, dict) else []
        try:
            exact = [(start, _stated(step)) for start, step in steps]
            base[kind] = _stated(price["base"] if isinstance(price, dict) else price)
        except ValueError as error:
            problems.append(f"left out {source} {kind}: {error}")
            continue
        for start, exact_price in exact:
            tiers.setdefault(start, {})[kind] = exact_price
    return base, {start: {**base, **prices} for start, prices in sorted(tiers.items())}


def _stated(usd_per_million: Decimal) -> int:
    if usd_per_million == 0:
        raise ValueError("it is 0, which may mean free or unknown")
    return pico(usd_per_million / PER_MILLION)


def _exact_clauses(clause: dict[str, Any]) -> list[str]:
    if clause["_"] == "ClauseEquals":
        return [clause["equals"]]
    if clause["_"] == "ClauseOr":
        return [name for part in clause["or_"] for name in _exact_clauses(part)]
    return []


def _value(node: ast.expr) -> Any:
    """A literal or constructor call as plain data. Raises ValueError for anything else: the layout changed."""
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.List | ast.Tuple):
        return [_value(item) for item in node.elts]
    if isinstance(node, ast.Dict):
        return {_value(key): _value(item) for key, item in zip(node.keys, node.values, strict=True) if key}
    if isinstance(node, ast.Call):
        return _constructed(node)
    if isinstance(node, ast.Attribute):
        return ast.unparse(node)  # a named constant such as datetime.UTC
    raise ValueError(f"{DATA_FILE} holds {ast.unparse(node)[:80]}, which is not data")


def _constructed(call: ast.Call) -> Any:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else ast.unparse(call.func)
    arguments = [_value(argument) for argument in call.args]
    if name == "Decimal":
        return Decimal(arguments[0])
    if name == "date":
        return date(*arguments)
    keywords = {keyword.arg: _value(keyword.value) for keyword in call.keywords}
    return {"_": name, "args": arguments, **keywords}
