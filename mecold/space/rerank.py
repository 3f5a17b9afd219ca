"""Re-ranking: lists that are less alike, and at most so many of a group.

A list is picked item by item out of a longer one, the candidates: always the one that is worth most among those whose
group is not full,

    worth(item) = (1 - diversity) * relevance(item) - diversity * (largest cosine to what is picked)

*Relevance* is the score, set to 1 at the best candidate and to 0 at the last of the first `depth`; cosines are of the
text channel. Ties go to the better score. Candidates are the `depth` best by score; for users whose groups are full before
k are found they become four times as many, and again, until k are found or nothing is left.

Source: maximal marginal relevance, Carbonell and Goldstein 1998.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import normalize

from mecold.space.index import Ranked
from mecold.space.space import ItemSpace

_LEAST, _TIMES, _WIDER = 100, 10, 4
_NUMBERS_AT_ONCE = 1 << 26  # 256 MB of candidates' vectors
_CANDIDATES_AT_ONCE = 1 << 24  # 200 MB of rows and scores

Find: TypeAlias = Callable[[np.ndarray | None, int], Ranked]
"""Positions of users in the batch (None: all of them), and how many candidates -> these users' candidates."""

Codes: TypeAlias = Callable[[np.ndarray], np.ndarray]
"""Rows of any shape -> a number for the group of each, -1 where it is in none."""


def depth_of(k: int) -> int:
    """How many candidates a list of k is picked from at first."""
    return max(_LEAST, _TIMES * k)


@dataclass(frozen=True)
class Rerank:
    """How a list is picked.

    Args:
        diversity: 0 takes the best scores, 1 looks at nothing but how unlike the items are.
        codes: groups of rows; None where there are none.
        per_group: at most so many of one group.
    """

    diversity: float = 0.0
    codes: Codes | None = None
    per_group: int = 1

    def best(self, space: ItemSpace, k: int, find: Find) -> Ranked:
        """Lists of k, or of what is left, for the users of a search; scores are those of the search."""
        depth = wanted = depth_of(k)
        candidates = find(None, depth)
        found = self._picked(space, k, candidates, depth)
        short = _short(found, candidates, k, wanted)
        while self.codes is not None and len(short) and wanted < len(space):
            wanted = min(wanted * _WIDER, len(space))
            step, still = max(1, _CANDIDATES_AT_ONCE // wanted), []
            for start in range(0, len(short), step):
                some = short[start : start + step]
                candidates = find(some, wanted)
                picked = self._picked(space, k, candidates, depth)
                found = _put(found, some, picked, k)
                still.append(some[_short(picked, candidates, k, wanted)])
            short = np.concatenate(still)
        return found

    def _picked(self, space: ItemSpace, k: int, candidates: Ranked, depth: int) -> Ranked:
        users, width = candidates.rows.shape
        if not width:
            return candidates
        k = min(k, width)
        step = max(1, _NUMBERS_AT_ONCE // max(1, width * (space.text.width if self.diversity else 8)))
        parts = [np.empty((0, k), np.int64)]
        for start in range(0, users, step):
            some = Ranked(*(part[start : start + step] for part in candidates))
            parts.append(self._places(space, k, some, depth))
        places = np.concatenate(parts)
        valid = places >= 0
        rows, scores = (np.take_along_axis(part, places.clip(0), 1) for part in candidates[:2])
        return Ranked(rows, scores, valid)

    def _places(self, space: ItemSpace, k: int, candidates: Ranked, depth: int) -> Int64[np.ndarray, "users k"]:
        """Places of the picked candidates in rank order; -1 behind the end of a short list."""
        device = space.device
        free = torch.from_numpy(candidates.valid.copy()).to(device)
        worth = (1 - self.diversity) * _relevance(candidates, depth).to(device)
        sides = _directions(space, np.where(candidates.valid, candidates.rows, 0)) if self.diversity else None
        codes = None if self.codes is None else torch.from_numpy(self.codes(candidates.rows)).to(device)
        nearest = taken = None
        places = []
        for _ in range(k):
            now = worth if nearest is None else worth - self.diversity * nearest
            pick = now.masked_fill(~free, -torch.inf).argmax(1, keepdim=True)
            there = free.gather(1, pick)
            places.append(torch.where(there, pick, -1))
            free.scatter_(1, pick, value=False)
            if sides is not None:
                near = _cosines(sides, pick)
                nearest = near if nearest is None else torch.maximum(nearest, near)
            if codes is not None:
                mine = codes.gather(1, pick)
                same = (codes == mine) & (mine >= 0)
                taken = same.long() if taken is None else taken + same
                free &= (taken < self.per_group) | (codes < 0)
        return torch.cat(places, dim=1).cpu().numpy()


def _short(found: Ranked, candidates: Ranked, k: int, wanted: int) -> Int64[np.ndarray, " short"]:
    """Users whose list has less than k, and who have more candidates than the wanted ones."""
    if candidates.rows.shape[1] < wanted:
        return np.empty(0, np.int64)
    return np.flatnonzero((found.valid.sum(1) < k) & candidates.valid[:, -1])


def _relevance(candidates: Ranked, depth: int) -> Float[Tensor, "users width"]:
    """Scores set to 1 at the best and to 0 at the last of the first `depth`; 0 where all are equal."""
    last = np.maximum(np.minimum(candidates.valid.sum(1), depth) - 1, 0)[:, None]
    scores = np.where(candidates.valid, candidates.scores, 0.0).astype(np.float32)
    low = np.take_along_axis(scores, last, 1)
    span = scores[:, :1] - low
    return torch.from_numpy((scores - low) / np.where(span > 0, span, 1.0))


def _directions(space: ItemSpace, rows: np.ndarray) -> Float[Tensor, "users width dim"]:
    """Texts of rows at length 1; zero for an item without text, which is like nothing."""
    return normalize(space.text_of(torch.from_numpy(rows).to(space.device)), dim=2)


def _cosines(sides: Float[Tensor, "users width dim"], pick: Int64[Tensor, "users one"]) -> Float[Tensor, "users width"]:
    """Cosine of every candidate to the one that was picked."""
    picked = sides.gather(1, pick[:, :, None].expand(-1, -1, sides.shape[2]))
    return (sides @ picked.transpose(1, 2))[:, :, 0]


def _put(found: Ranked, users: np.ndarray, other: Ranked, k: int) -> Ranked:
    """The lists of some users replaced, all padded to k."""
    whole = Ranked(*(_padded(part, k) for part in found))
    for part, new in zip(whole, other, strict=True):
        part[users] = _padded(new, k)
    return whole


def _padded(part: np.ndarray, k: int) -> np.ndarray:
    """A copy that is k wide; what is added is 0, or False."""
    return np.pad(part, ((0, 0), (0, k - part.shape[1])))


def spread(space: ItemSpace, found: Ranked) -> Float[np.ndarray, " users"]:
    """Mean of 1 - cosine over the pairs of items of each list; 0 for a list of less than two."""
    sides = _directions(space, np.where(found.valid, found.rows, 0))
    there = torch.from_numpy(found.valid).to(sides.device)
    total = torch.where(there[..., None], sides, 0.0)
    sums, own = total.sum(1).square().sum(1), total.square().sum((1, 2))
    count = there.sum(1)
    pairs = (count * (count - 1)).clamp(min=1)
    apart: np.ndarray = torch.where(count > 1, 1 - (sums - own) / pairs, 0.0).cpu().numpy()
    return apart
