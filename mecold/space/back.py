"""Items that users have, and that may come back: they are few, so they are scored one by one and put among what was found."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from mecold.space.index import Hidden, Ranked
from mecold.space.space import ItemSpace, UserVectors

WIDE = 64  # rows of a user up to which all users are scored at once


@dataclass(frozen=True)
class Back:
    """Items that may come back, by user.

    Args:
        pairs: place of the user in the batch, and row of the item.
        bonus: what each scores for having come before.
    """

    pairs: Hidden
    bonus: Float32[np.ndarray, " pairs"]

    def taken(self, users: np.ndarray) -> "Back":
        """Those of these users of the batch, whose places rise."""
        mine = np.isin(self.pairs.users, users)
        return Back(self.pairs.taken(users), self.bonus[mine])

    def only(self, keep: np.ndarray) -> "Back":
        """Some of the pairs."""
        return Back(Hidden(self.pairs.users[keep], self.pairs.rows[keep]), self.bonus[keep])

    def among(self, found: Ranked, space: ItemSpace, users: UserVectors, k: int) -> Ranked:
        """The k best of what was found and of what may come back; ties by row."""
        owners, rows = self.pairs
        sizes = np.bincount(owners, minlength=len(users))
        mask = np.arange(max(1, int(sizes.max(initial=0)))) < sizes[:, None]
        own, bonus = np.zeros(mask.shape, np.int64), np.zeros(mask.shape, np.float32)
        own[mask], bonus[mask] = rows, self.bonus
        scores = _scores(space, users, torch.from_numpy(own).to(space.device)) + bonus
        more = Ranked(own, scores, mask)
        both = Ranked(*(np.concatenate([a, b], axis=1) for a, b in zip(found, more, strict=True)))
        order = np.lexsort((both.rows, -both.scores, ~both.valid))[:, :k]
        return Ranked(*(np.take_along_axis(part, order, 1) for part in both))


def _scores(
    space: ItemSpace, users: UserVectors, rows: Int64[Tensor, "users width"]
) -> Float32[np.ndarray, "users width"]:
    """Scores of each user's own rows: all users at once, or one after the other where there are many rows."""
    if rows.shape[1] <= WIDE:
        found = space.scores_of(rows, users)
    else:
        found = torch.cat([space.scores_among(own, users[user : user + 1]) for user, own in enumerate(rows)])
    scores: np.ndarray = found.cpu().numpy()
    return scores
