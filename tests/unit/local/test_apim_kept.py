"""What the policy runner keeps in memory does not grow without end."""

import pytest

from local.apim import cache, recent
from local.apim.cache import Cache
from local.apim.recent import Recent


def test_only_the_newest_entries_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """One by one and several at once."""
    monkeypatch.setattr(recent, "MOST_KEPT", 3)
    kept: Recent[int] = Recent()
    for number in range(5):
        kept.append(number)
    assert kept == [2, 3, 4]
    kept += [5, 6]
    assert kept == [4, 5, 6]


def test_a_full_cache_drops_what_is_over_and_then_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    """A value that still counts is dropped only when nothing else is left to drop."""
    monkeypatch.setattr(cache, "MOST_ENTRIES", 2)
    kept = Cache()
    kept.put("oldest", 1, seconds=60)
    kept.put("over", 2, seconds=0)
    kept.put("new", None, seconds=60)
    assert (kept.get("oldest"), kept.get("over"), kept.get("new")) == ((1,), None, (None,))
    kept.put("newer", 4, seconds=60)
    assert (kept.get("oldest"), kept.get("new"), kept.get("newer")) == (None, (None,), (4,))
