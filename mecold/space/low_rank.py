"""Ridge regressions between items, of any number of items, cut to low rank: one inner product with a vector per item serves them.

No matrix of items by items is made: all that is asked for are products with a few hundred columns at a time.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from mecold.math.sparse import Tall
from mecold.space.making import Pair
from mecold.space.settings import FactorConfig

ITERATIONS = 2
_MORE = 16  # columns beyond the rank, so that the last ones that are kept are right, too
_SMALLEST = 1e-6  # eigenvalue: below it, rounding


@dataclass(frozen=True)
class RidgeInverse:
    """`inv(A'A + l2 I)` as `diag(own) - low low'`.

    Of few items it is the inverse itself. Of more, the leading directions of the Gram matrix `A'A` are taken, and its diagonal;
    what is neglected is what few users have in common beyond them, against a penalty that is larger.

    Source: Woodbury's identity on the low-rank-plus-diagonal form of factor analysis.
    """

    own: Float[Tensor, " items"]
    low: Float[Tensor, "items rank"]

    @classmethod
    def of(cls, rows: Tall, config: FactorConfig, draws: torch.Generator) -> "RidgeInverse":
        """Of the Gram matrix of a matrix with a column per item.

        Args:
            rows: A, sparse or known by products.
            config: the ridge penalty, up to how many items the inverse is exact, and how many directions it has beyond.
            draws: where the search for directions starts.
        """
        if rows.width <= config.exact_items:
            return cls._exact(rows, config.l2)
        axes, sizes = _leading(rows.inner().__matmul__, rows.width, config.gram_rank, draws, rows.device)
        rest = (rows.squares() - (axes.square() * sizes).sum(1)).clamp(min=0)
        own = 1 / (config.l2 + rest)
        damped = (axes * own[:, None]).double()
        inner = torch.diag(1 / sizes.clamp(min=_SMALLEST)).double() + axes.T.double() @ damped
        low = torch.linalg.solve_triangular(torch.linalg.cholesky(inner), damped.T, upper=False).T
        return cls(own, low.float())

    @classmethod
    def _exact(cls, rows: Tall, l2: float) -> "RidgeInverse":
        """`I / l2` minus what the log takes from it: the inverse is nowhere larger than that, so the difference has a root."""
        gram = rows.gram().double()
        gram.diagonal().add_(l2)
        taken = torch.cholesky_inverse(torch.linalg.cholesky(gram)).neg_()
        taken.diagonal().add_((1 + _SMALLEST) / l2)  # an item that nobody touched takes nothing: kept above rounding
        own = gram.new_full((rows.width,), (1 + _SMALLEST) / l2)
        return cls(own.float(), torch.linalg.cholesky(taken).float())

    def __matmul__(self, dense: Float[Tensor, "items some"]) -> Float[Tensor, "items some"]:
        """The product with a dense matrix."""
        return self.own[:, None] * dense - self.low @ (self.low.T @ dense)

    @property
    def diagonal(self) -> Float[Tensor, " items"]:
        """The diagonal."""
        return self.own - self.low.square().sum(1)


def _leading(
    multiply: Callable[[Tensor], Tensor], n: int, rank: int, draws: torch.Generator, device: torch.device
) -> tuple[Float[Tensor, "n rank"], Float[Tensor, " rank"]]:
    """The leading eigenvectors and eigenvalues of a matrix without negative ones that is known by its products."""
    start = torch.randn(n, min(n, rank + _MORE), generator=draws).to(
        device
    )  # drawn on the CPU: the same on every device
    Q = torch.linalg.qr(multiply(start))[0]
    for _ in range(2):
        Q = torch.linalg.qr(multiply(Q))[0]
    sizes, turn = torch.linalg.eigh((Q.T @ multiply(Q)).double())
    best = slice(-min(n, rank), None)
    return Q @ turn[:, best].float(), sizes[best].clamp(min=0).float()


def spread(sides: Pair, rows: Int64[np.ndarray, " some"], n_items: int) -> Pair:
    """Pair of some items as rows of the whole catalogue; the others hold zeros."""
    full = sides.item.new_zeros(2, n_items, sides.item.shape[1])
    full[:, torch.from_numpy(rows).to(full.device)] = torch.stack([sides.support, sides.item])
    return Pair(full[0], full[1])


def balanced(sides: Pair) -> Pair:
    """Scaled so that an item's scores over the catalogue have norm 1 on average: comparable across logs and folds."""
    norm = torch.sqrt(((sides.support.T @ sides.support) * (sides.item.T @ sides.item)).sum().clamp(min=1e-12))
    touched = (sides.support != 0).any(1).sum().clamp(min=1)
    scale = (touched.sqrt() / norm).sqrt()
    return Pair(sides.support * scale, sides.item * scale)


def low_rank(
    multiply: Callable[[Tensor], Tensor],
    transposed: Callable[[Tensor], Tensor],
    n: int,
    rank: int,
    rng: torch.Generator,
    device: torch.device,
) -> Pair:
    """The leading singular vectors of a matrix that is known by its products only, split evenly between both sides.

    Source: randomised subspace iteration, Halko, Martinsson and Tropp 2011, arXiv:0909.4061, algorithm 4.4.
    """
    rank = min(rank, n)
    start = torch.randn(n, min(n, rank + _MORE), generator=rng).to(device)  # drawn on the CPU: the same on every device
    Q = torch.linalg.qr(multiply(start))[0]
    for _ in range(ITERATIONS):
        Q = torch.linalg.qr(multiply(torch.linalg.qr(transposed(Q))[0]))[0]
    small, sizes, right = torch.linalg.svd(transposed(Q).T, full_matrices=False)
    root = sizes[:rank].sqrt()
    return Pair((Q @ small[:, :rank]) * root, right[:rank].T * root)
