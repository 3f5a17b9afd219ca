"""The preference head: a meta-learned prior that reads the support, then the inner steps. One query vector per user.

What adapts to a user: the query in each channel (prior and inner steps), and how much each channel counts, by what the
support tells: whether its items are popular ones, and how much they agree in each channel (`PreferenceHead.traits`).

Everything learned here is free of the basis of the factors (numbers per channel, per number of shots, per age), so
what was learned on cross-fitted factors holds for the factors that are deployed. For a given support the query is an
affine function of the labels, which makes explanations exact.

Source: Meta-SGD (Li et al. 2017, arXiv:1707.09835) for learned step sizes; the prior that reads the support follows
the idea of amortised task initialisation (e.g. LEO, Rusu et al. 2019, arXiv:1807.05960), kept linear.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import embedding  # unlike indexing, its backward adds up in a fixed order

import mecold.trend as trend
from mecold.adapt import descend, solve
from mecold.support import Support
from mecold.tower import ItemSpace, Layout, Query

KNOTS = (0, 1, 2, 3, 5, 8, 12, 20)
"""Numbers of shots (and ages) that have parameters of their own; values between are interpolated in log(1 + n)."""

FAR = 3.0
"""Standard deviations at which a trait no longer grows."""

Inner: TypeAlias = Literal["gradient", "closed_form", "none"]


@dataclass(frozen=True)
class HeadConfig:
    """How the head adapts.

    Args:
        inner: `"gradient"` (MAML), `"closed_form"` (posterior mean), or `"none"` (the prior alone).
        steps: gradient steps.
        first_order: FOMAML instead of second-order MAML.
        tilt: let how much each channel counts depend on what a support tells of its user.
    """

    inner: Inner = "gradient"
    steps: int = 1
    first_order: bool = False
    tilt: bool = True


def _interpolation() -> Tensor:
    """`(max knot + 1, knots)`: row n mixes the parameters of the two knots around n."""
    knots = torch.tensor(KNOTS, dtype=torch.float32).log1p()
    n = torch.arange(KNOTS[-1] + 1, dtype=torch.float32).log1p()
    upper = torch.searchsorted(knots, n).clamp(1, len(knots) - 1)
    share = ((n - knots[upper - 1]) / (knots[upper] - knots[upper - 1])).clamp(0, 1)
    table = torch.zeros(len(n), len(knots))
    rows = torch.arange(len(n))
    table[rows, upper] += share
    table[rows, upper - 1] += 1 - share
    return table


@dataclass(frozen=True)
class Coefficients:
    """The head's parameters expanded to what the arithmetic needs: tables by shots or age, values by dimension."""

    prior: Float[Tensor, "shots channels"]
    fade: Float[Tensor, "ages channels"]
    rarity: Float[Tensor, " channels"]
    lr: Float[Tensor, "shots dim"]
    gain: Float[Tensor, "shots channels"]
    share: Float[Tensor, " shots"]
    usual: Float[Tensor, "shots traits"]
    spread: Float[Tensor, "shots traits"]
    newness: Float[Tensor, " shots"]
    target: Float[Tensor, ""]
    gram_weight: Float[Tensor, ""]
    l2: Float[Tensor, " dim"]


class Stages(NamedTuple):
    """A head before and after the inner loop, without gains."""

    prior: Float[Tensor, "users dim"]
    moved: Float[Tensor, "users dim"]
    trust: Float[Tensor, "users shots"]


class PreferenceHead(nn.Module):
    """Meta-learned prior, step sizes and gains: per channel of the item space, and for the neighbour lists behind them.

    Args:
        layout: channels of the item space.
        config: kind of inner loop.
    """

    interpolation: Tensor

    def __init__(self, layout: Layout, config: HeadConfig | None = None) -> None:
        super().__init__()
        self.config = config or HeadConfig()
        self.layout = layout
        knots, channels = len(KNOTS), len(layout.names) + 1
        self.register_buffer("interpolation", _interpolation())
        # text, trend, popularity and neighbours start small: they have to earn their place
        start = [0.0 if name == trend.CHANNEL else 2.5 for name in layout.names[:-3]] + [0.5, 0.0, -1.0, 1.5]
        width = dict(zip(layout.names, layout.widths, strict=True)).get(trend.CHANNEL, 0)
        self.register_buffer("centres", torch.zeros(width, dtype=torch.float64))  # of the bins of time
        self.register_buffer("persistence", torch.zeros((), dtype=torch.float64))
        self.prior = nn.Parameter(torch.tensor(start).repeat(knots, 1))  # log scale of each channel by shots
        ages = torch.tensor(KNOTS, dtype=torch.float32)[:, None]
        self.fade = nn.Parameter((-ages / 4).clamp(min=-3.0).repeat(1, channels))  # log weight by age
        self.rarity = nn.Parameter(torch.zeros(channels))  # exponent of exp(-popularity) on support rows
        self.step = nn.Parameter(torch.full((knots, channels - 1), 0.01))
        self.register_buffer("gain", torch.ones(knots, channels))  # calibrated on the ranking, after training
        self.register_buffer("share", torch.ones(knots))
        telling = [name for name in layout.names[:-2] if name != trend.CHANNEL]  # channels whose agreement counts
        self.agreeing = [layout.slices[layout.names.index(name)] for name in telling] if self.config.tilt else []
        traits = len(self.agreeing) + self.config.tilt
        self.register_buffer("usual", torch.zeros(knots, traits))  # mean and deviation of the traits of supports
        self.register_buffer("spread", torch.ones(knots, traits))
        self.register_buffer("tilt", torch.zeros(traits, channels + 1))  # of gains and share, by trait
        self.register_buffer("newness", torch.zeros(knots))  # what an item scores for being new, calibrated too
        self.target = nn.Parameter(torch.tensor(5.0))  # the score a liked support item should reach
        self.gram_weight = nn.Parameter(torch.tensor(0.0))  # log
        self.log_l2 = nn.Parameter(torch.zeros(channels - 1))

    gain: Tensor
    share: Tensor
    usual: Tensor
    spread: Tensor
    tilt: Tensor
    newness: Tensor
    centres: Tensor
    persistence: Tensor

    def coefficients(self) -> Coefficients:
        """Expand the parameters; done once per batch in training and once per model in use."""
        table, expand = self.interpolation, self.layout.expand
        return Coefficients(
            prior=(table @ self.prior).exp(),
            fade=(table @ self.fade).exp(),
            rarity=self.rarity,
            lr=expand(table @ self.step),
            gain=table @ self.gain,
            share=table @ self.share,
            usual=table @ self.usual,
            spread=table @ self.spread,
            newness=table @ self.newness,
            target=self.target,
            gram_weight=self.gram_weight.exp(),
            l2=expand(self.log_l2.exp()),
        )

    def forward(self, space: ItemSpace, support: Support, coefficients: Coefficients | None = None) -> Query:
        """Queries of users: `gain * (prior + share * (adapted - prior))`, and the gained trust in the support's lists.

        Args:
            space: the item space.
            support: what the users did.
            coefficients: from `coefficients()`, to spare the expansion.
        """
        c = coefficients or self.coefficients()
        shots = support.shots.clamp(max=KNOTS[-1])
        found = self.stages(space, support, c)
        gain, share = embedding(shots, c.gain), c.share[shots]
        traits = self.standardised(self.traits(space, support), c.usual[shots], c.spread[shots])
        gain, share = tilted(gain, share, torch.where(shots[:, None] > 0, traits, 0.0) @ self.tilt)
        vector = self.layout.expand(gain[:, :-1]) * torch.lerp(found.prior, found.moved, share[:, None])
        vector = torch.cat([vector[:, :-2], c.newness[shots, None], vector[:, -1:]], dim=1)
        return Query(vector, support.rows, found.trust * gain[:, -1:])

    def traits(self, space: ItemSpace, support: Support) -> Float[Tensor, "users traits"]:
        """What the newest 20 items tell of their user, whatever the labels: mean popularity, and per channel how much they
        agree, the length of the mean of their unit vectors: 1 where all point the same way.

        Not more than 20: the more items, the less they agree, and calibration saw no more.
        """
        if not self.config.tilt:
            return space.popularity.new_zeros(len(support.rows), 0)
        newest = support.mask & (support.ages < KNOTS[-1])
        share = newest / newest.sum(1, keepdim=True).clamp(min=1)
        rows = embedding(support.rows, space.support)
        popularity = (share * embedding(support.rows, space.popularity[:, None])[..., 0]).sum(1)
        means = [
            torch.einsum("us,usd->ud", share / rows[..., part].norm(dim=-1).clamp(min=1e-12), rows[..., part])
            for part in self.agreeing
        ]
        return torch.stack([popularity, *(mean.norm(dim=1) for mean in means)], dim=1)

    @staticmethod
    def standardised(traits: Tensor, usual: Tensor, spread: Tensor) -> Float[Tensor, "users traits"]:
        """Traits in deviations from what is usual at a number of shots; at most three."""
        return ((traits - usual) / spread).clamp(-FAR, FAR)

    def stages(self, space: ItemSpace, support: Support, c: Coefficients) -> Stages:
        """The head before and after the inner loop, without gains."""
        shots = support.shots.clamp(max=KNOTS[-1])
        evidence = torch.where(support.mask, support.labels * support.weights, 0.0)
        prior, trust = self.read(space, support, evidence, embedding(shots, c.prior), c)
        if self.config.inner == "none":
            return Stages(prior, prior, trust)
        # without known items there is nothing to descend: the implicit negatives alone would bury what is popular
        some = (support.mask & ~space.cold[support.rows]).any(1, keepdim=True)
        moved = torch.where(some, self._adapt(prior, space, support, shots, c), prior)
        return Stages(prior, moved, trust)

    def read(
        self, space: ItemSpace, support: Support, evidence: Tensor, scale: Tensor, c: Coefficients
    ) -> tuple[Float[Tensor, "users dim"], Float[Tensor, "users shots"]]:
        """The prior: per channel a faded sum of the support sides, unfaded for text; the trend of the moment; a liking for
        popular items.

        And the trust in each support row's neighbour list, read off in the same way.
        """
        rows = embedding(support.rows, space.support)
        popularity = embedding(support.rows, space.popularity[:, None])
        trust = evidence[..., None] * torch.exp(-c.rarity * popularity) * _by_age(c.fade, support.ages)
        by_channel = dict(zip(self.layout.names, trust.unbind(-1), strict=False))
        by_channel["text"] = evidence  # what texts say of a user does not age
        parts = [
            scale[:, i, None] * trend.reading(support.time, self.centres, self.persistence)
            if name == trend.CHANNEL
            else torch.einsum("us,usd->ud", by_channel[name] * scale[:, i, None], rows[..., part])
            for i, (name, part) in enumerate(zip(self.layout.names[:-2], self.layout.slices, strict=False))
        ]
        newness = torch.zeros_like(scale[:, :1])  # comes last, in `forward`: no part of what is adapted
        return torch.cat([*parts, newness, scale[:, -2:-1]], dim=1), trust[..., -1] * scale[:, -1:]

    def _adapt(
        self, prior: Tensor, space: ItemSpace, support: Support, shots: Tensor, c: Coefficients
    ) -> Float[Tensor, "users dim"]:
        rows = embedding(support.rows, space.item)
        rows = torch.cat(
            [rows[..., :-2], torch.zeros_like(rows[..., :1]), rows[..., -1:]], dim=-1
        )  # newness stands still
        labels = support.labels * c.target
        known = support.mask & ~space.cold[support.rows]  # a guess is nothing to fit, and has a scale of its own
        if self.config.inner == "closed_form":
            return solve(
                prior, rows, labels, known,
                l2=c.l2, weights=support.weights, gram=space.gram, gram_weight=c.gram_weight,
            )  # fmt: skip
        return descend(
            prior, rows, labels, known,
            lr=embedding(shots, c.lr), steps=self.config.steps, l2=c.l2, weights=support.weights,
            gram=space.gram, gram_weight=c.gram_weight, first_order=self.config.first_order,
        )  # fmt: skip


def tilted(
    gain: Float[Tensor, "#users channels"],
    share: Float[Tensor, "#users"],
    tilt: Float[Tensor, "users channels_and_share"],
) -> tuple[Float[Tensor, "users channels"], Float[Tensor, " users"]]:
    """Gains and shares of users whose traits tilt them: gains by a factor, the share in proportion."""
    return gain * tilt[:, :-1].exp(), (share * (1 + tilt[:, -1])).clamp(min=0.0)


def _by_age(table: Float[Tensor, "ages channels"], ages: Int[Tensor, "users shots"]) -> Tensor:
    """Table rows at each age; constant beyond the last."""
    return embedding(ages.clamp(max=len(table) - 1), table)
