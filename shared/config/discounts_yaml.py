"""prices.yaml, `discounts`: dated percentages off list prices."""

from __future__ import annotations

from shared.config.draft import Draft
from shared.config.fields import Section
from shared.config.model import Discount

DISCOUNT_FIELDS = ("percent", "effective_from", "model", "provider", "deployment", "region", "tenant")


def read_discounts(prices: Section, draft: Draft) -> None:
    """Add the discounts of the file to the draft."""
    seen = set()
    for section in prices.sections("discounts", DISCOUNT_FIELDS):
        off_ppm, since = section.percent_ppm("percent", 100, required=True), section.instant("effective_from")
        if off_ppm is None or since is None:
            continue
        discount = Discount(
            effective_from=since,
            off_ppm=off_ppm,
            model=section.text("model"),
            provider=section.text("provider"),
            deployment=section.text("deployment"),
            region=section.text("region"),
            tenant=draft.tenant_of(section, None),
        )
        selects = (since, discount.model, discount.provider, discount.deployment, discount.region, discount.tenant)
        if selects in seen:
            section.problem(
                "effective_from", "another entry holds for the same calls from the same moment on; keep one"
            )
        seen.add(selects)
        draft.discounts.append(discount)
