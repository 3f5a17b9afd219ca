"""The preference head: a meta-learned prior that reads the support, then one inner step. One vector per user.

The prior is, per channel, a faded sum of what the support's items say: of their support sides, and of tied channels' item
sides too, which find what the same items lead to. The inner step (`heads.inner.shift`) adapts how much each channel
counts, by the evidence of the support: how popular its items are, and how much they agree in each channel where items can
agree. Few numbers adapt, so that few items can tell.

Everything learned here is free of the basis of the factors (numbers per channel, per number of shots, per age), so
what was learned on cross-fitted factors holds for the factors that are deployed. In the user vector the rows of
a support add up, each by its own label, which makes explanations exact.

Source: Finn et al. 2017, arXiv:1703.03400, of which only a few parameters adapt inside, as in ANIL (arXiv:1909.09157); the
prior that reads the support follows the idea of amortised task initialisation (e.g. LEO, Rusu et al. 2019,
arXiv:1807.05960), kept linear.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import NamedTuple, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import embedding  # unlike indexing, its backward adds up in a fixed order

from mecold.data.histories import Histories
from mecold.errors import InvalidDataError
from mecold.heads.inner import shift
from mecold.lazy import cached_property
from mecold.space.channel import LISTS, Traits
from mecold.space.space import ItemSpace, UserVectors

KNOTS = (0, 1, 2, 3, 5, 8, 12, 20)
"""Numbers of shots (and ages) that have parameters of their own; values between are interpolated in log(1 + n).

Only as many items as the last are read, the newest ones: with more, the sums outgrow what was learned, and fifty or a
hundred items read whole ranked worse.
"""

FAR = 3.0
"""Standard deviations at which evidence no longer grows."""

LISTS_START = 1.5  # log scale of the neighbour lists before training


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


N = TypeVar("N", bound="Numbers")


@dataclass(frozen=True)
class Numbers:
    """A record of tensors, all of a head's own: not rows of anything."""

    def tensors(self) -> dict[str, Tensor]:
        """By name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def to(self: N, device: torch.device) -> N:
        """The same numbers on another device."""
        return replace(self, **{name: value.to(device) for name, value in self.tensors().items()})


@dataclass(frozen=True)
class Prior(Numbers):
    """What the outer loop learns.

    Args:
        scale: log scale of each channel by shots.
        tied: scale of item sides that are read as support sides.
        fade: log weight by age.
        rarity: exponent of exp(-popularity) on support rows.
        disliked: what a row with label -1 says, in units of one with label 1, by shots; may have either sign.
        neutral: the same of a row with label 0.
        heed: exponent of a row's emphasis (`Histories.emphasis`); 0 does not heed weights.
        events: what a row of each kind of event but the strongest says, in units of one of the strongest.
    """

    scale: Float[Tensor, "knots names"]
    tied: Float[Tensor, "knots tied"]
    fade: Float[Tensor, "knots names"]
    rarity: Float[Tensor, " names"]
    disliked: Float[Tensor, "knots names"]
    neutral: Float[Tensor, "knots names"]
    heed: Float[Tensor, " names"]
    events: Float[Tensor, "weaker names"]


@dataclass(frozen=True)
class Gains(Numbers):
    """What calibration fits on the ranking.

    Args:
        gain: how much each channel counts, by shots, before the inner step.
        usual: mean evidence of supports, by shots.
        spread: deviation of the evidence.
        step: step sizes of the inner step.
        bonus: what an item scores for being new, by shots.
        again: what an item scores for being in the user's history: at once, per doubling of how often it came, and per
            logarithms of how long ago that was and of how many items there are. All 0 where nothing came again.
    """

    gain: Float[Tensor, "knots names"]
    usual: Float[Tensor, "knots evidence"]
    spread: Float[Tensor, "knots evidence"]
    step: Float[Tensor, "evidence names"]
    bonus: Float[Tensor, " knots"]
    again: Float[Tensor, " four"]


@cache
def _interpolation() -> Tensor:
    """`(max knot + 1, knots)`: row n mixes the parameters of the two knots around n."""
    with torch.inference_mode(False):  # it outlives the caller's mode: a fit may follow
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
    """The head's numbers expanded to what the arithmetic needs: tables by shots or age."""

    scale: Float[Tensor, "shots names"]
    tied: Float[Tensor, "shots tied"]
    fade: Float[Tensor, "ages names"]
    rarity: Float[Tensor, " names"]
    disliked: Float[Tensor, "shots names"]
    neutral: Float[Tensor, "shots names"]
    heed: Float[Tensor, " names"]
    events: Float[Tensor, "kinds names"]
    gain: Float[Tensor, "shots names"]
    usual: Float[Tensor, "shots evidence"]
    spread: Float[Tensor, "shots evidence"]
    bonus: Float[Tensor, " shots"]


@dataclass(frozen=True)
class Reading:
    """What the prior reads of supports, before gains.

    Args:
        parts: user vectors by channel.
        trust: in the neighbour list of each support row.
    """

    parts: dict[str, Float[Tensor, "users width"]]
    trust: Float[Tensor, "users shots"]


@dataclass(frozen=True)
class PreferenceHead:
    """Meta-learned prior, gains and step sizes: per channel of the item space, and for the neighbour lists. A value.

    Args:
        traits: of the channels, by name.
        config: whether it takes the inner step.
        prior: what the outer loop learned.
        gains: what calibration fitted.
    """

    traits: Mapping[str, Traits]
    config: HeadConfig
    prior: Prior
    gains: Gains

    @classmethod
    def start(
        cls,
        traits: Mapping[str, Traits],
        config: HeadConfig | None = None,
        device: torch.device | None = None,
        unliked: float = 0.0,
        weaker: Sequence[float] = (),
    ) -> "PreferenceHead":
        """A head before training: channels start at the scales of their traits.

        Args:
            traits: of the channels, by name.
            config: whether it takes the inner step.
            device: where its numbers are.
            unliked: what a row that is not liked says to begin with, in units of one that is. Where there are none to learn
                from, 0: such a row hides its item, and says nothing of others.
            weaker: what a row of each kind of event but the strongest says to begin with.
        """
        config = config or HeadConfig()
        names, tied, evidence = names_of(traits), _tied(traits), evidence_of(traits, config)
        knots = len(KNOTS)
        start = [LISTS_START if name == LISTS else traits[name].start for name in names]
        ages = torch.tensor(KNOTS, dtype=torch.float32)[:, None]
        prior = Prior(
            scale=torch.tensor(start).repeat(knots, 1),
            tied=torch.zeros(knots, len(tied)),
            fade=(-ages / 4).clamp(min=-3.0).repeat(1, len(names)),
            rarity=torch.zeros(len(names)),
            disliked=torch.full((knots, len(names)), unliked),
            neutral=torch.full((knots, len(names)), unliked),
            heed=torch.zeros(len(names)),
            events=torch.tensor(weaker, dtype=torch.float32).reshape(-1, 1).repeat(1, len(names)),
        )
        gains = Gains(
            gain=torch.ones(knots, len(names)),
            usual=torch.zeros(knots, len(evidence)),
            spread=torch.ones(knots, len(evidence)),
            step=torch.zeros(len(evidence), len(names)),
            bonus=torch.zeros(knots),
            again=torch.zeros(4),
        )
        device = device or torch.device("cpu")
        return cls(dict(traits), config, prior.to(device), gains.to(device))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the columns of its tables."""
        return names_of(self.traits)

    @cached_property
    def column(self) -> dict[str, int]:
        """Column of the tables by name of a channel, or of the lists."""
        places = {name: place for place, name in enumerate(self.names)}
        own = {
            name: places[traits.scaled_as or name] for name, traits in self.traits.items() if traits.reads != "bonus"
        }
        return own | {LISTS: places[LISTS]}

    @cached_property
    def tied(self) -> tuple[str, ...]:
        """Channels whose item sides are read too: the columns of `Prior.tied`."""
        return tuple(_tied(self.traits))

    def to(self, device: torch.device) -> "PreferenceHead":
        """The same head on another device."""
        return replace(self, prior=self.prior.to(device), gains=self.gains.to(device))

    def coefficients(self) -> Coefficients:
        """Expand the numbers; done once per batch in training and once per model in use."""
        p, g = self.prior, self.gains
        table = _interpolation().to(p.scale.device)
        return Coefficients(
            scale=(table @ p.scale).exp(),
            tied=table @ p.tied,
            fade=(table @ p.fade).exp(),
            rarity=p.rarity,
            disliked=table @ p.disliked,
            neutral=table @ p.neutral,
            heed=p.heed,
            events=torch.cat([torch.ones_like(p.heed)[None], p.events]),
            gain=table @ g.gain,
            usual=table @ g.usual,
            spread=table @ g.spread,
            bonus=table @ g.bonus,
        )

    def adapt(self, space: ItemSpace, support: Histories, coefficients: Coefficients | None = None) -> UserVectors:
        """Vectors of users: the prior, each channel times its gain after the inner step.

        Args:
            space: the item space.
            support: what the users did; of more than 20 rows the newest 20 are read, and are the rows of the result.
            coefficients: from `coefficients()`, to spare the expansion.
        """
        c, support = coefficients or self.coefficients(), support.newest(KNOTS[-1])
        shots, prior = support.shots, self.read(space, support, c)
        gain = dict(zip(self.names, self.gain_of(space, support, c).unbind(1), strict=True))
        parts = [
            c.bonus[shots, None]
            if (name := self._scale(channel)) is None
            else prior.parts[channel] * gain[name][:, None]
            for channel in space.channels
        ]
        return UserVectors(torch.cat(parts, dim=1), support.rows, prior.trust * gain[LISTS][:, None])

    def again(self, histories: Histories) -> Float[Tensor, "users length"]:
        """What each item of a history scores for having come before, should it be let come back; 0 in padding, and for
        items that came as no event that is predicted.
        """
        here = histories.to(self.gains.again.device)
        found: Tensor = came_before(here) @ self.gains.again
        had = here.mask if here.repeats is None else here.mask & (here.repeats > 0)
        return torch.where(had, found, 0.0)

    def _scale(self, channel: str) -> str | None:
        """Name of the numbers of a channel; None for a bonus."""
        traits = self.traits[channel]
        return None if traits.reads == "bonus" else traits.scaled_as or channel

    def gain_of(self, space: ItemSpace, support: Histories, c: Coefficients) -> Float[Tensor, "users names"]:
        """How much each channel counts for each user: what is usual at this number of shots, after the inner step."""
        shots = support.shots
        gain = embedding(shots, c.gain)
        if not self.config.inner:
            return gain
        evidence = self.standardised(
            self.evidence(space, support), embedding(shots, c.usual), embedding(shots, c.spread)
        )
        return gain * shift(torch.where(shots[:, None] > 0, evidence, 0.0), self.gains.step)

    def evidence(self, space: ItemSpace, support: Histories) -> Float[Tensor, "users evidence"]:
        """What at most 20 items say for the channels, whatever the labels: their mean popularity; and for each channel in which
        items can agree how much they do, the length of the mean of their unit vectors: 1 where all point the same way.
        """
        if not self.config.inner:
            return support.labels[:, :0]
        bags, share = Bags.of(support.rows), support.mask / support.shots[:, None].clamp(min=1)
        found = [bags.sums(space.popularity[:, None], share)]
        for name in evidence_of(self.traits, self.config)[1:]:
            channel = space[name]
            assert channel.norm is not None and channel.support is not None, (
                "where items agree, their lengths are known"
            )
            unit = share / channel.norm.take(support.rows).clamp_(min=1e-12)
            found.append(torch.linalg.vector_norm(bags.sums(channel.support, unit), dim=1, keepdim=True))
        return torch.cat(found, dim=1)

    @staticmethod
    def standardised(evidence: Tensor, usual: Tensor, spread: Tensor) -> Float[Tensor, "users evidence"]:
        """Evidence in deviations from what is usual at a number of shots; at most three."""
        return ((evidence - usual) / spread).clamp(-FAR, FAR)

    def read(self, space: ItemSpace, support: Histories, c: Coefficients) -> Reading:
        """What the prior reads of at most 20 items, before gains: per channel a sum of the support sides, faded where the
        channel fades, and of the item sides of tied channels; the trend of the moment; a liking for popular items. The
        trust in each support row's neighbour list is read off in the same way.
        """
        shots, bags = support.shots, Bags.of(support.rows)
        scale, said = embedding(shots, c.scale), self.said(support, c)
        rare = torch.exp(-c.rarity[:, None, None] * space.popularity[support.rows])
        trust = (said * rare * embedding(support.ages, c.fade).permute(2, 0, 1)).contiguous()
        faded, plain = (dict(zip(self.names, some, strict=True)) for some in (trust, said.expand_as(trust)))
        own = dict(zip(self.names, scale.unsqueeze(1).unbind(2), strict=True))
        tied = dict(zip(self.tied, embedding(shots, c.tied).unsqueeze(1).unbind(2), strict=True))
        known = ~space.new[support.rows]  # the item side of a guess has a scale of its own
        parts = {}
        for name, channel in space.channels.items():
            if channel.traits.reads == "bonus":
                continue
            by = channel.scale_name
            if channel.traits.reads == "items":
                if channel.support is None:
                    raise InvalidDataError(f"The channel {name!r} reads items, but has no support side.")
                weight = faded[by] if channel.traits.fades else plain[by]
                parts[name] = bags.sums(channel.support, weight * own[by])
                if name in tied:
                    parts[name] = parts[name] + bags.sums(channel.item, weight * known * tied[name])
            elif channel.traits.reads == "groups":
                parts[name] = own[by] * support.membership(channel.width)
            elif channel.traits.reads == "time" and channel.clock is not None:
                parts[name] = own[by] * channel.clock.reading(support.time)
            else:
                parts[name] = own[by]
        return Reading(parts, faded[LISTS] * own[LISTS])

    def said(self, support: Histories, c: Coefficients) -> Float[Tensor, "#names users shots"]:
        """What each row says, in units of one with label 1: by its label, its kind of event, and its weight against the
        others of its support. Linear in the label between -1, 0 and 1.
        """
        if support.plain:
            return support.labels[None]
        label, mask, shots = support.labels, support.mask, support.shots
        heeded = support.emphasis.pow(c.heed[:, None, None])
        if support.kinds is not None:
            heeded = heeded * embedding(support.kinds, c.events).permute(2, 0, 1)
        below, none = (embedding(shots, table).T[..., None] for table in (c.disliked, c.neutral))
        return heeded * (
            label.clamp(min=0) - label.clamp(max=0) * below + torch.where(mask, 1 - label.abs(), 0.0) * none
        )


def came_before(histories: Histories) -> Float[Tensor, "users length four"]:
    """What `Gains.again` reads of each item of a history."""
    often = histories.mask.long() if histories.repeats is None else histories.repeats
    since = histories.ages if histories.since is None else histories.since
    items = (often > 0).sum(1, keepdim=True).expand_as(often)
    return torch.stack(
        [torch.ones_like(often), torch.log2(1 + often), torch.log1p(since), torch.log1p(items)], dim=2
    ).float()


class Bags(NamedTuple):
    """Rows of supports, laid out once for sums over the rows of many tables.

    Args:
        rows: user after user.
        starts: where each user begins.
    """

    rows: Int[Tensor, " rows"]
    starts: Int[Tensor, " users"]

    @classmethod
    def of(cls, rows: Int[Tensor, "users shots"]) -> "Bags":
        """Bags of a batch of supports."""
        users, shots = rows.shape
        return cls(rows.reshape(-1), torch.arange(users, device=rows.device) * shots)

    def sums(
        self, table: Float[Tensor, "items width"], weights: Float[Tensor, "users shots"]
    ) -> Float[Tensor, "users width"]:
        """Weighted sum of rows of a table per user; the same to the bit in any company and with any padding of weight 0."""
        # the function behind nn.functional.embedding_bag, which spends more on looking at its arguments than on one user
        found: Tensor = torch.embedding_bag(
            table, self.rows, self.starts, False, 0, False, weights.reshape(-1), False
        )[0]  # fmt: skip
        return found


def names_of(traits: Mapping[str, Traits]) -> tuple[str, ...]:
    """Names that have learned numbers: channels, but for those that share another's, and the lists."""
    own = [name for name, one in traits.items() if one.reads != "bonus" and not one.scaled_as]
    return (*own, LISTS)


def evidence_of(traits: Mapping[str, Traits], config: HeadConfig) -> tuple[str, ...]:
    """What evidence is looked at: popularity, and the agreement in each channel in which items can agree."""
    return ("popularity", *(name for name, one in traits.items() if one.agrees)) if config.inner else ()


def _tied(traits: Mapping[str, Traits]) -> Sequence[str]:
    return [name for name, one in traits.items() if one.tied]
