"""From the text of the configuration files to one validated Config. Pure: no clock, no disk, no network."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from shared.config.alerts_yaml import read_alerts
from shared.config.billing_yaml import read_billing
from shared.config.budgets_yaml import read_budgets
from shared.config.draft import Draft
from shared.config.edits_yaml import EDITS, read_edits
from shared.config.model import Config
from shared.config.models_yaml import read_models, read_prices
from shared.config.problems import Place, Problems, did_you_mean
from shared.config.teams_yaml import read_team
from shared.config.tenants_yaml import read_rates, read_tenants
from shared.config.yaml_lines import Value, parse_yaml

_COMMITTED = ("tenants.yaml", "rates.yaml", "models.yaml", "budgets.yaml", "prices.yaml", "alerts.yaml", "billing.yaml")
FILES = (*_COMMITTED, EDITS)
TEAMS = "teams/"


def load_config(files: Mapping[str, bytes], root: str = "config") -> Config:
    """The configuration that the files mean, keyed by name relative to `root` (`budgets.yaml`, `teams/search.yaml`).

    Raises ConfigInvalid listing every problem, one `root/file:line: field: message` per line. Nothing of a
    configuration with a problem is used: half of one could open a budget that the other half was to close.
    """
    problems = Problems()
    documents = {name: parse_yaml(name, body, problems) for name, body in sorted(files.items())}
    for name in documents:
        _check_name(name, problems)
    if "tenants.yaml" not in files:
        problems.add(Place("tenants.yaml", 0, ""), "is missing; list at least the tenant `default`")
    draft = Draft(problems)
    read_rates(documents.get("rates.yaml"), draft)
    read_tenants(documents.get("tenants.yaml"), draft)
    read_models(documents.get("models.yaml"), draft)
    _read_teams(documents, draft)
    read_billing(documents.get("billing.yaml"), draft)
    read_budgets(documents.get("budgets.yaml"), draft)
    read_edits(documents.get(EDITS), draft, keep=draft.billing.dashboard_edits == "keep")
    read_prices(documents.get("prices.yaml"), draft)
    read_alerts(documents.get("alerts.yaml"), draft)
    problems.raise_if_any(root)
    return Config(
        version=config_version(files),
        tenants=draft.tenants,
        teams=draft.teams,
        budgets=tuple(draft.budgets),
        models=draft.models,
        endpoints=draft.endpoints,
        prices=tuple(draft.prices),
        discounts=tuple(draft.discounts),
        rates=tuple(draft.rates),
        alerts=tuple(draft.alerts),
        billing=draft.billing,
        edits=draft.edits,
        entry_digests=draft.entry_digests,
    )


def config_version(files: Mapping[str, bytes]) -> str:
    """SHA-256 over names and contents: equal files are equal versions on every worker."""
    digest = hashlib.sha256()
    for name, body in sorted(files.items()):
        digest.update(f"{len(name.encode())}:{name}:{len(body)}:".encode())  # lengths, so no two sets can run together
        digest.update(body)
    return digest.hexdigest()


def _read_teams(documents: Mapping[str, Value | None], draft: Draft) -> None:
    for name, document in documents.items():
        if name.startswith(TEAMS) and document is not None:
            read_team(document, draft)


def _check_name(name: str, problems: Problems) -> None:
    """A file that nothing reads is a typo: its budgets would be silently missing."""
    if name in FILES or (name.startswith(TEAMS) and name.endswith(".yaml")):
        return
    hint = "; the ending is .yaml" if name.endswith(".yml") else did_you_mean(name, FILES)
    problems.add(Place(name, 0, ""), f"is not a configuration file{hint}")
