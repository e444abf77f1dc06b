"""Which criteria a listing can be searched by. Every refusal says what would have been right."""

from __future__ import annotations

from infra.filters import AskingError
from infra.store.searching.search import Criteria

_OPTIONS = {
    "states": "--state",
    "order_id": "--order",
    "click_id": "--click-id",
    "event_id": "--event",
    "status_codes": "--status-code",
    "above": "--value",
    "below": "--value",
}
_NO_OPTION = {"named", "conversion_id", "postback_id", "above", "below"}


def check_applicable(criteria: Criteria, known: set[str], listing: str) -> None:
    """Refuse what the listing cannot be searched by, rather than not narrow it."""
    for name in Criteria.__dataclass_fields__:
        if name in criteria.given() and name not in known:
            options = ", ".join(
                _option(each) for each in Criteria.__dataclass_fields__ if each in known - _NO_OPTION
            )
            raise AskingError(f"{_option(name)} does not apply to {listing}; use {options}")


def _option(name: str) -> str:
    return _OPTIONS.get(name, f"--{name}")
