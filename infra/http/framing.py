"""The request head, byte for byte: what this builds is what is written and what is recorded. Pure."""

from __future__ import annotations

import re

from infra.http.urls import SplitUrl
from schemas.exchange import OutboundRequest

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_BAD_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_LENGTH_EXPECTED = frozenset({"POST", "PUT", "PATCH"})


class BadRequestHeadError(ValueError):
    """A method or header that would break the framing. The message names it and the remedy, not its value."""


def request_head(request: OutboundRequest, url: SplitUrl) -> bytes:
    """Request line and headers, CRLF-terminated, without the blank line.

    Only ``Host`` (first) and ``Content-Length`` are added, and only where the request does not bring them.
    Raises `BadRequestHeadError` where a header would end its line or contradict the body.
    """
    if not _TOKEN.fullmatch(request.method):
        raise BadRequestHeadError("method: not an HTTP token; write it as GET or POST")
    lines = [f"{request.method} {url.target} HTTP/1.1".encode("ascii")]
    has_host = has_length = False
    for name, value in request.headers:
        if not _NAME.fullmatch(name) or _BAD_VALUE.search(value):
            raise BadRequestHeadError(f"header {name!r}: name or value has a character that cannot be sent")
        lower = name.lower()
        if lower == b"host":
            has_host = True
        elif lower == b"content-length":
            has_length = True
            if value != str(len(request.body)).encode():
                raise BadRequestHeadError("header Content-Length: not the body's length; leave it out")
        elif lower == b"transfer-encoding":
            raise BadRequestHeadError("header Transfer-Encoding: bodies are sent with a length; leave it out")
        lines.append(b"%b: %b" % (name, value))
    if not has_host:
        lines.insert(1, b"Host: " + url.origin.authority.encode("ascii"))
    if not has_length and (request.body or request.method in _LENGTH_EXPECTED):
        lines.append(b"Content-Length: %d" % len(request.body))
    lines.append(b"")
    return b"\r\n".join(lines)
