"""What an investigator reads, from a database in which every ending has happened once."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import typer
from sqlalchemy import Engine
from typer.testing import CliRunner, Result

from infra.filters import AskingError
from infra.store.evidence import read_life
from infra.store.searching.search import conversion_of_postback
from investigations import cli
from schemas.lifecycle import State
from schemas.verdict import VerdictKind
from tests.integration.scenes import TIMED_OUT, TOKEN, Scene, contract, conversion, hop, refund

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def scene(engine: Engine) -> Scene:
    """One of everything. What is fired is settled or left at once, so that each pass finds one postback due."""
    scene = Scene(engine)
    scene.apply(
        contract("push-eu"), contract("xandr-main", wait="14d"), contract("twice-us", dedupe="counted_twice")
    )

    scene.take(conversion("plain", "push", params={"other": "vip"}))
    scene.settle(scene.fire_one("plain"))
    _retried(scene)
    scene.take(conversion("moved", "push"))
    scene.settle(scene.fire_one("moved"), hops=_redirected())
    scene.take(conversion("unsure", "twice"))
    _timed_out(scene)
    scene.take(conversion("refused", "push"))
    answer = hop(status_code=403, response_head=b"HTTP/1.1 403 Forbidden\r\n")
    fired = scene.fire_one("refused")
    scene.settle(fired, State.REJECTED, VerdictKind.REJECTED, "status 403", [answer], click_id="another")

    scene.take(conversion("held", "xandr"), conversion("returned", "xandr"), conversion("partly", "xandr"))
    scene.take(refund("r-returned", "order-returned", reason="did not fit"))
    scene.take(refund("r-partly", "order-partly", amount="9.90", currency="EUR"))
    scene.take(refund("r-early", "order-early"))
    scene.take(conversion("early", "xandr"))
    scene.take(refund("r-nowhere", "order-nowhere"))
    scene.take(refund("r-other", "order-plain", source="desk", conversion_event_id="never-came"))

    scene.take(conversion("plain", "push"))
    scene.take(conversion("copy", "push", click_ids={"push": f"{TOKEN}plain"}))
    scene.take(conversion("precise", "push", value="12.999"))
    scene.take(conversion("lead", "push", name="lead"))

    scene.take(conversion("lost", "push"))
    scene.fire_one("lost", lease_s=0)
    scene.lose()
    scene.take(conversion("late", "push"))
    late = scene.fire_one("late", lease_s=0)
    scene.lose()
    assert scene.settle(late).stale
    scene.take(conversion("wire", "push"))
    scene.fire_one("wire")
    scene.take(conversion("mute", "push"))
    scene.fire_one("mute", lease_s=0)
    return scene


def _retried(scene: Scene) -> None:
    scene.take(conversion("again", "push"))
    first = scene.fire_one("again")
    answer = hop(status_code=503, response_head=b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\n")
    scene.settle(
        first,
        State.RETRYING,
        VerdictKind.RETRY,
        "status 503",
        [answer],
        next_attempt_at=first.gated.now + timedelta(seconds=5),
        delay_s=5.25,
    )
    scene.make_due(first.gated.postback_id)
    scene.settle(scene.fire_one("again"))


def _redirected() -> list[Any]:
    away = hop(
        status_code=302,
        response_head=b"HTTP/1.1 302 Found\r\nLocation: https://b.example.com/x\r\n",
        body=b"",
    )
    there = hop(
        2,
        url="https://b.example.com/x",
        request_head=b"GET /x HTTP/1.1\r\nHost: b.example.com\r\n",
        reused=True,
    )
    return [away, there]


def _timed_out(scene: Scene) -> None:
    scene.settle(
        scene.fire_one("unsure"),
        State.IN_DOUBT,
        VerdictKind.UNKNOWN,
        "timeout after the request was sent",
        [
            hop(
                status_code=None,
                response_head=b"",
                body=b"",
                body_length=0,
                failure=TIMED_OUT,
                first_byte_ms=None,
            )
        ],
        error_class="TimeoutError",
        error_message="no answer within 10.0 s",
    )


@pytest.fixture
def run(scene: Scene, database_url: str) -> Run:
    """Run a command as the front door does, with its output as it is when piped."""
    app = typer.Typer()
    cli.register(app)
    runner = CliRunner(env={"HOLDFIRE_DATABASE_URL": database_url, "NO_COLOR": "1"})
    return lambda *arguments: runner.invoke(app, list(arguments))


def lines(result: Result) -> list[str]:
    assert result.exit_code == 0, result.output
    return result.stdout.splitlines()


def now_line(run: Run, event_id: str) -> str:
    return lines(run("trail", event_id))[-1]


@pytest.mark.parametrize(
    ("event_id", "words"),
    [
        ("plain", "delivered  nothing: delivered by attempt 1"),
        ("again", "delivered  nothing: delivered by attempt 2"),
        ("held", "held       fires at "),
        ("returned", "voided     nothing: voided as refunded, it never fires"),
        ("early", "voided     nothing: voided as refunded, it never fires"),
        ("unsure", "in_doubt   a person must decide: timeout after the request was sent"),
        ("refused", "rejected   nothing by itself: status 403; a person may replay it"),
        ("lost", "retrying   retries at "),
        ("wire", "firing     attempt 1 is on the wire since "),
        ("mute", "node-a:4711 fell silent, rescue will settle it"),
        ("lead", "nothing happens next: no destination takes this conversion"),
    ],
)
def test_the_last_line_of_a_trail_says_what_happens_next(run: Run, event_id: str, words: str) -> None:
    """Whatever has happened, the reader learns what to expect."""
    assert words in now_line(run, event_id)


def test_a_retry_names_its_number_and_how_long_it_waits(run: Run) -> None:
    """The next attempt is counted against the policy."""
    assert re.search(
        r"retries at [0-9: .-]+ UTC, in (59 min.*|1 h) \(attempt 2 of 12\)$", now_line(run, "lost")
    )


def test_a_duplicate_names_the_first(run: Run, scene: Scene) -> None:
    """Who asks about the second is led to the one that was reported."""
    assert now_line(run, "copy").endswith(
        f"duplicate of pb_{scene.postback_of('plain')}, which the network would take for the same"
    )


def test_a_trail_tells_attempts_with_their_delay_in_time_order(run: Run) -> None:
    """Failure, computed wait and success stand under one another, each with its own hop."""
    text = "\n".join(lines(run("trail", "again")))
    steps = [
        "purchase happened",
        "received, routed to push-eu",
        "attempt 1 of 12 (release) by node-a:4711 → retry: status 503",
        "sent      GET /postback?click=",
        "to push-eu.example.com at 203.0.113.7:443 from 10.0.0.2:51234, TLSv1.3, new connection",
        "answered  HTTP/1.1 503 Service Unavailable",
        "dns 1.2 ms, connect 12 ms, first byte 40 ms, total 46 ms",
        "next attempt 5.250 s later",
        "attempt 2 of 12 (retry) by node-a:4711 → delivered: status 200",
    ]
    places = [text.find(step) for step in steps]
    assert -1 not in places, steps[places.index(-1)]
    assert places == sorted(places)


def test_a_trail_gives_the_click_id_verbatim_with_its_length_and_digest(run: Run) -> None:
    """A token that lost a character on the way is seen at once."""
    text = run("trail", "plain").stdout
    assert f"push  {TOKEN}plain\n" in text
    assert f"{len(TOKEN) + 5} characters, SHA-256 " in text
    assert "param        other = vip" in text


def test_a_trail_measures_everything_from_the_event(run: Run) -> None:
    """Fourteen days of hold are read off the page, not computed by the reader."""
    text = run("trail", "held").stdout
    assert "refund, 14d from the event; ends " in text
    assert "+14d 00:00:00" in text
    assert "+01:00:0" in text


def test_a_signal_is_told_with_what_it_came_to(run: Run, scene: Scene) -> None:
    """The refund, its reason and its effect stand in the trail of its conversion."""
    text = run("trail", "--order", "order-returned").stdout
    assert "refund of all of it, because did not fit (r-returned, from billing)" in text
    assert f"voided pb_{scene.postback_of('returned')} as refunded" in text


def test_a_partial_refund_shows_what_is_left(run: Run) -> None:
    """The net value is what the network will be told."""
    assert (
        "net value    40.00 EUR of 49.90 EUR\n  stands       partly refunded\n"
        in run("trail", "partly").stdout
    )


def test_a_refund_that_came_first_is_said_to_have_waited(run: Run) -> None:
    """The order of arrival explains a void without a hold."""
    text = run("trail", "early").stdout
    assert "it came before its conversion and waited for it" in text
    assert text.index("happened") < text.index("refund of all of it") < text.index("received, routed to")


def test_a_signal_for_another_conversion_of_the_order_stays_out(run: Run) -> None:
    """Who names the conversion means that one, whatever order it belongs to."""
    assert "r-other" not in run("trail", "plain").stdout
    assert "about        never-came" in run("trail", "r-other").stdout


def test_an_attempt_that_used_another_click_id_says_so(run: Run) -> None:
    """What was sent is told from what would be sent today."""
    assert "click id  another  (7 characters, SHA-256 " in run("trail", "refused").stdout
    assert "click id  as above" in run("trail", "again").stdout


def test_a_repeated_event_is_seen_in_the_trail_of_the_first(run: Run) -> None:
    """A sender that doubts can see that the second one came and was not counted."""
    assert "came again: a duplicate, counted once" in run("trail", "plain").stdout


def test_a_late_answer_is_shown_as_late(run: Run) -> None:
    """Its hop is evidence although it settled nothing."""
    text = run("trail", "late").stdout
    assert "→ unknown: the worker fell silent; a late answer came" in text
    assert "answered  HTTP/1.1 200 OK" in text


def test_an_unrouted_conversion_says_why(run: Run) -> None:
    """What no destination takes is findable with the remedy."""
    assert "unrouted: no destination lists the event name 'lead'" in run("trail", "lead").stdout


def test_a_rejected_event_is_found_by_its_event_id(run: Run) -> None:
    """Field, reason and the text as it came."""
    text = run("trail", "precise").stdout
    assert "too_precise" in text
    assert "value: 12.999 has more than 2 decimal places" in text
    assert '"event_id":"precise"' in text


def test_a_signal_without_its_conversion_is_found_by_its_order(run: Run) -> None:
    """A refund of an order nobody reported is not lost."""
    assert (
        "came to      waiting: its conversion has not arrived"
        in run("trail", "--order", "order-nowhere").stdout
    )


def test_every_kind_of_id_leads_to_the_same_life(run: Run) -> None:
    """Conversion, postback, attempt, signal, order, click id and event mean one trail."""
    found = json.loads(run("trail", "returned", "--json").stdout)["conversion"]
    by_event = run("trail", "plain").stdout
    plain = json.loads(run("trail", "plain", "--json").stdout)["conversion"]
    for asked in (
        [plain["id"]],
        [plain["postbacks"][0]["id"]],
        [plain["postbacks"][0]["attempts"][0]["id"]],
        ["--order", "order-plain"],
        ["--event", "plain", "--source", "shop"],
    ):
        assert without_now(run("trail", *asked).stdout) == without_now(by_event)
    by_signal = [json.loads(row) for row in lines(run("trail", found["signals"][0]["id"], "--json"))]
    assert [list(row) for row in by_signal] == [["signal"], ["conversion"]]
    assert by_signal[1]["conversion"]["id"] == found["id"]


def without_now(text: str) -> str:
    return text[: text.rindex("\nnow  ")]


def test_a_click_id_that_two_conversions_share_shows_both(run: Run) -> None:
    """Each one's trail is printed, oldest first."""
    found = [
        json.loads(row)["conversion"] for row in lines(run("trail", "--click-id", f"{TOKEN}plain", "--json"))
    ]
    assert [each["event"]["event_id"] for each in found] == ["plain", "copy"]


def test_what_is_not_known_is_said_and_has_its_own_exit_code(run: Run) -> None:
    """A script can tell nothing found from something wrong."""
    for unknown in ("cv_999999", "pb_999999", "at_999999", "sg_999999", "nobody"):
        result = run("trail", unknown)
        assert result.exit_code == cli.NOT_FOUND
        assert unknown in result.stderr


def test_a_transcript_reads_like_curl(run: Run, scene: Scene) -> None:
    """Redirect included: what was sent, what came back, where it went next."""
    text = lines(run("transcript", f"pb_{scene.postback_of('moved')}"))
    told = [
        "* Connected to push-eu.example.com (203.0.113.7) port 443 from 10.0.0.2 port 51234",
        "* SSL connection using TLSv1.3",
        f"> GET /postback?click={TOKEN} HTTP/1.1",
        "> Host: push-eu.example.com",
        ">",
        "< HTTP/1.1 302 Found",
        "< Location: https://b.example.com/x",
        "<",
        "* Issue another request to this URL: 'https://b.example.com/x'",
        "* Re-using existing connection with host b.example.com",
        "> GET /x HTTP/1.1",
        "< HTTP/1.1 200 OK",
        "< Set-Cookie: a=1",
        "< Set-Cookie: b=2",
        "  success=true",
    ]
    places = [text.index(each) for each in told]
    assert places == sorted(places)


def test_a_timeout_reads_like_curl_and_says_what_is_not_known(run: Run, scene: Scene) -> None:
    """The line that a network's support knows, and the consequence."""
    text = lines(run("transcript", f"pb_{scene.postback_of('unsure')}"))
    assert "* Operation timed out after 46 milliseconds with 0 bytes received" in text
    assert "* The request had been written: whether it was taken is not known" in text


def test_a_lost_attempt_shows_what_was_intended(run: Run, scene: Scene) -> None:
    """Nothing was recorded but the intent, and that is shown as such."""
    text = run("transcript", f"pb_{scene.postback_of('lost')}").stdout
    assert (
        f"* Intended URL, as recorded beforehand: 'https://push-eu.example.com/postback?click={TOKEN}lost'"
        in text
    )
    assert "* WorkerLost: worker node-a:4711 did not settle this attempt within its lease" in text


def test_an_attempt_on_the_wire_has_a_transcript_too(run: Run, scene: Scene) -> None:
    """Without an outcome there is still an intent to show."""
    text = run("transcript", f"pb_{scene.postback_of('wire')}").stdout
    assert "no exchange has been recorded yet" in text
    assert "# outcome     none has been recorded" in text


def test_a_transcript_takes_the_attempt_by_number(run: Run, scene: Scene) -> None:
    """The last one unless another is asked for, and it is said that there are others."""
    postback = f"pb_{scene.postback_of('again')}"
    last = run("transcript", postback)
    assert "< HTTP/1.1 200 OK" in last.stdout
    assert "attempt 2 of 2" in last.stderr
    assert "< HTTP/1.1 503 Service Unavailable" in run("transcript", postback, "--attempt", "1").stdout
    assert run("transcript", postback, "--attempt", "3").exit_code == cli.NOT_FOUND


def events(run: Run, *arguments: str) -> set[str]:
    found = lines(run("find", *arguments, "--json"))
    return {row.get("event_id") or row["event"]["event_id"] for row in map(json.loads, found)}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--state", "in_doubt"], {"unsure"}),
        (["--state", "firing", "--state", "rejected"], {"wire", "mute", "refused"}),
        (["--destination", "xandr-main"], {"held", "returned", "partly", "early"}),
        (["--network", "twice"], {"unsure"}),
        (["--order", "order-held"], {"held"}),
        (["--click-id", f"{TOKEN}plain"], {"plain", "copy"}),
        (["--event", "again"], {"again"}),
        (["--status-code", "503"], {"again"}),
        (["--status-code", "3xx"], {"moved"}),
        (["--status-code", "4xx", "--destination", "push-eu"], {"refused"}),
        (["--verdict", "unknown"], {"unsure", "lost", "late"}),
        (["--status-code", "503", "--verdict", "delivered"], set()),
        (["--source", "nobody"], set()),
        (["--until", "1h"], set()),
        (["--unrouted"], {"lead"}),
        (["--signals", "--source", "billing"], {"r-returned", "r-partly", "r-early", "r-nowhere"}),
        (["--signals", "--order", "order-partly"], {"r-partly"}),
        (["--rejects"], {"precise", "plain"}),
    ],
)
def test_find_narrows_by_every_criterion(run: Run, arguments: list[str], expected: set[str]) -> None:
    """Each option selects exactly what it names."""
    assert events(run, *arguments) == expected


def test_find_by_time_reads_ages_and_instants(run: Run) -> None:
    """Both writings of the last hour select everything, and of the time before it nothing."""
    hour_ago = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    assert events(run, "--since", "1h") == events(run, "--since", hour_ago) == events(run)
    assert len(events(run)) == 14


def test_a_long_life_can_be_read_without_most_of_its_exchanges(engine: Engine, scene: Scene) -> None:
    """Those left out say that they are: nobody takes them for attempts without an exchange."""
    number = conversion_of_postback(engine, scene.postback_of("again"))
    assert number is not None
    whole, half = read_life(engine, number), read_life(engine, number, hops_of=lambda ids: ids[-1:])
    assert whole is not None
    assert half is not None
    attempts = half.postbacks[0].attempts
    assert [each.hops_read for each in attempts] == [False, True]
    assert attempts[0].hops == ()
    assert attempts[1] == whole.postbacks[0].attempts[1]


def test_find_says_how_many_more_there_are(run: Run) -> None:
    """Nothing is cut off unsaid, and everything can be had."""
    cut = run("find", "--limit", "3", "--destination", "xandr-main")
    assert len(cut.stdout.splitlines()) == 1 + 3
    assert "3 of 4 postbacks, the newest; 1 more: --all." in cut.stderr
    whole = run("find", "--limit", "3", "--destination", "xandr-main", "--all")
    assert "4 postbacks." in whole.stderr


def test_find_points_to_what_is_no_postback(run: Run) -> None:
    """An order that was never routed, or only refunded, does not look unknown."""
    assert "Also 1 under --unrouted." in run("find", "--order", "order-lead").stderr
    assert "Also 1 under --signals." in run("find", "--order", "order-nowhere").stderr
    assert "Also 1 under --rejects." in run("find", "--event", "precise").stderr


def test_find_lists_aligned_columns_when_piped(run: Run) -> None:
    """Every row is one line, and its columns start where the header's do."""
    header, *rows = lines(run("find", "--destination", "xandr-main"))
    place = header.index("destination")
    assert [row[place:].split()[0] for row in rows] == ["xandr-main"] * 4


def test_find_refuses_a_criterion_that_a_listing_does_not_know(run: Run) -> None:
    """It is never quietly left out."""
    result = run("find", "--rejects", "--state", "held")
    assert isinstance(result.exception, AskingError)
    assert "--state does not apply to --rejects; use --event, --source, --since, --until" in str(
        result.exception
    )


def test_the_ledger_balances_over_every_ending(run: Run) -> None:
    """Both sides of each equation are printed, and the command succeeds."""
    result = run("ledger")
    assert result.exit_code == 0, result.stdout
    assert result.stdout.endswith("The ledger balances.\n")
    assert "\n  22  events taken in, by receipt\n= 15  conversions\n+  5  signals\n" in result.stdout
    assert "\n      0  fired before its window ended  ok\n" in result.stdout
    books = json.loads(run("ledger", "--json").stdout)
    events_entry = next(entry for entry in books["entries"] if entry["key"] == "events")
    assert events_entry["left"]["count"] == 22
    assert {term["label"]: term["count"] for term in events_entry["right"]} == {
        "conversions": 15,
        "signals": 5,
        "duplicates": 1,
        "rejected": 1,
    }
    assert books["states"]["firing"] == 2
