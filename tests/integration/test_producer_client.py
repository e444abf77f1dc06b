"""The SDK and ``holdfire enqueue`` against a real Valkey that is killed, absent, or shared by forks and threads."""

from __future__ import annotations

import base64
import gzip
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import redis
from kombu import Connection
from sqlalchemy import Engine, text

from infra import broker
from infra.embedded.use import use_engines
from infra.store.destinations import Destinations
from infra.store.intake import Taken, commit_message, committed
from producers.client import BrokerUnavailableError, Holdfire, InvalidEventsError, InvalidInputError
from producers.confirming import Confirmation
from producers.imports import Line
from schemas.event import read_event
from tests.unit.test_producers_message import GOLDEN, NOW, conversion

ROOT = Path(__file__).parents[2]
ENQUEUE = """
import typer
from producers.cli import register
app = typer.Typer()
app.callback()(lambda: None)
register(app)
app()
"""


def order(number: int) -> dict[str, Any]:
    """The valid event number ``number``."""
    return conversion(event_id=f"order:{number}", order_id=str(number))


def drain(url: str, most: int = 1_000_000) -> list[list[dict[str, Any]]]:
    """Every waiting message's events (or those of the first), read as a Celery worker would."""
    messages = []
    with (
        Connection(url) as connection,
        connection.SimpleQueue(broker.EVENTS) as queue,
        suppress(queue.Empty),
    ):
        while len(messages) < most:
            message = queue.get(block=False)
            message.ack()
            args, _, _ = message.payload
            (events,) = args
            messages.append(events)
    return messages


def ids(messages: list[list[dict[str, Any]]]) -> list[str]:
    """The event ids of messages, in order."""
    return [event["event_id"] for message in messages for event in message]


def until(true: Callable[[], bool], within_s: float = 20.0) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.01)


@pytest.fixture
def url(broker_url: str) -> str:
    """This module's broker, emptied for one test."""
    with redis.Redis.from_url(broker_url) as client:
        client.flushdb()
    return broker_url


@pytest.fixture
def nobody() -> Iterator[str]:
    """The URL of a broker that is not there: a port that is taken, but does not listen."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"redis://:secret@127.0.0.1:{taken.getsockname()[1]}/0"


def test_many_events_travel_in_few_messages(url: str) -> None:
    """Invalid ones are listed with their place and problems, and do not stop the rest."""
    events = [order(number) for number in range(1200)]
    events[7]["value"] = 49.9
    with Holdfire(url) as holdfire:
        report = holdfire.enqueue_many(iter(events))
    assert (report.sent, report.messages) == (1199, 3)
    assert [(one.index, one.problems[0].code) for one in report.rejected] == [(7, "money_as_number")]
    assert ids(drain(url)) == [f"order:{number}" for number in range(1200) if number != 7]


def test_all_or_nothing_sends_nothing(url: str) -> None:
    """With on_invalid="raise" one bad event keeps all of them here."""
    with Holdfire(url) as holdfire, pytest.raises(InvalidEventsError, match=r"number 600.*version"):
        holdfire.enqueue_many([order(n) for n in range(600)] + [conversion(version=2)], on_invalid="raise")
    assert drain(url) == []


def test_an_invalid_event_is_refused_with_its_problems(url: str) -> None:
    """enqueue raises what validation found."""
    with Holdfire(url) as holdfire, pytest.raises(InvalidInputError, match="currency"):
        holdfire.enqueue(conversion(currency="euro"))


def test_the_golden_message_is_one_that_kombu_reads(url: str) -> None:
    """Pushed as another language would, it arrives as a task call with a list of events."""
    body = base64.b64encode(json.dumps(GOLDEN["body"]).encode()).decode()
    with redis.Redis.from_url(url) as client:
        client.lpush(broker.EVENTS, json.dumps(GOLDEN | {"body": body}))
    assert drain(url) == GOLDEN["body"][0]


def test_a_broker_that_stays_away_leaves_every_event_with_the_caller(nobody: str, url: str) -> None:
    """After the deadline the error holds what was given, those after the failing message too; all can go again."""
    events = [order(number) for number in range(1100)]
    started = time.monotonic()
    with pytest.raises(BrokerUnavailableError) as caught:
        Holdfire(nobody, deadline_s=0.3).enqueue_many(iter([*events, {"version": 9}]))
    assert 0.3 <= time.monotonic() - started < 5
    assert caught.value.events == events
    assert [one.index for one in caught.value.report.rejected] == [1100]
    assert "secret" not in str(caught.value)
    with Holdfire(url) as holdfire:
        holdfire.enqueue_many(caught.value.events)
    assert ids(drain(url)) == [event["event_id"] for event in events]


def test_a_broker_that_never_answers_does_not_hang_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that is taken but never served ends by the socket's timeout."""
    monkeypatch.setattr(broker, "ANSWER_TIMEOUT_S", 0.2)
    started = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(BrokerUnavailableError):
        Holdfire(f"redis://127.0.0.1:{silent.getsockname()[1]}/0", deadline_s=0.0).enqueue(order(1))
    assert time.monotonic() - started < 3


def test_a_broker_killed_while_events_go_in_loses_none(tmp_path: Path) -> None:
    """Valkey is killed between messages and comes back; each event that was acknowledged is in the queue."""
    with (
        use_engines(tmp_path, postgres=False, linger_s=0.1) as engines,
        Holdfire(engines.broker_url) as holdfire,
    ):
        for number in range(30):
            if number in {10, 20}:
                until(lambda: engines.valkey_pid is not None)  # it is written once the broker answers
                pid = engines.valkey_pid
                assert pid is not None
                os.kill(pid, signal.SIGKILL)
            holdfire.enqueue(order(number))
        assert sorted(set(ids(drain(engines.broker_url)))) == sorted(f"order:{n}" for n in range(30))


def test_threads_share_one_client(url: str) -> None:
    """More threads than lines are kept open; each event arrives once."""
    with Holdfire(url) as holdfire:
        sent = [order(number) for number in range(160)]
        threads = [
            threading.Thread(target=lambda own=sent[n::8]: [holdfire.enqueue(event) for event in own])
            for n in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(ids(drain(url))) == sorted(event["event_id"] for event in sent)


def test_a_forked_child_has_lines_of_its_own_and_nothing_of_the_parents_buffer(url: str) -> None:
    """Parent and child go on with the same client and buffer: each event goes in once, from where it was given."""
    with Holdfire(url) as holdfire, holdfire.buffered(linger_s=60) as buffer:
        holdfire.enqueue(order(1))
        buffer.enqueue(order(2))
        child = os.fork()
        if child == 0:
            signal.alarm(20)  # a child that is stuck would hold the test for ever
            code = 1
            try:
                holdfire.enqueue(order(3))
                buffer.enqueue(order(4))
                buffer.close()
                code = 0
            finally:
                os._exit(code)
        holdfire.enqueue(order(5))
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert len(buffer) == 1
        holdfire.enqueue(order(6))
    assert sorted(ids(drain(url))) == [f"order:{number}" for number in (1, 2, 3, 4, 5, 6)]


def test_a_child_forked_while_a_lock_is_held_is_not_stuck(url: str) -> None:
    """A lock that another thread of the parent holds at the fork does not bind the child."""
    with Holdfire(url) as holdfire, holdfire.buffered() as buffer:
        with holdfire._lock, buffer._changed:
            child = os.fork()
            if child == 0:
                signal.alarm(20)
                buffer.enqueue(order(1))
                buffer.close()
                os._exit(0)
        _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert ids(drain(url)) == ["order:1"]


def test_buffered_events_leave_after_the_linger(url: str) -> None:
    """Nobody flushes, and they arrive in one message."""
    with Holdfire(url) as holdfire, holdfire.buffered(linger_s=0.2) as buffer:
        for number in range(3):
            buffer.enqueue(order(number))
        until(lambda: holdfire.queued() == 1)
        assert ids(drain(url)) == ["order:0", "order:1", "order:2"]


def test_a_full_message_leaves_before_the_linger(url: str) -> None:
    """max_events events do not wait; the next one does."""
    with Holdfire(url) as holdfire, holdfire.buffered(linger_s=60, max_events=10) as buffer:
        for number in range(11):
            buffer.enqueue(order(number))
        until(lambda: holdfire.queued() == 1)
        assert len(drain(url)[0]) == 10
        until(lambda: len(buffer) == 1)


def test_a_full_buffer_makes_its_caller_wait_and_then_keep_the_event(nobody: str) -> None:
    """Memory is bounded while the broker is away; closing gives back all that was not sent, in order."""
    with Holdfire(nobody, deadline_s=0.2) as holdfire:
        buffer = holdfire.buffered(linger_s=0, max_events=2, capacity=3)
        for number in range(3):
            buffer.enqueue(order(number))
        with pytest.raises(BrokerUnavailableError, match="full") as refused:
            buffer.enqueue(order(3))
        assert refused.value.events == [order(3)]
        with pytest.raises(BrokerUnavailableError) as unsent:
            buffer.close()
        assert unsent.value.events == [order(0), order(1), order(2)]


def test_a_buffer_outlasts_a_broker_that_comes_back(tmp_path: Path) -> None:
    """Nobody calls flush: the background thread goes on trying, and the order is kept."""
    with (
        use_engines(tmp_path, postgres=False, linger_s=0.1) as engines,
        Holdfire(engines.broker_url) as holdfire,
    ):
        holdfire.enqueue(order(0))
        pid = engines.valkey_pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        buffer = holdfire.buffered(linger_s=0.01)
        for number in range(1, 50):
            buffer.enqueue(order(number))
        until(lambda: len(buffer) == 0)
        buffer.close()
        arrived = list(dict.fromkeys(ids(drain(engines.broker_url))))
        assert arrived == [f"order:{number}" for number in range(50)]


def test_what_is_buffered_is_sent_when_the_interpreter_ends(url: str) -> None:
    """A script that never flushes or closes loses nothing."""
    script = (
        "import sys, json; from producers.client import Holdfire\n"
        "buffer = Holdfire(sys.argv[1]).buffered(linger_s=60)\n"
        "for event in json.load(sys.stdin): buffer.enqueue(event)\n"
    )
    events = json.dumps([order(number) for number in range(3)])
    run(["-c", script, url], stdin=events).check_returncode()
    assert ids(drain(url)) == ["order:0", "order:1", "order:2"]


def test_what_cannot_be_sent_at_the_end_is_named_on_the_log(nobody: str) -> None:
    """The process ends in time, and says which events went with it."""
    script = (
        "import sys, json; from producers.client import Holdfire\n"
        "buffer = Holdfire(sys.argv[1], deadline_s=0.2).buffered(linger_s=60)\n"
        "for event in json.load(sys.stdin): buffer.enqueue(event)\n"
    )
    said = run(["-c", script, nobody], stdin=json.dumps([order(77)])).stderr
    assert "order:77" in said
    assert "secret" not in said


def test_what_intake_never_got_is_sent_again(url: str, engine: Engine) -> None:
    """The broker loses a message; its events are sent again once the queue is empty, and then are committed."""
    lines = [Line(n, n, b"", order(n)) for n in range(1, 6)]
    with Holdfire(url) as holdfire:
        confirmation = Confirmation(
            lambda keys: take_in(url, engine) or committed(engine, keys),
            resend=again(holdfire),
            queued=holdfire.queued,
            patience_s=20,
            resend_after_s=0.1,
        )
        holdfire.enqueue_many(line.event for line in lines[:3])
        drain(url)  # lost
        holdfire.enqueue_many(line.event for line in lines[3:])
        confirmation.add(lines)
        assert confirmation.wait()
    assert (confirmation.confirmed, confirmation.resent) == (5, 3)


def test_what_waits_in_the_queue_is_not_sent_again(url: str, engine: Engine) -> None:
    """Without a worker patience ends, and the queue holds each event once."""
    line = Line(1, 1, b"", order(100))
    with Holdfire(url) as holdfire:
        confirmation = Confirmation(
            lambda keys: committed(engine, keys),
            resend=again(holdfire),
            queued=holdfire.queued,
            patience_s=0.3,
            resend_after_s=0.05,
        )
        holdfire.enqueue(line.event)
        confirmation.add([line])
        assert not confirmation.wait()
        assert confirmation.give_up() == [line]
    assert ids(drain(url)) == ["order:100"]


def again(holdfire: Holdfire) -> Callable[[list[Line]], None]:
    """Sends lines once more."""

    def send(lines: list[Line]) -> None:
        holdfire.enqueue_many(line.event for line in lines)

    return send


def take_in(url: str, engine: Engine, most: int = 1_000_000) -> None:
    """Commit all that waits (or the first messages of it), as intake does."""
    for number, events in enumerate(drain(url, most)):
        taken = [Taken(read_event(event, NOW), event) for event in events]
        commit_message(engine, f"{time.monotonic_ns()}-{number}", taken, [], Destinations(engine))


def test_the_command_sends_the_good_lines_and_keeps_the_bad_ones(
    url: str, database_url: str, engine: Engine, tmp_path: Path
) -> None:
    """Bad lines are named with number, field, reason and remedy, and kept verbatim; it ends with 1 once all is in."""
    file = tmp_path / "orders.ndjson"
    good = [order(number) for number in range(200, 800)]
    bad = [json.dumps(conversion(value="1.999")), '{"version": 1,', "[1]"]
    file.write_text(
        "\n".join([bad[0], *map(json.dumps, good[:300]), bad[1], *map(json.dumps, good[300:]), bad[2]])
    )
    with subprocess.Popen(
        [sys.executable, "-c", ENQUEUE, "enqueue", str(file), "--json"],
        env=environment(url, database_url),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as command:
        while command.poll() is None:
            take_in(url, engine)
        assert command.stdout is not None
        assert command.stderr is not None
        summary, said = json.loads(command.stdout.read()), command.stderr.read().splitlines()
    assert command.returncode == 1
    assert (summary["lines"], summary["sent"], summary["committed"], summary["rejected"]) == (
        603,
        600,
        600,
        3,
    )
    assert [line.split(": ")[0].rpartition("/")[2] for line in said] == [
        "orders.ndjson:1",
        "orders.ndjson:302",
        "orders.ndjson:603",
    ]
    assert "value: 1.999 has more than 2 decimal places" in said[0]
    kept = [json.loads(line) for line in Path(summary["rejects_file"]).read_text().splitlines()]
    said = [one.pop("holdfire") for one in kept]
    assert [one["line"] for one in said] == [1, 302, 603]
    assert [json.dumps(kept[0]), said[1]["raw"], said[2]["raw"]] == bad


def test_the_command_keeps_what_a_broker_that_is_away_did_not_take(nobody: str, tmp_path: Path) -> None:
    """It ends with 2, and the file it leaves can be enqueued as it is."""
    file = tmp_path / "orders.ndjson"
    lines = [json.dumps(order(number)) for number in range(3)]
    file.write_text("\n".join(lines))
    ended = run(["-c", ENQUEUE, "enqueue", str(file), "--no-check", "--deadline", "200ms"], nobody)
    assert ended.returncode == 2
    assert "3 not known to be committed" in ended.stdout
    assert Path(f"{file}.unconfirmed.ndjson").read_text().splitlines() == lines


def test_the_command_reads_standard_input(url: str, tmp_path: Path) -> None:
    """All lines good, no check: it ends with 0 and leaves no file."""
    ended = run(["-c", ENQUEUE, "enqueue", "-", "--no-check"], url, stdin=json.dumps(order(1)), cwd=tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ids(drain(url)) == ["order:1"]
    assert list(tmp_path.iterdir()) == []


def test_rejects_of_an_earlier_run_are_not_overwritten(url: str, tmp_path: Path) -> None:
    """Two bad streams leave two files, and nothing of a line can steer the terminal."""
    for _ in range(2):
        bad = json.dumps(conversion(currency="\x1b[2J"))
        ended = run(["-c", ENQUEUE, "enqueue", "-", "--no-check"], url, stdin=bad, cwd=tmp_path)
        assert ended.returncode == 1
        assert "\x1b" not in ended.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "stdin.rejects.2.ndjson",
        "stdin.rejects.ndjson",
    ]


def environment(broker_url: str = "", database_url: str = "") -> dict[str, str]:
    """The environment of a command."""
    urls = {"HOLDFIRE_BROKER_URL": broker_url, "HOLDFIRE_DATABASE_URL": database_url}
    return os.environ | urls | {"PYTHONPATH": str(ROOT)}


def run(
    arguments: list[str], broker_url: str = "", *, stdin: str = "", cwd: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    """Run Python and wait for its end."""
    return subprocess.run(
        [sys.executable, *arguments],
        env=environment(broker_url),
        input=stdin,
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=60,
        check=False,
    )


WHEN = "2026-01-15T10:00:00Z"
CSV_COLUMNS = [
    "--columns",
    "order_id=Order,value=Total,occurred_at=When,source='csv',name='purchase',currency='EUR'",
]


def rows(*numbers: int) -> str:
    """Orders as a spreadsheet writes them."""
    return "Order,Total,When\n" + "".join(f"{number},9.90,{WHEN}\n" for number in numbers)


def test_the_command_takes_csv_and_its_rejects_once_they_are_mended(url: str, tmp_path: Path) -> None:
    """A gzip too; the file of rejects goes in with the same options."""
    file = tmp_path / "orders.csv.gz"
    file.write_bytes(gzip.compress((rows(1, 2) + f"3,9.999,{WHEN}\n").encode()))
    first = run(["-c", ENQUEUE, "enqueue", str(file), "--no-check", *CSV_COLUMNS], url)
    assert first.returncode == 1, first.stderr
    assert "orders.csv.gz:4: value: 9.999 has more than 2 decimal places" in first.stderr
    kept = Path(f"{file}.rejects.csv")
    kept.write_text(kept.read_text().replace("9.999,", "9.90,"))
    second = run(["-c", ENQUEUE, "enqueue", str(kept), "--no-check", *CSV_COLUMNS], url)
    assert second.returncode == 0, second.stderr
    assert ids(drain(url)) == ["purchase:1", "purchase:2", "purchase:3"]


def test_rejects_of_ndjson_are_mended_in_place_and_fed_back(url: str, tmp_path: Path) -> None:
    """What was wrong stands in front, and need not be taken out."""
    file = tmp_path / "orders.ndjson"
    file.write_text(json.dumps(order(1) | {"currency": "euro"}))
    assert run(["-c", ENQUEUE, "enqueue", str(file), "--no-check"], url).returncode == 1
    kept = Path(f"{file}.rejects.ndjson")
    again = run(["-c", ENQUEUE, "enqueue", str(kept), "--no-check"], url)
    assert "rejects.ndjson:1: currency" in again.stderr
    kept.write_text(kept.read_text().replace('"euro"', '"EUR"'))
    assert run(["-c", ENQUEUE, "enqueue", str(kept), "--no-check"], url).returncode == 0
    assert ids(drain(url)) == ["order:1"]


def test_a_run_that_was_killed_goes_on_where_it_was_settled(
    url: str, database_url: str, engine: Engine, tmp_path: Path
) -> None:
    """Killed on its way, it neither skips nor repeats what was committed; another file is not gone on with."""
    file = tmp_path / "orders.csv"
    file.write_text(rows(*range(20_000)))
    state = Path(f"{file}.resume.json")
    command = [sys.executable, "-c", ENQUEUE, "enqueue", str(file), "--json", *CSV_COLUMNS]
    with subprocess.Popen(
        command, env=environment(url, database_url), stdout=subprocess.DEVNULL, cwd=ROOT
    ) as killed:
        until(lambda: depth_of(url) >= 40)  # sent, and nothing of it committed
        killed.send_signal(signal.SIGKILL)
    assert not state.exists()
    drain(url)
    with subprocess.Popen(
        command, env=environment(url, database_url), stdout=subprocess.DEVNULL, cwd=ROOT
    ) as killed:
        until(lambda: depth_of(url) == 40)
        take_in(url, engine, 15)
        until(state.exists)
        killed.send_signal(signal.SIGKILL)
    drain(url)
    settled = json.loads(state.read_text())["number"] - 1
    assert settled == 5_000  # of 7,500 that were committed: it is noted in steps
    with engine.connect() as connection:
        found = connection.execute(text("SELECT count(*) FROM conversions WHERE source = 'csv'")).scalar_one()
    assert found == 7_500
    file.with_name("other.csv").write_text(rows(*range(1, 20_001)))
    state.with_name("other.csv.resume.json").write_bytes(state.read_bytes())
    other = run(
        ["-c", ENQUEUE, "enqueue", str(file.with_name("other.csv")), "--no-check", "--resume", *CSV_COLUMNS],
        url,
    )
    assert (other.returncode, "not the file that was interrupted" in other.stderr) == (2, True)
    with subprocess.Popen(
        [*command, "--resume"],
        env=environment(url, database_url),
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as resumed:
        while resumed.poll() is None:
            take_in(url, engine)
        assert resumed.stdout is not None
        summary = json.loads(resumed.stdout.read())
    assert (summary["lines"], summary["resumed_after_line"]) == (20_000 - settled, settled + 1)
    with engine.connect() as connection:
        found = connection.execute(text("SELECT count(*) FROM conversions WHERE source = 'csv'")).scalar_one()
    assert (found, state.exists()) == (20_000, False)


def depth_of(url: str) -> int:
    """How many messages wait."""
    with redis.Redis.from_url(url) as client:
        return int(client.llen(broker.EVENTS))


def test_a_compressed_file_that_is_cut_short_says_so(url: str, tmp_path: Path) -> None:
    """What came before goes in; it ends with 2, and not as if that had been all."""
    file = tmp_path / "orders.csv.gz"
    whole = gzip.compress(rows(*range(50_000)).encode())
    file.write_bytes(whole[: len(whole) // 2])
    ended = run(["-c", ENQUEUE, "enqueue", str(file), "--no-check", *CSV_COLUMNS], url)
    assert ended.returncode == 2
    assert "not read to its end" in ended.stdout
    file.write_bytes(whole)
    ended = run(["-c", ENQUEUE, "enqueue", str(file), "--no-check", "--resume", *CSV_COLUMNS], url)
    assert ended.returncode == 0
    assert set(ids(drain(url))) == {f"purchase:{number}" for number in range(50_000)}


def test_a_table_without_a_mapping_names_its_columns(url: str, tmp_path: Path) -> None:
    """Nothing is sent, and the message says how to go on."""
    (tmp_path / "orders.csv").write_text(rows(1))
    ended = run(["-c", ENQUEUE, "enqueue", str(tmp_path / "orders.csv"), "--no-check"], url)
    assert (ended.returncode, "'Order', 'Total', 'When'" in ended.stderr) == (2, True), ended.stderr
    assert drain(url) == []
