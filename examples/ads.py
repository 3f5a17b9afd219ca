"""Ads: learn from campaigns that are over, then choose among new headlines from the first impression on. Runs offline."""

import numpy as np
import polars as pl

from mecold import ClickModel

OPENINGS = {"Free": 0.35, "New": 0.1, "The": 0.0, "Annual report on": -0.4, "Our": -0.1, "Last chance for": 0.25}
GOODS = [
    "running shoes",
    "coffee beans",
    "garden tools",
    "city bikes",
    "board games",
    "winter coats",
    "headphones",
    "tents",
]
ENDINGS = {"today only": 0.2, "in all sizes": 0.0, "with free delivery": 0.25, "for professionals": -0.15, "": 0.0}


def headlines(rng: np.random.Generator, count: int) -> tuple[list[str], np.ndarray]:
    """Texts, and what they are worth in logits beside the level of their place."""
    opening, ending = rng.choice(list(OPENINGS), count), rng.choice(list(ENDINGS), count)
    texts = [f"{one} {rng.choice(GOODS)} {other}".strip() for one, other in zip(opening, ending, strict=True)]
    worth = [OPENINGS[one] + ENDINGS[other] for one, other in zip(opening, ending, strict=True)]
    return texts, np.array(worth) + rng.normal(0, 0.3, count)


rng = np.random.default_rng(0)
rows = []
for campaign in range(200):
    texts, worth = headlines(rng, 4)
    rates = 1 / (1 + np.exp(-(rng.normal(-4, 0.4) + worth)))
    rows += [(text, campaign, 2000, int(rng.binomial(2000, rate))) for text, rate in zip(texts, rates, strict=True)]
log = pl.DataFrame(rows, schema=["text", "group", "impressions", "clicks"], orient="row")

model = ClickModel.fit_meta(log)
state = model.add(
    {"a": "Free tents with free delivery", "b": "Annual report on tents", "c": "The city bikes in all sizes"}
)
print("before anybody saw them:")
print(model.posterior(state))

state = model.observe({"a": (300, 3), "b": (300, 2), "c": (300, 12)}, state)
print("after 300 impressions each:")
print(model.posterior(state))
print({name: round(chance, 3) for name, chance in model.chances(state).items()})
print(model.choose(state, rng=rng))
