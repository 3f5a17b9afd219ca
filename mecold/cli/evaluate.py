"""`mecold evaluate`: run an evaluation, write its tasks for other stacks, score what they ranked."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, cast, no_type_check

import typer
from rich.table import Table

from mecold.cli.terminal import AsJson, Renames, err, escaped, explained, mapping, mapping_for
from mecold.cli.terminal import out as console
from mecold.data.catalog import TextTemplate
from mecold.data.frames import read_frame
from mecold.encode.encoder import TextEncoder
from mecold.encode.model_folder import DEFAULT_MODEL
from mecold.errors import InvalidDataError
from mecold.evaluation.dataset import Dataset
from mecold.evaluation.export import export
from mecold.evaluation.measures import METRICS
from mecold.evaluation.plan import Plan, make_plan
from mecold.evaluation.protocol import Protocol
from mecold.evaluation.report.summary import Report
from mecold.evaluation.report.tables import by_quality, verdict
from mecold.evaluation.run import evaluate
from mecold.evaluation.systems.names import BUILT_IN, GROUPS

app = typer.Typer(
    help="Evaluate recommenders on cold users and cold items, over the full catalogue.",
    invoke_without_command=True, rich_markup_mode="rich",
)  # fmt: skip

Log: TypeAlias = Annotated[
    Path | None,
    typer.Option("--interactions", help="Parquet or csv: user_id, item_id, optional timestamp or position."),
]
Items: TypeAlias = Annotated[Path | None, typer.Option("--items", help="Parquet or csv: item_id and text columns.")]
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
Device: TypeAlias = Annotated[str, typer.Option(help="auto, cpu or cuda.")]


@dataclass(frozen=True)
class _Data:
    """The options that say what is evaluated."""

    interactions: Path | None
    items: Path | None
    protocol: str
    shots: str
    seeds: str
    metrics: str
    encoder: str = DEFAULT_MODEL
    max_tokens: int | None = None
    text: tuple[str, ...] = ()
    column: tuple[str, ...] = ()
    on_unknown: str = "raise"
    device: str = "auto"

    def dataset(self) -> Dataset:
        """Read both frames."""
        if self.interactions is None or self.items is None:
            raise InvalidDataError("--interactions and --items are needed; see mecold evaluate --help.")
        log, items = read_frame(self.interactions, "interactions"), read_frame(self.items, "items")
        renames = mapping(list(self.column), log, items)
        return Dataset.read(
            log, items,
            name=self.interactions.resolve().parent.name,
            encoder=partial(TextEncoder, self.encoder, max_length=self.max_tokens, device=self.device),
            template=TextTemplate(fields=self.text or None),
            interaction_columns=mapping_for(log, renames), item_columns=mapping_for(items, renames),
            on_unknown=cast(Any, self.on_unknown), progress=True,
        )  # fmt: skip

    def settings(self) -> dict[str, Any]:
        """Keyword arguments of `make_plan`."""
        return {
            "protocol": cast(Protocol, self.protocol),
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


@app.callback()
@no_type_check  # the context that typer hands over is no typer.Context to a strict checker
def run(
    context: typer.Context,
    interactions: Log = None,
    items: Items = None,
    protocol: Split = "user",
    shots: Numbers = "auto",
    seeds: Seeds = "0,1,2",
    systems: Systems = "mecold,baselines",
    out: Target = None,
    tune: Tune = False,
    reference: Reference = None,
    metrics: Metrics = DEFAULT_METRICS,
    encoder: Encoder = DEFAULT_MODEL,
    max_tokens: MaxTokens = None,
    text: Text = [],  # noqa: B006
    column: Renames = [],  # noqa: B006
    on_unknown: Unknown = "raise",
    device: Device = "auto",
    json_: AsJson = False,
) -> None:
    """Evaluate recommenders on cold users and cold items, over the full catalogue.

    Example: mecold evaluate --interactions log.parquet --items items.parquet --systems mecold,baselines --out report/
    """
    if context.invoked_subcommand is not None:
        return
    data = _Data(
        interactions, items, protocol, shots, seeds, metrics, encoder, max_tokens, tuple(text), tuple(column),
        on_unknown, device,
    )  # fmt: skip
    with explained():
        _evaluated(data, systems, {}, out, tune=tune, reference=reference, as_json=json_)


@app.command("export")
def export_tasks(
    out: Annotated[Path, typer.Option(help="New folder for the tasks.")],
    interactions: Log = None,
    items: Items = None,
    protocol: Split = "user",
    shots: Numbers = "auto",
    seeds: Seeds = "0,1,2",
    metrics: Metrics = DEFAULT_METRICS,
    text: Text = [],  # noqa: B006
    column: Renames = [],  # noqa: B006
    on_unknown: Unknown = "raise",
) -> None:
    """Write tasks and training interactions for any other stack, in any language.

    Example: mecold evaluate export --interactions log.parquet --items items.parquet --out tasks/
    """
    with explained():
        data = _Data(
            interactions, items, protocol, shots, seeds, metrics, text=tuple(text), column=tuple(column),
            on_unknown=on_unknown,
        )  # fmt: skip
        plan = data.plan()
        count = export(plan.dataset, plan.splits, list(plan.shots), plan.depth, out)
        err.print(f"{count:,} tasks written to {out}; {out}/README.md says what to send back.")


@app.command()
def score(
    rankings: Annotated[list[str], typer.Option(help="NAME=lists.parquet: task_id, items; repeatable.")],
    interactions: Log = None,
    items: Items = None,
    protocol: Split = "user",
    shots: Numbers = "auto",
    seeds: Seeds = "0,1,2",
    systems: Systems = "popularity",
    out: Target = None,
    tune: Tune = False,
    reference: Reference = None,
    metrics: Metrics = DEFAULT_METRICS,
    encoder: Encoder = DEFAULT_MODEL,
    max_tokens: MaxTokens = None,
    text: Text = [],  # noqa: B006
    column: Renames = [],  # noqa: B006
    on_unknown: Unknown = "raise",
    device: Device = "auto",
    json_: AsJson = False,
) -> None:
    """Score lists that another stack ranked, beside built-in systems.

    Example: mecold evaluate score --rankings theirs=lists.parquet --interactions log.parquet --items items.parquet
    """
    data = _Data(
        interactions, items, protocol, shots, seeds, metrics, encoder, max_tokens, tuple(text), tuple(column),
        on_unknown, device,
    )  # fmt: skip
    with explained():
        pairs = [pair.partition("=") for pair in rankings]
        if not all(name and path for name, _, path in pairs):
            raise InvalidDataError(f"--rankings takes NAME=FILE; not {rankings}.")
        files = {name: path for name, _, path in pairs}
        _evaluated(data, systems, files, out, tune=tune, reference=reference, as_json=json_)


def _evaluated(
    data: _Data, systems: str, rankings: dict[str, str], out: Path | None, *, tune: bool, reference: str | None,
    as_json: bool,
) -> None:  # fmt: skip
    report = evaluate(
        systems, data.dataset(), **data.settings(), tune=tune, reference=reference, rankings=rankings, out=out,
        progress=not as_json,
    )  # fmt: skip
    if as_json:
        typer.echo(json.dumps(report.data))
        return
    console.print(_table(report))
    console.print(escaped(verdict(report.data)))
    for name, reason in report.data["failed"].items():
        err.print(f"[red]failed:[/red] {escaped(name)}: {escaped(reason)}")
    if out is not None:
        err.print(f"Report written to {out / 'index.html'}")


def _table(report: Report) -> Table:
    """One compact table: the headline metric, what it costs, and which system is compared with."""
    data = report.data
    metric = data["metrics"][0]
    title = f"{data['dataset']['name']}, {data['protocol']} split: {metric}, mean over {len(data['seeds'])} seeds"
    table = Table(
        "system", *(f"k={k}" for k in data["shots"]), "fit s", "ms/user", title=escaped(title), title_justify="left"
    )
    shown: Callable[[float | None, str], str] = lambda value, form: "" if value is None else form.format(value)  # noqa: E731
    for name in by_quality(data):
        one = data["systems"][name]
        means = [f"{one['mean'][str(k)][metric]['mean']:.4f}" for k in data["shots"]]
        latency = one.get("adapt_p50_ms")
        both = None if latency is None else latency + one["recommend_p50_ms"]
        style = "bold" if name == data["reference"] else None
        table.add_row(
            escaped(name), *means, shown(one.get("fit_seconds"), "{:.1f}"), shown(both, "{:.2f}"), style=style
        )
    return table
