"""The key that tombstones are made with, where the environment gives one: kept apart from the table that it seals."""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "HOLDFIRE_ERASURE_KEY"
FILE_VARIABLE = "HOLDFIRE_ERASURE_KEY_FILE"
SHORTEST = 16
"""Characters."""


class ErasureKeyError(ValueError):
    """The key is needed and cannot be used: why, and what to do. Nothing is taken in meanwhile, lest it bring somebody back."""


def given_key() -> bytes | None:
    """The key as this process was given it, or None. Raises ErasureKeyError; its text never repeats the key."""
    value, place = os.environ.get(VARIABLE), VARIABLE
    if not value:
        path, place = os.environ.get(FILE_VARIABLE), FILE_VARIABLE
        if not path:
            return None
        try:
            value = Path(path).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ErasureKeyError(
                f"{place}: {path} cannot be read ({type(error).__name__}); make it readable as UTF-8"
            ) from None
    value = value.strip()
    if len(value) < SHORTEST:
        raise ErasureKeyError(f"{place}: has fewer than {SHORTEST} characters; use a long random text")
    return value.encode()
