"""A nightly job: load a saved model, recommend for every user of a log and for users without any history.

python examples/batch_job.py
"""

import tempfile
from pathlib import Path

from mecold import Recommender
from mecold.shop import make_shop


def main() -> None:
    shop = make_shop(n_items=400, n_users=600, rng=1)
    with tempfile.TemporaryDirectory() as place:
        trained = Recommender(rng=0)
        trained.fit_meta(shop.interactions, shop.items)
        trained.save(Path(place) / "model")

        nightly = Recommender.load(Path(place) / "model")  # needs no encoder to recommend
        lists = nightly.recommend_batch(shop.interactions, k=5, users=["came today"])
    print(f"{lists['user_id'].n_unique():,} users, {lists.height:,} rows")
    print(lists.tail(5))


if __name__ == "__main__":
    main()
