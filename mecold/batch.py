"""Many users: histories out of a log in bounded chunks, and ranked lists back into one frame."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import polars as pl

from mecold.catalog import Catalog
from mecold.errors import InvalidDataError, few
from mecold.frames import id_column
from mecold.index import Found
from mecold.interactions import Interactions
from mecold.meta.episodes import labels_of
from mecold.support import History, history
from mecold.types import ItemId

_ROWS_AT_ONCE = 1 << 15  # padded support rows per chunk: 100 MB of gathered vectors at dim 400
_USERS_AT_ONCE = 2048


def histories_of(log: Interactions, liked_from: float | None) -> Iterator[tuple[list[ItemId], list[History]]]:
    """Chunks of users and their histories, in the log's order, no chunk with much padding in memory."""
    labels = labels_of(log, liked_from)
    users: list[ItemId] = []
    part: list[History] = []
    longest = 0
    for user, start, end in zip(log.users, log.offsets[:-1], log.offsets[1:], strict=True):
        longest = max(longest, int(end - start))
        if part and (longest * (len(part) + 1) > _ROWS_AT_ONCE or len(part) == _USERS_AT_ONCE):
            yield users, part
            users, part, longest = [], [], int(end - start)
        users.append(user)
        part.append(history(log.items[start:end], labels[start:end], log.weights[start:end]))
    if part:
        yield users, part


def recommendations(
    log: Interactions,
    more: Sequence[ItemId],
    liked_from: float | None,
    catalog: Catalog,
    found_for: Callable[[Sequence[History]], Found],
) -> pl.DataFrame:
    """One frame of ranked lists for the users of a log and for further users without a history.

    Raises:
        InvalidDataError: if a further user is in the log too, or has an id of another type.
    """
    frames = []
    for users, part in histories_of(log, liked_from):
        frames.append(_frame(log.users, users, found_for(part), catalog))
    if more:
        extra = id_column(pl.Series(list(more)), "`users`")
        both = [user for user in more if user in set(log.users.to_list())]
        if extra.dtype != log.users.dtype or both:
            raise InvalidDataError(
                f"`users` are users without history, with ids like those of the histories ({log.users.dtype}); "
                f"these have ids of type {extra.dtype}, and {len(both):,} have a history: {few(both)}."
            )
        zero_shot = found_for([history([])])[0]
        frames.append(_frame(log.users, list(more), [zero_shot] * len(more), catalog))
    return pl.concat(frames)


def _frame(like: pl.Series, users: Sequence[ItemId], found: Found, catalog: Catalog) -> pl.DataFrame:
    sizes = [len(rows) for rows, _ in found]
    ranks = [np.arange(1, size + 1) for size in sizes]
    return pl.DataFrame(
        {
            "user_id": pl.Series(users, dtype=like.dtype).gather(np.repeat(np.arange(len(users)), sizes)),
            "rank": pl.Series(np.concatenate(ranks), dtype=pl.Int32),
            "item_id": catalog.ids.gather(np.concatenate([rows for rows, _ in found])),
            "score": pl.Series(np.concatenate([scores for _, scores in found]), dtype=pl.Float32),
        }
    )
