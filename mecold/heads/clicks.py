"""The head of ads: which of several creatives beside one another is clicked, from a prior and a few counts.

Pure, batched tensor functions on `(places, arms)`: a *place* is where creatives stand beside one another (a slot of a page, a
test), an *arm* one of them. The click rate of an arm has the logit

    level + prior + own,    level ~ N(usual, usual_spread^2),    own ~ N(0, spread^2)

where the level is the place's and the prior is read off the creative's text before anybody saw it. Counts of impressions and
clicks are binomial. The inner loop takes Newton steps to the mode; the posterior is the normal distribution that fits there
(Laplace). The Hessian is a diagonal and one more row, so a step costs as much as the counts are long.

Source: Laplace's approximation as in Bishop 2006, section 4.4; Thompson 1933 for chances of being best.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mecold.data.rows import Rows

MOST_STEP = 2.0  # in logits, of one Newton step
CLOSE = 1e-9


@dataclass(frozen=True)
class Usual:
    """What was learned of places and arms.

    Args:
        level: mean logit of a place.
        level_spread: standard deviation of the levels of places.
        spread: standard deviation of arms within a place, beside what their texts tell.
    """

    level: float
    level_spread: float
    spread: float


@dataclass(frozen=True)
class Beliefs(Rows):
    """What is believed of arms.

    Args:
        level: most likely level of each place.
        own: most likely deviation of each arm from its prior.
        variance: of `own` at this level. Arms are independent then: which is best depends on these alone.
        pull: by how much `own` falls where the level rises by one.
        level_variance: of the level.
    """

    level: Float[Tensor, " places"]
    own: Float[Tensor, "places arms"]
    variance: Float[Tensor, "places arms"]
    pull: Float[Tensor, "places arms"]
    level_variance: Float[Tensor, " places"]

    def logit(self, prior: Float[Tensor, "places arms"]) -> tuple[Tensor, Tensor]:
        """Mean and variance of the logits of arms, the level's doubt among it."""
        mean = self.level[:, None] + prior + self.own
        return mean, self.variance + (1 - self.pull) ** 2 * self.level_variance[:, None]


def adapt(
    prior: Float[Tensor, "places arms"],
    shown: Float[Tensor, "places arms"],
    clicks: Float[Tensor, "places arms"],
    mask: Bool[Tensor, "places arms"],
    usual: Usual,
    *,
    start: Beliefs | None = None,
    steps: int = 50,
) -> Beliefs:
    """Newton steps from the prior, or from earlier beliefs, to the mode.

    Args:
        prior: logit of each arm beside the level, from its text.
        shown: impressions.
        clicks: clicks; at most as many.
        mask: True for arms that are there.
        usual: what was learned of places and arms.
        start: where to start; None: at the prior.
        steps: most steps; fewer where nothing moves any more.
    """
    level = prior.new_full((len(prior),), usual.level) if start is None else start.level
    own = torch.zeros_like(prior) if start is None else start.own
    precision, of_level = usual.spread**-2, usual.level_spread**-2
    for _ in range(steps if prior.numel() else 0):
        curve, slope, total = _looks(level, own, prior, shown, clicks, mask, precision, of_level)
        held = curve + precision
        own_slope = torch.where(mask, slope - own * precision, 0.0)
        rise = (slope.sum(1) - (level - usual.level) * of_level - (curve * own_slope / held).sum(1)) / total
        rise = rise.clamp(-MOST_STEP, MOST_STEP)
        change = torch.where(mask, (own_slope - curve * rise[:, None]) / held, 0.0).clamp(-MOST_STEP, MOST_STEP)
        level, own = level + rise, own + change
        if max(float(rise.abs().max()), float(change.abs().max())) < CLOSE:
            break
    curve, _, total = _looks(level, own, prior, shown, clicks, mask, precision, of_level)
    variance = 1 / (curve + precision)
    return Beliefs(level, own, variance, curve * variance, 1 / total)


def _looks(
    level: Tensor,
    own: Tensor,
    prior: Tensor,
    shown: Tensor,
    clicks: Tensor,
    mask: Tensor,
    precision: float,
    of_level: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Curvature and slope of the counts in each logit, and the curvature of the level once arms give way."""
    rate = torch.sigmoid(level[:, None] + prior + own)
    curve = torch.where(mask, shown * rate * (1 - rate), 0.0)
    slope = torch.where(mask, clicks - shown * rate, 0.0)
    return curve, slope, curve.sum(1) + of_level - (curve**2 / (curve + precision)).sum(1)


def best_chance(
    mean: Float[Tensor, "places arms"],
    std: Float[Tensor, "places arms"],
    mask: Bool[Tensor, "places arms"],
    points: int = 65,
) -> Float[Tensor, "places arms"]:
    """How likely each of several independent normal numbers is the largest; each row sums to 1.

    The integral of each density times the others' distributions, over `points` from where the largest mean's own
    doubt ends. Where nothing is doubtful, those with the largest mean share alike.

    Args:
        mean: means.
        std: standard deviations, 0 or more.
        mask: True for numbers that are there; each row has one.
        points: of the integral.
    """
    mean = torch.where(mask, mean, -torch.inf)
    top = mean.amax(1, keepdim=True)
    sure = ((mean == top) & mask).to(std)
    width = torch.where(mask, std, 0.0).amax(1, keepdim=True)
    if not bool((width > 0).any()):
        return sure / sure.sum(1, keepdim=True)
    low, high = top - 5 * width, (mean + 5 * std).masked_fill(~mask, -torch.inf).amax(1, keepdim=True)
    # an arm that is nearly sure is a narrow peak: no narrower than the points lie apart
    own = std.maximum((high - low).clamp(min=1e-12) / (points - 1)).clamp(min=1e-12)
    at = low + (high - low) * torch.linspace(0, 1, points, dtype=std.dtype, device=std.device)
    away = (at[:, None] - mean[..., None]) / own[..., None]
    below = torch.special.log_ndtr(away).masked_fill(~mask[..., None], 0.0)
    others = below.sum(1, keepdim=True) - below
    density = (others - 0.5 * away**2 - own.log()[..., None]).exp().masked_fill(~mask[..., None], 0.0)
    found = density.sum(2) + torch.where(mask, 1e-300, 0.0)
    found = found / found.sum(1, keepdim=True)
    return torch.where(width > 0, found, sure / sure.sum(1, keepdim=True))
