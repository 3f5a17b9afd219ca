"""Supports: what users did, padded into tensors. The one form in which the head reads users, one or a million."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Support:
    """The supports of a batch of users, oldest row first, padded behind.

    Args:
        rows: rows of the item space; padding holds 0.
        labels: 1 liked, -1 disliked, 0 seen without opinion, anything between.
        weights: how much each row counts.
        ages: steps since the newest row (which has age 0); rows that tie in time share their mean age.
        mask: True for real rows.
    """

    rows: Int[Tensor, "users shots"]
    labels: Float[Tensor, "users shots"]
    weights: Float[Tensor, "users shots"]
    ages: Float[Tensor, "users shots"]
    mask: Bool[Tensor, "users shots"]

    @property
    def shots(self) -> Int[Tensor, " users"]:
        """Number of real rows per user."""
        return self.mask.sum(1)

    def to(self, device: torch.device) -> "Support":
        """The same supports on another device."""
        return Support(*(getattr(self, name).to(device) for name in ("rows", "labels", "weights", "ages", "mask")))


@dataclass(frozen=True)
class History:
    """One user's support as arrays, oldest row first; what `pad` puts into a batch."""

    rows: np.ndarray
    labels: np.ndarray
    weights: np.ndarray
    ages: np.ndarray


def history(
    rows: Sequence[int] | np.ndarray,
    labels: Sequence[float] | np.ndarray | None = None,
    weights: Sequence[float] | np.ndarray | None = None,
    times: Sequence[float] | np.ndarray | None = None,
) -> History:
    """A history in the order given, or in order of time where times are given.

    Args:
        rows: rows of the item space.
        labels: one per row; 1 by default.
        weights: one per row; 1 by default.
        times: one per row; they order the rows (ties keep their order), and rows of one time share one age.
    """
    size = len(rows)
    order = np.arange(size) if times is None else np.argsort(np.asarray(times), kind="stable")
    ages = np.arange(size, dtype=np.float32)[::-1]
    if times is not None and size:
        _, group, sizes = np.unique(np.asarray(times)[order], return_inverse=True, return_counts=True)
        ages = (np.bincount(group, ages) / sizes)[group].astype(np.float32)
    ones = np.ones(size, np.float32)
    return History(
        np.asarray(rows, dtype=np.int64)[order],
        ones if labels is None else np.asarray(labels, dtype=np.float32)[order],
        ones if weights is None else np.asarray(weights, dtype=np.float32)[order],
        ages,
    )


def pad(histories: Sequence[History]) -> Support:
    """A batch of histories as padded tensors; at least one column wide."""
    width = max(1, max((len(one.rows) for one in histories), default=0))
    shape = (len(histories), width)
    rows, mask = np.zeros(shape, np.int64), np.zeros(shape, bool)
    labels, weights, ages = (np.zeros(shape, np.float32) for _ in range(3))
    for user, one in enumerate(histories):
        size = len(one.rows)
        rows[user, :size], mask[user, :size] = one.rows, True
        labels[user, :size], weights[user, :size], ages[user, :size] = one.labels, one.weights, one.ages
    return Support(*map(torch.from_numpy, (rows, labels, weights, ages, mask)))
