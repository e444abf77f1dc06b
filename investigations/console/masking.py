"""What of a click id an account may see. The policy of ``[console] mask_click_ids_for`` decides, for every page alike."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from schemas.click_mask import ClickMask, mask_click_id


@dataclass(frozen=True, slots=True)
class Masking:
    """``on``: this account sees click ids masked. Masks compare: the same click id has the same mask everywhere."""

    on: bool

    def click_id(self, text: str | None) -> str | None:
        """A click id as this account may see it."""
        return text if text is None or not self.on else mask_click_id(text)

    def text(self, text: str | None, click_ids: Iterable[str]) -> str | None:
        """A text in which these click ids may stand, in any of the writings that URLs, heads and bodies give them."""
        return text if text is None or not self.on else ClickMask(click_ids).in_text(text)

    def bytes_(self, data: bytes, click_ids: Iterable[str]) -> bytes:
        """The same for bytes, which must be decoded: nothing is found inside compressed ones."""
        return ClickMask(click_ids).in_bytes(data) if self.on else data
