"""Lists become a report: means, intervals, envelopes, ratios, tests, slices. One dict, whose schema others can rely on."""

import importlib.metadata
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from mecold.evaluation.measures import FORMULAS, Metric, World, beyond, per_user, slices
from mecold.evaluation.plan import Plan
from mecold.evaluation.report import page, tables
from mecold.evaluation.report.cells import Cell, Outcomes
from mecold.evaluation.results import Outcome, write_text
from mecold.evaluation.statistics import holm, interval, replicates, sign_flip
from mecold.evaluation.systems.base import Kind
from mecold.version import __version__

ENVELOPES: dict[str, tuple[Kind, ...]] = {"all": ("order-blind", "order-aware"), "order-blind": ("order-blind",)}
"""Envelope -> kinds of baselines that belong to it."""


@dataclass(frozen=True)
class Report:
    """What an evaluation found.

    Args:
        data: the report as in `report.json`.
        per_user: one row per system, seed, shots and user, one column per metric.
    """

    data: dict[str, Any]
    per_user: pl.DataFrame = field(repr=False)

    def table(self, metric: str | None = None) -> pl.DataFrame:
        """Mean over seeds of a metric (the headline one where None), a row per system and a column per shots."""
        return tables.scores(self.data, metric)

    def markdown(self) -> str:
        """The report as text."""
        return tables.markdown(self.data)

    def html(self) -> str:
        """The report as one self-contained page."""
        return page.render(self.data)

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


def summarise(
    plan: Plan,
    outcomes: Outcomes,
    failures: Mapping[str, str],
    kinds: Mapping[str, Kind],
    worlds: Mapping[int, World],
    reference: str,
) -> Report:
    """The report of finished systems.

    Args:
        plan: what was evaluated.
        outcomes: by system and seed.
        failures: reason by system that did not finish.
        kinds: kind of each system.
        worlds: item statistics by seed.
        reference: the system to compare the others with; the first finished one if it failed.
    """
    reference = reference if reference in outcomes else next(iter(outcomes))
    cells = {k: Cell.of(plan, outcomes, k) for k in plan.shots}
    winners = {name: _winners(plan, outcomes, kinds, members) for name, members in ENVELOPES.items()}
    winners = {name: won for name, won in winners.items() if won}
    systems: dict[str, Any] = {}
    for name, by_seed in outcomes.items():
        systems[name] = {"kind": kinds[name], "scores": {}, "mean": {}}
        for k, cell in cells.items():
            cell.write(systems[name], name, k)
        systems[name] |= _costs(by_seed) | _looks(plan, by_seed, worlds, name, cells)
    data = {
        "format": 1,
        "mecold": __version__,
        "versions": _versions(),
        "dataset": plan.dataset.describe(),
        "protocol": plan.protocol,
        "seeds": [*plan.seeds],
        "shots": [*plan.shots],
        "metrics": cells[plan.shots[0]].metrics(),
        "formulas": {Metric.parse(name).kind: FORMULAS[Metric.parse(name).kind].words for name in plan.metrics},
        "tuned": plan.tune,
        "reference": reference,
        "split": {str(seed): _split(plan, seed) for seed in plan.seeds},
        "systems": systems,
        "failed": dict(failures),
        "envelope": {name: _envelope(plan, cells, won, outcomes) for name, won in winners.items()},
        "comparisons": [row for name in outcomes if name != reference for row in _compared(cells, name, reference)],
    }
    return Report(data, pl.concat([cell.frame(k) for k, cell in cells.items()]))


def _winners(
    plan: Plan, outcomes: Outcomes, kinds: Mapping[str, Kind], members: Sequence[Kind]
) -> dict[int, dict[int, str]]:
    """The best baseline of these kinds on validation users, by seed and shots; on the test users where there are none."""
    names = [name for name in outcomes if kinds[name] in members]
    if not names:
        return {}
    headline = plan.metrics[0]
    won: dict[int, dict[int, str]] = {}
    for seed, one in plan.splits.items():
        won[seed] = {}
        for k in plan.shots:
            tasks, which = one.tasks("valid", k), "valid"
            if not len(tasks):
                tasks, which = one.tasks("test", k), "test"
            marks = {
                name: per_user(outcomes[name][seed].lists[f"{which}/{k}"], tasks.queries, [headline])[headline].mean()
                for name in names
            }
            won[seed][k] = max(marks, key=lambda name: marks[name])
    return won


def _envelope(
    plan: Plan, cells: Mapping[int, Cell], won: Mapping[int, Mapping[int, str]], outcomes: Outcomes
) -> dict[str, Any]:
    """The envelope's score by seed and shots, and each system's ratio to it with an interval over users."""
    headline = plan.metrics[0]
    shown = {
        str(seed): {
            str(k): {"system": name, headline: float(cells[k].values[seed][:, cells[k].place[name, headline]].mean())}
            for k, name in by_k.items()
        }
        for seed, by_k in won.items()
    }
    ratios: dict[str, Any] = {name: {} for name in outcomes}
    for k, cell in cells.items():
        columns = {seed: cell.place[won[seed][k], headline] for seed in plan.seeds}
        bound = [cell.values[seed][:, columns[seed]] for seed in plan.seeds]
        level = float(np.mean([column.mean() for column in bound]))
        parts = [
            (cell.numbers[seed], np.column_stack([cell.values[seed], column]))
            for seed, column in zip(plan.seeds, bound, strict=True)
        ]
        draws = replicates(parts, cell.n_users)
        for name in outcomes:
            ratio = draws[:, cell.place[name, headline]] / np.maximum(draws[:, -1], 1e-12)
            ends = interval(ratio)
            mean = cell.mean(name, headline) / max(level, 1e-12)
            ratios[name][str(k)] = {"ratio": mean, "low": float(ends[0]), "high": float(ends[1])}
    positive = [str(k) for k in plan.shots if k > 0]
    for name in outcomes:
        marks = [max(ratios[name][k]["ratio"], 1e-12) for k in positive]
        if marks:
            ratios[name]["geometric_mean"] = float(np.exp(np.mean(np.log(marks))))
    validated = [len(one.tasks("valid", k)) > 0 for one in plan.splits.values() for k in plan.shots]
    judged = "validation users" if any(validated) else "the test users themselves"
    if any(validated) and not all(validated):
        judged += " (on the test users where no validation history is long enough)"
    return {"chosen_on": judged, "by_seed": shown, "ratios": ratios}


def _compared(cells: Mapping[int, Cell], system: str, reference: str) -> list[dict[str, Any]]:
    """Paired tests of a system against the reference: per seed, and over all seeds; Holm over the cells of each."""
    rows: list[dict[str, Any]] = []
    for k, cell in cells.items():
        columns = [cell.place[name, cell.headline] for name in (system, reference)]
        differences = {seed: np.subtract(*(cell.values[seed][:, c] for c in columns)) for seed in cell.seeds}
        drawn = cell.draws[:, columns[0]] - cell.draws[:, columns[1]]
        totals, times = np.zeros(cell.n_users), np.zeros(cell.n_users)
        for seed, values in differences.items():
            np.add.at(totals, cell.numbers[seed], values)
            np.add.at(times, cell.numbers[seed], 1)
        low, high = interval(drawn)
        mean = float(np.mean([values.mean() for values in differences.values()]))
        about = {"system": system, "reference": reference, "metric": cell.headline, "shots": k}
        rows.append(
            about | {"seed": "all", "difference": mean, "low": float(low), "high": float(high),
                     "p": sign_flip(totals / times)}
        )  # fmt: skip
        if len(cell.seeds) > 1:
            rows += [
                about | {"seed": seed, "difference": float(values.mean()), "p": sign_flip(values)}
                for seed, values in differences.items()
            ]
    for pooled in (True, False):
        chosen = [row for row in rows if (row["seed"] == "all") == pooled]
        corrected = holm({str(i): row["p"] for i, row in enumerate(chosen)})
        for i, row in enumerate(chosen):
            row["p_holm"] = corrected[str(i)]
    return rows


def _costs(by_seed: Mapping[int, Outcome]) -> dict[str, Any]:
    """Medians over seeds; what was chosen by tuning."""
    names = dict.fromkeys(name for outcome in by_seed.values() for name in outcome.costs)
    found: dict[str, Any] = {
        name: float(np.median([outcome.costs[name] for outcome in by_seed.values()])) for name in names
    }
    chosen = {str(seed): dict(outcome.chosen) for seed, outcome in by_seed.items() if outcome.chosen}
    return found | ({"chosen": chosen} if chosen else {})


def _looks(
    plan: Plan, by_seed: Mapping[int, Outcome], worlds: Mapping[int, World], name: str, cells: Mapping[int, Cell]
) -> dict[str, Any]:
    """Beyond accuracy and slices, mean over seeds; rankings over the full catalogue are looked at where there are two."""
    looks: dict[str, Any] = {"beyond": {}, "slices": {}}
    for k in plan.shots:
        seen, cut = [], []
        for seed, outcome in by_seed.items():
            tasks = plan.splits[seed].tasks("test", k)
            ranking = [*plan.splits[seed].rankings][-1]
            lists = outcome.lists[f"{ranking}test/{k}"]
            cell = cells[k]
            quality = cell.values[seed][:, cell.place[name, ranking + cell.headline]]
            seen.append(beyond(lists, worlds[seed]))
            cut.append(slices(lists, tasks, worlds[seed], quality, ranking + cell.headline))
        looks["beyond"][str(k)] = {key: float(np.mean([one[key] for one in seen])) for key in seen[0]}
        looks["slices"][str(k)] = _mean_slices(cut)
    return looks


def _mean_slices(parts: Sequence[dict[str, dict[str, dict[str, float]]]]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
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


def _split(plan: Plan, seed: int) -> dict[str, int]:
    one = plan.splits[seed]
    sizes = {
        "train_users": len(one.train), "train_interactions": len(one.train.items), "test_users": len(one.test),
        "valid_users": len(one.valid),
    }  # fmt: skip
    return sizes | ({} if one.cold is None else {"cold_items": len(one.cold)})


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in ("torch", "numpy", "scipy", "polars", "transformers", "implicit"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
