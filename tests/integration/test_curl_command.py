"""The curl command of a hop, run by real shells and a real curl against a real socket: the same bytes go out again."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infra.http.framing import request_head
from infra.http.urls import split_url
from investigations.export.curl import curl_command, placeholders, quoted
from schemas.exchange import Hop, OutboundRequest

CURL = shutil.which("curl")
pytestmark = pytest.mark.skipif(CURL is None, reason="curl is not installed: .ci/tools installs it")
SHELLS = [shell for shell in ("sh", "bash") if shutil.which(shell)]
OURS = ((b"User-Agent", b"holdfire/0.1.0"), (b"Accept", b"*/*"))


@dataclass
class Recorder:
    """Takes one request at a time, keeps its bytes, answers 204."""

    listener: socket.socket
    heard: list[bytes] = field(default_factory=list)

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.listener.getsockname()[1]}"

    def serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(5)
                self.heard.append(_one_request(connection))
                connection.sendall(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")


def _one_request(connection: socket.socket) -> bytes:
    got = b""
    while b"\r\n\r\n" not in got:
        piece = connection.recv(65536)
        if not piece:
            return got
        got += piece
    head, _, body = got.partition(b"\r\n\r\n")
    length = re.search(rb"(?im)^content-length:\s*(\d+)", head)
    while length and len(body) < int(length[1]):
        piece = connection.recv(65536)
        if not piece:
            break
        got, body = got + piece, body + piece
    return got


@pytest.fixture(scope="module")
def recorder() -> Iterator[Recorder]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        recording = Recorder(listener)
        thread = threading.Thread(target=recording.serve, daemon=True)
        thread.start()
        yield recording
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(5)


def sent(request: OutboundRequest) -> Hop:
    """The hop that the transport records for a request: the head is the transport's own."""
    return Hop(
        number=1,
        url=request.url,
        method=request.method,
        started_at=datetime(2026, 11, 22, 9, tzinfo=UTC),
        request_head=request_head(request, split_url(request.url)),
        request_body=request.body,
    )


def replay(hop: Hop, recorder: Recorder, shell: str = "sh", home: str | None = None) -> bytes:
    """What curl sends when the command is run."""
    recorder.heard.clear()
    environment = {
        "PATH": "/usr/bin:/bin",
        "http_proxy": "http://127.0.0.1:9",
        "HOME": home or "/nonexistent",
    }
    # Read as a script: one of a megabyte is no argument.
    ran = subprocess.run(
        [shell],
        input=curl_command(hop).encode(),
        capture_output=True,
        timeout=30,
        check=False,
        env=environment,
    )
    assert ran.returncode == 0, ran.stderr
    (heard,) = recorder.heard
    return heard


def wire(hop: Hop) -> bytes:
    return hop.request_head + b"\r\n" + hop.request_body


REQUESTS = {
    "a plain postback": ("GET", "/postback?c=nym1.&v=49.90", OURS, b""),
    "no path": ("GET", "?c=1", OURS, b""),
    "dots and slashes in the path": ("GET", "/a/../b/./c//d?x=../y", OURS, b""),
    "an empty query": ("GET", "/p?", OURS, b""),
    "an empty value, and a second question mark": ("GET", "/p?a=&b&c=?x", OURS, b""),
    "brackets and braces, which curl expands": ("GET", "/p?a[]=1&b={x,y}&c=[1-3]", OURS, b""),
    "quotes, dollars and backquotes": ("GET", "/p?a='$(id)`id`\"&b=$HOME!\\", OURS, b""),
    "escapes in either case": ("GET", "/p%2f%2F?a=%e4%E4%00%0a", OURS, b""),
    "characters that should be encoded": ("GET", '/p<>"^`{|}\\?a=<>"^`{|}\\', OURS, b""),
    "a fragment, which is never sent": ("GET", "/p?a=1#part", OURS, b""),
    "no header but Host": ("GET", "/p", (), b""),
    "headers in another order and repeated": (
        "GET",
        "/p",
        (
            (b"X-B", b"2"),
            (b"Accept", b"a/b"),
            (b"x-b", b"3"),
            (b"user-agent", b"me"),
            (b"Cookie", b"a=1; b=2"),
        ),
        b"",
    ),
    "Host in the middle": ("GET", "/p", (*OURS, (b"Host", b"other.example"), (b"X", b"1")), b""),
    "an empty header": ("GET", "/p", (*OURS, (b"X-Empty", b""), (b"X-Full", b"1"), (b"X-Last", b"")), b""),
    "headers with quotes, tabs and bytes over 127": (
        "GET",
        "/p",
        (
            *OURS,
            (b"X-Q", b'it\'s "$HOME" \\n %s'),
            (b"X-Tab", b"a\tb"),
            (b"X-Latin", b"caf\xe9 \xff"),
            (b"X-Sp", b"  a  "),
        ),
        b"",
    ),
    "credentials": ("GET", "/p", (*OURS, (b"Authorization", b"Bearer abcdefgh")), b""),
    "a form": (
        "POST",
        "/p",
        (*OURS, (b"Content-Type", b"application/x-www-form-urlencoded")),
        b"a=1&b=@file&c=%20",
    ),
    "a body that begins like a file name": ("POST", "/p", OURS, b"@/etc/passwd"),
    "a body without a type": ("POST", "/p", OURS, b"raw"),
    "a POST without a body": ("POST", "/p", OURS, b""),
    "JSON with line ends and letters": (
        "PUT",
        "/p",
        (*OURS, (b"Content-Type", b"application/json")),
        '{\n  "name": "Müller é",\r\n\t"share": "100 %d\\n"\n}\n'.encode(),
    ),
    "every byte there is": ("POST", "/p", OURS, bytes(range(256)) * 2),
    "a body that begins with a dash": ("POST", "/p", OURS, b"-n\n"),
    "a large body, for which curl would ask first": ("POST", "/p", OURS, b"x" * 1_200_000),
    "a long line": ("POST", "/p", OURS, b"y" * 70_000),
    "a GET with a body": ("GET", "/p", OURS, b"q"),
    "DELETE": ("DELETE", "/p", OURS, b""),
    "HEAD": ("HEAD", "/p", OURS, b""),
    "a method of one's own": ("M-SEARCH", "/p", OURS, b""),
}


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("name", REQUESTS)
def test_the_command_sends_what_was_sent(name: str, shell: str, recorder: Recorder) -> None:
    """Byte for byte, whatever is in it, by a POSIX shell and by bash."""
    method, target, headers, body = REQUESTS[name]
    hop = sent(OutboundRequest(method, recorder.base + target, headers, body))
    assert replay(hop, recorder, shell) == wire(hop)


_VISIBLE = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=30)
_VALUE = st.binary(max_size=20).map(lambda raw: re.sub(rb"[\x00-\x08\x0a-\x1f\x7f]", b"", raw).strip(b" \t"))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    path=_VISIBLE, value=_VALUE, body=st.binary(max_size=80), method=st.sampled_from(["GET", "POST", "PUT"])
)
def test_any_request_survives(recorder: Recorder, path: str, value: bytes, body: bytes, method: str) -> None:
    """A law, not a list: any target, header value and body."""
    hop = sent(OutboundRequest(method, f"{recorder.base}/{path}", (*OURS, (b"X-Any", value)), body))
    assert replay(hop, recorder) == wire(hop)


def test_nobodys_curlrc_has_a_say(recorder: Recorder, tmp_path: object) -> None:
    """A person's own defaults do not get into the evidence."""
    from pathlib import Path

    Path(str(tmp_path), ".curlrc").write_text('header = "X-Mine: 1"\nuser-agent = "mine"\n')
    hop = sent(OutboundRequest("GET", recorder.base + "/p", OURS))
    assert replay(hop, recorder, home=str(tmp_path)) == wire(hop)


def test_what_is_masked_is_named_and_can_be_filled_in(recorder: Recorder) -> None:
    """The command says which placeholders there are and where; filled in, it sends what was sent."""
    key, token = "s3cret-key-1", "t0ken-of-mine"
    headers = (*OURS, (b"Authorization", f"Bearer {token}".encode()))
    real = sent(OutboundRequest("POST", f"{recorder.base}/p/{key}?c=1", headers, f"key={key}".encode()))
    shown = replace(
        real,
        url=real.url.replace(key, "[secret:0a1b2c3d]"),
        request_head=real.request_head.replace(key.encode(), b"[secret:0a1b2c3d]").replace(
            token.encode(), b"[secret:99887766]"
        ),
        request_body=real.request_body.replace(key.encode(), b"[secret:0a1b2c3d]"),
    )
    command = curl_command(shown)
    assert placeholders(shown) == ["[secret:0a1b2c3d]", "[secret:99887766]"]
    assert "# Fill in [secret:0a1b2c3d] before running this: in the URL, in the body." in command
    assert "# Fill in [secret:99887766] before running this: in the header Authorization." in command
    filled = command.replace("[secret:0a1b2c3d]", key).replace("[secret:99887766]", token)
    recorder.heard.clear()
    subprocess.run(["sh", "-c", filled], check=True, capture_output=True, timeout=30)
    assert recorder.heard == [wire(real)]


def test_what_never_left_is_said_to_be_unknown() -> None:
    """A hop that failed before its first byte has no headers to show."""
    hop = Hop(
        number=1,
        url="https://ads.example.com/p?c=1",
        method="POST",
        started_at=datetime(2026, 11, 22, 9, tzinfo=UTC),
        request_head=b"",
    )
    command = curl_command(hop)
    assert "# No byte of this request had left" in command
    assert command.endswith("  -X 'POST' \\\n  'https://ads.example.com/p?c=1'\n")


@pytest.mark.parametrize("raw", [b"\x1b[2Jgone", "\u202etxt.exe".encode(), b"a\rb", b"\x9b31m", b"\x07"])
def test_a_command_cannot_steer_the_terminal_it_is_shown_in(raw: bytes) -> None:
    """What is no printable ASCII is written out in digits."""
    shown = quoted(raw)
    assert shown.isascii()
    assert shown.isprintable()
