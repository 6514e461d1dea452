"""A chat's messages as Anthropic's Messages API takes them: a system prompt, and turns made of blocks. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from gateway.call import UNREADABLE_JSON
from shared.errors import InvalidRequest

Block = dict[str, Any]

_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+)(?:;[\w.=-]+)*?(;base64)?,", re.ASCII)
_NOT_IN_AN_ID = re.compile(r"[^a-zA-Z0-9_-]")
_SYSTEM_ROLES = ("system", "developer")
_NAMES_OF_JPEG = ("image/jpg", "image/pjpeg")  # that OpenAI takes as well
_PDF, _TEXT = "application/pdf", "text/plain"
_UNSAYABLE = {"function_call": "send tool_calls instead", "audio": "send what was said as content"}
_THINKING_BLOCKS = ("thinking", "redacted_thinking")


def translate_messages(messages: Any) -> tuple[list[Block], list[dict[str, Any]]]:
    """(system blocks, turns) of a chat's `messages`. Raises InvalidRequest naming the part that has no counterpart.

    Instructions stand in front of a Claude conversation, wherever the chat has them. Neighbouring messages of one side
    become one turn, because all results of a turn's tools belong into the one turn that follows it.
    """
    if not isinstance(messages, list):
        raise InvalidRequest("messages: expected a list", param="messages")
    system: list[Block] = []
    turns: list[dict[str, Any]] = []
    for index, message in enumerate(messages):
        at = f"messages[{index}]"
        if not isinstance(message, dict):
            raise InvalidRequest(f"{at}: expected an object", param=at)
        role = message.get("role")
        if role in _SYSTEM_ROLES:
            system += _blocks(message, at)
            continue
        blocks = _of_role(role, message, at)
        side = "assistant" if role == "assistant" else "user"
        if not blocks:
            continue  # nothing was said
        if turns and turns[-1]["role"] == side:
            turns[-1]["content"] += blocks
        else:
            turns.append({"role": side, "content": blocks})
    if not turns:
        raise InvalidRequest("messages: Anthropic needs one of role user that is not empty", param="messages")
    return system, turns


def calls_tools(turns: Sequence[Mapping[str, Any]]) -> bool:
    """True when the conversation already holds calls of tools, without whose definitions it is refused."""
    return any(block.get("type") == "tool_use" for turn in turns for block in turn["content"])


def tool_id(value: Any, at: str) -> str:
    """The id of a tool call in the letters Anthropic allows; ids of its own are unchanged."""
    if not isinstance(value, str) or not value:
        raise InvalidRequest(f"{at}: expected the id of a tool call", param=at)
    return _NOT_IN_AN_ID.sub("_", value)


def _of_role(role: Any, message: Mapping[str, Any], at: str) -> list[Block]:
    if role == "user":
        return _blocks(message, at)
    if role == "assistant":
        return _assistant(message, at)
    if role == "tool":
        result = {
            "type": "tool_result",
            "tool_use_id": tool_id(message.get("tool_call_id"), f"{at}.tool_call_id"),
            "content": _blocks({**message, "cache_control": None}, at),
        }
        return [_with_cache_control(result, message)]
    raise InvalidRequest(
        f"{at}.role: expected system, developer, user, assistant or tool for a model of Anthropic", param=f"{at}.role"
    )


def _assistant(message: Mapping[str, Any], at: str) -> list[Block]:
    """What was thought, said and called, in the order in which Claude does it."""
    blocks: list[Block] = []
    thought = message.get("thinking_blocks")
    if isinstance(thought, list):  # as our answers carry them; Claude wants its signed thoughts back beside its calls
        blocks += [_unnumbered(each) for each in thought if _is_thinking(each)]
    blocks += _blocks(message, at)
    if (declined := _said(message.get("refusal"))) is not None:
        blocks.append(declined)
    for name, advice in _UNSAYABLE.items():
        if message.get(name) is not None:
            raise unsupported(f"{at}.{name}", advice)
    calls = message.get("tool_calls") or []
    if not isinstance(calls, list):
        raise InvalidRequest(f"{at}.tool_calls: expected a list", param=f"{at}.tool_calls")
    return blocks + [_tool_use(call, f"{at}.tool_calls[{index}]") for index, call in enumerate(calls)]


def _is_thinking(block: Any) -> bool:
    return isinstance(block, dict) and block.get("type") in _THINKING_BLOCKS


def _unnumbered(block: Block) -> Block:
    """Without the number that the block had in a streamed answer."""
    return {name: value for name, value in block.items() if name != "index"}


def _tool_use(call: Any, at: str) -> Block:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict):
        raise unsupported(at, "only calls of functions have a counterpart at Anthropic")
    arguments = function.get("arguments") or "{}"
    try:
        given = msgspec.json.decode(arguments)
    except (*UNREADABLE_JSON, TypeError):
        given = None
    if not isinstance(given, dict):
        where = f"{at}.function.arguments"
        raise InvalidRequest(f"{where}: expected a JSON object in a string", param=where)
    block = {
        "type": "tool_use",
        "id": tool_id(call.get("id"), f"{at}.id"),
        "name": function.get("name"),
        "input": given,
    }
    return _with_cache_control(block, call)


def _blocks(message: Mapping[str, Any], at: str) -> list[Block]:
    """The blocks of a message's content; a mark for the cache on the message itself goes to its last block."""
    content = message.get("content")
    if content is None or _is_blank(content):
        return []
    if isinstance(content, str):
        return [_with_cache_control({"type": "text", "text": content}, message)]
    if not isinstance(content, list):
        raise InvalidRequest(f"{at}.content: expected text or a list of parts", param=f"{at}.content")
    blocks = [_block(part, f"{at}.content[{index}]") for index, part in enumerate(content)]
    found = [block for block in blocks if block is not None]
    if found and message.get("cache_control") is not None:
        found[-1] = _with_cache_control(found[-1], message)
    return found


def _block(part: Any, at: str) -> Block | None:
    """One part of a content; what is a block of Anthropic's own passes as it is. None for a text that says nothing."""
    if not isinstance(part, dict):
        raise InvalidRequest(f"{at}: expected an object", param=at)
    kind = part.get("type")
    if kind in ("text", "refusal"):
        text = part.get("text" if kind == "text" else "refusal")
        return {**part, "type": "text", "text": text} if kind == "text" and not _is_blank(text) else _said(text)
    if kind == "image_url":
        return _with_cache_control(_image(part.get("image_url"), f"{at}.image_url"), part)
    if kind == "file":
        return _with_cache_control(_document(part.get("file"), f"{at}.file"), part)
    if kind == "input_audio":
        raise unsupported(at, "Anthropic takes no audio")
    return dict(part)


def _said(text: Any) -> Block | None:
    return None if _is_blank(text) else {"type": "text", "text": text}


def _is_blank(text: Any) -> bool:
    """Anthropic refuses a conversation for one text of nothing but blanks; models like to write such before a call."""
    return not text or (isinstance(text, str) and not text.strip())


def _image(image: Any, at: str) -> Block:
    """`detail` has no counterpart: Claude sees every image as it is sent."""
    url = image.get("url") if isinstance(image, dict) else image
    if not isinstance(url, str):
        raise InvalidRequest(f"{at}: expected an object with a url", param=at)
    if url.startswith("data:"):
        media_type, data = _data_url(url, f"{at}.url")
        media_type = "image/jpeg" if media_type in _NAMES_OF_JPEG else media_type
        return {"type": "image", "source": {"type": "base64", "media_type": media_type, "data": data}}
    return {"type": "image", "source": {"type": "url", "url": _https(url, f"{at}.url")}}


def _document(file: Any, at: str) -> Block:
    """A PDF or a text. Ids of files are of the provider that keeps them, so one of OpenAI's means nothing here."""
    data_url = file.get("file_data") if isinstance(file, dict) else None
    if not isinstance(data_url, str):
        raise unsupported(f"{at}.file_id", "send the file as file_data, a data: URL")
    if not data_url.startswith("data:"):
        data_url = f"data:{_PDF};base64,{data_url}"  # OpenAI takes bare base64 too
    media_type, data = _data_url(data_url, f"{at}.file_data")
    if media_type not in (_PDF, _TEXT):
        raise unsupported(f"{at}.file_data", f"Anthropic takes {_PDF} and {_TEXT}")
    if media_type == _TEXT:
        return _titled({"type": "text", "media_type": _TEXT, "data": _decoded(data, f"{at}.file_data")}, file)
    return _titled({"type": "base64", "media_type": media_type, "data": data}, file)


def _titled(source: Block, file: Mapping[str, Any]) -> Block:
    block: Block = {"type": "document", "source": source}
    return {**block, "title": file["filename"]} if isinstance(file.get("filename"), str) else block


def _data_url(url: str, at: str) -> tuple[str, str]:
    head = _DATA_URL.match(url)
    if head is None or head[2] is None:
        raise InvalidRequest(f"{at}: expected data:<media type>;base64,<data>", param=at)
    return head[1].lower(), url[head.end() :]


def _decoded(data: str, at: str) -> str:
    import base64

    try:
        return base64.b64decode(data, validate=True).decode()
    except ValueError:
        raise InvalidRequest(f"{at}: expected base64 of text in UTF-8", param=at) from None


def _https(url: str, at: str) -> str:
    if not url.startswith("https://"):
        raise InvalidRequest(f"{at}: expected a data: or an https:// URL", param=at)
    return url


def _with_cache_control(block: Block, marked: Mapping[str, Any]) -> Block:
    mark = marked.get("cache_control")
    return block if mark is None else {**block, "cache_control": mark}


def unsupported(param: str, advice: str) -> InvalidRequest:
    """The refusal of a field that Anthropic's API cannot serve: leaving it out in silence would change the answer."""
    return InvalidRequest(
        f"{param}: is not supported for models of Anthropic: {advice}", code="unsupported_parameter", param=param
    )
