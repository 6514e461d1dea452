"""The table of request features and providers is what the code does, and has a row for everything that can be asked."""

from __future__ import annotations

from pathlib import Path

import pytest
from openai.types.chat.completion_create_params import CompletionCreateParamsBase
from openai.types.embedding_create_params import EmbeddingCreateParams
from openai.types.responses.response_create_params import ResponseCreateParamsBase

from shared.config.loader import load_config
from shared.config.model import APIS
from tests.support.provider_features import FEATURES, Feature, state, table

DOCUMENT = Path(__file__).parents[3] / "docs/providers.md"


def test_the_recorded_table_is_what_the_code_does() -> None:
    """Every cell is found out by asking the code of that provider. Print the table anew with
    `python -m tests.support.provider_features`.
    """
    assert table() in DOCUMENT.read_text()


def test_the_documents_example_is_a_valid_configuration() -> None:
    """Whoever copies it gets endpoints of every API, each with what it needs."""
    example = DOCUMENT.read_text().split("```yaml\n")[1].split("```")[0]
    config = load_config({"tenants.yaml": b"tenants: [{id: default}]", "models.yaml": example.encode()})
    assert {endpoint.api for endpoint in config.endpoints.values()} == set(APIS)
    assert config.models["gpt-4o"].places == {"gpt-4o-swc": "azure-swc"}


def test_every_parameter_of_chat_completions_has_a_row() -> None:
    """A parameter that the SDK learns is looked at before it is taken for harmless."""
    rows = {name for feature in FEATURES if feature.operation == "chat" for name in feature.fields}
    assert set(CompletionCreateParamsBase.__annotations__) - {"model"} <= rows


@pytest.mark.parametrize("api", [api for api in APIS if api != "anthropic"])
@pytest.mark.parametrize(
    ("operation", "params"),
    [("responses", ResponseCreateParamsBase), ("embeddings", EmbeddingCreateParams)],
)
def test_every_parameter_of_the_other_operations_passes(api, operation, params) -> None:
    """Save those that have a row of their own because they do not."""
    for name in set(params.__annotations__) - {"model", "background", "stream_options"}:
        value = VALUES.get(name, "x")
        feature = Feature(name, {name: value}, {} if name == "input" else {"input": "hi"}, operation)
        assert state(api, feature) == ("left out" if (api, operation, name) == LEFT_OUT else "supported"), name


VALUES = {"max_output_tokens": 7, "tools": [{"type": "web_search"}]}
LEFT_OUT = ("databricks", "embeddings", "user")
