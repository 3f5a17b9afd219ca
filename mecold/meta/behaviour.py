"""The outer loop of behaviours: where the head of a new question starts, and how far from there it may go.

A behaviour that is known starts from what its past tasks say together; one that is like none of them starts from nothing. How
much tasks differ from there is found by expectation maximisation, one variance for each block of features; and how much of that
to grant a few answers is rehearsed on tasks that were left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from scipy.special import logit

from mecold.heads.answers import Start, adapt, probabilities

LEAST_TASKS = 3
MOST_ROWS = 500  # of a task
MOST_TASKS = 60
MOST_POOLED = 30_000
EM_ROUNDS = 8
INNER_ROUNDS = 8  # of the inner loop where it runs often
WARM_ROUNDS = 2  # where it goes on from the last time
LEAST_VARIANCE = 1e-5
WIDE = 10.0  # variance of the constant before anything is known
REACHES = (0.03, 0.1, 0.3, 1.0, 3.0)
SHOTS = (3, 10, 30)  # a class, of the rehearsal
MOST_QUERY = 300
FOLDS = 3


@dataclass(frozen=True)
class Answers:
    """What users did, task after task.

    Args:
        rows: features of each user in each task, with the constant.
        labels: 1 or 0.
        task: of each row.
    """

    rows: Float[np.ndarray, "rows dim"]
    labels: Float[np.ndarray, " rows"]
    task: Int64[np.ndarray, " rows"]

    def of(self, tasks: Sequence[int] | np.ndarray) -> list[np.ndarray]:
        """Rows of each of some tasks."""
        order = np.argsort(self.task, kind="stable")
        ends = np.searchsorted(self.task[order], np.asarray(tasks)), np.searchsorted(self.task[order], tasks, "right")
        return [order[start:end] for start, end in zip(*ends, strict=True)]


def learn_start(
    answers: Answers,
    tasks: Sequence[int],
    blocks: Int64[np.ndarray, " dim"],
    rng: np.random.Generator,
    *,
    alike: bool,
) -> tuple[Start, dict[str, float]]:
    """Where a new task like some past ones starts.

    Args:
        answers: of all tasks.
        tasks: those that it is like; at least three.
        blocks: which features move together; the last is the constant.
        rng: draws rows, folds and episodes.
        alike: whether a new task goes the way of these; else it may go any way, as far as these do.

    Returns:
        The start, and what the rehearsal told: log loss of left-out tasks by shots a class.
    """
    some = rng.permutation(np.asarray(tasks))[:MOST_TASKS]
    drawn = {one: rng.permutation(rows) for one, rows in zip(some.tolist(), answers.of(some), strict=True)}
    folds = np.arange(len(some)) % min(FOLDS, len(some))
    losses: dict[tuple[int, float], list[float]] = {}
    for fold in range(int(folds.max()) + 1):
        start = _fitted(answers, [drawn[one] for one in some[folds != fold].tolist()], blocks, alike=alike)
        left = [rows for one in some[folds == fold].tolist() if _both(answers.labels[rows := drawn[one]])]
        for k in SHOTS:
            for rows in left:
                _rehearse(answers, rows, k, start, losses, rng)
    start = _fitted(answers, list(drawn.values()), blocks, alike=alike)
    mean = {key: float(np.mean(values)) for key, values in losses.items()}
    # the spread around nothing is as it was found; around a mean of the same tasks it looks other than it is
    reach = min(REACHES, key=lambda one: sum(mean.get((k, one), 0.0) for k in SHOTS)) if alike else 1.0
    told = {f"log loss at {k}": mean[k, reach] for k in SHOTS if (k, reach) in mean}
    if (0, 1.0) in mean:
        told = {"log loss at 0": mean[0, 1.0], **told}
    return Start(start.mean, _reaching(start, reach).variance), {"reach": reach, **told}


def _both(labels: np.ndarray) -> bool:
    return bool(0 < labels.sum() < len(labels))


def _fitted(answers: Answers, tasks: Sequence[np.ndarray], blocks: np.ndarray, *, alike: bool) -> Start:
    """What tasks have in common, and how much they differ."""
    every = np.concatenate(tasks)[:: -(-sum(map(len, tasks)) // MOST_POOLED)]
    tasks = [rows[:MOST_ROWS] for rows in tasks]
    dim = answers.rows.shape[1]
    flat = torch.ones(dim, dtype=torch.float64)
    flat[-1] = WIDE
    pooled = Start(torch.zeros(dim, dtype=torch.float64), flat)
    mean = _adapted(answers, [every], pooled, INNER_ROUNDS)[0][0]
    if not alike:
        mean = torch.cat([torch.zeros_like(mean[:-1]), mean[-1:]])
    groups = torch.from_numpy(blocks)
    sizes = torch.bincount(groups).double()
    variance = torch.full((len(sizes),), 0.1, dtype=torch.float64)
    found, covariance = _adapted(answers, tasks, Start(mean, variance[groups]), INNER_ROUNDS)
    for _ in range(EM_ROUNDS):
        spread = ((found - mean) ** 2 + covariance.diagonal(dim1=1, dim2=2)).mean(0)
        variance = (torch.zeros_like(sizes).index_add_(0, groups, spread) / sizes).clamp(min=LEAST_VARIANCE)
        found, covariance = _adapted(answers, tasks, Start(mean, variance[groups]), WARM_ROUNDS, (found, covariance))
    if not alike:
        variance[-1] = WIDE
    return Start(mean, variance[groups])


def _adapted(
    answers: Answers,
    tasks: Sequence[np.ndarray],
    start: Start,
    rounds: int,
    begin: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    rows = np.zeros((len(tasks), max(map(len, tasks))), np.int64)
    mask = np.zeros(rows.shape, bool)
    for at, own in enumerate(tasks):
        rows[at, : len(own)], mask[at, : len(own)] = own, True
    means, covariances = [], []
    step = max(1, (1 << 25) // (rows.shape[1] * answers.rows.shape[1]))  # 256 MB of features at once
    for at in range(0, len(tasks), step):
        part = rows[at : at + step]
        users, labels = torch.from_numpy(answers.rows[part]), torch.from_numpy(answers.labels[part])
        there = torch.from_numpy(mask[at : at + step])
        so_far = None if begin is None else (begin[0][at : at + step], begin[1][at : at + step])
        mean, covariance = adapt(start, users, labels, there, begin=so_far, rounds=rounds)
        means.append(mean)
        covariances.append(covariance)
    return torch.cat(means), torch.cat(covariances)


def _reaching(start: Start, reach: float) -> Start:
    """The same start, from which more or less is granted; what is usual of a task is not bound by it."""
    variance = start.variance * reach
    variance[-1] = start.variance[-1]
    return Start(start.mean, variance)


def _rehearse(
    answers: Answers,
    rows: np.ndarray,
    k: int,
    start: Start,
    losses: dict[tuple[int, float], list[float]],
    rng: np.random.Generator,
) -> None:
    """One task that was left out: k answers a class, then all others are foretold."""
    labels = answers.labels[rows]
    if min(labels.sum(), len(labels) - labels.sum()) < k + 2:
        return
    order = rng.permutation(len(rows))
    support = np.concatenate([order[labels[order] == one][:k] for one in (1, 0)])
    query = np.setdiff1d(order, support)
    query = rng.permutation(query)[:MOST_QUERY]
    users, asked = (torch.from_numpy(answers.rows[rows[some]]) for some in (support, query))
    truth = torch.from_numpy(labels[query])
    known, mask = torch.from_numpy(labels[support])[None], torch.ones(1, len(support), dtype=torch.bool)
    offset = torch.full_like(known, -float(logit(labels.mean())))
    for at, reach, rounds in [(0, 1.0, 0), *((k, reach, INNER_ROUNDS) for reach in REACHES)]:
        mean, covariance = adapt(_reaching(start, reach), users[None], known, mask, offset=offset, rounds=rounds)
        chance = probabilities(asked @ mean[0], ((asked @ covariance[0]) * asked).sum(1)).clamp(1e-6, 1 - 1e-6)
        loss = torch.nn.functional.binary_cross_entropy(chance, truth)
        losses.setdefault((at, reach), []).append(float(loss))
