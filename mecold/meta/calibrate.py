"""Calibration: the likelihood is not nDCG, so a few gains are fitted on the ranking itself, on cross-fitted users.

For each knot of the number of shots one gain per channel, where the head's inner step starts; and for all knots together
the step sizes of that step, through which it is learned. All at once, on nDCG@10 with soft ranks.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mecold.data.histories import Histories
from mecold.data.rows import Rows
from mecold.heads.inner import shift
from mecold.heads.preference import KNOTS, Coefficients, Gains, PreferenceHead, Reading
from mecold.math.losses import soft_ndcg
from mecold.math.metrics import discounted_gain, ideal_gain
from mecold.math.products import product
from mecold.meta.episodes import Episodes, cut, ranked_at_most, telling
from mecold.meta.train import Lessons, hide_support
from mecold.space.channel import LISTS
from mecold.space.space import ItemSpace

LEAST_USERS = 30  # at a knot, for its gains to be fitted
STEPS, LAST = 150, 60  # all steps, and those whose mean is taken
LR = 0.05
LEAST_SPREAD = 0.01  # of evidence: below it, differences are rounding
BATCH = 256  # users of each knot in a step
_SORTED_AT_ONCE = 1 << 20  # users x candidates in a batch; each is compared with ten relevant ones
TEMPERATURE = 0.1  # of soft ranks, in standard deviations of the candidates' scores before calibration
PULL, SMOOTH, SHORT = 0.001, 0.05, 0.03  # towards equal gains, between neighbouring knots, towards no step
USUAL_NDCG = 0.05  # the penalties are in units of this
FEW = 500.0  # users at which the pull is twice that of many
_SCORES_AT_ONCE = 1 << 24  # users x items x channels scored at once: 64 MB, of which a few copies are alive
_LEAST_AT_ONCE = 8  # users, in whatever catalogue: one at a time would read all of it for each
_HIDDEN = -1e4  # score of padding: finite, since infinities have no slope


@dataclass(frozen=True)
class Candidates(Rows):
    """Per user the items that any sensible gains could bring to the top, with their scores by channel.

    Args:
        by_channel: scores of the prior per channel, the neighbour lists among them.
        relevant: True for items that followed.
        valid: False for padding.
        ideal: best possible discounted gain.
        evidence: what the support says for each channel.
    """

    by_channel: Float[Tensor, "users channels candidates"]
    relevant: Bool[Tensor, "users candidates"]
    valid: Bool[Tensor, "users candidates"]
    ideal: Float[Tensor, " users"]
    evidence: Float[Tensor, "users evidence"]

    def scores(self, gain: Float[Tensor, "#users channels"]) -> Float[Tensor, "users candidates"]:
        """Scores under these gains; padding scores little."""
        return (gain[:, None] @ self.by_channel)[:, 0].masked_fill(~self.valid, _HIDDEN)

    def ndcg(self, gain: Float[Tensor, "#users channels"]) -> Float[Tensor, " users"]:
        """nDCG@10 per user under these gains."""
        scores = self.scores(gain)
        top = scores.topk(min(10, scores.shape[1]), dim=1).indices
        return discounted_gain(self.relevant.gather(1, top)) / self.ideal

    def widened(self, width: int) -> "Candidates":
        """The same users with so many candidates, padded behind."""

        def wide(tensor: Tensor) -> Tensor:
            return torch.nn.functional.pad(tensor, (0, width - tensor.shape[-1]))

        return replace(self, by_channel=wide(self.by_channel), relevant=wide(self.relevant), valid=wide(self.valid))


@dataclass(frozen=True)
class Point:
    """What is fitted, for a number of knots.

    Args:
        log_gain: logarithm of the gain per channel.
        step: step sizes of the inner step.
    """

    log_gain: Float[Tensor, "knots channels"]
    step: Float[Tensor, "evidence channels"]

    def at(self, knot: int, evidence: Float[Tensor, "users evidence"]) -> Float[Tensor, "users channels"]:
        """Gains of users by their standardised evidence, as the head has them."""
        return self.log_gain[[knot]].exp() * shift(evidence, self.step)


@torch.no_grad()
def calibrate(
    head: PreferenceHead, lessons: Lessons, *, rng: np.random.Generator, limit: int = 4000
) -> tuple[Gains, dict[str, float]]:
    """The head's gains fitted on the ranking; where there are too few users at every number of shots they stay as they are.

    Args:
        head: trained head.
        lessons: what it was trained on; all users count, with what they went on to like.
        rng: draws the users where there are more than `limit`, and the batches.
        limit: most users per knot; fewer in a large catalogue (`ranked_at_most`).

    Returns:
        The gains; and nDCG@10 of those users before and after, per knot.
    """
    # without a support few channels have a say; where it is only one, no gain changes its order
    several = sum(traits.reads in ("nothing", "groups") for traits in head.traits.values()) > 1
    found = {
        knot: part
        for knot, shots in enumerate(KNOTS)
        if (shots or several) and (part := _collect(head, lessons, shots, rng, limit)) is not None
    }
    if not found:
        return head.gains, {}
    old = head.gains
    gain, usual, spread = old.gain.clone(), old.usual.clone(), old.spread.clone()
    for knot, part in found.items():
        usual[knot] = part.evidence.mean(0)
        deviation = (part.evidence - usual[knot]).square().mean(0).sqrt()
        spread[knot] = torch.where(deviation > LEAST_SPREAD, deviation, 1.0)  # what all share says nothing
        found[knot] = replace(part, evidence=head.standardised(part.evidence, usual[knot], spread[knot]))
    # a user without a support has other needs than one with: what counts there is no hint for the knots beside it
    silent, told = ({knot: part for knot, part in found.items() if (knot == 0) is zero} for zero in (True, False))
    step, values = old.step, {}
    for some in (silent, told):
        if not some:
            continue
        point = fitted(list(some.values()), rng=rng)
        step = point.step
        for place, (knot, part) in enumerate(some.items()):
            values[f"calibration/before/{KNOTS[knot]}"] = float(part.ndcg(gain[knot][None]).mean())
            gain[knot] = point.log_gain[place].exp()
            values[f"calibration/after/{KNOTS[knot]}"] = float(part.ndcg(point.at(place, part.evidence)).mean())
    for knot in (knot for knot in range(1, len(KNOTS)) if told and knot not in told):  # too few users: as before
        nearest = max((known for known in told if known < knot), default=min(told))
        for table in (gain, usual, spread):
            table[knot] = table[nearest]
    return Gains(gain, usual, spread, step, old.bonus, old.again), values


@torch.enable_grad()
def fitted(found: Sequence[Candidates], *, rng: np.random.Generator) -> Point:
    """Gains of the highest nDCG@10 with soft ranks, less what far-off gains cost; the mean over the last steps of Adam.

    Args:
        found: candidates at each knot, their evidence standardised.
        rng: puts the users in order.
    """
    channels, zeros = found[0].by_channel.shape[1], found[0].by_channel.new_zeros
    point = Point(zeros(len(found), channels), zeros(found[0].evidence.shape[1], channels))
    parts = [point.log_gain, point.step]
    for part in parts:
        part.requires_grad_()
    optimiser = torch.optim.Adam(parts, lr=LR)
    rate = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.1, STEPS)
    means = [torch.zeros_like(part) for part in parts]
    losses = [_Loss(one, rng) for one in found]
    rare = 1 + FEW / (sum(map(len, found)) / len(found))
    for step in range(STEPS):
        ranked = sum(loss(point, knot) for knot, loss in enumerate(losses)) / len(losses)
        (rare * _penalty(point) - ranked / USUAL_NDCG).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        rate.step()
        optimiser.zero_grad(set_to_none=True)
        if step >= STEPS - LAST:
            for mean, part in zip(means, parts, strict=True):
                mean += part.detach() / LAST
    return Point(*means)


def _penalty(point: Point) -> Tensor:
    """What gains cost that differ from each other, from knot to knot, and by user."""
    gain = point.log_gain
    apart = (gain - gain.mean(1, keepdim=True)).square().sum(1).mean()
    rough = gain.diff(dim=0).square().sum() / len(gain)
    return PULL * apart + SMOOTH * rough + SHORT * point.step.square().sum()


class _Loss:
    """Soft nDCG of some users after others, in random order, at one knot."""

    def __init__(self, found: Candidates, rng: np.random.Generator) -> None:
        self.found = found[torch.from_numpy(rng.permutation(len(found))).to(found.ideal.device)]
        places = self.found.relevant.to(torch.int8).topk(min(10, found.relevant.shape[1]), dim=1)
        self.wanted, self.mask = places.indices, places.values > 0
        scores = torch.where(found.valid, found.by_channel.sum(1), torch.nan)
        centred = scores - scores.nanmean(1, keepdim=True)
        self.temperature = TEMPERATURE * max(float(centred.square().nanmean(1).sqrt().nanmean()), 1e-6)
        self.batch = max(64, min(BATCH, _SORTED_AT_ONCE // found.valid.shape[1]))
        self.start = 0

    def __call__(self, point: Point, knot: int) -> Tensor:
        cut = slice(self.start, self.start + self.batch)
        self.start = cut.stop if cut.stop < len(self.found) else 0
        some = self.found[cut]
        scores = some.scores(point.at(knot, some.evidence))
        found = soft_ndcg(scores, self.wanted[cut], self.mask[cut], some.ideal, temperature=self.temperature)
        return found.mean()


def _collect(
    head: PreferenceHead, lessons: Lessons, shots: int, rng: np.random.Generator, limit: int
) -> Candidates | None:
    """Candidates of the users that tell most about this many shots; None where there are too few to tell."""
    users, query = lessons.users, lessons.config.query
    pools = [pool[telling(users, pool, shots, query)] for pool in lessons.everyone]
    if sum(map(len, pools)) < LEAST_USERS:
        return None
    share = min(1.0, ranked_at_most(limit, len(lessons.spaces[0])) / sum(map(len, pools)))
    coefficients, parts = head.coefficients(), []
    for space, pool in zip(lessons.spaces, pools, strict=True):
        picked = rng.permutation(pool)[: int(np.ceil(share * len(pool)))]
        step = max(_LEAST_AT_ONCE, min(256, _SCORES_AT_ONCE // (len(space) * (len(head.names) + 1))))
        for start in range(0, len(picked), step):
            batch = users.take(torch.from_numpy(picked[start : start + step]))
            episodes = cut(batch, torch.full((len(batch),), shots), query).to(space.device)
            parts.append(candidates_of(head, space, episodes, coefficients))
    found = joined(parts)
    return found if len(found) >= LEAST_USERS else None  # what followed may all be disliked


def candidates_of(head: PreferenceHead, space: ItemSpace, episodes: Episodes, c: Coefficients) -> Candidates:
    """The best items by the present scores and by each channel; and what followed."""
    prior = head.read(space, episodes.support, c)
    scores = scores_by_name(head, space, episodes.support, prior)
    hidden = [hide_support(ranking, episodes) for ranking in (scores.sum(1), *scores.unbind(1))]
    pool = torch.zeros_like(hidden[0], dtype=torch.bool)
    for ranking, depth in zip(hidden, [100] + [40] * (len(hidden) - 1), strict=True):
        pool.scatter_(1, ranking.topk(min(depth, ranking.shape[1]), dim=1).indices, value=True)
    relevant = torch.zeros_like(pool)
    users, places = torch.nonzero(episodes.query_mask, as_tuple=True)
    relevant[users, episodes.query[users, places]] = True
    pool = (pool | relevant) & torch.isfinite(hidden[0])
    columns = pool.to(torch.int8).topk(int(pool.sum(1).max()), dim=1).indices
    count = episodes.query_mask.sum(1).clamp(max=10)
    keep = count > 0
    by_channel = torch.take_along_dim(scores, columns[:, None], 2)[keep]
    hit, valid = (torch.gather(flag, 1, columns)[keep] for flag in (relevant, pool))
    evidence = head.evidence(space, episodes.support)[keep]
    return Candidates(by_channel, hit, valid, ideal_gain(count, 10)[keep], evidence)


def scores_by_name(
    head: PreferenceHead, space: ItemSpace, support: Histories, prior: Reading
) -> Float[Tensor, "users names items"]:
    """Scores of the catalogue by what has numbers of its own in the head; channels that share numbers are added up."""
    found: dict[str, Tensor] = {}
    for name, part in prior.parts.items():
        channel = space[name]
        scores = product(part, channel.item)
        found[channel.scale_name] = found[channel.scale_name] + scores if channel.scale_name in found else scores
    nothing = torch.zeros(len(support), len(space), device=space.device)
    found[LISTS] = space.lists.add_to(nothing, support.rows, prior.trust)
    return torch.stack([found[name] for name in head.names], dim=1)


def joined(parts: Sequence[Candidates]) -> Candidates:
    """All batches as one, padded to the widest."""
    width = max(part.valid.shape[1] for part in parts)
    return Candidates.join([part.widened(width) for part in parts])
