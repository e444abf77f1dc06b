"""The hold: how long a conversion waits before it is reported, and from which instant the wait is counted."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from schemas.durations import Duration


class HoldPolicy(BaseModel):
    """``none``: fire at once. ``refund``: wait out the refund window, fire what was not refunded.

    ``measured_from``: ``event`` (occurred_at), ``click`` (clicked_at, or the event where no click instant
    came) or ``receipt`` (the database's clock when intake committed the event).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["none", "refund"] = "none"
    wait: Annotated[Duration, Field(ge=timedelta(0))] = timedelta(0)
    measured_from: Literal["event", "click", "receipt"] = "event"

    @model_validator(mode="after")
    def _wait_fits_kind(self) -> HoldPolicy:
        if self.kind == "refund" and not self.wait:
            raise PydanticCustomError(
                "hold_without_wait", 'a refund window needs its length, such as wait = "14d"'
            )
        if self.kind == "none" and self.wait:
            raise PydanticCustomError("wait_without_hold", 'wait is given, but kind = "none" does not wait')
        return self


def release_at(
    policy: HoldPolicy, *, occurred_at: datetime, clicked_at: datetime | None, received_at: datetime
) -> datetime:
    """The instant the window ends; it may lie in the past, then the postback is due at once."""
    match policy.measured_from:
        case "event":
            start = occurred_at
        case "click":
            start = clicked_at or occurred_at
        case "receipt":
            start = received_at
    return start + policy.wait
