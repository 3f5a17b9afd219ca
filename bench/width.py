"""How wide text vectors have to be: `python bench/width.py DATA_DIR [--sets ...] [--widths 32,64,128,256,384]`.

DATA_DIR holds one folder per set with interactions.parquet and items.parquet. The encoder's vectors are projected to their widest
directions, which are fitted on the shop (`MetaConfig.text_rank`). nDCG@10 of new items among themselves, of users after 5
items, and bytes of an item's text vector as the model keeps it.
"""

import argparse
import warnings
from dataclasses import replace
from pathlib import Path

from mecold.evaluation.dataset import Dataset
from mecold.evaluation.run import evaluate
from mecold.evaluation.systems.ours import Mecold
from mecold.meta.config import MetaConfig


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("--sets", default="amazon_office_2014,online_retail_2011")
    parser.add_argument("--widths", default="32,64,128,256,384")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    for name in args.sets.split(","):
        data = Dataset.read(
            args.data_dir / name / "interactions.parquet", args.data_dir / name / "items.parquet", name=name
        )
        for width in map(int, args.widths.split(",")):
            marks = []
            for protocol, k in (("item", 10), ("user", 5)):
                system = Mecold(config=replace(MetaConfig(), text_rank=width))
                found = evaluate([system], data, protocol=protocol, seeds=(0,), shots=(k,))
                marks.append(found.data["systems"]["mecold"]["mean"][str(k)]["ndcg@10"]["mean"])
            print(f"| {name} | {width} | {4 * width:,} | {marks[0]:.4f} | {marks[1]:.4f} |", flush=True)


if __name__ == "__main__":
    main()
