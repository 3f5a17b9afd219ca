"""Commands by which a saved model goes on learning, and forgets."""

from pathlib import Path
from typing import Annotated, Literal

import polars as pl
import typer

from mecold.cli.lists import ModelFolder
from mecold.cli.options import options
from mecold.cli.terminal import AsJson, Renames, renames_of, show_values
from mecold.data.delimited import id_from_text
from mecold.data.frames import INTERACTION_NAMES
from mecold.recommender import Recommender


@options()
def observe(
    model: ModelFolder,
    interactions: Annotated[Path, typer.Option(help="Parquet, arrow, csv or jsonl: what users did since.")],
    attributes: Annotated[
        Path | None, typer.Option(help="What else is known of users: user_id and more columns.")
    ] = None,
    refresh: Annotated[bool, typer.Option(help="Make factors and neighbour lists anew, too.")] = False,
    column: Renames = [],  # noqa: B006
    on_unknown: Annotated[Literal["raise", "drop"], typer.Option(help="Interactions of unknown items.")] = "raise",
    json_: AsJson = False,
) -> None:
    """Take in new interactions: they are in the model's journal when this returns, and count from the next load on.

    Example: mecold observe model/ --interactions today.parquet
    """
    recommender = Recommender.load(model)
    renames = renames_of(column, {"interactions": INTERACTION_NAMES}, {"interactions": interactions})["interactions"]
    found = recommender.observe(
        interactions, attributes=attributes, columns=renames, on_unknown=on_unknown, folder=model
    )  # fmt: skip
    if refresh:
        _refreshed(recommender, model)
    waiting = recommender.info()["log"]["waiting"]
    show_values(found._asdict() | {"waiting": waiting}, json_, f"{model}: what was observed")


@options()
def refresh(model: ModelFolder, json_: AsJson = False) -> None:
    """Make factors and neighbour lists anew, of all that was read and observed.

    Example: mecold refresh model/
    """
    recommender = Recommender.load(model)
    _refreshed(recommender, model)
    show_values(recommender.info()["log"], json_, f"{model}: what it is made of")


@options()
def forget(
    model: ModelFolder, users: Annotated[list[str], typer.Argument(help="User ids.")], json_: AsJson = False
) -> None:
    """Take out everything that users did, as if they had never been there.

    Example: mecold forget model/ U17 U23
    """
    recommender = Recommender.load(model)
    recommender.forget_user(id_from_text(pl.Series(users, dtype=pl.String), recommender.user_type).to_list())
    recommender.save(model)
    show_values(recommender.info()["log"], json_, f"{model}: what it is made of")


def _refreshed(recommender: Recommender, model: Path) -> None:
    recommender.refresh()
    recommender.save(model)
