"""The protocol: who trains, who is tested, and what each test asks. Three splits, all of them by hash or by time.

Nothing of a test user is in the training log. Ranking is over the full catalogue with the support removed; for cold
items also among the cold items alone. Users are told apart by sha256, so the split is the same on every machine.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias, get_args

import numpy as np
import polars as pl
from jaxtyping import Float64, Int64

from mecold.data.attributes import of_these
from mecold.data.interactions import Interactions
from mecold.errors import InvalidDataError
from mecold.evaluation.dataset import Dataset
from mecold.lazy import cached_property

Protocol: TypeAlias = Literal["user", "time", "item"]
PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)

QUERY = 10
"""A query is the next 10 items after the support (all cold items in the `item` split)."""
MIN_ITEMS = 11
"""A held-out user has at least this many distinct items."""
WARM, COLD = 3, 1
"""A held-out user of the `item` split has at least so many warm and cold items."""
LEAST_USERS = 10


def bucket(seed: int, key: str) -> int:
    """0 to 9, the same on every machine: the first 4 bytes of sha256("seed:key"), modulo 10."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{key}".encode()).digest()[:4], "big") % 10


@dataclass(frozen=True)
class Tasks:
    """Users at one number of shots: what is handed over of each, and what is asked.

    Args:
        users: user ids.
        supports: rows of the support items, oldest first, by user.
        queries: rows of the items to be found, by user; never empty.
        times: when each user's last support item was (NaN without a support or without timestamps).
        labels: of the support items, 1 liked to -1 disliked; None where everything is liked.
        kinds: of the support items, places among the log's kinds of events; None where there are none.
        attributes: what else is known of the users, a row each; None where nothing is.
    """

    users: pl.Series
    supports: Sequence[np.ndarray]
    queries: Sequence[np.ndarray]
    times: Float64[np.ndarray, " users"]
    labels: Sequence[np.ndarray] | None = None
    kinds: Sequence[np.ndarray] | None = None
    attributes: pl.DataFrame | None = None

    def __len__(self) -> int:
        return len(self.users)

    def between(self, start: int, stop: int) -> "Tasks":
        """Some of the tasks."""
        some = slice(start, stop)
        labels, kinds = (None if one is None else one[some] for one in (self.labels, self.kinds))
        known = None if self.attributes is None else self.attributes[some]
        return Tasks(self.users[some], self.supports[some], self.queries[some], self.times[some], labels, kinds, known)


@dataclass(frozen=True)
class Split:
    """One split of a log.

    Args:
        train: what systems may see.
        test: histories of the test users.
        valid: histories of the users on whom settings may be chosen.
        cold: rows of the items whose interactions left training, in the `item` split.
        inner: a split of the training log alone, where settings are chosen when there are no validation users.
        attributes: what else is known of users; None where nothing is.
    """

    train: Interactions
    test: Interactions
    valid: Interactions
    cold: Int64[np.ndarray, " cold"] | None = None
    inner: "Split | None" = field(default=None, repr=False)
    attributes: pl.DataFrame | None = field(default=None, repr=False)

    def tasks(self, part: Literal["test", "valid"], shots: int) -> Tasks:
        """The tasks of the test or validation users at a number of shots; only liked items are asked for, of the kinds of
        events that are predicted, and users with nothing to ask for are left out.
        """
        log = self.test if part == "test" else self.valid
        histories, clocks = log.split(), [] if log.timestamps is None else log.split(log.timestamps)
        if self.cold is None:
            places = [(np.arange(len(h))[:shots], np.arange(shots, len(h))) for h in histories]
        else:
            places = [(np.flatnonzero(~self.is_cold[h])[:shots], np.flatnonzero(self.is_cold[h])) for h in histories]
        wanted = log.goal if log.labels is None else log.goal & (log.labels > 0)
        if not wanted.all():
            places = [(a, b[own[b]]) for (a, b), own in zip(places, log.split(wanted), strict=True)]
        if self.cold is None:
            places = [(support, query[:QUERY]) for support, query in places]
        asked = [user for user, (_, query) in enumerate(places) if len(query)]
        last = [clocks[user][places[user][0][-1]] if clocks and len(places[user][0]) else np.nan for user in asked]
        supports, queries = ([histories[user][places[user][side]] for user in asked] for side in (0, 1))
        labels, kinds = (
            None if values is None else [own[user][places[user][0]] for own in [log.split(values)] for user in asked]
            for values in (log.labels, log.kinds)
        )
        users = log.users.gather(asked)
        known = None if self.attributes is None else of_these(self.attributes, users)
        return Tasks(users, supports, queries, np.array(last, np.float64), labels, kinds, known)

    @cached_property
    def is_cold(self) -> np.ndarray:
        """True for cold rows."""
        rows = np.array([], np.int64) if self.cold is None else self.cold
        top = max([int(part.items.max(initial=0)) for part in (self.train, self.test, self.valid)])
        flags = np.zeros(max(top, int(rows.max(initial=0))) + 1, bool)
        flags[rows] = True
        return flags

    @property
    def rankings(self) -> Mapping[str, np.ndarray | None]:
        """What is ranked, by prefix of the metric names: rows of the candidates, or None for the full catalogue."""
        return {"": None} if self.cold is None else {"": self.cold, "full:": None}


def split(dataset: Dataset, protocol: Protocol, seed: int) -> Split:
    """Split a data set.

    Args:
        dataset: the data.
        protocol: `"user"` (cold users), `"time"` (cold users after a date), or `"item"` (cold items).
        seed: of the hash; the `time` split does not depend on it.

    Raises:
        InvalidDataError: for `time` without timestamps, or if too few users can be tested.
    """
    if protocol not in PROTOCOLS:
        raise InvalidDataError(f"There is no protocol {protocol!r}; there are {', '.join(PROTOCOLS)}.")
    makers: dict[str, Callable[[], Split]] = {
        "user": lambda: _user_split(dataset.log, seed),
        "time": lambda: _time_split(dataset.log, nested=True),
        "item": lambda: _item_split(dataset, seed),
    }
    made = makers[protocol]()
    if len(made.test) < LEAST_USERS or not len(made.train.items):
        raise InvalidDataError(
            f"The {protocol} split of {dataset.name!r} with seed {seed} leaves {len(made.test):,} test users and "
            f"{len(made.train.items):,} training interactions; it takes at least {LEAST_USERS} test users, each with "
            f"{MIN_ITEMS} distinct items or more. Use more data, or another protocol."
        )
    return replace(made, attributes=dataset.attributes)


def _buckets(seed: int, keys: pl.Series, prefix: str = "") -> np.ndarray:
    return np.array([bucket(seed, f"{prefix}{key}") for key in keys.to_list()], np.int64)


def _user_split(log: Interactions, seed: int) -> Split:
    """Buckets 0 and 1 test, 2 validates, 3 to 9 train; a user with too few items always trains."""
    place = np.where(log.lengths >= MIN_ITEMS, _buckets(seed, log.users), 9)
    train, test, valid = (log.take(np.flatnonzero(which)) for which in (place > 2, place < 2, place == 2))
    return Split(train, test, valid)


def _time_split(log: Interactions, *, nested: bool) -> Split:
    """Training ends at the 80th percentile of first interactions; who starts then or later is tested."""
    if log.order != "timestamp" or log.times is None:
        raise InvalidDataError(
            f"The time split needs timestamps; these interactions are ordered by {log.order}. Use protocol 'user'."
        )
    log = log.take(np.flatnonzero(log.lengths > 0))
    first = log.times[log.offsets[:-1]]  # type: ignore[index]
    cut = np.quantile(first, 0.8)
    before = log.where(log.times < cut)
    train = before.take(np.flatnonzero(before.lengths > 0))
    test = log.take(np.flatnonzero((first >= cut) & (log.lengths >= MIN_ITEMS)))
    inner = _time_split(train, nested=False) if nested and len(train) else None
    return Split(train, test, log.take([]), inner=inner if inner is not None and len(inner.test) else None)


def _item_split(dataset: Dataset, seed: int) -> Split:
    """Two tenths of the items leave training; users as in the `user` split, with warm and cold items."""
    of_item = _buckets(seed, dataset.catalog.ids, "item:")
    cold = of_item < 2
    users = _user_split(dataset.log, seed)

    def with_both(log: Interactions) -> Interactions:
        colds = np.bincount(log.owners[cold[log.items]], minlength=len(log))
        return log.take(np.flatnonzero((log.lengths - colds >= WARM) & (colds >= COLD)))

    warm = users.train.where(~cold[users.train.items])
    train = warm.take(np.flatnonzero(warm.lengths > 0))
    return Split(train, with_both(users.test), with_both(users.valid), np.flatnonzero(cold))
