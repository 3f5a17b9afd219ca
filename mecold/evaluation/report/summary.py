"""Lists become findings: means, intervals, envelopes, ratios, tests, slices."""

import importlib.metadata
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from mecold.evaluation.measures import FORMULAS, ItemFacts, Metric, beyond, per_user, slices
from mecold.evaluation.plan import Plan
from mecold.evaluation.report import page, tables
from mecold.evaluation.report.cells import Cell
from mecold.evaluation.report.describe import describe, sizes_of
from mecold.evaluation.report.records import (
    Bar,
    Comparison,
    Envelope,
    Findings,
    Groups,
    Overall,
    Ratio,
    SystemFindings,
)
from mecold.evaluation.results import Costs, Finished, TaskSet
from mecold.evaluation.statistics import holm, interval, replicates, sign_flip
from mecold.evaluation.systems.base import Kind, Training
from mecold.swap import write_text
from mecold.version import __version__

ENVELOPES: dict[str, tuple[Kind, ...]] = {"all": ("order-blind", "order-aware"), "order-blind": ("order-blind",)}
"""Envelope -> kinds of baselines that belong to it."""


@dataclass(frozen=True)
class Report:
    """What an evaluation found.

    Args:
        found: means, intervals, tests and costs, as records.
        per_user: one row per system, seed, shots and user, one column per metric.
    """

    found: Findings
    per_user: pl.DataFrame = field(repr=False)

    @property
    def data(self) -> dict[str, Any]:
        """The report as in `report.json`."""
        return self.found.to_json()

    def table(self, metric: str | None = None) -> pl.DataFrame:
        """Mean over seeds of a metric (the headline one where None), a row per system and a column per shots."""
        return tables.scores(self.found, metric)

    def markdown(self) -> str:
        """The report as text."""
        return tables.markdown(self.found)

    def html(self) -> str:
        """The report as one self-contained page."""
        return page.render(self.found)

    def write(self, folder: Path) -> None:
        """Write report.json, report.md, index.html and per_user.parquet, each whole or not at all."""
        texts = {
            "report.json": json.dumps(self.data, indent=1),
            "report.md": self.markdown(),
            "index.html": self.html(),
        }
        for name, text in texts.items():
            write_text(folder / name, text)
        part = folder / ".per_user.parquet.part"
        self.per_user.write_parquet(part)
        part.replace(folder / "per_user.parquet")


def summarise(plan: Plan, finished: Mapping[str, Finished], failed: Mapping[str, str], reference: str) -> Report:
    """The report of finished systems.

    Args:
        plan: what was evaluated.
        finished: by name.
        failed: reason by system that did not finish.
        reference: the system to compare the others with; the first finished one if it failed.
    """
    reference = reference if reference in finished else next(iter(finished))
    cells = {k: Cell.of(plan, finished, k) for k in plan.shots}
    facts = _facts(plan, with_text=any(system.needs_text for system in finished.values()))
    winners = {name: _winners(plan, finished, kinds) for name, kinds in ENVELOPES.items()}
    others = [name for name in finished if name != reference]
    found = Findings(
        mecold=__version__,
        versions=_versions(),
        dataset=describe(plan.dataset),
        protocol=plan.protocol,
        seeds=plan.seeds,
        shots=plan.shots,
        metrics=cells[plan.shots[0]].metrics(),
        formulas={name: FORMULAS[name].words for name in dict.fromkeys(Metric.parse(m).name for m in plan.metrics)},
        tuned=plan.tune,
        reference=reference,
        split={seed: sizes_of(one) for seed, one in plan.splits.items()},
        systems={name: _system(plan, name, system, facts, cells) for name, system in finished.items()},
        failed=failed,
        envelope={name: _envelope(plan, cells, won, list(finished)) for name, won in winners.items() if won},
        comparisons=[row for name in others for row in _compared(cells, name, reference)],
        overall={name: _overall(cells, name, reference) for name in others if max(plan.shots) > 0},
    )
    return Report(found, pl.concat([cell.frame(k) for k, cell in cells.items()]))


def _facts(plan: Plan, *, with_text: bool) -> dict[int, ItemFacts]:
    """What is known of the items, by seed."""
    dataset = plan.dataset
    lengths = np.array([len(text) for text in dataset.catalog.texts])
    vectors = dataset.vectors if with_text else None
    return {
        seed: ItemFacts(Training(one.train, dataset).counts, len(one.train), lengths, vectors)
        for seed, one in plan.splits.items()
    }


def _winners(plan: Plan, finished: Mapping[str, Finished], kinds: Sequence[Kind]) -> dict[int, dict[int, str]]:
    """The best baseline of these kinds on validation users, by seed and shots; on the test users where there are none."""
    names = [name for name, system in finished.items() if system.kind in kinds]
    if not names:
        return {}
    headline = plan.metrics[0]
    won: dict[int, dict[int, str]] = {}
    for seed, one in plan.splits.items():
        won[seed] = {}
        for k in plan.shots:
            which = TaskSet("valid" if len(one.tasks("valid", k)) else "test", k)
            queries = one.tasks(which.part, k).queries
            marks = {
                name: per_user(finished[name].by_seed[seed].lists[which], queries, [headline])[headline].mean()
                for name in names
            }
            won[seed][k] = max(marks, key=lambda name: marks[name])
    return won


def _envelope(
    plan: Plan, cells: Mapping[int, Cell], won: Mapping[int, Mapping[int, str]], names: Sequence[str]
) -> Envelope:
    """The envelope's score by seed and shots, and each system's ratio to it with an interval over users."""
    headline = plan.metrics[0]
    ratios: dict[str, dict[int, Ratio]] = {name: {} for name in names}
    for k, cell in cells.items():
        bound = [cell.column(seed, won[seed][k], headline) for seed in plan.seeds]
        level = float(np.mean([column.mean() for column in bound]))
        parts = [
            (cell.numbers[seed], np.column_stack([cell.values[seed], column]))
            for seed, column in zip(plan.seeds, bound, strict=True)
        ]
        draws = replicates(parts, cell.n_users)
        for name in names:
            ends = interval(draws[:, cell.place[name, headline]] / np.maximum(draws[:, -1], 1e-12))
            ratios[name][k] = Ratio(cell.mean(name, headline) / max(level, 1e-12), float(ends[0]), float(ends[1]))
    bars = {
        seed: {k: Bar(name, float(cells[k].column(seed, name, headline).mean())) for k, name in by_k.items()}
        for seed, by_k in won.items()
    }
    marks = {name: [max(by_k[k].ratio, 1e-12) for k in plan.shots if k > 0] for name, by_k in ratios.items()}
    means = {name: float(np.exp(np.mean(np.log(some)))) for name, some in marks.items() if some}
    return Envelope(_judged_on(plan), bars, ratios, means)


def _judged_on(plan: Plan) -> str:
    """Whose histories decided which baseline is best."""
    validated = [len(one.tasks("valid", k)) > 0 for one in plan.splits.values() for k in plan.shots]
    judged = "validation users" if any(validated) else "the test users themselves"
    if any(validated) and not all(validated):
        judged += " (on the test users where no validation history is long enough)"
    return judged


def _compared(cells: Mapping[int, Cell], system: str, reference: str) -> list[Comparison]:
    """Paired tests of a system against the reference: over all seeds, and per seed; Holm over the cells of each."""
    pooled: list[dict[str, Any]] = []
    apart: list[dict[str, Any]] = []
    for k, cell in cells.items():
        differences = _differences(cell, system, reference)
        columns = [cell.place[name, cell.headline] for name in (system, reference)]
        low, high = interval(cell.draws[:, columns[0]] - cell.draws[:, columns[1]])
        totals, times = np.zeros(cell.n_users), np.zeros(cell.n_users)
        for seed, values in differences.items():
            np.add.at(totals, cell.numbers[seed], values)
            np.add.at(times, cell.numbers[seed], 1)
        mean = float(np.mean([values.mean() for values in differences.values()]))
        ends = {"low": float(low), "high": float(high)}
        pooled.append({"shots": k, "seed": None, "difference": mean, "p": sign_flip(totals / times), **ends})
        if len(cell.seeds) > 1:
            apart += [
                {"shots": k, "seed": seed, "difference": float(values.mean()), "p": sign_flip(values)}
                for seed, values in differences.items()
            ]
    headline = next(iter(cells.values())).headline
    rows: list[Comparison] = []
    for some in (pooled, apart):
        corrected = holm({str(i): row["p"] for i, row in enumerate(some)})
        rows += [Comparison(system, reference, headline, **row, p_holm=corrected[str(i)]) for i, row in enumerate(some)]
    return rows


def _differences(cell: Cell, system: str, reference: str) -> dict[int, np.ndarray]:
    """Headline metric of a system minus that of the reference, per user, by seed."""
    return {
        seed: cell.column(seed, system, cell.headline) - cell.column(seed, reference, cell.headline)
        for seed in cell.seeds
    }


def _overall(cells: Mapping[int, Cell], system: str, reference: str) -> Overall:
    """Over all k above 0: a user's differences enter together, whatever the seed and k."""
    total: dict[Any, float] = {}
    sums = np.zeros(2)
    for cell in (cell for k, cell in cells.items() if k > 0):
        for seed, values in _differences(cell, system, reference).items():
            sums += [cell.column(seed, name, cell.headline).sum() for name in (system, reference)]
            for user, value in zip(cell.users[seed], values.tolist(), strict=True):
                total[user] = total.get(user, 0.0) + value
    return Overall(float(sums[0] / max(sums[1], 1e-12)), sign_flip(np.array([*total.values()])))


def _system(
    plan: Plan, name: str, system: Finished, facts: Mapping[int, ItemFacts], cells: Mapping[int, Cell]
) -> SystemFindings:
    """Everything of one system."""
    looks = {k: _looks(plan, name, system, facts, cell, k) for k, cell in cells.items()}
    outcomes = system.by_seed.values()
    return SystemFindings(
        kind=system.kind,
        scores={seed: {k: cell.of_seed(name, seed) for k, cell in cells.items()} for seed in plan.seeds},
        mean={k: cell.over_seeds(name) for k, cell in cells.items()},
        costs=Costs(*(_median([getattr(one.costs, cost.name) for one in outcomes]) for cost in fields(Costs))),
        chosen={seed: dict(outcome.chosen) for seed, outcome in system.by_seed.items() if outcome.chosen},
        told={seed: outcome.told for seed, outcome in system.by_seed.items() if outcome.told},
        beyond={k: look[0] for k, look in looks.items()},
        slices={k: look[1] for k, look in looks.items()},
    )


def _median(values: Sequence[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return float(np.median(there)) if there else None


def _looks(
    plan: Plan, name: str, system: Finished, facts: Mapping[int, ItemFacts], cell: Cell, k: int
) -> tuple[dict[str, float], Groups]:
    """Beyond accuracy and slices, mean over seeds; rankings over the full catalogue are looked at where there are two."""
    seen, cut = [], []
    for seed, outcome in system.by_seed.items():
        ranking = [*plan.splits[seed].rankings][-1]
        lists = outcome.lists[TaskSet("test", k, ranking)]
        quality = cell.column(seed, name, ranking + cell.headline)
        seen.append(beyond(lists, facts[seed]))
        cut.append(slices(lists, plan.splits[seed].tasks("test", k), facts[seed], quality, ranking + cell.headline))
    return {key: float(np.mean([one[key] for one in seen])) for key in seen[0]}, _mean_slices(cut)


def _mean_slices(parts: Sequence[Groups]) -> Groups:
    """Groups of all seeds: counts added up, everything else averaged over the seeds that have the group."""
    merged: dict[str, dict[str, dict[str, list[float]]]] = {}
    for part in parts:
        for kind, groups in part.items():
            for group, values in groups.items():
                for label, value in values.items():
                    merged.setdefault(kind, {}).setdefault(group, {}).setdefault(label, []).append(value)
    return {
        kind: {
            group: {
                label: (int(sum(v)) if label == "count" else float(np.mean(v))) for label, v in values.items()
            }
            for group, values in groups.items()
        }
        for kind, groups in merged.items()
    }  # fmt: skip


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in ("torch", "numpy", "scipy", "polars", "transformers", "implicit"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
