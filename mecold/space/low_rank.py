"""Weight matrices between items, cut to low rank: one inner product with a vector per item serves them."""

from collections.abc import Callable

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Int64
from torch import Tensor

from mecold.math.ridge import damped_cholesky
from mecold.space.making import Pair


def dense(matrix: sp.csr_matrix, device: torch.device) -> Tensor:
    """A sparse matrix with all of its zeros, float32."""
    return torch.from_numpy(np.asarray(matrix.todense(), dtype=np.float32)).to(device)


def inverse(gram: Tensor, l2: float) -> Tensor:
    """Inverse of a Gram matrix under a ridge penalty."""
    return torch.cholesky_inverse(damped_cholesky(gram, l2)).float()


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
    start = torch.randn(n, min(n, rank + 16), generator=rng).to(device)  # drawn on the CPU: the same on every device
    Q = torch.linalg.qr(multiply(start))[0]
    for _ in range(4):
        Q = torch.linalg.qr(multiply(torch.linalg.qr(transposed(Q))[0]))[0]
    small, sizes, right = torch.linalg.svd(transposed(Q).T, full_matrices=False)
    root = sizes[:rank].sqrt()
    return Pair((Q @ small[:, :rank]) * root, right[:rank].T * root)
