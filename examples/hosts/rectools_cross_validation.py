"""mecold beside RecTools' own models in RecTools' cross-validation, cold users included.

python examples/hosts/rectools_cross_validation.py    # needs RecTools: pip install 'rectools>=0.19,<0.20'
"""

import pandas as pd
from rectools import Columns
from rectools.dataset import Dataset
from rectools.metrics import MAP, NDCG
from rectools.model_selection import LastNSplitter, cross_validate
from rectools.models import EASEModel, PopularModel

from mecold.shop import make_shop
from mecold_adapters.rectools import MecoldModel


def main() -> None:
    shop = make_shop(n_items=300, n_users=400, rng=1)
    log = shop.interactions
    interactions = pd.DataFrame(
        {
            Columns.User: log["user_id"].to_list(),
            Columns.Item: log["item_id"].to_list(),
            Columns.Weight: 1.0,
            Columns.Datetime: pd.to_datetime(log["timestamp"].to_numpy(), unit="s"),
        }
    )
    result = cross_validate(
        dataset=Dataset.construct(interactions),
        splitter=LastNSplitter(n=2, n_splits=1, filter_cold_users=False),
        metrics={"nDCG@10": NDCG(k=10), "MAP@10": MAP(k=10)},
        models={"popular": PopularModel(), "EASE": EASEModel(), "mecold": MecoldModel(items=shop.items)},
        k=10,
        filter_viewed=True,
    )
    print(pd.DataFrame(result["metrics"]).round(4).to_string(index=False))


if __name__ == "__main__":
    main()
