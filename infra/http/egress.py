"""The egress guard: what an attempt may talk to, decided anew for every hop and on every address of a name.

A template's host, a redirect's Location and a name server's answer are all written by others. Each can point
the sender at its own network (server-side request forgery), so a name is resolved once, every address is
judged, and connections are made only to addresses that were. One bad address refuses the name: mixing a
private address among public ones is how DNS rebinding is done.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from aiohttp.abc import AbstractResolver, ResolveResult

from infra.http.addresses import judge_address
from infra.http.urls import Origin
from schemas.exchange import FetchLimits
from schemas.network import host_allowed

Lookup = Callable[[str], Awaitable[tuple[str, ...]]]
"""Gives a name's addresses in the resolver's order; raises OSError if there are none."""

CACHE_TTL_S = 30.0
CACHE_ENTRIES = 1024


class EgressRefused(Exception):  # noqa: N818 — named as the domain says it: the guard refused
    """The guard will not let this request out. The message says what and why."""


class LookupTimeoutError(OSError):
    """The name service gave no answer within ``FetchLimits.connect_s``."""


class Admission(NamedTuple):
    """Addresses that were judged and may be connected to, and how long resolving took (None: from cache)."""

    addresses: tuple[str, ...]
    dns_s: float | None


class _Resolved(NamedTuple):
    expires_at: float
    addresses: tuple[str, ...]
    refusal: str | None
    refusal_if_private_allowed: str | None


async def system_lookup(host: str) -> tuple[str, ...]:
    """Ask the operating system, which honours the hosts file and the address selection of RFC 6724."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    return tuple(dict.fromkeys(str(address[0]) for *_, address in found))


def judge_origin(origin: Origin, limits: FetchLimits) -> str | None:
    """Say why the origin itself is refused, whatever it resolves to, or None."""
    if origin.scheme == "http" and not limits.allow_http:
        return "plain http; use https, or set allow_http for this destination"
    if limits.allowed_hosts and not host_allowed(origin.host, limits.allowed_hosts):
        return "host is not among the allowed hosts; add it to allowed_hosts if it is the network's"
    return None


class EgressGuard:
    """Resolves, judges and remembers briefly. One serves all requests of an event loop."""

    def __init__(self, lookup: Lookup = system_lookup, clock: Callable[[], float] = time.monotonic) -> None:
        self._lookup = lookup
        self._clock = clock
        self._cache: OrderedDict[str, _Resolved] = OrderedDict()
        self._under_way: dict[str, asyncio.Task[_Resolved]] = {}

    async def admit(self, origin: Origin, limits: FetchLimits) -> Admission:
        """Give the addresses the origin may be reached at.

        Raises `EgressRefused`, or OSError if the name does not resolve within ``limits.connect_s``.
        """
        refusal = judge_origin(origin, limits)
        if refusal is not None:
            raise EgressRefused(f"{origin.host}: {refusal}")
        if origin.literal is not None:
            refusal = judge_address(origin.literal, allow_private=limits.allow_private)
            if refusal is not None:
                raise EgressRefused(f"{origin.host}: {refusal}")
            return Admission((origin.host,), None)
        known = self._cache.get(origin.host)
        if known is not None and known.expires_at > self._clock():
            return Admission(self._admitted(origin.host, known, limits.allow_private), None)
        started = self._clock()
        try:
            async with asyncio.timeout(limits.connect_s):
                addresses = await self.addresses(origin.host, allow_private=limits.allow_private)
        except TimeoutError:
            raise LookupTimeoutError(f"{origin.host} not resolved within {limits.connect_s:g} s") from None
        return Admission(addresses, self._clock() - started)

    async def addresses(self, host: str, *, allow_private: bool) -> tuple[str, ...]:
        """The judged addresses of a name. Raises `EgressRefused` if any of them is not allowed."""
        known = self._cache.get(host)
        if known is None or known.expires_at <= self._clock():
            known = await self._resolve_once(host)
        return self._admitted(host, known, allow_private)

    @staticmethod
    def _admitted(host: str, known: _Resolved, allow_private: bool) -> tuple[str, ...]:
        refusal = known.refusal_if_private_allowed if allow_private else known.refusal
        if refusal is not None:
            raise EgressRefused(f"{host}: {refusal}")
        return known.addresses

    async def _resolve_once(self, host: str) -> _Resolved:
        """Share one lookup among all who wait for it; one waiter's cancellation leaves it to the others."""
        task = self._under_way.get(host)
        if task is None:
            task = self._under_way[host] = asyncio.create_task(self._resolve(host))
            task.add_done_callback(lambda done: self._forget(host, done))
        return await asyncio.shield(task)

    def _forget(self, host: str, done: asyncio.Task[_Resolved]) -> None:
        self._under_way.pop(host, None)
        if not done.cancelled():
            done.exception()  # fetched, so that a lookup nobody waited for to the end makes no noise

    async def _resolve(self, host: str) -> _Resolved:
        addresses = await self._lookup(host)
        if not addresses:
            raise socket.gaierror(socket.EAI_NONAME, "the name has no address")
        resolved = _Resolved(
            self._clock() + CACHE_TTL_S,
            addresses,
            _first_refusal(addresses, allow_private=False),
            _first_refusal(addresses, allow_private=True),
        )
        self._cache[host] = resolved
        self._cache.move_to_end(host)
        if len(self._cache) > CACHE_ENTRIES:
            self._cache.popitem(last=False)
        return resolved


def _first_refusal(addresses: tuple[str, ...], *, allow_private: bool) -> str | None:
    for address in addresses:
        reason = judge_address(address, allow_private=allow_private)
        if reason is not None:
            return f"resolves to {address}: {reason}"
    return None


class PinningResolver(AbstractResolver):
    """Gives a connector only addresses that the guard has judged, so that it cannot look up others."""

    def __init__(self, guard: EgressGuard, *, allow_private: bool) -> None:
        self._guard = guard
        self._allow_private = allow_private

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        addresses = await self._guard.addresses(host, allow_private=self._allow_private)
        return [
            ResolveResult(hostname=host, host=address, port=port, family=family, proto=0, flags=0)
            for address in addresses
        ]

    async def close(self) -> None:
        """Nothing to release: the guard outlives the connector."""
