"""How the Azure invoice is read and compared, and from when on a jump in spend is worth a notice."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from shared.money import NANO_PER_USD

TOKEN_KINDS = (
    "input",
    "cached_input",
    "cache_write",
    "cache_write_1h",
    "output",
    "input_audio",
    "output_audio",
    "input_image",
    "output_image",
)
DEPLOYMENT_TYPES = ("global", "data-zone", "regional")
TIERS = ("standard", "batch", "flex", "priority")


class Account(msgspec.Struct, frozen=True):
    """One Azure AI account of the invoice: which deployments and regions of the ledger are its.

    Without deployments and regions it takes what no other account names. `tenant`: all of it is that tenant's.
    """

    resource: str  # the end of the invoice's ResourceId, in lower case: an account's name, or its whole ARM id
    tenant: str | None = None
    deployments: frozenset[str] = frozenset()
    regions: frozenset[str] = frozenset()


class MeterRule(msgspec.Struct, frozen=True):
    """What an invoice meter is, where its name does not tell. `ignore`: listed, never compared."""

    model: str = ""
    kind: str = ""
    deployment_type: str = "global"
    tier: str = "standard"
    ignore: bool = False


class Reconciliation(msgspec.Struct, frozen=True):
    """How the invoice is compared with the ledger. A variance counts when it passes both tolerances."""

    tolerance_ppm: int = 10_000  # of the invoiced amount; 1 %
    tolerance_nano_usd: int = NANO_PER_USD
    accounts: tuple[Account, ...] = ()
    meters: Mapping[str, MeterRule] = msgspec.field(default_factory=dict)  # by the meter's name in lower case


class AnomalyFloors(msgspec.Struct, frozen=True):
    """A day is worth a notice only when it is above the expected by more than both."""

    above_nano_usd: int = 25 * NANO_PER_USD
    above_ppm: int = 200_000  # 20 %
