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
_PARTIAL = 4
"""A truncated body may end inside a secret: this many bytes of its head at the end are masked as well."""


def mask(secret: str) -> str:
    """How a secret is shown: ``[secret:`` and the first 8 hexadecimal digits of its SHA-256 ``]``."""
    return f"[secret:{hashlib.sha256(secret.encode()).hexdigest()[:8]}]"


@lru_cache(maxsize=1024)
def writings(text: str) -> tuple[bytes, ...]:
    """The byte forms in which ``text`` may cross a wire: raw, percent-encoded, form-encoded, HTML, JSON, base64."""
    raw = text.encode()
    percent = quote(text, safe="")
    every = "".join(f"%{byte:02X}" for byte in raw)
    forms = {
        text,
        percent,
        quote(text),
        quote_plus(text),
        quote(percent, safe=""),
        every,
        html.escape(text),
        html.escape(text, quote=False),
        html.escape(percent),
        json.dumps(text)[1:-1],
        json.dumps(text, ensure_ascii=False)[1:-1],
        json.dumps(text)[1:-1].replace("/", "\\/"),
        raw.hex(),
    }
    forms |= {re.sub(r"%[0-9A-F]{2}", lambda match: match[0].lower(), form) for form in forms}
    forms |= set(_base64_forms(raw))
    return tuple(sorted({form.encode() for form in forms if form}, key=len, reverse=True))


def _base64_forms(raw: bytes) -> list[str]:
    """Base64 of the text at each of the three alignments it can have inside a longer encoded whole.

    Characters that also depend on the neighbours are cut off, so that the rest is found whatever they are.
    """
    forms = []
    for lead in range(3):
        encoded = base64.b64encode(b"\0" * lead + raw).decode().rstrip("=")
        body = encoded[(0, 2, 3)[lead] :]
        if (lead + len(raw)) % 3:
            body = body[:-1]
        if len(body) >= SHORTEST_SECRET:
            forms += [body, body.replace("+", "-").replace("/", "_")]
    return forms


class Redactor:
    """Masks a fixed set of secrets. Stateless after construction; safe to share between threads.

    Raises ``ValueError`` for a secret under ``SHORTEST_SECRET`` characters.
    """

    def __init__(self, secrets: tuple[str, ...] = ()) -> None:
        for secret in secrets:
            if len(secret) < SHORTEST_SECRET:
                raise ValueError(
                    f"a secret must have at least {SHORTEST_SECRET} characters to be masked safely"
                )
        self._masks: dict[bytes, bytes] = {}
        for secret in secrets:
            shown = mask(secret).encode()
            for form in writings(secret):
                self._masks.setdefault(form, shown)
        forms = sorted(self._masks, key=len, reverse=True)
        self._any = re.compile(b"|".join(re.escape(form) for form in forms)) if forms else None
        self._forms = forms

    def __bool__(self) -> bool:
        return self._any is not None

    def in_text(self, text: str, click_id: str | None = None) -> str:
        """``in_bytes`` for text."""
        if self._any is None:
            return text
        return self.in_bytes(text.encode("utf-8", "surrogateescape"), click_id).decode(
            "utf-8", "surrogateescape"
        )

    def in_bytes(self, data: bytes, click_id: str | None = None, *, truncated: bool = False) -> bytes:
        """Mask every secret in ``data``; a secret's writing that lies wholly inside a click id is the click id.

        ``truncated``: ``data`` was cut at its end, which may have cut a secret.
        """
        if self._any is None:
            return data
        spans = _merge(self._overlapping(data))
        if truncated:
            spans = _with_cut_secret(data, spans, self._forms, self._masks)
        if not spans:
            return data
        protected = _occurrences(data, writings(click_id)) if click_id else []
        out, end = [], 0
        for start, stop, shown in spans:
            if any(low <= start and stop <= high for low, high in protected):
                continue
            out += [data[end:start], shown]
            end = stop
        return b"".join([*out, data[end:]])

    def _overlapping(self, data: bytes) -> list[tuple[int, int, bytes]]:
        """Every occurrence of every writing, overlaps included: the longest at each position."""
        assert self._any is not None
        found, position = [], 0
        while match := self._any.search(data, position):
            found.append((match.start(), match.end(), self._masks[match[0]]))
            position = match.start() + 1
        return found


def _merge(spans: list[tuple[int, int, bytes]]) -> list[tuple[int, int, bytes]]:
    """Overlapping occurrences become one span under the first one's mask."""
    merged: list[tuple[int, int, bytes]] = []
    for start, stop, shown in spans:
        if merged and start < merged[-1][1]:
            low, high, first = merged[-1]
            merged[-1] = (low, max(high, stop), first)
        else:
            merged.append((start, stop, shown))
    return merged


def _with_cut_secret(
    data: bytes, spans: list[tuple[int, int, bytes]], forms: list[bytes], masks: dict[bytes, bytes]
) -> list[tuple[int, int, bytes]]:
    free = spans[-1][1] if spans else 0
    best: tuple[int, int, bytes] | None = None
    for form in forms:
        for size in range(min(len(form) - 1, len(data) - free), _PARTIAL - 1, -1):
            if data.endswith(form[:size]):
                if best is None or len(data) - size < best[0]:
                    best = (len(data) - size, len(data), masks[form])
                break
    return [*spans, best] if best else spans


def _occurrences(data: bytes, forms: tuple[bytes, ...]) -> list[tuple[int, int]]:
    found = []
    for form in forms:
        position = data.find(form)
        while position >= 0:
            found.append((position, position + len(form)))
            position = data.find(form, position + 1)
    return found
