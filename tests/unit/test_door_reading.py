"""Reading a request's body: what comes is bounded in size and in time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from producers.door.problems import RefusedError
from producers.door.reading import MAX_BODY_BYTES, read_body


def receiving(*messages: dict[str, Any]) -> Any:
    """A sender that gives these messages, and then nothing more."""
    left = list(messages)

    async def receive() -> dict[str, Any]:
        if not left:
            await asyncio.Event().wait()
        return left.pop(0)

    return receive


def part(body: bytes, *, more: bool = True) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


def refused(receive: Any, headers: dict[bytes, bytes] | None = None) -> int:
    with pytest.raises(RefusedError) as error:
        asyncio.run(read_body(receive, headers or {}, within_s=0.05))
    return error.value.status


def test_a_body_comes_in_parts() -> None:
    parts = receiving(part(b"one "), part(b"body", more=False))
    assert asyncio.run(read_body(parts, {})) == b"one body"


def test_a_body_that_trickles_is_refused_in_time() -> None:
    """Its first part came, and then nothing."""
    assert refused(receiving(part(b"["))) == 408


def test_a_body_that_is_too_large_is_refused_before_it_has_come() -> None:
    """By the length it says, and by what comes if it says none."""
    assert refused(receiving(), {b"content-length": str(MAX_BODY_BYTES + 1).encode()}) == 413
    assert refused(receiving(part(b" " * MAX_BODY_BYTES), part(b" "))) == 413


def test_a_sender_that_goes_away_is_refused() -> None:
    assert refused(receiving(part(b"["), {"type": "http.disconnect"})) == 400
