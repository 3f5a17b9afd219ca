"""Users with enough history go to the host's model, the others to mecold; in between, their lists are fused."""

import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl
import torch

from mecold import DataWarning, InvalidDataError, ItemId, Recommendation, Recommender, UnknownItemError
from mecold.data.catalog import plain_ids
from mecold.data.frames import INTERACTION_NAMES, FrameLike, id_column, read_frame, require
from mecold.errors import few
from mecold.math.metrics import ndcg
from mecold.rules import ItemsOrPairs, Named
from mecold.values import whole
from mecold_adapters.warm import FoldIn, WarmModel

_DEPTH = 100  # how far down both lists are fused
_RANK = 60  # of reciprocal rank fusion: the first rank counts 1 / 61
_USERS_AT_ONCE = 512
_SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Routed:
    """One user's list and who made it.

    Args:
        items: best first; scores are the maker's own, or of the fusion. A host's list that comes out short is filled behind
            with mecold's.
        share: how much the host's list counts: 0 mecold alone, 1 the host alone.
        reason: why, in words.
    """

    items: list[Recommendation]
    share: float
    reason: str


@dataclass(frozen=True)
class _Request:
    """One user as the router sees it."""

    seen: set[ItemId]
    share: float
    reason: str


@dataclass(frozen=True)
class _Filters:
    """Who may get what: of the host's items, and as mecold is told.

    Args:
        out: items that nobody gets.
        own: items that single users must not get.
        only: all items that a user may get, where this goes by user; who is not in it gets nothing.
        exclude: for mecold.
        among: for mecold.
    """

    out: Collection[ItemId] = ()
    own: Mapping[ItemId, Collection[ItemId]] = field(default_factory=dict)
    only: Mapping[ItemId, Collection[ItemId]] | None = None
    exclude: ItemsOrPairs = ()
    among: ItemsOrPairs | None = None


class ColdStartRouter:
    """Two models behind one call.

    Lists are fused by reciprocal rank, since scores of two models have no common scale.

    Args:
        warm: the host's model, such as `mecold_adapters.implicit.warm_model(...)`.
        cold: a fitted recommender over the same items.
        handover: number of distinct items in the history -> share of the host; between, the share is interpolated in
            log(1 + n). By default a user with 20 items is still mecold's, and one with 50 is the host's.

    Raises:
        InvalidDataError: if the numbers or shares do not rise, or a share is not between 0 and 1.

    Source of the fusion: Cormack, Clarke and Buettcher 2009 (reciprocal rank fusion).
    """

    def __init__(
        self, warm: WarmModel, cold: Recommender, *, handover: Sequence[tuple[int, float]] = ((20, 0.0), (50, 1.0))
    ) -> None:
        self.warm = warm
        self.cold = cold
        self.handover = _checked(handover)
        self._host_items = set(warm.item_ids)
        self._strings = cold.info()["item_ids"] == "strings"
        _check_kinds("item ids", self._host_items, "those of mecold's catalogue", cold.info()["item_ids"])

    def share(self, interactions: int) -> float:
        """How much the host counts for a user that it knows with so many distinct items."""
        numbers, shares = (np.array(part, float) for part in zip(*self.handover, strict=True))
        return float(np.interp(np.log1p(interactions), np.log1p(numbers), shares))

    def recommend(
        self,
        histories: FrameLike,
        k: int = 10,
        *,
        users: Iterable[ItemId] = (),
        exclude: ItemsOrPairs = (),
        among: ItemsOrPairs | None = None,
    ) -> dict[ItemId, Routed]:
        """Recommend for a mixed batch; nobody gets an item of their own history, or one that mecold hides.

        Args:
            histories: frame or path with `user_id`, `item_id`, and `timestamp` or `position` where known. A host scores a
                user whom it knows with what it was fitted on; the history says what was seen.
            k: how many items per user.
            users: further users without any history.
            exclude: items that nobody gets; or a table of `user_id` and `item_id`, what each user must not get.
            among: recommend only these; or a table of `user_id` and `item_id`, all that each user may get, where users who
                have no row get nothing.

        Returns:
            User -> list, share of the host, and reason: first the users of the histories, by id.

        Raises:
            InvalidDataError: if the histories or tables cannot be used, or a user of `users` has a history.
            UnknownItemError: if `among` names items that neither the host nor mecold has.
        """
        k = whole(k, "k")
        frame = self._frame(histories)
        types = {name: frame[name].dtype for name in ("user_id", "item_id") if frame.height}
        leaving = Named.read(exclude, "exclude", types)
        allowed = None if among is None else Named.read(among, "among", types)
        self._check_users(frame)
        for name, one in (("exclude", leaving), ("among", allowed)):
            self._check_filter(name, one, frame)
        requests = {user: self._request(user, seen) for user, seen in _seen(frame).items()}
        further = list(dict.fromkeys(plain_ids(users, "users")))
        both = [user for user in further if user in requests]
        if both:
            raise InvalidDataError(f"{len(both):,} of `users` have a history, such as {both[:3]}.")
        requests |= {user: self._request(user, set()) for user in further}
        fused = [user for user, one in requests.items() if 0 < one.share < 1]
        filters = self._filters(leaving, allowed)
        lists = self._lists(frame, requests, k, max(k, _DEPTH) if fused else k, filters)
        return {
            user: Routed(_fuse(*lists(user), one.share)[:k], one.share, one.reason) for user, one in requests.items()
        }

    def learn_handover(
        self,
        histories: FrameLike,
        following: FrameLike,
        *,
        k: int = 10,
        numbers: Sequence[int] = (1, 2, 3, 5, 10, 20, 50, 100),
    ) -> dict[int, float]:
        """Choose the hand-over by nDCG@k on users that the host knows and whose next items are at hand.

        Neither the host nor mecold must have been fitted on `following`. Users are put to the nearest number in log(1 + n);
        the shares may only rise, and among equals the smallest is taken. With fewer items than anybody here has the host
        counts less and less, down to nothing without items. Replaces `handover`.

        Args:
            histories: what the host was fitted on, for these users.
            following: frame or path with `user_id`, `item_id`: what they liked next.
            k: depth of the lists.
            numbers: numbers of items at which a share is chosen.

        Returns:
            Mean nDCG@k by number of items, under the shares that were chosen; numbers nobody has are left out.

        Raises:
            InvalidDataError: if no user is in both frames and known to the host.
        """
        k = whole(k, "k")
        if not numbers or min(numbers) < 1:
            raise InvalidDataError(f"numbers={tuple(numbers)} must hold numbers of items, at least 1 each.")
        frame, wanted = self._frame(histories), _seen(self._frame(following))
        self._check_users(frame)
        requests = {
            user: _Request(seen, 0.5, "")
            for user, seen in _seen(frame).items()
            if user in wanted and self.warm.knows(user)
        }
        if not requests:
            raise InvalidDataError("No user is in `histories` and in `following` and known to the warm model.")
        lists = self._lists(frame, requests, 0, max(k, _DEPTH), self._filters(Named([]), None))
        steps = np.log1p(np.array(sorted(numbers)))
        nearest = [int(np.abs(steps - np.log1p(len(one.seen))).argmin()) for one in requests.values()]
        gains = np.array([[_ndcg(_fuse(*lists(user), s)[:k], wanted[user], k) for s in _SHARES] for user in requests])
        present = sorted(set(nearest))
        sums = np.array([gains[np.array(nearest) == place].sum(0) for place in present])
        sizes = np.bincount(nearest)[present]
        chosen = _rising(sums)
        at = [sorted(numbers)[place] for place in present]
        learned = {number: _SHARES[share] for number, share in zip(at, chosen, strict=True)}
        fewest = min(len(one.seen) for one in requests.values())
        if fewest < at[0]:
            learned[fewest] = learned[at[0]]
        self.handover = ((0, 0.0), *sorted(learned.items()))
        means = zip(at, sums[np.arange(len(at)), chosen] / sizes, strict=True)
        return {number: float(mean) for number, mean in means}

    def _frame(self, source: FrameLike) -> pl.DataFrame:
        """Users and items under canonical names; those of a csv are what the host's and mecold's are."""
        kinds = {"item_id": pl.String if self._strings else pl.Int64}
        if len(self.warm.user_ids):
            kinds["user_id"] = pl.String if isinstance(self.warm.user_ids[0], str) else pl.Int64
        frame = read_frame(source, "interactions", names=INTERACTION_NAMES, ids=kinds)
        require(frame, ["user_id", "item_id"], "interactions")
        return frame.with_columns(
            id_column(frame[name], f"{name} of the interactions").alias(name) for name in ("user_id", "item_id")
        )

    def _check_users(self, frame: pl.DataFrame) -> None:
        theirs = "strings" if frame["user_id"].dtype == pl.String else "integers"
        if len(self.warm.user_ids) and frame.height:
            _check_kinds("user ids", self.warm.user_ids[:1], "those of the histories", theirs)

    def _check_filter(self, name: str, named: Named | None, frame: pl.DataFrame) -> None:
        """Refuse ids of the other type, which would all look as if they were not there."""
        users, items = (None, []) if named is None else (named.users, list(named.ids))
        if items and isinstance(items[0], str) != self._strings:
            mine, theirs = ("strings", "integers") if self._strings else ("integers", "strings")
            raise InvalidDataError(
                f"The item ids are {mine}; those in `{name}` are {theirs}, such as {items[0]!r}. Use the same ids."
            )
        if users is not None and len(users) and frame.height and users.dtype != frame["user_id"].dtype:
            raise InvalidDataError(
                f"The user ids of `{name}` are {users.dtype}, those of the histories {frame['user_id'].dtype}. Cast one of them."
            )

    def _request(self, user: ItemId, seen: set[ItemId]) -> _Request:
        size = f"{len(seen):,} item{'' if len(seen) == 1 else 's'}"
        usable = len(seen)
        if not self.warm.knows(user):
            usable = len(seen & self._host_items) if isinstance(self.warm, FoldIn) else 0
            if not usable:
                return _Request(seen, 0.0, f"mecold: {size}, unknown to the host")
        share = self.share(usable)
        maker = {0.0: "mecold", 1.0: "host"}.get(share, f"both, {share:.0%} host")
        return _Request(seen, share, f"{maker}: {size}")

    def _lists(
        self, frame: pl.DataFrame, requests: dict[ItemId, _Request], k: int, depth: int, filters: _Filters
    ) -> Callable[[ItemId], tuple[list[Recommendation], list[Recommendation]]]:
        """The host's and mecold's list of each user who needs them, else empty; mecold's where the host has fewer than k."""
        warm = self._warm_lists({u: one.seen for u, one in requests.items() if one.share > 0}, depth, filters)
        needed = {u: one.seen for u, one in requests.items() if one.share < 1 or len(warm[u]) < k}
        cold = self._cold_lists(frame, needed, depth, filters)
        return lambda user: (warm.get(user, []), cold.get(user, []))

    def _filters(self, exclude: Named, among: Named | None) -> _Filters:
        """Filters for both models; what mecold hides, nobody gets from the host either."""
        out, own = set(self.cold.item_ids(hidden=True)), {}
        if exclude.users is None:
            out.update(exclude.ids)
        else:
            own = _seen(_pairs(exclude))
        known = {item for item in exclude.ids if item in self.cold}
        if len(exclude.ids) and not known and not self._host_items.intersection(exclude.ids):
            warnings.warn(
                f"None of the items in `exclude` is the host's or mecold's ({few(list(dict.fromkeys(exclude.ids)))}): "
                "this filter matches nothing.", DataWarning, stacklevel=3,
            )  # fmt: skip
        leaving = _for_mecold(exclude, known)
        if among is None:
            return _Filters(out, own, None, leaving, None)
        named = dict.fromkeys(among.ids)
        there = {item for item in named if item in self.cold}
        unknown = [item for item in named if item not in there and item not in self._host_items]
        if unknown:
            raise UnknownItemError(
                f"{len(unknown):,} of the items in `among` are neither the host's nor mecold's: {few(unknown)}. "
                "Leave them out."
            )
        only = None if among.users is None else _seen(_pairs(among))
        if only is None:
            out |= self._host_items.difference(among.ids)
        return _Filters(out, own, only, leaving, _for_mecold(among, there))

    def _cold_lists(
        self, frame: pl.DataFrame, seen: dict[ItemId, set[ItemId]], depth: int, filters: _Filters
    ) -> dict[ItemId, list[Recommendation]]:
        known = frame.filter(
            pl.col("user_id").is_in(
                pl.Series([u for u, s in seen.items() if s], dtype=frame["user_id"].dtype).implode()
            )
        )
        found = self.cold.recommend_batch(
            known, depth, users=[user for user, items in seen.items() if not items], on_unknown="drop",
            exclude=filters.exclude, among=filters.among,
        )  # fmt: skip
        lists: dict[ItemId, list[Recommendation]] = {}
        for user, item, score in found.select("user_id", "item_id", "score").iter_rows():
            lists.setdefault(user, []).append(Recommendation(item, score))
        return lists

    def _warm_lists(
        self, seen: dict[ItemId, set[ItemId]], depth: int, filters: _Filters
    ) -> dict[ItemId, list[Recommendation]]:
        ids = self.warm.item_ids
        column = {item: place for place, item in enumerate(ids)}

        def columns(items: Iterable[ItemId]) -> list[int]:
            return [column[item] for item in items if item in column]

        out = columns(filters.out)
        users = sorted(seen, key=self.warm.knows)  # those to be folded in come together
        lists = {}
        for start in range(0, len(users), _USERS_AT_ONCE):
            part = users[start : start + _USERS_AT_ONCE]
            scores = self._warm_scores(part, seen)
            scores[:, out] = -np.inf
            for user, row in zip(part, scores, strict=True):
                if filters.only is not None:
                    row[np.setdiff1d(np.arange(len(row)), columns(filters.only.get(user, ())))] = -np.inf
                row[columns([*seen[user], *filters.own.get(user, ())])] = -np.inf
                best = np.sort(np.argpartition(-row, min(depth, len(row)) - 1)[:depth])
                best = best[np.argsort(-row[best], kind="stable")]
                lists[user] = [Recommendation(ids[i], float(row[i])) for i in best if np.isfinite(row[i])]
        return lists

    def _warm_scores(self, users: Sequence[ItemId], seen: dict[ItemId, set[ItemId]]) -> np.ndarray:
        new = [user for user in users if not self.warm.knows(user)]
        folded = [self.warm.scores_of([seen[user] for user in new])] if new and isinstance(self.warm, FoldIn) else []
        known = users[len(new) :]
        return np.array(np.concatenate([*folded, *([self.warm.scores(known)] if known else [])]), dtype=np.float32)


def _check_kinds(what: str, hosts: Iterable[ItemId], others: str, kind: str) -> None:
    kinds = " and ".join(sorted({"strings" if isinstance(one, str) else "integers" for one in hosts}))
    if kinds != kind:
        raise InvalidDataError(f"The host's {what} are {kinds}, {others} {kind}. Use the same ids.")


def _checked(handover: Sequence[tuple[int, float]]) -> tuple[tuple[int, float], ...]:
    pairs = tuple((int(number), float(share)) for number, share in handover)
    numbers, shares = [number for number, _ in pairs], [share for _, share in pairs]
    if (
        not pairs
        or numbers != sorted(set(numbers))
        or shares != sorted(shares)
        or not 0 <= shares[0] <= shares[-1] <= 1
    ):
        raise InvalidDataError(
            f"handover={pairs} must be pairs (number of items, share of the host) with rising numbers, and shares between "
            "0 and 1 that do not fall."
        )
    return pairs


def _pairs(named: Named) -> pl.DataFrame:
    return pl.DataFrame({"user_id": named.users, "item_id": named.ids})


def _for_mecold(named: Named, there: Collection[ItemId]) -> ItemsOrPairs:
    """A filter as mecold takes it, of items in `there` alone."""
    if named.users is None:
        return [item for item in named.ids if item in there]
    return _pairs(named).filter([item in there for item in named.ids])


def _seen(frame: pl.DataFrame) -> dict[ItemId, set[ItemId]]:
    grouped = frame.group_by("user_id").agg(pl.col("item_id").unique()).sort("user_id")
    return {user: set(items) for user, items in grouped.iter_rows()}


def _fuse(warm: list[Recommendation], cold: list[Recommendation], share: float) -> list[Recommendation]:
    """Mecold's list; or the host's, what it lacks filled behind; or both, by weighted reciprocal rank."""
    if not share:
        return cold
    if share == 1:
        there = {one.item for one in warm}
        return warm + [one for one in cold if one.item not in there]
    score: dict[ItemId, float] = {}
    for weight, ranked in ((share, warm), (1 - share, cold)):
        for rank, one in enumerate(ranked, 1):
            score[one.item] = score.get(one.item, 0.0) + weight / (_RANK + rank)
    return [Recommendation(item, score[item]) for item in sorted(score, key=lambda item: -score[item])]


def _ndcg(ranked: list[Recommendation], wanted: set[ItemId], k: int) -> float:
    hit = torch.tensor([[one.item in wanted for one in ranked] + [False] * (k - len(ranked))])
    return float(ndcg(hit, torch.tensor([len(wanted)])))


def _rising(sums: np.ndarray) -> list[int]:
    """The column for each row, never falling, with the largest sum in all; the smallest columns among equals."""
    best = np.zeros(sums.shape)  # best[i, j]: rows 0..i, row i in column at most j
    for i, row in enumerate(sums):
        total = row + (best[i - 1] if i else 0.0)
        best[i] = np.maximum.accumulate(total)
    chosen, limit = [], sums.shape[1]
    for i in range(len(sums) - 1, -1, -1):
        limit = int(np.argmax(best[i, :limit] == best[i, limit - 1])) + 1
        chosen.append(limit - 1)
    return chosen[::-1]
