"""Who may use the console, and the arithmetic of keeping others out: roles, names, passwords, delays, and the policy."""

from __future__ import annotations

import re
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from schemas.durations import Duration, show


class Role(StrEnum):
    VIEWER = "viewer"
    """Reads everything, changes nothing."""
    OPERATOR = "operator"
    """Also pauses, replays, settles and reconciles."""


NAME = r"[a-z0-9][a-z0-9._-]{0,63}"
SHORTEST_PASSWORD = 12
"""Characters; length is what counts (NIST SP 800-63B, 5.1.1), so there are no rules about which."""
LONGEST_PASSWORD = 1024
"""Characters: what is hashed must stay small whoever sends it."""

FREE_FAILURES = {"account": 3, "address": 10}
"""Wrong passwords before the next has to wait. Many people may share an address."""
LONGEST_DELAY = timedelta(minutes=15)
FORGOTTEN_AFTER = timedelta(hours=24)
"""Without another failure the count starts again."""


def check_name(name: str) -> str:
    """The name as given. Raises ``ValueError`` for one that no account can have."""
    if not re.fullmatch(NAME, name):
        raise ValueError(
            f"{name!r} is no account name: use up to 64 small letters, digits, '.', '_' and '-', a letter or digit first"
        )
    return name


def check_password(password: str, name: str) -> str:
    """The password as given. Raises ``ValueError`` for one that would be guessed; its text never repeats it."""
    if len(password) < SHORTEST_PASSWORD:
        raise ValueError(
            f"the password is too short: use at least {SHORTEST_PASSWORD} characters, such as four random words"
        )
    if len(password) > LONGEST_PASSWORD:
        raise ValueError(f"the password is too long: use at most {LONGEST_PASSWORD} characters")
    if len(set(password)) < 5 or name.lower() in password.lower():
        raise ValueError(
            "the password would be guessed: do not repeat a few characters or use the account's name"
        )
    return password


def delay_after(kind: str, failures: int) -> timedelta:
    """How long an account or address has to wait after so many failures in a row: 1 s, 2 s, 4 s … 15 min."""
    beyond = failures - FREE_FAILURES[kind]
    if beyond < 0:
        return timedelta(0)
    return min(timedelta(seconds=2 ** min(beyond, 20)), LONGEST_DELAY)


def _host(text: str) -> str:
    if not re.fullmatch(r"(\*\.)?[a-z0-9]([a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:.]+\]", text):
        raise PydanticCustomError(
            "host_shape",
            "{text} is no host name: write console.example.com or *.example.com, without scheme and port",
            {"text": repr(text)},
        )
    return text


class ConsolePolicy(BaseModel):
    """The ``[console]`` table of a ``holdfire.toml``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mask_click_ids_for: tuple[Role, ...] = ()
    """Accounts of these roles see click ids only as ``[click:…]``, which compares but does not reveal."""
    session_idle: Annotated[Duration, Field(ge=timedelta(minutes=1), le=timedelta(days=7))] = timedelta(
        hours=2
    )
    """A session ends when nobody used it for so long."""
    session_absolute: Annotated[Duration, Field(ge=timedelta(minutes=5), le=timedelta(days=30))] = timedelta(
        hours=12
    )
    """A session ends so long after login, however much it is used."""
    hosts: tuple[Annotated[str, AfterValidator(_host)], ...] = ()
    """Host names that the console answers to; without any, to every one."""
    audit_evidence: bool = False
    """Write down who looked at which raw exchange, too."""

    @model_validator(mode="after")
    def _idle_is_shorter(self) -> Self:
        if self.session_idle > self.session_absolute:
            raise PydanticCustomError(
                "idle_beyond_absolute",
                "session_idle is {idle}, longer than session_absolute, {absolute}",
                {"idle": show(self.session_idle), "absolute": show(self.session_absolute)},
            )
        return self

    def masks_click_ids(self, role: Role) -> bool:
        return role in self.mask_click_ids_for
