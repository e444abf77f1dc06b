"""From an id in an address to what is known of it: the reads that the pages of lives share."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import Request

from infra.store.evidence import Choice, every, read_life
from infra.store.records import AttemptRecord, Life, PostbackRecord
from infra.store.searching import search
from investigations.console.comparison import Compared
from investigations.console.frame import NotFoundError, engine_of, masking_of
from investigations.console.marking import Marker, tokens_of
from schemas.click_mask import ClickMask
from schemas.ids import parse, show


@dataclass(frozen=True, slots=True)
class Found:
    """An attempt with the life it belongs to, its own exchanges read and no others."""

    life: Life
    postback: PostbackRecord
    attempt: AttemptRecord

    @property
    def compared(self) -> Compared:
        return Compared(self.life, self.postback, self.attempt)

    @property
    def neighbours(self) -> tuple[str | None, str | None]:
        """Ids of the attempts of its postback before and after it."""
        ids = [show("at", each.id) for each in self.postback.attempts]
        at = ids.index(show("at", self.attempt.id))
        return (ids[at - 1] if at else None, ids[at + 1] if at + 1 < len(ids) else None)


def number_of(text: str, prefix: str) -> int:
    """The number of an id in an address. Raises NotFoundError when it is none, or another kind of thing."""
    parsed = parse(text)
    if parsed is None or parsed[0] != prefix:
        raise NotFoundError(f"{text} is no id of this kind; one looks like {show(prefix, 12)}.")
    return parsed[1]


def life_of(request: Request, number: int, hops_of: Choice = every) -> Life:
    """A conversion's life. Raises NotFoundError."""
    life = read_life(engine_of(request), number, hops_of=hops_of)
    if life is None:
        raise NotFoundError(f"There is no conversion {show('cv', number)}.")
    return life


def attempt_of(request: Request, text: str) -> Found:
    """An attempt by its id. Raises NotFoundError."""
    number = number_of(text, "at")
    postback_id = search.postback_of_attempt(engine_of(request), number)
    conversion_id = (
        None if postback_id is None else search.conversion_of_postback(engine_of(request), postback_id)
    )
    if conversion_id is None:
        raise NotFoundError(f"There is no attempt {text}.")
    life = life_of(request, conversion_id, lambda _: (number,))
    for postback in life.postbacks:
        for attempt in postback.attempts:
            if attempt.id == number:
                return Found(life, postback, attempt)
    raise NotFoundError(f"There is no attempt {text}.")


def marker_of(request: Request, *lives: Life) -> Marker:
    """How texts of these lives are shown to whoever asks."""
    tokens = frozenset().union(*map(tokens_of, lives))
    return Marker(tokens, ClickMask(tokens) if masking_of(request).on else None)
