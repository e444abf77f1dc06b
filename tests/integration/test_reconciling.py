"""Reconciling: the same report is the same one, marks come and go, and every command says what was found."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest
from sqlalchemy import Engine
from typer.testing import CliRunner

import holdfire
from infra.sink.report import Listed
from infra.sink.thread import SinkThread
from infra.store.evidence import read_life
from infra.store.keeping.erasing import Order
from infra.store.reports import reports
from investigations.next_step import next_step
from investigations.reconcile.running import preview, reconcile
from investigations.trail import moments
from schemas.reconciling.findings import Bucket, Cause
from schemas.reconciling.options import read_options
from schemas.reconciling.shares import Standing
from tests.integration.ground import cleared
from tests.integration.planted import DAY, DESTINATION, NOON, Planted, changed, extra, token, without
from workers.erasing import erase, foresee


@pytest.fixture
def planted(engine: Engine, tmp_path: Path) -> Iterator[Planted]:
    with SinkThread(recording=False) as sink:
        made = Planted(cleared(engine), sink, tmp_path)
        made.apply(rules={"sub_id": True})
        yield made


def deliver(planted: Planted, *names: str, **fields: Any) -> list[Listed]:
    """Conversions of these names, fired and counted."""
    planted.ground.take(*(planted.event(name, **fields) for name in names))
    with planted.ground.firing() as gun:
        gun.fire()
    return planted.rows()


def marks(planted: Planted) -> dict[str, int]:
    """By event: the report that has counted it."""
    rows = planted.ground.rows("""SELECT c.event_id, r.report_id FROM reconciled r
        JOIN postbacks p ON p.id = r.postback_id JOIN conversions c ON c.id = p.conversion_id""")
    return {row.event_id: row.report_id for row in rows}


def test_the_same_report_again_is_the_same_report(planted: Planted) -> None:
    """One id, its rows read once, its findings judged by the log of now, and nothing doubled."""
    rows = deliver(planted, "a", "b", "c")
    report = [*without(rows, "b"), extra("x", token("x"))]
    first = planted.reconcile(report)
    found = planted.found(first)
    again = planted.reconcile(report)
    assert (again.id, again.runs) == (first.id, 2)
    assert planted.found(again) == found
    assert planted.ground.one("SELECT count(*) FROM reports") == 1
    assert planted.ground.one("SELECT count(*) FROM report_rows") == 3
    assert planted.ground.one("SELECT count(*) FROM report_matches") == 2
    assert again.summary is not None
    assert (again.summary.marked, again.summary.unmarked) == (2, 0)
    other = planted.reconcile(report, time_zone="Europe/Berlin")
    assert other.id != first.id


def test_rows_that_were_dropped_for_their_age_are_read_anew(planted: Planted) -> None:
    """The report is the same one, and its marks stand: nothing is missing because its rows were."""
    rows = deliver(planted, "a", "b")
    first = planted.reconcile(rows)
    planted.ground.run("DELETE FROM report_rows WHERE line = 2")
    again = planted.reconcile(rows)
    assert (again.id, planted.found(again)) == (first.id, [])
    assert planted.ground.one("SELECT count(*) FROM report_rows") == 2
    assert marks(planted) == {"a": first.id, "b": first.id}


def test_a_mark_is_seen_wherever_the_postback_is_looked_at(planted: Planted) -> None:
    """Delivered is no proof; the network's report is, and the next step and the trail say so."""
    record = planted.reconcile(deliver(planted, "a"))
    conversion = planted.ground.one("SELECT conversion_id FROM postbacks")
    life = read_life(planted.engine, conversion)
    assert life is not None
    (postback,) = life.postbacks
    assert postback.counted_by == record.id
    assert f"counted by the network: report rp_{record.id}" in next_step(life, postback)
    told = [moment.text for moment in moments(life) if moment.kind == "counted"]
    assert told == [f"counted by the network: report rp_{record.id}"]


def test_what_a_report_has_against_a_postback_is_seen_there_too(planted: Planted) -> None:
    """The trail and the next step name report and cause, until a later report counts it."""
    rows = deliver(planted, "a", "b")
    first = planted.reconcile(without(rows, "b"))
    conversion = planted.ground.one("SELECT id FROM conversions WHERE event_id = 'b'")

    def told() -> tuple[str, list[str]]:
        life = read_life(planted.engine, conversion)
        assert life is not None
        return next_step(life, life.postbacks[0]), [
            each.text for each in moments(life) if each.kind == "disputed"
        ]

    cause = "delivered, and no cause found in the evidence"
    step, disputes = told()
    assert f"not counted by the network's report rp_{first.id}: {cause}" in step
    assert disputes == [f"ours only in the network's report rp_{first.id}: {cause}"]
    later = planted.reconcile(rows)
    step, disputes = told()
    assert step.endswith(f"counted by the network: report rp_{later.id}")
    assert disputes == []


def test_a_hostile_report_is_inert_wherever_it_is_shown(planted: Planted, command: Any) -> None:
    """Escapes, a right-to-left mark and a formula: not in the terminal, not in the CSV, not in the draft."""
    hostile = ["=HYPERLINK(1)", "+1\x1b[31m", "@a\u202e", "-2;=1"]
    deliver(planted, "a")
    rows = [Listed(each, each, Decimal("1.00"), "EUR", NOON) for each in hostile]
    record = planted.reconcile(rows)
    shown = command("reports", "show", f"rp_{record.id}", "--bucket", "theirs_only")
    exported = command("reports", "export", f"rp_{record.id}")
    page = command("reports", "show", f"rp_{record.id}")
    for text in (shown.stdout, exported.stdout, page.stdout):
        assert "\x1b" not in text
        assert "\u202e" not in text
    cells = [cell for row in csv.reader(io.StringIO(exported.stdout, newline="")) for cell in row]
    assert any("HYPERLINK" in cell for cell in cells)
    assert not [cell for cell in cells if cell[:1] in {"=", "+", "@"} or (cell[:1] == "-" and len(cell) > 1)]


def test_a_later_report_without_it_takes_the_mark_back(planted: Planted) -> None:
    """And an earlier one that is run again does not bring it back."""
    rows = deliver(planted, "a", "b")
    first = planted.reconcile(rows)
    assert marks(planted) == {"a": first.id, "b": first.id}
    later = planted.reconcile(without(rows, "b"))
    assert marks(planted) == {"a": later.id}
    assert later.summary is not None
    assert later.summary.unmarked == 1
    planted.reconcile(rows)
    assert marks(planted) == {"a": later.id}


def test_a_report_run_again_takes_back_its_own_mark(planted: Planted) -> None:
    """What it no longer counts by the log of now is no longer marked by it."""
    rows = deliver(planted, "a", "b")
    first = planted.reconcile(rows)
    planted.ground.run(
        "UPDATE postbacks SET attempts = 0, state = 'voided', void_reason = 'by_hand' WHERE id = 2"
    )
    planted.reconcile(rows)
    assert marks(planted) == {"a": first.id}


def test_a_dry_run_keeps_and_marks_nothing(planted: Planted) -> None:
    """It finds what the run proper finds."""
    rows = deliver(planted, "a", "b")
    path = planted.folder / "dry.csv"
    from infra.sink.report import report_csv
    from investigations.reconcile.running import run

    path.write_text(report_csv(without(rows, "b")), newline="")
    record = run(planted.engine, DESTINATION, path, read_options({}), "test", dry_run=True)
    assert record.id == 0
    assert record.summary is not None
    assert {each.bucket: each.count for each in record.summary.buckets if each.count} == {
        Bucket.MATCHED: 1,
        Bucket.OURS_ONLY: 1,
    }
    for table in (
        "reports",
        "report_rows",
        "report_matches",
        "report_findings",
        "reconciled",
        "report_mappings",
    ):
        assert planted.ground.one(f"SELECT count(*) FROM {table}") == 0, table


def test_values_are_compared_with_what_was_told_last(planted: Planted) -> None:
    """A ratio that most share is one cause; a currency of its own is another."""
    names = [f"v{n}" for n in range(8)]
    rows = deliver(planted, *names)
    for name in names[:7]:
        rows = changed(rows, name, payout=Decimal("44.91"))
    record = planted.reconcile(changed(rows, "v7", currency="USD"))
    assert {each.cause for each in planted.found(record)} == {Cause.CONSTANT_RATIO, Cause.CURRENCY_DIFFERS}
    assert record.summary is not None
    assert record.summary.bucket(Bucket.VALUE_MISMATCH).amounts == {"EUR": Decimal("84.83")}
    assert marks(planted).keys() == set(names)


def test_a_report_of_days_in_another_zone_is_recognised(planted: Planted) -> None:
    """Days alone are enough to tell by how many hours the network's clock is off."""
    planted.ground.take(*(planted.event(f"d{n}", NOON + timedelta(hours=n - 12)) for n in range(24)))
    with planted.ground.firing() as gun:
        gun.fire()
    rows = planted.rows("America/New_York")

    def days_only(text: str) -> str:
        return "\r\n".join(
            line[: -len(" 00:00:00")] if line[-3:-2] == ":" else line for line in text.split("\r\n")
        )

    record = planted.reconcile(rows, days_only)
    found = planted.found(record)
    assert {each.cause for each in found} == {Cause.TIME_ZONE_SHIFT}
    assert {each.days for each in found} == {-1}
    assert len(found) in {4, 5}
    assert record.summary is not None
    assert any("--time-zone" in note for note in record.summary.notes)
    right = planted.reconcile(rows, days_only, time_zone="America/New_York")
    assert planted.found(right) == []


def test_what_is_in_doubt_is_cleared_up_by_the_report(planted: Planted) -> None:
    """Sent, no answer, and the report has it: counted, and to be settled by hand."""
    rows = deliver(planted, "a")
    planted.ground.run("UPDATE postbacks SET state = 'in_doubt', reason = 'timeout'")
    (found,) = planted.found(planted.reconcile(rows))
    assert (found.bucket, found.cause) == (Bucket.MATCHED, Cause.COUNTED_ANYWAY)
    assert marks(planted).keys() == {"a"}


def test_what_is_known_elsewhere_is_not_called_unknown(planted: Planted) -> None:
    """Never sent, under another order, far outside of the days, unrouted, refused: each by its name."""
    rows = deliver(planted, "a", "far", "void")
    planted.ground.take(
        planted.event("unrouted", name="signup"),
        planted.event("refused", currency="XXX"),
    )
    planted.ground.run(
        "UPDATE postbacks SET attempts = 0, state = 'voided', void_reason = 'by_hand' WHERE id = 3"
    )
    planted.ground.run(
        "UPDATE conversions SET occurred_at = occurred_at - interval '20 days' WHERE event_id = 'far'"
    )
    report = [
        *rows,
        extra("other-order", token("a")),
        extra("unrouted", token("unrouted")),
        extra("refused", token("refused")),
        extra("number", "1.23457E+15"),
    ]
    record = planted.reconcile(report)
    assert {each.their_order_id: each.cause for each in planted.found(record)} == {
        "order-void": Cause.NEVER_SENT,
        "order-far": Cause.OUTSIDE_PERIOD,
        "order-other-order": Cause.OTHER_ORDER,
        "order-unrouted": Cause.UNROUTED,
        "order-refused": Cause.REFUSED_AT_INTAKE,
        "order-number": Cause.SPREADSHEET,
    }


def test_conversions_of_one_click_are_told_apart_by_what_there_is(planted: Planted) -> None:
    """By order id; without it by value; and a row more than there are conversions is a repeat."""
    shared = token("shared")
    planted.ground.take(*(planted.event(f"m{n}", click_id=shared, value=f"{n}0.00") for n in (1, 2, 3)))
    with planted.ground.firing() as gun:
        gun.fire()
    rows = planted.rows()
    assert planted.found(planted.reconcile(list(reversed(rows)))) == []

    def without_orders(text: str) -> str:
        return "\r\n".join(
            ",".join(cell for n, cell in enumerate(line.split(",")) if n != 1) for line in text.split("\r\n")
        )

    assert planted.found(planted.reconcile(list(reversed(rows)), without_orders)) == []
    (repeat,) = planted.found(planted.reconcile([*rows, rows[0]], without_orders))
    assert (repeat.bucket, repeat.cause) == (Bucket.DUPLICATE, Cause.COUNTED_TWICE)


def test_a_partners_conversions_meet_by_their_orders(planted: Planted) -> None:
    """Where no click is known, the order is what both sides have."""
    from tests.integration.ground import contract, conversion

    planted.ground.apply(
        contract("partners", f"{planted.sink.url}/knorex-xpo/p?partner_id={{partner_id}}&order_id={{order_id}}&event=purchase",
                 protocol="partner", dedupe="harmless")
    )  # fmt: skip
    planted.ground.take(
        *(
            conversion(
                name, partner_id="p-1", click_ids={}, order_id=f"order-{name}", occurred_at=NOON.isoformat()
            )
            for name in "xyz"
        )
    )
    with planted.ground.firing() as gun:
        gun.fire()
    path = planted.folder / "partners.csv"
    path.write_text(f"Order ID,Revenue,Date\norder-x,49.90,{DAY}\norder-y,49.90,{DAY}\n")
    number = reconcile(planted.engine, "partners", path, read_options({}), "test")
    record = reports.report(planted.engine, number)
    assert record is not None
    assert {each.our_order_id: each.cause for each in planted.found(record)} == {"order-z": Cause.NOT_COUNTED}
    assert marks(planted).keys() == {"x", "y"}


def test_a_status_that_does_not_count_is_no_match(planted: Planted) -> None:
    """Networks list what they declined as well."""
    rows = deliver(planted, "a", "b")

    def with_status(text: str) -> str:
        header, *lines = text.rstrip("\r\n").split("\r\n")
        approved, declined = sorted(
            lines, key=lambda line: "order-b" in line
        )  # the sink lists them as they came
        return "\r\n".join([f"{header},Status", f"{approved},approved", f"{declined},declined"])

    record = planted.reconcile(rows, with_status)
    assert {each.our_order_id: each.cause for each in planted.found(record)} == {
        "order-b": Cause.DECLINED_BY_NETWORK
    }
    assert marks(planted).keys() == {"a"}


def test_above_five_percent_in_two_reports_in_a_row_is_structural(planted: Planted) -> None:
    """One report above is high; the next one's days above as well make it structural."""
    rows = deliver(planted, *(f"s{n}" for n in range(10)))
    first = planted.reconcile(without(rows, "s0", "s1"))
    assert first.summary is not None
    assert first.summary.bucket(Bucket.OURS_ONLY).standing is Standing.HIGH
    next_day = (DAY + timedelta(days=1)).isoformat()
    second = planted.reconcile(without(rows, "s0", "s1"), last_day=next_day)
    assert second.summary is not None
    assert second.summary.bucket(Bucket.OURS_ONLY).standing is Standing.STRUCTURAL


def test_how_a_network_writes_is_remembered(planted: Planted) -> None:
    """The second report needs no options; what is given outweighs what is remembered."""
    rows = deliver(planted, "a")

    def renamed(text: str) -> str:
        return text.replace("Click ID", "Ihr Token").replace("Payout", "Betrag").replace("49.90", '"49,90"')

    path = planted.folder / "first.csv"
    from infra.sink.report import report_csv

    path.write_text(renamed(report_csv(rows)), newline="")
    options = read_options(
        {"columns": {"click_id": "Ihr Token"}, "decimal": ",", "time_zone": "Europe/Berlin"}
    )
    reconcile(planted.engine, DESTINATION, path, options, "test")
    shown = preview(planted.engine, DESTINATION, path, read_options({}))
    assert shown.columns["click_id"] == "Ihr Token"
    assert (shown.options.time_zone, shown.options.decimal) == ("Europe/Berlin", ",")
    assert shown.read[0].value == "49.90"
    assert (
        preview(planted.engine, DESTINATION, path, read_options({"time_zone": "UTC"})).options.time_zone
        == "UTC"
    )


def test_a_report_of_sums_is_compared_day_by_day(planted: Planted) -> None:
    """Days that agree agree; on the others the counts of our side say what may lie behind it."""
    deliver(planted, "a", "b", "c")
    planted.ground.take(planted.event("held", name="lease"))
    later = DAY + timedelta(days=1)
    path = planted.folder / "sums.csv"
    path.write_text(f"Date;Conversions;Revenue;Currency\n{DAY};2;99,80;EUR\n{later};1;49,90;EUR\n")
    number = reconcile(planted.engine, DESTINATION, path, read_options({"aggregated": True}), "test")
    record = reports.report(planted.engine, number)
    assert record is not None
    assert {(each.day, each.bucket, each.cause) for each in planted.found(record)} == {
        (DAY, Bucket.OURS_ONLY, Cause.NOT_COUNTED),
        (DAY, Bucket.OURS_ONLY, Cause.STILL_HELD),
        (later, Bucket.THEIRS_ONLY, Cause.UNKNOWN_TO_US),
    }
    assert record.summary is not None
    assert record.summary.bucket(Bucket.MATCHED).count == 2
    assert marks(planted) == {}


@pytest.fixture
def command(planted: Planted, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("HOLDFIRE_DATABASE_URL", database_url)
    monkeypatch.setenv("HOLDFIRE_DATA_DIR", str(planted.folder / "data"))
    return lambda *words: CliRunner().invoke(holdfire.app, [str(word) for word in words])


def test_the_commands_tell_buckets_causes_and_each_finding(planted: Planted, command: Any) -> None:
    """As a page, as JSON, as CSV, and as a bundle for the network's support; above 5 % the exit code is 1."""
    from infra.sink.report import report_csv

    path = planted.folder / "net.csv"
    path.write_text(report_csv(without(deliver(planted, "a", "=b"), "=b")), newline="")
    result = command("reconcile", DESTINATION, path)
    assert result.exit_code == 1, result.output
    assert "ours only" in result.stdout
    assert "delivered, and no cause found in the evidence" in result.stdout
    assert "above 5 %: structural if it lasts" in result.stdout
    (listed,) = [orjson.loads(line) for line in command("reports", "list", "--json").stdout.splitlines()]
    assert listed["id"] == "rp_1"
    assert listed["summary"]["standing"] == "high"
    shown = command("reports", "show", "rp_1", "--bucket", "ours_only", "--json")
    (finding,) = [orjson.loads(line) for line in shown.stdout.splitlines()]
    assert (finding["cause"], finding["our_order_id"]) == ("not_counted", "order-=b")
    (match,) = [
        orjson.loads(line)
        for line in command("reports", "show", "rp_1", "--bucket", "matched", "--json").stdout.splitlines()
    ]
    assert match["our_click_id"] == match["their_click_id"] == token("a")
    csv = command("reports", "export", "rp_1").stdout
    assert "order-=b" in csv
    draft = planted.folder / "draft.zip"
    assert command("reports", "export", "rp_1", "--support", draft).exit_code == 0
    with zipfile.ZipFile(io.BytesIO(draft.read_bytes())) as bundle:
        names = set(bundle.namelist())
        assert {"extra/letter.txt", "extra/disputed.csv", "manifest.json", "attempts.har"} <= names
        letter = bundle.read("extra/letter.txt").decode()
    assert "ours only, delivered, and no cause found in the evidence: 1 conversions, 49.90 EUR" in letter
    handed = planted.ground.rows(
        "SELECT action, detail->>'form' AS form FROM audit WHERE action LIKE '%export%' ORDER BY id"
    )
    assert [(row.action, row.form) for row in handed] == [
        ("export.csv", None),
        ("evidence.export", "support"),
    ]
    assert command("reports", "show", "rp_9").exit_code == 1
    assert command("reconcile", DESTINATION, path, "--dry-run", "--json").exit_code == 1


def test_a_report_under_the_thresholds_ends_well(planted: Planted, command: Any) -> None:
    """What a scheduled check wants: 0 where there is nothing to look at."""
    from infra.sink.report import report_csv

    path = planted.folder / "net.csv"
    path.write_text(report_csv(deliver(planted, "a")), newline="")
    assert command("reconcile", DESTINATION, path).exit_code == 0


def test_what_was_erased_goes_on_matching_and_none_of_it_is_legible(planted: Planted) -> None:
    """Rows are the person's by what they were found to stand for, also where the network has cut the click id."""
    rows = deliver(planted, "a", "b", "c")
    cut = token("b")[:40]
    report = changed(rows, "b", click_id=cut, order_id="")
    first = planted.reconcile(report)
    assert Cause.TRUNCATED in {each.cause for each in planted.found(first)}
    for name in ("a", "b"):
        order = Order("order", f"order-{name}", "dpo", "a request")
        foreseen = foresee(planted.engine, order).counts
        assert foreseen["report_rows"] == erase(planted.engine, order).counts["report_rows"] == 1
    kept = planted.ground.rows("SELECT * FROM report_rows ORDER BY line")
    legible = orjson.dumps([list(row) for row in kept], default=str).decode()
    assert cut not in legible
    assert "order-a" not in legible
    assert "order-c" in legible
    again = planted.reconcile(report)
    assert again.id == first.id
    assert set(marks(planted).values()) == {first.id}
    assert [each.value for each in kept] == [Decimal("49.90")] * 3
    afresh = planted.reconcile(report, time_zone="Europe/Berlin")
    assert afresh.summary is not None
    assert afresh.summary.bucket(Bucket.MATCHED).count == 2, planted.found(afresh)
