"""The wrapper around Terraform, with the real CLI and a root that needs no provider from any registry."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from scripts.azure.terraform import Terraform, TerraformError
from tests.support.infra import ROOT

MAIN = """
variable "size" { type = number }
variable "name" { default = "tollkeeper" }
locals { full_name = "${var.name}-${var.size}" }
resource "terraform_data" "thing" { input = { size = var.size } }
resource "terraform_data" "replaced" { triggers_replace = local.full_name }
output "SIZE" { value = terraform_data.thing.output.size }
"""


@pytest.fixture
def root(terraform_cli: None, tmp_path: Path) -> Path:
    """A root with one environment."""
    root = tmp_path / "infra"
    (root / "environments").mkdir(parents=True)
    (root / "main.tf").write_text(MAIN)
    (root / "environments" / "dev.tfvars").write_text("size = 3\n")
    return root


@pytest.fixture
def resize(root: Path) -> Callable[[int], None]:
    """Change the environment's values."""
    return lambda size: (root / "environments" / "dev.tfvars").write_text(f"size = {size}\n") and None


def test_an_environment_is_planned_applied_and_read_back(root: Path, resize: Callable[[int], None]) -> None:
    """From nothing to a change: what is planned is what is told, applied and given out."""
    with Terraform("dev", root) as terraform:
        assert terraform.outputs() == {}
        plan = terraform.plan()
        assert plan.adds == ("terraform_data.replaced", "terraform_data.thing")
        assert str(plan) == "2 to add, 0 to change"
        terraform.apply()
        assert terraform.outputs() == {"SIZE": 3}
        assert terraform.plan().is_empty
    resize(4)
    with Terraform("dev", root) as terraform:
        plan = terraform.plan()
        assert plan.touches("terraform_data.thing")
        assert plan.replaces == ("terraform_data.replaced",)
        assert str(plan) == "0 to add, 1 to change, 1 to REPLACE: terraform_data.replaced"
        terraform.apply()
    (root / "main.tf").write_text('variable "size" { type = number }\n')
    with Terraform("dev", root) as terraform:
        assert terraform.plan().deletes == ("terraform_data.replaced", "terraform_data.thing")


def test_the_digest_of_a_plan_is_what_it_would_do(root: Path, resize: Callable[[int], None]) -> None:
    """Two plans of the same change are one to whoever approves; another change is another."""
    with Terraform("dev", root) as terraform:
        first, again = terraform.plan(), terraform.plan()
        assert first == again
        resize(4)
        assert terraform.plan().digest != first.digest


def test_the_state_stays_beside_the_values_and_the_root_stays_clean(root: Path) -> None:
    """Nothing is left that azd or a test would take for a part of the templates."""
    with Terraform("dev", root) as terraform:
        terraform.plan()
        terraform.apply()
    assert {path.name for path in root.iterdir()} == {"main.tf", "environments"}
    assert (root / "environments" / "dev.tfstate").is_file()


def test_a_remote_state_is_used_where_one_is_named(root: Path) -> None:
    """A backend file with a place that is none is refused by Terraform's own azurerm backend."""
    (root / "environments" / "dev.backend.hcl").write_text('no_such_setting = "x"\n')
    with pytest.raises(TerraformError, match="no_such_setting"), Terraform("dev", root):
        pytest.fail("the state would be somewhere else than the file says")
    assert not (root / "backend_override.tf").exists()


@pytest.mark.parametrize("name", ["CI", "TF_BUILD"])
def test_a_pipeline_must_keep_its_state_somewhere(root: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Its machine goes away, and with it the knowledge of what was created."""
    monkeypatch.setenv(name, "true")
    with pytest.raises(TerraformError, match=r"dev\.backend\.hcl is missing"):
        Terraform("dev", root)


def test_values_and_locals_are_evaluated_under_the_environment(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a value comes from the process's environment."""
    monkeypatch.setenv("TF_VAR_name", "other")
    with Terraform("dev", root) as terraform:
        assert terraform.evaluate({"size": "var.size", "name": "local.full_name"}) == {"size": 3, "name": "other-3"}


_APPLY = """
import signal, sys
from pathlib import Path
from scripts.azure.terraform import Terraform

signal.signal(signal.SIGINT, signal.default_int_handler)  # what started the tests may ignore it
with Terraform("dev", Path(sys.argv[1])) as terraform:
    terraform.plan()
    try:
        terraform.apply()
    except KeyboardInterrupt:
        sys.exit(130)
"""


def test_an_interrupt_lets_terraform_finish(root: Path) -> None:
    """Its state says what was begun, and its lock is gone: the next run can go on."""
    started = root / "started"
    session = f"{sys.executable} -c 'import os; print(os.getsid(0))' >{root}/session"
    slow = f'provisioner "local-exec" {{ command = "{session}; touch {started}; sleep 20" }}'
    (root / "main.tf").write_text(f'variable "size" {{}}\nresource "terraform_data" "slow" {{\n  {slow}\n}}\n')

    command = subprocess.Popen([sys.executable, "-c", _APPLY, root], cwd=ROOT)  # interrupted alone
    while not started.exists():
        assert command.poll() is None
        time.sleep(0.05)
    command.send_signal(signal.SIGINT)
    assert command.wait(60) == 130
    assert int((root / "session").read_text()) != os.getsid(0)  # a Ctrl-C in the terminal arrives there once, by us
    begun = json.loads((root / "environments" / "dev.tfstate").read_text())["resources"]
    assert [resource["instances"][0]["status"] for resource in begun] == ["tainted"]
    assert not list((root / "environments").glob(".*.lock.info"))


def test_mistakes_are_told_in_terraforms_words(root: Path) -> None:
    """An environment that is not there, a value that is missing, a template that is broken."""
    with pytest.raises(TerraformError, match=r"prod\.tfvars is missing; ENV names one of: dev"):
        Terraform("prod", root)
    (root / "environments" / "dev.tfvars").write_text("")
    with Terraform("dev", root) as terraform, pytest.raises(TerraformError, match="plan failed"):
        terraform.plan()
    (root / "main.tf").write_text('variable "size" {')
    with pytest.raises(TerraformError, match="init failed"), Terraform("dev", root):
        pytest.fail("a broken template is not initialised")
    assert not (root / "backend_override.tf").exists()
