"""Errors as problem details (RFC 9457), each with a stable code, the reason and the remedy."""

from __future__ import annotations

from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

MEDIA_TYPE = b"application/problem+json"


@dataclass(eq=False)  # not frozen: Python and Starlette set an exception's traceback as it travels
class RefusedError(Exception):
    """A request that is refused as a whole. ``detail`` says why and what to do; ``headers`` go with the answer."""

    status: int
    code: str
    detail: str
    headers: tuple[tuple[bytes, bytes], ...] = ()
    more: dict[str, Any] = field(default_factory=dict)

    def body(self) -> dict[str, Any]:
        """The problem as JSON-ready values."""
        return {
            "type": f"urn:holdfire:problem:{self.code}",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "code": self.code,
            "detail": self.detail,
            **self.more,
        }


def unavailable(detail: str, retry_after_s: int = 2) -> RefusedError:
    """503: nothing was taken, and the same request may be taken soon."""
    return RefusedError(503, "unavailable", detail, ((b"retry-after", str(retry_after_s).encode()),))
