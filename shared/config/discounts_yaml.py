"""prices.yaml, `discounts`: dated percentages off list prices."""

from __future__ import annotations

from shared.config.draft import Draft
from shared.config.fields import Section
from shared.config.model import PPM, Discount

DISCOUNT_FIELDS = ("percent", "effective_from", "model", "provider", "deployment", "region", "tenant")
_PPM_OF_A_PERCENT = PPM // 100


def read_discounts(prices: Section, draft: Draft) -> None:
    """Add the discounts of the file to the draft."""
    seen = set()
    for section in prices.sections("discounts", DISCOUNT_FIELDS):
        off_ppm, since = _off_ppm(section), section.instant("effective_from")
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


def _off_ppm(section: Section) -> int | None:
    """Parts per million of the list price. Exact: a percentage has at most four decimals."""
    percent = section.decimal("percent", required=True)
    if percent is None:
        return None
    off_ppm = percent * _PPM_OF_A_PERCENT
    if not 0 <= percent <= 100 or off_ppm != int(off_ppm):
        section.problem("percent", f"expected 0 to 100 with at most four decimals, such as 12.5; got {percent}")
        return None
    return int(off_ppm)
