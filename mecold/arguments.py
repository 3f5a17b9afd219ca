"""What a caller hands in for one user, checked: k, a state, a history."""

from collections.abc import Iterable

import numpy as np

from mecold.errors import InvalidDataError
from mecold.data.interactions import OnUnknown
from mecold.model import Model
from mecold.space.shelf import Shelf
from mecold.data.histories import History, history
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
    for name, numbers, size in (("query", user.query, model.head.layout.dim), ("trust", user.trust, len(user.seen))):
        if numbers.shape != (size,) or not np.isfinite(numbers).all():
            raise InvalidDataError(
                f"The state's {name} has shape {numbers.shape} or is not finite; it needs {size} finite numbers. "
                "Call adapt_user again."
            )


def read_history(
    source: Iterable[ItemId | Interaction], shelf: Shelf, on_unknown: OnUnknown
) -> tuple[History, tuple[ItemId, ...]]:
    """The support of one user, and everything the user has seen, unknown items included."""
    if isinstance(source, str | bytes):
        raise InvalidDataError(f"The history is the text {source[:40]!r}; pass a list of item ids.")
    given = [_checked(one) for one in source]
    timed = sum(row.time is not None for row in given)
    if timed not in (0, len(given)):
        raise InvalidDataError(
            f"{timed:,} of {len(given):,} interactions have a time: give one to all, or to none (the order of the list "
            "counts then)."
        )
    if timed:
        given.sort(key=lambda row: row.time or 0.0)
    first: dict[ItemId, Interaction] = {}
    for row in given:
        first.setdefault(row.item, row)
    seen = tuple(first)
    known = [row for row in first.values() if on_unknown == "raise" or row.item in shelf.catalog.row_of]
    rows = shelf.catalog.rows([row.item for row in known], f"the user's {len(seen):,} items")
    newest = [float(row.time) for row in known if row.time is not None][-1:]
    return history(rows, [row.label for row in known], [row.weight for row in known], *newest), seen


def _checked(one: ItemId | Interaction) -> Interaction:
    row = one if isinstance(one, Interaction) else Interaction(one)
    if isinstance(row.item, np.generic):  # ids out of a numpy array: back to plain Python, as JSON needs them
        row = row._replace(item=row.item.item())
    numbers = np.array([row.label, row.weight, row.time or 0.0], np.float32)
    if not (np.isfinite(numbers).all() and numbers[1] > 0):
        raise InvalidDataError(
            f"{row} must have a finite label, a finite time if any, and a positive, finite weight. A dislike is label=-1.0."
        )
    return row


def listed(items: Iterable[ItemId], name: str) -> list[ItemId]:
    """Ids as a list; one bare id is refused, which would be read letter by letter."""
    if isinstance(items, str | bytes):
        raise InvalidDataError(f"{name}={items[:40]!r} is one text; pass a list of item ids.")
    return list(items)
