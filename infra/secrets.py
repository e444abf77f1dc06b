"""Secrets, read from where the configuration points: an environment variable or a file."""

from __future__ import annotations

import os
from pathlib import Path

from schemas.auth import SecretRef
from schemas.redaction import SHORTEST_SECRET


class SecretError(ValueError):
    """A secret that cannot be used. Says where it should be, why it cannot be used, and what to do; never its value."""


def read_secret(ref: SecretRef) -> str:
    """The secret's value, surrounding white space removed. Raises ``SecretError``."""
    if ref.env is not None:
        place = f"environment variable {ref.env}"
        value = os.environ.get(ref.env)
        if value is None:
            raise SecretError(f"{place} is not set. Set it where the workers run")
    else:
        assert ref.file is not None
        place = f"file {ref.file}"
        try:
            value = Path(ref.file).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise SecretError(
                f"{place} cannot be read ({type(error).__name__}). Make it readable as UTF-8"
            ) from None
    value = value.strip()
    if not value.isprintable():
        # In a header it would end the header; the guard would then refuse every postback for good.
        raise SecretError(
            f"{place} holds a line break or another unprintable character. Leave only the secret in it"
        )
    if len(value) < SHORTEST_SECRET:
        raise SecretError(
            f"{place} holds {len(value)} characters; under {SHORTEST_SECRET} it cannot be masked safely. Use a longer one"
        )
    return value
