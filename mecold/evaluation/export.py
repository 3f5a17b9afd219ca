"""Ranked lists from elsewhere: write the tasks for any other stack, and read back what it ranked, checked row by row."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from mecold.data.frames import FrameLike, read_frame, require
from mecold.errors import InvalidDataError, few
from mecold.evaluation.dataset import Dataset
from mecold.evaluation.protocol import Split, Tasks
from mecold.evaluation.results import Outcome, TaskSet
from mecold.evaluation.systems.base import Training

_README = """# Tasks of a cold-start evaluation

- `train-seed<S>.parquet`: the training interactions of seed S (user_id, item_id, position, timestamp where known).
  Nothing else may be used to fit for that seed.
- `items.parquet`: the items, one row each.
- `tasks.parquet`: one row per task: task_id, seed, shots, support (item ids, oldest first), time (of the last of them,
  where known), labels (of the support, where some items are disliked: 1 to -1), candidates.
  `candidates` is "all" (every row of items.parquet) or "cold" (the items that have no row in the training file of the
  seed because they were taken out; listed in `cold-seed<S>.parquet`). Never recommend an item of the support.

Return a parquet file with the columns task_id and items (a list of item ids, best first), or task_id, rank (from 1) and
item_id. Give {depth} items per task, or all that are left where there are fewer. Then:

    mecold evaluate score --rankings NAME=lists.parquet ... (the options of this export)
"""


def task_ids(ranking: str, seed: int, shots: int, users: pl.Series) -> pl.Series:
    """The id of each task, `<seed>:<shots>:<user>`, with the ranking's prefix in front."""
    return pl.select(pl.format(ranking + f"{seed}:{shots}:{{}}", users.alias("u"))).to_series().alias("task_id")


def export(dataset: Dataset, splits: Mapping[int, Split], shots: list[int], depth: int, out: Path) -> int:
    """Write the tasks of an evaluation into a new folder; returns how many tasks there are.

    Raises:
        InvalidDataError: if the folder is there already and not empty.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InvalidDataError(f"'{out}' exists already. Name a folder that does not.")
    ids, parts = dataset.catalog.ids, []
    for seed, one in splits.items():
        for ranking, candidates in one.rankings.items():
            for k in shots:
                tasks = one.tasks("test", k)
                supports = pl.Series([ids.gather(s).to_list() for s in tasks.supports], dtype=pl.List(ids.dtype))
                said = tasks.labels and [own.tolist() for own in tasks.labels]
                parts.append(
                    pl.DataFrame(
                        {"task_id": task_ids(ranking, seed, k, tasks.users), "support": supports, "time": tasks.times}
                    ).select(
                        task_ids(ranking, seed, k, tasks.users),
                        pl.lit(seed).alias("seed"),
                        pl.lit(k).alias("shots"),
                        "support",
                        pl.col("time").fill_nan(None),
                        *([] if said is None else [pl.Series("labels", said, pl.List(pl.Float32))]),
                        pl.lit("all" if candidates is None else "cold").alias("candidates"),
                    )
                )
    part = out.with_name(f".{out.name}.part")  # a killed export leaves nothing under the name
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    for seed, one in splits.items():
        Training(one.train, dataset).frame().write_parquet(part / f"train-seed{seed}.parquet")
        if one.cold is not None:
            pl.DataFrame({"item_id": ids.gather(one.cold)}).write_parquet(part / f"cold-seed{seed}.parquet")
    dataset.items.write_parquet(part / "items.parquet")
    table = pl.concat(parts)
    table.write_parquet(part / "tasks.parquet")
    (part / "README.md").write_text(_README.replace("{depth}", str(depth)))
    if out.exists():
        out.rmdir()
    part.rename(out)
    return table.height


def read_rankings(
    name: str, source: FrameLike, dataset: Dataset, splits: Mapping[int, Split], shots: list[int], depth: int
) -> dict[int, Outcome]:
    """Foreign lists as outcomes by seed.

    Args:
        name: how the system is called.
        source: frame or path with task_id and items, or task_id, rank and item_id.
        dataset: the data.
        splits: by seed.
        shots: numbers of shots.
        depth: how long lists must be, where so many items are left.

    Raises:
        InvalidDataError: saying what is wrong with which rows, and how many more: missing and unknown tasks, unknown
            and seen items, duplicates, items that are no candidates, lists too short.
    """
    lists = _lists(name, source)
    outcomes: dict[int, dict[TaskSet, np.ndarray]] = {seed: {} for seed in splits}
    problems: list[str] = []
    expected = 0
    rows = {item: row for row, item in enumerate(dataset.catalog.ids.to_list())}
    for seed, one in splits.items():
        for ranking, candidates in one.rankings.items():
            for k in shots:
                tasks = one.tasks("test", k)
                ids = task_ids(ranking, seed, k, tasks.users).to_list()
                expected += len(ids)
                checker = _Checker(rows, candidates, len(dataset.catalog), depth, problems)
                outcomes[seed][TaskSet("test", k, ranking)] = checker.matrix(ids, tasks, lists)
    if left := list(lists):
        problems.append(f"{len(left):,} task ids are no tasks of this evaluation: {few(left)}")
    if problems:
        shown = "\n  ".join(problems[:20])
        more = f"\n  and {len(problems) - 20:,} more" if len(problems) > 20 else ""
        raise InvalidDataError(
            f"The rankings of {name!r} have {len(problems):,} problems in {expected:,} tasks:\n  {shown}{more}\n"
            "Every task needs one list of distinct catalogue items, none of its support."
        )
    return {seed: Outcome(found) for seed, found in outcomes.items()}


def _lists(name: str, source: FrameLike) -> dict[str, list[object]]:
    """Item ids by task, from either form."""
    frame = read_frame(source, f"rankings of {name!r}")
    what = f"rankings of {name!r}"
    if "items" in frame.columns and frame["items"].dtype in (pl.List, pl.Array):
        require(frame, ["task_id", "items"], what)
        tasks = frame["task_id"].cast(pl.String)
        if tasks.is_duplicated().any():
            raise InvalidDataError(f"The {what} name tasks twice: {few(tasks.filter(tasks.is_duplicated()).unique())}.")
        return dict(zip(tasks.to_list(), frame["items"].to_list(), strict=True))
    require(frame, ["task_id", "rank", "item_id"], what)
    grouped = frame.sort("rank", maintain_order=True).group_by("task_id", maintain_order=True).agg("item_id", "rank")
    odd = grouped.filter(pl.col("rank").list.unique().list.len() < pl.col("rank").list.len())
    if odd.height:
        raise InvalidDataError(f"The {what} give a rank twice in {odd.height:,} tasks: {few(odd['task_id'])}.")
    return dict(zip(grouped["task_id"].cast(pl.String).to_list(), grouped["item_id"].to_list(), strict=True))


class _Checker:
    """Turns lists of ids into rows and notes what is wrong with them."""

    def __init__(
        self, rows: Mapping[Any, int], candidates: np.ndarray | None, n_items: int, depth: int, problems: list[str]
    ) -> None:
        self._rows = rows
        self._allowed = None if candidates is None else frozenset(candidates.tolist())
        self._candidates = n_items if candidates is None else len(candidates)
        self._depth = depth
        self._problems = problems

    def matrix(self, ids: list[str], tasks: Tasks, lists: dict[str, list[object]]) -> np.ndarray:
        """Rows per task, padded with -1; the lists that were read are taken out of `lists`."""
        matrix = np.full((len(ids), self._depth), -1, np.int32)
        for place, task in enumerate(ids):
            items = lists.pop(task, None)
            if items is None:
                self._problems.append(f"task {task!r}: no list")
                continue
            found = [self._rows.get(item, -1) for item in items[: self._depth]]
            if wrong := self._wrong(items, found, tasks.supports[place]):
                self._problems.append(f"task {task!r}: {wrong}")
            else:
                matrix[place, : len(found)] = found
        return matrix

    def _wrong(self, items: list[object], found: list[int], support: np.ndarray) -> str:
        def named(which: list[int]) -> str:
            return ", ".join(f"{items[i]!r} at rank {i + 1}" for i in which[:3])

        seen = set(support.tolist())
        kinds = {
            "unknown items": [i for i, row in enumerate(found) if row < 0],
            "items of the support": [i for i, row in enumerate(found) if row in seen],
            "duplicates": [i for i, row in enumerate(found) if row >= 0 and row in found[:i]],
            "items that are no candidates": [
                i for i, row in enumerate(found) if row >= 0 and self._allowed is not None and row not in self._allowed
            ],
        }
        texts = [f"{kind}: {named(which)}" for kind, which in kinds.items() if which]
        left = self._candidates - (len(seen) if self._allowed is None else len(seen & self._allowed))
        if len(found) < min(self._depth, left):
            texts.append(f"{len(found)} items where {min(self._depth, left)} are asked for")
        return "; ".join(texts)
