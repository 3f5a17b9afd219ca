"""The few public value types. No behaviour beyond turning a user's state into bytes or JSON and back."""

import base64
import json
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float32

from mecold.errors import InvalidDataError

ItemId: TypeAlias = str | int
"""The caller's own item id; a catalogue holds strings or integers, not both."""


class Interaction(NamedTuple):
    """One thing a user did, as a support row.

    Args:
        item: the item's id; left out where there is a text.
        label: 1.0 liked, -1.0 disliked, anything between is graded; None is liked, unless the rating says
            otherwise; 0.0 is "saw it, no opinion", which still is one of the newest 20 rows, the only ones that steer.
            What labels below 1 say is learned from logs with ratings; without, they hide the item and say nothing of others.
        time: any number that grows with time (unix seconds, a position); None keeps the order of the list. On the clock
            of the training log's timestamps it also tells what was popular then.
        weight: how much this row counts against the others of the same user; positive. Only ratios matter.
        event: what kind of event it was, such as "purchase", where the model was fitted with kinds; None is the strongest.
        rating: on the scale of the log of the fit; what `predict_rating` reads. Where the model was fitted with `liked_from`, a
            lower one is a dislike, as in a frame, unless `label` is given too. None: there is none.
        text: describes a thing that is not in the catalogue, in place of an id; it is read as a new item with this text would
            be. It takes the encoder of the fit.
    """

    item: ItemId = ""
    label: float | None = None
    time: float | datetime | None = None
    weight: float = 1.0
    event: str | None = None
    rating: float | None = None
    text: str | None = None


class Recommendation(NamedTuple):
    """One recommended item and its score; scores compare within one user only."""

    item: ItemId
    score: float


class Synced(NamedTuple):
    """What a feed did to the catalogue, in numbers of items; one that is shown again may be updated too.

    Args:
        added: new items.
        updated: items whose texts changed.
        shown: hidden items that are recommended again.
        hidden: items that are recommended no more.
        removed: items that were taken out, hidden ones too.
    """

    added: int
    updated: int
    shown: int
    hidden: int
    removed: int


@dataclass(frozen=True)
class Explanation:
    """Why an item has its score for a user; `base` and the contributions add up to the score.

    Args:
        item: the explained item.
        score: its score.
        base: what it would score had the user no opinion on any support item.
        contributions: what each support item adds, largest first.
    """

    item: ItemId
    score: float
    base: float
    contributions: tuple[tuple[ItemId, float], ...]


_NUMBERS = ("query", "trust", "again", "ratings")  # of a state, as arrays


@dataclass(frozen=True, eq=False)
class UserState:
    """All that mecold knows of a user. The caller keeps it; mecold keeps nothing.

    Args:
        query: the adapted head, float32, shape `(dim,)`, read-only.
        seen: the items of the support, never recommended unless asked for.
        trust: how much the neighbours of each item of `seen` count, float32, read-only; 0 for an unknown item.
        again: what each item of `seen` scores for having come before, should it be let come back, float32, read-only.
        ratings: how each item of `seen` was rated, NaN where it was not, float32, read-only.
        shots: size of the support, texts among it, of which nothing but what they add to the query is kept.
        model: fingerprint of the model that made the query; another model refuses the state.
    """

    query: Float32[np.ndarray, " dim"]
    seen: tuple[ItemId, ...]
    trust: Float32[np.ndarray, " seen"]
    again: Float32[np.ndarray, " seen"]
    ratings: Float32[np.ndarray, " seen"]
    shots: int
    model: str

    def __post_init__(self) -> None:
        for name in _NUMBERS:
            numbers = np.array(getattr(self, name), dtype=np.float32)
            numbers.flags.writeable = False
            object.__setattr__(self, name, numbers)

    def __eq__(self, other: object) -> bool:
        """Equal when every field is, the numbers bit for bit."""
        return self._all() == other._all() if isinstance(other, UserState) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._all())

    def _all(self) -> tuple[object, ...]:
        return self.seen, self.shots, self.model, *(getattr(self, name).tobytes() for name in _NUMBERS)

    def to_json(self) -> str:
        """The state as JSON text; `from_json` returns an equal state."""
        numbers = {name: base64.b64encode(getattr(self, name).astype("<f4").tobytes()).decode() for name in _NUMBERS}
        return json.dumps({**numbers, "seen": list(self.seen), "shots": self.shots, "model": self.model})

    @classmethod
    def from_json(cls, text: str | bytes) -> "UserState":
        """Read a state written by `to_json`.

        Raises:
            InvalidDataError: if the text is not such a state.
        """
        try:
            fields = json.loads(text)
            query, trust, again, ratings = (
                np.frombuffer(base64.b64decode(fields[name], validate=True), dtype="<f4").astype(np.float32)
                for name in _NUMBERS
            )
            seen, shots = tuple(fields["seen"]), int(fields["shots"])
            if not all(isinstance(item, str | int) for item in seen):
                raise TypeError("seen holds something that is no item id")
            return cls(query, seen, trust, again, ratings, shots, str(fields["model"]))
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            raise InvalidDataError(
                f"This is not a saved UserState: {error!r}. Pass what `to_json()` returned."
            ) from error

    def to_bytes(self) -> bytes:
        """The state as UTF-8 bytes of its JSON: small, portable, and safe to read from strangers."""
        return self.to_json().encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> "UserState":
        """Read a state written by `to_bytes`."""
        return cls.from_json(data)
