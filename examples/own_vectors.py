"""Bring your own text vectors and your own item factors: nothing here loads a BERT model.

python examples/own_vectors.py
"""

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import svds

from mecold import Catalog, ItemFactors, PrecomputedEncoder, Recommender
from mecold.shop import make_shop


def main() -> None:
    shop = make_shop(n_items=400, n_users=600, rng=1)
    texts = Catalog.read(shop.items).texts
    words = {word: i for i, word in enumerate(sorted({w for text in texts for w in text.split()}))}
    counts = np.zeros((len(texts), len(words)), np.float32)
    for row, text in enumerate(texts):
        counts[row, [words[w] for w in text.split()]] = 1
    encoder = PrecomputedEncoder.of(texts, counts @ np.random.default_rng(0).normal(size=(len(words), 64)))

    users = shop.interactions["user_id"].unique(maintain_order=True)
    seen, unseen = users.head(400), users.tail(200)  # the host's model was fitted on 400 of the 600 users
    log = shop.interactions.filter(shop.interactions["user_id"].is_in(seen.implode()))
    ids = shop.items["item_id"]
    row_of = {item: row for row, item in enumerate(ids)}
    user_of = {user: row for row, user in enumerate(seen)}
    matrix = sp.csr_matrix(
        (np.ones(log.height), ([user_of[u] for u in log["user_id"]], [row_of[i] for i in log["item_id"]])),
        shape=(400, len(ids)),
    )
    _, sizes, right = svds(matrix, k=16, rng=np.random.default_rng(0))
    factors = ItemFactors(ids.to_list(), right.T * np.sqrt(sizes), unseen_users=unseen.to_list())

    recommender = Recommender(encoder, rng=0)
    recommender.fit_meta(shop.interactions, shop.items, factors=factors)
    print(recommender.info()["channels"])
    for item, score in recommender.recommend(recommender.adapt_user(["p1", "p2"]), k=3):
        print(f"{score:7.2f}  {recommender.text_of(item)}")


if __name__ == "__main__":
    main()
