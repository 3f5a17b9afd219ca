"""Behaviour and audiences: who will come back, who belongs to a segment, who will want an item. Runs offline."""

import numpy as np
import polars as pl

from mecold import BehaviourTask, MetaConfig, Recommender, TrainConfig, past_behaviours, past_tastes, user_features
from mecold.shop import make_shop

DAY = 86400.0
rng = np.random.default_rng(0)

# a year of a shop: some come every week or two, others stay away one day
rows = []
for user in range(800):
    gap, end = rng.gamma(2, 8) + 2, rng.exponential(400)
    visits = np.arange(rng.uniform(0, 200), min(365, 60 + end), gap)
    rows += [(user, f"i{rng.integers(200)}", day * DAY, float(rng.lognormal(3, 1))) for day in visits]
log = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp", "amount"], orient="row")

task = BehaviourTask.fit_meta(past_behaviours(log, ahead=30))
print("behaviours that the log itself taught:", task.behaviours)
users = user_features(log, ahead=30)
state = task.adapt(like="came back")
print("who will come back within 30 days:")
print(task.score(state, users.head(5)))

# a question that nobody has asked before, and forty answers
shop = make_shop(500, 1500, rng=0)
quick = MetaConfig(training=TrainConfig(epochs=2))
recommender = Recommender(config=quick, rng=0)
recommender.fit_meta(shop.interactions, shop.items)
rest, past = past_tastes(shop.interactions, items=60)
task = BehaviourTask.fit_meta(past, recommender.user_vectors(rest))
vectors = recommender.user_vectors(shop.interactions)
camping = shop.items.filter(pl.col("category") == "Camping")["item_id"]
campers = (
    shop.interactions.group_by("user_id").agg(pl.col("item_id").is_in(camping.implode()).mean().alias("share"))
    .sort("user_id").select(pl.col("share") > 0.4).to_series()
)  # fmt: skip
answers = dict(zip(vectors["user_id"][:40], campers[:40].cast(int), strict=True))
state = task.adapt(vectors, answers)
found = task.score(state, vectors[40:]).with_columns(camper=campers[40:]).sort("probability", descending=True)
print(f"campers: {sum(answers.values())} of {len(answers)} answers; the ten most likely of all others:")
print(found.head(10))

# an item that nobody has yet
text = pl.DataFrame({"item_id": ["new"], "title": ["Recycled Two-Person Tent"], "category": ["Camping"]})
recommender.add_items(
    text.with_columns(pl.lit("").alias(name) for name in shop.items.columns if name not in text.columns)
)
print("who will want a new tent:")
print(recommender.audience("new", 5, histories=shop.interactions))
