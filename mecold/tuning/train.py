"""The door: from a shop's texts and log to a model folder that any reader of sentence-transformers models can read."""

import hashlib
import json
import shutil
import uuid
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from mecold.data.catalog import Catalog, TextTemplate
from mecold.data.frames import Columns, FrameLike, read_frame
from mecold.data.interactions import Interactions, OnUnknown
from mecold.devices import device_of
from mecold.encode.model_folder import DEFAULT_MODEL, ModelSettings, find_model, read_settings, weights_hash, words_hash
from mecold.errors import DataWarning, EncoderError, InvalidDataError, few
from mecold.report import FitReport, Recorder, Tracker
from mecold.tuning.config import EncoderTraining
from mecold.tuning.judge import HeldOut, Judge, Matching, NewItems
from mecold.tuning.lessons import LEAST_ITEMS, TASKS, Ground, Lesson, Task
from mecold.tuning.loop import Weights, run
from mecold.tuning.tower import Tower, tower_width
from mecold.version import __version__

RECORD = "mecold_training.json"
LEAST_HELD = 10  # items with two views, to judge by
WITH_LOG = ("together",)
WITHOUT_LOG = ("views",)


@dataclass(frozen=True)
class TrainedEncoder:
    """What a training came to.

    Args:
        folder: the model folder.
        tasks: what was learned.
        weight: how far from the base's weights (0) to the trained ones (1) the written ones lie.
        measure: by what held-out items were judged; "" where there were too few.
        base: the base's score by it.
        score: the score of what was written.
        report: curves, notes and seconds.
    """

    folder: Path
    tasks: tuple[str, ...]
    weight: float
    measure: str
    base: float
    score: float
    report: FitReport = field(repr=False)


def train_encoder(
    items: FrameLike,
    interactions: FrameLike | None = None,
    *,
    out: str | Path = "encoder",
    base: str | Path = DEFAULT_MODEL,
    tasks: str | Sequence[str] | Mapping[str, Task] = "auto",
    config: EncoderTraining | None = None,
    template: TextTemplate | None = None,
    item_columns: Columns | None = None,
    interaction_columns: Columns | None = None,
    on_unknown: OnUnknown = "raise",
    liked_from: float | None = None,
    rng: int = 0,
    device: str = "auto",
    trackers: Sequence[Tracker] = (),
    progress: bool = False,
) -> TrainedEncoder:
    """Train a BERT on a shop's own texts, and on its log where there is one.

    A share of the items and of the users is held out. Training stops when held-out items no longer gain; then the weights
    between the base's and the trained ones that rank held-out items best are written. Where none is better than the base by
    `config.least_gain`, the base is written as it is.

    Args:
        items: frame or path: `item_id` and text columns, as for `Recommender.fit_meta`.
        interactions: frame or path of the log; None: item texts alone.
        out: folder to write to. It must not exist, or be empty.
        base: hub name or folder of a BERT-like model.
        tasks: names of built-in tasks, or a mapping from name to task. `"auto"` is `together` with a log, `views` without.
        config: settings.
        template: which item columns make the text.
        item_columns: canonical name -> the caller's name, for the items.
        interaction_columns: canonical name -> the caller's name, for the log.
        on_unknown: what to do with interactions of items that are not in `items`.
        liked_from: with ratings, interactions rated lower are not learned from.
        rng: seed of all chance.
        device: a torch device, or `"auto"`.
        trackers: hear of every look at the held-out items.
        progress: show progress bars.

    Returns:
        Where the model lies, what was chosen and why. A run that was killed goes on when it is called again alike.

    Raises:
        EncoderError: if the base cannot be trained, or `out` is in the way.
        InvalidDataError: if there is nothing to learn from, or a task is unknown or has no ground.
    """
    config = config or EncoderTraining()
    out, folder = Path(out).absolute(), find_model(str(base))
    wanted = _tasks(tasks, with_log=interactions is not None)
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise EncoderError(f"'{out}' exists and is not empty; nothing was trained. Name another folder, or delete it.")
    frame = read_frame(items, "items", item_columns, names=(template or TextTemplate()).names)
    catalog = Catalog.read(frame, template=template)
    log = None
    if interactions is not None:
        log = Interactions.read(interactions, catalog, columns=interaction_columns, on_unknown=on_unknown)
        log = replace(log, labels=None if liked_from is None else log.labels_from(liked_from))
    columns = frame.unique("item_id", keep="first", maintain_order=True)
    shop = Shop(catalog, columns, log)
    return train_on(
        shop, folder, out, wanted, config, seed=rng, device=device_of(device),
        recorder=Recorder(trackers=trackers, progress=progress),
    )  # fmt: skip


@dataclass(frozen=True)
class Shop:
    """What an encoder is trained on.

    Args:
        catalog: the items.
        columns: their table, a row per row of the catalogue.
        log: histories, if any.
        rows: items that may be looked at at all; None for all.
    """

    catalog: Catalog
    columns: pl.DataFrame
    log: Interactions | None = None
    rows: np.ndarray | None = None

    @property
    def readable(self) -> np.ndarray:
        """Rows of items that have a text and, with a log, were touched."""
        there = np.array([text != "" for text in self.catalog.texts])
        if self.rows is not None:
            there &= np.isin(np.arange(len(there)), self.rows)
        if self.log is not None:
            there &= np.bincount(self.log.items, minlength=len(there)) > 0
        return np.flatnonzero(there)


def train_on(
    shop: Shop, base: Path, out: Path, tasks: Mapping[str, Task], config: EncoderTraining, *, seed: int,
    device: torch.device, recorder: Recorder,
) -> TrainedEncoder:  # fmt: skip
    """`train_encoder` after everything was read and checked."""
    texts, settings = list(shop.catalog.texts), read_settings(base)
    rows = shop.readable
    if len(rows) < LEAST_ITEMS:
        raise InvalidDataError(f"{len(rows):,} items have a text and can be learned from; it takes {LEAST_ITEMS}.")
    rng = np.random.default_rng(seed)
    held = HeldOut.draw(rows, shop.log, config.held_out, rng)
    ground = Ground(
        texts, shop.columns, np.setdiff1d(rows, held.items), shop.catalog.fields,
        None if shop.log is None else held.rest(shop.log), tower_width(base), config,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        lessons = _lessons(tasks, ground, recorder)
    judge, extra = _judge(shop, ground, held)
    if judge is None:
        recorder.note("Too little is held out to judge by: all steps were done, and the last weights kept.")
    unique, of = _placed([*texts, *extra], {name: lesson.texts for name, lesson in lessons.items()})
    place = _workspace(out, base, unique, ground, tasks, config, seed)
    tower = Tower(
        base, unique, trained_layers=config.trained_layers, max_length=config.max_length, place=place, device=device,
        progress=recorder.progress,
    )  # fmt: skip
    start, count = tower.weights(), len(texts) + len(extra)
    first = 0.0 if judge is None else judge.score(tower.vectors(count))
    best, progress = run(tower, lessons, of, judge, count, config, place=place, seed=seed, recorder=recorder)
    weight, score = (1.0, 0.0) if judge is None else _blend(tower, start, best, judge, count, first, config)
    tower.put(_between(start, best, weight))
    recorder.report.best_step = progress.best_step
    recorder.note(_verdict(weight, first, score, judge))
    found = TrainedEncoder(
        out, tuple(lessons), weight, "" if judge is None else judge.name, first, score, recorder.report
    )
    _write(tower, base, settings, out, found, config)
    shutil.rmtree(place, ignore_errors=True)
    return found


def _tasks(tasks: str | Sequence[str] | Mapping[str, Task], *, with_log: bool) -> dict[str, Task]:
    if isinstance(tasks, Mapping):
        return dict(tasks)
    names = [tasks] if isinstance(tasks, str) else list(tasks)
    if names == ["auto"]:
        names = list(WITH_LOG if with_log else WITHOUT_LOG)
    if unknown := [name for name in names if name not in TASKS]:
        raise InvalidDataError(f"There is no task {few(unknown)}; there are {', '.join(TASKS)}.")
    if not names:
        raise InvalidDataError(f"tasks names none; there are {', '.join(TASKS)}.")
    return {name: TASKS[name] for name in names}


def _lessons(tasks: Mapping[str, Task], ground: Ground, recorder: Recorder) -> dict[str, Lesson]:
    """What there is ground for; the others are told."""
    made = {name: task(ground) for name, task in tasks.items()}
    missing = [name for name, lesson in made.items() if lesson is None]
    found = {name: lesson for name, lesson in made.items() if lesson is not None}
    if not found:
        raise InvalidDataError(
            f"There is nothing to learn {few(missing)} from: it takes {LEAST_ITEMS} items with what the task reads (a log, a "
            f"second text column, a column of classes). `dropout` needs texts alone. Tasks: {', '.join(TASKS)}."
        )
    if missing:
        text = f"The data have no ground for the tasks {few(missing)}; they were left out."
        warnings.warn(text, DataWarning, stacklevel=4)
        recorder.note(text)
    return found


def _placed(first: Sequence[str], others: Mapping[str, Sequence[str]]) -> tuple[list[str], dict[str, np.ndarray]]:
    """All texts, the first ones as they stand and the others once each; and the rows of the others, by name."""
    every, at = list(first), {text: row for row, text in reversed(list(enumerate(first)))}
    for text in (text for own in others.values() for text in own):
        if text not in at:
            at[text] = len(every)
            every.append(text)
    return every, {name: np.array([at[text] for text in own], np.int64) for name, own in others.items()}


def _judge(shop: Shop, ground: Ground, held: HeldOut) -> tuple[Judge | None, list[str]]:
    """By the log where it is long enough, else by titles and descriptions; and the texts that the latter reads."""
    judge = None if shop.log is None else NewItems.of(shop.log, held, shop.catalog.size)
    if judge is not None or len(ground.fields) < 2:
        return judge, []
    first, second = (ground.field_texts(names) for names in (ground.fields[:1], ground.fields[1:]))
    some = [row for row in held.items.tolist() if first[row] and second[row]]
    if len(some) < LEAST_HELD:
        return None, []
    start = len(ground.texts) + np.arange(len(some))
    return Matching(start, start + len(some)), [*(first[row] for row in some), *(second[row] for row in some)]


def _blend(
    tower: Tower, start: Weights, best: Weights, judge: Judge, count: int, base: float, config: EncoderTraining
) -> tuple[float, float]:
    """How far to go from the base to the trained weights, and the score there."""
    scores = {}
    for weight in config.blends:
        tower.put(_between(start, best, weight))
        scores[weight] = judge.score(tower.vectors(count))
    weight = max(scores, key=lambda one: scores[one])
    return (weight, scores[weight]) if scores[weight] >= base * (1 + config.least_gain) else (0.0, base)


def _between(start: Weights, end: Weights, weight: float) -> Weights:
    if weight in (0.0, 1.0):
        return start if weight == 0.0 else end
    return {name: torch.lerp(value, end[name], weight) for name, value in start.items()}


def _verdict(weight: float, base: float, score: float, judge: Judge | None) -> str:
    if judge is None:
        return "The trained weights were kept."
    if weight == 0.0:
        return f"The base was kept: no trained weights are better on what was held out ({judge.name}: {base:.4f})."
    return f"{weight:.0%} of the way to the trained weights were kept: {judge.name} {score:.4f}, the base's {base:.4f}."


def _workspace(
    out: Path, base: Path, texts: Sequence[str], ground: Ground, tasks: Mapping[str, Task], config: EncoderTraining, seed: int
) -> Path:  # fmt: skip
    """The folder of states and checkpoints beside `out`; what another training left there is an error."""
    log = ground.log
    about = [
        __version__, weights_hash(base), words_hash(base), asdict(config), list(tasks), seed, list(texts), ground.rows.tolist(),
        [] if log is None else [log.items.tolist(), log.offsets.tolist()],
    ]  # fmt: skip
    identity = hashlib.sha256(json.dumps(about).encode()).hexdigest()
    place = out.with_name(f".{out.name}.training")
    place.mkdir(parents=True, exist_ok=True)
    mark = place / "identity"
    if mark.exists() and mark.read_text() != identity:
        raise EncoderError(f"'{place}' holds what another training left there. Delete it, or name another `out`.")
    mark.write_text(identity)
    return place


def _write(
    tower: Tower, base: Path, settings: ModelSettings, out: Path, found: TrainedEncoder, config: EncoderTraining
) -> None:  # fmt: skip
    """Write the model beside, then move it to where it belongs."""
    fresh = out.with_name(f".{out.name}.new-{uuid.uuid4().hex[:8]}")
    try:
        tower.model.save_pretrained(fresh)
        for file in base.iterdir():  # tokenizer, prompts, pooling: as they are
            if file.suffix in (".json", ".txt", ".model") and not (fresh / file.name).exists():
                shutil.copyfile(file, fresh / file.name)
        _modules(base, fresh, settings)
        about: dict[str, Any] = {
            "mecold": __version__, "base": weights_hash(base), "tasks": found.tasks, "weight": found.weight,
            "measure": found.measure, "base_score": found.base, "score": found.score, "step": found.report.best_step,
            "config": asdict(config), "notes": found.report.notes,
        }  # fmt: skip
        (fresh / RECORD).write_text(json.dumps(about, indent=1), "utf-8")
        if out.exists():
            out.rmdir()  # empty, as was checked
        fresh.rename(out)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _modules(base: Path, fresh: Path, settings: ModelSettings) -> None:
    """What sentence-transformers reads: the base's own files, or those of a plain model with mean pooling."""
    if (base / "modules.json").exists():
        for module in json.loads((base / "modules.json").read_text("utf-8")):
            inside = (base / module["path"]).resolve()
            if module["path"] and inside.is_dir() and base.resolve() in inside.parents:
                shutil.copytree(inside, fresh / module["path"], dirs_exist_ok=True)
        return
    kind = "sentence_transformers.models."
    parts = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": kind + name} for i, (path, name) in enumerate(parts.items())
    ]
    (fresh / "modules.json").write_text(json.dumps(modules), "utf-8")
    width = json.loads((fresh / "config.json").read_text("utf-8"))["hidden_size"]
    for path in ("1_Pooling", "2_Normalize"):
        (fresh / path).mkdir()
    pooling = {"word_embedding_dimension": width, f"pooling_mode_{settings.pooling}_tokens": True}
    (fresh / "1_Pooling" / "config.json").write_text(json.dumps(pooling), "utf-8")
