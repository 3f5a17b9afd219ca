"""An encoder of one shop in another: `python bench/across.py DATA_DIR --learned SET[,SET] --used SET[,SET] [--encoder FOLDER]`.

DATA_DIR holds one folder per set with interactions.parquet and items.parquet. One encoder is trained on the whole logs of the
first sets together, or read from a folder; mecold is evaluated on the others with its texts, and with frozen ones.
"""

import argparse
import tempfile
import warnings
from pathlib import Path

import polars as pl

from mecold import TextEncoder
from mecold.evaluation.dataset import Dataset
from mecold.evaluation.run import evaluate
from mecold.tuning.train import train_encoder


def joined(data_dir: Path, names: list[str], file: str) -> pl.DataFrame:
    """The frames of several shops as one; ids get the shop's name in front."""
    frames = []
    for name in names:
        frame = pl.read_parquet(data_dir / name / file)
        ids = [one for one in ("user_id", "item_id") if one in frame.columns]
        frames.append(frame.with_columns(pl.concat_str(pl.lit(name + "/"), one).alias(one) for one in ids))
    return pl.concat(frames, how="diagonal_relaxed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("--learned", required=True)
    parser.add_argument("--used", required=True)
    parser.add_argument("--encoder", type=Path, help="Where the trained encoder lies, or is written to.")
    parser.add_argument("--seeds", default="0")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    learned, place = args.learned.split(","), args.encoder or Path(tempfile.mkdtemp()) / "encoder"
    if not place.exists():
        items, log = (joined(args.data_dir, learned, f"{one}.parquet") for one in ("items", "interactions"))
        print(train_encoder(items, log, out=place, on_unknown="drop", progress=True))
    for name in args.used.split(","):
        marks = {}
        for kind, encoder in {"frozen": TextEncoder(), "from elsewhere": TextEncoder(place)}.items():
            folder = args.data_dir / name
            data = Dataset.read(folder / "interactions.parquet", folder / "items.parquet", name=name, encoder=encoder)
            found = evaluate("mecold", data, protocol="item", seeds=tuple(map(int, args.seeds.split(","))))
            cell = found.data["systems"]["mecold"]["mean"]["10"]
            marks[kind] = [cell[metric]["mean"] for metric in ("ndcg@10", "full:ndcg@10")]
        shown = " | ".join(f"{old:.4f} | {new:.4f} | {new / old:.3f}" for old, new in zip(*marks.values(), strict=True))
        print(f"| {args.learned} | {name} | {shown} |", flush=True)


if __name__ == "__main__":
    main()
