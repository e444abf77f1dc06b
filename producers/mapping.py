"""How the columns of a table become the fields of an event. Pure: cells in, an event or its problems out."""

from __future__ import annotations

import difflib
import hashlib
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Final, Self
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from schemas.cells import (
    CellError,
    MappingError,
    amount,
    check_date_format,
    check_encoding,
    check_zone,
    instant,
)
from schemas.event import (
    CancelSignal,
    ChargebackSignal,
    ConversionEvent,
    CreditCheckSignal,
    RefundSignal,
)
from schemas.problem import Problem, plain_reason

FIELDS_OF: Final = {
    "conversion": frozenset(ConversionEvent.model_fields),
    "refund": frozenset(RefundSignal.model_fields),
    "chargeback": frozenset(ChargebackSignal.model_fields),
    "credit_check": frozenset(CreditCheckSignal.model_fields),
    "cancel": frozenset(CancelSignal.model_fields),
}
FIELDS: Final = frozenset().union(*FIELDS_OF.values()) - {"version", "click_ids", "params"}
NESTED: Final = ("click_ids", "params")
MONEY: Final = ("value", "amount")
INSTANTS: Final = ("occurred_at", "clicked_at")
LINE_COLUMN, REASON_COLUMN = "holdfire_line", "holdfire_reason"
"""The columns that a file of rejects has more than the file it came from."""

_MAX_KEY: Final = 200
_ONE_PAIR = re.compile(
    r"""\s*(?P<field>[A-Za-z_]+(?:\.[^=,'"\s]+)?)\s*=\s*
        (?: '(?P<constant>[^']*)' | "(?P<quoted>[^"]*)" | (?P<column>[^,'"]+?) )\s*(?:,|$)""",
    re.VERBOSE,
)


class ColumnMap(BaseModel):
    """Which column is which field, what is the same in every row, and how cells are written."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    columns: dict[str, str] = Field(default_factory=dict)
    """Field → column. ``click_ids.NETWORK`` and ``params.NAME`` are fields too."""
    constants: dict[str, str] = Field(default_factory=dict)
    """Field → its value in every row whose type has the field."""
    values: dict[str, dict[str, str]] = Field(default_factory=dict)
    """Field → what a cell says → what is meant, such as ``type.Storno = "refund"``."""
    id: tuple[str, ...] = ()
    """Columns that together tell a row from every other, for an ``event_id`` that is the same on every run."""
    delimiter: Annotated[str, Field(pattern=r"^[^\r\n\"\x00]$")] | None = None
    encoding: str = "utf-8-sig"
    decimal: Annotated[str, Field(pattern=r"^[.,]$")] = "."
    thousands: Annotated[str, Field(pattern=r"^[., '\u2019_]$")] | None = None
    timezone: str | None = None
    date_format: Annotated[str, Field(min_length=1)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _flat(cls, raw: Any) -> Any:
        """``click_ids.xandr = "SSPDATA"`` is a table in TOML."""
        if not isinstance(raw, dict):
            return raw
        return raw | {key: _flattened(raw[key]) for key in ("columns", "constants") if key in raw}

    @field_validator("columns", "constants")
    @classmethod
    def _known_fields(cls, mapped: dict[str, str]) -> dict[str, str]:
        for name in mapped:
            check_field(name)
        return mapped

    @field_validator("encoding")
    @classmethod
    def _splittable(cls, encoding: str) -> str:
        return check_encoding(encoding)

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, name: str | None) -> str | None:
        return None if name is None else check_zone(name)

    @field_validator("date_format")
    @classmethod
    def _usable_format(cls, form: str | None) -> str | None:
        return None if form is None else check_date_format(form)

    @model_validator(mode="after")
    def _in_one_way(self) -> Self:
        if self.thousands == self.decimal:
            raise ValueError("decimal and thousands are the same character; say which of them it is")
        if twice := sorted(self.columns.keys() & self.constants.keys()):
            raise ValueError(f"{twice[0]} is both a column and a constant; leave one out")
        return self

    @cached_property
    def zone(self) -> ZoneInfo | None:
        return ZoneInfo(self.timezone) if self.timezone else None


def _flattened(table: Any, prefix: str = "") -> Any:
    if not isinstance(table, dict):
        return table
    flat: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, dict) and not prefix:
            flat |= _flattened(value, f"{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def check_field(name: str) -> None:
    """Raises MappingError for what is no field of an event."""
    nested, dot, key = name.partition(".")
    if name in FIELDS or (nested in NESTED and dot and key):
        return
    near = difflib.get_close_matches(name, [*FIELDS, *(f"{one}." for one in NESTED)], 1)
    hint = (
        f"did you mean {near[0]}?"
        if near
        else "see docs/events.md; click_ids.NETWORK and params.NAME are fields too"
    )
    raise MappingError(f"{name!r} is no field of an event; {hint}")


def parse_columns(texts: Iterable[str]) -> dict[str, dict[str, str]]:
    """``order_id=Order,value="Total, net",source='shop'`` as columns and constants. Raises MappingError."""
    found: dict[str, dict[str, str]] = {"columns": {}, "constants": {}}
    for text in texts:
        place = 0
        while place < len(text):
            pair = _ONE_PAIR.match(text, place)
            if pair is None:
                raise MappingError(
                    f'--columns cannot be read at {text[place:]!r}; write field=Column, field="Column, with comma" or '
                    "field='constant', separated by commas"
                )
            check_field(pair["field"])
            if pair["field"] in found["columns"] | found["constants"]:
                raise MappingError(f"--columns says {pair['field']} twice; leave one out")
            kind = "columns" if pair["constant"] is None else "constants"
            found[kind][pair["field"]] = pair["constant"] or pair["quoted"] or pair["column"] or ""
            place = pair.end()
    return found


def load_map(path: Path | None, given: Mapping[str, Any]) -> ColumnMap:
    """The mapping of a file, with what is given on the command line in place of what it says. Raises MappingError."""
    raw: dict[str, Any] = {}
    if path is not None:
        try:
            raw = tomllib.loads(path.read_text("utf-8"))
        except OSError as error:
            raise MappingError(f"{path} cannot be read: {error.strerror}; name a TOML file") from None
        except ValueError as error:
            raise MappingError(f"{path} is not TOML: {error}; see docs/producers.md") from None
    for key, value in given.items():
        if key in {"columns", "constants"}:
            other = "constants" if key == "columns" else "columns"
            raw[key] = _flattened(raw.get(key, {})) | value
            raw[other] = {
                name: one for name, one in _flattened(raw.get(other, {})).items() if name not in value
            }
        elif value is not None:
            raw[key] = value
    try:
        return ColumnMap.model_validate(raw)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in fault["loc"])
        reason = plain_reason(fault["type"], fault["msg"], fault["input"], fault.get("ctx", {}))
        if fault["type"] == "extra_forbidden":
            near = difflib.get_close_matches(where, ColumnMap.model_fields, 1)
            reason += f"; did you mean {near[0]}?" if near else f"; use {', '.join(ColumnMap.model_fields)}"
        said = f"{where}: {reason.removeprefix('Value error, ')}".removeprefix(": ")
        raise MappingError(f"{path or 'the mapping'}: {said}") from None


class Columns:
    """A mapping laid over a header: knows which cell is which field."""

    def __init__(self, mapping: ColumnMap, header: Sequence[str]) -> None:
        """Without any column in the mapping, columns named like fields are those fields. Raises MappingError."""
        self.mapping = mapping
        columns = mapping.columns or _by_name(header)
        self._places = {field: _place(header, column, field) for field, column in columns.items()}
        self._constants = {"type": "conversion"} | mapping.constants
        if "type" in self._places:
            del self._constants["type"]
        for needed in ("source", "occurred_at"):
            if needed not in self._places and needed not in self._constants:
                raise MappingError(
                    f"nothing says what {needed} is; map a column to it, or for all rows: {needed}='…'"
                )
        self._id = [(_place(header, column, "id"), column) for column in mapping.id]
        if not self._id and "event_id" not in self._places:
            self._id = self._default_id(header)

    def _default_id(self, header: Sequence[str]) -> list[tuple[int, str]]:
        """A conversion is told by its order, and a rebill by its number; of a signal there may be several an order."""
        if self._constants.get("type") == "conversion" and "order_id" in self._places:
            places = [self._places[field] for field in ("order_id", "sequence") if field in self._places]
            return [(place, header[place]) for place in places]
        raise MappingError(
            "nothing tells one row from another on a second run; map a column to event_id, or name the columns that "
            "together are unique with --id"
        )

    def read(self, cells: Sequence[str]) -> tuple[dict[str, Any], list[Problem]]:
        """The event that a row says, and what is wrong with its cells. Values are not validated further."""
        problems: list[Problem] = []
        event: dict[str, Any] = {"version": 1}
        for field, place in self._places.items():
            cell = cells[place].strip()
            cell = self.mapping.values.get(field, {}).get(cell, cell)
            if cell:
                _put(event, field, self._value(field, cell, problems))
        known = FIELDS_OF.get(event.get("type") or self._constants.get("type", ""), frozenset())
        for field, value in self._constants.items():
            if field.partition(".")[0] in known:
                _put(event, field, value)
        if self._id:
            event["event_id"] = self._event_id(event, cells, problems)
        return event, problems

    def _value(self, field: str, cell: str, problems: list[Problem]) -> object:
        try:
            if field in MONEY:
                return amount(cell, self.mapping)
            if field in INSTANTS:
                return instant(cell, self.mapping)
            if field == "sequence":
                return _whole(cell)
        except CellError as error:
            problems.append(Problem(error.code, field, error.reason, error.remedy))
        return cell

    def _event_id(self, event: dict[str, Any], cells: Sequence[str], problems: list[Problem]) -> str:
        parts = [cells[place].strip() for place, _ in self._id]
        for (_, column), part in zip(self._id, parts, strict=True):
            if not part:
                reason = f"is made of the column {column!r}, which is empty"
                problems.append(
                    Problem("no_event_id", "event_id", reason, "Fill it in, or choose others with --id")
                )
        what = str(event.get("name") if event.get("type") == "conversion" else event.get("type"))
        # Escaped where it matters, so that no two rows come to one id: 'a:b' + 'c' is not 'a' + 'b:c'.
        if len(parts) > 1:
            parts = [part.replace("%", "%25").replace(":", "%3A") for part in parts]
        readable = ":".join([what, *parts])
        if len(readable) <= _MAX_KEY:
            return readable
        return f"sha256:{hashlib.sha256(readable.encode('utf-8', 'surrogatepass')).hexdigest()}"


def _by_name(header: Sequence[str]) -> dict[str, str]:
    columns: dict[str, str] = {}
    for name in header:
        if name and name not in {LINE_COLUMN, REASON_COLUMN, "version"}:
            try:
                check_field(name)
            except MappingError as error:
                raise MappingError(
                    f"column {error}. The file has {_listed(header)}: say which is which with --columns order_id=… or --map"
                ) from None
            columns[name] = name
    return columns


def _place(header: Sequence[str], column: str, field: str) -> int:
    found = [place for place, name in enumerate(header) if name == column]
    if len(found) == 1:
        return found[0]
    if found:
        raise MappingError(
            f"{field}: the file has {len(found)} columns {column!r}; give them different names"
        )
    near = difflib.get_close_matches(column, header, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"it has {_listed(header)}"
    raise MappingError(f"{field}: the file has no column {column!r}; {hint}")


def _listed(header: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in header[:30]) + (" …" if len(header) > 30 else "")


def _put(event: dict[str, Any], field: str, value: object) -> None:
    nested, dot, key = field.partition(".")
    if dot:
        event.setdefault(nested, {})[key] = value
    else:
        event[field] = value


def _whole(cell: str) -> int:
    if not re.fullmatch(r"[0-9]{1,10}", cell, re.ASCII):
        raise CellError("int_parsing", f"{cell!r} is no whole number", "Write digits only")
    return int(cell)
