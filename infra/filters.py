"""The filters of ``find``, and of every command that acts on what ``find`` would list: options, and how they are read."""

from __future__ import annotations

import dataclasses
import inspect
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import wraps
from typing import Annotated, Any, get_type_hints

import typer
from pydantic_core import PydanticCustomError

from infra.store.searching.search import Criteria
from schemas.durations import parse
from schemas.lifecycle import State
from schemas.money import MAX_DECIMAL_PLACES, MAX_INTEGER_DIGITS, plain
from schemas.verdict import VerdictKind

Order = Annotated[str | None, typer.Option("--order", help="By order id.")]
ClickId = Annotated[str | None, typer.Option("--click-id", help="By click id, verbatim.")]
Event = Annotated[str | None, typer.Option("--event", help="By event id.")]
Source = Annotated[str | None, typer.Option("--source", help="Only from this source.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]


class AskingError(ValueError):
    """An option that cannot be read or does not apply: which one, why, and what to write."""


@dataclass(frozen=True, slots=True)
class Filters:
    """The options as they were typed; everything given must hold."""

    state: Annotated[
        list[State] | None, typer.Option("--state", help="In this state; may be given several times.")
    ] = None
    destination: Annotated[str | None, typer.Option("--destination", help="Of this destination.")] = None
    network: Annotated[str | None, typer.Option("--network", help="Of this network.")] = None
    order: Order = None
    click_id: ClickId = None
    event: Event = None
    source: Source = None
    since: Annotated[
        str | None, typer.Option("--since", help="Received since: 2h, 3d (ago) or ISO 8601.")
    ] = None
    until: Annotated[
        str | None, typer.Option("--until", help="Received before: 2h, 3d (ago) or ISO 8601.")
    ] = None
    status_code: Annotated[
        str | None, typer.Option("--status-code", help="Some attempt or redirect answered so: 503, 5xx.")
    ] = None
    verdict: Annotated[VerdictKind | None, typer.Option("--verdict", help="Some attempt was judged so.")] = (
        None
    )
    lost: Annotated[
        bool, typer.Option("--lost", help="Shown wrongly by the network, which cannot be told.")
    ] = False
    adjustments: Annotated[
        bool, typer.Option("--adjustments", help="Only corrections of what was delivered.")
    ] = False
    error: Annotated[
        str | None, typer.Option("--error", help="Some attempt failed so: timeout, dns, or an error's class.")
    ] = None
    value: Annotated[
        str | None, typer.Option("--value", help="Of this value: 49.90, 10..50, 10.. or '>100'.")
    ] = None
    text: Annotated[
        str | None, typer.Option("--text", help="Stands so in some request or answer, letter for letter.")
    ] = None
    matched: Annotated[
        bool | None,
        typer.Option("--matched/--unmatched", help="Counted by a network's own report, or not."),
    ] = None

    def given(self) -> set[str]:
        """Names of the filters that were given."""
        return {
            field.name
            for field in dataclasses.fields(self)
            # "Not matched" is something asked; a switch that is off is not.
            if getattr(self, field.name) not in (None, [], False)
            or (field.name, getattr(self, field.name)) == ("matched", False)
        }

    def criteria(self, now: datetime) -> Criteria:
        """What to look for; ages are counted back from ``now``. Raises AskingError."""
        return Criteria(
            states=tuple(self.state or ()),
            destination=self.destination,
            network=self.network,
            order_id=self.order,
            click_id=self.click_id,
            event_id=self.event,
            source=self.source,
            since=read_instant("--since", self.since, now),
            until=read_instant("--until", self.until, now),
            status_codes=read_status_codes(self.status_code),
            verdict=self.verdict,
            lost=self.lost or None,
            adjustments=self.adjustments or None,
            error=self.error,
            text=self.text,
            matched=self.matched,
            **({} if self.value is None else read_value("--value", self.value)),
        )


def show_options(criteria: Criteria) -> str | None:
    """The options that are read as ``criteria``, as a shell takes them; None where no options say all of it."""
    asked = criteria.given()
    if asked - _WRITERS.keys() or len(asked & {"value", "above", "below"}) > 1:
        return None
    words: list[str] = []
    for name in (name for name in _WRITERS if name in asked):
        written = _WRITERS[name](getattr(criteria, name))
        if not written:
            return None
        words += written
    return shlex.join(words)


def show_range(ends: tuple[Decimal | None, Decimal | None]) -> str:
    """As ``read_value`` reads it."""
    low, high = ("" if end is None else plain(end) for end in ends)
    return low if low == high else f"{low}..{high}"


def show_codes(ends: tuple[int, int]) -> str:
    """As ``read_status_codes`` reads it."""
    lowest, highest = ends
    return f"{lowest}" if lowest == highest else f"{lowest // 100}xx"


def show_instant(at: datetime) -> str:
    """As ``iso_instant`` reads it."""
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _plain_word(option: str) -> Callable[[Any], list[str]]:
    return lambda value: [f"{option}={value}"]


def _switch(option: str) -> Callable[[bool], list[str]]:
    return lambda value: [option] if value else []


# By field of Criteria. Joined by "=", so that a value may begin with a dash.
_WRITERS: dict[str, Callable[[Any], list[str]]] = {
    "states": lambda states: [f"--state={state}" for state in states],
    "destination": _plain_word("--destination"),
    "network": _plain_word("--network"),
    "order_id": _plain_word("--order"),
    "click_id": _plain_word("--click-id"),
    "event_id": _plain_word("--event"),
    "source": _plain_word("--source"),
    "since": lambda at: [f"--since={show_instant(at)}"],
    "until": lambda at: [f"--until={show_instant(at)}"],
    "status_codes": lambda ends: [f"--status-code={show_codes(ends)}"],
    "verdict": _plain_word("--verdict"),
    "lost": _switch("--lost"),
    "adjustments": _switch("--adjustments"),
    "error": _plain_word("--error"),
    "value": lambda ends: [f"--value={show_range(ends)}"],
    "above": lambda value: [f"--value=>{plain(value)}"],
    "below": lambda value: [f"--value=<{plain(value)}"],
    "text": _plain_word("--text"),
    "matched": lambda value: ["--matched" if value else "--unmatched"],
}


def with_filters(command: Callable[..., None]) -> Callable[..., None]:
    """Give ``command(…, filters: Filters, …)`` an option for each filter, where its parameter ``filters`` stands.

    Typer reads a command's options off its signature; one list of them serves every command.
    """
    options = get_type_hints(Filters, include_extras=True)
    hints = get_type_hints(command, include_extras=True)
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        if parameter.name != "filters":
            parameters.append(parameter.replace(annotation=hints[parameter.name]))
            continue
        parameters += [
            parameter.replace(name=field.name, default=field.default, annotation=options[field.name])
            for field in dataclasses.fields(Filters)
        ]

    @wraps(command)
    def run(**given: Any) -> None:
        command(filters=Filters(**{name: given.pop(name) for name in options}), **given)

    del hints["filters"]
    run.__annotations__ = hints | options
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # as PEP 362 has it
    return run


def read_instant(option: str, text: str | None, now: datetime) -> datetime | None:
    """``2h`` or ``3d`` ago, or ISO 8601; without an offset it is UTC, as everything printed is."""
    if text is None:
        return None
    try:
        return now - parse(text)
    except PydanticCustomError:
        pass
    try:
        return iso_instant(text)
    except ValueError:
        raise AskingError(
            f"{option}: {text!r} is neither an age nor an instant; write 2h, 3d or 2026-11-22T10:00:00Z"
        ) from None


def iso_instant(text: str) -> datetime:
    """ISO 8601; without an offset it is UTC. Raises ValueError."""
    instant = datetime.fromisoformat(text)
    return instant if instant.tzinfo is not None else instant.replace(tzinfo=UTC)


def read_status_codes(text: str | None) -> tuple[int, int] | None:
    """``503`` or ``5xx``, as an inclusive range."""
    if text is None:
        return None
    if not re.fullmatch(r"[1-5](xx|[0-9]{2})", text):
        raise AskingError(f"--status-code: {text!r} is no HTTP status; write 503 or 5xx")
    lowest = int(text.replace("x", "0"))
    return lowest, lowest + 99 if "x" in text else lowest


def read_value(option: str, text: str) -> dict[str, Any]:
    """``49.90``, ``10..50``, ``10..``, ``..50``, ``>100`` and the like, as fields of ``Criteria``. Raises AskingError."""
    for sign, name in ((">=", "lowest"), ("<=", "highest"), (">", "above"), ("<", "below")):
        if text.startswith(sign):
            number = _amount(option, text, text.removeprefix(sign))
            ends = {"lowest": (number, None), "highest": (None, number)}
            return {"value": ends[name]} if name in ends else {name: number}
    low, dots, high = text.partition("..")
    if not dots or not (low or high):
        number = _amount(option, text, text)
        return {"value": (number, number)}
    lowest = _amount(option, text, low) if low else None
    highest = _amount(option, text, high) if high else None
    if lowest is not None and highest is not None and lowest > highest:
        raise AskingError(f"{option}: {text!r} has its higher end first; write {high}..{low}")
    return {"value": (lowest, highest)}


_AMOUNT = re.compile(r"-?[0-9]+(\.[0-9]+)?")
_LONGEST_AMOUNT = MAX_INTEGER_DIGITS + MAX_DECIMAL_PLACES + 2


def _amount(option: str, whole: str, text: str) -> Decimal:
    if not _AMOUNT.fullmatch(text) or len(text) > _LONGEST_AMOUNT:
        raise AskingError(f"{option}: {whole!r} is no amount and no range; write 49.90, 10..50 or >100")
    return Decimal(text)
