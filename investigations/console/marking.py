"""Foreign text on a page: escaped, with masked secrets and click ids marked, and click ids hidden where a policy says so.

What was recorded is hostile until proven otherwise: it goes onto a page through ``Marker`` alone, which knows a
conversion's click ids in every writing that evidence has of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from markupsafe import Markup

from infra.store.records import Life
from investigations.masking import click_ids_of, masked
from schemas.click_mask import ClickMask
from schemas.exchange import Hop
from schemas.redaction import writings

_MASKED = r"\[secret:[0-9a-f]{8}\]"
_HIDDEN = r"\[click:[0-9a-f]{8},[0-9]+\]"
_SHORTEST_TOKEN = 4
"""Characters: a shorter click id would be found by chance everywhere."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Part of a text. ``kind``: ``plain``, ``secret`` or ``click``."""

    kind: str
    text: str


def tokens_of(life: Life) -> frozenset[str]:
    """Every click id that a life knows: those that came, those that were found, those that were reported."""
    return frozenset(click_ids_of(life))


@dataclass(frozen=True, slots=True)
class Marker:
    """Marks texts of one conversion. ``mask`` takes the click ids out first; without one they are shown."""

    tokens: frozenset[str] = frozenset()
    mask: ClickMask | None = None
    _pattern: re.Pattern[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        known = (token for token in self.tokens if len(token) >= _SHORTEST_TOKEN)
        forms = {form for token in known for form in writings(token)}
        shown = [re.escape(form) for form in sorted(forms, key=len, reverse=True)]
        pattern = f"(?P<secret>{_MASKED})|(?P<click>{'|'.join([_HIDDEN, *shown])})"
        object.__setattr__(self, "_pattern", re.compile(pattern))

    def pieces(self, text: str) -> Iterator[Piece]:
        """The text in order, as its reader may see it, secrets and click ids apart."""
        text, position = self.plain(text), 0
        for found in self._pattern.finditer(text):
            if found.start() > position:
                yield Piece("plain", text[position : found.start()])
            position = found.end()
            yield Piece(found.lastgroup or "plain", found[0])
        if position < len(text):
            yield Piece("plain", text[position:])

    def plain(self, text: str) -> str:
        """The text as its reader may see it, without marks: for titles, attributes and comparisons."""
        return text if self.mask is None else self.mask.in_text(text)

    def hop(self, hop: Hop) -> Hop:
        """The hop as its reader may see it: what is made of it then, in whatever quoting, has nothing to hide."""
        return hop if self.mask is None else masked(hop, self.mask)

    def __call__(self, text: str) -> Markup:
        """The text as HTML."""
        return Markup("").join(map(_as_html, self.pieces(text)))


_HTML = {
    "plain": Markup("{}"),
    "secret": Markup(
        '<span class="secret" title="a secret, masked: the same digits are the same secret">{}</span>'
    ),
    "click": Markup('<span class="click-id" title="click id">{}</span>'),
}


def _as_html(piece: Piece) -> Markup:
    return _HTML[piece.kind].format(piece.text)
