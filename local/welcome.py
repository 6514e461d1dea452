"""What `make run` tells a person: the teams' keys and the first commands to try."""

from __future__ import annotations

from rich.console import Console

from local.options import APIM, Options, team_keys
from shared.config.model import Config


def print_keys(console: Console, config: Config) -> None:
    """The key of each team, and which teams have none."""
    keys = team_keys(config)
    console.print()
    console.print("[bold]Keys[/]  " + "   ".join(f"{team} [cyan]{key}[/]" for team, key in keys.items()))
    if without := sorted(set(config.teams) - set(keys)):
        console.print(f"      no subscription in their team file, so no key: {', '.join(without)}")
    console.print()


def print_examples(console: Console, options: Options, config: Config) -> None:
    """A first call, a first look at the budgets, and how to end it all."""
    team, key = next(iter(team_keys(config).items()), ("search", "local-search"))
    tenant = config.teams[team].tenant if team in config.teams else "default"
    model = next((m.id for m in config.models.values() if "chat" in m.capabilities), "gpt-4o")
    body = f'{{"model": "{model}", "messages": [{{"role": "user", "content": "Hello"}}]}}'
    console.print("[bold]Try[/]")
    for line in (
        f"curl -i {options.openai_url}/chat/completions -H 'api-key: {key}' \\\n"
        f"       -H 'content-type: application/json' -d '{body}'",
        f"curl '{options.functions_url}/spend?tenant={tenant}'",
        f"curl '{options.functions_url}/usage/summary?tenant={tenant}&group_by=team,model'",
        f".venv/bin/tollkeeper --env-file {options.env_file} spend --tenant {tenant}",
    ):
        console.print(f"  {line}", markup=False, soft_wrap=True)
    header = f', default_headers={{"api-key": "{key}"}}' if options.gateway == APIM else ""
    client = f'OpenAI(base_url="{options.openai_url}", api_key="{key}"{header})'
    console.print(f"  python: {client}", markup=False, soft_wrap=True)
    console.print(f"\nLogs are in {options.logs}. [bold]Ctrl-C ends everything.[/]", soft_wrap=True)
