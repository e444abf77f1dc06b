"""Evidence that is old enough leaves the database for archives, and everything that reads it finds it there."""

from __future__ import annotations

import gzip
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from sqlalchemy import Engine, text

from infra.archives.reading import ArchiveReader
from infra.store.evidence import read_life
from infra.store.keeping import legal_holds
from infra.store.keeping.archiving import ArchiveMismatchError
from infra.store.ledger import read_ledger
from infra.store.searching import search
from infra.store.searching.search import Criteria
from schemas.keeping import Keeping, Policy
from schemas.lifecycle import State
from schemas.verdict import VerdictKind
from tests.integration.aged import age
from tests.integration.ground import cleared
from tests.integration.scenes import Scene, contract, conversion, hop
from workers import retaining
from workers.retaining import retain

YEAR = timedelta(days=365)


def policy(
    evidence: timedelta | None = YEAR, ages: dict[str, timedelta | None] | None = None, **more: Any
) -> Policy:
    return Policy(Keeping(evidence=evidence, **more), ages or {})


def emptied(engine: Engine) -> None:
    """The module's database without anything in it, what keeping adds included."""
    cleared(engine)
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        connection.execute(
            text("""TRUNCATE archives, legal_holds, legal_hold_conversions, pruned, tombstones, erasures, erasure_keys,
                    inbox, inbox_runs, outbox RESTART IDENTITY CASCADE""")
        )
        connection.execute(text("ALTER SEQUENCE attempt_ids RESTART"))


@pytest.fixture
def scene(engine: Engine) -> Scene:
    """Two destinations: one conversion each that was delivered, one of push that failed twice, and a fresh one."""
    emptied(engine)
    scene = Scene(engine)
    scene.apply(contract("push-eu"), contract("xandr-main"))
    scene.take(conversion("old", "push"))
    scene.settle(
        scene.fire_one("old"), hops=[hop(body=bytes(range(256)), body_length=256), hop(2, truncated=True)]
    )
    scene.take(conversion("failed", "push"))
    first = scene.fire_one("failed")
    scene.settle(
        first, State.RETRYING, VerdictKind.RETRY, "status 503", next_attempt_at=first.gated.now, delay_s=0.0
    )
    scene.make_due(scene.postback_of("failed"))
    scene.settle(
        scene.fire_one("failed"),
        State.DEAD,
        VerdictKind.RETRY,
        "status 503",
        notes=('it said "no"', "ünïcode"),
    )
    scene.take(conversion("other", "xandr"))
    scene.settle(scene.fire_one("other"))
    return scene


def lives(scene: Scene) -> list[Any]:
    """Everything that can be read of every conversion, but for where it was read from and when."""
    with scene.engine.connect() as connection:
        ids = list(connection.execute(text("SELECT id FROM conversions ORDER BY id")).scalars())
    found = []
    for number in ids:
        life = read_life(scene.engine, number)
        assert life is not None
        found.append([(p.id, p.state, p.unreadable, [_bare(a) for a in p.attempts]) for p in life.postbacks])
    return found


def _bare(attempt: Any) -> Any:
    return (
        attempt.id,
        attempt.number,
        attempt.intent_at,
        attempt.worker,
        attempt.intended_url,
        attempt.outcome,
        attempt.hops,
    )


def partitions(scene: Scene) -> int:
    with scene.engine.connect() as connection:
        query = text("SELECT count(*) FROM pg_inherits WHERE inhparent = 'attempts'::regclass")
        return int(connection.execute(query).scalar_one())


def count(scene: Scene, what: str) -> int:
    with scene.engine.connect() as connection:
        return int(connection.execute(text(f"SELECT count(*) FROM {what}")).scalar_one())


def test_a_month_that_is_past_is_read_from_its_archive_as_from_the_table(
    scene: Scene, tmp_path: Path
) -> None:
    """To the byte, with every hop, note and time; the partition is gone and the ledger balances."""
    age(scene.engine)
    scene.take(conversion("fresh", "push"))
    scene.settle(scene.fire_one("fresh"))
    before, months = lives(scene), partitions(scene)
    done = retain(scene.engine, policy(), tmp_path)
    assert sum(done.archived.values()) == 4
    assert lives(scene) == before
    assert partitions(scene) == months - 1
    assert count(scene, "attempts") == 1
    assert read_ledger(scene.engine).balances
    terms = {term.label: term.count for entry in read_ledger(scene.engine).entries for term in entry.right}
    assert terms["in archives"] == 4


def test_what_is_read_from_an_archive_says_so(scene: Scene, tmp_path: Path) -> None:
    """With the file's name, at the attempt."""
    month = age(scene.engine)
    retain(scene.engine, policy(), tmp_path)
    life = read_life(scene.engine, 1)
    assert life is not None
    assert [a.archive for a in life.postbacks[0].attempts] == [f"{month:%Y-%m}.push-eu.1.ndjson.gz"]


def test_an_attempt_is_found_by_its_id_in_an_archive(scene: Scene, tmp_path: Path) -> None:
    """As `holdfire transcript at_1` looks for it."""
    age(scene.engine)
    wanted = [search.postback_of_attempt(scene.engine, number) for number in (1, 2, 3, 4)]
    retain(scene.engine, policy(), tmp_path)
    assert [search.postback_of_attempt(scene.engine, number) for number in (1, 2, 3, 4)] == wanted
    assert search.postback_of_attempt(scene.engine, 4711) is None


def test_an_archive_can_be_read_with_the_tools_of_every_system(scene: Scene, tmp_path: Path) -> None:
    """It is gzip of JSON lines, and its first line names every column."""
    age(scene.engine)
    retain(scene.engine, policy(), tmp_path)
    path = next(tmp_path.glob("*push-eu*"))
    rows = [orjson.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    (kind, header), *rows = rows
    assert kind == "header"
    assert header["tables"]["hops"]["body"] == "bytea"
    assert {row[0] for row in rows} >= {"intents", "attempts", "hops"}
    assert path.stat().st_mode & 0o077 == 0


def test_what_is_younger_stays(scene: Scene, tmp_path: Path) -> None:
    """And where nothing is configured, everything stays."""
    age(scene.engine, 9)
    for keep in (policy(), policy(None)):
        assert retain(scene.engine, keep, tmp_path).archived == {}
    assert count(scene, "attempts") == 4


def test_each_destination_keeps_as_long_as_it_says(scene: Scene, tmp_path: Path) -> None:
    """The rows of one leave the month, those of the other stay in it."""
    age(scene.engine)
    before = lives(scene)
    done = retain(scene.engine, policy(YEAR, {"xandr-main": None}), tmp_path)
    assert {destination for _, destination in done.archived} == {"push-eu"}
    assert done.dropped == []
    assert count(scene, "attempts") == 1
    assert lives(scene) == before
    assert read_ledger(scene.engine).balances
    done = retain(scene.engine, policy(), tmp_path)
    assert len(done.dropped) == 1
    assert lives(scene) == before
    assert read_ledger(scene.engine).balances


def test_what_is_under_a_legal_hold_stays_in_the_database(scene: Scene, tmp_path: Path) -> None:
    """Until it is lifted; the rest of its month leaves without it."""
    age(scene.engine)
    hold = legal_holds.place(
        scene.engine, Criteria(order_id="order-old"), None, who="counsel", reason="case", until=None
    )
    done = retain(scene.engine, policy(), tmp_path)
    assert done.stay_held == 1
    assert count(scene, "attempts") == 1
    assert read_ledger(scene.engine).balances
    legal_holds.lift(scene.engine, hold.id, who="counsel", reason="settled")
    before = lives(scene)
    done = retain(scene.engine, policy(), tmp_path)
    assert sum(done.archived.values()) == 1
    assert count(scene, "attempts") == 0
    assert lives(scene) == before
    assert read_ledger(scene.engine).balances


def test_a_destination_can_be_held_whole(scene: Scene, tmp_path: Path) -> None:
    """Also what it fires after the hold was placed."""
    legal_holds.place(scene.engine, Criteria(destination="xandr-main"), None, who="c", reason="r", until=None)
    age(scene.engine)
    retain(scene.engine, policy(), tmp_path)
    assert count(scene, "attempts") == 1


def test_what_has_not_ended_stays(scene: Scene, tmp_path: Path) -> None:
    """A rescue or retry may still need it."""
    scene.take(conversion("open", "push"))
    first = scene.fire_one("open")
    scene.settle(
        first, State.RETRYING, VerdictKind.RETRY, "status 503", next_attempt_at=first.gated.now, delay_s=0.0
    )
    age(scene.engine)
    done = retain(scene.engine, policy(), tmp_path)
    assert done.stay_open == 1
    assert count(scene, "attempts") == 1
    assert read_ledger(scene.engine).balances


def test_an_archive_that_is_gone_is_missed_in_words(scene: Scene, tmp_path: Path) -> None:
    """A file that is not there, or not whole, is never passed over in silence."""
    age(scene.engine)
    retain(scene.engine, policy(), tmp_path)
    path = next(tmp_path.glob("*push-eu*"))
    whole = path.read_bytes()
    with ArchiveReader(path) as reader:
        start = reader.directory.blocks[0].offset
    for spoilt, words in (
        (None, "is not there"),
        (whole[:-10], "is damaged"),
        (whole[:start] + bytes(40) + whole[start + 40 :], "is damaged"),
    ):
        path.unlink(missing_ok=True)
        if spoilt is not None:
            path.write_bytes(spoilt)
        life = read_life(scene.engine, 1)
        assert life is not None
        assert words in life.postbacks[0].unreadable[0]
        assert life.postbacks[0].attempts == ()
    assert read_ledger(scene.engine).balances


def test_archives_are_kept_as_long_as_they_are_asked_to_be(scene: Scene, tmp_path: Path) -> None:
    """Then their files are deleted, and the trail says that they were."""
    age(scene.engine)
    retain(scene.engine, policy(), tmp_path)
    done = retain(scene.engine, policy(archive_keep="399d"), tmp_path)
    assert len(done.expired) == 2
    assert list(tmp_path.iterdir()) == []
    life = read_life(scene.engine, 1)
    assert life is not None
    assert "as the retention asks" in life.postbacks[0].unreadable[0]
    assert read_ledger(scene.engine).balances


def test_without_archives_nothing_is_left(scene: Scene, tmp_path: Path) -> None:
    """And the ledger still balances."""
    age(scene.engine)
    retain(scene.engine, policy(archive=False), tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert count(scene, "attempts") == 0
    assert read_ledger(scene.engine).balances


def test_a_dry_run_says_what_a_run_does(scene: Scene, tmp_path: Path) -> None:
    """The same counts, and nothing is changed."""
    age(scene.engine)
    foreseen = retaining.foresee(scene.engine, policy())
    assert count(scene, "attempts") == 4
    assert foreseen.archived == retain(scene.engine, policy(), tmp_path).archived


def test_nothing_leaves_the_tables_for_an_archive_that_is_not_there(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that was lost between its writing and the dropping is missed before anything is dropped."""
    age(scene.engine)
    monkeypatch.setattr(retaining, "_take_out", lambda *_: None)
    retain(scene.engine, policy(), tmp_path)
    monkeypatch.undo()
    path = next(tmp_path.glob("*push-eu*"))
    path.rename(tmp_path / "elsewhere")
    with pytest.raises(ArchiveMismatchError, match="is not there"):
        retain(scene.engine, policy(), tmp_path)
    assert count(scene, "attempts") == 4
    (tmp_path / "elsewhere").rename(path)
    retain(scene.engine, policy(), tmp_path)
    assert count(scene, "attempts") == 0
    assert read_ledger(scene.engine).balances
