"""The pages of lives at a real server: who sees what of a click id, what is taken away, and where every id leads."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterator
from datetime import timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from infra.store.arrivals import brought_by
from infra.store.evidence import read_life
from infra.store.inbox import commit
from infra.store.searching.search import conversion_of_postback
from investigations.console.life_view import UNFOLDABLE
from investigations.export.signing import open_signer
from investigations.export.verifying import verify_bundle
from investigations.transcript import transcript
from schemas.accounts import ConsolePolicy, Role
from schemas.arrival import Arrival, Candidate
from schemas.ids import show
from schemas.lifecycle import State
from schemas.verdict import VerdictKind
from tests.integration.console import OPERATOR, VIEWER, ConsoleThread
from tests.integration.scenes import TOKEN, Scene, contract, conversion, hop, refund

MASKED = ConsolePolicy(mask_click_ids_for=(Role.VIEWER,))
MANY = 40


@pytest.fixture(scope="module")
def scene(engine: Engine) -> Scene:
    scene = Scene(engine)
    scene.apply(contract("push-eu"), contract("xandr-main", wait="14d"))
    scene.take(conversion("plain", "push", params={"note": f"came by {TOKEN}plain"}))
    scene.settle(scene.fire_one("plain"), hops=[_echo("plain")])
    scene.take(conversion("many", "push"))
    for number in range(MANY):
        fired = scene.fire_one("many")
        scene.settle(
            fired,
            State.RETRYING,
            VerdictKind.RETRY,
            f"status 503, time {number}",
            [_echo("many", status_code=503)],
            next_attempt_at=fired.gated.now + timedelta(hours=1),
            delay_s=3600.0,
        )
        scene.make_due(fired.gated.postback_id)
    scene.run("UPDATE postbacks SET due_at = now() + interval '1 day' WHERE state = 'retrying'")
    scene.take(conversion("held", "xandr"), conversion("returned", "xandr"))
    scene.take(refund("r-1", "order-returned"))
    return scene


def _echo(event_id: str, **fields: Any) -> Any:
    """An answer that says the click id again, in the writing of a URL."""
    body = f"taken: {TOKEN}{event_id} and https://x.example/?c={TOKEN}{event_id}".encode()
    return hop(
        url=f"https://a.example/postback?click={TOKEN}{event_id}",
        request_head=f"GET /postback?click={TOKEN}{event_id} HTTP/1.1\r\nHost: a.example\r\n".encode(),
        body=body,
        body_length=len(body),
        **fields,
    )


@pytest.fixture(scope="module")
def console(engine: Engine, scene: Scene) -> Iterator[ConsoleThread]:
    with ConsoleThread(engine) as running:
        yield running


@pytest.fixture(scope="module")
def masking(engine: Engine, scene: Scene) -> Iterator[ConsoleThread]:
    """A console whose viewers see click ids masked."""
    with ConsoleThread(engine, MASKED) as running:
        yield running


def cv(engine: Engine, scene: Scene, event_id: str) -> str:
    number = conversion_of_postback(engine, scene.postback_of(event_id))
    assert number is not None
    return show("cv", number)


def attempt(engine: Engine, scene: Scene, event_id: str) -> str:
    life = read_life(engine, int(cv(engine, scene, event_id)[3:]))
    assert life is not None
    return show("at", life.postbacks[0].attempts[0].id)


def test_click_ids_are_masked_wherever_they_stand(
    masking: ConsoleThread, engine: Engine, scene: Scene
) -> None:
    """In facts, in the request and the answer, in a curl command, in a title and in a parameter that repeats it."""
    life, one = cv(engine, scene, "plain"), attempt(engine, scene, "plain")
    other = attempt(engine, scene, "many")
    paths = (
        f"/conversions/{life}",
        f"/attempts/{one}",
        f"/compare?a={one}&b={other}",
        f"/attempts/{one}/transcript.txt",
    )
    viewer, operator = masking.signed_in(VIEWER), masking.signed_in(OPERATOR)
    for path in paths:
        seen = viewer.get(path)
        assert seen.status_code == 200
        assert TOKEN not in seen.text, path
        assert "[click:" in seen.text
        assert TOKEN in operator.get(path).text


def test_files_are_masked_as_pages_are(masking: ConsoleThread, engine: Engine, scene: Scene) -> None:
    """Also where the answer's bytes stand in base64."""
    life, one = cv(engine, scene, "plain"), attempt(engine, scene, "plain")
    for path in (
        f"/conversions/{life}/conversion.har",
        f"/conversions/{life}/conversion.json",
        f"/attempts/{one}/attempt.har",
    ):
        seen, whole = masking.signed_in(VIEWER).get(path).text, masking.signed_in(OPERATOR).get(path).text
        for form in (TOKEN, b64encode(f"taken: {TOKEN}".encode()).decode()[:40]):
            assert form not in seen
        assert TOKEN in whole
        assert json.loads(seen)


def test_a_bundle_is_whole_signed_and_an_operators(
    console: ConsoleThread, engine: Engine, scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOLDFIRE_DATA_DIR", str(tmp_path))
    path = f"/conversions/{cv(engine, scene, 'plain')}/bundle.zip"
    assert console.signed_in(VIEWER).get(path).status_code == 403
    given = console.signed_in(OPERATOR).get(path)
    assert given.headers["content-type"] == "application/zip"
    assert given.headers["content-length"] == str(len(given.content))
    key = open_signer(tmp_path).public.fingerprint
    assert verify_bundle(BytesIO(given.content), known=key).holds
    assert console.signed_in(OPERATOR).get(f"{path}?network=nowhere").status_code == 404


def test_a_transcript_is_the_one_of_the_command_line(
    console: ConsoleThread, engine: Engine, scene: Scene
) -> None:
    one = attempt(engine, scene, "plain")
    life = read_life(engine, int(cv(engine, scene, "plain")[3:]))
    assert life is not None
    (postback,) = life.postbacks
    given = console.signed_in().get(f"/attempts/{one}/transcript.txt")
    assert given.headers["content-disposition"] == f'attachment; filename="{one}.txt"'
    assert given.text == "".join(f"{line}\n" for line in transcript(life, postback, postback.attempts[0]))


def test_a_conversions_har_has_every_attempt(console: ConsoleThread, engine: Engine, scene: Scene) -> None:
    """Also those whose exchanges its page does not have."""
    given = console.signed_in().get(f"/conversions/{cv(engine, scene, 'many')}/conversion.har")
    assert len(json.loads(given.text)["log"]["entries"]) == MANY


def test_who_took_evidence_away_is_in_the_audit(console: ConsoleThread, engine: Engine, scene: Scene) -> None:
    life = cv(engine, scene, "plain")
    console.signed_in().get(f"/conversions/{life}/transcript.txt")
    assert life in console.signed_in(OPERATOR).get("/audit?action=export.txt").text


def test_every_id_leads_to_its_place(console: ConsoleThread, engine: Engine, scene: Scene) -> None:
    postback = show("pb", scene.postback_of("plain"))
    answer = console.signed_in().get(f"/postbacks/{postback}")
    assert (answer.status_code, answer.headers["location"]) == (
        303,
        f"/conversions/{cv(engine, scene, 'plain')}#{postback}",
    )


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/conversions/cv_999999", "There is no conversion cv_999999"),
        ("/conversions/pb_1", "pb_1 is no id of this kind"),
        ("/postbacks/pb_999999", "There is no pb_999999"),
        ("/checks/ck_999999", "There is no ck_999999"),
        ("/attempts/at_999999", "There is no attempt at_999999"),
        ("/attempts/nonsense", "nonsense is no id of this kind"),
    ],
)
def test_what_is_not_there_is_said(console: ConsoleThread, path: str, words: str) -> None:
    answer = console.signed_in().get(path)
    assert answer.status_code == 404
    assert words in answer.text


@pytest.mark.parametrize("query", ["", "?a=at_1", "?attempt=at_1", "?attempt=at_1&attempt=at_2&attempt=at_3"])
def test_two_attempts_are_compared_and_no_other_number(console: ConsoleThread, query: str) -> None:
    answer = console.signed_in().get(f"/compare{query}")
    assert answer.status_code == 400
    assert "Two attempts are compared" in answer.text


def test_of_many_attempts_the_page_has_the_newest(
    console: ConsoleThread, engine: Engine, scene: Scene
) -> None:
    text = console.signed_in().get(f"/conversions/{cv(engine, scene, 'many')}").text
    assert text.count('class="exchange"') == UNFOLDABLE
    assert f"{MANY} attempts." in text
    assert all(f"status 503, time {number}" in text for number in range(MANY))


def test_a_viewer_reads_and_does_nothing(console: ConsoleThread, engine: Engine, scene: Scene) -> None:
    viewer, postback = console.signed_in(VIEWER), show("pb", scene.postback_of("held"))
    assert "/by-hand/" not in viewer.get(f"/conversions/{cv(engine, scene, 'held')}").text
    assert viewer.get(f"/by-hand/void?postback={postback}").status_code == 403
    given = {"postback": postback, "reason": "no", "step": "do", "last": "999", "csrf": viewer.csrf}
    assert viewer.post("/by-hand/void", data=given).status_code == 403


def test_nothing_is_done_before_it_is_confirmed(console: ConsoleThread, engine: Engine, scene: Scene) -> None:
    """Without the step that confirms, without a reason, or with an end that makes no sense, nothing moves."""
    operator, postback = console.signed_in(OPERATOR), show("pb", scene.postback_of("held"))
    page, before = f"/by-hand/extend?postback={postback}", _row(engine, scene)
    for fields in (
        {"reason": "late", "by": "7d"},
        {"reason": "", "by": "7d", "step": "do", "last": "999999"},
        {"reason": "late", "by": "soon", "step": "do", "last": "999999"},
        {"reason": "late", "step": "do", "last": "999999"},
    ):
        operator.submit(page, "/by-hand/extend", **fields)
        assert _row(engine, scene) == before
    done = operator.submit(page, "/by-hand/extend", reason="late", by="7d", step="do", last="999999")
    assert done.status_code == 303
    assert _row(engine, scene) != before


def _row(engine: Engine, scene: Scene) -> object:
    life = read_life(engine, int(cv(engine, scene, "held")[3:]))
    assert life is not None
    return life.postbacks[0].release_at


def test_a_conversion_shows_the_request_that_brought_it(
    console: ConsoleThread, engine: Engine, scene: Scene
) -> None:
    """The one that names it and had events taken: not one beside it, not one that came after."""
    event = conversion("by-http", "push")
    (wanted,) = _arrive(engine, "by-http", event)
    _arrive(engine, "another", conversion("another", "push"))
    scene.take(event)
    _arrive(engine, "by-http", event)
    life = read_life(engine, int(cv(engine, scene, "by-http")[3:]))
    assert life is not None
    found = brought_by(engine, life.conversion)
    assert found is not None
    assert found.id == wanted
    text = console.signed_in().get(f"/conversions/{show('cv', life.conversion.id)}").text
    assert f'href="/inbox/in_{wanted}"' in text
    assert "POST /v1/events came in over HTTP and was answered 202" in text


def _arrive(engine: Engine, event_id: str, event: dict[str, object]) -> list[int]:
    body = json.dumps(event).encode()
    arrival = Arrival(
        "events", None, "POST", "/v1/events", [], body, "192.0.2.7", [Candidate(0, ("shop", event_id), body)]
    )
    return [receipt.request_id for receipt in commit(engine, [arrival]).receipts]
