"""Adaptation of a linear head: turn one prior and a few labelled items into one vector per user. The text heads of the
evaluation adapt so; the preference head (`head.py`) does not, since in its space these steps earned nothing.

Pure, batched tensor functions: no ids, no index, no device choice (they follow their inputs), no state. The loss that
a user's head descends is

    sum_i weight_i * loss(<w, v_i>, label_i)  +  gram_weight / 2 * w' G w  +  1/2 (w - prior)' diag(l2) (w - prior)

where G is the mean outer product of the catalogue's vectors: every item of the catalogue acts as a weak implicit
negative, through one (dim x dim) matrix, so that the cost per user does not depend on the size of the catalogue.
`descend` takes gradient steps (O(shots * dim + dim^2) per step), `solve` jumps to the minimum of the squared loss
(O(shots * dim^2 + shots^3)). Both are differentiable in every tensor argument.

Source: Finn et al. 2017, arXiv:1703.03400, section 2.2; only the head moves, as in ANIL (arXiv:1909.09157); learned
step sizes as in Meta-SGD (arXiv:1707.09835); the implicit-negative term is that of Hu, Koren and Volinsky 2008.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True)
class InnerLoss:
    """A loss on one score and one label, and its slope in the score (so that no autograd runs in the inner loop)."""

    value: Callable[[Tensor, Tensor], Tensor]
    slope: Callable[[Tensor, Tensor], Tensor]


squared_loss = InnerLoss(lambda score, label: 0.5 * (score - label) ** 2, lambda score, label: score - label)
"""Half the squared difference; labels are target scores of any size."""

logistic_loss = InnerLoss(
    lambda score, label: torch.nn.functional.binary_cross_entropy_with_logits(score, label, reduction="none"),
    lambda score, label: torch.sigmoid(score) - label,
)
"""Cross-entropy of a click; labels are probabilities in [0, 1]."""


def descend(
    prior: Float[Tensor, "users dim"],
    items: Float[Tensor, "users shots dim"],
    labels: Float[Tensor, "users shots"],
    mask: Bool[Tensor, "users shots"],
    *,
    lr: float | Tensor,
    steps: int = 1,
    l2: float | Tensor = 0.0,
    loss: InnerLoss = squared_loss,
    weights: Float[Tensor, "users shots"] | None = None,
    gram: Float[Tensor, "dim dim"] | None = None,
    gram_weight: float | Tensor = 0.0,
    first_order: bool = False,
) -> Float[Tensor, "users dim"]:
    """Adapt each user's head by gradient steps from the prior.

    Args:
        prior: where each user's head starts.
        items: vectors of the support items; padded rows may hold anything finite.
        labels: target of each support row, in the loss's own units.
        mask: True for real rows; a padded row changes nothing, to the bit.
        lr: step size; a number, or a tensor that broadcasts to `(users, dim)` (learned per channel, may be 0).
        steps: number of steps; 0 returns the prior.
        l2: strength of the pull towards the prior; a number or `(dim,)`.
        loss: `squared_loss` or `logistic_loss`.
        weights: how much each support row counts; 1 by default.
        gram: mean outer product of the catalogue's item vectors (implicit negatives).
        gram_weight: strength of the implicit negatives.
        first_order: treat each gradient as a constant in the outer loop (FOMAML).

    Returns:
        The adapted heads; a new tensor, the prior is not written to.

    Source: arXiv:1703.03400, equation 1 and section 5.2 (first order).
    """
    rows = torch.where(mask[..., None], items, 0.0)
    counts = mask.to(prior.dtype) if weights is None else torch.where(mask, weights, 0.0)
    head = prior
    for _ in range(steps):
        at = head.detach() if first_order else head
        slope = counts * loss.slope(torch.einsum("usd,ud->us", rows, at), labels)
        gradient = torch.einsum("us,usd->ud", torch.where(mask, slope, 0.0), rows)
        if gram is not None:
            gradient = gradient + gram_weight * (at @ gram)
        gradient = gradient + l2 * (at - prior)
        head = head - lr * (gradient.detach() if first_order else gradient)
    return head


def solve(
    prior: Float[Tensor, "users dim"],
    items: Float[Tensor, "users shots dim"],
    labels: Float[Tensor, "users shots"],
    mask: Bool[Tensor, "users shots"],
    *,
    l2: Float[Tensor, " dim"],
    weights: Float[Tensor, "users shots"] | None = None,
    gram: Float[Tensor, "dim dim"] | None = None,
    gram_weight: float | Tensor = 0.0,
) -> Float[Tensor, "users dim"]:
    """Adapt each user's head to the exact minimum of the squared loss: the posterior mean of a Gaussian prior.

    Args:
        prior: mean of the Gaussian prior, per user.
        items: vectors of the support items; padded rows may hold anything finite.
        labels: target scores.
        mask: True for real rows; a padded row changes nothing.
        l2: precision of the prior per dimension; positive.
        weights: precision of each support row; 1 by default.
        gram: mean outer product of the catalogue's item vectors (implicit negatives).
        gram_weight: strength of the implicit negatives.

    Returns:
        The adapted heads. One factorisation of a (dim x dim) matrix for all users, one of (shots x shots) per user.

    Source: the Woodbury identity on (L + aG + V'CV)^-1, C the diagonal of weights.
    """
    counts = mask.to(prior.dtype) if weights is None else torch.where(mask, weights, 0.0)
    root = counts.sqrt()
    rows = root[..., None] * torch.where(mask[..., None], items, 0.0)
    shared = torch.diag(l2) if gram is None else torch.diag(l2) + gram_weight * gram
    factor = torch.linalg.cholesky(shared)
    start = torch.cholesky_solve((prior * l2).T, factor).T  # the head without any support row
    spread = torch.cholesky_solve(rows.flatten(0, 1).T, factor).T.reshape(rows.shape)
    inner = torch.einsum("usd,utd->ust", rows, spread)
    inner = inner + torch.eye(inner.shape[-1], dtype=prior.dtype, device=prior.device)
    residual = root * torch.where(mask, labels, 0.0) - torch.einsum("usd,ud->us", rows, start)
    pull = torch.linalg.solve(inner, residual[..., None])[..., 0]
    return start + torch.einsum("us,usd->ud", pull, spread)


def posterior(
    prior: Float[Tensor, "users dim"],
    items: Float[Tensor, "users shots dim"],
    labels: Float[Tensor, "users shots"],
    mask: Bool[Tensor, "users shots"],
    *,
    l2: Float[Tensor, " dim"],
    weights: Float[Tensor, "users shots"],
) -> tuple[Float[Tensor, "users dim"], Float[Tensor, "users dim dim"]]:
    """Mean and covariance of each user's head: what `solve` finds, and how sure that is.

    Args:
        prior: mean of the Gaussian prior, per user.
        items: vectors of the support items; padded rows may hold anything finite.
        labels: target scores.
        mask: True for real rows; a padded row changes nothing.
        l2: precision of the prior per dimension; positive.
        weights: precision of each support row.

    Returns:
        The adapted heads and their covariances, at one factorisation of a (dim x dim) matrix per user: for heads that are
        narrower than supports are long.
    """
    rows = torch.where(mask[..., None], items, 0.0)
    weighted = torch.where(mask, weights, 0.0)[..., None] * rows
    precision = torch.einsum("usd,use->ude", weighted, rows) + torch.diag(l2)
    covariance = torch.cholesky_inverse(torch.linalg.cholesky(precision))
    target = torch.einsum("usd,us->ud", weighted, torch.where(mask, labels, 0.0)) + prior * l2
    return torch.einsum("ude,ue->ud", covariance, target), covariance


def gramian(item: Float[Tensor, "items dim"]) -> Float[Tensor, "dim dim"]:
    """Mean outer product of the item vectors: the catalogue as implicit negatives."""
    return item.T @ item / max(1, len(item))


def shift(
    evidence: Float[Tensor, "users evidence"], steps: Float[Tensor, "evidence gains"]
) -> Float[Tensor, "users gains"]:
    """One inner step on the logarithms of gains: what it multiplies the gains by.

    The loss is linear in the logarithms, minus their inner product with the evidence spread over them, so that one step
    against its gradient through a matrix of step sizes is one product, and second order comes for free.

    Args:
        evidence: standardised.
        steps: meta-learned step sizes.

    Source: a learned matrix of step sizes as in Meta-Curvature (Park and Oliva 2019, arXiv:1902.03356).
    """
    # no matrix product: its last bit depends on how many users are in the batch
    return (evidence[:, :, None] * steps).sum(1).exp()
