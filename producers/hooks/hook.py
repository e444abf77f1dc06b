"""What a hook is: how its sender signs, how it repeats a delivery, and what its payload means as events. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Protocol

from schemas.problem import Problem

Envelope = dict[str, Any]
"""An event as ``schemas.event.read_event`` takes it. ``version`` and ``source`` are added by the pipeline."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One request of a sender. Header names are lower-case; ``url`` is the public one, which some signatures cover.

    ``body`` is as it came. ``peer`` is the address it came from, without the port.
    """

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes
    received_at: datetime
    peer: str | None = None

    def header(self, name: str) -> str | None:
        return self.headers.get(name)


@dataclass(frozen=True, slots=True)
class Options:
    """What a source's table in ``holdfire.toml`` says beside its secrets: event names, fields, and the hook's own keys."""

    source: str
    values: Mapping[str, Any] = field(default_factory=dict)

    def text(self, name: str, default: str) -> str:
        value = self.values.get(name, default)
        return value if isinstance(value, str) else default

    def texts(self, name: str, default: Sequence[str] = ()) -> tuple[str, ...]:
        """A list of texts; one text counts as a list of one."""
        value = self.values.get(name, default)
        if isinstance(value, str):
            return (value,)
        return (
            tuple(each for each in value if isinstance(each, str)) if isinstance(value, list | tuple) else ()
        )

    def table(self, name: str) -> Mapping[str, Any]:
        value = self.values.get(name)
        return value if isinstance(value, Mapping) else {}


class MappingError(ValueError):
    """A payload that means something, but cannot be made an event. Names the field, the reason and the remedy."""

    def __init__(self, field_: str, reason: str, remedy: str) -> None:
        self.field = field_
        self.reason = reason
        self.remedy = remedy
        super().__init__(f"{field_}: {reason}. {remedy}")

    def problem(self) -> Problem:
        return Problem("unmapped", self.field, self.reason, self.remedy)


@dataclass(frozen=True, slots=True)
class Mapped:
    """What one delivery means: events, or in ``ignored`` why it means none (a topic nobody asked for).

    ``unmapped``: parts of a delivery that cannot be made events, where others can.
    """

    events: Sequence[Envelope] = ()
    ignored: str | None = None
    unmapped: Sequence[MappingError] = ()


class Verifier(Protocol):
    """Checks a delivery's signature or credentials over its raw body, in constant time."""

    def verify(self, delivery: Delivery, secrets: Sequence[str]) -> str | None:
        """None if it is genuine under any of the secrets (several while one is rotated), else why it is not."""
        ...


@dataclass(frozen=True, slots=True)
class Answer:
    """What the sender wants to hear. ``status`` is for a delivery that was committed."""

    status: int = 200
    body: bytes = b'{"status":"ok"}'
    media_type: str = "application/json"


def _no_problems(_: Options) -> Sequence[Problem]:
    return ()


def _never(_: Delivery) -> bool:
    return False


def _all_of_it(body: bytes) -> bytes:
    return body


@dataclass(frozen=True, slots=True)
class Hook:
    """A sender, as data and two pure functions.

    ``map`` gets the payload as ``payload`` reads it: JSON values (numbers with a point are ``Decimal``), form fields or
    query parameters as texts, or the raw bytes of XML. ``dedupe`` gives the id under which the sender repeats a
    delivery, or None where there is none. Both may raise MappingError, and nothing else.
    """

    slug: str
    title: str
    docs: str
    payload: Literal["json", "form", "query", "xml"]
    verifier: Verifier
    map: Callable[[Any, Delivery, Options], Mapped]
    dedupe: Callable[[Any, Delivery], str | None]
    methods: tuple[str, ...] = ("POST",)
    answer: Answer = Answer()
    options: Mapping[str, str] = field(default_factory=dict)
    """Keys its table may have, and what each is about."""
    verifier_for: Callable[[Options], Verifier] | None = None
    """The verifier of one source, where its table decides: an allow-list, the name of a header."""
    secret: Literal["required", "optional", "none"] = "required"  # noqa: S105 — says whether there is one
    """Whether a source's table names secrets."""
    check: Callable[[Options], Sequence[Problem]] = _no_problems
    """What is wrong with the values of its options; ``field`` is the key below the source's table."""
    ping: Callable[[Delivery], bool] = _never
    """A delivery that carries nothing and only asks whether somebody is there: answered without a signature."""
    dedupe_by: Callable[[Any, Delivery, Options], str | None] | None = None
    """In place of ``dedupe`` where the source's table says which field it is."""
    conceal: Callable[[bytes], bytes] = _all_of_it
    """The body as it may be kept: without what opens the sender's own doors, as a session id does."""

    def verifier_of(self, options: Options) -> Verifier:
        return self.verifier if self.verifier_for is None else self.verifier_for(options)

    def dedupe_id(self, payload: Any, delivery: Delivery, options: Options) -> str | None:
        """The id under which the sender repeats this delivery. Raises MappingError."""
        if self.dedupe_by is not None:
            return self.dedupe_by(payload, delivery, options)
        return self.dedupe(payload, delivery)
