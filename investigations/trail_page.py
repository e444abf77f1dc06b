"""The trail as it is printed: what came, where it goes, what happened in time order, and what happens next."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rich.text import Text

from infra.store.records import ConversionRecord, Life, PostbackRecord, RejectRecord, SignalRecord
from investigations.corrections import OUTCOMES, in_reading_order, lost_words, title, told_last
from investigations.next_step import next_step
from investigations.page import STATE_STYLES, label, line
from investigations.trail import (
    Moment,
    click_id_of,
    ended_by,
    moments,
    retry_words,
    signal_words,
    token_facts,
    window_words,
)
from investigations.words import clock, money, offset, visible
from schemas.durations import show as duration
from schemas.event import ConversionEvent
from schemas.ids import show
from schemas.lifecycle import State


def life_page(life: Life) -> Iterator[Text]:
    """One conversion's whole life."""
    yield from _conversion(life)
    for postback in in_reading_order(life):
        yield line("")
        yield from _postback(life, postback)
    yield line("")
    yield from _timeline(life)
    yield line("")
    yield from _now(life)


def _conversion(life: Life) -> Iterator[Text]:
    conversion, event = life.conversion, life.conversion.event
    order = f"order {visible(event.order_id)}" if event.order_id else "no order id"
    yield line(
        (show("cv", conversion.id), "bold"),
        "  ",
        (visible(event.name), "bold"),
        f"  {money(event.value, event.currency)}  {order}",
    )
    yield line("")
    yield label("event", f"{visible(event.event_id)}, from {visible(event.source)}")
    yield label("occurred", f"{clock(event.occurred_at)} UTC")
    yield label("received", f"{clock(conversion.received_at)} UTC")
    yield from _standing(conversion)
    if event.partner_id:
        sequence = "" if event.sequence is None else f", sequence {event.sequence}"
        yield label("partner id", f"{visible(event.partner_id)}{sequence}")
    for network, token in event.click_ids.items():
        yield label("click id", f"{visible(network)}  {visible(token)}")
        yield label("", (token_facts(token), "dim"))
    for match in conversion.matches:
        yield label("click id", f"{match.destination}  {visible(match.click_id)}")
        yield label(
            "", (f"found by {match.key}, from click {match.click}; {token_facts(match.click_id)}", "dim")
        )
    for key in ("lead_id", "customer_id", "device_id"):
        if (value := getattr(event, key)) is not None:
            yield label(key.replace("_", " "), visible(value))
    for name, value in event.params.items():
        yield label("param", f"{visible(name)} = {visible(value)}")


def _standing(conversion: ConversionRecord) -> Iterator[Text]:
    """What its signals leave of it."""
    value, currency = conversion.event.value, conversion.event.currency
    if conversion.net_value != value:
        left = (money(conversion.net_value, currency), "magenta")
        yield label("net value", left, f" of {money(value, currency)}")
    if conversion.outcomes:
        yield label("stands", ("; ".join(OUTCOMES[each] for each in conversion.outcomes), "magenta"))


def _postback(life: Life, postback: PostbackRecord) -> Iterator[Text]:
    contract, event = postback.version.contract, life.conversion.event
    yield line(
        (show("pb", postback.id), "bold"),
        " → ",
        (contract.name, "bold"),
        "  ",
        (postback.state.value, STATE_STYLES[postback.state]),
        "" if postback.adjusts is None else f"  {title(postback)}",
    )
    yield label("network", f"{contract.network.slug}, contract version {postback.version.number}")
    if postback.adjusts is None:
        yield from _conversions_own(life, postback)
    else:
        yield label("held", _held(postback, event))
    if postback.expires_at is not None:
        yield label(
            "age limit", f"{clock(postback.expires_at)} UTC  {offset(event.occurred_at, postback.expires_at)}"
        )


def _conversions_own(life: Life, postback: PostbackRecord) -> Iterator[Text]:
    """What a correction shares with what it corrects."""
    yield from _window(life, postback)
    yield label("retry", retry_words(postback))
    token = click_id_of(postback, life.conversion.attributed)
    if token is not None:
        yield label("click id", visible(token))
    if postback.state is State.DELIVERED:
        yield from _told(life, postback)


def _window(life: Life, postback: PostbackRecord) -> Iterator[Text]:
    contract, event, early = postback.version.contract, life.conversion.event, ended_by(life, postback)
    verb = "ends" if early is None else f"ended early by {show('sg', early.id)}:"
    ends = f"; {verb} {clock(postback.release_at)} UTC  {offset(event.occurred_at, postback.release_at)}"
    hold = contract.destination.hold_for(event)
    open_for_a_while = hold.kind != "none" or hold.schedule is not None
    yield label("window", window_words(postback, event) + (ends if open_for_a_while else ""))


def _held(postback: PostbackRecord, event: ConversionEvent) -> str:
    wait = postback.version.contract.destination.adjust.wait
    if not wait:
        return "not at all: fires at once"
    end = f"{clock(postback.release_at)} UTC  {offset(event.occurred_at, postback.release_at)}"
    return f"for {duration(wait)}, so that several signals make one correction; until {end}"


def _told(life: Life, postback: PostbackRecord) -> Iterator[Text]:
    """What the network shows, where that is not what was ordered, and what it should show."""
    if (last := told_last(life, postback)) is not None:
        yield label("told last", (last, "magenta"))
    if postback.lost_at is not None:
        yield label("lost", (lost_words(life, postback), "bold red"))


def _timeline(life: Life) -> Iterator[Text]:
    start = life.conversion.event.occurred_at
    rows = moments(life)
    offsets = [offset(start, moment.at) for moment in rows]
    width = max(len("since event"), *map(len, offsets))
    subject = max(len(moment.subject) for moment in rows)
    yield line((f"{'time (UTC)':<23}  {'since event':>{width}}  {'':<{subject}}  what happened", "dim"))
    for moment, since in zip(rows, offsets, strict=True):
        yield from _moment(moment, f"{since:>{width}}", subject)


def _moment(moment: Moment, since: str, subject: int) -> Iterator[Text]:
    yield line(
        clock(moment.at),
        "  ",
        (since, "dim"),
        "  ",
        (f"{moment.subject:<{subject}}", "bold"),
        "  ",
        (moment.text, moment.style),
    )
    for detail in moment.details:
        yield line(" " * 6, (detail, "dim"))


def _now(life: Life) -> Iterator[Text]:
    yield line(("now", "bold"), f"  {clock(life.now)} UTC")
    if not life.postbacks:
        yield line("  nothing happens next: no destination takes this conversion")
        return
    rows = [(show("pb", each.id), each.version.contract.name, each) for each in in_reading_order(life)]
    ids = max(len(number) for number, _, _ in rows)
    names = max(len(name) for _, name, _ in rows)
    for number, name, postback in rows:
        state = (f"{postback.state.value:<9}", STATE_STYLES[postback.state])
        yield line(f"  {number:<{ids}}  {name:<{names}}  ", state, "  ", visible(next_step(life, postback)))


def signals_page(signals: Iterable[SignalRecord]) -> Iterator[Text]:
    """Signals by themselves: what each says and came to."""
    for signal in signals:
        target = signal.event.conversion_event_id or f"order {signal.event.order_id}"
        yield line((show("sg", signal.id), "bold"), "  ", (signal_words(signal.event), "magenta"))
        yield label("about", visible(target))
        yield label("occurred", f"{clock(signal.event.occurred_at)} UTC")
        yield label("received", f"{clock(signal.received_at)} UTC")
        yield label("came to", f"{signal.status}: {visible(signal.outcome)}")


def rejects_page(rejects: Iterable[RejectRecord]) -> Iterator[Text]:
    """What could not be taken, why, and what came verbatim."""
    for reject in rejects:
        named = f"{visible(reject.event_id or 'no event id')}, from {visible(reject.source or 'an unnamed source')}"
        yield line((f"reject {reject.id}", "bold"), "  ", (reject.code, "red"), f"  {named}")
        yield label("received", f"{clock(reject.received_at)} UTC")
        for problem in reject.problems:
            yield label("because", visible(str(problem)))
        yield label("verbatim", (visible(reject.raw), "dim"))
