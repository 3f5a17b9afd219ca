"""Item-to-item baselines: one weight matrix, scores are a sum over the support; with `fade`, older items count less.

The weight matrix is dense, items by items: 1.1 GB for 17,000 items. Popularity breaks ties (`Training.tie`).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Float32

from mecold.errors import InvalidDataError
from mecold.evaluation.systems.base import Supports, Training, support_matrix
from mecold.evaluation.systems.baseline import Baseline
from mecold.math.prefixes import prefixes
from mecold.math.ridge import damped_cholesky

FADE = 2.0
EXACT_TO = 11_999  # items up to which ridge regressions run in float64
DAY = 86_400.0
_LATEST = 1e11  # seconds; milliseconds lie beyond


@dataclass(frozen=True)
class Fixed:
    """The same scores for everybody."""

    ranking: Float32[np.ndarray, " items"]

    def adapt(self, supports: Supports) -> int:
        """How many users."""
        return len(supports)

    def scores(self, state: int) -> np.ndarray:
        """The one ranking, once per user."""
        return np.repeat(self.ranking[None], state, 0)


@dataclass(frozen=True)
class Linear:
    """Scores `support @ weights + tie`."""

    weights: Float32[np.ndarray, "items items"]
    tie: Float32[np.ndarray, " items"]
    fade: float | None = None

    def adapt(self, supports: Supports) -> sp.csr_matrix:
        """The supports, faded."""
        return support_matrix(supports, len(self.tie), self.fade)

    def scores(self, state: Any) -> np.ndarray:
        """One sparse product."""
        found: np.ndarray = state @ self.weights + self.tie
        return found


@dataclass(frozen=True)
class Popularity(Baseline):
    """Most users first."""

    label = "popularity"

    def fit(self, training: Training) -> Fixed:
        """Count."""
        return Fixed(training.counts)


@dataclass(frozen=True)
class RecentPopularity(Baseline):
    """Popularity in which an interaction loses half its weight every so many days.

    Args:
        half_life: days.
    """

    label = "recent_popularity"
    half_life: float = 30.0

    def fit(self, training: Training) -> Fixed:
        """Count, faded by age.

        Raises:
            InvalidDataError: without timestamps, or if they cannot be seconds.
        """
        log = training.liked
        if log.order != "timestamp" or log.times is None:
            raise InvalidDataError("recent_popularity needs timestamps; this log has none. Leave it out.")
        if log.times.max() > _LATEST:
            raise InvalidDataError(
                f"recent_popularity reads timestamps as seconds; the latest is {log.times.max():.6g}, which would be after "
                "the year 5000. Divide milliseconds by 1000."
            )
        weights = np.exp2((log.times - log.times.max()) / (self.half_life * DAY))
        recent = np.bincount(log.items, weights, minlength=training.n_items)
        return Fixed((recent / max(recent.max(), 1e-12)).astype(np.float32) + training.tie)


@dataclass(frozen=True)
class ItemKNN(Baseline):
    """Cosine between items over users, shrunk; all neighbours (truncation did not help on any set tried).

    Args:
        shrink: added to the denominator, so that few co-occurrences prove little.
    """

    label = "itemknn"
    shrink: float = 10.0

    def fit(self, training: Training) -> Linear:
        """Count co-occurrences."""
        both = (training.matrix.T @ training.matrix).toarray()
        norm = np.sqrt(training.counts) + 1e-9
        return Linear(_hollow(both / (norm[:, None] * norm[None] + self.shrink)), training.tie, self.fade)


@dataclass(frozen=True)
class RP3Beta(Baseline):
    """Three-step random walk from item over user to item, divided by popularity to a power.

    Source: Christoffel et al. 2015 (RP3beta), with alpha 1.

    Args:
        beta: the power.
    """

    label = "rp3beta"
    beta: float = 0.6

    def fit(self, training: Training) -> Linear:
        """Walk."""
        X = training.matrix
        out = np.maximum(training.counts, 1)
        of_user = sp.diags(1 / np.maximum(np.asarray(X.sum(1)).ravel(), 1))
        walk = (X.T @ of_user @ X).toarray() / out[:, None]
        return Linear(_hollow(walk / out[None] ** self.beta), training.tie, self.fade)


@dataclass(frozen=True)
class EASE(Baseline):
    """Ridge regression from a user's other items to each item.

    Source: Steck 2019, arXiv:1905.03375.

    Args:
        l2: ridge penalty.
    """

    label = "ease"
    l2: float = 500.0

    def fit(self, training: Training) -> Linear:
        """Invert the damped co-occurrence matrix."""
        gram = (training.matrix.T @ training.matrix).toarray()
        inverse = torch.cholesky_inverse(damped_cholesky(torch.from_numpy(gram), self.l2, EXACT_TO)).numpy()
        weights = inverse / -np.diag(inverse)
        return Linear(_hollow(weights), training.tie, self.fade)


@dataclass(frozen=True)
class Directed(Baseline):
    """Ridge regression from the faded last items of every prefix of a history to the items that follow.

    Source: the SLIST family, Choi et al. 2021, arXiv:2103.15991.

    Args:
        l2: ridge penalty.
    """

    label = "directed"
    fade: float | None = FADE
    l2: float = 500.0

    @property
    def family(self) -> str:
        """The name without settings; there is no unfaded form."""
        return "directed"

    def fit(self, training: Training) -> Linear:
        """Solve."""
        log, n = training.liked, training.n_items
        past, ahead = prefixes(log.items, log.owners, n, past=20, fade=self.fade or FADE, window=10)
        gram, cross = (torch.from_numpy((past.T @ m).toarray().astype(np.float32)) for m in (past, ahead))
        factor = damped_cholesky(gram, self.l2, EXACT_TO)
        weights = torch.cholesky_solve(cross.to(factor.dtype), factor).numpy()
        return Linear(_hollow(weights), training.tie, self.fade)


def _hollow(weights: np.ndarray) -> Float32[np.ndarray, "items items"]:
    """The weights as scipy multiplies them fastest (row by row, float32), no item recommending itself."""
    hollow = np.ascontiguousarray(weights, dtype=np.float32)
    np.fill_diagonal(hollow, 0)
    return hollow
