"""What an encoder can learn from beside texts and a log: the same thing under many texts, texts beyond the catalogue, clicks."""

import json

import numpy as np
import polars as pl
import pytest
import torch
from typer.testing import CliRunner

from mecold import InvalidDataError, TextEncoder
from mecold.cli.main import app
from mecold.data.catalog import Catalog
from mecold.data.impressions import read_impressions
from mecold.tuning.config import EncoderTraining
from mecold.tuning.ground import Shop, read_unlabelled
from mecold.tuning.judge import HeldOut, Matching, SameThing
from mecold.tuning.lessons import Clicks, Labels
from mecold.tuning.tasks import TASKS
from mecold.tuning.train import train_encoder
from tests.test_tuning import tiny_bert

QUICK = EncoderTraining(trained_layers=2, steps=40, batch=128, learning_rate=3e-3, check_every=10, held_out=0.3)


@pytest.fixture(scope="module")
def offers():
    """300 products under three texts each: a model number, and words of merchants that say nothing."""
    rng = np.random.default_rng(0)
    words = [f"word{n}" for n in range(8)]
    rows = []
    for product in range(300):
        digits = [f"{place}{digit}" for place, digit in zip("abc", np.unravel_index(product, (7, 7, 7)), strict=True)]
        for offer in range(3):
            title = [*digits, *rng.choice(words, 6)]
            rows.append((f"{product}-{offer}", " ".join(rng.permutation(title)), f"product {product}"))
    return pl.DataFrame(rows, schema=["item_id", "title", "product"], orient="row")


@pytest.fixture(scope="module")
def base(offers, tmp_path_factory):
    return tiny_bert(tmp_path_factory.mktemp("offers") / "bert", offers["title"])


@pytest.fixture(scope="module")
def trained(offers, base, tmp_path_factory):
    out = tmp_path_factory.mktemp("same") / "encoder"
    return train_encoder(offers, out=out, base=base, config=QUICK, same="product")


def test_texts_of_unseen_things_find_one_another(trained):
    assert trained.measure == SameThing.name
    assert trained.tasks == ("same",)
    assert trained.score > 1.5 * trained.base


def test_the_judge_is_the_share_of_texts_whose_nearest_is_of_their_thing(offers, trained):
    shop = Shop(Catalog.read(offers), offers, same="product")
    held = HeldOut.draw(shop.readable, shop.catalog.texts, shop.things, None, 0.3, np.random.default_rng(0))
    vectors = TextEncoder(trained.folder, cache=None).encode(list(shop.catalog.texts))
    hits = []
    for row in held.items:
        others = [other for other in held.items if other != row]
        nearest = max(others, key=lambda other: float(vectors[row] @ vectors[other]))
        hits.append(offers["product"][int(nearest)] == offers["product"][int(row)])
    assert np.mean(hits) == pytest.approx(trained.score, abs=0.01)


def test_no_offer_of_a_held_out_thing_is_learned_from(offers):
    twins = pl.concat([offers, offers.head(30).with_columns(item_id=pl.col("item_id") + "-again")])
    shop = Shop(Catalog.read(twins), twins, same="product")
    held = HeldOut.draw(shop.readable, shop.catalog.texts, shop.things, None, 0.3, np.random.default_rng(1))
    known = np.setdiff1d(np.arange(len(twins)), held.items)
    assert len(held.items) > 100
    assert not set(twins["product"][held.items]) & set(twins["product"][known])
    assert not set(twins["title"][held.items]) & set(twins["title"][known])
    assert (shop.ground(held, 32, QUICK).things[held.items] == -1).all()


def test_a_text_of_two_things_binds_them():
    items = pl.DataFrame(
        {"item_id": [1, 2, 3, 4, 5], "title": ["a", "b", "b", "c", "d"], "thing": ["x", "x", "y", "y", None]}
    )
    shop = Shop(Catalog.read(items), items, same="thing")
    for seed in range(8):
        held = HeldOut.draw(shop.readable, shop.catalog.texts, shop.things, None, 0.4, np.random.default_rng(seed))
        assert held.items.tolist() in ([0, 1, 2, 3], [4])


def test_a_step_holds_mates():
    classes = np.array([[0, 0, 1, 1, 2, 2, 3, 3, -1, -1]])
    lesson = Labels([f"text {n}" for n in range(10)], classes, 0.05)
    for seed in range(10):
        drawn = lesson.draw(np.random.default_rng(seed), 8)
        assert len(np.unique(drawn)) == len(drawn)
        assert (np.bincount(classes[0, drawn]) != 1).all(), "a text without its mate"


def test_a_column_that_is_not_there_is_named(offers, base, tmp_path):
    with pytest.raises(InvalidDataError, match="ean"):
        train_encoder(offers, out=tmp_path / "encoder", base=base, same="ean")
    with pytest.raises(InvalidDataError, match="nothing to learn 'same' from"):
        train_encoder(offers, out=tmp_path / "encoder", base=base, same="item_id")


def test_texts_without_users_are_not_said_to_be_taught(trained, offers):
    """Nothing of a log is in such an encoder, so a recommender may treat all items as new ones."""
    assert trained.weight > 0
    assert not TextEncoder(trained.folder, cache=None).taught(offers["title"].to_list()).any()


def goods_of(count, start=0):
    """Items whose description repeats the words of the title."""
    pairs = [(f"a{n % 23} b{n % 31}", f"c{n % 23} d{n % 31}") for n in range(start, start + count)]
    return pl.DataFrame(
        [(n, *pair) for n, pair in enumerate(pairs)], schema=["item_id", "title", "description"], orient="row"
    )


@pytest.mark.parametrize("task", ["views", "dropout"])
def test_texts_beyond_the_catalogue_are_learned_from(task):
    items, more = goods_of(40), goods_of(200, 100).select("description", "title").with_columns(other=1)
    catalog = Catalog.read(items)
    shop = Shop(catalog, items, unlabelled=read_unlabelled(more, catalog.fields))
    held = HeldOut(np.arange(5), np.array([], np.int64))
    alone = TASKS[task](Shop(catalog, items).ground(held, 32, QUICK))
    both = TASKS[task](shop.ground(held, 32, QUICK))
    assert both.size == alone.size + 200
    hidden = {catalog.texts[row] for row in range(5)}
    again = Shop(catalog, items, unlabelled=read_unlabelled(items, catalog.fields)).ground(held, 32, QUICK)
    assert not hidden & set(again.all_texts(catalog.fields))


def test_held_out_titles_are_not_learned_from_elsewhere():
    items = goods_of(40)
    catalog = Catalog.read(items)
    held = HeldOut(np.arange(5), np.array([], np.int64))
    titles = items.select(title=pl.lit("  ") + pl.col("title"))
    ground = Shop(catalog, items, unlabelled=read_unlabelled(titles, catalog.fields)).ground(held, 32, QUICK)
    assert len(ground.unlabelled) == 35
    shown = read_impressions(titles.select(text="title", impressions=10, clicks=1))
    ground = Shop(catalog, items, impressions=shown).ground(held, 32, QUICK)
    assert len(ground.impressions) == 35


def test_weights_that_are_no_numbers_are_worse_than_anything():
    judge = Matching(np.arange(3), np.arange(3, 6))
    assert judge.score(torch.full((6, 4), torch.nan)) == -1.0
    assert judge.score(torch.eye(6)) > 0


def test_texts_beyond_the_catalogue_need_the_first_column():
    with pytest.raises(InvalidDataError, match="title"):
        read_unlabelled(goods_of(3).drop("title"), ("title", "description"))
    found = read_unlabelled(goods_of(3).select("title"), ("title", "description"))
    assert found["description"].null_count() == 3


@pytest.fixture(scope="module")
def shown():
    """Tests of four headlines; a headline with `good` in it is clicked twice as often. Tests differ in their level."""
    rng, rows = np.random.default_rng(1), []
    for test in range(120):
        level = rng.uniform(0.01, 0.1)
        for _ in range(4):
            text = " ".join(rng.choice(["good", *(f"w{n}" for n in range(12))], 5))
            rate = level * (2 if "good" in text else 1)
            rows.append((text, test, 2000, int(rng.binomial(2000, rate))))
    return pl.DataFrame(rows, schema=["text", "group", "impressions", "clicks"], orient="row")


def test_clicks_lose_what_a_loop_over_the_groups_would(shown):
    told = read_impressions(shown)
    head = torch.nn.Linear(3, 1, bias=False)
    groups = told["group"].cast(pl.Int64).to_numpy()
    numbers = [told[name].to_numpy().astype(np.float32) for name in ("impressions", "clicks")]
    lesson = Clicks(told["text"].to_list(), *numbers, groups, head, 0.05)
    drawn = lesson.draw(np.random.default_rng(0), 40)
    assert len(drawn) == 40
    assert all(np.isin(groups, group).sum() == (groups[drawn] == group).sum() for group in groups[drawn])
    vectors = torch.nn.functional.normalize(torch.randn(40, 3), dim=1)
    total, count = 0.0, 0.0
    for group in np.unique(groups[drawn]):
        own = np.flatnonzero(groups[drawn] == group)
        weight = numbers[0][drawn[own]] * np.exp(head(vectors[own]).detach().numpy()[:, 0] / 0.05)
        clicks = numbers[1][drawn[own]]
        total -= (clicks * np.log(weight / weight.sum())).sum()
        count += clicks.sum()
    assert float(lesson.loss(vectors, drawn).detach()) == pytest.approx(total / count, rel=1e-5)


def test_clicks_teach_an_encoder_which_words_are_clicked(shown, tmp_path):
    words = tiny_bert(tmp_path / "bert", shown["text"])
    items = shown.select(item_id=pl.int_range(pl.len()), title="text").unique(
        "title", keep="first", maintain_order=True
    )
    config = EncoderTraining(steps=60, trained_layers=2, batch=128, learning_rate=3e-3)
    found = train_encoder(items, out=tmp_path / "encoder", base=words, config=config, impressions=shown, tasks="clicks")
    losses = [value for _, value in found.report.curve("loss/clicks")]
    assert losses[-1] < losses[0] - 0.02
    assert TextEncoder(found.folder, cache=None).taught(items["title"].to_list()).mean() > 0.8


def test_what_is_held_out_is_not_shown(shown):
    items = shown.select(item_id=pl.int_range(pl.len()), title="text").unique(
        "title", keep="first", maintain_order=True
    )
    held = HeldOut(np.arange(10), np.array([], np.int64))
    ground = Shop(Catalog.read(items), items, impressions=read_impressions(shown)).ground(held, 32, QUICK)
    assert not set(items["title"][:10]) & set(ground.impressions["text"])
    assert len(ground.impressions) > 400


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"clicks": pl.lit(2001)}, "480 of 480 rows of the impressions have more clicks than impressions"),
        ({"clicks": pl.lit(-1)}, "fewer than none"),
        ({"clicks": pl.lit("many")}, "clicks of the impressions holds String"),
        ({"impressions": pl.lit(None, pl.Float64)}, "impressions of the impressions holds no number"),
    ],
)
def test_impressions_that_cannot_be_are_named(shown, change, told):
    with pytest.raises(InvalidDataError, match=told):
        read_impressions(shown.with_columns(**change))
    with pytest.raises(InvalidDataError, match="need the column 'text'"):
        read_impressions(shown.drop("text"))


def test_the_command_line_learns_from_all_of_them(offers, base, shown, tmp_path):
    offers.write_parquet(tmp_path / "items.parquet")
    offers.select(title=pl.col("title") + " a1").write_parquet(tmp_path / "more.parquet")
    shown.write_csv(tmp_path / "shown.csv")
    told = [
        "encoder", "train", "--items", str(tmp_path / "items.parquet"), "--out", str(tmp_path / "encoder"), "--base", str(base),
        "--same", "product", "--unlabelled", str(tmp_path / "more.parquet"), "--impressions", str(tmp_path / "shown.csv"),
        "--task", "same", "--task", "dropout", "--task", "clicks", "--steps", "3", "--json",
    ]  # fmt: skip
    result = CliRunner().invoke(app, told)
    assert result.exit_code == 0, result.output
    about = json.loads(result.output)
    assert about["tasks"] == ["same", "dropout", "clicks"]
    assert about["measure"] == SameThing.name
