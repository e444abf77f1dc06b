"""What is left of both sides, laid side by side in forms that damage to a click id leaves alike. Judged later."""

from __future__ import annotations

from sqlalchemy import Connection, text

from infra.db.engine import copy_rows, copy_text
from schemas.reconciling.tokens import SHORTEST_PREFIX, normal_form

_PER_COPY = 20_000
_DECODED = 200_000
"""Ids with signs of encoding that are read back decoded; beyond that encoding is no exception but the rule."""


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
