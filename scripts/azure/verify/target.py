"""What is verified: addresses from Terraform's outputs; from the configuration who calls what, and its price."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from scripts.azure.terraform import Terraform, TerraformError
from scripts.azure.verify.calls import Call
from scripts.azure.verify.errors import CannotRunError
from shared.config.model import Config, Model
from shared.pricing.book import PriceBook
from shared.pricing.pricer import Pricer

_PICO = 10**12


@dataclass(frozen=True)
class Target:
    """Where everything is."""

    gateway_url: str
    gateway_id: str
    usage_namespace: str
    usage_hub: str
    llm_logs_namespace: str
    llm_logs_hub: str
    llm_logs_namespace_id: str
    ledger_account: str
    subscriptions: Mapping[str, list[str]]  # by team
    deployments: tuple[str, ...]


@dataclass(frozen=True)
class Caller:
    """Who calls, and what."""

    subscription: str
    scope_type: str | None  # that it may name itself by header
    deployment: str
    reasons: bool  # whether its model thinks before it answers
    price: Callable[[Call], int]  # the most that a call may cost, in pico-USD


def read_outputs(environment: str, file: Path | None) -> dict[str, Any]:
    """Terraform's outputs, from a file of `terraform output -json` or from the environment's state."""
    if file is None:
        try:
            with Terraform(environment) as terraform:
                outputs = terraform.outputs()
        except TerraformError as error:
            raise CannotRunError(str(error)) from error
        if not outputs:
            raise CannotRunError(f"nothing is deployed: run make deploy ENV={environment} first")
        return outputs
    try:
        read = json.loads(file.read_text())
        return {name: output["value"] for name, output in read.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise CannotRunError(f"{file}: is no output of `terraform output -json`: {error}") from error


def target_of(outputs: Mapping[str, Any]) -> Target:
    """The addresses in the outputs."""
    try:
        namespace = outputs["LLM_LOGS_NAMESPACE"]
        group = f"/subscriptions/{outputs['AZURE_SUBSCRIPTION_ID']}/resourceGroups/{outputs['AZURE_RESOURCE_GROUP']}"
        return Target(
            gateway_url=outputs["GATEWAY_URL"].rstrip("/"),
            gateway_id=outputs["GATEWAY_ID"],
            usage_namespace=outputs["USAGE_NAMESPACE"],
            usage_hub=outputs["USAGE_HUB"],
            llm_logs_namespace=namespace,
            llm_logs_hub=outputs["LLM_LOGS_HUB"],
            llm_logs_namespace_id=f"{group}/providers/Microsoft.EventHub/namespaces/{namespace.partition('.')[0]}",
            ledger_account=outputs["LEDGER_ACCOUNT"],
            subscriptions=outputs["SUBSCRIPTIONS"],
            deployments=tuple(outputs["MODEL_DEPLOYMENTS"]),
        )
    except KeyError as error:
        raise CannotRunError(
            f"the outputs name no {error.args[0]}: apply the templates of this version first"
        ) from error


def caller_of(target: Target, config: Config, subscription: str | None, deployment: str | None) -> Caller:
    """The subscription (by default the first) with the cheapest deployment that can chat, unless one is named."""
    owners = {each: team for team, listed in sorted(target.subscriptions.items()) for each in listed}
    subscription = subscription or next(iter(owners), None)
    if subscription is None:
        raise CannotRunError("no team of the configuration lists a subscription to call with")
    team = config.teams.get(owners.get(subscription, ""))
    tenant = config.tenants.get(team.tenant) if team else None
    scope_types = sorted(tenant.client_asserted_scopes) if tenant else []
    pricer = Pricer(PriceBook.load(), config)

    def price_of(model: Model, name: str, input_tokens: int, output_tokens: int) -> int:
        prices = pricer.hold_prices(
            tenant.id if tenant else "", model.provider, model.id, name, "", datetime.now(UTC), input_tokens
        )
        return input_tokens * prices[0] + output_tokens * prices[1]

    models = {name: model for model in config.models.values() for name in model.served_by}
    if deployment is not None and deployment not in models:
        raise CannotRunError(f"{deployment}: models.yaml lists no such deployment, so its cost cannot be told")
    chosen = deployment or _cheapest(models, target.deployments, lambda model, name: price_of(model, name, 100, 100))
    return Caller(
        subscription,
        scope_types[0] if scope_types else None,
        chosen,
        _reasons(models[chosen]),
        lambda call: price_of(models[chosen], chosen, call.input_tokens, call.output_tokens),
    )


def most_usd(calls: Iterable[Call], caller: Caller) -> float:
    """What these calls may cost together."""
    return sum(caller.price(call) for call in calls if call.output_tokens) / _PICO


def _cheapest(models: Mapping[str, Model], deployed: tuple[str, ...], price: Callable[[Model, str], int]) -> str:
    """Reasoning models come last: they think on tokens that are paid for and not seen."""
    able = [
        name for name, model in models.items() if (not deployed or name in deployed) and "chat" in model.capabilities
    ]
    if not able:
        raise CannotRunError(
            "no deployment that can chat is both in models.yaml and deployed; name one by --deployment"
        )
    return min(able, key=lambda name: (_reasons(models[name]), price(models[name], name), name))


def _reasons(model: Model) -> bool:
    return "reasoning" in model.capabilities
