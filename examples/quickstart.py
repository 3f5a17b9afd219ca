"""Fit on frames, adapt to a stranger, recommend, explain: the whole public face in one page.

python examples/quickstart.py
"""

import polars as pl

from mecold import Interaction, Recommender
from mecold.shop import make_shop


def main() -> None:
    shop = make_shop(n_items=600, n_users=1000, rng=0)
    recommender = Recommender(rng=0)
    report = recommender.fit_meta(shop.interactions, shop.items)
    print(f"fitted in {report.seconds:.0f} s: {recommender.info()['channels']}")

    stranger = [Interaction("p1"), Interaction("p2"), Interaction("p3", label=-1.0)]
    user = recommender.adapt_user(stranger)
    print(f"\nthe whole state of a user: {len(user.to_bytes()):,} bytes")
    for item, score in recommender.recommend(user, k=3):
        print(f"{score:7.2f}  {recommender.text_of(item)}")

    best = recommender.recommend(user, k=1)[0].item
    why = recommender.explain(stranger, best)
    print(f"\nwhy {best}: {why.base:.2f} for everyone,", ", ".join(f"{c:+.2f} from {i}" for i, c in why.contributions))

    recommender.add_items(
        pl.DataFrame({"item_id": ["new"], "title": ["Arbor Slim Gel Pen, Navy"], "category": ["Writing"]})
    )
    print("\nan item that nobody has touched goes with:")
    for item, score in recommender.similar_items("new", k=3):
        print(f"{score:7.2f}  {recommender.text_of(item)}")


if __name__ == "__main__":
    main()
