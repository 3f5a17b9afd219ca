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
    """What each item says of who had it: the support side of the first channel in which items can agree, its leading part."""
    channel = next(one for one in space.channels.values() if one.traits.agrees and not one.traits.textual)
    found: np.ndarray = (channel.item if channel.support is None else channel.support)[:, :WIDTH].cpu().numpy()
    return found


def profiles(had: sp.csr_matrix, sides: Float32[np.ndarray, "items dim"]) -> Float32[np.ndarray, "users dim"]:
    """The sum of what a user's items say, over the root of their number: many items make it sure, not long."""
    return scaled(had @ sides, np.diff(had.indptr).astype(np.int64))


def scaled(
    sums: Float32[np.ndarray, "users dim"], sizes: Int64[np.ndarray, " users"]
) -> Float32[np.ndarray, "users dim"]:
    """Sums of items' sides as profiles."""
    found: np.ndarray = sums / np.sqrt(np.maximum(sizes.astype(np.float32), 1))[:, None]
    return found.astype(np.float32)
