"""mecold as the scorer of a LensKit pipeline: users that it was not trained on are answered from the query's history.

python examples/hosts/lenskit_pipeline.py    # needs LensKit: pip install 'lenskit>=2025.8,<2027'
"""

import tempfile
from pathlib import Path

import pandas as pd
from lenskit import recommend
from lenskit.data import ItemList, RecQuery, from_interactions_df
from lenskit.pipeline import topn_pipeline

from mecold.shop import make_shop
from mecold_adapters.lenskit import MecoldScorer


def main() -> None:
    shop = make_shop(n_items=300, n_users=400, rng=1)
    log = pd.DataFrame(shop.interactions.to_dict(as_series=False))
    log["timestamp"] = pd.to_datetime(log["timestamp"], unit="s")
    with tempfile.TemporaryDirectory() as folder:
        shop.items.write_parquet(texts := Path(folder) / "items.parquet")
        pipe = topn_pipeline(MecoldScorer(items=texts))
        pipe.train(from_interactions_df(log))
    history = shop.items["item_id"].to_list()[:2]
    somebody = RecQuery(history_items=ItemList(item_ids=history))
    for name, query in (("nobody in particular", RecQuery()), (f"who has {history}", somebody)):
        print(f"{name}: {recommend(pipe, query, 5).ids().tolist()}")


if __name__ == "__main__":
    main()
