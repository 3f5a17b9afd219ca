"""A report's numbers as tables and sentences: for the terminal, for markdown, and for the page."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl


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


def scores(data: dict[str, Any], metric: str | None = None) -> pl.DataFrame:
    """Mean over seeds, a row per system (best first) and a column per number of shots."""
    metric = metric or data["metrics"][0]
    rows = [
        {"system": name} | {f"k={k}": data["systems"][name]["mean"][str(k)][metric]["mean"] for k in data["shots"]}
        for name in by_quality(data)
    ]
    return pl.DataFrame(rows)


def by_quality(data: dict[str, Any]) -> list[str]:
    """Systems, best first by the headline metric's mean over the numbers of shots above 0."""
    metric = data["metrics"][0]
    shots = [k for k in data["shots"] if k > 0] or data["shots"]

    def mark(name: str) -> float:
        return -float(sum(data["systems"][name]["mean"][str(k)][metric]["mean"] for k in shots))

    return sorted(data["systems"], key=mark)


def verdict(data: dict[str, Any]) -> str:
    """Two sentences: how the reference stands against the best of the baselines, and where it does not."""
    name, envelope = data["reference"], data["envelope"].get("all")
    metric, shots = data["metrics"][0], [k for k in data["shots"] if k > 0]
    tested = [
        f"{cells[str(data['shots'][0])][metric]['users']:,}" for cells in data["systems"][name]["scores"].values()
    ]
    users = ", ".join(tested)
    if envelope is None or not shots or data["systems"][name]["kind"].startswith("order"):
        best = {k: max(data["systems"], key=lambda n: _mean(data, n, k)) for k in data["shots"]}
        listed = ", ".join(f"{one} at k = {k} ({_mean(data, one, k):.3f})" for k, one in best.items())
        return f"Best by {metric} over {users} test users: {listed}. {_significant(data)}"
    ratios = envelope["ratios"][name]
    ahead = [k for k in shots if ratios[str(k)]["ratio"] >= 1]
    sure = [k for k in ahead if ratios[str(k)]["low"] > 1]
    listed = ", ".join(f"{ratios[str(k)]['ratio']:.2f} at k = {k}" for k in shots)
    first = (
        f"{name} reaches {ratios['geometric_mean']:.2f} times the best baseline by {metric} "
        f"(geometric mean over k; {listed}), over {users} test users a seed."
    )
    behind = [k for k in shots if k not in ahead]
    second = (
        f"It is ahead at {len(ahead)} of {len(shots)} numbers of shots, at {len(sure)} of them with the whole 95 % interval"
        + (f"; behind at k = {', '.join(map(str, behind))}." if behind else ".")
    )
    return f"{first} {second}"


def _significant(data: dict[str, Any]) -> str:
    rows = [row for row in data["comparisons"] if row["seed"] == "all"]
    if not rows:
        return "There is nothing to compare it with."
    below = sum(row["p_holm"] < 0.05 and row["difference"] < 0 for row in rows)
    above = sum(row["p_holm"] < 0.05 and row["difference"] > 0 for row in rows)
    return (
        f"Of {len(rows)} comparisons with {data['reference']}, {below} are significantly worse and {above} significantly "
        "better (5 %, Holm-corrected over k for each system)."
    )


def _mean(data: dict[str, Any], name: str, k: int) -> float:
    return float(data["systems"][name]["mean"][str(k)][data["metrics"][0]]["mean"])


def all_tables(data: dict[str, Any]) -> list[Table]:
    """Every table of a report, in reading order."""
    tables = [_scores_table(data, metric) for metric in data["metrics"][:1]]
    tables += [_ratio_table(data, name) for name in data["envelope"]]
    tables += [_scores_table(data, metric) for metric in data["metrics"][1:]]
    return [*tables, _gain_table(data), _beyond_table(data), _cost_table(data), _test_table(data), *_failed(data)]


def _shots(data: dict[str, Any]) -> list[str]:
    return [f"k = {k}" for k in data["shots"]]


def _scores_table(data: dict[str, Any], metric: str) -> Table:
    rows = []
    for name in by_quality(data):
        cells = [data["systems"][name]["mean"][str(k)][metric] for k in data["shots"]]
        rows.append([name, *(f"{c['mean']:.4f} ± {(c['high'] - c['low']) / 2:.4f}" for c in cells)])
    note = "Mean over seeds ± half the 95 % bootstrap interval over users."
    return Table(metric, note, ["system", *_shots(data)], rows, frozenset([data["reference"]]))


def _ratio_table(data: dict[str, Any], name: str) -> Table:
    envelope = data["envelope"][name]
    rows = []
    for system in by_quality(data):
        ratios = envelope["ratios"][system]
        cells = [ratios[str(k)] for k in data["shots"]]
        shown = [f"{c['ratio']:.3f} [{c['low']:.2f}, {c['high']:.2f}]" for c in cells]
        mean = ratios.get("geometric_mean")
        rows.append([system, *shown, "" if mean is None else f"{mean:.3f}"])
    picked = []
    for k in data["shots"]:
        names = dict.fromkeys(by_k[str(k)]["system"] for by_k in envelope["by_seed"].values())
        picked.append(" / ".join(names))
    rows.append(["the best baseline", *picked, ""])
    kinds = "order-blind baselines" if name == "order-blind" else "all baselines, order-aware ones included"
    note = (
        f"Ratio of {data['metrics'][0]} to the envelope: per seed and k the best of {kinds}, chosen on "
        f"{envelope['chosen_on']}. The last column is the geometric mean over k > 0."
    )
    title = f"Against the best of {kinds}"
    return Table(title, note, ["system", *_shots(data), "mean"], rows, frozenset([data["reference"]]))


def _gain_table(data: dict[str, Any]) -> Table:
    rows = []
    for name in by_quality(data):
        cells = [data["systems"][name]["mean"][str(k)].get("gain") for k in data["shots"]]
        if all(cells):
            rows.append([name, *(f"{c['mean']:+.4f} [{c['low']:+.4f}, {c['high']:+.4f}]" for c in cells if c)])
    note = f"{data['metrics'][0]} minus that of the system's own zero-shot list, for the same users and the same query."
    return Table("What adaptation brings", note, ["system", *_shots(data)], rows, frozenset([data["reference"]]))


def _beyond_table(data: dict[str, Any]) -> Table:
    k = str(data["shots"][-1])
    names = list(dict.fromkeys(key for one in data["systems"].values() for key in one["beyond"][k]))
    rows = [
        [name, *(_short(data["systems"][name]["beyond"][k].get(key)) for key in names)] for name in by_quality(data)
    ]
    note = (
        f"First 10 ranks at k = {k}. Coverage: share of the catalogue shown to anyone. Gini: inequality of exposure. "
        "Popularity percentile: 0.5 is a random item. Novelty: mean -log2 of the share of training users "
        "who have the item. New items: share that no training user has. Diversity: 1 - mean cosine of texts within a list."
    )
    heads = [key.replace("_", " ") for key in names]
    return Table("Beyond accuracy", note, ["system", *heads], rows, frozenset([data["reference"]]))


def _cost_table(data: dict[str, Any]) -> Table:
    rows = []
    for name in by_quality(data):
        one = data["systems"][name]
        peak = one.get("peak_bytes")
        spread = [
            "–" if f"{step}_p50_ms" not in one else f"{one[f'{step}_p50_ms']:.2f} / {one[f'{step}_p95_ms']:.2f}"
            for step in ("adapt", "recommend")
        ]
        rows.append([name, _short(one.get("fit_seconds"), "{:.1f}"), _short(peak and peak / 2**20, "{:,.0f}"), *spread])
    note = (
        "Medians over seeds on this machine. Memory: rise of the process's resident memory while fitting and ranking. "
        "Latency: one user at a time; adaptation, then scoring of the catalogue and top 10; p50 / p95."
    )
    head = ["system", "fit, s", "memory, MiB", "adapt, ms", "recommend, ms"]
    return Table("What it costs", note, head, rows, frozenset([data["reference"]]))


def _test_table(data: dict[str, Any]) -> Table:
    found: dict[str, dict[int, str]] = {}
    for row in data["comparisons"]:
        if row["seed"] == "all":
            star = "*" if row["p_holm"] < 0.05 else ""
            text = f"{row['difference']:+.4f}{star} (p {row['p_holm']:.3f})"
            found.setdefault(row["system"], {})[row["shots"]] = text
    rows = [[name, *(found[name][k] for k in data["shots"])] for name in by_quality(data) if name in found]
    note = (
        f"{data['metrics'][0]} minus that of {data['reference']}, same users. Two-sided sign-flip permutation test over "
        "users, all seeds together, Holm-corrected over k; * below 5 %."
    )
    return Table(f"Compared with {data['reference']}", note, ["system", *_shots(data)], rows)


def _failed(data: dict[str, Any]) -> list[Table]:
    rows = [[name, reason] for name, reason in data["failed"].items()]
    return [Table("Did not finish", "The others went on.", ["system", "reason"], rows)] if rows else []


def _short(value: float | None, form: str = "{:.3f}") -> str:
    return "–" if value is None else form.format(value)


_TUNED = {
    "user": "baselines, per k on validation users",
    "item": "baselines, per k on validation users (the same cold items)",
    "time": "baselines, per k on a time split of the training log alone",
}


def ranked_over(data: dict[str, Any]) -> str:
    """What the headline metric ranks."""
    return "ranked among the cold items" if data["protocol"] == "item" else "ranked over the full catalogue"


def settings(data: dict[str, Any]) -> list[tuple[str, str]]:
    """What was run, in pairs."""
    one = data["dataset"]
    sizes = ", ".join(
        f"seed {seed}: {s['train_users']:,} train, {s['valid_users']:,} validate, {s['test_users']:,} test"
        + (f", {s['cold_items']:,} cold items" if "cold_items" in s else "")
        for seed, s in data["split"].items()
    )
    return [
        (
            "Data",
            f"{one['name']}: {one['users']:,} users, {one['items']:,} items, {one['interactions']:,} interactions",
        ),
        (
            "Order",
            {"timestamp": "by timestamp", "position": "by position"}.get(one["order"], "unknown (a fixed shuffle)"),
        ),
        ("Protocol", f"{data['protocol']} split, {ranked_over(data)}, support removed"),
        ("Users", sizes),
        ("Tuned", _TUNED[data["protocol"]] if data["tuned"] else "no: every system with the settings in its name"),
        ("Data fingerprint", one["fingerprint"]),
        ("Versions", ", ".join(f"{k} {v}" for k, v in {"mecold": data["mecold"], **data["versions"]}.items())),
    ]


def markdown(data: dict[str, Any]) -> str:
    """The whole report as markdown."""
    lines = [f"# Cold-start evaluation: {data['dataset']['name']}", "", verdict(data), ""]
    for table in all_tables(data):
        if table.rows:
            lines += [f"## {table.title}", "", table.note, "", *_markdown_rows([table.head, *table.rows]), ""]
    lines += ["## Settings", "", *_markdown_rows([["", ""], *settings(data)]), "", "## Formulas", ""]
    lines += [f"- `{name}`: {text}" for name, text in data["formulas"].items()]
    return "\n".join(lines) + "\n"


def _markdown_rows(rows: Iterable[Sequence[str]]) -> list[str]:
    made = ["| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) + " |" for row in rows]
    width = made[0].count(" | ") + 1
    return [made[0], "|" + "---|" * width, *made[1:]]
