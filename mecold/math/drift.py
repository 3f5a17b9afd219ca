"""How far counts have moved."""

import numpy as np
from jaxtyping import Int64


def moved(before: Int64[np.ndarray, " things"], since: Int64[np.ndarray, " things"]) -> float:
    """How much of what is wanted is wanted elsewhere than before, from 0 (the same shares) to 1 (nothing in common).

    The total variation distance between the shares of things in both counts, without what chance makes of so few: the mean
    distance of two such samples of one distribution, each share taken as normal.

    Args:
        before: how often each thing was counted.
        since: how often since.
    """
    rows, later = int(before.sum()), int(since.sum())
    if not rows or not later:
        return 0.0
    share = (before + since) / (rows + later)
    distance = float(np.abs(before / rows - since / later).sum() / 2)
    chance = float(np.sqrt(2 / np.pi * share * (1 - share) * (1 / rows + 1 / later)).sum() / 2)
    return max(0.0, (distance - chance) / max(1 - chance, 1e-9))
