"""The overview over a real socket: how destinations are doing, what is worth a look, and stopping one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from html import unescape

import pytest
from sqlalchemy import Engine

from infra.store import audit
from infra.store.audit import Sought
from infra.store.stopping import stopping
from schemas.lifecycle import State
from schemas.verdict import VerdictKind
from tests.integration.console import OPERATOR, VIEWER, ConsoleThread, Visitor
from tests.integration.scenes import Scene, contract, conversion


@pytest.fixture(scope="module")
def scene(engine: Engine) -> Scene:
    """At one destination two delivered, one dead, one in doubt and one overdue; at another one held; a third has nothing."""
    scene = Scene(engine)
    scene.apply(contract("push-eu"), contract("xandr-main", wait="14d"), contract("idle"))
    scene.take(
        conversion("a", "push"), conversion("b", "push"), conversion("c", "push"), conversion("d", "push")
    )
    fired = {each.gated.event.event_id: each for each in scene.fire()}
    scene.settle(fired["a"])
    scene.settle(fired["b"])
    scene.settle(fired["c"], State.DEAD, VerdictKind.RETRY, "status 503, attempts exhausted")
    scene.settle(fired["d"], State.IN_DOUBT, VerdictKind.IN_DOUBT, "unreadable")
    scene.take(conversion("late", "push"), conversion("held", "xandr"))
    scene.run(
        "UPDATE postbacks SET due_at = now() - interval '10 minutes' WHERE id = :id",
        id=scene.postback_of("late"),
    )
    return scene


@pytest.fixture(scope="module")
def console(engine: Engine, scene: Scene) -> Iterator[ConsoleThread]:
    with ConsoleThread(engine) as running:
        yield running


@pytest.fixture(scope="module")
def operator(console: ConsoleThread) -> Visitor:
    return console.signed_in(OPERATOR)


def card(page: str, name: str) -> str:
    """The part of the page that is about one destination, as text with its links."""
    found = re.search(rf'<section class="card destination" id="{name}".*?</section>', page, re.DOTALL)
    assert found
    return unescape(found[0])


def said(part: str) -> str:
    return " ".join(re.sub(r"<[^>]*>", " ", part).split())


@pytest.mark.parametrize("span", ["1h", "24h", "7d"])
def test_every_destination_has_its_figures(operator: Visitor, span: str) -> None:
    """States with their counts, the share delivered, a chart that also says in words what it shows."""
    page = operator.get(f"/?range={span}").text
    push = card(page, "push-eu")
    text = said(push)
    for words in ("delivered 2", "dead 1", "in doubt 1", "held 1", "50.0 % delivered"):
        assert words in text
    assert "the oldest for 10 min" in text
    assert re.search(r"Late by \S+ \S+ half", text)
    assert 'aria-label="4 attempts: 2 delivered, 1 to be tried again, 1 rejected or in doubt.' in push
    assert push.count("<rect") == 3
    assert "no attempt" in said(card(page, "idle"))
    assert "held 1" in said(card(page, "xandr-main"))


def test_a_figure_leads_to_what_it_counts(operator: Visitor) -> None:
    push = card(operator.get("/").text, "push-eu")
    link = re.search(r'href="(/search\?[^"]*in_doubt[^"]*)"', push)
    assert link
    page = operator.get(link[1]).text
    assert re.findall(r">pb_(\d+)</a>", page) != []
    assert "state-in_doubt" in page


def test_what_is_worth_a_look_is_said_first(operator: Visitor) -> None:
    page = operator.get("/").text
    remarks = re.search(r'<section class="remarks".*?</section>', page, re.DOTALL)
    assert remarks
    text = said(unescape(remarks[0]))
    for words in (
        "push-eu has 1 overdue, the oldest for 10 min",
        "push-eu has 1 in doubt, for a person to settle",
        "push-eu has 1 dead",
    ):
        assert words in text
    assert "xandr-main" not in text
    for path in re.findall(r'href="([^"]*)"', remarks[0]):
        assert operator.get(unescape(path)).status_code == 200


def test_a_range_that_is_none_is_refused(operator: Visitor) -> None:
    answer = operator.get("/?range=5y")
    assert answer.status_code == 400
    assert "1h, 24h, 7d" in answer.text


def test_an_operator_pauses_and_resumes_a_destination(operator: Visitor, engine: Engine) -> None:
    """With a reason and an end; it is said on the page, it holds, and the audit has it under the account's name."""
    where = "/destinations/xandr-main/pause"
    answer = operator.submit("/?range=1h", where, reason="they migrate", until="2h")
    assert answer.headers["location"] == "/?range=1h"
    page = operator.get("/?range=1h").text
    assert "xandr-main is paused until" in said(page)
    text = said(card(page, "xandr-main"))
    assert "Paused since" in text
    assert f"by console:{OPERATOR}@127.0.0.1: they migrate" in text
    stop = stopping.stops(engine)["xandr-main"]
    assert stop.kind == "paused"
    assert stop.until is not None
    assert abs(stop.until - datetime.now(UTC) - timedelta(hours=2)) < timedelta(minutes=1)
    assert "xandr-main is paused" in said(page), "worth a look"
    operator.submit("/", "/destinations/xandr-main/resume")
    assert stopping.stops(engine) == {}
    assert "goes on" in operator.get("/").text
    acts = audit.find(engine, Sought(subject="xandr-main", who=OPERATOR))
    assert [each.action for each in acts] == ["destination.resume", "destination.pause"]


@pytest.mark.parametrize(
    ("name", "fields", "status"),
    [
        ("xandr-main", {"reason": "", "until": "2h"}, 400),
        ("xandr-main", {"reason": "because of it", "until": "soon"}, 400),
        ("xandr-main", {"reason": "because of it", "until": "2020-01-01"}, 400),
        ("nobody", {"reason": "because of it"}, 404),
    ],
)
def test_a_pause_that_cannot_be_is_refused(
    operator: Visitor, engine: Engine, name: str, fields: dict[str, str], status: int
) -> None:
    answer = operator.post(f"/destinations/{name}/pause", data={"csrf": operator.csrf, **fields})
    assert answer.status_code == status
    assert stopping.stops(engine) == {}


def test_resuming_what_goes_on_anyway_says_so(operator: Visitor) -> None:
    token = operator.csrf
    operator.post("/destinations/idle/resume", data={"csrf": token})
    assert "idle was not stopped" in operator.get("/").text


def test_a_viewer_sees_no_button(console: ConsoleThread) -> None:
    page = console.signed_in(VIEWER).get("/").text
    assert "/pause" not in page
    assert "delivered 2" in said(card(page, "push-eu"))
