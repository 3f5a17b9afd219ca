"""Users in, states and lists out: the one path for one user and for many.

What a caller hands in is checked here. A list and a frame become the same `Histories`; one function adapts them, and one
makes a `UserState`. The way of one user touches no polars.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import polars as pl
import torch
from jaxtyping import Float, Int64

from mecold.data.catalog import Catalog, plain_ids
from mecold.data.frames import id_column
from mecold.data.histories import Histories
from mecold.data.interactions import Interactions
from mecold.errors import InvalidDataError, few
from mecold.model import Model, Ratings
from mecold.rules import Allowed, Rules
from mecold.space.back import Back
from mecold.space.guests import with_guests
from mecold.space.index import Hidden, Ranked
from mecold.space.rerank import Find, Rerank
from mecold.space.shelf import Shelf
from mecold.space.space import UserVectors
from mecold.types import ItemId, UserState

_ROWS_AT_ONCE = 1 << 16  # padded history rows per chunk
_USERS_AT_ONCE = 2048
_MANY = 0.25  # of a catalogue


def check_state(user: object, model: Model, dim: int) -> None:
    """Refuse what is no state, and a state that another model made, or that was tampered with."""
    if not isinstance(user, UserState):
        raise InvalidDataError(f"The user is a {type(user).__name__}; pass the UserState that adapt_user returned.")
    if user.model != model.fingerprint:
        raise InvalidDataError(
            f"This user was adapted by the model {user.model}, not by {model.fingerprint}: scores would mean nothing. "
            "Call adapt_user again."
        )
    for name, size in (
        ("query", dim),
        ("trust", len(user.seen)),
        ("again", len(user.seen)),
        ("ratings", len(user.seen)),
    ):
        numbers = getattr(user, name)
        bad = np.isinf(numbers) if name == "ratings" else ~np.isfinite(numbers)
        if numbers.shape != (size,) or bad.any():
            raise InvalidDataError(
                f"The state's {name} has shape {numbers.shape} or is not finite; it needs {size} finite numbers. "
                "Call adapt_user again."
            )


@torch.inference_mode()
def adapt(
    model: Model, shelf: Shelf, support: Histories, texts: Float[torch.Tensor, "guests rank"] | None = None
) -> UserVectors:
    """Adapt users, one or many: every door goes through here.

    Args:
        model: adapts them.
        shelf: the items.
        support: their histories.
        texts: half-whitened texts of things that are not on the shelf, which rows from the size of the catalogue on name.
            They are on no neighbour list, so nothing of them is left in the vectors' rows.
    """
    space = shelf.space
    support = support if support.mask.device == space.device else support.to(space.device)
    if texts is None:
        return model.head.adapt(space, support, model.coefficients)
    some = with_guests(space, shelf.touched, support.rows, texts, model.basis)
    users = model.head.adapt(some.space, replace(support, rows=some.rows), model.coefficients)
    rows = support.newest(users.rows.shape[1]).rows
    items = rows < len(space)
    return replace(users, rows=torch.where(items, rows, 0), trust=torch.where(items, users.trust, 0.0))


def states_of(
    model: Model,
    shelf: Shelf,
    support: Histories,
    unknown: Sequence[tuple[ItemId, ...]],
    texts: Float[torch.Tensor, "guests rank"] | None = None,
) -> Iterator[UserState]:
    """States of users.

    Args:
        model: adapts them.
        shelf: the items.
        support: their histories.
        unknown: items of each user that are not in the catalogue; seen, but not read.
        texts: as for `adapt`; read, but not seen.
    """
    users = adapt(model, shelf, support, texts)
    vectors, trusts, rows = users.vector.cpu().numpy(), users.trust.cpu().numpy(), support.rows.numpy()
    before = model.head.again(support).cpu().numpy() if model.repeats else None
    rated = None if support.ratings is None else support.ratings.numpy()
    if rated is not None and model.ratings is not None:
        check_ratings(model.ratings, rated, lambda user, place: shelf.ids(rows[user, [place]])[0])
    for user, shots in enumerate(support.mask.sum(1).tolist()):
        items = rows[user, :shots] < len(shelf.space)  # texts are on no shelf
        had = int(items.sum())
        seen = (*shelf.ids(rows[user, :shots][items]), *unknown[user])
        read = min(shots, trusts.shape[1])  # of a long history only the newest items
        trust, again = np.zeros(shots, np.float32), np.zeros(len(seen), np.float32)
        trust[shots - read :] = trusts[user, :read]
        if before is not None:
            again[:had] = before[user, :shots][items]
        ratings = np.full(len(seen), np.nan, np.float32)
        if rated is not None:
            ratings[:had] = rated[user, :shots][items]
        trust = np.concatenate([trust[items], np.zeros(len(unknown[user]), np.float32)])
        yield UserState(vectors[user], seen, trust, again, ratings, shots, model.fingerprint)


def check_ratings(
    model: Ratings, ratings: Float[np.ndarray, "users length"], item: Callable[[int, int], ItemId]
) -> None:
    """Refuse ratings outside the scale that the model was fitted with.

    Args:
        model: knows the scale.
        ratings: NaN where there is none.
        item: id of the item in a place of a user's history.
    """
    lowest, highest = model.scale
    users, places = np.nonzero((ratings < lowest) | (ratings > highest))
    if len(users):
        pairs = zip(users.tolist(), places.tolist(), strict=True)
        raise InvalidDataError(
            f"{len(users):,} of {int((~np.isnan(ratings)).sum()):,} ratings lie outside {lowest:g} to {highest:g}, the scale of "
            f"the log of the fit: {few([(item(*pair), float(ratings[pair])) for pair in pairs])}. Bring them to that scale, or "
            "fit on a log with ratings like these."
        )


def chunks(log: Interactions) -> Iterator[slice]:
    """Users of a log in order, in chunks whose padded histories fit in memory."""
    sizes, start = np.maximum(log.lengths, 1), 0
    while start < len(sizes):
        widths = np.maximum.accumulate(sizes[start : start + _USERS_AT_ONCE])
        fits = widths * np.arange(1, len(widths) + 1) <= _ROWS_AT_ONCE
        count = max(1, int(fits.sum()))
        yield slice(start, start + count)
        start += count


def search(
    shelf: Shelf, users: UserVectors, k: int, allowed: Allowed, rerank: Rerank | None, seen: Hidden, back: Back | None
) -> Ranked:
    """Lists of a batch of users.

    Args:
        shelf: the items.
        users: who wants lists.
        k: how long they are.
        allowed: who may get what.
        rerank: how lists are picked.
        seen: what users have.
        back: the same, where it may come back.
    """
    whole = replace(allowed, hidden=allowed.hidden.joined(seen))
    returning = None if back is None else back.only(allowed.keeps(back.pairs))

    def find(some: np.ndarray | None, depth: int) -> Ranked:
        asking, hidden, only, own = users, whole.hidden, whole.only, returning
        if some is not None:
            asking = users.take(torch.from_numpy(some).to(shelf.space.device))
            hidden, only = hidden.taken(some), None if only is None else only.taken(some)
            own = None if own is None else own.taken(some)
        found = shelf.index.search(shelf.space, whole.out, asking, depth, hidden, only)
        return found if own is None else own.among(found, shelf.space, asking, depth)

    return find(None, k) if rerank is None else rerank.best(shelf.space, k, find)


def finder(shelf: Shelf, user: UserVectors, hidden: np.ndarray, among: Sequence[ItemId] | None) -> Find:
    """The search of one user: in all that is on the shelf, or among some items."""
    if among is None:
        return lambda _, depth: shelf.index.search(shelf.space, shelf.out, user, depth, Hidden.of([hidden]))
    wanted = shelf.catalog.rows(among, "the items in `among`")
    if len(wanted) > _MANY * len(shelf.catalog):  # so many that it is better to search in all
        out = torch.ones_like(shelf.out)
        out[wanted] = shelf.out[wanted]
        return lambda _, depth: shelf.index.search(shelf.space, out, user, depth, Hidden.of([hidden]))
    allowed = np.setdiff1d(np.unique(wanted), hidden)
    return lambda _, depth: shelf.search_among(allowed, user, depth)


def with_seen(
    find: Find,
    shelf: Shelf,
    vectors: UserVectors,
    user: UserState,
    out: Sequence[ItemId],
    among: Sequence[ItemId] | None,
) -> Find:
    """A search in which what the user has may come back."""
    gone, allowed = set(out), None if among is None else set(among)
    pairs = [
        (row, bonus)
        for item, bonus in zip(user.seen, user.again.tolist(), strict=True)
        if item not in gone and (allowed is None or item in allowed) and (row := shelf.catalog.row(item)) is not None
    ]
    rows = np.array([row for row, _ in pairs], np.int64)
    back = Back(Hidden.of([rows]), np.array([bonus for _, bonus in pairs], np.float32))
    back = back.only(~shelf.out.cpu().numpy()[rows])
    return lambda some, depth: back.among(find(some, depth), shelf.space, vectors, depth)


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
        mask, rows = support.mask.numpy(), support.rows.numpy()
        seen, back = Hidden(np.nonzero(mask)[0], rows[mask]), None
        if rules.include_seen:
            back = Back(seen, model.head.again(support).cpu().numpy()[mask])
        return search(shelf, adapt(model, shelf, support), k, own, rules.rerank, seen, back)

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
