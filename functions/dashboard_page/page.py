"""The dashboard as one response: style and scripts inline, each pinned by its hash, nothing asked of any other origin.

The sources are small ES modules. Here they become one module: in the order of their imports, without the imports.
"""

from __future__ import annotations

import gzip
import hashlib
import re
from base64 import b64encode
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import msgspec

_FOLDER = Path(__file__).parent
_ENTRY = "app.js"
_IMPORT = re.compile(r'^import \{[^}]*\} from "\./([a-z_]+\.js)";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=const |function |async |class )", re.MULTILINE)


class Page(msgspec.Struct, frozen=True):
    """The finished page."""

    html: bytes
    zipped: bytes
    etag: str
    headers: Mapping[str, str]


@cache
def dashboard_page() -> Page:
    """The page of this version. Built once per process: the package does not change under it."""
    style, script = (_FOLDER / "style.css").read_text(), bundle()
    shell = (_FOLDER / "shell.html").read_text()
    html = shell.replace("/*style*/", style).replace("/*script*/", script).encode()
    return Page(
        html=html,
        zipped=gzip.compress(html, mtime=0),
        etag=f'"{hashlib.sha256(html).hexdigest()[:32]}"',
        headers={
            "Content-Security-Policy": content_security_policy(style, script),
            "X-Frame-Options": "DENY",
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
            "Cache-Control": "no-cache",
            "Vary": "Accept-Encoding",
        },
    )


def bundle() -> str:
    """All scripts as one, each after what it imports. Raises ValueError for a circle of imports."""
    ordered: dict[str, str] = {}

    def add(name: str, waiting: tuple[str, ...]) -> None:
        if name in waiting:
            raise ValueError(f"scripts import each other in a circle: {' -> '.join([*waiting, name])}")
        if name in ordered:
            return
        source = (_FOLDER / name).read_text()
        for needed in _IMPORT.findall(source):
            add(needed, (*waiting, name))
        ordered[name] = _EXPORT.sub("", _IMPORT.sub("", source))

    add(_ENTRY, ())
    return "\n".join(f"// {name}\n{source}" for name, source in ordered.items())


def content_security_policy(style: str, script: str) -> str:
    """Nothing but these two inline texts, and questions to our own origin; no markup from strings at all."""
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src '{_digest(script)}'",
            f"style-src '{_digest(style)}'",
            "img-src data:",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    )


def _digest(text: str) -> str:
    return "sha256-" + b64encode(hashlib.sha256(text.encode()).digest()).decode()
