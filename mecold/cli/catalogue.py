"""Commands that change what is on offer: hide, show and sync. The model folder is replaced when all is done, or not at all."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from mecold.cli.lists import ModelFolder, ids_of
from mecold.cli.options import options
from mecold.cli.terminal import AsJson, Renames, err, renames_of, show_values
from mecold.recommender import Recommender

Ids = Annotated[list[str], typer.Argument(help="Item ids.")]


@options()
def hide(model: ModelFolder, items: Ids) -> None:
    """Recommend these items no more, and keep all that is known of them.

    Example: mecold hide model/ A1 B7
    """
    recommender = Recommender.load(model)
    recommender.hide_items(ids_of(items, recommender))
    _kept(recommender, model)


@options()
def show(model: ModelFolder, items: Ids) -> None:
    """Recommend hidden items again.

    Example: mecold show model/ A1
    """
    recommender = Recommender.load(model)
    recommender.show_items(ids_of(items, recommender))
    _kept(recommender, model)


@options()
def sync(
    model: ModelFolder,
    items: Annotated[Path, typer.Option(help="Parquet, arrow, csv or jsonl with every item on offer.")],
    gone: Annotated[Literal["hide", "remove"], typer.Option(help="What becomes of items that are not in it.")] = "hide",
    column: Renames = [],  # noqa: B006
    json_: AsJson = False,
) -> None:
    """Make the catalogue what a feed says it is: add, update, show, hide or remove.

    Example: mecold sync model/ --items tonight.parquet
    """
    recommender = Recommender.load(model)
    names = {"items": recommender.template.names}
    renames = renames_of(column, names, {"items": items})["items"]
    done = recommender.sync_items(items, gone=gone, columns=renames)
    recommender.save(model)
    show_values(done._asdict(), json_, f"{model}: what the feed did")


def _kept(recommender: Recommender, model: Path) -> None:
    recommender.save(model)
    err.print(f"{len(recommender.item_ids()):,} items on offer, {len(recommender.item_ids(hidden=True)):,} hidden")
