"""What the sink sends back: a plain answer, or a script of steps for answers that misbehave."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from http import HTTPStatus

import orjson

_REASONS = {status.value: status.phrase for status in HTTPStatus}


@dataclass(frozen=True, slots=True)
class Pause:
    """Nothing is sent for ``seconds``."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Repeat:
    """``chunk`` sent ``times`` times as fast as the other side reads, ``pause_s`` apart."""

    chunk: bytes
    times: int
    pause_s: float = 0.0


class Ending(Enum):
    """How a script ends a connection."""

    CLOSE = "close"
    RESET = "reset"


Step = bytes | Pause | Repeat | Ending
Script = tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """A well-formed response. Header fields are sent in the order given."""

    status_code: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    content_type: str = "text/plain; charset=utf-8"

    def render(self, *, keep_alive: bool = True, head_only: bool = False) -> bytes:
        """The response's bytes; ``head_only`` for HEAD requests."""
        lines = [f"HTTP/1.1 {self.status_code} {_REASONS.get(self.status_code, 'Unnamed')}"]
        lines.extend(f"{name}: {value}" for name, value in self.headers)
        if self.body:
            lines.append(f"Content-Type: {self.content_type}")
        # RFC 9110, 8.6: a 204 carries no Content-Length.
        if self.status_code != 204:
            lines.append(f"Content-Length: {len(self.body)}")
        if not keep_alive:
            lines.append("Connection: close")
        head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
        return head if head_only else head + self.body


def json_answer(value: object, status_code: int = 200) -> Answer:
    """``value`` as an indented JSON response."""
    body = orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    return Answer(status_code, body, content_type="application/json")


def status_of(script: Script) -> int | None:
    """The status code a script's first final status line shows, or None when it shows none."""
    for step in script:
        if isinstance(step, bytes) and step.startswith(b"HTTP/1.1 ") and step[9:12].isdigit():
            status_code = int(step[9:12])
            if status_code >= 200:
                return status_code
    return None
