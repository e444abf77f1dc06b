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
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

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


@dataclass(frozen=True, slots=True)
class Writing:
    """An identifier's pattern, for texts and for bytes that PostgreSQL shows in its escape format."""

    text: str
    escaped: str


class Traces:
    """Finds identifiers in any writing, and takes them out."""

    def __init__(self, identifiers: Iterable[str]) -> None:
        self.identifiers = tuple(sorted({each for each in identifiers if each}, key=len, reverse=True))

    @cached_property
    def _writings(self) -> list[Writing]:
        return [_writing(identifier) for identifier in self.identifiers]

    @cached_property
    def text_pattern(self) -> str:
        """For PostgreSQL's ``~*`` on text."""
        return "|".join(writing.text for writing in self._writings)

    @cached_property
    def bytes_pattern(self) -> str:
        """For PostgreSQL's ``~*`` on ``encode(…, 'escape')``."""
        return "|".join(writing.escaped for writing in self._writings)

    @cached_property
    def _found(self) -> re.Pattern[str]:
        return re.compile(self.text_pattern, re.IGNORECASE)

    def in_text(self, text: str) -> bool:
        return bool(self.identifiers) and self._found.search(text) is not None

    def in_bytes(self, data: bytes) -> bool:
        return self.in_text(data.decode("utf-8", "replace"))

    def without(self, text: str) -> str:
        """The text with every identifier replaced; what stood left of a short one stays."""
        return self._found.sub(_keep_left, text) if self.identifiers else text

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


def _keep_left(found: re.Match[str]) -> str:
    left = next((each for each in found.groups() if each), "")
    return left + ERASED


def _writing(identifier: str) -> Writing:
    texts = [_spelt(identifier, _as_text)]
    escaped = [_spelt(identifier, _as_escaped)]
    if len(identifier) >= ALONE:
        cores = [*base64_cores(identifier.encode()), identifier.encode().hex()]
        texts += [_spelt(core, _as_text) for core in cores]
        escaped += [_spelt(core, _as_escaped) for core in cores]
    if len(identifier) >= BOUNDED:
        left, right = "()", ""
    elif len(identifier) >= ALONE:
        left, right = f"({_LEFT})", _RIGHT
    else:
        left, right = f"({_LEFT_ALONE})", _RIGHT_ALONE
    first = f"{left}{texts[0]}{right}", f"{left}{escaped[0]}{right}"
    return Writing("|".join([first[0], *texts[1:]]), "|".join([first[1], *escaped[1:]]))


def _spelt(text: str, show: Callable[[bytes], str]) -> str:
    return "".join(
        f"(?:{'|'.join(dict.fromkeys(re.escape(show(form)) for form in writings_of(char)))})" for char in text
    )


def _as_text(form: bytes) -> str:
    return form.decode()


def _as_escaped(form: bytes) -> str:
    return "".join(
        "\\\\" if byte == 0x5C else chr(byte) if 0 < byte < 0x80 else f"\\{byte:03o}" for byte in form
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
