"""Which price line a deployment is billed on: its deployment type, data zone and processing tier."""

from __future__ import annotations

# Config's deployment types, as the catalog's type and the processing tier they imply. A type that is not here, such as
# provisioned throughput, has no price per token: its calls are unpriced rather than priced as something else.
DEPLOYMENT_TYPES = {
    "global": ("global", "standard"),
    "data-zone": ("data-zone", "standard"),
    "regional": ("regional", "standard"),
    "batch": ("global", "batch"),
    "global-batch": ("global", "batch"),
    "data-zone-batch": ("data-zone", "batch"),
    "priority": ("global", "priority"),
    "data-zone-priority": ("data-zone", "priority"),
}

DATA_ZONES = {
    "us": (
        "centralus",
        "eastus",
        "eastus2",
        "northcentralus",
        "southcentralus",
        "westcentralus",
        "westus",
        "westus2",
        "westus3",
    ),
    "eu": (
        "austriaeast",
        "belgiumcentral",
        "francecentral",
        "germanywestcentral",
        "italynorth",
        "northeurope",
        "polandcentral",
        "spaincentral",
        "swedencentral",
        "westeurope",
    ),
}
ZONE_BY_REGION = {region: zone for zone, regions in DATA_ZONES.items() for region in regions}


def price_lines(deployment_type: str | None, region: str, processing_tier: str) -> tuple[tuple[str, str], ...]:
    """The (deployment type, processing tier) lines of the catalog to look at, best first; empty for an unknown type.

    `processing_tier` is what the call was served on; when that is `standard`, the deployment's own tier holds. A
    data-zone deployment looks at its region's zone first, then at the line that holds for all zones alike.
    """
    line = DEPLOYMENT_TYPES.get(deployment_type or "global")
    if line is None:
        return ()
    place, implied_tier = line
    tier = implied_tier if processing_tier == "standard" else processing_tier
    zone = data_zone(region) if place == "data-zone" else None
    return ((f"data-zone-{zone}", tier), (place, tier)) if zone else ((place, tier),)


def data_zone(region: str) -> str | None:
    """The Azure data zone of a region (`westeurope`, `West Europe`), None when it is in none that is known here."""
    return ZONE_BY_REGION.get(compact_region(region))


def same_deployment(one: str, other: str) -> bool:
    """Whether both name one deployment: Azure tells them apart whatever their case."""
    return one.lower() == other.lower()


def compact_region(region: str) -> str:
    """A region's name as Azure's API spells it: `West Europe` is `westeurope`."""
    return region.lower().replace(" ", "")
