"""What an API of a provider must be able to do for the gateway: one implementation per API, all of them pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from gateway.call import ModelCall
    from shared.config.model import Endpoint


class Target(NamedTuple):
    """Where one attempt goes."""

    model: str
    provider: str
    deployment: str  # what the provider calls the model
    endpoint: Endpoint
    api_version: str | None  # of Azure's paths by deployment; None: the client called a path without one
    max_output_tokens: int | None = None  # the most that the model writes, where config says


class ProviderRequest(NamedTuple):
    """One request as the provider gets it."""

    path: str  # behind the endpoint's URL, beginning with a slash
    body: bytes
    params: Mapping[str, str] = {}
    headers: Mapping[str, str] = {}  # of the API itself, such as its version; credentials are the HTTP client's


class WholeAnswer(NamedTuple):
    """An answer that came in one piece."""

    content: bytes  # in the API that the client speaks
    usage: dict[str, Any] | None  # the provider's own object, verbatim
    tier: str = ""  # the processing tier that served it, where the provider says
    output_bytes: int = 0  # UTF-8 bytes generated; told only of an answer without usage, for its estimate


class AnswerFailed(Exception):
    """What came with status 200 is an error all the same; to be treated as an answer of its `status`."""

    def __init__(self, status: int, content: bytes, usage: dict[str, Any] | None = None) -> None:
        """`content` is the error in OpenAI's shape; `usage` what the provider counts all the same, and so is billed."""
        super().__init__(f"an error of status {status} inside an answer")
        self.status = status
        self.content = content
        self.usage = usage


class AnswerUnreadable(Exception):
    """What came with status 200 is nothing that anybody could read: a model worked, but its answer is lost."""


class AnswerStream(Protocol):
    """One streamed answer on its way through."""

    usage: dict[str, Any] | None  # the provider's own object, verbatim, once it went by
    tier: str
    finished: bool  # the provider said that this was all
    input_usage: dict[str, Any] | None  # what the provider counted of the prompt before it began, where it says so
    output_bytes: int  # UTF-8 bytes generated so far: text, arguments of tools, visible reasoning
    output_deltas: int  # pieces that carried some of it
    counted_bytes: int  # of those bytes, and of those pieces, what `usage` has counted
    counted_deltas: int
    failed: bool  # an error event went by, or what nobody can read
    error: Any  # what the provider's own error event said

    def feed(self, piece: bytes) -> bytes:
        """What the client may see of it, at once."""

    def rest(self) -> bytes:
        """What is left to be sent at the end."""


class Api(Protocol):
    """One API as a provider speaks it."""

    def request(self, call: ModelCall, target: Target, disabled_tools: Collection[str]) -> ProviderRequest:
        """The call as this provider takes it, without disabled tools.

        Raises InvalidRequest `unsupported_parameter` naming a field that the provider cannot serve.
        """

    def whole(self, call: ModelCall, content: bytes) -> WholeAnswer:
        """A successful answer for the client. Raises AnswerFailed and AnswerUnreadable."""

    def failure(self, call: ModelCall, status: int, content: bytes) -> bytes:
        """The body of an error, in OpenAI's shape."""

    def stream(self, call: ModelCall) -> AnswerStream:
        """A reader for one streamed answer."""

    def stream_failure(self, error: Any) -> AnswerFailed:
        """What the `error` of a stream stands for that nobody has seen anything of."""
