"""Examples and names of classes as callers write them: checked as a whole before anything is adapted."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import polars as pl
from jaxtyping import Float32

from mecold.data.catalog import Catalog, TextTemplate
from mecold.data.frames import Columns, FrameLike, read_frame, require
from mecold.encode.encoder import Encoder, encode_or_zero
from mecold.errors import InvalidDataError, UnknownItemError, few

Examples: TypeAlias = Any
"""Label -> item ids or texts. A string that is an id of the catalogue is one; any other string is a text."""

Names: TypeAlias = bool | Mapping[str, str]
"""True reads labels as names, False reads none, and a mapping says what a label means."""

_MOST_CELLS = 100_000_000  # examples times classes: what one adaptation lays out in memory, some 2 GB in all


@dataclass(frozen=True)
class Support:
    """The examples of a task.

    Args:
        labels: the classes.
        texts: distinct texts.
        pairs: rows of `texts` and of `labels` that belong together.
        names: what each class's name says; "" where it is not read.
    """

    labels: tuple[str, ...]
    texts: list[str]
    pairs: list[tuple[int, int]]
    names: tuple[str, ...]


def read_support(
    examples: Examples, catalog: Catalog, names: Names, taken: Iterable[str], *, multi_label: bool
) -> Support:
    """Check and resolve the examples.

    Args:
        examples: as the caller wrote them.
        catalog: knows ids.
        names: what to read of the labels.
        taken: labels that are there already.
        multi_label: a text may be an example of several classes.

    Raises:
        InvalidDataError: naming the class or text that cannot be used, and the way out.
        UnknownItemError: on integers that are no ids.
    """
    if not isinstance(examples, Mapping) or not examples:
        raise InvalidDataError("Pass a mapping of labels to examples: {'Yoga mats': ['a title', 'item-17']}.")
    labels = _checked_labels(list(examples), set(taken))
    told = _told(labels, names)
    rows: dict[str, int] = {}
    pairs: list[tuple[int, int]] = []
    for column, (label, given) in enumerate(zip(labels, examples.values(), strict=True)):
        found = resolve(given, catalog, f"examples of {label!r}")
        if empty := [place for place, text in enumerate(found) if not text]:
            raise InvalidDataError(
                f"{len(empty):,} of {len(found):,} examples of {label!r} have no text (places {few(empty)}). Leave them out."
            )
        if not found and not told[column]:
            raise InvalidDataError(
                f"{label!r} has no example, and its name is not read: nothing is known of it. Give an example, or let names "
                "be read (names=True)."
            )
        pairs += [(rows.setdefault(text, len(rows)), column) for text in dict.fromkeys(found)]
    texts = list(rows)
    if not multi_label:
        _check_clear(texts, pairs, labels)
    if len(texts) * len(labels) > _MOST_CELLS:
        raise InvalidDataError(
            f"{len(labels):,} classes with {len(texts):,} examples do not fit in memory at once. Adapt to some of the classes, "
            "and add the others in parts with `add`."
        )
    return Support(labels, texts, pairs, told)


def _checked_labels(labels: Sequence[object], taken: set[str]) -> tuple[str, ...]:
    bad = [label for label in labels if not isinstance(label, str) or not label.strip()]
    if bad:
        raise InvalidDataError(f"{len(bad):,} labels are empty or no text: {few(bad)}. Give each class a name.")
    words = [" ".join(str(label).split()) for label in labels]
    twice = [label for label, word in zip(labels, words, strict=True) if words.count(word) > 1]
    if twice:
        raise InvalidDataError(f"{len(twice):,} labels differ in white space alone: {few(twice)}. Write them one way.")
    known = {" ".join(label.split()) for label in taken}
    if there := [label for label, word in zip(labels, words, strict=True) if word in known]:
        raise InvalidDataError(
            f"{len(there):,} classes are there already: {few(there)}. Leave them out, take them out of the state with "
            "`without`, or adapt without the known classes (beside_known=False)."
        )
    return tuple(str(label) for label in labels)


def _told(labels: tuple[str, ...], names: Names) -> tuple[str, ...]:
    if isinstance(names, bool):
        return labels if names else ("",) * len(labels)
    if strange := [label for label in names if label not in labels]:
        raise InvalidDataError(f"`names` tells of {len(strange):,} labels that have no class: {few(strange)}.")
    if bad := [label for label, words in names.items() if not isinstance(words, str)]:
        raise InvalidDataError(f"`names` must hold texts; those of {few(bad)} are none.")
    return tuple(names.get(label, "").strip() for label in labels)


def _check_clear(texts: list[str], pairs: list[tuple[int, int]], labels: tuple[str, ...]) -> None:
    """Refuse a text that is an example of two classes."""
    owner: dict[int, int] = {}
    torn = {row for row, column in pairs if owner.setdefault(row, column) != column}
    if torn:
        row = min(torn)
        whose = [labels[column] for one, column in pairs if one == row]
        raise InvalidDataError(
            f"{len(torn):,} texts are examples of more than one class, such as {texts[row][:60]!r} of {few(whose)}. Decide for "
            "one, or pass multi_label=True."
        )


def resolve(given: object, catalog: Catalog, what: str) -> list[str]:
    """Texts of what a caller named: ids of the catalogue, or texts, cleaned as those of the catalogue are.

    Raises:
        InvalidDataError: if this is no list of strings and integers.
        UnknownItemError: on integers that are no ids.
    """
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise InvalidDataError(f"The {what} must be a list of item ids or texts; this is {given!r:.60}.")
    found = [one.item() if isinstance(one, np.generic) else one for one in given]
    if odd := [one for one in found if type(one) not in (str, int)]:
        raise InvalidDataError(f"The {what} must be item ids or texts; {len(odd):,} are neither: {few(odd)}.")
    if unknown := [one for one in found if isinstance(one, int) and one not in catalog]:
        raise UnknownItemError(f"{len(unknown):,} of the {what} are no ids of the catalogue: {few(unknown)}.")
    rows = [catalog.row(one) for one in found]
    return [_clean(str(one)) if row is None else catalog.text_of(row) for one, row in zip(found, rows, strict=True)]


def _clean(text: str) -> str:
    return re.sub(r"[\x00-\x1f\x7f-\x9f\s]+", " ", text).strip()


def parts_of(label: str, separator: str) -> tuple[str, ...]:
    """The levels of a label, topmost first."""
    return tuple(part.strip() for part in label.split(separator) if part.strip()) or (label,)


def encode_names(names: Sequence[str], encoder: Encoder, separator: str) -> Float32[np.ndarray, "names dim"]:
    """Vectors of names: the mean of the whole path, of its last part, and of the path from its end.

    Args:
        names: all of them with words.
        encoder: of texts.
        separator: between the levels of a path.
    """
    levels = [parts_of(name, separator) for name in names]
    forms = (
        [", ".join(one) for one in levels] + [one[-1] for one in levels] + [" ".join(reversed(one)) for one in levels]
    )
    vectors = unit(encode_or_zero(encoder, forms)).reshape(3, len(names), -1)
    return unit(vectors.mean(0))


def unit(vectors: Float32[np.ndarray, "rows dim"]) -> Float32[np.ndarray, "rows dim"]:
    """Rows of length 1; a row of zeros stays."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: Float32[np.ndarray, "rows dim"] = vectors / np.maximum(lengths, np.float32(1e-12))
    return scaled


@dataclass(frozen=True)
class Labelled:
    """Items with labels, as `fit_meta` reads them.

    Args:
        catalog: all items.
        labels: of each item; None where it has none.
        branches: label -> branch.
        notes: what was read, and what was left aside.
    """

    catalog: Catalog
    labels: list[str | None]
    branches: dict[str, str]
    notes: tuple[str, ...]


def read_labelled(
    source: FrameLike,
    label: str,
    branch: str | None,
    separator: str,
    template: TextTemplate | None,
    columns: Columns | None,
) -> Labelled:
    """Read items and their labels; the label never enters the text.

    Raises:
        InvalidDataError: on missing columns, empty labels, an item with two labels, a label with two branches, or a
            template that reads the label.
    """
    canonical = (*(template or TextTemplate()).names, label, *([branch] if branch else []))
    frame = read_frame(source, "items", columns, names=tuple(dict.fromkeys(canonical)))
    require(frame, ["item_id", label, *([branch] if branch else [])], "items")
    hidden = {one for one in (label, branch) if one is not None}
    if template is None:
        texts = TextTemplate().columns(frame.drop(hidden)) if len(frame.columns) > 1 + len(hidden) else ()
        if not texts:
            raise InvalidDataError(f"Beside {label!r} the items have no text column among {few(frame.columns, 20)}.")
        template = TextTemplate(fields=texts)
    elif inside := hidden & set(template.columns(frame)):
        raise InvalidDataError(
            f"The template reads {few(sorted(map(str, inside)))}, which is to be predicted. Leave it out."
        )
    words = frame[label].cast(pl.String).str.strip_chars()
    if empty := (words == "").arg_true().to_list():
        raise InvalidDataError(
            f"{len(empty):,} of {len(words):,} values of {label!r} are empty (rows {few(empty)}). Set them to null: an item "
            "without a label is not learned from."
        )
    catalog = Catalog.read(frame, template=template)
    table = pl.DataFrame({"item_id": frame["item_id"], "label": words}).drop_nulls("label").unique(maintain_order=True)
    if len(torn := table.filter(table["item_id"].is_duplicated())["item_id"].unique(maintain_order=True)):
        raise InvalidDataError(
            f"{len(torn):,} items have more than one label: {few(torn.to_list())}. Keep one of each."
        )
    own = dict(zip(table["item_id"].to_list(), table["label"].to_list(), strict=True))
    labels = [own.get(one) for one in catalog.ids.to_list()]
    missing = sum(one is None for one in labels)
    notes = [*catalog.notes, f"Labels: {len(set(own.values())):,} classes in {label!r}"]
    if missing:
        notes.append(f"{missing:,} items have no label: they are not learned from")
    return Labelled(catalog, labels, _branches(frame, words, branch, separator), tuple(notes))


def _branches(frame: pl.DataFrame, words: pl.Series, branch: str | None, separator: str) -> dict[str, str]:
    """The branch of each label: what a column says, or the first level; where that holds half of all, the second too."""
    if branch is None:
        levels = {word: parts_of(word, separator) for word in words.drop_nulls().unique().to_list()}
        heads = [one[0] for one in levels.values()]
        deep = {head for head in set(heads) if 2 * heads.count(head) > len(heads)}
        return {word: separator.join(one[: 2 if one[0] in deep else 1]) for word, one in levels.items()}
    table = pl.DataFrame({"label": words, "branch": frame[branch].cast(pl.String)}).drop_nulls().unique()
    if len(torn := table.filter(table["label"].is_duplicated())["label"].unique()):
        raise InvalidDataError(
            f"{len(torn):,} labels stand in more than one {branch!r}: {few(sorted(torn.to_list()))}."
        )
    found = dict(zip(table["label"].to_list(), table["branch"].to_list(), strict=True))
    return {word: found.get(word, word) for word in words.drop_nulls().unique().to_list()}
