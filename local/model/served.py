"""What the simulated model really served, so that a test can hold every bill against the truth."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import asdict, dataclass, field

REMEMBERED_PROMPTS = 10_000


@dataclass
class ModelUsage:
    """Sums of one model. Calls cut off by the client count under `aborted`, with the tokens produced until then."""

    calls: int = 0
    errors: int = 0
    aborted: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    aborted_completion_tokens: int = 0


@dataclass
class Served:
    """The counters of one model process, and which prompts it has seen (for cached tokens)."""

    by_model: dict[str, ModelUsage] = field(default_factory=dict)
    _prompts: OrderedDict[bytes, None] = field(default_factory=OrderedDict)

    def of(self, model: str) -> ModelUsage:
        """The counters of a model, made on first use."""
        return self.by_model.setdefault(model, ModelUsage())

    def seen_before(self, model: str, prompt: str) -> bool:
        """True when this model was sent exactly this prompt before; remembers it, oldest forgotten first."""
        digest = hashlib.blake2b(f"{model}\0{prompt}".encode(), digest_size=16).digest()
        known = digest in self._prompts
        self._prompts[digest] = None
        self._prompts.move_to_end(digest)
        if len(self._prompts) > REMEMBERED_PROMPTS:
            self._prompts.popitem(last=False)
        return known

    def as_dict(self) -> dict[str, dict[str, int]]:
        """The body of GET /sim/usage."""
        return {model: asdict(usage) for model, usage in sorted(self.by_model.items())}
