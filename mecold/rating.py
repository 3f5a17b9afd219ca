"""A state and items in, ratings out. What a support's ratings say is read here, when ratings are asked for: it takes a few small
sums, and items that came or went since the user was adapted are read as they are.
"""

from collections.abc import Iterable

import numpy as np
import polars as pl
import torch

from mecold.errors import InvalidDataError
from mecold.heads.ratings import RatedItems
from mecold.model import Model, Ratings
from mecold.space.shelf import Shelf
from mecold.types import ItemId, UserState

_NOTHING = "cannot be foretold"  # how the fit's note begins to say why


def foretold(model: Model, shelf: Shelf, user: UserState, items: Iterable[ItemId]) -> pl.DataFrame:
    """What a user will say of items.

    Args:
        model: knows how ratings come about.
        shelf: the items.
        user: a state of this model.
        items: the items.

    Returns:
        `item_id`, `mean`, `std`, `low`, `median`, `high`, in the order given.

    Raises:
        InvalidDataError: if the model was fitted without ratings.
        UnknownItemError: naming items that are not in the catalogue.
    """
    if model.ratings is None:
        why = next((note for note in model.notes if _NOTHING in note), "The log of the fit had no `rating` column.")
        raise InvalidDataError(
            f"This model cannot foretell ratings. {why} Fit on a log with ratings: a column `rating`, or "
            "interaction_columns={'rating': <your column>}."
        )
    wanted = shelf.catalog.checked(items, "items")
    rows = shelf.catalog.rows(wanted, "the items")
    said = [
        (row, rating)
        for item, rating in zip(user.seen, user.ratings.tolist(), strict=True)
        if rating == rating and (row := shelf.catalog.row(item)) is not None
    ]
    support = np.array([row for row, _ in said] or [0], np.int64)
    ratings = torch.tensor([[rating for _, rating in said] or [0.0]])
    mask = torch.full(ratings.shape, bool(said))
    every = _described(model.ratings, shelf, np.concatenate([support, rows]))
    here, there = (every.take(torch.arange(*ends)[None]) for ends in ((0, len(support)), (len(support), len(every))))
    found = model.ratings.head.predict(here, ratings, mask, there)
    numbers = {name: value[0].numpy() for name, value in found._asdict().items()}
    ids = pl.Series("item_id", wanted, dtype=shelf.catalog.dtype)
    return pl.DataFrame([ids, *(pl.Series(name, value) for name, value in numbers.items())])


def _described(ratings: Ratings, shelf: Shelf, rows: np.ndarray) -> RatedItems:
    known = [ratings.rows.get(item, -1) for item in shelf.ids(rows)]
    text = shelf.space.text_of(torch.from_numpy(rows).to(shelf.space.device)).cpu()
    return ratings.head.described(torch.tensor(known), text)
