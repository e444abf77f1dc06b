"""Reading what a person typed as search criteria. Every refusal says what would have been right."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from pydantic_core import PydanticCustomError

from infra.store.search import Criteria
from schemas.durations import parse


class AskingError(ValueError):
    """An option that cannot be read or does not apply: which one, why, and what to write."""


def read_instant(option: str, text: str | None, now: datetime) -> datetime | None:
    """``2h`` or ``3d`` ago, or ISO 8601; without an offset it is UTC, as everything printed is."""
    if text is None:
        return None
    try:
        return now - parse(text)
    except PydanticCustomError:
        pass
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        raise AskingError(
            f"{option}: {text!r} is neither an age nor an instant; write 2h, 3d or 2026-11-22T10:00:00Z"
        ) from None
    return instant if instant.tzinfo is not None else instant.replace(tzinfo=UTC)


def read_status_codes(text: str | None) -> tuple[int, int] | None:
    """``503`` or ``5xx``, as an inclusive range."""
    if text is None:
        return None
    if not re.fullmatch(r"[1-5](xx|[0-9]{2})", text):
        raise AskingError(f"--status-code: {text!r} is no HTTP status; write 503 or 5xx")
    lowest = int(text.replace("x", "0"))
    return lowest, lowest + 99 if "x" in text else lowest


_OPTIONS = {
    "states": "--state",
    "order_id": "--order",
    "click_id": "--click-id",
    "event_id": "--event",
    "status_codes": "--status-code",
}


def check_applicable(criteria: Criteria, known: set[str], listing: str) -> None:
    """Refuse what the listing cannot be searched by, rather than not narrow it."""
    for name in Criteria.__dataclass_fields__:
        if getattr(criteria, name) not in {None, ()} and name not in known:
            options = ", ".join(_option(each) for each in Criteria.__dataclass_fields__ if each in known)
            raise AskingError(f"{_option(name)} does not apply to {listing}; use {options}")


def _option(name: str) -> str:
    return _OPTIONS.get(name, f"--{name}")
