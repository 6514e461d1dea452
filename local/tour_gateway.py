"""What the built-in gateway does beyond passing calls on, by one call each; their costs stand in the books too."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import httpx
import openai

from local.options import Options, team_keys
from local.tour_calls import Callers
from shared.config.model import Config, Model
from shared.money import nano_from_decimal

PROMPT = "What does it take to keep a promise on cost?"
OUTPUT_TOKENS = 60


@dataclass(frozen=True)
class Shown:
    """One line: what was done, what came of it, and what it cost (None: not known)."""

    what: str
    outcome: str
    cost_nano_usd: int | None


class Abilities:
    """The calls of one team, on the laptop's simulated model."""

    def __init__(self, options: Options, config: Config, callers: Callers, team: str) -> None:
        self._options = options
        self._config = config
        self._callers = callers
        self._team = team
        key = team_keys(config)[team]
        # One try: what the SDK would repeat is the gateway's business here.
        self._client = openai.OpenAI(base_url=options.openai_url, api_key=key, max_retries=0)
        self._headers = {"x-sim-output-tokens": str(OUTPUT_TOKENS)}

    def play(self) -> Iterator[Shown]:
        """One line per ability that this configuration has."""
        steps: list[Callable[[], Shown | None]] = [self._prompt, self._response, self._fallback]
        try:
            for step in steps:
                try:
                    shown = step()
                except openai.APIStatusError as error:
                    shown = Shown(step.__name__.lstrip("_"), f"refused: {error.status_code} {error.code}", 0)
                if shown is not None:
                    yield shown
        finally:
            self._client.close()

    def _prompt(self) -> Shown:
        """POST /chat without naming a model."""
        headers = {**self._headers, "api-key": team_keys(self._config)[self._team]}
        answer = httpx.post(f"{self._options.gateway_url}/chat", json={"prompt": PROMPT}, headers=headers, timeout=30)
        said = answer.json()
        if answer.is_error:
            return Shown("POST /chat", f"refused: {answer.status_code} {said['error']['code']}", 0)
        cost = said["cost"]
        outcome = f"{said['model']} is the cheapest that can answer; the reply says its cost, {cost} USD"
        return Shown("POST /chat, no model", outcome, None if cost is None else nano_from_decimal(cost))

    def _fallback(self) -> Shown | None:
        """A model whose every deployment fails, and that has a fallback."""
        model = self._fragile_model()
        if model is None:
            return None
        failing = ",".join(model.deployments or (model.id,))
        answer = self._client.chat.completions.with_raw_response.create(
            model=model.id,
            messages=[{"role": "user", "content": PROMPT}],
            max_tokens=OUTPUT_TOKENS,
            extra_headers={**self._headers, "x-sim-at": failing, "x-sim-status": "503"},
        )
        served = answer.headers.get("x-served-model", model.id)
        tries = answer.headers.get("x-tollkeeper-attempts", "1")
        usage = answer.parse().usage
        cost = self._callers.cost_nano_usd(self._team, served, answer.headers.get("x-ms-region", ""), usage)
        return Shown(f"{model.id} fails", f"{served} answers in its place, on try {tries}", cost)

    def _response(self) -> Shown | None:
        """The Responses API, streamed."""
        model = next((m for m in self._config.models.values() if "chat" in m.capabilities), None)
        if model is None:
            return None
        stream = self._client.responses.with_raw_response.create(
            model=model.id, input=PROMPT, max_output_tokens=OUTPUT_TOKENS, stream=True, extra_headers=self._headers
        )
        usage = None
        for event in stream.parse():
            usage = event.response.usage if event.type in ("response.completed", "response.incomplete") else usage
        served = stream.headers.get("x-served-model", model.id)
        cost = self._callers.cost_nano_usd(self._team, served, stream.headers.get("x-ms-region", ""), usage)
        tokens = f"{usage.input_tokens} + {usage.output_tokens} tokens" if usage else "nothing"
        return Shown("Responses, streamed", f"{served}, billed by what its last event says: {tokens}", cost)

    def _fragile_model(self) -> Model | None:
        """A model that can fail here without the call failing."""
        models = self._config.models
        return next((m for m in models.values() if any(f in models for f in m.fallbacks)), None)
