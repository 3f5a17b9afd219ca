"""Calibration: the likelihood is not nDCG, so a few gains are fitted on the ranking itself, on cross-fitted users.

For each knot of the number of shots: one gain per channel of the query, and one share for the inner loop. A change is
kept only if it beats the present gains by two of its own standard errors, so that noise is not chased.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mecold.head import KNOTS, Coefficients, PreferenceHead
from mecold.meta.episodes import Episodes, Opening, cut, telling
from mecold.meta.train import hide_support
from mecold.metrics import discounted_gain, ideal_gain
from mecold.tower import NEW, ItemSpace

_SCORES_AT_ONCE = 1 << 24  # users x items x channels scored at once: 64 MB, of which a few copies are alive
VALUES = (0.0, 0.1, 0.2, 0.35, 0.5, 0.7, 0.85, 1.0, 1.2, 1.5, 2.0, 3.0, 5.0)
"""What a gain may become; 1 is what training left."""
LEAST_TEXT = 0.2
"""The text channel keeps this gain however little texts say about known items: new ones are found by nothing else."""


@dataclass(frozen=True)
class Candidates:
    """Per user the items that any sensible gains could bring to the top, with their scores by channel.

    Args:
        prior: scores of the prior per channel, the neighbour lists last.
        moved: scores of what the inner loop added, per channel; nothing for the lists.
        relevant: True for items that followed.
        valid: False for padding.
        ideal: best possible discounted gain.
        chance: tiny random numbers that settle ties, so that neither breaking nor making them looks good.
    """

    prior: Float[Tensor, "users candidates channels"]
    moved: Float[Tensor, "users candidates channels"]
    relevant: Bool[Tensor, "users candidates"]
    valid: Bool[Tensor, "users candidates"]
    ideal: Float[Tensor, " users"]
    chance: Float[Tensor, "users candidates"]

    def ndcg(self, gain: Float[Tensor, " channels"], share: float | Tensor) -> Float[Tensor, " users"]:
        """nDCG@10 per user under these gains."""
        return self.judged(self.prior @ gain + share * (self.moved @ gain))

    def judged(self, scores: Float[Tensor, "users candidates"]) -> Float[Tensor, " users"]:
        """nDCG@10 per user under these scores."""
        scores = (scores + self.chance).masked_fill(~self.valid, -torch.inf)
        top = scores.topk(min(10, scores.shape[1]), dim=1).indices
        return discounted_gain(self.relevant.gather(1, top)) / self.ideal

    def line(self, point: Float[Tensor, " places"], place: int) -> tuple[Tensor, Tensor]:
        """Scores as `rest + value * direction` where one place of the point (gains, then the share) takes a value."""
        gain, share = point[:-1], point[-1]
        if place == len(gain):
            return self.prior @ gain, self.moved @ gain
        others = gain.clone()
        others[place] = 0.0
        rest = self.prior @ others + share * (self.moved @ others)
        return rest, self.prior[..., place] + share * self.moved[..., place]


@torch.no_grad()
def calibrate(
    head: PreferenceHead,
    spaces: Sequence[ItemSpace],
    users: Opening,
    chosen: Sequence[np.ndarray],
    query: int,
    *,
    rng: np.random.Generator,
    limit: int = 4000,
) -> dict[str, float]:
    """Fit the head's gains in place.

    Args:
        head: trained head.
        spaces: the item space of each fold.
        users: first items of every user.
        chosen: users to calibrate on, by fold.
        query: how many following items count as relevant.
        rng: draws the users where there are more than `limit`.
        limit: most users per knot.

    Returns:
        nDCG@10 of those users before and after, per knot.
    """
    names, values = head.layout.names, {}
    popularity, newness = names.index("popularity"), names.index(NEW)
    least = {names.index("text"): LEAST_TEXT}
    for knot, shots in enumerate(KNOTS):
        # without a support only popularity has a say, and no gain changes its order
        found = _collect(head, spaces, users, chosen, shots, query, rng, limit) if shots else None
        if found is None:
            continue
        gain, share = head.gain[knot].clone(), head.share[knot, 0].clone()
        values[f"calibration/before/{shots}"] = float(found.ndcg(gain, share).mean())
        gain, share = fitted(found, gain, share, plain=popularity, fixed={newness}, least=least)
        head.gain[knot], head.share[knot, 0] = gain, share
        values[f"calibration/after/{shots}"] = float(found.ndcg(gain, share).mean())
    return values


def fitted(
    found: Candidates,
    gain: Tensor,
    share: Tensor,
    *,
    plain: int,
    fixed: Collection[int],
    least: Mapping[int, float] = MappingProxyType({}),
) -> tuple[Tensor, Tensor]:
    """The best gains, from where they are or from one channel alone; where the two are level, that channel has it.

    Args:
        found: candidates.
        gain: where the gains start.
        share: where the share of the inner loop starts.
        plain: the channel that stands alone in the other start.
        fixed: channels whose gain stays.
        least: gains that must not become smaller, by channel.
    """
    alone = torch.zeros_like(gain)
    alone[plain] = 1.0
    for channel, value in least.items():
        alone[channel] = value
    rich = ascend(found, gain, share, fixed=fixed, least=least)
    simple = ascend(found, alone, torch.zeros_like(share), fixed=fixed, least=least)
    return rich if better(found.ndcg(*rich), found.ndcg(*simple)) else simple


def better(then: Tensor, now: Tensor, errors: float = 1.0) -> bool:
    """True if the mean over users rose by more than so many of its standard errors."""
    difference = then - now
    return bool(difference.mean() > errors * difference.std() / len(difference) ** 0.5)


def ascend(
    found: Candidates,
    gain: Tensor,
    share: Tensor,
    *,
    fixed: Collection[int] = (),
    least: Mapping[int, float] = MappingProxyType({}),
    sweeps: int = 3,
) -> tuple[Tensor, Tensor]:
    """Coordinate ascent over the gains and the share of the inner loop, each in turn set to the best of `VALUES`.

    Args:
        found: candidates.
        gain: where the gains start.
        share: where the share starts.
        fixed: channels whose gain stays.
        least: gains that must not become smaller, by channel.
        sweeps: most rounds.
    """
    point = torch.cat([gain, share[None]])
    now = found.ndcg(point[:-1], point[-1])
    for _ in range(sweeps):
        before = point
        for place in (place for place in range(len(point)) if place not in fixed):
            best = now
            rest, direction = found.line(point, place)
            for value in (value for value in VALUES if value >= least.get(place, 0.0)):
                tried = point.clone()
                tried[place] = value
                if not tried[:-1].any():
                    continue  # all level: a random order of so few candidates would look good
                then = found.judged(rest + value * direction)
                if then.mean() > best.mean() and better(then, now, errors=2.0):
                    best, chosen = then, tried
            if best is not now:
                point, now = chosen, best
        if torch.equal(before, point):
            break
    return point[:-1], point[-1]


def _collect(
    head: PreferenceHead,
    spaces: Sequence[ItemSpace],
    users: Opening,
    chosen: Sequence[np.ndarray],
    shots: int,
    query: int,
    rng: np.random.Generator,
    limit: int,
) -> Candidates | None:
    """Candidates of the users that tell most about this many shots; None where there are too few to tell."""
    pools = [pool[telling(users, pool, shots, query)] for pool in chosen]
    if sum(map(len, pools)) < 30:
        return None
    share = min(1.0, limit / sum(map(len, pools)))
    coefficients, parts = head.coefficients(), []
    for space, pool in zip(spaces, pools, strict=True):
        picked = rng.permutation(pool)[: int(np.ceil(share * len(pool)))]
        step = max(1, min(256, _SCORES_AT_ONCE // (len(space.item) * head.gain.shape[1])))
        for start in range(0, len(picked), step):
            batch = users.take(torch.from_numpy(picked[start : start + step]))
            episodes = cut(batch, torch.full((len(batch),), shots), query).to(space.item.device)
            parts.append(_candidates(head, space, episodes, coefficients))
    return joined(parts)


def _candidates(head: PreferenceHead, space: ItemSpace, episodes: Episodes, c: Coefficients) -> Candidates:
    """The best items by the present query, by each channel and by the inner loop's move; and what followed."""
    found = head.stages(space, episodes.support, c)
    zero = space.item.new_zeros(len(found.prior), len(space.item))
    blocks = [
        torch.stack([query[:, part] @ space.item[:, part].T for part in head.layout.slices] + [lists], dim=2)
        for query, lists in (
            (found.prior, space.near.add_to(zero, episodes.support.rows, found.trust)),
            (found.moved - found.prior, zero),
        )
    ]
    rankings = [(blocks[0] + blocks[1]).sum(2), *blocks[0].unbind(2), blocks[1].sum(2)]
    hidden = [hide_support(scores, episodes) for scores in rankings]
    pool = torch.zeros_like(hidden[0], dtype=torch.bool)
    for scores, depth in zip(hidden, [100] + [40] * (len(hidden) - 1), strict=True):
        pool.scatter_(1, scores.topk(min(depth, scores.shape[1]), dim=1).indices, value=True)
    relevant = torch.zeros_like(pool)
    users, places = torch.nonzero(episodes.query_mask, as_tuple=True)
    relevant[users, episodes.query[users, places]] = True
    pool = (pool | relevant) & torch.isfinite(hidden[0])
    columns = pool.to(torch.int8).topk(int(pool.sum(1).max()), dim=1).indices
    count = episodes.query_mask.sum(1).clamp(max=10)
    ideal = ideal_gain(count, 10)
    keep = count > 0
    prior_scores, moved_scores = (torch.take_along_dim(b, columns[:, :, None], 1)[keep] for b in blocks)
    hit, valid = (torch.gather(flag, 1, columns)[keep] for flag in (relevant, pool))
    chance = 1e-5 * torch.rand(prior_scores.shape[:2], generator=torch.Generator().manual_seed(0))
    return Candidates(prior_scores, moved_scores, hit, valid, ideal[keep], chance.to(ideal.device))


def joined(parts: Sequence[Candidates]) -> Candidates:
    """All batches as one, padded to the widest."""
    width = max(part.valid.shape[1] for part in parts)

    def together(name: str) -> Tensor:
        tensors = [getattr(part, name) for part in parts]
        if tensors[0].dim() == 1:
            return torch.cat(tensors)
        pad = torch.nn.functional.pad
        return torch.cat([pad(t, (0, 0) * (t.dim() - 2) + (0, width - t.shape[1])) for t in tensors])

    return Candidates(*map(together, ("prior", "moved", "relevant", "valid", "ideal", "chance")))
