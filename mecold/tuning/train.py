"""The door: from a shop's texts and log to a model folder that any reader of sentence-transformers models can read."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from mecold.data.catalog import Catalog, TextTemplate
from mecold.data.events import EventRule
from mecold.data.frames import Columns, FrameLike, read_frame, require
from mecold.data.impressions import read_impressions
from mecold.data.interactions import Interactions, OnUnknown
from mecold.devices import device_of
from mecold.encode.model_folder import DEFAULT_MODEL, find_model, weights_hash, words_hash
from mecold.encode.taught import read_taught, taught_among
from mecold.errors import DataWarning, InvalidDataError, few
from mecold.report import FitReport, Recorder, Tracker
from mecold.tuning.base import Base
from mecold.tuning.config import EncoderTraining
from mecold.tuning.folder import check_out, clear, workspace, write_encoder
from mecold.tuning.ground import LEAST_ITEMS, Ground, Shop, read_unlabelled
from mecold.tuning.judge import HeldOut, Judge, Matching, NewItems, SameThing
from mecold.tuning.lessons import Lesson
from mecold.tuning.loop import Course, Loop, Weights
from mecold.tuning.tasks import TASKS, Task
from mecold.tuning.tower import Tower
from mecold.version import __version__

LEAST_HELD = 10  # items with two views, to judge by
WITH_LOG = ("together",)
WITHOUT_LOG = ("views",)
WITH_THINGS = ("same",)


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
    predict: Sequence[str] = (),
    same: str = "",
    unlabelled: FrameLike | None = None,
    impressions: FrameLike | None = None,
    impression_columns: Columns | None = None,
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
        tasks: names of built-in tasks, or a mapping from name to task. `"auto"` is `same` if that is given, `together`
            with a log, `views` without; and `clicks` with impressions.
        config: settings.
        template: which item columns make the text.
        item_columns: canonical name -> the caller's name, for the items.
        interaction_columns: canonical name -> the caller's name, for the log.
        on_unknown: what to do with interactions of items that are not in `items`.
        liked_from: with ratings, interactions rated lower are not learned from.
        predict: kinds of events to learn from, where there is a column `event`; empty for all.
        same: column of the items that names what an item is an offer of (a product, a work). The encoder is then for telling
            which texts mean the same thing, and is judged by that.
        unlabelled: frame or path of texts that are no items, under the names of the items' text columns: further ground for
            `views` and `dropout`.
        impressions: frame or path: `text`, `impressions`, `clicks`, and `group`, the test or place in which texts were shown
            beside one another; ground for `clicks`.
        impression_columns: canonical name -> the caller's name, for the impressions.
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
    config, template = config or EncoderTraining(), template or TextTemplate()
    out, folder = Path(out).absolute(), find_model(str(base))
    kinds = WITH_THINGS if same else WITHOUT_LOG if interactions is None else WITH_LOG
    wanted, where = _tasks(tasks, kinds if impressions is None else (*kinds, "clicks")), device_of(device)
    check_out(out)
    frame = read_frame(items, "items", item_columns, names=template.names)
    catalog, log = Catalog.read(frame, template=template), None
    if interactions is not None:
        log = Interactions.read(
            interactions, catalog, columns=interaction_columns, on_unknown=on_unknown, events=EventRule(tuple(predict))
        )  # fmt: skip
        if liked_from is not None and log.ratings is None:
            raise InvalidDataError(f"liked_from={liked_from} needs a `rating` column; the interactions have none.")
        log = log if liked_from is None else replace(log, labels=log.labels_from(liked_from))
    if same:
        require(frame, [same], "items")
    shop = Shop(
        catalog, frame.unique("item_id", keep="first", maintain_order=True), log, template, same,
        None if unlabelled is None else read_unlabelled(unlabelled, catalog.fields),
        None if impressions is None else read_impressions(impressions, impression_columns),
    )  # fmt: skip
    return train_on(
        shop, folder, out, wanted, config, seed=rng, device=where, recorder=Recorder(trackers=trackers, progress=progress)
    )  # fmt: skip


def train_on(
    shop: Shop, folder: Path, out: Path, tasks: Mapping[str, Task], config: EncoderTraining, *, seed: int,
    device: torch.device, recorder: Recorder,
) -> TrainedEncoder:  # fmt: skip
    """`train_encoder` after everything was read and checked."""
    rows, texts = shop.readable, list(shop.catalog.texts)
    if len(rows) < LEAST_ITEMS:
        raise InvalidDataError(f"{len(rows):,} items have a text and can be learned from; it takes {LEAST_ITEMS}.")
    base = Base.load(folder)
    held = HeldOut.draw(rows, texts, shop.things, shop.log, config.held_out, np.random.default_rng(seed))
    if taught_among(read_taught(folder), [texts[row] for row in held.items]).any():
        recorder.note("The base was trained on items that are held out now; it looks better on them than on new ones.")
    ground = shop.ground(held, base.width, config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        lessons = _lessons(tasks, ground, recorder)
    judge, extra = _judge(shop, held)
    if judge is None:
        recorder.note("Too little is held out to judge by: all steps were done, and the last weights kept.")
    every, of = _placed([*texts, *extra], {name: lesson.texts for name, lesson in lessons.items()})
    weights = weights_hash(folder)
    of_base = [weights, words_hash(folder), asdict(base.settings)]
    place = workspace(out, [__version__, *of_base, asdict(config), list(tasks), seed, every, *shop.identity()])
    tower = Tower(
        base, every, trained_layers=config.trained_layers, max_length=config.max_length, place=place, device=device,
        progress=recorder.progress,
    )  # fmt: skip
    course, start = Course(tower, lessons, of, judge), tower.weights()
    first = course.score()
    best, progress = Loop(course, config, place, seed, recorder).run(first)
    whole = all(bool(value.isfinite().all()) for value in best.values())
    weight, score = (1.0 if whole else 0.0, 0.0) if judge is None else (0.0, first)
    if judge is not None and progress.best_step:
        weight, score = _blend(course, start, best, first, config)
    tower.put(_between(start, best, weight))
    recorder.report.best_step = progress.best_step
    recorder.note(_verdict(weight, first, score, judge))
    recorder.record(progress.step, {"kept": score, "weight": weight})
    measure = "" if judge is None else judge.name
    found = TrainedEncoder(out, tuple(lessons), weight, measure, first, score, recorder.report)
    record = {
        "mecold": __version__, "base": weights, "tasks": found.tasks, "weight": weight, "measure": measure,
        "base_score": first, "score": score, "step": progress.best_step, "config": asdict(config),
        "notes": recorder.report.notes,
    }  # fmt: skip
    write_encoder(base, out, record, ground.met if weight else [])
    clear(place)
    return found


def _tasks(tasks: str | Sequence[str] | Mapping[str, Task], auto: Sequence[str]) -> dict[str, Task]:
    if isinstance(tasks, Mapping):
        return dict(tasks)
    names = [tasks] if isinstance(tasks, str) else list(tasks)
    if names == ["auto"]:
        names = list(auto)
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
            f"second text column, a column of classes, impressions). `dropout` needs texts alone. Tasks: {', '.join(TASKS)}."
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


def _judge(shop: Shop, held: HeldOut) -> tuple[Judge | None, list[str]]:
    """By things where they are told, else by the log where it is long enough, else by titles and descriptions; and the texts
    that the latter reads.
    """
    texts, fields = shop.catalog.texts, shop.catalog.fields
    judge: Judge | None
    if shop.same:
        judge = SameThing.of(held, texts, shop.things)
    else:
        judge = None if shop.liked is None else NewItems.of(shop.liked, held, texts)
    if judge is not None or len(fields) < 2:
        return judge, []
    columns = shop.columns[held.items]
    first, second = (replace(shop.template, fields=some).render(columns)[0] for some in (fields[:1], fields[1:]))
    pairs = [pair for pair in zip(first, second, strict=True) if all(pair)]
    if len(pairs) < LEAST_HELD:
        return None, []
    start = len(texts) + np.arange(len(pairs))
    return Matching(start, start + len(pairs)), [*(a for a, _ in pairs), *(b for _, b in pairs)]


def _blend(course: Course, start: Weights, best: Weights, base: float, config: EncoderTraining) -> tuple[float, float]:
    """How far to go from the base to the trained weights, and the score there."""
    scores = {}
    for weight in config.blends:
        course.tower.put(_between(start, best, weight))
        scores[weight] = course.score()
    weight = max(scores, key=lambda one: scores[one])
    better = scores[weight] > base and scores[weight] >= base * (1 + config.least_gain)
    return (weight, scores[weight]) if better else (0.0, base)


def _between(start: Weights, end: Weights, weight: float) -> Weights:
    if weight in (0.0, 1.0):
        return start if weight == 0.0 else end
    return {name: torch.lerp(value, end[name], weight) for name, value in start.items()}


def _verdict(weight: float, base: float, score: float, judge: Judge | None) -> str:
    if judge is None:
        return (
            "The trained weights were kept."
            if weight
            else "Training went astray (weights that are no numbers): the base was kept."
        )
    if weight == 0.0:
        return f"The base was kept: no trained weights are better on what was held out ({judge.name}: {base:.4f})."
    return f"{weight:.0%} of the way to the trained weights were kept: {judge.name} {score:.4f}, the base's {base:.4f}."
