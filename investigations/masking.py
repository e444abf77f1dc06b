"""A conversion's life with its click ids masked, in whatever it says them: for those who may not see them. Pure.

Everything that is shown is made from the life, so a life in which no click id is left can show none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from enum import Enum
from typing import Any, TypeVar, cast

import orjson
from pydantic import BaseModel

from infra.store.records import Life
from investigations.bodies import field, unpacked
from schemas.click_mask import ClickMask
from schemas.destination import DestinationVersion
from schemas.exchange import Hop

T = TypeVar("T")

_UNREADABLE = b"[masked: a body coded as %b cannot be searched for click ids]"


def mask_life(life: Life) -> Life:
    """The life with every click id of it shown as ``[click:…]``; see ``schemas.click_mask``."""
    return masked(life, ClickMask(click_ids_of(life)))


def click_ids_of(life: Life) -> Iterator[str]:
    """Every click id that the life knows: sent in, found, reported, and in what was refused as a repeat."""
    yield from life.conversion.event.click_ids.values()
    for match in life.conversion.matches:
        yield match.click_id
    for postback in life.postbacks:
        for attempt in postback.attempts:
            if attempt.outcome is not None and attempt.outcome.click_id is not None:
                yield attempt.outcome.click_id
    for reject in life.repeats:
        yield from _sent_in(reject.raw)


def _sent_in(raw: str) -> Iterator[str]:
    try:
        read = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return
    given = read.get("click_ids") if isinstance(read, dict) else None
    yield from (each for each in given.values() if isinstance(each, str)) if isinstance(given, dict) else ()


def masked(value: T, mask: ClickMask) -> T:
    """A record, or a part of one, with every text in it masked; what has nothing to mask is the same object."""
    return cast("T", _masked(value, mask)) if mask else value


def _masked(value: Any, mask: ClickMask) -> Any:  # noqa: PLR0911 — one kind of value a line
    match value:
        case Enum() | DestinationVersion():  # a contract is configuration, and says no click id
            return value
        case str():
            return mask.in_text(value)
        case bytes():
            return mask.in_bytes(value)
        case Hop():
            return _masked_hop(value, mask)
        case BaseModel():
            return value.model_copy(update={name: _masked(each, mask) for name, each in value})
        case Mapping():
            return {_masked(key, mask): _masked(each, mask) for key, each in value.items()}
        case tuple() | list():
            return type(value)(_masked(each, mask) for each in value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(
            value, **{each.name: _masked(getattr(value, each.name), mask) for each in fields(value)}
        )
    return value


def _masked_hop(hop: Hop, mask: ClickMask) -> Hop:
    """As secrets are masked: a body that has to be altered is kept unpacked; length and digest are what was received."""
    body, what = unpacked(hop.response_head, hop.body)
    if body is hop.body and what:
        body = _UNREADABLE % field(hop.response_head, b"content-encoding").encode("ascii", "replace")[:20]
    hidden = mask.in_bytes(body)
    whole = {each.name: _masked(getattr(hop, each.name), mask) for each in fields(hop) if each.name != "body"}
    return replace(
        hop, **whole, body=hop.body if hidden == unpacked(hop.response_head, hop.body)[0] else hidden
    )
