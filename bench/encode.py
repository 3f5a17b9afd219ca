"""Texts per second against `SentenceTransformer.encode`, same weights, same texts, no cache; medians of three.

python bench/encode.py
"""

import numpy as np
from clock import machine, medians_ms
from sentence_transformers import SentenceTransformer

from mecold import Catalog, TextEncoder
from mecold.encode.model_folder import DEFAULT_MODEL, find_model
from mecold.shop import make_shop


def main() -> None:
    items = make_shop(500, 10).items
    full = list(Catalog.read(items).texts)
    several = [" ".join(full[i : i + 2 + i % 4]) for i in range(0, 500, 3)]
    texts = [*items["title"].to_list(), *full, *several]  # short, middling and long, as shops have them
    theirs = SentenceTransformer(str(find_model(DEFAULT_MODEL)), device="cpu")
    ours = TextEncoder(cache=None, device="cpu")
    calls = {
        "mecold": lambda: ours.encode(texts),
        "sentence-transformers": lambda: theirs.encode(texts, normalize_embeddings=True, show_progress_bar=False),
    }
    rate = {name: 1e3 * len(texts) / ms for name, ms in medians_ms(calls, 3).items()}
    vectors = {name: call() for name, call in calls.items()}
    difference = np.abs(vectors["mecold"] - vectors["sentence-transformers"]).max()
    print(machine())
    print(
        f"{len(texts):,} texts; texts per second: " + ", ".join(f"{name} {value:.0f}" for name, value in rate.items())
    )
    print(f"ratio {rate['mecold'] / rate['sentence-transformers']:.2f}, largest difference {difference:.1e}")


if __name__ == "__main__":
    main()
