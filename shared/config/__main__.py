"""`python -m shared.config check DIR` validates; `publish DIR` also publishes, to the container that CONFIG_URL names.

Publishing uses the same settings as the app, see docs/configuration.md.
"""

from __future__ import annotations

import asyncio
import sys

from shared.config.loader import load_config
from shared.config.source import DirectorySource, open_container, publish_config
from shared.errors import ConfigInvalid, TollkeeperError
from shared.settings import Settings


def check(directory: str) -> str:
    """One sentence on a good configuration. Raises ConfigInvalid."""
    config = load_config(DirectorySource(directory).read(), directory)
    counts = f"{len(config.tenants)} tenants, {len(config.teams)} teams, {len(config.budgets)} budgets"
    return f"{directory} is valid: {counts}, {len(config.models)} models (version {config.version[:12]})"


async def publish(directory: str) -> str:
    """Publish a directory; one sentence on what is current now. Raises ConfigInvalid, or the storage's own error."""
    check(directory)
    settings = Settings.from_env()
    if not settings.config_location.startswith(("https://", "http://")):
        raise ConfigInvalid("CONFIG_URL: is required to publish, such as https://name.blob.core.windows.net/config")
    async with open_container(settings.config_location, settings) as container:
        version = await publish_config(DirectorySource(directory).read(), container)
    return f"{settings.config_location} is at version {version[:12]}; workers follow within 30 seconds"


def main(arguments: list[str]) -> int:
    """Run a command; 0 when it did what it says."""
    match arguments:
        case ["check", directory]:
            command = "check"
        case ["publish", directory]:
            command = "publish"
        case _:
            sys.stderr.write(f"{__doc__}\n")
            return 2
    try:
        sentence = check(directory) if command == "check" else asyncio.run(publish(directory))
    except TollkeeperError as error:
        sys.stderr.write(f"{error.message}\n")
        return 1
    sys.stdout.write(f"{sentence}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
