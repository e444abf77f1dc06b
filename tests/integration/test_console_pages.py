"""The listings, the tail and the audit of the console, over a real socket: what they show, and that it stays inert."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from html import unescape
from html.parser import HTMLParser

import orjson
import pytest
from sqlalchemy import Engine

from infra.store import audit, inbox
from infra.store.audit import Sought
from schemas.accounts import ConsolePolicy
from schemas.arrival import Arrival, Candidate, Refused
from schemas.lifecycle import State
from schemas.problem import Problem
from schemas.verdict import VerdictKind
from tests.integration.console import OPERATOR, VIEWER, ConsoleThread, Visitor
from tests.integration.ground import until
from tests.integration.hostile import HOSTILE, MARK, steers
from tests.integration.scenes import Scene, contract, conversion, refund

MANY = 120


@pytest.fixture(scope="module")
def scene(engine: Engine) -> Scene:
    scene = Scene(engine)
    scene.apply(contract("push-eu"), contract("xandr-main", wait="14d"))
    for number in range(MANY):
        scene.take(conversion(f"unrouted-{number}", "nobody"), conversion(f"unrouted-{number}", "nobody"))
    scene.take(refund("r-1", "order-1", reason="they changed their mind"))
    inbox.commit(engine, [_arrival(f"/hooks/shop?n={number}") for number in range(MANY)])
    return scene


def _arrival(target: str, body: bytes = b'{"a": 1}', **fields: object) -> Arrival:
    whole = {"kind": "hook", "source": "shop", "method": "POST", "peer": "192.0.2.1", "candidates": []}
    return Arrival(
        target=target, headers=[("Content-Type", "application/json")], body=body, **(whole | fields)
    )  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def console(engine: Engine, scene: Scene) -> Iterator[ConsoleThread]:
    with ConsoleThread(engine, ConsolePolicy()) as running:
        yield running


@pytest.fixture(scope="module")
def viewer(console: ConsoleThread) -> Visitor:
    return console.signed_in(VIEWER)


def _all_pages(client: Visitor, path: str, pattern: str) -> list[str]:
    """What ``pattern`` finds on each page of a listing, to its end."""
    found: list[str] = []
    while path:
        page = client.get(path).text
        found += re.findall(pattern, page)
        after = re.search(r'rel="next" href="([^"]*)"', page)
        path = unescape(after[1]) if after else ""
    return found


@pytest.mark.parametrize(
    ("path", "pattern"),
    [
        ("/inbox", r">in_(\d+)</a>"),
        ("/rejects", r'href="/rejects/(\d+)"'),
        ("/unrouted", r">cv_(\d+)</a>"),
    ],
)
def test_a_listing_is_whole_page_by_page(viewer: Visitor, path: str, pattern: str) -> None:
    """Newest first, by key: nothing twice and nothing left out."""
    ids = [int(each) for each in _all_pages(viewer, path, pattern)]
    assert ids == sorted(set(ids), reverse=True)
    assert len(ids) == MANY


@pytest.mark.parametrize(
    ("path", "count"),
    [
        ("/inbox?kind=hook&source=shop", 50),
        ("/inbox?kind=click", 0),
        ("/inbox?failed=yes", 0),
        ("/rejects?kind=duplicate&event=unrouted-7", 1),
        ("/rejects?kind=invalid", 0),
        ("/unrouted?order=order-unrouted-9", 1),
        ("/unrouted?since=2020-01-01&until=2021-01-01", 0),
        ("/signals?kind=refund&order=order-1", 1),
        ("/signals?kind=cancel", 0),
    ],
)
def test_a_listing_is_narrowed(viewer: Visitor, path: str, count: int) -> None:
    page = viewer.get(path).text
    assert page.count("<tr>") - page.count("<thead>") == count
    assert ("empty-title" in page) == (count == 0)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/inbox?since=yesterday", "since"),
        ("/inbox?before=x", "before"),
        ("/inbox/cv_1", "no id of this kind"),
        ("/audit?until=%00", "until"),
        ("/live?verdict=nice", "verdict"),
    ],
)
def test_what_cannot_be_read_is_said(viewer: Visitor, path: str, said: str) -> None:
    answer = viewer.get(path)
    assert answer.status_code == 400
    assert said in answer.text


@pytest.mark.parametrize("path", ["/inbox/in_999999", "/rejects/999999", "/signals/sg_999999", "/nothing"])
def test_what_is_not_there_is_said(viewer: Visitor, path: str) -> None:
    assert viewer.get(path).status_code == 404


def test_a_request_is_shown_as_it_came_with_what_became_of_it(viewer: Visitor, engine: Engine) -> None:
    problem = Problem("bad", "value", "is no amount", "Write it as 49.90")
    body = '{"order": 7, "note": "ünï"}'.encode()
    committed = inbox.commit(engine, [_arrival("/hooks/shop", body, refused=[Refused(0, [problem])])])
    number = committed.receipts[0].request_id
    page = unescape(viewer.get(f"/inbox/in_{number}").text)
    for said in (
        "POST /hooks/shop",
        "Content-Type: application/json",
        '{"order": 7, "note": "ünï"}',
        "192.0.2.1",
        "is no amount",
        "Write it as 49.90",
    ):
        assert said in page
    assert f"in_{number}" in viewer.get("/inbox?failed=yes").text


class _Structure(HTMLParser):
    """The tags of a page, each with the names of its attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: set[tuple[str, ...]] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.add((tag, *sorted(name for name, _ in attrs)))


def _arrive(engine: Engine, text: str) -> int:
    """A request that says ``text`` in its line, header, body and reasons, and as its sender."""
    short = text[:200]
    arrival = Arrival(
        kind="hook", source=short, method="POST", target=f"/{text}", headers=[(text, text)], body=text.encode(),
        peer=short, candidates=[], refused=[Refused(0, [Problem("bad", text, text, text)])], dedupe_id=short,
    )  # fmt: skip
    return inbox.commit(engine, [arrival]).receipts[0].request_id


@pytest.fixture(scope="module")
def harmless(viewer: Visitor, engine: Engine) -> set[tuple[str, ...]]:
    """The tags of the same pages over a harmless text."""
    number = _arrive(engine, "harmless")
    pages = (f"/inbox/in_{number}", "/inbox")
    return {tag for path in pages for tag in _Structure(viewer.get(path).text).found}


def test_a_request_leads_to_the_conversions_it_brought(viewer: Visitor, scene: Scene, engine: Engine) -> None:
    """By the event ids that its body names, a vendor's by the last part of one; and to no others of that time."""
    events = [conversion(event_id, "nobody") for event_id in ("brought-1", "brought-12", "shop:order:77123")]
    sent = [{"event_id": "brought-12"}, {"event_id": "never-taken"}]
    candidate = Candidate(0, ("shop", "brought-12"), b"{}")
    common = {"source": "shop", "method": "POST", "target": "/v1/events", "headers": [], "peer": None}
    posted = Arrival(kind="events", body=orjson.dumps(sent), candidates=[candidate], **common)
    hook = Candidate(0, ("shop", "shop:order:77123"), b"{}")
    delivered = Arrival(kind="hook", body=b'{"id": 77123}', candidates=[hook], **common)
    numbers = [receipt.request_id for receipt in inbox.commit(engine, [posted, delivered]).receipts]
    scene.take(*events)
    found = []
    for number in numbers:
        part = re.search(r'id="brought".*?</section>', viewer.get(f"/inbox/in_{number}").text, re.DOTALL)
        assert part
        found.append(re.findall(r'<code class="raw">(.*?)</code>', part[0]))
    assert found == [["brought-12"], ["shop:order:77123"]]


@pytest.mark.parametrize("kind", HOSTILE)
def test_what_came_in_stays_inert(
    viewer: Visitor, engine: Engine, harmless: set[tuple[str, ...]], kind: str
) -> None:
    """Shown, and neither markup nor anything that turns text round."""
    text = HOSTILE[kind].replace("\0", "")
    number = _arrive(engine, text)
    for path in (f"/inbox/in_{number}", "/inbox"):
        page = viewer.get(path).text
        assert MARK in page
        assert _Structure(page).found <= harmless
        assert steers(page) == []


def test_the_audit_page_is_narrowed_and_taken_away_as_csv(
    console: ConsoleThread, viewer: Visitor, engine: Engine
) -> None:
    audit.record(
        engine, who="zoe@host", action="destination.pause", detail={"destination": "=cmd()", "reason": "r"}
    )
    page = viewer.get("/audit?who=zoe").text
    assert "destination.pause" in page
    assert "users.add" not in re.sub("<select.*?</select>", "", page, flags=re.DOTALL)
    answer = viewer.get("/audit.csv?who=zoe")
    assert answer.headers["content-disposition"].startswith('attachment; filename="holdfire-audit-')
    rows = list(csv.reader(io.StringIO(answer.text.removeprefix("\ufeff"))))
    assert rows[0][:4] == ["id", "at (UTC)", "who", "action"]
    assert [row[2:4] for row in rows[1:]] == [["zoe@host", "destination.pause"]]
    (taken,) = audit.find(engine, Sought(action="export.csv"), limit=1)
    assert taken.who == f"console:{VIEWER}@127.0.0.1"
    assert taken.detail == {"name": "holdfire-audit", "asked": {"who": "zoe"}}


def test_the_audit_is_found_by_who_what_when_and_subject(engine: Engine, scene: Scene) -> None:
    audit.record(engine, who="console:yan@192.0.2.1", action="replay.begin", detail={"run": "rn_1"})
    audit.record(engine, who="yan", action="replay.stop", detail={"nested": {"run": ["rn_1"]}})
    now = datetime.now(UTC)

    def found(**sought: object) -> list[str]:
        return [each.action for each in audit.find(engine, Sought(**sought))]  # type: ignore[arg-type]

    assert found(who="yan") == ["replay.stop", "replay.begin"]
    assert found(who="console:yan@192.0.2.1") == ["replay.begin"]
    assert found(action="replay") == ["replay.stop", "replay.begin"]
    assert found(action="repl") == []
    assert found(subject="rn_1") == ["replay.stop", "replay.begin"]
    assert found(subject="rn_1", until=now - timedelta(hours=1)) == []
    assert found(who="yan", since=now - timedelta(hours=1), action="replay.stop") == ["replay.stop"]
    assert {"replay.begin", "replay.stop"} <= set(audit.actions(engine))
    newest = audit.find(engine, Sought(), limit=1)[0]
    assert all(each.id < newest.id for each in audit.find(engine, Sought(), before=newest.id))
    assert len(list(audit.walk(engine, Sought(who="yan")))) == 2


def test_the_live_page_shows_attempts_without_scripts(console: ConsoleThread, scene: Scene) -> None:
    viewer = console.signed_in()
    scene.take(conversion("seen-1", "push"))
    fired = scene.fire_one("seen-1")
    scene.settle(fired)

    def shown(path: str) -> bool:
        return f"at_{fired.gated.attempt_id}<" in viewer.get(path).text

    until(lambda: shown("/live"))
    assert shown("/live?destination=push-eu&verdict=delivered")
    assert not shown("/live?destination=xandr-main")
    assert not shown("/live?verdict=retry")
    page = viewer.get("/live").text
    assert '<noscript><meta http-equiv="refresh" content="5"></noscript>' in page
    assert "refresh" not in viewer.get("/live?paused=yes").text


def test_the_live_stream_brings_what_is_settled_since(console: ConsoleThread, scene: Scene) -> None:
    """Each attempt once, as a row of the page; what the filter leaves out does not come."""
    viewer = console.signed_in()
    place = re.search(r"from=(\d+)", viewer.get("/live").text)
    assert place
    scene.take(conversion("streamed-1", "push"), conversion("streamed-2", "push"))
    first, second = scene.fire()
    scene.settle(first)
    scene.settle(
        second, State.RETRYING, VerdictKind.RETRY, "status 503",
        next_attempt_at=second.gated.now + timedelta(hours=1), delay_s=3600.0,
    )  # fmt: skip
    wanted = f"/live/stream?from={place[1]}&verdict=retry"
    with viewer.stream("GET", wanted) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        said = next(chunk for chunk in answer.iter_text() if "data:" in chunk)
    assert f"at_{second.gated.attempt_id}<" in said
    assert f"at_{first.gated.attempt_id}<" not in said
    assert said.count("<tr") == 1


def test_one_look_serves_everybody_who_watches(
    console: ConsoleThread, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database is looked at once a beat, however many watch."""
    import threading
    import time

    from infra.store.console import tailing

    looks: list[float] = []
    look = tailing.look

    def counted(*given: object, **named: object) -> object:
        looks.append(time.monotonic())
        return look(*given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(tailing, "look", counted)
    stop = threading.Event()

    def watch(client: Visitor) -> None:
        with client.stream("GET", "/live/stream") as answer:
            for _ in answer.iter_text():
                if stop.is_set():
                    return

    clients = [console.signed_in() for _ in range(6)]
    threads = [threading.Thread(target=watch, args=(client,), daemon=True) for client in clients]
    for thread in threads:
        thread.start()
    until(lambda: len(looks) >= 4)
    seen = list(looks)
    stop.set()
    for thread in threads:
        thread.join(15)
    assert seen[-1] - seen[0] >= 0.8 * (len(seen) - 1), "no more than one a second"


def test_a_stream_ends_with_the_console(engine: Engine) -> None:
    """It does not hold up the process's end."""
    import threading
    import time

    with ConsoleThread(engine) as console:
        viewer = console.signed_in()
        opened, closed = threading.Event(), threading.Event()

        def watch() -> None:
            with viewer.stream("GET", "/live/stream") as answer:
                opened.set()
                for _ in answer.iter_text():
                    pass
            closed.set()

        threading.Thread(target=watch, daemon=True).start()
        assert opened.wait(10)
        began = time.monotonic()
        console.application.end()
        assert closed.wait(5)
        assert time.monotonic() - began < 4


def test_the_colours_one_chose_stay(console: ConsoleThread) -> None:
    client = console.signed_in(OPERATOR)
    assert "data-theme" not in client.get("/account").text
    answer = client.submit("/inbox?kind=hook", "/account/theme", theme="dark")
    assert answer.headers["location"].replace("&amp;", "&") == "/inbox?kind=hook"
    assert 'data-theme="dark"' in client.get("/account").text
    client.submit("/account", "/account/theme", theme='"><script>')
    assert "data-theme" not in client.get("/account").text


def test_what_a_page_says_once_is_believed_only_if_it_was_ours(console: ConsoleThread) -> None:
    client = console.signed_in(OPERATOR)
    client.submit("/account", "/account/sessions/end-others")
    assert "other session" in client.get("/account").text
    assert "other sessions ended" not in client.get("/account").text
    client.cookies.set("holdfire_said", "ZG9uZTpwd25lZA==.0000")
    assert "pwned" not in client.get("/account").text


def test_static_files_are_two_and_may_be_kept(viewer: Visitor) -> None:
    page = viewer.get("/account").text
    for path in re.findall(r'(?:href|src)="(/static/[^"]*)"', page):
        answer = viewer.get(path)
        assert answer.status_code == 200
        assert "immutable" in answer.headers["cache-control"]
    assert viewer.get("/static/__init__.py").status_code == 404
    assert viewer.get("/static/..%2Fapp.py").status_code == 404
