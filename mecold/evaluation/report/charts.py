"""The report's pictures as inline SVG. Colours are CSS variables of the page, so that dark mode and print apply.

The only room that imports matplotlib, lazily; figures are made without its global state, and the same numbers give the
same bytes.
"""

import io
import itertools
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from mecold.evaluation.report.records import Findings

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_INK, _FAINT, _LINE = "#010203", "#040506", "#070809"
_SERIES = ("#0a0b01", "#0a0b02", "#0a0b03", "#0a0b04", "#0a0b05")
_VARIABLES = {_INK: "--ink", _FAINT: "--faint", _LINE: "--line"} | {c: f"--c{i}" for i, c in enumerate(_SERIES)}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none", "svg.hashsalt": "mecold", "font.size": 10, "axes.edgecolor": _LINE, "axes.labelcolor": _INK,
    "text.color": _INK, "xtick.color": _INK, "ytick.color": _INK, "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "grid.color": _LINE, "grid.linewidth": 0.6, "legend.frameon": False, "axes.axisbelow": True,
    "axes.titlesize": 9, "lines.markersize": 4,
}  # fmt: skip


def pictures(found: Findings) -> dict[str, str]:
    """Every picture of the report by name, as SVG text."""
    makers: dict[str, tuple[Callable[[Any, Findings], None], tuple[float, float], str]] = {
        "curve": (_curve, (4.8, 3.4), "Quality by number of shots, with intervals"),
        "ratio": (_ratio, (4.8, 3.0), "Ratio to the best baseline by number of shots"),
        "latency": (_latency, (4.8, 3.4), "Quality against latency"),
        "slices": (_slices, (4.8, 5.2), "Quality by kind of target and of support"),
        "set": (_set, (4.8, 5.0), "Histograms of the data set"),
    }
    if not found.envelope:
        del makers["ratio"]
    if not _sliced(found):
        del makers["slices"]
    return {
        name: _drawn(draw, found, size, label, number)
        for number, (name, (draw, size, label)) in enumerate(makers.items())
    }


def stressed(found: Findings) -> list[str]:
    """The systems that get a colour: the reference, the best others but its own ablations, and popularity."""
    first, rest = found.reference, found.ranked()
    others = [name for name in rest if name not in (first, "popularity") and not name.startswith(f"{first}-")]
    last = ["popularity"] if "popularity" in rest and first != "popularity" else []
    return [first, *others[: len(_SERIES) - 1 - len(last)], *last]


def _drawn(
    draw: Callable[["Figure", Findings], None],
    found: Findings,
    size: tuple[float, float],
    label: str,
    n: int,
) -> str:
    import matplotlib
    from matplotlib.figure import Figure

    file = io.StringIO()
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure, found)
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _inlined(file.getvalue(), label, f"p{n}-")


def _inlined(text: str, label: str, prefix: str) -> str:
    """An SVG file as a part of a page: no prologue, ids of its own, colours as variables, a name for screen readers."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}\1"', text)
    text = re.sub(r'(url\(#|href="#)', rf"\1{prefix}", text)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    text = re.sub(
        r'(<svg[^>]*?) width="[^"]*"', r"\1", re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1), count=1
    )
    return text.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)


def _curve(figure: "Figure", found: Findings) -> None:
    axes = figure.subplots()
    places = range(len(found.shots))
    colours = dict(zip(stressed(found), _SERIES, strict=False))
    for name in [*(n for n in found.ranked() if n not in colours), *reversed(colours)]:
        cells = [found.score(name, k) for k in found.shots]
        means = [cell.mean for cell in cells]
        if name not in colours:
            axes.plot(places, means, color=_FAINT, linewidth=0.7, alpha=0.6)
            continue
        front = name == found.reference
        axes.fill_between(
            places, [c.low for c in cells], [c.high for c in cells], color=colours[name], alpha=0.15, linewidth=0
        )
        axes.plot(places, means, "o-", color=colours[name], linewidth=2.2 if front else 1.3, label=name)
    axes.set_xticks(list(places), [str(k) for k in found.shots])
    axes.set_xlabel("interactions in the support (k)")
    axes.set_ylabel(found.headline)
    axes.set_ylim(bottom=0)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles[::-1], labels[::-1], loc="outside upper left", ncols=2, fontsize=8)


def _ratio(figure: "Figure", found: Findings) -> None:
    axes = figure.subplots()
    ratios = found.envelope["all" if "all" in found.envelope else "order-blind"].ratios[found.reference]
    places = list(range(len(found.shots)))
    cells = [ratios[k] for k in found.shots]
    axes.axhline(1, color=_INK, linewidth=1)
    for place, cell in zip(places, cells, strict=True):
        axes.plot([place, place], [cell.low, cell.high], color=_SERIES[0], linewidth=2)
        axes.plot([place], [cell.ratio], "o", color=_SERIES[0], markersize=7)
        axes.annotate(f"{cell.ratio:.2f}", (place, cell.ratio), (8, 3), textcoords="offset points", va="bottom")
    axes.set_xlim(-0.5, len(places) - 0.3)
    axes.set_xticks(places, [f"k = {k}" for k in found.shots])
    axes.set_ylabel(f"{found.reference} / best baseline")


def _latency(figure: "Figure", found: Findings) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    axes, k = figure.subplots(), found.shots[-1]
    colours = dict(zip(stressed(found), _SERIES, strict=False))
    for name, one in found.systems.items():
        adapt, recommend = one.costs.adapt_p50_ms, one.costs.recommend_p50_ms
        if adapt is None or recommend is None:
            continue
        x, y = adapt + recommend, found.score(name, k).mean
        front = name in colours
        axes.plot(
            [x], [y], "o", color=colours.get(name, _FAINT), markersize=7 if front else 4, label=name if front else None
        )
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_ylim(bottom=0)
    figure.legend(loc="outside upper left", ncols=2, fontsize=8)
    axes.set_xlabel("milliseconds per user, one at a time (p50)")
    axes.set_ylabel(f"{found.headline} at k = {k}")


def _sliced(found: Findings) -> list[str]:
    """Slices with more than one group to compare."""
    slices = found.systems[found.reference].slices[found.shots[-1]]
    return [kind for kind, groups in slices.items() if len(groups) > 1]


def _slices(figure: "Figure", found: Findings) -> None:
    k, names = found.shots[-1], stressed(found)
    kinds = _sliced(found)
    grid: Sequence[Axes] = figure.subplots((len(kinds) + 1) // 2, 2, squeeze=False).ravel().tolist()
    order = ("tail", "middle", "head", "short", "medium", "long", "warm", "cold", "rare", "common")
    for axes, kind in itertools.zip_longest(grid, kinds):
        if kind is None:
            axes.set_axis_off()
            continue
        groups = sorted(found.systems[names[0]].slices[k][kind], key=order.index) if kind else []
        groups = ["rare", "medium", "common"] if kind == "support popularity" else groups
        for colour, name in zip(_SERIES, names, strict=False):
            slices = found.systems[name].slices[k].get(kind, {})
            label = next((key for group in slices.values() for key in group if key != "count"), "")
            there = [group for group in groups if group in slices]
            axes.plot(there, [slices[group][label] for group in there], "o-", color=colour, label=name, linewidth=1.2)
        axes.set_title(f"{kind}\n({label})")
        axes.set_ylim(bottom=0)
        axes.margins(x=0.15)
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=2, fontsize=8)


def _set(figure: "Figure", found: Findings) -> None:
    titles = {
        "user_activity": ("distinct items per user", "users"),
        "item_popularity": ("users per item", "items"),
        "text_length": ("characters of text per item", "items"),
    }
    for axes, (name, (below, left)) in zip(figure.subplots(3, 1), titles.items(), strict=True):
        bins = found.dataset.histograms[name]
        places = list(range(len(bins.counts)))
        axes.bar(places, bins.counts, width=1.0, color=_SERIES[1], edgecolor=_LINE, linewidth=0.5)
        step = max(1, len(places) // 6)
        axes.set_xticks([p - 0.5 for p in places[::step]], [f"{int(e):,}" for e in bins.edges[:-1:step]])
        axes.set_xlabel(below)
        axes.set_ylabel(left)
