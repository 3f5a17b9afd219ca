"""Guests: things that are known by a text alone and stand in no catalogue, read beside items as new ones would be.

No item is added, and nothing of the catalogue is copied but the rows that are named.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mecold.space.basis import Basis
from mecold.space.space import ItemSpace, newcomers


class Company(NamedTuple):
    """A small space of what some histories name.

    Args:
        space: the items that are named, and the guests behind them.
        rows: the histories in rows of that space.
    """

    space: ItemSpace
    rows: Int[Tensor, "users shots"]


def with_guests(
    space: ItemSpace,
    usable: Bool[Tensor, " items"],
    rows: Int[Tensor, "users shots"],
    texts: Float[Tensor, "guests rank"],
    basis: Basis,
) -> Company:
    """What histories name, items and guests, as a space of its own.

    Args:
        space: the items.
        usable: items that may stand in for guests: lookalikes that somebody has touched.
        rows: rows of the catalogue; those from `len(space)` on are guests, in the order of `texts`.
        texts: half-whitened texts of the guests.
        basis: the scales that are fitted once.
    """
    named, places = torch.unique(rows, return_inverse=True)
    guests = newcomers(space, usable, texts, basis)
    some = space.take(named[named < len(space)]).followed_by(guests.take(named[named >= len(space)] - len(space)))
    return Company(some, places)
