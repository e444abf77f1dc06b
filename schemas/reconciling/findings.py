"""What a reconciliation can find: the buckets, the causes, whose move it is, and the finding of one row or postback."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum


class Bucket(StrEnum):
    """How one conversion stands in the two logs."""

    MATCHED = "matched"
    """In both, with the same value, on the same day."""
    OURS_ONLY = "ours_only"
    """In our log, not counted by the network."""
    THEIRS_ONLY = "theirs_only"
    """Counted by the network, and nothing that we told it."""
    DUPLICATE = "duplicate"
    """Counted by the network more often than it happened."""
    VALUE_MISMATCH = "value_mismatch"
    """In both, with another value."""
    DAY_SHIFT = "day_shift"
    """In both, on another day."""


COUNTED = (Bucket.MATCHED, Bucket.VALUE_MISMATCH, Bucket.DAY_SHIFT)
"""The buckets in which the network has counted the postback."""


class Side(StrEnum):
    """Whose move it is."""

    NOBODY = "nobody"
    """The logs agree once this is known: nothing to settle, and not counted against the thresholds."""
    US = "us"
    """Something to mend on our side, or before us."""
    NETWORK = "network"
    """To be put to the network's support, with the evidence."""
    OPEN = "open"
    """The evidence does not say."""


class Cause(StrEnum):
    """Why, as far as the evidence says. ``CAUSES`` says whose move each is and what to do."""

    STILL_HELD = "still_held"
    IN_FLIGHT = "in_flight"
    RETRYING = "retrying"
    VOIDED = "voided"
    EXPIRED = "expired"
    DEAD = "dead"
    REJECTED = "rejected"
    IN_DOUBT = "in_doubt"
    DUPLICATE_OF_OURS = "duplicate_of_ours"
    RETRACTED = "retracted"
    REDIRECT_NOT_COMPLETED = "redirect_not_completed"
    BODY_SAID_NO = "body_said_no"
    ATTRIBUTION_AGE = "attribution_age"
    DELIVERED_AFTER_REPORT = "delivered_after_report"
    DECLINED_BY_NETWORK = "declined_by_network"
    NOT_COUNTED = "not_counted"
    TRUNCATED = "truncated"
    CASE_FOLDED = "case_folded"
    PERIOD_LOST = "period_lost"
    REENCODED = "reencoded"
    SPREADSHEET = "spreadsheet"
    OTHER_CLICK_ID = "other_click_id"
    UNREPLACED_MACRO = "unreplaced_macro"
    REFUSED_AT_INTAKE = "refused_at_intake"
    UNROUTED = "unrouted"
    NEVER_SENT = "never_sent"
    OTHER_DESTINATION = "other_destination"
    OTHER_ORDER = "other_order"
    UNKNOWN_TO_US = "unknown_to_us"
    TOLD_TWICE = "told_twice"
    COUNTED_TWICE = "counted_twice"
    CURRENCY_DIFFERS = "currency_differs"
    CORRECTION_NOT_SHOWN = "correction_not_shown"
    CONSTANT_RATIO = "constant_ratio"
    MINOR_UNITS = "minor_units"
    ROUNDED = "rounded"
    VALUE_MISSING = "value_missing"
    VALUE_DIFFERS = "value_differs"
    TIME_ZONE_SHIFT = "time_zone_shift"
    DATED_OTHERWISE = "dated_otherwise"
    OUTSIDE_PERIOD = "outside_period"
    DAY_DIFFERS = "day_differs"
    COUNTED_ANYWAY = "counted_anyway"
    SUM_DIFFERS = "sum_differs"


@dataclass(frozen=True, slots=True)
class About:
    """``title`` in a listing, ``side`` whose move it is, ``step`` what to do next."""

    title: str
    side: Side
    step: str


_N, _U, _S, _O = Side.NOBODY, Side.US, Side.NETWORK, Side.OPEN
CAUSES: dict[Cause, About] = {
    Cause.STILL_HELD: About("still held", _N, "Nothing: its window is open, and it fires when that ends."),
    Cause.IN_FLIGHT: About("about to be fired", _N, "Nothing: it is being fired; reconcile again later."),
    Cause.RETRYING: About("retrying", _U, "See its last attempt: it goes on trying by itself."),
    Cause.VOIDED: About(
        "voided", _N, "Nothing: it was taken back before it fired, so the network is right not to count it."
    ),
    Cause.EXPIRED: About(
        "expired", _U, "Shorten the window or fire sooner: the network's age limit passed first."
    ),
    Cause.DEAD: About("attempts exhausted", _U, "Mend what kept it from the network and replay it."),
    Cause.REJECTED: About("rejected by the network", _U, "Read the refusal, mend the request and replay it."),
    Cause.IN_DOUBT: About(
        "outcome unknown",
        _U,
        "The network does not show it, so it may be replayed once the report is complete.",
    ),
    Cause.DUPLICATE_OF_OURS: About(
        "a duplicate, never fired", _N, "Nothing: the network would take it for another one of ours."
    ),
    Cause.RETRACTED: About("retracted", _N, "Nothing: the network was told that it does not stand."),
    Cause.REDIRECT_NOT_COMPLETED: About(
        "redirect not completed",
        _U,
        "The network counts at the end of its redirects: allow their hosts, then replay.",
    ),
    Cause.BODY_SAID_NO: About(
        "the body said no", _U, "The answer refused it in its body: mend what it names, then replay."
    ),
    Cause.ATTRIBUTION_AGE: About(
        "older than the attribution window",
        _U,
        "It came too late after the click: shorten the window, or ask the network for a longer one.",
    ),
    Cause.DELIVERED_AFTER_REPORT: About(
        "delivered after the report was made", _N, "Nothing: look for it in the network's next report."
    ),
    Cause.DECLINED_BY_NETWORK: About(
        "listed, but not as counted", _S, "Ask the network's support why it was declined."
    ),
    Cause.NOT_COUNTED: About(
        "delivered, and no cause found in the evidence",
        _S,
        "Put it to the network's support with the bundle.",
    ),
    Cause.TRUNCATED: About(
        "truncated click id", _O, "Widen the column or field that cuts the click id: it has to stay whole."
    ),
    Cause.CASE_FOLDED: About(
        "case-folded click id", _O, "Find what changes the click id's case: it must be kept as it came."
    ),
    Cause.PERIOD_LOST: About(
        "lost trailing period", _O, "Find what strips the click id's last period: it is part of it."
    ),
    Cause.REENCODED: About("re-encoded click id", _O, "Encode the click id exactly once on its way."),
    Cause.SPREADSHEET: About(
        "rounded by a spreadsheet",
        _O,
        "Export the report as text: a spreadsheet made a number of the id and lost its last digits.",
    ),
    Cause.OTHER_CLICK_ID: About(
        "another click id for the order",
        _O,
        "Compare where each click id came from: only one click can be credited.",
    ),
    Cause.UNREPLACED_MACRO: About(
        "unreplaced macro",
        _U,
        "Fill the macro in at the ad's landing page URL: no click can be credited by it.",
    ),
    Cause.REFUSED_AT_INTAKE: About(
        "refused at our intake", _U, "Mend what the reject names and send the event again."
    ),
    Cause.UNROUTED: About("no destination took it", _U, "See why it was not routed: `holdfire trail`."),
    Cause.NEVER_SENT: About(
        "counted, though we never told it",
        _O,
        "Find what else tells the network: a pixel on the page beside the postbacks counts twice.",
    ),
    Cause.OTHER_DESTINATION: About(
        "told under another destination", _U, "Compare the accounts: it belongs to another destination."
    ),
    Cause.OTHER_ORDER: About(
        "known click, unknown order",
        _O,
        "Look for the order in the shop: we know the click, and no such order of it.",
    ),
    Cause.UNKNOWN_TO_US: About(
        "unknown to us", _O, "Ask the network where it has it from, and look for it in the shop."
    ),
    Cause.TOLD_TWICE: About(
        "told twice",
        _U,
        "An attempt's outcome was unknown and another one followed: ask to have it taken off.",
    ),
    Cause.COUNTED_TWICE: About(
        "told once, counted twice", _S, "Put it to the network's support: the log shows one delivery."
    ),
    Cause.CURRENCY_DIFFERS: About(
        "another currency", _O, "Have the report made in the currency that is told, or compare at one rate."
    ),
    Cause.CORRECTION_NOT_SHOWN: About(
        "a correction is not shown", _S, "Put the correction to the network's support: it was told and taken."
    ),
    Cause.CONSTANT_RATIO: About(
        "a constant ratio",
        _O,
        "See whether the network shows a commission or a converted amount: one ratio explains most.",
    ),
    Cause.MINOR_UNITS: About(
        "hundredfold", _U, "Compare how amounts are written: in cents, or with another decimal sign."
    ),
    Cause.ROUNDED: About("rounded", _N, "Nothing: it differs by less than one unit of the currency."),
    Cause.VALUE_MISSING: About(
        "without a value", _O, "See whether the postback's template sends the value, and the report shows it."
    ),
    Cause.VALUE_DIFFERS: About(
        "another value, and no cause found", _S, "Put it to the network's support with the bundle."
    ),
    Cause.TIME_ZONE_SHIFT: About(
        "time-zone shift", _N, "Reconcile with the report's own time zone: --time-zone."
    ),
    Cause.DATED_OTHERWISE: About(
        "dated by another instant", _N, "Reconcile as the network dates: --dated-by click, event or delivery."
    ),
    Cause.OUTSIDE_PERIOD: About(
        "far outside of the report's days", _O, "Compare the instants: the logs date it days apart."
    ),
    Cause.COUNTED_ANYWAY: About(
        "counted, though we did not know",
        _N,
        "Settle it as delivered: the report is the answer that never came.",
    ),
    Cause.SUM_DIFFERS: About(
        "the day's sums differ, and no cause found",
        _O,
        "Ask the network for a report that lists conversions.",
    ),
    Cause.DAY_DIFFERS: About("another day, and no cause found", _O, "Compare the instants in the trail."),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One row or postback, judged. ``explanation`` says what the evidence shows, and names no click id and no order: it
    is kept when a person's data are erased.
    """

    bucket: Bucket
    cause: Cause | None
    """None of what matched."""
    side: Side
    explanation: str
    stake: Decimal | None = None
    """What is at stake: the value that is missing, too much, or different. In ``currency``."""
    currency: str | None = None
    days: int | None = None
    """Of a day shift: how many days later the network has it, negative for earlier."""

    @property
    def disputed(self) -> bool:
        """Whether it counts against the thresholds."""
        return self.bucket is not Bucket.MATCHED and self.side is not Side.NOBODY


def finding(  # noqa: PLR0913 — a finding's own fields
    bucket: Bucket,
    cause: Cause,
    explanation: str,
    *,
    side: Side | None = None,
    stake: Decimal | None = None,
    currency: str | None = None,
    days: int | None = None,
) -> Finding:
    """A finding whose side is the cause's own unless the evidence says more."""
    return Finding(bucket, cause, side or CAUSES[cause].side, explanation, stake, currency, days)
