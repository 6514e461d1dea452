"""Making the tour's calls with the OpenAI SDK, as an application would, and noting what came back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import openai
import pydantic

from local.options import Options, team_keys
from local.tour_script import Step
from shared.config.model import Config
from shared.pricing.book import PriceBook
from shared.pricing.pricer import Pricer
from shared.usage.tokens import count_tokens

PROMPT = "You are a helpful assistant of team {team}. Answer question {number}: how do we keep our promises on cost?"
TOOL = {
    "type": "function",
    "function": {
        "name": "web_search",
        "description": "Search the web.",
        "parameters": {"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]},
    },
}


@dataclass(frozen=True)
class Outcome:
    """One line of the table. `cost_nano_usd` is None when the answer did not say what it used."""

    number: int
    step: Step
    served_model: str
    decision: str
    state: str
    remaining_usd: str
    cost_nano_usd: int | None = None
    error: str | None = None
    tries: int = 1


class Callers:
    """An OpenAI client per team; only base_url and key differ from what an application has today."""

    def __init__(self, options: Options, config: Config) -> None:
        self._config = config
        self._pricer = Pricer(PriceBook.load(), config)
        # The header is how API Management takes a subscription key; the built-in gateway takes it either way.
        self._clients = {
            team: openai.OpenAI(base_url=options.openai_url, api_key=key, default_headers={"api-key": key})
            for team, key in team_keys(config).items()
        }

    def call(self, number: int, step: Step) -> Outcome:
        """Make the call. What the SDK raises becomes an outcome; anything else is a defect and raises."""
        try:
            headers, usage, tries = self._send(number, step)
        except openai.APIStatusError as error:
            return _refused(number, step, error)
        served = headers.get("x-served-model", step.model)
        return Outcome(
            number=number,
            step=step,
            served_model=served,
            decision="downgrade" if served != step.model else "allow",
            state=headers.get("x-budget-state", ""),
            remaining_usd=headers.get("x-budget-remaining", ""),
            cost_nano_usd=self.cost_nano_usd(step.team, served, headers.get("x-ms-region", ""), usage),
            tries=tries,
        )

    def output_pico_usd(self, team: str, model_id: str) -> int:
        """Price of one output token now, in pico-USD; the guard price when the model has none."""
        tenant, model = self._config.teams[team].tenant, self._config.models[model_id]
        deployment = model.deployments[0] if model.deployments else model_id
        found = self._pricer.unit_prices(tenant, model.provider, model_id, deployment, "", datetime.now(UTC))
        prices = found or self._pricer.guard_prices(tenant)
        return prices.unit_pico.get("output") or 1

    def cost_nano_usd(self, team: str, served: str, region: str, usage: pydantic.BaseModel | None) -> int | None:
        """The cost of the usage that an answer reported, at the served model's price now; None when not known."""
        model = self._config.models.get(served)
        tokens = count_tokens(usage.model_dump() if usage else None, model.provider if model else "")
        if model is None or tokens is None:
            return None
        deployment = model.deployments[0] if model.deployments else served
        tenant, region = self._config.teams[team].tenant, region.lower().replace(" ", "")
        rated = self._pricer.rate(tenant, model.provider, served, deployment, region, datetime.now(UTC), tokens)
        return rated.cost_nano_usd

    def close(self) -> None:
        """Close the clients' connections."""
        for client in self._clients.values():
            client.close()

    def _send(self, number: int, step: Step) -> tuple[Mapping[str, str], pydantic.BaseModel | None, int]:
        """(headers, usage, how often the SDK tried)."""
        client = self._clients[step.team]
        headers = {"x-sim-output-tokens": str(step.output_tokens), "x-budget-scope-session": f"tour-{step.team}"}
        if not self._may_name_session(step.team):
            del headers["x-budget-scope-session"]
        if step.kind == "embed":
            texts = [f"document {number}, passage {passage}: " + "budget " * 40 for passage in range(8)]
            embedded = client.embeddings.with_raw_response.create(model=step.model, input=texts, extra_headers=headers)
            return embedded.headers, embedded.parse().usage, embedded.retries_taken + 1
        prompt = PROMPT.format(team=step.team, number=number)
        fields: dict[str, Any] = {
            "model": step.model,
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": step.output_tokens,
        }
        if step.kind == "tool":
            fields["tools"] = [TOOL]
        chat = client.chat.completions.with_raw_response
        if step.kind == "stream":
            stream = chat.create(**fields, stream=True, stream_options={"include_usage": True}, extra_headers=headers)
            usage: pydantic.BaseModel | None = None
            for chunk in stream.parse():
                usage = chunk.usage or usage
            return stream.headers, usage, stream.retries_taken + 1
        answer = chat.create(**fields, extra_headers=headers)
        return answer.headers, answer.parse().usage, answer.retries_taken + 1

    def _may_name_session(self, team: str) -> bool:
        tenant = self._config.tenants.get(self._config.teams[team].tenant)
        return tenant is not None and "session" in tenant.client_asserted_scopes


def _refused(number: int, step: Step, error: openai.APIStatusError) -> Outcome:
    headers = error.response.headers
    tries = int(error.request.headers.get("x-stainless-retry-count", "0")) + 1
    return Outcome(
        number=number,
        step=step,
        served_model="-",
        decision="refuse",
        state=headers.get("x-budget-state", ""),
        remaining_usd=headers.get("x-budget-remaining", ""),
        cost_nano_usd=0,
        error=f"{error.status_code} {error.code}",
        tries=tries,
    )
