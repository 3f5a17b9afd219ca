"""Calibration of items that nobody has touched, on items that are treated as such and users who went on to like them.

First one gain per channel of their vectors, on the ranking among new items alone. Then, for each knot of the number of
shots, what an item scores for being new, which decides how high new items come among all. The most accurate ranking hardly
shows any (what is known beats what is guessed), so this is raised until a stated share of accuracy is given up, or until
new items have a stated part of the share of the lists that they have of what users go on to like.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mecold.data.histories import Histories
from mecold.data.rows import Rows
from mecold.heads.preference import KNOTS, PreferenceHead
from mecold.math.metrics import hits, ideal_gain, ndcg
from mecold.math.products import product
from mecold.meta.calibrate import Candidates, fitted, joined
from mecold.meta.episodes import ranked_at_most
from mecold.meta.train import Lessons
from mecold.space.basis import Basis
from mecold.space.lookalikes import Lookalikes
from mecold.space.space import ItemSpace, UserVectors, lookalikes_of, with_newcomers

SHARE = 0.2  # of the items are treated as new
DRAWS = 3  # of new items, so that it matters less which they are
MOST_NEW = 5_000
_SCORES_AT_ONCE = 1 << 26  # users x new items x channels: 256 MB, of which a few copies are alive
SHOTS = 10
LEAST_SHOTS = 3
LEAST_USERS = 100
_BATCH = 256


@dataclass(frozen=True)
class NewcomerEpisodes(Rows):
    """Supports of known items, and what else the same users liked.

    Args:
        support: the first known items.
        items: all items of the user's history.
        new: True for new items that were liked.
        after: True for items, new and known, that came after the support and were liked: as many new ones among them as
            a recommender would find.
        before: True for items, new ones too, up to the last of the support: the user has them.
    """

    support: Histories
    items: Int[Tensor, "users length"]
    new: Bool[Tensor, "users length"]
    after: Bool[Tensor, "users length"]
    before: Bool[Tensor, "users length"]


def newcomer_episodes(users: Histories, new: Bool[Tensor, " items"], shots: int, least: int) -> NewcomerEpisodes:
    """Episodes of the users who have known items for a support, and liked something else.

    Args:
        users: their first items.
        new: True for items that are treated as new.
        shots: known items in a support.
        least: fewest known items in a support.
    """
    fresh, liked = new[users.rows] & users.mask, users.wanted
    chosen = users.mask & ~fresh
    chosen = chosen & (chosen.cumsum(1) <= shots)
    some = ((chosen.sum(1) >= least) & (liked & ~chosen).any(1)).nonzero()[:, 0]
    users, chosen, liked, fresh = users.take(some), chosen[some], liked[some], fresh[some]
    places = torch.arange(chosen.shape[1])
    end = torch.where(chosen, places, -1).amax(1, keepdim=True)
    before = places <= end
    return NewcomerEpisodes(
        users.at(end[:, 0] + 1).chosen(chosen, shots), users.rows, liked & fresh, liked & ~before, before
    )


@dataclass(frozen=True)
class Rehearsal:
    """A fold's space with some items treated as new, and users that it never saw."""

    known: ItemSpace
    new: Bool[Tensor, " items"]
    users: Histories
    alike: Lookalikes

    def space(self, basis: Basis) -> ItemSpace:
        """The item space in which the items are new."""
        of = self.known
        return with_newcomers(of.channels, of.lists, of.counts, basis, self.new, self.alike)

    def episodes(self, shots: int, least: int, most: int | None = None) -> list[NewcomerEpisodes]:
        """Episodes of at most so many users, in batches on the view's device."""
        found = newcomer_episodes(self.users[: most or len(self.users)], self.new.cpu(), shots, least)
        return [found[start : start + _BATCH].to(self.new.device) for start in range(0, len(found), _BATCH)]


@torch.no_grad()
def calibrate_newcomers(
    basis: Basis,
    head: PreferenceHead,
    lessons: Lessons,
    *,
    most: float,
    rng: np.random.Generator,
    taught: Bool[np.ndarray, " items"] | None = None,
    limit: int = 6000,
) -> tuple[Basis, PreferenceHead, dict[str, float]]:
    """Gains of new items for the basis, and the head's bonus for being new.

    Args:
        basis: scales of the item space.
        head: trained and calibrated head.
        lessons: cross-fitted spaces, users, and settings.
        most: see `bonus_of`.
        rng: draws the new items, and the users.
        taught: True for items that the encoder was trained on. It knows them better than it will know a new one, so new ones
            are drawn among the others, where there are any. None: it was trained on none.
        limit: most users; fewer in a large catalogue (`ranked_at_most`), and for the gains again.

    Returns:
        Basis and head with what was fitted; nDCG@10 among the new items before and after, and, per knot, their share of
        the first ten of all. All as they were where fewer than 100 users liked a new item.
    """
    spaces = lessons.spaces
    usual = min(SHARE, MOST_NEW / len(spaces[0]))
    rehearsals = []
    for space, pool in zip(spaces, lessons.everyone, strict=True):
        text, may, share = space.text.item, (space.counts > 0).cpu().numpy(), usual
        if taught is not None and (untaught := may & ~taught).any():
            may, share = untaught, min(1.0, usual * may.sum() / untaught.sum())
        mixed = rng.permutation(np.repeat(pool, DRAWS))[: ranked_at_most(limit, len(space)) // len(spaces)]
        for draw in range(DRAWS):
            new = torch.from_numpy(may & (rng.random(len(space)) < share)).to(space.device)
            some = lessons.users.take(torch.from_numpy(mixed[draw::DRAWS]))
            rehearsals.append(Rehearsal(space, new, some, lookalikes_of(text, new | (space.counts == 0))))
    gain, values = _new_gain(basis, head, rehearsals, rng)
    if not values:
        return basis, head, {}
    basis = replace(basis, new_gain=gain)
    bonus, shares = _bonus(basis, head, rehearsals, lessons.config.new_item_cost, most)
    return basis, replace(head, gains=replace(head.gains, bonus=bonus)), values | shares


def _new_gain(
    basis: Basis, head: PreferenceHead, rehearsals: Sequence[Rehearsal], rng: np.random.Generator
) -> tuple[dict[str, float], dict[str, float]]:
    """The gain of each channel, and what it does to nDCG@10; both empty where too few users tell."""
    coefficients, parts = head.coefficients(), []
    names = [name for name in head.traits if name in head.column]
    size = max(1, max(int(rehearsal.new.sum()) for rehearsal in rehearsals))
    most = max(1, _SCORES_AT_ONCE // (size * (len(names) + 1) * len(rehearsals)))
    for rehearsal in rehearsals:
        space = rehearsal.space(basis)
        for batch in rehearsal.episodes(SHOTS, LEAST_SHOTS, most):
            users = head.adapt(space, batch.support, coefficients)
            parts.append(_among(users, names, space, rehearsal.new, batch))
    if sum(map(len, parts)) < LEAST_USERS:
        return {}, {}
    among = joined(parts)
    gain = fitted([among], rng=rng).log_gain[0].exp()
    found = {"before": among.ndcg(torch.ones_like(gain)[None]), "after": among.ndcg(gain[None])}
    marks = {f"cold/ndcg@10/{when}": float(one.mean()) for when, one in found.items()}
    return dict(zip(names, gain.tolist(), strict=True)), marks


def _bonus(
    basis: Basis, head: PreferenceHead, rehearsals: Sequence[Rehearsal], cost: float, most: float
) -> tuple[Float[Tensor, " knots"], dict[str, float]]:
    values, coefficients = {}, head.coefficients()
    full: dict[int, list[Full]] = {shots: [] for shots in KNOTS[1:]}
    for rehearsal in rehearsals:  # one space at a time: all of them would not fit for a large catalogue
        space = rehearsal.space(basis)
        for shots, found in full.items():
            for batch in rehearsal.episodes(shots, shots):
                users = head.adapt(space, batch.support, coefficients)
                found.append(full_of(users, space, rehearsal.new, batch))
    bonus = head.gains.bonus.clone()
    for knot, shots in enumerate(KNOTS[1:], 1):
        bonus[knot] = bonus[knot - 1]
        if sum(len(part.relevant) for part in full[shots]) >= LEAST_USERS:
            bonus[knot], values[f"cold/share/{shots}"] = bonus_of(full[shots], cost, most)
    return bonus, values


def _among(
    users: UserVectors, names: Sequence[str], space: ItemSpace, new: Tensor, episodes: NewcomerEpisodes
) -> Candidates:
    """All new items as candidates, with their scores by channel, for the users who liked one."""
    blocks = torch.stack([product(users.vector[:, space.spans[n]], space[n].item[new]) for n in names], dim=1)
    relevant = torch.zeros(len(episodes), len(new), dtype=torch.bool, device=new.device)
    owners, places = torch.nonzero(episodes.new, as_tuple=True)
    relevant[owners, episodes.items[owners, places]] = True
    relevant = relevant[:, new]
    keep = relevant.any(1)
    blocks, relevant = blocks[keep], relevant[keep]
    return Candidates(
        blocks, relevant, torch.ones_like(relevant), ideal_gain(relevant.sum(1), 10), blocks.new_zeros(len(blocks), 0)
    )  # fmt: skip


@dataclass(frozen=True)
class Full(Rows):
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


def full_of(users: UserVectors, space: ItemSpace, new: Tensor, episodes: NewcomerEpisodes) -> Full:
    """The best items of some users, without the known ones that they have: nobody has a new one."""
    scores = space.scores(users)
    owners, places = torch.nonzero(episodes.before & ~new[episodes.items], as_tuple=True)
    scores[owners, episodes.items[owners, places]] = -torch.inf
    best = [scores.masked_fill(hide, -torch.inf).topk(min(10, len(new)), dim=1) for hide in (new, ~new)]
    top, wanted = torch.cat([one.indices for one in best], dim=1), episodes.after | episodes.new
    counts = (found.sum(1) for found in (wanted, episodes.after, episodes.after & episodes.new))
    return Full(torch.cat([one.values for one in best], dim=1), hits(top, episodes.items, wanted), *counts)


def bonus_of(parts: Sequence[Full], cost: float, most: float) -> tuple[float, float]:
    """The largest bonus for new items within two limits, and their share of the lists under it.

    Args:
        parts: best items of users.
        cost: share of the best nDCG@10 that may be given up.
        most: share of the lists, in units of the share of new items among what was liked after the support.
    """
    full = Full.join(parts)
    scores, hit = full.scores, full.hit
    fair = most * float(full.new.sum() / full.after.sum().clamp(min=1))
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
        marks.append(float(ndcg(hit.gather(1, top), full.relevant).mean()))
        shares.append(float(fresh[top].float().mean()))
    allowed = [i for i in range(len(bonuses)) if shares[i] <= fair] or [0]
    best = max(marks[i] for i in allowed)
    chosen = max(i for i in allowed if marks[i] >= (1 - cost) * best)
    return bonuses[chosen], shares[chosen]
