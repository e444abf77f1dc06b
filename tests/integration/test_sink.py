"""The sink as a raw client sees it: what it records, credits, refuses, spoils and holds."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from infra.sink import Sink, SinkClient, SinkConfigError, SinkThread
from infra.sink.behaviours import BEHAVIOURS

TOKEN = "nym1CJjYiJ3oq6LkMxACGIHey7vM0vGDRyIJMTAuMS4xMi42KAE."
SSPX = f"/xandr/sspx?id=25619&order_id=1234&value=5678&sspdata={TOKEN}"
PUSH = "/pushground/postback?click_id=push_71872t38713891u12u0313&payout=5.00"


@pytest.fixture
def sink() -> Iterator[SinkThread]:
    with SinkThread() as running:
        yield running


def connect(sink: SinkThread) -> socket.socket:
    return socket.create_connection(("127.0.0.1", sink.sink.port), timeout=5)


def read_all(connection: socket.socket) -> bytes:
    received = bytearray()
    while data := connection.recv(262_144):
        received += data
    return bytes(received)


def get(sink: SinkThread, target: str, *fields: str, method: str = "GET", body: bytes = b"") -> bytes:
    """Everything the sink sends for one request on a connection of its own."""
    length = (f"Content-Length: {len(body)}",) if body else ()
    lines = (f"{method} {target} HTTP/1.1", "Host: sink.test", *fields, *length, "Connection: close")
    with connect(sink) as connection:
        connection.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        return read_all(connection)


def is_reset(port: int) -> bool:
    """Whether whoever connects to ``port`` is reset, rather than refused, served or closed."""
    try:
        # The reset can be quick enough to meet the client while it still connects.
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.recv(1)
    except ConnectionResetError:
        return True
    return False


def status(answer: bytes) -> int:
    return int(answer[9:12])


def header(answer: bytes, name: str) -> str:
    head = answer.partition(b"\r\n\r\n")[0].decode("latin-1")
    found = [line.partition(": ")[2] for line in head.split("\r\n") if line.lower().startswith(f"{name}: ")]
    assert len(found) == 1, f"{name} occurs {len(found)} times in {head!r}"
    return found[0]


def body(answer: bytes) -> bytes:
    return answer.partition(b"\r\n\r\n")[2]


def follow(sink: SinkThread, target: str) -> bytes:
    """One request and the redirect it is answered with."""
    return get(sink, header(get(sink, target), "location").removeprefix("http://sink.test"))


def counts(sink: SinkThread, profile: str) -> dict[str, Any]:
    found: dict[str, Any] = sink.client.counts()["profiles"][profile]
    return found


# The record --------------------------------------------------------------------------------------


def test_every_byte_of_a_request_is_recorded_as_it_arrived(sink: SinkThread) -> None:
    """Odd header casing, percent-encoded tildes and the trailing period are in the record as sent."""
    sent = (
        b"GET /xandr/sspx?id=1&x=%7E%2e&sspdata=aB~c. HTTP/1.1\r\nhOST:  sink.test\r\nX-oDD:\tTwo  spaces \r\n"
        b"x-odd: again\r\nConnection: close\r\n\r\n"
    )
    with connect(sink) as connection:
        local = connection.getsockname()
        connection.sendall(sent)
        read_all(connection)
    entry = sink.client.requests()[0]
    assert entry["raw"].encode("latin-1") == sent
    assert entry["peer"] == f"127.0.0.1:{local[1]}"
    assert entry["status_code"] == 302
    assert entry["answer"].startswith("HTTP/1.1 302 Found\r\n")


def test_requests_that_are_pipelined_and_split_are_answered_in_order(sink: SinkThread) -> None:
    """Three requests sent one byte at a time, the second one chunked, get three answers in their order."""
    first = b"GET /bad/status:201/a HTTP/1.1\r\nHost: s\r\n\r\n"
    second = (
        b"POST /bad/late:0.2/generic/b HTTP/1.1\r\nHost: s\r\nTransfer-Encoding: chunked\r\n"
        b"Content-Type: application/x-www-form-urlencoded\r\n\r\n5\r\nclick\r\n9;x=y\r\n_id=a%2B.\r\n0\r\n\r\n"
    )
    third = b"GET /bad/status:203/c HTTP/1.1\r\nHost: s\r\nConnection: close\r\n\r\n"
    # An empty line between requests is allowed, and belongs to none of them.
    sent = first + b"\r\n" + second + third
    with connect(sink) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(len(sent)):
            connection.sendall(sent[at : at + 1])
        answers = read_all(connection)
    assert [int(part[:3]) for part in answers.split(b"HTTP/1.1 ")[1:]] == [201, 200, 203]
    entries = sink.client.requests()
    assert [entry["raw"].encode("latin-1") for entry in entries] == [first, second, third]
    assert [entry["on_connection"] for entry in entries] == [1, 2, 3]
    assert entries[1]["click_id"] == "a+."


def test_an_empty_line_before_a_request_is_skipped(sink: SinkThread) -> None:
    """A line break that a client left over from its last request does not delay or alter the next one."""
    request = f"GET {PUSH} HTTP/1.1\r\nConnection: close\r\n\r\n".encode()
    with connect(sink) as connection:
        connection.sendall(b"\r\n" + request)
        assert status(read_all(connection)) == 200
    assert sink.client.requests()[0]["raw"].encode("latin-1") == request


def test_a_body_announced_with_expect_gets_a_continue_first(sink: SinkThread) -> None:
    """A client that waits for 100 Continue before it sends its body gets it, and then its answer."""
    with connect(sink) as connection:
        connection.sendall(
            b"POST /generic/x HTTP/1.1\r\nHost: s\r\nExpect: 100-continue\r\nConnection: close\r\n"
            b"Content-Type: application/json\r\nContent-Length: 17\r\n\r\n"
        )
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b'{"click_id": "j"}')
        assert status(read_all(connection)) == 200
    assert sink.client.credits("generic")[0]["click_id"] == "j"


@pytest.mark.parametrize(
    ("sent", "refused"),
    [
        (b"NONSENSE\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\n\r\n", 505),
        (b"POST / HTTP/1.1\r\nContent-Length: ten\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabcdef", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n", 413),
        (b"GET /" + b"a" * 70_000, 431),
    ],
)
def test_bytes_that_are_no_request_are_recorded_and_refused(
    sink: SinkThread, sent: bytes, refused: int
) -> None:
    """What cannot be read as HTTP/1.1 is refused with a fitting status and kept as it came."""
    with connect(sink) as connection:
        connection.sendall(sent)
        assert status(read_all(connection)) == refused
    assert sink.client.counts()["malformed"] == 1
    entry = sink.client.requests()[0]
    assert entry["raw"].encode("latin-1") == sent
    assert entry["reason"] == "malformed-request"


def test_the_record_file_shows_each_request_while_the_sink_runs(tmp_path: Path) -> None:
    """A reader of the NDJSON file finds a request soon after it was answered."""
    path = tmp_path / "record.ndjson"
    with SinkThread(record=path) as sink:
        get(sink, PUSH)
        deadline = time.monotonic() + 5
        while not path.read_bytes() and time.monotonic() < deadline:
            time.sleep(0.01)
        line = json.loads(path.read_bytes())
    assert line["raw"].startswith(f"GET {PUSH} HTTP/1.1\r\n")
    assert (line["kind"], line["credited"], line["value"]) == ("request", True, "5.00")


def test_requests_are_listed_from_a_number_on(sink: SinkThread) -> None:
    """A reader that asks since the last number it saw misses nothing and sees nothing twice."""
    for number in range(5):
        get(sink, f"/generic/{number}?id=a")
    assert [one["number"] for one in sink.client.requests(since=0, limit=2)] == [1, 2]
    assert [one["number"] for one in sink.client.requests(since=2)] == [3, 4, 5]
    assert sink.client.requests(since=5) == []


def test_recording_off_still_counts_and_credits() -> None:
    """With recording off there are no requests to list, and the credits are the same."""
    with SinkThread(recording=False) as sink:
        get(sink, PUSH)
        assert sink.client.requests() == []
        assert counts(sink, "pushground")["credited"] == 1


def test_plain_mode_answers_everything_and_counts() -> None:
    """In plain mode every request, pipelined or not, gets 200 and is counted, and the endpoints still work."""
    one = b"GET /anything HTTP/1.1\r\nHost: s\r\n\r\n"
    with SinkThread(plain=True) as sink:
        with connect(sink) as connection:
            connection.sendall(one)
            assert connection.recv(1000).endswith(b"\r\n\r\nOK")
            connection.sendall(one * 2)
            connection.sendall(one.replace(b"Host", b"Connection: close\r\nHost"))
            assert read_all(connection).count(b"HTTP/1.1 200 OK") == 3
        assert sink.client.counts()["requests"] == 4


# The networks ------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", ["xandr", "ad-personam"])
def test_xandr_credits_only_when_its_redirect_is_followed(sink: SinkThread, profile: str) -> None:
    """The first answer is a 302 that counts nothing; following it is what counts."""
    target = SSPX.replace("xandr", profile)
    location = header(get(sink, target), "location")
    assert location == f"http://sink.test/{profile}/bounce?{target.partition('?')[2]}"
    before = counts(sink, profile)
    assert (before["credited"], before["redirected"], before["awaiting_redirect"]) == (0, 1, 1)
    assert status(get(sink, location.removeprefix("http://sink.test"))) == 204
    after = counts(sink, profile)
    assert (after["requests"], after["credited"], after["awaiting_redirect"]) == (2, 1, 0)
    credit = sink.client.credits(profile)[0]
    assert (credit["click_id"], credit["order_id"], credit["value"]) == (TOKEN, "1234", "5678")
    assert (credit["times_requested"], credit["times_credited"]) == (1, 1)


def test_the_real_sspx_path_is_xandr(sink: SinkThread) -> None:
    """A Xandr URL works with nothing but its host changed."""
    assert status(follow(sink, SSPX.removeprefix("/xandr"))) == 204
    assert counts(sink, "xandr")["credited"] == 1


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        (f"id=1&sspdata={TOKEN}&value=1", "sspdata-not-last"),
        (f"id=1&sspdata=x&sspdata={TOKEN}", "sspdata-repeated"),
        (f"sspdata={TOKEN}", "pixel-id-missing"),
        ("id=1&sspdata=", "click-id-missing"),
        ("id=1&sspdata=[SSPDATA]", "unreplaced-macro"),
        ("id=1&sspdata=%24%7BSSP_DATA%7D", "unreplaced-macro"),
        (f"id=1&sspdata={TOKEN[:-1]}", "trailing-period-lost"),
        (f"id=1&sspdata={TOKEN.lower()}", "case-changed"),
        (f"id=1&sspdata={TOKEN[:20]}", "truncated"),
        (f"id=1&sspdata={TOKEN[:-1]}%252E", "encoded-twice"),
        ("id=1&sspdata=stranger", "click-id-unknown"),
        (f"id=1&order_id=A-1&sspdata={TOKEN}", "order-id-over-limits"),
        (f"id=1&order_id={'1' * 37}&sspdata={TOKEN}", "order-id-over-limits"),
        (f"id=1&value=5,00&sspdata={TOKEN}", "value-not-a-number"),
        (f"id=1&other={'x' * 21}&sspdata={TOKEN}", "other-over-limits"),
    ],
)
def test_xandr_says_why_it_did_not_count(sink: SinkThread, query: str, reason: str) -> None:
    """A damaged token, a misplaced parameter or an overlong one counts nothing and is not redirected."""
    sink.client.issue("xandr", [TOKEN])
    assert status(get(sink, f"/xandr/sspx?{query}")) == 204
    assert counts(sink, "xandr")["not_credited"] == {reason: 1}


def test_a_percent_encoded_period_is_still_the_token(sink: SinkThread) -> None:
    """Encoding is undone once before the token is compared with those given out."""
    sink.client.issue("xandr", [TOKEN])
    follow(sink, f"/xandr/sspx?id=1&sspdata={TOKEN[:-1]}%2E")
    assert sink.client.credits("xandr")[0]["click_id"] == TOKEN


def test_a_plus_that_is_not_encoded_is_read_as_a_space(sink: SinkThread) -> None:
    """Networks read queries as forms, so a click id with a bare plus is another click id to them."""
    sink.client.issue("generic", ["a+b"])
    get(sink, "/generic/p?id=a+b")
    get(sink, "/generic/p?id=a%2Bb")
    found = counts(sink, "generic")
    assert (found["credited"], found["not_credited"]) == (1, {"click-id-unknown": 1})


def test_a_redirect_target_that_was_not_given_counts_nothing(sink: SinkThread) -> None:
    """Asking for the second address alone, or following with a changed query, is no conversion."""
    assert status(get(sink, SSPX.replace("sspx", "bounce"))) == 204
    assert counts(sink, "xandr")["not_credited"] == {"redirect-not-issued": 1}


def test_knorex_takes_the_configured_event_once(sink: SinkThread) -> None:
    """The event's name is matched exactly, an unknown kcid and a second one are rejected at once."""
    sink.client.settings({"knorex-xpo": {"events": ["Purchase"], "issued": ["k1"]}})
    asked = ["kcid=k1&event=purchase", "kcid=k9&event=Purchase", "event=Purchase", "kcid=k1"]
    assert [status(get(sink, f"/knorex-xpo/p?{query}")) for query in asked] == [422, 404, 400, 422]
    assert [status(get(sink, "/knorex-xpo/p?kcid=k1&event=Purchase&order_id=7")) for _ in range(2)] == [
        200,
        409,
    ]
    assert counts(sink, "knorex-xpo")["not_credited"] == {
        "click-id-missing": 1,
        "click-id-unknown": 1,
        "duplicate": 1,
        "event-name-mismatch": 1,
        "event-name-missing": 1,
    }
    assert [credit["order_id"] for credit in sink.client.credits("knorex-xpo")] == ["7"]


def test_knorex_counts_a_partners_rebills_again_and_again(sink: SinkThread) -> None:
    """Under the partner protocol there is no click to tell a repeat by; the event's name still has to match."""
    sink.client.settings({"knorex-xpo": {"events": ["Purchase"]}})
    asked = ["partner_id=p1&event=Purchase", "partner_id=p1&event=Purchase", "partner_id=p1&event=purchase"]
    assert [status(get(sink, f"/knorex-xpo/p?{query}")) for query in asked] == [200, 200, 422]
    assert counts(sink, "knorex-xpo")["credited"] == 2


def test_pushground_answers_200_whether_or_not_it_counted(sink: SinkThread) -> None:
    """200 without a payout, without a click id, and for a repeat: only the first whole one counts."""
    asked = [
        PUSH,
        PUSH,
        "/pushground/p?click_id=b",
        "/pushground/p?payout=1",
        "/pushground/p?click_id=c&payout=x",
    ]
    assert {status(get(sink, target)) for target in asked} == {200}
    found = counts(sink, "pushground")
    assert found["credited"] == 1
    assert found["not_credited"] == {
        "click-id-missing": 1,
        "duplicate": 1,
        "payout-missing": 1,
        "payout-not-a-number": 1,
    }
    named = found["duplicates"][0]
    assert (named["click_id"], named["times_judged"], named["times_credited"]) == (
        "push_71872t38713891u12u0313",
        2,
        1,
    )


@pytest.mark.parametrize(
    ("target", "fields"),
    [
        ("/ezmob/postback?c=1&value=2", ["X-API-Key: secret"]),
        ("/ezmob/postback?c=1&value=2", ["authorization: bearer secret"]),
        ("/ezmob/postback?c=1&value=2&key=secret", []),
    ],
)
def test_ezmob_takes_a_key_in_three_places(sink: SinkThread, target: str, fields: list[str]) -> None:
    """An API key header, a bearer token and a query key each open the door."""
    sink.client.settings({"ezmob": {"keys": ["secret"]}})
    assert body(get(sink, target, *fields)) == b"Success"
    assert counts(sink, "ezmob")["credited"] == 1


@pytest.mark.parametrize("fields", [[], ["X-API-Key: wrong"], ["Authorization: Digest secret"]])
def test_ezmob_refuses_without_its_key(sink: SinkThread, fields: list[str]) -> None:
    """No key, another key, or a key in the wrong scheme is a 401 that counts nothing."""
    sink.client.settings({"ezmob": {"keys": ["secret"]}})
    assert status(get(sink, "/ezmob/postback?c=1&value=2", *fields)) == 401
    assert counts(sink, "ezmob")["not_credited"] == {"key-missing": 1}


@pytest.mark.parametrize(
    ("rule", "answered", "credited"), [("counted", 200, 2), ("ignored", 200, 1), ("rejected", 409, 1)]
)
def test_a_second_identical_postback_counts_as_the_setting_says(
    sink: SinkThread, rule: str, answered: int, credited: int
) -> None:
    """What a duplicate does is a setting, and it is named under each."""
    sink.client.settings({"generic": {"duplicates": rule}})
    get(sink, "/somewhere/else?id=a")
    assert status(get(sink, "/somewhere/else?id=a")) == answered
    found = counts(sink, "generic")
    assert found["credited"] == credited
    assert found["credited_conversions"] == 1
    assert [one["click_id"] for one in found["duplicates"]] == ["a"]


# Bad behaviours ----------------------------------------------------------------------------------


def check_unavailable(sink: SinkThread) -> None:
    answer = get(sink, f"/bad/unavailable:3{PUSH}")
    assert (status(answer), header(answer, "retry-after")) == (503, "3")


def check_unavailable_date(sink: SinkThread) -> None:
    asked_at = time.time()
    answer = get(sink, f"/bad/unavailable-date:90{PUSH}")
    ahead = parsedate_to_datetime(header(answer, "retry-after")).timestamp() - asked_at
    assert status(answer) == 503
    assert 90 <= ahead < 93


def check_too_many(sink: SinkThread) -> None:
    answer = get(sink, f"/bad/too-many{PUSH}")
    assert (status(answer), header(answer, "retry-after")) == (429, "1")


def check_status(sink: SinkThread) -> None:
    assert [status(get(sink, f"/bad/status:{code}{PUSH}")) for code in (404, 410, 500, 599)] == [
        404,
        410,
        500,
        599,
    ]


def check_uncounted(sink: SinkThread) -> None:
    assert get(sink, f"/bad/uncounted{PUSH}").endswith(b"\r\n\r\nOK")


def check_refused_in_body(sink: SinkThread) -> None:
    answer = get(sink, f"/bad/refused-in-body{PUSH}")
    assert status(answer) == 200
    assert b'"success": false' in body(answer)


def check_no_content(sink: SinkThread) -> None:
    assert get(sink, f"/bad/no-content{PUSH}") == b"HTTP/1.1 204 No Content\r\n\r\n"


def check_no_body(sink: SinkThread) -> None:
    assert get(sink, f"/bad/no-body{PUSH}") == b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


def check_late(sink: SinkThread) -> None:
    asked_at = time.monotonic()
    assert status(get(sink, f"/bad/late:0.3{PUSH}")) == 200
    assert time.monotonic() - asked_at >= 0.3


def check_drip(sink: SinkThread) -> None:
    with connect(sink) as connection:
        connection.sendall(f"GET /bad/drip:0.05{PUSH} HTTP/1.1\r\n\r\n".encode())
        head, *drops = [connection.recv(1000) for _ in range(4)]
    assert b"Content-Length: 1000" in head
    assert {len(drop) for drop in drops} == {1}


def check_drip_head(sink: SinkThread) -> None:
    with connect(sink) as connection:
        connection.sendall(f"GET /bad/drip-head:0.05{PUSH} HTTP/1.1\r\n\r\n".encode())
        head, *drops = [connection.recv(1000) for _ in range(3)]
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert set(drops) == {b"X-Drip: drop\r\n"}


def check_huge(sink: SinkThread) -> None:
    answer = get(sink, f"/bad/huge{PUSH}")
    assert len(body(answer)) == int(header(answer, "content-length")) == 50 * 1024 * 1024


def check_gzip_bomb(sink: SinkThread) -> None:
    answer = get(sink, f"/bad/gzip-bomb:5{PUSH}")
    assert len(answer) < 20_000
    assert len(gzip.decompress(body(answer))) == 5 * 1024 * 1024


def check_gzip_truncated(sink: SinkThread) -> None:
    answer = get(sink, f"/bad/gzip-truncated{PUSH}")
    assert int(header(answer, "content-length")) == len(body(answer))
    with pytest.raises(EOFError):
        gzip.decompress(body(answer))


def check_gzip_invalid(sink: SinkThread) -> None:
    answer = get(sink, f"/bad/gzip-invalid{PUSH}")
    assert header(answer, "content-encoding") == "gzip"
    with pytest.raises(zlib.error):
        zlib.decompress(body(answer), 31)


def check_length_too_long(sink: SinkThread) -> None:
    answer = get(sink, f"/bad/length-too-long{PUSH}")
    assert int(header(answer, "content-length")) > len(body(answer))


def check_length_too_short(sink: SinkThread) -> None:
    answer = get(sink, f"/bad/length-too-short{PUSH}")
    assert int(header(answer, "content-length")) < len(body(answer))


def check_reset(sink: SinkThread) -> None:
    with pytest.raises(ConnectionResetError):
        get(sink, f"/bad/reset{PUSH}")


def check_reset_counted(sink: SinkThread) -> None:
    with pytest.raises(ConnectionResetError):
        get(sink, f"/bad/reset-counted{PUSH}")


def check_reset_midway(sink: SinkThread) -> None:
    with connect(sink) as connection:
        connection.sendall(f"GET /bad/reset-midway{PUSH} HTTP/1.1\r\n\r\n".encode())
        assert connection.recv(1000).endswith(b"OK so f")
        with pytest.raises(ConnectionResetError):
            connection.recv(1000)


def check_hang_up(sink: SinkThread) -> None:
    assert get(sink, f"/bad/hang-up{PUSH}") == b""


def check_redirect_loop(sink: SinkThread) -> None:
    first = header(get(sink, f"/bad/redirect-loop{PUSH}"), "location")
    assert first == f"http://sink.test/bad/redirect-loop{PUSH}"


def check_redirect_chain(sink: SinkThread) -> None:
    target, hops = f"/bad/redirect-chain:2{PUSH}", 0
    while status(answer := get(sink, target)) == 302:
        target, hops = header(answer, "location").removeprefix("http://sink.test"), hops + 1
    assert (hops, body(answer)) == (2, b"OK")


def check_redirect_private(sink: SinkThread) -> None:
    assert header(get(sink, f"/bad/redirect-private{PUSH}"), "location") == f"http://10.0.0.1{PUSH}"
    other = get(sink, f"/bad/redirect-private:169.254.169.254{PUSH}")
    assert header(other, "location") == f"http://169.254.169.254{PUSH}"


def check_redirect_downgrade(sink: SinkThread) -> None:
    # Over plain http there is nothing to downgrade; over TLS it has a test of its own.
    assert status(get(sink, f"/bad/redirect-downgrade{PUSH}")) == 200


def check_redirect_nowhere(sink: SinkThread) -> None:
    answer = get(sink, f"/bad/redirect-nowhere{PUSH}")
    assert status(answer) == 302
    assert b"location" not in answer.lower()


def check_key_required(sink: SinkThread) -> None:
    assert status(get(sink, f"/bad/key-required{PUSH}")) == 401


def check_duplicate_rejected(sink: SinkThread) -> None:
    assert [status(get(sink, f"/bad/duplicate-rejected{PUSH}")) for _ in range(2)] == [200, 409]


def check_status_missing(sink: SinkThread) -> None:
    assert get(sink, f"/bad/status-missing{PUSH}").startswith(b"HTTP/1.1\r\n")


def check_garbage(sink: SinkThread) -> None:
    assert not get(sink, f"/bad/garbage{PUSH}").startswith(b"HTTP")


def check_interim(sink: SinkThread) -> None:
    answer = get(sink, f"/bad/interim{PUSH}")
    assert [int(part[:3]) for part in answer.split(b"HTTP/1.1 ")[1:]] == [100, 103, 200]
    assert sink.client.requests()[0]["status_code"] == 200


def check_echo(sink: SinkThread) -> None:
    told = json.loads(
        body(get(sink, f"/bad/echo{PUSH}&key=s3cret", "X-Api-Key: hush", method="POST", body=b"b0dy"))
    )
    assert told["url"] == f"http://sink.test/bad/echo{PUSH}&key=s3cret"
    assert "X-Api-Key: hush" in told["head"]
    assert told["body"] == "b0dy"


CHECKS: dict[str, Callable[[SinkThread], None]] = {
    name: globals()[f"check_{name.replace('-', '_')}"] for name in BEHAVIOURS
}


@pytest.mark.parametrize("name", BEHAVIOURS)
def test_a_bad_behaviour_is_what_a_raw_client_sees(sink: SinkThread, name: str) -> None:
    """Each behaviour does on the wire what its name says."""
    CHECKS[name](sink)


@pytest.mark.parametrize(
    "name", sorted(set(BEHAVIOURS) - {"key-required", "duplicate-rejected", "redirect-downgrade"})
)
def test_a_behaviour_counts_exactly_when_it_says_so(sink: SinkThread, name: str) -> None:
    """A request is credited under a behaviour that lets the network decide, and named as refused otherwise."""
    with connect(sink) as connection:
        connection.sendall(f"GET /bad/{name}{PUSH} HTTP/1.1\r\n\r\n".encode())
        found = sink.client.wait_for(lambda seen: seen["profiles"]["pushground"]["requests"] == 1)
    booked = found["profiles"]["pushground"]
    if BEHAVIOURS[name].counts:
        assert (booked["credited"], booked["not_credited"]) == (1, {})
    else:
        assert (booked["credited"], booked["not_credited"]) == (0, {f"behaviour:{name}": 1})


def test_an_unknown_behaviour_is_refused_with_those_there_are(sink: SinkThread) -> None:
    """A typing error in a path is told to the client and counts as nothing."""
    answer = get(sink, "/bad/unavailabel/x")
    assert status(answer) == 404
    assert "unavailable" in json.loads(body(answer))["remedy"]
    assert sink.client.counts()["requests"] == 0


def test_one_port_refuses_and_one_resets(sink: SinkThread) -> None:
    """Connecting to the refusing port fails, and whoever connects to the resetting one is reset unread."""
    about = sink.client.about()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", about["refused_port"]), timeout=5)
    assert is_reset(about["reset_port"])
    assert sink.client.counts()["requests"] == 0


def test_a_downgrade_redirects_from_tls_to_plain_http(tmp_path: Path) -> None:
    """Over TLS the answer points at the plain port, where following it would show in the count."""
    if not shutil.which("openssl"):
        pytest.skip("no openssl to make a certificate with")
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
    command += f" -subj /CN=localhost -addext subjectAltName=DNS:localhost -keyout {key} -out {certificate}"
    subprocess.run(command.split(), check=True, capture_output=True)
    with SinkThread(tls=(certificate, key)) as sink:
        context = ssl.create_default_context(cafile=str(certificate))
        with (
            socket.create_connection(("127.0.0.1", sink.sink.tls_port), timeout=5) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as connection,
        ):
            connection.sendall(
                f"GET /bad/redirect-downgrade{PUSH} HTTP/1.1\r\nConnection: close\r\n\r\n".encode()
            )
            answer = connection.recv(4096)
        assert header(answer, "location") == f"{sink.url}{PUSH}"
        assert counts(sink, "pushground")["not_credited"] == {"behaviour:redirect-downgrade": 1}


# Plans -------------------------------------------------------------------------------------------


def test_the_first_requests_of_a_click_id_go_badly_and_then_well(sink: SinkThread) -> None:
    """A rule with times answers each click id badly that often, and the repeats are not called duplicates."""
    sink.client.plan([{"match": {"profile": "pushground"}, "behave": "unavailable:1", "times": 2}])
    asked = ["a", "b", "a", "b", "a", "b"]
    answered = [status(get(sink, f"/pushground/p?click_id={one}&payout=1")) for one in asked]
    assert answered == [503, 503, 503, 503, 200, 200]
    assert status(get(sink, "/generic/p?id=a")) == 200
    found = counts(sink, "pushground")
    assert (found["credited"], found["duplicates"]) == (2, [])
    assert [one["times_requested"] for one in sink.client.credits("pushground")] == [3, 3]


def test_every_seventh_click_id_gets_one_503_first(sink: SinkThread) -> None:
    """The nth distinct click ids are chosen by first sight, across repeats."""
    sink.client.plan([{"match": {"every_click_id": 7}, "behave": "unavailable:1", "times": 1}])
    first = [status(get(sink, f"/generic/p?id=c{number // 2}")) for number in range(30)]
    assert [number for number, code in enumerate(first) if code == 503] == [12, 26]


def test_a_rule_can_choose_requests_by_number_path_and_order(sink: SinkThread) -> None:
    """The nth request, each nth one, a path's prefix and an order id can all be matched, first rule first."""
    sink.client.plan(
        [
            {"match": {"path": "/generic/never"}, "behave": "status:410"},
            {"match": {"order_id": "o9"}, "behave": "status:411"},
            {"match": {"nth_request": 2}, "behave": "status:412"},
            {"match": {"every_request": 3}, "behave": "status:413", "times": 1, "per": "rule"},
        ]
    )
    asked = [
        "never?id=a",
        "x?id=a&order_id=o9",
        "x?id=1",
        "x?id=2",
        "x?id=3",
        "x?id=4",
        "x?id=5",
        "x?id=6",
        "x?id=7",
    ]
    answered = [status(get(sink, f"/generic/{one}")) for one in asked]
    assert answered == [410, 411, 200, 412, 200, 413, 200, 200, 200]


def test_one_in_n_chooses_the_same_click_ids_in_any_order(sink: SinkThread) -> None:
    """The choice by checksum does not depend on who comes first."""
    rule = {"match": {"one_in": 4}, "behave": "status:503"}

    def chosen(click_ids: list[str]) -> set[str]:
        sink.client.plan([rule])
        return {one for one in click_ids if status(get(sink, f"/generic/p?id={one}")) == 503}

    click_ids = [f"click-{number}" for number in range(40)]
    assert 0 < len(chosen(click_ids)) < 40
    assert chosen(click_ids) == chosen(click_ids[::-1])


def test_a_rule_can_say_that_a_spoilt_answer_counted(sink: SinkThread) -> None:
    """A 503 that the network counted all the same makes the retry a duplicate."""
    sink.client.plan([{"behave": "status:503", "times": 1, "counts": True}])
    assert [status(get(sink, PUSH)) for _ in range(2)] == [503, 200]
    found = counts(sink, "pushground")
    assert (found["credited"], found["not_credited"]) == (1, {"duplicate": 1})


def test_a_planned_reset_on_connect_leaves_no_request(sink: SinkThread) -> None:
    """The next connection is reset before it is read, and the one after that is served."""
    sink.client.plan([{"behave": "reset-on-connect", "times": 1}])
    assert is_reset(sink.sink.port)
    assert status(get(sink, PUSH)) == 200
    found = sink.client.counts()
    assert (found["requests"], found["connections_reset"]) == (1, 1)


@pytest.mark.parametrize(
    ("rule", "field"),
    [
        ({}, "rules[0].behave"),
        ({"behave": "explode"}, "rules[0].behave"),
        ({"behave": "late:soon"}, "rules[0].behave"),
        ({"behave": "uncounted:3"}, "rules[0].behave"),
        ({"behave": "status:99"}, "rules[0].behave"),
        ({"behave": "reset", "times": 0}, "rules[0].times"),
        ({"behave": "reset", "per": "day"}, "rules[0].per"),
        ({"behave": "reset", "counts": "yes"}, "rules[0].counts"),
        ({"behave": "reset", "match": {"profile": "myspace"}}, "rules[0].match.profile"),
        ({"behave": "reset", "match": {"every_click_id": "7"}}, "rules[0].match.every_click_id"),
        ({"behave": "reset", "match": {"clickid": "a"}}, "rules[0].match.clickid"),
        ({"behave": "reset-on-connect", "match": {"click_id": "a"}}, "rules[0].match"),
    ],
)
def test_a_rule_that_cannot_be_used_is_refused_by_field(
    sink: SinkThread, rule: dict[str, Any], field: str
) -> None:
    """The error names the field and a remedy, and the plan in force stays."""
    sink.client.plan([{"behave": "status:418"}])
    with pytest.raises(SinkConfigError) as raised:
        sink.client.plan([rule])
    assert raised.value.field == field
    assert raised.value.remedy
    assert status(get(sink, PUSH)) == 418


@pytest.mark.parametrize(
    ("profiles", "field"),
    [
        ({"xandr": {"duplicates": "twice"}}, "profiles.xandr.duplicates"),
        ({"xandr": {"redirects": 1}}, "profiles.xandr.redirects"),
        ({"ezmob": {"keys": "secret"}}, "profiles.ezmob.keys"),
        ({"ezmob": {"colour": "red"}}, "profiles.ezmob.colour"),
        ({"myspace": {}}, "profiles.myspace"),
        ({"xandr": {"issued": [1]}}, "profiles.xandr.issued"),
    ],
)
def test_a_setting_that_cannot_be_used_is_refused_by_field(profiles: dict[str, Any], field: str) -> None:
    """A sink does not start on settings it would not keep."""
    with pytest.raises(SinkConfigError) as raised:
        Sink(config={"profiles": profiles})
    assert raised.value.field == field


# The gate ----------------------------------------------------------------------------------------


def in_background(ask: Callable[[], bytes]) -> tuple[threading.Thread, list[bytes]]:
    answers: list[bytes] = []
    thread = threading.Thread(target=lambda: answers.append(ask()), daemon=True)
    thread.start()
    return thread, answers


def test_a_held_request_is_recorded_and_answered_on_release(sink: SinkThread) -> None:
    """While it is held it is counted and unanswered; others pass; release answers it."""
    sink.client.hold({"click_id": "slow"})
    thread, answers = in_background(lambda: get(sink, "/generic/p?id=slow"))
    sink.client.wait_for(lambda found: found["held"] == 1)
    assert status(get(sink, "/generic/p?id=quick")) == 200
    assert not answers
    assert [one["click_id"] for one in sink.client.held()] == ["slow"]
    assert sink.client.requests()[0]["held"] is True
    assert counts(sink, "generic")["credited"] == 2
    assert sink.client.release() == 1
    thread.join(5)
    assert status(answers[0]) == 200
    assert sink.client.requests()[0]["released_at"]
    assert status(get(sink, "/generic/p?id=slow")) == 200


def test_a_held_request_whose_client_dies_was_received_all_the_same(sink: SinkThread) -> None:
    """The network decided on receipt, so the same postback fired again is a named duplicate."""
    sink.client.hold(limit=1)
    with connect(sink) as connection:
        connection.sendall(f"GET {PUSH} HTTP/1.1\r\n\r\n".encode())
        sink.client.wait_for(lambda found: found["held"] == 1)
    assert status(get(sink, PUSH)) == 200
    sink.client.release()
    found = counts(sink, "pushground")
    assert (found["requests"], found["credited"], found["not_credited"]) == (2, 1, {"duplicate": 1})


@pytest.mark.parametrize("stays", [True, False])
def test_a_hold_can_put_off_the_decision_until_release(sink: SinkThread, stays: bool) -> None:
    """With counts off, a request counts at release if its client still waits, and never if it has gone."""
    sink.client.hold(counts=False)
    with connect(sink) as connection:
        connection.sendall(f"GET {PUSH} HTTP/1.1\r\nConnection: close\r\n\r\n".encode())
        sink.client.wait_for(lambda found: found["held"] == 1)
        assert counts(sink, "pushground")["requests"] == 0
        if stays:
            sink.client.release()
            assert status(read_all(connection)) == 200
    if not stays:
        deadline = time.monotonic() + 5
        while sink.client.held()[0]["connected"] and time.monotonic() < deadline:
            time.sleep(0.01)
        sink.client.release()
    found = counts(sink, "pushground")
    assert found["credited"] == int(stays)
    assert found["not_credited"] == ({} if stays else {"gone-before-answer": 1})


def test_a_held_request_can_be_released_by_click_id(sink: SinkThread) -> None:
    """Releasing one leaves the others, and the hold, in force."""
    sink.client.hold()
    first, answers = in_background(lambda: get(sink, "/generic/p?id=a"))
    in_background(lambda: get(sink, "/generic/p?id=b"))
    sink.client.wait_for(lambda found: found["held"] == 2)
    assert sink.client.release("a") == 1
    first.join(5)
    assert status(answers[0]) == 200
    assert [one["click_id"] for one in sink.client.held()] == ["b"]


# Corrections -------------------------------------------------------------------------------------

T = Decimal  # the values below are amounts


@pytest.mark.parametrize(
    ("profile", "targets", "total", "reasons"),
    [
        (
            "everflow",
            ["/?nid=1&transaction_id=a&amount=9.90", "/reversal?transaction_id=a&event_id=0"],
            None,
            {},
        ),
        (
            "everflow",
            ["/?nid=1&transaction_id=a&amount=9.90", "/reversal?transaction_id=a&event_id=7"],
            T("9.90"),
            {"nothing-to-correct": 1},
        ),
        (
            "everflow",
            [
                "/?nid=1&transaction_id=a&amount=9.90",
                "/?nid=1&transaction_id=a&amount=5&event_id=7",
                "/reversal?transaction_id=a&event_id=7",
            ],
            T("9.90"),
            {},
        ),
        (
            "everflow",
            [
                "/?nid=1&transaction_id=a&amount=9.90",
                "/?nid=1&transaction_id=a&amount=5&event_id=7",
                "/reversal?transaction_id=a",
            ],
            None,
            {},
        ),
        ("affise", ["/postback?clickid=a&sum=9.90", "/postback?clickid=a&status=3"], None, {}),
        (
            "affise",
            ["/postback?clickid=a&sum=9.90", "/postback?clickid=a&status=3", "/postback?clickid=a&status=1"],
            T("9.90"),
            {},
        ),
        (
            "affise",
            ["/postback?clickid=a&sum=9.90", "/postback?clickid=a&sum=5"],
            T("9.90"),
            {"duplicate": 1},
        ),
        (
            "keitaro",
            ["/k/postback?subid=a&tid=1&payout=9.90", "/k/postback?subid=a&tid=1&payout=5"],
            T("5"),
            {},
        ),
        (
            "keitaro",
            ["/k/postback?subid=a&tid=1&payout=9.90", "/k/postback?subid=a&tid=2&payout=5"],
            T("14.90"),
            {},
        ),
        (
            "keitaro",
            [
                "/k/postback?subid=a&payout=9.90",
                "/k/postback?subid=a&status=rejected",
                "/k/postback?subid=a&payout=9.90&status=sale",
            ],
            None,
            {"no-transition": 1},
        ),
        (
            "scaleo",
            [
                "/track/conv?click_id=a&amount=9.90&token=t",
                "/track/conv-change?click_id=a&token=t&conv_status=rejected",
            ],
            None,
            {},
        ),
        (
            "scaleo",
            [
                "/track/conv?click_id=a&amount=9.90&token=t",
                "/track/conv-change?click_id=a&token=t&conv_status=rejected",
                "/track/conv-change?click_id=a&token=t&conv_status=approved&amount=4",
            ],
            T("4"),
            {},
        ),
        (
            "scaleo",
            [
                "/track/conv?click_id=a&amount=9.90&token=t",
                "/track/conv-change?click_id=a&conv_status=rejected",
            ],
            T("9.90"),
            {"key-missing": 1},
        ),
        ("generic", ["/p?id=a&value=9.90", "/retraction?id=a"], None, {}),
        ("generic", ["/p?id=a&value=9.90", "/restatement?id=a&value=4"], T("4"), {}),
        ("generic", ["/p?id=a&value=9.90", "/restatement?id=a&delta=-4"], T("5.90"), {}),
        (
            "generic",
            ["/p?id=a&order_id=1&value=9.90", "/p?id=a&order_id=2&value=5", "/retraction?id=a&order_id=1"],
            T("5"),
            {},
        ),
        ("generic", ["/p?id=a&value=9.90", "/restatement?id=a"], T("9.90"), {"amount-missing": 1}),
    ],
)
def test_a_network_counts_what_stands_after_corrections(
    sink: SinkThread, profile: str, targets: list[str], total: Decimal | None, reasons: dict[str, int]
) -> None:
    """Each takes corrections as its page has them; what changes nothing says why."""
    for target in targets:
        get(sink, f"/{profile}{target}")
    assert sink.client.totals(profile) == {"a": total}
    found = counts(sink, profile)
    assert found["not_credited"] == reasons
    assert found["requests"] == found["credited"] + found["corrected"] + sum(reasons.values())


def test_credits_stay_what_they_were_when_a_conversion_is_corrected(sink: SinkThread) -> None:
    """What was credited once was credited; only the total says what is left of it."""
    get(sink, "/generic/p?id=a&value=9.90")
    before = sink.client.credits("generic")
    get(sink, "/generic/restatement?id=a&value=4")
    get(sink, "/generic/retraction?id=a")
    assert sink.client.credits("generic") == before
    assert counts(sink, "generic")["duplicates"] == []


def test_a_conversion_that_was_credited_twice_counts_twice(sink: SinkThread) -> None:
    """The total shows what a repeat costs; one without a value is worth 0."""
    for _ in range(2):
        get(sink, "/generic/p?id=a&value=9.90")
    get(sink, "/generic/p?id=lead")
    assert sink.client.totals("generic") == {"a": Decimal("19.80"), "lead": Decimal(0)}


def test_a_correction_that_comes_twice_or_too_early_changes_nothing(sink: SinkThread) -> None:
    """The reason tells a reader which of the two it was."""
    get(sink, "/generic/retraction?id=a")
    get(sink, "/generic/p?id=a&value=9.90")
    get(sink, "/generic/retraction?id=a")
    get(sink, "/generic/retraction?id=a")
    assert sink.client.totals("generic") == {"a": None}
    assert counts(sink, "generic")["not_credited"] == {"nothing-to-correct": 1, "corrected-before": 1}


@pytest.mark.parametrize(
    ("behaviour", "total"), [("status:503", "9.90"), ("reset", "9.90"), ("reset-counted", None)]
)
def test_a_correction_can_go_as_badly_as_a_conversion(
    sink: SinkThread, behaviour: str, total: str | None
) -> None:
    """It takes effect exactly when the behaviour says that the request counted."""
    get(sink, "/generic/p?id=a&value=9.90")
    sink.client.plan([{"match": {"path": "/generic/retraction"}, "behave": behaviour}])
    with suppress(OSError):
        get(sink, "/generic/retraction?id=a")
    sink.client.wait_for(lambda found: bool(found["requests"] == 2))
    assert sink.client.totals("generic") == {"a": None if total is None else Decimal(total)}


def test_totals_are_of_one_network(sink: SinkThread) -> None:
    """Click ids of different networks have nothing to do with each other."""
    with pytest.raises(SinkConfigError, match="profile"):
        sink.client.totals("nobody")
    assert sink.client.totals("xandr") == {}


# The count ---------------------------------------------------------------------------------------


def test_the_count_balances_over_good_and_bad_requests(sink: SinkThread) -> None:
    """Requests are credited, refused with a reason, or redirected: nothing is lost between."""
    sink.client.plan([{"match": {"every_request": 3}, "behave": "status:503"}])
    for number in range(12):
        answer = get(sink, f"/xandr/sspx?id=1&sspdata=t{number % 5}.")
        if status(answer) == 302:
            get(sink, header(answer, "location").removeprefix("http://sink.test"))
        get(sink, f"/knorex-xpo/p?kcid=k{number % 5}&event=Lead")
        get(sink, f"/keitaro/key/postback?subid=s{number % 3}&payout={number % 2}")
    seen = sink.client.counts()
    for profile, found in seen["profiles"].items():
        assert found["requests"] == found["credited"] + found["redirected"] + found["corrected"] + sum(
            found["not_credited"].values()
        )
        assert found["credited"] == sum(one["times_credited"] for one in sink.client.credits(profile))
    assert seen["requests"] == sum(found["requests"] for found in seen["profiles"].values()) > 24


def test_reset_forgets_what_was_counted_and_keeps_the_settings(sink: SinkThread) -> None:
    """A reset starts a new count under the same settings and issued click ids, without the plan."""
    sink.client.issue("generic", ["a"])
    sink.client.plan([{"behave": "status:503"}])
    get(sink, "/generic/p?id=a")
    sink.client.reset()
    assert sink.client.requests() == []
    get(sink, "/generic/p?id=stranger")
    found = sink.client.counts()
    assert found["requests"] == 1
    assert found["profiles"]["generic"]["not_credited"] == {"click-id-unknown": 1}


@pytest.mark.parametrize(
    ("request_line", "refused"),
    [
        ("GET /_sink/nothing", 404),
        ("GET /_sink/credits?profile=x", 422),
        ("GET /_sink/requests?since=-1", 422),
    ],
)
def test_an_endpoint_says_what_is_wrong_with_a_question(
    sink: SinkThread, request_line: str, refused: int
) -> None:
    """Unknown endpoints and arguments are refused with a remedy."""
    answer = get(sink, request_line.removeprefix("GET "))
    assert status(answer) == refused
    assert json.loads(body(answer))["remedy"]


def test_waiting_in_vain_tells_what_was_counted(sink: SinkThread) -> None:
    """A condition that never holds ends in an error that shows the last count."""
    with pytest.raises(TimeoutError, match="'requests': 0"):
        sink.client.wait_for(lambda found: found["requests"] > 0, timeout_s=0.05)


# Ways to run it ----------------------------------------------------------------------------------


def test_a_sink_runs_inside_an_event_loop() -> None:
    """The in-process form serves on the loop it was entered on and is gone when it is left."""

    async def ask() -> tuple[bytes, int]:
        async with Sink() as sink:
            reader, writer = await asyncio.open_connection("127.0.0.1", sink.port)
            writer.write(f"GET {PUSH} HTTP/1.1\r\nConnection: close\r\n\r\n".encode())
            answer = await reader.read()
            writer.close()
            return answer, sink.port

    answer, port = asyncio.run(ask())
    assert status(answer) == 200
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)


def test_a_port_that_is_taken_is_named() -> None:
    """Starting on a port in use says which and what to do."""
    with SinkThread() as first, pytest.raises(SinkConfigError, match=str(first.sink.port)) as raised:
        SinkThread(port=first.sink.port).__enter__()
    assert raised.value.field == "port"


def test_the_command_serves_prints_each_request_and_ends_on_a_signal(tmp_path: Path) -> None:
    """As a process it writes its port, behaves as told, prints one line a request, and ends cleanly."""
    port_file, config = tmp_path / "port", tmp_path / "config.json"
    config.write_text(json.dumps({"profiles": {"pushground": {"duplicates": "rejected"}}}))
    command = [sys.executable, "-m", "infra.sink", "--port", "0", "--port-file", str(port_file)]
    command += ["--config", str(config), "--behave", "pushground=unavailable:1@1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=Path.cwd())
    try:
        deadline = time.monotonic() + 20
        while not port_file.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        client = SinkClient(f"http://127.0.0.1:{port_file.read_text().strip()}")
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", int(port_file.read_text())), timeout=5) as connection:
                connection.sendall(f"GET {PUSH} HTTP/1.1\r\nConnection: close\r\n\r\n".encode())
                read_all(connection)
        assert [one["status_code"] for one in client.requests()] == [503, 200, 409]
    finally:
        process.send_signal(signal.SIGTERM)
        printed = process.communicate(timeout=10)[0].decode()
    assert process.returncode == 0
    lines = [line for line in printed.splitlines() if "push_71872t38713891u12u0313" in line]
    assert ["503" in lines[0], "CREDITED" in lines[1], "duplicate" in lines[2]] == [True, True, True]
    assert "pushground   3 requests, 1 credited" in printed


def test_the_command_refuses_a_behaviour_it_does_not_know() -> None:
    """A mistyped option ends the command with its remedy and without a traceback."""
    command = [sys.executable, "-m", "infra.sink", "--port", "0", "--behave", "xandr=explode"]
    ended = subprocess.run(
        command, capture_output=True, timeout=30, env={**os.environ, "NO_COLOR": "1"}, check=False
    )
    assert ended.returncode == 2
    assert b"'explode' is no behaviour" in ended.stderr
    assert b"Traceback" not in ended.stderr


def test_the_witness_imports_nothing_of_what_it_watches() -> None:
    """Importing the sink brings in neither the schemas nor the transport."""
    code = (
        "import sys, infra.sink; "
        "print([name for name in sys.modules if name.split('.')[0] in ('schemas', 'workers', 'aiohttp', 'httpx') "
        "or name.startswith('infra.http')])"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, timeout=30, text=True, check=True
    )
    assert ended.stdout.strip() == "[]"


def test_the_report_lists_what_was_credited_as_a_network_would(sink: SinkThread) -> None:
    """One row a credit, dated in the zone asked for; what was taken back and what was refused is not in it."""
    sink.client.settings({"generic": {"duplicates": "counted"}})
    for click_id, times in (("a.", 1), ("twice", 2), ("{click_id}", 1)):
        for _ in range(times):
            get(sink, f"/generic/p?click_id={click_id}&order_id=o-{click_id}&value=49.90")
    header_line, *rows = sink.client.report("generic", zone="Asia/Tokyo", currency="USD").splitlines()
    assert header_line == "Click ID,Order ID,Payout,Currency,Conversion time"
    assert [row.rpartition(",")[0] for row in rows] == [
        "a.,o-a.,49.90,USD",
        "twice,o-twice,49.90,USD",
        "twice,o-twice,49.90,USD",
    ]
    at = datetime.fromisoformat(rows[0].rpartition(",")[2]).replace(tzinfo=ZoneInfo("Asia/Tokyo"))
    assert abs((datetime.now(UTC) - at).total_seconds()) < 60
    with pytest.raises(SinkConfigError, match="no time zone"):
        sink.client.report("generic", zone="Mars/Olympus")
