"""One number of shots: per-user values of every system, by seed, with their means, intervals and bootstrap draws."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from mecold.evaluation.measures import per_user, without_support
from mecold.evaluation.plan import Plan
from mecold.evaluation.report.records import GAIN, Estimate
from mecold.evaluation.results import Finished, TaskSet
from mecold.evaluation.statistics import interval, replicates


class Cell:
    """Everything at one number of shots: values of every system, by seed, over users that are numbered across seeds."""

    def __init__(self, plan: Plan, columns: list[tuple[str, str]]) -> None:
        self.columns = columns
        self.place = {column: i for i, column in enumerate(columns)}
        self.seeds = plan.seeds
        self.headline = plan.metrics[0]
        self.users: dict[int, pl.Series] = {}
        self.numbers: dict[int, np.ndarray] = {}
        self.values: dict[int, np.ndarray] = {}
        self.n_users = 0
        self.draws = np.empty((0, 0))
        self.ends: dict[int, np.ndarray] = {}

    @classmethod
    def of(cls, plan: Plan, systems: Mapping[str, Finished], k: int) -> "Cell":
        """Values of every system at k shots."""
        by_seed = {seed: _values(plan, systems, seed, k) for seed in plan.seeds}
        cell = cls(plan, list(by_seed[plan.seeds[0]]))
        known: dict[Any, int] = {}
        for seed in plan.seeds:
            cell.users[seed] = plan.splits[seed].tasks("test", k).users
            cell.numbers[seed] = np.array([known.setdefault(user, len(known)) for user in cell.users[seed]], np.int64)
            columns = [by_seed[seed][column] for column in cell.columns]
            cell.values[seed] = np.stack(columns, axis=1).astype(np.float64)
        cell.n_users = len(known)
        cell.draws = replicates([(cell.numbers[s], cell.values[s]) for s in plan.seeds], cell.n_users)
        for seed, values in cell.values.items():
            cell.ends[seed] = interval(replicates([(np.arange(len(values)), values)], len(values)))
        return cell

    def metrics(self) -> list[str]:
        """Names of the metrics, the headline first."""
        return list(dict.fromkeys(metric for _, metric in self.columns if metric != GAIN))

    def mean(self, system: str, metric: str) -> float:
        """Mean over seeds of the mean over users."""
        column = self.place[system, metric]
        return float(np.mean([self.values[seed][:, column].mean() for seed in self.seeds]))

    def column(self, seed: int, system: str, metric: str) -> np.ndarray:
        """A value per user of a seed."""
        found: np.ndarray = self.values[seed][:, self.place[system, metric]]
        return found

    def of_seed(self, system: str, seed: int) -> dict[str, Estimate]:
        """A system's metrics on one seed."""
        values = self.values[seed]
        return {
            metric: _estimate(values[:, place].mean(), self.ends[seed][:, place], len(values))
            for metric, place in self._own(system)
        }

    def over_seeds(self, system: str) -> dict[str, Estimate]:
        """A system's metrics, mean over seeds."""
        ends = interval(self.draws)
        return {
            metric: _estimate(self.mean(system, metric), ends[:, place], self.n_users)
            for metric, place in self._own(system)
        }

    def _own(self, system: str) -> list[tuple[str, int]]:
        return [(metric, place) for (name, metric), place in self.place.items() if name == system]

    def frame(self, k: int) -> pl.DataFrame:
        """Per-user rows."""
        frames = []
        for system in dict.fromkeys(name for name, _ in self.columns):
            own = {metric: place for metric, place in self._own(system) if metric != GAIN}
            for seed in self.seeds:
                about = {"system": [system], "seed": [seed], "shots": [k]}
                users = pl.DataFrame({"user_id": self.users[seed]})
                values = {metric: self.values[seed][:, place] for metric, place in own.items()}
                frames.append(
                    pl.DataFrame(about).join(
                        users.with_columns(**{m: pl.Series(v) for m, v in values.items()}), how="cross"
                    )
                )
        return pl.concat(frames)


def _estimate(mean: float, ends: np.ndarray, users: int) -> Estimate:
    return Estimate(float(mean), float(ends[0]), float(ends[1]), users)


def _values(
    plan: Plan, systems: Mapping[str, Finished], seed: int, k: int
) -> dict[tuple[str, str], np.ndarray]:  # fmt: skip
    """Per-user values by system and metric; the gain is over the system's own zero-shot list, same query."""
    found: dict[tuple[str, str], np.ndarray] = {}
    tasks = plan.splits[seed].tasks("test", k)
    for name, system in systems.items():
        lists, zero_shot = system.by_seed[seed].lists, system.by_seed[seed].zero_shot
        for ranking in plan.splits[seed].rankings:
            values = per_user(lists[TaskSet("test", k, ranking)], tasks.queries, plan.metrics)
            found |= {(name, ranking + metric): column for metric, column in values.items()}
        if zero_shot is not None:
            before = without_support(zero_shot, tasks.supports, plan.depth)
            start = per_user(before, tasks.queries, plan.metrics[:1])[plan.metrics[0]]
            found[name, GAIN] = found[name, plan.metrics[0]] - start
    return found
