"""Credentials a request carries: what they are called and where they are found, never the secrets themselves."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError


class _Config(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SecretRef(_Config):
    """Where a secret is found: never the secret itself. Exactly one of the two."""

    env: str | None = None
    file: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _named_not_written(cls, given: object) -> object:
        # Said here and not by the type, whose own message would not tell what to write instead.
        # An applied contract is stored whole and comes back with the other place named and empty.
        places = [
            place for place in ("env", "file") if isinstance(given, dict) and given.get(place) is not None
        ]
        if isinstance(given, str) or (isinstance(given, dict) and len(places) != 1):
            raise PydanticCustomError("secret_ref", 'a secret is { env = "NAME" } or { file = "PATH" }')
        return given


class HeaderAuth(_Config):
    """An API key in a header."""

    kind: Literal["header"]
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")] = "X-API-Key"
    value: SecretRef


class BearerAuth(_Config):
    """RFC 6750: ``Authorization: Bearer …`` with a token that does not change by itself."""

    kind: Literal["bearer"]
    token: SecretRef


class ClientCredentialsAuth(_Config):
    """RFC 6749 §4.4: a token fetched with the client's own credentials, cached and renewed before it ends."""

    kind: Literal["client_credentials"]
    token_url: Annotated[str, Field(pattern=r"^https?://")]
    client_id: str
    client_secret: SecretRef
    scope: str | None = None


Auth = Annotated[HeaderAuth | BearerAuth | ClientCredentialsAuth, Field(discriminator="kind")]
