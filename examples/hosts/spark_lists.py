"""Lists for the users of a Spark table, each executor with the model loaded once.

python examples/hosts/spark_lists.py    # needs Java 17 and Spark: pip install 'mecold[spark]'
"""

import os
import sys
import tempfile
from pathlib import Path

from pyspark.sql import SparkSession

from mecold import Recommender
from mecold.shop import make_shop
from mecold_adapters.spark import recommend


def main() -> None:
    shop = make_shop(n_items=300, n_users=400, rng=1)
    recommender = Recommender(rng=0)
    recommender.fit_meta(shop.interactions, shop.items)
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)  # the Python that has mecold, on every machine
    spark = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    log = spark.createDataFrame(shop.interactions.rows(), schema=shop.interactions.columns)
    with tempfile.TemporaryDirectory() as folder:
        recommender.save(Path(folder) / "model")
        lists = recommend(log, Path(folder) / "model", k=5)  # the model's folder is one that all machines see
        lists.orderBy("user_id").show(5, truncate=80)
    spark.stop()


if __name__ == "__main__":
    main()
