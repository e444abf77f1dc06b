"""A HAR says what was sent, and those who read HARs take it: a published validator, and the DevTools of a real Chromium."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from infra.store.evidence import read_life
from investigations.export.har import har, har_entries, har_page, har_text
from investigations.export.inert import inert_json
from tests.integration.exhibits import KINDS, SECRET, set_out, set_traps
from tests.integration.hostile import HOSTILE, steers
from tests.integration.scenes import TOKEN, Scene

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
VALIDATOR = "har-validator@5.1.5"


@pytest.fixture(scope="module")
def scene(engine: Engine) -> Scene:
    scene = set_out(engine)
    set_traps(scene)
    return scene


def of(scene: Scene, event_id: str) -> dict[str, Any]:
    """The HAR of one conversion's attempts, as it is read back."""
    with scene.engine.connect() as connection:
        query = text("SELECT id FROM conversions WHERE event_id = :id")
        number = connection.execute(query, {"id": event_id}).scalar_one()
    life = read_life(scene.engine, number)
    assert life is not None
    made = har(life, [attempt for postback in life.postbacks for attempt in postback.attempts])
    log: dict[str, Any] = json.loads(inert_json(made))["log"]
    return log


def entry_of(scene: Scene, event_id: str) -> dict[str, Any]:
    (entry,) = of(scene, event_id)["entries"]
    found: dict[str, Any] = entry
    return found


def everything(scene: Scene) -> str:
    """One HAR of all there is, written piece by piece."""
    pages, entries = [], []
    with scene.engine.connect() as connection:
        numbers = list(connection.execute(text("SELECT id FROM conversions ORDER BY id")).scalars())
    for number in numbers:
        life = read_life(scene.engine, number)
        assert life is not None
        for postback in life.postbacks:
            for attempt in postback.attempts:
                pages.append(inert_json(har_page(life, postback, attempt)))
                entries += map(inert_json, har_entries(postback, attempt))
    return "".join(har_text(pages, entries))


@pytest.mark.parametrize("kind", KINDS)
def test_the_parts_of_the_time_come_to_the_whole(scene: Scene, kind: str) -> None:
    """As the format has it: ``time`` is the sum of the timings, those left out that are not known."""
    for entry in of(scene, kind)["entries"]:
        parts = {
            name: value
            for name, value in entry["timings"].items()
            if name in {"blocked", "dns", "connect", "send", "wait", "receive"}
        }
        assert entry["time"] == pytest.approx(sum(part for part in parts.values() if part >= 0), abs=1e-9)
        assert all(parts[name] >= 0 for name in ("send", "wait", "receive"))
        assert entry["timings"]["ssl"] == -1
        assert entry["time"] == pytest.approx(entry["timings"]["_totalMs"])


def test_timings_are_those_of_the_hop(scene: Scene) -> None:
    """Recorded: dns 1.25, connect 12.5, first byte at 40.125, all of it 45.5 ms."""
    timings = entry_of(scene, "plain")["timings"]
    assert (timings["dns"], timings["connect"], timings["wait"], timings["receive"]) == (
        1.25,
        12.5,
        26.375,
        5.375,
    )
    assert timings["blocked"] == -1


def test_a_reused_connection_has_no_connect_time(scene: Scene) -> None:
    second = of(scene, "redirected")["entries"][1]
    assert (second["timings"]["dns"], second["timings"]["connect"]) == (-1, -1)
    assert (second["serverIPAddress"], second["connection"]) == ("2001:db8::1", "8443")


def test_a_redirect_is_an_entry_of_its_own(scene: Scene) -> None:
    """Both belong to the attempt's page; the first says where it led."""
    log = of(scene, "redirected")
    first, second = log["entries"]
    assert (first["response"]["status"], first["response"]["redirectURL"]) == (
        302,
        "https://b.example.com/x?y=1",
    )
    assert second["request"]["url"] == "https://b.example.com/x?y=1"
    assert second["request"]["queryString"] == [{"name": "y", "value": "1"}]
    assert first["pageref"] == second["pageref"] == log["pages"][0]["id"]
    assert "followed as a redirect" in first["comment"]
    assert "verdict delivered: status 200" in second["comment"]


def test_sizes_are_those_of_the_wire(scene: Scene) -> None:
    """Heads up to and with the blank line; bodies as they came."""
    entry = entry_of(scene, "plain")
    assert entry["request"]["headersSize"] == len(
        f"GET /postback?click={TOKEN} HTTP/1.1\r\nHost: push-eu.example.com\r\n\r\n"
    )
    assert entry["request"]["bodySize"] == 0
    assert entry["response"]["bodySize"] == entry["response"]["content"]["size"] == 13
    assert [each["name"] for each in entry["response"]["headers"]] == [
        "Content-Type",
        "Set-Cookie",
        "Set-Cookie",
    ]
    assert entry["response"]["cookies"] == [{"name": "a", "value": "1"}, {"name": "b", "value": "2"}]


def test_a_zipped_body_is_shown_unpacked_with_both_sizes(scene: Scene) -> None:
    response = entry_of(scene, "zipped")["response"]
    plain = b'{"ok":true}' * 50
    packed = len(gzip.compress(plain, mtime=0))
    assert response["content"]["text"].encode() == plain
    assert response["bodySize"] == packed
    assert response["content"]["size"] - response["content"]["compression"] == packed


def test_a_binary_body_is_in_base64(scene: Scene) -> None:
    content = entry_of(scene, "binary")["response"]["content"]
    assert content["encoding"] == "base64"
    assert b64decode(content["text"]) == bytes(range(256))


def test_a_truncated_body_says_so(scene: Scene) -> None:
    entry = entry_of(scene, "truncated")
    assert len(entry["response"]["content"]["text"]) == 16_384
    assert entry["response"]["bodySize"] == entry["response"]["content"]["size"] == 20_000
    for comment in (entry["comment"], entry["response"]["content"]["comment"]):
        assert "truncated: the first 16384 of at least 20000 bytes are kept" in comment


def test_a_masked_url_is_a_uri_and_stands_verbatim_beside_it(scene: Scene) -> None:
    """Brackets are no part of a URI; and the size of a head that is masked is not known."""
    request = entry_of(scene, "masked")["request"]
    assert "%5Bsecret:9f86d081%5D" in request["url"]
    assert SECRET in request["_url"]
    assert request["headersSize"] == -1


def test_what_was_posted_is_there(scene: Scene) -> None:
    request = entry_of(scene, "posted")["request"]
    assert request["bodySize"] == len(request["postData"]["text"])
    assert request["postData"]["params"][1:] == [
        {"name": "name", "value": "M%C3%BCller"},
        {"name": "empty", "value": ""},
    ]
    assert request["cookies"] == [{"name": "a", "value": "1"}, {"name": "b", "value": "2"}]


def test_what_was_not_answered_has_no_status(scene: Scene) -> None:
    """Neither pretended to be an answer nor left out; waiting and being kept from sending are told apart."""
    silent, nameless = entry_of(scene, "silent"), entry_of(scene, "nameless")
    assert silent["response"]["status"] == nameless["response"]["status"] == 0
    assert silent["response"]["_error"].startswith("timeout: ")
    assert (silent["timings"]["blocked"], silent["timings"]["wait"]) == (-1, 10_001.5 - 1.25 - 12.5)
    assert (nameless["timings"]["blocked"], nameless["timings"]["wait"]) == (10_000.25, 0)
    assert "no byte of the request had left" in nameless["comment"]


def test_an_attempt_without_an_exchange_is_a_page_without_entries(scene: Scene) -> None:
    log = of(scene, "lost")
    assert (len(log["pages"]), log["entries"]) == (1, [])
    assert log["pages"][0]["_intendedUrl"].startswith("https://push-eu.example.com/")
    assert "verdict unknown" in log["pages"][0]["comment"]


def test_the_whole_is_the_sum_of_its_parts(scene: Scene) -> None:
    """Written in pieces it is the same as built at once."""
    log = json.loads(everything(scene))["log"]
    assert log["entries"][0] == entry_of(scene, "plain")
    assert len(log["pages"]) > len(KINDS) + len(HOSTILE)


def test_nothing_in_it_steers_a_terminal_or_ends_a_script(scene: Scene) -> None:
    """Whatever a network answered: the file is printable ASCII without a tag in it."""
    whole = everything(scene)
    assert whole.isascii()
    assert steers(whole) == []
    assert "<" not in whole
    said = [entry["response"]["content"].get("text", "") for entry in json.loads(whole)["log"]["entries"]]
    assert sum("h0stile" in each for each in said) > len(HOSTILE) - 5


def test_a_published_validator_accepts_it(scene: Scene, tmp_path: Path) -> None:
    """har-validator checks it against the format's JSON Schema; it is seen to refuse what is none."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed: .ci/tools installs it")
    ready = subprocess.run(
        ["npm", "install", "--no-audit", "--no-fund", "--silent", VALIDATOR],
        cwd=tmp_path, capture_output=True, timeout=120, check=False,
    )  # fmt: skip
    if ready.returncode:
        pytest.skip("npm cannot reach its packages")
    (tmp_path / "check.js").write_text(
        "const fs=require('fs'), v=require('har-validator');"
        "v.har(JSON.parse(fs.readFileSync(process.argv[2])))"
        ".then(()=>console.log('valid'),e=>{console.log(JSON.stringify(e.errors));process.exit(1)})"
    )
    whole = json.loads(everything(scene))
    (tmp_path / "whole.har").write_text(json.dumps(whole))
    assert _node(tmp_path, "whole.har") == (0, "valid")
    whole["log"]["entries"][0]["request"]["url"] = "no address"
    (tmp_path / "broken.har").write_text(json.dumps(whole))
    code, said = _node(tmp_path, "broken.har")
    assert code == 1
    assert "uri" in said


def _node(folder: Path, name: str) -> tuple[int, str]:
    ran = subprocess.run(
        ["node", "check.js", name], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    return ran.returncode, ran.stdout.strip()


@pytest.fixture(scope="module")
def devtools() -> Iterator[Any]:
    """The network panel of the distribution's Chromium, without a page to look at."""
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed: .ci/tools installs it")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.goto("devtools://devtools/bundled/devtools_app.html")
        yield page
        browser.close()


IMPORT = """async (text) => {
    const HAR = await import('devtools://devtools/bundled/models/har/har.js');
    const log = new HAR.HARFormat.HARRoot(JSON.parse(text)).log;
    const requests = HAR.Importer.Importer.requestsFromHARLog(log);
    return Promise.all(requests.map(async r => {
        const data = await r.requestContentData();
        return {url: r.url(), status: r.statusCode, method: r.requestMethod, remote: r.remoteAddress(),
                duration: r.duration * 1000, wait: (r.timing.receiveHeadersEnd - r.timing.sendEnd),
                headers: r.responseHeaders.length, mime: r.mimeType, body: data.isTextContent ? data.text : null,
                base64: data.isTextContent ? null : data.base64};
    }));
}"""
OPEN = """async (text) => {
    const Network = await import('devtools://devtools/bundled/panels/network/network.js');
    const UI = await import('devtools://devtools/bundled/ui/legacy/legacy.js');
    await UI.ViewManager.ViewManager.instance().showView('network');
    const panel = Network.NetworkPanel.NetworkPanel.instance();
    await panel.networkLogView.onLoadFromFile(new File([text], 'evidence.har'));
}"""


def test_the_importer_of_chrome_devtools_reads_every_hop(scene: Scene, devtools: Any) -> None:
    """The browser's own importer makes a request of each entry, with its address, times and body."""
    whole = everything(scene)
    entries = json.loads(whole)["log"]["entries"]
    read = devtools.evaluate(IMPORT, whole)
    assert len(read) == len(entries)
    by_url = {each["url"]: each for each in read}
    moved = by_url["https://b.example.com/x?y=1"]
    assert (moved["status"], moved["remote"]) == (200, "2001:db8::1:8443")
    assert moved["duration"] == pytest.approx(4.25, abs=0.01)
    assert by_url["https://push-eu.example.com/p"]["method"] == "POST"
    assert sorted(each["status"] for each in read) == sorted(each["response"]["status"] for each in entries)
    bodies = [each["base64"] for each in read if each["mime"] == "image/gif"]
    assert [b64decode(each) for each in bodies] == [bytes(range(256))]
    assert any('{"ok":true}' in (each["body"] or "") for each in read)


def test_the_network_panel_opens_the_file(scene: Scene, devtools: Any) -> None:
    """As a person imports it: the panel shows a row for each exchange, and nothing hostile ran in it."""
    title = devtools.title()
    log = of(scene, "redirected")
    devtools.evaluate(OPEN, json.dumps({"log": log}))
    panel = devtools.locator("body")
    panel.get_by_text("x?y=1").first.wait_for(timeout=10_000)
    panel.get_by_text("2 requests").wait_for(timeout=10_000)
    devtools.evaluate(OPEN, everything(scene))
    count = len(json.loads(everything(scene))["log"]["entries"])
    panel.get_by_text(f"{count} requests").wait_for(timeout=10_000)
    assert devtools.title() == title
