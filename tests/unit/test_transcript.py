"""A transcript shows what crossed the wire: every byte accounted for, nothing in it able to pose as something else."""

from __future__ import annotations

import gzip
import zlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.store.records import AttemptRecord, ConversionRecord, Life, Outcome, PostbackRecord
from investigations.bodies import DECODED_CAP_BYTES, readable
from investigations.transcript import transcript
from investigations.words import visible, visible_bytes
from schemas.destination import Contract, Destination, DestinationVersion
from schemas.event import ConversionEvent
from schemas.exchange import Failure, FailureKind, Hop
from schemas.lifecycle import State
from schemas.network import Network
from schemas.verdict import VerdictKind

NOW = datetime(2026, 12, 6, 9, 0, 1, 250_000, tzinfo=UTC)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"


def a_hop(body: bytes = b"", head: bytes = HEAD, **fields: object) -> Hop:
    hop = Hop(
        number=1,
        url="https://ads.example.com/p?c=tok",
        method="GET",
        started_at=NOW,
        request_head=b"GET /p?c=tok HTTP/1.1\r\nHost: ads.example.com\r\n",
        addresses=("203.0.113.7",),
        peer="203.0.113.7:443",
        local="10.0.0.2:51234",
        tls_version="TLSv1.3",
        reused=False,
        total_ms=10_001.0,
        status_code=200,
        response_head=head,
        body=body,
        body_length=len(body),
        body_sha256=sha256(body).hexdigest(),
    )
    return replace(hop, **fields)  # type: ignore[arg-type]  # the test names the fields


def failed(kind: FailureKind, *, sent: bool) -> Hop:
    failure = Failure(kind, sent=sent, error_class="Error", message="what the engine said")
    unsent = {} if sent else {"request_head": b"", "peer": None, "local": None}
    return a_hop(b"", b"", status_code=None, body_sha256=None, failure=failure, **unsent)


def printed(*hops: Hop, outcome: Outcome | None = None) -> list[str]:
    network = Network(
        slug="ads", title="Ads", docs="", url="https://ads.example.com/p", dedupe="rejected", dedupe_basis=""
    )
    contract = Contract(
        name="ads-eu", destination=Destination(network="ads", events=("purchase",)), network=network
    )
    event = ConversionEvent(
        version=1,
        type="conversion",
        event_id="e1",
        source="shop",
        occurred_at=NOW,
        name="purchase",
        order_id="o1",
    )
    attempt = AttemptRecord(
        7, 3, 1, NOW, "node-a:1", "https://ads.example.com/p?c=tok", outcome or ended(), hops
    )
    postback = PostbackRecord(
        id=3,
        conversion_id=2,
        version=DestinationVersion(1, 1, contract),
        state=State.DELIVERED,
        release_at=NOW,
        due_at=None,
        first_attempt_at=NOW,
        expires_at=None,
        settled_at=NOW,
        attempts_made=1,
        void_reason=None,
        reason=None,
        duplicate_of=None,
        attempts=(attempt,),
    )
    life = Life(NOW, ConversionRecord(2, event, NOW, None, 1, None), (), (postback,), ())
    return list(transcript(life, postback, attempt))


def ended(**fields: object) -> Outcome:
    outcome = Outcome(
        ended_at=NOW + timedelta(milliseconds=45),
        version_id=1,
        trigger="release",
        worker_version="0.1.0",
        verdict=VerdictKind.DELIVERED,
        rule="status 200",
        state=State.DELIVERED,
        status_code=200,
        error_class=None,
        error_message=None,
        next_attempt_at=None,
        delay_s=None,
        click_id="tok",
        notes=(),
    )
    return replace(outcome, **fields)  # type: ignore[arg-type]  # the test names the fields


def test_the_heading_holds_what_a_support_desk_asks_for() -> None:
    """Attempt, account, order, click id with its digest, and the instants in UTC."""
    text = "\n".join(printed(a_hop()))
    assert "# attempt     at_7, number 1 of postback pb_3, release\n" in text
    assert "# destination ads-eu (network ads), contract version 1\n" in text
    assert "# order id    o1\n" in text
    assert f"# click id    tok\n#             3 characters, SHA-256 {sha256(b'tok').hexdigest()}\n" in text
    assert "# ended       2026-12-06 09:00:01.295 UTC, after 45 ms\n" in text


def test_a_body_cannot_pose_as_the_transcript() -> None:
    """A server that answers with curl's own lines is still only quoted."""
    body = b"< HTTP/1.1 500 No\n* Connected\n> GET /\n# verdict rejected"
    text = printed(a_hop(body))
    for forged in body.decode().splitlines():
        assert forged not in text
        assert f"  {forged}" in text


def test_a_header_keeps_every_byte_visible() -> None:
    """Control characters and high bytes are shown, not sent to the terminal."""
    text = printed(a_hop(head=b"HTTP/1.1 200 OK\r\nX-Odd: a\x1b[31m\x00\xe4\x9b \r\n"))
    assert "< X-Odd: a\\x1b[31m\\x00\xe4\\x9b " in text


@given(st.binary(max_size=40), st.binary(max_size=40))
def test_two_different_heads_never_look_alike(one: bytes, other: bytes) -> None:
    """So the escapes can be undone, also where the bytes spelt an escape themselves."""
    assert (visible_bytes(one) == visible_bytes(other)) == (one == other)
    assert visible_bytes(one).isprintable()


@given(st.lists(st.sampled_from(["\\", "x", "\\x", "1b", "\x1b"])).map("".join))
def test_an_escape_is_told_from_its_own_spelling(text: str) -> None:
    """Backslashes before an x are doubled, so an odd number of them means an escape."""
    shown = visible(text)
    assert shown.isprintable()
    undone, place = "", 0
    while place < len(shown):
        run = len(shown) - place - len(shown[place:].lstrip("\\"))
        before_x = shown[place + run : place + run + 1] == "x"
        if run and before_x:
            undone += "\\" * (run // 2)
            place += run
            if run % 2:
                undone += chr(int(shown[place + 1 : place + 3], 16))
                place += 3
        elif run:
            undone += "\\" * run
            place += run
        else:
            undone += shown[place]
            place += 1
    assert undone == text


def test_direction_marks_cannot_turn_evidence_round() -> None:
    """A right-to-left override is shown by its bytes."""
    assert visible("abc\u202edef") == "abc\\xe2\\x80\\xaedef"


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_a_compressed_body_is_unpacked_for_reading(coding: str) -> None:
    """The bytes kept are the compressed ones; people read what they say."""
    packed = gzip.compress(b"success=true") if coding == "gzip" else zlib.compress(b"success=true")
    text = printed(a_hop(packed, HEAD + f"Content-Encoding: {coding}\r\n".encode()))
    assert "  success=true" in text
    (about,) = [each for each in text if each.startswith("* Body: ")]
    assert (
        f"{len(packed)} bytes, SHA-256 {sha256(packed).hexdigest()}; {coding}, unpacked to 12 bytes" in about
    )


def test_a_gzip_body_that_broke_off_is_unpacked_as_far_as_it_came() -> None:
    """What came of the answer is shown."""
    packed = gzip.compress(bytes(range(32, 127)) * 4)
    assert "! " not in readable(b"Content-Encoding: gzip", packed).about
    shown = readable(b"Content-Encoding: gzip\r\n", packed[:-9])
    assert shown.text is not None
    assert shown.text.startswith(" !\"#$%&'")


def test_a_bomb_is_cut_while_it_is_unpacked() -> None:
    """Sixteen kilobytes of gzip can hold sixteen megabytes."""
    shown = readable(b"Content-Encoding: gzip\r\n", gzip.compress(b"a" * 5_000_000))
    assert f"unpacked to {DECODED_CAP_BYTES} bytes, cut there" in shown.about
    assert shown.text is not None
    assert len(shown.text) == DECODED_CAP_BYTES


def test_a_body_that_is_not_what_it_says_is_shown_as_it_is() -> None:
    """A body that was kept unpacked, since a secret in it had to be masked, still says gzip in its head."""
    shown = readable(b"Content-Encoding: gzip\r\n", b"key=[secret:9f86d081]")
    assert shown.lines == ("key=[secret:9f86d081]",)
    assert shown.about == "said to be gzip, shown as received"


def test_a_binary_body_is_described() -> None:
    """A pixel is not printed, its first bytes are."""
    pixel = b"GIF89a\x01\x00\x01\x00\x80\x00\x00\xff\xff\xff\x00\x00\x00!\xf9\x04"
    text = printed(a_hop(pixel, b"HTTP/1.1 200 OK\r\nContent-Type: image/gif\r\n"))
    assert any("; binary, 22 bytes in hexadecimal" in each for each in text)
    assert f"  {pixel.hex(' ')}" in text


def test_a_truncated_body_says_what_is_kept_and_what_came() -> None:
    """The digest is of all that was read, and the reader is told that it was not everything."""
    text = printed(a_hop(b"abc", truncated=True, body_length=70_000))
    assert any("truncated: the first 3 bytes are kept, reading stopped after 70000" in each for each in text)


@pytest.mark.parametrize(
    ("kind", "sent", "line"),
    [
        (FailureKind.DNS, False, "* Could not resolve host: ads.example.com"),
        (FailureKind.CONNECT, False, "* Failed to connect to ads.example.com after 10001 ms"),
        (FailureKind.TLS, False, "* SSL connect error with ads.example.com after 10001 ms"),
        (FailureKind.TIMEOUT, True, "* Operation timed out after 10001 milliseconds with 0 bytes received"),
        (
            FailureKind.RESET,
            True,
            "* Recv failure: the connection was closed after 10001 ms with 0 bytes received",
        ),
        (FailureKind.PROTOCOL, True, "* Protocol"),
    ],
)
def test_a_failure_says_what_happened_and_whether_anything_was_sent(
    kind: FailureKind, sent: bool, line: str
) -> None:
    """The one question that decides about trying again is answered in words."""
    text = printed(failed(kind, sent=sent))
    assert line in text
    assert f"* Recorded as {kind}: what the engine said" in text
    known = "* The request had been written: whether it was taken is not known"
    assert (known in text) == sent
    assert ("* No byte of the request had left this machine" in text) == (not sent)
    assert any(each.startswith("> GET") for each in text) == sent


def test_a_refused_redirect_is_named_though_nothing_was_sent_for_it() -> None:
    """It has no hop of its own; the attempt's error says why."""
    outcome = ended(error_class="RedirectRefused", error_message="10.0.0.1 is no public address")
    text = printed(a_hop(status_code=302), outcome=outcome)
    assert "* RedirectRefused: 10.0.0.1 is no public address" in text


def test_a_late_answer_is_marked() -> None:
    """An answer in the evidence of an attempt that counts as unknown needs its explanation."""
    outcome = ended(verdict=VerdictKind.UNKNOWN, state=State.RETRYING)
    (late,) = [each for each in printed(a_hop(total_ms=60_000.0), outcome=outcome) if "came late" in each]
    assert (
        "written off at 2026-12-06 09:00:01.295 UTC, and the answer ended at 2026-12-06 09:01:01.250 UTC"
        in late
    )
