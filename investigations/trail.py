"""A conversion's life as moments in time order. Pure: from what was recorded, nothing is looked up."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlsplit

from infra.store.records import (
    ActRecord,
    AttemptRecord,
    CheckRecord,
    ConversionRecord,
    Life,
    PostbackRecord,
    RedoRecord,
    RejectRecord,
    SignalRecord,
)
from investigations.corrections import correction_told, loss, title, why_lost, withdrawn
from investigations.words import (
    clock,
    milliseconds,
    money,
    ordinal,
    sha256,
    span,
    taken_back,
    visible,
    visible_bytes,
)
from schemas.by_hand import Act
from schemas.click_mask import is_masked
from schemas.conversion import click_id_for
from schemas.durations import show as duration
from schemas.event import ChargebackSignal, ConversionEvent, CreditCheckSignal, RefundSignal, Signal
from schemas.exchange import Hop
from schemas.ids import show
from schemas.lifecycle import State
from schemas.reconciling.findings import CAUSES
from schemas.signals import VoidReason


@dataclass(frozen=True, slots=True)
class Moment:
    """Something that happened at one instant. ``kind`` is stable, for programs; ``text`` and ``details`` are for people."""

    at: datetime
    subject: str
    kind: str
    text: str
    details: tuple[str, ...] = ()
    style: str = ""


def moments(life: Life) -> list[Moment]:
    """Everything that has happened to a conversion, in time order."""
    found = [
        *_arrival(life),
        *_found(life),
        *(_signal(life, signal) for signal in life.signals),
        *map(_repeat, life.repeats),
        *map(_act, life.acts),
        *map(_redone, life.redone),
    ]
    for postback in life.postbacks:
        found += _postback(life, postback)
    return sorted(found, key=lambda moment: moment.at)


def _arrival(life: Life) -> Iterator[Moment]:
    conversion, event = life.conversion, life.conversion.event
    subject = show("cv", conversion.id)
    if event.clicked_at is not None:
        yield Moment(event.clicked_at, subject, "clicked", "the ad was clicked")
    yield Moment(event.occurred_at, subject, "occurred", f"{visible(event.name)} happened")
    if conversion.erased_at is not None:
        text = f"erased by {visible(conversion.erased_by or '')}: what it was about cannot be read any more"
        yield Moment(conversion.erased_at, subject, "erased", text, style="bold red")
    if conversion.unrouted_reason is not None:
        text = f"received, but unrouted: {visible(conversion.unrouted_reason)}"
        yield Moment(conversion.received_at, subject, "unrouted", text, style="red")
    else:
        contracts = [each.version.contract for each in life.postbacks if each.adjusts is None]
        names = ", ".join(each.name for each in contracts if not conversion.found_late(each.name))
        routed = f"routed to {names}" if names else "and no destination took it until its click came"
        yield Moment(conversion.received_at, subject, "received", f"received, {routed}", _refused(conversion))


def _refused(conversion: ConversionRecord) -> tuple[str, ...]:
    return tuple(f"not to {visible(name)}: it {reason}" for name, reason in conversion.refusals.items())


def _found(life: Life) -> Iterator[Moment]:
    """Click ids that a click gave; one moment for several destinations at a network."""
    conversion = life.conversion
    told = set()
    for match in conversion.matches:
        if (match.network, match.click) in told:
            continue
        told.add((match.network, match.click))
        text = f"click id of {match.network} found by {match.key} {visible(match.key_value)}, from click {match.click}"
        late = [
            each.destination
            for each in conversion.matches
            if (each.network, each.click) == (match.network, match.click)
            and conversion.found_late(each.destination)
        ]
        details = [f"clicked   {clock(match.clicked_at)} UTC", f"click id  {visible(match.click_id)}"]
        if late:
            details.append(f"the click came after the conversion: routed to {', '.join(late)} by it")
        yield Moment(match.at, show("cv", conversion.id), "matched", text, tuple(details), "cyan")


def _signal(life: Life, signal: SignalRecord) -> Moment:
    early = signal.received_at < life.conversion.received_at
    came = "it came before its conversion and waited for it" if early else ""
    details = tuple(filter(None, (came, f"{signal.status}: {visible(signal.outcome)}")))
    return Moment(
        signal.received_at, show("sg", signal.id), "signal", signal_words(signal.event), details, "magenta"
    )


def signal_words(event: Signal) -> str:
    """A signal in words: what it says and who said it."""
    match event:
        case RefundSignal(amount=None):
            says = "refund of all of it"
        case RefundSignal():
            total = " in all" if event.amount_is == "cumulative" else ""
            says = f"refund of {money(event.amount, event.currency or '(currency of the order)')}{total}"
        case ChargebackSignal() | CreditCheckSignal():
            says = f"{event.type.replace('_', ' ')}: {event.outcome}"
        case _:
            says = event.type
    because = f", because {visible(event.reason)}" if event.reason else ""
    return f"{says}{because} ({visible(event.event_id)}, from {visible(event.source)})"


def _repeat(reject: RejectRecord) -> Moment:
    if reject.code == "duplicate":
        return Moment(
            reject.received_at, f"reject {reject.id}", "duplicate", "came again: a duplicate, counted once"
        )
    problems = tuple(visible(str(problem)) for problem in reject.problems)
    return Moment(
        reject.received_at,
        f"reject {reject.id}",
        "rejected",
        f"came again and was refused: {reject.code}",
        problems,
    )


def _act(act: ActRecord) -> Moment:
    who, why = visible(act.who), visible(act.reason)
    subject = show("pb", act.postback_id)
    match act.act:
        case Act.VOID:
            wish = {
                State.FIRING: " (an attempt was on the wire: if it failed, no other was to be made)",
                State.DUPLICATE: " (it never takes the place of the first)",
            }
            text = f"voided by {who}: {why}{wish.get(act.state, '') if act.wish else ''}"
            return Moment(act.at, subject, "voided_by_hand", text, style="magenta")
        case Act.EXTEND:
            text = f"extended by {who} from {clock(act.before)} to {clock(act.after)} UTC: {why}"
            return Moment(act.at, subject, "extended_by_hand", text, style="cyan")
        case Act.RELEASE:
            early = f", {span(act.before - act.at)} before its window's end" if act.before > act.after else ""
            return Moment(
                act.at, subject, "released_by_hand", f"released by {who}{early}: {why}", style="cyan"
            )


def _redone(record: RedoRecord) -> Moment:
    """What a person did about one that had ended."""
    subject, who, why = show("pb", record.postback_id), visible(record.who), visible(record.reason)
    run = "" if record.run_id is None else show("rn", record.run_id)
    match record.action:
        case "replay":
            text = f"to be fired again, by {who} in {run}: {why}"
            return Moment(record.at, subject, "replayed", text, tuple(_replay_details(record)), "cyan")
        case "put_back":
            text = f"put back by {who} before it was fired again in {run}: {why}"
            return Moment(record.at, subject, "put_back", text, style="cyan")
    words = "the network has it" if record.said == "delivered" else "the network has not counted it"
    text = f"settled by {who}: {words}: {why}"
    return Moment(record.at, subject, "settled_by_hand", text, style="magenta")


def _replay_details(record: RedoRecord) -> Iterator[str]:
    made = f"after {record.attempts} attempt{'' if record.attempts == 1 else 's'}"
    due = "" if record.due_at is None else f"; due at {clock(record.due_at)} UTC"
    yield f"it was    {record.state} {made if record.attempts else 'without an attempt'}{due}"
    if record.version is not None:
        yield f"version   {record.version} of its destination from then on"
    for why in record.overruled:
        yield f"overruled {visible(why)}"


def nth_attempt(life: Life, postback: PostbackRecord, number: int) -> str:
    """``attempt 2 of 12``; of one that was fired again also which it is since then."""
    of = postback.version.contract.retry.attempts
    before = max(
        (
            each.attempts
            for each in life.redone
            if each.postback_id == postback.id and each.action == "replay" and each.attempts < number
        ),
        default=0,
    )
    if not before:
        return f"attempt {number} of {of}"
    return f"attempt {number}, {number - before} of {of} since it was fired again"


def _postback(life: Life, postback: PostbackRecord) -> Iterator[Moment]:
    subject = show("pb", postback.id)
    closed_at = postback.settled_at if not postback.attempts_made else None
    waited = postback.release_at > life.conversion.received_at
    open_until_then = closed_at is None or closed_at >= postback.release_at
    if (
        waited
        and open_until_then
        and postback.release_at <= life.now
        and postback.state is not State.DUPLICATE
        and not _let_go_early(life, postback)
    ):
        yield Moment(postback.release_at, subject, "released", _released(life, postback))
    for check in postback.checks:
        yield _check(check)
    for attempt in postback.attempts:
        yield _attempt(life, postback, attempt)
    last = postback.last_attempt
    by_attempt = last is not None and last.outcome is not None and last.outcome.state is postback.state
    told = postback.state is State.VOIDED and any(
        not each.wish for each in life.acts_on(postback.id, Act.VOID)
    )
    told |= (postback.reason or "").startswith("settled by hand")
    if postback.lost_at is not None:
        text = loss(life, postback)
        yield Moment(postback.lost_at, subject, "lost", text, (why_lost(life, postback),), style="bold red")
    if postback.counted_by is not None and postback.counted_at is not None:
        text = f"counted by the network: report {show('rp', postback.counted_by)}"
        yield Moment(postback.counted_at, subject, "counted", text, style="green")
    if (found := postback.dispute) is not None:
        text = f"{found.bucket.replace('_', ' ')} in the network's report {show('rp', found.report_id)}: {CAUSES[found.cause].title}"
        yield Moment(found.at, subject, "disputed", text, (visible(found.explanation),), "yellow")
    if postback.settled_at is not None and not by_attempt and not told:
        words = {
            State.VOIDED: _voided(postback),
            State.DUPLICATE: f"set aside: {postback.reason}",
        }.get(postback.state, f"{postback.state}: {postback.reason}")
        yield Moment(postback.settled_at, subject, postback.state.value, visible(words), style="magenta")


def _let_go_early(life: Life, postback: PostbackRecord) -> bool:
    """Whether a person ended the window that it has now: that moment is told by itself."""
    acts = life.acts_on(postback.id, Act.RELEASE)
    return any(act.after == postback.release_at and act.before > act.after for act in acts)


def _check(check: CheckRecord) -> Moment:
    again = f" ({ordinal(check.number)} time)" if check.number > 1 else ""
    stale = "; it came too late to move anything" if check.stale else ""
    text = (
        f"asked its service{again} by {visible(check.worker)} → {check.verdict}: {visible(check.rule)}{stale}"
    )
    style = {"release": "green", "void": "magenta"}.get(check.verdict, "yellow")
    return Moment(check.intent_at, show("ck", check.id), "check", text, tuple(_check_details(check)), style)


def _check_details(check: CheckRecord) -> Iterator[str]:
    for hop in check.hops:
        yield from _hop_details(hop, several=len(check.hops) > 1)
    if check.error_message:
        yield f"error     {visible(check.error_class or '')}: {visible(check.error_message)}"
    if check.archive is not None:
        yield f"archive   read from {visible(check.archive)}"
    following = f"; asks again at {clock(check.asks_again_at)}" if check.asks_again_at else ""
    yield f"ended     {clock(check.ended_at)}, after {span(check.ended_at - check.intent_at)}{following}"


def _voided(postback: PostbackRecord) -> str:
    if postback.void_reason == VoidReason.WITHDRAWN:
        return f"{title(postback)} {withdrawn(postback)}"
    said = f" ({postback.reason})" if postback.reason not in {None, postback.void_reason} else ""
    return f"voided {taken_back(postback.void_reason)}{said}: it never fires"


def ended_by(life: Life, postback: PostbackRecord) -> SignalRecord | None:
    """The signal that ended the window early, in its own account of what it did, if nobody moved the end after it."""
    mine = re.compile(rf"ended the window of [^;]*\b{show('pb', postback.id)}\b")
    ending = [signal for signal in life.signals if mine.search(signal.outcome)]
    if not ending or any(
        act.postback_id == postback.id and act.at > ending[-1].received_at and act.after != act.before
        for act in life.acts
    ):
        return None
    return ending[-1]


def _released(life: Life, postback: PostbackRecord) -> str:
    if (early := ended_by(life, postback)) is not None:
        return f"its window was ended early by {show('sg', early.id)}: due"
    if postback.adjusts is None:
        return "its window ended: due"
    waited = postback.version.contract.destination.adjust.wait
    return f"{title(postback)}, {f'held for {duration(waited)}: due' if waited else 'due at once'}"


def _attempt(life: Life, postback: PostbackRecord, attempt: AttemptRecord) -> Moment:
    what = "" if postback.adjusts is None else f"{title(postback)}, "
    name = f"{what}{nth_attempt(life, postback, attempt.number)}"
    outcome = attempt.outcome
    if outcome is None:
        text, style = f"{name} by {visible(attempt.worker)} → no outcome yet", "cyan"
    else:
        late = "; a late answer came" if attempt.answered_late else ""
        text = f"{name} ({outcome.trigger}) by {visible(attempt.worker)} → {outcome.verdict}: {visible(outcome.rule)}{late}"
        style = {State.DELIVERED: "green", State.RETRYING: "yellow"}.get(outcome.state, "red")
    details = list(_attempt_details(attempt, click_id_of(postback, life.conversion.attributed)))
    if postback.adjusts is not None and outcome is not None and outcome.state is State.DELIVERED:
        details.insert(-1, f"told      {correction_told(life, postback)}")
    return Moment(attempt.intent_at, show("at", attempt.id), "attempt", text, tuple(details), style)


def _attempt_details(attempt: AttemptRecord, expected_click_id: str | None) -> Iterator[str]:
    outcome = attempt.outcome
    if not attempt.hops and attempt.intended_url:
        yield f"intended  {visible(attempt.intended_url)}"
    for hop in attempt.hops:
        yield from _hop_details(hop, several=len(attempt.hops) > 1)
    if outcome is None:
        return
    if outcome.error_message:
        yield f"error     {visible(outcome.error_class or '')}: {visible(outcome.error_message)}"
    if attempt.answered_late:
        yield "late      this answer came after the attempt had been written off; it is evidence, and settled nothing"
    if outcome.click_id is not None:
        # It stands above the timeline; only a different one needs saying in full again.
        facts = f"{visible(outcome.click_id)}  ({token_facts(outcome.click_id)})"
        yield f"click id  {'as above' if outcome.click_id == expected_click_id else facts}"
    for note in outcome.notes:
        yield f"note      {visible(note)}"
    if attempt.archive is not None:
        yield f"archive   read from {visible(attempt.archive)}"
    took = span(outcome.ended_at - attempt.intent_at)
    following = ""
    if outcome.next_attempt_at is not None and outcome.delay_s is not None:
        following = f"; next attempt {outcome.delay_s:.3f} s later, at {clock(outcome.next_attempt_at)}"
    yield f"ended     {clock(outcome.ended_at)}, after {took} → {outcome.state}{following}"


def _hop_details(hop: Hop, *, several: bool) -> Iterator[str]:
    request = hop.request_head.split(b"\r\n", 1)[0]
    number = f"hop {hop.number}     " if several else "sent      "
    if request:
        yield f"{number}{visible_bytes(request)}"
    else:
        yield f"{number}nothing: {visible(hop.method)} {visible(hop.url)} was not written"
    yield f"          {_connection(hop)}"
    if hop.failure is not None:
        yield f"          failed: {hop.failure.kind}: {visible(hop.failure.message)}"
    if hop.response_head:
        status = visible_bytes(hop.response_head.split(b"\r\n", 1)[0])
        cut = ", truncated" if hop.truncated else ""
        yield f"answered  {status}  ({hop.body_length} bytes of body{cut})"
    if hop.body_error:
        yield f"          body: {visible(hop.body_error)}"
    yield (
        f"          dns {milliseconds(hop.dns_ms)}, connect {milliseconds(hop.connect_ms)}, "
        f"first byte {milliseconds(hop.first_byte_ms)}, total {milliseconds(hop.total_ms)}"
    )


def _connection(hop: Hop) -> str:
    host = visible(urlsplit(hop.url).netloc)
    if hop.peer is None:
        tried = f" ({', '.join(hop.addresses)})" if hop.addresses else ""
        return f"to {host}{tried}, never connected"
    parts = [f"to {host} at {hop.peer} from {hop.local}", hop.tls_version or "no TLS"]
    if hop.reused is not None:
        parts.append("kept-alive connection" if hop.reused else "new connection")
    return ", ".join(parts)


def token_facts(token: str) -> str:
    """Length and digest of a click id, so that two writings of it can be told apart; a masked one says both itself."""
    if is_masked(token):
        return "masked"
    return f"{len(token)} characters, SHA-256 {sha256(token)}"


def window_words(postback: PostbackRecord, event: ConversionEvent) -> str:
    """The hold in words: kind, length, where it is measured from, and its schedule."""
    return postback.version.contract.destination.hold_for(event).words()


def retry_words(postback: PostbackRecord) -> str:
    retry = postback.version.contract.retry
    return (
        f"{retry.attempts} attempts, {duration(retry.base)} times {retry.factor:g} up to {duration(retry.cap)}, "
        f"within {duration(retry.horizon)}"
    )


def click_id_of(postback: PostbackRecord, event: ConversionEvent) -> str | None:
    """The token the postback reports: what an attempt used, or else what the next one would use."""
    return click_id_for(postback.version.contract, event)
