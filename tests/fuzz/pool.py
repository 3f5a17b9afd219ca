"""What is drawn from: odd values by name, so that a call that failed can be written down and called again."""

import datetime
import decimal
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl

from mecold import Interaction
from mecold.shop import make_shop

SHOP = make_shop(200, 120, rng=3)
NOON = datetime.datetime(2024, 1, 1, 12)

PLAIN: dict[str, Callable[[], Any]] = {
    "None": lambda: None, "True": lambda: True, "0": lambda: 0, "1": lambda: 1, "3": lambda: 3, "-1": lambda: -1,
    "2**63": lambda: 2**63, "10**400": lambda: 10**400, "0.0": lambda: 0.0, "0.5": lambda: 0.5, "1.5": lambda: 1.5,
    "nan": lambda: float("nan"), "inf": lambda: float("inf"), "-inf": lambda: float("-inf"), "1e39": lambda: 1e39,
    "1e-45": lambda: 1e-45, "1e308": lambda: 1e308, "uint8": lambda: np.uint8(255), "int8": lambda: np.int8(127),
    "int64": lambda: np.int64(5), "float32": lambda: np.float32(0.25), "float16 inf": lambda: np.float16("inf"),
    "bool_": lambda: np.bool_(True), "str_": lambda: np.str_("p2"), "complex": lambda: 1 + 2j, "Decimal": lambda: decimal.Decimal("1.5"),
    "empty": lambda: "", "p1": lambda: "p1", "p2": lambda: "p2", "nope": lambda: "nope", "5": lambda: "5", "raise": lambda: "raise",
    "drop": lambda: "drop", "Raise": lambda: "Raise", "hide": lambda: "hide", "hnsw": lambda: "hnsw", "markup": lambda: "\\[/red] [b]<b>",
    "control": lambda: "a\x1b[2Jb\0c", "surrogate": lambda: "\ud800", "long": lambda: "x" * 100_000, "cjk": lambda: "日本語 ☃",
    "bytes": lambda: b"p1", "bytearray": lambda: bytearray(b"p1"), "datetime": lambda: NOON, "date": lambda: NOON.date(),
    "datetime64": lambda: np.datetime64("2024-01-01"), "NaT": lambda: pd.NaT, "NA": lambda: pd.NA, "timedelta": lambda: NOON - NOON,
    "uuid": lambda: uuid.UUID(int=1), "path": lambda: Path("nowhere"), "object": object, "type": lambda: int, "function": lambda: len,
    "exception": lambda: ValueError("x"), "ellipsis": lambda: ..., "[]": list, "()": tuple, "{}": dict, "set()": set,
    "['p1']": lambda: ["p1"], "['p1', 'p2']": lambda: ["p1", "p2"], "['p1', 'p1']": lambda: ["p1", "p1"], "[1]": lambda: [1],
    "['p1', 2]": lambda: ["p1", 2], "[None]": lambda: [None], "[nan]": lambda: [float("nan")], "[['p1']]": lambda: [["p1"]],
    "['nope']": lambda: ["nope"], "['p1', 'nope']": lambda: ["p1", "nope"], "[True]": lambda: [True], "[b'p1']": lambda: [b"p1"],
    "[long]": lambda: ["x" * 100_000], "['']": lambda: [""], "[surrogate]": lambda: ["\ud800"], "many nopes": lambda: [f"n{i}" for i in range(5000)],
    "all items": lambda: SHOP.items["item_id"].to_list(), "tuple": lambda: ("p3", "p4"), "{'p1'}": lambda: {"p1"}, "{'p1': 5}": lambda: {"p1": 5},
    "{1: 2}": lambda: {1: 2}, "{'p1': []}": lambda: {"p1": []}, "{'a': 'b'}": lambda: {"a": "b"}, "{'user_id': 'u'}": lambda: {"user_id": "u"},
    "{'item_id': 3}": lambda: {"item_id": 3}, "[('p1', 5)]": lambda: [("p1", 5)], "array": lambda: np.array(["p1", "p2"]),
    "array of numbers": lambda: np.arange(3), "array 2d": lambda: np.zeros((2, 2)), "object array": lambda: np.array([1, "a", None], object),
    "series": lambda: pl.Series(["p1", "p2"]), "pandas series": lambda: pd.Series(["p1", "p2"]), "generator": lambda: (one for one in ["p1"]),
    "iter of ids": lambda: iter(["p1"]), "range": lambda: range(3), "dict keys": lambda: {"p1": 1, "p5": 2}.keys(), "lambda": lambda: lambda: None,
    "rng": lambda: np.random.default_rng(0), "rated": lambda: [Interaction("p1", rating=4.0)], "disliked": lambda: [Interaction("p1", label=-1), "p2"],
}  # fmt: skip

for _name in ("label", "time", "weight", "rating", "event", "item"):
    for _odd in ("None", "True", "-1", "0.5", "nan", "inf", "1e39", "1e-45", "1e308", "10**400", "int8", "float32", "complex", "Decimal",
                 "p1", "5", "datetime", "date", "datetime64", "NaT", "NA", "[]", "object", "bytes", "long"):  # fmt: skip
        PLAIN[f"{_name}={_odd}"] = lambda name=_name, odd=_odd: [
            Interaction(**{"item": "p1", name: PLAIN[odd]()}),
            "p2",
        ]

SERIES: dict[str, Callable[[int], Any]] = {
    "texts": lambda n: pl.Series([f"p{i + 1}" for i in range(n)]), "nulls": lambda n: pl.Series([None] * n), "half null": lambda n: pl.Series([None, "p1"] * n).head(n),
    "integers": lambda n: pl.Series(range(n)), "floats": lambda n: pl.Series([0.5] * n), "nan": lambda n: pl.Series([float("nan")] * n),
    "half nan": lambda n: pl.Series([float("nan"), 1.0] * n).head(n), "inf": lambda n: pl.Series([float("inf")] * n), "half inf": lambda n: pl.Series([1.0, float("inf")] * n).head(n),
    "huge": lambda n: pl.Series([1e39] * n), "tiny": lambda n: pl.Series([1e-45] * n), "negative": lambda n: pl.Series([-1.0] * n), "zeros": lambda n: pl.Series([0] * n),
    "uint64": lambda n: pl.Series([2**64 - 1] * n, dtype=pl.UInt64), "int128": lambda n: pl.Series([2**100] * n, dtype=pl.Int128), "bools": lambda n: pl.Series([True] * n),
    "bytes": lambda n: pl.Series([b"x"] * n), "durations": lambda n: pl.Series([NOON - NOON] * n), "times": lambda n: pl.Series([NOON.time()] * n), "dates": lambda n: pl.Series([NOON.date()] * n),
    "datetimes": lambda n: pl.Series([NOON] * n), "zoned": lambda n: pl.Series([NOON] * n).dt.replace_time_zone("Asia/Kolkata"), "iso": lambda n: pl.Series(["2024-01-01"] * n),
    "digits": lambda n: pl.Series(["1700000000"] * n), "milliseconds": lambda n: pl.Series([1.7e12] * n), "words": lambda n: pl.Series(["like"] * n), "empty": lambda n: pl.Series([""] * n),
    "structs": lambda n: pl.Series([{"a": 1}] * n), "lists": lambda n: pl.Series([[1]] * n), "objects": lambda n: pl.Series([object()] * n, dtype=pl.Object), "decimals": lambda n: pl.Series([decimal.Decimal(1)] * n),
    "categories": lambda n: pl.Series(["p1"] * n, dtype=pl.Categorical), "enum": lambda n: pl.Series(["p1"] * n, dtype=pl.Enum(["p1"])), "float32": lambda n: pl.Series([1.5] * n, dtype=pl.Float32),
    "long": lambda n: pl.Series(["x" * 50_000] * n), "control": lambda n: pl.Series(["\x1b[2J\0"] * n), "array": lambda n: pl.Series([[1.0, 2.0]] * n, dtype=pl.Array(pl.Float64, 2)),
}  # fmt: skip

_BASE = {
    "log": lambda: pl.DataFrame({"user_id": ["a", "a", "b"], "item_id": ["p1", "p2", "p3"]}),
    "items": lambda: pl.DataFrame({"item_id": ["n1", "n2", "n3"], "title": ["one", "two", "three"]}),
    "known items": lambda: pl.DataFrame({"item_id": ["p1", "p2", "p3"], "title": ["one", "two", "three"]}),
}
_COLUMNS = {
    "log": ("user_id", "item_id", "timestamp", "position", "rating", "weight", "label", "event"),
    "items": ("item_id", "title"), "known items": ("item_id", "title"),
}  # fmt: skip

FRAMES: dict[str, Callable[[], Any]] = dict(_BASE)
for _kind, _make in _BASE.items():
    for _column in _COLUMNS[_kind]:
        for _odd, _series in SERIES.items():
            FRAMES[f"{_kind} {_column}={_odd}"] = lambda make=_make, column=_column, series=_series: (
                make().with_columns(series(3).alias(column))
            )
    FRAMES |= {
        f"{_kind} pandas": lambda make=_make: make().to_pandas(),
        f"{_kind} pandas mixed": lambda make=_make: make().to_pandas().assign(item_id=["p1", 2, None]),
        f"{_kind} pandas twice": lambda make=_make: pd.concat([make().to_pandas()] * 2, axis=1),
        f"{_kind} pandas index": lambda make=_make: make().to_pandas().set_index("item_id"),
        f"{_kind} pandas numbers": lambda make=_make: make().to_pandas().rename(columns={"item_id": 7}),
        f"{_kind} arrow": lambda make=_make: make().to_arrow(),
        f"{_kind} lazy": lambda make=_make: make().lazy(),
        f"{_kind} lazy that fails": lambda make=_make: make().lazy().select("nothing"),
        f"{_kind} empty": lambda make=_make: make().clear(),
        f"{_kind} no columns": lambda: pl.DataFrame(),
        f"{_kind} one column": lambda make=_make: make().select("item_id"),
        f"{_kind} rows twice": lambda make=_make: pl.concat([make()] * 2),
    }
ODD: dict[str, Callable[[], Any]] = PLAIN | FRAMES


def value(name: str) -> Any:
    """A fresh value of that name."""
    return ODD[name]()
