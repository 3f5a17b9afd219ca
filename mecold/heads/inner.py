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


def descend_classes(
    prior: Float[Tensor, "tasks classes dim"],
    items: Float[Tensor, "tasks shots dim"],
    targets: Float[Tensor, "tasks shots classes"],
    *,
    lr: float | Tensor,
    l2: float | Tensor,
    steps: int,
    bias: Float[Tensor, "tasks classes"] | None = None,
    metric: Float[Tensor, "dim dim"] | None = None,
    rivals: Float[Tensor, "tasks shots rivals"] | None = None,
    first_order: bool = False,
) -> Float[Tensor, "tasks classes dim"]:
    """Adapt a softmax head by gradient steps from its prior: `descend` for classes that compete.

    The loss of a task is the cross-entropy of its rows, summed, plus `l2 / 2 * |head - prior|^2` in the metric's inverse. A
    step that would raise the loss is not taken, and the steps after it are half as long: a thousand rows of one class
    must not throw away what the prior knows.

    Args:
        prior: where each class's head starts.
        items: vectors of the support; a row whose targets are all 0 changes nothing.
        targets: share of each class in a row; a row of 0 is padding.
        lr: step size; a number, or what broadcasts to `(tasks, classes, 1)`.
        l2: strength of the pull towards the prior; the same shapes.
        steps: number of steps; 0 returns the prior.
        bias: added to the scores of a class, and not adapted; -inf for a padded class.
        metric: what gradients are multiplied by, symmetric and positive definite; the identity by default.
        rivals: scores of further classes that stand still.
        first_order: treat each gradient as a constant in the outer loop (FOMAML).

    Returns:
        The adapted heads. One step costs O(classes * shots * min(shots, dim)).

    Source: arXiv:1703.03400, equation 1; the metric as in Meta-Curvature (arXiv:1902.03356).
    """
    spread = items if metric is None else items @ metric
    small = items.shape[1] <= 2 * items.shape[2]  # then the head is kept as what it is: the prior and a sum of rows
    among = spread @ items.transpose(1, 2) if small else None
    inverse = None if small or metric is None else torch.linalg.inv(metric.detach())
    start = items @ prior.transpose(1, 2)
    if bias is not None:
        start = start + bias[:, None]
    counts = targets.sum(2, keepdim=True)
    lr, l2 = (_per_class(value, prior) for value in (lr, l2))
    moved = prior.new_zeros(targets.shape if small else prior.shape)
    best, before, gradient = moved, prior.new_full((len(prior), 1, 1), torch.inf), torch.zeros_like(moved)
    for step in range(steps + 1):
        change = among @ moved if among is not None else items @ moved.transpose(1, 2)
        scores = start + change
        everyone = scores if rivals is None else torch.cat([scores, rivals], 2)
        norm = everyone.logsumexp(2, keepdim=True)
        with torch.no_grad():
            stay = torch.where(targets > 0, targets * (scores - norm), 0.0).sum((1, 2), keepdim=True)
            loss = _pull(moved, change if small else None, inverse, l2) - stay
            worse = loss > before
        best = torch.where(worse, best, moved)
        if step == steps:
            break
        before = torch.where(worse, before, loss)
        slope = counts * (scores - norm).exp() - targets
        fresh = slope if small else slope.transpose(1, 2) @ spread
        shrink = l2.transpose(1, 2) if small else l2
        gradient = torch.where(worse, gradient, fresh + shrink * moved)
        lr = torch.where(worse, lr / 2, lr)
        rate = lr.transpose(1, 2) if small else lr
        moved = best - rate * (gradient.detach() if first_order else gradient)
    return prior + (best.transpose(1, 2) @ spread if small else best)


def _per_class(value: float | Tensor, prior: Tensor) -> Tensor:
    """A setting of the inner loop as `(tasks, classes, 1)`."""
    return torch.as_tensor(value, dtype=prior.dtype, device=prior.device).expand(*prior.shape[:2], 1)


def _pull(moved: Tensor, change: Tensor | None, inverse: Tensor | None, l2: Tensor) -> Tensor:
    """How much the heads' distance from the prior costs, in the inverse metric, per task."""
    if change is not None:
        squares = (moved * change).sum(1, keepdim=True).transpose(1, 2)
    else:
        away = moved if inverse is None else moved @ inverse
        squares = (moved * away).sum(2, keepdim=True)
    return (l2 * squares).sum((1, 2), keepdim=True) / 2
