"""The outer loop of ads: from many places with their counts to what texts foretell, and how far to trust them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64, Int64

from mecold.heads.clicks import Usual, adapt, best_chance

FOLDS = 5
PULLS = (10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)  # towards saying nothing
HALVES = (6, 12, 25, 50, 100, 200, 400, 800)  # places after which an older level counts half
SERVED = 0.1  # of the places: so many may come before the next fit, and doubts of levels are those of the last of them
LEVEL_ROUNDS = 30
AHEAD = 25  # places that are seen before the first is foretold
EXPLORE = (0.1, 0.15, 0.2, 0.3, 0.5, 1.0)
BATCH = 50  # impressions between two looks, when choices are rehearsed
MOST_PLACES = 400  # that are rehearsed
REHEARSALS = 2
LEAST_SPREAD = 0.02


@dataclass(frozen=True)
class Cells:
    """Counts of arms, a row each.

    Args:
        features: of the texts.
        place: which place each arm is of, from 0 on; places in order of time where there is one.
        shown: impressions, above 0.
        clicks: clicks.
    """

    features: Float64[np.ndarray, "arms features"]
    place: Int64[np.ndarray, " arms"]
    shown: Float64[np.ndarray, " arms"]
    clicks: Float64[np.ndarray, " arms"]

    @property
    def logit(self) -> tuple[np.ndarray, np.ndarray]:
        """Observed logits and their sampling variances (Haldane's correction)."""
        hit, miss = self.clicks + 0.5, self.shown - self.clicks + 0.5
        return np.log(hit / miss), 1 / hit + 1 / miss

    def means(self, values: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Weighted mean of each place."""
        total = np.bincount(self.place, weights)
        if values.ndim == 1:
            return np.bincount(self.place, values * weights) / total
        sums = np.zeros((len(total), values.shape[1]))
        np.add.at(sums, self.place, values * weights[:, None])
        return sums / total[:, None]

    def take(self, rows: np.ndarray) -> "Cells":
        """Some rows; places are numbered anew, in order."""
        place = np.unique(self.place[rows], return_inverse=True)[1].astype(np.int64)
        return Cells(self.features[rows], place, self.shown[rows], self.clicks[rows])


@dataclass(frozen=True)
class Learned:
    """What the outer loop found.

    Args:
        weights: logit of an arm beside its place's level = features @ weights.
        usual: of places and arms.
        explore: share of the doubt that Thompson sampling should act on.
        pull: strength of the prior on `weights`.
        told: figures of the fit, by name.
    """

    weights: Float64[np.ndarray, " features"]
    usual: Usual
    explore: float
    pull: float
    told: dict[str, float]


def learn(cells: Cells, *, timed: bool, horizon: int, rng: np.random.Generator) -> Learned:
    """Text prior, spreads and exploration out of places that are over.

    The text prior is a ridge regression of logits on features *within* places: a place's own level falls out, so that a
    good slot makes no good words. Its pull is the one that foretells left-out places best; spreads are what is left of the
    differences once sampling noise is taken away; exploration is rehearsed on left-out places.

    Args:
        cells: counts.
        timed: places are in order of time: newer levels may count more.
        horizon: impressions of a place that choices are rehearsed for.
        rng: puts places into folds, and draws clicks of rehearsals.
    """
    y, noise = cells.logit
    spread = _spread(cells, y, noise)
    weights = 1 / (spread**2 + noise)
    fold = rng.permutation(cells.place.max() + 1) % FOLDS
    parts = [_normal(cells, y, weights, fold[cells.place] == one) for one in range(FOLDS)]
    guesses = {pull: _left_out(cells, parts, fold, pull) for pull in PULLS}
    centred = y - cells.means(y, weights)[cells.place]
    errors = {
        pull: float((weights * (centred - (guess - cells.means(guess, weights)[cells.place])) ** 2).sum())
        for pull, guess in guesses.items()
    }
    pull = min(errors, key=lambda one: errors[one])
    left_out = guesses[pull]
    own = max(_spread(cells, y - left_out, noise), LEAST_SPREAD)
    found = _solve([part[0] for part in parts], [part[1] for part in parts], pull)
    level, level_spread, half = _levels(cells, left_out, timed=timed)
    usual = Usual(level, level_spread, own)
    marks = _rehearsed(cells, left_out, usual, spread, horizon, rng)
    explore = max(marks, key=lambda one: marks[one])
    told = {
        "spread_of_arms": spread, "spread_beside_texts": own,
        "foretold": 1 - errors[pull] / max(float((weights * centred**2).sum()), 1e-12),
        "clicks_gained": float(np.expm1(marks[explore])),
    }  # fmt: skip
    if np.isfinite(half):
        told["half_life_of_levels"] = half
    return Learned(found, usual, explore, pull, told)


def _spread(cells: Cells, values: np.ndarray, noise: np.ndarray) -> float:
    """Standard deviation within places, sampling noise taken away: DerSimonian and Laird 1986, over all places at once."""
    weights = 1 / noise
    total, square = np.bincount(cells.place, weights), np.bincount(cells.place, weights**2)
    rest = values - cells.means(values, weights)[cells.place]
    over = (weights * rest**2).sum() - (len(values) - len(total))
    return float(np.sqrt(max(over / (total - square / total).sum(), LEAST_SPREAD**2)))


def _normal(cells: Cells, y: np.ndarray, weights: np.ndarray, some: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Normal equations of the places of one fold, levels taken away."""
    part, w = cells.take(np.flatnonzero(some)), weights[some]
    rows = part.features - part.means(part.features, w)[part.place]
    return (rows * w[:, None]).T @ rows, rows.T @ (w * y[some])


def _solve(grams: Sequence[np.ndarray], sides: Sequence[np.ndarray], pull: float) -> np.ndarray:
    gram = np.sum(grams, axis=0)
    found: np.ndarray = np.linalg.solve(gram + pull * np.eye(len(gram)), np.sum(sides, axis=0))
    return found


def _left_out(
    cells: Cells, parts: Sequence[tuple[np.ndarray, np.ndarray]], fold: np.ndarray, pull: float
) -> np.ndarray:
    """What places of the other folds say of each arm."""
    guess = np.zeros(len(cells.place))
    for one in range(FOLDS):
        others = [part for at, part in enumerate(parts) if at != one]
        rows = fold[cells.place] == one
        guess[rows] = cells.features[rows] @ _solve([part[0] for part in others], [part[1] for part in others], pull)
    return guess


def _levels(cells: Cells, prior: np.ndarray, *, timed: bool) -> tuple[float, float, float]:
    """Level of places to come, its standard deviation, and after how many places an older one counts half."""
    hit, miss = (np.bincount(cells.place, one) + 0.5 for one in (cells.clicks, cells.shown - cells.clicks))
    levels, noise = np.log(hit / miss) - cells.means(prior, cells.shown), 1 / hit + 1 / miss  # of all arms together
    if not timed or len(levels) < 4 * AHEAD:
        return *_likely_levels(cells, prior), np.inf
    errors, later = {}, max(1, int(SERVED * len(levels)))
    for half in HALVES:
        keep, means = 0.5 ** (1 / half), [float(levels[:AHEAD].mean())]
        for level in levels[AHEAD:].tolist():
            means.append(keep * means[-1] + (1 - keep) * level)
        next_one, far = (
            float(((levels[AHEAD + ahead :] - np.array(means)[: len(levels) - AHEAD - ahead]) ** 2).mean())
            for ahead in (0, later)
        )
        errors[half] = (next_one, far, means[-1])
    half = min(errors, key=lambda one: errors[one][0])
    _, error, mean = errors[half]
    return mean, float(np.sqrt(max(error - noise[AHEAD:].mean(), LEAST_SPREAD**2))), float(half)


def _likely_levels(cells: Cells, prior: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation of the levels of places, by expectation maximisation: right for places with few clicks too."""
    shown, clicks = (torch.from_numpy(np.bincount(cells.place, one))[:, None] for one in (cells.shown, cells.clicks))
    beside, there = torch.from_numpy(cells.means(prior, cells.shown))[:, None], torch.ones_like(shown, dtype=torch.bool)
    rate = float(clicks.sum() / shown.sum())
    level, spread = float(np.log(rate / max(1 - rate, 1e-9))), 1.0
    for _ in range(LEVEL_ROUNDS):
        found = adapt(beside, shown, clicks, there, Usual(level, spread, LEAST_SPREAD))
        level = float(found.level.mean())
        spread = max(float(((found.level - level) ** 2 + found.level_variance).mean().sqrt()), LEAST_SPREAD)
    return level, spread


def _rehearsed(
    cells: Cells, prior: np.ndarray, usual: Usual, spread: float, horizon: int, rng: np.random.Generator
) -> dict[float, float]:
    """Mean log of clicks over those of showing all alike, over the course of `horizon` impressions, by exploration."""
    sizes = np.bincount(cells.place)
    some = np.flatnonzero(sizes > 1)
    some = rng.permutation(some)[:MOST_PLACES]
    if not len(some) or horizon < BATCH:
        return {EXPLORE[2]: 0.0}
    rows = np.flatnonzero(np.isin(cells.place, some))
    part, seed = cells.take(rows), int(rng.integers(2**31))
    rates = likely_rates(part, spread)
    marks = {}
    for explore in EXPLORE:
        gains = [
            simulate(part.place, rates, prior[rows], usual, explore, horizon, np.random.default_rng(seed + one))
            for one in range(REHEARSALS)
        ]
        marks[explore] = float(np.log(np.mean(gains, axis=0)).mean())
    return marks


def likely_rates(cells: Cells, spread: float) -> np.ndarray:
    """Click rates, drawn towards their place's mean by as much as they are noise: the best of a few is partly luck."""
    y, noise = cells.logit
    mean = cells.means(y, 1 / (spread**2 + noise))[cells.place]
    rates: np.ndarray = 1 / (1 + np.exp(-(mean + spread**2 / (spread**2 + noise) * (y - mean))))
    return rates


def simulate(
    place: Int64[np.ndarray, " arms"],
    rates: Float64[np.ndarray, " arms"],
    prior: Float64[np.ndarray, " arms"],
    usual: Usual,
    explore: float,
    horizon: int,
    rng: np.random.Generator,
    *,
    batch: int = BATCH,
) -> Float64[np.ndarray, " looks"]:
    """Clicks that Thompson sampling earns, over those of showing all arms alike, after 1, 2, 4, ... batches and the last.

    Args:
        place: of each arm.
        rates: true click rates.
        prior: logits beside the level, as foretold.
        usual: of places and arms.
        explore: share of the doubt that is acted on.
        horizon: impressions of each place.
        rng: draws choices and clicks.
        batch: impressions of a place between two looks.
    """
    order = np.argsort(place, kind="stable")
    owners = place[order]
    spots = np.arange(len(owners)) - np.searchsorted(owners, owners)
    shape = (int(owners.max()) + 1, int(spots.max()) + 1)
    true, guess, mask = np.zeros(shape), np.zeros(shape), np.zeros(shape, bool)
    true[owners, spots], guess[owners, spots], mask[owners, spots] = rates[order], prior[order], True
    there, prior_of = torch.from_numpy(mask), torch.from_numpy(guess)
    shown, clicks, earned, beliefs, found = np.zeros(shape), np.zeros(shape), 0.0, None, []
    alike = float((true.sum(1) / mask.sum(1)).sum())
    looks = {2**n for n in range(30)}
    for step in range(1, horizon // batch + 1):
        beliefs = adapt(
            prior_of, torch.from_numpy(shown), torch.from_numpy(clicks), there, usual, start=beliefs, steps=2
        )  # fmt: skip
        chance = best_chance(prior_of + beliefs.own, explore * beliefs.variance.sqrt(), there, 33).numpy()
        drawn = rng.multinomial(batch, chance / chance.sum(1, keepdims=True))
        earned += float((drawn * true).sum())
        shown, clicks = shown + drawn, clicks + rng.binomial(drawn, true)
        if step in looks or step == horizon // batch:
            found.append(earned / (alike * batch * step))
    return np.array(found)
