"""Tombstones: what was erased is known again when it comes back, by a keyed hash and nothing else, and is not taken.

Intake, the door and whoever else lets events in ask here, under the lock that an erasure holds alone: of an erasure and
an event that come at the same time, one sees the other.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from hashlib import sha256

import orjson
from sqlalchemy import Connection, Engine, text

from infra.erasure_key import FILE_VARIABLE, VARIABLE, ErasureKeyError, given_key
from schemas.arrival import Arrival, Refused
from schemas.click import Click
from schemas.erasing import (
    ERASED,
    ERASED_EVENT,
    STUB,
    Kind,
    digest,
    event_value,
    named_by,
    pseudonym,
    unpacked,
    without_events,
)
from schemas.reconciling.rows import ReadRow

ERASURE_LOCK = 0x45726173  # "Eras": letting in shares it, an erasure holds it alone

ANY = "EXISTS (SELECT FROM tombstones)"
"""What letting in asks each time, in a query that it makes anyway. Where nothing was ever erased, that is all it costs."""

Names = frozenset[tuple[Kind, str]]


@dataclass(frozen=True, slots=True)
class Erasure:
    """That something was erased: when, and by whom."""

    id: int
    at: datetime
    who: str


def share_lock(connection: Connection) -> bool:
    """Take the lock of letting in until the commit; whether there is any tombstone."""
    connection.execute(text("SELECT pg_advisory_xact_lock_shared(:key)"), {"key": ERASURE_LOCK})
    return any_stand(connection)


def any_stand(connection: Connection) -> bool:
    return connection.execute(text(f"SELECT {ANY}")).scalar_one() is True


def names_of(raw: object) -> Names:
    """What an event names, as tombstones know it."""
    return frozenset(named_by(raw))


def names_of_click(click: Click) -> Names:
    kinds: dict[str, Kind] = {
        "order_id": "order", "lead_id": "lead", "customer_id": "customer", "device_id": "device",
    }  # fmt: skip
    keys = {(kinds[name], value) for name, value in click.keys.items()}
    return frozenset({*keys, *(("click", token) for token in click.click_ids.values())})


def buried(connection: Connection, named: Sequence[Names]) -> list[bool]:
    """For each event by what it names: whether any of that was erased. One query. Raises ErasureKeyError."""
    key = key_in_use(connection)
    if key is None:
        return [False] * len(named)
    digests = [frozenset(digest(key, kind, value) for kind, value in names) for names in named]
    every = list(frozenset().union(*digests))
    query = text("SELECT digest FROM tombstones WHERE digest = ANY(:digests)")
    found = {bytes(each) for each in connection.execute(query, {"digests": every}).scalars()}
    return [bool(each & found) for each in digests]


def stub_of(connection: Connection, raw: object) -> dict[str, object]:
    """What is kept of an event that was not taken: its source, and the name that it is known by now."""
    key = key_in_use(connection)
    source, event_id = (raw.get("source"), raw.get("event_id")) if isinstance(raw, dict) else (None, None)
    if key is None or not isinstance(source, str) or not isinstance(event_id, str):
        return dict(STUB)
    return {**STUB, "source": source, "event_id": pseudonym(key, "event", event_value(source, event_id))}


def pseudonyms(connection: Connection, keys: Iterable[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """By ``(source, event id)``: the name that the event is known by, if it was erased. Nothing where none was."""
    if not any_stand(connection):
        return {}
    key = key_in_use(connection)
    assert key is not None
    return {each: pseudonym(key, "event", event_value(*each)) for each in keys}


def cleared(connection: Connection, arrivals: Sequence[Arrival]) -> list[Arrival]:
    """Requests without what was erased: it is refused in them, and is not in their bodies any more."""
    places = [(arrival, each) for arrival in arrivals for each in arrival.candidates]
    raws = [orjson.loads(candidate.body) for _, candidate in places]
    clicks = [arrival.click for arrival in arrivals if arrival.click is not None]
    named = [names_of(raw) for raw in raws] + [names_of_click(click) for click in clicks]
    entries = [_entries(arrival) for arrival in arrivals]
    named += [names_of(raw) for found in entries for raw in found]
    answers = iter(buried(connection, named))
    gone = {(id(arrival), each.index) for arrival, each in places if next(answers)}
    gone_clicks = {id(click) for click in clicks if next(answers)}
    touched = {
        id(arrival) for arrival, found in zip(arrivals, entries, strict=True) for _ in found if next(answers)
    }
    return [
        _without(connection, arrival, {index for key, index in gone if key == id(arrival)})
        if id(arrival) in touched
        or any(key == id(arrival) for key, _ in gone)
        or (arrival.click is not None and id(arrival.click) in gone_clicks)
        else arrival
        for arrival in arrivals
    ]


def _entries(arrival: Arrival) -> list[object]:
    """Events in a body that were refused for other reasons: kept verbatim, they would bring it back all the same."""
    if arrival.kind != "events" or not arrival.refused:
        return []
    plain = unpacked(arrival.body, _header(arrival, "content-encoding"))
    found: list[object] = []
    for piece in [plain, *plain.splitlines()] if len(plain.splitlines()) > 1 else [plain]:
        try:
            value = orjson.loads(piece)
        except orjson.JSONDecodeError:
            continue
        found += value if isinstance(value, list) else [value]
    return found


def _without(connection: Connection, arrival: Arrival, gone: set[int]) -> Arrival:
    candidates = [each for each in arrival.candidates if each.index not in gone]
    refused = sorted(
        [*arrival.refused, *(Refused(index, [ERASED_EVENT]) for index in gone)], key=lambda each: each.index
    )
    plain = unpacked(arrival.body, _header(arrival, "content-encoding"))
    kept = None
    if arrival.kind == "events":

        def is_buried(piece: bytes) -> bool:
            try:
                return buried(connection, [names_of(orjson.loads(piece))])[0]
            except orjson.JSONDecodeError:
                return False

        kept = without_events(plain, _header(arrival, "content-type"), is_buried)
    if arrival.click is not None:
        refused = [Refused(0, [ERASED_EVENT])]
    nothing_else = not candidates and {each.problems[0].code for each in refused} <= {"erased"}
    return replace(
        arrival,
        candidates=candidates,
        refused=refused,
        click=None,
        body=ERASED.encode() if kept is None else kept,
        target=arrival.target if arrival.kind == "events" else arrival.target.partition("?")[0],
        headers=[each for each in arrival.headers if each[0].lower() in _PLAIN],
        idempotency_key=None,
        dedupe_id=None,
        # Its sender has done all it can, and is not to send it again.
        status_code=arrival.status_code or (202 if nothing_else else None),
        erased=True,
    )


_PLAIN = frozenset({"host", "content-type", "user-agent", "accept"})
"""Headers that stay with a request that was cleared: a signature or a referrer may name what was erased."""


def _header(arrival: Arrival, name: str) -> str:
    return next((value for key, value in arrival.headers if key.lower() == name), "")


def of_report(connection: Connection, rows: Sequence[ReadRow]) -> Sequence[ReadRow]:
    """Rows of a network's report without what was erased here: by its order id's new name it still finds ours."""
    if not share_lock(connection):
        return rows
    key, gone = key_in_use(connection), buried(connection, [_names_of_row(row) for row in rows])
    assert key is not None
    return [
        replace(
            row,
            order_id=None if row.order_id is None else pseudonym(key, "order", row.order_id),
            # Ours has no click id any more: the order alone is what pairs them.
            click_id=None
            if row.click_id is None or row.order_id is not None
            else pseudonym(key, "click", row.click_id),
            raw=ERASED,
            problem=None if row.problem is None else ERASED,
        )
        if is_gone
        else row
        for row, is_gone in zip(rows, gone, strict=True)
    ]


def _names_of_row(row: ReadRow) -> Names:
    fields: tuple[tuple[Kind, str | None], ...] = (("order", row.order_id), ("click", row.click_id))
    return frozenset((kind, value) for kind, value in fields if value is not None)


def told(engine: Engine, kind: Kind, value: str) -> Erasure | None:
    """The erasure of an identifier that somebody asks about, if it was erased and the key is at hand."""
    with engine.connect() as connection:
        if not any_stand(connection):
            return None
        try:
            key = key_in_use(connection)
        except ErasureKeyError:
            return None
        query = text("""
            SELECT e.id, e.begun_at AS at, e.who FROM tombstones t JOIN erasures e ON e.id = t.erasure_id
            WHERE t.digest = :digest""")
        found = connection.execute(query, {"digest": digest(key or b"", kind, value)}).one_or_none()
        return None if found is None else Erasure(found.id, found.at, found.who)


def key_in_use(connection: Connection) -> bytes | None:
    """The key that tombstones are made with, or None before the first. Raises ErasureKeyError when it is not here."""
    row = connection.execute(text("SELECT key, fingerprint FROM erasure_keys")).one_or_none()
    if row is None:
        return None
    if row.key is not None:
        return bytes(row.key)
    key = given_key()
    if key is None or _fingerprint(key) != bytes(row.fingerprint):
        state = "is not set" if key is None else "is not the key that erasures were made with"
        raise ErasureKeyError(
            f"{VARIABLE} {state}; give every process that lets events in the same key, by it or by {FILE_VARIABLE}"
        )
    return key


def key_is_stored(connection: Connection) -> bool:
    """Whether the key stands in the database, for want of one in the environment."""
    return (
        connection.execute(
            text("SELECT EXISTS (SELECT FROM erasure_keys WHERE key IS NOT NULL)")
        ).scalar_one()
        is True
    )


def make_key(connection: Connection) -> bytes:
    """The key, made or taken from the environment if there is none yet."""
    key = given_key()
    stored = None if key is not None else secrets.token_bytes(32)
    connection.execute(
        text(
            "INSERT INTO erasure_keys (id, fingerprint, key) VALUES (1, :print, :key) ON CONFLICT DO NOTHING"
        ),
        {"print": _fingerprint(key or stored or b""), "key": stored},
    )
    found = key_in_use(connection)
    assert found is not None
    return found


def _fingerprint(key: bytes) -> bytes:
    return sha256(b"fingerprint\0" + key).digest()
