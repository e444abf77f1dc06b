"""What a person wants done by hand, as a form gives it, and what would come of it, as a page shows it. Pure but for the store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from pydantic_core import PydanticCustomError

from infra.filters import AskingError, iso_instant
from infra.store.by_hand import Answer
from schemas.by_hand import Act, Errand, Extension, Moved, Refused
from schemas.durations import parse as parse_duration

LONGEST_REASON = 500
"""Characters."""
SAMPLE = 10


@dataclass(slots=True)
class Outlook:
    """What would come of an errand, or came of it: counted by what is said, with a few examples of each kind."""

    moved: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    sample: list[Answer] = field(default_factory=list)

    def add(self, answers: Iterable[Answer]) -> None:
        for each in answers:
            match each.decision:
                case Moved():
                    # Instants differ from one to the next: what is counted is the kind.
                    self.moved[each.decision.says.partition(" at 2")[0]] += 1
                case Refused():
                    self.refused[each.decision.why] += 1
            if len(self.sample) < SAMPLE:
                self.sample.append(each)

    @property
    def moves(self) -> int:
        return self.moved.total()

    @property
    def refuses(self) -> int:
        return self.refused.total()


def read_reason(text: str) -> str:
    """Raises AskingError when none is given, or one that is too long."""
    said = text.strip()
    if not said:
        raise AskingError("Say why: the reason is kept with who did it, and the timeline tells it.")
    if len(said) > LONGEST_REASON:
        raise AskingError(f"The reason has {len(said)} characters; say it in {LONGEST_REASON}.")
    return said


def read_errand(act: Act, by: str, to: str) -> Errand:
    """The errand of a form; ``by`` and ``to`` are an extension's. Raises AskingError."""
    if act is not Act.EXTEND:
        return Errand(act)
    by, to = by.strip(), to.strip()
    if bool(by) == bool(to):
        raise AskingError("Say either by how much, such as 7d, or up to when, such as 2026-12-24T10:00:00Z.")
    if by:
        try:
            return Errand(act, Extension(by=parse_duration(by)))
        except PydanticCustomError as error:
            raise AskingError(f"By how much: {error.message()}.") from None
    try:
        return Errand(act, Extension(to=iso_instant(to)))
    except ValueError:
        raise AskingError(f"Up to when: {to!r} is no instant; write 2026-12-24T10:00:00Z.") from None
