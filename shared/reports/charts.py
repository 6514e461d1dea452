"""The statement's charts as inline SVG. They hold numbers only, never a name; the page around them says what they show.

Coordinates are whole tenths of a unit, so equal figures give equal bytes.
"""

from __future__ import annotations

from collections.abc import Sequence

BAR, BAND, INK, GRID = "#2f5d8a", "#c9d8e6", "#444", "#d5d5d5"
PARTS = ("#2f5d8a", "#7fa3c4", "#c2a14d", "#5a8f69")  # input, cached, cache writes, output
_WARN, _OVER = "#b7791f", "#a33a2c"


def daily_bars(amounts: Sequence[int], top: str, width: int = 720, height: int = 110) -> str:
    """A bar per day of the month. `top` labels the highest bar."""
    highest = max([*amounts, 1])
    base = height - 14
    step = width * 10 // max(1, len(amounts))
    bars = []
    for number, amount in enumerate(amounts):
        tall = max(0, amount) * (base - 14) * 10 // highest
        if tall:
            bars.append(f"M{_t(number * step + step // 8)} {base}v-{_t(tall)}h{_t(step * 3 // 4)}v{_t(tall)}z")
    labels = "".join(
        f'<text x="{_t(number * step + step // 2)}" y="{height - 2}" text-anchor="middle">{number + 1}</text>'
        for number in range(len(amounts))
        if number == 0 or (number + 1) % 5 == 0
    )
    return (
        f'{_open(width, height)}<path d="M0 {base}H{width}M0 14H{width}" stroke="{GRID}" fill="none"/>'
        f'<path d="{"".join(bars)}" fill="{BAR}"/><text x="0" y="10">{top}</text>{labels}</svg>'
    )


def split_bar(amounts: Sequence[int], width: int = 340, height: int = 16) -> str:
    """One bar, divided in the colours of PARTS."""
    whole = sum(max(0, amount) for amount in amounts)
    x, rects = 0, []
    for amount, colour in zip(amounts, PARTS, strict=True):
        wide = max(0, amount) * width * 10 // whole if whole else 0
        if wide:
            rects.append(f'<rect x="{_t(x)}" width="{_t(wide)}" height="{height}" fill="{colour}"/>')
        x += wide
    return f"{_open(width, height)}{''.join(rects)}</svg>"


def budget_bar(spent: int, limit: int, warn_ppm: int, stop_ppm: int, width: int = 200, height: int = 12) -> str:
    """Spent beside the limit, with ticks at warn and stop. The scale ends at whichever is more, limit or spent."""
    end = max(limit, spent, limit * stop_ppm // 1_000_000, 1)
    colour = _OVER if spent * 1_000_000 >= limit * stop_ppm else _WARN if spent * 1_000_000 >= limit * warn_ppm else BAR
    marks = "".join(
        f"M{_t(min(limit * ppm // 1_000_000 * width * 10 // end, width * 10 - 5))} 0v{height}"
        for ppm in (warn_ppm, stop_ppm)
    )
    return (
        f'{_open(width, height)}<rect width="{width}" height="{height}" fill="{BAND}"/>'
        f'<rect y="2" width="{_t(max(0, spent) * width * 10 // end)}" height="{height - 4}" fill="{colour}"/>'
        f'<path d="{marks}" stroke="{INK}"/></svg>'
    )


def forecast_band(spent: int, low: int, value: int, high: int, width: int = 340, height: int = 22) -> str:
    """What is spent, the range the month will likely end in, and the most likely end."""
    end = max(high, spent, value, 1)

    def at(amount: int) -> int:
        return max(0, amount) * width * 10 // end

    return (
        f'{_open(width, height)}<rect y="7" width="{width}" height="8" fill="#eee"/>'
        f'<rect x="{_t(at(low))}" y="4" width="{_t(max(5, at(high) - at(low)))}" height="14" fill="{BAND}"/>'
        f'<rect y="7" width="{_t(at(spent))}" height="8" fill="{BAR}"/>'
        f'<path d="M{_t(min(at(value), width * 10 - 10))} 1v20" stroke="{INK}" stroke-width="2"/></svg>'
    )


def _open(width: int, height: int) -> str:
    # The text beside a chart says the same, so a screen reader need not meet it.
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" aria-hidden="true" focusable="false">'
    )


def _t(tenths: int) -> str:
    """Tenths as a decimal: `12.5`."""
    whole, tenth = divmod(tenths, 10)
    return f"{whole}.{tenth}" if tenth else str(whole)
