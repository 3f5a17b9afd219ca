"""A generated shop with known tastes: what the demo sells, and what tests can check against the truth.

Every item is of one product type (its words are in the title, the category and the description), made in one style,
by one brand, with a popularity of its own (a power law). Every user has a taste over product types (sparse) and one
favourite style. Users come in sessions: a session starts with a type of the user's taste; after each purchase the
user either stays with the type or moves on to its companion (a notebook after a pen), so that order tells something.
Within a type an item is bought in proportion to its popularity, `STYLE_LIFT` times more often in the favourite style.
Nobody buys an item twice. The texts are assembled from word lists in this file and describe nothing real.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl
from jaxtyping import Float64, Int64

STYLE_LIFT = 6.0
COMPANION = 0.4  # chance that the next purchase of a session is of the companion type

# category -> product types; each type's companion is the next one of its category
CATALOGUE = {
    "Writing": ["gel pen", "notebook", "fountain pen", "ink bottle", "highlighter", "pencil case"],
    "Office": ["desk lamp", "monitor stand", "paper shredder", "label printer", "office chair", "footrest"],
    "Kitchen": ["chef knife", "cutting board", "frying pan", "saucepan", "spice rack", "measuring cup"],
    "Coffee": ["espresso machine", "coffee grinder", "milk frother", "travel mug", "coffee filter", "kettle"],
    "Fitness": ["yoga mat", "foam roller", "dumbbell", "resistance band", "jump rope", "water bottle"],
    "Camping": ["tent", "sleeping bag", "camping stove", "headlamp", "hiking backpack", "trekking pole"],
    "Garden": ["pruning shears", "watering can", "plant pot", "seed tray", "garden gloves", "bird feeder"],
    "Pets": ["dog leash", "dog bed", "cat tree", "cat litter box", "pet brush", "food bowl"],
    "Audio": ["headphones", "bluetooth speaker", "turntable", "microphone", "audio cable", "record cleaner"],
    "Toys": ["building blocks", "jigsaw puzzle", "board game", "plush bear", "toy train", "modelling clay"],
}
STYLES = {
    "minimalist": ["plain", "slim", "matte", "understated"],
    "eco": ["recycled", "bamboo", "plastic-free", "organic"],
    "premium": ["handcrafted", "brass", "leather", "heirloom"],
    "budget": ["value", "basic", "everyday", "no-frills"],
    "playful": ["rainbow", "polka dot", "neon", "cartoon"],
}
BRANDS = [
    "Arbor",
    "Bellweather",
    "Corvine",
    "Dunmore",
    "Eastlake",
    "Fennick",
    "Galloway",
    "Harrow",
    "Isolde",
    "Juniper",
]
COLOURS = ["black", "white", "navy", "forest green", "terracotta", "grey", "mustard", "rose"]
USES = [
    "Made for long days and small spaces", "A quiet companion for home and travel", "Easy to clean and hard to break",
    "Tested by people who use it daily", "Fits where others do not", "A gift that does not end up in a drawer",
]  # fmt: skip


@dataclass(frozen=True)
class Shop:
    """Items, a log, and the truth behind them.

    Args:
        items: `item_id`, `title`, `brand`, `category`, `description`.
        interactions: `user_id`, `item_id`, `timestamp` (unix seconds), in order of time.
        item_type: product type of each item.
        item_style: style of each item.
        popularity: how much an item is bought within its type, before style; sums to 1 per type.
        taste: probability that a user's session starts with each type.
        favourite: favourite style of each user.
    """

    items: pl.DataFrame
    interactions: pl.DataFrame
    item_type: Int64[np.ndarray, " items"]
    item_style: Int64[np.ndarray, " items"]
    popularity: Float64[np.ndarray, " items"]
    taste: Float64[np.ndarray, "users types"]
    favourite: Int64[np.ndarray, " users"]

    def wants(self, user: int) -> Float64[np.ndarray, " items"]:
        """Chance of each item to be a user's next purchase, session position unknown: what a perfect model knows."""
        companion = companions()
        types = (1 - COMPANION) * self.taste[user]
        np.add.at(types, companion, COMPANION * self.taste[user])
        chance: np.ndarray = types[self.item_type] * within_type(self, self.favourite[user])
        return chance


def make_shop(
    n_items: int = 2000,
    n_users: int = 3000,
    *,
    rng: int | np.random.Generator | None = 0,
    structure: bool = True,
    longer: float = 1.0,
) -> Shop:
    """Generate a shop.

    Args:
        n_items: number of items; at least one per product type (60).
        n_users: number of users.
        rng: seed or generator.
        structure: False makes a world without tastes, types or order: everybody buys by popularity alone.
        longer: times the usual length of a history, eleven items in the median; no history is longer than 60.
    """
    rng = np.random.default_rng(rng)
    kinds = [(category, kind) for category, names in CATALOGUE.items() for kind in names]
    item_type = rng.permutation(np.arange(n_items) % len(kinds))
    item_style = rng.integers(len(STYLES), size=n_items)
    strength = (1 + rng.permutation(n_items)) ** -0.8
    totals = np.bincount(item_type, strength, len(kinds))
    shop = Shop(
        items=_items(item_type, item_style, kinds, rng),
        interactions=pl.DataFrame(),
        item_type=item_type,
        item_style=item_style,
        popularity=strength / totals[item_type],
        taste=rng.dirichlet(np.full(len(kinds), 0.06), size=n_users),
        favourite=rng.integers(len(STYLES), size=n_users),
    )
    lengths = np.clip((longer * rng.lognormal(2.4, 0.6, n_users)).astype(int), 1, min(60, n_items // 4))
    by_style = [within_type(shop, style) for style in range(len(STYLES))]
    members = [np.flatnonzero(item_type == kind) for kind in range(len(kinds))]
    flat = strength / strength.sum()
    rows = []
    for user in range(n_users):
        if structure:
            bought = _purchases(shop.taste[user], by_style[shop.favourite[user]], members, int(lengths[user]), rng)
        else:
            picks = rng.choice(n_items, size=int(lengths[user]), replace=False, p=flat)
            bought = [(int(item), i // 3) for i, item in enumerate(picks)]
        start = 1_700_000_000 + int(rng.integers(300 * 86_400))
        rows += [
            (user, item, start + session * 86_400 * 6 + place * 40) for place, (item, session) in enumerate(bought)
        ]
    log = pl.DataFrame(rows, schema=["user", "item", "timestamp"], orient="row").sort("timestamp", maintain_order=True)
    interactions = log.select(
        pl.format("u{}", "user").alias("user_id"), pl.format("p{}", "item").alias("item_id"), "timestamp"
    )
    return Shop(**{**shop.__dict__, "interactions": interactions})


def companions() -> Int64[np.ndarray, " types"]:
    """The companion of each type."""
    ids, found = 0, []
    for names in CATALOGUE.values():
        found += [ids + (place + 1) % len(names) for place in range(len(names))]
        ids += len(names)
    return np.array(found)


def within_type(shop: Shop, style: int) -> Float64[np.ndarray, " items"]:
    """Chance of each item given its type, for users of a style."""
    weight = shop.popularity * np.where(shop.item_style == style, STYLE_LIFT, 1.0)
    chance: np.ndarray = weight / np.bincount(shop.item_type, weight)[shop.item_type]
    return chance


def _purchases(
    taste: Float64[np.ndarray, " types"],
    within: Float64[np.ndarray, " items"],
    members: list[np.ndarray],
    length: int,
    rng: np.random.Generator,
) -> list[tuple[int, int]]:
    """(item, session) in order; a type that is bought out makes the user start a new session."""
    companion, bought = companions(), dict[int, int]()
    session, left, kind = -1, 0, 0
    for _ in range(50 * length):
        if len(bought) == length:
            break
        if left == 0:
            session, left, kind = session + 1, int(rng.integers(1, 5)), int(rng.choice(len(taste), p=taste))
        pool = members[kind]
        item = int(rng.choice(pool, p=within[pool]))
        if item not in bought:
            bought[item] = session
        left -= 1
        kind = int(companion[kind]) if rng.random() < COMPANION else kind
    return list(bought.items())


def _items(
    item_type: np.ndarray, item_style: np.ndarray, kinds: list[tuple[str, str]], rng: np.random.Generator
) -> pl.DataFrame:
    rows = []
    for item, (kind, style) in enumerate(zip(item_type, item_style, strict=True)):
        category, name = kinds[kind]
        words = rng.permutation(STYLES[list(STYLES)[style]])
        brand, colour, use = rng.choice(BRANDS), rng.choice(COLOURS), rng.choice(USES)
        title = f"{brand} {str(words[0]).capitalize()} {name.title()}, {colour.capitalize()}"
        if rng.random() < 0.5:
            title += f", {rng.choice(['Set of 2', 'Small', 'Large', 'Pack of 6', '2nd Edition'])}"
        text = f"{use}. A {words[1]} {name} for those who like things {words[2]}."
        rows.append((f"p{item}", title, str(brand), category, text))
    return pl.DataFrame(rows, schema=["item_id", "title", "brand", "category", "description"], orient="row")
