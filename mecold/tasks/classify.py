"""Few-shot classification: which category is an item of, where categories are new and come with a few examples, or none.

The door: labels and texts in, labels and probabilities out. What is learned of all categories lies in a classifier; what is
learned of new ones in a `ClassState`, which belongs to the caller. Nothing here is trained when a category is added.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from mecold.data.catalog import TextTemplate
from mecold.data.frames import Columns, FrameLike
from mecold.encode.encoder import Encoder, TextEncoder, encode_or_zero
from mecold.errors import EncoderError, InvalidDataError
from mecold.heads.classes import ClassHeads, adapt_classes
from mecold.lazy import cached_property
from mecold.meta.classes import ClassConfig, many_logits, none_logit, teach_classes
from mecold.report import FitReport, Recorder, Tracker
from mecold.tasks.class_files import ClassifierContent, load_classifier, save_classifier
from mecold.tasks.class_state import Classified, ClassState, Label
from mecold.tasks.class_support import (
    Examples,
    Names,
    Support,
    encode_names,
    parts_of,
    read_labelled,
    read_support,
    resolve,
    unit,
)
from mecold.types import ItemId
from mecold.values import generator, path

_CELLS = 20_000_000  # scores that lie in memory at once while a long list is classified


class ItemClassifier:
    """Sorts items into categories, those it was fitted on and those it meets later.

    Made by `fit_meta` or `load`. Works on the CPU; one classifier may serve many threads.

    Args:
        content: what was learned.
        encoder: turns texts into vectors; the one that the classifier was fitted with.
        report: of the fit; None for a loaded classifier.

    Raises:
        EncoderError: if the encoder is not the one of the fit.
    """

    def __init__(self, content: ClassifierContent, encoder: Encoder, report: FitReport | None = None) -> None:
        if encoder.fingerprint != content.encoder:
            raise EncoderError(
                f"The classifier was fitted with the encoder '{content.encoder}'; this one is '{encoder.fingerprint}'. Pass "
                "that encoder, or fit again."
            )
        self._content, self._encoder, self._taught = content, encoder, content.taught
        self.report = report
        space, rules = self._taught.space, self._taught.rules
        with torch.inference_mode():
            self._metrics = space.metric(rules.floor), space.metric(rules.step_floor)
            self._teacher = space.teacher(rules)

    # ---- learning

    @classmethod
    def fit_meta(
        cls,
        items: FrameLike,
        *,
        label: str = "category",
        branch: str | None = None,
        separator: str = " > ",
        encoder: Encoder | None = None,
        template: TextTemplate | None = None,
        columns: Columns | None = None,
        config: ClassConfig | None = None,
        rng: int | np.random.Generator | None = 0,
        trackers: Sequence[Tracker] = (),
        progress: bool = False,
    ) -> "ItemClassifier":
        """Learn from items whose categories are known how categories are learned.

        Args:
            items: frame or path: `item_id`, text columns, and labels; null where an item has none.
            label: the column of labels. Neither it nor `branch` enters the text.
            branch: a column with the group of a category, such as its department; without, the first level of the label.
                Episodes take whole branches for new, as a shop does.
            separator: between the levels of a label, topmost first.
            encoder: turns texts into vectors; the default `TextEncoder` where None.
            template: which columns make the text.
            columns: canonical name -> the caller's name.
            config: settings.
            rng: seed or generator of splits and episodes.
            trackers: hear of every step.
            progress: show progress bars.

        Raises:
            InvalidDataError: on frames that cannot be used, or fewer than 6 categories with 8 items.
            EncoderError: if the encoder cannot be found, or has no vector for a text.

        Warns:
            DataWarning: what was set aside in the frame.
        """
        if not separator:
            raise InvalidDataError(
                "`separator` is empty; write what stands between the levels of a label, such as ' > '."
            )
        found = read_labelled(items, label, branch, separator, template, columns)
        encoder, config = encoder or TextEncoder(), config or ClassConfig()
        rows = [row for row, one in enumerate(found.labels) if one is not None and found.catalog.text_of(row)]
        own = [str(found.labels[row]) for row in rows]
        labels = sorted(set(own))
        number = {name: place for place, name in enumerate(labels)}
        recorder = Recorder(trackers=trackers, progress=progress)
        for note in found.notes:
            recorder.note(note)
        texts = [found.catalog.text_of(row) for row in rows]
        vectors = unit(encode_or_zero(encoder, texts, progress=progress)) if rows else np.zeros((0, 1), np.float32)
        names = encode_names(labels, encoder, separator) if labels else vectors
        taught = teach_classes(
            torch.from_numpy(vectors),
            np.array([number[one] for one in own], np.int64),
            torch.from_numpy(names),
            [found.branches[one] for one in labels],
            config,
            generator(rng),
            recorder,
        )
        log = recorder.report.to_jsonl()
        content = ClassifierContent(
            taught, tuple(labels), found.catalog, encoder.fingerprint, separator, config, log
        )  # fmt: skip
        return cls(content, encoder, recorder.report)

    # ---- new classes

    def adapt(
        self, examples: Examples, *, names: Names = True, beside_known: bool = False, multi_label: bool = False
    ) -> ClassState:
        """Learn classes from their names and a few examples, in a few milliseconds.

        Args:
            examples: label -> item ids or texts; an empty list where the name must do.
            names: True reads the labels, level by level; False reads none (they are codes, say); a mapping says what labels
                mean, and those that it leaves out are not read.
            beside_known: the classes of the fit are answers too, and new ones stand up to them.
            multi_label: a text may be an example of several classes.

        Returns:
            A state; the classifier does not change.

        Raises:
            InvalidDataError: naming the label or text that cannot be used: empty labels, a class without examples whose name
                is not read, an example without text, one text in two classes.
            UnknownItemError: on integers that are no ids of the catalogue.
        """
        taken = self.known_labels if beside_known else ()
        support = read_support(examples, self._content.catalog, names, taken, multi_label=multi_label)
        return self._adapted(support, None, beside_known=beside_known)

    def add(
        self, state: ClassState, examples: Examples, *, names: Names = True, multi_label: bool = False
    ) -> ClassState:
        """Add classes to a state; scores of those that are there stay as they are, to the bit.

        The new ones learn to stand up to the old ones, as far as their own examples go. All at once is a little better.

        Args:
            state: of this classifier.
            examples: label -> item ids or texts.
            names: as for `adapt`.
            multi_label: as for `adapt`.

        Raises:
            InvalidDataError: as `adapt`; for a label that is there already, or a state of another classifier.
        """
        self._check(state)
        taken = [*state.labels, *(self.known_labels if state.beside_known else ())]
        support = read_support(examples, self._content.catalog, names, taken, multi_label=multi_label)
        return state.joined(self._adapted(support, state, beside_known=state.beside_known))

    @torch.inference_mode()
    def _adapted(self, support: Support, before: ClassState | None, *, beside_known: bool) -> ClassState:
        items = self._placed(support.texts)[None]
        count = len(support.labels)
        member = torch.zeros(1, len(support.texts), count)
        if support.pairs:
            rows, columns = torch.tensor(support.pairs).T
            member[0, rows, columns] = 1.0
        named = torch.tensor([bool(name) for name in support.names])[None]
        shots = member[0].sum(0)
        everyone = shots if before is None else torch.cat([torch.from_numpy(before.shots.copy()).float(), shots])
        rivals = [_heads(before).inner(items)] if before is not None else []
        rivals += [self._taught.known.inner(items)] if beside_known else []
        heads = adapt_classes(
            self._taught.rules, self._metrics, self._foreseen(support.names)[None], named, items, member,
            steps=self._content.config.steps, rivals=torch.cat(rivals, 2) if rivals else None, company=everyone[None],
        )  # fmt: skip
        weight, bias, scale = (one[0].numpy() for one in (heads.weight, heads.bias, heads.scale))
        given, read = shots.long().numpy(), named[0].numpy()
        return ClassState(support.labels, weight, bias, scale, given, read, beside_known, self.fingerprint)

    def _foreseen(self, names: Sequence[str]) -> Float[Tensor, "names dim"]:
        """Prototypes that names promise; zero where there is none."""
        space = self._taught.space
        out = torch.zeros(len(names), len(space.center))
        rows = [row for row, name in enumerate(names) if name]
        if rows:
            vectors = encode_names([names[row] for row in rows], self._encoder, self._content.separator)
            placed = space.place_names(torch.from_numpy(vectors))
            out[rows] = space.foresee(placed, self._taught.rules, self._teacher)
        return out

    # ---- answers

    def predict(
        self,
        items: Sequence[ItemId],
        state: ClassState | None = None,
        *,
        top: int = 3,
        none: bool = True,
        multi_label: bool = False,
        depth: int | None = None,
    ) -> list[Classified]:
        """Classify items.

        Args:
            items: ids or texts. An item without text is none of the classes, for certain.
            state: what `adapt` returned; None classifies among the known classes.
            top: how many classes to name.
            none: False leaves "none of these" out: the probabilities of all classes then sum to 1, and `none` is 0.
            multi_label: each class by itself: probabilities need not sum to 1, and those above .5 apply. Learned for new classes
                alone; where known ones are answers too, they are rough.
            depth: labels are cut at so many levels, and the probabilities of what becomes one are added up, so that a
                branch is never less probable than what is in it.

        Raises:
            InvalidDataError: if `top` or `depth` is below 1, or the state is of another classifier.
        """
        if top < 1 or (depth is not None and depth < 1):
            raise InvalidDataError(f"top={top} and depth={depth} must be at least 1.")
        if multi_label and depth is not None:
            raise InvalidDataError(
                "Probabilities of classes by themselves do not add up; leave out depth or multi_label."
            )
        labels, chances, nothing = self.probabilities(items, state, none=none, multi_label=multi_label)
        if depth is not None:
            labels, chances = self._cut(labels, chances, depth)
        best = np.argsort(-chances, axis=1, kind="stable")[:, :top]
        return [
            Classified(tuple(Label(labels[place], float(row[place])) for place in places), float(left))
            for row, places, left in zip(chances, best, nothing, strict=True)
        ]

    def paths(self, items: Sequence[ItemId], state: ClassState | None = None) -> list[tuple[Label, ...]]:
        """The way down the tree, level by level: at each, the most probable child of the one before.

        Args:
            items: ids or texts.
            state: what `adapt` returned; None classifies among the known classes.

        Returns:
            Per item one label a level, each with the probability that the item is in it; () where "none of these" is more
            probable than any branch of the first level.
        """
        labels, chances, nothing = self.probabilities(items, state)
        levels = [parts_of(label, self._content.separator) for label in labels]
        return [self._way(levels, row, float(left)) for row, left in zip(chances, nothing, strict=True)]

    def _way(self, levels: list[tuple[str, ...]], chances: np.ndarray, none: float) -> tuple[Label, ...]:
        way: list[Label] = []
        within: tuple[str, ...] = ()
        while True:
            sums: dict[tuple[str, ...], float] = {}
            for level, chance in zip(levels, chances.tolist(), strict=True):
                if len(level) > len(within) and level[: len(within)] == within:
                    child = level[: len(within) + 1]
                    sums[child] = sums.get(child, 0.0) + chance
            if not sums:
                return tuple(way)
            within = max(sums, key=lambda child: sums[child])
            if not way and sums[within] < none:
                return ()
            way.append(Label(self._content.separator.join(within), sums[within]))

    def probabilities(
        self,
        items: Sequence[ItemId],
        state: ClassState | None = None,
        *,
        none: bool = True,
        multi_label: bool = False,
    ) -> tuple[tuple[str, ...], Float32[np.ndarray, "items classes"], Float32[np.ndarray, " items"]]:
        """Labels, their probabilities for each item, and that of "none of these".

        Args:
            items: ids or texts.
            state: what `adapt` returned; None classifies among the known classes.
            none: False leaves "none of these" out.
            multi_label: each class by itself.
        """
        if state is not None:
            self._check(state)
        known = state is None or state.beside_known
        labels = (() if state is None else state.labels) + (self.known_labels if known else ())
        texts = resolve(items, self._content.catalog, "items")
        chances, nothing = np.zeros((len(texts), len(labels)), np.float32), np.ones(len(texts), np.float32)
        read = [row for row, text in enumerate(texts) if text]
        size = max(1, _CELLS // (len(labels) + len(self.known_labels)))
        for part in (read[start : start + size] for start in range(0, len(read), size)):
            chances[part], nothing[part] = self._chances([texts[row] for row in part], state, none, multi_label)
        return labels, chances, nothing

    @torch.inference_mode()
    def _chances(
        self, texts: list[str], state: ClassState | None, none: bool, multi_label: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        scores, nothing = self._logits(self._placed(texts), state)
        if multi_label:
            single = many_logits(scores, nothing, self._taught.outlook).sigmoid()
            left = torch.cat([scores, nothing[:, None]], 1).softmax(1)[:, scores.shape[1]]
            return single.numpy(), left.numpy() if none else np.zeros(len(texts), np.float32)
        if not none:
            return scores.softmax(1).numpy(), np.zeros(len(texts), np.float32)
        both = torch.cat([scores, nothing[:, None]], 1).softmax(1).numpy()
        return both[:, : scores.shape[1]], both[:, scores.shape[1]]

    def _logits(
        self, items: Float[Tensor, "items dim"], state: ClassState | None
    ) -> tuple[Float[Tensor, "items classes"], Float[Tensor, " items"]]:
        """Logits of all answers, and of none of them."""
        outlook, known = self._taught.outlook, self._taught.known.scores(items[None])[0]
        if state is None:
            return known * outlook.known.exp(), outlook.none_beside.expand(len(items))
        new = _heads(state).scores(items[None])[0]
        if not state.beside_known:
            return new, none_logit(known, outlook)
        named, shots = torch.from_numpy(state.named.copy()), torch.from_numpy(state.shots.copy()).float()
        return torch.cat(
            [new + outlook.shift(named, shots), known * outlook.known.exp()], 1
        ), outlook.none_beside.expand(len(items))

    def _placed(self, texts: list[str]) -> Float[Tensor, "texts dim"]:
        if not texts:
            return torch.zeros(0, len(self._taught.space.center))
        return self._taught.space.place(torch.from_numpy(unit(encode_or_zero(self._encoder, texts))))

    def _cut(self, labels: tuple[str, ...], chances: np.ndarray, depth: int) -> tuple[tuple[str, ...], np.ndarray]:
        short = [self._content.separator.join(parts_of(label, self._content.separator)[:depth]) for label in labels]
        kept = list(dict.fromkeys(short))
        sums = np.zeros((len(chances), len(kept)), np.float32)
        np.add.at(sums.T, [kept.index(one) for one in short], chances.T)
        return tuple(kept), sums

    # ---- what it is

    @property
    def known_labels(self) -> tuple[str, ...]:
        """The classes of the fit."""
        return self._content.labels

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all that was learned; states carry it."""
        digest = hashlib.sha256(repr((self._content.labels, self._content.encoder)).encode())
        for name, value in sorted(self._content.tensors().items()):
            digest.update(name.encode() + value.contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    def save(self, folder: str | Path) -> None:
        """Write the classifier into a folder, whole or not at all.

        Raises:
            ModelFileError: if the folder holds something that is not a model.
        """
        save_classifier(path(folder, "folder"), self._content)

    @classmethod
    def load(cls, folder: str | Path, *, encoder: Encoder | None = None) -> "ItemClassifier":
        """Read a saved classifier.

        Args:
            folder: what `save` wrote.
            encoder: the one of the fit; the default `TextEncoder` where None.

        Raises:
            ModelFileError: naming what is missing, damaged, changed, or newer than this version of mecold.
            EncoderError: if the encoder is not the one of the fit.
        """
        return cls(load_classifier(path(folder, "folder")), encoder or TextEncoder())

    def _check(self, state: ClassState) -> None:
        if state.model != self.fingerprint or state.weight.shape[1] != len(self._taught.space.center):
            raise InvalidDataError(
                f"The state was made by the classifier {state.model}; this is {self.fingerprint}. Adapt again with this one."
            )


def _heads(state: ClassState) -> ClassHeads:
    """The heads of a state, a task of one."""
    parts = (torch.from_numpy(one.copy())[None] for one in (state.weight, state.bias, state.scale))
    return ClassHeads(*parts)
