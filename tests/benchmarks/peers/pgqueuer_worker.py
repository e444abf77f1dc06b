"""PgQueuer in its best form: asyncpg pool, uvloop, aiohttp, batches, two processes, one log row an attempt.

The job's payload is the postback, and the job is done when PgQueuer takes it out of its queue, in batches of its
own. Its tables are installed as durable as PgQueuer makes them by default, with its own autovacuum tuning.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import aiohttp
import asyncpg
import orjson
import uvloop
import yarl
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver
from pgqueuer.executors import DatabaseRetryEntrypointExecutor, EntrypointExecutorParameters
from pgqueuer.models import Job
from pgqueuer.queries import Queries

from tests.benchmarks.peers import ground, processes

_ENTRYPOINT = "fire"
_DATABASE = "PEER_DATABASE_URL"
_SETTINGS = {"search_path": ground.SCHEMA}
# Measured: two log connections instead of ten cost a third, batches from 50 to 200 are alike, and having no budget
# is no faster and takes half as much memory again.
_BATCH = 100
_BUDGET = 200  # jobs one worker may have in hand; PgQueuer asks for at least two batches
_LOG_CONNECTIONS = 10
_HTTP_CONNECTIONS = 50
_INSERT = (
    "INSERT INTO attempts (postback_id, url, status_code, headers, body, started_at, ended_at, error)"
    " VALUES ($1, $2, $3, $4, $5, $6, $7, $8)"
)


class ServerError(Exception):
    """The network answered 5xx or 429: worth another try."""


class _Firing:
    """The handler and what its process keeps between jobs."""

    def __init__(self, http: aiohttp.ClientSession, pool: asyncpg.Pool) -> None:
        self._http = http
        self._pool = pool

    async def fire(self, job: Job) -> None:
        """Send one postback and log the attempt, whatever came of it."""
        postback_id, url = orjson.loads(job.payload or b"")
        started_at = datetime.now(UTC)
        try:
            async with self._http.get(yarl.URL(url, encoded=True)) as answer:
                body = await answer.text()
        except (aiohttp.ClientError, TimeoutError) as error:
            ended_at = datetime.now(UTC)
            await self._pool.execute(
                _INSERT, postback_id, url, None, None, None, started_at, ended_at, repr(error)
            )
            raise
        ended_at = datetime.now(UTC)
        headers = json.dumps(dict(answer.headers))  # its keys are a str subclass, which orjson refuses
        await self._pool.execute(
            _INSERT, postback_id, url, answer.status, headers, body, started_at, ended_at, None
        )
        if answer.status >= 500 or answer.status == 429:
            raise ServerError(answer.status)


def _with_retries(parameters: EntrypointExecutorParameters) -> DatabaseRetryEntrypointExecutor:
    return DatabaseRetryEntrypointExecutor(parameters, max_attempts=10, max_delay=timedelta(minutes=10))


async def _keep_session(_: asyncpg.Connection) -> None:
    """Nothing to reset: sessions are never altered, and asyncpg's own reset is a round trip an attempt."""


async def _work() -> None:
    database_url = ground.libpq_url(os.environ[_DATABASE])
    queue_connection = await asyncpg.connect(database_url, server_settings=_SETTINGS)
    async with (
        asyncpg.create_pool(
            database_url,
            min_size=_LOG_CONNECTIONS,
            max_size=_LOG_CONNECTIONS,
            server_settings=_SETTINGS,
            reset=_keep_session,
        ) as pool,
        aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=_HTTP_CONNECTIONS, keepalive_timeout=60),
            timeout=aiohttp.ClientTimeout(total=10),
            cookie_jar=aiohttp.DummyCookieJar(),
        ) as http,
    ):
        queuer = PgQueuer(AsyncpgDriver(queue_connection))
        queuer.entrypoint(_ENTRYPOINT, executor_factory=_with_retries)(_Firing(http, pool).fire)
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, queuer.shutdown.set)
        processes.say_ready()
        await queuer.qm.run(batch_size=_BATCH, max_concurrent_tasks=_BUDGET)


class PgQueuerWorkers:
    """Two PgQueuer processes."""

    name = "PgQueuer"

    def __init__(self) -> None:
        self._children: list[processes.Child] = []

    def prepare(self, database_url: str, broker_url: str, urls: Sequence[str] = ()) -> None:
        """Empty the log table, install PgQueuer's own, and enqueue a postback for each URL."""
        self._database_url = database_url
        ground.lay(database_url)
        asyncio.run(self._install())
        self.enqueue(urls)

    def enqueue(self, urls: Sequence[str]) -> None:
        """Enqueue one job a URL, all in one statement."""
        if urls:
            asyncio.run(self._enqueue(urls))

    async def _install(self) -> None:
        connection = await asyncpg.connect(ground.libpq_url(self._database_url), server_settings=_SETTINGS)
        queries = Queries(AsyncpgDriver(connection))
        await queries.install()
        await queries.optimize_autovacuum()
        await connection.close()

    async def _enqueue(self, urls: Sequence[str]) -> None:
        connection = await asyncpg.connect(ground.libpq_url(self._database_url), server_settings=_SETTINGS)
        payloads = [orjson.dumps(postback) for postback in enumerate(urls, start=1)]
        await Queries(AsyncpgDriver(connection)).enqueue(
            [_ENTRYPOINT] * len(urls), list(payloads), [0] * len(urls)
        )
        await connection.close()

    def start(self) -> list[processes.Child]:
        """Start the workers and wait until they are about to listen."""
        environment = {_DATABASE: self._database_url}
        self._children = [processes.Child(__name__, environment=environment) for _ in range(2)]
        for child in self._children:
            child.wait_ready()
        return self._children

    def wait_done(self, rows: int, timeout_s: float) -> None:
        """Wait until that many attempts are committed since `prepare`."""
        ground.wait_for_rows(self._database_url, "attempts", rows, timeout_s)

    def stop(self) -> None:
        """End the workers and drop the tables."""
        for child in self._children:
            child.stop()
        self._children = []
        ground.clear(self._database_url)


if __name__ == "__main__":
    uvloop.run(_work())
