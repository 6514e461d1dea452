"""Names in files that people open: whoever names an app must not be able to run a formula or repaint a line.

Names come from claims, headers and configuration. JSON and Parquet carry them as they are; CSV, spreadsheets and pages
carry what these functions make of them.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache

# A spreadsheet takes a cell that begins so for a formula; some locales read the full-width forms alike.
_FORMULA_STARTS = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
# Characters that are not seen but move, hide or break what stands beside them.
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp", "Co", "Cn"})
_JOINERS = frozenset("\u200c\u200d")  # emoji and several scripts are written with them
MAX_SHOWN = 80


@lru_cache(maxsize=65_536)
def visible(name: str) -> str:
    """The name with every character that would steer a display spelled out, as `<U+202E>`."""
    if name.isascii() and name.isprintable():
        return name
    return "".join(
        f"<U+{ord(character):04X}>"
        if unicodedata.category(character) in _UNSEEN and character not in _JOINERS
        else character
        for character in name
    )


@lru_cache(maxsize=65_536)
def cell_text(name: str) -> str:
    """The name as a spreadsheet shows it instead of running it: what looks like a formula gets a leading apostrophe."""
    shown = visible(name)
    return f"'{shown}" if shown.lstrip(" \u00a0").startswith(_FORMULA_STARTS) else shown


def shortened(name: str, length: int = MAX_SHOWN) -> str:
    """A visible name of at most `length` characters; the end tells that it was cut."""
    shown = visible(name)
    return shown if len(shown) <= length else f"{shown[: length - 1]}\u2026"
