"""From a request to what is sent and what it counted: the profile judges, a behaviour may spoil it.

Nothing here waits, writes or changes a count: the book is read, and the decision is entered by others.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from infra.sink.answers import Answer, Script, json_answer
from infra.sink.behaviours import Chosen, Scene, choose
from infra.sink.errors import SinkConfigError
from infra.sink.judgement import Judgement
from infra.sink.judging import Profile, ProfileSettings
from infra.sink.ledger import Book
from infra.sink.profiles import profile_of
from infra.sink.wire import Request

_BAD_PREFIX = "/bad/"


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request with everything found out about it before it is judged."""

    request: Request
    """As received."""
    inner: Request
    """As the profile sees it: the target without a ``/bad/<behaviour>`` prefix."""
    profile: Profile
    chosen: Chosen | None
    base_url: str
    """Scheme and authority under which the sink was addressed."""
    plain_url: str
    is_tls: bool
    received_at: float
    counts: bool | None = None
    """A rule's word on whether the network decides before the answer is spoilt; None leaves it to the behaviour."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What is sent and what is entered in the book."""

    script: Script
    judgement: Judgement
    reached: bool
    """False when a bad answer kept the request from the network's decision."""


def arrive(request: Request, *, host_url: str, plain_url: str, is_tls: bool, now: float) -> Arrival:
    """Find profile and behaviour. Raises SinkConfigError for a ``/bad/`` path that names no behaviour."""
    chosen, inner = None, request
    if request.target.startswith(_BAD_PREFIX):
        name, slash, rest = request.target[len(_BAD_PREFIX) :].partition("/")
        if not slash:
            name, _, query = name.partition("?")
            rest = f"?{query}"
        chosen, inner = choose(name, "path"), request.at(f"/{rest}")
    host = request.header("host")
    base_url = f"{'https' if is_tls else 'http'}://{host}" if host else host_url
    return Arrival(request, inner, profile_of(inner.path), chosen, base_url, plain_url, is_tls, now)


def judge(arrival: Arrival, book: Book, settings: ProfileSettings) -> tuple[Answer, Judgement]:
    """What the network would answer and count if nothing interfered."""
    return arrival.profile.judge(arrival.inner, book, settings, arrival.base_url)


def decide(arrival: Arrival, book: Book, settings: ProfileSettings) -> Decision:
    """The answer to send and the judgement to enter."""
    answer, judgement = judge(arrival, book, settings)
    normal = answer.render(keep_alive=arrival.request.keeps_alive, head_only=arrival.request.method == "HEAD")
    if arrival.chosen is None:
        return Decision((normal,), judgement, True)
    scene = Scene(
        request=arrival.request,
        inner=arrival.inner.target,
        normal=normal,
        argument=arrival.chosen.argument,
        base_url=arrival.base_url,
        plain_url=arrival.plain_url,
        is_tls=arrival.is_tls,
        repeat=book.is_requested(judgement.key),
        now=arrival.received_at,
    )
    script = arrival.chosen.behaviour.stage(scene)
    if script is None:
        return Decision((normal,), judgement, True)
    counts = arrival.chosen.behaviour.counts if arrival.counts is None else arrival.counts
    if counts:
        return Decision(script, judgement, True)
    return Decision(script, unreached(judgement, f"behaviour:{arrival.chosen.behaviour.name}"), False)


def unreached(judgement: Judgement, reason: str) -> Judgement:
    """The judgement on a request that never got as far as the network's decision."""
    return replace(judgement, credited=False, reason=reason, repeat=False, corrects=())


def refusal(error: SinkConfigError, status_code: int) -> Answer:
    """A setting that cannot be used, told to an HTTP client."""
    told = {"error": str(error), "field": error.field, "reason": error.reason, "remedy": error.remedy}
    return json_answer(told, status_code)
