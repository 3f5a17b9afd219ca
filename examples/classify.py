"""Categories from a few examples: fit on a shop's known categories, then open a new branch. Runs offline.

python examples/classify.py
"""

import polars as pl

from mecold import ItemClassifier, TextTemplate
from mecold.shop import CATALOGUE, make_shop


def main() -> None:
    shop = make_shop(900, 10, rng=1)
    kinds = [f"{branch} > {kind}" for branch, kinds in CATALOGUE.items() for kind in kinds]
    items = shop.items.select("item_id", "title", category=pl.Series([kinds[one] for one in shop.item_type]))
    toys = items.filter(pl.col("category").str.starts_with("Toys"))
    known = items.filter(~pl.col("category").str.starts_with("Toys"))

    classifier = ItemClassifier.fit_meta(known, template=TextTemplate(fields=("title",)))  # label="category"
    state = classifier.adapt(
        {
            "Toys > board game": ["Harrow Board Game, Red"],
            "Toys > toy train": ["Dunmore Toy Train, Navy"],
            "Toys > plush bear": [],  # the name must do
        },
        beside_known=True,
    )
    for title in ["Arbor Rainbow Toy Train, Navy", "Isolde Soft Plush Bear", "Kepler Office Chair, Black"]:
        found = classifier.predict([title], state)[0]
        print(f"{title:32} {found.label!s:24} {found.labels[0].probability:.2f}")

    wanted = toys.filter(pl.col("category").is_in(state.labels))
    answers = [one.label for one in classifier.predict(wanted["title"].to_list(), state)]
    right = sum(one == other for one, other in zip(answers, wanted["category"], strict=True))
    print(
        f"{right} of {len(wanted)} toys of these kinds are told, among {len(classifier.known_labels) + len(state)} categories"
    )


if __name__ == "__main__":
    main()
