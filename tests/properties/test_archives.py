"""The law of archives: what goes in comes out, to the byte, whatever it is, and however it is asked for."""

from __future__ import annotations

import gzip
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.archives.form import DamagedArchiveError
from infra.archives.reading import ArchiveReader, verify
from infra.archives.rewriting import rewrite
from infra.archives.writing import ArchiveWriter

COLUMNS = {
    "intents": {"attempt_id": "bigint", "postback_id": "bigint", "url": "text", "intent_at": "timestamp with time zone"},
    "attempts": {"id": "bigint", "postback_id": "bigint", "notes": "text[]", "delay_s": "double precision"},
    "hops": {"attempt_id": "bigint", "number": "smallint", "body": "bytea", "head": "bytea", "reused": "boolean", "ms": "real"},
    "checks": {"id": "bigint", "postback_id": "bigint", "rule": "text"},
}  # fmt: skip
# PostgreSQL's text has no NUL and no lone surrogate.
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)
instants = st.datetimes(datetime(2000, 1, 1), datetime(2199, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 — the zone is given beside
numbers = st.floats(allow_nan=False, allow_infinity=False, width=32)


@st.composite
def evidence(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Attempts with their rows, by id."""
    ids = sorted(draw(st.sets(st.integers(1, 2**40), min_size=1, max_size=25)))
    return [
        {
            "id": number,
            "postback": draw(st.integers(1, 9)),
            "url": draw(texts),
            "at": draw(instants),
            "notes": draw(st.none() | st.lists(texts, max_size=3)),
            "delay": draw(st.none() | numbers),
            "hops": draw(
                st.lists(st.tuples(st.binary(max_size=60), st.none() | st.booleans(), numbers), max_size=3)
            ),
            "check": draw(st.booleans()),
        }
        for number in ids
    ]


def rows_of(attempts: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    rows: dict[str, list[dict[str, Any]]] = {table: [] for table in COLUMNS}
    for each in attempts:
        number, postback = each["id"], each["postback"]
        if each["check"]:
            rows["checks"].append({"id": number, "postback_id": postback, "rule": each["url"]})
        else:
            rows["intents"].append(
                {"attempt_id": number, "postback_id": postback, "url": each["url"], "intent_at": each["at"]}
            )
            rows["attempts"].append(
                {"id": number, "postback_id": postback, "notes": each["notes"], "delay_s": each["delay"]}
            )
        rows["hops"] += [
            {
                "attempt_id": number,
                "number": place,
                "body": body,
                "head": body[::-1],
                "reused": reused,
                "ms": ms,
            }
            for place, (body, reused, ms) in enumerate(each["hops"], 1)
        ]
    return rows


def write(path: Path, attempts: list[dict[str, Any]], per_block: int) -> bytes:
    with ArchiveWriter(path, {"month": "2025-08"}, COLUMNS) as writer:
        for start in range(0, len(attempts), per_block):
            some = attempts[start : start + per_block]
            writer.add([(each["id"], each["postback"]) for each in some], rows_of(some))
        return writer.finish().sha256


def nonempty(rows: dict[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    return {table: found for table, found in rows.items() if found}


@given(evidence(), st.integers(1, 7))
@settings(max_examples=60, deadline=None)
def test_what_goes_in_comes_out(attempts: list[dict[str, Any]], per_block: int) -> None:
    """As a whole, by attempt and by postback; and with the tools of every system it is lines of JSON."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "a.ndjson.gz"
        digest = write(path, attempts, per_block)
        whole = rows_of(attempts)
        assert verify(path, digest) == {table: len(rows) for table, rows in whole.items()}
        with ArchiveReader(path) as reader:
            read: dict[str, list[Any]] = defaultdict(list)
            for block in reader.directory.blocks:
                for table, rows in reader.rows(block).items():
                    read[table] += rows
            assert nonempty(read) == nonempty(whole)
            for each in attempts:
                assert nonempty(reader.rows_of([each["id"]])) == nonempty(rows_of([each]))
            for postback in range(1, 10):
                mine = [each for each in attempts if each["postback"] == postback]
                assert reader.attempts_of([postback]) == [each["id"] for each in mine]
        assert gzip.decompress(path.read_bytes()).count(b"\n") >= sum(map(len, whole.values()))


@given(evidence(), st.integers(1, 4), st.data())
@settings(max_examples=40, deadline=None)
def test_writing_anew_changes_what_it_is_asked_to_and_nothing_else(
    attempts: list[dict[str, Any]], per_block: int, data: st.DataObject
) -> None:
    """Of an attempt that is erased its rows have what is given; every other is as it was."""
    gone = set(data.draw(st.lists(st.sampled_from([each["id"] for each in attempts]), max_size=4)))
    with TemporaryDirectory() as folder:
        old, new = Path(folder) / "a.ndjson.gz", Path(folder) / "b.ndjson.gz"
        write(old, attempts, per_block)
        rewrite(
            old,
            new,
            gone,
            lambda table, _: {"body": b"", "head": b""} if table == "hops" else {},
            datetime.now(UTC),
        )
        with ArchiveReader(new) as reader:
            for each in attempts:
                wanted = rows_of([each])
                if each["id"] in gone:
                    wanted["hops"] = [row | {"body": b"", "head": b""} for row in wanted["hops"]]
                assert nonempty(reader.rows_of([each["id"]])) == nonempty(wanted)
                assert each["id"] in reader.attempts_of([each["postback"]])


@given(evidence(), st.data())
@settings(max_examples=60, deadline=None)
def test_a_byte_that_changed_is_seen(attempts: list[dict[str, Any]], data: st.DataObject) -> None:
    """Whichever it is, and wherever a file was cut off."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "a.ndjson.gz"
        digest = write(path, attempts, 3)
        whole = path.read_bytes()
        place = data.draw(st.integers(0, len(whole) - 1))
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(DamagedArchiveError):
            verify(path, digest)
        path.write_bytes(whole[:place])
        with pytest.raises(DamagedArchiveError), ArchiveReader(path):
            pass


def test_one_that_is_left_in_the_middle_leaves_nothing(tmp_path: Path) -> None:
    """Neither under the file's name nor under the one it has until it is whole."""
    with pytest.raises(ZeroDivisionError), ArchiveWriter(tmp_path / "a.ndjson.gz", {}, COLUMNS):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
