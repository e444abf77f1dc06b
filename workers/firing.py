"""Firing: gate, send, settle. Read ``Firing.fire`` for the order; each stage is one call down."""

from __future__ import annotations

import os
import random
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import TypeVar

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from infra.clock import DatabaseClock
from infra.logging import attempt_log
from infra.store import firing as store
from infra.store.checks import settle_checks
from infra.store.stopping.pacing import admit_now
from infra.store.transactions import is_away
from schemas.destination import Contract
from schemas.ids import show
from schemas.lifecycle import State
from schemas.postback import Asking, Gated, Prepared, SettledAttempt, SettledCheck, Stopped
from workers.asking import ask_first, log_check, settle_check
from workers.pulse import Pulse
from workers.rendering import Account, Renderer, prepare
from workers.settling import settle_answer
from workers.wire import Answered, AnsweredCheck, Wire

log = structlog.get_logger()

Written = TypeVar("Written")

SETTLE_BATCH = 250
SETTLE_LINGER_S = 0.08
"""How long the first answer of a batch waits for others: settling in bulk costs a tenth of settling alone."""
SETTLE_BATCH_BYTES = 2_000_000
"""Of response bodies: each stands several times in memory while it is written down."""
UNSETTLED_MAX = 2_000
"""Answers that may wait to be settled; beyond, the database is behind and nothing more goes out."""
WAIT_FOR_ROOM_S = 0.5
"""How long a hint may hold its thread up, unless its lane will have sent the rest within ``NEARLY_DONE_S``."""
NEARLY_DONE_S = 1.0
DEFER_S = 1.0
LONGEST_DEFER_S = 30.0
"""What finds no room comes back at the pace of its lane, and never later than this: networks recover."""
_SETTLE_RETRY_S = 1.0


def worker_name() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"


class Firing:
    """Fires leased postbacks: one a process. Threads: any may call ``fire``; the wire and settling have their own."""

    def __init__(self, engine: Engine, renderer: Renderer, *, lease_s: float) -> None:
        self._engine = engine
        self._renderer = renderer
        self._lease_s = lease_s
        self._clock = DatabaseClock()
        self._pulse = Pulse(engine, renderer.contract)
        self._worker = worker_name()
        self._answered: deque[Answered | AnsweredCheck] = deque()
        self._some_answered = threading.Event()
        self._ended = False
        self._in_flight: dict[int, tuple[int, int, float]] = {}
        """By attempt id: postback id, lease token, and when its lease was last renewed."""
        self._closing = threading.Event()
        self._wire = Wire(self._take_answer)
        self._threads = [
            threading.Thread(target=self._settle_for_ever, name="settling", daemon=True),
            threading.Thread(target=self._keep_leases, name="leases", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def fire(self, token: int, version_id: int, postback_ids: Sequence[int]) -> None:
        """Pass leased postbacks through the gate and put them on the wire, as many as their lane takes.

        Returns once their intents are committed and they are on their way; settling goes on behind. What finds no
        room soon is given back without spending an attempt: the threads that fire belong to every destination.
        """
        contract = self._renderer.contract(version_id)
        concurrency = contract.destination.limits.concurrency
        rest = self._keep_pace(contract, token, list(postback_ids))
        began = time.monotonic()
        while rest:
            room = self._wire.wait_for_room(
                contract.name, concurrency, min(len(rest), concurrency), WAIT_FOR_ROOM_S
            )
            room = min(room, UNSETTLED_MAX - len(self._answered))
            waited = time.monotonic() - began > WAIT_FOR_ROOM_S
            slow = waited and len(rest) * self._wire.spacing_s(contract.name) > NEARLY_DONE_S
            if room <= 0 or slow or self._closing.is_set():
                self._defer(contract.name, token, rest)
                return
            batch, rest = rest[:room], rest[room:]
            self._fire_batch(token, version_id, batch)

    def _defer(self, destination: str, token: int, postback_ids: list[int]) -> None:
        """Give back what finds no room, spread out as its lane could take it."""
        spacing_s = min(self._wire.spacing_s(destination), LONGEST_DEFER_S / len(postback_ids))
        store.give_back(self._engine, token, postback_ids, DEFER_S, spacing_s)
        log.info("postbacks.deferred", destination=destination, count=len(postback_ids))

    def _keep_pace(self, contract: Contract, token: int, postback_ids: list[int]) -> list[int]:
        """Those that the destination's rate limit lets go now; the others are given back, spread out in order."""
        per_second = contract.destination.limits.per_second
        if per_second is None:
            return postback_ids
        admission = admit_now(self._engine, contract.name, len(postback_ids), per_second)
        rest = postback_ids[admission.admitted :]
        if rest:
            store.give_back(self._engine, token, rest, admission.delay_s, admission.spacing_s)
            log.info("postbacks.paced", destination=contract.name, count=len(rest), delay_s=admission.delay_s)
        return postback_ids[: admission.admitted]

    def _fire_batch(self, token: int, version_id: int, postback_ids: Sequence[int]) -> None:
        # One account for rendering, sending and masking: a secret that is rotated in between would be sent unmasked.
        account = self._renderer.try_account(version_id)
        asks = self._renderer.contract(version_id).asks
        asked = time.monotonic()

        def prepare_one(gated: Gated) -> Prepared | Asking | Stopped:
            # Counted from before the asking, so that this clock is never behind the database's: an attempt that
            # was told to come back in a second must not come back a moment early.
            self._clock.observe(gated.now + timedelta(seconds=time.monotonic() - asked))
            prepared = prepare(gated, account)
            if asks and isinstance(prepared, Prepared) and isinstance(account, Account):
                return ask_first(prepared, account)
            return prepared

        gate = store.gate(self._engine, token, postback_ids, self._worker, prepare_one, lease_s=self._lease_s)
        now = time.monotonic()
        for prepared in gate.prepared:
            self._in_flight[prepared.gated.attempt_id] = (prepared.gated.postback_id, token, now)
        if isinstance(account, Account):
            self._wire.send([(prepared, account) for prepared in gate.prepared])
            self._ask(token, gate.asking, account)
        for stopped in gate.stopped:
            log.warning(
                "postback.stopped",
                postback=show("pb", stopped.gated.postback_id),
                state=stopped.state,
                reason=stopped.reason,
            )
        if gate.stale:
            log.info("leases.stale", token=token, count=gate.stale)
        if gate.parked:
            log.info("postbacks.parked", token=token, count=gate.parked)

    def _ask(self, token: int, asking: list[Asking], account: Account) -> None:
        """Put the questions on lanes of their own; what finds no room there is given back, to be asked about later."""
        by_lane: dict[str, list[Asking]] = {}
        for each in asking:
            by_lane.setdefault(each.lane, []).append(each)
        now = time.monotonic()
        for lane, all_of_it in by_lane.items():
            room = max(self._wire.room(lane, all_of_it[0].check.concurrency), 0)
            put, rest = all_of_it[:room], all_of_it[room:]
            for each in put:
                self._in_flight[each.gated.attempt_id] = (each.gated.postback_id, token, now)
            self._wire.send([(each, account) for each in put])
            if rest:
                self._defer(lane, token, [each.gated.postback_id for each in rest])

    @property
    def in_flight(self) -> int:
        """Attempts whose intent is recorded and whose outcome is not, and questions whose answer is not."""
        return len(self._in_flight)

    def close(self, timeout_s: float = 30.0) -> bool:
        """Let what is on the wire end and be settled; True if all of it was. Takes nothing new meanwhile."""
        self._closing.set()
        end = time.monotonic() + timeout_s
        while self._in_flight and time.monotonic() < end:
            time.sleep(0.02)
        self._ended = True
        self._some_answered.set()
        self._threads[0].join(timeout=5)
        self._wire.close()
        return not self._in_flight

    def _take_answer(self, answered: Answered | AnsweredCheck) -> None:
        """Called on the wire's loop for every answer, so it wakes the settling thread once a batch and not once each."""
        self._answered.append(answered)
        if not self._some_answered.is_set():
            self._some_answered.set()

    def _settle_for_ever(self) -> None:
        while not self._ended:
            self._some_answered.wait()
            self._gather()
            self._some_answered.clear()
            while self._answered:
                self._settle(self._next_batch())

    def _next_batch(self) -> list[Answered | AnsweredCheck]:
        batch: list[Answered | AnsweredCheck] = []
        size = 0
        while self._answered and len(batch) < SETTLE_BATCH and size < SETTLE_BATCH_BYTES:
            batch.append(self._answered.popleft())
            size += sum(len(hop.body) for hop in batch[-1].answer.hops)
        return batch

    def _gather(self) -> None:
        """Let a batch come together: what a transaction costs is shared by all that it settles."""
        end = time.monotonic() + SETTLE_LINGER_S
        while len(self._answered) < SETTLE_BATCH and time.monotonic() < end and not self._ended:
            time.sleep(SETTLE_LINGER_S / 4)

    def _settle(self, batch: list[Answered | AnsweredCheck]) -> None:
        now = self._clock.now()
        attempts: list[SettledAttempt] = []
        checks: list[SettledCheck] = []
        for answered in batch:
            draw = random.random()  # noqa: S311 — jitter, not cryptography
            try:
                if isinstance(answered, Answered):
                    attempts.append(settle_answer(answered, self._worker, now, draw))
                else:
                    checks.append(settle_check(answered, self._worker, now, draw))
            except Exception as error:
                outgoing = answered.prepared if isinstance(answered, Answered) else answered.asking
                self._give_up(outgoing.gated.attempt_id, error)
        if attempts:
            self._write(attempts)
            self._pulse.feel(attempts)
        if checks:
            self._write_checks(checks)

    def _write(self, attempts: list[SettledAttempt]) -> None:
        try:
            settlement = self._write_when_back(lambda: store.settle(self._engine, attempts), len(attempts))
        except Exception as error:
            if len(attempts) == 1:
                self._give_up(attempts[0].attempt_id, error)
                return
            for attempt in attempts:  # one that cannot be written must not take the others along
                self._write([attempt])
            return
        stale = {attempt.attempt_id for attempt in settlement.stale}
        for attempt in attempts:
            self._in_flight.pop(attempt.attempt_id, None)
        for attempt in attempts:
            log_attempt(
                attempt, settlement.states.get(attempt.postback_id), stale=attempt.attempt_id in stale
            )

    def _write_checks(self, checks: list[SettledCheck]) -> None:
        try:
            settlement = self._write_when_back(lambda: settle_checks(self._engine, checks), len(checks))
        except Exception as error:
            if len(checks) == 1:
                self._give_up(checks[0].attempt_id, error)
                return
            for check in checks:
                self._write_checks([check])
            return
        for check in checks:
            self._in_flight.pop(check.attempt_id, None)
        for check in checks:
            log_check(
                check, settlement.numbers.get(check.attempt_id), settlement.states.get(check.attempt_id)
            )

    def _write_when_back(self, write: Callable[[], Written], count: int) -> Written:
        """Settle; while the database is away, keep the answers, which are in our hands and nowhere else.

        If it stays away longer than the lease, rescue calls the attempts unknown and the fence discards ours.
        """
        while True:
            try:
                return write()
            except DBAPIError as error:
                if not is_away(error):
                    raise
                log.error("settle.failed", answers=count, error=str(error.orig or error))
                time.sleep(_SETTLE_RETRY_S)

    def _give_up(self, attempt_id: int, error: Exception) -> None:
        """Let go of an answer that cannot be written down: its lease runs out, and rescue calls it unknown."""
        # Not the error's own text: SQLAlchemy's quotes every value of the statement.
        said = f"{type(error).__name__}: {getattr(error, 'orig', error)}"
        log.error("attempt.not_settled", attempt=show("at", attempt_id), error=said)
        self._in_flight.pop(attempt_id, None)

    def _keep_leases(self) -> None:
        """Extend the leases of what is still on the wire, long before they end."""
        while not self._closing.wait(self._lease_s / 6) or self._in_flight:
            if self._closing.is_set():
                time.sleep(0.2)
            now = time.monotonic()
            ageing = {
                attempt_id: (number, token)
                for attempt_id, (number, token, renewed) in list(self._in_flight.items())
                if now - renewed > self._lease_s / 4
            }
            if not ageing:
                continue
            try:
                held = store.extend(self._engine, list(ageing.values()), self._lease_s)
            except SQLAlchemyError as error:
                log.error("leases.not_extended", count=len(ageing), error=str(getattr(error, "orig", error)))
                continue
            for attempt_id, (number, token) in ageing.items():
                if attempt_id in self._in_flight:
                    self._in_flight[attempt_id] = (number, token, now)
            if held < len(ageing):
                log.info("leases.settled_meanwhile", count=len(ageing) - held)


def log_attempt(attempt: SettledAttempt, state: State | None, *, stale: bool) -> None:
    """The canonical line: one an attempt, saying the same as its rows in short.

    A log that cannot be written (its disk is full, its reader gone) must not end the thread that settles.
    """
    last = attempt.hops[-1] if attempt.hops else None
    with suppress(OSError, ValueError):
        attempt_log().info(
            "postback.attempted",
            attempt=show("at", attempt.attempt_id),
            postback=show("pb", attempt.postback_id),
            number=attempt.number,
            trigger=attempt.trigger,
            **({"adjustment": attempt.adjustment} if attempt.adjustment else {}),
            verdict=attempt.verdict,
            rule=attempt.rule,
            state=state or attempt.state,
            stale=stale,
            status_code=attempt.status_code,
            delay_s=attempt.delay_s,
            hops=len(attempt.hops),
            total_ms=last and last.total_ms,
            peer=last and last.peer,
            url=last.url if last else None,
            error=attempt.error_message,
        )
