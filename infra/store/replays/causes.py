"""Dead letters by cause: what ended without being counted, grouped by what ended it, so that each can be mended once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from sqlalchemy import Engine, text

from infra.db.snapshot import snapshot
from schemas.lifecycle import State

LETTERS = (State.DEAD, State.REJECTED)
LONGEST_COUNT_S = 300.0

# What ended it in words: the rule of the attempt that did, or else the postback's own reason. What differs from one to the
# next (ids, addresses, amounts, quoted text) is left out, statuses and other short numbers are kept.
_RULE = """regexp_replace(CASE WHEN ended.state = p.state THEN ended.rule ELSE coalesce(p.reason, '') END,
    '"[^"]*"|''[^'']*''|[0-9]+\\.[0-9]+\\.[0-9]+\\.[0-9]+(:[0-9]+)?|[0-9a-f]{8}-[0-9a-f-]{27}|[0-9][0-9.,]{3,}', '…', 'g')"""
_CAUSE = f"""left(md5(concat_ws(chr(31), dv.destination, p.state, {_RULE},
    coalesce(CASE WHEN ended.state = p.state THEN ended.error_class END, ''),
    coalesce(CASE WHEN ended.state = p.state THEN ended.status_code END, 0))), 8)"""
_ENDED = """LEFT JOIN LATERAL (SELECT a.state, a.rule, a.error_class, a.status_code FROM attempts a
    WHERE a.postback_id = p.id ORDER BY a.number DESC, a.id DESC LIMIT 1) ended ON true"""

OF_CAUSE = f"""p.state IN ('dead', 'rejected') AND :cause = (SELECT {_CAUSE}
    FROM (SELECT 1) one {_ENDED} JOIN destination_versions dv ON dv.id = p.version_id)"""  # noqa: S608 — fixed fragments
"""What must hold of ``postbacks p`` for it to have ended of a cause, named by its key."""

_CAUSES = f"""
    SELECT {_CAUSE} AS key, dv.destination, p.state, {_RULE} AS rule,
        CASE WHEN ended.state = p.state THEN ended.error_class END AS error_class,
        CASE WHEN ended.state = p.state THEN ended.status_code END AS status_code, c.currency,
        count(*) AS postbacks, sum(c.net_value) FILTER (WHERE p.adjusts IS NULL) AS worth,
        min(p.settled_at) AS oldest_at, max(p.settled_at) AS newest_at, max(p.id) AS example
    FROM postbacks p JOIN destination_versions dv ON dv.id = p.version_id JOIN conversions c ON c.id = p.conversion_id
        {_ENDED}
    WHERE p.state = ANY(:states) AND p.state IN ('dead', 'rejected')
        AND dv.destination = coalesce(CAST(:destination AS text), dv.destination)
        AND p.settled_at >= coalesce(CAST(:since AS timestamptz), '-infinity')
    GROUP BY 1, 2, 3, 4, 5, 6, 7"""  # noqa: S608 — fixed fragments


@dataclass(frozen=True, slots=True)
class Cause:
    """Postbacks that ended alike. ``key`` selects exactly these: ``Selection(cause=key)``.

    ``worth``: what is left of the value of their conversions, by currency; corrections report nothing of their own.
    """

    key: str
    destination: str
    state: State
    rule: str
    error_class: str | None
    status_code: int | None
    postbacks: int
    worth: tuple[tuple[str, Decimal], ...]
    oldest_at: datetime
    newest_at: datetime
    example: int
    """Id of the newest postback."""


def causes(
    engine: Engine,
    states: Sequence[State] = LETTERS,
    *,
    destination: str | None = None,
    since: datetime | None = None,
) -> list[Cause]:
    """Causes of dead and rejected letters that ended ``since``, the most frequent first. None is left out."""
    values = {"states": [state.value for state in states], "destination": destination, "since": since}
    worth: dict[str, list[tuple[str, Decimal]]] = defaultdict(list)
    found: dict[str, Cause] = {}
    with snapshot(engine, timeout_s=LONGEST_COUNT_S) as connection:
        for row in connection.execute(text(_CAUSES), values):
            if row.currency is not None and row.worth is not None:
                worth[row.key].append((row.currency, row.worth))
            known = found.get(row.key)
            found[row.key] = Cause(
                key=row.key,
                destination=row.destination,
                state=State(row.state),
                rule=row.rule,
                error_class=row.error_class,
                status_code=row.status_code,
                postbacks=row.postbacks + (known.postbacks if known else 0),
                worth=tuple(sorted(worth[row.key])),
                oldest_at=min(row.oldest_at, known.oldest_at) if known else row.oldest_at,
                newest_at=max(row.newest_at, known.newest_at) if known else row.newest_at,
                example=max(row.example, known.example if known else 0),
            )
    return sorted(found.values(), key=lambda cause: (-cause.postbacks, cause.key))
