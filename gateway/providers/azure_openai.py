"""Azure OpenAI: OpenAI's API, also on paths that name the deployment and take an api-version."""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import quote

from gateway.call import ModelCall
from gateway.providers.base import ProviderRequest, Target
from gateway.providers.openai import PATHS, OpenAiApi, request_body


class AzureOpenAiApi(OpenAiApi):
    """A resource of Azure OpenAI or Foundry."""

    def request(self, call: ModelCall, target: Target, disabled_tools: Collection[str]) -> ProviderRequest:
        """The v1 path, or the deployment's own when the client called that: old api-versions answer there only.

        Responses have no path per deployment.
        """
        body = request_body(call, target.deployment, disabled_tools)
        path = PATHS[call.operation]
        if target.api_version is None or call.operation == "responses":
            return ProviderRequest(f"/openai/v1{path}", body)
        path = f"/openai/deployments/{quote(target.deployment, safe='')}{path}"
        return ProviderRequest(path, body, {"api-version": target.api_version})
