"""What of a click id an account may see. The policy of ``[console] mask_click_ids_for`` decides, for every page alike."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from schemas.redaction import Redactor


@dataclass(frozen=True, slots=True)
class Masking:
    """``on``: this account sees click ids masked. Masks compare: the same click id has the same mask everywhere."""

    on: bool

    def click_id(self, text: str | None) -> str | None:
        """A click id as this account may see it."""
        return text if text is None or not self.on else mask(text)

    def text(self, text: str | None, click_ids: Iterable[str]) -> str | None:
        """A text in which these click ids may stand, in any of the writings that URLs, heads and bodies give them."""
        if text is None or not self.on:
            return text
        return self.bytes_(text.encode("utf-8", "surrogatepass"), click_ids).decode("utf-8", "surrogatepass")

    def bytes_(self, data: bytes, click_ids: Iterable[str]) -> bytes:
        """The same for bytes, which must be decoded: nothing is found inside compressed ones."""
        if not self.on:
            return data
        for each in sorted({each for each in click_ids if each}, key=len, reverse=True):
            data = _replaced(data, each)
        return data


def mask(click_id: str) -> str:
    """``[click id:9f86d081]``: the head of its SHA-256, as secrets are shown."""
    return f"[click id:{hashlib.sha256(click_id.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}]"


@lru_cache(maxsize=512)
def _redactor(click_id: str) -> Redactor:
    """Made once for all the lines of a page: making one costs more than a line does."""
    return Redactor((click_id,))


def _replaced(data: bytes, click_id: str) -> bytes:
    if len(click_id) < 8:
        return data.replace(click_id.encode(), mask(click_id).encode())
    secret = f"[secret:{hashlib.sha256(click_id.encode()).hexdigest()[:8]}]".encode()
    return _redactor(click_id).in_bytes(data).replace(secret, mask(click_id).encode())
