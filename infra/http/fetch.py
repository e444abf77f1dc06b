"""One attempt on the wire: the request and the redirects it meets, one exchange a hop, under one deadline."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Protocol

from infra.http.redirects import RedirectRefused, asks_redirect, redirected
from schemas.exchange import Answer, Failure, FailureKind, FetchLimits, Hop, OutboundRequest


class Exchanger(Protocol):
    """What `fetch` needs of a transport: one exchange, recorded, whose failures are values."""

    async def exchange(
        self,
        request: OutboundRequest,
        limits: FetchLimits,
        number: int = 1,
        deadline: float | None = None,
        interrupted: list[Hop] | None = None,
    ) -> Hop: ...


async def fetch(
    transport: Exchanger,
    request: OutboundRequest,
    limits: FetchLimits,
    interrupted: list[Hop] | None = None,
) -> Answer:
    """Send ``request``, follow its redirects within ``limits``, and give every hop.

    Nothing the network does raises. ``Answer.failure.sent`` speaks for the attempt: once any hop was
    written it is True. A hop the guard refused is not among the hops, for nothing of it happened. If the
    task is cancelled the cancellation goes on, and ``interrupted`` holds the hops there were.
    """
    deadline = asyncio.get_running_loop().time() + limits.deadline_s
    hops: list[Hop] = []
    seen = {(request.method, request.url.partition("#")[0])}
    while True:
        try:
            hop = await transport.exchange(request, limits, len(hops) + 1, deadline, interrupted)
        except asyncio.CancelledError:
            if interrupted is not None:
                interrupted[:0] = hops
            raise
        if hop.failure is not None:
            return _failed(hops, hop, hop.failure)
        hops.append(hop)
        if not limits.follow_redirects or not asks_redirect(hop):
            return _answer(hops)
        try:
            request = _next(request, hop, seen, limits)
        except RedirectRefused as refused:
            return _answer(hops, Failure(refused.kind, True, type(refused).__name__, str(refused)))


def _next(
    request: OutboundRequest, hop: Hop, seen: set[tuple[str, str]], limits: FetchLimits
) -> OutboundRequest:
    following = redirected(request, hop)
    step = (following.method, following.url)
    if step in seen:
        raise RedirectRefused(FailureKind.REDIRECT_LOOP, "Location leads back to a request already made")
    if len(seen) >= limits.max_hops:
        raise RedirectRefused(FailureKind.TOO_MANY_REDIRECTS, f"no answer within {limits.max_hops} hops")
    seen.add(step)
    return following


def _failed(hops: list[Hop], hop: Hop, failure: Failure) -> Answer:
    if failure.kind is not FailureKind.REFUSED_BY_GUARD:
        hops.append(hop)
    return _answer(hops, replace(failure, sent=failure.sent or hop.number > 1))


def _answer(hops: list[Hop], failure: Failure | None = None) -> Answer:
    return Answer(tuple(hops), failure)
