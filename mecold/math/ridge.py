"""What ridge regressions over a log share: the damped Cholesky factor, and the prefixes of histories with what follows.

Pure arrays and tensors: no ids, no settings, no state.
"""

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Float, Int64
from torch import Tensor


def damped_cholesky(
    gram: Float[Tensor, "items items"], l2: float, exact_to: int = 4096
) -> Float[Tensor, "items items"]:
    """Cholesky factor of `gram + l2 I`, in float64 up to so many items, where it is cheap and then exact."""
    damped = gram.double() if len(gram) <= exact_to else gram.clone()
    damped.diagonal().add_(l2)
    factor: Tensor = torch.linalg.cholesky(damped)
    return factor


def prefixes(
    items: Int64[np.ndarray, " rows"],
    users: Int64[np.ndarray, " rows"],
    width: int,
    *,
    past: int,
    fade: float,
    window: int,
) -> tuple[sp.csr_matrix, sp.csr_matrix]:
    """One row per proper prefix of a history: its last items, faded by age; and the items that follow."""
    n = len(items)
    here = np.arange(n)
    rows_of: list[list[np.ndarray]] = [[], []]
    values: list[np.ndarray] = []
    columns: list[list[np.ndarray]] = [[], []]
    for age in range(min(past, n - 1)):
        at = here[age + 1 :][users[age + 1 :] == users[: n - age - 1]]  # a prefix ends before row `at`
        rows_of[0].append(at)
        columns[0].append(items[at - 1 - age])
        values.append(np.full(len(at), np.exp(-age / fade), np.float32))
    for step in range(min(window, n - 1)):
        at = here[1 : n - step][users[1 : n - step] == users[1 + step :]]
        at = at[users[at - 1] == users[at]]
        rows_of[1].append(at)
        columns[1].append(items[at + step])
    empty = [np.empty(0, np.int64)]
    S, T = (
        sp.csr_matrix((v, (np.concatenate(r or empty), np.concatenate(c or empty))), (n, width))
        for r, c, v in (
            (rows_of[0], columns[0], np.concatenate(values or [np.empty(0, np.float32)])),
            (rows_of[1], columns[1], np.ones(sum(map(len, columns[1])), np.float32)),
        )
    )
    return S, T
