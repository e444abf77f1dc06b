"""A bundle is whole, the same each time, inert, and nobody can alter it unseen."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import random
import re
import shutil
import stat
import struct
import subprocess
import tempfile
import tracemalloc
import zipfile
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from infra.catalogue import load_catalogue
from infra.settings import load_settings
from infra.store import evidence
from infra.store.records import Life
from investigations.export import bundle as module
from investigations.export.bundle import BadNameError, write_bundle
from investigations.export.exhibit import Narrowing
from investigations.export.handing import Handing, for_support
from investigations.export.manifest import FORMAT, read_manifest
from investigations.export.signing import (
    KeyUnusableError,
    Signer,
    known_key,
    open_signer,
    read_fingerprint,
    read_public_key,
    signer_of,
)
from investigations.export.verifying import Verification, verify_bundle
from investigations.masking import mask_life
from schemas.click_mask import mask_click_id
from schemas.support import FIELDS, USUAL_FIELDS
from tests.integration.exhibits import many, set_out, set_traps
from tests.integration.hostile import HOSTILE, spawns, steers
from tests.integration.scenes import TOKEN, Scene, conversion, hop

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
LATER = datetime(2099, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def scene(engine: Engine) -> Scene:
    scene = set_out(engine)
    set_traps(scene)
    return scene


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    return open_signer(tmp_path_factory.mktemp("data"))


def ids(scene: Scene, like: str = "%") -> list[int]:
    with scene.engine.connect() as connection:
        query = text("SELECT id FROM conversions WHERE event_id LIKE :like ORDER BY id")
        return list(connection.execute(query, {"like": like}).scalars())


def made(scene: Scene, signer: Signer, like: str = "%", **how: Any) -> bytes:
    target = io.BytesIO()
    about = how.pop("about", "why so few?")
    write_bundle(scene.engine, ids(scene, like), target, signer=signer, about=about, made_at=LATER, **how)
    return target.getvalue()


def contents(raw: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture(scope="module")
def whole(scene: Scene, signer: Signer) -> bytes:
    """A bundle of everything."""
    return made(scene, signer)


def verified(raw: bytes, signer: Signer | None = None, **how: Any) -> Verification:
    known = signer.public.fingerprint if signer else None
    return verify_bundle(io.BytesIO(raw), known=known, **how)


def test_a_bundle_holds_every_form_of_every_attempt(scene: Scene, whole: bytes) -> None:
    """Transcripts, HAR, CSV, JSON, a summary, and what proves them; the numbers agree with one another and the log."""
    files = contents(whole)
    with scene.engine.connect() as connection:
        attempts, hops, conversions = connection.execute(
            text(
                "SELECT (SELECT count(*) FROM attempts), (SELECT count(*) FROM hops), (SELECT count(*) FROM conversions)"
            )
        ).one()
    manifest = read_manifest(files["manifest.json"])
    assert manifest.counts["attempts"] == attempts
    rows = list(csv.DictReader(io.StringIO(files["attempts.csv"].decode(), newline="")))
    assert len(rows) == attempts
    assert tuple(rows[0]) == tuple(FIELDS)
    log = json.loads(files["attempts.har"])["log"]
    assert (len(log["pages"]), len(log["entries"])) == (attempts, hops)
    lives = [json.loads(line) for line in files["conversions.jsonl"].splitlines()]
    assert len(lives) == manifest.counts["conversions"] == conversions
    transcripts = [name for name in files if name.startswith("transcripts/")]
    assert len(transcripts) == conversions
    assert files["summary.html"].decode().count("<article>") == attempts
    assert manifest.about == "why so few?"
    assert json.loads(files["manifest.json"])["format"] == FORMAT


def test_the_manifest_says_what_is_in_the_files(whole: bytes) -> None:
    files = contents(whole)
    manifest = read_manifest(files["manifest.json"])
    assert manifest.files.keys() == files.keys() - {"manifest.json", "manifest.sig", "signing-key.pem"}
    for name, record in manifest.files.items():
        assert (record.size, record.sha256) == (len(files[name]), hashlib.sha256(files[name]).hexdigest())


def test_the_same_evidence_at_the_same_instant_is_the_same_bytes(
    scene: Scene, signer: Signer, whole: bytes
) -> None:
    """Into a file and into a pipe alike."""

    class Pipe(io.RawIOBase):
        got = b""

        def writable(self) -> bool:
            return True

        def seekable(self) -> bool:
            return False

        def write(self, data: Any) -> int:
            self.got += bytes(data)
            return len(data)

    pipe = Pipe()
    write_bundle(scene.engine, ids(scene)[::-1], pipe, signer=signer, about="why so few?", made_at=LATER)  # type: ignore[arg-type]
    assert pipe.got == whole
    other = made(scene, signer, about="another question")
    assert other != whole


def test_a_bundle_that_nobody_touched_holds(whole: bytes, signer: Signer) -> None:
    assert verified(whole, signer).holds
    assert verify_bundle(io.BytesIO(whole), trusted=signer.public.fingerprint).holds


def test_an_unknown_key_proves_nothing(whole: bytes, signer: Signer, tmp_path: Path) -> None:
    """Whole and signed, but by whom? Anybody can sign with a key of their own."""
    for answer in (
        verify_bundle(io.BytesIO(whole)),
        verified(whole, open_signer(tmp_path)),
        verify_bundle(io.BytesIO(whole), trusted="0" * 64),
    ):
        assert not answer.holds
        assert answer.fingerprint == signer.public.fingerprint
        assert sum(not finding.holds for finding in answer.findings) == 1


def repacked(raw: bytes, change: Callable[[dict[str, bytes]], None], signer: Signer | None = None) -> bytes:
    """The bundle with its files changed, and signed anew if somebody does."""
    files = contents(raw)
    change(files)
    if signer is not None:
        files["manifest.sig"] = signer.sign(files["manifest.json"])
        files["signing-key.pem"] = signer.public.pem
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return target.getvalue()


def _byte_of_a_transcript(files: dict[str, bytes]) -> None:
    name = next(name for name in files if name.startswith("transcripts/"))
    files[name] = files[name].replace(b"200", b"500", 1)


def _longer(files: dict[str, bytes]) -> None:
    files["attempts.csv"] += b"x"


def _shorter(files: dict[str, bytes]) -> None:
    files["attempts.csv"] = files["attempts.csv"][:-1]


def _gone(files: dict[str, bytes]) -> None:
    del files["attempts.har"]


def _more(files: dict[str, bytes]) -> None:
    files["transcripts/cv_999999.txt"] = b"we said so"


def _renamed(files: dict[str, bytes]) -> None:
    files["extra/attempts.csv"] = files.pop("attempts.csv")


def _manifest_too(files: dict[str, bytes]) -> None:
    """As one who knows the format but has no key."""
    content = files["attempts.csv"].replace(b"delivered", b"rejected!")
    told = json.loads(files["manifest.json"])
    told["files"]["attempts.csv"] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    files["attempts.csv"], files["manifest.json"] = content, json.dumps(told).encode()


def _signature_cut(files: dict[str, bytes]) -> None:
    files["manifest.sig"] = files["manifest.sig"][:-1]


def _no_signature(files: dict[str, bytes]) -> None:
    del files["manifest.sig"]


def _no_key(files: dict[str, bytes]) -> None:
    files["signing-key.pem"] = b"-----BEGIN PUBLIC KEY-----\n"


TAMPERED = {
    "a byte changed": (_byte_of_a_transcript, r"transcripts/cv_\d+.txt was changed: its SHA-256 is another"),
    "a byte more": (_longer, "attempts.csv was changed: it has more than its"),
    "a byte less": (_shorter, r"attempts.csv was changed: it has \d+ bytes, not"),
    "a file less": (_gone, "attempts.har is missing"),
    "a file more": (_more, "transcripts/cv_999999.txt was added"),
    "a file renamed": (_renamed, "extra/attempts.csv was added"),
    "the manifest changed with it": (_manifest_too, "the signature is wrong"),
    "a signature cut": (_signature_cut, "the signature is wrong"),
    "no signature": (_no_signature, "manifest.sig is missing"),
    "no key": (_no_key, "holds no Ed25519 key"),
}


@pytest.mark.parametrize("how", TAMPERED)
def test_what_was_altered_is_named(how: str, whole: bytes, signer: Signer) -> None:
    change, words = TAMPERED[how]
    answer = verified(repacked(whole, change), signer)
    said = [finding.words for finding in answer.findings if not finding.holds]
    assert not answer.holds
    assert any(re.search(words, each) for each in said), said


def test_repacking_alone_alters_nothing(whole: bytes, signer: Signer) -> None:
    """Evidence may go through another archiver: what counts is what is in it."""
    assert verified(repacked(whole, lambda files: None), signer).holds


def test_another_key_cannot_pass_for_ours(whole: bytes, signer: Signer, tmp_path: Path) -> None:
    """Changed and signed anew, with the manifest naming the new key: whole in itself, but not by us."""
    forger = open_signer(tmp_path)

    def forge(files: dict[str, bytes]) -> None:
        _manifest_too(files)
        told = json.loads(files["manifest.json"])
        told["key"]["fingerprint"] = forger.public.fingerprint
        files["manifest.json"] = json.dumps(told).encode()

    answer = verified(repacked(whole, forge, forger), signer)
    assert not answer.holds
    assert answer.fingerprint == forger.public.fingerprint
    assert any("unknown here" in finding.words for finding in answer.findings)


def test_a_manifest_that_names_another_key_is_refused(whole: bytes, tmp_path: Path) -> None:
    forger = open_signer(tmp_path)
    answer = verified(repacked(whole, lambda files: None, forger), forger)
    assert [finding.words for finding in answer.findings if not finding.holds] == [
        "the manifest names another key than the one that signed it"
    ]


def archive_of(entries: list[tuple[Any, bytes]], **how: Any) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for info, content in entries:
            archive.writestr(info, content)
        archive.comment = how.get("comment", b"")
    return target.getvalue()


NAMES = [
    "../evil.txt", "/etc/passwd", "a/../../b", "C:/x", "a\\..\\b", "a//b", "./a", "a/.", "con:stream", "a\x1b[2J", "ä",
    " a", "a.", "a/ /b", "", "a*", "trick\u202etxt",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_leads_elsewhere_is_refused(name: str) -> None:
    answer = verify_bundle(io.BytesIO(archive_of([(zipfile.ZipInfo(name), b"x")])))
    (finding,) = answer.findings
    assert "leads elsewhere" in finding.words
    assert steers(finding.words) == []


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_files_of_one_name_are_refused() -> None:
    """Two readers could each see another one."""
    (finding,) = verify_bundle(io.BytesIO(archive_of([("a", b"1"), ("a", b"2")]))).findings
    assert "two files of the same name: a" in finding.words
    (finding,) = verify_bundle(io.BytesIO(archive_of([("a", b"1"), ("A", b"2")]))).findings
    assert "differ in case only" in finding.words


def test_a_link_is_no_file() -> None:
    info = zipfile.ZipInfo("summary.html")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    (finding,) = verify_bundle(io.BytesIO(archive_of([(info, b"/etc/passwd")]))).findings
    assert "no ordinary file" in finding.words


def test_a_comment_is_refused() -> None:
    (finding,) = verify_bundle(io.BytesIO(archive_of([("a", b"1")], comment=b"see http://x"))).findings
    assert "comment" in finding.words


@pytest.mark.parametrize("place", ["before", "between", "after the files", "at the end"])
def test_bytes_that_belong_to_no_file_are_found(place: str, whole: bytes, signer: Signer) -> None:
    """A second zip, or a page, could hide there."""
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        start, second = archive.start_dir, sorted(info.header_offset for info in archive.infolist())[1]
    hidden = b"PK\x03\x04 hidden"
    if place == "before":
        altered = hidden + whole
    elif place == "at the end":
        altered = whole + hidden
    else:
        at = start if place == "after the files" else second
        altered = bytearray(whole[:at] + hidden + whole[at:])
        end = len(altered) - 22
        altered[end + 16 : end + 20] = struct.pack("<I", start + len(hidden))
        if place == "between":
            _shift(altered, start + len(hidden), second, len(hidden))
    answer = verified(bytes(altered), signer)
    assert not answer.holds
    assert len(answer.findings) == 1


def _shift(raw: bytearray, directory: int, first: int, by: int) -> None:
    """Move the offsets in the central directory of all files from ``first`` on."""
    at = directory
    while raw[at : at + 4] == b"PK\x01\x02":
        name, extra, comment = struct.unpack_from("<HHH", raw, at + 28)
        (offset,) = struct.unpack_from("<I", raw, at + 42)
        if offset >= first:
            struct.pack_into("<I", raw, at + 42, offset + by)
        at += 46 + name + extra + comment


def test_a_zip_bomb_is_not_unpacked() -> None:
    """Neither one that says its size, nor one that says another."""
    bomb = archive_of([("bomb", b"\0" * (200 << 20))])
    (finding,) = verify_bundle(io.BytesIO(bomb)).findings
    assert "zip bomb" in finding.words
    liar = bytearray(bomb)
    with zipfile.ZipFile(io.BytesIO(bomb)) as archive:
        struct.pack_into("<I", liar, archive.start_dir + 24, 10)
    answer = verify_bundle(io.BytesIO(bytes(liar)))
    assert not answer.holds


def test_a_bomb_among_the_files_is_read_no_further_than_its_listed_size(whole: bytes, signer: Signer) -> None:
    def blow_up(files: dict[str, bytes]) -> None:
        files["summary.html"] = b"\0" * (60 << 20)

    answer = verified(repacked(whole, blow_up), signer)
    assert any(
        "summary.html was changed: it has more than its" in finding.words for finding in answer.findings
    )


@pytest.mark.parametrize("raw", [b"", b"PK", b"no zip at all", b"PK\x05\x06" + b"\0" * 18])
def test_what_is_no_bundle_is_said_to_be_none(raw: bytes) -> None:
    assert not verify_bundle(io.BytesIO(raw)).holds


@pytest.mark.parametrize("cut", [1, 100, 5_000])
def test_half_a_bundle_is_none(cut: int, whole: bytes, signer: Signer) -> None:
    assert not verified(whole[:-cut], signer).holds


@pytest.mark.parametrize("place", range(0, 100, 7))
def test_a_flipped_bit_anywhere_is_found(place: int, whole: bytes, signer: Signer) -> None:
    """In a file, a name, a size or the directory."""
    at = len(whole) * place // 100
    altered = bytearray(whole)
    altered[at] ^= 0x10
    answer = verified(bytes(altered), signer)
    # A few bytes say nothing, such as a file's date: then what is in the bundle is the same.
    assert not answer.holds or contents(bytes(altered)) == contents(whole)


def test_openssl_says_the_same(whole: bytes, tmp_path: Path, signer: Signer) -> None:
    """The signature is a plain one: whoever does not run Holdfire can check it too."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed: .ci/tools installs it")
    for name, content in contents(whole).items():
        if "/" not in name:
            (tmp_path / name).write_bytes(content)
    command = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", "signing-key.pem", "-rawin", "-in", "manifest.json", "-sigfile", "manifest.sig"]  # fmt: skip
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=30)
    assert "Signature Verified Successfully" in ran.stdout, ran.stderr
    der = subprocess.run(
        ["openssl", "pkey", "-pubin", "-in", "signing-key.pem", "-outform", "DER"],
        cwd=tmp_path, capture_output=True, check=True, timeout=30,
    )  # fmt: skip
    assert hashlib.sha256(der.stdout).hexdigest() == signer.public.fingerprint


def test_nothing_in_a_bundle_steers_or_runs(whole: bytes) -> None:
    """Whatever networks answered: each file is plain text, and the page has no tag but its own."""
    files = contents(whole)
    said = {name: raw.decode() for name, raw in files.items() if name != "manifest.sig"}
    for name, content in said.items():
        assert steers(content.replace("\r\n", "\n")) == [], name
    page = said["summary.html"]
    body = page.partition("</style>")[2].partition("<main>")[2]
    assert spawns(body) == ["</body", "</html"]
    assert page.count("<script") == page.count("javascript:") - body.count("javascript:") == 0
    assert "default-src 'none'" in page
    assert body.count("h0stile") > len(HOSTILE) - 5
    for name in ("attempts.har", "conversions.jsonl", "manifest.json"):
        assert said[name].isascii()
        assert "<" not in said[name]


def test_the_table_is_inert_in_a_spreadsheet(whole: bytes) -> None:
    """No cell of it begins a formula, and each record is a line."""
    table = contents(whole)["attempts.csv"].decode()
    rows = list(csv.reader(io.StringIO(table, newline=""), strict=True))
    assert len(rows) == table.count("\r\n") == table.count("\n")
    assert [cell for row in rows for cell in row if cell[:1] in set("=+@-\t\r＝＋－＠")] == []  # noqa: RUF001 — full width is the point


def test_the_page_opens_without_a_network_and_runs_nothing(whole: bytes, tmp_path: Path) -> None:
    """In a real browser: nothing is asked for, nothing runs, the title is ours, and it prints."""
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed: .ci/tools installs it")
    sync_api = pytest.importorskip("playwright.sync_api")
    (tmp_path / "summary.html").write_bytes(contents(whole)["summary.html"])
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.on("dialog", lambda dialog: asked.append(dialog.message))
        page.goto((tmp_path / "summary.html").as_uri())
        assert page.title() == "Evidence of conversion postbacks"
        assert asked == [(tmp_path / "summary.html").as_uri()]
        assert page.locator("script, iframe, img, svg, object, embed, form, a, link").count() == 0
        assert page.locator("article").count() > len(HOSTILE)
        pdf = page.pdf()
        browser.close()
    assert pdf.startswith(b"%PDF")


def test_a_viewers_bundle_says_no_click_id(scene: Scene, signer: Signer) -> None:
    """Not in one file of it, in no writing; and those who may see them do."""
    clear = contents(made(scene, signer, "a%"))
    masked = contents(made(scene, signer, "a%", handing=Handing(mask_click_ids=True)))
    core = TOKEN[:20]
    assert any(core.encode() in content for content in clear.values())
    assert [name for name, content in masked.items() if core.encode() in content] == []
    assert mask_click_id(f"{TOKEN}again").encode() in masked["attempts.csv"]
    assert read_manifest(masked["manifest.json"]).click_ids_masked
    outcome = json.loads(masked["conversions.jsonl"])["postbacks"][0]["attempts"][0]
    assert outcome["click_id_sha256"] is None
    assert "characters, SHA-256" not in next(
        raw.decode() for name, raw in masked.items() if name.startswith("transcripts")
    )


def test_a_click_id_in_a_zipped_or_unreadable_body_is_masked_too(scene: Scene) -> None:
    """What is compressed is looked into; what cannot be is not shown."""
    import gzip

    from infra.store.evidence import read_life

    (number,) = ids(scene, "zipped")
    life = read_life(scene.engine, number)
    assert life is not None
    token = next(iter(life.conversion.event.click_ids.values()))
    for coding, body in (
        ("gzip", gzip.compress(f"got {token}".encode())),
        ("br", b"\x8b\x02\x80" + token.encode()),
    ):
        head = f"HTTP/1.1 200 OK\r\nContent-Encoding: {coding}\r\n".encode()
        shown = mask_life(_with_hop(life, hop(response_head=head, body=body, body_length=len(body))))
        kept = shown.postbacks[0].attempts[0].hops[0].body
        assert kept in (
            f"got {mask_click_id(token)}".encode(),
            b"[masked: a body coded as br cannot be searched for click ids]",
        )


def _with_hop(life: Life, one: Any) -> Life:
    postback = life.postbacks[0]
    attempt = replace(postback.attempts[0], hops=(one,))
    return replace(life, postbacks=(replace(postback, attempts=(attempt,)),))


def test_a_network_is_told_nothing_of_another(scene: Scene, signer: Signer) -> None:
    """In its own form: its time zone, its fields, its postbacks, and nobody else's click ids."""
    both = {"push": f"{TOKEN}mine", "twice": "a-token-of-another-network"}
    scene.take(conversion("both", "push", click_ids=both))
    for prepared in scene.fire():
        scene.settle(prepared)
    network = load_catalogue()["xandr"].model_copy(update={"slug": "push"})
    zone = network.support.model_copy(update={"time_zone": "Europe/Berlin"})
    handing = for_support(Handing(), network.model_copy(update={"support": zone}))
    files = contents(made(scene, signer, "both", handing=handing))
    for name, content in files.items():
        assert b"a-token-of-another-network" not in content, name
        assert b"twice-us" not in content, name
    rows = list(csv.DictReader(io.StringIO(files["attempts.csv"].decode(), newline="")))
    assert tuple(rows[0]) == USUAL_FIELDS
    assert [row["time"][-6:] for row in rows] in (["+01:00"], ["+02:00"])
    page = files["summary.html"].decode()
    assert "Xandr must be provided with verbose logs of the pixel fires" in page
    assert "Europe/Berlin" in page


def test_only_the_attempts_that_were_chosen_are_there(scene: Scene, signer: Signer) -> None:
    with scene.engine.connect() as connection:
        query = text(
            "SELECT a.id FROM attempts a JOIN postbacks p ON p.id = a.postback_id JOIN conversions c ON c.id = p.conversion_id"
            " WHERE c.event_id = 'again' ORDER BY a.number"
        )
        first, second = connection.execute(query).scalars()
    handing = Handing(narrowing=Narrowing(attempts=frozenset({first})))
    files = contents(made(scene, signer, "again", handing=handing))
    rows = list(csv.DictReader(io.StringIO(files["attempts.csv"].decode(), newline="")))
    assert [row["attempt"] for row in rows] == [f"at_{first}"]
    assert f"at_{second}".encode() not in files["attempts.har"]


def test_what_is_not_there_is_said(scene: Scene, signer: Signer) -> None:
    target = io.BytesIO()
    manifest = write_bundle(scene.engine, [*ids(scene, "plain"), 999_999], target, signer=signer, about="")
    assert manifest.missing == ("cv_999999",)
    assert "Not found, and so not here: cv_999999" in contents(target.getvalue())["summary.html"].decode()


def test_extra_files_come_along(scene: Scene, signer: Signer) -> None:
    files = contents(raw := made(scene, signer, "plain", extra={"report.csv": b"a,b\r\n"}))
    assert files["extra/report.csv"] == b"a,b\r\n"
    assert verified(raw, signer).holds
    for name in ("../x", "a/b", "", "ä", "a b"):
        with pytest.raises(BadNameError):
            made(scene, signer, "plain", extra={name: b""})


def test_a_bundle_that_broke_off_is_no_bundle(
    scene: Scene, signer: Signer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error on the way leaves no zip that could be taken for the whole."""
    target = io.BytesIO()

    def fail(*_: object) -> None:
        raise RuntimeError("no more room")

    monkeypatch.setattr(module, "summary_conversion", fail)
    with pytest.raises(RuntimeError):
        write_bundle(scene.engine, ids(scene), target, signer=signer, about="")
    assert not zipfile.is_zipfile(target)
    assert not verified(target.getvalue(), signer).holds


def test_the_key_is_made_once_for_this_user_alone(tmp_path: Path) -> None:
    first, second = open_signer(tmp_path), open_signer(tmp_path)
    path = tmp_path / "keys" / "evidence.pem"
    assert first.public.fingerprint == second.public.fingerprint
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in path.parent.iterdir()] == ["evidence.pem"]
    path.chmod(0o644)
    with pytest.raises(KeyUnusableError, match="chmod 600"):
        open_signer(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"no key", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"]
)
def test_a_file_that_is_no_key_is_named(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "mine.pem"
    path.write_bytes(content)
    path.chmod(0o600)
    monkeypatch.setenv("HOLDFIRE_SIGNING_KEY_FILE", str(path))
    with pytest.raises(KeyUnusableError, match=r"mine\.pem.*no Ed25519 private key"):
        signer_of(load_settings())


def test_a_named_key_is_used_and_must_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made_elsewhere = open_signer(tmp_path)
    monkeypatch.setenv("HOLDFIRE_DATA_DIR", str(tmp_path / "other"))
    assert known_key(load_settings()) is None
    monkeypatch.setenv("HOLDFIRE_SIGNING_KEY_FILE", str(tmp_path / "keys" / "evidence.pem"))
    assert signer_of(load_settings()).public.fingerprint == made_elsewhere.public.fingerprint
    monkeypatch.setenv("HOLDFIRE_SIGNING_KEY_FILE", str(tmp_path / "nowhere.pem"))
    with pytest.raises(KeyUnusableError, match=r"nowhere\.pem"):
        signer_of(load_settings())
    assert not (tmp_path / "other").exists()


def test_a_fingerprint_is_read_however_it_was_copied(signer: Signer) -> None:
    plain = signer.public.fingerprint
    spaced = ":".join(plain[at : at + 2] for at in range(0, 64, 2)).upper()
    assert (
        read_fingerprint(spaced)
        == read_fingerprint(f"SHA256:{plain}")
        == read_fingerprint(f" {plain}\n")
        == plain
    )
    assert read_fingerprint("abc") is None
    assert read_public_key(signer.public.pem).fingerprint == plain


def test_a_bundle_is_dated_by_the_database(scene: Scene, signer: Signer) -> None:
    manifest = write_bundle(scene.engine, [], io.BytesIO(), signer=signer, about="")
    assert abs(manifest.made_at - datetime.now(UTC)) < timedelta(minutes=5)
    assert manifest.counts["conversions"] == 0


def test_memory_does_not_grow_with_what_is_handed_over(
    scene: Scene, signer: Signer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five times as much evidence, hardly more memory: a bundle is written as it is read."""
    monkeypatch.setattr(evidence, "BATCH", 10)
    numbers = many(scene.engine, 150, random.Random(1).randbytes(16_000))

    def peak(count: int) -> tuple[int, int]:
        tracemalloc.start()
        with tempfile.TemporaryFile() as target:
            manifest = write_bundle(scene.engine, numbers[:count], target, signer=signer, about="")
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most, sum(record.size for record in manifest.files.values())

    peak(10)  # what is loaded and remembered once
    small, large = peak(30), peak(150)
    assert large[1] - small[1] > 8_000_000
    assert large[0] - small[0] < 2_000_000
