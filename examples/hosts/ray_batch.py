"""A batch job whose parts are made by actors of a Ray cluster; here a cluster of one machine.

python examples/hosts/ray_batch.py    # needs Ray: pip install 'mecold[ray]'
"""

import tempfile
from pathlib import Path

import polars as pl
import ray

from mecold import Recommender
from mecold.jobs import Job, run
from mecold.jobs.on_ray import actors
from mecold.shop import make_shop


def main() -> None:
    shop = make_shop(n_items=300, n_users=400, rng=1)
    recommender = Recommender(rng=0)
    recommender.fit_meta(shop.interactions, shop.items)
    ray.init(num_cpus=2, log_to_driver=False)  # ray.init("auto") on a cluster that is there
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)  # one that all machines see
        recommender.save(folder / "model")
        shop.interactions.write_parquet(folder / "log.parquet")
        job = Job(str(folder / "model"), str(folder / "log.parquet"), str(folder / "out"), k=5, parts=4)
        summary = run(job, engine=actors)
        print(f"{summary.users} users, {summary.items} items listed, {summary.parts} files")
        print(pl.read_parquet(folder / "out/lists/*.parquet").sort("user_id").head(3))
    ray.shutdown()


if __name__ == "__main__":
    main()
