"""One hop as the curl command that sends the same bytes again: copy, fill in what is masked, run. Pure.

curl has opinions of its own on headers, and every one of them is taken from it here: what it would add is switched
off, and what it would drop or move goes along with its neighbour. Checked against curl itself by the tests.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from schemas.exchange import Hop

PLACEHOLDER = re.compile(r"\[(?:secret:[0-9a-f]{8}|click:[0-9a-f]{8},[0-9]+)\]")
"""How evidence shows what was masked in it."""

_CURL = "curl -q --http1.1 --path-as-is --globoff --noproxy '*'"
"""Nobody's ``.curlrc``, proxy or idea of brackets has a say in it."""
_FIELD = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[ \t]*[^ \t]")
"""A header field that curl sends as it is given: with a name it takes and a value that is not empty."""
_SAFE_URL = re.compile(
    r"https?://[^/?#@]+(?:/[A-Za-z0-9\-._~!$&'()*+,;=:@%/]*)(?:\?[A-Za-z0-9\-._~!$&'()*+,;=:@%/?]+)?"
)
_ARGUMENT_BYTES = 65_536
"""Longer bodies are piped: the kernel bounds one argument at 128 KiB."""
_EXPECT_BYTES = 1024
"""From this length of the body on some versions of curl first ask whether they may go on."""


def curl_command(hop: Hop) -> str:
    """The command, in lines that a POSIX shell takes as they stand; comments say what has to be filled in first.

    Byte for byte what was sent, but for masked secrets. Where nothing was sent, what would have been asked for.
    """
    return "\n".join([*_notes(hop), " \\\n  ".join(_parts(hop))]) + "\n"


def quoted(raw: bytes) -> str:
    """One word of a POSIX shell: printable ASCII in single quotes, anything else written out by ``printf``."""
    if all(0x20 <= byte < 0x7F for byte in raw):
        return "'" + raw.decode("ascii").replace("'", "'\\''") + "'"
    return f'"$({_printf(raw)})"'


def placeholders(hop: Hop) -> list[str]:
    """What was masked in the request and has to be filled in, in order and each once."""
    request = b"\n".join((hop.url.encode(), hop.request_head, hop.request_body)).decode("latin-1")
    return list(dict.fromkeys(PLACEHOLDER.findall(request)))


def _notes(hop: Hop) -> Iterator[str]:
    for each in placeholders(hop):
        yield f"# Fill in {each} before running this: {', '.join(_places(hop, each))}."
    if PLACEHOLDER.search(hop.request_body.decode("latin-1")):
        yield "# Content-Length is that of the body with its secrets filled in."
    if not hop.request_head:
        yield "# No byte of this request had left: headers and body were not recorded."


def _places(hop: Hop, text: str) -> Iterator[str]:
    target, *fields = _lines(hop.request_head)
    if text in hop.url or text.encode() in target:
        yield "in the URL"
    for field in fields:
        if text.encode() in field:
            yield f"in the header {field.partition(b':')[0].decode('ascii', 'replace')}"
    if text.encode() in hop.request_body:
        yield "in the body"


def _parts(hop: Hop) -> Iterator[str]:
    method, target, fields = _request(hop)
    body = hop.request_body
    piped = bool(body) and (len(body) > _ARGUMENT_BYTES or any(not 0x20 <= byte < 0x7F for byte in body))
    yield f"{_printf(body)} | {_CURL}" if piped else _CURL
    if method == "HEAD" and not body:
        yield "--head"
    elif method != "GET" or body:
        yield f"-X {quoted(method.encode())}"
    if target is not None and not _SAFE_URL.fullmatch(hop.url):
        yield f"--request-target {quoted(target)}"
    if hop.request_head:
        yield from (f"-H {quoted(each)}" for each in _headers(fields, body))
    if body:
        yield "--data-binary @-" if piped else f"--data-raw {quoted(body)}"
    yield quoted(hop.url.encode())


def _request(hop: Hop) -> tuple[str, bytes | None, list[bytes]]:
    """Method, target and header fields as they stood on the wire; without a target where nothing was sent."""
    if not hop.request_head:
        return hop.method, None, []
    first, *fields = _lines(hop.request_head)
    method, _, rest = first.partition(b" ")
    return method.decode("latin-1"), rest.rpartition(b" ")[0], fields


def _headers(fields: list[bytes], body: bytes) -> Iterator[bytes]:
    """What ``-H`` is to be given, so that curl sends these fields, in this order, and no others."""
    names = [field.partition(b":")[0].strip().lower() for field in fields]
    ours = [b"Host", b"User-Agent", b"Accept"]
    if body:
        ours += [b"Content-Type", b"Content-Length"]
        ours += [b"Expect"] if len(body) > _EXPECT_BYTES else []
    # curl puts Host first wherever it is given; and only a field beside another one can be empty.
    moved = b"host" in names and names.index(b"host") > 0
    yield from (name + b":" for name in ours if name.lower() not in names or (moved and name == b"Host"))
    joined: list[bytes] = []
    for place, (name, field) in enumerate(zip(names, fields, strict=True)):
        alone = _FIELD.match(field) and (name != b"host" or place == 0)
        if alone or not joined:
            joined.append(field)
        else:
            joined[-1] += b"\r\n" + field
    yield from joined


def _lines(head: bytes) -> list[bytes]:
    return head.removesuffix(b"\r\n").split(b"\r\n")


def _printf(raw: bytes) -> str:
    shown = []
    for place, byte in enumerate(raw):
        char = chr(byte)
        if not 0x20 <= byte < 0x7F or (char == "-" and not place):
            shown.append(f"\\{byte:03o}")
        else:
            shown.append({"\\": "\\\\", "%": "%%", "'": "'\\''"}.get(char, char))
    return f"printf '{''.join(shown)}'"
