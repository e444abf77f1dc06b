"""The sink's networks, each as one small judge: request and book in, answer and judgement out.

A judge reads the book and changes nothing, so a request can be identified without being counted. The
rules come from the networks' own pages; where a page is silent the profile's settings say what is
assumed, and can be changed.
"""

from __future__ import annotations

from dataclasses import replace

from infra.sink.answers import Answer
from infra.sink.correctable import judge_affise, judge_everflow, judge_generic, judge_keitaro, judge_scaleo
from infra.sink.judgement import Judgement
from infra.sink.judging import NO_CONTENT, OK, Judged, Profile, ProfileSettings, credit_once, objection
from infra.sink.ledger import Book, amount_of
from infra.sink.wire import Request, decode_component


def judge_xandr(request: Request, book: Book, settings: ProfileSettings, base_url: str) -> Judged:
    """Xandr's sspx handler, also ad:personam's.

    Its page: ``sspdata`` is the last parameter, optional parameters stand before it, the trailing period
    is part of the token, and a 302 has to be followed for a conversion to be logged. Limits are those of
    its conversion pixel reference: order_id up to 36 alphanumeric, other up to 20, value a bare number.
    """
    click_id, order_id, value = request.first("sspdata"), request.first("order_id"), request.first("value")
    pixel = request.first("id")
    found = Judgement(False, "", click_id, order_id, value, (pixel, order_id, click_id) if click_id else ())
    reason = _misplaced_sspdata(request) or objection(click_id, book)
    if not reason and not (pixel.isascii() and pixel.isdigit()):
        reason = "pixel-id-missing"
    if not reason and settings.limits:
        reason = _over_limits(order_id, value, request.first("other"))
    segment = request.path.rstrip("/").rpartition("/")
    if reason:
        return NO_CONTENT, replace(found, reason=reason)
    if segment[2] == "bounce":
        if not book.awaits(request.target):
            return NO_CONTENT, replace(found, reason="redirect-not-issued")
        return credit_once(replace(found, closes=request.target), book, settings, NO_CONTENT)
    if not settings.redirects:
        return credit_once(found, book, settings, NO_CONTENT)
    # A bare /sspx has no profile segment, and its second hop must not look like another profile's.
    target = f"{segment[0] or '/xandr'}/bounce?{request.query}"
    answer = Answer(302, headers=(("Location", base_url + target),))
    return answer, replace(found, reason="redirected", opens=target)


def _misplaced_sspdata(request: Request) -> str:
    names = [decode_component(part.partition("=")[0]) for part in request.query.split("&")]
    if "sspdata" not in names:
        return "sspdata-not-in-query" if request.first("sspdata") else ""
    if names.count("sspdata") > 1:
        return "sspdata-repeated"
    return "" if names[-1] == "sspdata" else "sspdata-not-last"


def _over_limits(order_id: str, value: str, other: str) -> str:
    if order_id and not (len(order_id) <= 36 and order_id.isascii() and order_id.isalnum()):
        return "order-id-over-limits"
    if value and amount_of(value) is None:
        return "value-not-a-number"
    return "other-over-limits" if len(other) > 20 else ""


def judge_knorex_xpo(request: Request, book: Book, settings: ProfileSettings, base_url: str) -> Judged:
    """Knorex XPO.

    Its page: the ``kcid`` goes back with the event; a transaction id that is not valid or is duplicated is
    rejected at once; the event's name has to be the one configured. Under the partner protocol a partner's id takes
    its place, and the same one counts again and again.
    """
    click_id, event = request.first("kcid"), request.first("event", "event_name", "name")
    partner_id = request.first("partner_id")
    order_id, value = request.first("order_id", "transaction_id"), request.first("value", "revenue")
    found = Judgement(
        False, "", click_id, order_id, value, (click_id, event) if click_id else (), detail=event
    )
    if not click_id and not partner_id:
        return Answer(400, b"kcid is missing"), replace(found, reason="click-id-missing")
    if click_id and (reason := objection(click_id, book)):
        return Answer(404, b"unknown kcid"), replace(found, reason=reason)
    if not event or (settings.events and event not in settings.events):
        reason = "event-name-mismatch" if event else "event-name-missing"
        return Answer(422, b"unknown event name"), replace(found, reason=reason)
    if not click_id:
        rebills = replace(settings, duplicates="counted")
        return credit_once(replace(found, key=(partner_id, event)), book, rebills, OK)
    return credit_once(found, book, settings, OK)


def judge_pushground(request: Request, book: Book, settings: ProfileSettings, base_url: str) -> Judged:
    """Pushground. Its page: 200 says that processing was tried, even if it did not succeed."""
    click_id, value = request.first("click_id"), request.first("payout")
    found = Judgement(False, "", click_id, request.first("order_id"), value, (click_id,) if click_id else ())
    reason = objection(click_id, book)
    if not reason and not value:
        reason = "payout-missing"
    if not reason and amount_of(value) is None:
        reason = "payout-not-a-number"
    if reason:
        return OK, replace(found, reason=reason)
    return credit_once(found, book, settings, OK)


def has_key(request: Request, keys: tuple[str, ...]) -> bool:
    """Whether a key of ``keys`` (any, when empty) came as X-API-Key, bearer token or query ``key``."""
    bearer = request.header("authorization")
    bearer = bearer[7:].strip() if bearer[:7].lower() == "bearer " else ""
    offered = [one for one in (request.header("x-api-key"), bearer, request.first("key")) if one]
    return any(one in keys for one in offered) if keys else bool(offered)


def judge_ezmob(request: Request, book: Book, settings: ProfileSettings, base_url: str) -> Judged:
    """EZmob. Its page's sample reads ``c`` and ``value``, answers ``Success`` and advises an API key or OAuth."""
    click_id, value = request.first("c", "click_id"), request.first("value")
    found = Judgement(False, "", click_id, request.first("order_id"), value, (click_id,) if click_id else ())
    if not has_key(request, settings.keys):
        refused = Answer(401, b"API key required", (("WWW-Authenticate", "Bearer"),))
        return refused, replace(found, reason="key-missing")
    success = Answer(200, b"Success")
    if reason := objection(click_id, book):
        return success, replace(found, reason=reason)
    return credit_once(found, book, settings, success)


PROFILES: dict[str, Profile] = {
    profile.name: profile
    for profile in (
        Profile("xandr", judge_xandr),
        Profile("ad-personam", judge_xandr),
        Profile("knorex-xpo", judge_knorex_xpo, ProfileSettings(duplicates="rejected")),
        Profile("pushground", judge_pushground),
        # The page does not say what a repeat does: the sink assumes the costly answer.
        Profile("ezmob", judge_ezmob, ProfileSettings(duplicates="counted")),
        Profile("everflow", judge_everflow, ProfileSettings(duplicates="counted")),
        Profile("affise", judge_affise),
        Profile("keitaro", judge_keitaro),
        Profile("scaleo", judge_scaleo, ProfileSettings(duplicates="counted")),
        Profile("generic", judge_generic, ProfileSettings(duplicates="counted")),
    )
}

KNOWN_PATHS = {"/sspx": "xandr"}
"""Paths that name their network by themselves, so that a real URL works with only its host changed."""


def profile_of(path: str) -> Profile:
    """The profile a path selects: by first segment, by a known path, else ``generic``."""
    first = path[1:].partition("/")[0]
    return PROFILES.get(first) or PROFILES[KNOWN_PATHS.get(path, "generic")]
