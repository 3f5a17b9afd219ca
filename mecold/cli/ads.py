"""Commands for ads."""

import json
from pathlib import Path
from typing import Annotated

import polars as pl
import typer
from rich.table import Table

from mecold.cli.terminal import AsJson, Renames, escaped, explained, out, renames_of, show_values
from mecold.data.impressions import SHOWN
from mecold.encode.encoder import TextEncoder
from mecold.encode.model_folder import DEFAULT_MODEL
from mecold.sealed import check_target
from mecold.tasks.ads import KIND, ClickModel

app = typer.Typer(
    help="Choose among new ads, headlines or banners by their texts and their clicks.", no_args_is_help=True
)

OfEncoder = Annotated[str, typer.Option(help="Hub name or local folder of the model that reads texts.")]


@app.command()
def fit(
    impressions: Annotated[
        Path, typer.Option(help="Parquet, arrow, csv or jsonl: text, impressions, clicks, group, optional time.")
    ],
    target: Annotated[Path, typer.Option("--out", help="Folder to write the model to.")],
    encoder: OfEncoder = DEFAULT_MODEL,
    column: Renames = [],  # noqa: B006
    horizon: Annotated[int, typer.Option(help="Impressions of a place that exploration should pay within.")] = 5000,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    json_: AsJson = False,
) -> None:
    """Learn from places that are over what words do.

    Example: mecold ads fit --impressions tests.csv --column group=test_id --out ads/
    """
    with explained():
        check_target(target, KIND)
        names = renames_of(column, {"impressions": (*SHOWN, "time")}, {"impressions": impressions})["impressions"]
        model = ClickModel.fit_meta(
            impressions, encoder=TextEncoder(encoder), columns=names, horizon=horizon, rng=seed, progress=not json_
        )
        model.save(target)
        usual = {name: round(value, 4) for name, value in vars(model.usual).items()}
        told = {name: round(value, 4) for name, value in model.told.items()}
        show_values(
            {"model": str(target), **usual, "explore": model.explore, **told}, json_, f"Model written to {target}"
        )


@app.command()
def rank(
    model: Annotated[Path, typer.Argument(help="Folder that `mecold ads fit` wrote.")],
    creatives: Annotated[Path, typer.Option(help="Parquet, arrow, csv or jsonl: creative_id, text.")],
    counts: Annotated[
        Path | None, typer.Option(help="Parquet, arrow, csv or jsonl: creative_id, impressions, clicks.")
    ] = None,
    encoder: OfEncoder = DEFAULT_MODEL,
    json_: AsJson = False,
) -> None:
    """What is believed of creatives beside one another, and how often each should be shown next.

    Example: mecold ads rank ads/ --creatives new.csv --counts so_far.csv
    """
    with explained():
        found = ClickModel.load(model, TextEncoder(encoder))
        state = found.add(creatives)
        if counts is not None:
            state = found.observe(counts, state)
        chances = pl.Series("chance", list(found.chances(state).values()))
        rows = found.posterior(state).with_columns(chances).sort("chance", "rate", descending=True)
        if json_:
            typer.echo(json.dumps(rows.to_dicts()))
            return
        table = Table(*rows.columns)
        for creative, shown, clicks, *numbers in rows.iter_rows():
            table.add_row(escaped(str(creative)), f"{shown:,.0f}", f"{clicks:,.0f}", *(f"{one:.4f}" for one in numbers))
        out.print(table)
