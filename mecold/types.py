"""The few public value types."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float32

from mecold.portable import Portable, count_in, ids_in

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


class Observed(NamedTuple):
    """What was taken in by `observe`.

    Args:
        rows: interactions, each of another user and item.
        new_users: users who had not been there.
        waiting: interactions, of all that were observed, that wait for `refresh`.
    """

    rows: int
    new_users: int
    waiting: int


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


@dataclass(frozen=True, eq=False)
class UserState(Portable):
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

    arrays: ClassVar[Mapping[str, str]] = {"query": "<f4", "trust": "<f4", "again": "<f4", "ratings": "<f4"}

    @classmethod
    def _read(cls, found: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
        return {
            **arrays,
            "seen": ids_in(found, "seen"),
            "shots": count_in(found, "shots"),
            "model": str(found["model"]),
        }
