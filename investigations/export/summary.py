"""The summary page of a bundle: one HTML file that needs nothing else, runs nothing, and prints. Pure.

Every text in it goes through ``words.visible`` and Jinja's escaping, and stands apart, so that no letters written from
right to left turn its neighbours round.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape

from infra.store.records import Life
from infra.version import VERSION
from investigations.export.exhibit import Exhibit, exhibits
from investigations.export.fields import shown, when
from investigations.export.handing import Handing
from investigations.export.summary_template import CONVERSION, FOOT, HEAD
from investigations.next_step import next_step
from investigations.words import money, visible
from schemas.ids import show
from schemas.support import FIELDS

LINES = 60
"""Of one field on the page; the files beside it have all of them."""
_WIDE = frozenset(
    {"request_headers", "request_body", "response_headers", "response_body", "redirects", "error"}
)


def _seen(text: object) -> str:
    return visible(str(text))


_ENVIRONMENT = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
_ENVIRONMENT.filters["seen"] = _seen
_HEAD, _CONVERSION, _FOOT = map(_ENVIRONMENT.from_string, (HEAD, CONVERSION, FOOT))


@dataclass(slots=True)
class Totals:
    """What was counted while the lives went by."""

    conversions: int = 0
    postbacks: int = 0
    attempts: int = 0
    hops: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    states: Counter[str] = field(default_factory=Counter)

    def add(self, life: Life) -> None:
        self.conversions += 1
        for postback in life.postbacks:
            self.postbacks += 1
            self.states[postback.state] += 1
            for attempt in postback.attempts:
                self.attempts += 1
                self.hops += len(attempt.hops)
                self.verdicts[attempt.outcome.verdict if attempt.outcome else "no outcome recorded"] += 1

    def numbers(self) -> dict[str, int]:
        return {
            "conversions": self.conversions,
            "postbacks": self.postbacks,
            "attempts": self.attempts,
            "hops": self.hops,
        }


def counted(numbers: Mapping[str, int]) -> Totals:
    """The totals that a manifest says."""
    return Totals(numbers["conversions"], numbers["postbacks"], numbers["attempts"], numbers["hops"])


def summary_head(
    handing: Handing, totals: Totals, made_at: datetime, fingerprint: str, missing: list[int]
) -> str:
    """Up to the first conversion."""
    return _HEAD.render(
        handing=handing,
        totals=totals,
        tables=_tables(totals),
        made_at=when(made_at, handing.zone_info),
        version=VERSION,
        fingerprint=fingerprint,
        missing=[show("cv", number) for number in missing],
    )


def summary_conversion(handing: Handing, life: Life) -> str:
    """One conversion with its attempts."""
    event = life.conversion.event
    return _CONVERSION.render(
        id=show("cv", life.conversion.id),
        name=event.name,
        worth=money(event.value, event.currency),
        order=event.order_id,
        event_id=event.event_id,
        occurred=when(event.occurred_at, handing.zone_info),
        received=when(life.conversion.received_at, handing.zone_info),
        unrouted=life.conversion.unrouted_reason,
        postbacks=list(_postbacks(life)),
        attempts=[_attempt(handing, exhibit) for exhibit in exhibits(life)],
    )


def summary_foot(handing: Handing) -> str:
    """After the last conversion."""
    return _FOOT.render(meanings={name: FIELDS[name] for name in handing.fields})


def _tables(totals: Totals) -> list[tuple[str, Mapping[str, int]]]:
    return [
        ("verdicts of attempts", dict(sorted(totals.verdicts.items()))),
        ("states of postbacks", dict(sorted(totals.states.items()))),
    ]


def _postbacks(life: Life) -> Iterator[dict[str, Any]]:
    for postback in life.postbacks:
        contract = postback.version.contract
        yield {
            "id": show("pb", postback.id),
            "destination": contract.name,
            "network": contract.network.title,
            "state": postback.state.value,
            "next": next_step(life, postback),
            "corrects": show("pb", postback.adjusts) if postback.adjusts is not None else None,
        }


def _attempt(handing: Handing, exhibit: Exhibit) -> dict[str, Any]:
    values = shown(handing.fields, exhibit, handing.zone_info)
    outcome = exhibit.attempt.outcome
    return {
        "id": show("at", exhibit.attempt.id),
        "number": exhibit.attempt.number,
        "postback": show("pb", exhibit.postback.id),
        "verdict": outcome.verdict.value if outcome else "no outcome recorded",
        "rule": outcome.rule if outcome else "",
        "fields": [
            (name.replace("_", " "), _lines(value), name in _WIDE)
            for name, value in zip(handing.fields, values, strict=True)
            if value
        ],
    }


def _lines(value: str) -> Markup:
    lines = value.replace("\r\n", "\n").split("\n")
    shown_lines = [visible(each) for each in lines[:LINES]]
    if len(lines) > LINES:
        shown_lines.append(f"[cut here: {len(lines)} lines in all; the transcript has them]")
    # Each line apart: letters from right to left in one must not reach into the next.
    return Markup("\n".join(f"<bdi>{escape(each)}</bdi>" for each in shown_lines))  # noqa: S704 — each is escaped
