"""The outer loop: learn the head from cross-fitted episodes, keep what ranks best for held-out users.

It draws episodes, scores the catalogue with each episode's adapted query, and descends the softmax loss of the items
that followed. Device and dtype follow the views.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Int64
from torch import Tensor

from mecold.data.histories import Histories
from mecold.errors import MecoldError
from mecold.heads.preference import PreferenceHead, Prior
from mecold.math.losses import logq_correction, multi_positive_softmax
from mecold.math.metrics import hits, ndcg
from mecold.meta.config import TrainConfig
from mecold.meta.episodes import Episodes, cut, draw_shots, half_told, ranked_at_most, telling
from mecold.report import Recorder
from mecold.space.space import ItemSpace, UserVectors

SLOW = ("heed",)
"""Numbers of the prior on which most logs say little: with small steps they stay where they started unless gradients agree."""

CHECK_SHOTS = (0, 1, 3, 5, 10)
"""Numbers of shots at which held-out users are ranked after each epoch."""


@dataclass(frozen=True)
class Lessons:
    """All that there is to learn from.

    Args:
        spaces: the item space of each fold.
        users: first items of every user of the log.
        train: positions of the users to train on, by fold.
        held_out: positions of those who steer early stopping, by fold.
        config: settings of the outer loop.
    """

    spaces: tuple[ItemSpace, ...]
    users: Histories
    train: tuple[Int64[np.ndarray, " _"], ...]
    held_out: tuple[Int64[np.ndarray, " _"], ...]
    config: TrainConfig

    @property
    def everyone(self) -> list[Int64[np.ndarray, " _"]]:
        """Positions of all users, by fold."""
        return [np.concatenate(pair) for pair in zip(self.train, self.held_out, strict=True)]


def lessons_of(
    spaces: Sequence[ItemSpace],
    users: Histories,
    fold_of: np.ndarray,
    eligible: np.ndarray,
    config: TrainConfig,
    rng: np.random.Generator,
) -> Lessons:
    """Set a share of the eligible users aside; every fold has some of both.

    Args:
        spaces: the item space of each fold.
        users: first items of every user of the log.
        fold_of: fold of each user.
        eligible: True for users with at least one support and one query item.
        config: settings.
        rng: draws the users.
    """
    aside = rng.random(len(eligible)) < config.held_out
    train, held_out = (
        tuple(np.flatnonzero((fold_of == fold) & eligible & chosen) for fold in range(len(spaces)))
        for chosen in (~aside, aside)
    )
    return Lessons(tuple(spaces), users, train, held_out, config)


def train(
    head: PreferenceHead, lessons: Lessons, recorder: Recorder, *, rng: np.random.Generator, fixed: Sequence[str] = ()
) -> PreferenceHead:
    """Meta-train; the head that is returned has the prior of the best epoch.

    Args:
        head: where to start.
        lessons: what to learn from.
        recorder: takes the curves.
        rng: draws episodes and sampled items.
        fixed: numbers of the prior that are not learned.
    """
    draws = torch.Generator(device=lessons.spaces[0].device).manual_seed(int(rng.integers(2**62)))
    learned = {name: value.clone().requires_grad_(name not in fixed) for name, value in head.prior.tensors().items()}
    head = replace(head, prior=Prior(**learned))
    usual: dict[str, Any] = {"params": [value for name, value in learned.items() if name not in (*SLOW, *fixed)]}
    slow: dict[str, Any] = {"params": [learned[name] for name in SLOW], "lr": lessons.config.lr / 10}
    optimiser = torch.optim.Adam([usual, slow], lr=lessons.config.lr)
    best, best_score, best_epoch = _kept(head), -1.0, 0
    for epoch in recorder.epochs("meta-training", lessons.config.epochs + 1):
        losses = _epoch(head, lessons, optimiser, rng, draws) if epoch else []
        values = held_out_ndcg(head, lessons)
        if losses:
            values["loss"] = float(np.mean(losses))
        score = values.get("held_out/ndcg@10", float(epoch))  # nobody held out: the last epoch is kept
        recorder.record(epoch, values, shown={"nDCG@10": score})
        if score > best_score:
            best, best_score, best_epoch = _kept(head), score, epoch
        elif epoch - best_epoch >= lessons.config.patience:
            break
    recorder.report.best_step = best_epoch
    return best


def _kept(head: PreferenceHead) -> PreferenceHead:
    """The head as it is now, out of reach of the optimiser."""
    return replace(head, prior=Prior(**{n: value.detach().clone() for n, value in head.prior.tensors().items()}))


def _epoch(
    head: PreferenceHead,
    lessons: Lessons,
    optimiser: torch.optim.Optimizer,
    rng: np.random.Generator,
    draws: torch.Generator,
) -> list[float]:
    losses, config = [], lessons.config
    parameters = [value for value in head.prior.tensors().values() if value.requires_grad]
    for fold, chosen in _batches(lessons.train, config, rng):
        picked = half_told(lessons.users.take(torch.from_numpy(chosen)), rng)
        episodes = cut(picked, draw_shots(picked.shots, config.max_shots, rng), config.query)
        space = lessons.spaces[fold]
        loss = episode_loss(head, space, episodes.to(space.device), config, draws)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, 5.0)
        optimiser.step()
        losses.append(loss.item())
        if not np.isfinite(losses[-1]):
            raise MecoldError("Meta-training diverged: the loss is not finite. Lower TrainConfig(lr=...).")
    return losses


def _batches(
    train: Sequence[np.ndarray], config: TrainConfig, rng: np.random.Generator
) -> Iterator[tuple[int, np.ndarray]]:
    """Batches of users of one fold each, the folds mixed, at most `epoch_users` users in all."""
    batches = []
    share = config.epoch_users / max(1, sum(map(len, train)))
    for fold, users in enumerate(train):
        some = rng.permutation(users)[: int(np.ceil(min(1.0, share) * len(users)))]
        batches += [(fold, some[i : i + config.batch_users]) for i in range(0, len(some), config.batch_users)]
    for i in rng.permutation(len(batches)):
        yield batches[i]


def episode_loss(
    head: PreferenceHead,
    space: ItemSpace,
    episodes: Episodes,
    config: TrainConfig,
    draws: torch.Generator,
) -> Float[Tensor, ""]:
    """Outer loss of a batch: softmax over the catalogue, or over sampled items with logQ correction where it is large.

    The support is out of the softmax, as it is out of the recommendations.
    """
    users = head.adapt(space, episodes.support)
    if len(space) <= config.full_softmax_items:
        scores = hide_support(space.scores(users), episodes)
        return multi_positive_softmax(scores, episodes.query, episodes.query_mask, focus=config.focus)
    scores, places = _sampled_scores(users, space, episodes, config, draws)
    return multi_positive_softmax(scores, places, episodes.query_mask, focus=config.focus)


def _sampled_scores(
    users: UserVectors, space: ItemSpace, episodes: Episodes, config: TrainConfig, draws: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Scores of each user's query items and of the drawn items, corrected; and where the query items stand."""
    weights = (space.counts + 1) ** 0.75
    drawn = torch.multinomial(weights, config.negatives, replacement=True, generator=draws)
    negatives = space.scores_among(drawn, users) - logq_correction(weights, config.negatives)[drawn]
    own = torch.cat([episodes.query, torch.where(episodes.support.mask, episodes.support.rows, -1)], dim=1)
    negatives = negatives.masked_fill(own_drawn(drawn, own), -torch.inf)  # a user's own items are no negatives
    positives = space.scores_of(episodes.query, users).masked_fill(~episodes.query_mask, -torch.inf)
    places = torch.arange(positives.shape[1], device=drawn.device).expand(len(users), -1)
    return torch.cat([positives, negatives], dim=1), places


def own_drawn(drawn: Int[Tensor, " drawn"], own: Int[Tensor, "users items"]) -> Bool[Tensor, "users drawn"]:
    """True where what was drawn, which may repeat, is one of a user's own items."""
    ascending, places = drawn.sort()
    first, last = (torch.searchsorted(ascending, own, right=right) for right in (False, True))
    found = torch.zeros(len(own), len(drawn), dtype=torch.bool, device=drawn.device)
    for repeat in range(int((last - first).max())):
        users, items = torch.nonzero(first + repeat < last, as_tuple=True)
        found[users, places[first[users, items] + repeat]] = True
    return found


@torch.no_grad()
def held_out_ndcg(head: PreferenceHead, lessons: Lessons, limit: int = 1000) -> dict[str, float]:
    """nDCG@10 of held-out users over the full catalogue: at each of `CHECK_SHOTS`, and the mean of those.

    See `telling` for who counts. At most `limit` users per fold are ranked, fewer in a large catalogue (`ranked_at_most`).
    """
    found: dict[int, list[Tensor]] = {k: [] for k in CHECK_SHOTS}
    coefficients, users, query = head.coefficients(), lessons.users, lessons.config.query
    for space, chosen in zip(lessons.spaces, lessons.held_out, strict=True):
        most = ranked_at_most(limit, len(space))
        for k in CHECK_SHOTS:
            picked = users.take(torch.from_numpy(chosen[telling(users, chosen, k, query)][:most]))
            for start in range(0, len(picked), 256):
                batch = picked[start : start + 256]
                episodes = cut(batch, torch.full((len(batch),), k), query).to(space.device)
                scores = hide_support(space.scores(head.adapt(space, episodes.support, coefficients)), episodes)
                top = scores.topk(min(10, scores.shape[1]), dim=1).indices
                found[k].append(ndcg(hits(top, episodes.query, episodes.query_mask), episodes.query_mask.sum(1)))
    means = {k: float(torch.cat(v).mean()) for k, v in found.items() if v}
    values = {f"held_out/ndcg@10/{k}": mean for k, mean in means.items()}
    if means:
        values["held_out/ndcg@10"] = float(np.mean(list(means.values())))
    return values


def hide_support(scores: Float[Tensor, "users items"], episodes: Episodes) -> Float[Tensor, "users items"]:
    """The scores with the support items at -inf; differentiable."""
    users, places = torch.nonzero(episodes.support.mask, as_tuple=True)
    minus_inf = torch.full_like(users, -torch.inf, dtype=scores.dtype)
    return scores.index_put((users, episodes.support.rows[users, places]), minus_inf)
