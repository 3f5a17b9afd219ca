"""The outer loop: factors against plain loops, episodes, metrics, learning in worlds whose answer is known."""

import warnings
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mecold import (
    Catalog,
    DataWarning,
    HeadConfig,
    InvalidDataError,
    ItemFactors,
    MecoldError,
    MetaConfig,
    Recommender,
    TrainConfig,
)
from mecold.data.histories import Histories
from mecold.data.interactions import Interactions
from mecold.heads.preference import KNOTS, Gains, PreferenceHead
from mecold.math.losses import logq_correction, multi_positive_softmax, soft_ndcg
from mecold.math.metrics import hits, ideal_gain, ndcg, recall, reciprocal_rank
from mecold.math.sparse import Cross, Sparse
from mecold.meta.calibrate import Candidates, Point, calibrate, candidates_of, fitted
from mecold.meta.crossfit import cross_fit
from mecold.meta.episodes import Episodes, cut
from mecold.meta.train import Lessons, episode_loss, hide_support, own_drawn
from mecold.shop import make_shop
from mecold.space.basis import Basis
from mecold.space.channels import MAKERS
from mecold.space.lists import fit_lists
from mecold.space.low_rank import RidgeInverse
from mecold.space.making import Material, made_of
from mecold.space.settings import FactorConfig
from mecold.space.space import with_newcomers
from mecold.space.statistics import Statistics
from tests import reference
from tests.conftest import SMALL, bitwise, word_vectors

CPU = torch.device("cpu")
CONFIG = FactorConfig(symmetric_rank=12, directed_rank=12, l2=3.0, past=4, fade=2.0, window=3, early=0.5)


def small_log(seed=0, users=40, n=12):
    rng = np.random.default_rng(seed)
    return [rng.permutation(n)[: rng.integers(1, 9)].tolist() for _ in range(users)]


def stats_of(histories, n=12, config=CONFIG):
    items = np.array([item for history in histories for item in history])
    offsets = np.cumsum([0, *map(len, histories)])
    return Statistics.of(items, offsets, n)


def channels_of(stats, config=CONFIG, n=12, text=None, basis=None):
    counts = torch.from_numpy(stats.counts)
    text = torch.zeros(n, 1) if text is None else text
    basis = basis or Basis.fit(text, counts, 1)
    draws = torch.Generator().manual_seed(0)
    return made_of(
        MAKERS, Material(stats, counts, text, basis, config, np.arange(n), np.empty(0), 0.0, draws, None, {})
    )


def test_full_rank_factors_are_ease_and_the_directed_ridge():
    histories = small_log()
    channels = channels_of(stats_of(histories))
    for name, expected in (
        ("symmetric", reference.ease(histories, 12, 3.0)),
        ("directed", reference.directed(histories, 12, 3.0, past=4, fade=2.0, window=3, early=0.5)),
    ):
        found = (channels[name].support @ channels[name].item.T).numpy()
        scale = np.sqrt(12) / np.linalg.norm(expected)  # both are scaled to one norm
        np.testing.assert_allclose(found, expected * scale, atol=2e-5)


def test_low_rank_factors_are_the_best_of_their_rank():
    histories = small_log(1)
    config = replace(CONFIG, symmetric_rank=4, directed_rank=0)
    channel = channels_of(stats_of(histories, config=config), config)["symmetric"]
    left, sizes, right = np.linalg.svd(reference.ease(histories, 12, 3.0))
    best = (left[:, :4] * sizes[:4]) @ right[:4]
    found = (channel.support @ channel.item.T).numpy()
    np.testing.assert_allclose(found, best * np.sqrt(12) / np.linalg.norm(best), atol=1e-4)


@pytest.mark.parametrize("l2", [3.0, 500.0])
def test_an_inverse_of_few_directions_is_near_the_whole_one_and_of_all_directions_the_same(l2):
    rng = np.random.default_rng(0)
    tastes = rng.dirichlet(np.full(4, 0.2), 3000) @ rng.dirichlet(np.full(120, 0.3), 4)
    tastes[:, 7] = 0  # an item that nobody touched
    log = sp.csr_matrix((rng.random((3000, 120)) < 15 * tastes).astype(np.float32))
    exact = np.linalg.inv((log.T @ log).toarray() + l2 * np.eye(120))
    dense = torch.randn(120, 3, generator=torch.Generator().manual_seed(0))
    for few, rank, most in ((0, 40, 0.15), (0, 120, 1e-4), (120, 1, 1e-4)):
        draws = torch.Generator().manual_seed(0)
        config = FactorConfig(l2=l2, exact_items=few, gram_rank=rank)
        found = RidgeInverse.of(Sparse.of(log, torch.device("cpu")), config, draws)
        product = exact @ dense.numpy().astype(np.float64)
        assert np.linalg.norm((found @ dense).numpy() - product) < most * np.linalg.norm(product)
        if most < 0.1:
            np.testing.assert_allclose(found.diagonal.numpy(), np.diag(exact), rtol=1e-3)


@settings(max_examples=50, deadline=None)
@given(
    entries=hnp.arrays(
        np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=6), elements=st.sampled_from([0, 1, 2.5])
    ),
    columns=st.integers(1, 4),
)
def test_a_sparse_matrix_multiplies_as_a_dense_one_from_both_sides(entries, columns):
    matrix = Sparse.of(sp.csr_matrix(entries), torch.device("cpu"))
    wide, tall = (torch.randn(side, columns) for side in entries.shape[::-1])
    np.testing.assert_allclose((matrix @ wide).numpy(), entries @ wide.numpy(), atol=1e-5)
    np.testing.assert_allclose((matrix.T @ tall).numpy(), entries.T @ tall.numpy(), atol=1e-5)
    np.testing.assert_allclose(matrix.gram().numpy(), entries.T @ entries, atol=1e-5)
    other = Sparse.of(sp.csr_matrix(entries[:, :1] + 1), torch.device("cpu"))
    for most, at_once in ((0, 1), (1 << 20, 1 << 20)):  # two products, a column at a time; one matrix
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("mecold.math.sparse.MOST_PAIRS", most)
            patch.setattr("mecold.math.sparse._AT_ONCE", at_once)
            cross, one = Cross(matrix, other), torch.randn(1, columns)
            expected = entries.T @ (entries[:, :1] + 1)
            np.testing.assert_allclose((cross @ one).numpy(), expected @ one.numpy(), atol=1e-4)
            np.testing.assert_allclose((cross.T @ wide).numpy(), expected.T @ wide.numpy(), atol=1e-4)
    np.testing.assert_allclose(matrix.squares().numpy(), (entries**2).sum(0), atol=1e-5)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 999), k=st.integers(1, 12), relevant=st.integers(1, 12))
def test_metrics_agree_with_plain_loops(seed, k, relevant):
    rng = np.random.default_rng(seed)
    ranked, wanted = rng.permutation(20)[:k], rng.permutation(20)[:relevant]
    hit = hits(torch.tensor(ranked)[None], torch.tensor(wanted)[None], torch.ones(1, relevant, dtype=torch.bool))
    found = [item in set(wanted.tolist()) for item in ranked.tolist()]
    count = torch.tensor([relevant])
    assert ndcg(hit, count).item() == pytest.approx(reference.ndcg(ranked.tolist(), set(wanted.tolist()), k), abs=1e-6)
    assert recall(hit, count).item() == pytest.approx(sum(found) / min(k, relevant), abs=1e-6)
    first = next((rank for rank, ok in enumerate(found, 1) if ok), None)
    assert reciprocal_rank(hit).item() == pytest.approx(1 / first if first else 0.0)


def test_a_user_without_relevant_items_scores_zero_and_padding_hits_nothing():
    hit = hits(torch.tensor([[-1, -1]]), torch.tensor([[0]]), torch.tensor([[False]]))
    assert not hit.any()
    assert ndcg(hit, torch.tensor([0])).item() == 0.0


def test_episodes_are_the_first_items_and_what_follows(shop):
    from mecold import Catalog
    from mecold.data.interactions import Interactions

    catalog = Catalog.read(shop.items)
    log = Interactions.read(shop.interactions, catalog)
    users = log.histories(np.ones(len(log.items), np.float32), first=30)
    shots = torch.full((len(log),), 3)
    episodes = cut(users, shots, 10)
    for user in range(50):
        items = log.items[log.offsets[user] : log.offsets[user + 1]].tolist()
        support, query = items[:3], items[3:13]
        mask = episodes.support.mask[user]
        assert episodes.support.rows[user][mask].tolist() == support
        assert episodes.support.ages[user][mask].tolist() == list(range(len(support)))[::-1]
        assert episodes.query[user][episodes.query_mask[user]].tolist() == query


def test_disliked_items_are_never_predicted(shop):
    from mecold import Catalog
    from mecold.data.interactions import Interactions

    log = Interactions.read(shop.interactions, Catalog.read(shop.items))
    labels = np.where(np.arange(len(log.items)) % 3 == 0, -1.0, 1.0).astype(np.float32)
    episodes = cut(log.histories(labels, first=30), torch.full((len(log),), 2), 10)
    assert (
        0
        < episodes.query_mask.sum()
        < cut(log.histories(abs(labels), first=30), torch.full((len(log),), 2), 10).query_mask.sum()
    )
    assert (episodes.support.labels == -1).any()


def test_the_softmax_is_the_likelihood_and_focus_one_counts_misses():
    scores = torch.tensor([[1.0, 2.0, 0.5, -torch.inf], [0.0, 0.0, 0.0, 0.0]])
    positives, mask = torch.tensor([[1, 2], [3, 0]]), torch.tensor([[True, True], [True, False]])
    p = torch.softmax(scores, 1)
    likelihood = -(0.5 * (p[0, 1].log() + p[0, 2].log()) + p[1, 3].log()) / 2
    torch.testing.assert_close(multi_positive_softmax(scores, positives, mask), likelihood)
    misses = (0.5 * (1 - p[0, 1] + 1 - p[0, 2]) + 1 - p[1, 3]) / 2
    torch.testing.assert_close(multi_positive_softmax(scores, positives, mask, focus=1.0), misses)
    near = multi_positive_softmax(scores, positives, mask, focus=1e-3)
    torch.testing.assert_close(near, likelihood, rtol=1e-2, atol=1e-3)


def world(n=60, users=30):
    """A space of five channels with lists; and episodes of five shots and three query items."""
    rng = np.random.default_rng(0)
    logs = [rng.permutation(n)[:8].tolist() for _ in range(users)]
    config = FactorConfig(symmetric_rank=6, directed_rank=6, l2=3.0)
    stats = stats_of(logs, n, config)
    vectors = torch.from_numpy(rng.normal(size=(n, 10)).astype(np.float32))
    basis = Basis.fit(vectors, torch.from_numpy(stats.counts), 5)
    channels = channels_of(stats, config, n, basis.text(vectors), basis)
    space = with_newcomers(channels, fit_lists(stats.recent(), 20), torch.from_numpy(stats.counts), basis)
    rows = torch.tensor(logs)
    support = histories(*[log[:5] for log in logs])
    query = rows[:, 5:]
    return space, Episodes(support, query, torch.ones_like(query, dtype=torch.bool))


def histories(*rows, labels=None):
    """Histories of users, one list of rows each; `labels` are of all rows, user after user."""
    flat = np.array([row for one in rows for row in one], np.int64)
    labels = None if labels is None else np.array(labels, np.float32)
    return Histories.padded(flat, np.array([len(one) for one in rows]), labels=labels)


def head_of(space, config=None):
    return PreferenceHead.start({name: channel.traits for name, channel in space.channels.items()}, config)


def with_prior(head, **changes):
    return replace(head, prior=replace(head.prior, **changes))


def with_gains(head, **changes):
    return replace(head, gains=replace(head.gains, **changes))


def test_the_sampled_softmax_approaches_the_full_one():
    space, episodes = world()
    head = head_of(space)
    full = episode_loss(head, space, episodes, TrainConfig(focus=0.0), torch.Generator().manual_seed(0))
    config = TrainConfig(focus=0.0, full_softmax_items=10, negatives=200_000)
    sampled = episode_loss(head, space, episodes, config, torch.Generator().manual_seed(0))
    assert sampled.item() == pytest.approx(full.item(), rel=0.03)
    corrections = logq_correction(torch.tensor([1.0, 3.0]), 100)
    torch.testing.assert_close(corrections.exp(), torch.tensor([25.0, 75.0]))


def test_every_number_of_the_prior_is_learned():
    space, episodes = world()
    rng, support = np.random.default_rng(0), episodes.support
    said = torch.from_numpy(rng.choice([1.0, 0.0, -1.0], support.rows.shape).astype(np.float32))
    weights = torch.from_numpy(rng.lognormal(size=support.rows.shape).astype(np.float32))
    kinds = torch.from_numpy(rng.integers(0, 2, support.rows.shape))
    episodes = replace(episodes, support=replace(support, labels=said, weights=weights, kinds=kinds))
    head = head_of(space)
    head = replace(head, prior=replace(head.prior, events=torch.full((1, len(head.names)), 0.5)))
    learned = {name: value.clone().requires_grad_() for name, value in head.prior.tensors().items()}
    loss = episode_loss(with_prior(head, **learned), space, episodes, TrainConfig(), torch.Generator().manual_seed(0))
    loss.backward()
    assert set(learned) == {"scale", "tied", "fade", "rarity", "disliked", "neutral", "heed", "events"}
    for name, value in learned.items():
        of_channel = value.grad.abs().reshape(-1, value.shape[-1]).sum(0)
        assert (of_channel > 0).sum() >= len(of_channel) - 3, name  # text does not fade, popularity has no support


def test_the_text_channel_is_half_way_to_whitening():
    rng = np.random.default_rng(0)
    scales = torch.tensor([9.0, 4.0, 1.0, 0.0])  # the last: all texts alike there
    turn = torch.linalg.qr(torch.from_numpy(rng.normal(size=(4, 4)).astype(np.float32)))[0]
    vectors = torch.from_numpy(rng.normal(size=(4000, 4)).astype(np.float32)) * scales @ turn.T + 3.0
    vectors[7] = 0.0
    basis = Basis.fit(vectors, torch.ones(4000), 4)
    projected = (vectors[8:] - basis.center) @ basis.project
    deviation = projected.std(0)
    torch.testing.assert_close(deviation, scales.sqrt(), rtol=0.05, atol=1e-3)
    assert not basis.text(vectors)[7].any()
    torch.testing.assert_close(basis.text(vectors)[8:].norm(dim=1), torch.ones(3992))
    basis = Basis.fit(torch.ones(5, 4), torch.ones(5), 4)  # no two texts differ
    assert not basis.text(torch.ones(5, 4)).any()


def test_a_user_vector_is_the_same_to_the_bit_in_any_company_and_padding():
    space, _ = world()
    head = head_of(space)
    step = torch.linspace(-0.2, 0.2, head.gains.step.numel()).reshape(head.gains.step.shape)
    head = with_gains(with_prior(head, tied=head.prior.tied + 0.3), step=step)
    short, long = [3, 5], list(range(20, 60))
    together = head.adapt(space, histories(short, long, []))
    for user, one in enumerate((short, long)):
        alone = head.adapt(space, histories(one))
        assert torch.equal(alone.vector[0], together.vector[user])
        torch.testing.assert_close(space.scores(alone)[0], space.scores(together)[user], rtol=1e-4, atol=1e-5)
    scores = space.scores(together)[2]
    assert torch.equal(
        scores.argsort(descending=True, stable=True), space.popularity.argsort(descending=True, stable=True)
    )


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 9999), items=st.integers(2, 30), relevant=st.integers(1, 10))
def test_soft_ndcg_is_what_a_loop_over_pairs_gives(seed, items, relevant):
    rng = np.random.default_rng(seed)
    scores, wanted = rng.normal(size=items), rng.permutation(items)[:relevant]
    found = soft_ndcg(
        torch.tensor(scores)[None], torch.tensor([*wanted, 0])[None], torch.tensor([True] * len(wanted) + [False])[None],
        torch.tensor([2.0]), temperature=0.3,
    )  # fmt: skip
    expected = 0.0
    for item in wanted:
        rank = 1 + sum(1 / (1 + np.exp((scores[item] - scores[o]) / 0.3)) for o in range(items) if o != item)
        expected += 1 / (1 + np.exp(rank - 10.5)) / np.log2(1 + rank) / 2.0
    assert found.item() == pytest.approx(expected, rel=1e-5)


def candidates(pieces=1, users=400, telling=None):
    """Forty candidates and three channels per user; relevant are the best five by the channel that `telling` names."""
    rng = torch.Generator().manual_seed(0)
    by_channel, evidence = torch.randn(users, 3, 40, generator=rng), torch.randn(users, pieces, generator=rng)
    channel = torch.ones(users, dtype=torch.long) if telling is None else telling(evidence)
    truth = by_channel[torch.arange(users), channel]
    relevant = truth >= truth.topk(5, dim=1).values[:, -1:]
    ideal = ideal_gain(relevant.sum(1), 10)
    return Candidates(by_channel, relevant, torch.ones_like(relevant), ideal, evidence)


def test_calibration_finds_the_channel_that_tells():
    found = candidates()
    before = found.ndcg(torch.ones(1, 3)).mean()
    point = fitted([found], rng=np.random.default_rng(0))
    after = found.ndcg(point.at(0, found.evidence)).mean()
    assert after > before + 0.2
    assert point.log_gain[0, 1] > point.log_gain[0, 2] + 1.0
    assert point.step.abs().max() < 0.2  # the evidence is noise


def test_calibration_finds_that_different_channels_tell_of_different_users():
    found = candidates(telling=lambda evidence: (evidence[:, 0] > 0).long())
    point = fitted([found], rng=np.random.default_rng(0))
    assert point.step[0, 1] > 0.3 > -0.3 > point.step[0, 0]
    adapted, plain = (found.ndcg(point.at(0, one)).mean() for one in (found.evidence, 0 * found.evidence))
    assert adapted > plain + 0.05


def test_the_head_ranks_as_calibration_judged_it():
    space, episodes = world(60)  # so few that all are candidates
    head = head_of(space)
    rng, knot = torch.Generator().manual_seed(1), KNOTS.index(5)
    found = candidates_of(head, space, episodes, head.coefficients())
    old = head.gains
    point = Point(torch.randn(1, old.gain.shape[1], generator=rng), torch.randn(old.step.shape, generator=rng) / 3)
    gain, usual, spread = old.gain.clone(), old.usual.clone(), old.spread.clone()
    usual[knot], spread[knot], gain[knot] = found.evidence.mean(0), found.evidence.std(0), point.log_gain[0].exp()
    head = replace(head, gains=Gains(gain, usual, spread, point.step, old.bonus, old.again))
    evidence = head.standardised(found.evidence, usual[knot], spread[knot])
    judged = found.scores(point.at(0, evidence))
    scores = hide_support(space.scores(head.adapt(space, episodes.support)), episodes)
    assert judged.shape == (30, 55)
    torch.testing.assert_close(judged.sort(1).values, scores.sort(1).values[:, 5:], rtol=1e-3, atol=1e-4)


def test_calibration_of_a_log_whose_later_items_are_all_disliked_leaves_the_gains_alone():
    space, episodes = world()
    rows = torch.cat([episodes.support.rows, episodes.query], dim=1)
    users = histories(*rows.tolist())
    labels = users.labels.clone()
    labels[:, 1:] = -1.0
    lessons = Lessons((space,), replace(users, labels=labels), (np.arange(30),), (np.arange(0),), TrainConfig(query=3))
    head = head_of(space)
    gains, values = calibrate(head, lessons, rng=np.random.default_rng(0))
    assert not values and gains is head.gains


def test_texts_are_read_without_fading():
    space, _ = world()
    head = head_of(space)
    fade = head.prior.fade - torch.arange(len(head.prior.fade))[:, None]
    head = with_prior(head, fade=fade, rarity=head.prior.rarity + 0.7, disliked=head.prior.disliked - 1)
    found = head.read(space, histories([3, 8, 21], labels=[1.0, -0.5, 1.0]), head.coefficients()).parts
    scale = head.prior.scale[KNOTS.index(3), head.column["text"]].exp()
    for name in ("text", "alike"):  # the columns for new items too, by the same numbers
        side = space[name].support
        torch.testing.assert_close(found[name][0], scale * (side[3] - 0.5 * side[8] + side[21]))


@pytest.mark.parametrize(("items", "rank"), [(60, 8), (5, 8)])
def test_factors_of_a_host_come_in_order_of_what_they_tell(items, rank):
    rng = np.random.default_rng(0)
    item, support = (rng.normal(size=(items, rank)).astype(np.float32) for _ in range(2))
    item[:, 7] = item[:, 6]  # one column tells nothing of its own
    item[3] = support[3] = 0.0  # an item without factors
    ids = [f"i{row}" for row in range(items)]
    pair = ItemFactors(ids, item, support).sides(Catalog.of(pl.Series([*ids, "none"]), [""] * (items + 1)))
    there, given = (pair.support @ pair.item.T).numpy(), support @ item.T
    scale = np.abs(there).sum() / np.abs(given).sum()
    np.testing.assert_allclose(there[:-1, :-1], scale * given, atol=1e-5)
    assert not pair.support[[3, -1]].any() and not pair.item[[3, -1]].any()
    norms = pair.support.norm(dim=0)
    torch.testing.assert_close(norms, pair.item.norm(dim=0), rtol=1e-3, atol=1e-5)
    assert (norms.diff() <= 1e-5).all() and pair.item.shape[1] == min(items, rank)


def test_evidence_is_the_popularity_and_the_agreement_of_the_support_whatever_was_thought_of_it():
    space, _ = world()
    head = head_of(space)
    rows = [3, 8, 21, 40]
    users = histories(rows, rows[::-1], [7, 7], [], labels=[1, 1, 1, 1, -1.0, 1.0, 0.5, 1.0, 1, 1])
    found = head.evidence(space, users)
    expected = [float(space.popularity[rows].mean())]
    for name in ("symmetric", "directed", "text"):
        unit = [space[name].support[row] / space[name].support[row].norm() for row in rows]
        expected.append(float(sum(unit).norm() / 4))
    assert found[0].tolist() == pytest.approx(expected, rel=1e-4)
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found[2, 1:], torch.ones(len(expected) - 1))
    assert not found[3].any()
    plain = head_of(space, HeadConfig(inner=False))
    assert plain.evidence(space, histories(rows)).shape == (1, 0)


def test_the_prior_reads_both_sides_of_tied_channels_and_the_newest_twenty_items_only():
    space, _ = world()
    head = head_of(space)
    before = head.adapt(space, histories([3, 8])).vector
    tied = head.prior.tied.clone()
    tied[:, head.tied.index("symmetric")] = 0.5
    head = with_prior(head, tied=tied)
    after = head.adapt(space, histories([3, 8])).vector
    fade = head.prior.fade[:, head.column["symmetric"]].exp()
    span, item = space.spans["symmetric"], space["symmetric"].item
    torch.testing.assert_close((after - before)[0, span], 0.5 * (fade[1] * item[3] + fade[0] * item[8]))
    rest = [one for name, one in space.spans.items() if name != "symmetric"]
    assert all(torch.equal(after[:, one], before[:, one]) for one in rest)
    guessed = replace(space, new=torch.ones_like(space.new))
    torch.testing.assert_close(head.adapt(guessed, histories([3, 8])).vector, before)  # a guess's item side is not read
    long = head.adapt(space, histories([1, 2, *range(30, 50)]))
    newest = head.adapt(space, histories(list(range(30, 50))))
    torch.testing.assert_close(space.scores(long), space.scores(newest), rtol=1e-4, atol=1e-4)


def test_parameters_between_two_knots_are_interpolated():
    space, _ = world()
    head = head_of(space)
    gain = torch.arange(len(KNOTS), dtype=torch.float32)[:, None].expand(head.gains.gain.shape)
    table = with_gains(head, gain=gain).coefficients().gain[:, 0]
    assert table[list(KNOTS)].tolist() == pytest.approx(range(len(KNOTS)))
    assert 3 < table[4] < 4


def strangers_of(log, share):
    """The log without its last users, and those users' histories, oldest item first."""
    users = log["user_id"].unique().sort()
    is_out = pl.col("user_id").is_in(users.tail(int(len(users) * share)).implode())
    out = log.filter(is_out).group_by("user_id", maintain_order=True).agg("item_id")
    return log.filter(~is_out), out["item_id"].to_list()


def qualities(recommender, train, histories, shots):
    """nDCG@10 of mecold and of popularity by plain loops, over users with anything left after the support."""
    counts = train.group_by("item_id").agg(pl.col("user_id").n_unique().alias("users"))
    popular = counts.sort(["users", "item_id"], descending=[True, False])["item_id"].to_list()
    ours, theirs = [], []
    for history in (history for history in histories if len(history) > shots):
        support, future = history[:shots], set(history[shots : shots + 10])
        found = [hit.item for hit in recommender.recommend(recommender.adapt_user(support), k=10)]
        ours.append(reference.ndcg(found, future))
        theirs.append(reference.ndcg([item for item in popular if item not in support], future))
    return np.mean(ours), np.mean(theirs)


VARIANTS = {
    "whole": SMALL,
    "no inner step": replace(SMALL, head=HeadConfig(inner=False)),
    "sampled softmax": replace(SMALL, training=replace(SMALL.training, full_softmax_items=100, negatives=100)),
    "few directions": replace(SMALL, factors=replace(SMALL.factors, exact_items=0, gram_rank=10)),
    "no calibration": replace(SMALL, training=replace(SMALL.training, calibrate=False)),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_planted_tastes_are_found_far_above_popularity(shop, fit, variant):
    train, strangers = strangers_of(shop.interactions, 0.3)
    recommender = fit(train, shop.items, VARIANTS[variant])
    for shots in (1, 3, 10):
        ours, popularity = qualities(recommender, train, strangers, shots)
        assert ours > 1.5 * popularity, shots
    ours, popularity = qualities(recommender, train, strangers, 0)
    assert ours == pytest.approx(popularity, abs=0.01)


def test_without_structure_it_is_not_worse_than_popularity(fit):
    world = make_shop(300, 900, rng=3, structure=False)
    train, strangers = strangers_of(world.interactions, 0.4)
    recommender = fit(train, world.items, encoder=word_vectors(list(Catalog.read(world.items).texts)))
    # the bound is one standard error of the mean over 360 users, whose nDCG has a deviation of about 0.17
    for shots in (0, 1, 3, 10):
        ours, popularity = qualities(recommender, train, strangers, shots)
        assert ours > popularity - 0.17 / 360**0.5, shots


@bitwise
def test_the_same_seed_gives_the_same_bytes(shop, fit, tmp_path):
    first, second = (fit(shop.interactions, shop.items) for _ in range(2))
    assert first.info()["model"] == second.info()["model"]
    assert first.recommend(first.adapt_user(["p1"])) == second.recommend(second.adapt_user(["p1"]))


@bitwise
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_caller_s_mode_of_torch_changes_nothing(shop, fit, fitted, mode):
    with mode():
        again = fit(shop.interactions, shop.items)
        assert again.adapt_user(["p1"]).query.tolist() == fitted.adapt_user(["p1"]).query.tolist()


def test_the_order_of_users_in_the_log_changes_no_closed_form():
    histories = small_log(3)
    a, b = (channels_of(stats_of(some)) for some in (histories, histories[::-1]))
    for name in ("symmetric", "directed"):
        one, other = ((found[name].support @ found[name].item.T).numpy() for found in (a, b))
        np.testing.assert_allclose(one, other, atol=2e-5)


def test_a_host_s_factors_take_the_place_of_the_symmetric_channel(shop, encoder):
    from mecold import Recommender

    rng = np.random.default_rng(0)
    ids = shop.items["item_id"].to_list()[:250]
    users = shop.interactions["user_id"].unique().sort().to_list()
    factors = ItemFactors(ids, rng.normal(size=(250, 8)), unseen_users=users[:200])
    recommender = Recommender(encoder, config=SMALL, rng=0)
    report = recommender.fit_meta(shop.interactions, shop.items, factors=factors)
    assert list(recommender.info()["channels"]) == ["host", "directed", "trend", "text", "alike", "new", "popularity"]
    assert not any("unseen_users" in note for note in report.notes)
    report = recommender.fit_meta(shop.interactions, shop.items, factors=replace(factors, unseen_users=()))
    assert any("unseen_users" in note for note in report.notes)


@pytest.mark.parametrize(
    ("factors", "message"),
    [
        (ItemFactors(["p1", "p2"], np.zeros((3, 4))), "2 ids need factors of as many rows"),
        (ItemFactors(["p1", "p2"], np.array([[1.0], [np.nan]])), "1 factor rows are not finite: 'p2'"),
        (ItemFactors(["p1", "p1"], np.ones((2, 4))), "1 item ids stand twice"),
        (ItemFactors(["p1", "zz"], np.ones((2, 4))), "'zz'"),
    ],
)
def test_factors_that_cannot_be_used_are_named(factors, message):
    from mecold import Catalog, UnknownItemError

    catalog = Catalog.read(pl.DataFrame({"item_id": ["p1", "p2"], "title": ["a", "b"]}))
    with pytest.raises((InvalidDataError, UnknownItemError), match=message):
        factors.sides(catalog)


def test_ratings_below_the_threshold_are_dislikes(shop, encoder):
    from mecold import Recommender

    rated = shop.interactions.with_columns(pl.Series("rating", np.resize([5.0, 4.0, 1.0], shop.interactions.height)))
    recommender = Recommender(encoder, config=replace(SMALL, liked_from=3.0), rng=0)
    recommender.fit_meta(rated, shop.items)
    liked = rated.head(1).with_columns(rating=pl.lit(5.0))
    hated = rated.head(1).with_columns(rating=pl.lit(1.0))
    a, b = (next(iter(recommender.adapt_users(frame).values())) for frame in (liked, hated))
    assert not np.array_equal(a.query, b.query)
    with pytest.raises(InvalidDataError, match="liked_from"):
        Recommender(encoder, config=replace(SMALL, liked_from=9.0), rng=0).fit_meta(rated, shop.items)


def test_a_log_that_teaches_nothing_is_refused(shop, fit):
    with pytest.raises(InvalidDataError, match="at least two distinct items"):
        fit(shop.interactions.unique("user_id", keep="first"), shop.items)


def test_settings_out_of_range_and_misspelt_ones_are_refused():
    with pytest.raises(InvalidDataError, match=r"folds=1"):
        TrainConfig(folds=1)
    with pytest.raises(TypeError):
        MetaConfig(text_rnak=3)  # type: ignore[call-arg]


def test_trackers_hear_every_epoch_and_the_report_keeps_the_curves(shop, encoder, tmp_path):
    import json

    from mecold import Recommender
    from mecold.tracking import TensorBoardTracker

    class Ear:
        heard: list[int] = []  # noqa: RUF012

        def log(self, step, values):
            self.heard.append(step)

    recommender = Recommender(encoder, config=SMALL, rng=0)
    trackers = [Ear(), TensorBoardTracker(str(tmp_path / "board"))]
    report = recommender.fit_meta(shop.interactions, shop.items, trackers=trackers)
    assert Ear.heard[:4] == [0, 1, 2, 3]
    assert [step for step, _ in report.curve("loss")] == [1, 2, 3]
    assert list((tmp_path / "board").glob("events*"))
    lines = [json.loads(line) for line in report.to_jsonl().splitlines()]
    assert lines[0]["step"] == 0
    assert lines[-1]["best_step"] == report.best_step


def test_without_held_out_users_training_counts_and_a_note_says_so(shop, encoder):
    from mecold import Recommender

    config = replace(SMALL, training=replace(SMALL.training, held_out=0.0))
    recommender = Recommender(encoder, config=config, rng=0)
    report = recommender.fit_meta(shop.interactions, shop.items)
    assert report.best_step == 3
    assert any("held out" in note for note in report.notes)


def test_an_encoder_narrower_than_the_text_channel_is_fine(shop):
    from mecold import Catalog, Recommender

    narrow = word_vectors(list(Catalog.read(shop.items).texts), dim=10)
    recommender = Recommender(narrow, config=replace(SMALL, text_rank=64), rng=0)
    recommender.fit_meta(shop.interactions, shop.items)
    assert recommender.info()["channels"]["text"] == 10


def test_a_threshold_without_ratings_is_refused(shop, fit):
    with pytest.raises(InvalidDataError, match="needs a rating column"):
        fit(shop.interactions, shop.items, replace(SMALL, liked_from=3.0))


def test_equal_popularity_stays_small_in_a_fold_that_lacks_users():
    basis = Basis.fit(torch.eye(4), torch.full((4,), 24.0), 2)
    assert basis.popularity(torch.tensor([13.0, 19.0, 24.0, 24.0])).abs().max() < 10


def test_a_fit_that_diverges_says_so(shop, encoder):
    wild = replace(SMALL, training=replace(SMALL.training, lr=1e30))
    with pytest.raises(MecoldError, match="not finite"):
        Recommender(encoder, config=wild, rng=0).fit_meta(shop.interactions, shop.items)


def test_a_fold_counts_as_if_it_had_all_users(shop):
    """Popularity is standardised once: counts that lack a fold's users would all look unpopular, most where all are level."""
    catalog = Catalog.read(shop.items)
    log = Interactions.read(shop.interactions, catalog)
    vectors = torch.zeros(len(catalog), 4)
    views = cross_fit(log, np.ones(len(log.items), bool), log.lengths > 1, vectors, SMALL, np.random.default_rng(0))
    whole = views.whole()
    for view in views.folds:
        assert float(view.counts.sum()) == pytest.approx(float(whole.counts.sum()), rel=1e-4)
        assert ((view.counts == 0) >= (whole.counts == 0)).all()
        assert view.channels["text"].item is whole.channels["text"].item  # texts lie in memory once


def test_of_many_users_one_fold_is_learned_from_and_all_others_are_in_its_view(shop, fit):
    catalog = Catalog.read(shop.items)
    log = Interactions.read(shop.interactions, catalog)
    few = replace(SMALL, training=replace(SMALL.training, fold_users=100))
    eligible = log.lengths > 1
    views = cross_fit(
        log, np.ones(len(log.items), bool), eligible, torch.zeros(len(catalog), 4), few, np.random.default_rng(0)
    )
    pupils = views.fold_of == 0
    assert len(views.folds) == 1 and pupils.sum() == 100 and (views.fold_of[~pupils] == -1).all()
    assert eligible[pupils].all()
    seen = log.where(~pupils[log.owners])
    counted = np.bincount(seen.items, minlength=len(catalog))
    found = views.folds[0].counts.numpy()
    assert np.allclose(found / found.sum(), counted / counted.sum(), atol=1e-6)
    marks = fit(shop.interactions, shop.items, few).info()
    assert marks["items"] == len(catalog)


@given(
    hnp.arrays(np.int64, st.integers(0, 40), elements=st.integers(0, 9)),
    hnp.arrays(np.int64, (3, 4), elements=st.integers(-1, 9)),
)
def test_what_was_drawn_of_a_users_own_items_is_found_as_often_as_it_was_drawn(drawn, own):
    if not len(drawn):
        return
    found = own_drawn(torch.from_numpy(drawn), torch.from_numpy(own))
    assert np.array_equal(found.numpy(), (drawn[None, None] == own[:, :, None]).any(1))


ODD_LOGS = {
    "one user has everything": lambda log, items: pl.concat(
        [log, items.select(pl.lit("busy").alias("user_id"), "item_id", pl.lit(1_700_000_000).alias("timestamp"))],
        how="vertical_relaxed",
    ),
    "an item in every history": lambda log, items: pl.concat(
        [log, log.unique("user_id").with_columns(item_id=pl.lit("p0"))], how="vertical_relaxed"
    ),
    "all times equal": lambda log, items: log.with_columns(timestamp=pl.lit(5)),
}


@pytest.mark.parametrize("odd", ODD_LOGS)
def test_odd_logs_are_learned_from(shop, fit, odd):
    log = ODD_LOGS[odd](shop.interactions, shop.items)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        model = fit(log, shop.items)
    found = model.recommend(model.adapt_user(["p1", "p2"]), k=10)
    assert len({one.item for one in found}) == 10 and all(np.isfinite(one.score) for one in found)
    assert ("trend" in model.info()["channels"]) == (odd != "all times equal")
    if odd == "an item in every history":
        assert model.recommend(model.adapt_user([]), k=1)[0].item == "p0"
        # it stands beside everything, and so says little: no item comes first for its sake alone
        assert float(model.scores(model.adapt_user(["p0"]), ["p5"])[0]) < float(
            model.scores(model.adapt_user(["p5"]), ["p0"])[0]
        )


def test_most_items_may_be_untouched(shop, fit):
    more = pl.concat([shop.items.with_columns(item_id=pl.lit(f"copy{n} ") + pl.col("item_id")) for n in range(5)])
    model = fit(shop.interactions, pl.concat([shop.items, more]))
    user = model.adapt_user(["p1", "copy1 p2"])
    assert len({one.item for one in model.recommend(user, k=2000)}) == 1798
    # a copy is found by its text, beside the item that it is a copy of
    assert "copy3 p2" in [one.item for one in model.similar_items("p2", k=20)]
