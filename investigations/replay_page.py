"""A plan of replays and a run as lines for people and as JSON for programs: nothing is left out of the counts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Any

from rich.text import Text

from infra.store.replays.replay_records import Progress, Refusal, ReplayPlan, RunRecord, Sample
from investigations.page import STATE_STYLES, label, line
from investigations.words import clock, money, span, visible
from schemas.ids import show
from schemas.money import plain
from schemas.replaying import Again


def plan_page(plan: ReplayPlan, per_second: float) -> Iterator[Text]:
    """What a run would do: counts, what speaks against it, what it is worth, and a sample."""
    if not plan.moved and not plan.refused:
        yield line("No postback found: there is nothing to fire again.")
        return
    states = ", ".join(f"{count:,} {state}" for state, count in plan.fires)
    takes = (
        f", in {span(timedelta(seconds=plan.moved / per_second))} at {per_second:g}/s"
        if plan.moved > 1
        else ""
    )
    yield line(f"Would fire {plan.moved:,} again{f': {states}' if states else ''}{takes}.")
    if plan.worth:
        yield line(f"They stand for {_worth(plan.worth)}.")
    for each in plan.overruled:
        yield line(f"  overruled for {each.count:,}: {visible(each.why)}")
    yield from _refused(plan.refusals, "Would refuse")
    if plan.sample:
        yield line("")
        yield from map(_sample, plan.sample)
        if plan.moved + plan.refused > len(plan.sample):
            yield line(f"… and {plan.moved + plan.refused - len(plan.sample):,} more", ("", "dim"))


def _refused(refusals: Iterable[Refusal], verb: str) -> Iterator[Text]:
    refusals = list(refusals)
    if refusals:
        yield line(f"{verb} {sum(each.count for each in refusals):,}:")
    for each in refusals:
        names = ", ".join(show("pb", number) for number in each.examples)
        more = each.count - len(each.examples)
        such = f"{names} and {more:,} more" if more else names
        yield line(
            f"  {each.count:,} ",
            (each.state.value, STATE_STYLES[each.state]),
            f": {visible(each.why)} ({such})",
        )


def _sample(sample: Sample) -> Text:
    fires = isinstance(sample.decision, Again)
    what = f" {sample.adjustment}" if sample.adjustment else ""
    value = "no value" if sample.net_value is None else money(sample.net_value, sample.currency or "")
    return line(
        f"{show('pb', sample.postback_id)}{what}  ",
        (sample.state.value, STATE_STYLES[sample.state]),
        f" → {'fires again' if fires else 'refused'}  {visible(sample.destination)}  "
        f"order {visible(sample.order_id or '-')}  {value}  click id {visible(sample.click_id or '-')}",
    )


def _worth(worth: Iterable[tuple[str, Decimal]]) -> str:
    return ", ".join(money(amount, currency) for currency, amount in worth)


def run_page(run: RunRecord) -> Iterator[Text]:
    """One run whole, with what became of its postbacks."""
    yield line((show("rn", run.id), "bold"), f"  {run.status}  by {visible(run.who)}: {visible(run.reason)}")
    yield label("begun", f"{clock(run.begun_at)} UTC")
    how = [f"{run.options.per_second:g}/s"]
    how += ["forced"] if run.options.force else []
    how += ["under the current version"] if run.options.with_current_version else []
    yield label("how", ", ".join(how))
    yield label("matching", f"{run.matching:,} when it began; looked at {_looked_at(run)}")
    if run.progress is None:
        return
    yield label("moved", progress_words(run))
    for text in _refused(run.progress.refusals, "refused"):
        yield line("  ", text.plain)
    if not run.halted and run.ended_at is None:
        yield line(f"It goes on with `holdfire replay --resume {show('rn', run.id)}`.")


def _looked_at(run: RunRecord) -> str:
    if run.ended_at is not None:
        return "all of them"
    return (
        f"those up to {show('pb', run.after_id)} of {show('pb', run.last_id)}" if run.after_id else "none yet"
    )


def progress_words(run: RunRecord) -> str:
    """``12: 3 wait, 1 on the wire, 7 delivered, 1 failed again``."""
    progress = run.progress or Progress((), 0, ())
    parts = (
        (progress.waiting, "wait"),
        (progress.firing, "on the wire"),
        (progress.delivered, "delivered"),
        (progress.failed, "failed again or as before"),
        (progress.voided, "voided"),
        (progress.put_back, "put back"),
    )
    said = ", ".join(f"{count:,} {words}" for count, words in parts if count)
    return f"{run.moved:,}{f': {said}' if said else ''}; {progress.fired:,} fired since"


def run_line(run: RunRecord) -> Text:
    """A run in a list."""
    return line(
        f"{show('rn', run.id):<8}{run.status:<9}{clock(run.begun_at)} UTC  "
        f"{run.moved:,} moved, {run.refused:,} refused of {run.matching:,}  {visible(run.who)}: {visible(run.reason)}"
    )


def plan_json(plan: ReplayPlan) -> dict[str, Any]:
    return {
        "matching": plan.matching,
        "fires": plan.moved,
        "refused": plan.refused,
        "by_state": {state.value: count for state, count in plan.fires},
        "refusals": [_refusal_json(each) for each in plan.refusals],
        "overruled": [{"why": each.why, "count": each.count} for each in plan.overruled],
        "worth": {currency: plain(amount) for currency, amount in plan.worth},
        "sample": [
            {
                "id": show("pb", each.postback_id),
                "conversion": show("cv", each.conversion_id),
                "destination": each.destination,
                "state": each.state.value,
                "order_id": each.order_id,
                "click_id": each.click_id,
                "net_value": None if each.net_value is None else plain(each.net_value),
                "currency": each.currency,
                "adjustment": each.adjustment,
                "fires": isinstance(each.decision, Again),
            }
            for each in plan.sample
        ],
    }


def run_json(run: RunRecord) -> dict[str, Any]:
    found: dict[str, Any] = {
        "id": show("rn", run.id),
        "status": run.status,
        "begun_at": run.begun_at.isoformat(),
        "who": run.who,
        "reason": run.reason,
        "forced": run.options.force,
        "with_current_version": run.options.with_current_version,
        "per_second": run.options.per_second,
        "matching": run.matching,
        "moved": run.moved,
        "refused": run.refused,
        "last": show("pb", run.last_id) if run.last_id else None,
        "looked_up_to": show("pb", run.after_id) if run.after_id else None,
    }
    for name in ("paused_at", "stopped_at", "ended_at"):
        instant = getattr(run, name)
        found[name] = None if instant is None else instant.isoformat()
    if run.progress is not None:
        found |= {
            "came_to": dict(run.progress.came_to),
            "fired": run.progress.fired,
            "waiting": run.progress.waiting,
            "refusals": [_refusal_json(each) for each in run.progress.refusals],
        }
    return found


def _refusal_json(refusal: Refusal) -> dict[str, Any]:
    return {
        "state": refusal.state.value,
        "why": refusal.why,
        "count": refusal.count,
        "forceable": refusal.forceable,
        "examples": [show("pb", number) for number in refusal.examples],
    }
