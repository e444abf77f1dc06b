"""Messages that are no task call of ours: kept as rejects, and no worker falls over them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator

import pytest
from kombu import Connection
from sqlalchemy import Engine, text

from infra import broker

HEADERS = {"lang": "py", "id": "", "root_id": None, "parent_id": None, "group": None}
GOOD = {
    "version": 1,
    "type": "cancel",
    "event_id": "after:all:that",
    "source": "shop",
    "occurred_at": "2026-11-20T10:00:00Z",
    "order_id": "1",
}


@pytest.fixture
def worker(engine: Engine, database_url: str, broker_url: str) -> Iterator[subprocess.Popen[bytes]]:
    """One real worker process."""
    urls = {
        "HOLDFIRE_DATABASE_URL": database_url,
        "HOLDFIRE_BROKER_URL": broker_url,
        "HOLDFIRE_LOG_FORMAT": "json",
    }
    process = subprocess.Popen([sys.executable, "-m", "holdfire", "work"], env={**os.environ, **urls})
    yield process
    process.terminate()
    process.wait(30)


def publish(
    broker_url: str, body: str | bytes, task: str | None, content_type: str = "application/json"
) -> None:
    """Put one message into the events queue as any program might."""
    headers = {} if task is None else {**HEADERS, "task": task, "id": str(uuid.uuid4())}
    with Connection(broker_url) as connection:
        connection.Producer().publish(
            body,
            routing_key=broker.EVENTS,
            exchange="",
            headers=headers,
            content_type=content_type,
            content_encoding="utf-8" if isinstance(body, str) else "binary",
            correlation_id=str(uuid.uuid4()),
        )


def wait_for(engine: Engine, query: str, wanted: int) -> None:
    deadline = time.monotonic() + 30
    while True:
        with engine.connect() as connection:
            found = connection.execute(text(query)).scalar_one()
        if found == wanted:
            return
        assert time.monotonic() < deadline, f"{found} of {wanted}"
        time.sleep(0.05)


def test_every_message_that_is_no_call_of_ours_is_kept_and_the_next_one_is_taken(
    worker: subprocess.Popen[bytes], engine: Engine, broker_url: str
) -> None:
    """Bodies that end Celery's own worker are rejects with a reason here, and intake goes on."""
    publish(broker_url, "no json", None)
    publish(broker_url, "no json", broker.INTAKE_TASK)
    publish(broker_url, json.dumps([[[GOOD]], {}, {}]), "somebody.elses.task")
    publish(broker_url, json.dumps({"x": 1}), broker.INTAKE_TASK)
    publish(broker_url, json.dumps([[], {}, {}]), broker.INTAKE_TASK)
    publish(broker_url, json.dumps([["no list"], {}, {}]), broker.INTAKE_TASK)
    publish(broker_url, b"\x80\x04pickle", broker.INTAKE_TASK, "application/x-python-serialize")
    publish(broker_url, json.dumps([[[GOOD]], {}, {}]), broker.INTAKE_TASK)
    wait_for(engine, "SELECT count(*) FROM signals", 1)
    wait_for(engine, "SELECT count(*) FROM rejects", 7)
    assert worker.poll() is None
    with engine.connect() as connection:
        kept = connection.execute(text("SELECT code, raw FROM rejects ORDER BY id")).all()
    assert sorted({row.code for row in kept}) == [
        "invalid_call",
        "malformed",
        "no_task_call",
        "undecodable",
        "unknown_task",
    ]
    assert any("pickle" in row.raw for row in kept)
