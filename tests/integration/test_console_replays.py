"""Firing again and settling from the console's pages: first what would happen, then, confirmed, what happened."""

from __future__ import annotations

from collections.abc import Iterator
from html import unescape
from types import ModuleType

import pytest
from sqlalchemy import Engine, text

from infra.store.by_hand import Signature
from infra.store.replays import replaying
from infra.store.replays.causes import causes
from infra.store.replays.replay_look import Options
from infra.store.searching.search import Criteria
from infra.store.selection import Selection
from investigations.console.pages import by_hand as by_hand_page
from investigations.console.pages import doubts as doubts_page
from investigations.console.pages import replays as replays_page
from schemas.ids import show
from schemas.lifecycle import State
from schemas.verdict import VerdictKind
from tests.integration.console import OPERATOR, VIEWER, ConsoleThread, Visitor
from tests.integration.ground import until
from tests.integration.scenes import Scene, contract, conversion, hop


@pytest.fixture(scope="module")
def scene(engine: Engine) -> Scene:
    scene = Scene(engine)
    scene.apply(contract("push-eu"), contract("twice-us", dedupe="counted_twice"))
    return scene


@pytest.fixture(scope="module")
def console(engine: Engine, scene: Scene) -> Iterator[ConsoleThread]:
    with ConsoleThread(engine) as running:
        yield running


@pytest.fixture
def operator(console: ConsoleThread) -> Visitor:
    return console.signed_in(OPERATOR)


def dead(scene: Scene, event_id: str, rule: str = "status 503") -> str:
    scene.take(conversion(event_id, "push"))
    fired = scene.fire_one(event_id)
    scene.settle(fired, State.DEAD, VerdictKind.RETRY, rule, [hop(status_code=503)])
    return show("pb", fired.gated.postback_id)


def in_doubt(scene: Scene, event_id: str) -> str:
    scene.take(conversion(event_id, "twice"))
    fired = scene.fire_one(event_id)
    scene.settle(fired, State.IN_DOUBT, VerdictKind.UNKNOWN, "timeout after the request was sent", [])
    return show("pb", fired.gated.postback_id)


def state(engine: Engine, postback: str) -> str:
    with engine.connect() as connection:
        query = text("SELECT state FROM postbacks WHERE id = :id")
        return str(connection.execute(query, {"id": int(postback[3:])}).scalar_one())


def quiet(scene: Scene) -> None:
    """What a test fired again is not due when the next one fires."""
    scene.run("UPDATE postbacks SET due_at = now() + interval '1 day' WHERE due_at < 'infinity'")


def test_a_replay_is_a_dry_run_until_it_is_confirmed(operator: Visitor, engine: Engine, scene: Scene) -> None:
    postback = dead(scene, "once")
    page = f"/replays/new?postback={postback}"
    assert "Would fire <strong>1</strong> again" in operator.get(page).text
    shown = operator.submit(page, "/replays/new", reason="the network is back")
    assert "Fire 1 again now" in shown.text
    assert state(engine, postback) == "dead"
    done = operator.submit(page, "/replays/new", reason="the network is back", step="do")
    assert done.status_code == 303
    until(lambda: state(engine, postback) == "retrying")
    run = operator.get(done.headers["location"])
    assert "console:otto" in run.text
    assert "the network is back" in run.text
    quiet(scene)


def test_what_would_count_twice_is_refused_unless_forced(
    operator: Visitor, engine: Engine, scene: Scene
) -> None:
    postback = in_doubt(scene, "doubted")
    page = f"/replays/new?postback={postback}"
    shown = operator.submit(page, "/replays/new", reason="let us see")
    assert "Nothing would fire." in shown.text
    assert "again now" not in shown.text
    forced = operator.submit(page, "/replays/new", reason="their support found nothing", force="yes")
    assert "Overruled by force" in forced.text
    assert "Fire 1 again now" in forced.text
    assert state(engine, postback) == "in_doubt"


def test_a_replay_needs_a_reason_and_a_rate(operator: Visitor, engine: Engine, scene: Scene) -> None:
    postback = dead(scene, "reasonless")
    page = f"/replays/new?postback={postback}"
    for fields in (
        {"reason": " "},
        {"reason": "x", "per_second": "many"},
        {"reason": "x", "per_second": "0"},
    ):
        answer = operator.submit(page, "/replays/new", step="do", **fields)
        assert answer.status_code == 400
        assert state(engine, postback) == "dead"


def test_dead_letters_are_fired_again_by_cause(operator: Visitor, engine: Engine, scene: Scene) -> None:
    """All of one cause, and none of another."""
    mine = [dead(scene, f"cause-{number}", "status 507") for number in range(3)]
    other = dead(scene, "other-cause", "status 508")
    (cause,) = [each for each in causes(engine) if each.rule == "status 507"]
    listed = operator.get("/dead").text
    assert f"/replays/new?cause={cause.key}" in listed
    page = f"/replays/new?cause={cause.key}"
    operator.submit(page, "/replays/new", reason="mended", step="do")
    until(lambda: {state(engine, each) for each in mine} == {"retrying"})
    assert state(engine, other) == "dead"
    quiet(scene)


def test_all_that_a_search_finds_is_fired_again(operator: Visitor, engine: Engine, scene: Scene) -> None:
    """And nothing beside it; a search that narrows nothing is not taken."""
    wanted, other = dead(scene, "found-1"), dead(scene, "not-found")
    page = "/replays/new?q=state%3Adead+order%3Aorder-found-1"
    assert "Would fire <strong>1</strong> again" in operator.get(page).text
    operator.submit(page, "/replays/new", reason="mended", step="do")
    until(lambda: state(engine, wanted) == "retrying")
    assert state(engine, other) == "dead"
    assert operator.get("/replays/new?q=+").status_code == 400
    assert operator.get("/replays/new?q=state%3Anonsense").status_code == 400
    quiet(scene)


def test_a_run_that_its_process_left_is_gone_on_with(operator: Visitor, engine: Engine, scene: Scene) -> None:
    postback = dead(scene, "left")
    selection = Selection(Criteria(postback_id=int(postback[3:])))
    number = replaying.begin(engine, selection, Options(), Signature("someone", "began, and went away"))
    path = f"/replays/{show('rn', number)}"
    assert "has left it" in operator.get(path).text
    assert operator.submit(path, path, move="go on").status_code == 303
    until(lambda: state(engine, postback) == "retrying")
    quiet(scene)


def test_what_has_not_fired_is_put_back_when_a_run_is_stopped(
    operator: Visitor, engine: Engine, scene: Scene
) -> None:
    postback = dead(scene, "stopped")
    page = f"/replays/new?postback={postback}"
    path = operator.submit(page, "/replays/new", reason="the network is back", step="do").headers["location"]
    until(lambda: state(engine, postback) == "retrying")
    assert operator.submit(path, path, move="stop").status_code == 303
    assert state(engine, postback) == "retrying"  # without a reason nothing is stopped
    operator.submit(path, path, move="stop", reason="it is not back")
    assert state(engine, postback) == "dead"
    assert "Stopped" in operator.get(path).text


def test_what_is_in_doubt_is_settled_as_the_network_said(
    operator: Visitor, engine: Engine, scene: Scene
) -> None:
    delivered, not_counted = in_doubt(scene, "they have it"), in_doubt(scene, "they have not")
    for postback, said, became in (
        (delivered, "delivered", "delivered"),
        (not_counted, "not-counted", "dead"),
    ):
        page = f"/settle?postback={postback}"
        fields = {"said": said, "reason": "ticket 4711"}
        shown = operator.submit(page, "/settle", **fields)
        assert "Settle 1 postback now" in shown.text
        assert state(engine, postback) == "in_doubt"
        last = postback[3:]
        assert operator.submit(page, "/settle", **fields, step="do", last=last).status_code == 303
        assert state(engine, postback) == became


def test_a_viewer_sees_runs_and_causes_and_moves_none(console: ConsoleThread, scene: Scene) -> None:
    viewer = console.signed_in(VIEWER)
    postback = dead(scene, "not for viewers")
    assert viewer.get("/replays").status_code == 200
    assert "Replay 1" not in viewer.get("/dead").text
    for path in (f"/replays/new?postback={postback}", f"/settle?postback={postback}"):
        assert viewer.get(path).status_code == 403
    given = {"csrf": viewer.csrf, "postback": postback, "reason": "x", "step": "do"}
    for path in ("/replays/new", "/settle", "/replays/rn_1"):
        assert viewer.post(path, data=given).status_code == 403


@pytest.mark.parametrize(
    "query", ["", "?postback=pb_1&conversion=cv_1", "?postback=cv_1", "?postback=pb_999999"]
)
def test_a_replay_names_what_is_meant(operator: Visitor, query: str) -> None:
    assert operator.get(f"/replays/new{query}").status_code in {400, 404}


@pytest.mark.parametrize(
    ("module", "path", "form", "command"),
    [
        (replays_page, "/replays/new", {}, "holdfire replay --state=dead --destination=push-eu --dry-run"),
        (doubts_page, "/settle", {"said": "not-counted"},
         "holdfire settle --state=dead --destination=push-eu --as=not-counted --dry-run"),
        (by_hand_page, "/by-hand/extend", {"by": "7d"},
         "holdfire extend --state=dead --destination=push-eu --by=7d --dry-run"),
    ],
)  # fmt: skip
def test_for_more_than_a_page_acts_on_it_names_the_command(
    operator: Visitor, scene: Scene, monkeypatch: pytest.MonkeyPatch, *, module: ModuleType, path: str,
    form: dict[str, str], command: str,
) -> None:  # fmt: skip
    dead(scene, f"many{path}")
    monkeypatch.setattr(module, "MOST", 0)
    page = f"{path}?q=state:dead+destination:push-eu"
    answer = operator.submit(page, path, reason="nothing else helps", **form) if form else operator.get(page)
    assert command in unescape(answer.text)
    assert 'value="do"' not in answer.text
