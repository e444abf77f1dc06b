"""Transactional enqueue: an event that is sent if, and only if, the transaction that made it commits.

For services on PostgreSQL with SQLAlchemy. The event is a row in a table of the service's own database, written in the
service's own transaction; a relay gives committed rows to the queue and deletes them. docs/producers.md shows it.

This is not :mod:`infra.store.outbox`, which is the HTTP door's and lies in Holdfire's database.
"""

from __future__ import annotations

import random
import threading
from datetime import UTC, datetime
from typing import Any, Final

import orjson
import structlog
from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    DateTime,
    Engine,
    Identity,
    MetaData,
    Table,
    Text,
    delete,
    func,
    insert,
    select,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.orm import Session, scoped_session
from sqlalchemy.schema import CreateTable

from producers.client import BrokerUnavailableError, Holdfire
from producers.message import Checked, Given, check, chunks
from schemas.event import MAX_EVENTS_PER_MESSAGE

__all__ = ["Outbox", "OutboxError", "Relay"]

log = structlog.get_logger()

TABLE: Final = "holdfire_outbox"
POLL_S: Final = 0.5
SEND_DEADLINE_S: Final = 2.0
"""How long a message is tried while its rows are locked; after that they are let go, and the pause is without a lock."""
FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 30.0


class OutboxError(RuntimeError):
    """The outbox cannot be used like this: why, and what to do about it."""


class Outbox:
    """The table that events wait in. Make one for the process, beside the service's own tables."""

    def __init__(
        self, metadata: MetaData | None = None, table: str = TABLE, *, schema: str | None = None
    ) -> None:
        """With the service's ``metadata`` the table is part of it, for ``create_all`` and for migrations."""
        self.table = Table(
            table,
            metadata if metadata is not None else MetaData(),
            # The order of enqueueing, which is not that of commits: a relay takes what is there and remembers no place,
            # so that a row that is committed late is taken late, and never passed over.
            Column("id", BigInteger, Identity(), primary_key=True),
            Column("enqueued_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
            Column("event", Text, nullable=False, comment="JSON, as it goes to the queue"),
            schema=schema,
            # Rows live for seconds; without this the dead ones pile up until a fifth of the table is dead.
            postgresql_with={"autovacuum_vacuum_scale_factor": 0, "autovacuum_vacuum_threshold": 2000},
        )

    def enqueue(self, session: Session | scoped_session[Session] | Connection, event: Given) -> None:
        """Validate an event and write it within the caller's transaction, which commits or takes it back.

        Under an AsyncSession or AsyncConnection: ``await session.run_sync(outbox.enqueue, event)``. Raises
        InvalidInputError with every problem found, and OutboxError where there is no transaction to be part of.
        """
        checked = check(event, datetime.now(UTC))
        statement = insert(self.table)
        if isinstance(session, Connection):
            connection = session
        else:
            connection = session.connection(bind_arguments={"clause": statement})
        _check_transactional(connection)
        connection.execute(statement, {"event": checked.body.decode()})

    def create(self, engine: Engine | Connection) -> None:
        """Make the table if it is not there."""
        self.table.create(engine, checkfirst=True)

    def ddl(self) -> str:
        """The statement that makes the table, for a migration written by hand."""
        dialect = postgresql.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy has not typed its dialects
        return f"{str(CreateTable(self.table).compile(dialect=dialect)).strip()};"

    def depth(self, engine: Engine) -> int:
        """How many events wait for a relay."""
        with engine.connect() as connection:
            return int(connection.execute(select(func.count()).select_from(self.table)).scalar_one())


def _check_transactional(connection: Connection) -> None:
    if connection.dialect.name != "postgresql":
        raise OutboxError(
            f"an outbox needs PostgreSQL, and this connection is {connection.dialect.name}; send with "
            "producers.client.Holdfire after the commit instead"
        )
    # Each driver's own attribute: asking the server would cost a round trip an event.
    if getattr(connection.connection.dbapi_connection, "autocommit", False) is True:
        raise OutboxError(
            "this connection is in AUTOCOMMIT, so that nothing could take the event back; enqueue within a transaction"
        )


class Relay:
    """Gives committed events to the queue. Any number may run side by side: each row is taken by one of them.

    A relay that dies between sending and deleting leaves its rows, which are sent again; intake takes each
    ``(source, event_id)`` once.
    """

    def __init__(
        self, engine: Engine, holdfire: Holdfire, outbox: Outbox | None = None, *, poll_s: float = POLL_S
    ) -> None:
        """``engine`` is on the database with the outbox; ``poll_s`` is how often an empty outbox is looked at."""
        self.sent = 0
        """Events given to the queue so far."""
        self._engine = engine
        self._holdfire = holdfire
        self._outbox = outbox or Outbox()
        self._poll_s = poll_s
        self._stopping = threading.Event()

    def run_forever(self) -> None:
        """Relay until ``stop``. While the broker or the database is away: pause, ever longer, and try again.

        Raises what will not pass by itself, such as a missing table.
        """
        pause_s, failures = 0.0, 0
        while not self._stopping.wait(pause_s):
            try:
                full = self.pass_on() == MAX_EVENTS_PER_MESSAGE
                pause_s, failures = 0.0 if full else self._poll_s, 0
            except BrokerUnavailableError as error:
                failures += 1
                pause_s = _pause_s(failures)
                log.warning("broker.away", error=error.reason, again_in_s=round(pause_s, 1))
            except DBAPIError as error:
                if not _passes(error):
                    raise
                failures += 1
                pause_s = _pause_s(failures)
                log.warning("database.away", error=type(error.orig).__name__, again_in_s=round(pause_s, 1))

    def run_once(self) -> int:
        """Relay all that is committed and not in another relay's hands. Returns how many events.

        Raises BrokerUnavailableError; what it did not take stays.
        """
        before = self.sent
        while not self._stopping.is_set() and self.pass_on() == MAX_EVENTS_PER_MESSAGE:
            pass
        return self.sent - before

    def stop(self) -> None:
        """End ``run_forever`` after the batch that is under way. Safe in a signal handler and from any thread."""
        self._stopping.set()

    def pass_on(self) -> int:
        """Send the oldest events nobody else is sending, at most 500, and delete what the broker took.

        Returns how many. Raises BrokerUnavailableError.
        """
        table = self._outbox.table
        oldest = (
            select(table.c.id, table.c.event)
            .order_by(table.c.id)
            .limit(MAX_EVENTS_PER_MESSAGE)
            .with_for_update(skip_locked=True)
        )
        with self._engine.begin() as connection:
            rows = connection.execute(oldest).all()
            taken, failure = self._send([event for _, event in rows])
            if taken:
                # Locked by us, so that these are exactly the rows that were sent.
                connection.execute(delete(table).where(table.c.id.in_([id_ for id_, _ in rows[:taken]])))
        self.sent += taken
        if failure is not None:
            raise failure
        return taken

    def _send(self, bodies: list[str]) -> tuple[int, BrokerUnavailableError | None]:
        """How many events the broker took, from the first on, and what it said to the next one."""
        taken = 0
        for chunk in chunks(Checked(_decoded(body), body.encode()) for body in bodies):
            try:
                self._holdfire.send(chunk, min(self._holdfire.deadline_s, SEND_DEADLINE_S))
            except BrokerUnavailableError as error:
                return taken, error
            taken += chunk.count
        return taken, None


def _decoded(body: str) -> dict[str, Any]:
    decoded: dict[str, Any] = orjson.loads(body)
    return decoded


def _pause_s(failures: int) -> float:
    longest = min(FIRST_PAUSE_S * 2.0 ** min(failures - 1, 20), LONGEST_PAUSE_S)
    return random.uniform(longest / 2, longest)  # noqa: S311 — jitter, not cryptography


def _passes(error: DBAPIError) -> bool:
    """Whether the database is only away, restarting or short of something, whatever the driver."""
    return error.connection_invalidated or isinstance(error, OperationalError | InterfaceError)
