"""The command that prints or writes who will want an item."""

import json
from pathlib import Path
from typing import Annotated, Literal

import polars as pl
import typer
from rich.table import Table

from mecold.cli.lists import ModelFolder, ids_of
from mecold.cli.terminal import AsJson, Renames, Types, escaped, explained, renames_of, types_of
from mecold.cli.terminal import out as console
from mecold.data.delimited import id_from_text
from mecold.data.frames import INTERACTION_NAMES, as_said, read_frame
from mecold.recommender import Recommender


def audience(
    model: ModelFolder,
    history: Annotated[
        Path, typer.Option(help="Parquet or csv: user_id, item_id. Users to choose among, and what they had.")
    ],
    item: Annotated[str | None, typer.Option(help="Id of the item; nobody needs to have it yet.")] = None,
    seed_user: Annotated[list[str], typer.Option(help="Id of a user who wants it already; repeatable.")] = [],  # noqa: B006
    k: Annotated[int, typer.Option("-k", min=1, help="How many users.")] = 50,
    column: Renames = [],  # noqa: B006
    type_: Types = [],  # noqa: B006
    on_unknown: Annotated[Literal["raise", "drop"], typer.Option(help="What to do with unknown items.")] = "raise",
    json_: AsJson = False,
) -> None:
    """Users who will want an item most: by its text, by those who have it, or by users like those named.

    Example: mecold audience model/ --history log.parquet --item A1 -k 50
    """
    with explained():
        recommender = Recommender.load(model)
        types = types_of(type_)
        kinds = {"item_id": pl.String if recommender.info()["item_ids"] == "strings" else pl.Int64, **types}
        names = renames_of(column, {"interactions": INTERACTION_NAMES}, {"interactions": history})["interactions"]
        log = as_said(
            read_frame(history, "interactions", names, names=INTERACTION_NAMES, ids=kinds), types, "interactions"
        )
        users = recommender.audiences(log, on_unknown=on_unknown)
        seeds = id_from_text(pl.Series(seed_user, dtype=pl.String), log["user_id"].dtype).to_list()
        found = users.of(None if item is None else ids_of([item], recommender)[0], k, seeds=seeds)
        if json_:
            typer.echo(json.dumps(found.to_dicts()))
            return
        table = Table(*found.columns)
        for rank, user, chance in found.iter_rows():
            table.add_row(str(rank), escaped(str(user)), f"{chance:.4f}")
        console.print(table)
