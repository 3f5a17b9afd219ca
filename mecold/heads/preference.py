"""The preference head: a meta-learned prior that reads the support, then one inner step. One query vector per user.

The prior is, per channel, a faded sum of what the support's items say: of their support sides, and for fitted factors of
their item sides too, which find what the same items lead to. The inner step adapts how much each channel counts. Its loss
is the support's own, and linear in the logarithms of the gains: minus the sum over channels of log gain times evidence,
where the evidence for a factor channel or text is how much the support's items agree in it, for popularity how popular
they are, and for the rest none (`PreferenceHead.evidence`). The step goes against its gradient, through a meta-learned matrix
of step sizes, so that all gains can move. Few numbers adapt, so that few items can tell. Steps on the query itself, by
gradients or to the posterior mean, earned nothing beyond the item sides that they added (bench/LEDGER.md).

Everything learned here is free of the basis of the factors (numbers per channel, per number of shots, per age), so
what was learned on cross-fitted factors holds for the factors that are deployed. For a given support the query is a
linear function of the labels plus what does not depend on them, which makes explanations exact.

Source: Finn et al. 2017, arXiv:1703.03400, of which only a few parameters adapt inside, as in ANIL (arXiv:1909.09157); a
learned matrix of step sizes as in Meta-Curvature (Park and Oliva 2019, arXiv:1902.03356); the prior that reads the support
follows the idea of amortised task initialisation (e.g. LEO, Rusu et al. 2019, arXiv:1807.05960), kept linear.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import embedding  # unlike indexing, its backward adds up in a fixed order

import mecold.space.channels.trend as trend
from mecold.errors import InvalidDataError
from mecold.data.histories import Support, support_of
from mecold.space.space import FITTED, ItemSpace, Layout, Query

KNOTS = (0, 1, 2, 3, 5, 8, 12, 20)
"""Numbers of shots (and ages) that have parameters of their own; values between are interpolated in log(1 + n).

Only as many items as the last are read, the newest ones: with more, the sums outgrow what was learned, and fifty or a
hundred items read whole ranked worse (bench/LEDGER.md).
"""

FAR = 3.0
"""Standard deviations at which evidence no longer grows."""


@dataclass(frozen=True)
class HeadConfig:
    """How the head adapts.

    Args:
        inner: take the inner step; without it, gains depend on the number of shots alone. Its step sizes are learned in
            calibration: a head that was not calibrated takes a step of length 0.
    """

    inner: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.inner, bool):
            raise InvalidDataError(f"HeadConfig(inner={self.inner!r}) must be True or False.")


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
    """The head's parameters expanded to what the arithmetic needs: tables by shots or age, values by channel."""

    prior: Float[Tensor, "shots channels"]
    tied: Float[Tensor, "shots fitted"]
    fade: Float[Tensor, "ages channels"]
    rarity: Float[Tensor, " channels"]
    gain: Float[Tensor, "shots channels"]
    usual: Float[Tensor, "shots evidence"]
    spread: Float[Tensor, "shots evidence"]
    newness: Float[Tensor, " shots"]


class PreferenceHead(nn.Module):
    """Meta-learned prior, gains and step sizes: per channel of the item space, and for the neighbour lists behind them.

    Args:
        layout: channels of the item space.
        config: whether it takes the inner step.
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
        self.fitted = [i for i, name in enumerate(layout.names) if name in FITTED]
        self.tied = nn.Parameter(torch.zeros(knots, len(self.fitted)))  # scale of item sides read as support sides
        ages = torch.tensor(KNOTS, dtype=torch.float32)[:, None]
        self.fade = nn.Parameter((-ages / 4).clamp(min=-3.0).repeat(1, channels))  # log weight by age
        self.rarity = nn.Parameter(torch.zeros(channels))  # exponent of exp(-popularity) on support rows
        self.register_buffer("gain", torch.ones(knots, channels))  # calibrated on the ranking, after training
        telling = [name for name in (*layout.factors, "text") if name != trend.CHANNEL]  # in which items can agree
        self.agreeing = [layout.parts[name] for name in telling] if self.config.inner else []
        pieces = len(self.agreeing) + self.config.inner
        self.register_buffer("usual", torch.zeros(knots, pieces))  # mean and deviation of the evidence of supports
        self.register_buffer("spread", torch.ones(knots, pieces))
        self.register_buffer("step", torch.zeros(pieces, channels))  # of the inner step: evidence to log gains
        self.register_buffer("newness", torch.zeros(knots))  # what an item scores for being new, calibrated too

    gain: Tensor
    usual: Tensor
    spread: Tensor
    step: Tensor
    newness: Tensor
    centres: Tensor
    persistence: Tensor

    def coefficients(self) -> Coefficients:
        """Expand the parameters; done once per batch in training and once per model in use."""
        table = self.interpolation
        return Coefficients(
            prior=(table @ self.prior).exp(),
            tied=table @ self.tied,
            fade=(table @ self.fade).exp(),
            rarity=self.rarity,
            gain=table @ self.gain,
            usual=table @ self.usual,
            spread=table @ self.spread,
            newness=table @ self.newness,
        )

    def forward(self, space: ItemSpace, support: Support, coefficients: Coefficients | None = None) -> Query:
        """Queries of users: the prior, each channel times its gain after the inner step.

        Args:
            space: the item space.
            support: what the users did; of more than 20 rows the newest 20 are read, and are the rows of the query.
            coefficients: from `coefficients()`, to spare the expansion.
        """
        c, support = coefficients or self.coefficients(), _newest(support, KNOTS[-1])
        shots, prior = support.shots, self.prior_of(space, support, c)
        evidence = self.standardised(self.evidence(space, support), c.usual[shots], c.spread[shots])
        gain = embedding(shots, c.gain) * (torch.where(shots[:, None] > 0, evidence, 0.0) @ self.step).exp()
        vector = self.layout.expand(gain[:, :-1]) * prior.vector
        vector = torch.cat([vector[:, :-2], c.newness[shots, None], vector[:, -1:]], dim=1)
        return Query(vector, support.rows, prior.trust * gain[:, -1:])

    def evidence(self, space: ItemSpace, support: Support) -> Float[Tensor, "users evidence"]:
        """What at most 20 items say for the channels, whatever the labels: their mean popularity; and for each channel in which
        items can agree how much they do, the length of the mean of their unit vectors: 1 where all point the same way.
        """
        if not self.config.inner:
            return space.popularity.new_zeros(len(support.rows), 0)
        share = support.mask / support.shots[:, None].clamp(min=1)
        rows = embedding(support.rows, space.support)
        popularity = (share * embedding(support.rows, space.popularity[:, None])[..., 0]).sum(1)
        means = [
            torch.einsum("us,usd->ud", share / rows[..., part].norm(dim=-1).clamp(min=1e-12), rows[..., part])
            for part in self.agreeing
        ]
        return torch.stack([popularity, *(mean.norm(dim=1) for mean in means)], dim=1)

    @staticmethod
    def standardised(evidence: Tensor, usual: Tensor, spread: Tensor) -> Float[Tensor, "users evidence"]:
        """Evidence in deviations from what is usual at a number of shots; at most three."""
        return ((evidence - usual) / spread).clamp(-FAR, FAR)

    def prior_of(self, space: ItemSpace, support: Support, c: Coefficients) -> Query:
        """Queries before gains, of at most 20 items: per channel a faded sum of the support sides, unfaded for text, and of the
        item sides of fitted factors; the trend of the moment; a liking for popular items. The trust in each support row's
        neighbour list is read off in the same way.
        """
        shots = support.shots
        scale = embedding(shots, c.prior)
        liking = torch.where(support.mask, support.labels * support.weights, 0.0)
        rows = embedding(support.rows, space.support)
        popularity = embedding(support.rows, space.popularity[:, None])
        trust = liking[..., None] * torch.exp(-c.rarity * popularity) * embedding(support.ages, c.fade)
        by_channel = dict(zip(self.layout.names, trust.unbind(-1), strict=False))
        by_channel["text"] = liking  # what texts say of a user does not age
        parts = [
            scale[:, i, None] * trend.reading(support.time, self.centres, self.persistence)
            if name == trend.CHANNEL
            else torch.einsum("us,usd->ud", by_channel[name] * scale[:, i, None], rows[..., part])
            for i, (name, part) in enumerate(zip(self.layout.names[:-2], self.layout.slices, strict=False))
        ]
        known = ~space.cold[support.rows]  # the item side of a guess has a scale of its own
        item = embedding(support.rows, space.item)
        for i, tied in zip(self.fitted, embedding(shots, c.tied).unbind(-1), strict=True):
            weight = trust[..., i] * known * tied[:, None]
            parts[i] = parts[i] + torch.einsum("us,usd->ud", weight, item[..., self.layout.slices[i]])
        newness = torch.zeros_like(scale[:, :1])  # comes last, in `forward`
        vector = torch.cat([*parts, newness, scale[:, -2:-1]], dim=1)
        return Query(vector, support.rows, trust[..., -1] * scale[:, -1:])


def _newest(support: Support, most: int) -> Support:
    """The newest rows of each user, at most so many."""
    if support.mask.shape[1] <= most:
        return support
    columns = (support.shots - most).clamp(min=0)[:, None] + torch.arange(most, device=support.mask.device)
    rows, labels, weights, mask = (
        part.gather(1, columns) for part in (support.rows, support.labels, support.weights, support.mask)
    )
    return support_of(rows, labels, weights, mask, support.time)
