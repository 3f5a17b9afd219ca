"""What eight bits cost and bring: `python bench/export.py DATA_DIR [--sets ...]`.

Texts per second of the default encoder and of its int8 export, no cache, medians of three; and what mecold makes of new items
(item split, seed 0) on the vectors of either. Prints the table of RESULTS.md.
"""

import argparse
import tempfile
import warnings
from functools import partial
from pathlib import Path

import numpy as np
from clock import machine, medians_ms

from mecold import TextEncoder
from mecold.evaluation.dataset import Dataset
from mecold.evaluation.run import evaluate
from mecold.tuning.export import export_encoder

SETS = ("amazon_office_2014", "online_retail_2011", "xwines_slim", "movielens_1m_positive")
TIMED = 300  # texts


def new_items(folder: Path, name: str, encoder: TextEncoder) -> float:
    data = Dataset.read(folder / "interactions.parquet", folder / "items.parquet", name=name, encoder=encoder)
    mean = evaluate("mecold", data, protocol="item", seeds=(0,)).data["systems"]["mecold"]["mean"]
    return float(mean["10"]["ndcg@10"]["mean"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("--sets", default=",".join(SETS))
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as place:
        made = export_encoder(out=Path(place) / "int8")
        encoders = {"fp32": TextEncoder(device="cpu", cache=None), "int8": TextEncoder(made.folder, cache=None)}
        print(f"{machine()}; int8 graph {made.megabytes:.0f} MB")
        for name in args.sets.split(","):
            folder = args.data_dir / name
            texts = list(
                Dataset.read(folder / "interactions.parquet", folder / "items.parquet", name=name).catalog.texts
            )
            some = texts[:: max(1, len(texts) // TIMED)][:TIMED]
            calls = {kind: partial(own.encode, some) for kind, own in encoders.items()}
            rate = {kind: 1e3 * len(some) / ms for kind, ms in medians_ms(calls, 3).items()}
            first, second = (own.encode(some) for own in encoders.values())
            cosines = (first * second).sum(1) / np.linalg.norm(first, axis=1) / np.linalg.norm(second, axis=1)
            quality = {kind: new_items(folder, name, own) for kind, own in encoders.items()}
            print(
                f"| {name} | {rate['fp32']:.0f} | {rate['int8']:.0f} | {rate['int8'] / rate['fp32']:.2f} | "
                f"{cosines.mean():.4f} | {quality['fp32']:.4f} | {quality['int8']:.4f} | "
                f"{quality['int8'] / quality['fp32']:.3f} |", flush=True,
            )  # fmt: skip


if __name__ == "__main__":
    main()
