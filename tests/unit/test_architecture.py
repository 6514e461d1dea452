"""Imports point inward: functions, gateway and cli -> bootstrap -> services -> rules. Read from the syntax, so that
lazy imports count too."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
PARTS = ("shared", "functions", "gateway", "cli", "local", "bench", "scripts", "tests")

# The only modules that may touch an SDK beyond their framework, and why. They import it inside the function that needs
# it, so that a cold budget check never pays for it. Rules import none; a new store is added here on purpose.
STORES = {
    "shared.budgets.connect": "opens the connection to Redis, single server or cluster",
    "shared.budgets.entra": "signs in to Redis with tokens of Entra ID",
    "shared.config.place": "writes configuration and its history in Blob Storage",
    "shared.config.source": "reads configuration in Blob Storage",
    "shared.ledger.deadletters": "events that could not be billed, in Table and Blob Storage",
    "shared.ledger.hours": "hour index in Table Storage",
    "shared.ledger.insert": "100-row transactions in Table Storage",
    "shared.ledger.periods": "frozen periods in Table Storage",
    "shared.ledger.state": "processing progress and dirty tenants in Table Storage",
    "shared.ledger.tables": "opens Table and Blob Storage",
    "shared.notify.outbox": "notifications to send, in Table Storage",
    "shared.record.archive": "the export of the ledger in Blob Storage",
    "shared.reports.files": "statement files in Blob Storage",
    "shared.usage.first_heard": "remembers in Table Storage when an event was first heard",
    "shared.usage.hub": "sends to Event Hubs and reads its partitions' state",
}
OTHER_SDK_USERS = {
    "gateway.transport": "carries the gateway's calls to models over aiohttp, as httpx's transport",
    "shared.budgets.redis_errors": "tells an outage from a bug",
    "shared.budgets.trips": "tells a cluster's client from a single server's",
    "shared.config.yaml_lines": "composes YAML nodes; touches no disk and no network",
    "shared.credential": "a managed identity, for every service that takes one",
    "shared.reports.files_html": "fills the template of the printable statement; Jinja2 escapes every name",
    "shared.reports.files_parquet": "writes Parquet into a file it is handed",
    "shared.reports.reconcile.exports": "reads Parquet partitions of cost exports from disk",
    "shared.reports.files_xlsx": "writes a workbook into a file it is handed",
    "shared.notify.post": "posts notices to addresses that are secrets",
    "shared.record.parquet": "writes and reads the export's files on disk",
    "shared.telemetry": "starts the Azure Monitor exporter when it is configured",
    "shared.telemetry.spans": "makes spans of billed calls",
    "shared.telemetry.otlp": "starts the OTLP exporters when they are configured",
}
SDK_MODULES = {**STORES, **OTHER_SDK_USERS}
DOORS = {
    "functions": {"azure.functions", "msgspec"},
    "gateway": {"httpx", "jwt", "msgspec", "starlette", "uvicorn"},
    "cli": {"msgspec", "rich", "typer"},
}


class Import(NamedTuple):
    """One import: by which module, of what, in which line, and whether it runs (or only serves type checkers)."""

    importer: str
    name: str
    line: int
    lazy: bool
    typing_only: bool

    def of(self, *packages: str) -> bool:
        return any(self.name == package or self.name.startswith(package + ".") for package in packages)

    def __str__(self) -> str:
        return f"{self.importer}:{self.line} imports {self.name}"


def modules_of(*parts: str) -> Iterator[tuple[str, Path]]:
    for part in parts:
        for path in sorted((ROOT / part).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            yield name.removesuffix(".__init__"), path


@cache
def imports_of(part: str) -> tuple[Import, ...]:
    return tuple(found for name, path in modules_of(part) for found in _imports(name, ast.parse(path.read_text())))


def _imports(module: str, tree: ast.AST, *, lazy: bool = False, typing_only: bool = False) -> Iterator[Import]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(module, alias.name, node.lineno, lazy, typing_only)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno}: relative imports hide where an arrow points"
            for alias in node.names:  # `from shared.ledger import store` names a module, `from x import f` a value
                name = f"{node.module}.{alias.name}"
                yield Import(module, name if _is_module(name) else node.module or "", node.lineno, lazy, typing_only)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from _imports(module, node, lazy=lazy, typing_only=True)
        else:
            inside = lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            yield from _imports(module, node, lazy=inside, typing_only=typing_only)


def _is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or path.is_dir() or name == "azure.functions"


def is_third_party(found: Import) -> bool:
    top = found.name.split(".")[0]
    return top not in sys.stdlib_module_names and top not in (*PARTS, "function_app")


def listed(problems: list[Import]) -> str:
    return "\n" + "\n".join(map(str, problems))


def test_the_product_never_imports_what_stands_on_it() -> None:
    """shared/ knows no door, no gateway, no laptop; neither door knows the other or the laptop."""
    outer = {
        "shared": ("functions", "gateway", "cli", "local"),
        "functions": ("gateway", "cli", "local"),
        "gateway": ("functions", "cli", "local"),
        "cli": ("functions", "gateway", "local"),
    }
    wrong = [
        found
        for part, forbidden in outer.items()
        for found in imports_of(part)
        if found.of(*forbidden, "bench", "scripts", "tests", "function_app")
    ]
    assert not wrong, listed(wrong)


def sdk_imports(part: str) -> list[Import]:
    """What a part imports, lazily or not, beyond the standard library and its framework."""
    framework = {"msgspec", *DOORS.get(part, ())}
    return [i for i in imports_of(part) if is_third_party(i) and not i.of(*framework) and not i.typing_only]


@pytest.mark.parametrize("part", ["shared", *DOORS])
def test_only_listed_modules_touch_an_sdk(part: str) -> None:
    """Rules import msgspec and the standard library, doors their framework as well; even lazily nothing else."""
    wrong = [found for found in sdk_imports(part) if found.importer not in SDK_MODULES]
    assert not wrong, listed(wrong)


def test_the_list_of_exceptions_holds_no_more_than_it_must() -> None:
    """An exception that is no longer needed would silently excuse the next change."""
    needed = {found.importer for part in ("shared", *DOORS) for found in sdk_imports(part)}
    assert not set(SDK_MODULES) - needed


def test_no_module_of_the_product_loads_an_sdk_when_imported() -> None:
    """SDKs load at first use: a cold budget check pays for none but the Redis client."""
    wrong = [found for found in sdk_imports("shared") if not found.lazy]
    assert not wrong, listed(wrong)


def test_nothing_inside_reaches_for_the_wiring() -> None:
    """bootstrap wires the services; a service that imports it would choose its own store."""
    wrong = [found for found in imports_of("shared") if found.of("shared.bootstrap") and not found.typing_only]
    assert not wrong, listed(wrong)


@pytest.mark.parametrize("door", sorted(DOORS))
def test_doors_reach_stores_only_through_the_wiring(door: str) -> None:
    """A door calls the services that bootstrap hands it; a store of its own would bypass them."""
    wrong = [found for found in imports_of(door) if found.of(*STORES) and not found.typing_only]
    assert not wrong, listed(wrong)


def test_modules_do_not_import_in_circles() -> None:
    """A circle means two modules are one, or an arrow points outward. Raises CycleError naming it."""
    graph: dict[str, set[str]] = {name: set() for name, _ in modules_of("shared", "functions", "gateway")}
    for part in ("shared", "functions", "gateway"):
        for found in imports_of(part):
            if found.name in graph and found.name != found.importer and not found.typing_only:
                graph[found.importer].add(found.name)
    TopologicalSorter(graph).prepare()


def test_only_settings_reads_the_environment() -> None:
    """A variable read elsewhere would be missing from the reference and from the start-up check."""
    readers = [
        f"{name}:{node.lineno}"
        for name, path in modules_of("shared", "functions", "gateway")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute | ast.Name)
        and ast.unparse(node) in ("os.environ", "os.getenv", "environ", "getenv")
        and name != "shared.settings"
    ]
    assert not readers
