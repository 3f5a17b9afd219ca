"""Many reports side by side: how one system stands on every data set."""

from collections.abc import Sequence

import numpy as np

from mecold.evaluation.report.records import Findings, SystemFindings
from mecold.evaluation.report.tables import Table, shown_ratio
from mecold.evaluation.statistics import holm


def ratios(found: Sequence[Findings], system: str) -> Table:
    """Ratios to both envelopes, a row per data set, and their geometric means over all rows."""
    shots = found[0].positive
    rows, marks = [], {"all": [], "order-blind": []}  # type: ignore[var-annotated]
    for one in found:
        cells = {name: [envelope.ratios[system][k] for k in shots] for name, envelope in one.envelope.items()}
        for name, some in cells.items():
            marks[name] += [cell.ratio for cell in some]
        means = {name: f"{envelope.geometric_mean[system]:.3f}" for name, envelope in one.envelope.items()}
        blind = " / ".join(f"{cell.ratio:.2f}" for cell in cells["order-blind"])
        rows.append(
            [one.dataset.name, _users(one, system), *map(shown_ratio, cells["all"]), means["all"], blind,
             means["order-blind"]]
        )  # fmt: skip
    both = [f"{np.exp(np.mean(np.log(some))):.3f}, least {min(some):.3f}" for some in marks.values()]
    return Table(
        f"{system} / the best baseline",
        f"Ratio of {found[0].headline} with its 95 % interval over users. Over {len(marks['all'])} cells: geometric mean "
        f"{both[0]}; against order-blind baselines alone {both[1]}.",
        ["set", "users a seed", *(f"k = {k}" for k in shots), "mean", "/ order-blind", "mean"],
        rows,
    )


def scores(found: Sequence[Findings], systems: Sequence[str]) -> Table:
    """The headline metric of some systems by k; a name without settings stands for the first system of its family."""
    rows = []
    for one in found:
        families = _families(one)
        for place, name in enumerate(name for name in systems if name in families):
            cells = [f"{families[name].mean[k][one.headline].mean:.4f}" for k in one.shots]
            rows.append(["" if place else one.dataset.name, name, *cells])
    note = "Mean over seeds of the mean over users."
    return Table(found[0].headline, note, ["set", "system", *(f"k = {k}" for k in found[0].shots)], rows)


def cold_items(found: Sequence[Findings], systems: Sequence[str], base: str) -> Table:
    """Of the item split: among the cold items, against a base system, among all, and how many new items a list shows."""
    rows = []
    for one in found:
        families, k, metric = _families(one), one.shots[-1], one.headline
        bar = families[base].mean[k][metric].mean
        for name in (name for name in systems if name in families):
            cell, shown = families[name].mean[k], families[name].beyond[k]["new_items"]
            mark, full = cell[metric].mean, cell[f"full:{metric}"].mean
            rows.append([one.dataset.name, name, f"{mark:.4f}", f"{mark / bar:.2f}", f"{full:.4f}", f"{shown:.3f}"])
    note = f"{found[0].headline}, mean over seeds. New items shown: share of the first 10 over the full catalogue."
    return Table("Cold items", note, ["set", "system", "among cold", f"/ {base}", "among all", "new items shown"], rows)


def against(found: Sequence[Findings], prefix: str) -> Table:
    """Systems whose names begin with a prefix against the reference, by k and over all k; such as ablations."""
    shots = found[0].positive
    by_system: dict[str, dict[str, float]] = {}
    for one in found:
        for name, overall in one.overall.items():
            by_system.setdefault(name, {})[one.dataset.name] = overall.p
    corrected = {name: holm(by_set) for name, by_set in by_system.items()}
    rows = []
    for one in found:
        for name in (name for name in one.systems if name.startswith(prefix)):
            tests = {row.shots: row for row in one.comparisons if row.system == name and row.seed is None}
            cells = [f"{tests[k].difference:+.4f}{'*' if tests[k].p_holm < 0.05 else ''}" for k in shots]
            p, ratio = corrected[name][one.dataset.name], one.overall[name].ratio
            over = f"{ratio - 1:+.1%}{'*' if p < 0.05 else ''} (p = {p:.4f})"
            rows.append([one.dataset.name, name.removeprefix(prefix), *cells, over])
    note = (
        f"Difference of {found[0].headline}; * below 5 % after Holm's correction over k. All k: ratio of means, and p of one "
        "test over users, corrected over the sets."
    )
    return Table("Against the reference", note, ["set", prefix, *(f"k = {k}" for k in shots), "all k"], rows)


def costs(found: Sequence[Findings], system: str) -> Table:
    """Median seconds and memory of a fit."""
    rows = []
    for one in found:
        cost = one.systems[system].costs
        rows.append([one.dataset.name, f"{cost.fit_seconds or 0:.0f}", f"{(cost.peak_bytes or 0) / 2**30:.1f}"])
    return Table("Cost of a fit", "Median over seeds.", ["set", "seconds", "GiB"], rows)


def _users(one: Findings, system: str) -> str:
    counts = [next(iter(by_k.values()))[one.headline].users for by_k in one.systems[system].scores.values()]
    return ", ".join(f"{count:,}" for count in counts)


def _families(one: Findings) -> dict[str, SystemFindings]:
    """The first system of each name without settings."""
    return {name.partition("[")[0]: system for name, system in reversed(list(one.systems.items()))}
