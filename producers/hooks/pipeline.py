"""What becomes of a delivery: it is verified, read and mapped, and its events are validated. Pure but for the log."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256

import structlog

from producers.door.problems import RefusedError
from producers.door.reading import decompress
from producers.hooks.hook import Delivery, Mapped, MappingError
from producers.hooks.payload import read_payload
from producers.hooks.sources import Opened
from schemas.arrival import Candidate, Refused
from schemas.event import ENVELOPE_VERSION, read_event
from schemas.problem import InvalidInputError, Problem

log = structlog.get_logger()

MAX_DEDUPE_ID = 200


@dataclass(frozen=True, slots=True)
class Understood:
    """What a delivery means: events that may be taken, what cannot be and why, or why it means none."""

    candidates: list[Candidate] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    ignored: str | None = None
    dedupe_id: str | None = None


def verify(source: Opened, delivery: Delivery) -> str | None:
    """None if the delivery is its sender's own, else why it is refused."""
    return source.hook.verifier_of(source.options).verify(delivery, source.secrets)


def understand(source: Opened, delivery: Delivery, now: datetime) -> Understood:
    """Map a delivery that was verified. Whatever is wrong with it is told in the result, never raised."""
    dedupe_id = None
    try:
        body = decompress(delivery.body, (delivery.header("content-encoding") or "").encode())
        payload = read_payload(source.hook, delivery, body)
        dedupe_id = _storable(source.hook.dedupe_id(payload, delivery, source.options))
        mapped = source.hook.map(payload, delivery, source.options)
    except RefusedError as error:
        unread = MappingError("body", error.detail, "Nothing can be made of it")
        return Understood(refused=[Refused(0, [_shown(unread.problem())])])
    except MappingError as error:
        return Understood(refused=[Refused(0, [_shown(error.problem())])], dedupe_id=dedupe_id)
    except Exception:
        # A mistake of ours in one mapper must not lose what was sent: it is kept, and mapped again once mended.
        log.exception("hook.failed", source=source.name, hook=source.hook.slug)
        problem = Problem("internal", "delivery", "the mapping failed", "Report it, then run it again")
        return Understood(refused=[Refused(0, [problem])], dedupe_id=dedupe_id)
    candidates, refused = _sift(source, mapped, now)
    ignored = mapped.ignored
    if ignored is None and not candidates and not refused:
        ignored = "it means no event"
    return Understood(candidates, refused, ignored and _plain(ignored), dedupe_id)


def _sift(source: Opened, mapped: Mapped, now: datetime) -> tuple[list[Candidate], list[Refused]]:
    """Validate what was mapped. A delivery speaks for its own source, whatever it says."""
    candidates: list[Candidate] = []
    refused: list[Refused] = []
    for index, envelope in enumerate(mapped.events):
        raw = {**envelope, "version": ENVELOPE_VERSION, "source": source.name}
        try:
            event = read_event(raw, now)
        except InvalidInputError as error:
            refused.append(Refused(index, [_shown(problem) for problem in error.problems]))
            continue
        body = event.model_dump_json(exclude_none=True).encode()
        candidates.append(Candidate(index, (event.source, event.event_id), body))
    for index, part in enumerate(mapped.unmapped, len(mapped.events)):
        refused.append(Refused(index, [_shown(part.problem())]))
    return candidates, refused


def _storable(dedupe_id: str | None) -> str | None:
    """The id itself, or its hash where it is too long or has characters that a table refuses."""
    if dedupe_id is None or (dedupe_id.isprintable() and len(dedupe_id) <= MAX_DEDUPE_ID):
        return dedupe_id or None
    return f"sha256:{sha256(dedupe_id.encode('utf-8', 'replace')).hexdigest()}"


def _shown(problem: Problem) -> Problem:
    return Problem(problem.code, _plain(problem.field), _plain(problem.reason), _plain(problem.remedy))


def _plain(words: str) -> str:
    """Words that quote a payload, as a table can hold them."""
    shown = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in words)
    return shown[:500]
