"""An ALS service that knows its own users, and mecold in front of it for everybody else.

python examples/implicit_router.py
"""

import numpy as np
import polars as pl
import scipy.sparse as sp
from implicit.als import AlternatingLeastSquares

from mecold import Recommender
from mecold.shop import make_shop
from mecold_adapters import ColdStartRouter
from mecold_adapters.implicit import MecoldRecommender, warm_model


def main() -> None:
    shop = make_shop(n_items=400, n_users=600, rng=1)
    users, items = shop.interactions["user_id"].unique(maintain_order=True).to_list(), shop.items["item_id"].to_list()
    known = set(users[:400])  # the service was trained on these
    log = shop.interactions.filter(pl.col("user_id").is_in(list(known)))
    row, column = {u: i for i, u in enumerate(users[:400])}, {item: i for i, item in enumerate(items)}
    at = [row[u] for u in log["user_id"]], [column[i] for i in log["item_id"]]
    user_items = sp.csr_matrix((np.ones(log.height, np.float32), at), (len(row), len(items)))

    # ten lines: mecold beside a trained model
    als = AlternatingLeastSquares(factors=32, random_state=0)
    als.fit(user_items, show_progress=False)
    warm = warm_model(als, items, users[:400])
    recommender = Recommender(rng=0)
    recommender.fit_meta(log, shop.items)
    router = ColdStartRouter(warm, recommender, handover=((5, 0.0), (15, 1.0)))
    found = router.recommend(shop.interactions, k=3, users=["somebody new"])
    for user in (users[0], users[1], users[-1], "somebody new"):
        print(f"{user:>12}: {[one.item for one in found[user].items]}  ({found[user].reason})")

    # the other direction: mecold with implicit's interface
    model = MecoldRecommender(shop.items.with_columns(pl.int_range(pl.len()).alias("item_id")))
    model.fit(user_items, show_progress=False)
    ids, scores = model.recommend(np.arange(2), user_items[:2], N=3)
    print("\nas a model of implicit:", ids.tolist(), scores.round(2).tolist())


if __name__ == "__main__":
    main()
