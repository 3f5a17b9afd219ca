"""The outer loop of audiences: how far each sign is to be trusted, from known items treated as new.

Some takers of a known item are told, others are to be found among users who never took it; what the head sees knows nothing of
the item but its text and the takers that were told.
"""

import numpy as np
import torch
from jaxtyping import Float, Int64

from mecold.errors import InvalidDataError
from mecold.heads.answers import Start, adapt
from mecold.heads.audience import KNOTS, OF_TAKERS, OF_TEXTS, SIGNS, Crowd, Trust

LEAST_TAKERS, LEAST_ITEMS, MOST_ITEMS = 5, 20, 200
MOST_FOUND, MOST_OTHERS = 100, 300  # users of an item that are asked about
WIDE = 10.0  # variance of weights
ROUNDS = 15


def learn_trust(crowd: Crowd, rng: np.random.Generator) -> Trust:
    """Rehearse items as new.

    Raises:
        InvalidDataError: if too few items have been taken by enough users.
    """
    counts = np.diff(crowd.takers.indptr)
    usable = np.flatnonzero((counts >= LEAST_TAKERS) & (counts < len(crowd.sizes)))
    if len(usable) < LEAST_ITEMS:
        raise InvalidDataError(
            f"{len(usable):,} items of the histories have {LEAST_TAKERS} users or more; it takes {LEAST_ITEMS} to learn "
            "who wants a new item. Pass the histories of more users."
        )
    items = rng.permutation(usable)[:MOST_ITEMS]
    with_text, without = [], []
    for knot in KNOTS:
        some = items[counts[items] >= 2 * knot]
        some = some if len(some) >= LEAST_ITEMS else usable[np.argsort(-counts[usable], kind="stable")[:LEAST_ITEMS]]
        signs, labels, weights = _rehearsed(crowd, some, knot, rng)
        silent = OF_TAKERS if knot == 0 else np.zeros(len(SIGNS), bool)
        with_text.append(_weights(signs, labels, weights, silent))
        without.append(_weights(signs, labels, weights, silent | OF_TEXTS))
    return Trust(np.stack(with_text), np.stack(without))


def _rehearsed(
    crowd: Crowd, items: Int64[np.ndarray, " items"], takers: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Signs, labels and weights of users, item after item."""
    parts = []
    for item in items.tolist():
        own = crowd.takers_of(item)
        order = rng.permutation(own)
        first = min(takers, len(own) - 1)
        found = order[first : first + MOST_FOUND]
        others = rng.integers(len(crowd.sizes), size=MOST_OTHERS)
        others = others[~np.isin(others, own)]
        users = np.concatenate([found, others])
        stand_for = ((len(own) - first) / len(found), (len(crowd.sizes) - len(own)) / max(1, len(others)))
        weights = np.repeat(stand_for, [len(found), len(others)])
        labels = np.repeat([1.0, 0.0], [len(found), len(others)])
        parts.append((crowd.signs(item, order[:first], users), labels, weights * len(users) / weights.sum()))
    signs, labels, weights = (np.concatenate(part) for part in zip(*parts, strict=True))
    return signs, labels, weights


def _weights(
    signs: Float[np.ndarray, "rows signs"], labels: np.ndarray, weights: np.ndarray, silent: np.ndarray
) -> Float[np.ndarray, " weights"]:
    """Weights of signs and of the constant."""
    spread = np.where(silent | (signs.std(0) < 1e-9), np.inf, signs.std(0))
    center = signs.mean(0)
    rows = np.concatenate([(signs - center) / spread, np.ones((len(signs), 1))], 1)
    start = Start(torch.zeros(rows.shape[1]).double(), torch.full((rows.shape[1],), WIDE).double())
    users, answers, counts = (torch.from_numpy(one)[None] for one in (rows, labels, weights))
    mean, _ = adapt(start, users, answers, torch.ones_like(answers, dtype=torch.bool), weights=counts, rounds=ROUNDS)
    *heights, constant = mean[0].tolist()
    found = np.array(heights) / spread
    return np.append(found, constant - float(center[~silent] @ found[~silent]))
