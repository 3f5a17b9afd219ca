"""A team has a trained ALS: mecold learns few-shot cold start on top of its factors.

python examples/implicit_ten_lines.py
"""

import numpy as np
import scipy.sparse as sp
from implicit.als import AlternatingLeastSquares

from mecold import Recommender
from mecold.shop import make_shop
from mecold_adapters.implicit import warm_model


def main() -> None:
    shop = make_shop(n_items=400, n_users=600, rng=1)
    log, items = shop.interactions, shop.items
    users, ids = log["user_id"].unique(maintain_order=True).to_list(), items["item_id"].to_list()
    row, column = ({one: place for place, one in enumerate(names)} for names in (users, ids))
    at = [row[user] for user in log["user_id"]], [column[item] for item in log["item_id"]]
    user_items = sp.csr_matrix((np.ones(log.height, np.float32), at), (len(users), len(ids)))
    als = AlternatingLeastSquares(factors=32, random_state=0)
    als.fit(user_items[:450], show_progress=False)  # what the team has

    # mecold learns from the other users how far to trust it
    warm = warm_model(als, ids, users[:450])
    recommender = Recommender(rng=0)
    recommender.fit_meta(log, items, factors=warm.to_factors(unseen_users=users[450:]))
    for history in ([], ids[:1], ids[:3]):
        state = recommender.adapt_user(history)
        print(f"{len(history)} items:", [one.item for one in recommender.recommend(state, k=5)])


if __name__ == "__main__":
    main()
