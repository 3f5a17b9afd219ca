"""What comes again: how much an item scores for being in a user's history, learned where a log shows repeats.

Users are cut somewhere in all that they did, items as often as they came. The best items that they did not have stand
beside those that they had, and four numbers that are added to the latter are fitted to which of both came next.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mecold.data.histories import Histories
from mecold.data.order import Again
from mecold.data.rows import Rows
from mecold.heads.preference import PreferenceHead, came_before
from mecold.math.losses import multi_positive_softmax
from mecold.space.space import ItemSpace

LEAST_ROWS = 4  # of a user, to be cut
LEAST_USERS = 100
MOST_ITEMS = 100  # that a user has: the newest
UNSEEN = 100
_BATCH = 128
_STEPS, _LR = 300, 0.05


@dataclass(frozen=True)
class Mixed(Rows):
    """Candidates of users: first items that they have, then the best of the others.

    Args:
        scores: of the head; -inf in padding.
        before: what there is to learn from, 0 for the others.
        wanted: columns of the items that came next; padding holds any.
        mask: True for real entries of `wanted`.
    """

    scores: Float[Tensor, "users candidates"]
    before: Float[Tensor, "users candidates four"]
    wanted: Int[Tensor, "users queries"]
    mask: Bool[Tensor, "users queries"]


def learn_again(
    head: PreferenceHead, spaces: Sequence[ItemSpace], fold_of: np.ndarray, log: Again, query: int, *, last: bool,
    rng: np.random.Generator, limit: int = 4000,
) -> tuple[Float[Tensor, " four"], dict[str, float]]:  # fmt: skip
    """The four numbers; as they are where too few users tell.

    Args:
        head: calibrated.
        spaces: the item space of each fold.
        fold_of: fold of each user; -1 where none may be asked.
        log: all that users did.
        query: how many of the next rows are predicted.
        last: histories are in the order in which items came last, as with kinds of events; else first.
        rng: draws users and cuts.
        limit: most users.

    Returns:
        The numbers, and which share of what came next had come before.
    """
    sizes = np.diff(log.offsets)
    chosen = rng.permutation(np.flatnonzero((sizes >= LEAST_ROWS) & (fold_of >= 0)))[:limit]
    if len(chosen) < LEAST_USERS:
        return head.gains.again, {}
    cuts = rng.integers(1, sizes[chosen] - 1, endpoint=True)
    parts, coefficients = [], head.coefficients()
    for fold, space in enumerate(spaces):
        mine = np.flatnonzero(fold_of[chosen] == fold)
        for start in range(0, len(mine), _BATCH):
            some = mine[start : start + _BATCH]
            rows = [log.items[log.offsets[user] : log.offsets[user + 1]] for user in chosen[some]]
            before = [own[:cut] for own, cut in zip(rows, cuts[some], strict=True)]
            after = [own[cut : cut + query] for own, cut in zip(rows, cuts[some], strict=True)]
            with torch.no_grad():
                support = histories_of(before, last=last).to(space.device)
                scores = space.scores(head.adapt(space, support, coefficients))
                parts.append(_mixed(scores, support, after, query))
    whole = Mixed.join(parts)
    came = float((whole.wanted < MOST_ITEMS)[whole.mask].float().mean())
    return _fitted(whole), {"again/share": came}


def histories_of(rows: Sequence[np.ndarray], *, last: bool = False) -> Histories:
    """Histories of distinct items out of all rows of users, as a log has them."""
    items, repeats, since, sizes = [], [], [], []
    for own in rows:
        distinct, first, counts = np.unique(own, return_index=True, return_counts=True)
        newest = len(own) - 1 - np.unique(own[::-1], return_index=True)[1]
        order = np.argsort(newest if last else first)
        items.append(distinct[order])
        repeats.append(counts[order])
        since.append((len(own) - 1 - newest)[order])
        sizes.append(len(order))
    flat = [np.concatenate([*parts, np.empty(0, np.int64)]).astype(np.int64) for parts in (items, repeats, since)]
    return Histories.padded(flat[0], np.array(sizes), repeats=flat[1], since=flat[2])


def _mixed(scores: Tensor, support: Histories, after: Sequence[np.ndarray], query: int) -> Mixed:
    """Candidates of a batch, as wide in all batches: the newest items of each user in front."""
    had = support.newest(MOST_ITEMS)
    width = had.rows.shape[1]
    own = scores.gather(1, had.rows).masked_fill(~had.mask, -torch.inf)
    users, places = support.mask.nonzero(as_tuple=True)
    others = scores.index_put((users, support.rows[users, places]), scores.new_tensor(-torch.inf))
    found = others.topk(min(UNSEEN, scores.shape[1]), dim=1)
    pad = MOST_ITEMS - width
    both = torch.cat([torch.nn.functional.pad(own, (0, pad), value=-torch.inf), found.values], dim=1)
    rows = torch.cat(
        [torch.nn.functional.pad(torch.where(had.mask, had.rows, -1), (0, pad), value=-1), found.indices], dim=1
    )
    before = torch.nn.functional.pad(came_before(had) * had.mask[..., None], (0, 0, 0, both.shape[1] - width))
    next_rows = Histories.padded(np.concatenate(after), np.array([len(one) for one in after]))
    asked = next_rows.rows.to(rows.device)
    hit = (rows[:, None] == asked[:, :, None]) & next_rows.mask.to(rows.device)[..., None]
    more = (0, query - hit.shape[1])
    wanted, mask = (torch.nn.functional.pad(part, more) for part in (hit.int().argmax(2), hit.any(2)))
    return Mixed(both, before, wanted, mask)


@torch.enable_grad()
def _fitted(mixed: Mixed) -> Float[Tensor, " four"]:
    """Most likely numbers, and with them the scale on which scores are log odds: a convex problem."""
    there = torch.isfinite(mixed.scores)
    known = torch.where(there, mixed.scores, torch.nan)
    centred = (known - known.nanmean(1, keepdim=True)).nan_to_num(0.0)  # infinities have no slope
    unit = float((centred.square().sum() / there.sum()).sqrt().clamp(min=1e-6))
    numbers = torch.zeros(5, device=centred.device, requires_grad=True)
    optimiser = torch.optim.Adam([numbers], lr=_LR)
    for _ in range(_STEPS):
        scores = centred / unit * numbers[0].exp() + mixed.before @ numbers[1:]
        loss = multi_positive_softmax(scores.masked_fill(~there, -torch.inf), mixed.wanted, mixed.mask)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    with torch.no_grad():
        return numbers[1:] * unit / numbers[0].exp()
