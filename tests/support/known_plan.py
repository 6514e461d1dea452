"""A mock plan in which nothing is unknown: what Azure would answer is a text that names where it comes from.

Mocked providers leave ids, endpoints and principals unknown, so a plan would not show which subnet a thing stands in or
who gets a role. Here every computed attribute of every resource is given a value of its own, and after planning that
value is read back as `«address#attribute»`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.support.azurerm import LOCAL, MAPPINGS
from tests.support.infra import Run, Workspace

SUBSCRIPTION = "00000000-0000-4000-8000-000000000000"
_FILE = "tests/known.tftest.hcl"
_UUIDS = ("principal_id", "client_id", "tenant_id", "object_id", "workspace_id", "app_id")
_NUMBERS = {"default_database.port": 10000}  # computed numbers that something is made of
_WHO_PLANS = """
  mock_data "azurerm_client_config" {
    defaults = {
      object_id = "00000000-0000-4000-8000-00000000000d"
      tenant_id = "00000000-0000-4000-8000-00000000000a"
    }
  }
"""
_MADE = re.compile(r"tkm(\d{4})x(\d{3})|00000000-0000-4000-9(\d{3})-00000000(\d{4})")
_MADE_ID = re.compile(r"/subscriptions/[^/ \"]+(?:/[^/ \"]+)*?/(tkm\d{4}x\d{3})(?:/\w+/\1)*")
_MADE_ADDRESS = re.compile(r"https://(tkm\d{4}x\d{3})\.invalid")


class PlanRefused(Exception):
    """Terraform refuses the configuration."""


@dataclass
class Planned:
    """One resource of the plan."""

    address: str
    type: str
    values: dict[str, Any]


@dataclass
class KnownPlan:
    resources: dict[str, Planned] = field(default_factory=dict)  # by address
    outputs: dict[str, Any] = field(default_factory=dict)
    schemas: dict[str, Any] = field(default_factory=dict)  # resource type -> the provider's schema of it


class Planner:
    """Plans the root module of a workspace with everything known, as often as it is changed."""

    def __init__(
        self, space: Workspace, *, variables: dict[str, Any], var_file: str | None = None, warnings: Sequence[str] = ()
    ) -> None:
        """`warnings`: addresses of the check blocks that fail, of which an apply only warns."""
        self._space, self._variables, self._var_file, self._warnings = space, variables, var_file, warnings
        self._made: list[tuple[str, list[str]]] = []  # (address, attributes): what the numbers in made values mean
        self._overrides = ""
        self._overrides = self._override_all(self._run())

    def plan(self, **changed: Any) -> KnownPlan:
        """The plan of the workspace as it is now. Raises PlanRefused with terraform's words.

        `changed` variables may leave resources out; what they add would have no known values.
        """
        plan = self._run(changed)
        known = KnownPlan(schemas=_schemas(plan))
        for change in plan["resource_changes"]:
            if change["mode"] == "managed":
                address, values = change["address"], self._named(change["change"]["after"])
                known.resources[address] = Planned(address, change["type"], values)
        known.outputs = {name: self._named(output.get("after")) for name, output in plan["output_changes"].items()}
        return known

    def _run(self, changed: dict[str, Any] | None = None) -> dict[str, Any]:
        # Before there are overrides, what the provider computes must show as unknown, not as a mocked value.
        during = "  override_during = plan\n" if self._overrides else ""
        mocks = [f'mock_provider "azapi" {{\n{during}}}', f'mock_provider "azurerm" {{\n{during}{_WHO_PLANS}}}']
        variables = [f"  {name} = {_hcl(value)}" for name, value in (self._variables | (changed or {})).items()]
        run = f'run "known" {{\n  command = plan\n  expect_failures = [{", ".join(self._warnings)}]\n}}\n'
        file = self._space.folder / "infra/terraform" / _FILE
        file.write_text("\n".join([*mocks, "variables {", *variables, "}", self._overrides, run]), encoding="utf-8")
        try:
            runs = self._space.test(f"-filter={_FILE}", *([f"-var-file={self._var_file}"] if self._var_file else []))
        finally:
            file.unlink()
        problems = [problem for found in runs.values() for problem in found.problems]
        plan = runs.get("known.tftest.hcl/known", Run("known")).plan
        if problems or plan is None:
            raise PlanRefused("\n".join(problems) or "terraform made no plan")
        return plan

    # -- values that are made up -------------------------------------------------------------------------------------
    def _override_all(self, plan: dict[str, Any]) -> str:
        schemas = _schemas(plan)
        blocks = []
        for change in plan["resource_changes"]:
            if change["mode"] == "managed" and change["type"] not in LOCAL:
                values = self._values(change, schemas[change["type"]]["block"])
                lines = (f"target = {change['address']}", "override_during = plan", f"values = {_hcl(values)}")
                blocks.append("\n  ".join(("override_resource {", *lines)) + "\n}")
        return "\n".join(blocks)

    def _values(self, change: dict[str, Any], block: dict[str, Any]) -> dict[str, Any]:
        """A value for every text that the provider would compute."""
        self._made.append((change["address"], []))
        planned = change["change"]["after"]
        values = self._computed(block, planned, "")
        of_azapi = str(planned.get("type")).partition("@")[0]
        kind = MAPPINGS[change["type"]].type if change["type"] in MAPPINGS else of_azapi
        if "id" in values:
            values["id"] = _id(kind, values["id"])
        if change["type"].startswith("azapi_"):
            values.pop("parent_id", None)
            values["output"] = self._output(planned.get("response_export_values") or [])
        return values

    def _computed(self, block: dict[str, Any], planned: dict[str, Any], path: str) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for name, attribute in block.get("attributes", {}).items():
            if attribute.get("computed") and planned.get(name) is None:
                if path + name in _NUMBERS:
                    values[name] = _NUMBERS[path + name]
                elif attribute.get("type") == "string":
                    values[name] = self._make(path + name)
        for name, nested in block.get("block_types", {}).items():
            if nested["nesting_mode"] in ("list", "set") and planned.get(name):
                inner = self._computed(nested["block"], planned[name][0], f"{path}{name}.")
                values |= {name: inner} if inner else {}
        return values

    def _output(self, paths: list[str]) -> dict[str, Any]:
        """What an azapi resource exports, as far as it was asked to."""
        output: dict[str, Any] = {}
        for path in paths:
            inner = output
            *outer, last = path.split(".")
            for part in outer:
                inner = inner.setdefault(part, {})
            inner[last] = self._make(f"output.{path}")
        return output

    def _make(self, attribute: str) -> str:
        """A value of its own for an attribute of the resource at hand, in a form that its readers accept."""
        attributes = self._made[-1][1]
        number, code = len(self._made) - 1, len(attributes)
        attributes.append(attribute)
        name = attribute.rpartition(".")[2]
        if name in _UUIDS:
            return f"00000000-0000-4000-9{code:03d}-00000000{number:04d}"
        text = f"tkm{number:04d}x{code:03d}"
        if name.endswith(("_endpoint", "_uri")) or name == "endpoint":
            return f"https://{text}.invalid/"
        return f"https://{text}.invalid" if name.endswith("_url") else text

    def _named(self, value: Any) -> Any:
        """The value with everything made up replaced by the name of what it stands for."""
        if isinstance(value, dict):
            return {key: self._named(member) for key, member in value.items()}
        if isinstance(value, list):
            return [self._named(member) for member in value]
        if not isinstance(value, str) or ("tkm" not in value and "-4000-9" not in value):
            return value
        return _MADE.sub(self._name, _MADE_ADDRESS.sub(r"\1", _MADE_ID.sub(r"\1", value)))

    def _name(self, match: re.Match[str]) -> str:
        number, code = (match[1], match[2]) if match[1] else (match[4], match[3])
        address, attributes = self._made[int(number)]
        return f"«{address}#{attributes[int(code)]}»"


def _schemas(plan: dict[str, Any]) -> dict[str, Any]:
    providers = plan["provider_schemas"].values()
    return {kind: schema for provider in providers for kind, schema in provider.get("resource_schemas", {}).items()}


def _id(kind: str, token: str) -> str:
    if kind == "Microsoft.Resources/resourceGroups":
        return f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{token}"
    namespace, *kinds = kind.split("/")
    path = "/".join(f"{part}/{token}" for part in kinds)
    return f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg/providers/{namespace}/{path}"


def _hcl(value: Any) -> str:
    return json.dumps(value).replace("${", "$${").replace("%{", "%%{")
