"""What a redirect asks for next: target, method, body and headers of the following request. Pure.

RFC 9110 §15.4 for methods and headers, RFC 3986 §5.2 for resolving Location, on bytes as they came: nothing
is re-encoded that could be sent as it stands.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from infra.http.urls import BadUrlError, split_url
from schemas.exchange import FailureKind, Headers, Hop, OutboundRequest, header_fields

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE | re.ASCII)
_UNSENDABLE = re.compile(rb"[^\x21-\x7e]")
_OF_THE_BODY = (b"content-", b"digest", b"repr-digest", b"transfer-encoding", b"last-modified")
_HARMLESS_ELSEWHERE = frozenset(
    {b"accept", b"accept-charset", b"accept-encoding", b"accept-language", b"cache-control", b"user-agent"}
    | {b"content-type", b"content-length", b"content-encoding", b"content-language"}
)
"""Headers another origin may see. A list of what is kept, for keys travel in headers of any name."""


class RedirectRefused(Exception):  # noqa: N818 — named as the domain says it: the redirect was refused
    """A redirect that is not followed, with the kind of failure it is."""

    def __init__(self, kind: FailureKind, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def asks_redirect(hop: Hop) -> bool:
    """Whether the hop's answer is a redirect that names where to. Without Location it is just an answer."""
    return hop.status_code in _REDIRECTS and _location(hop) is not None


def _location(hop: Hop) -> bytes | None:
    fields = header_fields(hop.response_head)
    return next((value for name, value in fields if name.lower() == b"location"), None)


def redirected(request: OutboundRequest, hop: Hop) -> OutboundRequest:
    """The request that follows ``hop``, which `asks_redirect`. Raises `RedirectRefused`."""
    location = _location(hop)
    assert location is not None
    url = resolve_location(request.url, location)
    try:
        here, there = split_url(request.url).origin, split_url(url).origin
    except BadUrlError as error:
        raise RedirectRefused(FailureKind.REFUSED_BY_GUARD, f"Location is not followed: {error}") from None
    if here.scheme == "https" and there.scheme == "http":
        raise RedirectRefused(
            FailureKind.REFUSED_BY_GUARD, f"Location goes from https down to plain http on {there.host}"
        )
    method, body, headers = request.method, request.body, request.headers
    if (hop.status_code == 303 and method != "HEAD") or (hop.status_code in (301, 302) and method == "POST"):
        method, body = "GET", b""
        headers = _without(headers, lambda name: name.startswith(_OF_THE_BODY))
    if here != there:
        headers = _without(headers, lambda name: name not in _HARMLESS_ELSEWHERE)
    return OutboundRequest(method, url, headers, body)


def _without(headers: Headers, dropped: Callable[[bytes], bool]) -> Headers:
    return tuple(field for field in headers if not dropped(field[0].lower()))


def resolve_location(base: str, location: bytes) -> str:
    """The absolute URL a Location means, without its fragment.

    Bytes that cannot be in a URL (spaces, controls, non-ASCII) are percent-encoded as they came, and dot
    segments are removed; everything else stands as it was given.
    """
    text = _UNSENDABLE.sub(lambda byte: b"%%%02X" % byte[0][0], location).decode("ascii")
    reference = text.partition("#")[0]
    if _SCHEME.match(reference):
        scheme, _, rest = reference.partition(":")
        return f"{scheme}:{_normal(rest)}" if rest.startswith("//") else reference
    scheme, _, rest = base.partition("#")[0].partition(":")
    if reference.startswith("//"):
        return f"{scheme}:{_normal(reference)}"
    authority, slash, path_and_query = rest[2:].partition("/")
    if not slash and "?" in authority:  # http://host?query
        authority, _, query = authority.partition("?")
        path_and_query = f"?{query}"
    path, _, _ = path_and_query.partition("?")
    if not reference:
        resolved = path_and_query
    elif reference.startswith("?"):
        resolved = path + reference
    elif reference.startswith("/"):
        resolved = reference[1:]
    else:
        resolved = path[: path.rfind("/") + 1] + reference
    return f"{scheme}:{_normal(f'//{authority}/{resolved}')}"


def _normal(rest: str) -> str:
    """Remove dot segments (RFC 3986 §5.2.4) from ``//authority/path?query``; empty segments are kept."""
    hierarchy, mark, query = rest.partition("?")
    authority, slash, path = hierarchy[2:].partition("/")
    kept: list[str] = []
    segments = path.split("/")
    for index, segment in enumerate(segments):
        if segment == "..":
            kept = kept[:-1]
        elif segment != ".":
            kept.append(segment)
        if segment in (".", "..") and index == len(segments) - 1:
            kept.append("")
    return f"//{authority}{slash}{'/'.join(kept)}{mark}{query}"
