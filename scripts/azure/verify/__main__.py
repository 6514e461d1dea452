"""make verify ENV=dev

Measures on the live system what its design assumes, and prints `point | verdict | what was seen`. Exit code 0: nothing
differs; 1: something does; 2: nothing could be measured. It makes about seven calls of a few tokens each.
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import uuid
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from azure.core.credentials import TokenCredential
from azure.core.exceptions import ClientAuthenticationError

from scripts.azure.arm import Arm, ArmError
from scripts.azure.credential import open_credential
from scripts.azure.gateway import named_value, subscription_key
from scripts.azure.terraform import ROOT
from scripts.azure.verify import report
from scripts.azure.verify.calls import Caller, planned_calls
from scripts.azure.verify.errors import CannotRunError
from scripts.azure.verify.hubs import CONSUMER_GROUP, LLM_LOGS, USAGE, EventHubs
from scripts.azure.verify.ledger import TABLE, rows_from
from scripts.azure.verify.observe import Patience, System
from scripts.azure.verify.run import chosen_disturbances, chosen_probes, verify, wanted_points
from scripts.azure.verify.target import Target, caller_of, most_usd, read_outputs, target_of
from shared.config.loader import load_config
from shared.config.source import DirectorySource
from shared.errors import ConfigInvalid

if TYPE_CHECKING:
    from azure.data.tables import TableClient


def main(arguments: Sequence[str]) -> int:
    """The exit code."""
    options = _parser().parse_args(arguments)
    if options.list:
        _print(report.listing())
        return 0
    logging.basicConfig(level=logging.WARNING, format="verify: %(message)s")
    # A pipeline that is cancelled must restore what it changed, too.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    try:
        return _run(options)
    except (CannotRunError, ConfigInvalid, ArmError, ClientAuthenticationError) as error:
        _say(f"ended without a report: {error}")
        return 2
    except KeyboardInterrupt:
        _say("interrupted")
        return 2


def _run(options: argparse.Namespace) -> int:
    wanted = wanted_points([point.strip() for point in options.points.split(",") if point.strip()])
    outputs = read_outputs(options.environment, options.outputs)
    if outputs.get("GATEWAY_ID") == "":
        _say("nothing is measured: every point is one of API Management, and api_management is false")
        return 0
    target = target_of(outputs)
    config = load_config(DirectorySource(options.config).read(), str(options.config))
    who = caller_of(target, config, options.subscription, options.deployment)
    word = f"tk-verify-{uuid.uuid4().hex[:12]}"
    credential = open_credential()
    with Arm(credential) as arm:
        buffer_bytes = int(named_value(arm, target.gateway_id, "tk-buffer-bytes"))
        calls = planned_calls(who.deployment, word, who.scope_type, buffer_bytes, reasons=who.reasons)
        patience = Patience(log=60 * options.wait_minutes)
        needed = [calls[name] for name in calls if any(name in probe.calls for probe in chosen_probes(wanted))]
        if options.disturb:
            repeats = int(patience.change / patience.change_poll) + 1
            needed += [calls["whole"]] * (repeats * sum(each.series for each in chosen_disturbances(wanted)))
        most = most_usd(needed, who)
        _say(f"{len(needed)} calls to {who.deployment} as {who.subscription} for at most {most:.6f} USD")
        if most > options.max_cost_usd:
            raise CannotRunError(f"that is above the cap of {options.max_cost_usd} USD; --max-cost-usd raises it")
        if options.disturb and not options.yes:
            _confirm(wanted)
        system = System(
            caller=Caller(target.gateway_url, subscription_key(arm, target.gateway_id, who.subscription)),
            calls=calls,
            hubs=_hubs(target, credential),
            arm=arm,
            read_rows=rows_from(_ledger(target, credential)),
            gateway_id=target.gateway_id,
            namespace_id=target.llm_logs_namespace_id,
            subscription=who.subscription,
            word=word,
            scope_type=who.scope_type,
            token=lambda audience: credential.get_token(f"{audience}/.default").token,
            patience=patience,
            say=_say,
        )
        results, cost = verify(system, wanted, disturb=options.disturb)
    _print(report.as_json(results, cost) if options.json else report.as_text(results, cost))
    return report.exit_code(results)


def _hubs(target: Target, credential: TokenCredential) -> EventHubs:
    from azure.eventhub import EventHubConsumerClient

    places = {
        USAGE: (target.usage_namespace, target.usage_hub),
        LLM_LOGS: (target.llm_logs_namespace, target.llm_logs_hub),
    }
    return EventHubs(
        {
            key: EventHubConsumerClient(namespace, hub, CONSUMER_GROUP, credential)
            for key, (namespace, hub) in places.items()
        }
    )


def _ledger(target: Target, credential: TokenCredential) -> TableClient:
    from azure.data.tables import TableClient

    endpoint = f"https://{target.ledger_account}.table.core.windows.net"
    return TableClient(endpoint, TABLE, credential=credential)


def _confirm(wanted: Collection[str]) -> None:
    """A person says yes to what all callers will feel."""
    _say("for some minutes this changes, for all callers:")
    for each in chosen_disturbances(wanted):
        _say(f"  {each.point.id}: {each.changes}")
    _say("type yes to go on:")
    if sys.stdin.readline().strip() != "yes":
        raise CannotRunError("not confirmed; --yes confirms without asking")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="verify", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    add = parser.add_argument
    add("environment", nargs="?", default="dev", help="of infra/terraform/environments (default: dev)")
    add("--list", action="store_true", help="show what is measured, and measure nothing")
    add("--points", default="", help="only these, such as 12,18,a")
    add("--json", action="store_true", help="print JSON")
    add(
        "--disturb", action="store_true", help="also measure what needs a change that all callers feel for some minutes"
    )
    add("--yes", action="store_true", help="with --disturb: do not ask")
    add("--outputs", type=Path, help="a file of `terraform output -json` instead of the environment's state")
    add("--config", type=Path, default=ROOT / "config", help="the configuration in force (default: config)")
    add("--subscription", help="to call as (default: the first of the first team)")
    add("--deployment", help="to call (default: the cheapest that can chat and does not reason)")
    add("--wait-minutes", type=float, default=15, help="at most, for the LLM log (default: 15)")
    add("--max-cost-usd", type=float, default=0.05, help="refuse a run that may cost more (default: 0.05)")
    return parser


def _say(text: str) -> None:
    """Progress: on standard error, so that the report alone is on standard output."""
    sys.stderr.write(f"verify: {text}\n")


def _print(text: str) -> None:
    sys.stdout.write(f"{text}\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
