"""The trail as it is printed: what came, where it goes, what happened in time order, and what happens next."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rich.text import Text

from infra.store.records import Life, PostbackRecord, RejectRecord, SignalRecord
from investigations.corrections import in_reading_order, title
from investigations.facts import Fact, conversion_facts, postback_facts
from investigations.next_step import next_step
from investigations.page import STATE_STYLES, label, line
from investigations.trail import Moment, moments, signal_words
from investigations.words import clock, money, offset, visible
from schemas.ids import show


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
    event = life.conversion.event
    order = f"order {visible(event.order_id)}" if event.order_id else "no order id"
    yield line(
        (show("cv", life.conversion.id), "bold"),
        "  ",
        (visible(event.name), "bold"),
        f"  {money(event.value, event.currency)}  {order}",
    )
    yield line("")
    yield from map(_fact, conversion_facts(life))


def _postback(life: Life, postback: PostbackRecord) -> Iterator[Text]:
    contract = postback.version.contract
    yield line(
        (show("pb", postback.id), "bold"),
        " → ",
        (contract.name, "bold"),
        "  ",
        (postback.state.value, STATE_STYLES[postback.state]),
        "" if postback.adjusts is None else f"  {title(postback)}",
    )
    yield from map(_fact, postback_facts(life, postback))


def _fact(fact: Fact) -> Text:
    return label(fact.name, (fact.value, fact.style), fact.rest)


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
