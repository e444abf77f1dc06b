"""The HTTP door over a real socket: what is taken, what is refused, and what 202 promises."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import httpx
import orjson
import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import Engine, create_engine, make_url, text

from infra.broker import EVENTS, celery_app, depth
from infra.embedded.use import Engines
from infra.store import outbox
from producers.door.reading import MAX_BODY_BYTES, MAX_DEPTH, MAX_EVENTS
from tests.integration.door import NO_BROKER, DoorThread
from tests.integration.ground import Ground, cleared, conversion, signal, until


@pytest.fixture(scope="module")
def door(database_url: str, broker_url: str) -> Iterator[DoorThread]:
    """A door that lets everyone in."""
    with DoorThread(database_url, broker_url) as running:
        yield running


@pytest.fixture
def ground(engine: Engine) -> Ground:
    return Ground(engine)


def _refused(answer: httpx.Response, status: int, code: str) -> bool:
    """Whether the answer is that problem, as RFC 9457 has it."""
    problem = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem["status"] == answer.status_code
    assert problem["type"].endswith(problem["code"])
    return bool((answer.status_code, problem["code"]) == (status, code) and problem["detail"])


def _accepted(answer: httpx.Response) -> int:
    assert answer.status_code == 202, answer.text
    return int(answer.json()["accepted"])


def _reasons(answer: httpx.Response) -> dict[int, list[tuple[str, str]]]:
    """Code and field of every problem, by index."""
    return {
        each["index"]: [(problem["code"], problem["field"]) for problem in each["problems"]]
        for each in answer.json()["rejected"]
    }


def _number(answer: httpx.Response) -> int:
    return int(answer.json()["request_id"].removeprefix("in_"))


def test_one_event_is_kept_as_it_came_and_owed_to_the_queue(door: DoorThread, ground: Ground) -> None:
    """202, the request in the inbox verbatim, and its event in the outbox until intake takes it."""
    before = ground.one("SELECT count(*) FROM outbox")
    answer = door.post(orjson.dumps(conversion("one")), user_agent="shop/1")
    assert answer.headers["content-type"] == "application/json"
    assert _accepted(answer) == 1
    assert (answer.json()["duplicates"], answer.json()["rejected"]) == ([], [])
    (row,) = ground.rows("SELECT * FROM inbox WHERE id = :id", id=_number(answer))
    assert bytes(row.body) == answer.request.content
    assert ["user-agent", "shop/1"] in row.headers
    assert (row.method, row.target, row.kind, row.source) == ("POST", "/v1/events", "events", "shop")
    assert (row.status_code, row.accepted, row.duplicates, row.rejected) == (202, 1, 0, 0)
    assert row.answer == answer.json()
    assert row.peer.startswith("127.0.0.1:")
    assert ground.one("SELECT count(*) FROM outbox") == before + 1


def test_a_list_and_lines_are_taken_alike(door: DoorThread) -> None:
    """An array, NDJSON under each of its names, with blank lines and any line end."""
    events = [conversion(f"many-{n}") for n in range(3)]
    assert _accepted(door.post(events)) == 3
    lines = b"\r\n\n".join(orjson.dumps(each) for each in events) + b"\n"
    for name in ("application/x-ndjson", "application/jsonl; charset=utf-8"):
        assert _accepted(door.post(lines, content_type=name)) == 3


def test_compressed_bodies_are_kept_as_they_came(door: DoorThread, ground: Ground) -> None:
    """gzip and deflate are read; the inbox has the bytes that travelled."""
    body = orjson.dumps([conversion("packed")])
    for coding, packed in (("gzip", gzip.compress(body)), ("deflate", zlib.compress(body))):
        answer = door.post(packed, content_encoding=coding)
        assert _accepted(answer) == 1
        assert bytes(ground.one("SELECT body FROM inbox WHERE id = :id", id=_number(answer))) == packed


def test_part_of_a_batch_is_taken_and_each_of_the_others_told_why(door: DoorThread, ground: Ground) -> None:
    """By index, with every reason at once; what is refused is in the inbox with the rest."""
    deep: object = "x"
    for _ in range(MAX_DEPTH):
        deep = [deep]
    batch = [
        conversion("part-1"),
        conversion("part-2", value=4.5, currency="XXQ"),
        "no object",
        conversion("part-1"),
        signal("refund", "part-3", None),
        conversion("part-4", params={"a": deep}),
    ]
    answer = door.post(batch)
    assert _accepted(answer) == 1
    assert answer.json()["duplicates"] == [{"index": 3, "source": "shop", "event_id": "part-1"}]
    reasons = _reasons(answer)
    assert {field for _, field in reasons[1]} == {"value", "currency"}
    assert set(reasons) == {1, 2, 4, 5}
    assert reasons[5] == [("too_deep", "event")]
    assert all(problem["remedy"] for each in answer.json()["rejected"] for problem in each["problems"])
    (row,) = ground.rows(
        "SELECT accepted, duplicates, rejected FROM inbox WHERE id = :id", id=_number(answer)
    )
    assert tuple(row) == (1, 1, 4)


def test_a_bad_line_costs_that_line_alone(door: DoorThread) -> None:
    """Also one that is no JSON, in NDJSON."""
    lines = orjson.dumps(conversion("line")) + b'\n{"half": \n' + orjson.dumps(conversion("line-2"))
    answer = door.post(lines, content_type="application/x-ndjson")
    assert _accepted(answer) == 2
    assert _reasons(answer) == {1: [("malformed", "event")]}


def test_nothing_that_could_be_taken_is_422_and_kept(door: DoorThread, ground: Ground) -> None:
    """The reasons are in the answer, the request in the inbox."""
    answer = door.post({"version": 1})
    assert _refused(answer, 422, "nothing_accepted")
    assert _reasons(answer)[0]
    assert ground.one("SELECT status_code FROM inbox WHERE id = :id", id=_number(answer)) == 422


def test_what_intake_took_is_a_duplicate(door: DoorThread, ground: Ground) -> None:
    """Answered as such, conversions and signals, and sent nowhere."""
    events = [conversion("known"), signal("refund", "known-refund", "known")]
    ground.take(*events)
    before = ground.one("SELECT count(*) FROM outbox")
    answer = door.post(events)
    assert _accepted(answer) == 0
    assert [each["event_id"] for each in answer.json()["duplicates"]] == ["known", "known-refund"]
    assert ground.one("SELECT count(*) FROM outbox") == before


def test_what_is_too_large_is_refused(door: DoorThread) -> None:
    """As announced, as it comes in chunks, and as it turns out once decompressed."""
    large = b'"' + b"x" * MAX_BODY_BYTES + b'"'
    assert _refused(door.post(large), 413, "too_large")
    chunks = (large[at : at + 65536] for at in range(0, len(large), 65536))
    assert _refused(door.client.post("/v1/events", content=chunks), 413, "too_large")
    assert _refused(door.post(gzip.compress(large), content_encoding="gzip"), 413, "too_large")


def test_what_is_just_not_too_large_is_taken(door: DoorThread) -> None:
    """The limit itself is allowed, and so are exactly as many events as are."""
    events = [conversion(f"full-{n}") for n in range(MAX_EVENTS)]
    body = orjson.dumps(events)
    assert _accepted(door.post(body + b" " * (MAX_BODY_BYTES - len(body)))) == MAX_EVENTS
    assert _refused(door.post([*events, conversion("more")]), 413, "too_many")


@pytest.mark.parametrize(
    ("body", "headers", "problem"),
    [
        (b"{", {}, (400, "malformed")),
        (b"", {}, (400, "malformed")),
        (b"[]", {}, (400, "empty")),
        (b"\n\n", {"content_type": "application/x-ndjson"}, (400, "empty")),
        (b'{"a": "\xff"}', {}, (400, "malformed")),
        (b"[" * 100_000, {}, (400, "malformed")),
        (b"{}", {"content_type": "text/plain"}, (415, "content_type")),
        (b"{}", {"content_type": "application/x-www-form-urlencoded"}, (415, "content_type")),
        (b"{}", {"content_encoding": "br"}, (415, "content_encoding")),
        (b"{}", {"content_encoding": "gzip"}, (400, "content_encoding")),
        (gzip.compress(b"{}")[:-4], {"content_encoding": "gzip"}, (400, "content_encoding")),
        (b"{}", {"idempotency_key": "x" * 201}, (400, "idempotency_key")),
        (b"{}", {"idempotency_key": ""}, (400, "idempotency_key")),
    ],
)
def test_what_cannot_be_read_is_refused_in_words(
    door: DoorThread, ground: Ground, body: bytes, headers: dict[str, str], problem: tuple[int, str]
) -> None:
    """A 4xx problem that names it; nothing is taken."""
    before = ground.one("SELECT count(*) FROM inbox")
    assert _refused(door.post(body, **headers), *problem)
    assert ground.one("SELECT count(*) FROM inbox") == before


def test_another_method_or_path_is_a_problem_too(door: DoorThread) -> None:
    """405 says what is allowed; 404 is no HTML page."""
    answer = door.client.get("/v1/events")
    assert _refused(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "POST"
    assert _refused(door.client.get("/v1/nothing"), 404, "not_found")


def test_a_repeated_request_gets_the_first_answer(door: DoorThread, ground: Ground) -> None:
    """The same key and body: the same answer, marked, and nothing is taken twice."""
    for body in ([conversion("again"), {"version": 1}], {"version": 1}):
        payload = orjson.dumps(body)
        key = f"again-{len(payload)}"
        first = door.post(payload, idempotency_key=key)
        before = ground.one("SELECT count(*) FROM inbox")
        second = door.post(payload, idempotency_key=key)
        assert (second.status_code, second.json()) == (first.status_code, first.json())
        assert "idempotent-replayed" not in first.headers
        assert second.headers["idempotent-replayed"] == "true"
        assert ground.one("SELECT count(*) FROM inbox") == before


def test_a_key_is_good_for_one_body(door: DoorThread) -> None:
    """Another body under it is refused, for one of the two must be a mistake."""
    assert _accepted(door.post(conversion("key-1"), idempotency_key="one-body")) == 1
    answer = door.post(conversion("key-2"), idempotency_key="one-body")
    assert _refused(answer, 422, "idempotency_conflict")


def test_the_same_key_at_once_is_taken_once(
    door: DoorThread, database_url: str, broker_url: str, ground: Ground
) -> None:
    """Twenty at a time through two doors: one is committed, and all get its answer."""
    with DoorThread(database_url, broker_url) as other, ThreadPoolExecutor(20) as pool:
        for turn in range(5):
            body = orjson.dumps(conversion(f"at-once-{turn}"))
            key = f"at-once-{turn}"
            calls = [
                pool.submit(each.post, body, idempotency_key=key) for each in (door, other) for _ in range(10)
            ]
            answers = [call.result() for call in calls]
            assert {each.status_code for each in answers} == {202}
            assert len({each.json()["request_id"] for each in answers}) == 1
            assert sum("idempotent-replayed" not in each.headers for each in answers) == 1
            assert ground.one("SELECT count(*) FROM inbox WHERE idempotency_key = :key", key=key) == 1


def test_a_broker_that_is_away_costs_no_event(
    engine: Engine, database_url: str, broker_url: str, broker: object
) -> None:
    """Still 202; and another door, whose broker is there, gives it to the queue."""
    ground = cleared(engine)
    ground.run("DELETE FROM outbox")
    with DoorThread(database_url, NO_BROKER) as away:
        assert _accepted(away.post([conversion("kept-1"), conversion("kept-2")])) == 2
    assert outbox.depth(engine) == 1
    before = depth(broker, EVENTS)
    ground.run("UPDATE outbox SET sent_at = now() - interval '1 minute'")
    with DoorThread(database_url, broker_url):
        until(lambda: depth(broker, EVENTS) == before + 1)


@pytest.fixture
def broker(broker_url: str) -> Iterator[object]:
    """The broker's own view of the queues."""
    with celery_app(broker_url) as app:
        yield app


class Reach:
    """Whether anyone can connect to a database: the server refuses, as one that is starting or full does."""

    def __init__(self, engines: Engines, url: str) -> None:
        self._engine = create_engine(engines.database_url, isolation_level="AUTOCOMMIT")
        self._name = make_url(url).database

    def allow(self, yes: bool) -> None:
        with self._engine.connect() as connection:
            connection.execute(text(f"ALTER DATABASE {self._name} WITH ALLOW_CONNECTIONS {yes}"))
            if not yes:
                connection.execute(
                    text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name"),
                    {"name": self._name},
                )

    def close(self) -> None:
        self.allow(True)
        self._engine.dispose()


@pytest.fixture
def own_url(engines: Engines, migrated_template: str) -> Iterator[str]:
    """A migrated, empty database of one test that takes it away from its door."""
    admin = create_engine(engines.database_url, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE holdfire_reached TEMPLATE {migrated_template}"))
        yield (
            make_url(engines.database_url)
            .set(database="holdfire_reached")
            .render_as_string(hide_password=False)
        )
        connection.execute(text("DROP DATABASE holdfire_reached WITH (FORCE)"))
    admin.dispose()


@pytest.fixture
def reach(engines: Engines, own_url: str) -> Iterator[Reach]:
    reach = Reach(engines, own_url)
    yield reach
    reach.close()


def test_without_the_database_it_says_so_and_takes_nothing(
    own_url: str, broker_url: str, reach: Reach
) -> None:
    """503 with a time to come again, unready but alive; and 202 as soon as it is back."""
    with DoorThread(own_url, broker_url) as door:
        assert _accepted(door.post(conversion("before"))) == 1
        assert door.client.get("/readyz").status_code == 200
        reach.allow(False)
        answer = door.post(conversion("while-away"))
        assert _refused(answer, 503, "unavailable")
        assert int(answer.headers["retry-after"]) > 0
        assert _refused(door.client.get("/readyz"), 503, "unavailable")
        assert door.client.get("/healthz").status_code == 200
        assert "holdfire_outbox_messages" not in door.client.get("/metrics").text
        reach.allow(True)
        assert _accepted(door.post(conversion("after"))) == 1


def test_no_202_is_false_while_the_database_comes_and_goes(
    own_url: str, broker_url: str, reach: Reach
) -> None:
    """Eight senders, connections cut under them: every event answered 202 is there, and each other was told 503."""
    ended = Event()

    def send(number: int) -> list[str]:
        kept = []
        for turn in range(100_000):
            if ended.is_set():
                break
            event = f"false-{number}-{turn}"
            answer = door.post(conversion(event))
            assert answer.status_code in {202, 503}
            kept += [event] if answer.status_code == 202 else []
        return kept

    with DoorThread(own_url, broker_url) as door, ThreadPoolExecutor(8) as pool:
        senders = [pool.submit(send, number) for number in range(8)]
        for _ in range(4):
            inbox = _inbox_count(own_url)
            until(lambda inbox=inbox: _inbox_count(own_url) > inbox + 20)
            reach.allow(False)
            reach.allow(True)
        ended.set()
        answered = {event for sender in senders for event in sender.result()}
    engine = create_engine(make_url(own_url))
    with engine.connect() as connection:
        bodies = connection.execute(text("SELECT convert_from(body, 'UTF8') FROM inbox")).scalars()
        committed = {json.loads(body)["event_id"] for body in bodies if '"false-' in body}
    engine.dispose()
    assert len(answered) > 80
    assert answered - committed == set()


def _inbox_count(url: str) -> int:
    engine = create_engine(make_url(url))
    with engine.connect() as connection:
        count = int(connection.execute(text("SELECT count(*) FROM inbox")).scalar_one())
    engine.dispose()
    return count


def test_the_metrics_count_what_was_answered(database_url: str, broker_url: str, ground: Ground) -> None:
    """Requests by route and status, events by outcome, commits by size and time, and the outbox's depth."""
    ground.take(conversion("metrics-known"))
    with DoorThread(database_url, broker_url) as door:
        door.post(
            [conversion("metrics-1"), conversion("metrics-known"), {"version": 1}], idempotency_key="metrics"
        )
        door.post(
            [conversion("metrics-1"), conversion("metrics-known"), {"version": 1}], idempotency_key="other"
        )
        door.post(b"{")
        door.client.get("/nowhere")
        answer = door.client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=1.0.0")
    families = {family.name: family.samples for family in text_string_to_metric_families(answer.text)}
    requests = {
        (each.labels["route"], each.labels["status"]): each.value
        for each in families["holdfire_door_requests"]
    }
    assert requests == {("events", "202"): 2, ("events", "400"): 1, ("other", "404"): 1}
    events = {each.labels["outcome"]: each.value for each in families["holdfire_door_events"]}
    assert events == {"accepted": 2, "duplicate": 2, "rejected": 2}
    assert _sample(families["holdfire_door_commit_group_size"], "_sum") == 2
    assert _sample(families["holdfire_door_commit_seconds"], "_count") == 2
    (outbox_depth,) = families["holdfire_outbox_messages"]
    assert outbox_depth.value == ground.one("SELECT count(*) FROM outbox")


def _sample(samples: list[object], ending: str) -> float:
    (value,) = [each.value for each in samples if each.name.endswith(ending)]  # type: ignore[attr-defined] # a named tuple
    return float(value)
