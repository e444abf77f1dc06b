"""What a hook is: how its sender signs, how it repeats a delivery, and what its payload means as events. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Protocol

Envelope = dict[str, Any]
"""An event as ``schemas.event.read_event`` takes it. ``version`` and ``source`` are added by the pipeline."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One request of a sender. Header names are lower-case; ``url`` is the public one, which some signatures cover."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes
    received_at: datetime

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


class MappingError(ValueError):
    """A payload that means something, but cannot be made an event. Names the field, the reason and the remedy."""

    def __init__(self, field_: str, reason: str, remedy: str) -> None:
        self.field = field_
        self.reason = reason
        self.remedy = remedy
        super().__init__(f"{field_}: {reason}. {remedy}")


@dataclass(frozen=True, slots=True)
class Mapped:
    """What one delivery means: events, or in ``ignored`` why it means none (a topic nobody asked for)."""

    events: Sequence[Envelope] = ()
    ignored: str | None = None


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


@dataclass(frozen=True, slots=True)
class Hook:
    """A sender, as data and two pure functions.

    ``map`` gets the payload as ``payload`` reads it: JSON values, form fields, query parameters, or the raw bytes of
    XML. ``dedupe`` gives the id under which the sender repeats a delivery. Both may raise MappingError.
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
