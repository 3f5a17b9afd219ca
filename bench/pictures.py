"""The pictures of docs/model.md, from a model fitted on the generated shop: `python bench/pictures.py [FOLDER]`.

Every value is read from that model, or made by the functions that made it. The same numbers give the same bytes.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from mecold import MetaConfig, TextEncoder
from mecold.data.catalog import Catalog
from mecold.data.histories import Histories
from mecold.data.interactions import Interactions
from mecold.encode.encoder import encode_or_zero
from mecold.heads.preference import KNOTS, evidence_of
from mecold.meta.calibrate import TEMPERATURE, scores_by_name
from mecold.meta.fit import FitResult, fit
from mecold.report import FitReport, Recorder
from mecold.shop import CATALOGUE, Shop, make_shop
from mecold.space.channels import trend
from mecold.space.clock import Clock
from mecold.space.lookalikes import TRUST, Lookalikes

BLUE, ORANGE, GREEN, GREY = "#1f5fd0", "#d9731a", "#2e8b57", "#8a8a8a"
COLOURS = {
    "popularity": GREY, "symmetric": BLUE, "directed": ORANGE, "lists": GREEN, "text": "#8e44ad", "trend": "#b8860b",
    "alike": "#c39bd3",
}  # fmt: skip
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "mecold", "font.size": 7.5, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
    "grid.color": "#e4e4e4", "axes.axisbelow": True, "legend.frameon": False, "legend.fontsize": 7, "lines.markersize": 3,
    "lines.linewidth": 1.4, "axes.linewidth": 0.6,
}  # fmt: skip
SIZE = (4.3, 2.25)  # inches of 72 points: 413 x 216 pixels on a page
ITEM = 42  # the toy train of the README
DAY = 86_400
BESIDE = {"loc": "center left", "bbox_to_anchor": (1, 0.5)}


@dataclass(frozen=True)
class World:
    """The shop, and what was fitted on it."""

    shop: Shop
    log: Interactions
    vectors: Tensor
    found: FitResult
    report: FitReport

    def users(self, shots: int) -> Histories:
        """The first items of the users who have 20 at least."""
        some = np.flatnonzero(self.log.lengths >= KNOTS[-1])
        return self.log.histories(self.log.labels_from(None)).take(torch.from_numpy(some)).first(shots)

    def kinds(self, item: int) -> dict[str, np.ndarray]:
        """Which items are of one's product type, of the type that is bought after it, or before it, or none of these."""
        own, size = int(self.shop.item_type[item]), len(next(iter(CATALOGUE.values())))  # all categories have as many
        types = (own, *(own // size * size + (own + step) % size for step in (1, -1)))
        found = [(self.shop.item_type == kind) & (np.arange(len(self.shop.item_type)) != item) for kind in types]
        names = ("same type", "bought next", "bought before", "any other")
        return dict(zip(names, [*found, ~np.logical_or.reduce(found)], strict=True))


def world() -> World:
    shop, recorder = make_shop(1_000, 1_500, rng=0), Recorder()
    catalog = Catalog.read(shop.items)
    log = Interactions.read(shop.interactions, catalog)
    vectors = torch.from_numpy(encode_or_zero(TextEncoder(device="cpu"), catalog.texts))
    found = fit(log, catalog, vectors, MetaConfig(), rng=np.random.default_rng(0), recorder=recorder)
    return World(shop, log, vectors, found, recorder.report)


def label(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    if x == "shots":
        axes.set_xticks(np.log1p(KNOTS), [str(n) for n in KNOTS])


def score(axes: Axes, w: World) -> None:
    """What lifts a user's ten best items above the mean item, by part of the score."""
    head, space, lifts = w.found.head, w.found.space, []
    for shots in KNOTS:
        support = w.users(shots)
        parts = scores_by_name(head, space, support, head.read(space, support, head.coefficients()))
        parts = parts * head.gain_of(space, support, head.coefficients())[:, :, None]
        seen = torch.zeros(len(support), len(space)).scatter_add(1, support.rows, support.mask.float()) > 0
        top = parts.sum(1).masked_fill(seen, -torch.inf).topk(10, dim=1).indices
        best = parts.gather(2, top[:, None].expand(-1, parts.shape[1], -1))
        lifts.append((best.mean(2) - parts.mean(2)).mean(0).numpy())
    for name in COLOURS:
        if name in head.names:
            axes.plot(
                np.log1p(KNOTS), np.array(lifts)[:, head.names.index(name)], "o-", color=COLOURS[name], label=name
            )
    label(axes, "shots", "ten best items above the\nmean item (units of the score)")
    axes.legend(**BESIDE)


def symmetric(axes: Axes, w: World) -> None:
    sides = w.found.space["symmetric"]
    visits = w.found.survey.total.visits(np.arange(len(w.found.space)))
    P = torch.linalg.inv(
        torch.from_numpy((visits.T @ visits).toarray()) + MetaConfig().factors.l2 * torch.eye(visits.shape[1])
    )
    whole = -P / P.diagonal()
    whole.fill_diagonal_(0)
    whole *= len(whole) ** 0.5 / whole.norm()
    assert sides.support is not None
    assert len(whole) == len(sides.item)  # every item is factored
    others = np.arange(len(whole)) != ITEM
    entries, kept = whole[ITEM].numpy(), (sides.item @ sides.support[ITEM]).numpy()
    axes.plot(entries[others], kept[others], "o", color=BLUE, markersize=2, alpha=0.6, rasterized=True)
    axes.plot([entries.min(), entries.max()], [entries.min(), entries.max()], color=GREY, linewidth=0.8)
    label(axes, f"score that p{ITEM} gives to an item, whole matrix (no unit)", "the same at rank 160")


def directed(axes: Axes, w: World) -> None:
    kinds = [w.kinds(item) for item in range(len(w.found.space))]
    for shift, name in ((-0.2, "symmetric"), (0.2, "directed")):
        sides = w.found.space[name]
        assert sides.support is not None
        given = (sides.support @ sides.item.T).numpy()
        rows = [np.mean([given[i][of[kind]].mean() for i, of in enumerate(kinds)]) for kind in kinds[0]]
        axes.bar(np.arange(4) + shift, 1e3 * np.array(rows), 0.36, color=COLOURS[name], label=name)
    label(axes, "items that stand so to the item of the support", "mean score given\n(thousandths)")
    axes.set_xticks(range(4), list(kinds[0]))
    axes.legend()


def alike(axes: Axes, w: World) -> None:
    sides, width = w.found.space["symmetric"], w.found.space["alike"].width
    assert sides.support is not None
    sizes = (sides.support.norm(dim=0) * sides.item.norm(dim=0)).square().numpy()
    held, places = 100 * sizes.cumsum() / sizes.sum(), np.arange(1, len(sizes) + 1)
    axes.plot(places, held, color=BLUE)
    axes.fill_between(places[:width], held[:width], color=COLOURS["alike"], alpha=0.5)
    axes.annotate(f"{width} columns: {held[width - 1]:.0f} %", (width, held[width - 1]), (width + 8, 40))
    label(axes, "first columns of the symmetric channel (number)", "share of the squared scores (%)")
    axes.set_ylim(0, 103)


def trends(axes: Axes, w: World) -> None:
    """A log of its own: of garden things, seven in eight purchases are left out in one half of the time."""
    items, times = w.log.items, w.log.timestamps
    assert times is not None
    garden, (low, high) = (w.shop.items["category"] == "Garden").to_numpy(), np.quantile(times, [0.25, 0.75])
    kept = ~garden[items] | ((low < times) & (times < high)) | (w.log.owners % 8 == 0)
    edges = trend.edges_of(times[kept], MetaConfig().factors.trend_bins)
    counts = torch.from_numpy(trend.counts_by_time(items[kept], times[kept], edges, len(garden)))
    clock = Clock(torch.from_numpy((edges[1:] + edges[:-1]) / 2), trend.persistence_of(counts))
    days, best = (clock.centres.numpy() - edges[0]) / DAY, int((counts.sum(1).numpy() * garden).argmax())
    axes.plot(days, trend.vectors_of(counts)[best].numpy(), "o-", color=COLOURS["trend"], label="trend of one item")
    axes.axhline(0, color="black", linewidth=0.6)
    label(axes, "days since the log began", "trend (standard deviations\nof the log count)")
    right = axes.twinx()
    moment = torch.tensor([edges[0] + 178.0 * DAY], dtype=torch.float64)
    right.bar(days, clock.reading(moment)[0].numpy(), 9, color=BLUE, alpha=0.4, label="read on day 178")
    right.set_ylim(0, 2.5)
    right.set_yticks([0, 0.5, 1])
    right.set_ylabel("weight of a bin", loc="bottom")
    right.grid(visible=False)
    axes.get_figure().legend(loc="outside upper center", ncols=2)  # type: ignore[union-attr]


def text(axes: Axes, w: World) -> None:
    basis = w.found.basis
    before = basis.project.norm(dim=0) ** -4  # each column is an axis of length 1 over the fourth root of its variance
    after = ((w.vectors - basis.center) @ basis.project).square().mean(0)
    for values, colour, name in ((before, GREY, "as encoded"), (after, COLOURS["text"], "half-whitened")):
        axes.plot(np.arange(1, len(values) + 1), (values / values[0]).numpy(), color=colour, label=name)
    axes.set_yscale("log")
    label(axes, "direction of the texts (number)", "variance\n(share of the largest)")
    axes.legend()


def lists(axes: Axes, w: World) -> None:
    rows, values = (part[ITEM].numpy() for part in (w.found.space.lists.rows, w.found.space.lists.values))
    for (kind, of), colour in zip(w.kinds(ITEM).items(), (GREEN, BLUE, ORANGE, "#c4c4c4"), strict=True):
        there = of[rows] & (values > 0)
        axes.bar(np.arange(1, len(rows) + 1)[there], values[there], 0.9, color=colour, label=kind)
    label(axes, f"place in the neighbour list of item p{ITEM}", "value (no unit)")
    axes.legend()


def lookalikes(axes: Axes, w: World) -> None:
    """An item that is known, as if it were new."""
    side = w.found.space.text.item
    found = Lookalikes.find(side[[ITEM]], side, torch.arange(len(side)) != ITEM)
    rows, counts = found.rows[0].numpy(), w.found.space.counts[found.rows[0]].numpy()
    weight = found.likeness[0].numpy() * counts / (counts + TRUST)
    same = w.kinds(ITEM)["same type"][rows]
    for of, colour, name in ((same, BLUE, "same type"), (~same, ORANGE, "another type")):
        axes.bar(np.arange(1, len(rows) + 1)[of], (100 * weight / weight.sum())[of], 0.8, color=colour, label=name)
    axes.set_xticks([1, 5, 10, 15, 20])
    label(axes, f"lookalike of item p{ITEM}, nearest text first", "weight in the mean (%)")
    axes.legend()


def age(axes: Axes, w: World) -> None:
    for name in ("symmetric", "directed", "lists"):
        values = w.found.head.coefficients().fade[: KNOTS[-1], w.found.head.column[name]]
        axes.plot((values / values[0]).numpy(), "o-", color=COLOURS[name], label=name)
    axes.set_xticks(range(0, KNOTS[-1], 3))
    axes.set_ylim(bottom=0)
    label(axes, "age (items of the support that are newer)", "weight (of the newest: 1)")
    axes.legend()


def gains(axes: Axes, w: World) -> None:
    for name, column in zip(w.found.head.names, w.found.head.gains.gain.T, strict=True):
        axes.plot(np.log1p(KNOTS[1:]), column[1:].numpy(), "o-", color=COLOURS[name], label=name)
    label(axes, "shots", "gain (factor)")
    axes.set_xlim(np.log1p(0.8), np.log1p(22))
    axes.set_ylim(bottom=0)
    axes.legend(**BESIDE)


def inner(axes: Axes, w: World) -> None:
    head = w.found.head
    factor, evidence = head.gains.step.exp().numpy(), evidence_of(head.traits, head.config)
    axes.imshow(factor, cmap="PuOr", vmin=0.75, vmax=1.25, aspect="auto")
    for (row, column), value in np.ndenumerate(factor):
        axes.text(column, row, f"{value:.2f}", ha="center", va="center")
    axes.set_xticks(range(len(head.names)), head.names, fontsize=6.5)
    axes.set_yticks(
        range(len(evidence)), [evidence[0], *(f"agreement:\n{name}" for name in evidence[1:])], fontsize=6.5
    )
    label(axes, "factor of this gain", "for one standard\ndeviation more of")
    axes.grid(visible=False)


def bonus(axes: Axes, w: World) -> None:
    axes.plot(np.log1p(KNOTS), w.found.head.gains.bonus.numpy(), "o-", color=BLUE)
    axes.axhline(0, color="black", linewidth=0.6)
    label(axes, "shots", "bonus (units of the score)")


def training(axes: Axes, w: World) -> None:
    curve, best = dict(w.report.curve("held_out/ndcg@10")), w.report.best_step
    axes.plot(list(curve), list(curve.values()), "o-", color=BLUE)
    axes.plot([best], [curve[best]], "o", color=ORANGE, markersize=7, label="kept")
    axes.set_xticks(range(0, len(curve), 2))
    label(axes, "epoch", "nDCG@10 of held-out users\n(0 to 1)")
    axes.legend(loc="lower right")


def soft_ranks(axes: Axes, w: World) -> None:
    """Of the best items of one user with ten shots."""
    support = w.users(10).take(torch.tensor([0]))
    scores = w.found.space.scores(w.found.head.adapt(w.found.space, support))[0]
    scores = scores[~torch.isin(torch.arange(len(scores)), support.rows[0])].sort(descending=True).values
    scaled = scores / (TEMPERATURE * scores.std())
    soft, ranks = torch.sigmoid(scaled - scaled[:25, None]).sum(1) + 0.5, np.arange(1, 26)
    axes.plot(ranks, ranks, color=GREY, linewidth=0.8, label="the rank itself")
    axes.plot(ranks, soft.numpy(), "o", color=BLUE, label="items of one user")
    axes.axhline(10.5, color=ORANGE, linewidth=0.8, label="the cut at ten")
    label(axes, "rank", "soft rank")
    axes.legend(loc="lower right")


def new_gains(axes: Axes, w: World) -> None:
    found = dict(sorted(w.found.basis.new_gain.items(), key=lambda one: one[1]))
    axes.barh(list(found), list(found.values()), color=[COLOURS[name] for name in found])
    axes.axvline(1, color="black", linewidth=0.6)
    label(axes, "gain of new items (factor of the item side)", "")


PICTURES: tuple[Callable[[Axes, World], None], ...] = (
    score, symmetric, directed, trends, text, alike, lists, lookalikes, age, gains, inner, bonus, training, soft_ranks,
    new_gains,
)  # fmt: skip


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    shown = world()
    with matplotlib.rc_context(STYLE):
        for draw in PICTURES:
            figure = Figure(figsize=SIZE, layout="constrained", facecolor="white")
            draw(figure.subplots(), shown)
            figure.savefig(folder / f"{draw.__name__}.svg", dpi=200, metadata={"Date": None})
            print(folder / f"{draw.__name__}.svg")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / "docs" / "pictures")
