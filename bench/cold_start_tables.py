"""The tables of RESULTS.md out of cold_start.json: `python bench/cold_start_tables.py [cold_start.json]`."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from mecold.evaluation.statistics import holm

COUNTED = (
    "amazon_office_2014", "online_retail_2011", "xwines_slim", "movielens_1m_positive", "amazon_video_games_2018",
)  # fmt: skip
SHUFFLED = ", shuffled"
Result = dict[str, Any]


def table(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [head, ["---"] * len(head), *rows]) + "\n"


def family(name: str) -> str:
    return name.partition("[")[0]


def users(one: Result) -> str:
    found = one["systems"]["mecold"]["scores"].values()
    return ", ".join(str(next(iter(by_k.values()))["ndcg@10"]["users"]) for by_k in found)


def ratios(results: list[Result]) -> str:
    """Ratios to both envelopes with intervals; bold: below 1."""
    shots = [k for k in results[0]["shots"] if k > 0]
    head = ["set", "users a seed", *(f"k = {k}" for k in shots), "mean", "against order-blind", "mean"]
    rows = []
    for one in results:
        mine, blind = (one["envelope"][kind]["ratios"]["mecold"] for kind in ("all", "order-blind"))
        marks = [mine[str(k)] for k in shots]
        cells = [f"{m['ratio']:.3f} [{m['low']:.2f}, {m['high']:.2f}]" for m in marks]
        cells = [f"**{cell}**" if m["ratio"] < 1 else cell for cell, m in zip(cells, marks, strict=True)]
        other = " / ".join(f"{blind[str(k)]['ratio']:.2f}" for k in shots)
        means = [f"{kind['geometric_mean']:.3f}" for kind in (mine, blind)]
        rows.append([one["dataset"], users(one), *cells, means[0], other, means[1]])
    return table(head, rows)


def headline(results: list[Result]) -> str:
    """Geometric means over the sets that count."""
    lines = []
    for kind in ("all", "order-blind"):
        marks = [
            cell["ratio"]
            for one in results
            if one["dataset"] in COUNTED
            for k, cell in one["envelope"][kind]["ratios"]["mecold"].items()
            if k.isdigit() and int(k) > 0
        ]
        if not marks:
            return ""
        lines.append(
            f"Sets that count, {kind}: geometric mean {np.exp(np.mean(np.log(marks))):.3f}, least {min(marks):.3f}, "
            f"over {len(marks)} cells."
        )
    return "  \n".join(lines) + "\n"


def scores(results: list[Result]) -> str:
    """nDCG@10 by k, means over seeds, of what most readers will ask for."""
    wanted = ("mecold", "popularity", "itemknn", "ease", "feature_als", "directed", "faded_itemknn", "faded_userknn")
    rows = []
    for one in results:
        found = {family(name): system["mean"] for name, system in reversed(one["systems"].items())}  # the first of each
        for place, name in enumerate(name for name in wanted if name in found):
            cells = [f"{found[name][str(k)]['ndcg@10']['mean']:.4f}" for k in one["shots"]]
            rows.append(["" if place else one["dataset"], name, *cells])
    return table(["set", "system", *(f"k = {k}" for k in results[0]["shots"])], rows)


def cold_items(results: list[Result]) -> str:
    """Among cold items, among all, and how many new items a full list shows."""
    rows = []
    for one in results:
        found = {family(name): system for name, system in one["systems"].items()}
        content = found["content"]["mean"]["10"]["ndcg@10"]["mean"]
        for name in (name for name in ("mecold", "content", "feature_als", "popularity") if name in found):
            cell, shown = found[name]["mean"]["10"], found[name]["beyond"]["10"]["new_items"]
            mark, full = cell["ndcg@10"]["mean"], cell["full:ndcg@10"]["mean"]
            rows.append([one["dataset"], name, f"{mark:.4f}", f"{mark / content:.2f}", f"{full:.4f}", f"{shown:.3f}"])
    return table(["set", "system", "among cold", "/ content", "among all", "new items shown"], rows)


def ablations(results: list[Result]) -> str:
    """Difference to the whole model, by k and over all k, and whether it is significant: Holm's correction over the
    ablations of a cell, and over the sets that an ablation was run on.
    """
    shots = [k for k in results[0]["shots"] if k > 0]
    rows = []
    by_ablation: dict[str, dict[str, float]] = {}
    for one in results:
        for name, found in one.get("over_all_shots", {}).items():
            by_ablation.setdefault(name, {})[one["dataset"]] = found["p"]
    corrected = {name: holm(by_set) for name, by_set in by_ablation.items()}
    for one in results:
        for name in (name for name in one["systems"] if name.startswith("mecold-")):
            found = {
                c["shots"]: c
                for c in one["comparisons"]
                if c["system"] == name and c["seed"] == "all" and c["metric"] == "ndcg@10"
            }
            cells = [f"{found[k]['difference']:+.4f}{'*' if found[k]['p_holm'] < 0.05 else ''}" for k in shots]
            whole, p = one["over_all_shots"][name]["ratio"], corrected[name][one["dataset"]]
            over = f"{whole - 1:+.1%}{'*' if p < 0.05 else ''} (p = {p:.4f})"
            rows.append([one["dataset"], name.removeprefix("mecold-"), *cells, over])
    return table(["set", "ablation", *(f"k = {k}" for k in shots), "all k"], rows) if rows else ""


def cost(results: list[Result]) -> str:
    """Median seconds and memory of a fit."""
    rows = []
    for one in results:
        mine = one["systems"]["mecold"]
        rows.append([one["dataset"], f"{mine['fit_seconds']:.0f}", f"{mine['peak_bytes'] / 2**30:.1f}"])
    return table(["set", "seconds", "GiB"], rows)


def everything(results: list[Result]) -> str:
    """All sections."""
    mine = [one for one in results if "mecold" in one["systems"]]
    few = {
        p: [one for one in mine if one["protocol"] == p and max(one["shots"]) <= 10] for p in ("user", "time", "item")
    }
    many = [one for one in mine if max(one["shots"]) > 10]
    ordered = [one for one in few["user"] if not one["dataset"].endswith(SHUFFLED)]
    shuffled = [one for one in few["user"] if one["dataset"].endswith(SHUFFLED)]
    parts = []
    for title, found, makers in (
        ("Cold users (user split): mecold / envelope", ordered, (ratios, headline, scores)),
        ("Cold users after a date (time split)", few["time"], (ratios, headline)),
        ("Cold items (item split)", few["item"], (cold_items,)),
        ("Beyond few shots (50 and 100): mecold / best of EASE and the directed ridge", many, (ratios,)),
        ("Without any order (user split): mecold / best order-blind", shuffled, (ratios,)),
        ("Ablations (user split)", ordered, (ablations,)),
        ("Cost of a fit", ordered, (cost,)),
    ):
        made = [text for make in makers if (text := make(found))] if found else []
        parts += [f"### {title}\n", *made] if made else []
    return "\n".join(parts)


if __name__ == "__main__":
    source = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "results" / "cold_start.json"
    print(everything(json.loads(source.read_text())["results"]))
