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
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from clock import commit_of
from cold_start_tables import COUNTED, SHUFFLED, everything

from mecold.evaluation.dataset import Dataset
from mecold.evaluation.results import write_text
from mecold.evaluation.run import evaluate
from mecold.evaluation.statistics import sign_flip
from mecold.evaluation.systems.names import listed, members

OTHERS = ("movielens_100k", "goodbooks_10k_v1", "amazon_beauty_handmade_health_2023", "movielens_1m_half_all_ratings")
BASELINES = (
    "popularity,itemknn,userknn,rp3beta,ease,als,feature_als,content,faded_itemknn,faded_userknn,faded_ease,directed"
)
BIG = 8_000
NEIGHBOURS = ("itemknn", "userknn", "faded_itemknn", "faded_userknn")
RESULTS = Path(__file__).parent / "results"


KEPT = ("ndcg@10", "recall@20", "mrr@10", "full:ndcg@10")


def slim(data: dict[str, Any]) -> dict[str, Any]:
    """What cold_start.json keeps of a report, to five digits."""

    def cells(by_k: dict[str, Any]) -> dict[str, Any]:
        return {k: {metric: cell[metric] for metric in KEPT if metric in cell} for k, cell in by_k.items()}

    systems = {
        name: {
            "kind": one["kind"],
            "scores": {seed: cells(by_k) for seed, by_k in one["scores"].items()},
            "mean": cells(one["mean"]),
            **{key: one.get(key) for key in ("fit_seconds", "peak_bytes", "beyond")},
        }
        for name, one in data["systems"].items()
    }
    keep = ("protocol", "seeds", "shots", "tuned", "split", "envelope", "comparisons", "failed")
    name = data["dataset"] if isinstance(data["dataset"], str) else data["dataset"]["name"]
    slimmed: dict[str, Any] = rounded({"dataset": name, **{key: data[key] for key in keep}, "systems": systems})
    return slimmed


def over_all_shots(per_user: pl.DataFrame) -> dict[str, dict[str, float]]:
    """Each ablation against the whole model over all numbers of shots: ratio of means, and p of a sign-flip test over users.

    A user's differences enter together, whatever the seed and the number of shots.
    """
    some = per_user.filter(pl.col("shots") > 0, pl.col("system").str.starts_with("mecold"))
    wide = some.pivot(on="system", index=["seed", "user_id", "shots"], values="ndcg@10")
    found = {}
    for name in (name for name in wide.columns if name.startswith("mecold-")):
        by_user = wide.group_by("user_id", maintain_order=True).agg(
            (pl.col(name) - pl.col("mecold")).sum().alias("moved")
        )
        ratio = wide[name].mean() / wide["mecold"].mean()  # type: ignore[operator]
        found[name] = {"ratio": ratio, "p": sign_flip(by_user["moved"].to_numpy())}
    return found


def rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    if isinstance(value, list):
        return [rounded(one) for one in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value


def run(data_dir: Path, name: str, protocol: str, args: argparse.Namespace) -> dict[str, Any]:
    log = pl.read_parquet(data_dir / name / "interactions.parquet")
    if args.shuffled:  # without a time or a position, each history is ordered by a hash
        log, name_of = log.drop("timestamp", "position", strict=False), name + SHUFFLED
    else:
        name_of = name
    dataset = Dataset.read(log, data_dir / name / "items.parquet", name=name_of)
    shots = [int(k) for k in args.shots.split(",")] if args.shots else None
    small = dataset.catalog.size <= BIG
    chosen = listed(f"mecold,{BASELINES}" + (f",{args.add}" if args.add else ""))
    if protocol == "time" or (protocol == "user" and not small):  # every member runs; the envelope takes its pick
        chosen = [m for one in chosen for m in (members(one) if small or one.name.startswith(NEIGHBOURS) else [one])]
    report = evaluate(
        chosen, dataset, protocol=protocol, shots=shots, tune=small and protocol != "time",
        seeds=(0,) if protocol == "time" else [int(seed) for seed in args.seeds.split(",")],
        reference="mecold",
        out=args.out / f"{name_of}-{protocol}{'' if shots is None else '-many'}", progress=True,
    )  # fmt: skip
    return slim(report.data) | {"over_all_shots": rounded(over_all_shots(report.per_user))}


def picture(results: list[dict[str, Any]]) -> None:
    """Ratios with intervals, a panel per set of the user split."""
    from matplotlib.figure import Figure

    shown = [
        one
        for one in results
        if one["protocol"] == "user" and one["dataset"] in COUNTED and 1 in one["shots"] and "mecold" in one["systems"]
    ]
    if not shown:
        return
    figure = Figure(figsize=(10, 2.6), layout="constrained")
    for axes, one in zip(np.atleast_1d(figure.subplots(1, len(shown), sharey=True)), shown, strict=True):
        shots = [k for k in one["shots"] if k > 0]
        for shift, (kind, colour) in enumerate((("all", "#1f5fd0"), ("order-blind", "#d9822b"))):
            cells = [one["envelope"][kind]["ratios"]["mecold"][str(k)] for k in shots]
            places = [place + 0.2 * shift - 0.1 for place in range(len(shots))]
            axes.vlines(places, [c["low"] for c in cells], [c["high"] for c in cells], color=colour)
            axes.plot(places, [c["ratio"] for c in cells], "o", color=colour, label=kind, markersize=4)
        axes.axhline(1, color="#777", linewidth=1)
        axes.set_xticks(range(len(shots)), [f"k={k}" for k in shots])
        axes.set_title(one["dataset"], fontsize=8)
        axes.set_yscale("log")
        axes.set_yticks([0.8, 1, 1.25, 1.5, 2, 3], ["0.8", "1", "1.25", "1.5", "2", "3"])
        axes.minorticks_off()
    figure.axes[0].set_ylabel("mecold / envelope")
    figure.axes[0].legend(fontsize=7)
    figure.savefig(RESULTS / "cold_start.svg", metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_dir", type=Path)
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
    kept = json.loads(args.json.read_text()) if args.json.is_file() else {"results": []}
    results = {(one["dataset"], one["protocol"], tuple(one["shots"])): one for one in kept["results"]}
    for protocol in args.protocols.split(","):
        for name in args.sets.split(","):
            try:
                found = run(args.data_dir, name, protocol, args)
            except ValueError as error:
                print(f"{name}, {protocol}: {error}", flush=True)
                continue
            results[found["dataset"], found["protocol"], tuple(found["shots"])] = found | {"commit": commit}
            args.json.parent.mkdir(exist_ok=True)
            write_text(args.json, json.dumps({"results": list(results.values())}))
            print(f"{name}, {protocol}: done", flush=True)
    found = list(results.values())
    print(everything(found))
    picture(found)


if __name__ == "__main__":
    main()
