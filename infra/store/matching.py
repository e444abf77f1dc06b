"""The register of clicks, and matching: click ids for conversions that came without, found by the keys they share.

The most telling key that leads anywhere decides; under it, the last click at or before the conversion.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from sqlalchemy import Connection, text

from infra.db.engine import as_json
from schemas.click import KEYS, Click, Match, Matches, keys_of
from schemas.conversion import wanting
from schemas.destination import DestinationVersion
from schemas.event import ConversionEvent

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Found:
    """A conversion in the store, and the click ids that were found for it."""

    conversion_id: int
    event: ConversionEvent
    matches: Matches


def register(connection: Connection, clicks: Sequence[tuple[int, Click]]) -> None:
    """Put clicks, each with the number of the request it came in, into the register, within the caller's transaction.

    They wait there to be held against the conversions that were before them.
    """
    if not clicks:
        return
    rows = [
        {
            "inbox_id": number,
            "clicked_at": click.clicked_at,
            "source": click.source,
            "click_ids": click.click_ids,
            **click.keys,
        }
        for number, click in clicks
    ]
    connection.execute(
        text("""
        WITH new AS (
            INSERT INTO clicks (inbox_id, clicked_at, source, click_ids, order_id, lead_id, customer_id, device_id)
            SELECT * FROM json_to_recordset(:rows) AS r(inbox_id bigint, clicked_at timestamptz, source text,
                click_ids json, order_id text, lead_id text, customer_id text, device_id text) RETURNING id)
        INSERT INTO clicks_waiting SELECT id FROM new"""),
        {"rows": as_json(rows)},
    )


# One branch a key, so that each is an index's own. The name comes before the network, as in an event's click_ids.
_BRANCH = """
    SELECT r.place, r.destination, '{key}' AS key, c.id, c.clicked_at, c.token
    FROM wanted r CROSS JOIN LATERAL (
        SELECT k.id, k.clicked_at, coalesce(k.click_ids->>r.destination, k.click_ids->>r.network) AS token FROM clicks k
        WHERE k.{key} = r.value AND k.clicked_at <= r.at
            AND coalesce(k.click_ids->>r.destination, k.click_ids->>r.network) IS NOT NULL
        ORDER BY k.clicked_at DESC, k.id DESC LIMIT 1) c
    WHERE r.key = '{key}'"""
_BRANCHES = "\n    UNION ALL".join(_BRANCH.format(key=key) for key in KEYS)
FIND = text(f"""
    WITH wanted AS (
        SELECT * FROM json_to_recordset(:rows)
            AS r(place integer, destination text, network text, key text, value text, at timestamptz))
    {_BRANCHES}""")  # noqa: S608 — names of ours


def find(
    connection: Connection, events: Mapping[K, ConversionEvent], versions: list[DestinationVersion]
) -> dict[K, Matches]:
    """Click ids for the destinations that lack one, by event. One query, and none where no event needs it."""
    keys = list(events)
    rows = [
        {
            "place": place,
            "destination": contract.name,
            # A destination with parameters of its own has its click ids under its own name alone.
            "network": None if contract.destination.click_parameters else contract.network.slug,
            "key": name,
            "value": value,
            "at": event.occurred_at,
        }
        for place, event in enumerate(events.values())
        for contract in wanting(event, versions)
        for name, value in keys_of(event).items()
    ]
    if not rows:
        return {}
    found: dict[K, dict[str, Match]] = {}
    hits = connection.execute(FIND, {"rows": as_json(rows)}).all()
    for hit in sorted(hits, key=lambda hit: KEYS.index(hit.key)):
        match = Match(hit.id, hit.token, hit.clicked_at, hit.key)
        found.setdefault(keys[hit.place], {}).setdefault(hit.destination, match)
    return dict(found)


def record(
    connection: Connection, found: Iterable[Found], versions: Sequence[DestinationVersion], now: datetime
) -> None:
    """Write down, as evidence, which click gave a conversion its click id, and by which key."""
    networks = {version.contract.name: version.contract.network.slug for version in versions}
    rows = [
        {
            "conversion_id": each.conversion_id,
            "click_row": match.click,
            "destination": destination,
            "network": networks[destination],
            "key": match.key,
            "key_value": getattr(each.event, match.key),
            "click_id": match.token,
            "clicked_at": match.clicked_at,
        }
        for each in found
        for destination, match in each.matches.items()
    ]
    if rows:
        connection.execute(
            text("""
            INSERT INTO matches (at, conversion_id, click_row, destination, network, key, key_value, click_id, clicked_at)
            SELECT :now, r.* FROM json_to_recordset(:rows) AS r(conversion_id bigint, click_row bigint, destination text,
                network text, key text, key_value text, click_id text, clicked_at timestamptz)"""),
            {"rows": as_json(rows), "now": now},
        )
