"""A shop without a log against content kNN: `python bench/day_one.py DATA_DIR --priors FOLDER [--sets ...] [--seeds 0,1,2]`.

DATA_DIR holds one folder per set with interactions.parquet and items.parquet; in FOLDER a model of each set's whole log is kept,
fitted where it is missing. Each set is served without any of its log: by the model of each other set, and by the numbers of all
other sets in the mean, as those that ship are made. User split, test users, nDCG@10 over that of content (the sum of the plain
text vectors of a support), means over seeds; in the end the numbers that ship, of all sets.
"""

import argparse
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from mecold import MetaConfig, Recommender
from mecold.day_one import Averaged, opened
from mecold.evaluation.dataset import Dataset
from mecold.evaluation.run import evaluate
from mecold.evaluation.systems.base import Training
from mecold.evaluation.systems.ours import FittedMecold
from mecold.model import Model
from mecold.store import load_model

SHOTS = (1, 3, 5, 10)


@dataclass(frozen=True)
class DayOne:
    """Texts of the shop, numbers of others."""

    name: str
    prior: Model | None
    averaged: Averaged
    needs_text: bool = True

    def fit(self, training: Training) -> FittedMecold:
        """Nothing of the log is looked at."""
        vectors = torch.from_numpy(training.vectors)
        catalog = training.dataset.catalog
        made = opened(catalog, vectors, self.prior, MetaConfig(), "", "exact", (), self.averaged)
        return FittedMecold(*made, training.dataset.encode)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("--priors", type=Path, required=True)
    parser.add_argument("--sets", default="amazon_office_2014,online_retail_2011,xwines_slim,movielens_1m_positive")
    parser.add_argument("--also", default="", help="Further sets that are served, and are no prior.")
    parser.add_argument("--seeds", default="0,1,2")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    seeds = tuple(map(int, args.seeds.split(",")))
    names, also = args.sets.split(","), [one for one in args.also.split(",") if one]
    data = {
        name: Dataset.read(
            args.data_dir / name / "interactions.parquet", args.data_dir / name / "items.parquet", name=name
        )
        for name in names + also
    }
    models = {}
    for name in names:
        if not (args.priors / name).exists():
            recommender = Recommender(rng=0)
            log = Training(replace(data[name].log, ratings=None), data[name]).frame()
            recommender.fit_meta(log, data[name].items)
            recommender.save(args.priors / name)
        models[name] = load_model(args.priors / name).model
    for name in names + also:
        others = [one for one in names if one != name]
        mean = Averaged.of([models[one].head for one in others])
        systems = ["content", *(DayOne(one, models[one], mean) for one in others), DayOne("mean", None, mean)]
        found = evaluate(systems, data[name], seeds=seeds, shots=SHOTS).data["systems"]
        marks = {one: [found[one]["mean"][str(k)]["ndcg@10"]["mean"] for k in SHOTS] for one in found}
        for one, mark in marks.items():
            ratios = np.array(mark) / np.array(marks["content"])
            cells = " | ".join(f"{value:.4f} ({ratio:.2f})" for value, ratio in zip(mark, ratios, strict=True))
            print(f"| {name} | {one} | {cells} | {np.exp(np.log(ratios).mean()):.3f} |", flush=True)
    print(Averaged.of([models[one].head for one in names]))


if __name__ == "__main__":
    main()
