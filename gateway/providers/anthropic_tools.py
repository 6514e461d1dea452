"""A chat's tools and the choice among them as Anthropic's Messages API takes them. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from gateway.providers.anthropic_messages import unsupported
from gateway.tools import tool_name
from shared.errors import InvalidRequest

Tool = dict[str, Any]

_NO_PARAMETERS = {"type": "object", "properties": {}}
_CHOICES = {"auto": "auto", "none": "none", "required": "any"}
_OWN_CHOICES = ("auto", "any", "tool", "none")


def translate_tools(tools: Any, disabled: Collection[str]) -> list[Tool]:
    """Functions as tools of the client; tools of Anthropic's own (`web_search_20250305`, say) pass as they are."""
    if tools is None:
        return []
    if not isinstance(tools, list):
        raise InvalidRequest("tools: expected a list of objects", param="tools")
    return [_tool(tool, f"tools[{i}]") for i, tool in enumerate(tools) if tool_name(tool) not in disabled]


def translate_choice(choice: Any, parallel: Any, tools: list[Tool]) -> tuple[list[Tool], Tool | None]:
    """(the tools to send, Anthropic's `tool_choice` or None for its default) of OpenAI's two fields.

    `allowed_tools` names some of the tools; the others are then left out. A choice of a tool that is not there (the
    budget disabled it) leaves the choice to the model, as it does for other providers.
    """
    found: Tool | None
    if choice is None:
        found = None
    elif isinstance(choice, str):
        if choice not in _CHOICES:
            raise InvalidRequest("tool_choice: expected auto, none, required or a function", param="tool_choice")
        found = {"type": _CHOICES[choice]}
    elif not isinstance(choice, dict):
        raise InvalidRequest("tool_choice: expected text or an object", param="tool_choice")
    elif choice.get("type") == "allowed_tools":
        tools, found = _allowed(choice, tools)
    elif choice.get("type") in _OWN_CHOICES:
        found = dict(choice)
    elif choice.get("type") == "function":
        found = {"type": "tool", "name": tool_name(choice)}
    else:
        raise unsupported("tool_choice", "expected auto, none, required or a function")
    if found is not None and found["type"] == "tool" and str(found.get("name")) not in _names(tools):
        found = None
    if parallel is False and (found is None or found["type"] != "none"):
        found = {**(found or {"type": "auto"}), "disable_parallel_tool_use": True}
    return tools, found


def _allowed(choice: Mapping[str, Any], tools: list[Tool]) -> tuple[list[Tool], Tool | None]:
    allowed = choice.get("allowed_tools")
    listed = allowed.get("tools") if isinstance(allowed, dict) else None
    if not isinstance(allowed, dict) or not isinstance(listed, list):
        raise InvalidRequest("tool_choice.allowed_tools.tools: expected a list", param="tool_choice")
    names = {tool_name(tool) for tool in listed}
    kept = [tool for tool in tools if str(tool.get("name")) in names]
    if not kept:
        return tools, {"type": "none"}
    return kept, {"type": "any" if allowed.get("mode") == "required" else "auto"}


def _tool(tool: Mapping[str, Any], at: str) -> Tool:
    kind, function = tool.get("type"), tool.get("function")
    if isinstance(function, dict):
        translated: Tool = {"name": function.get("name"), "input_schema": function.get("parameters") or _NO_PARAMETERS}
        if function.get("description"):
            translated["description"] = function["description"]
        if function.get("strict") is True:
            translated["strict"] = True
        mark = tool.get("cache_control") or function.get("cache_control")
        return translated if mark is None else {**translated, "cache_control": mark}
    if kind in ("function", "custom") and "input_schema" not in tool:
        raise unsupported(at, "only functions and Anthropic's own tools have a counterpart")
    return dict(tool)


def _names(tools: list[Tool]) -> set[str]:
    return {str(tool.get("name")) for tool in tools}
