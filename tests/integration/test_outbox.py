"""Transactional enqueue on real engines: what commits is sent, what is rolled back never is, and nothing is passed over."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
from sqlalchemy import Engine, MetaData, create_engine, make_url, select, text
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from infra.embedded.use import use_engines
from infra.settings import normalise_database_url
from producers.client import BrokerUnavailableError, Holdfire, InvalidInputError
from producers.outbox import Outbox, OutboxError, Relay
from tests.integration.door import NO_BROKER
from tests.integration.ground import Ground, until
from tests.integration.test_producer_client import drain, ids, order

ROOT = Path(__file__).parents[2]
outbox = Outbox()


@pytest.fixture
def service(engine: Engine) -> Engine:
    """The service's database, its outbox empty. It is Holdfire's own here, which a service's would not be."""
    outbox.create(engine)
    with engine.begin() as connection:
        connection.execute(text("TRUNCATE holdfire_outbox RESTART IDENTITY"))
    return engine


@pytest.fixture
def url(broker_url: str) -> str:
    """This module's broker, emptied for one test."""
    with redis.Redis.from_url(broker_url) as client:
        client.flushdb()
    return broker_url


@pytest.fixture
def holdfire(url: str) -> Iterator[Holdfire]:
    """A client of the emptied broker."""
    with Holdfire(url) as client:
        yield client


def put(engine: Engine, *numbers: int) -> None:
    """Commit orders to the outbox, in one transaction."""
    with engine.begin() as connection:
        for number in numbers:
            outbox.enqueue(connection, order(number))


Enqueue = Callable[[Engine, bool], None]


def by_connection(engine: Engine, commits: bool) -> None:
    """With SQLAlchemy's core."""
    with engine.connect() as connection:
        outbox.enqueue(connection, order(1))
        connection.commit() if commits else connection.rollback()


def by_session(engine: Engine, commits: bool) -> None:
    """With the ORM."""
    with Session(engine) as session:
        outbox.enqueue(session, order(1))
        session.commit() if commits else session.rollback()


def by_scoped_session(engine: Engine, commits: bool) -> None:
    """With the session of a web framework."""
    session = scoped_session(sessionmaker(engine))
    outbox.enqueue(session, order(1))
    session.commit() if commits else session.rollback()
    session.remove()


def by_savepoint(engine: Engine, commits: bool) -> None:
    """With a savepoint that is taken back although its transaction commits."""
    with Session(engine) as session, session.begin():
        point = session.begin_nested()
        outbox.enqueue(session, order(1))
        point.commit() if commits else point.rollback()


def by_psycopg_3(engine: Engine, commits: bool) -> None:
    """With another driver."""
    pytest.importorskip("psycopg", reason="psycopg 3 is not among the pinned packages")
    other = create_engine(make_url(engine.url).set(drivername="postgresql+psycopg"))
    by_session(other, commits)
    other.dispose()


def by_async_session(engine: Engine, commits: bool) -> None:
    """With an AsyncSession on asyncpg."""
    pytest.importorskip(
        "greenlet", reason="SQLAlchemy's asyncio needs greenlet, which is not among the pinned packages"
    )
    from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

    async def run() -> None:
        other = create_async_engine(make_url(engine.url).set(drivername="postgresql+asyncpg"))
        async with AsyncSession(other) as session:
            await session.run_sync(outbox.enqueue, order(1))
            await (session.commit() if commits else session.rollback())
        await other.dispose()

    asyncio.run(run())


WAYS = [by_connection, by_session, by_scoped_session, by_savepoint, by_psycopg_3, by_async_session]


@pytest.mark.parametrize("way", WAYS)
def test_an_event_is_relayed_after_its_transaction_committed(
    way: Enqueue, service: Engine, holdfire: Holdfire, url: str
) -> None:
    """It is in the queue once, and no longer in the outbox."""
    way(service, True)
    assert Relay(service, holdfire).run_once() == 1
    assert (ids(drain(url)), outbox.depth(service)) == (["order:1"], 0)


@pytest.mark.parametrize("way", WAYS)
def test_an_event_of_a_transaction_that_was_rolled_back_is_never_sent(
    way: Enqueue, service: Engine, holdfire: Holdfire, url: str
) -> None:
    """As if it had not been enqueued."""
    way(service, False)
    assert Relay(service, holdfire).run_once() == 0
    assert (drain(url), outbox.depth(service)) == ([], 0)


def test_a_transaction_that_commits_late_is_not_passed_over(
    service: Engine, holdfire: Holdfire, url: str
) -> None:
    """Its row has a lower number than one that was relayed long before it could be seen."""
    relay = Relay(service, holdfire)
    with service.connect() as late:
        outbox.enqueue(late, order(1))
        put(service, 2)
        assert relay.run_once() == 1
        late.commit()
    assert relay.run_once() == 1
    assert ids(drain(url)) == ["order:2", "order:1"]


def test_events_travel_in_order_and_in_full_messages(service: Engine, holdfire: Holdfire, url: str) -> None:
    """1,100 rows are three messages, oldest first."""
    put(service, *range(1100))
    assert Relay(service, holdfire).run_once() == 1100
    messages = drain(url)
    assert [len(message) for message in messages] == [500, 500, 100]
    assert ids(messages) == [f"order:{number}" for number in range(1100)]


def test_an_invalid_event_is_refused_before_it_is_written(service: Engine) -> None:
    """The caller hears every problem, and the transaction can go on."""
    with service.begin() as connection:
        with pytest.raises(InvalidInputError, match="currency"):
            outbox.enqueue(connection, order(1) | {"currency": "euro"})
        outbox.enqueue(connection, order(2))
    assert outbox.depth(service) == 1


def test_a_connection_without_a_transaction_is_refused(service: Engine) -> None:
    """Under AUTOCOMMIT nothing could take the event back; on another database no relay could take it."""
    with service.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT")
        with pytest.raises(OutboxError, match="AUTOCOMMIT"):
            outbox.enqueue(connection, order(1))
    with create_engine("sqlite://").connect() as other, pytest.raises(OutboxError, match="sqlite"):
        outbox.enqueue(other, order(1))
    assert outbox.depth(service) == 0


DIES = """
import os, signal, sys
from producers.client import Holdfire
from producers.outbox import Relay
from infra.db.engine import open_engine

class Dying(Holdfire):
    def send(self, chunk, deadline_s):
        super().send(chunk, deadline_s)
        os.kill(os.getpid(), signal.SIGKILL)

Relay(open_engine(sys.argv[1]), Dying(sys.argv[2])).run_once()
"""


def test_a_relay_killed_between_sending_and_deleting_costs_a_repeat_and_no_event(
    service: Engine, holdfire: Holdfire, database_url: str, url: str
) -> None:
    """The next relay sends it again, and intake takes it once."""
    put(service, 7000, 7001)
    killed = subprocess.run(
        [sys.executable, "-c", DIES, database_url, url], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)},
        timeout=60, check=False,
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL
    # The server frees the rows once it has noticed that the relay's connection is gone.
    until(lambda: Relay(service, holdfire).run_once() or outbox.depth(service) == 0)
    messages = drain(url)
    assert ids(messages) == ["order:7000", "order:7001"] * 2
    ground = Ground(service)
    for message in messages:
        ground.take(*message)
    assert ground.one("SELECT count(*) FROM conversions WHERE event_id LIKE 'order:700_'") == 2


def test_while_the_broker_is_away_every_event_stays(service: Engine, holdfire: Holdfire, url: str) -> None:
    """Nothing is deleted that was not taken; later the same rows go out."""
    put(service, *range(3))
    with Holdfire(NO_BROKER, deadline_s=0.1) as nobody, pytest.raises(BrokerUnavailableError):
        Relay(service, nobody).run_once()
    assert outbox.depth(service) == 3
    assert Relay(service, holdfire).run_once() == 3
    assert ids(drain(url)) == ["order:0", "order:1", "order:2"]


@contextmanager
def forever(relay: Relay) -> Iterator[None]:
    """A relay in a thread, stopped at the end."""
    thread = threading.Thread(target=relay.run_forever)
    thread.start()
    try:
        yield
    finally:
        relay.stop()
        thread.join(20)
        assert not thread.is_alive()


def test_a_relay_outlasts_a_broker_that_is_killed_and_comes_back(service: Engine, tmp_path: Path) -> None:
    """It goes on by itself, and each event is in the queue."""
    with (
        use_engines(tmp_path, postgres=False, linger_s=0.1) as engines,
        Holdfire(engines.broker_url, deadline_s=0.1) as holdfire,
        forever(Relay(service, holdfire, poll_s=0.02)),
    ):
        for number in range(6):
            if number == 3:
                until(lambda: outbox.depth(service) == 0)
                assert engines.valkey_pid is not None
                os.kill(engines.valkey_pid, signal.SIGKILL)
            put(service, number)
        until(lambda: outbox.depth(service) == 0, within_s=30)
        assert sorted(set(ids(drain(engines.broker_url)))) == [f"order:{number}" for number in range(6)]


def test_a_relay_outlasts_a_database_that_breaks_its_connections(
    service: Engine, holdfire: Holdfire, url: str, database_url: str
) -> None:
    """A restart of the server costs a pause."""
    own = create_engine(normalise_database_url(database_url), connect_args={"application_name": "relay"})
    relay = Relay(own, holdfire, poll_s=0.02)
    with forever(relay):
        put(service, 1)
        until(lambda: relay.sent == 1)
        with service.begin() as connection:
            ended = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'relay'"
            assert connection.execute(text(ended)).scalar_one() >= 1
        put(service, 2)
        until(lambda: relay.sent == 2)
    own.dispose()
    assert ids(drain(url)) == ["order:1", "order:2"]


def test_a_relay_takes_what_another_is_not_sending(service: Engine, holdfire: Holdfire, url: str) -> None:
    """Rows that another relay holds are neither waited for nor sent twice."""
    put(service, *range(4))
    with service.connect() as other:
        other.execute(select(outbox.table).order_by(outbox.table.c.id).limit(2).with_for_update()).all()
        assert Relay(service, holdfire).run_once() == 2
        assert ids(drain(url)) == ["order:2", "order:3"]
    assert Relay(service, holdfire).run_once() == 2


def test_two_relays_send_each_event_once(service: Engine, holdfire: Holdfire, url: str) -> None:
    """Side by side, while more comes in; together they sent what was enqueued."""
    first, second = Relay(service, holdfire, poll_s=0.01), Relay(service, holdfire, poll_s=0.01)
    with forever(first), forever(second):
        for start in range(0, 4000, 800):
            put(service, *range(start, start + 800))
        until(lambda: outbox.depth(service) == 0)
    assert first.sent + second.sent == 4000
    assert sorted(ids(drain(url))) == sorted(f"order:{number}" for number in range(4000))


def test_the_table_is_part_of_the_services_own_metadata(
    service: Engine, holdfire: Holdfire, url: str
) -> None:
    """Made by ``create_all``, under the name and in the schema that the service likes; so is what ``ddl`` says."""
    metadata = MetaData()
    named = Outbox(metadata, "shop_outbox")
    by_hand = Outbox(table="by_hand", schema="billing")
    metadata.create_all(service)
    with service.begin() as connection:
        connection.execute(text("CREATE SCHEMA billing"))
        connection.execute(text(by_hand.ddl()))
        named.enqueue(connection, order(1))
        by_hand.enqueue(connection, order(2))
    assert Relay(service, holdfire, named).run_once() == Relay(service, holdfire, by_hand).run_once() == 1
    assert ids(drain(url)) == ["order:1", "order:2"]


def relay_command(database_url: str, url: str, *options: str) -> subprocess.CompletedProcess[str]:
    """``holdfire relay --once``, run to its end."""
    return subprocess.run(
        [sys.executable, "-m", "holdfire", "relay", "--once", *options], cwd=ROOT, capture_output=True, text=True,
        env=os.environ | {"HOLDFIRE_OUTBOX_DATABASE_URL": database_url, "HOLDFIRE_BROKER_URL": url}, timeout=60,
        check=False,
    )  # fmt: skip


def test_the_command_relays_once_and_says_how_many(service: Engine, database_url: str, url: str) -> None:
    """Exit code 0; a broker that is away is 2 and keeps the rows; a table that is not there is named with its remedy."""
    put(service, 1, 2)
    away = relay_command(database_url, NO_BROKER)
    assert (away.returncode, "2 events wait in holdfire_outbox" in away.stderr) == (2, True), away.stderr
    done = relay_command(database_url, url)
    assert (done.returncode, done.stdout) == (0, "2 events relayed from holdfire_outbox\n"), done.stderr
    absent = relay_command(database_url, url, "--table", "nobody.outbox")
    assert absent.returncode == 2
    assert "there is no table nobody.outbox" in absent.stderr
    assert ids(drain(url)) == ["order:1", "order:2"]


def test_the_command_runs_until_it_is_told_to_end(service: Engine, database_url: str, url: str) -> None:
    """It takes what comes while it runs, and ends cleanly at SIGTERM."""
    with subprocess.Popen(
        [sys.executable, "-m", "holdfire", "relay", "--poll", "0.05"], cwd=ROOT, stdout=subprocess.PIPE, text=True,
        env=os.environ | {"HOLDFIRE_OUTBOX_DATABASE_URL": database_url, "HOLDFIRE_BROKER_URL": url},
    ) as command:  # fmt: skip
        put(service, 1)
        until(lambda: outbox.depth(service) == 0, within_s=30)
        command.send_signal(signal.SIGTERM)
        said, _ = command.communicate(timeout=20)
    assert (command.returncode, "1 event relayed" in said) == (0, True), said
