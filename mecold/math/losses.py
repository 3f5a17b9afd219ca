"""Outer losses: what the meta-learner is judged on. Pure tensor functions, no state."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def multi_positive_softmax(
    scores: Float[Tensor, "users items"],
    positives: Int[Tensor, "users queries"],
    mask: Bool[Tensor, "users queries"],
    *,
    focus: float = 0.0,
) -> Float[Tensor, ""]:
    """Mean loss of each user's query items under one softmax over the scored items.

    With p the probability of a query item the loss is (1 - p^focus) / focus: the negative log-likelihood at focus 0, the
    expected number of misses at focus 1. Between, an item far down the list pulls less than one near the top, as in nDCG.

    Args:
        scores: scores of the catalogue (or of the sampled columns); -inf takes an item out of the softmax.
        positives: columns of the query items; padded entries hold any valid column.
        mask: True for real entries; a user without one does not count.
        focus: 0 is the likelihood; towards 1 only the top of the list counts.

    Returns:
        Loss per query item, averaged over users, so that long histories do not dominate.

    Source: generalised cross-entropy, Zhang and Sabuncu 2018, arXiv:1805.07836.
    """
    log_total = torch.logsumexp(scores, dim=1, keepdim=True)
    taken = torch.gather(scores, 1, positives) - log_total
    if focus:
        taken = -(1 - torch.exp(focus * taken)) / focus
    per_user = torch.where(mask, taken, 0.0).sum(1) / mask.sum(1).clamp(min=1)
    has_query = mask.any(1)
    return -torch.where(has_query, per_user, 0.0).sum() / has_query.sum().clamp(min=1)


def logq_correction(counts: Float[Tensor, " items"], draws: int) -> Float[Tensor, " items"]:
    """What to subtract from a sampled negative's score: the log of how often it is expected among the draws.

    Args:
        counts: unnormalised sampling weights, positive.
        draws: number of negatives drawn with replacement.

    Source: Bengio and Senecal 2008; Yi et al. 2019 (sampling-bias-corrected neural modeling).
    """
    return torch.log(counts / counts.sum() * draws)


def soft_ndcg(
    scores: Float[Tensor, "users candidates"],
    wanted: Int[Tensor, "users relevant"],
    mask: Bool[Tensor, "users relevant"],
    ideal: Float[Tensor, " users"],
    *,
    temperature: float,
) -> Float[Tensor, " users"]:
    """nDCG@10 with soft ranks, so that it has a slope: a rank is one plus a sum of sigmoids, and so is the cut at ten.

    Args:
        scores: scores of the candidates; very negative for padding.
        wanted: columns of the relevant candidates; padding holds any column.
        mask: True for real entries of `wanted`.
        ideal: best possible discounted gain.
        temperature: difference of scores at which one item is above another with odds of e.

    Source: ApproxNDCG, Qin, Liu and Li 2010, Information Retrieval 13, section 4.
    """
    scores = scores / temperature
    own = torch.gather(scores, 1, wanted)
    above = torch.sigmoid(scores[:, None] - own[:, :, None])
    rank = above.sum(2) + 0.5  # an item is half above itself
    gain = torch.sigmoid(10.5 - rank) / torch.log2(1 + rank)
    return torch.where(mask, gain, 0.0).sum(1) / ideal
