"""Let calls pass while the function app is restarted, where the platform cannot update it without a gap.

During the gap API Management gets no answer and goes by the fail mode, which refuses where it is `closed`. With
enforcement at `observe` the same calls pass and are billed by their events.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from scripts.azure.arm import Arm, ArmError
from scripts.azure.gateway import API_VERSION, set_named_value

NAMED_VALUE = "tk-enforcement"
_SETTLE_SECONDS = 30.0  # gateways take a changed named value within seconds; there is no sign that all of them did


@contextmanager
def observing(
    arm: Arm, gateway: str, wanted: str, *, say: Callable[[str], None], sleep: Callable[[float], None] = time.sleep
) -> Iterator[None]:
    """Enforcement `observe` inside, `wanted` afterwards, however the inside ends.

    `wanted` comes from the configuration and not from the gateway: a run that died half-way left `observe` there. A
    gateway whose enforcement is not `on`, or that has none yet because its first apply did not get so far, is left
    alone. Raises ArmError; a switch back that fails says what to run.
    """
    if wanted != "on" or arm.find(f"{gateway}/namedValues/{NAMED_VALUE}", API_VERSION) is None:
        say(f"enforcement stays {wanted}")
        yield
        return
    try:
        set_named_value(arm, gateway, NAMED_VALUE, "observe")
        say("enforcement is observe while the function app restarts: calls pass and are billed")
        sleep(_SETTLE_SECONDS)
        yield
    finally:
        _restore(arm, gateway, wanted, say)


def by_hand(gateway: str, wanted: str) -> str:
    """The command that restores enforcement when nothing else did."""
    url = f"https://management.azure.com{gateway}/namedValues/{NAMED_VALUE}?api-version={API_VERSION}"
    body = f'{{"properties": {{"value": "{wanted}"}}}}'
    return f"az rest --method patch --url '{url}' --headers If-Match='*' --body '{body}'"


def _restore(arm: Arm, gateway: str, wanted: str, say: Callable[[str], None]) -> None:
    try:
        set_named_value(arm, gateway, NAMED_VALUE, wanted)
    except ArmError:
        say(
            f"ENFORCEMENT MAY STILL BE observe: nothing is refused until it is {wanted} again. Run\n"
            f"  {by_hand(gateway, wanted)}"
        )
        raise
    say(f"enforcement is {wanted} again")
