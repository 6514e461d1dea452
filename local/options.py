"""What a person may set for `make run`, and the keys their teams call with."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from shared.config.loader import load_config
from shared.config.model import Config
from shared.config.source import DirectorySource
from shared.errors import ConfigInvalid

PROJECT = Path(__file__).resolve().parent.parent
BUILT_IN, APIM = "builtin", "apim"


@dataclass(frozen=True)
class Options:
    """The environment of `make run`, read once."""

    functions_port: int
    gateway_port: int
    config_directory: Path
    config_label: str  # the directory as the person wrote it, for messages
    tour: bool  # TOUR=0 serves at once
    once: bool  # ONCE=1 ends after the tour
    azure_endpoint: str | None  # set: calls go to a real Azure OpenAI instead of the simulated model
    logs: Path
    model_port: int = 0  # of the simulated model; 0: any that is free
    gateway: str = BUILT_IN  # GATEWAY=apim: the API Management policies, executed, in place of the built-in gateway

    @property
    def functions_url(self) -> str:
        """Base URL of the function app's routes."""
        return f"http://127.0.0.1:{self.functions_port}/api/v1"

    @property
    def gateway_url(self) -> str:
        """Base URL of the gateway."""
        return f"http://127.0.0.1:{self.gateway_port}"

    @property
    def env_file(self) -> Path:
        """Where the command `tollkeeper` reads where the stores are, while they run."""
        return self.logs / "tollkeeper.env"

    @property
    def openai_url(self) -> str:
        """What OpenAI clients take as their base URL."""
        return f"{self.gateway_url}/openai/v1" if self.gateway == APIM else f"{self.gateway_url}/v1"


def read_options(env: Mapping[str, str]) -> Options:
    """Options from environment variables. Raises ConfigInvalid naming the variable."""
    functions_port, gateway_port = _port(env, "FUNCTIONS_PORT", 7071), _port(env, "GATEWAY_PORT", 8080)
    if functions_port == gateway_port:
        raise ConfigInvalid("GATEWAY_PORT: is the same as FUNCTIONS_PORT; each needs a port of its own")
    gateway = env.get("GATEWAY", "").strip().lower() or BUILT_IN
    if gateway not in (BUILT_IN, APIM):
        raise ConfigInvalid(f"GATEWAY: expected {BUILT_IN} or {APIM}, got {gateway[:40]!r}")
    return Options(
        functions_port=functions_port,
        gateway_port=gateway_port,
        # Relative to where the person stands, as every command-line tool reads a path.
        config_directory=Path(env.get("CONFIG_DIR") or PROJECT / "config").resolve(),
        config_label=env.get("CONFIG_DIR") or "config",
        tour=env.get("TOUR", "1").strip().lower() not in ("0", "no", "false"),
        once=env.get("ONCE", "0").strip().lower() not in ("", "0", "no", "false"),
        gateway=gateway,
        azure_endpoint=env.get("AZURE_OPENAI_ENDPOINT") or None,
        logs=PROJECT / ".local" / "logs" / f"{functions_port}-{gateway_port}",  # two copies run side by side
    )


def read_config(options: Options) -> Config:
    """The configuration. Raises ConfigInvalid, one `file:line: field: problem` per line."""
    return load_config(DirectorySource(options.config_directory).read(), options.config_label)


def subscription_of(config: Config, team: str) -> str | None:
    """The subscription whose key the team calls with here; None when its file lists none."""
    return min(config.teams[team].subscriptions, default=None)


def team_keys(config: Config) -> dict[str, str]:
    """{team: key} for every team that has a subscription. The keys work on this machine's loopback only."""
    return {team: f"local-{team}" for team in sorted(config.teams) if subscription_of(config, team)}


def gateway_keys(config: Config) -> dict[str, str]:
    """{sha256 of the key: subscription}, as the gateway's settings want them."""
    keys = team_keys(config)
    return {_sha256(key): subscription_of(config, team) or "" for team, key in keys.items()}


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _port(env: Mapping[str, str], name: str, default: int) -> int:
    text = env.get(name, "").strip() or str(default)
    if text.isdigit() and 0 < int(text) < 65536:
        return int(text)
    raise ConfigInvalid(f"{name}: expected a port from 1 to 65535, got {text!r}")
