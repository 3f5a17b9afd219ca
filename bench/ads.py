"""Ads: `python bench/ads.py DATA_DIR [--encoder FOLDER] [--draws 5]`.

DATA_DIR holds upworthy_headlines_early/creatives.parquet (Upworthy Research Archive, CC BY 4.0). Fitted on the tests up to week
201426, measured on those from 201427: pairs of headlines ordered right by their texts; clicks that policies earn in replays, over
those of showing all headlines alike; how often intervals hold; what off-policy estimates say beside the truth; seconds.
The replay's true click rates are the observed ones, drawn towards their test's mean by as much as they are noise.
"""

import argparse
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from time import perf_counter

import numpy as np
import polars as pl
from scipy.special import ndtri

from mecold import ClickModel, TextEncoder
from mecold.meta.ads import Cells, likely_rates, simulate
from mecold.tasks.offpolicy import off_policy

CUT = 201426
LOOKS = (250, 500, 1000, 2000, 5000)
NAMES = {"text": "title", "group": "test_id", "time": "week"}


def pairs(unseen: pl.DataFrame, score: np.ndarray) -> tuple[float, float]:
    """Pairs of one test ordered right: all, and those that differ by 1.96 standard errors."""
    rows = unseen.with_columns(score=score)
    both = rows.join(rows, on="test_id", suffix="_").filter(pl.col("title") < pl.col("title_"))
    rate = [both[f"clicks{end}"] / both[f"impressions{end}"] for end in ("", "_")]
    noise = sum(one * (1 - one) / both[f"impressions{end}"] for one, end in zip(rate, ("", "_"), strict=True))
    apart = (rate[0] - rate[1]).to_numpy()
    right = np.where(apart == 0, 0.5, (both["score"] - both["score_"]).to_numpy() * apart > 0)
    return float(right.mean()), float(right[np.abs(apart) > 1.96 * np.sqrt(noise.to_numpy())].mean())


def replays(
    place: np.ndarray, rates: np.ndarray, prior: np.ndarray, model: ClickModel, explore: float, draws: int
) -> str:
    found = np.array([
        [simulate(place, rates, prior, model.usual, explore, look, np.random.default_rng(draw))[-1] for look in LOOKS]
        for draw in range(draws)
    ])  # fmt: skip
    return " | ".join(f"{one:.3f}" for one in found.mean(0))


def coverage(unseen: pl.DataFrame, model: ClickModel, told: int, rng: np.random.Generator) -> float:
    """How often an 80 % interval after so many impressions holds the rate of all the others, their own noise allowed for."""
    inside = []
    for test in unseen.filter(pl.col("impressions").min().over("test_id") > 2 * told).partition_by("test_id"):
        state = model.add(dict(enumerate(test["title"])))
        clicks, shown = test["clicks"].to_numpy(), test["impressions"].to_numpy()
        early = rng.hypergeometric(clicks, shown - clicks, told) if told else np.zeros(len(test), int)
        found = model.posterior(model.observe({n: (told, int(one)) for n, one in enumerate(early)}, state))
        hit, rest = clicks - early + 0.5, shown - told + 1.0
        low, mid, high = (np.log(found[name] / (1 - found[name])) for name in ("low", "rate", "high"))
        doubt = ((high - low) / 2 / ndtri(0.9)) ** 2 + 1 / hit + 1 / (rest - hit)
        inside += (np.abs(np.log(hit / (rest - hit)) - mid) < ndtri(0.9) * np.sqrt(doubt)).to_list()
    return float(np.mean(inside))


def off(unseen: pl.DataFrame, model: ClickModel, rng: np.random.Generator) -> str:
    """One choice per test by Thompson sampling with a tenth to all alike; the text's favourite is judged by it."""
    rows = []
    for test in unseen.partition_by("test_id"):
        state, rates = model.add(dict(enumerate(test["title"]))), (test["clicks"] / test["impressions"]).to_numpy()
        ran = model.chances(state, floor=0.5)
        target, guess = (
            np.array(list(model.chances(state, policy="greedy").values())),
            model.posterior(state)["rate"].to_numpy(),
        )
        for _ in range(200):
            arm = int(rng.choice(len(rates), p=np.array(list(ran.values())) / sum(ran.values())))
            rows.append((rng.random() < rates[arm], ran[arm], target[arm], guess[arm], target @ guess, target @ rates))
    reward, ran_of, other, guesses, expected, truth = np.array(rows, float).T
    found = [off_policy(reward, ran_of, other), off_policy(reward, ran_of, other, guess=guesses, expected=expected)]
    return f"truth {truth.mean():.5f}; " + "; ".join(
        f"{one.method} {one.value:.5f}, 95 % {one.interval()[0]:.5f} to {one.interval()[1]:.5f}" for one in found
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("--encoder", help="Folder of an encoder; the default one otherwise.")
    parser.add_argument("--draws", type=int, default=5)
    args = parser.parse_args()
    log = pl.read_parquet(args.data_dir / "upworthy_headlines_early" / "creatives.parquet")
    encoder = TextEncoder(args.encoder) if args.encoder else TextEncoder()
    start = perf_counter()
    model = ClickModel.fit_meta(log.filter(pl.col("week") <= CUT), encoder=encoder, columns=NAMES)
    print(f"fit {perf_counter() - start:.0f} s; {model.usual}; explore {model.explore}; {model.told}")
    unseen = log.filter(pl.col("week") > CUT).group_by("test_id", "title", maintain_order=True).agg(
        pl.col("impressions", "clicks").sum()
    )  # fmt: skip
    unseen = unseen.filter(pl.len().over("test_id") > 1).sort("test_id", "title")
    prior = model.foretell(unseen["title"].to_list())
    print("| pairs ordered right by text: all, significant | {:.3f} | {:.3f} |".format(*pairs(unseen, prior)))
    place = unseen["test_id"].rank("dense").to_numpy().astype(np.int64) - 1
    shown, clicks = (unseen[name].to_numpy().astype(float) for name in ("impressions", "clicks"))
    cells = Cells(np.zeros((len(place), 1)), place, shown, clicks)
    rates = likely_rates(cells, model.told["spread_of_arms"])
    print(f"| policy | {' | '.join(map(str, LOOKS))} |")
    blind = replace(model, usual=replace(model.usual, spread=model.told["spread_of_arms"]))
    for name, of, told, explore in (
        ("Thompson, no text", blind, 0 * prior, 1.0), ("Thompson, text", model, prior, 1.0),
        ("greedy, text", model, prior, 0.0), (f"mecold (explore {model.explore})", model, prior, model.explore),
    ):  # fmt: skip
        print(f"| {name} | {replays(place, rates, told, of, explore, args.draws)} |", flush=True)
    rng = np.random.default_rng(0)
    for told in (0, 200, 1000):
        print(f"| 80 % intervals after {told} impressions a headline hold | {coverage(unseen, model, told, rng):.3f} |")
    print(f"off-policy: {off(unseen, model, rng)}")
    many = model.add(dict(enumerate(unseen["title"][:50])))
    ticks = [perf_counter()]
    for _ in range(200):
        model.choose(many, rng=rng)
        ticks.append(perf_counter())
    print(f"choose among 50: {1e3 * np.median([late - early for early, late in pairwise(ticks)]):.2f} ms")


if __name__ == "__main__":
    main()
