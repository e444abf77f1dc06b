"""A source: a sender whose deliveries come to ``/hooks/NAME``, as ``holdfire.toml`` says."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from schemas.auth import SecretRef

SOURCE_NAME = r"^[A-Za-z0-9][A-Za-z0-9._:-]*$"
"""Of an event's ``source``, which is the name of the table that its delivery came to."""


class Source(BaseModel):
    """One ``[sources.NAME]`` table. What else it says are options of its hook, which alone knows them."""

    model_config = ConfigDict(extra="allow", frozen=True)

    hook: Annotated[str, Field(min_length=1)]
    secret: SecretRef | None = None
    secrets: tuple[SecretRef, ...] = ()
    """Several, while one is rotated: a delivery is genuine under any of them."""
    public_url: Annotated[str, Field(pattern=r"^https?://[^/?#]+[^?#]*$")] | None = None
    """Where the sender sends to, as it knows it: some signatures cover the URL."""

    @property
    def options(self) -> dict[str, Any]:
        """The keys that are the hook's own."""
        return dict(self.model_extra or {})

    def secret_refs(self) -> dict[str, SecretRef]:
        """Every secret, by the place that names it."""
        one = {} if self.secret is None else {"secret": self.secret}
        return one | {f"secrets.{place}": ref for place, ref in enumerate(self.secrets)}
