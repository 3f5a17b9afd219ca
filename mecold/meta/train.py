"""The outer loop: learn the head from cross-fitted episodes, keep what ranks best for held-out users.

It draws episodes, scores the catalogue with each episode's adapted query, and descends the softmax loss of the items
that followed. Device and dtype follow the views.
"""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from tqdm import tqdm

from mecold.errors import MecoldError
from mecold.heads.preference import PreferenceHead
from mecold.math.losses import logq_correction, multi_positive_softmax
from mecold.meta.config import TrainConfig
from mecold.meta.crossfit import Views
from mecold.meta.episodes import Episodes, Opening, cut, draw_shots, telling
from mecold.report import FitReport, Tracker
from mecold.math.metrics import hits, ndcg
from mecold.space.space import ItemSpace, Query

CHECK_SHOTS = (0, 1, 3, 5, 10)
"""Numbers of shots at which held-out users are ranked after each epoch."""


@dataclass(frozen=True)
class Learners:
    """Positions of the users to train on and of those who steer early stopping, by fold."""

    train: tuple[Int64[np.ndarray, " _"], ...]
    held_out: tuple[Int64[np.ndarray, " _"], ...]


def split_learners(views: Views, eligible: np.ndarray, config: TrainConfig, rng: np.random.Generator) -> Learners:
    """Set a share of the eligible users aside; every fold has some of both.

    Args:
        views: cross-fitted views.
        eligible: True for users with at least one support and one query item.
        config: settings.
        rng: draws the users.
    """
    aside = rng.random(len(eligible)) < config.held_out
    train, held_out = (
        tuple(np.flatnonzero((views.fold_of == f) & eligible & chosen) for f in range(len(views.folds)))
        for chosen in (~aside, aside)
    )
    return Learners(train, held_out)


def train(
    head: PreferenceHead,
    views: Views,
    spaces: Sequence[ItemSpace],
    users: Opening,
    learners: Learners,
    config: TrainConfig,
    *,
    rng: np.random.Generator,
    report: FitReport,
    trackers: Sequence[Tracker] = (),
    progress: bool = False,
) -> None:
    """Meta-train in place; the head ends with the parameters of the best epoch.

    Args:
        head: preference head.
        views: cross-fitted views.
        spaces: the item space of each fold.
        users: first items of every user of the log.
        learners: who trains and who is held out.
        config: settings.
        rng: draws episodes and sampled items.
        report: takes the curves.
        trackers: hear of every epoch.
        progress: show a progress bar.
    """
    draws = torch.Generator(device=views.whole.vectors.device).manual_seed(int(rng.integers(2**62)))
    optimiser = torch.optim.Adam(head.parameters(), lr=config.lr)
    best, best_score, best_epoch = copy.deepcopy(head.state_dict()), -1.0, 0
    with tqdm(range(config.epochs + 1), desc="meta-training", unit="epoch", disable=not progress) as bar:
        for epoch in bar:
            losses = _epoch(head, views, spaces, users, learners, config, optimiser, rng, draws) if epoch else []
            values = held_out_ndcg(head, spaces, users, learners.held_out, config.query)
            if losses:
                values["loss"] = float(np.mean(losses))
            report.record(epoch, values, trackers)
            score = values.get("held_out/ndcg@10", float(epoch))  # nobody held out: the last epoch is kept
            bar.set_postfix({"nDCG@10": f"{score:.4f}"})
            if score > best_score:
                best, best_score, best_epoch = copy.deepcopy(head.state_dict()), score, epoch
            elif epoch - best_epoch >= config.patience:
                break
    head.load_state_dict(best)
    report.best_step = best_epoch


def _epoch(
    head: PreferenceHead,
    views: Views,
    spaces: Sequence[ItemSpace],
    users: Opening,
    learners: Learners,
    config: TrainConfig,
    optimiser: torch.optim.Optimizer,
    rng: np.random.Generator,
    draws: torch.Generator,
) -> list[float]:
    losses = []
    for fold, chosen in _batches(learners.train, config, rng):
        picked = users.take(torch.from_numpy(chosen))
        episodes = cut(picked, draw_shots(picked.lengths, config.max_shots, rng), config.query)
        space = spaces[fold]
        loss = episode_loss(head, space, episodes.to(space.item.device), views.folds[fold].counts, config, draws)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(head.parameters(), 5.0)
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
    counts: Float[Tensor, " items"],
    config: TrainConfig,
    draws: torch.Generator,
) -> Float[Tensor, ""]:
    """Outer loss of a batch: softmax over the catalogue, or over sampled items with logQ correction where it is large.

    The support is out of the softmax, as it is out of the recommendations.
    """
    query = head(space, episodes.support)
    sharpness = {"focus": config.focus, "smoothing": config.label_smoothing}
    if len(space.item) <= config.full_softmax_items:
        scores = hide_support(space.scores(query), episodes)
        return multi_positive_softmax(scores, episodes.query, episodes.query_mask, **sharpness)
    scores, places = _sampled_scores(query, space, episodes, counts, config, draws)
    return multi_positive_softmax(scores, places, episodes.query_mask, **sharpness)


def _sampled_scores(
    query: Query, space: ItemSpace, episodes: Episodes, counts: Tensor, config: TrainConfig, draws: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Scores of each user's query items and of the drawn items, corrected; and where the query items stand."""
    weights = (counts + 1) ** 0.75
    drawn = torch.multinomial(weights, config.negatives, replacement=True, generator=draws)
    negatives = space.scores_among(drawn, query) - logq_correction(weights, config.negatives)[drawn]
    own = torch.cat([episodes.query, torch.where(episodes.support.mask, episodes.support.rows, -1)], dim=1)
    for column in own.T:  # a user's own items are no negatives
        negatives = negatives.masked_fill(drawn[None] == column[:, None], -torch.inf)
    positives = space.scores_of(episodes.query, query).masked_fill(~episodes.query_mask, -torch.inf)
    places = torch.arange(positives.shape[1], device=drawn.device).expand(len(query), -1)
    return torch.cat([positives, negatives], dim=1), places


@torch.no_grad()
def held_out_ndcg(
    head: PreferenceHead,
    spaces: Sequence[ItemSpace],
    users: Opening,
    held_out: Sequence[np.ndarray],
    query: int,
    limit: int = 1000,
) -> dict[str, float]:
    """nDCG@10 of held-out users over the full catalogue: at each of `CHECK_SHOTS`, and the mean of those.

    See `telling` for who counts. At most `limit` users per fold are ranked.
    """
    found: dict[int, list[Tensor]] = {k: [] for k in CHECK_SHOTS}
    coefficients = head.coefficients()
    for space, chosen in zip(spaces, held_out, strict=True):
        for k in CHECK_SHOTS:
            picked = users.take(torch.from_numpy(chosen[telling(users, chosen, k, query)][:limit]))
            for start in range(0, len(picked), 256):
                batch = picked.take(torch.arange(start, min(start + 256, len(picked))))
                episodes = cut(batch, torch.full((len(batch),), k), query).to(space.item.device)
                scores = hide_support(space.scores(head(space, episodes.support, coefficients)), episodes)
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
