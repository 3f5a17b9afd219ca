"""Items as ratings show them: levels and factors with their doubt, by variational rounds over users and items.

A rating is the level of its item, plus a level of the user's, plus the product of factors of both, plus noise. Levels and
factors of items have a Gaussian prior around what a ridge regression on their texts says; this is where rare and new items
lean on. Every variance is learned from the log (empirical Bayes).

Pure arrays: no ids. Cost: a few sparse products, ratings * rank^2 a round.

Source: variational Bayes for matrix factorisation, Lim and Teh 2007; item priors by regression as in Agarwal and Chen 2009
(regression-based latent factor models).
"""

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Bool, Float64, Int64

from mecold.heads.ratings import Belief, Newcomer, RatedItems

USERS_AT_ONCE = 20_000
ROWS_AT_ONCE = 1 << 20
LEAST_VARIANCE = 1e-6
LEAST_FRESH = 50  # rated items that the encoder was not trained on, to learn from them alone what texts say
FIRST_TEXT_ROUND = 2  # levels and factors must mean something before texts are asked for them
RIDGES = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)
USUAL_RATINGS = 5.0  # that the noise of all items counts for in the spread of one


@dataclass(frozen=True)
class RatedLog:
    """Ratings by user, in units of the log's mean and deviation.

    Args:
        offsets: user `u` owns the rows `offsets[u]:offsets[u + 1]`.
        items: rows of the catalogue.
        ratings: standardised.
        n_items: size of the catalogue.
    """

    offsets: Int64[np.ndarray, " users_plus_one"]
    items: Int64[np.ndarray, " rows"]
    ratings: Float64[np.ndarray, " rows"]
    n_items: int

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def sizes(self) -> Int64[np.ndarray, " users"]:
        """Ratings of each user."""
        return np.diff(self.offsets)

    def take(self, users: Int64[np.ndarray, " some"]) -> "RatedLog":
        """Those of these users."""
        sizes = self.sizes[users]
        ends = np.cumsum(sizes)
        rows = np.repeat(self.offsets[users] - (ends - sizes), sizes) + np.arange(int(sizes.sum()))
        return RatedLog(
            np.concatenate([[0], ends]).astype(np.int64), self.items[rows], self.ratings[rows], self.n_items
        )

    def matrices(self, users: slice) -> tuple[sp.csr_matrix, sp.csr_matrix]:
        """Who rated what, and how."""
        offsets = self.offsets[users.start : users.stop + 1]
        rows = slice(int(offsets[0]), int(offsets[-1]))
        shape, offsets = (len(offsets) - 1, self.n_items), offsets - offsets[0]
        ones = np.ones(rows.stop - rows.start)
        there = sp.csr_matrix((ones, self.items[rows], offsets), shape)
        return there, sp.csr_matrix((self.ratings[rows], self.items[rows], offsets), shape)


@dataclass(frozen=True)
class Rated:
    """What the rounds found.

    Args:
        items: as ratings show them.
        newcomer: what texts say of others.
        belief: variances of users' levels and factors, and the noise; the parameters between are not learned here.
        mean: posterior mean of each item, level and factors.
        sure: what ratings took off the prior variance, as a share.
    """

    items: RatedItems
    newcomer: Newcomer
    belief: Belief
    mean: Float64[np.ndarray, "items one_and_rank"]
    sure: Float64[np.ndarray, "items one_and_rank"]

    def without(self, text: Float64[np.ndarray, "items text"], held: Bool[np.ndarray, " items"]) -> Newcomer:
        """What texts say if these items had not been there to learn from."""
        weights = np.where(held[:, None], 0.0, self.sure)
        start, slope = _from_text(text, self.mean, weights)
        variance = self.newcomer.variance.double().numpy()
        return Newcomer(*(torch.from_numpy(one.astype(np.float32)) for one in (start, slope, variance)))


def fit_items(
    log: RatedLog, text: Float64[np.ndarray, "items text"], rank: int, rng: np.random.Generator, rounds: int = 12,
    taught: Bool[np.ndarray, " items"] | None = None,
) -> Rated:  # fmt: skip
    """Levels and factors of all items of a catalogue, rated or not.

    Args:
        log: ratings.
        text: vectors of the items' texts; 0 for an item without.
        rank: number of factors.
        rng: draws where the factors start.
        rounds: over users and items.
        taught: True for items that the encoder was trained on; what texts say is learned from the others, if there are enough.
    """
    users, items, width = len(log), log.n_items, rank + 1
    chunks = [slice(start, min(start + USERS_AT_ONCE, users)) for start in range(0, users, USERS_AT_ONCE)]
    count = np.bincount(log.items, minlength=items).astype(float)
    rated = count > 0
    fresh = rated if taught is None or (rated & ~taught).sum() < LEAST_FRESH else rated & ~taught
    mean = rng.normal(size=(items, width)) * 0.1
    mean[:, 0] = np.bincount(log.items, log.ratings, minlength=items) / (count + USUAL_RATINGS)
    covariance = np.zeros((items, width, width))
    noise, own = 0.7, np.r_[0.2, np.ones(rank)]
    prior, variance = np.zeros((items, width)), np.r_[0.1, np.full(rank, 0.05)]
    start, slope = np.zeros(width), np.zeros((text.shape[1], width))
    person, person_doubt = np.zeros((users, width)), np.zeros((users, width))
    for turn in range(rounds):
        factors, apart = _beside_one(mean, covariance)
        gram, pull = np.zeros((items, width * width)), np.zeros((items, width))
        of_items = (factors[:, :, None] * factors[:, None, :] + apart).reshape(items, -1)
        lent = factors * mean[:, :1]
        lent[:, 1:] += covariance[:, 1:, 0]
        for some in chunks:
            there, said = log.matrices(some)
            precision = np.asarray(there @ of_items).reshape(-1, width, width) / noise + np.diag(1 / own)
            doubt = np.linalg.inv(precision)
            found = np.einsum("uij,uj->ui", doubt, (said @ factors - there @ lent) / noise)
            person[some], person_doubt[some] = found, np.einsum("uii->ui", doubt)
            tastes, apart = _beside_one(found, doubt)
            gram += there.T @ (tastes[:, :, None] * tastes[:, None, :] + apart).reshape(len(found), -1)
            lent_back = tastes * found[:, :1]
            lent_back[:, 1:] += doubt[:, 1:, 0]
            pull += said.T @ tastes - there.T @ lent_back
        # a factor's size is the items' to carry: tastes have variance 1
        size = np.sqrt((person**2 + person_doubt).mean(0))
        own[0], size[0] = size[0] ** 2, 1.0
        person, person_doubt = person / size, person_doubt / size**2
        precision = gram.reshape(items, width, width) / (size[:, None] * size) / noise + np.diag(1 / variance)
        covariance = np.linalg.inv(precision)
        mean = np.einsum("nij,nj->ni", covariance, pull / size / noise + prior / variance)
        left = np.einsum("nii->ni", covariance)
        variance = np.maximum(((mean - prior) ** 2 + left)[rated].mean(0), LEAST_VARIANCE)
        sure = np.where(fresh[:, None], np.clip(1 - left / variance, 0, 1), 0.0)
        if turn >= FIRST_TEXT_ROUND:
            start, slope = _from_text(text, mean, sure)
            prior = start + text @ slope
        else:
            prior[:, 0] = mean[rated, 0].mean()
        residual, doubt_of_rows = _residuals(log, mean, left, person, person_doubt)
        noise = float((residual**2 + doubt_of_rows).mean())
    squares = np.bincount(log.items, residual**2, minlength=items)
    spread = np.sqrt((squares + USUAL_RATINGS * noise) / (count + USUAL_RATINGS))
    logs = np.log1p(count)
    usual = np.average(logs, weights=count)
    popular = np.where(rated, (logs - usual) / max(float(logs.std()), 0.1), 0.0)
    table = [mean[:, 0], prior[:, 0], left[:, 0] / variance[0], left.sum(1), spread, popular, mean[:, 1:]]
    precision = np.r_[1 / own[0], 1 / (0.05 * own[0]), 1 / (0.05 * own[0]), np.ones(rank)]
    single = [torch.from_numpy(one.astype(np.float32)) for one in (*table, start, slope, variance, precision)]
    belief = Belief(single[10], torch.tensor(noise, dtype=torch.float32))
    newcomer = Newcomer(*single[7:10])
    return Rated(_new_where(~rated, RatedItems(*single[:7]), newcomer, belief, text), newcomer, belief, mean, sure)


def _new_where(
    new: Bool[np.ndarray, " items"], items: RatedItems, newcomer: Newcomer, belief: Belief,
    text: Float64[np.ndarray, "items text"],
) -> RatedItems:  # fmt: skip
    """The items, those that nobody has rated as any later item will be."""
    rows = torch.from_numpy(np.flatnonzero(new))
    guessed = newcomer.items(torch.from_numpy(text[new].astype(np.float32)), belief)
    changed = {name: value.index_copy(0, rows, getattr(guessed, name)) for name, value in vars(items).items()}
    return RatedItems(**changed)


def _beside_one(
    mean: Float64[np.ndarray, "some width"], covariance: Float64[np.ndarray, "some width width"]
) -> tuple[Float64[np.ndarray, "some width"], Float64[np.ndarray, "some width width"]]:
    """What the other side's level and factors are multiplied by: 1, then factors, with their covariance."""
    factors, apart = mean.copy(), covariance.copy()
    factors[:, 0] = 1.0
    apart[:, 0, :], apart[:, :, 0] = 0.0, 0.0
    return factors, apart


def _residuals(
    log: RatedLog,
    mean: Float64[np.ndarray, "items width"],
    left: Float64[np.ndarray, "items width"],
    person: Float64[np.ndarray, "users width"],
    person_doubt: Float64[np.ndarray, "users width"],
) -> tuple[Float64[np.ndarray, " rows"], Float64[np.ndarray, " rows"]]:
    """What ratings differ by from what is expected, and the variance of what is expected."""
    owners = np.repeat(np.arange(len(log)), log.sizes)
    residual, doubt = log.ratings.copy(), np.empty(len(owners))
    for start in range(0, len(owners), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        user, item = owners[rows], log.items[rows]
        p, q, p_doubt, q_doubt = person[user], mean[item], person_doubt[user], left[item]
        residual[rows] -= p[:, 0] + q[:, 0] + np.einsum("rd,rd->r", p[:, 1:], q[:, 1:])
        doubt[rows] = p_doubt[:, 0] + q_doubt[:, 0]
        doubt[rows] += np.einsum("rd,rd->r", p[:, 1:] ** 2, q_doubt[:, 1:])
        doubt[rows] += np.einsum("rd,rd->r", q[:, 1:] ** 2, p_doubt[:, 1:])
    return residual, doubt


def _from_text(
    text: Float64[np.ndarray, "items text"],
    target: Float64[np.ndarray, "items width"],
    weights: Float64[np.ndarray, "items width"],
) -> tuple[Float64[np.ndarray, " width"], Float64[np.ndarray, "text width"]]:
    """Weighted ridge regressions, their strengths by generalised cross-validation; factors, which have no sign, no intercept."""
    start, slope = np.zeros(target.shape[1]), np.zeros((text.shape[1], target.shape[1]))
    start[0] = (weights[:, 0] * target[:, 0]).sum() / max(weights[:, 0].sum(), LEAST_VARIANCE)
    for columns in (
        slice(0, 1),
        slice(1, None),
    ):  # factors share their weights, so that all of them cost one decomposition
        weight, wanted = weights[:, columns].mean(1), target[:, columns] - start[columns]
        scaled = text * weight[:, None]
        values, axes = np.linalg.eigh(scaled.T @ text)
        values, along, ahead = np.maximum(values, 0.0), axes.T @ (scaled.T @ wanted), text @ axes
        best = np.full(wanted.shape[1], np.inf)
        for strength in RIDGES:
            solved = along / (values + strength)[:, None]
            free = 1 - (values / (values + strength)).sum() / max(float(weight.sum()), LEAST_VARIANCE)
            error = (weight[:, None] * (wanted - ahead @ solved) ** 2).sum(0) / max(free, LEAST_VARIANCE) ** 2
            better = error < best
            slope[:, columns] = np.where(better, axes @ solved, slope[:, columns])
            best = np.minimum(best, error)
    return start, slope
