"""``holdfire export`` as a person calls it: ids or filters in, evidence out, and a line in the audit."""

from __future__ import annotations

import csv
import io
import json
import os
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from sqlalchemy import Engine, text
from typer.testing import CliRunner, Result

from infra.filters import AskingError
from investigations.export import cli, writing
from schemas.support import FIELDS, USUAL_FIELDS
from tests.integration.exhibits import KINDS, set_out
from tests.integration.hostile import steers
from tests.integration.scenes import TOKEN, Scene

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def scene(engine: Engine) -> Scene:
    return set_out(engine)


@pytest.fixture
def run(scene: Scene, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run ``export`` on this module's database, in an empty folder, with a data folder of its own."""
    monkeypatch.setenv("HOLDFIRE_DATABASE_URL", database_url)
    monkeypatch.setenv("HOLDFIRE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    app = typer.Typer()
    app.callback()(lambda: None)
    cli.register(app)

    def run_it(*arguments: str, code: int = 0) -> Result:
        result = CliRunner().invoke(app, ["export", *arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.output
        return result

    return run_it


def audited(scene: Scene) -> list[Any]:
    with scene.engine.connect() as connection:
        return list(
            connection.execute(
                text("SELECT who, detail FROM audit WHERE action = 'evidence.export' ORDER BY id")
            )
        )


def id_of(scene: Scene, event_id: str, prefix: str = "cv") -> str:
    what = {"cv": "c.id", "pb": "p.id", "at": "max(a.id)"}[prefix]
    query = f"""
        SELECT {what} FROM conversions c JOIN postbacks p ON p.conversion_id = c.id
        LEFT JOIN attempts a ON a.postback_id = p.id WHERE c.event_id = :id GROUP BY c.id, p.id"""
    with scene.engine.connect() as connection:
        return f"{prefix}_{connection.execute(text(query), {'id': event_id}).scalar_one()}"


def rows(result: Result) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(result.stdout_bytes.decode(), newline="")))


def test_a_bundle_is_made_and_checked_and_audited(run: Run, scene: Scene, tmp_path: Path) -> None:
    """From the filters of ``find`` to a file that holds."""
    before = len(audited(scene))
    said = run("--destination", "push-eu", "-o", "b.zip", "--about", "ticket 4711", "--as", "anna")
    assert f"{len(KINDS) + 2} conversions" in said.stderr
    assert stat.S_IMODE((tmp_path / "b.zip").stat().st_mode) == 0o600
    answer = run("verify", "b.zip")
    assert "This bundle holds." in answer.stdout
    assert "that is the key of this installation" in answer.stdout
    (row,) = audited(scene)[before:]
    assert row.who == "anna"
    assert (row.detail["form"], row.detail["conversions"], row.detail["attempts"]) == (
        "bundle",
        len(KINDS) + 2,
        len(KINDS) + 3,
    )
    assert row.detail["fingerprint"] in said.stderr


def test_a_bundle_is_checked_against_the_key_one_was_told(run: Run, tmp_path: Path) -> None:
    """By fingerprint or by file; without either, and elsewhere, it is not said to hold."""
    run("plain", "-o", "b.zip")
    shown = run("key").stdout
    fingerprint = shown.split()[1]
    (tmp_path / "key.pem").write_text(shown.partition("\n")[2])
    (tmp_path / "data").rename(tmp_path / "away")
    assert "unknown here" in run("verify", "b.zip", code=1).stdout
    assert "that is the key you asked for" in run("verify", "b.zip", "--key", fingerprint).stdout
    assert "that is the key you asked for" in run("verify", "b.zip", "--key", "key.pem").stdout
    assert "FAILS" in run("verify", "b.zip", "--key", "0" * 64, code=1).stdout
    told = json.loads(run("verify", "b.zip", "--json", code=1).stdout)
    assert (told["holds"], told["fingerprint"]) == (False, fingerprint)
    with pytest.raises(AskingError, match="neither a fingerprint nor a file"):
        run("verify", "b.zip", "--key", "nothing")
    with pytest.raises(AskingError, match="No such file"):
        run("verify", "nowhere.zip")


def test_a_csv_has_a_row_an_attempt_and_every_field(run: Run, scene: Scene) -> None:
    found = rows(run("again", "--format", "csv"))
    assert [tuple(row) for row in found] == [tuple(FIELDS)] * 2
    assert [row["status"] for row in found] == ["503", "200"]
    assert [row["number"] for row in found] == ["1", "2"]
    assert found[0]["click_id"] == f"{TOKEN}again"
    assert found[0]["request_headers"].startswith("GET /postback?click=")
    assert found[0]["time"].endswith("+00:00")


def test_a_redirect_is_in_the_attempts_row(run: Run) -> None:
    (row,) = rows(run("redirected", "--format", "csv"))
    assert row["redirects"] == "302 to https://b.example.com/x?y=1"
    assert row["final_url"] == "https://b.example.com/x?y=1"
    assert row["status"] == "200"
    assert "hop 1: GET /postback" in row["request_headers"]
    assert "hop 2: GET /x?y=1" in row["request_headers"]
    assert "hop 1: HTTP/1.1 302 Found" in row["response_headers"]


def test_times_are_in_the_zone_that_was_asked_for(run: Run) -> None:
    (row,) = rows(run("plain", "--format", "csv", "--time-zone", "Asia/Kolkata"))
    assert row["time"].endswith("+05:30")
    with pytest.raises(AskingError, match="Europe/Berlin"):
        run("plain", "--format", "csv", "--time-zone", "Berlin")


def test_excel_is_told_that_it_is_utf_8(run: Run) -> None:
    assert run("plain", "--format", "csv", "--bom").stdout_bytes.startswith(b"\xef\xbb\xbfattempt,")
    assert run("plain", "--format", "csv").stdout_bytes.startswith(b"attempt,")


@pytest.mark.parametrize("form", ["transcript", "curl", "har", "csv", "json"])
def test_each_form_is_text_that_nothing_steers(form: str, run: Run) -> None:
    shown = run("--destination", "push-eu", "--format", form).stdout_bytes.decode()
    assert len(shown) > 1000
    assert steers(shown.replace("\r\n", "\n")) == []


def test_json_is_the_life_of_each_conversion(run: Run, scene: Scene) -> None:
    (life,) = map(json.loads, run("again", "--format", "json").stdout.splitlines())
    assert life["id"] == id_of(scene, "again")
    assert len(life["postbacks"][0]["attempts"]) == 2


def test_transcripts_are_those_of_the_command(run: Run, scene: Scene) -> None:
    shown = run(id_of(scene, "again", "at"), "--format", "transcript").stdout
    assert shown.count("# attempt") == 1
    assert "< HTTP/1.1 200 OK" in shown


def test_a_file_of_commands_sends_nothing_when_it_is_run(run: Run, tmp_path: Path) -> None:
    """Whoever runs it by mistake reports no conversion twice."""
    run("again", "--format", "curl", "-o", "again.sh")
    assert (tmp_path / "again.sh").read_text().count("\ncurl -q") == 2
    (tmp_path / "curl").write_text("#!/bin/sh\ntouch called\n")
    (tmp_path / "curl").chmod(0o755)
    ran = subprocess.run(
        ["sh", "again.sh"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=30,
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
    )  # fmt: skip
    assert (ran.returncode, ran.stderr) == (64, "nothing was sent: copy the one command you mean\n")
    assert not (tmp_path / "called").exists()


def test_one_postback_or_attempt_is_all_that_is_handed_over(run: Run, scene: Scene) -> None:
    assert len(rows(run(id_of(scene, "again", "pb"), "--format", "csv"))) == 2
    assert len(rows(run(id_of(scene, "again", "at"), "--format", "csv"))) == 1
    assert len(rows(run("again", "plain", id_of(scene, "binary"), "--format", "csv"))) == 4


def test_filters_choose_what_find_lists(run: Run) -> None:
    assert {row["order_id"] for row in rows(run("--status-code", "403", "--format", "csv"))} == {
        "order-refused"
    }
    assert {row["order_id"] for row in rows(run("--state", "in_doubt", "--format", "csv"))} == {
        "order-silent"
    }
    assert rows(run("--order", "nobody's", "--format", "csv")) == []


def test_a_networks_format_has_its_fields(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """As its file says; and it is refused where several networks are concerned, or there is no file."""
    with pytest.raises(AskingError, match="went to push, twice; choose one"):
        run("--since", "1d", "--network-format", "-o", "b.zip")
    with pytest.raises(AskingError, match="no file on push"):
        run("plain", "--network-format", "--format", "csv")
    catalogue = cli.load_catalogue()
    network = catalogue["xandr"].model_copy(update={"slug": "push"})
    monkeypatch.setattr(cli, "load_catalogue", lambda: {"push": network})
    (row,) = rows(run("plain", "--network-format", "--format", "csv"))
    assert tuple(row) == USUAL_FIELDS


def test_masked_click_ids_are_masked_everywhere(run: Run) -> None:
    """In what was chosen, too: the bundle's page says how it was chosen."""
    for form in ("transcript", "curl", "har", "csv", "json"):
        assert TOKEN[:20] not in run("plain", "--format", form, "--mask-click-ids").stdout
    run("--click-id", f"{TOKEN}plain", "--mask-click-ids", "-o", "b.zip")
    import zipfile

    with zipfile.ZipFile("b.zip") as archive:
        assert [name for name in archive.namelist() if TOKEN[:20].encode() in archive.read(name)] == []


def test_a_dry_run_says_how_much_and_leaves_nothing(run: Run, scene: Scene, tmp_path: Path) -> None:
    before = len(audited(scene))
    said = run("--destination", "push-eu", "--dry-run", "--json", "-o", "b.zip")
    assert json.loads(said.stdout) == {
        "format": "bundle", "dry_run": True, "conversions": len(KINDS) + 2, "postbacks": len(KINDS) + 2,
        "attempts": len(KINDS) + 3,
    }  # fmt: skip
    assert said.stderr.startswith("Would hand over ")
    assert list(tmp_path.iterdir()) == []
    assert len(audited(scene)) == before


def test_a_file_that_is_there_is_written_over_by_force_only(run: Run, tmp_path: Path) -> None:
    (tmp_path / "b.zip").write_text("mine")
    with pytest.raises(writing.OutputError, match="--force"):
        run("plain", "-o", "b.zip")
    assert (tmp_path / "b.zip").read_text() == "mine"
    run("plain", "-o", "b.zip", "--force")
    assert "holds" in run("verify", "b.zip").stdout
    with pytest.raises(writing.OutputError, match="is a folder"):
        run("plain", "-o", ".")
    with pytest.raises(writing.OutputError, match="give a folder that is there"):
        run("plain", "-o", "nowhere/b.zip")


def test_what_breaks_off_leaves_no_file_and_no_audit(
    run: Run, scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = len(audited(scene))

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writing, "csv_rows", fail)
    with pytest.raises(OSError, match="No space left"):
        run("plain", "--format", "csv", "-o", "a.csv")
    assert list(tmp_path.iterdir()) == []
    assert len(audited(scene)) == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "give ids, or filters"),
        (["cv_1", "--state", "dead"], "--state and ids together"),
        (["cv_1", "pb_1"], "cv_N and pb_N together"),
        (["ck_1"], "no conversion, postback or attempt"),
    ],
)
def test_what_cannot_be_asked_is_said_with_a_remedy(arguments: list[str], words: str, run: Run) -> None:
    with pytest.raises(AskingError, match=words):
        run(*arguments, "-o", "b.zip")


def test_what_is_not_known_is_an_answer(run: Run) -> None:
    assert "there is no cv_999999" in run("cv_999999", "-o", "b.zip", code=1).stderr
    assert "nothing is known" in run("never-came", "-o", "b.zip", code=1).stderr
