"""One number of shots: per-user values of every system, by seed, with their means, intervals and bootstrap draws."""

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import polars as pl

from mecold.evaluation.measures import per_user, without_support
from mecold.evaluation.plan import Plan
from mecold.evaluation.results import Outcome
from mecold.evaluation.statistics import interval, replicates

GAIN = "gain"
"""The headline metric minus that of the system's own zero-shot list, same users, same query."""

Outcomes: TypeAlias = Mapping[str, Mapping[int, Outcome]]
"""By system and seed."""


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
    def of(cls, plan: Plan, outcomes: Outcomes, k: int) -> "Cell":
        """Values of every system at k shots."""
        by_seed = {seed: _values(plan, outcomes, seed, k) for seed in plan.seeds}
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

    def write(self, entry: dict[str, Any], system: str, k: int) -> None:
        """Put means and intervals into a system's entry."""
        own = [(metric, place) for (name, metric), place in self.place.items() if name == system]
        for seed in self.seeds:
            values = self.values[seed]
            ends = self.ends[seed]
            entry["scores"].setdefault(str(seed), {})[str(k)] = {
                metric: _number(values[:, place].mean(), ends[:, place], len(values)) for metric, place in own
            }
        ends = interval(self.draws)
        entry["mean"][str(k)] = {
            metric: _number(self.mean(system, metric), ends[:, place], self.n_users) for metric, place in own
        }

    def frame(self, k: int) -> pl.DataFrame:
        """Per-user rows."""
        frames = []
        for system in dict.fromkeys(name for name, _ in self.columns):
            own = {metric: place for (name, metric), place in self.place.items() if name == system and metric != GAIN}
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


def _number(mean: float, ends: np.ndarray, users: int) -> dict[str, float]:
    return {"mean": float(mean), "low": float(ends[0]), "high": float(ends[1]), "users": users}


def _values(plan: Plan, outcomes: Outcomes, seed: int, k: int) -> dict[tuple[str, str], np.ndarray]:
    """Per-user values by system and metric; the gain is over the system's own zero-shot list, same query."""
    found: dict[tuple[str, str], np.ndarray] = {}
    tasks = plan.splits[seed].tasks("test", k)
    for name, by_seed in outcomes.items():
        lists = by_seed[seed].lists
        for ranking in plan.splits[seed].rankings:
            values = per_user(lists[f"{ranking}test/{k}"], tasks.queries, plan.metrics)
            found |= {(name, ranking + metric): column for metric, column in values.items()}
        if all("zero-shot" in outcome.lists for outcome in by_seed.values()):
            before = without_support(lists["zero-shot"][0], tasks.supports, plan.depth)
            start = per_user(before, tasks.queries, plan.metrics[:1])[plan.metrics[0]]
            found[name, GAIN] = found[name, plan.metrics[0]] - start
    return found
