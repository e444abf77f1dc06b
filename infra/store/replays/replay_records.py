"""What is told of runs of replays: a plan before, a record and its progress after."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, Row, text

from infra.store.replays.replay_look import Looked, Options
from infra.store.selection import Extent, Selection
from schemas.ids import show
from schemas.lifecycle import State
from schemas.network import AdjustmentKind
from schemas.replaying import Again, Decision, Refused

SAMPLE = 10
EXAMPLES = 3
WAITING = (State.HELD, State.LEASED, State.RETRYING)
FAILED = (State.REJECTED, State.DEAD, State.IN_DOUBT, State.EXPIRED)
PUT_BACK = "put back"


class UnknownRunError(LookupError):
    """There is no run with this id."""

    def __init__(self, run_id: int) -> None:
        super().__init__(f"no {show('rn', run_id)}; `holdfire replays list` shows the runs there are")


@dataclass(frozen=True, slots=True)
class Sample:
    """A postback that a run would look at."""

    postback_id: int
    conversion_id: int
    destination: str
    state: State
    order_id: str | None
    click_id: str | None
    net_value: Decimal | None
    currency: str | None
    adjustment: AdjustmentKind | None
    decision: Decision


@dataclass(frozen=True, slots=True)
class Refusal:
    """Postbacks of one state that are refused alike."""

    state: State
    why: str
    count: int
    examples: tuple[int, ...]
    forceable: bool


@dataclass(frozen=True, slots=True)
class Overruled:
    """What speaks against firing postbacks again, and is overruled."""

    why: str
    count: int


@dataclass(frozen=True, slots=True)
class ReplayPlan:
    """What a run would do. ``fires``: how many, by the state they are in; ``worth``: of their conversions, by currency."""

    matching: int
    last: int
    fires: tuple[tuple[State, int], ...]
    refusals: tuple[Refusal, ...]
    overruled: tuple[Overruled, ...]
    worth: tuple[tuple[str, Decimal], ...]
    sample: tuple[Sample, ...]

    @property
    def moved(self) -> int:
        return sum(count for _, count in self.fires)

    @property
    def refused(self) -> int:
        return sum(refusal.count for refusal in self.refusals)


@dataclass(frozen=True, slots=True)
class Progress:
    """What became of the postbacks of a run, counted from what stands. ``fired``: at least one attempt was made since."""

    came_to: tuple[tuple[str, int], ...]
    fired: int
    refusals: tuple[Refusal, ...]

    def count(self, *states: str) -> int:
        return sum(count for state, count in self.came_to if state in states)

    @property
    def waiting(self) -> int:
        return self.count(*WAITING)

    @property
    def firing(self) -> int:
        return self.count(State.FIRING)

    @property
    def delivered(self) -> int:
        return self.count(State.DELIVERED)

    @property
    def failed(self) -> int:
        return self.count(*FAILED)

    @property
    def voided(self) -> int:
        return self.count(State.VOIDED)

    @property
    def put_back(self) -> int:
        return self.count(PUT_BACK)


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run as it stands. ``matching`` when it began; ``after_id`` of ``last_id`` is how far it has looked.

    ``ended_at``: when it had looked at everything; what it moved may wait still.
    """

    id: int
    begun_at: datetime
    who: str
    reason: str
    selection: Selection
    options: Options
    matching: int
    last_id: int
    after_id: int
    next_at: datetime
    moved: int
    refused: int
    paused_at: datetime | None
    stopped_at: datetime | None
    ended_at: datetime | None
    now: datetime
    progress: Progress | None = None

    @property
    def halted(self) -> bool:
        return self.paused_at is not None or self.stopped_at is not None

    @property
    def status(self) -> str:
        """``stopped``, ``paused``, ``begun`` (there is more to look at), ``firing`` (some of it waits), or ``done``."""
        if self.stopped_at is not None:
            return "stopped"
        if self.paused_at is not None:
            return "paused"
        if self.ended_at is None:
            return "begun"
        waits = self.progress is not None and self.progress.waiting + self.progress.firing
        return "firing" if waits else "done"


def record(row: Row[Any], selection: Selection) -> RunRecord:
    """A row of ``replay_runs`` as a value."""
    return RunRecord(
        id=row.id,
        begun_at=row.begun_at,
        who=row.who,
        reason=row.reason,
        selection=selection,
        options=Options(row.forced, row.with_current_version, row.per_second),
        matching=row.matching,
        last_id=row.last_id,
        after_id=row.after_id,
        next_at=row.next_at,
        moved=row.moved,
        refused=row.refused,
        paused_at=row.paused_at,
        stopped_at=row.stopped_at,
        ended_at=row.ended_at,
        now=row.now,
    )


# What has been put back, or was taken up by another run, is told as it was then; of the rest what stands is told.
_CAME_TO = text("""
    SELECT coalesce(r.came_to, p.state) AS came_to, count(*) AS postbacks,
        count(*) FILTER (WHERE p.attempts > r.attempts AND r.came_to IS DISTINCT FROM 'put back') AS fired
    FROM replays r JOIN postbacks p ON p.id = r.postback_id
    WHERE r.run_id = :run AND r.refused IS NULL GROUP BY 1 ORDER BY 1""")
_REFUSALS = text("""
    SELECT from_state, refused, count(*) AS postbacks, (array_agg(postback_id ORDER BY postback_id))[1:3] AS examples
    FROM replays WHERE run_id = :run AND refused IS NOT NULL GROUP BY 1, 2 ORDER BY 3 DESC, 2""")


def progress(connection: Connection, run_id: int) -> Progress:
    rows = connection.execute(_CAME_TO, {"run": run_id}).all()
    refusals = connection.execute(_REFUSALS, {"run": run_id}).all()
    return Progress(
        came_to=tuple((row.came_to, row.postbacks) for row in rows),
        fired=sum(row.fired for row in rows),
        refusals=tuple(
            Refusal(
                State(row.from_state),
                row.refused,
                row.postbacks,
                tuple(row.examples),
                "--force" in row.refused,
            )
            for row in refusals
        ),
    )


def summed(there: Extent, batches: Iterable[list[Looked]]) -> ReplayPlan:
    """Decisions as counts, with a sample of the first that would fire, or else of the first refused."""
    fires: Counter[State] = Counter()
    overruled: Counter[str] = Counter()
    refused: dict[tuple[State, Refused], list[int]] = defaultdict(list)
    counts: Counter[tuple[State, Refused]] = Counter()
    worth: dict[str, Decimal] = defaultdict(Decimal)
    firing: list[Sample] = []
    others: list[Sample] = []
    for each in (one for batch in batches for one in batch):
        state, decision = State(each.row.state), each.decision
        if isinstance(decision, Again):
            fires[state] += 1
            overruled.update(decision.warnings)
            if each.row.adjusts is None and each.row.net_value is not None and each.row.currency:
                worth[each.row.currency] += each.row.net_value
        else:
            counts[state, decision] += 1
            if len(refused[state, decision]) < EXAMPLES:
                refused[state, decision].append(each.row.id)
        kept = firing if isinstance(decision, Again) else others
        if len(kept) < SAMPLE:
            kept.append(sample(each))
    return ReplayPlan(
        matching=there.count,
        last=there.last,
        fires=tuple(sorted(fires.items(), key=lambda item: list(State).index(item[0]))),
        refusals=tuple(
            Refusal(state, why.words, count, tuple(refused[state, why]), why.forceable)
            for (state, why), count in counts.most_common()
        ),
        overruled=tuple(Overruled(why, count) for why, count in overruled.most_common()),
        worth=tuple(sorted(worth.items())),
        sample=tuple((firing + others)[:SAMPLE]),
    )


def sample(each: Looked) -> Sample:
    row = each.row
    return Sample(
        postback_id=row.id,
        conversion_id=row.conversion_id,
        destination=row.destination,
        state=State(row.state),
        order_id=each.event.order_id,
        click_id=each.click_id,
        net_value=row.net_value,
        currency=row.currency,
        adjustment=row.adjustment,
        decision=each.decision,
    )
