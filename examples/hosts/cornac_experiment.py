"""mecold in a Cornac experiment on the next item of users nobody was trained on; and a Cornac model's vectors in mecold.

python examples/hosts/cornac_experiment.py    # needs Cornac: pip install 'cornac>=3,<4'
"""

import polars as pl
from cornac.data import Dataset
from cornac.eval_methods import NextItemEvaluation
from cornac.experiment.experiment import Experiment
from cornac.metrics import MRR, NDCG
from cornac.models import BPR, SPop

from mecold import Recommender
from mecold.shop import make_shop
from mecold_adapters import ColdStartRouter
from mecold_adapters.cornac import MecoldRecommender, warm_model


def main() -> None:
    shop = make_shop(n_items=300, n_users=400, rng=1)
    log = shop.interactions.sort("user_id", "timestamp").with_columns(pl.col("timestamp").cast(pl.Int64))
    users = log["user_id"].unique(maintain_order=True).to_list()
    seen = log.filter(pl.col("user_id").is_in(users[:300]))
    strangers = log.filter(~pl.col("user_id").is_in(users[:300]))

    # into the host: a session per user; the last item of each stranger's is to be found
    rows = [list(part.select("user_id", "item_id", "timestamp").iter_rows()) for part in (seen, strangers)]
    method = NextItemEvaluation.from_splits(train_data=rows[0], test_data=rows[1], fmt="SIT", verbose=False)
    Experiment(method, [SPop(), MecoldRecommender(items=shop.items)], [NDCG(k=10), MRR()]).run()

    # from the host: a trained model's vectors as mecold's collaborative channel, and a router in front of both
    ratings = [(user, item, 1.0) for user, item in seen.select("user_id", "item_id").iter_rows()]
    warm = warm_model(BPR(k=16, seed=1).fit(Dataset.from_uir(ratings)))
    recommender = Recommender(rng=0)
    recommender.fit_meta(seen, shop.items, factors=warm.to_factors())
    router = ColdStartRouter(warm, recommender, handover=((5, 0.0), (15, 1.0)))
    found = router.recommend(log, k=3)
    for user in (users[0], users[-1]):
        print(f"{user:>5}: {[one.item for one in found[user].items]}  ({found[user].reason})")


if __name__ == "__main__":
    main()
