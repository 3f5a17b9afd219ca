"""The protocol on real data sets, against an independent implementation; skipped where they are not there.

They are looked for in `$MECOLD_BENCHMARKS`, or in a folder `shared` beside the checkout: `data/<set>/` and `protocol/`
with `reference.py` and `reference_scores.json`. They are no part of the project.
"""

import importlib.util
import json
import os
from pathlib import Path

import numpy as np
import pytest

from mecold import InvalidDataError, TextEncoder
from mecold.evaluation.dataset import Dataset
from mecold.evaluation.protocol import split
from mecold.evaluation.run import evaluate

ROOT = Path(os.environ.get("MECOLD_BENCHMARKS") or Path(__file__).parents[2] / "shared")
SETS = sorted(p.parent.name for p in ROOT.glob("data/*/interactions.parquet"))

pytestmark = [
    pytest.mark.skipif(
        not SETS or not (ROOT / "protocol/reference.py").is_file(), reason="the data sets are not there"
    ),
    pytest.mark.filterwarnings("ignore::mecold.errors.DataWarning"),
]

NAMES = {
    "popularity": "popularity",
    "itemknn[shrink=10]": "itemknn[shrink=10]",
    "faded_itemknn[shrink=10]": "faded itemknn[shrink=10]",
    "rp3beta[beta=0.6]": "rp3beta[beta=0.6]",
    "ease[l2=500]": "ease[lambda=500]",
    "faded_ease[l2=500]": "faded ease[lambda=500]",
    "directed[l2=500]": "directed[lambda=500]",
    "faded_userknn[neighbours=100]": "faded userknn[100]",
}
LOOSE = {"als[factors=64,alpha=1]": "als[factors=64,alpha=1]", "content": "content[MiniLM mean]"}


@pytest.fixture(scope="module")
def oracle():
    spec = importlib.util.spec_from_file_location("protocol_oracle", ROOT / "protocol/reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def scores():
    return json.loads((ROOT / "protocol/reference_scores.json").read_text())


def dataset(name, encoder=None):
    folder = ROOT / "data" / name
    return Dataset.read(folder / "interactions.parquet", folder / "items.parquet", name=name, encoder=encoder)


@pytest.mark.parametrize("name", SETS)
def test_splits_equal_the_oracles(name, oracle):
    mine = dataset(name)
    users, histories, times, _ = oracle.load(ROOT / "data" / name)
    for seed in (0, 2):
        parts, found = oracle.split_users(users, histories, seed), split(mine, "user", seed)
        for part in ("train", "valid", "test"):
            assert same(getattr(found, part).split(), parts[part]), (seed, part)
    if times[0][0] >= 0:
        parts = oracle.split_time(histories, times)
        if len(parts["test"]) < 10:
            with pytest.raises(InvalidDataError, match=f"leaves {len(parts['test'])} test users"):
                split(mine, "time", 0)
            return
        found = split(mine, "time", 0)
        assert same(found.train.split(), parts["train"])
        assert same(found.test.split(), parts["test"])


def same(mine, theirs):
    return len(mine) == len(theirs) and all(np.array_equal(a, b) for a, b in zip(mine, theirs, strict=True))


@pytest.mark.parametrize(
    ("name", "protocol"),
    [("amazon_office_2014", "user"), ("xwines_slim", "user"), ("xwines_slim", "time"), ("movielens_100k", "time")],
)
def test_baselines_score_what_the_oracle_says(name, protocol, scores):
    found = evaluate(",".join(NAMES), dataset(name), protocol=protocol, seeds=(0,))
    known = scores[name]["seeds"]["0"][f"{protocol}_test"]
    compare(found, known, NAMES, 1e-4)


def test_als_and_content_score_about_what_the_oracle_says(scores):
    encoder = TextEncoder(max_length=64)
    for name in ("movielens_100k", "amazon_beauty_handmade_health_2023"):
        found = evaluate(",".join(LOOSE), dataset(name, encoder), seeds=(0,))
        compare(found, scores[name]["seeds"]["0"]["user_test"], LOOSE, 0.003)


def compare(found, known, names, tolerance):
    for mine, theirs in names.items():
        for k in ("0", "1", "3", "5", "10"):
            for metric, value in known[theirs][k].items():
                mean = found.data["systems"][mine]["scores"]["0"][k][metric]["mean"]
                assert mean == pytest.approx(value, abs=tolerance), (mine, k, metric)
