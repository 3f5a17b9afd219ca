"""Users in, states and lists out: the one path for one user and for many.

What a caller hands in is checked here. A list and a frame become the same `Histories`; one function adapts them, and one
makes a `UserState`. The way of one user touches no polars.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import polars as pl
import torch
from jaxtyping import Int64

from mecold.data.catalog import Catalog, plain_ids
from mecold.data.events import Events
from mecold.data.frames import id_column
from mecold.data.histories import Histories
from mecold.data.interactions import Interactions, OnUnknown
from mecold.errors import InvalidDataError, few
from mecold.model import Model
from mecold.rules import Allowed, Rules
from mecold.space.index import Hidden, Ranked
from mecold.space.rerank import Rerank
from mecold.space.shelf import Shelf
from mecold.space.space import UserVectors
from mecold.types import Interaction, ItemId, UserState

_LARGEST = float(np.finfo(np.float32).max)
_NUMBERS: Any = (float, int, np.number)
_ROWS_AT_ONCE = 1 << 16  # padded history rows per chunk
_USERS_AT_ONCE = 2048


def check_k(k: int) -> None:
    """Refuse a k that is no positive integer."""
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise InvalidDataError(f"k={k!r} must be a positive integer.")


def check_state(user: object, model: Model, dim: int) -> None:
    """Refuse what is no state, and a state that another model made, or that was tampered with."""
    if not isinstance(user, UserState):
        raise InvalidDataError(f"The user is a {type(user).__name__}; pass the UserState that adapt_user returned.")
    if user.model != model.fingerprint:
        raise InvalidDataError(
            f"This user was adapted by the model {user.model}, not by {model.fingerprint}: scores would mean nothing. "
            "Call adapt_user again."
        )
    for name, numbers, size in (("query", user.query, dim), ("trust", user.trust, len(user.seen))):
        if numbers.shape != (size,) or not np.isfinite(numbers).all():
            raise InvalidDataError(
                f"The state's {name} has shape {numbers.shape} or is not finite; it needs {size} finite numbers. "
                "Call adapt_user again."
            )


def read_history(
    source: object, catalog: Catalog, on_unknown: OnUnknown, events: Events | None = None
) -> tuple[Histories, tuple[ItemId, ...]]:
    """One user's history, and the items of it that are not in the catalogue."""
    if isinstance(source, str | bytes):
        raise InvalidDataError(f"The history is the text {source[:40]!r}; pass a list of item ids.")
    if not isinstance(source, Iterable) or isinstance(source, Mapping) or hasattr(source, "columns"):
        raise InvalidDataError(
            f"The history is a {type(source).__name__}; pass a list of item ids or of Interaction(item, label, time, weight). "
            "Frames go to adapt_users."
        )
    given = [_checked(one, place) for place, one in enumerate(source)]
    catalog.checked([row.item for row in given], "history")
    timed = sum(row.time is not None for row in given)
    if timed not in (0, len(given)):
        raise InvalidDataError(
            f"{timed:,} of {len(given):,} interactions have a time: give one to all, or to none (the order of the list "
            "counts then)."
        )
    if timed:
        given.sort(key=lambda row: row.time or 0.0)
    first = _distinct(given, events)
    unknown = () if on_unknown == "raise" else tuple(item for item in first if item not in catalog)
    known = [row for row in first.values() if row.item not in unknown]
    rows = catalog.rows([row.item for row in known], f"the user's {len(first):,} items")
    numbers = np.array([(row.label, row.weight, row.time if timed else np.nan) for row in known], np.float64)
    labels, weights, times = numbers.reshape(-1, 3).T
    kinds = (
        None
        if events is None
        else np.array([events.names.index(row.event) if row.event else 0 for row in known], np.int64)
    )
    return Histories.padded(
        rows, np.array([len(rows)]), labels=labels, weights=weights, times=times, kinds=kinds
    ), unknown


def _distinct(given: Sequence[Interaction], events: Events | None) -> dict[ItemId, Interaction]:
    """Each item once, in order: as it came first; where there are kinds of events as it came last, as the strongest of them."""
    found: dict[ItemId, Interaction] = {}
    if events is None:
        for row in given:
            found.setdefault(row.item, row)
        return found
    events.named(pl.Series([row.event for row in given if row.event is not None], dtype=pl.String))
    place = {name: at for at, name in enumerate(events.names)} | {None: 0}
    for row in given:
        before = found.pop(row.item, row)
        found[row.item] = row._replace(event=min(before.event, row.event, key=place.__getitem__))
    return found


def _checked(one: Any, place: int) -> Interaction:
    row = one if isinstance(one, Interaction) else Interaction(one)
    if isinstance(row.item, np.generic):  # ids out of a numpy array: back to plain Python, as JSON needs them
        row = row._replace(item=row.item.item())
    if type(row.item) not in (str, int) or row.item == "":
        raise InvalidDataError(
            f"Row {place} of the history is {str(row.item)[:60]!r} of type {type(row.item).__name__}, which is no item id: "
            "pass ids, strings or integers, or Interaction(item, label, time, weight)."
        )
    if row.time is not None and not isinstance(row.time, float | int):
        row = row._replace(time=_seconds(row.time))
    numbers = (row.label, row.weight, row.time or 0.0)
    if not (all(map(_is_float32, numbers)) and np.float32(row.weight) > 0 and abs(row.label) <= 1):
        raise InvalidDataError(
            f"{row} must have a finite label from -1 (disliked) to 1 (liked), a finite time if any, and a positive, finite "
            "weight. Turn ratings into labels, or hand over a frame with a rating column to a model with liked_from."
        )
    return row


def _seconds(time: object) -> Any:
    """A date or datetime as the seconds that frames make of it, without a zone in UTC; anything else as it is."""
    if time != time:  # NaT, of whatever library
        return np.nan
    if isinstance(time, np.datetime64):
        time = time.astype("datetime64[us]").item()
    if isinstance(time, datetime):
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
    if isinstance(time, date):
        return datetime(time.year, time.month, time.day, tzinfo=UTC).timestamp()
    return time


def _is_float32(number: Any) -> bool:
    """True for a number that is finite where it is stored."""
    return isinstance(number, _NUMBERS) and bool(abs(number) <= _LARGEST)  # False for NaN too


@torch.inference_mode()
def adapt(model: Model, shelf: Shelf, support: Histories) -> UserVectors:
    """Adapt users, one or many: every door goes through here."""
    device = shelf.space.device
    return model.head.adapt(
        shelf.space, support if support.mask.device == device else support.to(device), model.coefficients
    )  # fmt: skip


def states_of(
    model: Model, shelf: Shelf, support: Histories, unknown: Sequence[tuple[ItemId, ...]]
) -> Iterator[UserState]:
    """States of users.

    Args:
        model: adapts them.
        shelf: the items.
        support: their histories.
        unknown: items of each user that are not in the catalogue; seen, but not read.
    """
    users = adapt(model, shelf, support)
    vectors, trusts, rows = users.vector.cpu().numpy(), users.trust.cpu().numpy(), support.rows.numpy()
    for user, shots in enumerate(support.mask.sum(1).tolist()):
        seen = (*shelf.ids(rows[user, :shots]), *unknown[user])
        read = min(shots, trusts.shape[1])  # of a long history only the newest items
        trust = np.zeros(len(seen), np.float32)
        trust[shots - read : shots] = trusts[user, :read]
        yield UserState(vectors[user], seen, trust, shots, model.fingerprint)


def chunks(log: Interactions) -> Iterator[slice]:
    """Users of a log in order, in chunks whose padded histories fit in memory."""
    sizes, start = np.maximum(log.lengths, 1), 0
    while start < len(sizes):
        widths = np.maximum.accumulate(sizes[start : start + _USERS_AT_ONCE])
        fits = widths * np.arange(1, len(widths) + 1) <= _ROWS_AT_ONCE
        count = max(1, int(fits.sum()))
        yield slice(start, start + count)
        start += count


def search(shelf: Shelf, users: UserVectors, k: int, allowed: Allowed, rerank: Rerank | None) -> Ranked:
    """Lists of a batch of users."""

    def find(some: np.ndarray | None, depth: int) -> Ranked:
        asking, hidden, only = users, allowed.hidden, allowed.only
        if some is not None:
            asking = users.take(torch.from_numpy(some).to(shelf.space.device))
            hidden, only = hidden.taken(some), None if only is None else only.taken(some)
        return shelf.index.search(shelf.space, allowed.out, asking, depth, hidden, only)

    return find(None, k) if rerank is None else rerank.best(shelf.space, k, find)


def ranked_frame(
    model: Model,
    shelf: Shelf,
    log: Interactions,
    more: object,
    k: int,
    liked_from: float | None,
    rules: Rules,
    known: Callable[[pl.Series], Int64[np.ndarray, "users attributes"]] | None = None,
) -> pl.DataFrame:
    """One frame of ranked lists for the users of a log and for further users without a history.

    Args:
        model: adapts them.
        shelf: the items.
        log: histories.
        more: ids of users without a history.
        k: items per user.
        liked_from: what turns ratings into labels.
        rules: who may get what, and how lists are picked.
        known: users -> their groups, as `data.attributes` codes them; None where nothing is known of anybody.

    Raises:
        InvalidDataError: if a further user is in the log too, or has an id of another type.
    """
    extra = _further(more, log)
    allowed = rules.allowed(shelf, pl.concat([log.users if len(log) else log.users.cast(extra.dtype), extra]))

    def found_for(support: Histories, start: int) -> Ranked:
        own = allowed.between(start, start + len(support))
        if not rules.include_seen:
            mask, rows = support.mask.numpy(), support.rows.numpy()
            own = replace(own, hidden=own.hidden.joined(Hidden(np.nonzero(mask)[0], rows[mask])))
        return search(shelf, adapt(model, shelf, support), k, own, rules.rerank)

    labels = log.labels_from(liked_from)
    if known is not None:
        log = replace(log, groups=known(log.users))
    frames = [
        _frame(log.users[users], found_for(log.histories(labels, users), users.start), shelf.catalog)
        for users in chunks(log)
    ]
    if len(extra) and (known is not None or not allowed.same):
        for start in range(0, len(extra), _USERS_AT_ONCE):
            some = extra[start : start + _USERS_AT_ONCE]
            support = _without_history(len(some), None if known is None else known(some))
            frames.append(_frame(some, found_for(support, len(log) + start), shelf.catalog))
    elif len(extra) or not frames:
        zero_shot = found_for(_without_history(1), len(log))
        everyone = Ranked(*(np.repeat(part, len(extra), axis=0) for part in zero_shot))
        frames.append(_frame(extra, everyone, shelf.catalog))
    return pl.concat(frames)


def _without_history(users: int, groups: np.ndarray | None = None) -> Histories:
    return Histories.padded(np.empty(0, np.int64), np.zeros(users, np.int64), groups=groups)


def _further(more: object, log: Interactions) -> pl.Series:
    """Ids of users without a history, each once, with the type of those of the log."""
    extra = list(dict.fromkeys(plain_ids(more, "users")))
    there = set(log.users.to_list()) if extra else set()
    both = [user for user in extra if user in there]
    kind = id_column(pl.Series(extra), "`users`").dtype if extra else log.users.dtype
    if both or (kind != log.users.dtype and len(log)):
        raise InvalidDataError(
            f"`users` are users without history, with ids like those of the histories ({log.users.dtype}); these have "
            f"ids of type {kind}, and {len(both):,} have a history: {few(both)}."
        )
    return pl.Series(log.users.name, extra, dtype=kind)


def _frame(users: pl.Series, found: Ranked, catalog: Catalog) -> pl.DataFrame:
    ranks = found.valid.cumsum(1, dtype=np.int32)
    owners = np.repeat(np.arange(len(users)), found.valid.sum(1))
    return pl.DataFrame(
        {
            "user_id": users.gather(owners),
            "rank": ranks[found.valid],
            "item_id": catalog.ids.gather(found.rows[found.valid]),
            "score": found.scores[found.valid],
        }
    )
