"""Commands that make encoders."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from mecold.cli.terminal import AsJson, Files, Renames, Types, explained, renames_of, show_values, types_of
from mecold.data.catalog import TextTemplate
from mecold.data.frames import as_said, read_frame
from mecold.encode.model_folder import DEFAULT_MODEL
from mecold.tuning.config import EncoderTraining
from mecold.tuning.export import Precision, export_encoder
from mecold.tuning.tasks import TASKS
from mecold.tuning.train import train_encoder

app = typer.Typer(help="Train the text encoder on a shop's own texts and log; export it.", no_args_is_help=True)


@app.command()
def train(
    items: Annotated[Path, typer.Option(help="Parquet, arrow, csv or jsonl: item_id and text columns.")],
    out: Annotated[Path, typer.Option(help="Folder to write the encoder to.")],
    interactions: Annotated[
        Path | None,
        typer.Option(help="Parquet, arrow, csv or jsonl of the log; without one, item texts alone are learned from."),
    ] = None,
    base: Annotated[str, typer.Option(help="Hub name or local folder of a BERT-like model.")] = DEFAULT_MODEL,
    task: Annotated[list[str], typer.Option(help=f"{', '.join(TASKS)}; repeatable.")] = ["auto"],  # noqa: B006
    steps: Annotated[int, typer.Option(help="Most steps.")] = EncoderTraining.steps,
    layers: Annotated[int, typer.Option(help="How many of the topmost layers learn.")] = EncoderTraining.trained_layers,
    text: Annotated[list[str], typer.Option(help="Column that makes the text; repeatable, in order.")] = [],  # noqa: B006
    column: Renames = [],  # noqa: B006
    type_: Types = [],  # noqa: B006
    liked_from: Annotated[float | None, typer.Option(help="Ratings below this are not learned from.")] = None,
    predict: Annotated[list[str], typer.Option(help="Kind of event to learn from, such as purchase; repeatable.")] = [],  # noqa: B006
    same: Annotated[str, typer.Option(help="Column that names what an item is an offer of: learn to tell that.")] = "",
    unlabelled: Annotated[
        Path | None, typer.Option(help="Texts that are no items, in the items' text columns, for views and dropout.")
    ] = None,
    impressions: Annotated[
        Path | None, typer.Option(help="Parquet, arrow, csv or jsonl: text, impressions, clicks, optional group.")
    ] = None,
    on_unknown: Annotated[Literal["raise", "drop"], typer.Option(help="Interactions of unknown items.")] = "raise",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    json_: AsJson = False,
) -> None:
    """Train an encoder; what is better on held-out items is kept, and that may be the base.

    Example: mecold encoder train --items items.parquet --interactions log.parquet --out encoder/
    """
    with explained():
        template = TextTemplate(fields=tuple(text) or None)
        config = EncoderTraining(steps=steps, trained_layers=layers)
        log = None
        if interactions is None:
            columns = renames_of(column, {"items": template.names}, {"items": items})["items"]
            types = types_of(type_)
            shop = as_said(read_frame(items, "items", columns, names=template.names, ids=types), types, "items")
        else:
            files = Files(interactions, items, column, type_, template)
            files.check()
            log, shop = files.read()
        found = train_encoder(
            shop, log, out=out, base=base, tasks=task, config=config, template=template, on_unknown=on_unknown,
            liked_from=liked_from, predict=predict, same=same, unlabelled=unlabelled, impressions=impressions,
            rng=seed, device=device, progress=not json_,
        )  # fmt: skip
        answer = {
            "encoder": str(out), "tasks": list(found.tasks), "weight": found.weight, "measure": found.measure,
            "base": round(found.base, 4), "score": round(found.score, 4), "seconds": round(found.report.seconds, 1),
            "notes": found.report.notes,
        }  # fmt: skip
        show_values(answer, json_, f"Encoder written to {out}")


@app.command()
def export(
    out: Annotated[Path, typer.Option(help="Folder to write to.")],
    encoder: Annotated[str, typer.Option(help="Hub name or local folder of the model.")] = DEFAULT_MODEL,
    precision: Annotated[
        Precision, typer.Option(help="int8: faster and smaller, nearly the same; fp32: the same.")
    ] = "int8",
    json_: AsJson = False,
) -> None:
    """Write an encoder as an ONNX graph, for machines without a GPU.

    Example: mecold encoder export --encoder encoder/ --out encoder-int8/
    """
    with explained():
        found = export_encoder(encoder, out=out, precision=precision)
        answer = {
            "encoder": str(out), "precision": found.precision, "megabytes": round(found.megabytes, 1),
            "cosine": round(found.cosine, 4),
        }  # fmt: skip
        show_values(answer, json_, f"Encoder written to {out}")
