"""The door, the relay and the workers killed under load, and told to end: what was answered 202 is there."""

from __future__ import annotations

import random
import signal
import socket
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import count

import httpx
import orjson
import pytest
from sqlalchemy import text

from infra.store import keys
from schemas.keys import Grant
from tests.acceptance.stage import HOLD, NOWHERE, Stage, balances, kill
from tests.integration.ground import Ground, contract, conversion, until

SENDERS = 4
KILLS = 7
MISSING = """
    SELECT count(*) FROM json_array_elements_text(:ids) AS a(event_id)
    WHERE NOT EXISTS (SELECT FROM conversions c WHERE c.event_id = a.event_id)"""


@pytest.fixture
def port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _door(stage: Stage, port: int, *options: str) -> subprocess.Popen[bytes]:
    return stage.start("serve", "door", "--port", str(port), *options)


def _wait_for(port: int) -> None:
    def listens() -> bool:
        with closing(socket.socket()) as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    until(listens, 30)


class Senders:
    """Send events for as long as they are told to, and keep those that were answered 202. A lost answer is no answer."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/v1/events"
        self._ending = threading.Event()
        self._numbers = count()
        self.answered: list[str] = []
        self._threads = [threading.Thread(target=self._send, daemon=True) for _ in range(SENDERS)]
        for thread in self._threads:
            thread.start()

    def _send(self) -> None:
        with httpx.Client(trust_env=False, timeout=10) as client:
            while not self._ending.wait(0.01):
                ids = [f"load-{next(self._numbers)}" for _ in range(3)]
                try:
                    answer = client.post(self._url, json=[conversion(each) for each in ids])
                except httpx.TransportError:
                    continue
                assert answer.status_code in {202, 503}
                if answer.status_code == 202:
                    assert answer.json()["accepted"] == len(ids)
                    self.answered += ids

    def end(self) -> list[str]:
        self._ending.set()
        for thread in self._threads:
            thread.join(15)
            assert not thread.is_alive()
        return self.answered


def test_every_event_answered_202_outlives_kills_at_random(stage: Stage, ground: Ground, port: int) -> None:
    """Door, workers and clock die in any order while four senders go on; each answered event is a conversion, once."""
    ground.apply(contract("d", NOWHERE, hold=HOLD))
    starts: list[Callable[[], subprocess.Popen[bytes]]] = [
        lambda: _door(stage, port, "--open"),
        stage.worker,
        stage.worker,
        stage.clock,
    ]
    running = [start() for start in starts]
    _wait_for(port)
    senders = Senders(port)
    chance = random.Random(4)
    # The door first and again: it is what answers, and its own relay dies with it.
    for victim in [0, *(chance.choice([0, 0, 1, 2, 3]) for _ in range(KILLS - 1))]:
        before = len(senders.answered)
        until(lambda before=before: len(senders.answered) > before + 60, 20)
        kill(running[victim].pid)
        running[victim].wait()
        running[victim] = starts[victim]()
    answered = senders.end()
    assert len(set(answered)) == len(answered) > 60 * KILLS
    until(lambda: ground.one(MISSING, ids=orjson.dumps(answered).decode()) == 0, 40)
    until(lambda: ground.one("SELECT count(*) FROM outbox") == 0, 20)
    doubled = "SELECT count(*) FROM (SELECT FROM conversions GROUP BY source, event_id HAVING count(*) > 1) AS doubled"
    assert ground.one(doubled) == 0
    assert balances(ground)


def test_a_door_told_to_end_answers_what_waits_first(stage: Stage, ground: Ground, port: int) -> None:
    """SIGTERM while thirty requests wait for the database: each is committed and answered 202, and it ends well."""
    door = _door(stage, port, "--open")
    _wait_for(port)
    url = f"http://127.0.0.1:{port}"

    def send(number: int) -> httpx.Response:
        return httpx.post(f"{url}/v1/events", json=conversion(f"last-{number}"), timeout=30, trust_env=False)

    waiting = (
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'COPY inbox%'"
    )
    with ThreadPoolExecutor(30) as pool:
        with stage.engine.begin() as connection:
            connection.execute(text("LOCK TABLE inbox IN EXCLUSIVE MODE"))
            answers = [pool.submit(send, number) for number in range(30)]
            until(lambda: ground.one(waiting) == 1)
            until(lambda: _metric(url, "holdfire_door_waiting_requests") >= 20)
            door.send_signal(signal.SIGTERM)
            until(lambda: _is_deaf(port), 10)
        assert {answer.result().status_code for answer in answers} == {202}
    assert door.wait(20) == 0
    kept = "SELECT count(*) FROM inbox WHERE convert_from(body, 'UTF8') LIKE '%\"last-%'"
    assert ground.one(kept) == 30
    assert "Traceback" not in stage.log


def _metric(url: str, name: str) -> float:
    page = httpx.get(f"{url}/metrics", trust_env=False).text
    return float(next(line for line in page.splitlines() if line.startswith(name)).rsplit(" ", 1)[1])


def _is_deaf(port: int) -> bool:
    with closing(socket.socket()) as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def test_every_process_of_a_door_takes_a_key_and_forgets_a_revoked_one(
    stage: Stage, ground: Ground, port: int
) -> None:
    """Two processes on one port, and neither needs to be told."""
    made = keys.create(stage.engine, Grant("both"), good_for=None, who="test")
    door = _door(stage, port, "--processes", "2")
    _wait_for(port)

    def statuses() -> list[tuple[int, str]]:
        """What new connections get, and from which process."""
        found = []
        for _ in range(12):
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
                answer = client.post(
                    "/v1/events", json=conversion("both"), headers={"authorization": f"Bearer {made.token}"}
                )
                found.append(
                    (answer.status_code, client.get("/metrics").text.split('process="')[1].split('"')[0])
                )
        return found

    until(lambda: len({process for _, process in statuses()}) == 2, 20)
    assert {status for status, _ in statuses()} == {202}
    keys.revoke(stage.engine, "both", who="test")
    until(lambda: {status for status, _ in statuses()} == {401}, 5)
    door.send_signal(signal.SIGTERM)
    assert door.wait(20) == 0
