"""The rating head: how a user rates, read off a few ratings. Closed form first, then a rule learned on other users.

A rating is expected to be the item's level, plus what the user's parameters make of the item: a level of the user's own, how far
he follows the items' levels and their popularity, and taste, along factors of the items. The parameters have a Gaussian
prior, and the inner loop is its posterior (`heads.inner.posterior`): with no rating it is the prior. Precisions are learned in
the outer loop, and so is the rule that reads the posterior beside plain facts of support and item, and says how it is
to be corrected, how sure that is, and how skewed: first ratings are of other items, and on another level, than later ones.

Pure tensor functions, batched over users: no ids, no state. All of it is in units of the log's own mean and deviation but for
what `RatingHead.predict` takes and gives.

Source: the Gaussian model of user and item biases of Koren 2008 with the posterior of probabilistic matrix factorisation
(Salakhutdinov and Mnih 2008); a rule over the statistics of a support as in Neural Processes (Garnelo et al. 2018,
arXiv:1807.01622), kept to a few numbers.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mecold.data.rows import Rows
from mecold.heads.inner import posterior
from mecold.heads.preference import Numbers

FAR = 5.0  # deviations at which facts no longer grow
TAIL = 1.2816  # deviations of a normal distribution from its middle to its tenth and ninetieth percentile
USUAL = 3.0  # ratings that the usual spread of a user's residuals counts for
SHORT_OF_NOTHING = 1e-3  # least width of either half of the interval, in standard deviations

OUTPUTS = 5  # mean, log deviation, median, log of what the interval reaches down, and up


@dataclass(frozen=True)
class RatedItems(Rows):
    """Items as ratings show them, or as their texts let one guess.

    Args:
        level: expected deviation from the mean rating, of a user without an opinion of his own.
        guess: the same from the text alone.
        vague: share of the variance of the level that ratings have left; 1 for a new item.
        doubt: variance of a rating that comes of not knowing the item well.
        spread: deviation of the item's ratings from what was expected.
        popular: standardised log count of ratings; 0 for a new item.
        factors: what tastes differ in.
    """

    level: Float[Tensor, "*items"]
    guess: Float[Tensor, "*items"]
    vague: Float[Tensor, "*items"]
    doubt: Float[Tensor, "*items"]
    spread: Float[Tensor, "*items"]
    popular: Float[Tensor, "*items"]
    factors: Float[Tensor, "*items rank"]

    @property
    def loadings(self) -> Float[Tensor, "*items dim"]:
        """What a user's parameters are multiplied by."""
        plain = torch.stack([torch.ones_like(self.level), self.level, self.popular], dim=self.level.ndim)
        return torch.cat([plain, self.factors], dim=self.level.ndim)

    def __len__(self) -> int:
        return len(self.level)


@dataclass(frozen=True)
class Newcomer(Numbers):
    """What a text lets one expect of an item: level, then factors.

    Args:
        start: of an item without a text.
        slope: what each direction of the text adds.
        variance: of what the text does not say.
    """

    start: Float[Tensor, " one_and_rank"]
    slope: Float[Tensor, "text one_and_rank"]
    variance: Float[Tensor, " one_and_rank"]

    def items(self, text: Float[Tensor, "items width"], belief: "Belief") -> RatedItems:
        """Items that nobody has rated; of their texts the leading directions are read."""
        expected = self.start + text[:, : len(self.slope)] @ self.slope
        level, none = expected[:, 0], torch.zeros(len(text), dtype=text.dtype, device=text.device)
        doubt = self.variance[0] + (self.variance[1:] / belief.precision[3:]).sum()
        noise = belief.noise.sqrt()
        return RatedItems(level, level, none + 1.0, none + doubt, none + noise, none, expected[:, 1:])


@dataclass(frozen=True)
class Belief(Numbers):
    """What is known of users' parameters before any rating.

    Args:
        precision: of the Gaussian prior around 0, per parameter.
        noise: variance of a rating about what is expected of it.
    """

    precision: Float[Tensor, " dim"]
    noise: Float[Tensor, ""]

    def posterior(
        self, support: RatedItems, said: Float[Tensor, "users shots"], mask: Bool[Tensor, "users shots"]
    ) -> tuple[Float[Tensor, "users dim"], Float[Tensor, "users dim dim"]]:
        """Mean and covariance of users' parameters, given what they said of items."""
        prior = said.new_zeros(len(said), len(self.precision))
        weights = 1.0 / (self.noise + support.doubt)
        return posterior(prior, support.loadings, said - support.level, mask, l2=self.precision, weights=weights)


class Evidence(NamedTuple):
    """What the closed form says of some ratings, and what the rule reads.

    Args:
        mean: expected rating.
        variance: of the rating.
        facts: of user, item and both.
    """

    mean: Float[Tensor, "users queries"]
    variance: Float[Tensor, "users queries"]
    facts: Float[Tensor, "users queries facts"]


def evidence(
    belief: Belief,
    support: RatedItems,
    said: Float[Tensor, "users shots"],
    mask: Bool[Tensor, "users shots"],
    wanted: RatedItems,
) -> Evidence:
    """The inner loop, and facts of support and items; the order of the support does not matter.

    Args:
        belief: prior of users' parameters.
        support: the items that were rated; padding holds any item.
        said: how.
        mask: True for real rows.
        wanted: `(users, queries)` items.
    """
    user, covariance = belief.posterior(support, said, mask)
    loadings, real = wanted.loadings, mask.to(said.dtype)
    shots = real.sum(1)
    parts = user[:, None, :] * loadings
    taste = parts[..., 3:].sum(2)
    own = torch.einsum("uqd,ude,uqe->uq", loadings, covariance, loadings)
    residual = torch.where(mask, said - support.level, 0.0)
    shrink = shots + belief.noise * belief.precision[0]
    centred = torch.where(mask, residual - (residual.sum(1) / shots.clamp(min=1))[:, None], 0.0)
    apart = ((centred.square().sum(1) + USUAL * belief.noise) / ((shots - 1).clamp(min=0) + USUAL)).sqrt()
    of_user = torch.stack(
        [
            shots.log1p(),
            1 / (1 + shots),
            residual.sum(1) / shrink,
            apart - belief.noise.sqrt(),
            (support.popular * real).sum(1) / (1 + shots),
            (support.level * real).sum(1) / (1 + shots),
        ],
        dim=1,
    )
    of_item = [wanted.level, wanted.popular, wanted.vague, wanted.spread, wanted.guess - wanted.level]
    of_both = [parts[..., 0], parts[..., 1], parts[..., 2], taste, own]
    wide = of_user[:, None, :].expand(-1, loadings.shape[1], -1)
    facts = torch.cat([wide, torch.stack(of_item + of_both, dim=2)], dim=2)
    return Evidence(wanted.level + parts.sum(2), own + wanted.doubt + belief.noise, facts)


class Expected(NamedTuple):
    """What ratings are expected to be.

    Args:
        mean: expected value, which the squared error wants.
        std: standard deviation.
        low: one rating in ten is lower.
        median: half of them are lower, which the absolute error wants.
        high: one in ten is higher.
    """

    mean: Float[Tensor, "*ratings"]
    std: Float[Tensor, "*ratings"]
    low: Float[Tensor, "*ratings"]
    median: Float[Tensor, "*ratings"]
    high: Float[Tensor, "*ratings"]


@dataclass(frozen=True)
class Rule(Numbers):
    """What the outer loop learned of supports and what followed: a straight line and a few bends.

    Args:
        usual: mean of each fact.
        spread: deviation of each fact.
        straight: what each fact says.
        into: facts to bends.
        bend: where they bend.
        out: what they say.
        start: what is said without facts.
    """

    usual: Float[Tensor, " facts"]
    spread: Float[Tensor, " facts"]
    straight: Float[Tensor, "facts outputs"]
    into: Float[Tensor, "facts bends"]
    bend: Float[Tensor, " bends"]
    out: Float[Tensor, "bends outputs"]
    start: Float[Tensor, " outputs"]

    def __call__(self, found: Evidence) -> Expected:
        """What the ratings are expected to be; with all numbers 0, the closed form and a normal distribution."""
        facts = ((found.facts - self.usual) / self.spread).clamp(-FAR, FAR)
        said = facts @ self.straight + torch.nn.functional.silu(facts @ self.into + self.bend) @ self.out + self.start
        shift, wider, tilt, down, up = said.unbind(said.ndim - 1)
        mean, std = found.mean + shift, found.variance.sqrt() * wider.exp()
        median = mean + std * tilt
        low, high = (
            median - std * (TAIL * down.exp() + SHORT_OF_NOTHING),
            median + std * (TAIL * up.exp() + SHORT_OF_NOTHING),
        )
        return Expected(mean, std, low, median, high)


@dataclass(frozen=True)
class RatingHead(Numbers):
    """Prior, inner loop and rule, with the items they were learned on. A value.

    Args:
        scale: lowest and highest rating, mean, standard deviation of the log.
        items: as ratings show them, in the order of the catalogue of the fit.
        newcomer: what texts say of new items.
        belief: prior of users' parameters.
        rule: what the outer loop learned.
    """

    scale: Float[Tensor, " four"]
    items: RatedItems
    newcomer: Newcomer
    belief: Belief
    rule: Rule

    def to(self, device: torch.device) -> "RatingHead":
        """The same head on another device."""
        return RatingHead(
            self.scale.to(device), self.items.to(device), self.newcomer.to(device), self.belief.to(device), self.rule.to(device)
        )  # fmt: skip

    def tensors(self) -> dict[str, Tensor]:
        """By name; those of parts as `part.name`."""
        parts: dict[str, Numbers | RatedItems] = {
            "items": self.items, "newcomer": self.newcomer, "belief": self.belief, "rule": self.rule
        }  # fmt: skip
        found = {f"{part}.{name}": value for part, one in parts.items() for name, value in vars(one).items()}
        return {"scale": self.scale} | found

    @classmethod
    def of(cls, tensors: dict[str, Tensor]) -> "RatingHead":
        """What `tensors` took apart."""

        def part(name: str) -> dict[str, Tensor]:
            return {key.partition(".")[2]: value for key, value in tensors.items() if key.startswith(name + ".")}

        return cls(
            tensors["scale"], RatedItems(**part("items")), Newcomer(**part("newcomer")), Belief(**part("belief")),
            Rule(**part("rule")),
        )  # fmt: skip

    def described(self, rows: Int[Tensor, " some"], text: Float[Tensor, "some width"]) -> RatedItems:
        """Items by row; those with row -1, which nobody has rated, by their texts."""
        new = self.newcomer.items(text, self.belief)
        known = self.items.take(rows.clamp(min=0))

        def either(name: str) -> Tensor:
            there, guessed = getattr(known, name), getattr(new, name)
            return torch.where((rows < 0).reshape(-1, *[1] * (there.ndim - 1)), guessed, there)

        return RatedItems(**{name: either(name) for name in vars(new)})

    @torch.no_grad()
    def predict(
        self,
        support: RatedItems,
        said: Float[Tensor, "users shots"],
        mask: Bool[Tensor, "users shots"],
        wanted: RatedItems,
    ) -> Expected:
        """What users will say of items, on the scale of the log.

        Args:
            support: `(users, shots)` items that they rated; padding holds any item.
            said: their ratings, on the scale of the log; padding holds anything finite.
            mask: True for real rows.
            wanted: `(users, queries)` items.

        Returns:
            All of it in ratings. Mean, median and interval are cut at the ends of the scale.
        """
        lowest, highest, centre, unit = self.scale.unbind()
        found = self.rule(evidence(self.belief, support, (said - centre) / unit, mask, wanted))
        levels = {name: (centre + unit * value).clamp(lowest, highest) for name, value in found._asdict().items()}
        return Expected(**levels | {"std": unit * found.std})
