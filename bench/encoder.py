"""Training of the encoder: `python bench/encoder.py DATA_DIR [--sets ...] [--protocols item,user] [--seeds 0]`.

DATA_DIR holds one folder per set with interactions.parquet and items.parquet. mecold with frozen texts, mecold whose encoder
was trained inside the split, and content on frozen texts. An interrupted run goes on. Writes bench/results/encoder.json and
prints the table of RESULTS.md.
"""

import argparse
import json
import warnings
from pathlib import Path

import numpy as np
from clock import commit_of

from mecold.evaluation.dataset import Dataset
from mecold.evaluation.run import evaluate
from mecold.swap import write_text

COUNTED = (
    "amazon_office_2014", "online_retail_2011", "xwines_slim", "movielens_1m_positive", "amazon_video_games_2018",
)  # fmt: skip
RESULTS = Path(__file__).parent / "results"
SYSTEMS = ("mecold", "mecold-tuned", "content")


def measured(data_dir: Path, name: str, protocol: str, seeds: tuple[int, ...], out: Path) -> list[dict]:
    data = Dataset.read(data_dir / name / "interactions.parquet", data_dir / name / "items.parquet", name=name)
    found = evaluate(",".join(SYSTEMS), data, protocol=protocol, seeds=seeds, out=out / f"{name}-{protocol}").data
    rows = []
    for k in found["shots"]:
        cells = {system: found["systems"][system]["mean"][str(k)] for system in SYSTEMS}
        for metric in ("ndcg@10", "full:ndcg@10"):
            if metric in cells["mecold"]:
                rows.append(
                    {"set": name, "protocol": protocol, "k": int(k), "metric": metric}
                    | {system: cells[system][metric]["mean"] for system in SYSTEMS}
                )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("--sets", default=",".join(COUNTED))
    parser.add_argument("--protocols", default="item,user")
    parser.add_argument("--seeds", default="0")
    parser.add_argument(
        "--work", type=Path, default=Path("encoder-runs"), help="Folder where an interrupted run goes on."
    )
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    seeds, rows = tuple(map(int, args.seeds.split(","))), []
    for name in args.sets.split(","):
        for protocol in args.protocols.split(","):
            fresh = measured(args.data_dir, name, protocol, seeds, args.work)
            rows += fresh
            write_text(
                RESULTS / "encoder.json", json.dumps({"commit": commit_of(), "seeds": seeds, "rows": rows}, indent=1)
            )
            for row in fresh:
                ratio = row["mecold-tuned"] / row["mecold"]
                print(f"| {row['set']} | {protocol} | {row['k']} | {row['metric']} | {row['content']:.3f} | "
                      f"{row['mecold']:.4f} | {row['mecold-tuned']:.4f} | {ratio:.3f} |", flush=True)  # fmt: skip
    of_items = [row for row in rows if row["protocol"] == "item" and row["metric"] == "ndcg@10"]
    if of_items:
        ratios = [row["mecold-tuned"] / row["mecold"] for row in of_items]
        print(
            f"new items, trained over frozen: geometric mean {np.exp(np.mean(np.log(ratios))):.3f}, least {min(ratios):.3f}"
        )


if __name__ == "__main__":
    main()
