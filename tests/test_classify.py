"""Few-shot categories: names and a few examples make classes, beside known ones or alone, and nothing else moves."""

import json
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
import torch

from mecold import (
    ClassConfig,
    Classified,
    ClassState,
    EncoderError,
    InvalidDataError,
    ItemClassifier,
    ModelFileError,
    PrecomputedEncoder,
    Recommender,
    TextEncoder,
    TextTemplate,
    UnknownItemError,
)
from mecold.heads.inner import descend_classes
from mecold.shop import CATALOGUE, make_shop

TITLES = TextTemplate(fields=("title",))
QUICK = ClassConfig(iterations=40, splits=2)


@pytest.fixture(scope="module")
def goods():
    shop = make_shop(900, 10, rng=1)
    kinds = [f"{branch} > {kind}" for branch, kinds in CATALOGUE.items() for kind in kinds]
    items = shop.items.select("item_id", "title", category=pl.Series([kinds[one] for one in shop.item_type]))
    new = pl.col("category").str.starts_with("Toys")
    return items.filter(~new), items.filter(new)


@pytest.fixture(scope="module")
def encoder():
    return TextEncoder()


@pytest.fixture(scope="module")
def classifier(goods, encoder):
    return ItemClassifier.fit_meta(goods[0], encoder=encoder, template=TITLES, config=QUICK)


@pytest.fixture(scope="module")
def examples(goods):
    return {
        name: titles[:3] for name, titles in goods[1].group_by("category").agg("title").sort("category").iter_rows()
    }


@pytest.fixture(scope="module")
def asked(goods, examples):
    given = [title for titles in examples.values() for title in titles]
    rest = goods[1].filter(~pl.col("title").is_in(given))
    return rest["title"].to_list(), rest["category"].to_list()


@pytest.fixture(scope="module")
def state(classifier, examples):
    return classifier.adapt(examples)


def hits(found, wanted):
    return np.mean([one.label == label for one, label in zip(found, wanted, strict=True)])


def test_new_categories_are_told_from_a_few_examples(classifier, state, asked):
    assert hits(classifier.predict(asked[0], state), asked[1]) > 0.8


def test_names_alone_tell_much(classifier, examples, asked):
    found = classifier.predict(asked[0], classifier.adapt({name: [] for name in examples}), none=False)
    assert hits(found, asked[1]) > 0.7


def test_examples_alone_tell_much(classifier, examples, asked):
    codes = {f"code {n}": titles for n, titles in enumerate(examples.values())}
    names = dict(zip(examples, codes, strict=True))
    found = classifier.predict(asked[0], classifier.adapt(codes, names=False), none=False)
    assert hits(found, [names[label] for label in asked[1]]) > 0.8


def test_known_categories_are_told_and_compete(classifier, examples, goods, asked):
    some = goods[0].sample(100, seed=0)
    assert hits(classifier.predict(some["title"].to_list()), some["category"]) > 0.9
    beside = classifier.adapt(examples, beside_known=True)
    assert hits(classifier.predict(some["title"].to_list(), beside), some["category"]) > 0.85
    assert hits(classifier.predict(asked[0], beside), asked[1]) > 0.8


def test_what_is_of_none_of_them_is_said(classifier, state, goods, asked):
    foreign = [one.none for one in classifier.predict(goods[0]["title"].to_list()[:100], state)]
    own = [one.none for one in classifier.predict(asked[0], state)]
    assert np.median(foreign) > 0.9
    assert np.median(own) < 0.1


def test_probabilities_sum_to_one(classifier, state, asked):
    labels, chances, none = classifier.probabilities(asked[0], state)
    assert labels == state.labels
    np.testing.assert_allclose(chances.sum(1) + none, 1.0, atol=1e-5)
    _, chances, none = classifier.probabilities(asked[0], state, none=False)
    np.testing.assert_allclose(chances.sum(1), 1.0, atol=1e-5)
    assert not none.any()
    for one in classifier.predict(asked[0][:5], state, top=2):
        assert len(one.labels) == 2
        assert one.labels[0].probability >= one.labels[1].probability


def test_ids_stand_for_their_texts(classifier, goods, state):
    some = goods[0].head(5)
    assert classifier.predict(some["item_id"].to_list(), state) == classifier.predict(some["title"].to_list(), state)


def test_order_does_not_matter(classifier, examples, asked):
    turned = {name: titles[::-1] for name, titles in reversed(examples.items())}
    first, second = (classifier.probabilities(asked[0], classifier.adapt(one)) for one in (examples, turned))
    places = [second[0].index(label) for label in first[0]]
    np.testing.assert_allclose(first[1], second[1][:, places], atol=1e-4)


def test_what_is_added_leaves_the_heads_of_the_others_to_the_bit(classifier, examples, asked):
    (name, titles), *others = examples.items()
    before = classifier.adapt(dict(others))
    after = classifier.add(before, {name: titles})
    assert after.labels == (*before.labels, name)
    for part in ("weight", "bias", "scale", "shots", "named"):
        np.testing.assert_array_equal(getattr(after, part)[:-1], getattr(before, part))
    assert after.without([name]) == before
    assert hits(classifier.predict(asked[0], after), asked[1]) > 0.85


def test_a_tree_is_gone_down_consistently(classifier, examples, asked):
    beside = classifier.adapt(examples, beside_known=True)
    ways = classifier.paths(asked[0][:30], beside)
    for way in ways:
        for above, below in pairwise(way):
            assert below.name.startswith(above.name)
            assert below.probability <= above.probability + 1e-6
    assert np.mean([way[0].name == "Toys" for way in ways if way]) > 0.8
    short = classifier.predict(asked[0][:30], beside, depth=1)
    assert np.mean([one.label == "Toys" for one in short]) > 0.8


def test_one_text_can_be_of_several(classifier, examples, asked):
    both = {**examples, "Gifts": [titles[0] for titles in examples.values()]}
    with pytest.raises(InvalidDataError, match="examples of more than one class"):
        classifier.adapt(both)
    found = classifier.predict(asked[0][:20], classifier.adapt(both, multi_label=True), multi_label=True)
    assert all(0 <= label.probability <= 1 for one in found for label in one.labels)


def test_states_and_classifiers_are_kept_and_read_again(classifier, state, encoder, asked, tmp_path):
    assert ClassState.from_bytes(state.to_bytes()) == state
    classifier.save(tmp_path / "kinds")
    again = ItemClassifier.load(tmp_path / "kinds", encoder=encoder)
    assert again.fingerprint == classifier.fingerprint
    assert again.predict(asked[0][:5], state) == classifier.predict(asked[0][:5], state)
    with pytest.raises(EncoderError, match="was fitted with the encoder"):
        ItemClassifier.load(tmp_path / "kinds", encoder=PrecomputedEncoder.of(["a"], np.ones((1, 384)), "other"))
    with pytest.raises(ModelFileError, match="holds a mecold classifier, not a model"):
        Recommender.load(tmp_path / "kinds")
    (tmp_path / "kinds" / "labels.json").write_text("[]")
    with pytest.raises(ModelFileError, match=r"labels\.json"):
        ItemClassifier.load(tmp_path / "kinds", encoder=encoder)


def test_the_same_seed_learns_the_same(goods, encoder, classifier):
    assert (
        ItemClassifier.fit_meta(goods[0], encoder=encoder, template=TITLES, config=QUICK).fingerprint
        == classifier.fingerprint
    )


def test_an_item_without_text_is_none_of_them(classifier, state):
    assert classifier.predict([" "], state)[0] == Classified(classifier.predict([" "], state)[0].labels, 1.0)
    assert classifier.predict([" "], state)[0].label is None


@pytest.mark.parametrize(
    ("examples", "options", "told"),
    [
        ({}, {}, "Pass a mapping"),
        (["a"], {}, "Pass a mapping"),
        ({" ": ["a"]}, {}, "1 labels are empty"),
        ({"a b": ["x"], "a  b": ["y"]}, {}, "differ in white space alone"),
        ({"a": []}, {"names": False}, "has no example, and its name is not read"),
        ({"a": [""]}, {}, "have no text"),
        ({"a": "one text"}, {}, "must be a list"),
        ({"a": [1.5]}, {}, "are neither"),
        ({"a": ["x"]}, {"names": {"b": "words"}}, "labels that have no class"),
    ],
)
def test_what_cannot_be_is_named(classifier, examples, options, told):
    with pytest.raises(InvalidDataError, match=told):
        classifier.adapt(examples, **options)


def test_codes_of_a_csv_stay_what_they_are(goods, encoder, tmp_path):
    codes = {name: f"{n:04}" for n, name in enumerate(sorted(set(goods[0]["category"])))}
    items = goods[0].with_columns(
        pl.col("category").replace_strict(codes), item_id=pl.int_range(pl.len()).cast(pl.String).str.zfill(5)
    )
    items.write_csv(tmp_path / "items.csv")
    found = ItemClassifier.fit_meta(tmp_path / "items.csv", encoder=encoder, template=TITLES, config=QUICK)
    assert found.known_labels[:2] == ("0000", "0001")
    assert found.predict(["00000"])[0].labels[0].name in codes.values()


def test_more_classes_than_memory_read_fewer_items_or_are_refused(goods, encoder, monkeypatch):
    monkeypatch.setattr("mecold.meta.classes._MOST_CELLS", 54**2 * 5)
    found = ItemClassifier.fit_meta(goods[0], encoder=encoder, template=TITLES, config=QUICK)
    assert any("read 5 items each" in note for note in found.report.notes)
    monkeypatch.setattr("mecold.meta.classes._MOST_CELLS", 50**2)
    with pytest.raises(InvalidDataError, match="54 classes do not fit in memory"):
        ItemClassifier.fit_meta(goods[0], encoder=encoder, template=TITLES, config=QUICK)


def test_other_errors_name_the_offender(classifier, state, goods):
    with pytest.raises(UnknownItemError, match="12345"):
        classifier.predict([12345], state)
    with pytest.raises(InvalidDataError, match="are there already"):
        classifier.add(state, {state.labels[0]: ["x"]})
    with pytest.raises(InvalidDataError, match="are there already"):
        classifier.adapt({goods[0]["category"][0]: ["x"]}, beside_known=True)
    with pytest.raises(InvalidDataError, match="top=0"):
        classifier.predict(["x"], state, top=0)
    with pytest.raises(InvalidDataError, match="not in this state"):
        state.without(["nothing"])
    with pytest.raises(InvalidDataError, match="no class is left"):
        state.without(state.labels)
    foreign = ClassState.from_json(json.dumps(json.loads(state.to_json()) | {"model": "another"}))
    with pytest.raises(InvalidDataError, match="classifier another"):
        classifier.predict(["x"], foreign)
    for text in ("{}", "no"):
        with pytest.raises(InvalidDataError, match="not a saved ClassState"):
            ClassState.from_json(text)


def test_tables_that_cannot_be_are_named(goods, encoder):
    fit = lambda items, **more: ItemClassifier.fit_meta(items, encoder=encoder, config=QUICK, **more)  # noqa: E731
    with pytest.raises(InvalidDataError, match="category"):
        fit(goods[0].drop("category"))
    with pytest.raises(InvalidDataError, match="values of 'category' are empty"):
        fit(goods[0].with_columns(category=pl.lit("")))
    with pytest.raises(InvalidDataError, match=r"categories|classes"):
        fit(goods[0].with_columns(category=pl.lit("one")))
    with pytest.raises(InvalidDataError, match="reads 'category'"):
        fit(goods[0], template=TextTemplate(fields=("title", "category")))
    with pytest.raises(InvalidDataError, match="`separator` is empty"):
        fit(goods[0], separator="")


def random_task(seed):
    draw = torch.Generator().manual_seed(seed)
    prior, items = (torch.randn(*shape, generator=draw, dtype=torch.float64) for shape in ((2, 3, 4), (2, 5, 4)))
    targets = torch.nn.functional.one_hot(torch.randint(0, 3, (2, 5), generator=draw), 3).double()
    return prior, items, targets


def test_an_inner_step_is_the_gradient_that_autograd_finds():
    prior, items, targets = random_task(0)
    start = prior.clone().requires_grad_()
    scores = torch.einsum("tsd,tcd->tsc", items, start)
    loss = -(targets * scores.log_softmax(2)).sum()
    (slope,) = torch.autograd.grad(loss, start)
    found = descend_classes(prior, items, targets, lr=0.01, l2=0.5, steps=1)
    torch.testing.assert_close(found, prior - 0.01 * slope)


def test_enough_steps_end_where_the_loss_is_least():
    prior, items, targets = random_task(1)
    found = descend_classes(prior, items, targets, lr=0.05, l2=0.5, steps=4000).requires_grad_()
    scores = torch.einsum("tsd,tcd->tsc", items, found)
    loss = -(targets * scores.log_softmax(2)).sum() + 0.25 * (found - prior).square().sum()
    (slope,) = torch.autograd.grad(loss, found)
    assert float(slope.abs().max()) < 1e-3


def test_the_second_order_is_right_and_the_first_order_leaves_it_out():
    prior, items, targets = (one[:1] for one in random_task(2))
    rate = torch.tensor(0.05, dtype=torch.float64, requires_grad=True)
    start = prior.clone().requires_grad_()
    run = lambda one, lr: descend_classes(one, items, targets, lr=lr, l2=0.5, steps=3)  # noqa: E731
    assert torch.autograd.gradcheck(run, (start, rate))
    first = descend_classes(start, items, targets, lr=0.05, l2=0.5, steps=3, first_order=True)
    (slope,) = torch.autograd.grad(first.sum(), start)
    torch.testing.assert_close(slope, torch.ones_like(slope))
