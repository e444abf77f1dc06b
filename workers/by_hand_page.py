"""What came of an act by hand, for a person or a program: nothing is left out of the counts."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterable
from typing import Any

import orjson
import typer

from infra.store.by_hand import Answer
from schemas.by_hand import Act, Moved, Refused
from schemas.ids import show

ONE_BY_ONE = 20
"""Up to so many postbacks are told one by one; of more, the counts are."""
EXAMPLES = 3
PROGRESS_EVERY_S = 2.0

_DONE = {Act.VOID: "Voided", Act.EXTEND: "Extended", Act.RELEASE: "Released"}


class Report:
    """Takes the answers as they are committed; ``close`` says the sums. With ``as_json`` it prints a line an answer."""

    def __init__(self, act: Act, total: int, *, dry_run: bool, as_json: bool) -> None:
        self._act = act
        self._total = total
        self._dry_run = dry_run
        self._as_json = as_json
        self._moved: Counter[str] = Counter()
        self._wished: Counter[tuple[str, str]] = Counter()
        self._refused: Counter[tuple[str, str]] = Counter()
        self._examples: dict[tuple[str, str], list[int]] = {}
        self._said_at = time.monotonic()

    @property
    def moved(self) -> int:
        return self._moved.total()

    @property
    def refused(self) -> int:
        return self._refused.total()

    def add(self, answers: Iterable[Answer]) -> None:
        for answer in answers:
            decision = answer.decision
            if isinstance(decision, Moved):
                self._moved[answer.state.value] += 1
                if decision.wish:
                    self._wished[answer.state.value, decision.says] += 1
            else:
                group = answer.state.value, decision.why
                self._refused[group] += 1
                examples = self._examples.setdefault(group, [])
                if len(examples) < EXAMPLES:
                    examples.append(answer.postback_id)
            if self._as_json:
                sys.stdout.write(orjson.dumps(self._json(answer)).decode() + "\n")
            elif self._total <= ONE_BY_ONE:
                typer.echo(_line(answer))
        self._say_progress()

    def close(self, remark: str = "") -> None:
        """Print the sums: to standard output, or beside the JSON to standard error."""
        for line in self._sums():
            typer.echo(line, err=self._as_json)
        if remark:
            typer.echo(remark, err=True)

    def _say_progress(self) -> None:
        looked_at = self.moved + self.refused
        if time.monotonic() - self._said_at >= PROGRESS_EVERY_S and looked_at < self._total:
            self._said_at = time.monotonic()
            typer.echo(f"{looked_at:,} of {self._total:,} …", err=True)

    def _sums(self) -> Iterable[str]:
        if not self.moved and not self.refused:
            yield "No postback found: nothing was changed."
            return
        verb = f"Would {self._act}" if self._dry_run else _DONE[self._act]
        states = ", ".join(f"{count:,} {state}" for state, count in self._moved.most_common())
        yield f"{verb} {self.moved:,}{f': {states}' if states else ''}."
        told = not self._as_json and self._total <= ONE_BY_ONE
        if not told:
            for (state, says), count in self._wished.most_common():
                yield f"  {count:,} {state}: {says}"
        if self.refused:
            yield f"{'Would refuse' if self._dry_run else 'Refused'} {self.refused:,}{'.' if told else ':'}"
        if not told:
            for (state, why), count in self._refused.most_common():
                yield f"  {count:,} {state}: {why} ({self._such_as(state, why, count)})"
        if self._dry_run:
            yield "Nothing was changed."

    def _such_as(self, state: str, why: str, count: int) -> str:
        names = ", ".join(show("pb", number) for number in self._examples[state, why])
        return names if count <= EXAMPLES else f"{names} and {count - EXAMPLES:,} more: --json names them"

    def _json(self, answer: Answer) -> dict[str, Any]:
        decision = answer.decision
        moved = isinstance(decision, Moved)
        return {
            "id": show("pb", answer.postback_id),
            "conversion": show("cv", answer.conversion_id),
            "act": self._act.value,
            "dry_run": self._dry_run,
            "done": moved and not self._dry_run,
            "refused": not moved,
            "state": answer.state.value,
            "to_state": decision.state.value if isinstance(decision, Moved) else answer.state.value,
            "release_at": answer.release_at.isoformat(),
            "to_release_at": (
                decision.release_at if isinstance(decision, Moved) else answer.release_at
            ).isoformat(),
            "says": _says(decision),
        }


def _line(answer: Answer) -> str:
    decision = answer.decision
    name, before = show("pb", answer.postback_id), answer.state.value
    if isinstance(decision, Refused):
        return f"{name}  {before}, refused: {_says(decision)}"
    state = before if decision.state is answer.state else f"{before} → {decision.state}"
    return f"{name}  {state}: {_says(decision)}"


def _says(decision: Moved | Refused) -> str:
    if isinstance(decision, Moved):
        return decision.says
    return f"{decision.why}: {decision.instants}" if decision.instants else decision.why
