"""The values that azd and `az deployment sub create` give to Bicep."""

from __future__ import annotations

import yaml

from tests.support.bicep import evaluate
from tests.support.infra import ROOT

TOLD = {"environmentName": "dev", "location": "westeurope", "entraClientId": "00000000-0000-4000-8000-0000000000ee"}


def test_quick_start_of_bicep_has_every_team() -> None:
    """main.bicepparam fits main.bicep and loads each file of config/teams: a team left out would have no key."""
    found = evaluate(ROOT / "infra/bicep/main.bicepparam", TOLD)
    declared = {r.name.rpartition("/")[2] for r in found if r.type == "Microsoft.ApiManagement/service/subscriptions"}
    teams = [yaml.safe_load(file.read_text()) for file in (ROOT / "config/teams").rglob("*.yaml")]
    assert declared == {name for team in teams for name in team["identities"].get("subscriptions", [])}
