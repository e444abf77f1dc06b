"""The search page over a real socket: what one types, where it leads, and what is taken away."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from html import unescape
from urllib.parse import parse_qs, urlsplit

import pytest
from sqlalchemy import Engine

from infra.store import audit
from infra.store.audit import Sought
from infra.store.searching.search import SearchPage
from investigations.console.pages import search as page_module
from schemas.lifecycle import State
from schemas.verdict import VerdictKind
from tests.integration.console import OPERATOR, VIEWER, ConsoleThread, Visitor
from tests.integration.hostile import HOSTILE, MARK, steers
from tests.integration.scenes import TOKEN, Scene, contract, conversion, refund

MANY = 130


@pytest.fixture(scope="module")
def scene(engine: Engine) -> Scene:
    """Many held, one delivered, one rejected, one unrouted, and one order of two conversions."""
    scene = Scene(engine)
    scene.apply(contract("push-eu"), contract("xandr-main", wait="14d"))
    scene.take(*(conversion(f"held-{number}", "xandr", value=f"{number}.50") for number in range(MANY)))
    scene.take(conversion("sent", "push"))
    scene.settle(scene.fire_one("sent"))
    scene.take(conversion("refused", "push", order_id="=1+1", click_ids={"push": f"{TOKEN}refused"}))
    scene.settle(scene.fire_one("refused"), State.REJECTED, VerdictKind.REJECTED, "status 400")
    scene.take(conversion("unrouted", "nobody"))
    scene.take(
        conversion("twice-1", "xandr", order_id="twice"), conversion("twice-2", "xandr", order_id="twice")
    )
    scene.take(refund("refund-1", "only-a-signal"))
    return scene


@pytest.fixture(scope="module")
def console(engine: Engine, scene: Scene) -> Iterator[ConsoleThread]:
    with ConsoleThread(engine) as running:
        yield running


@pytest.fixture(scope="module")
def viewer(console: ConsoleThread) -> Visitor:
    return console.signed_in(VIEWER)


def _ids(page: str) -> list[int]:
    return [int(each) for each in re.findall(r">pb_(\d+)</a>", page)]


def _chips(page: str) -> list[str]:
    return [unescape(each) for each in re.findall(r'<li class="chip"><code>(.*?)</code>', page)]


@pytest.mark.parametrize("word", ["order-sent", f"{TOKEN}sent", "sent"])
def test_a_word_that_names_one_conversion_leads_to_it(viewer: Visitor, scene: Scene, word: str) -> None:
    """By order, click and event id; the page is one answer away."""
    answer = viewer.get("/search", params={"q": word})
    number = scene.postback_of("sent")
    assert answer.status_code == 303
    assert viewer.get(f"/postbacks/pb_{number}").headers["location"].startswith(answer.headers["location"])


@pytest.mark.parametrize("word", ["at_1", "in_7", "sg_1"])
def test_an_id_of_ours_leads_to_its_page(viewer: Visitor, word: str) -> None:
    answer = viewer.get("/search", params={"q": word})
    assert answer.status_code == 303
    assert answer.headers["location"].endswith(f"/{word}")


def test_a_word_that_names_several_is_listed(viewer: Visitor) -> None:
    answer = viewer.get("/search", params={"q": "twice"})
    assert answer.status_code == 200
    assert len(_ids(answer.text)) == 2


def test_a_word_that_names_nothing_says_so_and_where_else(viewer: Visitor) -> None:
    assert "Nothing found" in viewer.get("/search", params={"q": "who-knows"}).text
    page = viewer.get("/search", params={"q": "only-a-signal"}).text
    assert "signals with this order id" in page
    assert viewer.get(unescape(re.findall(r'href="(/signals\?[^"]*)"', page)[0])).status_code == 200


def test_terms_narrow_and_each_can_be_taken_away(viewer: Visitor) -> None:
    page = viewer.get("/search", params={"q": "state:held value:>100 destination:xandr-main"}).text
    assert len(_ids(page)) == 30
    assert sorted(_chips(page)) == ["destination:xandr-main", "state:held", "value:>100"]
    without = [unescape(each) for each in re.findall(r'<a href="(/search[^"]*)" aria-label="Without', page)]
    left = [parse_qs(urlsplit(each).query)["q"][0] for each in without]
    assert sorted(len(each.split()) for each in left) == [2, 2, 2]


@pytest.mark.parametrize(
    ("sort", "first"), [("newest", "twice-2"), ("oldest", "held-0"), ("value", f"held-{MANY - 1}")]
)
def test_a_search_is_whole_page_by_page_in_every_order(
    viewer: Visitor, scene: Scene, sort: str, first: str
) -> None:
    path, ids = f"/search?sort={sort}", []
    while path:
        page = viewer.get(path).text
        ids += _ids(page)
        after = re.search(r'rel="next" href="([^"]*)"', page)
        path = unescape(after[1]) if after else ""
    assert len(ids) == len(set(ids)) == MANY + 4
    assert ids[0] == scene.postback_of(first)


def test_a_search_that_had_no_time_says_how_far_it_looked(
    viewer: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not silently less, and the link looks further."""
    look = page_module.search_page

    def hasty(*given: object, **named: object) -> SearchPage:
        found = look(*given, **(named | {"limit": 3}))  # type: ignore[arg-type]
        return SearchPage(found.rows, found.next, datetime(2026, 1, 2, tzinfo=UTC), complete=False)

    monkeypatch.setattr(page_module, "search_page", hasty)
    page = viewer.get("/search?q=state:held").text
    assert "Looked back to" in page
    assert "2026-01-02 00:00:00" in page
    further = re.search(r'href="(/search\?[^"]*after=[^"]*)"[^>]*>Look further', page)
    assert further
    monkeypatch.undo()
    assert not set(_ids(viewer.get(unescape(further[1])).text)) & set(_ids(page))


@pytest.mark.parametrize(
    ("query", "said"),
    [("q=stat:dead", "did you mean state:"), ("sort=best", "sort"), ("after=x", "after"), ("q=%00", "q:")],
)
def test_what_cannot_be_read_is_said_with_the_remedy(viewer: Visitor, query: str, said: str) -> None:
    answer = viewer.get(f"/search?{query}")
    assert answer.status_code == 400
    assert said in unescape(answer.text)


def test_a_place_of_another_search_is_refused(viewer: Visitor) -> None:
    page = viewer.get("/search?q=state:held").text
    after = re.search(r"after=([A-Za-z0-9_-]+)", page)
    assert after
    assert viewer.get(f"/search?q=state:dead&after={after[1]}").status_code == 400


def test_the_form_below_narrows_into_an_address_that_can_be_shared(viewer: Visitor) -> None:
    answer = viewer.get(
        "/search",
        params={"q": "value:>100 state:dead", "refine": "yes", "state": "held", "since": "24h", "status": ""},
    )
    asked = parse_qs(urlsplit(answer.headers["location"]).query)["q"][0]
    assert answer.status_code == 303
    assert "state:held" in asked
    assert "state:dead" not in asked
    since = re.search(r"since:(\S+)", asked)
    assert since
    age = datetime.now(UTC) - datetime.fromisoformat(since[1])
    assert timedelta(hours=23, minutes=59) < age < timedelta(hours=24, minutes=1)


def test_all_that_is_found_is_taken_away_as_csv(viewer: Visitor, engine: Engine) -> None:
    answer = viewer.get("/search.csv", params={"q": "state:held value:>=0", "sort": "oldest"})
    rows = list(csv.DictReader(io.StringIO(answer.text.removeprefix("\ufeff"))))
    assert len(rows) == MANY + 2
    assert rows[0]["value"] == "0.50"
    assert rows[0]["click_ids"] == f"xandr={TOKEN}held-0"
    (taken,) = audit.find(engine, Sought(action="export.csv"), limit=1)
    assert taken.detail["asked"]["q"] == "state:held value:>=0"


def test_no_cell_of_the_csv_is_a_formula(viewer: Visitor) -> None:
    text = viewer.get("/search.csv", params={"q": "state:rejected"}).text
    assert "'=1+1" in text
    assert ",=1+1" not in text


def test_operators_are_led_on_to_firing_again(console: ConsoleThread, viewer: Visitor) -> None:
    query = "/search?q=state:rejected"
    assert "/replays/new" not in viewer.get(query).text
    operator = console.signed_in(OPERATOR)
    link = re.search(r'href="(/replays/new\?q=[^"]*)"', operator.get(query).text)
    assert link
    page = operator.get(unescape(link[1]))
    assert page.status_code == 200
    assert "state:rejected" in page.text
    assert operator.get("/replays/new?q=").status_code == 400


@pytest.mark.parametrize("kind", HOSTILE)
def test_what_is_typed_stays_inert(viewer: Visitor, kind: str) -> None:
    """A link that somebody was sent cannot make the page do anything."""
    text = HOSTILE[kind].replace("\0", "")[:300]
    quoted = '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    for asked in (text, quoted):
        page = viewer.get("/search", params={"q": asked, "list": "yes"}).text
        main = page.partition("<main")[2]
        shown = re.sub(r'<input[^>]*name="(?:q|next)"[^>]*>|href="[^"]*"', "", main)
        assert (
            re.search(rf"<(?:script|img|svg|iframe|meta|style|body)[^>]*{MARK}", page, re.IGNORECASE) is None
        )
        assert steers(shown) == []
