"""The console's stylesheet and script: two files, read once, and named with a fingerprint of what is in them."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib import resources

TYPES = {
    "console.css": "text/css; charset=utf-8",
    "console.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}


@cache
def content(name: str) -> bytes:
    """A file's bytes. Raises ``KeyError`` for any other name."""
    if name not in TYPES:
        raise KeyError(name)
    return (resources.files(__name__) / name).read_bytes()


@cache
def fingerprint(name: str) -> str:
    """``/static/console.css?v=1a2b3c4d``: a changed file has another address, so browsers may keep the old one."""
    return f"/static/{name}?v={hashlib.sha256(content(name)).hexdigest()[:12]}"
