"""Ratings of new users and of new items, beside plain rules: `python bench/rate.py DATA_DIR [--sets ...] [--seeds 0 1 2]`.

DATA_DIR/SET holds interactions.parquet (`user_id`, `item_id`, `rating`, `timestamp`) and items.parquet. Three protocols:

- users: of users with 15 ratings or more a fifth is held out. Their first 0, 1, 3, 5, 10 ratings in order of time are the
  support; the same for every support are the ratings asked for: all after the tenth. Absolute error and squared error are
  averaged over users (the root is taken last), ratings cut to the scale, and the seeds averaged.
- own ten (`--parts ten`): users with 13 to 100 ratings, each tested once in ten folds: ten ratings drawn at random are asked
  for, the others are the support; precision at 5, where the user's own five best of the ten are relevant, ties at random.
- items: a fifth of the items is held out with all its ratings; users keep the others. Errors are averaged over ratings.

Beside it stand: the mean of all ratings; the shrunk mean of an item; item and user biases by empirical Bayes; the same with
a Gaussian posterior over 20 factors of what biases leave; and a rule of 7 facts of a support times 3 of an item, by least
squares, for each size of support. All of them are learned on the training users alone, as ours is, in one configuration.
"""

import argparse
import time
import warnings
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import scipy.sparse as sp
import torch
from clock import commit_of, machine
from scipy.sparse.linalg import svds

from mecold import Catalog, TextEncoder
from mecold.data.interactions import Interactions
from mecold.encode.encoder import encode_or_zero
from mecold.heads.ratings import Expected, RatingHead
from mecold.meta.ratings import learn_ratings
from mecold.space.basis import Basis

SETS = ("movielens_100k", "movielens_1m_half_all_ratings", "xwines_slim")
SHOTS = (0, 1, 3, 5, 10)
ARRIVAL, LEAST = 10, 15
FACTORS, NEAREST = 20, 20


@dataclass(frozen=True)
class Log:
    """Ratings by user, oldest first, in rows of a catalogue."""

    read: Interactions
    text: torch.Tensor
    scale: tuple[float, float]

    @classmethod
    def load(cls, folder: Path, vectors: Path | None, *, ordered: bool = True) -> "Log":
        """Read a set; without order, histories are a fixed shuffle."""
        catalog = Catalog.read(folder / "items.parquet")
        frame = pl.read_parquet(folder / "interactions.parquet")
        read = Interactions.read(frame if ordered else frame.drop("timestamp"), catalog)
        found = encode_or_zero(TextEncoder(), catalog.texts) if vectors is None else np.load(vectors).astype(np.float32)
        texts = torch.from_numpy(found)
        counts = torch.from_numpy(np.bincount(read.items, minlength=catalog.size)).float()
        ratings = read.ratings
        return cls(read, Basis.fit(texts, counts, 256).text(texts), (float(ratings.min()), float(ratings.max())))

    def take(self, users: np.ndarray) -> "Log":
        """These users."""
        return Log(self.read.take(users), self.text, self.scale)

    def of(self, user: int) -> tuple[np.ndarray, np.ndarray]:
        """Items and ratings of a user."""
        rows = slice(self.read.offsets[user], self.read.offsets[user + 1])
        return self.read.items[rows], self.read.ratings[rows].astype(np.float64)

    def learned(self, seed: int) -> RatingHead:
        """Ours."""
        head = learn_ratings(self.read, self.text, np.random.default_rng(seed))
        assert head is not None
        return head


class Biases:
    """Levels of items and users, shrunk by variances that the log itself shows."""

    def __init__(self, log: Log) -> None:
        read, items = log.read, len(log.text)
        self.mean = float(read.ratings.mean())
        centred, owners, sizes = read.ratings.astype(np.float64) - self.mean, read.owners, read.lengths
        self.count = np.bincount(read.items, minlength=items)
        self.item, user = np.zeros(items), np.zeros(len(read))

        def shrunk(of: np.ndarray, count: np.ndarray, values: np.ndarray, noise: float) -> tuple[np.ndarray, float]:
            raw = np.bincount(of, values, minlength=len(count)) / np.maximum(count, 1)
            well = count >= 5
            variance = max(float((raw[well] ** 2 - noise / count[well]).mean()), 1e-3)
            return raw * count / (count + noise / variance), noise / variance

        alone = np.bincount(read.items, centred, minlength=items) / np.maximum(self.count, 1)
        self.plain, _ = shrunk(read.items, self.count, centred, float((centred - alone[read.items]).var()))
        for _ in range(8):
            noise = float((centred - self.item[read.items] - user[owners]).var())
            self.item, _ = shrunk(read.items, self.count, centred - user[owners], noise)
            user, self.shrink = shrunk(owners, sizes, centred - self.item[read.items], noise)
        self.noise = noise
        left = centred - self.item[read.items] - user[owners]
        matrix = sp.csr_matrix((left, (owners, read.items)), (len(read), items))
        _, _, self.factors = svds(matrix, FACTORS, rng=np.random.default_rng(0))
        self.factors = self.factors.T
        self.variance = np.full(FACTORS, float(left.var()))
        for _ in range(3):
            found = [
                self._taste(read.items[a:b], left[a:b]) for a, b in zip(read.offsets, read.offsets[1:], strict=False)
            ]
            self.variance = np.mean([mean**2 + spread for mean, spread in found], axis=0)

    def _taste(self, items: np.ndarray, left: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows = self.factors[items]
        covariance = np.linalg.inv(rows.T @ rows / self.noise + np.diag(1 / self.variance))
        return covariance @ (rows.T @ left) / self.noise, covariance.diagonal()

    def level(self, items: np.ndarray, said: np.ndarray) -> float:
        """A user's, shrunk."""
        return float((said - self.mean - self.item[items]).sum() / (len(items) + self.shrink))

    def biases(self, items: np.ndarray, said: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        """Levels of items and of the user."""
        return self.mean + self.item[wanted] + self.level(items, said)

    def with_factors(self, items: np.ndarray, said: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        """The same and a posterior over factors."""
        level = self.level(items, said)
        taste, _ = self._taste(items, said - self.mean - self.item[items] - level)
        return self.biases(items, said, wanted) + self.factors[wanted] @ taste

    def facts(self, items: np.ndarray, said: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        """7 facts of a support times 3 of each item."""
        left, k = said - self.mean - self.item[items], len(items)
        popular = np.log1p(self.count)
        of_support = [1.0, self.level(items, said), self.item[items].sum() / (k + 1), popular[items].sum() / (k + 1),
                      np.sqrt((np.square(left - left.mean()).sum() + 3 * self.noise) / (k + 3)) if k else self.noise**0.5,
                      left[k - 1] / (k + 1) if k else 0.0, (said - self.mean).sum() / (k + self.shrink)]  # fmt: skip
        of_item = np.stack([np.ones(len(wanted)), self.item[wanted], popular[wanted]], 1)
        return (of_item[:, :, None] * np.array(of_support)).reshape(len(wanted), -1)

    def rule(self, log: Log, shots: int) -> Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]:
        """A correction of the biases, least squares over the training users."""
        gram, pull = np.eye(21), np.zeros(21)
        for user in np.flatnonzero(log.read.lengths >= LEAST):
            items, said = log.of(user)
            rows = self.facts(items[:shots], said[:shots], items[ARRIVAL:])
            left = said[ARRIVAL:] - self.biases(items[:shots], said[:shots], items[ARRIVAL:])
            gram += rows.T @ rows / len(rows)
            pull += rows.T @ left / len(rows)
        weights = np.linalg.solve(gram, pull)
        return lambda items, said, wanted: self.biases(items, said, wanted) + self.facts(items, said, wanted) @ weights


def foretold(head: RatingHead, items: np.ndarray, said: np.ndarray, wanted: np.ndarray) -> dict[str, np.ndarray]:
    """What ours says, by name."""
    support = torch.from_numpy(items if len(items) else np.zeros(1, np.int64))[None]
    ratings = torch.from_numpy(said if len(said) else np.zeros(1)).float()[None]
    mask = torch.full(ratings.shape, len(items) > 0)
    found: Expected = head.predict(
        head.items.take(support), ratings, mask, head.items.take(torch.from_numpy(wanted.copy())[None])
    )
    return {name: value[0].numpy().astype(np.float64) for name, value in found._asdict().items()}


def shown(name: str, cells: list[str]) -> None:
    print(f"{name:34s}" + "".join(f"{cell:>16s}" for cell in cells), flush=True)


def users(log: Log, seeds: list[int]) -> None:
    """Print errors of new users."""
    errors, honest, seconds = defaultdict(list), defaultdict(list), []
    for seed in seeds:
        able = np.random.default_rng(seed).permutation(np.flatnonzero(log.read.lengths >= LEAST))
        test = np.sort(able[: len(able) // 5])
        train = log.take(np.setdiff1d(np.arange(len(log.read)), test))
        plain = Biases(train)
        start = time.perf_counter()
        head = train.learned(seed)
        seconds.append(time.perf_counter() - start)
        for shots in SHOTS:
            rule = plain.rule(train, shots)
            of_users, covered = defaultdict(list), []
            for user in test:
                items, said = log.of(user)
                told, wanted, true = (items[:shots], said[:shots]), items[ARRIVAL:], said[ARRIVAL:]
                ours = foretold(head, *told, wanted)
                every = {
                    "mean of all": np.full(len(true), plain.mean), "item mean, shrunk": plain.mean + plain.plain[wanted],
                    "biases": plain.biases(*told, wanted), "biases, 20 factors": plain.with_factors(*told, wanted),
                    "rule": rule(*told, wanted), "mecold, mean": ours["mean"], "mecold, median": ours["median"],
                }  # fmt: skip
                for name, value in every.items():
                    apart = value.clip(*log.scale) - true
                    of_users[name].append((np.abs(apart).mean(), np.square(apart).mean()))
                inside = ((ours["low"] <= true) & (true <= ours["high"])).mean()
                covered.append((inside, np.square((true - ours["mean"]) / ours["std"]).mean()))
            for name, pairs in of_users.items():
                absolute, squared = np.mean(pairs, axis=0)
                errors[name, shots].append((absolute, squared**0.5))
            honest[shots].append(np.mean(covered, axis=0))
    shown("MAE / RMSE by shots", [str(shots) for shots in SHOTS])
    table = {key: np.mean(pairs, axis=0) for key, pairs in errors.items()}
    names = list(dict.fromkeys(name for name, _ in table))
    for name in names:
        shown(name, ["{:.4f}/{:.4f}".format(*table[name, shots]) for shots in SHOTS])
    for name in names[len(names) - 2 :]:
        ratios = [table[name, shots] / table["biases", shots] for shots in SHOTS]
        shown(f"{name}, of biases", ["{:.4f}/{:.4f}".format(*ratio) for ratio in ratios])
    best = [np.min([table[name, shots] for name in names[: len(names) - 2]], axis=0) for shots in SHOTS]
    ours = [(table["mecold, median", shots][0], table["mecold, mean", shots][1]) for shots in SHOTS]
    shown("median MAE, mean RMSE, of best", ["{:.4f}/{:.4f}".format(*(o / b)) for o, b in zip(ours, best, strict=True)])
    shown("80% interval covers", [f"{np.mean(honest[shots], axis=0)[0]:.3f}" for shots in SHOTS])
    shown("squared error, of variance", [f"{np.mean(honest[shots], axis=0)[1]:.3f}" for shots in SHOTS])
    print(f"learned in {np.mean(seconds):.1f} s\n", flush=True)


def new_items(log: Log, seeds: list[int]) -> None:
    """Print errors of ratings of items that nobody has rated."""
    found = defaultdict(list)
    text = log.text.numpy()
    for seed in seeds:
        held = np.random.default_rng(seed).permutation(len(text)) < len(text) // 5
        train = Log(log.read.where(~held[log.read.items]), log.text, log.scale)
        plain, head = Biases(train), train.learned(seed)
        well = np.flatnonzero(~held & (plain.count > 0))
        cosine = text[held] @ text[well].T
        near = np.argsort(-cosine, axis=1)[:, :NEAREST]
        weight = np.exp(6 * np.take_along_axis(cosine, near, 1)) * (plain.count / (plain.count + 20))[well][near]
        guess = np.zeros(len(text))
        guess[held] = (plain.item[well][near] * weight).sum(1) / weight.sum(1)
        trusted = plain.count[well] / (plain.count[well] + 5)
        gram = (text[well] * trusted[:, None]).T @ text[well]
        ridge = np.zeros(len(text))
        pull = (text[well] * trusted[:, None]).T @ plain.item[well]
        ridge[held] = text[held] @ np.linalg.solve(gram + 10 * np.eye(len(gram)), pull)
        apart = defaultdict(list)
        for user in range(len(log.read)):
            items, said = log.of(user)
            new = held[items]
            if not new.any():
                continue
            told, wanted, true = (items[~new], said[~new]), items[new], said[new]
            ours, level = foretold(head, *told, wanted), plain.level(*told)
            every = {
                "mean of all": np.full(len(true), plain.mean), "user bias": np.full(len(true), plain.mean + level),
                "user bias, nearest texts": plain.mean + level + guess[wanted],
                "user bias, ridge of texts": plain.mean + level + ridge[wanted],
                "mecold, mean": ours["mean"], "mecold, median": ours["median"],
            }  # fmt: skip
            for name, value in every.items():
                apart[name].append(value.clip(*log.scale) - true)
            apart["covered"].append((ours["low"] <= true) & (true <= ours["high"]))
        for name, parts in apart.items():
            every_one = np.concatenate(parts).astype(float)
            found[name].append((np.abs(every_one).mean(), np.square(every_one).mean() ** 0.5))
    shown("new items", ["MAE/RMSE"])
    for name, pairs in found.items():
        cell = (
            "{:.4f}/{:.4f}".format(*np.mean(pairs, axis=0)) if name != "covered" else f"{np.mean(pairs, axis=0)[0]:.3f}"
        )
        shown(name if name != "covered" else "80% interval covers", [cell])
    print()


def ten(log: Log, *, others: bool) -> None:
    """Print precision at 5 of users' own ten; ratings of users who are not tested may be learned from too."""
    sizes = log.read.lengths
    tested = np.flatnonzero((sizes >= 13) & (sizes <= 100))
    rng = np.random.default_rng(0)
    fold_of = rng.permutation(len(tested)) % 10
    found = defaultdict(list)
    for fold in range(10):
        test = tested[fold_of == fold]
        base = np.arange(len(sizes)) if others else tested
        train = log.take(np.setdiff1d(base, test))
        plain, head = Biases(train), train.learned(fold)
        for user in test:
            items, said = log.of(user)
            asked = rng.permutation(len(items)) < 10
            told, wanted, true = (items[~asked], said[~asked]), items[asked], said[asked]
            relevant = np.lexsort((rng.random(10), -true))[:5]
            every = {
                "popularity": plain.count[wanted].astype(float), "item mean, shrunk": plain.plain[wanted],
                "biases": plain.item[wanted], "biases, 20 factors": plain.with_factors(*told, wanted),
                "mecold": foretold(head, *told, wanted)["mean"],
            }  # fmt: skip
            for name, value in every.items():
                best = np.lexsort((rng.random(10), -value))[:5]
                found[name].append(len(np.intersect1d(best, relevant)) / 5)
    shown(f"P@5 of {len(tested)} users' own ten", ["learned from " + ("all" if others else "them")])
    for name, values in found.items():
        shown(name, [f"{np.mean(values):.4f}", f"+- {np.std(values) / len(values) ** 0.5:.4f}"])
    print()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--sets", nargs="+", default=SETS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--parts", nargs="+", choices=("users", "items", "ten"), default=("users", "items"))
    parser.add_argument("--vectors", help="text vectors that are there already, a path with {} for the set (.npy)")
    chosen = parser.parse_args()
    warnings.simplefilter("ignore")
    print(f"commit {commit_of()}, {machine()}\n")
    for name in chosen.sets:
        vectors = None if chosen.vectors is None else Path(chosen.vectors.format(name))
        log = Log.load(chosen.data / name, vectors)
        print(
            f"== {name}: {len(log.read):,} users, {len(log.text):,} items, {len(log.read.items):,} ratings", flush=True
        )
        if "users" in chosen.parts:
            users(log, chosen.seeds)
        if "items" in chosen.parts:
            new_items(log, chosen.seeds)
        if "ten" in chosen.parts:
            unordered = Log.load(chosen.data / name, vectors, ordered=False)  # what is asked for is drawn at random
            for others in (False, True):
                ten(unordered, others=others)


if __name__ == "__main__":
    main()
