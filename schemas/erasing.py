"""What it takes to forget: what an event names, how that is known again without being kept, and how it is taken out.

An identifier is found in every writing that the wire gives it. One that is short would be found by chance as well, so
it must stand by itself: the shorter, the more alone.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any, Literal
from urllib.parse import quote

from schemas.problem import Problem
from schemas.redaction import base64_cores, writings_of

Kind = Literal["event", "event_id", "order", "click", "lead", "customer", "device"]
"""What an identifier names. ``event`` is a source and an event id together, ``event_id`` the id alone, as signals name
conversions by it."""

ERASED = "[erased]"
STUB = {"erased": True}
"""What stands where an event stood."""

BOUNDED = 16
"""Characters from which on an identifier is found wherever it stands."""
ALONE = 5
"""Below so many, it is found only as a whole value."""

_LEFT = r"(?:^|[^0-9A-Za-z]|%[0-9A-Fa-f]{2}|\\u[0-9A-Fa-f]{4}|\\x[0-9A-Fa-f]{2})"
_RIGHT = r"(?=[^0-9A-Za-z]|$)"
_LEFT_ALONE = r"(?:^|[\"'=/\[{(]\s?|\":\s?|%3[dDfF]|%2[fF]|%22|\\\")"
_RIGHT_ALONE = r"(?=[\"'&,;/?\]})\s]|%2[26]|\\|$)"

ERASED_EVENT = Problem(
    "erased",
    "event",
    "names what was erased at a person's request; nothing of it was kept",
    "Do not send it again: it will not be taken",
)


def digest(key: bytes, kind: Kind, value: str) -> bytes:
    """What a tombstone keeps of an identifier: without the key nothing can be told from it, not even by guessing."""
    return hmac.digest(key, f"tombstone\0{kind}\0{value}".encode(), hashlib.sha256)


def pseudonym(key: bytes, kind: Kind, value: str) -> str:
    """What stands for an identifier where rows must go on naming each other."""
    text = f"pseudonym\0{kind}\0{value}".encode()
    return f"erased:{hmac.digest(key, text, hashlib.sha256).hex()[:32]}"


def event_value(source: str, event_id: str) -> str:
    """The identifier of an event among all."""
    return f"{source}\0{event_id}"


def named_by(raw: object) -> Iterator[tuple[Kind, str]]:
    """What an event names, valid or not: itself, its order, click ids and the person's own keys."""
    if not isinstance(raw, Mapping):
        return
    event_id, source = raw.get("event_id"), raw.get("source")
    if isinstance(event_id, str):
        yield "event", event_value(source if isinstance(source, str) else "", event_id)
    fields: tuple[tuple[Kind, str], ...] = (
        ("order", "order_id"), ("event_id", "conversion_event_id"), ("lead", "lead_id"),
        ("customer", "customer_id"), ("device", "device_id"),
    )  # fmt: skip
    for kind, field in fields:
        value = raw.get(field)
        if isinstance(value, str | int) and not isinstance(value, bool):
            yield kind, str(value)
    click_ids = raw.get("click_ids")
    if isinstance(click_ids, Mapping):
        for token in click_ids.values():
            if isinstance(token, str):
                yield "click", token


class _Word:
    """One identifier: how it is found, and which pieces of it stand in any text that has it."""

    def __init__(self, identifier: str) -> None:
        self._identifier = identifier
        cores = (
            [*base64_cores(identifier.encode()), identifier.encode().hex()]
            if len(identifier) >= ALONE
            else []
        )
        self._cores = cores
        self.pieces = tuple(
            dict.fromkeys(piece.lower() for each in (identifier, *cores) for piece in _pieces(each))
        )

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        left, right = "()", ""
        if len(self._identifier) < ALONE:
            left, right = f"({_LEFT_ALONE})", _RIGHT_ALONE
        elif len(self._identifier) < BOUNDED:
            left, right = f"({_LEFT})", _RIGHT
        spelt = [f"{left}{_spelt(self._identifier)}{right}", *(_spelt(core) for core in self._cores)]
        return re.compile("|".join(spelt), re.IGNORECASE)

    def may_be_in(self, lowered: str) -> bool:
        return any(piece in lowered for piece in self.pieces)

    def is_in(self, text: str) -> bool:
        return self._pattern.search(text) is not None

    def out_of(self, text: str) -> str:
        return self._pattern.sub(lambda found: (found[1] or "") + ERASED, text)


class Traces:
    """Finds identifiers in any writing, and takes them out."""

    def __init__(self, identifiers: Iterable[str]) -> None:
        self.identifiers = tuple(sorted({each for each in identifiers if each}, key=len, reverse=True))
        self._words = [_Word(identifier) for identifier in self.identifiers]

    def sieves(self, most: int = 200) -> list[str]:
        """Regular expressions for PostgreSQL's ``~*``: whatever has an identifier matches one of them, and much else does.

        Literals alone, for that is what it is quick at; bytes are to be given in its escape format. ``most`` pieces each.
        """
        pieces = list(dict.fromkeys(piece for word in self._words for piece in word.pieces))
        return [
            "|".join(map(re.escape, pieces[start : start + most])) for start in range(0, len(pieces), most)
        ]

    def in_text(self, text: str) -> bool:
        lowered = text.lower()
        return any(word.may_be_in(lowered) and word.is_in(text) for word in self._words)

    def in_bytes(self, data: bytes) -> bool:
        return self.in_text(data.decode("utf-8", "replace"))

    def without(self, text: str) -> str:
        """The text with every identifier replaced; what stood left of a short one stays."""
        for word in self._words:
            if word.may_be_in(text.lower()):
                text = word.out_of(text)
        return text

    def without_in(self, value: Any) -> Any:
        """A JSON value without them, in keys too."""
        match value:
            case str():
                return ERASED if self.in_text(json.dumps(value)) or self.in_text(value) else value
            case dict():
                return {self.without_in(key): self.without_in(each) for key, each in value.items()}
            case list():
                return [self.without_in(each) for each in value]
            case int() | float() if not isinstance(value, bool) and str(value) in self.identifiers:
                return ERASED
        return value


def _pieces(text: str) -> list[str]:
    """What stands in any writing of a text: its longest run of letters and digits, which no encoder touches; or, where
    it has none, the usual writings of all of it."""
    runs = re.findall(r"[0-9A-Za-z]+", text)
    if runs:
        return [max(runs, key=len)]
    raw = text.encode()
    escaped = "".join(f"\\{byte:03o}" if byte >= 0x80 else chr(byte) for byte in raw)
    return [text, escaped, quote(text, safe=""), json.dumps(text)[1:-1]]


def _spelt(text: str) -> str:
    return "".join(
        f"(?:{'|'.join(dict.fromkeys(re.escape(form.decode()) for form in writings_of(char)))})"
        for char in text
    )


def without_events(body: bytes, content_type: str, is_erased: Callable[[bytes], bool]) -> bytes | None:
    """A request's body without those of its events that are erased, each replaced; None where nothing is to keep.

    The others stay to the byte. ``is_erased`` is asked about the JSON of each event as it came.
    """
    if content_type.split(";", 1)[0].strip().lower().endswith(("ndjson", "jsonl", "jsonlines")):
        lines = body.splitlines(keepends=True)
        spans = []
        start = 0
        for line in lines:
            spans.append((start, start + len(line.rstrip(b"\r\n"))))
            start += len(line)
    else:
        spans = list(_elements(body))
    if not spans:
        return None
    out, end, kept = [], 0, False
    for start, stop in spans:
        if not body[start:stop].strip():
            continue
        if is_erased(body[start:stop]):
            out += [body[end:start], json.dumps(STUB).encode()]
            end = stop
        else:
            kept = True
    return b"".join([*out, body[end:]]) if kept else None


def _elements(body: bytes) -> Iterator[tuple[int, int]]:
    """Where the elements of a JSON array stand; nothing for what is no array."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return
    decoder, place = json.JSONDecoder(), _skip(text, 0)
    if text[place : place + 1] != "[":
        return
    spans = []
    place = _skip(text, place + 1)
    while text[place : place + 1] not in {"]", ""}:
        try:
            _, stop = decoder.raw_decode(text, place)
        except ValueError:
            return
        spans.append((place, stop))
        place = _skip(text, stop)
        if text[place : place + 1] == ",":
            place = _skip(text, place + 1)
    for start, stop in spans:
        yield len(text[:start].encode()), len(text[:stop].encode())


def _skip(text: str, place: int) -> int:
    while place < len(text) and text[place] in " \t\r\n":
        place += 1
    return place


def unpacked(body: bytes, encoding: str) -> bytes:
    """A body without its content coding; as it is where it cannot be unpacked."""
    form = {"gzip": 31, "x-gzip": 31, "deflate": 15}.get(encoding.strip().lower())
    if form is None:
        return body
    try:
        return zlib.decompress(body, form)
    except zlib.error:
        return body


def bare_event(event: Mapping[str, Any], names: Mapping[str, str | None]) -> dict[str, Any]:
    """What stays of a stored event: what it was worth, when, and under which names it is known now."""
    kept = {name: event[name] for name in _KEPT if event.get(name) is not None}
    return kept | {name: value for name, value in names.items() if value is not None}


_KEPT = (
    "version", "type", "source", "name", "occurred_at", "value", "currency", "sequence", "amount", "amount_is", "outcome",
)  # fmt: skip

_HOST = re.compile(r"^([a-z][a-z0-9+.-]*://[^/?#]*)", re.IGNORECASE)


def bare_row(table: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of a row of evidence that change when it is erased, with what stands there then.

    When, to whom, how long and with which outcome stays; what was said does not.
    """
    match table:
        case "intents":
            return {"url": _bare_url(row["url"])}
        case "attempts":
            return {
                "click_id": None, "notes": None, "rule": _bare_rule(row["rule"]),
                "error_message": ERASED if row["error_message"] is not None else None,
            }  # fmt: skip
        case "checks":
            return {
                "rule": _bare_rule(row["rule"]),
                "error_message": ERASED if row["error_message"] is not None else None,
            }
    marker = ERASED.encode()
    request = f"{row['method']} /erased HTTP/1.1\r\n".encode() if row["request_head"] else b""
    response = f"HTTP/1.1 {row['status_code'] or 0}\r\n".encode() if row["response_head"] else b""
    failure = row["failure"]
    return {
        "url": _bare_url(row["url"]), "request_head": request, "response_head": response,
        "request_body": marker if row["request_body"] else b"", "body": marker if row["body"] else b"",
        "body_sha256": None, "body_error": ERASED if row["body_error"] is not None else None,
        "failure": None if failure is None else f"{failure.partition(': ')[0]}: {ERASED}",
    }  # fmt: skip


def _bare_url(url: str) -> str:
    host = _HOST.match(url)
    return f"{host[1]}/erased" if host else ERASED


def _bare_rule(rule: str) -> str:
    """A rule's first words say which it was; what it quotes of an answer comes after."""
    return rule if re.fullmatch(r"status [0-9x]{3}|the worker fell silent", rule) else ERASED
