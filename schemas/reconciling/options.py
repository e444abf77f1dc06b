"""How a report is to be read and compared: what is given, remembered, or guessed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from functools import cached_property
from typing import Annotated, Any, Final, Self
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from schemas.cells import MappingError, check_date_format, check_encoding, check_zone
from schemas.durations import Duration
from schemas.event import CurrencyCode
from schemas.problem import plain_reason
from schemas.reconciling.facts import DatedBy

UTF_16: Final = ("utf-16", "utf-16-le", "utf-16-be")
REMEMBERED: Final = frozenset(
    {"columns", "delimiter", "encoding", "decimal", "thousands", "time_zone", "date_format", "currency", "dated_by",
     "attribution_window", "counted", "sheet"}
)  # fmt: skip
"""Options that are a network's way to write reports, and not one report's."""


class ReportOptions(BaseModel):
    """Everything that decides what a report says. None: what was remembered, or else what the report itself shows."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    columns: dict[str, str] = Field(default_factory=dict)
    """Field → column."""
    delimiter: Annotated[str, Field(pattern=r"^[^\r\n\"\x00]$")] | None = None
    encoding: str | None = None
    decimal: Annotated[str, Field(pattern=r"^[.,]$")] | None = None
    thousands: Annotated[str, Field(pattern=r"^(?:[., '\u2019_]|)$")] | None = None
    """Empty: there is none."""
    time_zone: str | None = None
    """The zone that the network writes dates in; UTC if nothing says."""
    date_format: Annotated[str, Field(min_length=1)] | None = None
    currency: CurrencyCode | None = None
    """Of the amounts, where no column says."""
    dated_by: DatedBy | None = None
    """Which instant the network dates a conversion by; the event's if nothing says."""
    first_day: date | None = None
    last_day: date | None = None
    """The period, both days included; from the report's own dates if left out."""
    aggregated: bool = False
    """Days with counts, and no single conversions."""
    attribution_window: Annotated[Duration, Field(gt=timedelta(0))] | None = None
    counted: tuple[str, ...] = ()
    """The statuses that count; all but those that plainly do not, if left out."""
    sheet: str | None = None
    """Of a workbook; the first if left out."""

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, name: str | None) -> str | None:
        if name is None or name.lower().replace("_", "-") in UTF_16:
            return name
        return check_encoding(name)

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, name: str | None) -> str | None:
        return None if name is None else check_zone(name)

    @field_validator("date_format")
    @classmethod
    def _usable_format(cls, form: str | None) -> str | None:
        return None if form is None else check_date_format(form)

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.first_day is not None and self.last_day is not None and self.first_day > self.last_day:
            raise ValueError(f"--from {self.first_day} lies after --to {self.last_day}; swap them")
        if self.decimal is not None and self.thousands == self.decimal:
            raise ValueError("decimal and thousands are the same character; say which of them it is")
        return self

    @cached_property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.time_zone or "UTC")

    def over(self, remembered: ReportOptions | None) -> ReportOptions:
        """These, with what was remembered of the network where they say nothing."""
        if remembered is None:
            return self
        given = {name: value for name, value in self.model_dump().items() if value not in (None, (), {})}
        kept = {name: value for name, value in remembered.model_dump().items() if name in REMEMBERED}
        columns = remembered.columns | self.columns
        return ReportOptions.model_validate(kept | given | {"columns": columns})

    def lasting(self) -> ReportOptions:
        """What is worth remembering for the network's next report."""
        return ReportOptions.model_validate(self.model_dump(include=set(REMEMBERED)))

    def wire(self) -> dict[str, Any]:
        """JSON-ready, what is not given left out; the same options are the same text."""
        return self.model_dump(mode="json", exclude_defaults=True)


def read_options(given: Mapping[str, Any]) -> ReportOptions:
    """Validate options from a command line, a form or the store. Raises MappingError."""
    try:
        return ReportOptions.model_validate(
            {name: value for name, value in given.items() if value is not None}
        )
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = "--" + ".".join(str(part) for part in fault["loc"]).replace("_", "-") if fault["loc"] else ""
        reason = plain_reason(fault["type"], fault["msg"], fault["input"], fault.get("ctx", {}))
        said = f"{where}: {reason.removeprefix('Value error, ')}".removeprefix(": ")
        raise MappingError(said) from None
