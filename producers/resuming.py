"""Going on where an interrupted run stopped: a small file beside the rejects says how far everything is settled."""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from infra.delimited import Stream


class ResumeError(RuntimeError):
    """The run cannot go on where another stopped: why, and what to do about it."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A place in a file: bytes and lines before it, and the SHA-256 of those bytes."""

    offset: int
    number: int
    digest: str

    @classmethod
    def at(cls, stream: Stream) -> Checkpoint:
        return cls(stream.offset, stream.number, stream.digest)


class ResumeFile:
    """How far a file is settled: every line before is committed, or kept as rejected or unconfirmed.

    A line may be settled and not yet noted here when a run is killed; it is then sent again, which does no harm.
    """

    def __init__(self, path: Path, mapping: str) -> None:
        """``mapping`` tells how lines are read: a place in a file means nothing under another."""
        self.path = path
        self._mapping = mapping
        self._reached: deque[Checkpoint] = deque()

    def go_on(self, stream: Stream) -> int:
        """Bring the stream to where the interrupted run stopped; returns the number of lines passed, 0 if there is no
        such run. Raises ResumeError for another file or another mapping.
        """
        try:
            said: dict[str, Any] = orjson.loads(self.path.read_bytes())
            at = Checkpoint(int(said["offset"]), int(said["number"]), str(said["digest"]))
        except FileNotFoundError:
            return 0
        except (OSError, ValueError, KeyError, TypeError):
            raise ResumeError(f"{self.path} cannot be read; delete it, and run without --resume") from None
        if said.get("mapping") != self._mapping:
            raise ResumeError(
                f"{self.path} is of a run with other columns or another format; run without --resume"
            )
        if stream.offset > at.offset:
            return 0
        if not stream.skip_to(at.offset, at.number) or stream.digest != at.digest:
            raise ResumeError(
                f"this is not the file that was interrupted: its first {at.offset:,} bytes are others; run without --resume"
            )
        return at.number

    def reached(self, stream: Stream) -> None:
        """Everything before the stream's place was taken."""
        self._reached.append(Checkpoint.at(stream))

    def settled_before(self, line: int | None) -> None:
        """Everything before this line is settled (None: everything that was taken). Notes the furthest place of those.

        Raises OSError.
        """
        furthest = None
        while self._reached and (line is None or self._reached[0].number < line):
            furthest = self._reached.popleft()
        if furthest is None:
            return
        said = {"offset": furthest.offset, "number": furthest.number, "digest": furthest.digest}
        beside = self.path.with_name(f"{self.path.name}.new")
        beside.write_bytes(orjson.dumps(said | {"mapping": self._mapping}))
        beside.replace(self.path)

    def finished(self) -> None:
        """The run went to the file's end: there is nothing to go on with."""
        with suppress(OSError):
            self.path.unlink(missing_ok=True)
