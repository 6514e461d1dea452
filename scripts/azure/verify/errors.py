"""Why a run ends without a report."""

from __future__ import annotations


class CannotRunError(Exception):
    """Said in a sentence that tells what is missing."""


class NotRestoredError(CannotRunError):
    """What was changed for a point is still changed. Says how to restore it by hand."""
