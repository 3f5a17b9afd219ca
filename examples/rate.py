"""What will a new guest say of wines, some of which nobody has rated? Made-up ratings; nothing is downloaded.

python examples/rate.py
"""

import numpy as np
import polars as pl

from mecold import Interaction, PrecomputedEncoder, Recommender

GRAPES = ("Riesling", "Silvaner", "Chardonnay", "Merlot", "Syrah", "Malbec")
REGIONS = ("Mosel", "Alsace", "Mendoza", "Barossa")
HOUSES = ("Alt", "Berg", "Cane", "Dorn", "Eiche", "Falk", "Gall", "Hain")


def cellar() -> tuple[pl.DataFrame, pl.DataFrame]:
    """Wines, and ratings from 1 to 5 in half stars: houses differ, guests are stern or mild, and prefer white or red."""
    rng = np.random.default_rng(0)
    wines = [(grape, region, house) for grape in GRAPES for region in REGIONS for house in HOUSES]
    white = np.array([1.0 if GRAPES.index(grape) < 3 else -1.0 for grape, _, _ in wines])
    good = np.linspace(-0.5, 0.5, len(HOUSES))[[HOUSES.index(house) for _, _, house in wines]]
    rows = []
    for guest in range(600):
        level, taste = rng.normal(0.0, 0.4), rng.normal(0.0, 0.5)
        for wine in rng.permutation(len(wines) - 16)[
            : rng.integers(5, 30)
        ]:  # the last 16 are new: nobody has rated them
            rating = 3.5 + level + good[wine] + taste * white[wine] + rng.normal(0.0, 0.4)
            rows.append((guest, int(wine), float(np.clip(np.round(2 * rating) / 2, 1.0, 5.0))))
    items = pl.DataFrame(
        [(row, f"{grape} {region} {house}") for row, (grape, region, house) in enumerate(wines)],
        schema=["item_id", "title"], orient="row",
    )  # fmt: skip
    return pl.DataFrame(rows, schema=["user_id", "item_id", "rating"], orient="row"), items


def encoder_of(texts: list[str]) -> PrecomputedEncoder:
    """Counts of words, in place of a text model."""
    words = sorted({word for text in texts for word in text.split()})
    counts = np.array([[text.split().count(word) for word in words] for text in texts], np.float32)
    return PrecomputedEncoder.of(texts, counts, "words")


def main() -> None:
    ratings, wines = cellar()
    recommender = Recommender(encoder_of(wines["title"].to_list()), rng=0)
    recommender.fit_meta(ratings, wines)

    titles = dict(wines.iter_rows())
    asked = [0, 7, 100, 184, 191]  # the last two are new
    told = [
        Interaction(2, rating=4.5),
        Interaction(35, rating=4.5),
        Interaction(110, rating=2.0),
        Interaction(141, rating=2.5),
    ]
    for name, history in (("a stranger", []), ("fond of white, after four ratings", told)):
        found = recommender.predict_rating(recommender.adapt_user(history), asked)
        print(f"\n{name}")
        for item, mean, std, low, _, high in found.iter_rows():
            print(f"  {titles[item]:24s} {mean:.2f} +- {std:.2f}   from {low:.2f} to {high:.2f}")


if __name__ == "__main__":
    main()
