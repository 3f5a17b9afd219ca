"""Matrix factorisation by libraries that are there: implicit, and irspack where texts are read too."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32

from mecold.evaluation.systems.base import Supports, Training, support_matrix
from mecold.evaluation.systems.baseline import Baseline, TextBaseline


@dataclass(frozen=True)
class ALS(Baseline):
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
class FeatureALS(TextBaseline):
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
