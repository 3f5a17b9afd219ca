"""The outer loop of few-shot classification: episodes in which known classes play new ones.

A split takes whole branches of classes out of the known ones, so that an episode is as far from what is known as a new
branch of a shop will be. Everything that depends on the known classes (centre, scatter, the regression from names) is
computed from the others. Two things are learned: the rules of adaptation, through the inner loop, and then the outlook: how
new classes stand against known ones, and against none of them. It returns values and writes into none.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from mecold.errors import InvalidDataError
from mecold.heads.classes import MOST_SHOTS, ClassHeads, ClassRules, ClassSpace, adapt_classes
from mecold.report import Recorder

_SHOTS = (0, 1, 2, 3, 5, 10, 20)
_QUERIES = 15  # of a class in an episode
_FEWEST = 8  # items that a class needs to play a new one
_NEW = 0.4  # share of the known classes that an episode takes for new
_MOST_CELLS = 100_000_000  # items times classes: scores that known classes lay out in memory


@dataclass(frozen=True)
class ClassConfig:
    """How classification is learned.

    Args:
        steps: inner steps.
        known_steps: of the heads of known classes, which have many items and are adapted once.
        iterations: steps of the outer loop.
        splits: how many ways the known classes are divided into known and new.
        rate: step size of the outer loop (Adam), which ends at a fiftieth of it.
        first_order: treat inner gradients as constants in the outer loop.
        most: items that the head of a known class reads at most.
        outsiders: share of items that belong to no class, where "none of these" is learned.
    """

    steps: int = 15
    known_steps: int = 100
    iterations: int = 120
    splits: int = 4
    rate: float = 0.05
    first_order: bool = False
    most: int = 100
    outsiders: float = 0.2

    def __post_init__(self) -> None:
        if min(self.iterations, self.splits, self.most) < 1 or self.steps < 0:
            raise InvalidDataError(f"{self} asks for nothing: counts are at least 1, and steps at least 0.")
        if not (0 < self.outsiders < 1 and self.rate > 0):
            raise InvalidDataError(f"outsiders={self.outsiders} lies between 0 and 1, and rate={self.rate} above 0.")


@dataclass(frozen=True)
class Outlook:
    """How new classes stand against known ones, and against none.

    Args:
        newcomer: what is added to the logit of a new class beside known ones; constant and slope in log(1 + examples), row 0
            with a name, row 1 without.
        known: log of what logits of known classes are multiplied by, there.
        none: logit of none: constant, and slope in the logsumexp of the known classes' logits.
        none_beside: logit of none where known classes are answers too.
        many: logit of a class by itself: constant, and slope in its logit over that of none.
    """

    newcomer: Float[Tensor, "2 2"]
    known: Float[Tensor, ""]
    none: Float[Tensor, "2"]
    none_beside: Float[Tensor, ""]
    many: Float[Tensor, "2"]

    @classmethod
    def start(cls) -> "Outlook":
        """Where learning starts."""
        return cls(torch.zeros(2, 2), torch.tensor(0.0), torch.zeros(2), torch.tensor(0.0), torch.tensor([0.0, 1.0]))

    def tensors(self) -> dict[str, Tensor]:
        """The fields by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def shift(
        self, named: Bool[Tensor, "... classes"], shots: Float[Tensor, "... classes"]
    ) -> Float[Tensor, "... classes"]:
        """What is added to the logits of new classes beside known ones."""
        table = torch.where(named[..., None], self.newcomer[0], self.newcomer[1])
        return table[..., 0] + table[..., 1] * shots.clamp(max=MOST_SHOTS).log1p()


@dataclass(frozen=True)
class Taught:
    """What meta-learning returns.

    Args:
        space: of the known classes.
        rules: of adaptation.
        outlook: on known classes and on none.
        known: heads of the known classes, a task of one.
    """

    space: ClassSpace
    rules: ClassRules
    outlook: Outlook
    known: ClassHeads


@dataclass(frozen=True)
class _Split:
    """Known classes, some of which play new ones: their items, placed by what the others say."""

    space: ClassSpace
    items: Float[Tensor, "items dim"]
    names: Float[Tensor, "classes dim"]
    new: Int64[np.ndarray, " new"]
    old: Int64[np.ndarray, " old"]


def teach_classes(
    vectors: Float[Tensor, "items dim"],
    owner: Int64[np.ndarray, " items"],
    names: Float[Tensor, "classes dim"],
    branches: Sequence[str],
    config: ClassConfig,
    rng: np.random.Generator,
    recorder: Recorder,
) -> Taught:
    """Learn rules and outlook, and fit the known classes.

    Args:
        vectors: of the items' texts.
        owner: class of each item.
        names: vectors of the classes' names.
        branches: the branch of each class; an episode takes whole branches for new.
        config: settings.
        rng: of splits and episodes.
        recorder: hears the loss of each iteration.

    Raises:
        InvalidDataError: if too few classes have items enough to learn from.
    """
    counts = np.bincount(owner, minlength=len(names))
    able = counts >= _FEWEST
    if able.sum() < 6:
        raise InvalidDataError(
            f"Only {int(able.sum()):,} of {len(names):,} classes have {_FEWEST} or more items with a text; learning to classify "
            "takes 6 such classes. Pass more items, or coarser classes."
        )
    fits = _MOST_CELLS // len(names) ** 2
    if not fits:
        raise InvalidDataError(
            f"{len(names):,} classes do not fit in memory at once; up to {int(_MOST_CELLS**0.5):,} do. Fit on coarser classes, "
            "a level higher in the tree, say."
        )
    if fits < config.most:
        recorder.note(f"Heads of {len(names):,} known classes read {fits:,} items each, so that all fit in memory.")
        config = replace(config, most=fits)
    groups = [rng.permutation(np.flatnonzero(owner == one)) for one in range(len(names))]
    splits = [_split(vectors, names, groups, new) for new in _divisions(branches, able, config.splits, rng)]
    rules = _learn_rules(splits, groups, config, rng, recorder)
    outlook = _learn_outlook(splits, groups, rules, config, rng)
    rows = np.concatenate(groups)
    space = ClassSpace.of(vectors[rows], torch.from_numpy(owner[rows]), names)
    known = known_heads(space, space.place(vectors), space.place_names(names), groups, rules, config)
    return Taught(space, rules, outlook, known)


def known_heads(
    space: ClassSpace,
    items: Float[Tensor, "items dim"],
    names: Float[Tensor, "classes dim"],
    groups: Sequence[Int64[np.ndarray, " rows"]],
    rules: ClassRules,
    config: ClassConfig,
) -> ClassHeads:
    """Heads of classes with many items, all of them adapted at once.

    Args:
        space: where they lie.
        items: placed.
        names: placed.
        groups: rows of each class; the first `config.most` are read.
        rules: learned.
        config: settings.
    """
    taken = [group[: config.most] for group in groups]
    rows = torch.from_numpy(np.concatenate(taken))
    member = _membership([len(group) for group in taken])
    with torch.no_grad():
        metrics = space.metric(rules.floor), space.metric(rules.step_floor)
        prior = space.foresee(names, rules, space.teacher(rules))
        named = torch.ones(1, len(names), dtype=torch.bool)
        return adapt_classes(rules, metrics, prior[None], named, items[rows][None], member, steps=config.known_steps)


def _membership(sizes: Sequence[int]) -> Float[Tensor, "1 rows classes"]:
    """1 where a row is of a class, for rows that lie class by class."""
    owner = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes, dtype=torch.int64))
    return torch.nn.functional.one_hot(owner, len(sizes)).float()[None]


def _divisions(
    branches: Sequence[str], able: Bool[np.ndarray, " classes"], count: int, rng: np.random.Generator
) -> list[Bool[np.ndarray, " classes"]]:
    """Which classes play new ones, per split: whole branches, none that holds more than half of the classes."""
    of = np.unique(np.asarray(branches), return_inverse=True)[1]
    sizes = np.bincount(of)
    wanted = _NEW * len(of)
    found = []
    for _ in range(count):
        new = np.zeros(len(of), bool)
        for branch in rng.permutation(len(sizes)):
            if sizes[branch] <= len(of) / 2 and new.sum() < wanted:
                new |= of == branch
        new &= able
        if new.sum() < max(3, 0.2 * len(of)):  # one branch holds nearly everything, or the others are too small
            others = rng.permutation(np.flatnonzero(able & ~new))
            new[others[: max(3, int(wanted)) - int(new.sum())]] = True
        if (~new).sum() < 2:
            new[rng.permutation(np.flatnonzero(new))[:2]] = False
        found.append(new)
    return found


def _split(
    vectors: Float[Tensor, "items dim"],
    names: Float[Tensor, "classes dim"],
    groups: Sequence[Int64[np.ndarray, " rows"]],
    new: Bool[np.ndarray, " classes"],
) -> _Split:
    old = np.flatnonzero(~new)
    # the last fifth of a known class's items stays unseen, and asks later
    rows = [groups[one][: max(1, len(groups[one]) * 4 // 5)] for one in old.tolist()]
    owner = np.repeat(np.arange(len(old)), [len(group) for group in rows])
    space = ClassSpace.of(vectors[np.concatenate(rows)], torch.from_numpy(owner), names[old])
    return _Split(space, space.place(vectors), space.place_names(names), np.flatnonzero(new), old)


@dataclass(frozen=True)
class _Episode:
    """New classes with examples and queries; everything a task of one."""

    prior: Float[Tensor, "1 classes dim"]
    named: Bool[Tensor, "1 classes"]
    items: Float[Tensor, "1 shots dim"]
    member: Float[Tensor, "1 shots classes"]
    queries: Float[Tensor, "1 queries dim"]
    answers: Int64[Tensor, " queries"]


def _episode(
    split: _Split,
    groups: Sequence[Int64[np.ndarray, " rows"]],
    classes: Int64[np.ndarray, " classes"],
    rules: ClassRules,
    rng: np.random.Generator,
) -> _Episode:
    """Draw an episode: names for two in three; one number of examples for all classes, or, one time in ten, one each."""
    named = np.full(len(classes), rng.random() < 2 / 3)
    shots = rng.choice(_SHOTS, len(classes)) if rng.random() < 0.1 else np.full(len(classes), rng.choice(_SHOTS))
    shots = np.where(named, shots, np.maximum(shots, 1))
    support, queries = [], []
    for one, many in zip(classes.tolist(), shots.tolist(), strict=True):
        rows = rng.permutation(groups[one])
        given = min(many, len(rows) // 2)
        support.append(rows[:given])
        queries.append(rows[given : given + _QUERIES])
    sizes = [len(rows) for rows in queries]
    prior = split.space.foresee(split.names[classes], rules, split.space.teacher(rules))
    return _Episode(
        prior[None],
        torch.from_numpy(named)[None],
        split.items[np.concatenate(support)][None],
        _membership([len(rows) for rows in support]),
        split.items[np.concatenate(queries)][None],
        torch.from_numpy(np.repeat(np.arange(len(classes)), sizes)),
    )


def _adapted(
    split: _Split, episode: _Episode, rules: ClassRules, config: ClassConfig, known: ClassHeads | None = None
) -> ClassHeads:
    """Heads of an episode, beside known ones where these are given."""
    return adapt_classes(
        rules,
        (split.space.metric(rules.floor), split.space.metric(rules.step_floor)),
        episode.prior,
        episode.named,
        episode.items,
        episode.member,
        steps=config.steps,
        rivals=None if known is None else known.inner(episode.items),
        first_order=config.first_order,
    )


def _learn_rules(
    splits: Sequence[_Split],
    groups: Sequence[Int64[np.ndarray, " rows"]],
    config: ClassConfig,
    rng: np.random.Generator,
    recorder: Recorder,
) -> ClassRules:
    """The rules under which queries of new classes are told apart best, among these classes."""
    leaves = {name: value.clone().requires_grad_() for name, value in ClassRules.start().tensors().items()}
    rules, kept = ClassRules(**leaves), {name: torch.zeros_like(value) for name, value in leaves.items()}
    half = config.iterations // 2
    optimiser = torch.optim.Adam(leaves.values(), lr=config.rate)
    for step in recorder.epochs("learning to classify", config.iterations, unit="step"):
        left = 1.0 - step / config.iterations
        optimiser.param_groups[0]["lr"] = config.rate * min(1.0, 2.0 * left + 0.02)
        optimiser.zero_grad()
        total = 0.0
        for split in splits:
            for _ in range(2):
                episode = _episode(split, groups, split.new, rules, rng)
                heads = _adapted(split, episode, rules, config)
                loss = cross_entropy(heads.scores(episode.queries)[0], episode.answers) / (2 * len(splits))
                loss.backward()  # type: ignore[no-untyped-call]
                total += loss.item()
        optimiser.step()
        if step >= half:  # episodes are noisy: the mean over the second half is steadier than the last step
            for name, value in leaves.items():
                kept[name] += value.detach() / (config.iterations - half)
        recorder.record(step, {"loss": total}, {"loss": total})
    return ClassRules(**kept)


@dataclass(frozen=True)
class _Scene:
    """Logits of an episode's classes and of known ones, for queries of both and of outsiders."""

    new: Float[Tensor, "queries classes"]
    beside: Float[Tensor, "queries classes"]
    known: Float[Tensor, "queries known"]
    named: Bool[Tensor, " classes"]
    shots: Float[Tensor, " classes"]
    answers: Int64[Tensor, " queries"]  # a class, a known class behind these, or -1 for an outsider


def _scene(
    split: _Split,
    groups: Sequence[Int64[np.ndarray, " rows"]],
    known: ClassHeads,
    rules: ClassRules,
    config: ClassConfig,
    rng: np.random.Generator,
) -> _Scene:
    order = rng.permutation(split.new)
    classes, outside = order[: -(len(order) // 3)], order[-(len(order) // 3) :]
    with torch.no_grad():
        episode = _episode(split, groups, classes, rules, rng)
        others = [groups[one][max(1, len(groups[one]) * 4 // 5) :][:_QUERIES] for one in split.old]
        strangers = [groups[one][:_QUERIES] for one in outside]
        queries = torch.cat(
            [episode.queries, split.items[np.concatenate(others)][None], split.items[np.concatenate(strangers)][None]],
            1,
        )
        here = np.repeat(np.arange(len(others)), [len(rows) for rows in others]) + len(classes)
        away = np.full(sum(len(rows) for rows in strangers), -1)
        answers = torch.cat([episode.answers, torch.from_numpy(here), torch.from_numpy(away)])
        alone, beside = _adapted(split, episode, rules, config), _adapted(split, episode, rules, config, known)
        return _Scene(
            alone.scores(queries)[0],
            beside.scores(queries)[0],
            known.scores(queries)[0],
            episode.named[0],
            episode.member.sum(1)[0],
            answers,
        )


def _learn_outlook(
    splits: Sequence[_Split],
    groups: Sequence[Int64[np.ndarray, " rows"]],
    rules: ClassRules,
    config: ClassConfig,
    rng: np.random.Generator,
) -> Outlook:
    """The outlook that makes logits of new classes, known classes and none of them probabilities."""
    scenes: list[_Scene] = []
    for split in splits:
        seen = [groups[one][: max(1, len(groups[one]) * 4 // 5)] for one in split.old]
        known = known_heads(split.space, split.items, split.names[split.old], seen, rules, config)
        scenes += [_scene(split, groups, known, rules, config, rng) for _ in range(8)]
    leaves = {name: value.requires_grad_() for name, value in Outlook.start().tensors().items()}
    outlook = Outlook(**leaves)
    _minimise(
        [leaves[name] for name in ("newcomer", "known", "none", "none_beside")],
        lambda: [
            _loss_beside(scene, outlook, config.outsiders) + _loss_alone(scene, outlook, config.outsiders)
            for scene in scenes
        ],
    )
    _minimise([leaves["many"]], lambda: [_loss_single(scene, outlook, config.outsiders) for scene in scenes])
    return Outlook(**{name: value.detach() for name, value in leaves.items()})


def _minimise(leaves: list[Tensor], losses: Callable[[], list[Tensor]]) -> None:
    """Move the leaves to where the mean of the losses is least; both are smooth, and few."""
    optimiser = torch.optim.LBFGS(leaves, max_iter=60, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = torch.stack(losses()).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimiser.step(closure)  # type: ignore[no-untyped-call]


def _kinds(scene: _Scene) -> tuple[Bool[Tensor, " queries"], Bool[Tensor, " queries"], Bool[Tensor, " queries"]]:
    """Which queries are of new classes, of known ones, of neither."""
    classes = scene.new.shape[1]
    return (scene.answers >= 0) & (scene.answers < classes), scene.answers >= classes, scene.answers < 0


def _loss_beside(scene: _Scene, outlook: Outlook, outsiders: float) -> Float[Tensor, ""]:
    """Log loss where known classes are answers too; new and known ones weigh the same."""
    new, known, neither = _kinds(scene)
    shifted = scene.beside + outlook.shift(scene.named, scene.shots)
    none = outlook.none_beside.expand(len(scene.answers), 1)
    scores = torch.cat([shifted, scene.known * outlook.known.exp(), none], 1)
    costs = cross_entropy(scores, torch.where(neither, scores.shape[1] - 1, scene.answers), reduction="none")
    return (1.0 - outsiders) / 2 * (_mean(costs, new) + _mean(costs, known)) + outsiders * _mean(costs, neither)


def _loss_alone(scene: _Scene, outlook: Outlook, outsiders: float) -> Float[Tensor, ""]:
    """Log loss where items of known classes are outsiders as well."""
    new, known, neither = _kinds(scene)
    scores = torch.cat([scene.new, none_logit(scene.known, outlook)[:, None]], 1)
    costs = cross_entropy(scores, torch.where(new, scene.answers, scene.new.shape[1]), reduction="none")
    return (1.0 - outsiders) * _mean(costs, new) + outsiders / 2 * (_mean(costs, known) + _mean(costs, neither))


def _loss_single(scene: _Scene, outlook: Outlook, outsiders: float) -> Float[Tensor, ""]:
    """Log loss of each class by itself, summed over the classes."""
    new, _, _ = _kinds(scene)
    truth = torch.zeros_like(scene.new)
    truth[new, scene.answers[new]] = 1.0
    scores = many_logits(scene.new, none_logit(scene.known, outlook), outlook)
    costs = binary_cross_entropy_with_logits(scores, truth, reduction="none").sum(1)
    return (1.0 - outsiders) * _mean(costs, new) + outsiders * _mean(costs, ~new)


def none_logit(known: Float[Tensor, "queries known"], outlook: Outlook) -> Float[Tensor, " queries"]:
    """Logit of "none of these" where known classes are no answers: what looks like a known class is rather none.

    Args:
        known: logits of the known classes.
        outlook: learned.
    """
    return outlook.none[0] + outlook.none[1] * known.logsumexp(1)


def many_logits(
    scores: Float[Tensor, "queries classes"], none: Float[Tensor, " queries"], outlook: Outlook
) -> Float[Tensor, "queries classes"]:
    """Logit of each class by itself, whatever the others say."""
    return outlook.many[0] + outlook.many[1] * (scores - none[:, None])


def _mean(costs: Float[Tensor, " queries"], rows: Bool[Tensor, " queries"]) -> Float[Tensor, ""]:
    return (costs * rows).sum() / rows.sum().clamp(min=1)
