"""Neighbouring users."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float32

from mecold.evaluation.systems.base import Supports, Training, support_matrix
from mecold.evaluation.systems.baseline import Baseline


@dataclass(frozen=True)
class UserKNN(Baseline):
    """Sum of the histories of the most similar users, by cosine between the support and whole histories.

    With `fade` the support counts newest first, as session-based neighbours do.

    Args:
        neighbours: how many users.
    """

    label = "userknn"
    neighbours: int = 100

    def fit(self, training: Training) -> "FittedUserKNN":
        """Normalise the histories."""
        X = training.matrix
        unit = sp.diags(1 / np.sqrt(np.maximum(np.asarray(X.sum(1)).ravel(), 1))) @ X
        return FittedUserKNN(X, unit.T.tocsr(), training.tie, self.neighbours, self.fade)


@dataclass(frozen=True)
class FittedUserKNN:
    """Histories, and their unit-length forms by item."""

    histories: sp.csr_matrix
    units: sp.csr_matrix
    tie: Float32[np.ndarray, " items"]
    neighbours: int
    fade: float | None

    def adapt(self, supports: Supports) -> sp.csr_matrix:
        """The nearest users of each and how alike they are."""
        like = (support_matrix(supports, len(self.tie), self.fade) @ self.units).toarray()
        if like.shape[1] > self.neighbours:
            least = np.partition(like, -self.neighbours, axis=1)[:, -self.neighbours]
            like[like < least[:, None]] = 0
        return sp.csr_matrix(like)

    def scores(self, state: Any) -> np.ndarray:
        """What the neighbours have."""
        found: np.ndarray = (state @ self.histories).toarray() + self.tie
        return found
