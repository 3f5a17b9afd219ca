"""The outer loop of the rating head: items cross-fitted, episodes of users that they never saw, one likelihood.

An episode is a user's first ratings and some of what followed, for supports of every size at once. Some items of the
episodes are treated as new, so that it is learned how far texts can be trusted. Nothing here is read by the ranking.

Source: cross-fitting as in `meta.crossfit`; quantiles by the pinball loss of Koenker and Bassett 1978.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from mecold.data.interactions import Interactions
from mecold.data.rows import Rows
from mecold.heads.ratings import OUTPUTS, Belief, Evidence, Expected, RatingHead, Rule, evidence
from mecold.meta.rated import Rated, RatedLog, fit_items
from mecold.report import Recorder

FOLDS = 5
RANK = 12
DIRECTIONS = 64  # of the texts that are read: items with many ratings are few
SHOTS = (0, 1, 2, 3, 4, 5, 7, 10, 14, 20, 40, 80)
QUERY = 16  # ratings drawn of what followed
ARRIVAL = 10  # first ratings of a user: who arrives rates unlike later
STAYING = ARRIVAL + 2  # ratings of users who are drawn from, where there are ENOUGH of them
ENOUGH = 500  # and are then asked what they rate after their arrival
USERS = 10_000  # most users to draw episodes from
USERS_AT_ONCE = 512
BENDS = 8  # of each rule
RULES = 4  # that are learned from other draws, and averaged
STEPS, BATCH, RATE, DECAY = 400, 4096, 0.01, 1e-3
LEAST_USERS = 2 * FOLDS  # with two ratings or more
PERCENTILES = (0.1, 0.5, 0.9)
BELIEF_ROUNDS = 4


@dataclass(frozen=True)
class Asked(Rows):
    """Ratings to be foretold, with what the inner loop says of them.

    Args:
        mean: expected by the closed form.
        variance: of the same.
        facts: what the rule reads.
        said: the rating.
        weight: how much it counts; users count alike.
    """

    mean: Float[Tensor, " rows"]
    variance: Float[Tensor, " rows"]
    facts: Float[Tensor, "rows facts"]
    said: Float[Tensor, " rows"]
    weight: Float[Tensor, " rows"]


def learn_ratings(
    log: Interactions, text: Float[Tensor, "items text"], rng: np.random.Generator, recorder: Recorder | None = None,
    taught: Bool[np.ndarray, " items"] | None = None, *, wanted: bool = True,
) -> RatingHead | None:  # fmt: skip
    """Learn how ratings come about, where a log has any.

    Args:
        log: histories with ratings.
        text: half-whitened texts of the catalogue's items.
        rng: all randomness.
        recorder: takes a note of what was learned, or why nothing was.
        taught: True for items that the encoder was trained on: none of these is treated as new.
        wanted: False learns nothing, and says so.

    Returns:
        The head, on the CPU; None where there are no ratings, none is wanted, all are the same, or fewer than ten users have two.
    """
    recorder = recorder or Recorder()
    if log.ratings is None:
        return None
    if not wanted:
        recorder.note("Ratings cannot be foretold: the fit was told to leave them out (ratings=False).")
        return None
    ratings = log.ratings.astype(np.float64)
    lowest, highest, users = ratings.min(), ratings.max(), int((log.lengths >= 2).sum())
    if lowest == highest or users < LEAST_USERS:
        why = (
            f"all are {lowest:g}"
            if lowest == highest
            else f"only {users} users have two or more, of {LEAST_USERS} needed"
        )
        recorder.note(f"Ratings cannot be foretold: {why}.")
        return None
    with torch.inference_mode(False), torch.enable_grad():
        head = _learn(log, ratings, text[:, :DIRECTIONS].detach().cpu().double().numpy(), taught, rng)
    recorder.note(
        f"Ratings from {lowest:g} to {highest:g} can be foretold (predict_rating), learned from {len(ratings):,}."
    )
    return head


def _learn(
    log: Interactions, ratings: Float64[np.ndarray, " rows"], text: Float64[np.ndarray, "items text"],
    taught: Bool[np.ndarray, " items"] | None, rng: np.random.Generator,
) -> RatingHead:  # fmt: skip
    centre, unit = ratings.mean(), ratings.std()
    rated = RatedLog(log.offsets, log.items, (ratings - centre) / unit, len(text))
    fold_of, bucket_of = rng.permutation(len(rated)) % FOLDS, rng.permutation(len(text)) % FOLDS
    if taught is not None and not taught.all():
        bucket_of[taught] = -1
    stay = bool((rated.sizes >= STAYING).sum() >= ENOUGH)
    chosen = np.zeros(len(rated), bool)
    chosen[rng.permutation(np.flatnonzero(rated.sizes >= (STAYING if stay else 2)))[:USERS]] = True
    parts, beliefs = [], []
    for fold in range(FOLDS):
        side = fit_items(rated.take(np.flatnonzero(fold_of != fold)), text, RANK, rng, taught=taught)
        users = np.flatnonzero((fold_of == fold) & chosen)
        if len(users):
            theirs = rated.take(users)
            beliefs.append(learn_belief(theirs, side, rng))
            parts += _episodes(theirs, side, beliefs[len(beliefs) - 1], text, bucket_of == fold, stay, rng)
    asked, draws = Asked.join(parts), torch.Generator().manual_seed(int(rng.integers(2**62)))
    rule = _mean([_train(asked, draws) for _ in range(RULES)])
    side = fit_items(rated, text, RANK, rng, taught=taught)
    belief = replace(side.belief, precision=torch.stack([one.precision for one in beliefs]).log().mean(0).exp())
    scale = torch.tensor([ratings.min(), ratings.max(), centre, unit], dtype=torch.float32)
    return RatingHead(scale, side.items, side.newcomer, belief, rule)


def learn_belief(log: RatedLog, side: Rated, rng: np.random.Generator) -> Belief:
    """Precisions of users' parameters by expectation maximisation over users' first ratings."""
    belief = side.belief
    users = rng.permutation(np.flatnonzero(log.sizes >= 2))[: USERS_AT_ONCE * 4]
    supports = [
        _support(log, users[start : start + USERS_AT_ONCE], SHOTS[-1]) for start in range(0, len(users), USERS_AT_ONCE)
    ]
    for _ in range(BELIEF_ROUNDS):
        total = torch.zeros_like(belief.precision)
        for items, said, mask in supports:
            mean, covariance = belief.posterior(side.items.take(items), said, mask)
            total = total + (mean.square() + covariance.diagonal(dim1=1, dim2=2)).sum(0)
        precision = len(users) / total.clamp(min=1e-9)
        precision[3:] = len(users) * (len(precision) - 3) / total[3:].sum()  # no factor of one fold is that of another
        belief = replace(belief, precision=precision)
    return belief


def _support(log: RatedLog, users: Int64[np.ndarray, " some"], shots: int) -> tuple[Tensor, Tensor, Tensor]:
    """The first ratings of users: rows of items, ratings, mask."""
    places = np.arange(max(1, min(shots, int(log.sizes[users].max()))))
    mask = places < np.minimum(log.sizes[users], shots)[:, None]
    rows = np.where(mask, log.offsets[users][:, None] + places, 0)
    said = np.where(mask, log.ratings[rows], 0.0).astype(np.float32)
    return torch.from_numpy(np.where(mask, log.items[rows], 0)), torch.from_numpy(said), torch.from_numpy(mask)


def _episodes(
    log: RatedLog, side: Rated, belief: Belief, text: Float64[np.ndarray, "items text"],
    held: Bool[np.ndarray, " items"], stay: bool, rng: np.random.Generator,
) -> list[Asked]:  # fmt: skip
    """Episodes of users whom the items never saw; ratings of held items are asked for a second time, as of new ones."""
    as_new = side.without(text, held).items(torch.from_numpy(text.astype(np.float32)), belief)
    found = []
    for shots in SHOTS:
        able = np.flatnonzero(log.sizes >= max(shots + 2, ARRIVAL + 2 if stay else 0))
        for start in range(0, len(able), USERS_AT_ONCE):
            users = able[start : start + USERS_AT_ONCE]
            items, said, mask = _support(log, users, shots)
            sizes = log.sizes[users]
            first = np.full(len(users), max(shots, ARRIVAL if stay else 0))
            rest = sizes - first
            places = first[:, None] + (rng.random((len(users), QUERY)) * rest[:, None]).astype(np.int64)
            rows = log.offsets[users][:, None] + places
            query, answer = torch.from_numpy(log.items[rows]), torch.from_numpy(log.ratings[rows].astype(np.float32))
            weight = torch.from_numpy(np.minimum(rest / QUERY, 1.0).astype(np.float32))[:, None].expand(query.shape)
            support = side.items.take(items)
            everything = torch.ones_like(query, dtype=torch.bool)
            for table, wanted in ((side.items, everything), (as_new, torch.from_numpy(held)[query])):
                one = evidence(belief, support, said, mask, table.take(query))
                found.append(
                    Asked(one.mean[wanted], one.variance[wanted], one.facts[wanted], answer[wanted], weight[wanted])
                )
    return found


def _train(asked: Asked, rng: torch.Generator) -> Rule:
    """The rule that makes the ratings most likely: a normal likelihood, and percentiles around what it says."""
    usual, spread = asked.facts.mean(0), asked.facts.std(0).clamp(min=1e-6)
    n = len(usual)
    learned = {
        "straight": torch.zeros(n, OUTPUTS),
        "into": torch.randn(n, BENDS, generator=rng) / n**0.5,
        "bend": torch.zeros(BENDS),
        "out": torch.zeros(BENDS, OUTPUTS),
        "start": torch.zeros(OUTPUTS),
    }
    for value in learned.values():
        value.requires_grad_()
    optimiser = torch.optim.AdamW(learned.values(), lr=RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=STEPS)
    for _ in range(STEPS):
        some = asked.take(torch.randint(len(asked), (BATCH,), generator=rng))
        expected = Rule(usual, spread, **learned)(Evidence(some.mean, some.variance, some.facts))
        loss = (some.weight * surprise(expected, some.said)).sum() / some.weight.sum()
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
    return Rule(usual, spread, **{name: value.detach() for name, value in learned.items()})


def _mean(rules: Sequence[Rule]) -> Rule:
    """The rule whose outputs are the mean of those of others: their bends side by side."""
    first = rules[0]
    added = {name: torch.stack([getattr(rule, name) for rule in rules]).mean(0) for name in ("straight", "start")}
    into = torch.cat([rule.into for rule in rules], dim=1)
    bend = torch.cat([rule.bend for rule in rules])
    out = torch.cat([rule.out for rule in rules]) / len(rules)
    return Rule(first.usual, first.spread, added["straight"], into, bend, out, added["start"])


def surprise(expected: Expected, said: Float[Tensor, " rows"]) -> Float[Tensor, " rows"]:
    """How unlikely ratings are under what is expected: by mean and deviation, and by the percentiles around them."""
    apart = (said - expected.mean) / expected.std
    loss = expected.std.log() + 0.5 * apart.square()
    mean, std = expected.mean.detach(), expected.std.detach()  # percentiles stand where mean and deviation let them
    tilt = (expected.median - expected.mean) / expected.std
    for share, level in zip(PERCENTILES, (expected.low, expected.median, expected.high), strict=True):
        place = mean + std * (tilt if level is expected.median else (level - expected.mean) / expected.std)
        short = (said - place) / std
        loss = loss + torch.maximum(share * short, (share - 1) * short)
    return loss
