"""The only part that is asynchronous: one event loop a process, alive across tasks, with kept-alive connections.

Each destination has a lane: at most ``concurrency`` attempts on the wire, the others in order behind them. A
slow network fills its own lane and nobody else's.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import uvloop

from infra.http.fetch import fetch
from infra.http.transport import EvidenceTransport
from schemas.auth import Auth, ClientCredentialsAuth
from schemas.exchange import Answer, Failure, FailureKind, FetchLimits, OutboundRequest
from schemas.postback import Asking, Prepared
from workers.rendering import Account
from workers.tokens import TokenError, Tokens

QUEUED_AHEAD_S = 0.5
"""A lane takes about as much as it can send in this time: what waits longer should wait as a row, not here."""
DEEPEST_QUEUE = 16
"""Times its concurrency that a lane may queue, however fast its network answers."""
_SMOOTHING_DOWN, _SMOOTHING_UP = 0.1, 0.5
"""A lane grows with its network's answers one by one, and shrinks at the first slow ones: whatever waits in a lane
has its intent on record, and would be called *outcome unknown* if this process died."""


@dataclass(frozen=True, slots=True)
class Answered:
    """An attempt that ended on the wire; ``secrets`` are those that came into being on the way (a token)."""

    prepared: Prepared
    account: Account
    answer: Answer
    secrets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AnsweredCheck:
    """A question before release that ended on the wire."""

    asking: Asking
    account: Account
    answer: Answer
    secrets: tuple[str, ...] = ()


@dataclass(slots=True)
class _Lane:
    concurrency: int
    waiting: deque[tuple[Prepared | Asking, Account]] = field(default_factory=deque)
    on_wire: int = 0
    attempt_s: float = QUEUED_AHEAD_S
    """How long an attempt takes; until the first answer, long enough that nothing queues behind the wire."""

    @property
    def room(self) -> int:
        depth = min(max(QUEUED_AHEAD_S / self.attempt_s, 1.0), DEEPEST_QUEUE)
        return int(self.concurrency * depth) - self.on_wire - len(self.waiting)


class Wire:
    """Sends attempts and questions, and hands each answer to ``on_answer``, which must be quick and thread-safe."""

    def __init__(self, on_answer: Callable[[Answered | AnsweredCheck], None]) -> None:
        self._on_answer = on_answer
        self._lanes: dict[str, _Lane] = {}
        self._ready = threading.Event()
        self._room_made = threading.Condition()
        self._loop: asyncio.AbstractEventLoop
        self._stop: asyncio.Event
        self._transport: EvidenceTransport
        self._tokens: Tokens
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._run, name="wire", daemon=True)
        self._thread.start()
        self._ready.wait()

    def room(self, name: str, concurrency: int) -> int:
        """How many more attempts the destination's lane would take now; may be negative."""
        lane = self._lanes.setdefault(name, _Lane(concurrency))
        lane.concurrency = concurrency
        return lane.room

    def wait_for_room(self, name: str, concurrency: int, wanted: int, timeout_s: float) -> int:
        """Wait until the lane takes ``wanted`` attempts, or the time is over; the room there is then."""
        end = time.monotonic() + timeout_s
        with self._room_made:
            while (room := self.room(name, concurrency)) < wanted and (left := end - time.monotonic()) > 0:
                self._room_made.wait(min(left, 0.05))
        return room

    def spacing_s(self, name: str) -> float:
        """Seconds from one answer of the destination's lane to the next, as it is now."""
        lane = self._lanes[name]
        return lane.attempt_s / lane.concurrency

    def send(self, attempts: Sequence[tuple[Prepared | Asking, Account]]) -> None:
        """Put attempts and questions into their lanes, in order. The attempts' intents must be committed."""
        self._loop.call_soon_threadsafe(self._enter, list(attempts))

    @property
    def in_flight(self) -> int:
        """Attempts in any lane, waiting or on the wire."""
        return sum(lane.on_wire + len(lane.waiting) for lane in list(self._lanes.values()))

    def close(self) -> None:
        """Stop the loop. Call it when ``in_flight`` is zero: what is on the wire is cut off."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(timeout=10)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        async with EvidenceTransport() as self._transport:
            self._tokens = Tokens(self._transport)
            self._ready.set()
            await self._stop.wait()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _enter(self, attempts: list[tuple[Prepared | Asking, Account]]) -> None:
        for outgoing, account in attempts:
            contract = account.version.contract
            if isinstance(outgoing, Prepared):
                name, concurrency = contract.name, contract.destination.limits.concurrency
            else:
                name, concurrency = outgoing.lane, outgoing.check.concurrency
            lane = self._lanes.setdefault(name, _Lane(concurrency))
            lane.waiting.append((outgoing, account))
            if lane.on_wire < lane.concurrency:
                lane.on_wire += 1
                task = self._loop.create_task(self._drain(lane))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _drain(self, lane: _Lane) -> None:
        """Send from the lane until it is empty: one of its ``concurrency`` places."""
        try:
            while lane.waiting and lane.on_wire <= lane.concurrency:
                outgoing, account = lane.waiting.popleft()
                started = self._loop.time()
                if isinstance(outgoing, Prepared):
                    self._on_answer(await self._attempt(outgoing, account))
                else:
                    self._on_answer(await self._ask(outgoing, account))
                off = self._loop.time() - started - lane.attempt_s
                lane.attempt_s += off * (_SMOOTHING_UP if off > 0 else _SMOOTHING_DOWN)
        finally:
            lane.on_wire -= 1

    async def _attempt(self, prepared: Prepared, account: Account) -> Answered:
        contract = account.version.contract
        auth, limits = contract.destination.auth, contract.fetch_limits
        answer, tokens = await self._exchange(prepared.request, limits, account, auth, "auth")
        return Answered(prepared, account, answer, tokens)

    async def _ask(self, asking: Asking, account: Account) -> AnsweredCheck:
        check = asking.check
        answer, tokens = await self._exchange(
            asking.request, check.fetch_limits, account, check.auth, f"{asking.place}.auth"
        )
        return AnsweredCheck(asking, account, answer, tokens)

    async def _exchange(
        self, request: OutboundRequest, limits: FetchLimits, account: Account, auth: Auth | None, place: str
    ) -> tuple[Answer, tuple[str, ...]]:
        """What came of it, and the secrets that came into being on the way."""
        try:
            if isinstance(auth, ClientCredentialsAuth):
                return await self._with_token(request, limits, account, auth, place)
            return await fetch(self._transport, request, limits), ()
        except Exception as error:
            return Answer((), Failure(FailureKind.PROTOCOL, True, type(error).__name__, str(error))), ()

    async def _with_token(
        self,
        request: OutboundRequest,
        limits: FetchLimits,
        account: Account,
        auth: ClientCredentialsAuth,
        place: str,
    ) -> tuple[Answer, tuple[str, ...]]:
        """A token that the network no longer knows is renewed once: a 401 has counted nothing."""
        refused = Answer(())
        tokens: tuple[str, ...] = ()
        try:
            tokens = (await self._tokens.token(account, auth, place, limits),)
            answer = await fetch(self._transport, _bearing(request, tokens[0]), limits)
            if answer.last is None or answer.last.status_code != 401:
                return answer, tokens
            refused = answer
            self._tokens.forget(account, tokens[0], place)
            tokens = (*tokens, await self._tokens.token(account, auth, place, limits))
        except TokenError as error:
            failure = Failure(FailureKind.CONNECT, False, "TokenError", str(error))
            return Answer(refused.hops, failure), tokens
        again = await fetch(self._transport, _bearing(request, tokens[-1]), limits)
        number = len(refused.hops)
        hops = refused.hops + tuple(replace(hop, number=hop.number + number) for hop in again.hops)
        return replace(again, hops=hops), tokens


def _bearing(request: OutboundRequest, token: str) -> OutboundRequest:
    return replace(request, headers=(*request.headers, (b"Authorization", b"Bearer " + token.encode())))
