"""What crossed the wire: the request to send, one HTTP exchange (hop), and what an attempt got back.

These values are what the transport produces, the verdict judges, redaction masks and the store keeps.
Everything is bytes where the wire has bytes: evidence is not normalised.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

_LINE_END = re.compile(rb"\r?\n")

Headers = tuple[tuple[bytes, bytes], ...]
"""Header fields in wire order, names as sent or received, repeats kept."""


@dataclass(frozen=True, slots=True)
class OutboundRequest:
    """One request, fully rendered. ``url`` is sent exactly as it stands: no part is re-encoded."""

    method: str
    url: str
    headers: Headers = ()
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """How far one attempt may go. Durations in seconds, sizes in bytes of the body as received."""

    deadline_s: float = 10.0
    connect_s: float = 5.0
    body_cap_bytes: int = 16_384
    max_hops: int = 5
    follow_redirects: bool = True
    allowed_hosts: tuple[str, ...] = ()
    """Hosts an attempt may talk to; ``*.example.net`` covers subdomains. Empty: the first hop's host only
    limits nothing, and redirects may go to any public host."""
    allow_private: bool = False
    """Whether loopback, private and link-local addresses may be contacted (a test sink, an internal relay)."""
    allow_http: bool = False
    """Whether a first hop over plain http is acceptable. An https→http redirect never is."""


class FailureKind(StrEnum):
    """Why an exchange has no complete answer."""

    DNS = "dns"
    CONNECT = "connect"
    TLS = "tls"
    TIMEOUT = "timeout"
    RESET = "reset"
    PROTOCOL = "protocol"
    REFUSED_BY_GUARD = "refused_by_guard"
    REDIRECT_LOOP = "redirect_loop"
    TOO_MANY_REDIRECTS = "too_many_redirects"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Failure:
    """An exchange that ended without a status line, or a redirect that was not followed.

    ``sent`` is False only when it is certain that no byte of the request left this machine: that
    failure may be repeated whatever the network does with duplicates.
    """

    kind: FailureKind
    sent: bool
    error_class: str
    message: str


@dataclass(frozen=True, slots=True)
class Hop:
    """One HTTP exchange inside an attempt, as it happened. Durations in milliseconds, None where not reached."""

    number: int
    url: str
    method: str
    started_at: datetime
    request_head: bytes
    """Request line and header fields exactly as sent, CRLF-terminated, without the blank line. Empty where
    nothing was sent."""
    request_body: bytes = b""
    addresses: tuple[str, ...] = ()
    """Every address the name resolved to, in resolver order."""
    peer: str | None = None
    """``address:port`` of the other end, IPv6 in brackets."""
    local: str | None = None
    tls_version: str | None = None
    reused: bool | None = None
    dns_ms: float | None = None
    connect_ms: float | None = None
    """TCP and TLS together; the engine does not report them apart."""
    first_byte_ms: float | None = None
    """From the start of the hop, as ``total_ms`` is; ``dns_ms`` is None where the answer was remembered, and
    ``connect_ms`` where the connection was reused."""
    total_ms: float | None = None
    status_code: int | None = None
    response_head: bytes = b""
    """Status line and header fields in order and repeated as received, CRLF-terminated."""
    body: bytes = b""
    """The body as received (still compressed if it came compressed), up to the cap."""
    body_length: int = 0
    """Bytes of body received: more than ``len(body)`` when truncated; reading stops a little past the cap."""
    body_sha256: str | None = None
    """Of all the body bytes received, hexadecimal."""
    truncated: bool = False
    body_error: str | None = None
    """Why the body could not be read in full (the status still counts), e.g. ``ClientPayloadError: …``."""
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """All hops of one attempt. The last hop is what the network finally said."""

    hops: tuple[Hop, ...]
    failure: Failure | None = None
    """Set when the attempt as a whole has no final answer (also when a redirect was refused)."""

    @property
    def last(self) -> Hop | None:
        return self.hops[-1] if self.hops else None

    @property
    def response_head(self) -> bytes:
        """Of the last hop that answered; empty when none did."""
        return next((hop.response_head for hop in reversed(self.hops) if hop.status_code is not None), b"")

    @property
    def response_headers(self) -> Headers:
        """Of the last hop that answered."""
        return header_fields(self.response_head)


def header_fields(head: bytes) -> Headers:
    """The header fields of a response head: in order, repeats kept, white space around values removed."""
    fields: list[tuple[bytes, bytes]] = []
    for line in _LINE_END.split(head)[1:]:
        if line[:1] in (b" ", b"\t") and fields:  # an obsolete folded line goes on with the one before
            name, value = fields[-1]
            fields[-1] = (name, value + b" " + line.strip(b" \t"))
        elif b":" in line:
            name, _, value = line.partition(b":")
            fields.append((name, value.strip(b" \t")))
    return tuple(fields)
