"""What people write first: a FastAPI endpoint that validates with pydantic and inserts one row a request."""

from __future__ import annotations

import os
from functools import cache

from fastapi import FastAPI
from sqlalchemy import Engine, text

from infra.db.engine import open_engine
from schemas.event import ConversionEvent

DATABASE_URL = "PLAIN_DOOR_DATABASE_URL"
app = FastAPI()


@cache
def _engine() -> Engine:
    return open_engine(os.environ[DATABASE_URL], pool_size=40)


INSERT = text("INSERT INTO plain_events (event_id, source, event) VALUES (:event_id, :source, :event)")
TABLE = "CREATE TABLE IF NOT EXISTS plain_events (id bigserial PRIMARY KEY, event_id text, source text, event json)"


@app.post("/v1/events", status_code=202)
def take(event: ConversionEvent) -> dict[str, str]:
    with _engine().begin() as connection:
        row = {"event_id": event.event_id, "source": event.source, "event": event.model_dump_json()}
        connection.execute(INSERT, row)
    return {"status": "accepted"}
