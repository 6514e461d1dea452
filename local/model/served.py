"""What the simulated model really received and served, so that a test can hold every bill against the truth."""

from __future__ import annotations

import hashlib
from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from local.model.answers import Answer

REMEMBERED_PROMPTS = 10_000
REMEMBERED_CALLS = 20_000
REMEMBERED_REQUESTS = 2_000
REMEMBERED_BODY_CHARS = 16_384


@dataclass
class Usage:
    """Sums of one model or one call. Streams cut off count as `aborted`, with the tokens produced until then."""

    calls: int = 0
    errors: int = 0
    aborted: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    aborted_prompt_tokens: int = 0
    aborted_completion_tokens: int = 0

    def add(self, answer: Answer) -> None:
        """Count an answer that was given to its end."""
        self.calls += 1
        self.prompt_tokens += answer.prompt_tokens
        self.cached_tokens += answer.cached_tokens
        self.completion_tokens += answer.completion_tokens

    def add_aborted(self, produced_tokens: int, prompt_tokens: int = 0) -> None:
        """Count a stream that was cut off."""
        self.aborted += 1
        self.aborted_prompt_tokens += prompt_tokens
        self.aborted_completion_tokens += produced_tokens


@dataclass
class CallUsage(Usage):
    """The same of one call, the model that served it last, and how often it arrived."""

    model: str = ""
    attempts: int = 0


@dataclass(frozen=True)
class Received:
    """One request as it arrived: what a gateway sent on, and what it kept to itself."""

    call_id: str | None
    path: str
    query: str
    header_names: tuple[str, ...]
    authorization: str | None  # with what the gateway, not its caller, presented itself
    body: str


@dataclass
class Served:
    """The counters of one model process, what it received, and which prompts it has seen (for cached tokens)."""

    by_model: dict[str, Usage] = field(default_factory=dict)
    by_call: OrderedDict[str, CallUsage] = field(default_factory=OrderedDict)
    _received: deque[Received] = field(default_factory=lambda: deque(maxlen=REMEMBERED_REQUESTS))
    _prompts: OrderedDict[bytes, None] = field(default_factory=OrderedDict)

    def receive(self, call_id: str | None, path: str, query: str, headers: Mapping[str, str], body: bytes) -> None:
        """Remember a request, oldest forgotten first."""
        text = body[: 4 * REMEMBERED_BODY_CHARS].decode(errors="replace")[:REMEMBERED_BODY_CHARS]
        names = tuple(sorted(headers.keys()))
        self._received.append(Received(call_id, path, query, names, headers.get("authorization"), text))

    def received(self, call_id: str | None, containing: str | None) -> list[dict[str, Any]]:
        """The requests of a call, or all; only those whose body contains a text when one is given."""
        found: Iterable[Received] = self._received
        if call_id is not None:
            found = (request for request in found if request.call_id == call_id)
        return [asdict(request) for request in found if containing is None or containing in request.body]

    def attempts(self, call_id: str | None) -> int:
        """How often a call has arrived so far."""
        known = self.by_call.get(call_id) if call_id is not None else None
        return 0 if known is None else known.attempts

    def attempt(self, call_id: str | None, model: str) -> tuple[int, tuple[Usage, ...]]:
        """(the number of this attempt, the counters it counts in)."""
        of_model = self.by_model.setdefault(model, Usage())
        if call_id is None:
            return 1, (of_model,)
        of_call = self.by_call.setdefault(call_id, CallUsage())
        of_call.attempts += 1
        of_call.model = model
        if len(self.by_call) > REMEMBERED_CALLS:
            self.by_call.popitem(last=False)
        return of_call.attempts, (of_model, of_call)

    def seen_before(self, model: str, prompt: str) -> bool:
        """True when this model was sent exactly this prompt before; remembers it, oldest forgotten first."""
        digest = hashlib.blake2b(f"{model}\0{prompt}".encode(), digest_size=16).digest()
        known = digest in self._prompts
        self._prompts[digest] = None
        self._prompts.move_to_end(digest)
        if len(self._prompts) > REMEMBERED_PROMPTS:
            self._prompts.popitem(last=False)
        return known

    def as_dict(self, *, by_call: bool) -> dict[str, dict[str, Any]]:
        """The body of GET /sim/usage."""
        found: Mapping[str, Usage] = self.by_call if by_call else self.by_model
        return {name: asdict(usage) for name, usage in sorted(found.items())}
