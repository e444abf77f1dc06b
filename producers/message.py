"""What leaves a producer: events that passed validation, and the queue message that carries them.

The message is a plain Celery task call (protocol 2, JSON) of ``holdfire.intake`` with one argument, the list of
events; docs/events.md describes it for other languages.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Protocol, cast
from uuid import uuid4

from celery import Celery
from pydantic import BaseModel

from infra.broker import INTAKE_TASK
from schemas.event import MAX_EVENTS_PER_MESSAGE, Event, read_event, wire

Given = Mapping[str, Any] | Event
"""An event as a caller gives it: a mapping shaped like the envelope, or one of the models of schemas.event."""

MAX_MESSAGE_BYTES: Final = 1_000_000
"""Events with long tokens and many params make a message end before 500: a broker and a worker's memory hold it."""

_AFTER_ARGS: Final = '],{},{"callbacks":null,"errbacks":null,"chain":null,"chord":null}]'


@dataclass(frozen=True, slots=True)
class Checked:
    """An event that passed validation: as it was given, and the JSON that leaves."""

    given: Given
    body: bytes


@dataclass(frozen=True, slots=True)
class Chunk:
    """1 to 500 events that travel in one message. The id stays the same however often it is sent."""

    events: list[Checked]
    message_id: str = field(default_factory=lambda: str(uuid4()))

    @property
    def count(self) -> int:
        return len(self.events)

    @property
    def json(self) -> str:
        """The events as a JSON list."""
        return f"[{b','.join([event.body for event in self.events]).decode()}]"

    @property
    def given(self) -> list[Given]:
        """The events as they were given."""
        return [event.given for event in self.events]


def check(given: Given, now: datetime) -> Checked:
    """Validate one event as intake will see it. Raises InvalidInputError with every problem found."""
    raw = wire(given) if isinstance(given, BaseModel) else given
    event = read_event(raw, now)
    return Checked(given, event.model_dump_json(exclude_none=True).encode())


def chunks(events: Iterable[Checked]) -> Iterator[Chunk]:
    """Group events into messages of at most 500 events and about 1 MB, in order."""
    gathered: list[Checked] = []
    size = 0
    for event in events:
        if gathered and (
            len(gathered) == MAX_EVENTS_PER_MESSAGE or size + len(event.body) > MAX_MESSAGE_BYTES
        ):
            yield Chunk(gathered)
            gathered, size = [], 0
        gathered.append(event)
        size += len(event.body)
    if gathered:
        yield Chunk(gathered)


class Sendable(Protocol):
    """A message of events: its id, how many, and the JSON list of them."""

    @property
    def message_id(self) -> str: ...
    @property
    def count(self) -> int: ...
    @property
    def json(self) -> str: ...


def task_call(app: Celery, message: Sendable) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """The task call that carries a message: body (JSON text), headers and properties.

    Celery makes the headers, as ``send_task`` would. The body is put together from the JSON that validation
    made, which saves encoding every event a second time.
    """
    call = app.amqp.as_task_v2(
        message.message_id,
        INTAKE_TASK,
        argsrepr=f"([{message.count} events],)",
        kwargsrepr="{}",
        ignore_result=True,
    )
    return (
        f"[[{message.json}{_AFTER_ARGS}",
        cast("dict[str, Any]", call.headers),
        cast("dict[str, Any]", call.properties),
    )
