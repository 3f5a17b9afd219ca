"""A shop with items and no log yet: what a shop nearby has learned serves it from the first click. Nothing is downloaded.

python examples/day_one.py
"""

from mecold import Interaction, MetaConfig, Recommender, TrainConfig
from mecold.shop import make_shop


def main() -> None:
    other, mine = make_shop(400, 600, rng=1), make_shop(400, 600, rng=2)
    prior = Recommender(config=MetaConfig(training=TrainConfig(epochs=5)), rng=0)
    prior.fit_meta(other.interactions, other.items)

    recommender = Recommender.from_items(mine.items, prior=prior)  # or prior="folder/of/a/saved/model", or none at all
    print(recommender.info()["notes"][0])
    user = recommender.adapt_user(["p17", Interaction(text="wooden train for toddlers")])
    for item, score in recommender.recommend(user, k=3):
        print(f"{score:6.2f}  {recommender.text_of(item)[:70]}")
    print("like a leather travel mug:")
    for item, score in recommender.similar_items(text="leather travel mug", k=3):
        print(f"{score:6.2f}  {recommender.text_of(item)[:70]}")

    recommender.fit_meta(mine.interactions, mine.items)  # there is a log now
    print("day one:", recommender.info()["day_one"])


if __name__ == "__main__":
    main()
