"""`mecold evaluate`: run an evaluation, write its tasks for other stacks, score what they ranked."""

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, no_type_check

import typer

from mecold.cli.options import options
from mecold.cli.terminal import AsJson, Files, Renames, Types, err, escaped, scores_table
from mecold.cli.terminal import out as console
from mecold.data.catalog import TextTemplate
from mecold.encode.encoder import TextEncoder
from mecold.encode.model_folder import DEFAULT_MODEL
from mecold.errors import InvalidDataError
from mecold.evaluation.dataset import Dataset
from mecold.evaluation.export import export
from mecold.evaluation.measures import METRICS
from mecold.evaluation.plan import Plan, make_plan
from mecold.evaluation.report.tables import verdict
from mecold.evaluation.run import evaluate
from mecold.evaluation.systems.names import BUILT_IN, GROUPS

app = typer.Typer(
    help="Evaluate recommenders on cold users and cold items, over the full catalogue.",
    invoke_without_command=True, rich_markup_mode="rich",
)  # fmt: skip

Log: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--interactions", help="Parquet, arrow, csv or jsonl: user_id, item_id, optional timestamp or position."
    ),
]
Items: TypeAlias = Annotated[
    Path | None, typer.Option("--items", help="Parquet, arrow, csv or jsonl: item_id and text columns.")
]
Split: TypeAlias = Annotated[Literal["user", "time", "item"], typer.Option(help="Who or what is cold.")]
Numbers: TypeAlias = Annotated[str, typer.Option(help="Support sizes; 10 for the item protocol unless given.")]
Seeds: TypeAlias = Annotated[str, typer.Option(help="Seeds of the split and of the systems.")]
DEFAULT_METRICS = ",".join(METRICS)
Metrics: TypeAlias = Annotated[str, typer.Option(help="The first is the headline.")]
Systems: TypeAlias = Annotated[
    str, typer.Option(help=f"Comma-separated, settings in brackets: ease\\[l2=100]. {', '.join([*BUILT_IN, *GROUPS])}.")
]
Target: TypeAlias = Annotated[
    Path | None, typer.Option("--out", help="Report folder; an interrupted run goes on there.")
]
Tune: TypeAlias = Annotated[bool, typer.Option("--tune", help="Choose baselines' settings on validation users.")]
Reference: TypeAlias = Annotated[str | None, typer.Option(help="The system to compare with; the first one.")]
Encoder: TypeAlias = Annotated[str, typer.Option(help="Hub name or local folder of a BERT-like model.")]
MaxTokens: TypeAlias = Annotated[int | None, typer.Option(help="Tokens of text the encoder reads.")]
Text: TypeAlias = Annotated[list[str], typer.Option(help="Column that makes the text; repeatable, in order.")]
Unknown: TypeAlias = Annotated[Literal["raise", "drop"], typer.Option(help="Interactions of unknown items.")]
LikedFrom: TypeAlias = Annotated[
    float | None, typer.Option(help="With ratings: what is rated lower is no hit, and not learned as a liking.")
]
Predict: TypeAlias = Annotated[
    list[str], typer.Option(help="Kind of event that is a hit, such as purchase; repeatable.")
]
Known: TypeAlias = Annotated[Path | None, typer.Option(help="What else is known of users: user_id and more columns.")]
Device: TypeAlias = Annotated[str, typer.Option(help="auto, cpu or cuda.")]


@dataclass(frozen=True)
class _Data:
    """The options that say what is evaluated; the same for every command."""

    interactions: Log = None
    items: Items = None
    protocol: Split = "user"
    shots: Numbers = "auto"
    seeds: Seeds = "0,1,2"
    metrics: Metrics = DEFAULT_METRICS
    encoder: Encoder = DEFAULT_MODEL
    max_tokens: MaxTokens = None
    text: Text = ()  # type: ignore[assignment]
    column: Renames = ()  # type: ignore[assignment]
    type_: Types = ()  # type: ignore[assignment]
    on_unknown: Unknown = "raise"
    liked_from: LikedFrom = None
    predict: Predict = ()  # type: ignore[assignment]
    attributes: Known = None
    device: Device = "auto"

    def dataset(self) -> Dataset:
        """Read both frames."""
        if self.interactions is None or self.items is None:
            raise InvalidDataError("--interactions and --items are needed; see mecold evaluate --help.")
        template = TextTemplate(fields=tuple(self.text) or None)
        log, items = Files(self.interactions, self.items, list(self.column), list(self.type_), template).read()
        return Dataset.read(
            log, items,
            name=self.interactions.resolve().parent.name,
            encoder=partial(TextEncoder, self.encoder, max_length=self.max_tokens, device=self.device),
            template=template, on_unknown=self.on_unknown, progress=True, liked_from=self.liked_from,
            predict=list(self.predict), attributes=self.attributes,
        )  # fmt: skip

    def settings(self) -> dict[str, Any]:
        """Keyword arguments of `make_plan`."""
        return {
            "protocol": self.protocol,
            "shots": None if self.shots == "auto" else _numbers("--shots", self.shots),
            "seeds": _numbers("--seeds", self.seeds),
            "metrics": [name.strip() for name in self.metrics.split(",") if name.strip()],
            "device": self.device,
        }

    def plan(self) -> Plan:
        """The checked evaluation."""
        return make_plan(self.dataset(), **self.settings())


def _numbers(option: str, text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts or not all(part.isdecimal() for part in parts):
        raise InvalidDataError(f"{option} takes whole numbers such as 0,1,3; not {text!r}.")
    return [int(part) for part in parts]


@dataclass(frozen=True)
class _Run:
    """The options of a run; the same for both commands that have one."""

    out: Target = None
    tune: Tune = False
    reference: Reference = None
    json_: AsJson = False


@app.callback()
@options(_Data, _Run)
@no_type_check  # the context that typer hands over is no typer.Context to a strict checker
def run(context: typer.Context, data: _Data, how: _Run, systems: Systems = "mecold,baselines") -> None:
    """Evaluate recommenders on cold users and cold items, over the full catalogue.

    Example: mecold evaluate --interactions log.parquet --items items.parquet --systems mecold,baselines --out report/
    """
    if context.invoked_subcommand is None:
        _evaluated(data, how, systems, {})


@app.command("export")
@options(_Data)
def export_tasks(out: Annotated[Path, typer.Option(help="New folder for the tasks.")], data: _Data) -> None:
    """Write tasks and training interactions for any other stack, in any language.

    Example: mecold evaluate export --interactions log.parquet --items items.parquet --out tasks/
    """
    plan = data.plan()
    count = export(plan.dataset, plan.splits, list(plan.shots), plan.depth, out)
    err.print(f"{count:,} tasks written to {out}; {out}/README.md says what to send back.")


@app.command()
@options(_Data, _Run)
def score(
    rankings: Annotated[list[str], typer.Option(help="NAME=lists.parquet: task_id, items; repeatable.")],
    data: _Data,
    how: _Run,
    systems: Systems = "popularity",
) -> None:
    """Score lists that another stack ranked, beside built-in systems.

    Example: mecold evaluate score --rankings theirs=lists.parquet --interactions log.parquet --items items.parquet
    """
    pairs = [pair.partition("=") for pair in rankings]
    if not all(name and path for name, _, path in pairs):
        raise InvalidDataError(f"--rankings takes NAME=FILE; not {rankings}.")
    _evaluated(data, how, systems, {name: path for name, _, path in pairs})


def _evaluated(data: _Data, how: _Run, systems: str, rankings: dict[str, str]) -> None:
    report = evaluate(
        systems, data.dataset(), **data.settings(), tune=how.tune, reference=how.reference, rankings=rankings,
        out=how.out, progress=not how.json_,
    )  # fmt: skip
    if how.json_:
        typer.echo(json.dumps(report.data))
        return
    console.print(scores_table(report.found))
    console.print(escaped(verdict(report.found)))
    for name, reason in report.found.failed.items():
        err.print(f"[red]failed:[/red] {escaped(name)}: {escaped(reason)}")
    if how.out is not None:
        err.print(f"Report written to {how.out / 'index.html'}")
