"""Ads: what a text foretells, what counts teach, which creative is chosen, and what another policy would have earned."""

import json

import numpy as np
import polars as pl
import pytest
import torch
from scipy import optimize, stats

from mecold import ClickModel, InvalidDataError, ModelFileError, PrecomputedEncoder, Recommender
from mecold.encode.form import FORM, form_of
from mecold.heads.clicks import Usual, adapt, best_chance
from mecold.meta.ads import Cells, learn, simulate
from mecold.tasks.ad_state import AdState
from mecold.tasks.offpolicy import off_policy

WORDS = [f"w{n}" for n in range(30)]
WORTH = np.random.default_rng(5).normal(0, 0.3, 30)  # of each word, in logits
SPREAD, LEVEL, LEVEL_SPREAD = 0.15, -3.5, 0.4


def texts_of(rng, count):
    return [" ".join(rng.choice(WORDS, 4, replace=False)) for _ in range(count)]


def worth_of(texts):
    return np.array([sum(WORTH[WORDS.index(word)] for word in text.split()) for text in texts])


def encoder_of(texts):
    """One direction a word."""
    texts = sorted(set(texts))
    matrix = np.array([[float(word in text.split()) for word in WORDS] for text in texts], np.float32)
    return PrecomputedEncoder.of(texts, matrix, "words")


def places_of(rng, places, arms=4, shown=3000):
    rows = []
    for place in range(places):
        texts = texts_of(rng, arms)
        logit = rng.normal(LEVEL, LEVEL_SPREAD) + worth_of(texts) + rng.normal(0, SPREAD, arms)
        clicks = rng.binomial(shown, 1 / (1 + np.exp(-logit)))
        rows += [(text, f"place {place:04}", shown, int(one)) for text, one in zip(texts, clicks, strict=True)]
    return pl.DataFrame(rows, schema=["text", "group", "impressions", "clicks"], orient="row")


@pytest.fixture(scope="module")
def world():
    rng = np.random.default_rng(0)
    log, unseen = places_of(rng, 300), places_of(rng, 200)
    return log, unseen, encoder_of([*log["text"], *unseen["text"]])


@pytest.fixture(scope="module")
def model(world):
    log, _, encoder = world
    return ClickModel.fit_meta(log, encoder=encoder, horizon=1000)


@pytest.fixture(scope="module")
def state(world, model):
    return model.add(dict(enumerate(world[1]["text"][:5])))


def test_words_are_learned_within_places(world, model):
    unseen = world[1]
    assert np.corrcoef(model.foretell(unseen["text"].to_list()), worth_of(unseen["text"]))[0, 1] > 0.95


def test_levels_and_spreads_are_found(world, model):
    assert model.usual.spread == pytest.approx(SPREAD, rel=0.2)
    assert model.usual.level_spread == pytest.approx(LEVEL_SPREAD, rel=0.2)
    usual = LEVEL + worth_of(world[0]["text"]).mean()  # a level is that of the average text
    assert model.usual.level == pytest.approx(usual, abs=0.1)


def test_the_level_of_a_place_teaches_nothing_of_its_words(world, model):
    """One half of the places is clicked three times as often, and has words of its own."""
    log = world[0].with_columns(good=pl.col("group").rank("dense") % 2 == 0)
    log = log.with_columns(clicks=pl.when("good").then(3 * pl.col("clicks")).otherwise(pl.col("clicks")))
    log = log.with_columns(text=pl.when("good").then(pl.col("text") + " w0").otherwise(pl.col("text")))
    found = ClickModel.fit_meta(log, encoder=encoder_of([*log["text"], *world[1]["text"]]), horizon=50)
    texts = world[1]["text"].to_list()
    assert np.corrcoef(found.foretell(texts), model.foretell(texts))[0, 1] > 0.97


def test_the_mode_is_where_the_posterior_is_highest():
    rng = np.random.default_rng(1)
    usual, prior = Usual(-3.0, 0.5, 0.2), rng.normal(0, 0.3, 4)
    shown = np.array([100.0, 2000.0, 0.0, 30.0])
    clicks = np.array([9.0, 60.0, 0.0, 0.0])

    def negative(parts):
        logit = parts[0] + prior + parts[1:]
        fit = clicks @ logit - shown @ np.logaddexp(0, logit)
        return 0.5 * ((parts[0] - usual.level) / usual.level_spread) ** 2 + 0.5 * (parts[1:] ** 2).sum() / 0.2**2 - fit

    best = optimize.minimize(negative, np.zeros(5), method="BFGS", options={"gtol": 1e-10})
    tensors = [torch.from_numpy(one)[None] for one in (prior, shown, clicks)]
    found = adapt(*tensors, torch.ones(1, 4, dtype=torch.bool), usual)
    np.testing.assert_allclose([found.level[0], *found.own[0]], best.x, atol=1e-5)
    curve = torch.autograd.functional.hessian(
        lambda parts: (
            0.5 * ((parts[0] - usual.level) / usual.level_spread) ** 2
            + 0.5 * (parts[1:] ** 2).sum() / 0.2**2
            + (
                torch.from_numpy(shown) * torch.nn.functional.softplus(parts[0] + torch.from_numpy(prior) + parts[1:])
            ).sum()
            - (torch.from_numpy(clicks) * (parts[0] + torch.from_numpy(prior) + parts[1:])).sum()
        ),
        torch.from_numpy(best.x),
    )
    spread = np.linalg.inv(curve.numpy())
    jacobian = np.concatenate([np.ones((4, 1)), np.eye(4)], axis=1)
    mean, variance = found.logit(tensors[0])
    np.testing.assert_allclose(mean[0], best.x[0] + prior + best.x[1:], atol=1e-5)
    np.testing.assert_allclose(variance[0], np.diag(jacobian @ spread @ jacobian.T), rtol=1e-5)


def test_places_do_not_touch_one_another():
    rng = np.random.default_rng(2)
    prior, shown = rng.normal(0, 0.3, (5, 4)), rng.integers(0, 500, (5, 4)).astype(float)
    clicks, mask = rng.binomial(shown.astype(int), 0.05).astype(float), rng.random((5, 4)) < 0.7
    mask[:, 0] = True
    shown, clicks = shown * mask, clicks * mask
    usual = Usual(-3.0, 0.5, 0.2)
    tensors = [torch.from_numpy(one) for one in (prior, shown, clicks, mask)]
    whole = adapt(*tensors, usual)
    for place in range(5):
        own = adapt(*(one[place : place + 1, mask[place]] for one in tensors), usual)
        np.testing.assert_allclose(whole.own[place][mask[place]], own.own[0], atol=1e-9)


def test_chances_are_how_often_each_is_the_largest():
    mean = torch.tensor([[0.0, 0.1, -0.2, 5.0], [1.0, 1.2, -3.0, 0.0]], dtype=torch.float64)
    std = torch.tensor([[0.1, 0.3, 0.2, 9.0], [0.5, 0.01, 2.0, 1.0]], dtype=torch.float64)
    mask = torch.tensor([[True, True, True, False], [True] * 4])
    draws = mean + std * torch.randn(400_000, 2, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    best = torch.where(mask, draws, -torch.inf).argmax(2)
    often = torch.stack([torch.bincount(best[:, row], minlength=4) / len(best) for row in range(2)])
    found = best_chance(mean, std, mask)
    np.testing.assert_allclose(found, often, atol=0.02)
    np.testing.assert_allclose(found.sum(1), 1.0)
    assert found[0, 3] == 0


def test_equals_share_alike_where_nothing_is_doubtful():
    zeros = torch.zeros(1, 3, dtype=torch.float64)
    found = best_chance(torch.tensor([[1.0, 1.0, 0.0]], dtype=torch.float64), zeros, torch.ones(1, 3, dtype=torch.bool))
    assert found.tolist() == [[0.5, 0.5, 0.0]]


def test_intervals_hold_as_often_as_they_say(world, model):
    """Half of the impressions are told; the interval is of the rate, so the other half is compared with its own noise."""
    inside, rng = [], np.random.default_rng(3)
    for place in world[1].partition_by("group")[:150]:
        known = model.add(dict(enumerate(place["text"])))
        early = rng.hypergeometric(place["clicks"].to_numpy(), (place["impressions"] - place["clicks"]).to_numpy(), 500)
        known = model.observe({n: (500, int(one)) for n, one in enumerate(early)}, known)
        mean = model.posterior(known)
        rest = (place["clicks"].to_numpy() - early) / 2500
        logit = lambda p: np.log(p / (1 - p))  # noqa: E731
        doubt = (logit(mean["high"]) - logit(mean["low"])) / 2 / stats.norm.ppf(0.9)
        noise = 1 / (2500 * rest * (1 - rest))
        inside += list(abs(logit(rest) - logit(mean["rate"])) < stats.norm.ppf(0.9) * np.sqrt(doubt**2 + noise))
    assert 0.76 < np.mean(inside) < 0.84


def test_the_text_prior_and_exploration_earn_clicks(world, model):
    unseen = world[1]
    place = unseen["group"].rank("dense").to_numpy().astype(np.int64) - 1
    rates = (unseen["clicks"] / unseen["impressions"]).to_numpy().copy()
    told = model.foretell(unseen["text"].to_list())
    run = lambda prior, explore: simulate(  # noqa: E731
        place, rates, prior, model.usual, explore, 1000, np.random.default_rng(0)
    )[-1]
    learned = run(told, model.explore)
    assert learned > 1.2
    assert learned > run(0 * told, 1.0) + 0.02
    assert learned > run(0 * told, 0.0) + 0.02


def test_newer_levels_count_more_where_times_are_told(world):
    log, _, encoder = world
    late = log.with_columns(time=pl.col("group").rank("dense")).with_columns(
        clicks=pl.when(pl.col("time") > 200).then(pl.col("clicks") // 2).otherwise(pl.col("clicks"))
    )
    blind = ClickModel.fit_meta(late.drop("time"), encoder=encoder, horizon=50)
    timed = ClickModel.fit_meta(late, encoder=encoder, horizon=50)
    assert timed.usual.level < blind.usual.level - 0.3
    usual = LEVEL + worth_of(log["text"]).mean()
    assert timed.usual.level == pytest.approx(usual - np.log(2), abs=0.25)


def test_counts_add_up_in_any_order(model, state):
    first, second = {0: (100, 3), 3: (50, 0)}, {3: (10, 1), 1: (7, 7)}
    whole = model.observe(second, model.observe(first, state))
    assert whole == model.observe(first, model.observe(second, state))
    frame = pl.DataFrame({"creative_id": [0, 3, 3, 1], "impressions": [100, 50, 10, 7], "clicks": [3, 0, 1, 7]})
    assert model.observe(frame, state) == whole
    assert whole.shown.tolist() == [100, 7, 0, 60, 0]
    assert state.shown.sum() == 0, "a state does not change"


def test_what_is_added_leaves_the_others_as_they_were(world, model, state):
    text = world[1]["text"][7]
    more = model.add(pl.DataFrame({"creative_id": [99], "text": [text]}), model.observe({0: (500, 30)}, state))
    assert more.creatives == (*state.creatives, 99)
    assert model.drop([99], more) == model.observe({0: (500, 30)}, state)
    one = model.posterior(more).filter(pl.col("creative_id") == 99)
    alone = model.posterior(model.add({99: text}))
    assert one["rate"][0] > alone["rate"][0], "the place's level is known by now"


def test_chances_follow_the_counts(model, state):
    known = model.observe({0: (2000, 400), 1: (2000, 20)}, state)
    chances = model.chances(known)
    assert sum(chances.values()) == pytest.approx(1.0)
    assert chances[0] > 0.99
    assert set(model.chances(known, among=[1, 2])) == {1, 2}
    assert model.chances(known, policy="greedy") == {0: 1.0, 1: 0.0, 2: 0.0, 3: 0.0, 4: 0.0}
    floored = model.chances(known, policy="greedy", floor=0.1)
    assert floored[0] == pytest.approx(0.92)
    assert min(floored.values()) == pytest.approx(0.02)
    bold, shy = (model.chances(state, explore=one) for one in (2.0, 0.05))
    assert max(bold.values()) < max(shy.values())
    fresh = model.observe({2: (10_000, 300)}, state)
    assert (
        max(model.chances(fresh, policy="ucb", explore=50.0), key=model.chances(fresh, policy="ucb", explore=50.0).get)
        != 2
    )


def test_choices_are_drawn_by_their_chance(model, state):
    rng, chances = np.random.default_rng(0), model.chances(state)
    drawn = [model.choose(state, rng=rng) for _ in range(400)]
    assert all(one.probability == chances[one.creative] for one in drawn)
    for creative, chance in chances.items():
        assert np.mean([one.creative == creative for one in drawn]) == pytest.approx(chance, abs=0.09)


def test_states_and_models_are_kept_and_read_again(world, model, state, tmp_path):
    known = model.observe({0: (100, 4)}, state)
    assert AdState.from_bytes(known.to_bytes()) == known
    model.save(tmp_path / "ads")
    again = ClickModel.load(tmp_path / "ads", encoder=world[2])
    assert again.fingerprint == model.fingerprint
    assert again.chances(known) == model.chances(known)
    again.save(tmp_path / "ads")  # over itself
    with pytest.raises(ModelFileError, match="fitted with the encoder"):
        ClickModel.load(tmp_path / "ads", encoder=_other(world))
    with pytest.raises(ModelFileError, match="holds a mecold click model, not a model"):
        Recommender.load(tmp_path / "ads")
    (tmp_path / "ads" / "weights.safetensors").write_bytes(b"gone")
    with pytest.raises(ModelFileError, match=r"weights\.safetensors"):
        ClickModel.load(tmp_path / "ads", encoder=world[2])


def _other(world):
    texts = sorted({*world[0]["text"]})
    return PrecomputedEncoder.of(texts, np.ones((len(texts), 3), np.float32), "others")


def test_what_is_no_state_is_refused(model, state):
    for text in ("{}", "no", json.dumps(json.loads(state.to_json()) | {"creatives": [1]})):
        with pytest.raises(InvalidDataError, match="not a saved AdState"):
            AdState.from_json(text)
    foreign = AdState.of(state.creatives, [state.prior, state.shown, state.clicks], "another")
    told = (lambda one: model.observe({0: (1, 0)}, one), lambda one: model.add({9: "w1"}, one))
    for call in (model.chances, model.posterior, *told):
        with pytest.raises(InvalidDataError, match="click model another"):
            call(foreign)


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda model, state: model.add({0: "w1 w2 w3 w4"}, state), "creatives 0 are there already"),
        (lambda model, state: model.add({8: "  "}, state), "1 creatives have no text: 8"),
        (lambda model, state: model.observe({7: (1, 0)}, state), "no creative 7"),
        (lambda model, state: model.observe({0: (1, 2)}, state), "more clicks than impressions"),
        (lambda model, state: model.observe({0: (np.inf, 2)}, state), "impressions in the counts are null, NaN, infinite"),
        (lambda model, state: model.chances(state, policy="best"), "policy='best'"),
        (lambda model, state: model.chances(state, floor=2.0), "floor=2.0"),
        (lambda model, state: model.chances(state, among=[]), "no creative to choose from"),
        (lambda model, state: model.posterior(state, share=1.0), "share=1.0"),
        (lambda model, state: model.drop(["x"], state), "no creative 'x'"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_named(model, state, call, told):
    with pytest.raises(InvalidDataError, match=told):
        call(model, state)


def test_a_place_without_creatives_is_empty(model, state):
    nothing = model.add({})
    assert model.posterior(nothing).is_empty()
    assert model.posterior(model.drop(state.creatives, state)).is_empty()
    assert model.observe({}, state) == state
    assert model.observe(pl.DataFrame({"creative_id": [], "impressions": [], "clicks": []}), state) == state


def test_ids_of_a_csv_are_read_as_those_that_are_there(world, tmp_path):
    model = ClickModel.fit_meta(world[0], encoder=world[2], horizon=50)
    texts = world[1]["text"][:3].to_list()
    for ids in (["001", "002", "A3"], ["001", "002", "003"]):
        pl.DataFrame({"creative_id": ids, "text": texts}).write_csv(tmp_path / "new.csv")
        (tmp_path / "counts.csv").write_text("creative_id,impressions,clicks\n001,10,1\n002,5,0\n")
        known = model.observe(tmp_path / "counts.csv", model.add(tmp_path / "new.csv"))
        assert dict(zip(known.creatives, known.shown, strict=True)) == dict(zip(ids, [10, 5, 0], strict=True))


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda model, state: model.add({"a": "w1 w2 w3 w4", 1: "w1"}), "all texts or all integers"),
        (lambda model, state: model.add({"a": "w1 w2 w3 w4"}, state), "take one type"),
        (lambda model, state: model.add({8: 3}), "something else than a text"),
        (lambda model, state: model.observe({0: (300,)}, state), "no \\(impressions, clicks\\)"),
        (lambda model, state: model.observe({0: (300, None)}, state), "no \\(impressions, clicks\\)"),
    ],
)  # fmt: skip
def test_values_of_other_kinds_are_named(model, state, call, told):
    with pytest.raises(InvalidDataError, match=told):
        call(model, state)


def test_logs_without_clicks_and_rows_without_groups_are_named(world):
    log, _, encoder = world
    with pytest.raises(InvalidDataError, match="None of 1,200 texts was clicked"):
        ClickModel.fit_meta(log.with_columns(clicks=0), encoder=encoder)
    holes = log.with_columns(group=pl.when(pl.int_range(pl.len()) % 3 > 0).then(pl.col("group")))
    with pytest.raises(InvalidDataError, match="400 of 1,200 rows of the impressions have no group"):
        ClickModel.fit_meta(holes, encoder=encoder)


def test_few_impressions_do_not_lift_the_level():
    rng = np.random.default_rng(0)
    log = places_of(rng, 300, arms=4, shown=60)
    found = ClickModel.fit_meta(log, encoder=encoder_of(log["text"]), horizon=50)
    assert found.usual.level == pytest.approx(LEVEL + worth_of(log["text"]).mean(), abs=0.2)


class Taught:
    """An encoder that was trained on some texts."""

    def __init__(self, encoder, texts):
        self.encoder, self.texts, self.fingerprint = encoder, set(texts), "taught"

    def encode(self, texts, *, progress=False):
        return self.encoder.encode(texts)

    def taught(self, texts):
        return np.array([text in self.texts for text in texts])


def test_places_that_the_encoder_was_trained_on_teach_nothing(world):
    log, _, encoder = world
    old = pl.col("group") < "place 0100"
    met = Taught(encoder, log.filter(old)["text"])
    fresh = log.filter(~pl.col("text").is_in(list(met.texts)).any().over("group"))
    found, plain = (ClickModel.fit_meta(one, encoder=met, horizon=50) for one in (log, fresh))
    np.testing.assert_array_equal(found.weights, plain.weights)
    with pytest.raises(InvalidDataError, match=r"trained on texts of all but 0 of 300 groups.*fit on the newer"):
        ClickModel.fit_meta(log, encoder=Taught(encoder, log["text"]))


def test_a_log_that_teaches_nothing_is_named(world):
    log, _, encoder = world
    with pytest.raises(InvalidDataError, match="1 groups of the impressions have two texts or more"):
        ClickModel.fit_meta(log.drop("group"), encoder=encoder)
    with pytest.raises(InvalidDataError, match="horizon=0"):
        ClickModel.fit_meta(log, encoder=encoder, horizon=0)


def test_the_form_of_a_text():
    assert form_of([]).shape == (0, FORM)
    asks, shouts = form_of(["Why 3 pens?", "BUY NOW!"])
    assert asks[2:5].tolist() == [1, 1, 0]
    assert shouts[2:5].tolist() == [0, 0, 1]
    assert shouts[6] == 1


def test_a_ridge_of_its_own_finds_the_same_words():
    """Against dummies for places, by plain weighted least squares."""
    rng = np.random.default_rng(4)
    place = np.repeat(np.arange(60), 3)
    cells = Cells(rng.normal(size=(180, 4)), place, np.full(180, 1000.0), rng.binomial(1000, 0.05, 180).astype(float))
    found = learn(cells, timed=False, horizon=50, rng=np.random.default_rng(0))
    y, noise = cells.logit
    weight = 1 / (found.told["spread_of_arms"] ** 2 + noise)
    rows = np.concatenate([cells.features, np.eye(60)[place]], axis=1)
    pull = np.diag([found.pull] * 4 + [0.0] * 60)
    expected = np.linalg.solve((rows * weight[:, None]).T @ rows + pull, rows.T @ (weight * y))[:4]
    np.testing.assert_allclose(found.weights, expected, atol=1e-8)


def test_off_policy_estimates_meet_what_the_other_policy_earns():
    """A thousand situations with three arms; the log chose by one policy, another one is to be judged."""
    rng, estimates = np.random.default_rng(0), []
    rates = np.array([0.1, 0.3, 0.5])
    ran, other = np.array([0.5, 0.3, 0.2]), np.array([0.1, 0.2, 0.7])
    truth, guess = float(other @ rates), np.array([0.2, 0.2, 0.4])
    for _ in range(300):
        arm = rng.choice(3, 1000, p=ran)
        reward = (rng.random(1000) < rates[arm]).astype(float)
        columns = (reward, ran[arm], other[arm])
        plain = off_policy(*columns, normalise=False)
        robust = off_policy(*columns, guess=guess[arm], expected=np.full(1000, other @ guess), normalise=False)
        estimates.append([*((one.value, one.std_error) for one in (plain, off_policy(*columns), robust))])
    found = np.array(estimates)
    for method in range(3):
        value, error = found[:, method].T
        assert value.mean() == pytest.approx(truth, abs=0.005)
        assert error.mean() == pytest.approx(value.std(), rel=0.15)
        assert 0.9 < np.mean(abs(value - truth) < 1.96 * error) < 0.99
    assert found[:, 2, 0].std() < found[:, 0, 0].std(), "the guess takes noise away"
    same = off_policy([1, 0, 1, 1], [0.5] * 4, [0.5] * 4)
    assert (same.value, same.effective, same.method) == (0.75, 4.0, "snips")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"probability": [0.5, 0.0]}, "1 values of probability are not above 0"),
        ({"target": [0.5, 1.5]}, "1 values of target are no probabilities"),
        ({"reward": [1.0, np.nan]}, "1 values of reward are not finite"),
        ({"reward": [1.0]}, "one row a choice"),
        ({"guess": [0.1, 0.1]}, "needs both"),
        ({"target": [0.0, 0.0]}, "would have made none of the 2 choices"),
    ],
)
def test_logs_that_cannot_be_are_named(change, told):
    columns = {"reward": [1.0, 0.0], "probability": [0.5, 0.5], "target": [0.4, 0.6]} | change
    with pytest.raises(InvalidDataError, match=told):
        off_policy(**columns)
