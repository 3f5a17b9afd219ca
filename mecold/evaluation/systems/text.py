"""Text alone: the nearest, and one linear head per user on frozen vectors."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from mecold.evaluation.systems.base import Supports, Training, padded, support_matrix
from mecold.evaluation.systems.baseline import TextBaseline
from mecold.heads.inner import descend, gramian, logistic_loss, solve


@dataclass(frozen=True)
class Content(TextBaseline):
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
class TextRidge(TextBaseline):
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
class TextLogistic(TextBaseline):
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
