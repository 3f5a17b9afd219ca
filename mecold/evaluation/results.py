"""What each system brought back, kept on disk under a hash of everything that decides it; so a run can go on."""

import ast
import hashlib
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from mecold.errors import InvalidDataError
from mecold.evaluation.systems.base import Kind
from mecold.swap import write_text

RUN_FILE = "run.json"
_ALWAYS = ("evaluation.run", "evaluation.ranking", "evaluation.protocol", "evaluation.dataset")


class TaskSet(NamedTuple):
    """Which tasks lists are for.

    Args:
        part: test users, or those on whom settings are chosen.
        shots: items of the support.
        ranking: which candidates are ranked; a key of `Split.rankings`.
    """

    part: Literal["test", "valid"]
    shots: int
    ranking: str = ""

    def __str__(self) -> str:
        return f"{self.ranking}{self.part}/{self.shots}"

    @classmethod
    def parse(cls, text: str) -> "TaskSet":
        """The inverse of `str`."""
        front, _, shots = text.partition("/")
        part: Literal["test", "valid"] = "valid" if front.endswith("valid") else "test"
        return cls(part, int(shots), front.removesuffix(part))


@dataclass(frozen=True)
class Costs:
    """What a system costs on one split; None where it was not measured.

    Args:
        fit_seconds: time to fit.
        rank_seconds: time to rank all tasks.
        peak_bytes: how far the process grew meanwhile.
        adapt_p50_ms: adaptation of one user, median.
        adapt_p95_ms: the same, 95th percentile.
        recommend_p50_ms: scores of the catalogue and the top 10 for one user, median.
        recommend_p95_ms: the same, 95th percentile.
        tuning_seconds: time to fit every member that `tune` tried.
    """

    fit_seconds: float | None = None
    rank_seconds: float | None = None
    peak_bytes: float | None = None
    adapt_p50_ms: float | None = None
    adapt_p95_ms: float | None = None
    recommend_p50_ms: float | None = None
    recommend_p95_ms: float | None = None
    tuning_seconds: float | None = None


@dataclass(frozen=True)
class Outcome:
    """One system on one split.

    Args:
        lists: ranked rows.
        zero_shot: the one list of a user without a support; None where a stack gave lists alone.
        costs: what it took.
        chosen: with tuning, the member that won on validation, by shots.
        told: what the fitted system says of itself.
    """

    lists: Mapping[TaskSet, np.ndarray]
    zero_shot: np.ndarray | None = None
    costs: Costs = field(default_factory=Costs)
    chosen: Mapping[int, str] = field(default_factory=dict)
    told: str = ""


@dataclass(frozen=True)
class Finished:
    """A system that came through.

    Args:
        kind: which envelope it belongs to, if any.
        by_seed: what it brought back.
        needs_text: whether it read text vectors.
    """

    kind: Kind
    by_seed: Mapping[int, Outcome]
    needs_text: bool = False


@cache
def code_fingerprint(module: str) -> str:
    """Hash of the source that a system's results can depend on: what ranks, the module that the system is defined in, and
    all of the package that these import.

    Args:
        module: `type(system).__module__`; of the package, or anybody's.
    """
    root, digest = Path(__file__).parents[1], hashlib.sha256()
    source = Path(getattr(sys.modules.get(module), "__file__", None) or "")
    own = [] if not source.is_file() else list(_imported(source))
    reached = _reached(root, [*_ALWAYS[1:], *own]) | {_ALWAYS[0]}
    digest.update(source.read_bytes() if source.is_file() else b"")
    for name in sorted(reached):
        digest.update(name.encode() + _source(root, name).read_bytes())
    return digest.hexdigest()[:16]


def _source(root: Path, name: str) -> Path:
    path = root.joinpath(*name.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _reached(root: Path, names: Sequence[str]) -> set[str]:
    """Modules of the package that these import, directly or not, and they themselves."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        waiting += _imported(_source(root, name))
    return found


def _imported(source: Path) -> Iterator[str]:
    """Modules of the package that a file imports."""
    for node in ast.walk(ast.parse(source.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            wanted = [alias.name for alias in node.names]
        else:
            wanted = [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
        yield from (one.removeprefix("mecold.") for one in wanted if one.startswith("mecold."))


def address(parts: Mapping[str, Any], module: str) -> str:
    """The name of a result: a hash of what decides it and of the code that made it."""
    text = json.dumps({**parts, "code": code_fingerprint(module)}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Results:
    """Outcomes in a folder; None keeps nothing."""

    folder: Path | None

    def load(self, key: str | None) -> Outcome | None:
        """An outcome that was saved whole, or None."""
        path = self._path(key)
        if path is None or not path.is_file():
            return None
        try:
            with np.load(path, allow_pickle=False) as stored:
                about = json.loads(str(stored["about"]))
                zero_shot = stored["zero_shot"]
                lists = {TaskSet.parse(name): stored[name] for name in stored.files if "/" in name}
                chosen = {int(k): name for k, name in about["chosen"].items()}
                return Outcome(lists, zero_shot, Costs(**about["costs"]), chosen, about["told"])
        except Exception:  # damaged, in whatever way the libraries behind say so: it is made again
            return None

    def save(self, key: str | None, outcome: Outcome) -> None:
        """Write beside, then rename: a killed run leaves nothing half-written under the name."""
        path = self._path(key)
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        about = json.dumps({"costs": asdict(outcome.costs), "chosen": dict(outcome.chosen), "told": outcome.told})
        lists: dict[str, Any] = {str(tasks): rows for tasks, rows in outcome.lists.items()}
        part = path.with_suffix(f".{os.getpid()}.part")
        with part.open("wb") as file:
            np.savez_compressed(file, about=np.array(about), zero_shot=np.asarray(outcome.zero_shot), **lists)
        part.replace(path)

    def _path(self, key: str | None) -> Path | None:
        return self.folder / f"{key}.npz" if self.folder is not None and key is not None else None


def claim_folder(folder: Path, settings: Mapping[str, Any]) -> None:
    """Make the folder this run's own; a run with the same settings may go on in it, with other systems too.

    Raises:
        InvalidDataError: if the folder holds something else.
    """
    run = folder / RUN_FILE
    wanted = json.loads(json.dumps(dict(settings)))
    if run.is_file():
        try:
            there = json.loads(run.read_text())
        except (ValueError, RecursionError):
            there = {}
        if there != wanted:
            known = there if isinstance(there, dict) else {}
            differing = [key for key in wanted if known.get(key) != wanted[key]]
            raise InvalidDataError(
                f"'{folder}' holds the report of another run: {', '.join(differing) or 'its run.json'} differ. "
                "Name another folder, or remove this one."
            )
    elif folder.exists() and (not folder.is_dir() or {path.name for path in folder.iterdir()} - {_part(run).name}):
        raise InvalidDataError(f"'{folder}' exists and is no report of mecold. Name another folder.")
    folder.mkdir(parents=True, exist_ok=True)
    write_text(run, json.dumps(wanted, indent=1))


def _part(path: Path) -> Path:
    return path.with_name(f".{path.name}.part")
