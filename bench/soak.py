"""Everything at once, for as long as it is told: readers, writers, saves, loads, forks and kills in one place.

python bench/soak.py [MINUTES] [SEED]

A writer thread adds, hides, shows and removes items and saves; reader threads adapt and recommend, one user and many; a loader
loads what is saved, checks that all of it is of one save, and serves from it; forked children serve; and a process that
saves to the same folder is killed at random moments. It ends with the counts, and with exit code 1 at the first wrong thing.
"""

import faulthandler
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import psutil

from mecold import Catalog, FactorConfig, MetaConfig, PrecomputedEncoder, Recommender, TrainConfig
from mecold.shop import make_shop

ITEMS, FRESH = 300, 40
SAVER = """
import sys
from mecold import Recommender
one = Recommender.load({start!r})
print("ready", flush=True)
while True:
    one.save({folder!r})
"""


class Soak:
    """What all threads share."""

    def __init__(self, place: Path, seconds: float, seed: int) -> None:
        self.place, self.end, self.dice = place, time.monotonic() + seconds, random.Random(seed)
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []
        shop = make_shop(ITEMS, 400, rng=seed)
        texts = [*Catalog.read(shop.items).texts, *(f"fresh {n}" for n in range(FRESH))]
        vectors = np.random.default_rng(seed).standard_normal((len(set(texts)), 32)).astype(np.float32)
        encoder = PrecomputedEncoder.of(list(dict.fromkeys(texts)), vectors)
        config = MetaConfig(factors=FactorConfig(symmetric_rank=16, directed_rank=16), training=TrainConfig(epochs=1))
        self.recommender = Recommender(encoder, config=config, rng=seed)
        self.recommender.fit_meta(shop.interactions, shop.items)
        self.log = shop.interactions.head(200)
        self.recommender.save(place / "start")
        self.recommender.save(place / "model")

    def going(self) -> bool:
        """True until the time is over, or something went wrong."""
        return time.monotonic() < self.end and not self.wrong

    def served(self, one: Recommender) -> None:
        """Lists of the right form."""
        user = one.adapt_user([f"p{self.dice.randrange(1, 100)}" for _ in range(5)])
        found = one.recommend(user, 10)
        items, scores = [row.item for row in found], [row.score for row in found]
        assert len(set(items)) == 10
        assert not set(items) & set(user.seen)
        assert scores == sorted(scores, reverse=True)
        assert np.isfinite(scores).all()

    def read(self) -> None:
        """One user after the other, and now and then many."""
        self.served(self.recommender)
        if self.dice.random() < 0.02:
            lists = self.recommender.recommend_batch(self.log, 5)
            assert lists.group_by("user_id").len()["len"].max() == 5
        self.counts["reads"] += 1

    def write(self) -> None:
        """Change the items and save."""
        one, fresh = self.recommender, f"f{self.dice.randrange(FRESH)}"
        if fresh in one:
            (one.remove_items if self.dice.random() < 0.5 else one.hide_items)([fresh])
        else:
            one.add_items(pl.DataFrame({"item_id": [fresh], "title": [f"fresh {fresh[1:]}"]}))
        if self.dice.random() < 0.3:
            one.save(self.place / "model")
            self.counts["saves"] += 1
        self.counts["writes"] += 1

    def load(self) -> None:
        """What is saved is whole: as many ids as it says, and it serves."""
        one = Recommender.load(self.place / "model")
        assert one.info()["items"] == len(one.item_ids()) + len(one.item_ids(hidden=True)) >= ITEMS
        self.served(one)
        self.counts["loads"] += 1

    def fork(self) -> None:
        """A child serves."""
        pid = os.fork()
        if pid == 0:
            faulthandler.dump_traceback_later(60, exit=True)  # says where it hangs
            try:
                self.served(self.recommender)
                os._exit(0)
            except BaseException:
                traceback.print_exc()
            os._exit(1)
        status = os.waitpid(pid, 0)[1]
        assert status == 0, f"a forked child did not answer: {status}"
        self.counts["forks"] += 1
        time.sleep(0.2)

    def kill(self) -> None:
        """A process that saves to the same folder is killed."""
        script = SAVER.format(start=str(self.place / "start"), folder=str(self.place / "model"))
        saver = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
        assert saver.stdout is not None
        saver.stdout.readline()
        time.sleep(self.dice.uniform(0, 0.5))
        saver.kill()
        saver.wait()
        saver.stdout.close()
        self.counts["kills"] += 1

    def over_and_over(self, name: str) -> None:
        """One thread."""
        try:
            while self.going():
                getattr(self, name)()
        except BaseException:
            self.wrong.append(f"{name}: {traceback.format_exc()}")


def main() -> None:
    minutes = float(sys.argv[1]) if len(sys.argv) > 1 else 10.0
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    with tempfile.TemporaryDirectory() as place:
        soak = Soak(Path(place), 60 * minutes, seed)
        names = ["read", "read", "read", "write", "load", "fork", "kill"]
        threads = [threading.Thread(target=soak.over_and_over, args=(name,)) for name in names]
        for thread in threads:
            thread.start()
        memory = []
        while any(thread.is_alive() for thread in threads):
            time.sleep(min(10.0, 6 * minutes))
            memory.append(psutil.Process().memory_info().rss // 1_000_000)
        left = sorted(path.name for path in Path(place).iterdir())
        print(f"seed {seed}, {minutes:g} minutes: {dict(soak.counts)}")
        print(
            f"memory in MB: {memory[0]} at first, {memory[len(memory) // 2]} halfway, {memory[-1]} at the end; "
            f"left: {len(left) - 2}"
        )
        print("\n".join(soak.wrong) or "nothing went wrong")
        sys.exit(1 if soak.wrong else 0)


if __name__ == "__main__":
    main()
