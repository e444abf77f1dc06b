"""Voiding, extending and releasing by hand: a form, what would happen, and then, once confirmed, what happened."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from infra.filters import AskingError
from infra.store.by_hand import Signature, carry_out, consider
from infra.store.selection import extent
from investigations.console.deciding import LONGEST_REASON, Outlook, read_errand, read_reason
from investigations.console.frame import NotFoundError, engine_of, form_of, redirect, render, who_of
from investigations.console.routing import Access, act, page
from investigations.console.targets import MOST, Target, target_of
from schemas.by_hand import Act, Errand, Moved

_SAYS = {
    Act.VOID: "What is voided never fires. What the network has is corrected by a refund signal instead.",
    Act.EXTEND: "A window gets a later end, up to the network's age limit; it is never made shorter.",
    Act.RELEASE: "What is released fires now, before its window ends; that is also the credit decision it may be waiting for.",
}


def _act_of(request: Request) -> Act:
    try:
        return Act(request.path_params["act"])
    except ValueError:
        raise NotFoundError("By hand a postback is voided, extended or released.") from None


def _form(request: Request) -> Response:
    what, target = _act_of(request), target_of(request, request.query_params)
    return _show(request, what, target, {})


def _show(  # noqa: PLR0913 — a page's parts are its parameters
    request: Request,
    what: Act,
    target: Target,
    given: Mapping[str, Any],
    *,
    outlook: Outlook | None = None,
    last: int | None = None,
    wrong: str | None = None,
) -> Response:
    return render(
        request,
        "by_hand.html",
        200 if wrong is None else 400,
        act=what,
        target=target,
        says=_SAYS[what],
        given={name: str(given.get(name, "")) for name in ("reason", "by", "to")},
        outlook=outlook,
        last=last,
        wrong=wrong,
        longest=LONGEST_REASON,
    )


def _step(request: Request) -> Response:
    """First what would happen; the same form, confirmed, then does it to what there was when that was shown."""
    what, form = _act_of(request), form_of(request)
    target = target_of(request, form)
    try:
        errand = read_errand(what, str(form.get("by", "")), str(form.get("to", "")))
        reason = read_reason(str(form.get("reason", "")))
    except AskingError as error:
        return _show(request, what, target, form, wrong=str(error))
    last = str(form.get("last", ""))
    if form.get("step") != "do" or not last.isdigit():
        there = extent(engine_of(request), target.selection)
        if there.count > MOST:
            more = [f"--{name}={form[name]}" for name in ("by", "to") if form.get(name)]
            too_many = target.too_many(there.count, target.command(what, *more))
            return _show(request, what, target, form, wrong=too_many)
        outlook = _would(request, target, errand, there.last)
        return _show(request, what, target, form, outlook=outlook, last=there.last)
    done = Outlook()
    signature = Signature(who_of(request), reason)
    for answers in carry_out(engine_of(request), target.selection, errand, signature, int(last)):
        done.add(answers)
    return redirect(request, target.back, _told(what, done), kind="done" if done.moves else "failed")


def _would(request: Request, target: Target, errand: Errand, last: int) -> Outlook:
    outlook = Outlook()
    for answers in consider(engine_of(request), target.selection, errand, last):
        outlook.add(answers)
    return outlook


_DONE = {Act.VOID: "voided", Act.EXTEND: "extended", Act.RELEASE: "released"}


def _told(what: Act, done: Outlook) -> str:
    parts = []
    if done.moves:
        one = done.sample[0].decision if done.moves == len(done.sample) == 1 else None
        says = one.says if isinstance(one, Moved) else "; ".join(done.moved)
        parts.append(f"{done.moves} postback{'s' * (done.moves != 1)} {_DONE[what]}: {says}.")
    parts += [f"{count} refused: {why}." for why, count in done.refused.items()]
    return " ".join(parts) or "Nothing was found to act on."


routes = [
    page("/by-hand/{act}", _form, access=Access.OPERATOR),
    act("/by-hand/{act}", _step),
]
