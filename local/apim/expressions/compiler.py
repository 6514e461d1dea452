"""Compiles the expressions of a policy document in one go, and refuses what API Management would refuse.

The result is kept under .local/apim-cache by the hash of everything that went into it: the second start compiles
nothing.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from local.apim.errors import PolicyError
from local.apim.expressions.source import Position, SourceProblem, find_name, tokenize
from local.apim.expressions.syntax import check_constants, check_syntax
from local.process import PartMissingError

_HERE = Path(__file__).parent
_SOURCES = _HERE / "csharp"
_ALLOW_LIST = _HERE / "allow_list.yaml"
_DEFAULT_CACHE = _HERE.parents[2] / ".local" / "apim-cache"
_JSON_NET = Path("/usr/lib/cli/Newtonsoft.Json-5.0/Newtonsoft.Json.dll")
_INSTALL = "apt-get install --no-install-recommends mono-mcs libnewtonsoft-json5.0-cil"

_REFERENCES = ("System", "System.Core", "System.Xml", "System.Xml.Linq")
# Unused and unassigned variables and unreachable code are no concern of API Management's compiler either.
_SILENCED = "-nowarn:0162,0164,0168,0219"
_NO_RETURN = "CS0161"  # not all code paths return a value
_OPENING_CHARACTERS = 2  # "@(" or "@{", which are no part of what is compiled

_COMPILER_ERROR = re.compile(
    r"(?:^|/)expr(?P<index>\d+)\((?P<line>\d+),(?P<column>\d+)[^)]*\): error (?P<code>CS\d+): (?P<message>.*)$"
)


class MonoMissingError(PartMissingError):
    """mono, its compiler or Json.NET is not installed; the message says how to get them."""


@dataclass(frozen=True)
class Expression:
    """`text` is `@(...)` or `@{...}`, `where` the file and line that errors name.

    `returns` is the C# type that the place of the expression asks for: "bool" for a condition. APIM's compiler then
    refuses an expression of another type, and so does ours.
    """

    text: str
    where: str
    returns: str = "object"


@dataclass(frozen=True)
class Compiled:
    """What ExpressionHost runs. An expression's id is its index in `expressions`."""

    expressions: tuple[Expression, ...]
    class_name: str
    assembly_path: Path
    host_path: Path


def require_mono() -> None:
    """Raises MonoMissingError, which says what to install, when expressions cannot be compiled on this machine."""
    missing = [program for program in ("mono", "mcs") if shutil.which(program) is None]
    if not _JSON_NET.exists():
        missing.append(str(_JSON_NET))
    if missing:
        raise MonoMissingError(f"{', '.join(missing)} not found; {_INSTALL}")


def compile_expressions(expressions: Sequence[Expression], *, cache: Path = _DEFAULT_CACHE) -> Compiled:
    """Compile all of them. Raises PolicyError with every place that API Management would refuse, a line for each."""
    require_mono()
    host = _build_host(cache)
    _check_sources(expressions, _other_types(host))
    allow_list = json.dumps(_allow_list())
    digest = _digest(host.name, allow_list, _own_source(), *(f"{item.returns}\0{item.text}" for item in expressions))
    class_name = f"P{digest}"
    assembly = cache / f"{class_name}.dll"
    if not assembly.exists():
        _compile(expressions, class_name, assembly, host)
    return Compiled(tuple(expressions), class_name, assembly, host)


def _check_sources(expressions: Sequence[Expression], other_types: dict[str, list[str]]) -> None:
    refusals = []
    for expression in expressions:
        try:
            tokens = tokenize(expression.text)
            check_syntax(expression.text, tokens)
            check_constants(expression.text, tokens, other_types, _allow_list())
        except SourceProblem as problem:
            refusals.append(_refusal(expression, problem.position, problem.message))
    _raise(refusals)


def _compile(expressions: Sequence[Expression], class_name: str, assembly: Path, host: Path) -> None:
    with tempfile.TemporaryDirectory(dir=assembly.parent) as directory:
        source = Path(directory) / "expressions.cs"
        source.write_text(_source(class_name, expressions), encoding="utf-8")
        built = Path(directory) / assembly.name
        _run_mcs(expressions, ["-target:library", _SILENCED, f"-out:{built}", f"-r:{host}", str(source)])
        _raise([_finding_refusal(expressions, finding) for finding in _ask_host(host, "check", str(built))])
        built.replace(assembly)


def _source(class_name: str, expressions: Sequence[Expression]) -> str:
    lines = [f"using {namespace};" for namespace in (*_allow_list()["usings"], "Apim")]
    lines.append(f"public static class {class_name} {{")
    for index, expression in enumerate(expressions):
        inner = expression.text[_OPENING_CHARACTERS:-1]
        begin, end = ("return (", ");") if expression.text[1] == "(" else ("", "")
        file = f'#line 1 "expr{index}"'
        lines += [
            file,
            f"public static object E{index}(IProxyRequestContext context) {{ return T{index}(context); }}",
            f"private static {expression.returns} T{index}(IProxyRequestContext context) {{ {begin}",
            file,
            inner,
            f"{end} }}",
        ]
    lines.append("}")
    return "\n".join(lines) + "\n"


def _run_mcs(expressions: Sequence[Expression], arguments: list[str]) -> None:
    language = f"-langversion:{_allow_list()['language']}"
    run = _run(["mcs", "-codepage:utf8", language, *_mcs_references(), *arguments], check=False)
    if run.returncode == 0:
        return
    output = run.stdout + run.stderr
    refusals = []
    for found in filter(None, map(_COMPILER_ERROR.search, output.splitlines())):
        row, column = int(found["line"]), int(found["column"])
        position = Position(row, column + _OPENING_CHARACTERS if row == 1 else column)
        expression = expressions[int(found["index"])]
        if found["code"] == _NO_RETURN:  # has the place of the method around the expression
            position = Position(1, 1)
        message = f"{found['code']}: {found['message']}"
        refusals.append(_refusal(expression, position, message))
    _raise(refusals)
    raise RuntimeError(f"mcs failed:\n{output}")


def _finding_refusal(expressions: Sequence[Expression], finding: dict[str, Any]) -> PolicyError:
    expression = expressions[int(finding["expression"][1:])]
    type_name, member = finding["type"], finding["member"]
    if finding["kind"] == "newer":
        message = f"{member} does not exist in .NET Framework, which API Management runs"
    elif finding["kind"] == "member":
        message = f"the member {member} of {type_name} is not allowed in policy expressions"
    else:
        use = f" (its member {member} is used)" if member else ""
        message = f"the type {type_name} is not allowed in policy expressions{use}"
    return _refusal(expression, find_name(expression.text, type_name, member), message)


def _refusal(expression: Expression, position: Position, message: str) -> PolicyError:
    rows = expression.text.splitlines()
    quoted = rows[position.line - 1].strip() if position.line <= len(rows) else expression.text
    place = f"line {position.line}, column {position.column} of the expression"
    return PolicyError(expression.where, f"{place}: {message}: {quoted}")


def _raise(refusals: Sequence[PolicyError]) -> None:
    if refusals:
        first, *others = refusals
        raise PolicyError(first.where, "\n".join((first.problem, *map(str, others))))


def _build_host(cache: Path) -> Path:
    sources = sorted(_SOURCES.glob("*.cs"))
    host = cache / f"host-{_digest(*(source.read_text(encoding='utf-8') for source in sources))}.exe"
    if not host.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as directory:
            built = Path(directory) / host.name
            command = ["mcs", "-langversion:latest", *_mcs_references(), f"-out:{built}", *map(str, sources)]
            _run(command)
            _copy_json_net(cache)
            built.replace(host)
    return host


def _copy_json_net(cache: Path) -> None:
    """mono looks for an assembly beside the program that needs it."""
    link = cache / _JSON_NET.name
    if not link.exists():
        temporary = cache / f"{_JSON_NET.name}.{os.getpid()}"
        shutil.copyfile(_JSON_NET, temporary)
        temporary.replace(link)


def _mcs_references() -> list[str]:
    return [f"-r:{_JSON_NET}", *(f"-r:{name}" for name in _REFERENCES)]


@functools.cache
def _allow_list() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(_ALLOW_LIST.read_text(encoding="utf-8"))
    return {key: value for key, value in content.items() if key not in ("sources", "read")}


def _other_types(host: Path) -> dict[str, list[str]]:
    """The types that have constants and are not, or not wholly, allowed."""
    kept = host.with_name(f"constants-{_digest(host.name, json.dumps(_allow_list()))}.json")
    if not kept.exists():
        temporary = kept.with_suffix(f".{os.getpid()}")
        temporary.write_text(json.dumps(_ask_host(host, "constants")), encoding="utf-8")
        temporary.replace(kept)
    types: dict[str, list[str]] = json.loads(kept.read_text(encoding="utf-8"))
    return types


def _ask_host(host: Path, command: str, *arguments: str) -> Any:
    with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as listed:
        json.dump(_allow_list(), listed)
        listed.flush()
        return json.loads(_run(["mono", str(host), command, listed.name, *arguments]).stdout)


def _run(command: list[str], *, check: bool = True) -> subprocess.CompletedProcess[str]:
    run = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C.UTF-8"}
    )
    if check and run.returncode != 0:
        raise RuntimeError(f"{command[0]} failed:\n{run.stdout}{run.stderr}")
    return run


@functools.cache
def _own_source() -> str:
    """What surrounds the expressions is written here, so a change here makes what was compiled before worthless."""
    return Path(__file__).read_text(encoding="utf-8")


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0\0".join(parts).encode()).hexdigest()[:16]
