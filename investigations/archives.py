"""What a search for attempts finds in archives, beside what the tables have."""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy import Engine

from infra.store.records import FoundPostback
from infra.store.searching import search
from infra.store.searching.archive_search import asks_about_attempts, find_in_archives, tables_begin
from infra.store.searching.criteria import Criteria
from infra.store.searching.search import Found
from investigations.page import say
from investigations.words import visible


def in_archives(
    engine: Engine,
    criteria: Criteria,
    found: Found[FoundPostback],
    limit: int | None,
    *,
    look_into_them: bool,
) -> Found[FoundPostback]:
    """What was found in the tables, with what archives have if they are to be looked into; else it is said where the
    tables begin. Conversions and postbacks never leave the tables: only filters about attempts miss anything there."""
    if not asks_about_attempts(criteria):
        return found
    if not look_into_them:
        if (begin := tables_begin(engine)) is not None:
            say(f"Attempts before {begin:%Y-%m} are in archives: --archived looks into them too.")
        return found
    further = find_in_archives(engine, criteria, lambda file: say(f"Looking into {visible(file)}…"))
    for reason in further.unreadable:
        say(f"Not looked into: archive {visible(reason)}")
    bare = Criteria()
    rows = [
        row
        for number in further.postbacks[:limit]
        for row in search.search_page(engine, replace(bare, postback_id=number)).rows
    ]
    together = sorted([*found.rows, *rows], key=lambda row: row.postback_id, reverse=True)
    return Found(together[:limit], found.total + len(further.postbacks), found.beyond)
