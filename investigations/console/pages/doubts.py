"""What only a person can settle: postbacks in doubt, and dead letters by what ended them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from infra.filters import AskingError
from infra.store.by_hand import Signature
from infra.store.replays.causes import causes
from infra.store.replays.doubts import DoubtAnswer, consider_doubts, settle_all
from infra.store.searching.listings import click_ids_of
from infra.store.selection import extent
from investigations.console.deciding import LONGEST_REASON, read_reason
from investigations.console.frame import (
    Link,
    engine_of,
    form_of,
    long_engine_of,
    masking_of,
    redirect,
    render,
    signed_in,
    who_of,
)
from investigations.console.routing import Access, act, page
from investigations.console.targets import MOST, Target, target_of
from schemas.accounts import Role
from schemas.replaying import Said, Settled

_SAID = {
    Said.DELIVERED: "The network has it: it counts as delivered from now on.",
    Said.NOT_COUNTED: "The network has not counted it: it is dead, and may be fired again.",
}


def _form(request: Request) -> Response:
    return _show(request, target_of(request, request.query_params), {})


def _show(  # noqa: PLR0913 — a page's parts are its parameters
    request: Request,
    target: Target,
    given: Mapping[str, Any],
    *,
    answers: list[DoubtAnswer] | None = None,
    last: int | None = None,
    wrong: str | None = None,
) -> Response:
    return render(
        request,
        "settle.html",
        200 if wrong is None else 400,
        target=target,
        choices=_SAID,
        answer=str(given.get("said", "")),
        reason=str(given.get("reason", "")),
        answers=answers,
        settles=sum(isinstance(each.decision, Settled) for each in answers or ()),
        last=last,
        wrong=wrong,
        longest=LONGEST_REASON,
    )


def _step(request: Request) -> Response:
    """First what would be settled; the same form, confirmed, settles it."""
    form = form_of(request)
    target, engine = target_of(request, form), long_engine_of(request)
    try:
        said = _said(str(form.get("said", "")))
        reason = read_reason(str(form.get("reason", "")))
    except AskingError as error:
        return _show(request, target, form, wrong=str(error))
    last = str(form.get("last", ""))
    if form.get("step") != "do" or not last.isdigit():
        there = extent(engine, target.selection)
        if there.count > MOST:
            too_many = target.too_many(there.count, target.command("settle", f"--as={said}"))
            return _show(request, target, form, wrong=too_many)
        answers = [
            each for batch in consider_doubts(engine, target.selection, said, there.last) for each in batch
        ]
        return _show(request, target, form, answers=answers, last=there.last)
    signature = Signature(who_of(request), reason)
    done = [
        each
        for batch in settle_all(engine, target.selection, said, signature, int(last))
        for each in batch
        if isinstance(each.decision, Settled)
    ]
    words = f"{len(done)} postback{'s' * (len(done) != 1)} settled as {said.replace('-', ' ')}."
    return redirect(request, target.back, words, kind="done" if done else "failed")


def _said(text: str) -> Said:
    try:
        return Said(text)
    except ValueError:
        raise AskingError(
            "Say what the network said: that it has it, or that it has not counted it."
        ) from None


def _dead(request: Request) -> Response:
    found = causes(long_engine_of(request), destination=request.query_params.get("destination") or None)
    examples = [each.example for each in found] if masking_of(request).on else []
    return render(
        request,
        "dead.html",
        causes=found,
        click_ids=click_ids_of(engine_of(request), examples),
        destination=request.query_params.get("destination", ""),
        operator=signed_in(request).role is Role.OPERATOR,
    )


routes = [
    page("/settle", _form, access=Access.OPERATOR),
    act("/settle", _step),
    page("/dead", _dead),
]
menu = [Link(40, "/dead", "Dead letters")]
