"""What is looked for, and the conditions in SQL that say so of one row.

The conditions only judge rows; by which index the rows are come by is chosen in ``driving``. State names and the
like stand in the statements as literals where a partial index is meant to serve.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, Row, text

from infra.store.clicks import indexed
from schemas.lifecycle import State
from schemas.verdict import VerdictKind

Range = tuple[Decimal | None, Decimal | None]
"""Lowest and highest, both included; None is open."""


@dataclass(frozen=True, slots=True)
class Criteria:
    """What to look for; everything given must hold. ``status_codes`` is an inclusive range, as 500 to 599.

    ``since`` and ``until`` are about the instant of receipt; ``until`` itself is not included. ``status_codes``,
    ``verdict``, ``error`` and ``text`` must hold of the same attempt.
    """

    states: tuple[State, ...] = ()
    destination: str | None = None
    network: str | None = None
    order_id: str | None = None
    click_id: str | None = None
    event_id: str | None = None
    source: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    status_codes: tuple[int, int] | None = None
    verdict: VerdictKind | None = None
    lost: bool | None = None
    """Only what the network shows wrongly and cannot be told, or (False) nothing of it."""
    adjustments: bool | None = None
    """Only corrections of what was delivered, or (False) none of them."""
    error: str | None = None
    """An attempt failed so: the class of its error (``TimeoutError``) or the kind of failure (``timeout``)."""
    value: Range | None = None
    """Of the conversion's own value, whatever its currency."""
    above: Decimal | None = None
    """The value is higher."""
    below: Decimal | None = None
    """The value is lower."""
    text: str | None = None
    """Stands so, letter for letter, in the URL, the head or the body of a request or an answer of some attempt."""
    matched: bool | None = None
    """Whether a network's own report counted it."""
    named: str | None = None
    """Its conversion has this as order, click, event, lead, customer or device id."""
    conversion_id: int | None = None
    postback_id: int | None = None

    def given(self) -> set[str]:
        """Names of what is asked."""
        return {name for name in self.__dataclass_fields__ if getattr(self, name) not in (None, ())}


_CLICK = f"k.click_ids @> ARRAY[{indexed('CAST(:{name} AS text)')}]"
# Ids first, by their index: together with ORDER BY and LIMIT the planner would rather walk all postbacks from the
# newest on, hoping to meet enough matches soon.
POINTS = {
    "order_id": "SELECT k.id FROM conversions k WHERE k.order_id = :order_id",
    "click_id": "SELECT k.id FROM conversions k WHERE " + _CLICK.format(name="click_id"),  # noqa: S608 — fixed fragments
    "event_id": "SELECT k.id FROM conversions k WHERE k.event_id = :event_id",
    "named": " UNION ".join(
        f"SELECT k.id FROM conversions k WHERE {condition}"  # noqa: S608 — fixed fragments
        for condition in (
            "k.order_id = :named",
            _CLICK.format(name="named"),
            "k.event_id = :named",
            "k.lead_id = :named",
            "k.customer_id = :named",
            "k.device_id = :named",
        )
    ),
    "conversion_id": "SELECT CAST(:conversion_id AS bigint)",
}
_OF_CONVERSIONS = {
    "source": "c.source = :source",
    "since": "c.received_at >= :since",
    "until": "c.received_at < :until",
    "value": "c.value >= coalesce(:lowest_value, c.value) AND c.value <= coalesce(:highest_value, c.value)",
    "above": "c.value > :above",
    "below": "c.value < :below",
}
POSTBACK_CRITERIA = {
    **{name: f"p.conversion_id = ANY(ARRAY({query}))" for name, query in POINTS.items()},
    "postback_id": "p.id = :postback_id",
    "states": "p.state = ANY(:states)",
    "destination": "p.version_id = ANY(ARRAY(SELECT id FROM destination_versions WHERE destination = :destination))",
    "network": "p.version_id = ANY(ARRAY(SELECT id FROM destination_versions WHERE contract->'network'->>'slug' = :network))",
    "lost": "p.lost_at IS NOT NULL",
    "adjustments": "p.adjustment IS NOT NULL",
    "matched": "EXISTS (SELECT FROM reconciled r WHERE r.postback_id = p.id)",
    **_OF_CONVERSIONS,
}
CONVERSION_CRITERIA = {
    **{name: f"c.id = ANY(ARRAY({query}))" for name, query in POINTS.items()},
    **_OF_CONVERSIONS,
}
SIGNAL_CRITERIA = {
    "order_id": "s.order_id = :order_id",
    "event_id": "(s.event_id = :event_id OR s.conversion_event_id = :event_id)",
    "source": "s.source = :source",
    "since": "s.received_at >= :since",
    "until": "s.received_at < :until",
}
REJECT_CRITERIA = {
    "event_id": "r.event_id = :event_id",
    "source": "r.source = :source",
    "since": "r.received_at >= :since",
    "until": "r.received_at < :until",
}
_BYTES = "position(convert_to(:text, 'UTF8') IN h.{})"
ATTEMPT_CRITERIA = {
    "verdict": "a.verdict = :verdict",
    # The attempt's own code is its last hop's; a redirect that came before is only in the hops.
    "status_codes": """(a.status_code BETWEEN :lowest AND :highest OR EXISTS (
        SELECT FROM hops h WHERE h.attempt_id = a.id AND h.intent_at = a.intent_at
            AND h.status_code BETWEEN :lowest AND :highest))""",
    # The rule of a failure begins with its kind; the guard's says what the guard said.
    "error": """a.error_class IS NOT NULL
        AND (lower(a.error_class) = lower(:error) OR split_part(a.rule, ' ', 1) = :failure)""",
    "text": f"""EXISTS (SELECT FROM hops h WHERE h.attempt_id = a.id AND h.intent_at = a.intent_at
        AND (strpos(h.url, :text) > 0
            OR {" > 0 OR ".join(_BYTES.format(each) for each in ("request_head", "body", "response_head", "request_body"))} > 0))""",
}
"""All must hold of the same attempt."""
KNOWN = {*POSTBACK_CRITERIA, *ATTEMPT_CRITERIA}


def failure_kind(error: str) -> str:
    """The first word of the rule of an attempt that failed so."""
    return "egress" if error == "refused_by_guard" else error


def conditions(criteria: Criteria, fragments: dict[str, str]) -> str:
    """Those fragments that are about what is asked, as one condition."""
    given = criteria.given()
    asked = [
        f"NOT ({fragment})" if getattr(criteria, name) is False else fragment
        for name, fragment in fragments.items()
        if name in given
    ]
    return " AND ".join(asked) or "true"


def bound(criteria: Criteria) -> dict[str, Any]:
    """Every value that a fragment may bind."""
    lowest, highest = criteria.status_codes or (None, None)
    lowest_value, highest_value = criteria.value or (None, None)
    return dataclasses.asdict(criteria) | {
        "states": list(criteria.states),
        "lowest": lowest,
        "highest": highest,
        "lowest_value": lowest_value,
        "highest_value": highest_value,
        "failure": None if criteria.error is None else failure_kind(criteria.error.lower()),
    }


def postback_conditions(criteria: Criteria) -> tuple[str, dict[str, Any]]:
    """What must hold of ``postbacks p JOIN conversions c``, as SQL, and the values it may bind."""
    where = conditions(criteria, POSTBACK_CRITERIA)
    attempt = conditions(criteria, ATTEMPT_CRITERIA)
    if attempt != "true":
        where += f" AND p.attempts > 0 AND EXISTS (SELECT FROM attempts a WHERE a.postback_id = p.id AND {attempt})"
    return where, bound(criteria)


def run(connection: Connection, statement: str, values: dict[str, Any]) -> Sequence[Row[Any]]:
    """The rows of a statement that binds some of ``values``."""
    prepared = text(statement)
    return connection.execute(prepared, {name: values[name] for name in prepared.compile().params}).all()
