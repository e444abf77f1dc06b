"""The facts of a conversion and of its postbacks, each with its name, as the trail prints them and the console shows them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from infra.store.records import ConversionRecord, Life, PostbackRecord
from investigations.corrections import OUTCOMES, lost_words, told_last
from investigations.trail import click_id_of, ended_by, retry_words, token_facts, window_words
from investigations.words import clock, money, offset, visible
from schemas.durations import show as duration
from schemas.event import ConversionEvent
from schemas.ids import show
from schemas.lifecycle import State


@dataclass(frozen=True, slots=True)
class Fact:
    """``style`` is of a terminal. One without a name goes on with the fact above it."""

    name: str
    value: str
    style: str = ""
    rest: str = ""
    """What follows the value, without its style."""

    @property
    def text(self) -> str:
        return f"{self.value}{self.rest}"


def conversion_facts(life: Life) -> Iterator[Fact]:
    """What came, when, with which ids, and what its signals leave of it."""
    conversion, event = life.conversion, life.conversion.event
    yield Fact("event", f"{visible(event.event_id)}, from {visible(event.source)}")
    yield Fact("occurred", f"{clock(event.occurred_at)} UTC")
    yield Fact("received", f"{clock(conversion.received_at)} UTC")
    yield from _standing(conversion)
    if event.partner_id:
        sequence = "" if event.sequence is None else f", sequence {event.sequence}"
        yield Fact("partner id", f"{visible(event.partner_id)}{sequence}")
    for network, token in event.click_ids.items():
        yield Fact("click id", f"{visible(network)}  {visible(token)}")
        yield Fact("", token_facts(token), "dim")
    for match in conversion.matches:
        yield Fact("click id", f"{match.destination}  {visible(match.click_id)}")
        found = f"found by {match.key}, from click {match.click}; {token_facts(match.click_id)}"
        yield Fact("", found, "dim")
    for key in ("lead_id", "customer_id", "device_id"):
        if (value := getattr(event, key)) is not None:
            yield Fact(key.replace("_", " "), visible(value))
    for name, value in event.params.items():
        yield Fact("param", f"{visible(name)} = {visible(value)}")


def _standing(conversion: ConversionRecord) -> Iterator[Fact]:
    value, currency = conversion.event.value, conversion.event.currency
    if conversion.net_value != value:
        yield Fact(
            "net value", money(conversion.net_value, currency), "magenta", f" of {money(value, currency)}"
        )
    if conversion.erased_at is not None:
        by = visible(conversion.erased_by or "")
        yield Fact(
            "erased",
            f"{clock(conversion.erased_at)} UTC by {by}: only sums, states and times are left",
            "bold red",
        )
    if conversion.outcomes:
        yield Fact("stands", "; ".join(OUTCOMES[each] for each in conversion.outcomes), "magenta")


def postback_facts(life: Life, postback: PostbackRecord) -> Iterator[Fact]:
    """The contract it is held under, its window and retries in words, its age limit, and what the network shows."""
    contract, event = postback.version.contract, life.conversion.event
    yield Fact("network", f"{contract.network.slug}, contract version {postback.version.number}")
    if postback.adjusts is None:
        yield from _conversions_own(life, postback)
    else:
        yield Fact("held", _held(postback, event))
    if postback.expires_at is not None:
        since = offset(event.occurred_at, postback.expires_at)
        yield Fact("age limit", f"{clock(postback.expires_at)} UTC  {since}")
    for reason in postback.unreadable:
        yield Fact("missing", f"evidence is in an archive that cannot be read: {visible(reason)}", "bold red")


def _conversions_own(life: Life, postback: PostbackRecord) -> Iterator[Fact]:
    """What a correction shares with what it corrects."""
    yield _window(life, postback)
    yield Fact("retry", retry_words(postback))
    token = click_id_of(postback, life.conversion.attributed)
    if token is not None:
        yield Fact("click id", visible(token))
    if postback.state is State.DELIVERED:
        yield from _told(life, postback)


def _window(life: Life, postback: PostbackRecord) -> Fact:
    contract, event, early = postback.version.contract, life.conversion.event, ended_by(life, postback)
    verb = "ends" if early is None else f"ended early by {show('sg', early.id)}:"
    ends = f"; {verb} {clock(postback.release_at)} UTC  {offset(event.occurred_at, postback.release_at)}"
    hold = contract.destination.hold_for(event)
    open_for_a_while = hold.kind != "none" or hold.schedule is not None
    return Fact("window", window_words(postback, event) + (ends if open_for_a_while else ""))


def _held(postback: PostbackRecord, event: ConversionEvent) -> str:
    wait = postback.version.contract.destination.adjust.wait
    if not wait:
        return "not at all: fires at once"
    end = f"{clock(postback.release_at)} UTC  {offset(event.occurred_at, postback.release_at)}"
    return f"for {duration(wait)}, so that several signals make one correction; until {end}"


def _told(life: Life, postback: PostbackRecord) -> Iterator[Fact]:
    """What the network shows, where that is not what was ordered, and what it should show."""
    if (last := told_last(life, postback)) is not None:
        yield Fact("told last", last, "magenta")
    if postback.lost_at is not None:
        yield Fact("lost", lost_words(life, postback), "bold red")
