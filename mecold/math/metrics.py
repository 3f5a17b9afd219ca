"""Ranking metrics as pure tensor functions: one row per user, rank 1 first. No ids, no means, no state.

Definitions: binary relevance; nDCG divides by the best gain that min(k, number of relevant items) hits could have.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def hits(
    ranked: Int[Tensor, "users k"], relevant: Int[Tensor, "users queries"], mask: Bool[Tensor, "users queries"]
) -> Bool[Tensor, "users k"]:
    """True where the item at a rank is one of the user's relevant items.

    Args:
        ranked: item rows, best first; shorter lists are padded with -1.
        relevant: rows of the relevant items, padded with anything.
        mask: True for real entries of `relevant`.
    """
    found = torch.zeros_like(ranked, dtype=torch.bool)
    wanted = torch.where(mask, relevant, -2)
    for column in wanted.T:  # one pass per relevant item: no (users, k, queries) block in memory
        found |= ranked == column[:, None]
    return found


def discounted_gain(hit: Bool[Tensor, "users k"]) -> Float[Tensor, " users"]:
    """Discounted cumulative gain of binary hits, in units of one hit at rank 1.

    Source: the 1 / log2(rank + 1) form of Burges et al. 2005.
    """
    discounts = 1 / torch.log2(torch.arange(2, hit.shape[1] + 2, device=hit.device, dtype=torch.float32))
    return hit.to(torch.float32) @ discounts


def ndcg(hit: Bool[Tensor, "users k"], relevant: Int[Tensor, " users"]) -> Float[Tensor, " users"]:
    """Normalised discounted cumulative gain; 0.0 for a user without relevant items.

    Args:
        hit: from `hits`.
        relevant: number of relevant items per user.
    """
    return torch.where(relevant > 0, discounted_gain(hit) / ideal_gain(relevant, hit.shape[1]), 0.0)


def ideal_gain(relevant: Int[Tensor, " users"], k: int) -> Float[Tensor, " users"]:
    """The most that `discounted_gain` can be for lists of k; that of one hit where nothing is relevant."""
    best = discounted_gain(torch.tril(torch.ones(k, k, dtype=torch.bool, device=relevant.device)))
    return best[relevant.clamp(1, k) - 1]


def recall(hit: Bool[Tensor, "users k"], relevant: Int[Tensor, " users"]) -> Float[Tensor, " users"]:
    """Hits divided by min(k, number of relevant items); 0.0 for a user without relevant items."""
    return hit.sum(1) / relevant.clamp(1, hit.shape[1])


def reciprocal_rank(hit: Bool[Tensor, "users k"]) -> Float[Tensor, " users"]:
    """1 / rank of the first hit; 0.0 without one."""
    first = hit.to(torch.int8).argmax(1)
    return torch.where(hit.any(1), 1 / (first + 1.0), 0.0)


def average_precision(hit: Bool[Tensor, "users k"], relevant: Int[Tensor, " users"]) -> Float[Tensor, " users"]:
    """Mean over min(k, number of relevant items) of the precision at each hit; 0.0 for a user without relevant items."""
    ranks = torch.arange(1, hit.shape[1] + 1, device=hit.device, dtype=torch.float32)
    precision = hit.cumsum(1) / ranks
    return (precision * hit).sum(1) / relevant.clamp(1, hit.shape[1])


def hit_rate(hit: Bool[Tensor, "users k"]) -> Float[Tensor, " users"]:
    """1.0 for a user with a hit, else 0.0."""
    return hit.any(1).to(torch.float32)
