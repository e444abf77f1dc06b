"""How long things are kept, as ``holdfire.toml`` says, and which months of evidence may leave."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer
from pydantic_core import PydanticCustomError

from schemas.durations import parse, show
from schemas.problem import Problem

CLAIM_WINDOW = timedelta(days=90)
"""How long after a conversion a network's support takes claims about it; only a month-end invoice comes later."""

SHORTEST = timedelta(days=7)
"""Less would take evidence away from retries that still run."""


def _age(value: object) -> timedelta | None:
    if value is None or (isinstance(value, str) and value.strip() == "forever"):
        return None
    age = parse(value)
    if age < SHORTEST:
        raise PydanticCustomError(
            "keep_too_short", "{age} is less than a week, and retries go on for days", {"age": show(age)}
        )
    return age


Age = Annotated[
    timedelta | None,
    BeforeValidator(_age),
    PlainSerializer(lambda age: "forever" if age is None else show(age), return_type=str),
]
"""How long something is kept; None, written ``forever``, for ever."""


class Keeping(BaseModel):
    """The ``[keeping]`` table. Nothing that is not named here ever leaves the database."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    evidence: Age = None
    """Attempts, hops and checks, of every destination that has no ``keep`` of its own."""
    archive: bool = True
    """Whether what leaves the database is written to compressed files first."""
    archive_dir: Annotated[str, Field(min_length=1, pattern=r"^/")] | None = None
    archive_keep: Age = None
    """How long an archive is kept, counted from the end of its month as the others are from the receipt."""
    inbox: Age = None
    rejects: Age = None
    receipts: Age = None
    clicks: Age = None
    reports: Age = None
    automatic: bool = False
    """Whether the clock's housekeeping does it each day; else a person runs ``holdfire retain``."""


TABLES = ("inbox", "rejects", "receipts", "clicks", "reports")
"""What is dropped by its age alone, in the order in which it is."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What was applied: the table, and ``keep`` of each destination that has one. Absent is not the same as None."""

    keeping: Keeping
    by_destination: Mapping[str, timedelta | None]

    def keep(self, destination: str) -> timedelta | None:
        """How long a destination's evidence is kept; None for ever."""
        if destination in self.by_destination:
            return self.by_destination[destination]
        return self.keeping.evidence

    def wire(self) -> dict[str, Any]:
        """As JSON values; ``read_policy`` reads them."""
        ages = {
            name: "forever" if age is None else show(age) for name, age in sorted(self.by_destination.items())
        }
        return {"keeping": self.keeping.model_dump(mode="json"), "destinations": ages}


def read_policy(stored: Mapping[str, Any]) -> Policy:
    """A policy from what ``wire`` gave."""
    ages = {name: _age(text) for name, text in stored["destinations"].items()}
    return Policy(Keeping.model_validate(stored["keeping"]), ages)


NOTHING = Policy(Keeping(), {})
"""What holds before anything was applied: all is kept."""


def month_after(month: date) -> date:
    return date(month.year + month.month // 12, month.month % 12 + 1, 1)


def end_of(month: date) -> datetime:
    """The instant at which a month of UTC ends."""
    return datetime.combine(month_after(month), time(), UTC)


def is_past(month: date, keep: timedelta | None, now: datetime) -> bool:
    """Whether all of a month is older than ``keep``."""
    return keep is not None and end_of(month) + keep <= now


def warnings_about(policy: Policy) -> Iterable[Problem]:
    """What is worth a look in a policy that can be used."""
    short = {f"destinations.{name}.keep": age for name, age in policy.by_destination.items()}
    for field, age in {"keeping.evidence": policy.keeping.evidence, **short}.items():
        if age is not None and age < CLAIM_WINDOW and not _archived_long_enough(policy.keeping):
            yield Problem(
                "keep_below_claims",
                field,
                f"is {show(age)}, and networks take claims for about {show(CLAIM_WINDOW)}",
                'Keep it longer, such as "400d", or archive it for longer',
            )
    keeping = policy.keeping
    longest = max(age or timedelta(0) for age in [keeping.evidence, *policy.by_destination.values()])
    if keeping.archive and keeping.archive_keep is not None and keeping.archive_keep <= longest:
        yield Problem(
            "archive_keep_too_short",
            "keeping.archive_keep",
            f"is {show(keeping.archive_keep)}, so that archives would be deleted as they are written",
            "Keep archives longer than evidence, or say archive = false",
        )


def _archived_long_enough(keeping: Keeping) -> bool:
    return keeping.archive and (keeping.archive_keep is None or keeping.archive_keep >= CLAIM_WINDOW)
