"""Housekeeping that must not wait for a person: the coming months' evidence partitions."""

from __future__ import annotations

import structlog
from sqlalchemy import Engine, text

from infra.db.partitions import make_partitions

log = structlog.get_logger()


def make_room(engine: Engine) -> list[str]:
    """Make the partitions of the coming months; names of the new ones.

    A month is made two months ahead, so a try that meets a long reader gives way: behind its lock others would queue.
    """
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL lock_timeout = '5s'"))
        made = make_partitions(connection)
    if made:
        log.info("partitions.made", names=made)
    return made
