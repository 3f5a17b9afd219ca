"""Many users: histories out of a log in bounded chunks, and ranked lists back into one frame."""

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import polars as pl

from mecold.data.catalog import Catalog
from mecold.errors import InvalidDataError, few
from mecold.data.frames import id_column
from mecold.space.index import Found
from mecold.data.interactions import Interactions
from mecold.meta.episodes import labels_of
from mecold.data.histories import History, history
from mecold.types import ItemId

_ROWS_AT_ONCE = 1 << 15  # padded support rows per chunk: 100 MB of gathered vectors at dim 400
_USERS_AT_ONCE = 2048


def chunks(histories: Iterable[History]) -> Iterator[list[History]]:
    """The histories in order, in chunks whose padded form fits in memory."""
    part: list[History] = []
    longest = 0
    for one in histories:
        longest = max(longest, len(one.rows))
        if part and (longest * (len(part) + 1) > _ROWS_AT_ONCE or len(part) == _USERS_AT_ONCE):
            yield part
            part, longest = [], len(one.rows)
        part.append(one)
    if part:
        yield part


def histories_of(log: Interactions, liked_from: float | None) -> Iterator[tuple[list[ItemId], list[History]]]:
    """Chunks of users and their histories, in the log's order."""
    labels, start = labels_of(log, liked_from), 0
    spans = zip(log.offsets[:-1], log.offsets[1:], strict=True)
    clock = log.timestamps
    everyone = (
        history(
            log.items[a:b], labels[a:b], log.weights[a:b], np.nan if clock is None or a == b else float(clock[b - 1])
        )
        for a, b in spans
    )
    for part in chunks(everyone):
        yield log.users.slice(start, len(part)).to_list(), part
        start += len(part)


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
    extra = list(dict.fromkeys(more))
    there = set(log.users.to_list()) if extra else set()
    both = [user for user in extra if user in there]
    kind = id_column(pl.Series(extra), "`users`").dtype if extra else log.users.dtype
    if both or (kind != log.users.dtype and len(log)):
        raise InvalidDataError(
            f"`users` are users without history, with ids like those of the histories ({log.users.dtype}); these have "
            f"ids of type {kind}, and {len(both):,} have a history: {few(both)}."
        )
    frames = [_frame(log.users, users, found_for(part), catalog) for users, part in histories_of(log, liked_from)]
    if extra:
        zero_shot = found_for([history([])])[0]
        frames.append(_frame(pl.Series(extra, dtype=kind), extra, [zero_shot] * len(extra), catalog))
    return pl.concat(frames) if frames else _frame(log.users, [], [], catalog)


def _frame(like: pl.Series, users: Sequence[ItemId], found: Found, catalog: Catalog) -> pl.DataFrame:
    sizes = [len(rows) for rows, _ in found]
    ranks = [np.arange(1, size + 1) for size in sizes]
    rows, scores = ([pair[i] for pair in found] or [np.empty(0, np.int64)] for i in (0, 1))
    return pl.DataFrame(
        {
            "user_id": pl.Series(users, dtype=like.dtype).gather(
                np.repeat(np.arange(len(users)), sizes).astype(np.int64)
            ),
            "rank": pl.Series(np.concatenate(ranks or [np.empty(0, np.int64)]), dtype=pl.Int32),
            "item_id": catalog.ids.gather(np.concatenate(rows)),
            "score": pl.Series(np.concatenate(scores), dtype=pl.Float32),
        }
    )
