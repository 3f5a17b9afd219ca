"""Calibration of items that nobody has touched, on items that are treated as such and users who went on to like them.

First one gain per part of their vectors, on the ranking among new items alone. Then, for each knot of the number of
shots, what an item scores for being new, which decides how high new items come among all. The most accurate ranking hardly
shows any (what is known beats what is guessed), so this is raised until a stated share of accuracy is given up, or until
new items have a stated part of the share of the lists that they have of what users go on to like.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mecold.heads.preference import KNOTS, PreferenceHead
from mecold.space.lookalikes import Lookalikes
from mecold.meta.calibrate import Candidates, fitted, joined
from mecold.meta.crossfit import View, Views
from mecold.meta.episodes import Opening
from mecold.math.metrics import hits, ideal_gain, ndcg
from mecold.data.histories import Support, support_of
from mecold.space.space import NEW, ItemSpace, ItemTower, Query

SHARE = 0.2  # of the items are treated as new
DRAWS = 3  # of new items, so that it matters less which they are
MOST_NEW = 20_000
_SCORES_AT_ONCE = 1 << 26  # users x new items x channels: 256 MB, of which a few copies are alive
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
        before: True for items, new ones too, up to the last of the support: the user has them.
    """

    support: Support
    items: Int[Tensor, "users length"]
    new: Bool[Tensor, "users length"]
    after: Bool[Tensor, "users length"]
    before: Bool[Tensor, "users length"]

    def __len__(self) -> int:
        return len(self.items)

    def batches(self, device: torch.device) -> list["ColdEpisodes"]:
        """The same users, some at a time, on a device."""
        cuts = [slice(start, start + _BATCH) for start in range(0, len(self), _BATCH)]
        parts = ("rows", "labels", "weights", "mask", "time")
        return [
            ColdEpisodes(
                support_of(*(getattr(self.support, name)[cut] for name in parts)).to(device),
                *(getattr(self, name)[cut].to(device) for name in ("items", "new", "after", "before")),
            )
            for cut in cuts
        ]


def cold_episodes(users: Opening, new: Bool[Tensor, " items"], shots: int, least: int) -> ColdEpisodes:
    """Episodes of the users who have known items for a support, and liked something else.

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
    some = ((chosen.sum(1) >= least) & (liked & ~chosen).any(1)).nonzero()[:, 0]
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
    before = torch.arange(liked.shape[1]) <= last
    return ColdEpisodes(support, users.rows, liked & fresh, liked & ~before, before)


@torch.no_grad()
def calibrate_cold(
    tower: ItemTower,
    head: PreferenceHead,
    views: Views,
    users: Opening,
    chosen: Sequence[np.ndarray],
    *,
    cost: float,
    most: float,
    rng: np.random.Generator,
    limit: int = 6000,
) -> dict[str, float]:
    """Fit the tower's gains of new items, and what the head gives for newness, in place.

    Args:
        tower: item tower.
        head: trained and calibrated head.
        views: cross-fitted views.
        users: first items of every user.
        chosen: users to calibrate on, by fold.
        cost: see `newness_of`.
        most: see `newness_of`.
        rng: draws the new items, and the users.
        limit: most users; for the gains fewer where the catalogue is large.

    Returns:
        nDCG@10 among the new items before and after, and, per knot, their share of the first ten of all; nothing where
        fewer than 100 users liked one.
    """
    share = min(SHARE, MOST_NEW / len(views.whole.counts))
    worlds = []
    for view, pool in zip(views.folds, chosen, strict=True):
        mixed = rng.permutation(np.repeat(pool, DRAWS))[: limit // len(chosen)]
        for draw in range(DRAWS):
            new = torch.from_numpy(rng.random(len(view.counts)) < share).to(view.counts.device) & (view.counts > 0)
            some = users.take(torch.from_numpy(mixed[draw::DRAWS]))
            worlds.append(World(view, new, some, tower.lookalikes(view.vectors, new | (view.counts == 0))))
    values = _calibrate_gains(tower, head, worlds, rng)
    return values | _calibrate_newness(tower, head, worlds, cost, most) if values else {}


@dataclass(frozen=True)
class World:
    """A view with some items treated as new, and users that it never saw."""

    view: View
    new: Bool[Tensor, " items"]
    users: Opening
    alike: Lookalikes

    def space(self, tower: ItemTower) -> ItemSpace:
        """The item space in which the new items are cold."""
        return self.view.space(tower, self.new, self.alike)

    def episodes(self, shots: int, least: int, most: int | None = None) -> list[ColdEpisodes]:
        """Episodes of at most so many users, in batches on the view's device."""
        some = self.users.take(torch.arange(min(most or len(self.users), len(self.users))))
        return cold_episodes(some, self.new.cpu(), shots, least).batches(self.new.device)


def _calibrate_gains(
    tower: ItemTower, head: PreferenceHead, worlds: Sequence[World], rng: np.random.Generator
) -> dict[str, float]:
    channels, coefficients, parts = len(tower.cold_gain), head.coefficients(), []
    size = max(1, max(int(world.new.sum()) for world in worlds))
    most = max(1, _SCORES_AT_ONCE // (size * channels * len(worlds)))
    for world in worlds:
        space = world.space(tower)
        for batch in world.episodes(SHOTS, LEAST_SHOTS, most):
            parts.append(_among(head, head(space, batch.support, coefficients), space, world.new, batch))
    if sum(map(len, parts)) < LEAST_USERS:
        return {}
    among, before = joined(parts), torch.ones_like(tower.cold_gain)
    gain = fitted([among], fixed={list(head.layout.parts).index(NEW)}, rng=rng).log_gain[0].exp()
    tower.cold_gain.copy_(gain)
    found = {"before": among.ndcg(before[None]), "after": among.ndcg(gain[None])}
    return {f"cold/ndcg@10/{when}": float(marks.mean()) for when, marks in found.items()}


def _calibrate_newness(
    tower: ItemTower, head: PreferenceHead, worlds: Sequence[World], cost: float, most: float
) -> dict[str, float]:
    values, coefficients = {}, head.coefficients()
    full: dict[int, list[Full]] = {shots: [] for shots in KNOTS[1:]}
    for world in worlds:  # one space at a time: all of them would not fit for a large catalogue
        space = world.space(tower)
        for shots, found in full.items():
            for batch in world.episodes(shots, shots):
                found.append(full_of(head(space, batch.support, coefficients), space, world.new, batch))
    for knot, shots in enumerate(KNOTS[1:], 1):
        head.newness[knot] = head.newness[knot - 1]
        if sum(len(part.relevant) for part in full[shots]) >= LEAST_USERS:
            head.newness[knot], values[f"cold/share/{shots}"] = newness_of(full[shots], cost, most)
    return values


def _among(head: PreferenceHead, query: Query, space: ItemSpace, new: Tensor, episodes: ColdEpisodes) -> Candidates:
    """All new items as candidates, with their scores by part, for the users who liked one."""
    items = space.item[new]
    blocks = torch.stack([query.vector[:, part] @ items[:, part].T for part in head.layout.parts.values()], dim=1)
    relevant = torch.zeros(len(episodes), len(new), dtype=torch.bool, device=new.device)
    users, places = torch.nonzero(episodes.new, as_tuple=True)
    relevant[users, episodes.items[users, places]] = True
    relevant = relevant[:, new]
    keep = relevant.any(1)
    blocks, relevant = blocks[keep], relevant[keep]
    return Candidates(
        blocks, relevant, torch.ones_like(relevant), ideal_gain(relevant.sum(1), 10), blocks.new_zeros(len(blocks), 0)
    )  # fmt: skip


@dataclass(frozen=True)
class Full:
    """The ten best known and the ten best new items of some users: any bonus for being new makes the first ten of these.

    Args:
        scores: their scores, `(users, 20)`, known first.
        hit: True where the item was liked; known ones count from the end of the support.
        relevant: how many such items there are.
        after: how many of these came after the support.
        new: how many of the latter are new.
    """

    scores: Float[Tensor, "users twenty"]
    hit: Bool[Tensor, "users twenty"]
    relevant: Int[Tensor, " users"]
    after: Int[Tensor, " users"]
    new: Int[Tensor, " users"]


def full_of(query: Query, space: ItemSpace, new: Tensor, episodes: ColdEpisodes) -> Full:
    """The best items of some users, without the known ones that they have: nobody has a new one."""
    scores = space.scores(query)
    users, places = torch.nonzero(episodes.before & ~new[episodes.items], as_tuple=True)
    scores[users, episodes.items[users, places]] = -torch.inf
    best = [scores.masked_fill(hide, -torch.inf).topk(min(10, len(new)), dim=1) for hide in (new, ~new)]
    top, wanted = torch.cat([one.indices for one in best], dim=1), episodes.after | episodes.new
    counts = (found.sum(1) for found in (wanted, episodes.after, episodes.after & episodes.new))
    return Full(torch.cat([one.values for one in best], dim=1), hits(top, episodes.items, wanted), *counts)


def newness_of(parts: Sequence[Full], cost: float, most: float) -> tuple[float, float]:
    """The largest bonus for new items within two limits, and their share of the lists under it.

    Args:
        parts: best items of users.
        cost: share of the best nDCG@10 that may be given up.
        most: share of the lists, in units of the share of new items among what was liked after the support.
    """
    names = ("scores", "hit", "relevant", "after", "new")
    scores, hit, relevant, after, wanted = (torch.cat([getattr(p, name) for p in parts]) for name in names)
    fair = most * float(wanted.sum() / after.sum().clamp(min=1))
    half = scores.shape[1] // 2
    fresh = torch.arange(2 * half, device=scores.device) >= half
    entry = scores[:, half - 1] - scores[:, half]  # the bonus at which a user's first new item enters the ten
    entry = entry[torch.isfinite(entry)]
    if not len(entry):
        return 0.0, 0.0  # so few items that all are shown
    none = float(entry.min()) - 1e-3 * float(entry.max() - entry.min()) - 1e-6
    bonuses = [none, *entry.quantile(torch.linspace(0, 1, 41, device=scores.device)).tolist()]
    marks, shares = [], []
    for bonus in bonuses:
        top = (scores + bonus * fresh).topk(half, dim=1).indices
        marks.append(float(ndcg(hit.gather(1, top), relevant).mean()))
        shares.append(float(fresh[top].float().mean()))
    allowed = [i for i in range(len(bonuses)) if shares[i] <= fair] or [0]
    best = max(marks[i] for i in allowed)
    chosen = max(i for i in allowed if marks[i] >= (1 - cost) * best)
    return bonuses[chosen], shares[chosen]
