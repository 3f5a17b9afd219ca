"""Calibration of items that nobody has touched, on items that are treated as such and users who went on to like them.

First one gain per channel of their stand-ins, on the ranking among new items alone. Then, for each knot of the number of
shots, what an item scores for being new, which decides how high new items come among all. The most accurate ranking hardly
shows any (what is known beats what is guessed), so this is raised until a stated share of accuracy is given up, or until
new items have the share of the lists that they have of what users go on to like.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mecold.head import KNOTS, PreferenceHead
from mecold.meta.calibrate import Candidates, ascend, joined
from mecold.meta.crossfit import Views
from mecold.meta.episodes import Opening
from mecold.metrics import hits, ideal_gain, ndcg
from mecold.support import Support, support_of
from mecold.tower import ItemSpace, ItemTower, Query

SHARE = 0.2  # of the items are treated as new
DRAWS = 3  # of new items, so that it matters less which they are
_SCORES_AT_ONCE = 1 << 27  # users x new items x channels: 512 MB
SHOTS = 10
LEAST_SHOTS = 3
LEAST_USERS = 100
_BATCH = 256


@dataclass(frozen=True)
class ColdEpisodes:
    """Supports of known items, and what else the same users liked.

    Args:
        support: the first known items.
        items: all items of the opening.
        new: True for new items that were liked.
        after: True for items, new and known, that came after the support and were liked: as many new ones among them as
            a recommender would find.
    """

    support: Support
    items: Int[Tensor, "users length"]
    new: Bool[Tensor, "users length"]
    after: Bool[Tensor, "users length"]

    def __len__(self) -> int:
        return len(self.items)

    def batches(self, device: torch.device) -> list["ColdEpisodes"]:
        """The same users, some at a time, on a device."""
        cuts = [slice(start, start + _BATCH) for start in range(0, len(self), _BATCH)]
        parts = ("rows", "labels", "weights", "mask", "time")
        return [
            ColdEpisodes(
                support_of(*(getattr(self.support, name)[cut] for name in parts)).to(device),
                *(getattr(self, name)[cut].to(device) for name in ("items", "new", "after")),
            )
            for cut in cuts
        ]


def cold_episodes(users: Opening, new: Bool[Tensor, " items"], shots: int, least: int) -> ColdEpisodes:
    """Episodes of the users who have known items for a support, and liked a new one.

    Args:
        users: openings.
        new: True for items that are treated as new.
        shots: known items in a support.
        least: fewest known items in a support.
    """
    inside = torch.arange(users.rows.shape[1]) < users.lengths[:, None]
    fresh = new[users.rows] & inside
    known, liked = inside & ~fresh, inside & (users.labels > 0)
    chosen = known & (known.cumsum(1) <= shots)
    some = ((chosen.sum(1) >= least) & (fresh & liked).any(1)).nonzero()[:, 0]
    users, chosen, liked, fresh = users.take(some), chosen[some], liked[some], fresh[some]
    order = torch.argsort((~chosen).int(), dim=1, stable=True)[:, :shots]
    mask = chosen.gather(1, order)
    last = order.gather(1, mask.sum(1, keepdim=True) - 1)
    support = support_of(
        torch.where(mask, users.rows.gather(1, order), 0),
        torch.where(mask, users.labels.gather(1, order), 0.0),
        torch.where(mask, users.weights.gather(1, order), 0.0),
        mask,
        users.times.gather(1, last)[:, 0],
    )
    return ColdEpisodes(support, users.rows, liked & fresh, liked & (torch.arange(liked.shape[1]) > last))


@torch.no_grad()
def calibrate_cold(
    tower: ItemTower,
    head: PreferenceHead,
    views: Views,
    users: Opening,
    chosen: Sequence[np.ndarray],
    cost: float,
    *,
    rng: np.random.Generator,
    limit: int = 6000,
) -> dict[str, float]:
    """Fit the tower's gains of new items, and what the head gives for newness, in place.

    Args:
        tower: trained item tower.
        head: trained and calibrated head.
        views: cross-fitted views.
        users: first items of every user.
        chosen: users to calibrate on, by fold.
        cost: share of the best nDCG@10 that may be given up where new items are a fifth of the catalogue.
        rng: draws the new items, and the users.
        limit: most users; fewer where the catalogue is large.

    Returns:
        nDCG@10 among the new items before and after, and, per knot, their share of the first ten of all; nothing where
        fewer than 100 users liked one.
    """
    worlds = []
    most = min(limit, int(_SCORES_AT_ONCE / (SHARE * len(views.whole.counts) * len(tower.cold_gain)))) // len(chosen)
    for view, pool in zip(views.folds, chosen, strict=True):
        mixed = rng.permutation(np.repeat(pool, DRAWS))[:most]
        for draw in range(DRAWS):
            new = torch.from_numpy(rng.random(len(view.counts)) < SHARE).to(view.counts.device) & (view.counts > 0)
            worlds.append((view, new, users.take(torch.from_numpy(mixed[draw::DRAWS]))))

    def cut(shots: int, least: int) -> list[tuple[Query, ItemSpace, Tensor, ColdEpisodes]]:
        c, parts = head.coefficients(), []
        for view, new, some in worlds:
            space = view.space(tower, new)
            for batch in cold_episodes(some, new.cpu(), shots, least).batches(new.device):
                parts.append((head(space, batch.support, c), space, new, batch))
        return parts if sum(len(batch) for *_, batch in parts) >= LEAST_USERS else []

    parts = cut(SHOTS, LEAST_SHOTS)
    if not parts:
        return {}
    channels, still = len(tower.cold_gain), tower.cold_gain.new_zeros(())
    among = joined([_among(head, *part) for part in parts])
    before = torch.ones_like(tower.cold_gain)
    gain, _ = ascend(among, before, still, fixed={channels - 2})
    gain[-1].clamp_(max=1.0)  # it alone ranks items for a user without a history, where a guess must not outbid a count
    tower.cold_gain.copy_(gain)
    values = {
        f"cold/ndcg@10/{when}": float(among.ndcg(g, still).mean()) for when, g in (("before", before), ("after", gain))
    }
    for knot, shots in enumerate(KNOTS[1:], 1):
        if parts := cut(shots, shots):
            head.newness[knot], values[f"cold/share/{shots}"] = _newness([_full(*part) for part in parts], cost)
        else:
            head.newness[knot] = head.newness[knot - 1]
    return values


def _among(head: PreferenceHead, query: Query, space: ItemSpace, new: Tensor, episodes: ColdEpisodes) -> Candidates:
    """All new items as candidates, with their scores by channel."""
    items = space.item[new]
    blocks = torch.stack([query.vector[:, part] @ items[:, part].T for part in head.layout.slices], dim=2)
    relevant = torch.zeros(len(episodes), len(new), dtype=torch.bool, device=new.device)
    users, places = torch.nonzero(episodes.new, as_tuple=True)
    relevant[users, episodes.items[users, places]] = True
    relevant = relevant[:, new]
    chance = 1e-5 * torch.rand(blocks.shape[:2], generator=torch.Generator().manual_seed(0)).to(new.device)
    ideal = ideal_gain(relevant.sum(1), 10)
    return Candidates(blocks, torch.zeros_like(blocks), relevant, torch.ones_like(relevant), ideal, chance)


@dataclass(frozen=True)
class Full:
    """The ten best known and the ten best new items of some users: any bonus for being new makes the first ten of these.

    Args:
        scores: their scores, `(users, 20)`, known first.
        hit: True where the item came after the support and was liked.
        relevant: how many such items there are.
        new: how many of these are new.
    """

    scores: Float[Tensor, "users twenty"]
    hit: Bool[Tensor, "users twenty"]
    relevant: Int[Tensor, " users"]
    new: Int[Tensor, " users"]


def _full(query: Query, space: ItemSpace, new: Tensor, episodes: ColdEpisodes) -> Full:
    scores = space.scores(query)
    users, places = torch.nonzero(episodes.support.mask, as_tuple=True)
    scores[users, episodes.support.rows[users, places]] = -torch.inf
    best = [scores.masked_fill(hide, -torch.inf).topk(min(10, len(new)), dim=1) for hide in (new, ~new)]
    top = torch.cat([one.indices for one in best], dim=1)
    hit = hits(top, episodes.items, episodes.after)
    return Full(
        torch.cat([one.values for one in best], dim=1),
        hit,
        episodes.after.sum(1),
        (episodes.after & episodes.new).sum(1),
    )


def _newness(parts: Sequence[Full], cost: float) -> tuple[float, float]:
    """The largest bonus for new items within the two limits; and their share of the lists."""
    names = ("scores", "hit", "relevant", "new")
    scores, hit, relevant, wanted = (torch.cat([getattr(p, name) for p in parts]) for name in names)
    fair = float(wanted.sum() / relevant.sum().clamp(min=1))
    half = scores.shape[1] // 2
    fresh = torch.arange(2 * half, device=scores.device) >= half
    entry = scores[:, half - 1] - scores[:, half]  # at which a user's first new item enters the ten
    marks, shares = [], []
    bonuses = entry[torch.isfinite(entry)].quantile(torch.linspace(0, 1, 41, device=scores.device)).tolist()
    for bonus in bonuses:
        top = (scores + bonus * fresh).topk(min(10, half), dim=1).indices
        marks.append(float(ndcg(hit.gather(1, top), relevant).mean()))
        shares.append(float(fresh[top].float().mean()))
    best = int(np.argmax(marks))
    within = [i for i in range(len(marks)) if marks[i] >= (1 - cost) * marks[best] and shares[i] <= fair]
    chosen = max([best, *within])
    return bonuses[chosen], shares[chosen]
