"""Pairing a report's rows with our postbacks: set by set in passes, the surest first, and never row by row."""

from __future__ import annotations

from sqlalchemy import Connection, text

from infra.store.reports.report_gathering import make

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
    first, *others = [each for each in _PASSES if has.issuperset(each)] or [()]
    if first:
        connection.execute(
            text(_pairs_by("r_theirs", "r_ours", first, same_order=_splits(first, has, sub_id=sub_id)))
        )
    _leave(connection)
    for key in others:
        _pair_left(
            connection, _pairs_by("r_left_t", "r_left_o", key, same_order=_splits(key, has, sub_id=sub_id))
        )
    if "order_id" in has:
        _pair_left(connection, _pairs_by("r_left_t", "r_left_o", ("order_id",), where="click_id IS NULL"))
    connection.execute(text("ANALYZE r_pairs"))
    return int(connection.execute(text("SELECT count(*) FROM r_pairs")).scalar_one())


def _columns_in_use(connection: Connection) -> set[str]:
    query = "SELECT count(click_id) AS click_id, count(order_id) AS order_id, count(name) AS name, count(value) AS value FROM r_theirs"
    row = connection.execute(text(query)).one()
    return {name for name, count in row._mapping.items() if count}


def _splits(key: tuple[str, ...], has: set[str], *, sub_id: bool) -> bool:
    """Two orders of one click are two conversions to such a network: without the order it must not pair them."""
    return sub_id and "order_id" in has and "order_id" not in key


def _pairs_by(
    theirs: str, ours: str, key: tuple[str, ...], *, same_order: bool = False, where: str = "true"
) -> str:
    """SQL that adds pairs: the n-th row of a key goes with its n-th postback; one that never fires comes last."""
    given = " AND ".join(f"{name} IS NOT NULL" for name in key)
    order = " AND (t.order_id IS NULL OR o.order_id IS NULL OR t.order_id = o.order_id)" if same_order else ""
    by = ", ".join(key)
    shown = ", ".join(dict.fromkeys((*key, "order_id")))
    return f"""
        INSERT INTO r_pairs SELECT t.line, o.postback_id
        FROM (SELECT line, {shown}, row_number() OVER (PARTITION BY {by} ORDER BY counted DESC, line) AS place
            FROM {theirs} WHERE {given} AND {where}) t
        JOIN (SELECT postback_id, {shown}, row_number() OVER (PARTITION BY {by} ORDER BY attempts = 0, postback_id) AS place
            FROM {ours} WHERE {given}) o
        ON {" AND ".join(f"t.{name} = o.{name}" for name in key)} AND t.place = o.place{order}"""  # noqa: S608 — fixed names


def _pair_left(connection: Connection, pairs: str) -> None:
    """Pair among what is left; what is paired leaves it in the same statement."""
    connection.execute(
        text(f"""
        WITH fresh AS ({pairs} RETURNING line, postback_id),
            gone AS (DELETE FROM r_left_t w USING fresh f WHERE f.line = w.line)
        DELETE FROM r_left_o w USING fresh f WHERE f.postback_id = w.postback_id""")  # noqa: S608 — fixed fragments
    )


def _leave(connection: Connection) -> None:
    """What the first pass, which takes most, left: the later passes read that alone."""
    connection.execute(text("ANALYZE r_pairs"))
    for name, whole, key in (("r_left_t", "r_theirs", "line"), ("r_left_o", "r_ours", "postback_id")):
        make(
            connection,
            name,
            f"SELECT * FROM {whole} w WHERE NOT EXISTS (SELECT FROM r_pairs p WHERE p.{key} = w.{key})",  # noqa: S608 — fixed names
            {},
        )


def compare(connection: Connection, *, tells_value: bool) -> int:
    """Lay the pairs out with both sides' values; ``clean`` ones agree in everything. Returns how many do."""
    make(
        connection,
        "r_compared",
        """
        SELECT p.line, p.postback_id, o.conversion_id, o.in_period, o.at, o.day AS our_day, o.value AS our_value, o.currency,
            o.delivered_at, o.click_id LIKE '%.' AS with_period, position('%' IN o.click_id) > 0 AS with_percent,
            o.click_id <> lower(o.click_id) AND o.click_id <> upper(o.click_id) AS mixed_case, length(o.click_id) AS size, t.value, t.occurred_at, t.day,
            o.state = 'delivered' AND NOT o.retracted AND t.counted AND (t.day IS NULL OR t.day = o.day)
            AND (NOT :tells OR t.value IS NULL OR o.value IS NULL OR (abs(t.value - o.value) < 0.001
                AND (t.currency IS NULL OR o.currency IS NULL OR t.currency = o.currency))) AS clean
        FROM r_pairs p JOIN r_theirs t ON t.line = p.line JOIN r_ours o ON o.postback_id = p.postback_id""",
        {"tells": tells_value},
    )
    return int(connection.execute(text("SELECT count(*) FROM r_compared WHERE clean")).scalar_one())


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
