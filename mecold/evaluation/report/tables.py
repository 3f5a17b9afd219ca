"""A report's numbers as tables and sentences: for the terminal, for markdown, and for the page."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import polars as pl

from mecold.evaluation.report.records import GAIN, Comparison, Findings, Ratio


@dataclass(frozen=True)
class Table:
    """A table of text.

    Args:
        title: one line.
        note: what a reader must know to read it.
        head: column names.
        rows: cells; the first is the row's name.
        marked: row names to stress.
    """

    title: str
    note: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    marked: frozenset[str] = frozenset()


def scores(found: Findings, metric: str | None = None) -> pl.DataFrame:
    """Mean over seeds, a row per system (best first) and a column per number of shots."""
    return pl.DataFrame(
        [
            {"system": name} | {f"k={k}": found.score(name, k, metric).mean for k in found.shots}
            for name in found.ranked()
        ]
    )


def verdict(found: Findings) -> str:
    """Two sentences: how the reference stands against the best of the baselines, and where it does not."""
    name, envelope, shots = found.reference, found.envelope.get("all"), found.positive
    users = ", ".join(f"{by_k[found.shots[0]][found.headline].users:,}" for by_k in found.systems[name].scores.values())
    if envelope is None or not shots or found.systems[name].kind.startswith("order"):
        best = {k: max(found.systems, key=lambda n: found.score(n, k).mean) for k in found.shots}
        each = ", ".join(f"{one} at k = {k} ({found.score(one, k).mean:.3f})" for k, one in best.items())
        return f"Best by {found.headline} over {users} test users: {each}. {_significant(found)}"
    ratios = envelope.ratios[name]
    ahead = [k for k in shots if ratios[k].ratio >= 1]
    sure = [k for k in ahead if ratios[k].low > 1]
    each = ", ".join(f"{ratios[k].ratio:.2f} at k = {k}" for k in shots)
    first = (
        f"{name} reaches {envelope.geometric_mean[name]:.2f} times the best baseline by {found.headline} "
        f"(geometric mean over k; {each}), over {users} test users a seed."
    )
    behind = [k for k in shots if k not in ahead]
    second = (
        f"It is ahead at {len(ahead)} of {len(shots)} numbers of shots, at {len(sure)} of them with the whole 95 % interval"
        + (f"; behind at k = {', '.join(map(str, behind))}." if behind else ".")
    )
    return f"{first} {second}"


def _pooled(found: Findings) -> list[Comparison]:
    """Comparisons over all seeds."""
    return [row for row in found.comparisons if row.seed is None]


def _significant(found: Findings) -> str:
    rows = _pooled(found)
    if not rows:
        return "There is nothing to compare it with."
    below = sum(row.p_holm < 0.05 and row.difference < 0 for row in rows)
    above = sum(row.p_holm < 0.05 and row.difference > 0 for row in rows)
    return (
        f"Of {len(rows)} comparisons with {found.reference}, {below} are significantly worse and {above} significantly "
        "better (5 %, Holm-corrected over k for each system)."
    )


def all_tables(found: Findings) -> list[Table]:
    """Every table of a report, in reading order."""
    tables = [_scores_table(found, metric) for metric in found.metrics[:1]]
    tables += [_ratio_table(found, name) for name in found.envelope]
    tables += [_scores_table(found, metric) for metric in found.metrics[1:]]
    return [*tables, _gain_table(found), _beyond_table(found), _cost_table(found), _test_table(found), *_failed(found)]


def _table(found: Findings, title: str, note: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table with a row per system, the reference stressed."""
    return Table(title, note, ["system", *head], rows, frozenset([found.reference]))


def _shots(found: Findings) -> list[str]:
    return [f"k = {k}" for k in found.shots]


def _scores_table(found: Findings, metric: str) -> Table:
    rows = []
    for name in found.ranked():
        cells = [found.score(name, k, metric) for k in found.shots]
        rows.append([name, *(f"{cell.mean:.4f} ± {(cell.high - cell.low) / 2:.4f}" for cell in cells)])
    note = "Mean over seeds ± half the 95 % bootstrap interval over users."
    return _table(found, metric, note, _shots(found), rows)


def shown_ratio(one: Ratio) -> str:
    """A ratio with its interval."""
    return f"{one.ratio:.3f} [{one.low:.2f}, {one.high:.2f}]"


def _ratio_table(found: Findings, name: str) -> Table:
    envelope = found.envelope[name]
    rows = []
    for system in found.ranked():
        mean = envelope.geometric_mean.get(system)
        cells = [shown_ratio(envelope.ratios[system][k]) for k in found.shots]
        rows.append([system, *cells, _short(mean)])
    picked = [" / ".join(dict.fromkeys(by_k[k].system for by_k in envelope.by_seed.values())) for k in found.shots]
    rows.append(["the best baseline", *picked, ""])
    kinds = "order-blind baselines" if name == "order-blind" else "all baselines, order-aware ones included"
    note = (
        f"Ratio of {found.headline} to the envelope: per seed and k the best of {kinds}, chosen on "
        f"{envelope.chosen_on}. The last column is the geometric mean over k > 0."
    )
    return _table(found, f"Against the best of {kinds}", note, [*_shots(found), "mean"], rows)


def _gain_table(found: Findings) -> Table:
    rows = []
    for name in found.ranked():
        cells = [found.systems[name].mean[k].get(GAIN) for k in found.shots]
        if all(cells):
            rows.append([name, *(f"{cell.mean:+.4f} [{cell.low:+.4f}, {cell.high:+.4f}]" for cell in cells if cell)])
    note = f"{found.headline} minus that of the system's own zero-shot list, for the same users and the same query."
    return _table(found, "What adaptation brings", note, _shots(found), rows)


def _beyond_table(found: Findings) -> Table:
    k = found.shots[-1]
    names = list(dict.fromkeys(key for one in found.systems.values() for key in one.beyond.get(k, {})))
    rows = [[name, *(_short(found.systems[name].beyond[k].get(key)) for key in names)] for name in found.ranked()]
    note = (
        f"First 10 ranks at k = {k}. Coverage: share of the catalogue shown to anyone. Gini: inequality of exposure. "
        "Popularity percentile: 0.5 is a random item. Novelty: mean -log2 of the share of training users "
        "who have the item. New items: share that no training user has. Diversity: 1 - mean cosine of texts within a list."
    )
    return _table(found, "Beyond accuracy", note, [key.replace("_", " ") for key in names], rows)


def _cost_table(found: Findings) -> Table:
    rows = []
    for name in found.ranked():
        costs = found.systems[name].costs
        memory = None if costs.peak_bytes is None else costs.peak_bytes / 2**20
        spread = [
            "–" if half is None or most is None else f"{half:.2f} / {most:.2f}"
            for half, most in (
                (costs.adapt_p50_ms, costs.adapt_p95_ms),
                (costs.recommend_p50_ms, costs.recommend_p95_ms),
            )
        ]
        rows.append([name, _short(costs.fit_seconds, "{:.1f}"), _short(memory, "{:,.0f}"), *spread])
    note = (
        "Medians over seeds on this machine. Memory: rise of the process's resident memory while fitting and ranking. "
        "Latency: one user at a time; adaptation, then scoring of the catalogue and top 10; p50 / p95."
    )
    return _table(found, "What it costs", note, ["fit, s", "memory, MiB", "adapt, ms", "recommend, ms"], rows)


def _test_table(found: Findings) -> Table:
    cells: dict[str, dict[int, str]] = {}
    for row in _pooled(found):
        star = "*" if row.p_holm < 0.05 else ""
        cells.setdefault(row.system, {})[row.shots] = f"{row.difference:+.4f}{star} (p {row.p_holm:.3f})"
    rows = [
        [name, *(cells[name][k] for k in found.shots), *_overall(found, name)]
        for name in found.ranked()
        if name in cells
    ]
    note = (
        f"{found.headline} minus that of {found.reference}, same users. Two-sided sign-flip permutation test over "
        "users, all seeds together, Holm-corrected over k; * below 5 %. Last column: ratio of the means over all k > 0, and "
        "p of one test of all of a user's differences together."
    )
    head = [*_shots(found), *(["all k"] if found.overall else [])]
    return _table(found, f"Compared with {found.reference}", note, head, rows)


def _overall(found: Findings, name: str) -> list[str]:
    one = found.overall.get(name)
    return [] if one is None else [f"{one.ratio:.3f} (p {one.p:.3f})"]


def _failed(found: Findings) -> list[Table]:
    rows = [[name, reason] for name, reason in found.failed.items()]
    return [Table("Did not finish", "The others went on.", ["system", "reason"], rows)] if rows else []


def _short(value: float | None, form: str = "{:.3f}") -> str:
    return "–" if value is None else form.format(value)


_TUNED = {
    "user": "baselines, per k on validation users",
    "item": "baselines, per k on validation users (the same cold items)",
    "time": "baselines, per k on a time split of the training log alone",
}


def ranked_over(found: Findings) -> str:
    """What the headline metric ranks."""
    return "ranked among the cold items" if found.protocol == "item" else "ranked over the full catalogue"


def settings(found: Findings) -> list[tuple[str, str]]:
    """What was run, in pairs."""
    one = found.dataset
    sizes = ", ".join(
        f"seed {seed}: {part.train_users:,} train, {part.valid_users:,} validate, {part.test_users:,} test"
        + ("" if part.cold_items is None else f", {part.cold_items:,} cold items")
        for seed, part in found.split.items()
    )
    order = {"timestamp": "by timestamp", "position": "by position"}.get(one.order, "unknown (a fixed shuffle)")
    return [
        ("Data", f"{one.name}: {one.users:,} users, {one.items:,} items, {one.interactions:,} interactions"),
        ("Order", order),
        *([] if one.liked_from is None else [("Liked", f"rated {one.liked_from:g} or better; all else is no hit")]),
        ("Protocol", f"{found.protocol} split, {ranked_over(found)}, support removed"),
        ("Users", sizes),
        ("Tuned", _TUNED[found.protocol] if found.tuned else "no: every system with the settings in its name"),
        ("Data fingerprint", one.fingerprint),
        ("Versions", ", ".join(f"{k} {v}" for k, v in {"mecold": found.mecold, **found.versions}.items())),
    ]


def markdown(found: Findings) -> str:
    """The whole report as markdown."""
    lines = [_no_html(f"# Cold-start evaluation: {found.dataset.name}\n\n{verdict(found)}\n")]
    lines += [in_markdown(table) for table in all_tables(found) if table.rows]
    lines += ["## Settings", "", *map(_no_html, _markdown_rows([["", ""], *settings(found)])), "", "## Formulas", ""]
    lines += [f"- `{name}`: {text}" for name, text in found.formulas.items()]
    return "\n".join(lines) + "\n"


def in_markdown(table: Table, level: int = 2) -> str:
    """One table under a heading."""
    lines = [f"{'#' * level} {table.title}", "", table.note, "", *_markdown_rows([table.head, *table.rows]), ""]
    return _no_html("\n".join(lines))


def _no_html(text: str) -> str:
    """Names of systems and data sets are anybody's, and some that show Markdown let HTML through."""
    return text.replace("<", "&lt;")


def _markdown_rows(rows: Iterable[Sequence[str]]) -> list[str]:
    made = ["| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) + " |" for row in rows]
    width = made[0].count(" | ") + 1
    return [made[0], "|" + "---|" * width, *made[1:]]
