"""The inbox: requests kept verbatim and their events handed to the outbox, many requests in one transaction."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256

import orjson
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import IntegrityError

from infra.db.engine import as_json, copy_bytes, copy_rows, copy_text, copy_value
from infra.store import matching
from infra.store.keeping import tombstones
from infra.store.outbox import Message, write
from infra.store.transactions import retried
from schemas.arrival import Arrival, Candidate, Key, Receipt, answer_to, answer_to_click, answer_to_delivery
from schemas.click import Click
from schemas.event import MAX_EVENTS_PER_MESSAGE
from schemas.ids import show

MAX_MESSAGE_BYTES = 1_000_000
TRIES = 3

_COLUMNS = (
    "id", "received_at", "kind", "source", "method", "target", "headers", "body", "peer", "key_id",
    "idempotency_key", "dedupe_id", "status_code", "accepted", "duplicates", "rejected", "answer", "erased_at",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Committed:
    """What a group of requests came to: a receipt each, in order, and the messages that the queue is owed."""

    receipts: list[Receipt]
    messages: list[Message]


def commit(engine: Engine, arrivals: Sequence[Arrival]) -> Committed:
    """Commit requests, verbatim, with their events in the outbox and their clicks in the register: all of them in one
    transaction, or none.

    Events that are known (taken in, or earlier in the group) are answered as duplicates and go nowhere. A request
    whose idempotency key was used before by the same API key is not committed again: it gets the first one's answer.
    A hook's delivery whose events were taken before under its dedupe id is kept, and nothing in it is taken again.
    """
    for _ in range(TRIES):
        try:
            return retried(engine, lambda connection: _commit(connection, arrivals))
        except IntegrityError:
            # Another process has just answered under one of these idempotency keys: now it is found.
            continue
    return retried(engine, lambda connection: _commit(connection, arrivals))


def _commit(connection: Connection, arrivals: Sequence[Arrival]) -> Committed:
    if tombstones.share_lock(connection):
        arrivals = tombstones.cleared(connection, arrivals)
    answered = _answered(connection, [arrival for arrival in arrivals if arrival.idempotency_key is not None])
    delivered = _delivered(connection, arrivals)
    known = known_events(connection, {each.key for arrival in arrivals for each in arrival.candidates})
    receipts, rows = [], []
    accepted: list[Candidate] = []
    clicks: list[tuple[int, Click]] = []
    for number, arrival in zip(_next_ids(connection, len(arrivals)), arrivals, strict=True):
        slot = _slot(arrival)
        if slot in answered:
            receipts.append(answered[slot].again(arrival))
            continue
        if arrival.kind == "hook" and (arrival.source, arrival.dedupe_id) in delivered:
            receipt, row = _repeated(arrival, number, delivered[arrival.source, arrival.dedupe_id])
            receipts.append(receipt)
            rows.append(row)
            continue
        taken, duplicates = sift(arrival.candidates, known)
        receipt = _receipt(arrival, number, duplicates)
        accepted += taken
        if arrival.click is not None:
            clicks.append((number, arrival.click))
        receipts.append(receipt)
        rows.append(_row(arrival, receipt, len(taken) + (arrival.click is not None), len(duplicates)))
        if arrival.dedupe_id is not None and arrival.candidates and not arrival.refused:
            delivered[arrival.source, arrival.dedupe_id] = number
        if arrival.idempotency_key is not None:
            answered[slot] = _Answered(sha256(arrival.body).digest(), receipt)
    copy_rows(connection, "inbox", _COLUMNS, rows)
    matching.register(connection, clicks)
    messages = list(messages_of(accepted))
    write(connection, messages)
    return Committed(receipts, messages)


@dataclass(frozen=True, slots=True)
class _Answered:
    """What was answered before under an idempotency key, and to which body."""

    body_sha256: bytes | None
    """None where it was erased since: whatever comes under the key again then is what it answered."""
    receipt: Receipt

    def again(self, arrival: Arrival) -> Receipt:
        same = self.body_sha256 is None or sha256(arrival.body).digest() == self.body_sha256
        return replace(self.receipt, replayed=same, conflict=not same)


_Slot = tuple[int, str | None]


def _slot(arrival: Arrival) -> _Slot:
    return arrival.key_id or 0, arrival.idempotency_key


def _answered(connection: Connection, arrivals: list[Arrival]) -> dict[_Slot, _Answered]:
    if not arrivals:
        return {}
    rows = connection.execute(
        text("""
        SELECT coalesce(i.key_id, 0) AS key_id, i.idempotency_key, i.id, i.status_code, i.answer,
            CASE WHEN i.erased_at IS NULL THEN sha256(i.body) END AS body
        FROM json_to_recordset(:rows) AS r(key_id integer, idempotency_key text)
            JOIN inbox i ON coalesce(i.key_id, 0) = r.key_id AND i.idempotency_key = r.idempotency_key"""),
        {
            "rows": as_json(
                [{"key_id": a.key_id or 0, "idempotency_key": a.idempotency_key} for a in arrivals]
            )
        },
    )
    return {
        (row.key_id, row.idempotency_key): _Answered(
            None if row.body is None else bytes(row.body), Receipt(row.id, row.status_code, row.answer)
        )
        for row in rows
    }


def _delivered(
    connection: Connection, arrivals: Sequence[Arrival]
) -> dict[tuple[str | None, str | None], int]:
    """Deliveries whose events were taken, all of them, by source and dedupe id.

    One that could not be mapped, or meant nothing, is looked at again when it is repeated: its mapping may be mended.
    """
    asked = [each for each in arrivals if each.kind == "hook" and each.dedupe_id is not None]
    if not asked:
        return {}
    query = text("""
        SELECT i.source, i.dedupe_id, min(i.id) AS id
        FROM json_to_recordset(:rows) AS r(source text, dedupe_id text)
            JOIN inbox i ON i.source = r.source AND i.dedupe_id = r.dedupe_id
        WHERE i.kind = 'hook' AND i.rejected = 0 AND i.accepted + i.duplicates > 0
        GROUP BY i.source, i.dedupe_id""")
    rows = as_json([{"source": each.source, "dedupe_id": each.dedupe_id} for each in asked])
    return {(row.source, row.dedupe_id): row.id for row in connection.execute(query, {"rows": rows})}


def _receipt(arrival: Arrival, number: int, duplicates: list[Candidate]) -> Receipt:
    request_id = show("in", number)
    match arrival.kind:
        case "hook":
            answer = answer_to_delivery(arrival, request_id, duplicates)
        case "click":
            answer = answer_to_click(arrival, request_id)
        case "events":
            answer = answer_to(arrival, request_id, duplicates)
    taken = arrival.candidates or arrival.click is not None
    return Receipt(number, arrival.status_code or (202 if taken else 422), answer)


def _repeated(arrival: Arrival, number: int, first: int) -> tuple[Receipt, tuple[str, ...]]:
    """A delivery that came before: kept as evidence, with what it repeats."""
    bare = replace(arrival, candidates=[], refused=[], ignored=None)
    receipt = _receipt(bare, number, [])
    receipt = replace(receipt, answer=receipt.answer | {"repeats": show("in", first)})
    return receipt, _row(bare, receipt, 0, 0)


def known_events(connection: Connection, keys: set[Key]) -> set[Key]:
    """Those of the events that were taken in before."""
    if not keys:
        return set()
    query = text("""
        SELECT k.source, k.event_id FROM json_to_recordset(:keys) AS k(source text, event_id text)
        WHERE EXISTS (SELECT FROM conversions c WHERE c.event_id = k.event_id AND c.source = k.source)
           OR EXISTS (SELECT FROM signals s WHERE s.event_id = k.event_id AND s.source = k.source)""")
    rows = as_json([{"source": source, "event_id": event_id} for source, event_id in keys])
    return {(row.source, row.event_id) for row in connection.execute(query, {"keys": rows})}


def sift(candidates: Iterable[Candidate], known: set[Key]) -> tuple[list[Candidate], list[Candidate]]:
    """Those that are new, and those that are not. What is taken is known from then on."""
    taken: list[Candidate] = []
    duplicates: list[Candidate] = []
    for each in candidates:
        (duplicates if each.key in known else taken).append(each)
        known.add(each.key)
    return taken, duplicates


def _next_ids(connection: Connection, count: int) -> list[int]:
    query = text("SELECT nextval('inbox_ids') FROM generate_series(1, :n)")
    return list(connection.execute(query, {"n": count}).scalars())


def messages_of(candidates: Sequence[Candidate]) -> Iterator[Message]:
    """Group events into messages of at most 500 events and about 1 MB."""
    bodies: list[bytes] = []
    size = 0
    for each in candidates:
        if bodies and (len(bodies) == MAX_EVENTS_PER_MESSAGE or size + len(each.body) > MAX_MESSAGE_BYTES):
            yield Message.of(bodies)
            bodies, size = [], 0
        bodies.append(each.body)
        size += len(each.body)
    if bodies:
        yield Message.of(bodies)


def _row(arrival: Arrival, receipt: Receipt, accepted: int, duplicates: int) -> tuple[str, ...]:
    text_, value = copy_text, copy_value
    return (
        str(receipt.request_id), "now()", arrival.kind, text_(arrival.source), arrival.method, text_(arrival.target),
        text_(orjson.dumps(arrival.headers).decode()), copy_bytes(arrival.body), text_(arrival.peer),
        value(arrival.key_id), text_(arrival.idempotency_key), text_(arrival.dedupe_id), str(receipt.status_code),
        str(accepted), str(duplicates), str(len(arrival.refused)), text_(orjson.dumps(receipt.answer).decode()),
        "now()" if arrival.erased else "\\N",
    )  # fmt: skip
