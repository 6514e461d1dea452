"""The tools of a call: what budgets call them, and the request without those that a budget switched off. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from shared.errors import InvalidRequest

WEB_SEARCH = "web_search"
_TOOL_FIELDS = ("tools", "tool_choice", "parallel_tool_calls")
_FUNCTION_FIELDS = ("functions", "function_call")
_ALLOWED_TOOLS = "allowed_tools"
_NAMED_TOOLS = ("", "function", "custom")  # the older `functions` have no type
_OPENROUTERS = "openrouter:"  # in front of its own tools
_BRINGS_TOOLS = ("additional_tools", "tool_search_output")  # items of a response's input


def tool_name(tool: Any) -> str:
    """The function's own name for a function; the type for a built-in tool, whatever name a caller writes beside it."""
    if not isinstance(tool, dict):
        raise InvalidRequest("tools: expected a list of objects", param="tools")
    kind = str(tool.get("type") or "").removeprefix(_OPENROUTERS)
    if kind not in _NAMED_TOOLS:
        return WEB_SEARCH if kind.startswith(WEB_SEARCH) else kind  # `web_search_preview` is one too
    own = next((tool[name] for name in ("function", "custom") if isinstance(tool.get(name), dict)), tool)
    return str(own.get("name") or kind)


def tools_in(body: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of a request's tools, each once. Raises InvalidRequest when they are no list of objects."""
    listed = [
        body.get("tools") or [],
        body.get("functions") or [],
        *(item["tools"] for item in _items_with_tools(body)),
    ]
    if not all(isinstance(tools, list) for tools in listed):
        raise InvalidRequest("tools: expected a list of objects", param="tools")
    names = [tool_name(tool) for tools in listed for each in tools for tool in (each, *_grouped(each))]
    if body.get("web_search_options") is not None:
        names.append(WEB_SEARCH)
    names += [_plugin_name(plugin) for plugin in _plugins(body)]
    return tuple(dict.fromkeys(name for name in names if name))


def drop_tools(body: dict[str, Any], disabled: frozenset[str]) -> None:
    """Take disabled tools out, with the fields that would be invalid or point at nothing without them."""
    if WEB_SEARCH in disabled:
        body.pop("web_search_options", None)
    if plugins := _plugins(body):
        body["plugins"] = [plugin for plugin in plugins if _plugin_name(plugin) not in disabled]
    for list_field, others in (("tools", _TOOL_FIELDS), ("functions", _FUNCTION_FIELDS)):
        if not body.get(list_field):
            continue
        kept = _without(body[list_field], disabled)
        if kept == body[list_field]:
            continue
        body[list_field] = kept
        choice_field = others[1]
        choice = _choice_without(body.get(choice_field), disabled)
        if choice is None:
            body.pop(choice_field, None)
        else:
            body[choice_field] = choice
        if not kept:
            for name in others:
                body.pop(name, None)
    if any(_items_with_tools(body)):
        items = [_item_without(item, disabled) for item in body["input"]]
        body["input"] = [item for item in items if item is not None]


def _items_with_tools(body: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The items of a response's input that bring tools of their own, later in the conversation."""
    items = body.get("input")
    yield from (item for item in (items if isinstance(items, list) else ()) if _brings_tools(item))


def _brings_tools(item: Any) -> bool:
    return isinstance(item, dict) and item.get("type") in _BRINGS_TOOLS and bool(item.get("tools"))


def _item_without(item: Any, disabled: frozenset[str]) -> Any:
    """The item without disabled tools; None when it brought nothing else."""
    if not _brings_tools(item):
        return item
    kept = _without(item["tools"], disabled)
    return {**item, "tools": kept} if kept or item["type"] != _BRINGS_TOOLS[0] else None


def _grouped(tool: Any) -> list[Any]:
    """The tools of a namespace; none of any other tool."""
    grouped = tool.get("tools") if isinstance(tool, dict) and tool.get("type") == "namespace" else None
    return grouped if isinstance(grouped, list) else []


def _without(tools: list[Any], disabled: frozenset[str]) -> list[Any]:
    """The tools without disabled ones, and without namespaces that held no others."""
    kept = []
    for tool in tools:
        if tool_name(tool) in disabled:
            continue
        if grouped := _grouped(tool):
            left = [each for each in grouped if tool_name(each) not in disabled]
            if left:
                kept.append({**tool, "tools": left})
        else:
            kept.append(tool)
    return kept


def _plugins(body: Mapping[str, Any]) -> list[Any]:
    """OpenRouter's way to ask for tools of its own; whatever else stands there is for the provider to refuse."""
    plugins = body.get("plugins")
    return plugins if isinstance(plugins, list) else []


def _plugin_name(plugin: Any) -> str:
    name = str(plugin.get("id") or "") if isinstance(plugin, dict) else ""
    return WEB_SEARCH if name == "web" else name


def _choice_without(choice: Any, disabled: frozenset[str]) -> Any:
    """What a request says about choosing a tool, without disabled ones; None when nothing is left of it."""
    if not isinstance(choice, dict):
        return choice
    if choice.get("type") != _ALLOWED_TOOLS:
        return None if tool_name(choice) in disabled else choice
    nested = choice.get(_ALLOWED_TOOLS)  # chat completions nest the list, responses do not
    held = nested if isinstance(nested, dict) else choice
    tools = held.get("tools")
    kept = [tool for tool in tools if tool_name(tool) not in disabled] if isinstance(tools, list) else []
    if not kept:
        return None
    return {**choice, _ALLOWED_TOOLS: {**nested, "tools": kept}} if held is nested else {**choice, "tools": kept}


def dropped_tools(tools: Collection[str], disabled_tools: Collection[str]) -> list[str]:
    """Which of a call's own tools the budget disabled, in the call's order."""
    return [tool for tool in tools if tool in disabled_tools]
