"""What users did, padded into tensors: the one form in which heads read users, one or a million.

A support, the first items of a user, and both sides of an episode are `Histories`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

from mecold.data.rows import Rows
from mecold.lazy import cached_property


@dataclass(frozen=True)
class Histories(Rows):
    """Histories of a batch of users, oldest row first, padded behind.

    Args:
        rows: rows of the catalogue; padding holds 0.
        labels: 1 liked, -1 disliked, 0 seen without opinion, anything between; padding holds 0.
        weights: how much each row counts; padding holds 0.
        times: when each row was, on the training log's clock; NaN where unknown, and in padding.
        mask: True for real rows.
        kinds: place of each row's kind of event, 0 for the strongest and in padding; None where there are no kinds.
        groups: what is known of each user, as `data.attributes` codes it; None where nothing is.
        goals: so many of the first kinds are predicted; all where 0.
        repeats: how often each row's item came; None where none came twice.
        since: how many interactions of the user came after the last of them.
        moments: what the moment of each row was like, as groups; None where nothing is known of moments.
        ratings: as they were given, NaN where none was, and in padding; None where nobody asks for them.
    """

    rows: Int[Tensor, "users length"]
    labels: Float[Tensor, "users length"]
    weights: Float[Tensor, "users length"]
    times: Float64[Tensor, "users length"]
    mask: Bool[Tensor, "users length"]
    kinds: Int[Tensor, "users length"] | None = None
    groups: Int[Tensor, "users attributes"] | None = None
    goals: int = 0
    repeats: Int[Tensor, "users length"] | None = None
    since: Int[Tensor, "users length"] | None = None
    moments: Int[Tensor, "users length contexts"] | None = None
    ratings: Float[Tensor, "users length"] | None = None

    @classmethod
    def padded(
        cls,
        rows: np.ndarray,
        sizes: np.ndarray,
        *,
        labels: np.ndarray | None = None,
        weights: np.ndarray | None = None,
        times: np.ndarray | None = None,
        kinds: np.ndarray | None = None,
        groups: np.ndarray | None = None,
        goals: int = 0,
        repeats: np.ndarray | None = None,
        since: np.ndarray | None = None,
        moments: np.ndarray | None = None,
        ratings: np.ndarray | None = None,
    ) -> "Histories":
        """Histories out of flat arrays, user after user; at least one column wide.

        Args:
            rows: rows of the catalogue, oldest first within each user.
            sizes: how many of them each user has.
            labels: one per row; 1 by default.
            weights: one per row; 1 by default.
            times: one per row; unknown by default.
            kinds: one per row; none by default.
            groups: one row per user; nothing is known by default.
            goals: so many of the first kinds are predicted.
            repeats: one per row; every item came once by default.
            since: one per row, with `repeats`.
            moments: groups of each row; nothing is known by default.
            ratings: one per row, NaN where there is none; none by default.
        """
        sizes = np.asarray(sizes, np.int64)
        mask = np.arange(max(1, int(sizes.max(initial=0)))) < sizes[:, None]

        def spread(values: np.ndarray | float, empty: float | int, dtype: type) -> Tensor:
            table: np.ndarray = np.full((*mask.shape, *np.shape(values)[1:]), empty, dtype)
            table[mask] = values
            return torch.from_numpy(table)

        return cls(
            spread(rows, 0, np.int64),
            spread(1.0 if labels is None else labels, 0.0, np.float32),
            spread(1.0 if weights is None else weights, 0.0, np.float32),
            spread(np.nan if times is None else times, np.nan, np.float64),
            torch.from_numpy(mask),
            None if kinds is None else spread(kinds, 0, np.int64),
            None if groups is None else torch.from_numpy(np.ascontiguousarray(groups)),
            goals,
            None if repeats is None else spread(repeats, 0, np.int64),
            None if since is None else spread(since, 0, np.int64),
            None if moments is None else spread(moments, -1, np.int64),
            None if ratings is None else spread(ratings, np.nan, np.float32),
        )

    @cached_property
    def shots(self) -> Int[Tensor, " users"]:
        """Number of real rows per user."""
        return self.mask.sum(1)

    @property
    def ages(self) -> Int[Tensor, "users length"]:
        """How many rows of the same user are newer; 0 in padding."""
        newer = self.shots[:, None] - 1 - torch.arange(self.mask.shape[1], device=self.mask.device)
        return newer.clamp(min=0)

    @property
    def time(self) -> Float64[Tensor, " users"]:
        """When the newest row of each user was; NaN where unknown."""
        return self.times.gather(1, (self.shots - 1).clamp(min=0)[:, None])[:, 0]

    @cached_property
    def plain(self) -> bool:
        """True where every row has label 1, weight 1 and the strongest kind."""
        if self.kinds is not None and bool(self.kinds.any()):
            return False
        return torch.equal(self.labels, self.weights) and torch.equal(self.labels, self.mask.to(self.labels.dtype))

    @property
    def emphasis(self) -> Float[Tensor, "users length"]:
        """Weights against the others of the same user, on a scale where ten times as much is not ten times as telling:
        log2(1 + weight / geometric mean); 1 where all weigh the same, and in padding.
        """
        logs = torch.where(self.mask, self.weights, 1.0).log()
        apart = logs - logs.sum(1, keepdim=True) / self.shots[:, None].clamp(min=1)
        apart = torch.where(self.mask & (apart.abs() > 1e-5), apart, 0.0)  # equal weights are equal to the last bit
        return torch.log2(1 + apart.exp())

    def at(self, place: Int[Tensor, " users"]) -> "Histories":
        """These histories as of the moment of a row of each user, which may lie behind the end of what they hold."""
        if self.moments is None:
            return self
        rows = place.clamp(max=self.moments.shape[1] - 1)
        there = torch.take_along_dim(self.moments, rows[:, None, None], 1)[:, 0]
        known = [] if self.groups is None else [self.groups]
        return replace(self, groups=torch.cat([*known, there], dim=1), moments=None)

    def membership(self, width: int) -> Float[Tensor, "users width"]:
        """1 in the place of every group that a user belongs to."""
        table = torch.zeros(len(self.rows), width + 1, device=self.rows.device)
        if self.groups is not None:
            table.scatter_(1, torch.where(self.groups < 0, width, self.groups), 1.0)
        return table[:, :width]

    @property
    def wanted(self) -> Bool[Tensor, "users length"]:
        """True for rows that a recommender should have foreseen: liked, and of a kind that is predicted."""
        liked = self.mask & (self.labels > 0)
        return liked if self.kinds is None or not self.goals else liked & (self.kinds < self.goals)

    def first(self, most: Int[Tensor, " users"] | int) -> "Histories":
        """The oldest rows of each user, at most so many."""
        limit = torch.as_tensor(most, device=self.mask.device).expand(len(self.rows))
        width = max(1, int(torch.minimum(limit, self.shots).max()) if len(limit) else 1)
        cut = self._columns(lambda part: part[:, :width])
        return cut.only(cut.mask & (torch.arange(width, device=cut.mask.device) < limit[:, None]))

    def newest(self, most: int) -> "Histories":
        """The newest rows of each user, at most so many."""
        if self.mask.shape[1] <= most:
            return self
        columns = (self.shots - most).clamp(min=0)[:, None] + torch.arange(most, device=self.mask.device)
        return self._columns(lambda part: _picked(part, columns))

    def chosen(self, these: Bool[Tensor, "users length"], most: int) -> "Histories":
        """The oldest rows of each user that are chosen, at most so many, moved to the front."""
        order = torch.argsort((~(these & self.mask)).int(), dim=1, stable=True)[:, :most]
        moved = self._columns(lambda part: _picked(part, order))
        return moved.only((these & self.mask).gather(1, order))

    def only(self, mask: Bool[Tensor, "users length"]) -> "Histories":
        """The same columns with only these as real rows; they must stand in front of the others."""
        return replace(
            self,
            rows=torch.where(mask, self.rows, 0),
            labels=torch.where(mask, self.labels, 0.0),
            weights=torch.where(mask, self.weights, 0.0),
            times=torch.where(mask, self.times, torch.nan),
            mask=mask,
            kinds=None if self.kinds is None else torch.where(mask, self.kinds, 0),
            ratings=None if self.ratings is None else torch.where(mask, self.ratings, torch.nan),
        )

    def _columns(self, change: Callable[[Tensor], Tensor]) -> "Histories":
        """The same users with everything changed that there is one of per row."""
        kinds, repeats, since, moments, ratings = (
            None if part is None else change(part)
            for part in (self.kinds, self.repeats, self.since, self.moments, self.ratings)
        )
        rows, labels, weights, times, mask = map(change, (self.rows, self.labels, self.weights, self.times, self.mask))
        return Histories(
            rows, labels, weights, times, mask, kinds, self.groups, self.goals, repeats, since, moments, ratings
        )  # fmt: skip


def _picked(part: Tensor, columns: Int[Tensor, "users some"]) -> Tensor:
    """Some columns of each user's rows, of numbers or of records of numbers."""
    return torch.take_along_dim(part, columns if part.dim() == 2 else columns[..., None], 1)
