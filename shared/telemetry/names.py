"""The names that spans and metrics use: one place, because most of them are still moving. Pure.

GenAI names are those of OpenTelemetry's semantic conventions, all still in development; `tests/unit/telemetry` compares
them with the installed package. No convention knows a cost, so that has names of ours, and those of the tools.
"""

from __future__ import annotations

SCHEMA_URL = "https://opentelemetry.io/schemas/1.44.0"

OPERATION = "gen_ai.operation.name"
PROVIDER = "gen_ai.provider.name"
REQUEST_MODEL = "gen_ai.request.model"
RESPONSE_MODEL = "gen_ai.response.model"
REQUEST_STREAM = "gen_ai.request.stream"
INPUT_TOKENS = "gen_ai.usage.input_tokens"  # cached ones included
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"  # reasoning included
CACHE_READ_TOKENS = "gen_ai.usage.cache_read.input_tokens"
CACHE_WRITE_TOKENS = "gen_ai.usage.cache_creation.input_tokens"
REASONING_TOKENS = "gen_ai.usage.reasoning.output_tokens"
SERVICE_TIER = "gen_ai.openai.response.service_tier"
CONVERSATION = "gen_ai.conversation.id"
STATUS_CODE = "http.response.status_code"
ERROR_TYPE = "error.type"

PROVIDERS = {"azure-openai": "azure.ai.openai"}  # ours -> the convention's; others are the same
OPERATIONS = {"responses": "chat"}

# Ours. Exact: nano-USD and tokens are integers; `cost.usd` is the same as text, for people.
TENANT = "tollkeeper.tenant"
SCOPE_PREFIX = "tollkeeper.scope."  # + type
DECISION = "tollkeeper.decision"
DEPLOYMENT = "tollkeeper.deployment"
REGION = "tollkeeper.region"
EVENT_SOURCE = "tollkeeper.event.source"
EVENT_ID = "tollkeeper.event.id"
COST_NANO_USD = "tollkeeper.cost.nano_usd"
COST_USD = "tollkeeper.cost.usd"
PRICING_STATUS = "tollkeeper.pricing_status"
PRICE = "tollkeeper.price_id"
MEASURED = "tollkeeper.measured"

# OpenInference, which Phoenix and Arize read. Its costs are numbers with a fraction: for display, never for sums.
OI_KIND = "openinference.span.kind"
OI_MODEL = "llm.model_name"
OI_PROVIDER = "llm.provider"
OI_EMBEDDING_MODEL = "embedding.model_name"
OI_PROMPT_TOKENS = "llm.token_count.prompt"
OI_COMPLETION_TOKENS = "llm.token_count.completion"
OI_TOTAL_TOKENS = "llm.token_count.total"
OI_CACHE_READ_TOKENS = "llm.token_count.prompt_details.cache_read"
OI_CACHE_WRITE_TOKENS = "llm.token_count.prompt_details.cache_write"
OI_REASONING_TOKENS = "llm.token_count.completion_details.reasoning"
OI_PROMPT_COST = "llm.cost.prompt"
OI_COMPLETION_COST = "llm.cost.completion"
OI_TOTAL_COST = "llm.cost.total"

# Langfuse. Details are JSON objects as text; kinds that start with `input` or `output` are summed under these.
LF_TYPE = "langfuse.observation.type"
LF_MODEL = "langfuse.observation.model.name"
LF_USAGE = "langfuse.observation.usage_details"
LF_COST = "langfuse.observation.cost_details"
LF_TAGS = "langfuse.trace.tags"
LF_KINDS = {
    "input": "input",
    "cached_input": "input_cached_tokens",
    "cache_write": "input_cache_creation",
    "cache_write_1h": "input_cache_creation_1h",
    "input_audio": "input_audio_tokens",
    "input_image": "input_image_tokens",
    "output": "output",
    "output_audio": "output_audio_tokens",
    "output_image": "output_image_tokens",
}
USER = "user.id"
SESSION = "session.id"
