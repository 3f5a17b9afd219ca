"""The run: check everything, then fit and rank system by system, keep what is finished, and hand it all to the report."""

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

from tqdm import tqdm

from mecold.data.frames import FrameLike
from mecold.errors import InvalidDataError
from mecold.evaluation.dataset import Dataset
from mecold.evaluation.export import read_rankings
from mecold.evaluation.measures import METRICS, per_user
from mecold.evaluation.plan import SEEDS, Plan, make_plan
from mecold.evaluation.protocol import Protocol, Split
from mecold.evaluation.ranking import PeakMemory, latency, rank
from mecold.evaluation.report.summary import Report, summarise
from mecold.evaluation.results import Costs, Finished, Outcome, Results, TaskSet, address, claim_folder
from mecold.evaluation.systems.base import Entry, Training
from mecold.evaluation.systems.names import entries_of, with_members


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
    if out is not None and importlib.util.find_spec("matplotlib") is None:
        raise ImportError("A report folder has pictures, which need matplotlib: pip install 'mecold[evaluate]'")
    plan = make_plan(
        dataset, protocol=protocol, shots=shots, seeds=seeds, metrics=metrics, tune=tune, device=device
    )  # fmt: skip
    job = _checked(plan, systems, reference, rankings or {}, None if out is None else Path(out))
    finished, failed = _run(job, progress=progress)
    report = summarise(plan, finished, failed, job.reference)
    if job.folder is not None:
        report.write(job.folder)
    return report


@dataclass(frozen=True)
class _Job:
    """A checked plan with the systems that take part.

    Args:
        plan: data, splits, metrics.
        entries: what is fitted.
        given: lists made elsewhere.
        reference: the system that the others are compared with.
        folder: where results are kept and the report goes.
    """

    plan: Plan
    entries: Sequence[Entry]
    given: Mapping[str, Finished]
    reference: str
    folder: Path | None


def _checked(
    plan: Plan, systems: str | Sequence[Any], reference: str | None, rankings: Mapping[str, FrameLike],
    folder: Path | None,
) -> _Job:  # fmt: skip
    """Check names, rankings and the folder, which becomes this run's own."""
    entries = entries_of(systems)
    if plan.tune:
        entries = [with_members(entry) for entry in entries]
    given = {
        name: Finished("other", read_rankings(name, source, plan.dataset, plan.splits, list(plan.shots), plan.depth))
        for name, source in rankings.items()
    }
    names = [*(entry.name for entry in entries), *given]
    if not names:
        raise InvalidDataError("No system was named.")
    if len(set(names)) < len(names):
        raise InvalidDataError(f"Two systems have the same name among {', '.join(names)}.")
    if reference is not None and reference not in names:
        raise InvalidDataError(f"The reference {reference!r} is not among the systems: {', '.join(names)}.")
    if folder is not None:
        claim_folder(folder, plan.settings())
    return _Job(plan, entries, given, reference or names[0], folder)


def _run(job: _Job, *, progress: bool) -> tuple[dict[str, Finished], dict[str, str]]:
    """What came through by name, and the reasons of what did not."""
    store = Results(None if job.folder is None else job.folder / "results")
    finished: dict[str, Finished] = {}
    failed: dict[str, str] = {}
    for entry in job.entries:
        try:
            by_seed = _on_every_seed(entry, job.plan, store, progress=progress)
            finished[entry.name] = Finished(entry.kind, by_seed, entry.needs_text)
        except Exception as error:  # whatever a system raises: it is reported, and the others go on
            failed[entry.name] = f"{type(error).__name__}: {error}"
    finished |= job.given
    if not finished:
        raise InvalidDataError(f"Every system failed. {'; '.join(f'{name}: {why}' for name, why in failed.items())}")
    return finished, failed


def _on_every_seed(entry: Entry, plan: Plan, store: Results, *, progress: bool) -> dict[int, Outcome]:
    if entry.needs_text:
        _ = plan.dataset.vectors  # encoded before any clock starts
    make = _tuned if entry.members else _outcome
    with tqdm(total=len(plan.seeds), desc=entry.name, unit="seed", disable=not progress) as bar:
        found = {}
        for seed, one in plan.splits.items():
            found[seed] = make(entry, plan, seed, one, store)
            bar.update()
    return found


def _tuned(entry: Entry, plan: Plan, seed: int, one: Split, store: Results) -> Outcome:
    """Per number of shots the member that is best on validation users; the test users are looked at afterwards.

    Without validation users (the time split) members are judged on a split of the training log alone, and the chosen
    ones are fitted again on all of it.
    """
    nested = one.inner if not len(one.valid) else None
    if nested is None and not len(one.valid):
        raise InvalidDataError("There are neither validation users nor enough training users to tune on.")
    source = one if nested is None else nested
    trials = {s.name: _outcome(s, plan, seed, source, store, inner=nested is not None) for s in entry.members}
    chosen: dict[int, str] = {}
    for k in plan.shots:
        which = TaskSet("valid" if nested is None else "test", k)
        tasks = source.tasks(which.part, k)
        if not len(tasks):
            raise InvalidDataError(f"No validation user has anything left after {k} shots to tune on. Leave them out.")
        marks = {
            name: per_user(trial.lists[which], tasks.queries, plan.metrics[:1])[plan.metrics[0]].mean()
            for name, trial in trials.items()
        }  # fmt: skip
        chosen[k] = max(marks, key=lambda name: marks[name])
    final = trials
    if nested is not None:
        final = {s.name: _outcome(s, plan, seed, one, store) for s in entry.members if s.name in chosen.values()}
    lists = {which: final[chosen[which.shots]].lists[which] for which in next(iter(final.values())).lists}
    most = final[chosen[plan.shots[-1]]]
    seconds = sum(trial.costs.fit_seconds or 0.0 for trial in trials.values())
    return Outcome(lists, most.zero_shot, replace(most.costs, tuning_seconds=seconds), chosen)


def _outcome(entry: Entry, plan: Plan, seed: int, one: Split, store: Results, *, inner: bool = False) -> Outcome:
    """Fit and rank, or take what an earlier run left."""
    identity = entry.fingerprint
    if identity is not None and entry.needs_text:
        identity += f" text {plan.dataset.vectors_fingerprint}"
    key = None if identity is None else address(
        plan.settings() | {"seed": seed, "seeds": [], "tune": False, "inner": inner, "system": identity,
                           "device": plan.device, "metrics": plan.depth},
        type(entry.system).__module__,
    )  # fmt: skip
    found = store.load(key)
    if found is None:
        found = _fit_and_rank(entry, plan, seed, one)
        store.save(key, found)
    return found


def _fit_and_rank(entry: Entry, plan: Plan, seed: int, one: Split) -> Outcome:
    """Fit, and rank the test users; the validation users too where a baseline may become the bar."""
    n_items = plan.dataset.catalog.size
    parts = ["test", "valid"] if entry.kind.startswith("order") and len(one.valid) else ["test"]
    sets = [TaskSet(part, k, ranking) for ranking in one.rankings for part in parts for k in plan.shots]  # type: ignore[arg-type]
    with PeakMemory() as memory:
        start = perf_counter()
        ranker = entry.fit(Training(one.train, plan.dataset, seed, plan.device))
        fit_seconds = perf_counter() - start
        lists = {
            which: rank(ranker, one.tasks(which.part, which.shots), one.rankings[which.ranking], plan.depth, n_items)
            for which in sets
        }
        deep = plan.depth + plan.shots[-1]
        zero_shot = rank(ranker, one.tasks("test", 0).between(0, 1), one.rankings[""], deep, n_items)[0]
    costs = Costs(
        fit_seconds, perf_counter() - start - fit_seconds, float(memory.peak),
        **latency(ranker, one.tasks("test", plan.shots[-1]), 10),
    )  # fmt: skip
    return Outcome(lists, zero_shot, costs, told=getattr(ranker.fitted, "told", ""))
