"""A nightly job: lists for every user of some files, and for users without any history; killed, it would go on.

python examples/batch_job.py
"""

import tempfile
from pathlib import Path

import polars as pl

from mecold import Recommender
from mecold.jobs import Job, run
from mecold.shop import make_shop


def main() -> None:
    shop = make_shop(n_items=400, n_users=600, rng=1)
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        trained = Recommender(rng=0)
        trained.fit_meta(shop.interactions, shop.items)
        trained.save(place / "model")

        (place / "log").mkdir()
        for day in range(3):  # rows of a user lie scattered over the files
            shop.interactions[day::3].write_parquet(place / f"log/{day}.parquet")
        (place / "registered.csv").write_text("user_id\ncame today\n")

        job = Job(
            model=str(place / "model"), histories=str(place / "log/*.parquet"), users=str(place / "registered.csv"),
            out=str(place / "lists"), k=5, because=1,
        )  # fmt: skip
        summary = run(job)  # the same as: mecold batch MODEL --histories ... --users ... --out ... -k 5 --because 1
        print(f"{summary.users:,} users, {summary.items:,} items listed, users by known items: {summary.shots}")
        print(pl.read_parquet(place / "lists/lists/*.parquet").sort("user_id").head(3))


if __name__ == "__main__":
    main()
