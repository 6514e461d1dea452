"""The Terraform root of one environment: its values, its state, its plan and its outputs."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

ROOT = Path(__file__).parents[2]
INFRA = ROOT / "infra" / "terraform"
ENTRA = ROOT / "infra" / "entra"

_NOTHING = (["no-op"], ["read"])
_MISSING = "terraform is not installed: see https://developer.hashicorp.com/terraform/install"


class TerraformError(Exception):
    """Terraform cannot do it. Its own words were shown already, unless the message holds them."""


class Plan(msgspec.Struct, frozen=True):
    """What an apply would change, as addresses. Plans that would change the same to the same have the same digest."""

    digest: str
    adds: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()
    replaces: tuple[str, ...] = ()  # deleted and created again: data in them is lost
    deletes: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether Azure is as the templates say."""
        return not (self.adds or self.changes or self.replaces or self.deletes)

    def touches(self, address: str) -> bool:
        """Whether it changes this resource, which is there already."""
        return address in (*self.changes, *self.replaces)

    def __str__(self) -> str:
        if self.is_empty:
            return "nothing to change"
        told = f"{len(self.adds)} to add, {len(self.changes)} to change"
        for verb, addresses in (("REPLACE", self.replaces), ("DELETE", self.deletes)):
            if addresses:
                told += f", {len(addresses)} to {verb}: {', '.join(addresses)}"
        return told


class Registrations(msgspec.Struct, frozen=True):
    """What infra/entra gave out last: the client ids of its registrations, and who holds Budget.Check."""

    client_id: str
    gateway_client_id: str
    gateways: tuple[str, ...]


class Terraform:
    """`with Terraform("dev") as terraform:` initialises it for environments/dev.tfvars.

    The state is where environments/dev.backend.hcl says (a container of an Azure storage account), else a file beside
    it. Which of the two stands in a file that exists only meanwhile: the root itself names no backend, because azd and
    the tests bring their own. `defaults` are values of variables that neither a file nor TF_VAR_ gives; client ids come
    from environments/dev.entra.json, which scripts/azure/entra.py writes. Raises TerraformError.
    """

    def __init__(self, environment: str, root: Path = INFRA, defaults: Mapping[str, str] | None = None) -> None:
        self.environment = environment
        self._root = root
        folder = root / "environments"
        self._values = folder / f"{environment}.tfvars"
        self._remote = folder / f"{environment}.backend.hcl"
        self._local = folder / f"{environment}.tfstate"
        self._override = root / "backend_override.tf"
        self._data = ROOT / ".local" / root.name / environment
        self._plan = self._data / "plan"
        if not self._values.is_file():
            known = ", ".join(sorted(path.stem for path in folder.glob("*.tfvars"))) or "none"
            raise TerraformError(f"{self._values.relative_to(root)} is missing; ENV names one of: {known}")
        if not self._remote.is_file() and (os.environ.get("CI") or os.environ.get("TF_BUILD")):
            raise TerraformError(
                f"{self._remote.relative_to(root)} is missing: a pipeline's machine would take the state along when it "
                "goes; docs/deployment.md says how to make a container for it"
            )
        self.registrations_file = folder / f"{environment}.entra.json"
        self.registrations = self._read_registrations()
        self._defaults = dict(defaults or {})
        if self.registrations is not None:
            self._defaults["entra_client_id"] = self.registrations.client_id
            self._defaults["entra_gateway_client_id"] = self.registrations.gateway_client_id

    def _read_registrations(self) -> Registrations | None:
        """None where they were made in another way, or not yet."""
        if not self.registrations_file.is_file():
            return None
        try:
            return msgspec.json.decode(self.registrations_file.read_bytes(), type=Registrations)
        except msgspec.MsgspecError as error:
            name = self.registrations_file.relative_to(self._root)
            raise TerraformError(f"{name}: {error}: `make entra ENV={self.environment}` writes it anew") from error

    def __enter__(self) -> Self:
        self._data.mkdir(parents=True, exist_ok=True)
        is_remote = self._remote.is_file()
        self._override.write_text(f'terraform {{\n  backend "{"azurerm" if is_remote else "local"}" {{}}\n}}\n')
        place = str(self._remote) if is_remote else f"path={self._local}"
        try:
            self._run("init", "-reconfigure", f"-backend-config={place}", quiet=True)
        except BaseException:
            self._override.unlink()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._override.unlink(missing_ok=True)

    def give(self, name: str, value: str) -> None:
        """A default for one more variable, from now on."""
        self._defaults[name] = value

    def evaluate(self, expressions: Mapping[str, str]) -> dict[str, Any]:
        """Terraform expressions under this environment's values, by the keys given."""
        asked = f"jsonencode({{{', '.join(f'{key} = {expression}' for key, expression in expressions.items())}}})"
        shown = self._read("console", f"-var-file={self._values}", given=f"{asked}\n")
        try:
            return dict(json.loads(json.loads(shown.strip().splitlines()[-1])))  # warnings may stand before it
        except (ValueError, IndexError) as error:
            raise TerraformError(f"the values of {self._values.name} cannot be evaluated: {shown.strip()}") from error

    def plan(self, *, lock: bool = True) -> Plan:
        """Make a plan, showing it, and keep it for `apply`. Without a lock it needs no right to write the state."""
        locking = "-lock-timeout=5m" if lock else "-lock=false"
        self._run("plan", locking, f"-var-file={self._values}", f"-out={self._plan}")
        return read_plan(json.loads(self._read("show", "-json", str(self._plan))))

    def plan_text(self) -> str:
        """The plan as a person reads it."""
        return self._read("show", str(self._plan))

    def apply(self) -> None:
        """Do what the plan says, and nothing else."""
        self._run("apply", "-lock-timeout=5m", str(self._plan))

    def outputs(self) -> dict[str, Any]:
        """Outputs by name; empty before the first apply."""
        return {name: output["value"] for name, output in json.loads(self._read("output", "-json")).items()}

    def _run(self, *arguments: str, quiet: bool = False) -> None:
        if quiet:
            self._read(*arguments)
        elif status := self._watch(arguments):
            raise TerraformError(f"terraform {arguments[0]} failed (status {status}): see above")

    def _read(self, *arguments: str, given: str = "") -> str:
        command, env = self._command(arguments[0], "-no-color", *arguments[1:])
        try:
            done = subprocess.run(command, env=env, input=given, capture_output=True, text=True, check=False)  # noqa: S603
        except FileNotFoundError as error:
            raise TerraformError(_MISSING) from error
        if done.returncode:
            raise TerraformError(f"terraform {arguments[0]} failed: {done.stderr.strip()}")
        return done.stdout

    def _watch(self, arguments: tuple[str, ...]) -> int:
        """Run it before everybody's eyes; its status. An interrupt is passed on, once, and its end is waited for.

        Terraform then finishes what it is at and writes the state. Killed, or interrupted twice, it would leave a lock
        behind and not know what it created; hence a session of its own, which the terminal's Ctrl-C does not reach.
        """
        command, env = self._command(*arguments)
        try:
            process = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, start_new_session=True)  # noqa: S603
        except FileNotFoundError as error:
            raise TerraformError(_MISSING) from error
        interrupt: KeyboardInterrupt | None = None
        while True:
            try:
                status = process.wait()
                break
            except KeyboardInterrupt as pressed:
                if interrupt is None:
                    process.send_signal(signal.SIGINT)
                interrupt = pressed
        if interrupt is not None:
            raise interrupt
        return status

    def _command(self, *arguments: str) -> tuple[list[str], dict[str, str]]:
        env = {**os.environ, "TF_DATA_DIR": str(self._data), "TF_INPUT": "0", "TF_IN_AUTOMATION": "1"}
        if directory := env.get("CONFIG_DIR"):
            env.setdefault("TF_VAR_config_path", str(Path(directory).resolve()))
        for name, value in self._defaults.items():
            env.setdefault(f"TF_VAR_{name}", value)
        return ["terraform", f"-chdir={self._root}", *arguments], env


def read_plan(shown: Mapping[str, Any]) -> Plan:
    """A plan from `terraform show -json`."""
    changes = [entry for entry in shown.get("resource_changes", []) if entry["change"]["actions"] not in _NOTHING]
    told = [
        (entry["address"], *(entry["change"].get(part) for part in ("actions", "after", "after_unknown")))
        for entry in changes
    ]

    def addresses(*actions: list[str]) -> tuple[str, ...]:
        return tuple(sorted(address for address, done, *_ in told if done in actions))

    return Plan(
        digest=hashlib.sha256(json.dumps(sorted(told, key=lambda one: one[0]), sort_keys=True).encode()).hexdigest(),
        adds=addresses(["create"]),
        changes=addresses(["update"]),
        replaces=addresses(["delete", "create"], ["create", "delete"]),
        deletes=addresses(["delete"], ["forget"]),
    )
