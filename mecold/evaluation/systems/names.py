"""Built-in systems by name, and the grids that `tune` chooses from."""

import dataclasses
import difflib
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from mecold.errors import InvalidDataError
from mecold.evaluation.systems.base import Entry, System
from mecold.evaluation.systems.baseline import Baseline
from mecold.evaluation.systems.factors import ALS, FeatureALS
from mecold.evaluation.systems.item_to_item import (
    EASE,
    FADE,
    Directed,
    ItemKNN,
    Popularity,
    RecentPopularity,
    RP3Beta,
)
from mecold.evaluation.systems.ours import ABLATIONS, Mecold
from mecold.evaluation.systems.text import Content, TextLogistic, TextRidge
from mecold.evaluation.systems.tuned import MecoldTuned
from mecold.evaluation.systems.user_to_user import UserKNN

BUILT_IN: dict[str, Callable[..., System]] = {
    "popularity": Popularity,
    "recent_popularity": RecentPopularity,
    "itemknn": ItemKNN,
    "userknn": UserKNN,
    "rp3beta": RP3Beta,
    "ease": EASE,
    "als": ALS,
    "feature_als": FeatureALS,
    "content": Content,
    "text_ridge": TextRidge,
    "text_logistic": TextLogistic,
    "faded_itemknn": partial(ItemKNN, fade=FADE),
    "faded_userknn": partial(UserKNN, fade=FADE),
    "faded_ease": partial(EASE, fade=FADE),
    "directed": Directed,
    "mecold": Mecold,
    "mecold-tuned": MecoldTuned,
    **{f"mecold-{name}": partial(Mecold, name) for name in ABLATIONS},
}
"""Name -> maker; a maker takes the system's settings."""

GRIDS: dict[str, dict[str, tuple[int | float, ...]]] = {
    "recent_popularity": {"half_life": (7, 30, 90, 365)},
    "itemknn": {"shrink": (10, 50, 200)},
    "userknn": {"neighbours": (50, 100, 300)},
    "rp3beta": {"beta": (0.3, 0.6, 0.9)},
    "ease": {"l2": (100, 500, 2000)},
    "als": {"factors": (64, 128), "alpha": (1, 10)},
    "feature_als": {"alpha0": (0.1, 0.5), "reg": (0.003, 0.01), "text_l2": (1, 100)},
    "text_ridge": {"l2": (0.01, 0.1, 1.0), "spread": (1, 10, 100)},
    "text_logistic": {"l2": (0.001, 0.01, 0.1)},
    "faded_itemknn": {"shrink": (10, 50, 200)},
    "faded_userknn": {"neighbours": (50, 100, 300)},
    "faded_ease": {"l2": (100, 500, 2000)},
    "directed": {"l2": (100, 500, 2000)},
}
"""Settings tried by `tune`, per baseline; the others have none."""

GROUPS = {
    "baselines": [
        "popularity", "itemknn", "userknn", "rp3beta", "ease", "als", "content", "text_ridge", "text_logistic",
        "faded_itemknn", "faded_userknn", "faded_ease", "directed",
    ],
    "ablations": [f"mecold-{name}" for name in ABLATIONS],
}  # fmt: skip
"""Names that stand for several systems."""


def entries_of(systems: str | Sequence[Any]) -> list[Entry]:
    """Entries of a list of names, systems and functions, or of one comma-separated text such as
    `"mecold,ease[l2=100],baselines"`.

    Raises:
        InvalidDataError: naming unknown systems or settings with the nearest names, or a name that comes twice.
    """
    parts = [systems] if isinstance(systems, str) else list(systems)
    made: list[Entry] = []
    for part in parts:
        made += map(Entry.of, _named(part) if isinstance(part, str) else [part])
    names = [entry.name for entry in made]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InvalidDataError(f"Two systems are called {twice}; give each a name of its own.")
    return made


def with_members(entry: Entry) -> Entry:
    """A baseline with every combination of settings of its grid, its own included, under the name of its family; any
    other system as it is.
    """
    system: Any = entry.system
    if not isinstance(system, Baseline):
        return entry
    grid = GRIDS.get(system.family, {})
    made = [
        dataclasses.replace(system, **_typed(system, dict(zip(grid, values, strict=True))))
        for values in itertools.product(*grid.values())
    ]
    members = made if system in made else [system, *made]
    return dataclasses.replace(
        entry, name=system.family, members=tuple(map(Entry.of, members)) if len(members) > 1 else ()
    )


def _named(text: str) -> list[System]:
    names = [part.strip() for part in re.split(r",(?![^\[]*\])", text) if part.strip()]
    expanded = itertools.chain.from_iterable(GROUPS.get(name, [name]) for name in names)
    return [_parsed(name) for name in dict.fromkeys(expanded)]


def _parsed(text: str) -> System:
    found = re.fullmatch(r"([\w-]+)(?:\[(.*)\])?", text)
    name, inside = (found[1], found[2] or "") if found else (text, "")
    if name not in BUILT_IN:
        near = difflib.get_close_matches(name, BUILT_IN, 3)
        raise InvalidDataError(
            f"There is no system {name!r}"
            + (f"; did you mean {' or '.join(near)}?" if near else ".")
            + f" Built in are {', '.join([*BUILT_IN, *GROUPS])}."
        )
    pairs = [setting.partition("=") for setting in inside.split(",") if setting]
    try:
        return _made(name, {key.strip(): float(value) for key, _, value in pairs})
    except ValueError as error:
        raise InvalidDataError(
            f"System {text!r} cannot be made: {error}. Settings are numbers, as in ease[l2=100]; tuned ones of {name} "
            f"are {', '.join(GRIDS.get(name, {})) or 'none'}."
        ) from error


def _made(name: str, settings: Mapping[str, int | float]) -> System:
    """A system with settings; numbers take the type of the setting's default."""
    maker: Any = BUILT_IN[name]
    fields: dict[str, Any] = {field.name: field.default for field in dataclasses.fields(getattr(maker, "func", maker))}
    unknown = [key for key in settings if not isinstance(fields.get(key), int | float)]
    if unknown:
        raise ValueError(f"it has no setting {', '.join(unknown)}")
    made: System = maker(**{key: type(fields[key])(value) for key, value in settings.items()})
    return made


def _typed(system: Any, settings: Mapping[str, int | float]) -> dict[str, Any]:
    return {key: type(getattr(system, key))(value) for key, value in settings.items()}
