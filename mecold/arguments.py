"""What a caller hands in for one user, checked: k, a state, a history."""

import math
from collections.abc import Iterable

import numpy as np

from mecold.errors import InvalidDataError
from mecold.interactions import OnUnknown
from mecold.model import Model
from mecold.shelf import Shelf
from mecold.support import History, history
from mecold.types import Interaction, ItemId, UserState


def check_k(k: int) -> None:
    """Refuse a k that is no positive integer."""
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise InvalidDataError(f"k={k!r} must be a positive integer.")


def check_state(user: UserState, model: Model) -> None:
    """Refuse a state that another model made, or that was tampered with."""
    if user.model != model.fingerprint:
        raise InvalidDataError(
            f"This user was adapted by the model {user.model}, not by {model.fingerprint}: scores would mean nothing. "
            "Call adapt_user again."
        )
    if user.query.shape != (model.head.layout.dim,) or not np.isfinite(user.query).all():
        raise InvalidDataError(
            f"The state's query has shape {user.query.shape} or is not finite; this model needs {model.head.layout.dim} "
            "finite numbers. Call adapt_user again."
        )


def read_history(
    source: Iterable[ItemId | Interaction], shelf: Shelf, on_unknown: OnUnknown
) -> tuple[History, tuple[ItemId, ...]]:
    """The support of one user, and everything the user has seen, unknown items included."""
    if isinstance(source, str | bytes):
        raise InvalidDataError(f"The history is the text {source[:40]!r}; pass a list of item ids.")
    first: dict[ItemId, Interaction] = {}
    for one in source:
        row = one if isinstance(one, Interaction) else Interaction(one)
        if isinstance(row.item, np.generic):  # ids out of a numpy array: back to plain Python, as JSON needs them
            row = row._replace(item=row.item.item())
        first.setdefault(row.item, row)
    for row in first.values():
        if not (math.isfinite(row.label) and math.isfinite(row.weight) and row.weight > 0):
            raise InvalidDataError(
                f"{row} must have a finite label and a positive, finite weight. A dislike is label=-1.0."
            )
    seen = tuple(first)
    known = [row for row in first.values() if on_unknown == "raise" or row.item in shelf.catalog.row_of]
    rows = shelf.catalog.rows([row.item for row in known], f"the user's {len(seen):,} items")
    times = [float(row.time) for row in known if row.time is not None]
    if len(times) not in (0, len(known)) or not all(map(math.isfinite, times)):
        raise InvalidDataError(
            f"{len(times):,} of {len(known):,} interactions have a time: give a finite one to all, or to none (the order "
            "of the list counts then)."
        )
    labels, weights = [row.label for row in known], [row.weight for row in known]
    return history(rows, labels, weights, times or None), seen
