"""The fuzz: drawn calls of every public door. Only right answers may come out, and errors of mecold's own.

`python -m tests.fuzz.calls --calls 5000 --seed 0` draws so many calls and prints a count as JSON; calls that once went wrong
are in `found.json`, and are made first. It runs in a process of its own, without the type checks of the tests, as in a
service.
"""

import argparse
import inspect
import json
import os
import re
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import polars as pl
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from mecold import (
    Catalog,
    ClickModel,
    FactorConfig,
    ItemClassifier,
    MecoldError,
    MetaConfig,
    PrecomputedEncoder,
    Recommender,
    TextEncoder,
    TextTemplate,
    TrainConfig,
    UserState,
)  # fmt: skip
from mecold.cli.main import app
from tests.conftest import word_vectors
from tests.fuzz.pool import FRAMES, ODD, PLAIN, SHOP, value

FOUND = Path(__file__).with_name("found.json")
WAY_OUT = re.compile(
    r"\b(must|pass|use|cast|add|fill|drop|rename|call|name|map|keep|make|convert|write|load|save|restore|fit|take|leave|give|"
    r"remove|put|fetch|select|read|needs?|encode|join|bring|merge|fix|install|without|flatten|append|show)\b",
    re.IGNORECASE,
)


class Door(NamedTuple):
    """One public call: what it takes, name -> names of right values, and what its answer must be like."""

    call: Callable[..., Any]
    takes: Mapping[str, tuple[str, ...]]
    right: Callable[[Mapping[str, Any], Any], bool] = lambda given, found: True
    changes: bool = False

    @property
    def needs(self) -> set[str]:
        """Arguments without a default."""
        given = inspect.signature(self.call).parameters.values()
        return {one.name for one in given if one.default is one.empty and one.kind is not one.VAR_KEYWORD}


def world() -> dict[str, Any]:
    """Small models of all kinds."""
    texts = [
        *Catalog.read(SHOP.items).texts,
        "one",
        "two",
        "three",
        *(f"text {n % m} {n}" for n in range(96) for m in (8, 12)),
    ]
    texts += [f"c{n}" for n in range(8)]
    encoder = word_vectors(texts)
    config = MetaConfig(
        factors=FactorConfig(symmetric_rank=8, directed_rank=8), training=TrainConfig(epochs=1), text_rank=8
    )
    made: dict[str, Any] = {"encoder": encoder}
    for name, index in (("auto", "auto"), ("hnsw", "hnsw")):
        made[name] = Recommender(encoder, config=config, rng=0, index=index)
        made[name].fit_meta(SHOP.interactions, SHOP.items)
    made["user"] = made["auto"].adapt_user(["p1", "p2"])
    ads = pl.DataFrame({"group": [n // 4 for n in range(96)], "text": [f"text {n % 12} {n}" for n in range(96)],
                        "impressions": [500] * 96, "clicks": [5 + n % 7 for n in range(96)]})  # fmt: skip
    made["clicks"] = ClickModel.fit_meta(ads, encoder=encoder, rng=0)
    made["places"] = made["clicks"].add({"a": "text 1 1", "b": "text 2 2"})
    kinds = pl.DataFrame({"item_id": [f"i{n}" for n in range(80)], "title": [f"text {n % 8} {n}" for n in range(80)],
                          "category": [f"c{n % 8}" for n in range(80)]})  # fmt: skip
    made["classes"] = ItemClassifier.fit_meta(kinds, encoder=encoder, rng=0)
    made["auto"].save("kept")
    return made


def listed(given: Mapping[str, Any], found: Any) -> bool:
    """A list as `recommend` and `similar_items` promise it."""
    items, scores = [one.item for one in found], [one.score for one in found]
    known = set(SHOP.items["item_id"].to_list())
    fine = (
        len(set(items)) == len(items) <= int(given.get("k", 10))
        and set(items) <= known
        and bool(np.isfinite(scores).all())
    )
    return fine and ("diversity" in given or "groups" in given or scores == sorted(scores, reverse=True))


def batch(given: Mapping[str, Any], found: pl.DataFrame) -> bool:
    """A frame as `recommend_batch` promises it."""
    sizes = found.group_by("user_id").len()["len"]
    return bool(
        found.columns == ["user_id", "rank", "item_id", "score"] and not found.select("user_id", "item_id").is_duplicated().any()
        and found["score"].is_finite().all() and (sizes.is_empty() or int(sizes.max()) <= int(given.get("k", 10)))
    )  # fmt: skip


def state(given: Mapping[str, Any], found: UserState) -> bool:
    """A state that comes back, and is finite."""
    return UserState.from_bytes(found.to_bytes()) == found and bool(np.isfinite(found.query).all())


def doors(made: Mapping[str, Any]) -> dict[str, Door]:
    """Every public door."""
    r, h, user = made["auto"], made["hnsw"], made["user"]
    history, items, word = (
        ("['p1']", "['p1', 'p2']", "rated", "disliked", "[]"),
        ("['p1']", "['p1', 'p2']", "tuple"),
        ("raise", "drop"),
    )
    k, logs, flags = ("1", "3", "int64"), ("log", "log pandas", "log arrow"), ("True",)
    lists = {
        "k": k,
        "exclude": items,
        "among": items,
        "include_seen": flags,
        "diversity": ("0.5",),
        "groups": ("{'p1': 5}",),
        "per_group": ("1",),
    }
    new = ("items", "items pandas")
    return {
        "adapt_user": Door(r.adapt_user, {"history": history, "on_unknown": word, "attributes": ("{}", "None")}, state),
        "adapt_users": Door(r.adapt_users, {"histories": logs, "columns": ("None", "{}"), "on_unknown": word},
                            lambda _, found: all(state({}, one) for one in found.values())),
        "recommend": Door(lambda user=user, **more: r.recommend(user, **more), lists, listed),
        "recommend of": Door(r.recommend, {"user": ("p1", "['p1']"), "k": k}, listed),
        "recommend hnsw": Door(lambda **more: h.recommend(h.adapt_user(["p1"]), **more), {"k": k, "exclude": items}, listed),
        "adapt and recommend": Door(lambda history, **more: r.recommend(r.adapt_user(history), **more), {"history": history, "k": k}, listed),
        "recommend_batch": Door(r.recommend_batch, {"histories": logs, **lists, "users": ("[]",), "columns": ("None",), "on_unknown": word, "attributes": ("None",)}, batch),
        "scores": Door(lambda items: r.scores(user, items), {"items": items}, lambda _, found: found.dtype == np.float32 and bool(np.isfinite(found).all())),
        "explain": Door(r.explain, {"history": history, "item": ("p1", "p2"), "on_unknown": word},
                        lambda _, found: abs(found.base + sum(part for _, part in found.contributions) - found.score) < 1e-3),
        "predict_rating": Door(lambda items: r.predict_rating(user, items), {"items": items}),
        "similar_items": Door(r.similar_items, {"items": items, "k": k, "exclude": items, "among": items}, listed),
        "text_of": Door(r.text_of, {"item": ("p1",)}, lambda _, found: isinstance(found, str)),
        "contains": Door(lambda item: item in r, {"item": ("p1",)}, lambda _, found: isinstance(found, bool)),
        "item_ids": Door(r.item_ids, {"hidden": flags}),
        "add_items": Door(r.add_items, {"items": new, "columns": ("None",)}, changes=True),
        "update_items": Door(r.update_items, {"items": ("known items",), "columns": ("None",)}, changes=True),
        "sync_items": Door(r.sync_items, {"items": (*new, "known items"), "gone": ("hide",), "columns": ("None",)}, changes=True),
        "remove_items": Door(r.remove_items, {"ids": items}, changes=True),
        "hide_items": Door(r.hide_items, {"ids": items}, changes=True),
        "show_items": Door(r.show_items, {"ids": items}, changes=True),
        "Recommender": Door(Recommender, dict.fromkeys(("encoder", "config", "template"), ("None",)) | {"index": ("hnsw",), "device": ("None",), "rng": ("3",), "progress": flags}),
        "MetaConfig": Door(MetaConfig, dict.fromkeys(("factors", "head", "training", "text_rank", "liked_from", "predict", "events"), ("None",))),
        "TrainConfig": Door(TrainConfig, dict.fromkeys(("folds", "held_out", "max_shots", "query", "epochs", "patience", "batch_users", "lr", "focus", "calibrate"), ("1",))),
        "FactorConfig": Door(FactorConfig, dict.fromkeys(("symmetric_rank", "l2", "past", "fade", "window", "early", "neighbours", "trend_bins", "exact_items", "gram_rank"), ("1",))),
        "TextTemplate": Door(lambda **more: Catalog.read(SHOP.items, template=TextTemplate(**more)), {"fields": ("None",), "separator": ("p1",), "max_chars": ("3",)}),
        "Catalog.read": Door(Catalog.read, {"source": new, "columns": ("None",)}),
        "PrecomputedEncoder": Door(PrecomputedEncoder.of, {"texts": items, "matrix": ("array 2d",), "name": ("p1",)}),
        "TextEncoder": Door(TextEncoder, {"model": ("nope",), "device": ("p1",)}),
        "load": Door(Recommender.load, {"folder": ("path", "nope"), "device": ("p1",)}),
        "save": Door(r.save, {"folder": ("path",)}),
        "from_bytes": Door(UserState.from_bytes, {"data": ("bytes",)}),
        "fit_meta": Door(lambda interactions=SHOP.interactions, items=SHOP.items, **more: _fit(made["encoder"], interactions, items, **more),
                         {"interactions": logs, "items": new, "on_unknown": word, "context": ("[]",), "interaction_columns": ("None",), "attributes": ("None",)}),
        "clicks add": Door(made["clicks"].add, {"creatives": ("{'a': 'b'}",)}),
        "clicks observe": Door(lambda counts: made["clicks"].observe(counts, made["places"]), {"counts": ("{'p1': 5}",)}),
        "clicks chances": Door(lambda **more: made["clicks"].chances(made["places"], **more), {"among": ("None",), "policy": ("raise",), "explore": ("0.5",), "floor": ("0.5",)},
                               lambda _, found: abs(sum(found.values()) - 1) < 1e-6),
        "clicks posterior": Door(lambda share: made["clicks"].posterior(made["places"], share=share), {"share": ("0.5",)}),
        "clicks drop": Door(lambda creatives: made["clicks"].drop(creatives, made["places"]), {"creatives": ("[]",)}),
        "command line recommend": Door(lambda **more: command("recommend", **more), {"items": ("p1", "p2"), "k": ("3",), "diversity": ("0.5",), "exclude": ("log",), "groups": ("log",), "on_unknown": word}),
        "command line batch": Door(lambda **more: command("recommend", **more), {"history": ("log",), "k": ("1",), "column": ("p1",), "type": ("p1",), "exclude": ("log",), "out": ("p1",)}),
        "command line similar": Door(lambda first, **more: command("similar", first, **more), {"first": ("p1",), "k": ("3",), "among": ("log",)}),
        "command line sync": Door(lambda first, **more: command("sync", first, **more), {"first": ("items", "known items"), "gone": ("hide",)}),
        "command line fit": Door(lambda **more: command("fit", model="", out="fitted", **more), {"interactions": ("log",), "items": ("items",), "device": ("p1",), "seed": ("1",), "column": ("p1",), "text": ("p1",), "liked_from": ("1",)}),
        "classes load": Door(ItemClassifier.load, {"folder": ("path",)}),
        "clicks load": Door(ClickModel.load, {"folder": ("path",)}),
    }  # fmt: skip


def command(name: str, *first: Any, model: str = "kept", **options: Any) -> None:
    """A call of the command line; tables become files, and what is refused an error."""
    words = [name, *([model] if model else []), *(_written(one) for one in first)]
    for option, one in options.items():
        words += [f"-{option}" if option == "k" else f"--{option.replace('_', '-')}", _written(one)]
    done = CliRunner().invoke(app, words)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    if "mistake in mecold" in done.output or "Traceback" in done.output:
        raise RuntimeError(done.output)
    if done.exit_code == 1:
        raise MecoldError(" ".join(done.output.split()))


def _written(one: Any) -> str:
    if not isinstance(one, pl.DataFrame | pl.LazyFrame | pd.DataFrame):
        return str(one)[:3000].replace("\0", "")
    path, frame = Path(f"table{len(list(Path().glob('table*'))) % 5}.parquet"), one
    try:
        frame = frame if isinstance(frame, pl.DataFrame) else pl.DataFrame(frame)
        frame.write_parquet(path)
    except Exception:  # what cannot be written cannot be read
        path.write_bytes(b"nonsense")
    return str(path)


def _fit(encoder: Any, interactions: Any, items: Any, **more: Any) -> Any:
    config = MetaConfig(
        factors=FactorConfig(symmetric_rank=4, directed_rank=4), training=TrainConfig(epochs=0, calibrate=False)
    )
    return Recommender(encoder, config=config, rng=0).fit_meta(interactions, items, **more)


def outcome(door: Door, names: Mapping[str, str], whole: Recommender) -> tuple[str, str]:
    """Make a call: "right", "refused", "raw" or "wrong", and what is to be said of it."""
    before = whole._state
    given = {name: value(one) for name, one in names.items()}
    try:
        found = door.call(**given)
        if not door.right({name: value(one) for name, one in names.items()}, found):
            return "wrong", repr(found)[:200]
    except MecoldError as error:
        text = str(error)
        if len(text) >= 2000 or not WAY_OUT.search(text):
            return "wrong", f"no way out, or too long ({len(text):,}): {text[:300]}"
        if whole._state is not before:
            return "wrong", "refused, and changed something"
        return "refused", text
    except Exception as error:
        return "raw", f"{type(error).__name__}: {str(error)[:200]}"
    finally:
        if door.changes:
            whole._state = before
    return "right", ""


def drawn(all_doors: Mapping[str, Door]) -> st.SearchStrategy[tuple[str, dict[str, str]]]:
    """A door, and a name for each of its arguments that are given: half of them right, the rest anything."""

    @st.composite
    def call(draw: Callable[[Any], Any]) -> tuple[str, dict[str, str]]:
        name = draw(st.sampled_from(sorted(all_doors)))
        takes, names = all_doors[name].takes, {}
        odd = draw(st.sampled_from([*sorted(takes), *[None] * max(1, len(takes) // 3)]))  # mostly one argument is odd
        for argument, right in takes.items():
            framed = any(one in FRAMES for one in right)
            if argument == odd:
                names[argument] = draw(st.sampled_from(sorted(FRAMES if framed and draw(st.booleans()) else PLAIN)))
            elif argument in all_doors[name].needs or draw(st.integers(0, 3)) == 0:
                names[argument] = draw(st.sampled_from(right))
        return name, names

    return call()


def run(calls: int, start: int) -> dict[str, Any]:
    """Draw so many calls; counts, and what went wrong, each kind once."""
    made = world()
    all_doors, counts, bad = doors(made), Counter[str](), {}

    def one(name: str, names: Mapping[str, str]) -> None:
        kind, said = outcome(all_doors[name], names, made["auto"])
        counts[kind] += 1
        if kind in ("raw", "wrong"):
            bad.setdefault((name, said[:60]), {"door": name, "given": dict(names), "kind": kind, "said": said})

    for kept in json.loads(FOUND.read_text()):
        if kept["door"] in all_doors and set(kept["given"].values()) <= set(ODD):
            one(kept["door"], kept["given"])

    @seed(start)
    @settings(
        max_examples=calls, database=None, deadline=None, suppress_health_check=list(HealthCheck), derandomize=False
    )
    @given(drawn(all_doors))
    def many(call: tuple[str, dict[str, str]]) -> None:
        one(*call)

    many()
    return {"calls": sum(counts.values()), **counts, "bad": list(bad.values())}


def main() -> None:
    """Run in a folder of its own, and print the counts."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--calls", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    began = time.process_time()
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        os.environ["MECOLD_CACHE"] = place
        found = run(given.calls, given.seed)
        os.chdir("/")
    print(json.dumps(found | {"seconds": round(time.process_time() - began, 1)}))  # noqa: T201
    sys.exit(1 if found["bad"] else 0)


if __name__ == "__main__":
    main()
