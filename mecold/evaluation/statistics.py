"""Intervals and tests over users: percentile bootstrap, paired sign-flip permutation, Holm's correction.

The user is the unit. Where several seeds test the same user, the user's values enter together: once per resample, with
one sign per permutation.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

_CELLS_AT_ONCE = 1 << 22


def replicates(
    parts: Sequence[tuple[np.ndarray, np.ndarray]], n_users: int, *, resamples: int = 1000, rng: int = 0
) -> Float[np.ndarray, "resamples metrics"]:
    """Bootstrap replicates of a mean over seeds of means over users.

    Args:
        parts: per seed the users (0 to `n_users` - 1) and their values, `(users, metrics)`.
        n_users: how many different users there are.
        resamples: how often users are drawn.
        rng: seed.

    Source: Efron 1979; resampling weights are multinomial.
    """
    generator = np.random.default_rng(rng)
    step = max(1, _CELLS_AT_ONCE // max(1, n_users))
    found = []
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        weights = generator.multinomial(n_users, np.full(n_users, 1 / n_users), size=size).astype(np.float32)
        drawn = [(weights[:, users], values) for users, values in parts]
        found.append(np.mean([w @ values / np.maximum(w.sum(1, keepdims=True), 1) for w, values in drawn], axis=0))
    return np.concatenate(found).astype(np.float64)


def interval(values: np.ndarray) -> np.ndarray:
    """Lower and upper end of the 95 % percentile interval of replicates."""
    ends: np.ndarray = np.quantile(values, [0.025, 0.975], axis=0)
    return ends


def sign_flip(differences: Float[np.ndarray, " users"], *, permutations: int = 10_000, rng: int = 0) -> float:
    """Two-sided p-value of a paired difference: how often random signs give a mean as far from zero.

    Source: Fisher's randomisation test; (1 + exceedances) / (1 + permutations), as in Phipson and Smyth 2010.
    """
    observed = abs(float(differences.sum()))
    if not len(differences) or observed == 0:
        return 1.0
    generator = np.random.default_rng(rng)
    moving = differences[differences != 0].astype(np.float64)
    step = max(1, _CELLS_AT_ONCE // len(moving))
    exceeding = 0
    for start in range(0, permutations, step):
        size = min(step, permutations - start)
        signs = generator.integers(0, 2, (size, len(moving)), dtype=np.int8).astype(np.float64) * 2 - 1
        exceeding += int((np.abs(signs @ moving) >= observed * (1 - 1e-12)).sum())
    return (1 + exceeding) / (1 + permutations)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's step-down correction, by name; Holm 1979."""
    ordered = sorted(p_values, key=lambda name: p_values[name])
    corrected, worst = {}, 0.0
    for rank, name in enumerate(ordered):
        worst = max(worst, min(1.0, (len(ordered) - rank) * p_values[name]))
        corrected[name] = worst
    return {name: corrected[name] for name in p_values}
