"""How values look in a page: the filters and functions that every template has."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cache
from typing import Any
from urllib.parse import urlencode

import orjson
from jinja2 import Environment, PackageLoader, StrictUndefined, pass_context
from jinja2.runtime import Context
from markupsafe import Markup, escape

from infra.store.audit import AuditRecord
from infra.version import VERSION
from investigations import words
from investigations.console.leaves import without
from investigations.console.static import fingerprint
from schemas.ids import PREFIXES, parse, show
from schemas.money import plain

NOTHING = "\N{EN DASH}"
PLACES = {
    "cv": "/conversions/",
    "pb": "/postbacks/",
    "at": "/attempts/",
    "sg": "/signals/",
    "ck": "/checks/",
    "in": "/inbox/",
    "rp": "/reports/",
    "rn": "/replays/",
}
"""Where each kind of id has its page."""


@cache
def environment() -> Environment:
    """Autoescaped, and strict: a template that asks for what is not there fails its test rather than showing nothing."""
    made = Environment(
        loader=PackageLoader("investigations.console", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "visible": visible,
        "lines": lines,
        "clock": clock,
        "day": day,
        "ago": ago,
        "span": span,
        "money": money,
        "count": count,
        "percent": percent,
        "click_id": click_id,
        "masked": masked,
        "id_path": id_path,
        "query": query,
        "attributes": attributes,
        "hold_back": without,
        "linked": linked,
        "audit_detail": audit_detail,
        "status_class": status_class,
    }
    made.globals |= {"show_id": show, "fingerprint": fingerprint, "version": VERSION}
    return made


def visible(text: object) -> str:
    """Foreign text on one line: what cannot be printed is written as escapes, so a mark cannot turn evidence round."""
    return "" if text is None else words.visible(str(text))


def lines(text: object) -> Markup:
    """Foreign text of several lines, each made visible; tabs stay. For ``<pre>``."""
    made = [
        "\t".join(words.visible(cell) for cell in line.removesuffix("\r").split("\t"))
        for line in str(text).split("\n")
    ]
    return Markup("\n").join(escape(line) for line in made)


def clock(instant: datetime | None, *, fine: bool = False) -> str:
    """``2026-11-22 10:00:01`` UTC, or to the millisecond."""
    if instant is None:
        return NOTHING
    return words.clock(instant) if fine else words.clock(instant)[:19]


def day(instant: datetime | None) -> str:
    return NOTHING if instant is None else instant.astimezone(UTC).strftime("%Y-%m-%d")


@pass_context
def ago(context: Context, instant: datetime | None) -> str:
    """How long ago, or in how long: ``3 h 12 min ago``, ``in 2 d``; coarse on purpose."""
    if instant is None:
        return NOTHING
    difference: timedelta = context["now"] - instant
    if abs(difference) < timedelta(seconds=1):
        return "now"
    said = words.span(difference) if abs(difference) >= timedelta(minutes=1) else _seconds(difference)
    return f"{said} ago" if difference > timedelta(0) else f"in {said}"


def _seconds(difference: timedelta) -> str:
    return f"{round(abs(difference.total_seconds()))} s"


def span(duration: timedelta | float | None) -> str:
    """A duration, or a number of seconds, in the two units that matter."""
    if duration is None:
        return NOTHING
    return words.span(duration if isinstance(duration, timedelta) else timedelta(seconds=duration))


def money(amount: Decimal | None, currency: str | None) -> str:
    return NOTHING if amount is None else f"{plain(amount)} {currency or ''}".rstrip()


def count(number: int | None) -> str:
    """``1 234 567``, with narrow no-break spaces."""
    return NOTHING if number is None else f"{number:,}".replace(",", "\u202f")


def percent(share: float | None, digits: int = 1) -> str:
    return NOTHING if share is None else f"{share * 100:.{digits}f} %"


@pass_context
def click_id(context: Context, text: str | None) -> str:
    """A click id as this account may see it."""
    seen = context["masking"].click_id(text)
    return NOTHING if seen is None else words.visible(seen)


@pass_context
def masked(context: Context, text: str | None, click_ids: Any) -> str | None:
    """A text in which these click ids may stand, as this account may see it."""
    ids = click_ids.values() if isinstance(click_ids, Mapping) else click_ids
    seen: str | None = context["masking"].text(text, [each for each in ids if each])
    return seen


def id_path(identifier: str) -> str:
    """The page of one of our ids: ``/conversions/cv_12``. Raises ``ValueError`` for a text that is none."""
    found = parse(identifier)
    if found is None:
        raise ValueError(f"{identifier!r} is no identifier; one begins with {', '.join(PREFIXES)}")
    return f"{PLACES[found[0]]}{identifier}"


def query(values: Mapping[str, Any], **changed: Any) -> str:
    """A query string of these values, some changed or (None) left out; empty ones are left out."""
    merged = {**values, **changed}
    pairs = [(key, value) for key, value in merged.items() if value not in (None, "", [], ())]
    return "?" + urlencode(pairs, doseq=True) if pairs else "?"


def status_class(code: int | None) -> str:
    """The style of an HTTP status."""
    return "none" if code is None else f"{re.sub('[^1-5]', '0', str(code)[:1])}xx"


def attributes(values: Mapping[str, Any]) -> Markup:
    """Keywords as attributes: True stands alone, False and None are left out, ``_`` is written ``-``."""
    made = Markup("")
    for name, value in values.items():
        if value is True:
            made += Markup(" {}").format(name.replace("_", "-"))
        elif value is not False and value is not None:
            made += Markup(' {}="{}"').format(name.replace("_", "-"), value)
    return made


TOLD = frozenset(
    {
        "account",
        "destination",
        "ended",
        "from",
        "kind",
        "name",
        "number",
        "role",
        "session",
        "sessions_ended",
        "state",
        "subject",
        "to",
        "until",
        "wait_s",
        "wish",
    }
)
"""What the audit's detail says without click ids, whoever wrote it; the rest may repeat what a person typed."""


@pass_context
def audit_detail(context: Context, record: AuditRecord) -> list[tuple[str, str]]:
    """The detail of an act as pairs; to who sees click ids masked, only what cannot hold one."""
    return told(record, hidden=context["masking"].on)


def told(record: AuditRecord, *, hidden: bool) -> list[tuple[str, str]]:
    """As ``audit_detail``, outside of a page."""
    return [
        (name, _plainly(value) if not hidden or name in TOLD else "[held back]")
        for name, value in record.detail.items()
        if value not in (None, [], {}, "")
    ]


def _plainly(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def linked(text: object) -> Markup:
    """Words of ours, made visible, in which our ids lead to their pages."""
    parts = re.split(r"(?<![\w-])((?:cv|pb|at|sg|ck|in|rp|rn)_[1-9][0-9]{0,17})(?![\w-])", visible(text))
    made = Markup("")
    for place, part in enumerate(parts):
        link = Markup('<a class="id" href="{}">{}</a>').format(id_path(part), part) if place % 2 else part
        made += link
    return made
