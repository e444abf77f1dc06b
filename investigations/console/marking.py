"""Foreign text on a page: escaped, with masked secrets and click ids marked, and click ids hidden where a policy says so.

What was recorded is hostile until proven otherwise: it goes onto a page through ``Marker`` alone, which knows a
conversion's click ids in every writing that evidence has of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from markupsafe import Markup

from infra.store.records import Life
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
    conversion = life.conversion
    found = {*conversion.event.click_ids.values(), *(match.click_id for match in conversion.matches)}
    for postback in life.postbacks:
        reported = (attempt.outcome.click_id for attempt in postback.attempts if attempt.outcome is not None)
        found |= {token for token in reported if token is not None}
    return frozenset(found)


@dataclass(frozen=True, slots=True)
class Marker:
    """Marks texts of one conversion. ``hide`` gives a text without its click ids; None shows them."""

    tokens: frozenset[str] = frozenset()
    hide: Callable[[str], str] | None = None
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
        return text if self.hide is None else self.hide(text)

    def hop(self, hop: Hop) -> Hop:
        """The hop as its reader may see it: what is made of it then, in whatever quoting, has nothing to hide."""
        if self.hide is None:
            return hop
        return replace(
            hop,
            url=self.hide(hop.url),
            request_head=self._bytes(hop.request_head),
            request_body=self._bytes(hop.request_body),
        )

    def _bytes(self, raw: bytes) -> bytes:
        assert self.hide is not None
        return self.hide(raw.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")

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
