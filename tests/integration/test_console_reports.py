"""Reconciling from the browser: a report sent, looked at, read otherwise, and followed down to each conversion."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import httpx
import openpyxl
import pytest
from sqlalchemy import Engine

from infra.store.console import accounts
from investigations.console import uploads
from schemas.accounts import ConsolePolicy, Role
from tests.integration.console import OPERATOR, VIEWER, ConsoleThread, Visitor
from tests.integration.ground import until
from tests.integration.scenes import TOKEN, Scene, contract, conversion

COUNTED, FORGOTTEN, DELIVERED = 6, 2, 8
HAPPENED = datetime.now(UTC) - timedelta(hours=1)
TODAY = HAPPENED.strftime("%Y-%m-%d")


@pytest.fixture(scope="module")
def scene(engine: Engine) -> Scene:
    scene = Scene(engine)
    scene.apply(contract("push-eu"))
    for number in range(DELIVERED):
        scene.take(conversion(f"e{number}", "push", occurred_at=HAPPENED.isoformat()))
        scene.settle(scene.fire_one(f"e{number}"))
    return scene


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def console(engine: Engine, scene: Scene, folder: Path) -> Iterator[ConsoleThread]:
    with ConsoleThread(engine, data_dir=folder) as running:
        yield running


@pytest.fixture(scope="module")
def operator(console: ConsoleThread) -> Visitor:
    return console.signed_in(OPERATOR)


def a_report(extra: str = "") -> bytes:
    """Most of what was delivered, one with another value, and one that nobody knows."""
    lines = [f"{TOKEN}e{n};order-e{n};{'49,90' if n else '39,90'};EUR;{TODAY}" for n in range(COUNTED)]
    text = "Klick;Bestellung;Betrag;Währung;Datum\n" + "\n".join(lines)
    return f"{text}\n{TOKEN}stranger;order-x;10,00;EUR;{TODAY}\n{extra}".encode()


MAPPING = {"column_click_id": "Klick", "column_order_id": "Bestellung", "decimal": ","}


def send(visitor: Visitor, content: bytes, name: str = "report.csv") -> httpx.Response:
    """Fill in the upload form."""
    return visitor.post(
        "/reports/new",
        data={"csrf": visitor.csrf, "destination": "push-eu"},
        files={"file": (name, content)},
    )


def reconciled(visitor: Visitor, path: str, **fields: str) -> str:
    """Begin, and follow it to the report's page."""
    begun = visitor.submit(path, path, step="do", **fields)
    assert begun.status_code == 303, begun.text
    found: list[str] = []

    def ended() -> bool:
        answer = visitor.get(begun.headers["location"])
        assert "flash-failed" not in answer.text, answer.text
        found.append(answer.headers.get("location", ""))
        return bool(found[-1])

    until(ended, 60)
    return found[-1]


def fields_of(text: str) -> dict[str, str]:
    """What stands chosen in the form's selects."""
    chosen = {}
    for name, body in re.findall(r'<select id="[^"]*" name="([^"]*)".*?>(.*?)</select>', text, re.DOTALL):
        selected = re.search(r'<option value="([^"]*)" selected>', body)
        chosen[name] = selected[1] if selected else ""
    return chosen


def test_a_report_goes_from_its_file_to_each_conversion(operator: Visitor, engine: Engine) -> None:
    """Sent, read otherwise than guessed, reconciled, and drilled down to the one conversion that was not counted."""
    sent = send(operator, a_report())
    assert sent.status_code == 303
    path = sent.headers["location"]
    shown = operator.get(path).text
    assert "order-e1" in shown
    looked = operator.submit(path, path, step="look", **MAPPING)
    assert fields_of(looked.text)["column_click_id"] == "Klick"
    assert "39.90" in looked.text
    page = reconciled(operator, path, **MAPPING, column_value="Betrag", column_currency="Währung")
    report = operator.get(page).text
    assert "ours only" in report
    assert f"We delivered {DELIVERED} conversions" in report
    ours = operator.get(f"{page}/findings?bucket=ours_only").text
    assert ours.count('href="/conversions/cv_') == FORGOTTEN
    theirs = operator.get(f"{page}/findings?bucket=theirs_only").text
    assert f"{TOKEN}stranger" in theirs
    assert "the destination sends no value" in report
    csv = operator.get(f"{page}/findings.csv?bucket=ours_only")
    assert len(csv.text.splitlines()) == FORGOTTEN + 1
    assert page.rpartition("/")[2] in operator.get("/reports").text


def test_the_next_report_is_read_as_the_last_one_was(operator: Visitor) -> None:
    path = send(operator, a_report()).headers["location"]
    reconciled(operator, path, **MAPPING, column_value="Betrag", time_zone="Europe/Berlin")
    path = send(operator, a_report("\n")).headers["location"]
    chosen = fields_of(operator.get(path).text)
    assert chosen["column_click_id"] == "Klick"
    assert chosen["time_zone"] == "Europe/Berlin"
    assert chosen["decimal"] == ","


def test_what_a_file_shows_itself_is_not_taken_from_the_last_one(operator: Visitor) -> None:
    """Another separator and another encoding than last time are seen, and the columns are known all the same."""
    path = send(operator, a_report()).headers["location"]
    reconciled(operator, path, **MAPPING)
    other = a_report("").decode().replace(",", ".").replace(";", ",").replace("Betrag", "Höhe")
    text = operator.get(send(operator, other.encode("cp1252")).headers["location"]).text
    assert fields_of(text)["column_click_id"] == "Klick"
    assert "Höhe" in text


def test_a_sign_that_is_said_drives_out_the_one_that_was_remembered(operator: Visitor) -> None:
    """A report with 1,234.50 before, and one with 1.234,50 now: the comma cannot be both."""
    before = (
        f'Klick,Bestellung,Betrag\n{TOKEN}e1,order-e1,"1,234.50"\n{TOKEN}e2,order-e2,"2,000.00"\n'.encode()
    )
    fields = {"column_click_id": "Klick", "column_order_id": "Bestellung", "column_value": "Betrag"}
    reconciled(operator, send(operator, before).headers["location"], **fields, decimal=".", thousands=",")
    path = send(operator, a_report("#\n#\n")).headers["location"]
    looked = operator.submit(path, path, step="look", **MAPPING, column_value="Betrag")
    assert looked.status_code == 200
    assert "39.90" in looked.text


def test_a_workbook_is_read_too(operator: Visitor) -> None:
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.append(["Click ID", "Order ID", "Value"])
    sheet.append([f"{TOKEN}e1", "order-e1", 49.9])
    content = BytesIO()
    book.save(content)
    path = send(operator, content.getvalue(), "report.xlsx").headers["location"]
    page = reconciled(
        operator, path, column_click_id="Click ID", column_order_id="Order ID", column_value="Value"
    )
    assert "report.xlsx" in operator.get(page).text


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "is empty"), (b"\x1f\x8b\x08rest", "compressed"), (b"a,b\n1,2\n", "column")],
)
def test_what_is_no_report_says_why(operator: Visitor, content: bytes, words: str) -> None:
    path = send(operator, content).headers["location"]
    assert words in operator.get(path).text


@pytest.mark.parametrize(
    "fields",
    [
        {"time_zone": "Mars/Olympus"},
        {"attribution_window": "long"},
        {"first_day": "2026-12-01", "last_day": "2026-11-01"},
    ],
)
def test_an_option_that_makes_no_sense_is_refused(operator: Visitor, fields: dict[str, str]) -> None:
    path = send(operator, a_report()).headers["location"]
    answer = operator.submit(path, path, step="do", **MAPPING, **fields)
    assert answer.status_code == 400
    assert 'role="alert"' in answer.text


def test_a_file_is_its_senders_alone_and_forgotten_when_it_was_read(
    console: ConsoleThread, operator: Visitor, folder: Path
) -> None:
    path = send(operator, a_report("#\n")).headers["location"]
    known = {each.name for each in accounts.every(console.engine)}
    if "olga" not in known:
        accounts.add(console.engine, "olga", Role.OPERATOR, "copper lantern drifts north", who="test")
    assert console.signed_in("olga").get(path).status_code == 404
    assert operator.get("/reports/new/" + "x" * 22).status_code == 404
    assert operator.get("/reports/new/..%2F..%2Fetc").status_code == 404
    reconciled(operator, path, **MAPPING)
    until(lambda: not (folder / "uploads" / path.rpartition("/")[2]).exists())


def test_a_name_is_never_a_path(operator: Visitor, folder: Path) -> None:
    path = send(operator, a_report(), "../../evil<script>.csv").headers["location"]
    text = operator.get(path).text
    assert "evil&lt;script&gt;.csv" in text
    kept = {each.name for each in (folder / "uploads" / path.rpartition("/")[2]).rglob("*") if each.is_file()}
    assert kept == {"file", "about.json"}


def test_what_is_too_large_is_refused_before_it_comes(operator: Visitor) -> None:
    """By the length that the request announces: nothing of it is taken."""
    request = operator.build_request("POST", "/reports/new", content=b"--b--")
    request.headers["content-type"] = "multipart/form-data; boundary=b"
    request.headers["content-length"] = str(uploads.LARGEST + 1)
    host, port = operator.base_url.host, operator.base_url.port
    head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
    cookies = "; ".join(f"{each.name}={each.value}" for each in operator.cookies.jar)
    with socket.create_connection((host, port), timeout=10) as wire:
        wire.sendall(f"POST /reports/new HTTP/1.1\r\n{head}cookie: {cookies}\r\n\r\n".encode())
        assert wire.recv(64).startswith(b"HTTP/1.1 413")


def test_the_draft_for_support_has_the_evidence(
    operator: Visitor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOLDFIRE_DATA_DIR", str(tmp_path))
    path = send(operator, a_report("\n\n")).headers["location"]
    page = reconciled(operator, path, **MAPPING, column_value="Betrag")
    given = operator.get(f"{page}/support.zip")
    assert given.headers["content-type"] == "application/zip"
    names = ZipFile(BytesIO(given.content)).namelist()
    assert {"extra/letter.txt", "extra/disputed.csv"} <= set(names)


def test_a_viewer_reads_reports_and_sends_none(console: ConsoleThread, operator: Visitor) -> None:
    path = send(operator, a_report("\n\n\n")).headers["location"]
    page = reconciled(operator, path, **MAPPING)
    viewer = console.signed_in(VIEWER)
    assert viewer.get(page).status_code == 200
    assert viewer.get("/reports/new").status_code == 403
    assert send(viewer, a_report()).status_code == 403
    assert viewer.get(f"{page}/support.zip").status_code == 403
    assert "support.zip" not in viewer.get(page).text


def test_click_ids_of_findings_are_masked_by_policy(engine: Engine, scene: Scene, tmp_path: Path) -> None:
    with ConsoleThread(
        engine, ConsolePolicy(mask_click_ids_for=(Role.VIEWER,)), data_dir=tmp_path
    ) as console:
        operator = console.signed_in(OPERATOR)
        page = reconciled(operator, send(operator, a_report("\n")).headers["location"], **MAPPING)
        viewer = console.signed_in(VIEWER)
        for path in (
            f"{page}/findings",
            f"{page}/findings?bucket=ours_only",
            f"{page}/findings?bucket=matched",
        ):
            assert TOKEN not in viewer.get(path).text
            assert viewer.get(path).status_code == 200
        assert viewer.get(f"{page}/findings.csv").status_code == 403
        assert TOKEN in operator.get(f"{page}/findings").text


@pytest.mark.parametrize(
    "query", ["bucket=nonsense", "cause=nonsense", "side=nonsense", "after=-1", "after=x"]
)
def test_a_drill_down_knows_what_it_is_asked(operator: Visitor, query: str) -> None:
    page: Any = operator.get("/reports").text
    name = re.search(r"rp_[0-9]+", page)
    assert name is not None
    assert operator.get(f"/reports/{name[0]}/findings?{query}").status_code == 400
    assert operator.get("/reports/rp_999999").status_code == 404
