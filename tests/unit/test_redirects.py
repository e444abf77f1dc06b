"""What a redirect asks for next, as a table."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from infra.http.redirects import RedirectRefused, asks_redirect, redirected, resolve_location
from schemas.exchange import FailureKind, Hop, OutboundRequest

BASE = "https://network.test/a/b/c?d=e"


def answer(status: int, location: bytes | None = b"/next") -> Hop:
    head = b"HTTP/1.1 %d Moved\r\nServer: x\r\n" % status
    if location is not None:
        head += b"lOCATION:  %b \r\n" % location
    moment = datetime(2026, 11, 22, tzinfo=UTC)
    return Hop(1, BASE, "GET", moment, b"", status_code=status, response_head=head)


@pytest.mark.parametrize(
    ("location", "resolved"),
    [
        (b"https://other.test/x", "https://other.test/x"),
        (b"HTTPS://other.test", "HTTPS://other.test"),
        (b"//other.test/x?y", "https://other.test/x?y"),
        (b"/x", "https://network.test/x"),
        (b"x", "https://network.test/a/b/x"),
        (b"./x", "https://network.test/a/b/x"),
        (b"../x", "https://network.test/a/x"),
        (b"../../../x", "https://network.test/x"),
        (b"..", "https://network.test/a/"),
        (b".", "https://network.test/a/b/"),
        (b"?y=z", "https://network.test/a/b/c?y=z"),
        (b"?", "https://network.test/a/b/c?"),
        (b"", BASE),
        (b"#top", BASE),
        (b"/x?y#top", "https://network.test/x?y"),
        (b"//other.test//x//y", "https://other.test//x//y"),
        (b"/%7euser/%2F?q=a+b%20c|~&e=", "https://network.test/%7euser/%2F?q=a+b%20c|~&e="),
        (b"/x?next=/a/../b", "https://network.test/x?next=/a/../b"),
        ("/caf\u00e9 x".encode(), "https://network.test/caf%C3%A9%20x"),
        (b"/caf\xe9", "https://network.test/caf%E9"),
        (b"/x?u=https://y.test/", "https://network.test/x?u=https://y.test/"),
    ],
)
def test_a_location_is_resolved_and_otherwise_left_as_it_came(location: bytes, resolved: str) -> None:
    """Only what cannot be sent is encoded; only dot segments and the fragment go."""
    assert resolve_location(BASE, location) == resolved


@pytest.mark.parametrize(
    ("status", "sent", "follows"),
    [
        (301, "POST", "GET"),
        (302, "POST", "GET"),
        (303, "POST", "GET"),
        (303, "PUT", "GET"),
        (303, "HEAD", "HEAD"),
        (301, "PUT", "PUT"),
        (302, "HEAD", "HEAD"),
        (302, "GET", "GET"),
        (307, "POST", "POST"),
        (308, "POST", "POST"),
        (307, "GET", "GET"),
    ],
)
def test_the_method_is_kept_or_changed_as_the_status_says(status: int, sent: str, follows: str) -> None:
    """RFC 9110 §15.4, with the body and the headers that describe it."""
    headers = ((b"Content-Type", b"text/plain"), (b"X-Key", b"k"))
    after = redirected(OutboundRequest(sent, BASE, headers, b"body"), answer(status))
    kept = sent == follows
    assert after.method == follows
    assert after.body == (b"body" if kept else b"")
    assert after.headers == (headers if kept else headers[1:])


@pytest.mark.parametrize(
    "location", [b"https://other.test/", b"https://network.test:8443/", b"//x.network.test/"]
)
def test_keys_are_not_shown_to_another_origin(location: bytes) -> None:
    """Another host, or another port of the same one, sees only headers that are known to be harmless."""
    harmless = ((b"User-Agent", b"u"), (b"Accept", b"*/*"))
    headers = (
        *harmless,
        (b"Authorization", b"Bearer k"),
        (b"X-Api-Key", b"k"),
        (b"Host", b"h"),
        (b"Cookie", b"c"),
    )
    assert redirected(OutboundRequest("GET", BASE, headers), answer(302, location)).headers == harmless


def test_keys_stay_within_their_origin() -> None:
    """A redirect on the same origin keeps every header, the default port written out or not."""
    headers = ((b"Authorization", b"Bearer k"), (b"X-Api-Key", b"k"))
    after = redirected(OutboundRequest("GET", BASE, headers), answer(302, b"https://NETWORK.test:443/x"))
    assert after.headers == headers


@pytest.mark.parametrize(
    "location",
    [b"http://network.test/", b"ftp://x.test/", b"javascript:x", b"https://u:p@x.test/", b"https:x"],
)
def test_a_location_that_must_not_be_followed_is_refused(location: bytes) -> None:
    """Downgrades to plain http, other schemes and credentials in the URL end the chain."""
    with pytest.raises(RedirectRefused) as refused:
        redirected(OutboundRequest("GET", BASE), answer(302, location))
    assert refused.value.kind is FailureKind.REFUSED_BY_GUARD


def test_an_answer_without_location_or_of_another_status_is_no_redirect() -> None:
    """300 and 304 with a Location, and 302 without one, are just answers."""
    assert asks_redirect(answer(302))
    assert not any(asks_redirect(hop) for hop in (answer(302, None), answer(304), answer(300), answer(201)))
