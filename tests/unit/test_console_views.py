"""What the console's pages show is made of values: the axis, the drawing, the marks in a text, a comparison."""

from __future__ import annotations

import html
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.filters import AskingError
from infra.store.by_hand import Answer
from infra.store.records import AttemptRecord, Life, Outcome, PostbackRecord
from investigations.console.comparison import Compared, Kind, Row, aligned, compare
from investigations.console.deciding import LONGEST_REASON, Outlook, read_errand, read_reason
from investigations.console.exchange import attempt_row, unfold
from investigations.console.life_view import UNFOLDABLE, life_view, newest
from investigations.console.marking import Marker, tokens_of
from investigations.console.report_form import filled, options_of
from investigations.console.report_view import LEFT, RIGHT, chart
from investigations.console.scale import scale
from investigations.console.timeline import WIDTH, draw
from investigations.console.waterfall import durations, waterfall
from investigations.transcript import transcript
from schemas.by_hand import Act, Moved, Refused
from schemas.click_mask import ClickMask, mask_click_id
from schemas.exchange import Hop
from schemas.lifecycle import State
from schemas.reconciling.findings import Bucket, Cause, finding
from schemas.reconciling.summary import Tally, summarise
from schemas.verdict import VerdictKind
from tests.unit.test_next_step import NOW, life, postback

FORTNIGHT = timedelta(days=14)
HOP = Hop(
    number=1,
    url="https://ads.example/p?c=tok-12345",
    method="GET",
    started_at=NOW,
    request_head=b"GET /p?c=tok-12345&key=[secret:9f86d081] HTTP/1.1\r\nHost: ads.example\r\n",
    addresses=("203.0.113.7",),
    peer="203.0.113.7:443",
    local="10.0.0.2:51234",
    tls_version="TLSv1.3",
    reused=False,
    dns_ms=2.0,
    connect_ms=10.0,
    first_byte_ms=40.0,
    total_ms=50.0,
    status_code=503,
    response_head=b"HTTP/1.1 503 Busy\r\nContent-Type: text/plain\r\n",
    body=b"later, tok-12345\n",
    body_length=17,
    body_sha256=sha256(b"later, tok-12345\n").hexdigest(),
)


def an_outcome(number: int, **fields: object) -> Outcome:
    started = NOW + timedelta(seconds=10 * number)
    whole = Outcome(
        ended_at=started + timedelta(milliseconds=50),
        version_id=1,
        trigger="retry",
        worker_version="0.1.0",
        verdict=VerdictKind.RETRY,
        rule="status 503",
        state=State.RETRYING,
        status_code=503,
        error_class=None,
        error_message=None,
        next_attempt_at=started + timedelta(seconds=9),
        delay_s=8.95,
        click_id="tok-12345",
        notes=(),
    )
    return replace(whole, **fields)  # type: ignore[arg-type]  # the test names the fields


def an_attempt(number: int = 1, *hops: Hop, hops_read: bool = True, **fields: object) -> AttemptRecord:
    started = NOW + timedelta(seconds=10 * number)
    outcome = an_outcome(number, **fields)
    return AttemptRecord(number, 1, number, started, "node-a:1", None, outcome, hops or (HOP,), hops_read)


def retried(count: int, **fields: object) -> tuple[Life, PostbackRecord]:
    attempts = tuple(an_attempt(number) for number in range(1, count + 1))
    whole = postback(
        State.RETRYING,
        release_at=NOW + timedelta(seconds=5),
        due_at=NOW + timedelta(days=1),
        attempts_made=count,
        attempts=attempts,
        **fields,
    )
    return replace(life(whole), now=NOW + timedelta(seconds=10 * count + 5)), whole


def test_a_fortnight_and_three_seconds_are_both_legible() -> None:
    """On one axis of a page's width, each has room for the words that say how long it is."""
    ends = NOW + FORTNIGHT
    axis = scale([NOW, ends, ends + timedelta(seconds=3), ends + timedelta(seconds=3.05)], 0, 900)
    window, retry, attempt = axis.stretches
    assert window.width > retry.width > attempt.width > 10
    assert retry.width > 100


@given(st.lists(st.integers(0, 10**10), min_size=1, max_size=40))
def test_an_axis_keeps_the_order_of_everything(found: list[int]) -> None:
    """Whatever the lengths between: what came first stands first, nothing stands outside, nothing on top of another."""
    instants = sorted({NOW + timedelta(milliseconds=each) for each in found})
    axis = scale(instants, 100, 900)
    places = [axis.place(each) for each in instants]
    assert places == sorted(places)
    assert len(set(places)) == len(instants)
    assert places[0] == 100
    assert places[-1] <= 900.001


def test_what_lies_between_two_instants_is_placed_between_them() -> None:
    axis = scale([NOW, NOW + timedelta(hours=2)], 0, 100)
    assert axis.place(NOW + timedelta(hours=1)) == pytest.approx(50)
    assert axis.place(NOW - timedelta(hours=1)) == 0
    assert axis.place(NOW + timedelta(hours=9)) == 100


def test_a_drawing_shows_windows_waits_and_attempts() -> None:
    """Each postback has a lane: its window up to its end, an attempt with its shape, and the wait that followed it."""
    drawn = draw(retried(2)[0])
    lane = drawn.lanes[1]
    assert (lane.subject, lane.name) == ("pb_1", "ads-eu")
    kinds = [bar.kind for bar in lane.bars]
    assert kinds.count("window") == 1
    assert kinds.count("wire") == 2
    assert kinds.count("wait") == 2
    assert [(mark.kind, mark.tone) for mark in lane.marks if mark.kind == "retry"] == [("retry", "warn")] * 2
    window = next(bar for bar in lane.bars if bar.kind == "window")
    first = next(mark for mark in lane.marks if mark.kind == "retry")
    assert window.x + window.width < first.x


def test_what_is_still_to_come_is_drawn_behind_now() -> None:
    drawn = draw(life(postback(State.HELD)))
    (bar,) = [bar for bar in drawn.lanes[1].bars if bar.kind == "after"]
    assert bar.x == pytest.approx(drawn.now_x)
    assert bar.width > 50


def test_every_verdict_has_a_shape_of_its_own_beside_its_colour() -> None:
    shapes = set()
    for verdict in (
        VerdictKind.DELIVERED,
        VerdictKind.RETRY,
        VerdictKind.REJECTED,
        VerdictKind.IN_DOUBT,
    ):
        fired = postback(State.DELIVERED, attempts=(an_attempt(verdict=verdict, state=State.DELIVERED),))
        shapes |= {mark.kind for mark in draw(life(fired)).lanes[1].marks if mark.kind != "released"}
    assert len(shapes) == 4


def test_a_drawing_of_a_long_life_stays_within_its_frame() -> None:
    drawn = draw(retried(500)[0])
    assert all(0 <= mark.x <= WIDTH for lane in drawn.lanes for mark in lane.marks)
    assert all(bar.x + bar.width <= WIDTH for lane in drawn.lanes for bar in lane.bars)
    assert len(drawn.clocks) < 10


def test_clocks_on_the_axis_do_not_run_into_each_other() -> None:
    drawn = draw(retried(12)[0])
    places = sorted(label.x for label in drawn.clocks)
    assert all(after - before > 60 for before, after in pairwise(places))
    assert {"start", "end"} <= {label.anchor for label in drawn.clocks}


def test_secrets_and_click_ids_are_marked_in_every_writing() -> None:
    marked = Marker(frozenset({"a/b c=1"}))("x=a%2Fb%20c%3D1&k=[secret:9f86d081]")
    assert '<span class="click-id" title="click id">a%2Fb%20c%3D1</span>' in marked
    assert ">[secret:9f86d081]</span>" in marked


def test_foreign_text_cannot_leave_its_place() -> None:
    """Not through the text itself, and not through a click id that is marked in it."""
    evil = "<script>alert(1)</script>"
    for marker in (Marker(), Marker(frozenset({evil}))):
        assert "<script>" not in marker(f"before {evil} after")
        assert "&lt;script&gt;" in marker(evil)


def test_a_hidden_click_id_is_nowhere() -> None:
    tokens = frozenset({"tok-12345"})
    marker, shown = Marker(tokens, ClickMask(tokens)), mask_click_id("tok-12345")
    assert "tok-12345" not in marker("c=tok-12345")
    assert f'<span class="click-id" title="click id">{shown}</span>' in marker("c=tok-12345")
    assert marker.plain("c=tok-12345") == f"c={shown}"


def test_a_waterfall_adds_up_to_the_whole() -> None:
    assert durations(HOP) == [("dns", 2.0), ("connect", 10.0), ("wait", 28.0), ("receive", 10.0)]
    drawn = waterfall([HOP, replace(HOP, number=2, started_at=NOW + timedelta(milliseconds=60), dns_ms=None)])
    assert drawn is not None
    first, second = drawn.rows
    assert first.phases[-1].x + first.phases[-1].width == pytest.approx(first.end_x)
    assert second.phases[0].x > first.end_x
    assert "hop 2: connect 10 ms, wait 30 ms, receive 10 ms, in all 50 ms" in drawn.says


def test_a_hop_without_an_answer_was_waited_for() -> None:
    assert durations(replace(HOP, first_byte_ms=None, status_code=None))[-1] == ("wait", 38.0)
    assert waterfall([replace(HOP, total_ms=None)]) is None


def kinds(left: list[str], right: list[str]) -> list[Row]:
    return list(aligned(left, right))


def test_lines_are_aligned_by_what_they_have_in_common() -> None:
    rows = kinds(["a", "b", "c"], ["a", "c", "d"])
    assert [row.kind for row in rows] == [Kind.SAME, Kind.LEFT, Kind.SAME, Kind.RIGHT]


def test_a_parameter_differs_as_a_whole() -> None:
    (row,) = kinds(["GET /p?click=abc1&v=2 HTTP/1.1"], ["GET /p?click=abd1&v=2 HTTP/1.1"])
    assert row.left is not None
    assert row.right is not None
    assert [(part.text, part.differs) for part in row.left] == [
        ("GET /p?click=", False),
        ("abc1", True),
        ("&v=2 HTTP/1.1", False),
    ]
    assert [part.text for part in row.right if part.differs] == ["abd1"]


def test_a_line_of_very_many_fields_is_compared_at_its_ends() -> None:
    """What lies between the first and the last difference is marked as a whole, and in no time."""
    left = ["a=1"] * 3_000
    (row,) = kinds(["&".join(left)], ["&".join([*left[:1_000], "a=2", *left[1_001:]])])
    assert row.right is not None
    assert [part.text for part in row.right if part.differs] == ["2"]
    (row,) = kinds(["x&" * 600], ["y&" * 600])
    assert row.left is not None
    assert "".join(part.text for part in row.left) == "x&" * 600


@given(
    st.lists(st.text("ab &=", max_size=6), max_size=12), st.lists(st.text("ab &=", max_size=6), max_size=12)
)
def test_a_comparison_leaves_nothing_out(left: list[str], right: list[str]) -> None:
    """Each side, read down, is the text that was compared: nothing is dropped, doubled or moved."""
    rows = kinds(left, right)
    for side, lines in (("left", left), ("right", right)):
        parts = [getattr(row, side) for row in rows]
        assert ["".join(part.text for part in each) for each in parts if each is not None] == lines
    for row in rows:
        assert row.kind is not Kind.SAME or row.left == row.right


def test_two_attempts_differ_where_they_differ() -> None:
    busy, fine = an_attempt(1), an_attempt(2, verdict=VerdictKind.DELIVERED, rule="status 200")
    fine = replace(
        fine, hops=(replace(HOP, response_head=b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"),)
    )
    whole = postback(State.DELIVERED, attempts=(busy, fine))
    sections = compare(Compared(life(whole), whole, busy), Compared(life(whole), whole, fine), str)
    by_title = {section.title: section for section in sections}
    assert by_title["Hop 1, request head"].differences == 0
    assert by_title["Hop 1, response head"].differences == 1
    assert {row.name for row in by_title["Facts"].rows if row.kind is not Kind.SAME} >= {"attempt", "verdict"}


def test_an_attempt_reads_as_its_transcript() -> None:
    """The page has every line that is handed to a network's support, and no other account of the exchange."""
    whole = postback(State.RETRYING, attempts=(an_attempt(),))
    held, attempt = life(whole), whole.attempts[0]
    told = unfold(held, whole, attempt, Marker())
    shown = [str(line.text) for hop in told.exchanges for line in hop.lines] + [
        str(line.text) for line in told.rest
    ]
    printed = [line for line in transcript(held, whole, attempt) if line[:1] not in {"#", ""}]
    assert [html.unescape(re.sub("<[^>]+>", "", line)) for line in shown] == printed


def test_of_a_long_life_the_newest_attempts_unfold() -> None:
    held, whole = retried(30)
    chosen = newest([each.id for each in whole.attempts])
    assert list(chosen) == list(range(30 - UNFOLDABLE + 1, 31))
    attempts = tuple(replace(each, hops_read=each.id in chosen) for each in whole.attempts)
    view = life_view(replace(held, postbacks=(replace(whole, attempts=attempts),)), Marker(tokens_of(held)))
    (shown,) = view.postbacks
    assert shown.folded_away == 10
    assert [row.unfolded is None for row in shown.attempts] == [True] * 10 + [False] * UNFOLDABLE


def test_an_attempt_in_one_line_says_what_it_came_to() -> None:
    held, whole = retried(1)
    row = attempt_row(held, whole, whole.attempts[0], Marker())
    assert (row.id, row.verdict, row.rule, row.shape, row.took) == (
        "at_1",
        "retry",
        "status 503",
        "retry",
        "50 ms",
    )


def test_a_reason_is_given_and_bounded() -> None:
    assert read_reason("  fraud ring ") == "fraud ring"
    for text in ("", "   ", "x" * (LONGEST_REASON + 1)):
        with pytest.raises(AskingError):
            read_reason(text)


def test_an_extension_says_one_end() -> None:
    assert read_errand(Act.VOID, "", "").extension is None
    by = read_errand(Act.EXTEND, " 7d ", "").extension
    assert by is not None
    assert by.by == timedelta(days=7)
    to = read_errand(Act.EXTEND, "", "2026-12-24T10:00:00Z").extension
    assert to is not None
    assert to.to == datetime(2026, 12, 24, 10, tzinfo=UTC)
    for given_by, given_to in (("", ""), ("7d", "2026-12-24"), ("soon", ""), ("", "christmas")):
        with pytest.raises(AskingError):
            read_errand(Act.EXTEND, given_by, given_to)


def test_an_outlook_counts_what_is_said_and_shows_some_of_it() -> None:
    outlook = Outlook()
    answers = [
        Answer(number, 1, State.HELD, NOW, Moved(State.VOIDED, NOW, "it never fires")) for number in range(12)
    ]
    outlook.add([*answers, Answer(99, 1, State.VOIDED, NOW, Refused("it is voided already"))])
    assert (outlook.moves, outlook.refuses, len(outlook.sample)) == (12, 1, 10)


def test_a_chart_of_shares_keeps_its_lines_apart() -> None:
    """However large a share is, 2 % and 5 % can be told; what is beyond the axis says so."""
    summary = summarise(
        tally_of(ours_only=8), told=10, listed=2, earlier={bucket: [] for bucket in Bucket}, notes=[]
    )
    drawn = chart(summary)
    assert drawn.structural_x - drawn.normal_x > 100
    bar = next(each for each in drawn.bars if each.name == "ours only")
    assert bar.share.endswith("→")
    assert LEFT + bar.width == pytest.approx(RIGHT)
    assert "ours only 80.0 %" in drawn.says


def tally_of(**counts: int) -> Tally:
    tally = Tally()
    for name, count in counts.items():
        for number in range(count):
            tally.add(finding(Bucket(name), Cause.UNKNOWN_TO_US, "nobody knows it"), number, None, 1)
    return tally


def test_a_form_becomes_the_options_of_a_report_and_back() -> None:
    form = {
        "column_click_id": "Klick",
        "decimal": ",",
        "thousands": "space",
        "time_zone": "Europe/Berlin",
        "counted": "approved, paid ",
        "attribution_window": "30d",
        "aggregated": "yes",
        "delimiter": "tab",
    }
    options = options_of(form)
    assert options.columns == {"click_id": "Klick"}
    assert (options.thousands, options.delimiter, options.counted) == (" ", "\t", ("approved", "paid"))
    assert options_of({**filled(options), "aggregated": "yes"}) == options
    assert options_of({"thousands": "none"}).thousands == ""
    assert filled(options_of({}))["thousands"] == ""


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ({"time_zone": "Mars/Olympus"}, "Time zone"),
        ({"attribution_window": "long"}, "Attribution window"),
        ({"currency": "euro"}, "Currency"),
    ],
)
def test_a_field_that_makes_no_sense_is_named(form: dict[str, str], words: str) -> None:
    with pytest.raises(AskingError, match=words):
        options_of(form)
