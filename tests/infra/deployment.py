"""The deployment that both templates are read with: private, in two regions, for the teams of config/."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import yaml

from tests.support.arm import Deployment, from_bicep
from tests.support.bicep import evaluate
from tests.support.known_plan import SUBSCRIPTION

_MODEL = {"model": "gpt-4o", "version": "2024-11-20", "sku": "GlobalStandard", "capacity": 10}


def deployments(root: Path) -> list[str]:
    """What config/models.yaml names, which every region of models must have."""
    models = yaml.safe_load((root / "config/models.yaml").read_text())["models"]
    return sorted({d for model in models for d in model.get("deployments", [model["id"]])})


def variables(root: Path) -> dict[str, Any]:
    """Terraform's variables."""
    models = dict.fromkeys(deployments(root), _MODEL)
    return {
        "subscription_id": SUBSCRIPTION,
        "environment": "prod",
        "location": "swedencentral",
        "entra_client_id": "00000000-0000-4000-8000-0000000000ee",
        "alert_emails": ["platform@example.com"],
        "monthly_cost_budget": 1000,
        "builtin_gateway": {"secret_settings": ["GATEWAY_KEYS"]},
        "builtin_gateway_tag": "4f1d2c",
        "model_regions": {
            "swc": {"location": "swedencentral", "priority": 1, "weight": 1, "deployments": models},
            "weu": {"location": "westeurope", "priority": 2, "weight": 1, "deployments": models},
        },
    }


_BICEP_NAMES = {"environment": "environmentName", "existing_log_analytics_workspace_id": "existingWorkspaceId"}
_TERRAFORM_ALONE = {"subscription_id"}  # Bicep is told by whoever starts the deployment


def bicep_name(variable: str) -> str:
    """The parameter of Bicep that a variable of Terraform is."""
    return _BICEP_NAMES.get(variable) or re.sub(r"_(\w)", lambda match: match[1].upper(), variable)


def bicep(root: Path, **changed: Any) -> Deployment:
    """What the Bicep template below `root` declares for the same deployment, with `changed` variables of Terraform."""
    given = variables(root) | changed
    names = yaml.safe_load((root / "infra/names.yaml").read_text())
    generated = json.loads((root / "infra/terraform/config.auto.tfvars.json").read_text())["generated_named_values"]
    parameters = {bicep_name(name): value for name, value in given.items() if name not in _TERRAFORM_ALONE}
    parameters["builtinGateway"] = {bicep_name(name): value for name, value in given["builtin_gateway"].items()}
    parameters |= {
        "generatedNamedValues": generated,
        "teams": [yaml.safe_load(file.read_text()) for file in sorted((root / "config/teams").glob("*.yaml"))],
    }
    # Both templates end names in six characters that tell deployments apart; each takes them from a hash of its own.
    suffix = hashlib.sha1(f"{SUBSCRIPTION}/tollkeeper/{given['environment']}".encode()).hexdigest()[:6]
    functions = {"uniqueString": lambda *_: suffix}
    roles = {role_id: name for name, role_id in names["azure_roles"].items()}
    return from_bicep(evaluate(root / "infra/bicep/main.bicep", parameters, functions), roles)
