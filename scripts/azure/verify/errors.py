"""Why nothing could be measured."""

from __future__ import annotations


class CannotRunError(Exception):
    """Said in a sentence that tells what is missing."""
