"""Cold-start quality on real data: `python bench/cold_start.py DATA_DIR [--sets ...] [--protocols user,time,item]`.

DATA_DIR holds one folder per set with interactions.parquet and items.parquet. mecold runs with its defaults. Baselines are
tuned per set and number of shots on validation users; in the time split, which has none, every member of the grids runs
and the best on the test users is the bar (sets above 8,000 items: of all but the neighbours the defaults only). An
interrupted run goes on. Writes bench/results/cold_start.json, prints the tables of RESULTS.md, and draws
bench/results/cold_start.svg.
"""

import argparse
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from clock import commit_of

from mecold.evaluation.dataset import Dataset
from mecold.evaluation.protocol import Protocol
from mecold.evaluation.report import across
from mecold.evaluation.report.records import Estimate, Findings
from mecold.evaluation.report.tables import Table, in_markdown
from mecold.evaluation.run import evaluate
from mecold.evaluation.systems.names import entries_of, with_members
from mecold.swap import write_text

COUNTED = (
    "amazon_office_2014", "online_retail_2011", "xwines_slim", "movielens_1m_positive", "amazon_video_games_2018",
)  # fmt: skip
OTHERS = ("movielens_100k", "goodbooks_10k_v1", "amazon_beauty_handmade_health_2023", "movielens_1m_half_all_ratings")
BASELINES = (
    "popularity,itemknn,userknn,rp3beta,ease,als,feature_als,content,faded_itemknn,faded_userknn,faded_ease,directed"
)
BIG = 8_000
NEIGHBOURS = ("itemknn", "userknn", "faded_itemknn", "faded_userknn")
SHUFFLED = ", shuffled"
SHOWN = ("mecold", "popularity", "itemknn", "ease", "feature_als", "directed", "faded_itemknn", "faded_userknn")
SHOWN_COLD = ("mecold", "content", "feature_als", "popularity")
Maker = Callable[[Sequence[Findings]], Table]
RESULTS = Path(__file__).parent / "results"


KEPT = ("ndcg@10", "recall@20", "mrr@10", "full:ndcg@10")


def slim(found: Findings) -> Findings:
    """What cold_start.json keeps of a report."""

    def cells(by_k: Mapping[int, Mapping[str, Estimate]]) -> dict[int, dict[str, Estimate]]:
        return {k: {metric: cell[metric] for metric in KEPT if metric in cell} for k, cell in by_k.items()}

    systems = {
        name: replace(
            one, scores={seed: cells(by_k) for seed, by_k in one.scores.items()}, mean=cells(one.mean), slices={}
        )
        for name, one in found.systems.items()
    }
    return replace(found, systems=systems, metrics=[metric for metric in found.metrics if metric in KEPT])


def rounded(value: Any) -> Any:
    """Numbers to five digits."""
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    if isinstance(value, list):
        return [rounded(one) for one in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value


def run(data_dir: Path, name: str, protocol: Protocol, args: argparse.Namespace) -> Findings:
    log = pl.read_parquet(data_dir / name / "interactions.parquet")
    if args.shuffled:  # without a time or a position, each history is ordered by a hash
        log, name_of = log.drop("timestamp", "position", strict=False), name + SHUFFLED
    else:
        name_of = name
    dataset = Dataset.read(log, data_dir / name / "items.parquet", name=name_of)
    shots = [int(k) for k in args.shots.split(",")] if args.shots else None
    small = dataset.catalog.size <= BIG
    chosen = entries_of(f"mecold,{BASELINES}" + (f",{args.add}" if args.add else ""))
    if protocol == "time" or (protocol == "user" and not small):  # every member runs; the envelope takes its pick
        spread = [with_members(one) if small or one.name.startswith(NEIGHBOURS) else one for one in chosen]
        chosen = [member for one in spread for member in one.members or (one,)]
    report = evaluate(
        [entry.system for entry in chosen], dataset, protocol=protocol, shots=shots, tune=small and protocol != "time",
        seeds=(0,) if protocol == "time" else [int(seed) for seed in args.seeds.split(",")],
        reference="mecold",
        out=args.out / f"{name_of}-{protocol}{'' if shots is None else '-many'}", progress=True,
    )  # fmt: skip
    return slim(report.found)


def sections(found: Sequence[Findings]) -> str:
    """Evaluation's tables, by what is cold."""
    mine = [one for one in found if "mecold" in one.systems]
    few = {p: [one for one in mine if one.protocol == p and max(one.shots) <= 10] for p in ("user", "time", "item")}
    many = [one for one in mine if max(one.shots) > 10]
    ordered = [one for one in few["user"] if not one.dataset.name.endswith(SHUFFLED)]
    counted = [one for one in ordered if one.dataset.name in COUNTED]
    shuffled = [one for one in few["user"] if one.dataset.name.endswith(SHUFFLED)]
    ablated = [one for one in ordered if any(name.startswith("mecold-") for name in one.systems)]
    ratios: Maker = lambda some: across.ratios(some, "mecold")  # noqa: E731
    parts: list[tuple[str, Sequence[Findings], Maker]] = [
        ("Cold users (user split), sets that count", counted, ratios),
        ("Cold users (user split), all sets", ordered, ratios),
        ("Cold users (user split)", ordered, lambda some: across.scores(some, SHOWN)),
        ("Cold users after a date (time split)", few["time"], ratios),
        ("Cold items (item split)", few["item"], lambda some: across.cold_items(some, SHOWN_COLD, "content")),
        ("Beyond few shots (50 and 100)", many, ratios),
        ("Without any order (user split)", shuffled, ratios),
        ("Ablations (user split)", ablated, lambda some: across.against(some, "mecold-")),
        ("Cost of a fit", ordered, lambda some: across.costs(some, "mecold")),
    ]
    tables = [(title, make(some)) for title, some, make in parts if some]
    return "\n".join(in_markdown(replace(table, title=title), level=3) for title, table in tables)


def picture(found: Sequence[Findings]) -> None:
    """Ratios with intervals, a panel per set of the user split."""
    from matplotlib.figure import Figure

    shown = [one for one in found if one.protocol == "user" and one.dataset.name in COUNTED and 1 in one.shots]
    if not shown:
        return
    figure = Figure(figsize=(10, 2.6), layout="constrained")
    for axes, one in zip(np.atleast_1d(figure.subplots(1, len(shown), sharey=True)), shown, strict=True):
        for shift, (kind, colour) in enumerate((("all", "#1f5fd0"), ("order-blind", "#d9822b"))):
            cells = [one.envelope[kind].ratios["mecold"][k] for k in one.positive]
            places = [place + 0.2 * shift - 0.1 for place in range(len(cells))]
            axes.vlines(places, [c.low for c in cells], [c.high for c in cells], color=colour)
            axes.plot(places, [c.ratio for c in cells], "o", color=colour, label=kind, markersize=4)
        axes.axhline(1, color="#777", linewidth=1)
        axes.set_xticks(range(len(one.positive)), [f"k={k}" for k in one.positive])
        axes.set_title(one.dataset.name, fontsize=8)
        axes.set_yscale("log")
        axes.set_yticks([0.8, 1, 1.25, 1.5, 2, 3], ["0.8", "1", "1.25", "1.5", "2", "3"])
        axes.minorticks_off()
    figure.axes[0].set_ylabel("mecold / envelope")
    figure.axes[0].legend(fontsize=7)
    figure.savefig(RESULTS / "cold_start.svg", metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "data_dir", type=Path, nargs="?", help="without it, the tables of what was measured are printed"
    )
    parser.add_argument("--sets", default=",".join([*COUNTED, *OTHERS]))
    parser.add_argument("--protocols", default="user,time,item")
    parser.add_argument("--add", help="further systems, such as mecold-no-inner,mecold-no-text")
    parser.add_argument("--shots", help="other numbers of shots, such as 50,100; kept beside the usual ones")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--shuffled", action="store_true", help="take all order away")
    parser.add_argument("--out", type=Path, default=Path("reports"), help="folder of the full reports")
    parser.add_argument("--json", type=Path, default=RESULTS / "cold_start.json")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    commit = commit_of()
    kept = json.loads(args.json.read_text())["results"] if args.json.is_file() else []
    results = {key_of(Findings.from_json(one)): one for one in kept}
    for protocol in args.protocols.split(",") if args.data_dir else []:
        for name in args.sets.split(","):
            try:
                found = run(args.data_dir, name, protocol, args)
            except ValueError as error:
                print(f"{name}, {protocol}: {error}", flush=True)
                continue
            results[key_of(found)] = rounded(found.to_json()) | {"commit": commit}
            args.json.parent.mkdir(exist_ok=True)
            write_text(args.json, json.dumps({"results": list(results.values())}))
            print(f"{name}, {protocol}: done", flush=True)
    found_all = [Findings.from_json(one) for one in results.values()]
    print(sections(found_all))
    picture(found_all)


def key_of(found: Findings) -> tuple[str, str, tuple[int, ...]]:
    """What a result of a later run takes the place of."""
    return found.dataset.name, found.protocol, tuple(found.shots)


if __name__ == "__main__":
    main()
