"""What arrives over HTTP: the request as it came, and what was made of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from schemas.click import Click
from schemas.problem import Problem

Key = tuple[str, str]
"""``(source, event_id)``."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """An event that passed validation: its place in the request from 0, its key, and the JSON that leaves."""

    index: int
    key: Key
    body: bytes


@dataclass(frozen=True, slots=True)
class Refused:
    """An entry that cannot be taken, and every reason."""

    index: int
    problems: list[Problem]


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request, verbatim, and the events found in it. ``key_id`` is the API key it came with.

    ``dedupe_id`` is what its sender repeats deliveries under. ``body`` is as it came, before decompression.
    """

    kind: Literal["events", "hook", "click"]
    source: str | None
    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes
    peer: str | None
    candidates: list[Candidate]
    refused: list[Refused] = field(default_factory=list)
    key_id: int | None = None
    idempotency_key: str | None = None
    dedupe_id: str | None = None
    status_code: int | None = None
    """What its sender is answered once it is committed, where that does not depend on what was found in it."""
    ignored: str | None = None
    """Why it means no event, where it is not meant to."""
    click: Click | None = None
    """What it registers; ``refused`` then says which of its tokens were left out."""
    erased: bool = False
    """Whether something was taken out of it that had been erased: it is not as it came."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What was committed of a request. ``replayed``: it had been answered before under its idempotency key."""

    request_id: int
    status_code: int
    answer: dict[str, Any]
    replayed: bool = False
    conflict: bool = False
    """Its idempotency key was used before for another request."""


def answer_to_delivery(arrival: Arrival, request_id: str, duplicates: list[Candidate]) -> dict[str, Any]:
    """What became of a hook's delivery: for us, since its sender gets an answer of its own kind."""
    ignored = {} if arrival.ignored is None else {"ignored": arrival.ignored}
    return answer_to(arrival, request_id, duplicates) | ignored


def answer_to_click(arrival: Arrival, request_id: str) -> dict[str, Any]:
    """The JSON that the sender of a click gets: which click ids were registered, and what was not and why."""
    return {
        "request_id": request_id,
        "click_ids": {} if arrival.click is None else arrival.click.click_ids,
        "rejected": [_problem(problem) for each in arrival.refused for problem in each.problems],
    }


def answer_to(arrival: Arrival, request_id: str, duplicates: list[Candidate]) -> dict[str, Any]:
    """The JSON that a sender of events gets: what was accepted, and what was not and why, by index."""
    return {
        "request_id": request_id,
        "accepted": len(arrival.candidates) - len(duplicates),
        "duplicates": [
            {"index": each.index, "source": each.key[0], "event_id": each.key[1]} for each in duplicates
        ],
        "rejected": [
            {"index": each.index, "problems": [_problem(problem) for problem in each.problems]}
            for each in arrival.refused
        ],
    }


def _problem(problem: Problem) -> dict[str, str]:
    return {
        "code": problem.code,
        "field": problem.field,
        "reason": problem.reason,
        "remedy": problem.remedy,
    }
