"""The door's OpenAPI document is true: whatever schemathesis makes of it gets an answer that the document foresees."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from infra.db.engine import open_engine
from infra.store import keys
from producers.door.gatekeeping import KeyRing
from schemas.keys import Grant
from tests.integration.door import DoorThread

EXAMPLES = 15
SECONDS = 15
EXCLUDED = {
    "positive_data_acceptance": "an event may be refused for what no JSON Schema says: a clock that runs ahead, an "
    "amount finer than its currency, a click id that is a placeholder",
    "negative_data_rejection": "a batch is taken in part: one bad event in it is answered 202 with its problems",
}


@pytest.fixture(scope="module")
def token(engine: Engine) -> str:
    """A key for every source and event."""
    return keys.create(engine, Grant("schemathesis"), good_for=None, who="test").token


@pytest.fixture(scope="module")
def door(database_url: str, broker_url: str, token: str) -> Iterator[DoorThread]:
    """A door that knows the key."""
    with DoorThread(database_url, broker_url, KeyRing(open_engine(database_url, pool_size=1))) as running:
        yield running


def test_every_answer_is_as_documented(door: DoorThread, token: str, tmp_path: Path) -> None:
    """No 5xx, no status or content type that is not there, no body of another shape, no way in without a key."""
    done = subprocess.run(
        [
            sys.executable, "-m", "schemathesis.cli", "run", f"{door.url}/openapi.json",
            "--header", f"Authorization: Bearer {token}",
            "--phases", "examples,coverage,fuzzing",
            "--exclude-checks", ",".join(EXCLUDED),
            "--max-examples", str(EXAMPLES), "--max-time", str(SECONDS), "--seed", "1",
            "--suppress-health-check", "all", "--warnings", "off", "--no-color",
        ],
        cwd=tmp_path, capture_output=True, text=True, timeout=SECONDS + 60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
