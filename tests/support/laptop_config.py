"""The models and prices that every end-to-end test of the policies calls with."""

MODELS = """
models:
  - {id: gpt-4o, deployments: [gpt-4o-weu], capabilities: [chat, tools]}
  - {id: gpt-4o-mini, deployments: [gpt-4o-mini-weu], capabilities: [chat, tools]}
  - {id: text-embedding-3-small, deployments: [text-embedding-3-small], capabilities: [embeddings]}
"""
PRICES = """
prices:
  - {model: gpt-4o, effective_from: 2026-01-01, usd_per_million: {input: 2.50, cached_input: 1.25, output: 10.00}}
  - {model: gpt-4o-mini, effective_from: 2026-01-01, usd_per_million: {input: 0.15, cached_input: 0.075, output: 0.60}}
  - {model: text-embedding-3-small, effective_from: 2026-01-01, usd_per_million: {input: 0.02}}
"""


def team_file(team: str, limit_usd: str, *, identities: str = "", more: str = "") -> str:
    """A team with a subscription of its own and a budget per month."""
    return f"""
team: {team}
identities: {{subscriptions: [{team}-prod]{identities}}}
budgets:
  - {{period: month, limit: {limit_usd}{more}}}
"""


def configuration(
    tenants: str = "tenants: [{id: default, client_asserted_scopes: [session]}]", **teams: str
) -> dict[str, str]:
    """Files of a configuration directory; `teams` are their files by name."""
    files = {"tenants.yaml": tenants, "models.yaml": MODELS, "prices.yaml": PRICES}
    return files | {f"teams/{team}.yaml": text for team, text in teams.items()}
