"""Supports: what users did, padded into tensors. The one form in which the head reads users, one or a million."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor


@dataclass(frozen=True)
class Support:
    """The supports of a batch of users, oldest row first, padded behind.

    Args:
        rows: rows of the item space; padding holds 0.
        labels: 1 liked, -1 disliked, 0 seen without opinion, anything between.
        weights: how much each row counts.
        ages: how many rows are newer.
        mask: True for real rows.
        time: when the newest row was, on the training log's clock; NaN where unknown.
    """

    rows: Int[Tensor, "users shots"]
    labels: Float[Tensor, "users shots"]
    weights: Float[Tensor, "users shots"]
    ages: Int[Tensor, "users shots"]
    mask: Bool[Tensor, "users shots"]
    time: Float64[Tensor, " users"]

    @property
    def shots(self) -> Int[Tensor, " users"]:
        """Number of real rows per user."""
        return self.mask.sum(1)

    def to(self, device: torch.device) -> "Support":
        """The same supports on another device."""
        return Support(
            *(getattr(self, name).to(device) for name in ("rows", "labels", "weights", "ages", "mask", "time"))
        )


@dataclass(frozen=True)
class History:
    """One user's support as arrays, oldest row first; what `pad` puts into a batch."""

    rows: np.ndarray
    labels: np.ndarray
    weights: np.ndarray
    time: float = math.nan


def history(
    rows: Sequence[int] | np.ndarray,
    labels: Sequence[float] | np.ndarray | None = None,
    weights: Sequence[float] | np.ndarray | None = None,
    time: float = math.nan,
) -> History:
    """A history, oldest row first.

    Args:
        rows: rows of the item space.
        labels: one per row; 1 by default.
        weights: one per row; 1 by default.
        time: when the newest row was; NaN where unknown.
    """
    size = len(rows)
    ones = np.ones(size, np.float32)
    return History(
        np.asarray(rows, dtype=np.int64),
        ones if labels is None else np.asarray(labels, dtype=np.float32),
        ones if weights is None else np.asarray(weights, dtype=np.float32),
        float(time),
    )


def pad(histories: Sequence[History]) -> Support:
    """A batch of histories as padded tensors; at least one column wide."""
    width = max(1, max((len(one.rows) for one in histories), default=0))
    shape = (len(histories), width)
    rows, mask = np.zeros(shape, np.int64), np.zeros(shape, bool)
    labels, weights = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    for user, one in enumerate(histories):
        size = len(one.rows)
        rows[user, :size], mask[user, :size] = one.rows, True
        labels[user, :size], weights[user, :size] = one.labels, one.weights
    times = np.array([one.time for one in histories], np.float64)
    return support_of(*map(torch.from_numpy, (rows, labels, weights, mask, times)))


def support_of(rows: Tensor, labels: Tensor, weights: Tensor, mask: Tensor, time: Tensor) -> Support:
    """Supports from padded tensors, oldest row first, real rows in front."""
    newer = mask.sum(1, keepdim=True) - 1 - torch.arange(mask.shape[1], device=mask.device)
    return Support(rows, labels, weights, newer.clamp(min=0), mask, time)
