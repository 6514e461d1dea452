"""What doors that hand out files share: how large one may be, and how a browser is told to treat it."""

from __future__ import annotations

import re

from shared.errors import PayloadTooLarge

MAX_FILE_BYTES = 64 * 1024 * 1024  # an answer is held in memory whole
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
# A statement that is looked at rather than saved comes from our own origin and holds names that others chose.
_LOOK_ONLY = "sandbox allow-downloads; default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'"


def require_size(name: str, size_bytes: int, param: str) -> None:
    """Raises PayloadTooLarge `file_too_large` for a file that an answer cannot hold."""
    if size_bytes > MAX_FILE_BYTES:
        message = f"{name} has {size_bytes} bytes, more than the {MAX_FILE_BYTES} handed out here; read it from storage"
        raise PayloadTooLarge(message, code="file_too_large", param=param)


def file_headers(parts: tuple[str | None, ...], *, looked_at: bool) -> dict[str, str]:
    """Headers of a file: the name to save it under, made of `parts`; shown rather than saved when it is looked at."""
    saved_as = "-".join(_UNSAFE.sub("_", part) for part in parts if part)
    return {
        "Content-Disposition": f'{"inline" if looked_at else "attachment"}; filename="{saved_as}"',
        "Content-Security-Policy": _LOOK_ONLY,
        "X-Content-Type-Options": "nosniff",
    }
