"""Items that users have, and that may come back: they are few, so they are scored one by one and put among what was found."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32

from mecold.space.index import Hidden, Ranked
from mecold.space.space import ItemSpace, UserVectors


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
        wanted = torch.from_numpy(own).to(space.device)
        scores = space.scores_of(wanted, users).cpu().numpy() + bonus
        more = Ranked(own, scores, mask)
        both = Ranked(*(np.concatenate([a, b], axis=1) for a, b in zip(found, more, strict=True)))
        order = np.lexsort((both.rows, -both.scores, ~both.valid))[:, :k]
        return Ranked(*(np.take_along_axis(part, order, 1) for part in both))
