"""Masking secrets in evidence: comparable, never revealing, and never touching a click id.

A secret may stand anywhere: in a path, a query, a header, and echoed back in a body, in any of the writings
that the wire gives it. It is shown as ``[secret:9f86d081]``, the head of its SHA-256, so that two attempts can be
compared and a rotated key is seen.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from functools import lru_cache
from urllib.parse import quote, quote_plus

SHORTEST_SECRET = 8
"""Characters. A shorter one would be found by chance in any text, and masking it would alter evidence."""
_SHORTEST_HEAD = 4
"""A truncated body may end inside a secret: its head at the end is masked as well, from this many bytes on."""

_JSON_SHORT = {
    '"': '\\"',
    "\\": "\\\\",
    "/": "\\/",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
}
_HTML_NAMES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&apos;"}

Span = tuple[int, int, bytes]
"""Start, end and what is shown instead."""


def mask(secret: str) -> str:
    """How a secret is shown: ``[secret:`` and the first 8 hexadecimal digits of its SHA-256 ``]``."""
    return f"[secret:{hashlib.sha256(secret.encode()).hexdigest()[:8]}]"


@lru_cache(maxsize=8192)
def writings_of(char: str) -> tuple[bytes, ...]:
    """Every writing of one character, longest first, all in lower case but for the character itself.

    Encoders differ in what they leave alone (``encodeURIComponent`` keeps ``!'()*``, others do not), so writings
    are matched a character at a time: a secret is found however they mix.
    """
    raw = char.encode()
    percent = "".join(f"%{byte:02x}" for byte in raw)
    units = char.encode("utf-16-be").hex()
    forms = {
        percent,
        percent.replace("%", "%25"),
        "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4)),
        f"&#{ord(char)};",
        f"&#{ord(char):03};",
        f"&#x{ord(char):x};",
        f"&#x{ord(char):02x};",
        *(table[char] for table in (_JSON_SHORT, _HTML_NAMES) if char in table),
        *("+" for _ in range(char == " ")),
    }
    return tuple(sorted({form.encode() for form in forms} | {raw}, key=len, reverse=True))


def _pattern(text: str) -> bytes:
    """A regular expression for every mix of writings of ``text``; escapes in either case, the text in its own."""
    characters = []
    for char in text:
        raw = char.encode()
        forms = [
            re.escape(form) if form == raw else b"(?i:" + re.escape(form) + b")" for form in writings_of(char)
        ]
        characters.append(b"(?:" + b"|".join(forms) + b")")
    return b"".join(characters)


def base64_cores(raw: bytes) -> list[str]:
    """Base64 of the text at each of the three alignments it can have inside a longer encoded whole.

    Characters that also depend on the neighbours are cut off, so that the rest is found whatever they are.
    """
    cores = []
    for lead in range(3):
        core = base64.b64encode(b"\0" * lead + raw).decode().rstrip("=")[(0, 2, 3)[lead] :]
        if (lead + len(raw)) % 3:
            core = core[:-1]
        cores += [core, core.replace("+", "-").replace("/", "_")]
    return list(dict.fromkeys(core for core in cores if len(core) >= SHORTEST_SECRET))


def spellings(secret: str) -> tuple[str, ...]:
    """The texts whose writings give the secret away: itself, its base64 and its hexadecimal digits."""
    raw = secret.encode()
    return (secret, *base64_cores(raw), raw.hex(), raw.hex().upper())


class Redactor:
    """Masks a fixed set of secrets. Stateless after construction; safe to share between threads.

    Bodies must be given decoded: a secret inside compressed bytes cannot be seen.
    Raises ``ValueError`` for a secret under ``SHORTEST_SECRET`` characters.
    """

    def __init__(self, secrets: tuple[str, ...] = ()) -> None:
        for secret in secrets:
            if len(secret) < SHORTEST_SECRET:
                raise ValueError(
                    f"a secret must have at least {SHORTEST_SECRET} characters to be masked safely"
                )
        self._secrets = [
            (re.compile(_pattern(text[:SHORTEST_SECRET])), text, mask(secret).encode())
            for secret in dict.fromkeys(secrets)
            for text in spellings(secret)
        ]

    def __bool__(self) -> bool:
        return bool(self._secrets)

    def in_text(self, text: str, click_id: str | None = None) -> str:
        """``in_bytes`` for text."""
        if not self:
            return text
        data = text.encode("utf-8", "surrogateescape")
        return self.in_bytes(data, click_id).decode("utf-8", "surrogateescape")

    def in_bytes(self, data: bytes, click_id: str | None = None, *, truncated: bool = False) -> bytes:
        """Mask every secret in ``data``; a secret's writing that lies wholly inside a click id is the click id.

        ``truncated``: ``data`` was cut at its end, which may have cut a secret.
        """
        if not self:
            return data
        spans = self._found(data, truncated=truncated)
        if spans and click_id:
            kept = _click_id_places(data, click_id)
            spans = [
                span for span in spans if not any(low <= span[0] and span[1] <= high for low, high in kept)
            ]
        out, end = [], 0
        for start, stop, shown in merge(sorted(spans)):
            out += [data[end:start], shown]
            end = stop
        return b"".join([*out, data[end:]])

    def _found(self, data: bytes, *, truncated: bool) -> list[Span]:
        """Every occurrence of every secret, overlapping ones included, and at a cut end the head of one."""
        spans = []
        for start_of, text, shown in self._secrets:
            position = 0
            while match := start_of.search(data, position):
                position = match.start() + 1
                if end := _follow(data, match.start(), text, truncated=truncated):
                    spans.append((match.start(), end, shown))
            if truncated:
                # Heads too short for the search above; no character is written with more than 20 bytes.
                for start in range(max(0, len(data) - 20 * SHORTEST_SECRET), len(data) - _SHORTEST_HEAD + 1):
                    if _follow(data, start, text, truncated=True) == len(data):
                        spans.append((start, len(data), shown))
                        break
        return spans


def _follow(data: bytes, start: int, text: str, *, truncated: bool) -> int:
    """Where a writing of ``text`` that begins at ``start`` ends, or 0 when there is none.

    With ``truncated`` a writing inside which the data ends is one too; it ends where the data does.
    """
    places, cut = {start}, False
    for char in text:
        reached: set[int] = set()
        raw = char.encode()
        for place in places:
            for form in writings_of(char):
                piece = data[place : place + len(form)]
                if not form.startswith(piece if form == raw else piece.lower()):
                    continue
                if len(piece) == len(form):
                    reached.add(place + len(form))
                else:
                    cut = True
        if not reached:
            break
        places = reached
    else:
        # One writing of the last character can be the head of another that is cut, as & is of &amp;.
        return len(data) if cut and truncated else max(places)
    return len(data) if cut and truncated else 0


def merge(spans: list[Span]) -> list[Span]:
    """Overlapping occurrences become one span under the first one's mask."""
    merged: list[Span] = []
    for start, stop, shown in spans:
        if merged and start < merged[-1][1]:
            low, high, first = merged[-1]
            merged[-1] = (low, max(high, stop), first)
        else:
            merged.append((start, stop, shown))
    return merged


def writings(click_id: str) -> frozenset[str]:
    """The writings of a click id that a rendered request, and a plain echo of it, have."""
    percent = quote(click_id, safe="")
    forms = {
        click_id,
        percent,
        quote(click_id),
        quote_plus(click_id),
        quote(percent, safe=""),
        html.escape(click_id),
        html.escape(click_id, quote=False),
        json.dumps(click_id)[1:-1],
        json.dumps(click_id, ensure_ascii=False)[1:-1],
        json.dumps(click_id)[1:-1].replace("/", "\\/"),
    }
    return frozenset(form for form in forms if form)


def _click_id_places(data: bytes, click_id: str) -> list[tuple[int, int]]:
    """Where the click id stands."""
    places = []
    for form in (text.encode() for text in writings(click_id)):
        position = data.find(form)
        while position >= 0:
            places.append((position, position + len(form)))
            position = data.find(form, position + 1)
    return places
