"""Messages on their way to intake: committed with what answers for them, deleted by the commit that takes them in.

This is the HTTP door's, in Holdfire's own database. The one that services write to, in theirs, is producers.outbox.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import uuid4

from sqlalchemy import Connection, Engine, text

from infra.db.engine import as_json

RESEND_AFTER_S = 10.0
"""A message that intake has not taken in this long after it was given to the queue is given again, and then ever more
rarely: the queue may be long, and intake takes a message twice without harm."""
LONGEST_RESEND_S = 600.0


@dataclass(frozen=True, slots=True)
class Message:
    """One message of events for the queue. ``json`` is a list as it goes there, of ``count`` events."""

    message_id: str
    count: int
    json: str

    @classmethod
    def of(cls, bodies: Sequence[bytes]) -> Message:
        """A message of these events, each as JSON, under a new id."""
        return cls(str(uuid4()), len(bodies), f"[{b','.join(bodies).decode()}]")


def write(connection: Connection, messages: Sequence[Message]) -> None:
    """Put messages into the outbox within the caller's transaction. They count as sent: whoever commits sends them."""
    if messages:
        connection.execute(
            text("INSERT INTO outbox (message_id, count, events) VALUES (:message_id, :count, :events)"),
            [{"message_id": m.message_id, "count": m.count, "events": m.json} for m in messages],
        )


def take_out(connection: Connection, message_id: str) -> None:
    """Intake has the message: delete it, in the transaction that takes it in."""
    connection.execute(text("DELETE FROM outbox WHERE message_id = :id"), {"id": message_id})


def overdue(engine: Engine, *, limit: int = 50, grace_s: float = RESEND_AFTER_S) -> list[Message]:
    """Messages that intake should have taken in by now, oldest first; they count as sent again from here on.

    Any number of processes may ask at once: each message is given to one of them.
    """
    statement = text("""
        WITH late AS (
            SELECT message_id FROM outbox
            WHERE sent_at < now() - make_interval(secs => :grace_s)
                AND sent_at < now() - make_interval(secs => least(:grace_s * 2 ^ least(tries - 1, 20), :longest_s))
            ORDER BY sent_at LIMIT :limit FOR UPDATE SKIP LOCKED)
        UPDATE outbox o SET sent_at = now(), tries = o.tries + 1 FROM late WHERE o.message_id = late.message_id
        RETURNING o.message_id, o.count, o.events""")
    with engine.begin() as connection:
        rows = connection.execute(
            statement, {"limit": limit, "grace_s": grace_s, "longest_s": LONGEST_RESEND_S}
        )
        return [Message(message_id, count, events) for message_id, count, events in rows]


def hold_back(engine: Engine, messages: Sequence[Message]) -> None:
    """The queue did not take these: they are due again at once, as if they had not been sent."""
    rows = as_json([{"id": message.message_id} for message in messages])
    with engine.begin() as connection:
        connection.execute(
            text("""
            UPDATE outbox o SET sent_at = '-infinity', tries = 1
            FROM json_to_recordset(:rows) AS r(id text) WHERE o.message_id = r.id"""),
            {"rows": rows},
        )


def depth(engine: Engine) -> int:
    """How many messages are on their way."""
    with engine.connect() as connection:
        return int(connection.execute(text("SELECT count(*) FROM outbox")).scalar_one())
