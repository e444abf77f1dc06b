"""How a report is to be read, as a form gives it: fields of text become ``ReportOptions``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic_core import PydanticCustomError

from infra.filters import AskingError
from schemas.cells import MappingError
from schemas.durations import parse as parse_duration
from schemas.reconciling.columns import ROW_FIELDS, SUM_FIELDS
from schemas.reconciling.options import ReportOptions, read_options

TEXTS = (
    "time_zone", "currency", "decimal", "date_format", "delimiter", "encoding", "sheet", "dated_by", "first_day", "last_day",
)  # fmt: skip
FIELDS = tuple(dict.fromkeys([*ROW_FIELDS, *SUM_FIELDS]))
NO_THOUSANDS = "none"
_DELIMITERS = {"tab": "\t"}


def options_of(form: Mapping[str, Any]) -> ReportOptions:
    """Raises AskingError, which names the field as the form does."""
    given: dict[str, Any] = {name: text for name in TEXTS if (text := str(form.get(name) or "").strip())}
    if "delimiter" in given:
        given["delimiter"] = _DELIMITERS.get(given["delimiter"], given["delimiter"])
    thousands = str(form.get("thousands") or "")
    if thousands:
        given["thousands"] = {NO_THOUSANDS: "", "space": " "}.get(thousands, thousands)
    columns = {name: text for name in FIELDS if (text := str(form.get(f"column_{name}") or ""))}
    given["columns"] = columns
    given["aggregated"] = bool(form.get("aggregated"))
    given["counted"] = tuple(
        each.strip() for each in str(form.get("counted") or "").split(",") if each.strip()
    )
    window = str(form.get("attribution_window") or "").strip()
    try:
        if window:
            given["attribution_window"] = parse_duration(window)
        return read_options(given)
    except PydanticCustomError as error:
        raise AskingError(f"Attribution window: {error.message()}.") from None
    except MappingError as error:
        raise AskingError(_as_label(str(error))) from None


def _as_label(text: str) -> str:
    """``--time-zone: …`` as the form says it: ``Time zone: …``."""
    name, colon, rest = text.partition(":")
    if not name.startswith("--") or not colon:
        return text[:1].upper() + text[1:]
    return f"{name[2:].replace('-', ' ').capitalize()}:{rest}"


def filled(options: ReportOptions) -> dict[str, str]:
    """The form's fields as these options fill them."""
    values = {name: _text(getattr(options, name)) for name in TEXTS}
    values["delimiter"] = {"\t": "tab"}.get(values["delimiter"], values["delimiter"])
    values["thousands"] = {None: "", "": NO_THOUSANDS, " ": "space"}.get(
        options.thousands, options.thousands or ""
    )
    values |= {f"column_{name}": options.columns.get(name, "") for name in FIELDS}
    values["counted"] = ", ".join(options.counted)
    window = options.attribution_window
    values["attribution_window"] = "" if window is None else _days(window.total_seconds())
    return values


def _days(seconds: float) -> str:
    return f"{seconds / 86_400:g}d"


def _text(value: object) -> str:
    return "" if value is None else str(value)
