"""The texts that stand in what came in: any of them may be a click id, so a page for who must not see those shows none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import orjson

SHORTEST = 6
"""Characters; what is shorter is a word, not a token."""
MOST = 5_000


def leaves_of_json(raw: str | bytes) -> frozenset[str]:
    """Every text in a JSON document, keys too; of what is no JSON, every word."""
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError:
        text = raw if isinstance(raw, str) else raw.decode("utf-8", "replace")
        return _long(text.replace('"', " ").replace(",", " ").split())
    return _long(_texts(value))


def leaves_of_request(target: str, body: bytes) -> frozenset[str]:
    """Every text in a request's target and body."""
    parts = urlsplit(target) if target.startswith("/") else urlsplit(f"/{target}")
    found = [value for pair in parse_qsl(parts.query, keep_blank_values=True) for value in pair]
    found += [unquote(each) for each in parts.path.split("/")]
    found += [value for pair in parse_qsl(body.decode("utf-8", "replace")[:100_000]) for value in pair]
    return _long(found) | leaves_of_json(body)


def without(text: str, leaves: frozenset[str]) -> str:
    """``text`` with every one of these texts left out of it."""
    for leaf in sorted((leaf for leaf in leaves if leaf in text), key=len, reverse=True):
        text = text.replace(leaf, "[held back]")
    return text


def _texts(value: Any) -> Iterator[str]:
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, str):
            yield each
        elif isinstance(each, dict):
            waiting += [*each, *each.values()]
        elif isinstance(each, list):
            waiting += each


def _long(texts: Any) -> frozenset[str]:
    return frozenset(
        text for text, _ in zip((one for one in texts if len(one) >= SHORTEST), range(MOST), strict=False)
    )
