"""The command line as a person meets it: real processes, real engines, plain words for what goes wrong."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

import holdfire
from infra.broker import EVENTS, celery_app, depth
from infra.sink.thread import SinkThread
from infra.store.destinations import Destinations
from workers.intake import take_message

Run = Callable[..., subprocess.CompletedProcess[str]]

CONFIG = """
[destinations.xandr-main]
network = "xandr"
settings = { id = "25619", url = "%s/xandr/sspx" }
events = ["purchase"]
hold = { kind = "refund", wait = "14d" }
allow_private = true
allow_http = true

[destinations.crm]
network = "generic"
settings = { url = "%s/plain/{settings.key}?c={click_id}", key = { env = "CRM_KEY" } }
events = ["signup"]
allow_private = true
allow_http = true
"""
SECRET = "not-for-anyones-eyes"


@pytest.fixture(scope="module")
def sink() -> Iterator[SinkThread]:
    """A local network that counts what it is sent."""
    with SinkThread(port=0) as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path, sink: SinkThread) -> Path:
    """A folder with a configuration that is in order."""
    (tmp_path / "holdfire.toml").write_text(CONFIG % (sink.url, sink.url))
    return tmp_path


@pytest.fixture
def run(folder: Path, database_url: str, broker_url: str) -> Run:
    """Run ``holdfire`` in the folder, on this module's database and broker."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("HOLDFIRE_")},
        "PYTHONPATH": str(Path(holdfire.__file__).parent),
        "HOLDFIRE_DATABASE_URL": database_url,
        "HOLDFIRE_BROKER_URL": broker_url,
        "HOLDFIRE_DATA_DIR": str(folder / "data"),
        "CRM_KEY": SECRET,
    }

    def run_it(*arguments: str, given: str = "", **extra: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "holdfire", *arguments],
            cwd=folder,
            env=environment | extra,
            input=given,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    return run_it


@pytest.mark.parametrize("name", holdfire.MENU)
def test_every_line_of_the_menu_leads_to_its_command(name: str) -> None:
    """A command is there, and its own help begins with the words of the menu."""
    command = holdfire.load_command(name)
    assert " ".join(command.help.split()).startswith(holdfire.MENU[name].about.removesuffix("."))


def test_the_menu_waits_for_no_room(run: Run) -> None:
    """``holdfire --help`` lists every command and imports none of what they need, so that it appears at once."""
    shown = run("--help", PYTHONPROFILEIMPORTTIME="1")
    assert [name for name in holdfire.MENU if name not in shown.stdout] == []
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in shown.stderr.splitlines()}
    assert "typer" in imported
    assert imported & {"celery", "sqlalchemy", "aiohttp", "pydantic", *holdfire.ROOMS} == set()


def test_a_mistyped_command_is_answered_with_the_nearest_one(run: Run) -> None:
    """A typo costs one look."""
    answered = run("doctr")
    assert answered.returncode == 2
    assert "doctor" in answered.stderr


def test_what_a_person_can_mend_comes_without_a_traceback(run: Run) -> None:
    """A wrong environment is named with its remedy and exit code 2, the value is not repeated."""
    answered = run("trail", "cv_1", HOLDFIRE_DATABASE_URL="mysql://me:hunter22@host/db")
    assert answered.returncode == 2
    assert "is not PostgreSQL" in answered.stderr
    assert "Traceback" not in answered.stderr
    assert "hunter22" not in answered.stderr


def test_the_traceback_is_there_for_who_asks(run: Run) -> None:
    """HOLDFIRE_DEBUG=1 shows where a plain sentence came from."""
    plain = run("destinations", "render", "nobody", "--example")
    deep = run("destinations", "render", "nobody", "--example", HOLDFIRE_DEBUG="1")
    assert (plain.returncode, plain.stderr.count("\n")) == (2, 1)
    assert "Traceback" in deep.stderr


def test_a_database_that_is_away_is_said_plainly(run: Run) -> None:
    """Neither a stack of frames nor the password, but what to do."""
    answered = run("destinations", "list", HOLDFIRE_DATABASE_URL="postgresql://me:hunter22@127.0.0.1:1/db")
    assert answered.returncode == 2
    assert "does not answer" in answered.stderr
    assert "Traceback" not in answered.stderr
    assert "hunter22" not in answered.stderr


def test_check_finds_every_problem_of_a_file_at_once(run: Run, folder: Path) -> None:
    """Each problem has the key, the reason and the remedy."""
    with (folder / "holdfire.toml").open("a") as config:
        config.write('\n[destinations.one]\nnetwork = "xandrr"\nevents = ["a"]\n')
        config.write('\n[destinations.two]\nnetwork = "xandr"\nevents = ["a"]\nholt = {}\n')
    answered = run("destinations", "check")
    assert answered.returncode == 1
    assert "destinations.one.network: 'xandrr' is no network. Did you mean xandr?" in answered.stderr
    assert "destinations.two.holt" in answered.stderr


def test_check_reports_as_json(run: Run) -> None:
    """A deployment pipeline reads the same."""
    report = json.loads(run("destinations", "check", "--json").stdout)
    assert report["ok"]
    assert report["destinations"] == ["xandr-main", "crm"]
    assert {warning["code"] for warning in report["warnings"]} == {"plain_http", "allow_private"}


def test_apply_shows_the_difference_and_then_there_is_none(run: Run, folder: Path, engine: Engine) -> None:
    """A dry run changes nothing; applying does, once; and the audit knows who."""
    dry = run("destinations", "apply", "--dry-run", "--json")
    assert not json.loads(dry.stdout)["applied"]
    assert json.loads(run("destinations", "list", "--json").stdout) == []

    assert "+ xandr-main" in run("destinations", "apply").stdout
    assert "Nothing was changed" in run("destinations", "apply").stdout

    config = folder / "holdfire.toml"
    config.write_text(config.read_text().replace('"14d"', '"7d"'))
    assert "~ xandr-main (version 1)  changed: destination.hold.wait" in run("destinations", "apply").stdout
    listed = {row["name"]: row for row in json.loads(run("destinations", "list", "--json").stdout)}
    assert (listed["xandr-main"]["version"], listed["xandr-main"]["hold"]) == (2, "refund, 7d from the event")
    assert (listed["crm"]["version"], listed["crm"]["waiting"]) == (1, 0)
    with engine.connect() as connection:
        who = connection.execute(text("SELECT who FROM audit WHERE action = 'destinations.apply'")).scalars()
        assert all("@" in name for name in who)


def test_the_catalogue_says_what_is_known_of_each_network(run: Run) -> None:
    """Confidence and dedupe rule stand beside every network."""
    networks = json.loads(run("destinations", "list", "--networks", "--json").stdout)
    assert {"xandr", "generic"} <= {network["slug"] for network in networks}
    assert all(network["confidence"] and network["dedupe"] for network in networks)


def test_render_prints_the_exact_url_with_secrets_masked(run: Run, sink: SinkThread) -> None:
    """The click id is intact to its last period, the secret is not shown."""
    event = {
        "version": 1,
        "type": "conversion",
        "event_id": "1",
        "source": "shop",
        "name": "signup",
        "occurred_at": "2026-11-01T10:00:00Z",
        "click_ids": {"generic": "nym1CJjYiJ3oq6Lk."},
    }
    shown = run("destinations", "render", "crm", "--event", "-", given=json.dumps(event))
    first = shown.stdout.splitlines()[0]
    assert first.startswith(f"GET {sink.url}/plain/[secret:")
    assert first.endswith("]?c=nym1CJjYiJ3oq6Lk.")
    assert SECRET not in shown.stdout + shown.stderr


def test_render_refuses_an_event_the_destination_would_not_take(run: Run) -> None:
    """The field, the reason and the remedy are named."""
    event = {
        "version": 1,
        "type": "conversion",
        "event_id": "1",
        "source": "shop",
        "name": "signup",
        "occurred_at": "2026-11-01T10:00:00Z",
    }
    refused = run("destinations", "render", "crm", "--event", "-", given=json.dumps(event))
    assert refused.returncode == 2
    assert "click_ids.generic: is missing" in refused.stderr


def test_try_fires_once_and_leaves_only_the_audit(run: Run, sink: SinkThread, engine: Engine) -> None:
    """The network gets one request, the person the transcript and the verdict, the ledger nothing."""
    before = _counted(sink)
    tried = run("destinations", "try", "crm", "--example")
    assert tried.returncode == 0, tried.stderr
    assert "> GET /plain/[secret:" in tried.stdout
    assert tried.stdout.rstrip().endswith("delivered: status 200")
    assert SECRET not in tried.stdout
    assert _counted(sink) == before + 1
    with engine.connect() as connection:
        actions = connection.execute(text("SELECT action, detail FROM audit ORDER BY id DESC LIMIT 2")).all()
        postbacks = connection.execute(text("SELECT count(*) FROM postbacks")).scalar_one()
    assert [row.action for row in actions] == ["destinations.tried", "destinations.try"]
    assert SECRET not in str(actions)
    assert postbacks == 0


def _counted(sink: SinkThread) -> int:
    return sum(book.requests for book in sink.sink.books.values())


def test_a_healthy_installation_passes_the_doctor(run: Run) -> None:
    """Nothing fails, and every warning has its remedy."""
    run("destinations", "apply")
    answered = run("doctor", "--json")
    report = json.loads(answered.stdout)
    assert answered.returncode == 0, answered.stdout
    assert {"PostgreSQL", "migrations", "clock", "partitions", "broker", "queues", "secrets"} <= {
        finding["about"] for finding in report["findings"]
    }
    assert all((finding["level"] == "ok") == (finding["remedy"] is None) for finding in report["findings"])


def test_the_doctor_names_a_secret_that_is_not_there(run: Run) -> None:
    """A secret that cannot be read fails, named by its place; postbacks would wait for it."""
    answered = run("doctor", "--json", CRM_KEY="")
    failing = [one for one in json.loads(answered.stdout)["findings"] if one["level"] == "fail"]
    assert answered.returncode == 1
    assert [one["about"] for one in failing] == ["secrets"]
    assert "destinations.crm.settings.key" in failing[0]["says"]


def test_the_doctor_goes_on_where_an_engine_is_away(run: Run) -> None:
    """A broker that does not answer is a finding; the database is examined all the same."""
    answered = run("doctor", "--json", HOLDFIRE_BROKER_URL="redis://:hunter22@127.0.0.1:1/0")
    levels = {one["about"]: one["level"] for one in json.loads(answered.stdout)["findings"]}
    assert answered.returncode == 1
    assert (levels["broker"], levels["migrations"]) == ("fail", "ok")
    assert "hunter22" not in answered.stdout


def test_the_doctor_sees_what_nobody_takes_up(run: Run, engine: Engine) -> None:
    """A postback that has been due for an hour means that no clock or worker runs."""
    with engine.begin() as connection:
        connection.execute(
            text("""
            WITH c AS (INSERT INTO conversions (source, event_id, name, click_ids, occurred_at, routed, event)
                VALUES ('s', 'overdue', 'n', '{}', now(), 1, '{}') RETURNING id)
            INSERT INTO postbacks (conversion_id, release_at, due_at, version_id, state)
            SELECT c.id, now() - interval '1 hour', now() - interval '1 hour',
                (SELECT min(id) FROM destination_versions), 'held' FROM c""")
        )
    findings = {one["about"]: one for one in json.loads(run("doctor", "--json").stdout)["findings"]}
    with engine.begin() as connection:  # the next test's release must not find it
        connection.execute(text("DELETE FROM postbacks WHERE due_at < now() - interval '50 minutes'"))
    assert findings["overdue postbacks"]["level"] == "fail"
    assert "holdfire up" in findings["overdue postbacks"]["remedy"]


def test_the_doctor_says_that_conversions_go_nowhere(run: Run, engine: Engine) -> None:
    """Committed but routed to no destination: nobody else would say so."""
    with engine.begin() as connection:
        connection.execute(
            text("""
            INSERT INTO conversions (source, event_id, name, click_ids, occurred_at, routed, unrouted_reason, event)
            VALUES ('s', 'nowhere', 'n', '{}', now(), 0, 'no destination takes it', '{}')""")
        )
    findings = {one["about"]: one for one in json.loads(run("doctor", "--json").stdout)["findings"]}
    assert findings["unrouted conversions"]["level"] == "warn"
    assert "find --unrouted" in findings["unrouted conversions"]["remedy"]


def test_migrate_says_what_it_did(run: Run) -> None:
    """On tables of this version there is nothing to do."""
    answered = run("migrate")
    assert answered.returncode == 0
    assert "already" in answered.stdout


def test_the_example_for_backend_engineers_runs_as_it_stands(
    broker_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The README's Python example puts one message on the queue."""
    readme = (Path(holdfire.__file__).parent / "README.md").read_text("utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    monkeypatch.setenv("HOLDFIRE_BROKER_URL", broker_url)
    exec(compile(example, "README.md", "exec"), {})
    assert depth(celery_app(broker_url), EVENTS) == 1


def test_a_full_disk_is_told_in_a_sentence() -> None:
    """What could not be written, and what to do; no traceback."""
    said = holdfire.plain_words(OSError(errno.ENOSPC, "No space left on device"))
    assert said is not None
    assert said.startswith("No space left on device: ")
    assert holdfire.plain_words(OSError(errno.EPERM, "Operation not permitted")) is None


def test_release_says_what_is_due_and_what_it_released(run: Run, engine: Engine) -> None:
    """A dry run changes nothing; the run itself hands everything due to the workers and takes back what dead ones held."""
    event = {
        "version": 1,
        "type": "conversion",
        "event_id": "due:1",
        "source": "crm",
        "name": "signup",
        "occurred_at": "2026-11-01T10:00:00Z",
        "click_ids": {"generic": "token-due-1"},
    }
    assert run("migrate").returncode == 0
    assert run("destinations", "apply", "--yes").returncode == 0
    versions = Destinations(engine)
    take_message(engine, versions, "message-due", [event], datetime.now(UTC))
    dry = run("release", "--dry-run")
    assert dry.stdout.startswith("Due: 1, the oldest for")
    real = run("release")
    assert (real.returncode, real.stdout) == (0, "Released 1.\n")
    assert run("release", "--dry-run").stdout == "Due: 0. Nothing was released.\n"
    with engine.begin() as connection:
        connection.execute(text("UPDATE postbacks SET due_at = now() WHERE state = 'leased'"))
    assert run("release").stdout == "Released 1.\n"


def test_what_is_held_is_extended_released_and_voided_by_hand(run: Run, engine: Engine) -> None:
    """Three orders, three acts, each told by the trail with who did it and why."""
    assert run("migrate").returncode == 0
    assert run("destinations", "apply", "--yes").returncode == 0
    events = [
        {
            "version": 1,
            "type": "conversion",
            "event_id": f"hand:{number}",
            "source": "shop",
            "name": "purchase",
            "occurred_at": datetime.now(UTC).isoformat(),
            "order_id": f"hand-{number}",
            "click_ids": {"xandr": f"token-hand-{number}"},
        }
        for number in range(3)
    ]
    take_message(engine, Destinations(engine), "message-hand", events, datetime.now(UTC))
    assert run("void", "--source", "shop").returncode == 2
    dry = run("void", "--source", "shop", "--dry-run")
    assert (dry.returncode, dry.stdout.splitlines()[-2:]) == (
        0,
        ["Would void 3: 3 held.", "Nothing was changed."],
    )
    acts = [
        (("extend", "--by", "7d"), "extended by anna from "),
        (("release",), "released by anna, 13 d 23 h before its window's end: "),
        (("void",), "voided by anna: "),
    ]
    for number, (arguments, words) in enumerate(acts):
        event = f"hand:{number}"
        done = run(*arguments, event, "--as", "anna", "--reason", "asked for")
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        trail = run("trail", event).stdout
        assert words in trail
        assert "asked for" in trail
    assert run("release", "--dry-run").stdout.startswith("Due: 1,")
    assert run("void", "hand:2", "--reason", "asked for").returncode == 1
    assert run("void", "--reason", "all of it").stderr == (
        "holdfire: void: name an ID or a filter; `holdfire find` shows what a filter finds\n"
    )
