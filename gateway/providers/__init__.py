"""The APIs that providers speak, by the name that endpoints in models.yaml give them."""

from __future__ import annotations

from gateway.providers.anthropic import AnthropicApi
from gateway.providers.azure_openai import AzureOpenAiApi
from gateway.providers.base import Api
from gateway.providers.databricks import DatabricksApi
from gateway.providers.openai import OpenAiApi
from gateway.providers.openrouter import OpenRouterApi

_APIS: dict[str, Api] = {
    "openai": OpenAiApi(),
    "azure-openai": AzureOpenAiApi(),
    "anthropic": AnthropicApi(),
    "openrouter": OpenRouterApi(),
    "databricks": DatabricksApi(),
}


def api_of(name: str) -> Api:
    """The API of that name; `endpoint.api` is always one of them."""
    return _APIS[name]
