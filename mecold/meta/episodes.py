"""Episodes that look like deployment: a user's first k items are the support, what follows is the query."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from mecold.data.histories import Histories
from mecold.data.rows import Rows

SILENT = 0.3  # share of the likes that a silent user does not tell
_USUAL_ITEMS, _LEAST_USERS = 20_000, 200


@dataclass(frozen=True)
class Episodes(Rows):
    """Supports and the items that followed them.

    Args:
        support: what the head is adapted on.
        query: rows of the items that the outer loss is measured on; padding holds any row.
        query_mask: True for real entries of `query`.
    """

    support: Histories
    query: Int[Tensor, "users queries"]
    query_mask: Bool[Tensor, "users queries"]


def ranked_at_most(users: int, items: int) -> int:
    """How many users are ranked over a catalogue: as many as asked for up to 20,000 items, then fewer, so that the work stays the
    same; 200 at the least.
    """
    return min(users, max(_LEAST_USERS, users * _USUAL_ITEMS // max(1, items)))


def cut(users: Histories, shots: Int[Tensor, " users"], query: int) -> Episodes:
    """Episodes with the given number of shots each; only liked items are predicted.

    Args:
        users: the first items of users.
        shots: support size per user; cut at the user's length.
        query: most query items.
    """
    support = users.at(shots).first(shots)
    if users.goals:  # what is predicted is spread thin
        after = torch.arange(users.mask.shape[1]) >= support.shots[:, None]
        asked = users.chosen(after & users.wanted, query)
        return Episodes(support, asked.rows, asked.mask)
    places = support.shots[:, None] + torch.arange(query)
    inside = places < users.shots[:, None]
    places = places.clamp(max=users.rows.shape[1] - 1)
    liked = users.labels.gather(1, places) > 0
    return Episodes(support, users.rows.gather(1, places), inside & liked)


def half_told(users: Histories, rng: np.random.Generator) -> Histories:
    """Users of whom every other one says nothing of what was not liked, and little of what was: label 0 there, so that it is
    learned what a row says of which no more is known than that it is there.
    """
    if torch.equal(users.labels, users.mask.to(users.labels.dtype)):  # everything is liked
        return users
    silent = rng.random(len(users)) < 0.5
    hidden = torch.from_numpy(silent[:, None] & (rng.random(users.rows.shape) < SILENT))
    labels = torch.where(torch.from_numpy(silent)[:, None], users.labels.clamp(min=0), users.labels)
    return replace(users, labels=torch.where(hidden, 0.0, labels))


def draw_shots(lengths: Int[Tensor, " users"], most: int, rng: np.random.Generator) -> Int[Tensor, " users"]:
    """A support size for each user, uniform from 0 to `most`, leaving at least one item for the query."""
    upper = np.minimum(lengths.numpy() - 1, most)
    return torch.from_numpy(rng.integers(0, upper + 1))


def telling(users: Histories, chosen: np.ndarray, shots: int, query: int, least: int = 100) -> np.ndarray:
    """Which of the chosen users a ranking at this many shots is judged on: True for each that counts.

    Those with a whole query behind the support, as the ranking metric looks at it; where they are fewer than `least`,
    the longest `least` that have any query at all. (Users with one or two more items are many, but they are another
    population: on a 5-core log they buy differently from those whom a recommender goes on to serve.)
    """
    left = users.shots.numpy()[chosen] - shots
    whole: np.ndarray = left >= query
    if whole.sum() >= least:
        return whole
    longest = np.argsort(-left, kind="stable")[:least]
    mask = np.zeros(len(chosen), bool)
    mask[longest] = True
    mask &= left > 0
    return mask
