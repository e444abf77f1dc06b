"""What a network's support asks for when a discrepancy is looked into: in which time zone, and which fields of an attempt."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

from schemas.calendars import TimeZone

FIELDS: dict[str, str] = {
    "attempt": "our id of the attempt",
    "postback": "our id of the postback",
    "conversion": "our id of the conversion",
    "destination": "the account it was sent to",
    "number": "which attempt of its postback, from 1",
    "trigger": "why it was made: release, retry, replay",
    "time": "when the request began",
    "ended": "when the attempt ended",
    "method": "HTTP method of the first request",
    "url": "full URL of the first request, as sent",
    "request_headers": "request line and every header of every request, as sent",
    "request_body": "body of the first request",
    "redirects": "each redirect that was followed: status and where it led",
    "final_url": "full URL of the last request",
    "status": "HTTP status of the last answer",
    "response_headers": "status line and every header of every answer, as received",
    "response_body": "body of the last answer",
    "body_length": "bytes of that body as received",
    "body_sha256": "SHA-256 of that body as received",
    "truncated": "whether only the beginning of that body was kept",
    "verdict": "what the answer means under the network's rules",
    "rule": "which rule said so",
    "error": "why there is no complete answer",
    "order_id": "the advertiser's order id",
    "event": "name of the conversion event",
    "event_id": "id of the conversion event at its source",
    "occurred": "when the conversion happened",
    "value": "value of the conversion",
    "currency": "its currency",
    "click_id": "the network's click id, verbatim",
    "peer": "address and port that answered last",
    "local": "address and port it was sent from last",
    "tls": "TLS version of the last connection",
    "total_ms": "time of all requests together, in milliseconds",
    "worker": "which of our processes sent it",
}
"""What an attempt can be shown by, in the order of a CSV; each with its meaning."""

USUAL_FIELDS = (
    "attempt", "number", "time", "method", "url", "request_headers", "request_body", "redirects", "status",
    "response_headers", "response_body", "error", "order_id", "value", "currency", "click_id",
)  # fmt: skip
"""What support teams ask for where no page says more: time, method, full URL, every header, status and body of every
attempt, redirects included, and what names the conversion."""


def _known(name: str) -> str:
    if name not in FIELDS:
        raise PydanticCustomError(
            "support_field",
            "{name} is no field of an attempt: write some of {known}",
            {"name": repr(name), "known": ", ".join(FIELDS)},
        )
    return name


class Support(BaseModel):
    """``basis``: the page's own words; empty where no page says what support asks for, and the usual is given."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    contact: str = ""
    """Where to turn: a page or an address."""
    time_zone: TimeZone = "UTC"
    fields: Annotated[tuple[Annotated[str, AfterValidator(_known)], ...], Field(min_length=1)] = USUAL_FIELDS
    notes: str = ""
    """What else to mind when evidence is handed over."""
    basis: str = ""


def support_table(supports: Iterable[tuple[str, Support]]) -> str:
    """Those whose file says something, by slug, as a Markdown table for ``docs/evidence.md``."""
    rows = ["| network | turn to | time zone | fields | its page | mind |", "|---|---|---|---|---|---|"]
    for slug, support in supports:
        if support == Support():
            continue
        fields = (
            "the usual"
            if support.fields == USUAL_FIELDS
            else ", ".join(f"`{each}`" for each in support.fields)
        )
        rows.append(
            f"| `{slug}` | {support.contact or 'not said'} | {support.time_zone} | {fields} "
            f"| {support.basis or 'not said by a page'} | {support.notes or 'nothing'} |"
        )
    return "\n".join(rows)


def field_table(fields: Mapping[str, str] = FIELDS) -> str:
    """The fields with their meaning, as a Markdown table for ``docs/evidence.md``; the usual ones are marked."""
    rows = ["| field | usual | what it is |", "|---|---|---|"]
    rows += [
        f"| `{name}` | {'yes' if name in USUAL_FIELDS else ''} | {about} |" for name, about in fields.items()
    ]
    return "\n".join(rows)
