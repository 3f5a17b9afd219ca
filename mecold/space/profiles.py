"""What users are like by all that they had: a vector each, whatever it is needed for. It reads no labels, and ranks nothing."""

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float32, Int64

from mecold.space.space import ItemSpace

WIDTH = 64  # of a profile: further directions told nothing of users, and a head has to learn each of them


def had(
    items: Int64[np.ndarray, " rows"], offsets: Int64[np.ndarray, " users_plus_one"], n_items: int
) -> sp.csr_matrix:
    """Users and the items that they had, `(users, items)`, of ones."""
    return sp.csr_matrix((np.ones(len(items), np.float32), items, offsets), (len(offsets) - 1, n_items))


def sides_of(space: ItemSpace) -> Float32[np.ndarray, "items dim"]:
    """What each item says of who had it: the leading part of the support side of the first channel in which items can agree.

    Rare items say more, by the logarithm of how rare they are beside the most frequent one.
    """
    channel = next(one for one in space.channels.values() if one.traits.agrees and not one.traits.textual)
    side = (channel.item if channel.support is None else channel.support)[:, :WIDTH].cpu().numpy()
    counts = np.maximum(space.counts.cpu().numpy(), 1)
    found: np.ndarray = side * np.log(2 * counts.max() / counts).astype(np.float32)[:, None]
    return found


def length_one(sums: Float32[np.ndarray, "users dim"]) -> Float32[np.ndarray, "users dim"]:
    """Sums of items' sides as profiles: what a user is like, not how much they do."""
    found: np.ndarray = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-9)
    return found
