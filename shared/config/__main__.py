"""`python -m shared.config check DIR` validates; `publish DIR` also publishes, to the container that CONFIG_URL names;
`named-values [DIR]` prints, as JSON, what API Management must know of the configuration by itself;
`named-values DIR FILE` writes that for the infrastructure templates, with a digest that tells whether it is still true.

Publishing is done by whoever is signed in to Azure's tools, see docs/configuration.md.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from shared.config.loader import load_config
from shared.config.named_values import generated_named_values, named_values_digest
from shared.config.operator import operator_name
from shared.config.place import open_place
from shared.config.publish import publish as publish_files
from shared.config.publish import told
from shared.config.source import DirectorySource
from shared.errors import ConfigInvalid, TollkeeperError
from shared.settings import Settings


def check(directory: str) -> str:
    """One sentence on a good configuration. Raises ConfigInvalid."""
    config = load_config(DirectorySource(directory).read(), directory)
    superseded = [f"\nsuperseded: {told(e)}: {e.superseded}" for e in config.edits.values() if e.superseded]
    counts = f"{len(config.tenants)} tenants, {len(config.teams)} teams, {len(config.budgets)} budgets"
    return f"{directory} is valid: {counts}, {len(config.models)} models (version {config.version[:12]})" + "".join(
        superseded
    )


async def publish(directory: str) -> str:
    """Publish a directory; says what is current now. Raises ConfigInvalid, or the storage's own error."""
    check(directory)
    settings = Settings.for_operator()
    if not settings.config_location.startswith(("https://", "http://")):
        raise ConfigInvalid("CONFIG_URL: is required to publish, such as https://name.blob.core.windows.net/config")
    files = DirectorySource(directory).read()
    async with open_place(settings) as place:
        who = await operator_name(settings)
        done = await publish_files(files, place, who=who, why=f"published from {directory}", root=directory)
    lines = [f"{settings.config_location} is at version {done.version[:12]}; workers follow within 30 seconds"]
    lines += [f"discarded, because git wins: {told(edit)}" for edit in done.difference.discarded]
    lines += [f"kept, as billing.yaml says: {told(edit)}" for edit in done.difference.kept]
    return "\n".join(lines)


def named_values(directory: str) -> str:
    """The generated named values of a configuration, as JSON. Raises ConfigInvalid."""
    config = load_config(DirectorySource(directory).read(), directory)
    return json.dumps(generated_named_values(config), indent=2, sort_keys=True)


def write_named_values(directory: str, file: str) -> str:
    """Write the generated named values for the infrastructure templates; one sentence on it. Raises ConfigInvalid."""
    files = DirectorySource(directory).read()
    values = generated_named_values(load_config(files, directory))
    variables = {"config_digest": named_values_digest(files), "generated_named_values": values}
    Path(file).write_text(json.dumps(variables, indent=2, sort_keys=True) + "\n")
    return f"{file} has the named values of {directory}"


def main(arguments: list[str]) -> int:
    """Run a command; 0 when it did what it says."""
    try:
        match arguments:
            case ["check", directory]:
                shown = check(directory)
            case ["publish", directory]:
                shown = asyncio.run(publish(directory))
            case ["named-values", directory, file]:
                shown = write_named_values(directory, file)
            case ["named-values", *directories] if len(directories) <= 1:
                shown = named_values(directories[0] if directories else "config")
            case _:
                sys.stderr.write(f"{__doc__}\n")
                return 2
    except TollkeeperError as error:
        sys.stderr.write(f"{error.message}\n")
        return 1
    sys.stdout.write(f"{shown}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
