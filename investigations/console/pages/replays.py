"""Firing again: what a run would do, the run and how far it is, and all runs there were."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from infra.filters import AskingError
from infra.store.by_hand import Signature
from infra.store.replays import replay_back, replaying
from infra.store.replays.replay_look import Options
from infra.store.replays.replay_records import ReplayPlan, RunRecord, UnknownRunError
from infra.store.selection import extent
from investigations.console.deciding import LONGEST_REASON, read_reason
from investigations.console.errors import BadRequestError
from investigations.console.frame import (
    Link,
    NotFoundError,
    engine_of,
    form_of,
    long_engine_of,
    masking_of,
    redirect,
    render,
    signed_in,
    who_of,
)
from investigations.console.going_on import go_on, is_going
from investigations.console.reading import number_of
from investigations.console.routing import Access, act, page
from investigations.console.targets import MOST, Target, target_of
from schemas.accounts import Role
from schemas.ids import show
from schemas.replaying import PER_SECOND, Again

FASTEST = 100_000.0


def _new(request: Request) -> Response:
    return _plan(request, target_of(request, request.query_params), {}, Options())


def _plan(  # noqa: PLR0913 — a page's parts are its parameters
    request: Request,
    target: Target,
    given: Mapping[str, Any],
    options: Options,
    *,
    wrong: str | None = None,
    confirming: bool = False,
) -> Response:
    """The dry run, always made anew: what is shown is what would happen now."""
    matching = extent(long_engine_of(request), target.selection).count
    plan = _considered(request, target, options) if matching <= MOST else None
    return render(
        request,
        "replay_plan.html",
        200 if wrong is None else 400,
        target=target,
        plan=plan,
        matching=matching,
        most=MOST,
        command=target.command("replay"),
        options=options,
        reason=str(given.get("reason", "")),
        longest=LONGEST_REASON,
        wrong=wrong,
        confirming=confirming and plan is not None and plan.moved > 0,
        takes=None if plan is None else timedelta(seconds=plan.moved / options.per_second),
        fires=lambda decision: isinstance(decision, Again),
        mask=masking_of(request).click_id,
    )


def _considered(request: Request, target: Target, options: Options) -> ReplayPlan:
    return replaying.plan(
        long_engine_of(request),
        target.selection,
        options.force,
        with_current_version=options.with_current_version,
    )


def _step(request: Request) -> Response:
    """First what would happen under these options; the same form, confirmed, then begins the run."""
    form = form_of(request)
    target = target_of(request, form)
    try:
        options = _options(form)
        reason = read_reason(str(form.get("reason", "")))
    except AskingError as error:
        return _plan(request, target, form, Options(), wrong=str(error))
    if form.get("step") != "do":
        return _plan(request, target, form, options, confirming=True)
    engine = long_engine_of(request)
    number = replaying.begin(engine, target.selection, options, Signature(who_of(request), reason))
    go_on(engine, number)
    return redirect(request, f"/replays/{show('rn', number)}", "The run has begun.")


def _options(form: Mapping[str, Any]) -> Options:
    """Raises AskingError for a rate that is none."""
    text = str(form.get("per_second") or PER_SECOND)
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0.001 <= rate <= FASTEST:
        raise AskingError(f"{text!r} is no rate; write how many a second are to fall due, such as 10.")
    return Options(bool(form.get("force")), bool(form.get("with_current_version")), rate)


def _list(request: Request) -> Response:
    return render(request, "replays.html", runs=replaying.runs(engine_of(request)))


def _one(request: Request) -> Response:
    run = _run(request)
    return render(
        request,
        "replay_run.html",
        run=run,
        name=show("rn", run.id),
        share=_share(run),
        going=is_going(run.id),
        moving=run.status in {"begun", "firing"},
        operator=signed_in(request).role is Role.OPERATOR,
        longest=LONGEST_REASON,
    )


def _share(run: RunRecord) -> float:
    """How much of it has come to an end, from 0 to 1."""
    if run.progress is None or not run.moved:
        return 1.0 if run.ended_at is not None else 0.0
    open_still = run.progress.waiting + run.progress.firing
    return max(0.0, min(1.0, (run.moved + run.refused - open_still) / max(run.matching, 1)))


def _run(request: Request) -> RunRecord:
    number = number_of(request.path_params["id"], "rn")
    try:
        return replaying.run(engine_of(request), number)
    except UnknownRunError:
        raise NotFoundError(f"There is no run {show('rn', number)}.") from None


def _move(request: Request) -> Response:
    """Pause, stop, resume, or go on with a run that its process left."""
    run, form, engine = _run(request), form_of(request), long_engine_of(request)
    path, what = f"/replays/{show('rn', run.id)}", str(form.get("move", ""))
    if what in {"pause", "stop"}:
        try:
            signature = Signature(who_of(request), read_reason(str(form.get("reason", ""))))
        except AskingError as error:
            return redirect(request, path, str(error), kind="failed")
        halt = replay_back.pause if what == "pause" else replay_back.stop
        back = halt(engine, run.id, signature)
        said = f"{back} postback{'s' * (back != 1)} that had not fired {'was' if back == 1 else 'were'} put back."
        return redirect(request, path, said)
    if what not in {"resume", "go on"}:
        raise BadRequestError("A run is paused, stopped, resumed, or gone on with.")
    if what == "resume":
        replaying.resume(engine, run.id, who_of(request))
    go_on(engine, run.id)
    return redirect(request, path, "The run goes on.")


routes = [
    page("/replays", _list),
    page("/replays/new", _new, access=Access.OPERATOR),
    act("/replays/new", _step),
    page("/replays/{id}", _one),
    act("/replays/{id}", _move),
]
menu = [Link(41, "/replays", "Replays")]
