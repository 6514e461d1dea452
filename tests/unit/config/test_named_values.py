"""What the gateway is told of the configuration, for the time when nobody else can tell it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from shared.config.__main__ import main
from shared.config.loader import load_config
from shared.config.model import Config
from shared.config.named_values import MAX_CHARACTERS, generated_named_values, named_values_digest
from shared.errors import ConfigInvalid

TENANTS = b"""
tenants:
  - {id: default}
  - {id: trusting, fail_mode: open, enforcement: observe, client_asserted_scopes: [task, session]}
  - {id: patient, fail_mode: cached, client_asserted_scopes: [session]}
"""
ROOT = Path(__file__).parents[3]
GROUP = "B3A0D6F4-2D4E-4C1B-9A67-0C5E8F7D2B11"


def config(**files: bytes) -> Config:
    """A configuration of these files, `teams__x` standing for teams/x."""
    named = {f"{name.replace('__', '/')}.yaml": content for name, content in files.items()}
    return load_config({"tenants.yaml": TENANTS, **named}, "config")


def team(tenant: str, identities: str) -> bytes:
    """One team's file."""
    return f"tenant: {tenant}\nidentities: {identities}\n".encode()


def test_only_what_differs_from_the_safe_default_is_told() -> None:
    """Every identity of a tenant with a mode of its own stands in the map, in the spelling of the policies; callers of
    other tenants do not, so that one nobody listed is checked and refused while it cannot be."""
    values = generated_named_values(
        config(
            teams__a=b"team: a\n"
            + team("trusting", f"{{subscriptions: [Shop, 'odd, one'], products: [gold], groups: [{GROUP}]}}"),
            teams__b=b"team: b\n" + team("patient", "{apps: [robot], users: [ada]}"),
            teams__c=b"team: c\n" + team("default", "{subscriptions: [plain]}"),
        )
    )
    assert values["tk-enforcement"] == "on"
    assert values["tk-fail-mode"] == "closed"
    assert values["tk-enforcement-by-caller"] == (
        f"g:{GROUP.lower()}=observe,p:gold=observe,s:odd%2C%20one=observe,s:shop=observe"
    )
    assert values["tk-fail-mode-by-caller"] == (
        f"a:robot=cached,g:{GROUP.lower()}=open,p:gold=open,s:odd%2C%20one=open,s:shop=open,u:ada=cached"
    )
    assert values["tk-asserted-scopes"] == "session+task"
    assert values["tk-asserted-scopes-by-caller"] == "a:robot=session,s:plain=-,u:ada=session"


def test_models_are_told_only_where_their_deployment_has_another_name() -> None:
    """A call that passes unchecked must reach a deployment that exists; ids that are deployments need no entry."""
    models = b"""
models:
  - {id: gpt-4o, deployments: [gpt-4o-weu, gpt-4o-swc]}
  - {id: same, deployments: [other, same]}
  - {id: bare}
"""
    assert generated_named_values(config(models=models))["tk-deployments"] == "gpt-4o=gpt-4o-weu"


def test_nothing_to_tell_is_a_dash() -> None:
    """API Management refuses an empty named value, and with it the whole deployment."""
    values = generated_named_values(load_config({"tenants.yaml": b"tenants: [{id: default}]"}, "config"))
    assert {name: values[name] for name in values if name not in ("tk-enforcement", "tk-fail-mode")} == dict.fromkeys(
        (
            "tk-enforcement-by-caller",
            "tk-fail-mode-by-caller",
            "tk-asserted-scopes",
            "tk-asserted-scopes-by-caller",
            "tk-deployments",
        ),
        "-",
    )


def test_a_value_that_would_not_fit_names_the_limit_and_the_remedy() -> None:
    """Cut short, the map would forget callers, and their calls would be refused in the next outage without a reason."""
    subscriptions = ", ".join(f"subscription-number-{n:04}" for n in range(200))
    with pytest.raises(ConfigInvalid, match=r"tk-enforcement-by-caller: 200 entries .*4,096: let the teams"):
        generated_named_values(
            config(teams__a=b"team: a\n" + team("trusting", f"{{subscriptions: [{subscriptions}]}}"))
        )
    models = "models:\n" + "\n".join(f"  - {{id: model-{n}, deployments: [deployment-{n}]}}" for n in range(200))
    with pytest.raises(ConfigInvalid, match=r"tk-deployments: 200 entries .* name deployments after their models"):
        generated_named_values(config(models=models.encode()))


def test_the_longest_value_that_fits_is_told() -> None:
    """The limit itself is allowed."""
    names = [f"s{n:04}" for n in range(400)]
    taken = ",".join(f"s:{name}=observe" for name in names)
    fitting = names[: (MAX_CHARACTERS + 1) // (len(taken) // len(names) + 1)]
    values = generated_named_values(
        config(teams__a=b"team: a\n" + team("trusting", f"{{subscriptions: [{', '.join(fitting)}]}}"))
    )
    assert MAX_CHARACTERS - 20 < len(values["tk-enforcement-by-caller"]) <= MAX_CHARACTERS


def test_the_command_prints_them_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A deployment reads them from the command; a bad configuration gives the message and exit code 1 instead."""
    (tmp_path / "tenants.yaml").write_bytes(TENANTS)
    assert main(["named-values", str(tmp_path)]) == 0
    assert json.loads(capsys.readouterr().out)["tk-asserted-scopes"] == "session+task"
    (tmp_path / "tenants.yaml").write_text("tenants: [{id: default, fail_mode: perhaps}]\n")
    assert main(["named-values", str(tmp_path)]) == 1
    assert "fail_mode" in capsys.readouterr().err


def test_what_the_templates_deploy_is_what_the_configuration_says(tmp_path: Path) -> None:
    """The committed file is what `make named-values` writes: by a stale one the gateway would go by old modes."""
    written = tmp_path / "written.json"
    assert main(["named-values", str(ROOT / "config"), str(written)]) == 0
    assert (ROOT / "infra/terraform/config.auto.tfvars.json").read_text() == written.read_text()


def test_a_refused_configuration_leaves_the_written_file_alone(tmp_path: Path) -> None:
    """Half a file would be deployed at the next apply."""
    (tmp_path / "tenants.yaml").write_text("tenants: [{id: default, fail_mode: perhaps}]\n")
    (tmp_path / "written.json").write_text("before")
    assert main(["named-values", str(tmp_path), str(tmp_path / "written.json")]) == 1
    assert (tmp_path / "written.json").read_text() == "before"


def test_the_digest_tells_what_the_values_are_made_from() -> None:
    """Another team, tenant or model is another digest; prices and budgets say nothing to the gateway."""
    files = {"tenants.yaml": TENANTS, "models.yaml": b"models: []", "teams/a.yaml": b"team: a", "prices.yaml": b"-"}
    digest = named_values_digest(files)
    assert named_values_digest(dict(reversed(files.items()))) == digest
    assert named_values_digest({**files, "prices.yaml": b"", "budgets.yaml": b""}) == digest
    for name in ("tenants.yaml", "models.yaml", "teams/a.yaml", "teams/b.yaml"):
        assert named_values_digest({**files, name: b"changed"}) != digest
    renamed = {name.replace("teams/a", "teams/b"): body for name, body in files.items()}
    assert named_values_digest(renamed) != digest
