"""The head of yes-or-no questions on users: which of them will do something, from a prior and a few answers.

Pure, batched tensor functions on `(tasks, shots, dim)`. A user with features x does it with probability sigmoid(<w, x>), the
weights of a task being normal around a prior. The inner loop goes up a bound of the likelihood that touches it where the
posterior is now, and of which the best is the closed form of `heads.inner.posterior`; a few rounds suffice, none can overshoot,
and what comes out is a normal posterior.

Source: Jaakkola and Jordan 2000, "Bayesian parameter estimation via variational methods", section 3.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mecold.heads.inner import posterior

ROUNDS = 20


@dataclass(frozen=True)
class Start:
    """Where the weights of a task start, and how far they may go.

    Args:
        mean: of the weights; the last is that of the constant.
        variance: of each.
    """

    mean: Float[Tensor, " dim"]
    variance: Float[Tensor, " dim"]


def adapt(
    start: Start,
    users: Float[Tensor, "tasks shots dim"],
    labels: Float[Tensor, "tasks shots"],
    mask: Bool[Tensor, "tasks shots"],
    *,
    offset: Float[Tensor, "tasks shots"] | None = None,
    weights: Float[Tensor, "tasks shots"] | None = None,
    begin: tuple[Tensor, Tensor] | None = None,
    rounds: int = ROUNDS,
) -> tuple[Float[Tensor, "tasks dim"], Float[Tensor, "tasks dim dim"]]:
    """Weights of each task.

    Args:
        start: the prior, of all tasks.
        users: features of labelled users, a constant of 1 last.
        labels: 1 who did it, 0 who did not.
        mask: True for real rows; a padded row changes nothing.
        offset: what is added to the logits of the support, as where those who did it were sought out.
        weights: how much each row counts; 1 by default.
        begin: mean and covariance to go on from; None: the prior's.
        rounds: of the inner loop; 0 returns the prior.

    Returns:
        Mean and covariance of the weights; the prior, where a task has no rows.
    """
    prior = start.mean.expand(len(users), -1)
    mean, covariance = begin or (prior, torch.diag(start.variance).expand(len(users), -1, -1))
    aside = torch.zeros_like(labels) if offset is None else offset
    counts = torch.ones_like(labels) if weights is None else weights
    for _ in range(rounds):
        away = (torch.einsum("tsd,td->ts", users, mean) + aside) ** 2
        away = away + torch.einsum("tsd,tsd->ts", users @ covariance, users)
        touch = away.clamp(min=1e-8).sqrt()
        bend = torch.tanh(touch / 2) / (2 * touch)  # curvature of the bound
        target = (labels - 0.5) / bend - aside
        mean, covariance = posterior(prior, users, target, mask, l2=1 / start.variance, weights=counts * bend)
    return mean, covariance


def probabilities(mean: Float[Tensor, " users"], variance: Float[Tensor, " users"]) -> Float[Tensor, " users"]:
    """Mean of a sigmoid of normal numbers, nearly.

    Source: MacKay 1992, "The evidence framework applied to classification networks", equation 10.
    """
    return torch.sigmoid(mean / (1 + torch.pi / 8 * variance).sqrt())
