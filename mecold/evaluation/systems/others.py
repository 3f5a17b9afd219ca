"""Baselines that are no item-to-item matrix: neighbouring users, matrix factorisation, and text."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from mecold.evaluation.systems.base import Supports, Training, padded, support_matrix
from mecold.evaluation.systems.item_to_item import Named
from mecold.heads.inner import descend, gramian, logistic_loss, solve


@dataclass(frozen=True)
class UserKNN(Named):
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


@dataclass(frozen=True)
class ALS(Named):
    """Implicit ALS with fold-in: implicit's `recalculate_user`. It starts from the same random state on every split.

    Args:
        factors: rank.
        alpha: confidence of an interaction.
    """

    label = "als"
    factors: int = 64
    alpha: float = 1.0

    def fit(self, training: Training) -> "FittedALS":
        """Fit implicit's model.

        Raises:
            ImportError: if implicit is not installed.
        """
        try:
            from implicit.cpu.als import AlternatingLeastSquares
            from threadpoolctl import threadpool_limits  # implicit asks for it, and needs it itself
        except ImportError as error:
            raise ImportError("System 'als' needs implicit: pip install 'mecold[evaluate]'") from error
        with threadpool_limits(1, "blas"):
            model = AlternatingLeastSquares(
                factors=self.factors, regularization=0.1, alpha=self.alpha, iterations=15, random_state=0
            )
            model.fit(training.matrix, show_progress=False)
        return FittedALS(model, training.tie)


@dataclass(frozen=True)
class FittedALS:
    """implicit's model; users are folded in."""

    model: Any
    tie: Float32[np.ndarray, " items"]

    def adapt(self, supports: Supports) -> np.ndarray:
        """User factors."""
        found: np.ndarray = self.model.recalculate_user(
            np.arange(len(supports)), support_matrix(supports, len(self.tie))
        )
        return found

    def scores(self, state: np.ndarray) -> np.ndarray:
        """Products with the item factors."""
        found: np.ndarray = state @ self.model.item_factors.T + self.tie
        return found


@dataclass(frozen=True)
class TextSystem(Named):
    """What the text baselines share: they read text vectors, and learn nothing from the log but popularity for ties."""

    needs_text = True


@dataclass(frozen=True)
class FeatureALS(TextSystem):
    """Feature-aware implicit ALS: an item's factors are drawn towards a linear map of its text. irspack's model.

    The only collaborative baseline here that places an item nobody has touched.

    Args:
        factors: rank.
        alpha0: weight of what was not touched.
        reg: penalty on factors, scaled by irspack by how often a user or item occurs.
        text_l2: penalty on the map from text to factors.
    """

    label = "feature_als"
    factors: int = 64
    alpha0: float = 0.1
    reg: float = 0.003
    text_l2: float = 1.0

    def fit(self, training: Training) -> "FittedFeatureALS":
        """Fit irspack's model.

        Raises:
            ImportError: if irspack is not installed.
        """
        try:
            from irspack.recommenders.ials import IALSRecommender
        except ImportError as error:
            raise ImportError("System 'feature_als' needs irspack: pip install 'mecold[irspack]'") from error
        model = IALSRecommender(
            training.matrix, n_components=self.factors, alpha0=self.alpha0, reg=self.reg, random_seed=training.seed,
            item_features=training.vectors, lambda_item_feature=self.text_l2,
            n_threads=torch.get_num_threads(),
        )  # fmt: skip
        model.start_learning()
        for _ in range(model.train_epochs):  # as its learn(), which draws a progress bar
            model.run_epoch()
        return FittedFeatureALS(model, training.tie)


@dataclass(frozen=True)
class FittedFeatureALS:
    """irspack's model; users are folded in."""

    model: Any
    tie: Float32[np.ndarray, " items"]

    def adapt(self, supports: Supports) -> np.ndarray:
        """User factors."""
        found: np.ndarray = self.model.compute_user_embedding(support_matrix(supports, len(self.tie)))
        return found

    def scores(self, state: np.ndarray) -> np.ndarray:
        """Products with the item factors."""
        found: np.ndarray = self.model.get_score_from_user_embedding(state) + self.tie
        return found


@dataclass(frozen=True)
class Content(TextSystem):
    """Items like the mean of the support's text vectors, by inner product."""

    label = "content"

    def fit(self, training: Training) -> "Embedded":
        """Nothing to fit."""
        return Embedded(training.vectors, training.tie)


@dataclass(frozen=True)
class Embedded:
    """A user is a vector in the space of the texts; here the sum of the support."""

    vectors: Float32[np.ndarray, "items dim"]
    tie: Float32[np.ndarray, " items"]

    def adapt(self, supports: Supports) -> np.ndarray:
        """User vectors."""
        found: np.ndarray = support_matrix(supports, len(self.vectors)) @ self.vectors
        return found

    def scores(self, state: np.ndarray) -> np.ndarray:
        """Products with the item vectors."""
        found: np.ndarray = state @ self.vectors.T + self.tie
        return found


@dataclass(frozen=True)
class TextRidge(TextSystem):
    """A ridge head per user on frozen text vectors: the support should score 1, the catalogue 0 on average.

    `w = argmin sum_support (w.v - 1)^2 + spread * mean_items (w.v)^2 + l2 |w|^2`.

    Args:
        l2: penalty on the head.
        spread: weight of the catalogue as implicit negatives.
    """

    label = "text_ridge"
    l2: float = 0.1
    spread: float = 10.0

    def fit(self, training: Training) -> "FittedTextRidge":
        """Prepare the catalogue's part of the normal equations."""
        vectors = torch.from_numpy(training.vectors)
        return FittedTextRidge(training.vectors, training.tie, self.l2, self.spread, gramian(vectors))


@dataclass(frozen=True)
class FittedTextRidge(Embedded):
    """Heads in closed form."""

    l2: float
    spread: float
    gram: Float[Tensor, "dim dim"]

    def adapt(self, supports: Supports) -> np.ndarray:
        """One small solve per user, all users of a batch at once."""
        support = padded(supports)
        rows = torch.from_numpy(self.vectors)[support.rows]
        prior, l2 = torch.zeros(len(supports), rows.shape[2]), torch.full((rows.shape[2],), self.l2)
        heads = solve(prior, rows, support.labels, support.mask, l2=l2, gram=self.gram, gram_weight=self.spread)
        return heads.numpy()


@dataclass(frozen=True)
class TextLogistic(TextSystem):
    """A logistic head per user on frozen text vectors: the support against items drawn at random.

    Args:
        l2: penalty on the head.
        negatives: how many items are drawn, once for all users.
    """

    label = "text_logistic"
    l2: float = 0.01
    negatives: int = 100

    def fit(self, training: Training) -> "FittedTextLogistic":
        """Draw the negatives."""
        rng, most = np.random.default_rng(training.seed), min(self.negatives, training.n_items)
        drawn = rng.choice(training.n_items, most, replace=False)
        return FittedTextLogistic(training.vectors, training.tie, self.l2, drawn)


@dataclass(frozen=True)
class FittedTextLogistic(Embedded):
    """Heads by gradient descent, all users of a batch at once."""

    l2: float
    drawn: Int64[np.ndarray, " negatives"]
    steps: int = 60

    def adapt(self, supports: Supports) -> np.ndarray:
        """Descend the logistic loss; support and negatives weigh the same in sum."""
        drawn = len(self.drawn)
        labels = [np.repeat([1.0, 0.0], [len(rows), drawn]) for rows in supports]
        weights = [np.repeat([1 / max(1, len(rows)), bool(len(rows)) / drawn], [len(rows), drawn]) for rows in supports]
        support = padded(
            [np.concatenate([rows, self.drawn]) for rows in supports],
            labels=np.concatenate(labels), weights=np.concatenate(weights),
        )  # fmt: skip
        rows = torch.from_numpy(self.vectors)[support.rows]
        heads = descend(
            torch.zeros(len(supports), rows.shape[2]), rows, support.labels, support.mask,
            lr=2.0, steps=self.steps, l2=self.l2, weights=support.weights, loss=logistic_loss,
        )  # fmt: skip
        return heads.numpy()
