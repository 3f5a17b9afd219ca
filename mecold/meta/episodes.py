"""Episodes that look like deployment: a user's first k items are the support, what follows is the query."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

from mecold.data.interactions import Interactions
from mecold.data.histories import Support, support_of


@dataclass(frozen=True)
class Opening:
    """The first items of each user, padded: all that episodes are cut from.

    Args:
        rows: item rows, oldest first; padding holds 0.
        labels: 1 liked, -1 disliked.
        weights: positive weights.
        times: when each was, where the log has timestamps; NaN elsewhere.
        lengths: number of real rows per user.
    """

    rows: Int[Tensor, "users length"]
    labels: Float[Tensor, "users length"]
    weights: Float[Tensor, "users length"]
    times: Float64[Tensor, "users length"]
    lengths: Int[Tensor, " users"]

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, users: Tensor) -> "Opening":
        """These users, in this order."""
        return Opening(*(getattr(self, f)[users] for f in ("rows", "labels", "weights", "times", "lengths")))


@dataclass(frozen=True)
class Episodes:
    """Supports and the items that followed them."""

    support: Support
    query: Int[Tensor, "users queries"]
    query_mask: Bool[Tensor, "users queries"]

    def to(self, device: torch.device) -> "Episodes":
        """The same episodes on another device."""
        return Episodes(self.support.to(device), self.query.to(device), self.query_mask.to(device))


def labels_of(log: Interactions, liked_from: float | None) -> np.ndarray:
    """1 per interaction, or -1 where a rating lies below `liked_from`."""
    if liked_from is None or log.ratings is None:
        return np.ones(len(log.items), np.float32)
    return np.where(log.ratings >= liked_from, 1.0, -1.0).astype(np.float32)


def opening(log: Interactions, labels: np.ndarray, length: int) -> Opening:
    """The first `length` items of each user."""
    sizes = np.minimum(log.lengths, length)
    shape = (len(log), length)
    mask = np.arange(length) < sizes[:, None]
    source = (log.offsets[:-1, None] + np.arange(length))[mask]
    rows, marks, weights = np.zeros(shape, np.int64), np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    rows[mask], marks[mask], weights[mask] = log.items[source], labels[source], log.weights[source]
    times = np.full(shape, np.nan)
    if (known := log.timestamps) is not None:
        times[mask] = known[source]
    return Opening(*map(torch.from_numpy, (rows, marks, weights, times, sizes)))


def cut(users: Opening, shots: Int[Tensor, " users"], query: int) -> Episodes:
    """Episodes with the given number of shots each; only liked items are predicted.

    Args:
        users: openings.
        shots: support size per user; cut at the user's length.
        query: most query items.
    """
    shots = torch.minimum(shots, users.lengths)
    width = max(1, int(shots.max()) if len(shots) else 1)
    place = torch.arange(users.rows.shape[1])
    mask = place[:width] < shots[:, None]
    support = support_of(
        torch.where(mask, users.rows[:, :width], 0),
        torch.where(mask, users.labels[:, :width], 0.0),
        torch.where(mask, users.weights[:, :width], 0.0),
        mask,
        torch.where(shots > 0, users.times.gather(1, (shots[:, None] - 1).clamp(min=0))[:, 0], torch.nan),
    )
    places = shots[:, None] + torch.arange(query)
    inside = places < users.lengths[:, None]
    places = places.clamp(max=users.rows.shape[1] - 1)
    liked = users.labels.gather(1, places) > 0
    return Episodes(support, users.rows.gather(1, places), inside & liked)


def draw_shots(lengths: Int[Tensor, " users"], most: int, rng: np.random.Generator) -> Int[Tensor, " users"]:
    """A support size for each user, uniform from 0 to `most`, leaving at least one item for the query."""
    upper = np.minimum(lengths.numpy() - 1, most)
    return torch.from_numpy(rng.integers(0, upper + 1))


def telling(users: Opening, chosen: np.ndarray, shots: int, query: int, least: int = 100) -> np.ndarray:
    """Which of the chosen users a ranking at this many shots is judged on: True for each that counts.

    Those with a whole query behind the support, as the ranking metric looks at it; where they are fewer than `least`,
    the longest `least` that have any query at all. (Users with one or two more items are many, but they are another
    population: on a 5-core log they buy differently from those whom a recommender goes on to serve.)
    """
    left = users.lengths.numpy()[chosen] - shots
    whole: np.ndarray = left >= query
    if whole.sum() >= least:
        return whole
    longest = np.argsort(-left, kind="stable")[:least]
    mask = np.zeros(len(chosen), bool)
    mask[longest] = True
    mask &= left > 0
    return mask
