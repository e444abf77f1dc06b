"""The pulse of networks: what attempts say of them is counted here, and told to their breakers when it matters.

While a network answers, that is a number in memory. Once it fails, or its breaker has heard of failures from whichever
process, every settled batch is told, with the answers that came before it: without those a rare failure would look like
nothing but failures.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog
from sqlalchemy import Engine

from infra.store.stopping import breaking
from infra.store.stopping.breaking import Outcomes
from schemas.breaker import BreakerState, Sign
from schemas.destination import Contract
from schemas.postback import SettledAttempt

log = structlog.get_logger()

REFRESH_S = 1.0
"""How long a process goes on with what it last read of the breakers. Less than ``KNOWN_WITHIN_S``: so the answer to a
probe is told by whoever gets it."""


@dataclass(slots=True)
class _Untold:
    """Answers that no breaker was told of, and when the last of them came, by this process's clock."""

    up: int = 0
    at: float = 0.0


class Pulse:
    """One a process. Used by the settling thread alone."""

    def __init__(self, engine: Engine, contract: Callable[[int], Contract]) -> None:
        self._engine = engine
        self._contract = contract
        self._untold: dict[str, _Untold] = defaultdict(_Untold)
        self._troubled: frozenset[str] = frozenset()
        self._read_at = float("-inf")

    def feel(self, attempts: Sequence[SettledAttempt]) -> None:
        """Take note of attempts that were settled together. Never raises: what is not counted does no harm."""
        by_version: dict[int, list[SettledAttempt]] = defaultdict(list)
        for attempt in attempts:
            by_version[attempt.version_id].append(attempt)
        try:
            self._refresh()
            for version_id, settled in by_version.items():
                self._feel(self._contract(version_id), settled)
        except Exception as error:
            # The thread that settles must not end over it. The error's own text may quote values.
            log.error("pulse.not_told", attempts=len(attempts), error=type(error).__name__)

    def _refresh(self) -> None:
        if time.monotonic() - self._read_at >= REFRESH_S:
            self._read_at = time.monotonic()
            self._troubled = breaking.troubled(self._engine)

    def _feel(self, contract: Contract, settled: Sequence[SettledAttempt]) -> None:
        signs = Counter(attempt.sign for attempt in settled)
        untold, policy = self._untold[contract.name], contract.destination.breaker_policy
        if contract.name not in self._troubled and (policy is None or not signs[Sign.DOWN]):
            if signs[Sign.UP]:
                untold.up, untold.at = untold.up + signs[Sign.UP], time.monotonic()
            return
        outcomes = Outcomes(
            signs[Sign.DOWN], signs[Sign.UP], untold.up, time.monotonic() - untold.at, _by_token(settled)
        )
        change = breaking.tell(self._engine, contract.name, outcomes, policy)
        self._untold[contract.name] = _Untold()
        if change.after.state is not BreakerState.CLOSED:
            self._troubled |= {contract.name}
        if change.after.state is not change.before.state:
            self._log(contract.name, change)

    @staticmethod
    def _log(destination: str, change: breaking.Change) -> None:
        after = change.after
        if after.state is BreakerState.OPEN:
            log.warning(
                "breaker.opened",
                destination=destination,
                until=after.until,
                trips=after.trips,
                reason=after.says,
            )
        elif after.state is BreakerState.CLOSED:
            log.info("breaker.closed", destination=destination, open_since=change.before.since)


def _by_token(settled: Sequence[SettledAttempt]) -> dict[int, tuple[int, int]]:
    signs = Counter((attempt.token, attempt.sign) for attempt in settled)
    return {token: (signs[token, Sign.DOWN], signs[token, Sign.UP]) for token, _ in signs}
