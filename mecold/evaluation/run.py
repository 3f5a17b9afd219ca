"""The run: check everything, then fit and rank system by system, keep what is finished, and hand it all to the report."""

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from tqdm import tqdm

from mecold.data.frames import FrameLike
from mecold.errors import InvalidDataError
from mecold.evaluation.dataset import Dataset
from mecold.evaluation.export import read_rankings
from mecold.evaluation.measures import METRICS, World, per_user
from mecold.evaluation.plan import SEEDS, Plan, make_plan
from mecold.evaluation.protocol import Protocol, Split
from mecold.evaluation.ranking import PeakMemory, latency, rank
from mecold.evaluation.report.summary import Report, summarise
from mecold.evaluation.results import Outcome, Results, address, claim_folder
from mecold.evaluation.systems.base import Kind, System, Training, kind_of
from mecold.evaluation.systems.item_to_item import Named
from mecold.evaluation.systems.names import listed, members


def evaluate(
    systems: str | Sequence[Any],
    dataset: Dataset,
    *,
    protocol: Protocol = "user",
    shots: Sequence[int] | None = None,
    seeds: Sequence[int] = SEEDS,
    metrics: Sequence[str] = METRICS,
    tune: bool = False,
    reference: str | None = None,
    rankings: Mapping[str, FrameLike] | None = None,
    out: str | Path | None = None,
    device: str = "auto",
    progress: bool = False,
) -> Report:
    """Evaluate systems on cold users or cold items, ranked over the full catalogue.

    Args:
        systems: names (see `mecold.evaluation.systems.names`), `System`s or functions; a text is a comma-separated list.
        dataset: from `Dataset.read`.
        protocol: `"user"`, `"time"` or `"item"`.
        shots: support sizes; 0, 1, 3, 5, 10, or 10 for the `item` protocol.
        seeds: of split and systems; headline numbers are means over them.
        metrics: such as `"ndcg@10"`; the first is the headline, compared and tested.
        tune: choose each baseline's settings per number of shots on validation users.
        reference: the system that the others are compared with; the first one where None.
        rankings: lists made elsewhere, by system name (see `mecold.evaluation.export`).
        out: report folder; an interrupted run with the same settings goes on there. None writes nothing.
        device: where systems that use torch run: `"auto"`, `"cpu"`, `"cuda"`, ...
        progress: show progress bars.

    Returns:
        The report; written to `out` where that is given.

    Raises:
        InvalidDataError: before any work is done, on unknown names, unusable settings, a folder that holds another
            report, or rankings that are not valid.
    """
    _check_installed("psutil", *(["matplotlib"] if out is not None else []))
    chosen = listed(systems) if systems or not rankings else []
    plan = make_plan(
        dataset, protocol=protocol, shots=shots, seeds=seeds, metrics=metrics, tune=tune, device=device
    )  # fmt: skip
    given = {
        name: read_rankings(name, source, dataset, plan.splits, list(plan.shots), plan.depth)
        for name, source in (rankings or {}).items()
    }
    names = [family_of(system) if tune else system.name for system in chosen] + [*given]
    if len(set(names)) < len(names):
        raise InvalidDataError(f"Two systems have the same name among {', '.join(names)}.")
    if reference is not None and reference not in names:
        raise InvalidDataError(f"The reference {reference!r} is not among the systems: {', '.join(names)}.")
    folder = None if out is None else Path(out)
    if folder is not None:
        claim_folder(folder, plan.settings())
    store = Results(None if folder is None else folder / "results")
    outcomes: dict[str, dict[int, Outcome]] = {}
    failures: dict[str, str] = {}
    kinds: dict[str, Kind] = dict.fromkeys(given, "other")
    for name, system in zip(names, chosen, strict=False):
        kinds[name] = kind_of(system)
        try:
            outcomes[name] = _run(name, system, plan, store, progress=progress)
        except Exception as error:  # whatever a system raises: it is reported, and the others go on
            failures[name] = f"{type(error).__name__}: {error}"
    outcomes |= given
    if not outcomes:
        raise InvalidDataError(f"Every system failed. {'; '.join(f'{n}: {why}' for n, why in failures.items())}")
    finished = [system for name, system in zip(names, chosen, strict=False) if name in outcomes]
    needs_text = any(getattr(system, "needs_text", False) for system in finished)
    report = summarise(plan, outcomes, failures, kinds, _world(plan, with_text=needs_text), reference or names[0])
    if folder is not None:
        report.write(folder)
    return report


def _check_installed(*names: str) -> None:
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(f"Evaluation needs {' and '.join(missing)}: pip install 'mecold[evaluate]'")


def family_of(system: System) -> str:
    """The name under which a tuned system is reported: a baseline's without its settings."""
    return system.family if isinstance(system, Named) else system.name


def _world(plan: Plan, *, with_text: bool) -> dict[int, World]:
    dataset = plan.dataset
    lengths = np.array([len(text) for text in dataset.catalog.texts])
    vectors = dataset.vectors if with_text else None
    return {
        seed: World(Training(one.train, dataset).counts, len(one.train), lengths, vectors)
        for seed, one in plan.splits.items()
    }


def _run(name: str, system: System, plan: Plan, store: Results, *, progress: bool) -> dict[int, Outcome]:
    """One system on every seed."""
    if getattr(system, "needs_text", False):
        _ = plan.dataset.vectors  # encoded before any clock starts
    with tqdm(total=len(plan.seeds), desc=name, unit="seed", disable=not progress) as bar:
        found = {}
        for seed, one in plan.splits.items():
            tuned = members(system) if plan.tune else [system]
            found[seed] = (
                _tuned(tuned, plan, seed, one, store) if len(tuned) > 1 else _outcome(system, plan, seed, one, store)
            )
            bar.update()
    return found


def _tuned(tried: Sequence[System], plan: Plan, seed: int, one: Split, store: Results) -> Outcome:
    """Per number of shots the member that is best on validation users; the test users are looked at afterwards.

    Without validation users (the time split) members are judged on a split of the training log alone, and the chosen
    ones are fitted again on all of it.
    """
    nested = one.inner if not len(one.valid) else None
    if nested is None and not len(one.valid):
        raise InvalidDataError("There are neither validation users nor enough training users to tune on.")
    source, part = (one, "valid") if nested is None else (nested, "test")
    trials = {s.name: _outcome(s, plan, seed, source, store, inner=nested is not None) for s in tried}
    chosen: dict[str, str] = {}
    for k in plan.shots:
        tasks = source.tasks("valid" if nested is None else "test", k)
        if not len(tasks):
            raise InvalidDataError(f"No validation user has anything left after {k} shots to tune on. Leave them out.")
        marks = {
            name: per_user(trial.lists[f"{part}/{k}"], tasks.queries, plan.metrics[:1])[plan.metrics[0]].mean()
            for name, trial in trials.items()
        }  # fmt: skip
        chosen[str(k)] = max(marks, key=lambda name: marks[name])
    final = trials
    if nested is not None:
        final = {s.name: _outcome(s, plan, seed, one, store) for s in tried if s.name in chosen.values()}
    lists = {
        cell: final[chosen[cell.rpartition("/")[2]]].lists[cell]
        for cell in next(iter(final.values())).lists
        if cell != "zero-shot"
    }
    most = final[chosen[str(plan.shots[-1])]]
    costs = dict(most.costs) | {"tuning_seconds": sum(trial.costs["fit_seconds"] for trial in trials.values())}
    return Outcome(lists | {"zero-shot": most.lists["zero-shot"]}, costs, chosen)


def _outcome(system: System, plan: Plan, seed: int, one: Split, store: Results, *, inner: bool = False) -> Outcome:
    """Fit and rank, or take what an earlier run left."""
    identity = getattr(system, "fingerprint", None)
    if identity is not None and getattr(system, "needs_text", False):
        identity += f" text {plan.dataset.vectors_fingerprint}"
    key = None if identity is None else address(
        plan.settings() | {"seed": seed, "seeds": [], "tune": False, "inner": inner, "system": identity,
                           "device": plan.device, "metrics": plan.depth},
        type(system).__module__,
    )  # fmt: skip
    found = store.load(key)
    if found is None:
        found = _fit_and_rank(system, plan, seed, one)
        store.save(key, found)
    return found


def _fit_and_rank(system: System, plan: Plan, seed: int, one: Split) -> Outcome:
    n_items = plan.dataset.catalog.size
    lists: dict[str, np.ndarray] = {}
    parts = ["test", "valid"] if kind_of(system).startswith("order") and len(one.valid) else ["test"]
    with PeakMemory() as memory:
        start = perf_counter()
        fitted = system.fit(Training(one.train, plan.dataset, seed, plan.device))
        fit_seconds = perf_counter() - start
        for ranking, candidates in one.rankings.items():
            for part in parts:
                for k in plan.shots:
                    tasks = one.tasks(part, k)  # type: ignore[arg-type]
                    lists[f"{ranking}{part}/{k}"] = rank(fitted, tasks, candidates, plan.depth, n_items)
        nobody = one.tasks("test", 0)
        first = replace(
            nobody,
            users=nobody.users.head(1),
            supports=nobody.supports[:1],
            queries=nobody.queries[:1],
            times=nobody.times[:1],
        )
        deep = plan.depth + plan.shots[-1]
        lists["zero-shot"] = rank(fitted, first, one.rankings[""], deep, n_items)
    costs = {"fit_seconds": fit_seconds, "rank_seconds": perf_counter() - start - fit_seconds}
    costs |= {"peak_bytes": float(memory.peak)} | latency(fitted, one.tasks("test", plan.shots[-1]), 10)
    return Outcome(lists, costs)
