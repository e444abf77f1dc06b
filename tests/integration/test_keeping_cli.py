"""The commands of keeping, as a person or a script runs them, and what others say of what has left."""

from __future__ import annotations

import json
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from click.testing import Result
from sqlalchemy import Engine, text
from typer.testing import CliRunner

from holdfire import app
from infra.doctor.keeping import examine_keeping
from infra.store import inbox
from infra.store.keeping import dropping
from infra.store.keeping.erasing import Order, seal
from infra.store.keeping.keeping import applied
from infra.store.ledger import read_ledger
from infra.store.searching.archive_search import matching
from infra.store.searching.criteria import ATTEMPT_CRITERIA, Criteria, bound, conditions
from schemas.keeping import Policy
from schemas.lifecycle import State
from schemas.verdict import VerdictKind
from tests.integration.aged import age
from tests.integration.scenes import TIMED_OUT, Scene, contract, conversion, hop
from tests.integration.test_erasing import arrival
from tests.integration.test_retention import count, emptied, policy
from workers import housekeeping
from workers.retaining import ArchiveFolderError, foresee, retain

ONE = """
[destinations.push-eu]
network = "generic"
settings = { url = "https://s.example/?c={click_id}" }
events = ["purchase"]
"""
KEEPING = '[keeping]\nevidence = "365d"\narchive_dir = "{}"\n'


@pytest.fixture
def scene(engine: Engine) -> Scene:
    """One that was delivered, one that timed out and died, and one whose answer repeats its order."""
    emptied(engine)
    scene = Scene(engine)
    scene.run("TRUNCATE keeping_policies, retentions RESTART IDENTITY")
    scene.apply(contract("push-eu"))
    scene.take(conversion("good", "push"))
    scene.settle(scene.fire_one("good"))
    scene.take(conversion("slow", "push"))
    scene.settle(
        scene.fire_one("slow"), State.DEAD, VerdictKind.UNKNOWN, "timeout after the request was sent",
        hops=[hop(failure=TIMED_OUT, status_code=None, body=b"", body_length=0)], error_class="TimeoutError",
        error_message="no answer within 10.0 s",
    )  # fmt: skip
    scene.take(conversion("told", "push"))
    scene.settle(
        scene.fire_one("told"), State.REJECTED, VerdictKind.REJECTED, "status 404",
        hops=[hop(status_code=302), hop(2, status_code=404, body=b"no order-told here")],
    )  # fmt: skip
    return scene


def run(scene: Scene, *words: str) -> Result:
    """A command of the front door, on this database."""
    url = scene.engine.url.render_as_string(hide_password=False)
    return CliRunner(env={"HOLDFIRE_DATABASE_URL": url}).invoke(app, list(words))


def applied_policy(scene: Scene, folder: Path) -> None:
    (folder / "holdfire.toml").write_text(ONE + KEEPING.format(folder / "archive"))
    result = run(scene, "destinations", "apply", "--config", str(folder / "holdfire.toml"), "--yes")
    assert result.exit_code == 0, result.output
    assert "keeping  changed" in result.output


def test_what_is_applied_is_retained(scene: Scene, tmp_path: Path) -> None:
    """First looked at, then with a reason that the audit keeps; and nothing is left to do."""
    applied_policy(scene, tmp_path)
    month = age(scene.engine)
    dry = run(scene, "retain", "--dry-run")
    assert f"{month:%Y-%m}  push-eu: 3 attempts and checks would leave" in dry.output
    assert count(scene, "attempts") == 3
    assert isinstance(run(scene, "retain").exception, ValueError)
    done = run(scene, "retain", "--reason", "monthly", "--as", "ops", "--json")
    assert json.loads(done.stdout)["archived"] == [
        {"month": f"{month:%Y-%m}", "destination": "push-eu", "attempts": 3}
    ]
    assert count(scene, "attempts") == 0
    assert "Nothing is old enough" in run(scene, "retain", "--reason", "again").output
    assert (
        count(
            scene, "audit WHERE action = 'keeping.retain' AND who = 'ops' AND detail->>'reason' = 'monthly'"
        )
        == 1
    )


def test_a_policy_is_applied_once_and_a_retired_destination_keeps_its_own(
    scene: Scene, tmp_path: Path
) -> None:
    """Applying the same changes nothing; a destination that is no longer named is kept as long as it was."""
    path = tmp_path / "holdfire.toml"
    path.write_text(ONE + 'keep = "900d"\n')
    run(scene, "destinations", "apply", "--config", str(path), "--yes")
    again = run(scene, "destinations", "apply", "--config", str(path), "--yes")
    assert "Nothing was changed" in again.output
    path.write_text(ONE.replace("push-eu", "other") + '[keeping]\nevidence = "365d"\n')
    run(scene, "destinations", "apply", "--config", str(path), "--yes")
    policy = applied(scene.engine)
    kept = policy.keep("push-eu")
    assert kept is not None
    assert kept.days == 900
    assert count(scene, "keeping_policies") == 2


def test_a_trail_and_a_transcript_tell_of_an_archived_attempt(scene: Scene, tmp_path: Path) -> None:
    """As before it left, and from which file it was read."""
    age(scene.engine)
    before = run(scene, "transcript", "at_3").output
    retain(scene.engine, policy(), tmp_path)
    assert run(scene, "transcript", "at_3").output == before
    trail = run(scene, "trail", "--order", "order-told").output
    assert "archive   read from" in trail
    assert "HTTP/1.1 200 OK" in trail
    next(tmp_path.iterdir()).unlink()
    assert (
        "evidence is in an archive that cannot be read" in run(scene, "trail", "--order", "order-told").output
    )


@pytest.mark.parametrize(
    ("words", "found"),
    [(("--status-code", "404"), ["pb_3"]), (("--status-code", "3xx"), ["pb_3"]), (("--verdict", "unknown"), ["pb_2"]),
     (("--status-code", "5xx"), []), (("--verdict", "delivered", "--state", "dead"), [])],
)  # fmt: skip
def test_find_looks_into_archives_when_it_is_asked_to(
    scene: Scene, tmp_path: Path, words: tuple[str, ...], found: list[str]
) -> None:
    """Filters about attempts find nothing in the tables any more, and it is said where they are."""
    age(scene.engine)
    retain(scene.engine, policy(), tmp_path)
    without = run(scene, "find", *words, "--json")
    assert without.stdout == ""
    assert "are in archives: --archived looks into them too" in without.stderr
    with_them = run(scene, "find", *words, "--archived", "--json")
    assert [json.loads(line)["id"] for line in with_them.stdout.splitlines()] == found
    next(tmp_path.iterdir()).unlink()
    assert "Not looked into" in run(scene, "find", *words, "--archived").output


def test_a_listing_still_shows_how_the_last_attempt_ended(scene: Scene, tmp_path: Path) -> None:
    """Although it stands in an archive."""
    before = run(scene, "find", "--json").stdout
    age(scene.engine)
    retain(scene.engine, policy(), tmp_path)
    answers = [
        (line["id"], line["status_code"], line["verdict"]) for line in map(json.loads, before.splitlines())
    ]
    after = [json.loads(line) for line in run(scene, "find", "--json").stdout.splitlines()]
    assert [(line["id"], line["status_code"], line["verdict"]) for line in after] == answers


def test_archives_are_searched_as_the_tables_are(scene: Scene) -> None:
    """The conditions in Python and in SQL say the same of every attempt there is."""
    asked = [
        Criteria(verdict=VerdictKind.UNKNOWN), Criteria(status_codes=(200, 399)), Criteria(status_codes=(404, 404)),
        Criteria(error="timeout"), Criteria(error="TIMEOUTERROR"), Criteria(error="dns"), Criteria(text="order-told"),
        Criteria(text="success"), Criteria(text="push-eu.example"), Criteria(verdict=VerdictKind.REJECTED, text="Set-Cookie"),
    ]  # fmt: skip
    with scene.engine.connect() as connection:
        rows = {
            table: [_as_archived(row._mapping) for row in connection.execute(text(f"SELECT * FROM {table}"))]
            for table in ("attempts", "hops")
        }
        for criteria in asked:
            query = text(
                f"SELECT a.postback_id FROM attempts a WHERE {conditions(criteria, ATTEMPT_CRITERIA)}"
            )
            values = {name: bound(criteria)[name] for name in query.compile().params}
            assert matching(rows, criteria) == set(connection.execute(query, values).scalars()), criteria


def _as_archived(row: Any) -> dict[str, Any]:
    return {name: bytes(value) if isinstance(value, memoryview) else value for name, value in row.items()}


def test_archives_that_cannot_be_written_are_named_before_anything_is_done(
    scene: Scene, tmp_path: Path
) -> None:
    """With the folder and what to do about it."""
    (tmp_path / "file").write_text("")
    age(scene.engine)
    with pytest.raises(ArchiveFolderError, match="make it writable"):
        retain(scene.engine, policy(), tmp_path / "file")
    assert count(scene, "attempts") == 3


def test_an_erasure_is_looked_at_first_and_signed(scene: Scene) -> None:
    """Its reason must not name what is erased; afterwards the trail says that it was erased and by whom."""
    dry = run(scene, "erase", "--order", "order-told", "--dry-run")
    assert "1 conversions, 1 postbacks, 0 signals and 1 attempts and checks would be erased" in dry.output
    naming = run(scene, "erase", "--order", "order-told", "--reason", "order-told asked")
    assert "names what is to be erased" in str(naming.exception)
    assert count(scene, "tombstones") == 0
    done = run(scene, "erase", "--order", "order-told", "--reason", "a request", "--as", "dpo", "--json")
    assert json.loads(done.stdout)["conversions"] == 1
    told = run(scene, "trail", "--order", "order-told")
    assert told.exit_code == 1
    assert "was erased on" in told.output
    trail = run(scene, "trail", "cv_3").output
    assert "erased by dpo" in trail
    assert "order-told" not in trail
    assert run(scene, "transcript", "at_3").exit_code == 0
    for form in ("har", "curl", "json", "csv", "transcript"):
        exported = run(scene, "export", "pb_3", "--format", form)
        assert exported.exit_code == 0, exported.output
        assert "order-told" not in exported.output
    replayed = run(scene, "replay", "pb_3", "--dry-run")
    assert "it was erased at a person's request" in replayed.output


def test_a_legal_hold_is_added_listed_and_lifted(scene: Scene) -> None:
    """By the filters of `find`, with a reason each time."""
    added = run(scene, "legal-hold", "add", "--state", "dead", "--reason", "case 12/26")
    assert "Legal hold 1: 1 conversions" in added.output
    refused = run(scene, "erase", "--order", "order-slow", "--reason", "a request")
    assert "legal hold 1" in str(refused.exception)
    assert "case 12/26" in run(scene, "legal-hold", "list").output
    assert run(scene, "legal-hold", "lift", "1", "--reason", "settled").exit_code == 0
    assert "No legal hold" in run(scene, "legal-hold", "list").output
    assert isinstance(run(scene, "legal-hold", "lift", "1", "--reason", "x").exception, LookupError)
    assert run(scene, "erase", "--order", "order-slow", "--reason", "a request").exit_code == 0


def test_doctor_misses_an_archive_and_an_erasure_that_did_not_end(scene: Scene, tmp_path: Path) -> None:
    """One that is not there, one that changed by a byte, and one that was only begun."""
    age(scene.engine)
    retain(scene.engine, policy(), tmp_path)
    assert {each.level for each in examine_keeping(scene.engine)} == {"ok"}
    path = next(tmp_path.iterdir())
    whole = path.read_bytes()
    path.write_bytes(whole[:600] + bytes([whole[600] ^ 1]) + whole[601:])
    (found,) = [
        each for each in examine_keeping(scene.engine, read_archives=True) if each.about == "archives"
    ]
    assert "SHA-256" in found.says
    path.unlink()
    (found,) = [each for each in examine_keeping(scene.engine) if each.about == "archives"]
    assert (found.level, "is not there" in found.says) == ("fail", True)
    path.write_bytes(whole)
    seal(scene.engine, Order("order", "order-good", "dpo", "x"))
    says = [each.says for each in examine_keeping(scene.engine) if each.about == "erasures"]
    assert "was interrupted" in says[0]


def test_rows_are_dropped_by_their_age_and_the_ledger_goes_on_counting_them(
    scene: Scene, tmp_path: Path
) -> None:
    """Requests, refused events, receipts and clicks; what is younger stays."""
    inbox.commit(scene.engine, [arrival(conversion("young", "push")), arrival(conversion("old", "push"))])
    scene.take(conversion("good", "push"), {"version": 7})
    scene.run(
        """SET LOCAL session_replication_role = replica;
        UPDATE inbox SET received_at = now() - interval '60 days' WHERE id = (SELECT max(id) FROM inbox);
        UPDATE rejects SET received_at = now() - interval '60 days';
        UPDATE receipts SET received_at = now() - interval '60 days'"""
    )
    month = "30d"
    by_age = policy(None, inbox=month, rejects=month, receipts=month, clicks=month, reports=month)
    foreseen = foresee(scene.engine, by_age)
    done = retain(scene.engine, by_age, tmp_path)
    assert foreseen.rows == done.rows
    assert done.rows == {"inbox": 1, "rejects": 2, "receipts": 4}
    assert count(scene, "inbox") == 1
    assert count(scene, "receipts") == 0
    assert read_ledger(scene.engine).balances


def test_the_clock_retains_once_a_day_where_it_is_asked_to(scene: Scene, tmp_path: Path) -> None:
    """In a thread of its own, and not where nothing says automatic."""
    keeper = housekeeping.Housekeeper(scene.engine, tmp_path)
    applied_policy(scene, tmp_path)
    age(scene.engine)
    assert not keeper.tick()
    (tmp_path / "holdfire.toml").write_text(ONE + KEEPING.format(tmp_path / "archive") + "automatic = true\n")
    run(scene, "destinations", "apply", "--config", str(tmp_path / "holdfire.toml"), "--yes")
    assert keeper.tick()
    assert keeper._thread is not None
    keeper._thread.join(30)
    assert count(scene, "attempts") == 0
    assert not keeper.tick()


def test_a_month_waits_for_those_who_read_it_and_holds_nobody_up(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long query keeps it from being dropped for a while; firing goes on meanwhile, and then it goes."""
    age(scene.engine)
    reading, done = Event(), Event()
    tried = []

    def read() -> None:
        with scene.engine.connect() as connection:
            connection.execute(text("SELECT count(*) FROM attempts"))
            reading.set()
            done.wait(30)

    def pause(_: float) -> None:
        tried.append(1)
        scene.take(conversion(f"meanwhile-{len(tried)}", "push"))
        scene.settle(scene.fire_one(f"meanwhile-{len(tried)}"))
        if len(tried) == 2:
            done.set()

    reader = Thread(target=read)
    reader.start()
    assert reading.wait(10)
    original = dropping.drop_month
    monkeypatch.setattr(
        "workers.retaining.drop_month", lambda engine, month: original(engine, month, pause=pause)
    )
    finished: list[Any] = retain(scene.engine, policy(), tmp_path).dropped
    reader.join(10)
    assert len(tried) >= 2
    assert len(finished) == 1
    assert count(scene, "attempts") == len(tried)
    assert read_ledger(scene.engine).balances


def test_the_books_balance_while_a_month_is_leaving(scene: Scene, tmp_path: Path) -> None:
    """Whoever takes the balance in between sees all of it, in the tables or in archives, and none of it twice."""
    age(scene.engine)
    wrong: list[str] = []
    stop = Event()

    def look() -> None:
        while not stop.is_set():
            wrong.extend(entry.key for entry in read_ledger(scene.engine).entries if not entry.balances)

    readers = [Thread(target=look) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        for keep in (policy(None), policy()):
            assert isinstance(keep, Policy)
            retain(scene.engine, keep, tmp_path)
    finally:
        stop.set()
        for reader in readers:
            reader.join(30)
    assert wrong == []
    assert count(scene, "attempts") == 0
