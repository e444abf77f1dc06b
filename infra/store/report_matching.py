"""Laying a report beside our log: set by set, in temporary tables of one connection, and never row by row.

Rows and postbacks are paired in passes, the surest first: by click id and order, by click id, by order. What is left is
laid side by side in forms that damage leaves alike; whether they are one conversion is judged later.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, text

from infra.db.engine import copy_rows, copy_text
from schemas.destination import Contract
from schemas.reconciling.facts import DatedBy
from schemas.reconciling.tokens import SHORTEST_PREFIX, Shape, normal_form

MARGIN = timedelta(days=2)
"""Our log is read so far beyond the report's days: a day shift at its edge is no missing conversion."""
WORK_MEM = "64MB"
_PER_COPY = 20_000
_DECODED = 200_000
"""Ids with signs of encoding that are read back decoded; beyond that encoding is no exception but the rule."""


@dataclass(frozen=True, slots=True)
class Scope:
    """Which of our postbacks the report is about. ``first`` and ``last`` are days in ``zone``, both included."""

    contract: Contract
    versions: tuple[int, ...]
    zone: str
    dated_by: DatedBy
    first: date | None
    last: date | None

    @property
    def values(self) -> dict[str, Any]:
        names = self.contract.destination.event_names
        return {
            "versions": list(self.versions),
            "zone": self.zone,
            "first": self.first,
            "last": self.last,
            "margin": MARGIN,
            "destination": self.contract.name,
            "network": self.contract.network.slug,
            "shown": list(names),
            "called": list(names.values()),
        }


_DATED: dict[str, str] = {
    "event": "c.occurred_at",
    # What was never delivered is dated by when it was tried first, or is due.
    "delivery": "CASE WHEN p.state = 'delivered' THEN p.settled_at ELSE coalesce(p.first_attempt_at, p.release_at) END",
    "click": "coalesce((c.matched->:destination->>'clicked_at')::timestamptz, (c.event->>'clicked_at')::timestamptz, c.occurred_at)",
}
# A conversion is received after it happened, give or take the clock's tolerance: the index on the receipt prunes.
_RECEIVED = {
    "event": "c.received_at >= CAST(:first AS date)::timestamp AT TIME ZONE :zone - CAST(:margin AS interval) - interval '1 hour'",
    "click": "c.received_at >= CAST(:first AS date)::timestamp AT TIME ZONE :zone - CAST(:margin AS interval) - interval '1 hour'",
    "delivery": "c.received_at < (CAST(:last AS date) + 1)::timestamp AT TIME ZONE :zone + CAST(:margin AS interval)",
}
_SENT = """CASE WHEN c.matched IS NULL AND cardinality(c.click_ids) = 1 AND c.click_ids[1] NOT LIKE 'sha256:%'
    THEN c.click_ids[1] ELSE coalesce(c.matched->:destination->>'token', c.event->'click_ids'->>:destination,
        c.event->'click_ids'->>:network) END"""
_PARTNER = "c.event->>'partner_id'"


def prepare(connection: Connection) -> None:
    """Settings for the length of a reconciliation: large sorts and joins, no end to a statement but its own."""
    for statement in (
        "SET statement_timeout = 0",
        f"SET work_mem = '{WORK_MEM}'",
        "SET temp_buffers = '16MB'",
    ):
        connection.execute(text(statement))


def gather_ours(connection: Connection, scope: Scope) -> int:
    """The destination's postbacks of the report's days, and of a margin around them. Returns how many."""
    at = _DATED[scope.dated_by]
    bounds = ["p.version_id = ANY(:versions)", "p.adjusts IS NULL"]
    inside = ["true"]
    if scope.first is not None:
        start = "CAST(:first AS date)::timestamp AT TIME ZONE :zone"
        bounds += [f"{at} >= {start} - CAST(:margin AS interval)"]
        inside.append(f"{at} >= {start}")
        if scope.dated_by != "delivery":
            bounds.append(_RECEIVED[scope.dated_by])
    if scope.last is not None:
        end = "(CAST(:last AS date) + 1)::timestamp AT TIME ZONE :zone"
        bounds.append(f"{at} < {end} + CAST(:margin AS interval)")
        inside.append(f"{at} < {end}")
        if scope.dated_by == "delivery":
            bounds.append(_RECEIVED["delivery"])
    token = _PARTNER if scope.contract.protocol == "partner" else _SENT
    # Fixed fragments only, every value is bound.
    return _make(
        connection,
        "r_ours",
        f"""
        SELECT p.id AS postback_id, p.conversion_id, ({token}) COLLATE "C" AS click_id, c.order_id COLLATE "C" AS order_id,
            coalesce((CAST(:called AS text[]))[array_position(CAST(:shown AS text[]), c.name)], c.name) COLLATE "C" AS name,
            p.state, p.attempts, coalesce(p.reported, c.value) AS value, c.currency, p.retracted_at IS NOT NULL AS retracted,
            CASE WHEN p.state = 'delivered' THEN p.settled_at END AS delivered_at,
            {at} AS at, ({at} AT TIME ZONE :zone)::date AS day, {" AND ".join(inside)} AS in_period
        FROM postbacks p JOIN conversions c ON c.id = p.conversion_id
        WHERE {" AND ".join(bounds)}""",  # noqa: S608 — fixed fragments
        scope.values,
    )


def gather_theirs(connection: Connection, report_id: int, scope: Scope, uncounted: Sequence[str]) -> int:
    """The report's readable rows of its days. Returns how many."""
    return _make(
        connection,
        "r_theirs",
        """
        SELECT line, click_id, order_id, name, value, currency, occurred_at, day,
            status IS NULL OR status <> ALL(:uncounted) AS counted
        FROM report_rows WHERE report_id = :report AND problem IS NULL
            AND (day IS NULL OR ((CAST(:first AS date) IS NULL OR day >= :first) AND (CAST(:last AS date) IS NULL OR day <= :last)))""",
        {"report": report_id, "uncounted": list(uncounted), "first": scope.first, "last": scope.last},
    )


_PASSES: tuple[tuple[str, ...], ...] = (
    ("click_id", "order_id"),
    ("click_id", "name", "value"),
    ("click_id", "name"),
    ("click_id", "value"),
    ("click_id",),
)
"""Keys by which a row and a postback are the same conversion, the surest first."""


def pair(connection: Connection, *, sub_id: bool) -> int:
    """Pair rows and postbacks one to one. ``sub_id``: the network tells conversions of a click apart by order id.

    Returns how many pairs there are.
    """
    has = _columns_in_use(connection)
    connection.execute(text("CREATE TEMP TABLE r_pairs (line integer NOT NULL, postback_id bigint NOT NULL)"))
    theirs, ours = "r_theirs", "r_ours"
    for key in [each for each in _PASSES if has.issuperset(each)]:
        # Two orders of one click are two conversions to such a network: without the order it must not pair them.
        distinct = sub_id and "order_id" in has and "order_id" not in key
        _pair_by(connection, theirs, ours, key, same_order=distinct)
        if theirs == "r_theirs":
            _leave(connection)
            theirs, ours = "r_left_t", "r_left_o"
        else:
            _drop_paired(connection)
    if theirs == "r_theirs":
        _leave(connection)
    if "order_id" in has:
        _pair_by(connection, "r_left_t", "r_left_o", ("order_id",), where="click_id IS NULL")
        _drop_paired(connection)
    connection.execute(text("ANALYZE r_pairs"))
    return int(connection.execute(text("SELECT count(*) FROM r_pairs")).scalar_one())


def _columns_in_use(connection: Connection) -> set[str]:
    query = "SELECT count(click_id) AS click_id, count(order_id) AS order_id, count(name) AS name, count(value) AS value FROM r_theirs"
    row = connection.execute(text(query)).one()
    return {name for name, count in row._mapping.items() if count}


def _pair_by(  # noqa: PLR0913 — both sides, the key, and what else must hold
    connection: Connection,
    theirs: str,
    ours: str,
    key: tuple[str, ...],
    *,
    same_order: bool = False,
    where: str = "true",
) -> None:
    """The n-th row of a key goes with its n-th postback; one that never fires comes last."""
    given = " AND ".join(f"{name} IS NOT NULL" for name in key)
    order = " AND (t.order_id IS NULL OR o.order_id IS NULL OR t.order_id = o.order_id)" if same_order else ""
    by = ", ".join(key)
    shown = ", ".join(dict.fromkeys((*key, "order_id")))
    connection.execute(
        text(f"""
        INSERT INTO r_pairs SELECT t.line, o.postback_id
        FROM (SELECT line, {shown}, row_number() OVER (PARTITION BY {by} ORDER BY counted DESC, line) AS place
            FROM {theirs} WHERE {given} AND {where}) t
        JOIN (SELECT postback_id, {shown}, row_number() OVER (PARTITION BY {by} ORDER BY attempts = 0, postback_id) AS place
            FROM {ours} WHERE {given}) o
        ON {" AND ".join(f"t.{name} = o.{name}" for name in key)} AND t.place = o.place{order}""")  # noqa: S608 — fixed names
    )


def _leave(connection: Connection) -> None:
    """What the first pass, which takes most, left: the later passes read that alone."""
    connection.execute(text("ANALYZE r_pairs"))
    for name, whole, key in (("r_left_t", "r_theirs", "line"), ("r_left_o", "r_ours", "postback_id")):
        _make(
            connection,
            name,
            f"SELECT * FROM {whole} w WHERE NOT EXISTS (SELECT FROM r_pairs p WHERE p.{key} = w.{key})",  # noqa: S608 — fixed names
            {},
        )


def _drop_paired(connection: Connection) -> None:
    for name, key in (("r_left_t", "line"), ("r_left_o", "postback_id")):
        connection.execute(
            text(f"DELETE FROM {name} w USING r_pairs p WHERE p.{key} = w.{key}")  # noqa: S608 — fixed names
        )


def compare(connection: Connection, *, tells_value: bool) -> int:
    """Lay the pairs out with both sides' values; ``clean`` ones agree in everything. Returns how many do."""
    _make(
        connection,
        "r_compared",
        """
        SELECT p.line, p.postback_id, o.conversion_id, o.in_period, o.at, o.day AS our_day, o.value AS our_value, o.currency,
            o.delivered_at, t.value, t.occurred_at, t.day,
            o.state = 'delivered' AND NOT o.retracted AND t.counted AND (t.day IS NULL OR t.day = o.day)
            AND (NOT :tells OR t.value IS NULL OR o.value IS NULL OR (abs(t.value - o.value) < 0.001
                AND (t.currency IS NULL OR o.currency IS NULL OR t.currency = o.currency))) AS clean
        FROM r_pairs p JOIN r_theirs t ON t.line = p.line JOIN r_ours o ON o.postback_id = p.postback_id""",
        {"tells": tells_value},
    )
    return int(connection.execute(text("SELECT count(*) FROM r_compared WHERE clean")).scalar_one())


@dataclass(frozen=True, slots=True)
class Patterns:
    """Histograms over all pairs, for what explains most differences at once."""

    dates_only: bool
    days: dict[int, int]
    instants: dict[int, int]
    other_days: int
    ratios: dict[Decimal, int]
    other_values: int
    shape: Shape
    counted_until: datetime | None
    """When the last one was delivered that the report counts."""


def patterns(connection: Connection, zone: str) -> Patterns:
    """What the pairs have in common."""
    days = connection.execute(
        text("""
        SELECT ceil(extract(epoch FROM day::timestamp - (at AT TIME ZONE :zone)) / 900)::integer AS gap, count(*) AS n
        FROM r_compared WHERE day IS NOT NULL AND occurred_at IS NULL GROUP BY 1"""),
        {"zone": zone},
    ).all()
    instants = connection.execute(
        text("""
        SELECT round(extract(epoch FROM occurred_at - at) / 900)::integer AS gap, count(*) AS n
        FROM r_compared WHERE occurred_at IS NOT NULL GROUP BY 1""")
    ).all()
    ratios = connection.execute(
        text("""
        SELECT round(value / our_value, 3) AS ratio, count(*) AS n FROM r_compared
        WHERE our_value <> 0 AND abs(value - our_value) >= 0.01 GROUP BY 1 ORDER BY 2 DESC LIMIT 1000""")
    ).all()
    counts = connection.execute(
        text("""
        SELECT count(*) FILTER (WHERE day <> our_day) AS days,
            count(*) FILTER (WHERE our_value <> 0 AND abs(value - our_value) >= 0.01) AS values,
            max(delivered_at) AS until FROM r_compared""")
    ).one()
    return Patterns(
        dates_only=not instants,
        days={row.gap: row.n for row in days},
        instants={row.gap: row.n for row in instants},
        other_days=counts.days,
        ratios={row.ratio: row.n for row in ratios},
        other_values=counts.values,
        shape=_shape(connection),
        counted_until=counts.until,
    )


def _shape(connection: Connection) -> Shape:
    row = connection.execute(
        text("""
        SELECT count(*) AS counted, count(*) FILTER (WHERE o.click_id LIKE '%.') AS with_period,
            count(*) FILTER (WHERE o.click_id <> lower(o.click_id) AND o.click_id <> upper(o.click_id)) AS mixed_case,
            count(*) FILTER (WHERE position('%' IN o.click_id) > 0) AS with_percent,
            coalesce(min(length(o.click_id)), 0) AS shortest
        FROM r_pairs p JOIN r_ours o USING (postback_id) WHERE o.click_id IS NOT NULL""")
    ).one()
    return Shape(**row._mapping)


def find_repeats(connection: Connection, *, sub_id: bool) -> int:
    """Rows left over whose conversion another row stands for already. They leave the rest. Returns how many."""
    connection.execute(
        text("CREATE TEMP TABLE r_repeats (line integer NOT NULL, postback_id bigint NOT NULL)")
    )
    same = "(t.order_id IS NULL OR o.order_id IS NULL OR t.order_id = o.order_id)" if sub_id else "true"
    found = connection.execute(
        text(f"""
        INSERT INTO r_repeats SELECT DISTINCT ON (t.line) t.line, o.postback_id
        FROM r_left_t t JOIN r_ours o ON o.click_id = t.click_id JOIN r_pairs p ON p.postback_id = o.postback_id
        WHERE o.attempts > 0 AND {same}
        ORDER BY t.line, t.order_id IS NOT DISTINCT FROM o.order_id DESC, o.postback_id""")  # noqa: S608 — fixed fragments
    ).rowcount
    found += connection.execute(
        text("""
        INSERT INTO r_repeats SELECT DISTINCT ON (t.line) t.line, o.postback_id
        FROM r_left_t t JOIN r_ours o ON o.order_id = t.order_id JOIN r_pairs p ON p.postback_id = o.postback_id
        WHERE t.click_id IS NULL AND o.attempts > 0 ORDER BY t.line, o.postback_id""")
    ).rowcount
    connection.execute(text("DELETE FROM r_left_t t USING r_repeats r WHERE r.line = t.line"))
    connection.execute(text("ANALYZE r_left_t"))
    return int(found)


def find_near(connection: Connection) -> None:
    """Candidates for one conversion with a damaged click id: what is left on both sides, in forms that damage leaves alike."""
    connection.execute(
        text(
            "CREATE TEMP TABLE r_near (line integer NOT NULL, postback_id bigint NOT NULL);"
            'CREATE TEMP TABLE r_forms (ours boolean NOT NULL, ref bigint NOT NULL, form text COLLATE "C" NOT NULL)'
        )
    )
    # The same order is the best hint there is: it tells tokens apart that begin alike.
    _near_by(connection, "order_id")
    _near_by(connection, "rtrim(click_id, '.')")
    _decode(connection)
    _near_by(connection, "rtrim(lower(click_id), '.')")
    before = connection.execute(text("SELECT count(*) FROM r_near")).scalar_one()
    connection.execute(text("ALTER TABLE r_near ADD COLUMN by_prefix boolean NOT NULL DEFAULT false"))
    connection.execute(text("ALTER TABLE r_near ALTER COLUMN by_prefix SET DEFAULT true"))
    _near_by_prefix(connection, "r_left_t", "line", "r_left_o", "postback_id")
    _near_by_prefix(connection, "r_left_o", "postback_id", "r_left_t", "line")
    if connection.execute(text("SELECT count(*) FROM r_near")).scalar_one() > before:
        _drop_common_prefixes(connection)
    connection.execute(text("ANALYZE r_near"))


_UNCLAIMED_T = "click_id IS NOT NULL AND NOT EXISTS (SELECT FROM r_near n WHERE n.line = r_left_t.line)"
_UNCLAIMED_O = "click_id IS NOT NULL AND attempts > 0 AND NOT EXISTS (SELECT FROM r_near n WHERE n.postback_id = r_left_o.postback_id)"


def _near_by(connection: Connection, form: str) -> None:
    # Fixed expressions only.
    connection.execute(
        text(f"""
        INSERT INTO r_near SELECT t.line, o.postback_id
        FROM (SELECT line, {form} AS form, row_number() OVER (PARTITION BY {form} ORDER BY line) AS place
            FROM r_left_t WHERE {_UNCLAIMED_T} AND {form} <> '') t
        JOIN (SELECT postback_id, {form} AS form, row_number() OVER (PARTITION BY {form} ORDER BY postback_id) AS place
            FROM r_left_o WHERE {_UNCLAIMED_O} AND {form} <> '') o
        ON t.form = o.form AND t.place = o.place""")  # noqa: S608 — fixed fragments
    )


def _decode(connection: Connection) -> None:
    """Pair what differs by encoding: the few ids with signs of it are read, decoded, and laid beside the others."""
    signs = "(click_id LIKE '%\\%%' OR click_id LIKE '%+%' OR click_id LIKE '% %')"
    forms: list[tuple[str, str, str]] = []
    for ours, table, key, free in (
        ("f", "r_left_t", "line", _UNCLAIMED_T),
        ("t", "r_left_o", "postback_id", _UNCLAIMED_O),
    ):
        rows = connection.execute(
            text(f"SELECT {key} AS ref, click_id FROM {table} WHERE {free} AND {signs} LIMIT {_DECODED}")  # noqa: S608 — fixed names
        )
        forms += [(ours, str(row.ref), copy_text(normal_form(row.click_id))) for row in rows]
    if not forms:
        return
    for start in range(0, len(forms), _PER_COPY):
        copy_rows(connection, "r_forms", ("ours", "ref", "form"), forms[start : start + _PER_COPY])
    connection.execute(
        text(f"""
        INSERT INTO r_near SELECT DISTINCT ON (o.ref) t.ref, o.ref
        FROM (SELECT ref, form FROM r_forms WHERE NOT ours UNION ALL SELECT line, click_id FROM r_left_t WHERE {_UNCLAIMED_T}) t
        JOIN (SELECT ref, form FROM r_forms WHERE ours UNION ALL SELECT postback_id, click_id FROM r_left_o WHERE {_UNCLAIMED_O}) o
        ON t.form = o.form ORDER BY o.ref, t.ref""")  # noqa: S608 — fixed fragments
    )
    connection.execute(
        text("DELETE FROM r_near a USING r_near b WHERE a.line = b.line AND a.postback_id > b.postback_id")
    )


def _near_by_prefix(connection: Connection, short: str, short_key: str, whole: str, whole_key: str) -> None:
    """Pair an id with one that begins with it. Sorted byte by byte, what begins with it is the next id after it, if
    anything is: one pass over both, and no comparing of each with each. What begins several of them tells nothing."""
    line, postback = ("s", "w") if short == "r_left_t" else ("w", "s")
    free = {"r_left_t": _UNCLAIMED_T, "r_left_o": _UNCLAIMED_O}
    connection.execute(
        text(f"""
        INSERT INTO r_near SELECT DISTINCT ON ({line}.line_ref) {line}.line_ref, {postback}.postback_ref
        FROM (SELECT short_ref, click_id, min(whole_id COLLATE "C") OVER (
                    ORDER BY lower(click_id) COLLATE "C" DESC, short_ref IS NULL DESC ROWS UNBOUNDED PRECEDING) AS next_id
            FROM (SELECT {short_key}::bigint AS short_ref, click_id, NULL::text AS whole_id FROM {short} WHERE {free[short]}
                UNION ALL SELECT NULL, click_id, lower(click_id) COLLATE "C" FROM {whole} WHERE {free[whole]}) both_sides) found
        JOIN (SELECT {whole_key}::bigint AS whole_ref, lower(click_id) COLLATE "C" AS form,
                lead(lower(click_id) COLLATE "C") OVER (ORDER BY lower(click_id) COLLATE "C") AS following
            FROM {whole} WHERE {free[whole]}) w0 ON w0.form = found.next_id
        CROSS JOIN LATERAL (SELECT found.short_ref AS {_ref(short)}) s
        CROSS JOIN LATERAL (SELECT w0.whole_ref AS {_ref(whole)}) w
        WHERE found.short_ref IS NOT NULL AND length(found.click_id) >= {SHORTEST_PREFIX}
            AND starts_with(found.next_id, lower(found.click_id)) AND found.next_id <> lower(found.click_id)
            AND NOT coalesce(starts_with(w0.following, lower(found.click_id)), false)
        ORDER BY {line}.line_ref, {postback}.postback_ref""")  # noqa: S608 — fixed fragments
    )
    connection.execute(
        text("DELETE FROM r_near a USING r_near b WHERE a.postback_id = b.postback_id AND a.line > b.line")
    )


_BEGUN = """EXISTS (SELECT FROM {whole} x WHERE x.click_id >= s.click_id AND x.click_id < s.click_id || chr(1114111)
    AND x.click_id <> w.click_id AND x.click_id <> s.click_id)"""


def _drop_common_prefixes(connection: Connection) -> None:
    """An id that begins others as well, paired ones included, was cut where all of them are alike: it tells nothing."""
    sides = (("r_theirs", "line", "r_ours", "postback_id"), ("r_ours", "postback_id", "r_theirs", "line"))
    for short, short_key, whole, whole_key in sides:
        connection.execute(text(f"CREATE INDEX {whole}_click ON {whole} (click_id)"))
        connection.execute(
            text(f"""
            DELETE FROM r_near n USING {short} s, {whole} w
            WHERE n.by_prefix AND s.{short_key} = n.{short_key} AND w.{whole_key} = n.{whole_key}
                AND length(s.click_id) < length(w.click_id) AND {_BEGUN.format(whole=whole)}""")  # noqa: S608 — fixed fragments
        )


def _ref(table: str) -> str:
    return "line_ref" if table == "r_left_t" else "postback_ref"


def _make(connection: Connection, name: str, query: str, values: dict[str, Any]) -> int:
    """A temporary table of what ``query`` gives, analysed. Returns its size."""
    bound = text(f"CREATE TEMP TABLE {name} AS {query}")
    made = connection.execute(bound, {each: values[each] for each in bound.compile().params}).rowcount
    connection.execute(text(f"ANALYZE {name}"))
    return int(made)
