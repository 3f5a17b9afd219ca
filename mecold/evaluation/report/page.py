"""The report as one self-contained HTML page: works from disk, on a phone, in print and in the dark. No script."""

from collections.abc import Iterator
from html import escape

from mecold.evaluation.report.charts import pictures
from mecold.evaluation.report.records import Findings
from mecold.evaluation.report.tables import Table, all_tables, ranked_over, settings, verdict

_CSS = """
:root{color-scheme:light dark;--paper:#fff;--ink:#1d2433;--faint:#7b8494;--line:#dfe3ea;--mark:#eef4ff;
--c0:#1f5fd0;--c1:#d9822b;--c2:#2f8f5b;--c3:#a8448f;--c4:#6d6f2a}
@media (prefers-color-scheme:dark){:root{--paper:#12161d;--ink:#e6eaf2;--faint:#8e98a8;--line:#2e3644;--mark:#1c2a44;
--c0:#7fb0ff;--c1:#ffb066;--c2:#74d3a0;--c3:#e58fd0;--c4:#cfd07a}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:68rem;padding:1rem;background:var(--paper);color:var(--ink);
font:16px/1.5 system-ui,sans-serif;overflow-wrap:anywhere}
h1{font-size:1.5rem;margin:.2rem 0}h2{font-size:1.1rem;margin:2rem 0 .3rem}
p.lead{font-size:1.12rem;border-left:4px solid var(--c0);padding-left:.8rem;margin:1rem 0}
p.note,figcaption,footer{color:var(--faint);font-size:.85rem;margin:.2rem 0 .6rem}
.grid{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,24rem),1fr));gap:1rem}
figure{margin:0;min-width:0}svg{width:100%;height:auto;display:block}svg text{font-family:inherit!important}
.scroll{overflow-x:auto;max-width:100%}
table{border-collapse:collapse;font-size:.85rem;font-variant-numeric:tabular-nums}
th,td{padding:.25rem .6rem;border-bottom:1px solid var(--line);text-align:right;white-space:nowrap}
th:first-child,td:first-child{text-align:left;position:sticky;left:0;background:var(--paper)}
tr.mark td{background:var(--mark);font-weight:600}
table.plain td{white-space:normal;text-align:left}table.plain td:first-child{white-space:nowrap}
@media print{body{max-width:none;font-size:11pt}.scroll{overflow:visible}table{font-size:7.5pt}h2,figure{break-inside:avoid}}
"""

_CAPTIONS = {
    "curve": "Mean over seeds; bands are 95 % bootstrap intervals over users. Systems that the legend does not name are grey.",
    "ratio": "Above the line it is better than the best baseline of that k. Bars: 95 % interval over users.",
    "latency": "Top left is best. One user at a time on the machine of this run.",
    "slices": "At the largest k. found@20: share of targets of that kind among the first 20.",
    "set": "What the data look like; bins widen with the value.",
}


def render(found: Findings) -> str:
    """The page of a report."""
    name = escape(found.dataset.name)
    body = "\n".join(_body(found))
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width,initial-scale=1"><title>Cold start: {name}</title>'
        f'<link rel="icon" href="data:,"><style>{_CSS}</style></head><body>\n{body}\n</body></html>\n'
    )


def _body(found: Findings) -> Iterator[str]:
    protocol = {"user": "cold users", "time": "cold users after a date", "item": "cold items"}[found.protocol]
    yield f"<h1>Cold-start evaluation: {escape(found.dataset.name)}</h1>"
    yield f'<p class="note">{protocol}, {ranked_over(found)}, {len(found.systems)} systems</p>'
    yield f'<p class="lead">{escape(verdict(found))}</p>'
    yield '<div class="grid">'
    for name, svg in pictures(found).items():
        yield f'<figure id="{name}">{svg}<figcaption>{_CAPTIONS[name]}</figcaption></figure>'
    yield "</div>"
    yield from (_table(table) for table in all_tables(found) if table.rows)
    yield _plain("Settings", settings(found))
    yield _plain("Formulas", [*found.formulas.items()])
    yield _plain("Notes", [(str(n), note) for n, note in enumerate(found.dataset.notes, start=1)])
    told = [(f"{name}, seed {seed}", one) for name, own in found.systems.items() for seed, one in own.told.items()]
    yield _plain("What systems say of themselves", told)
    yield "<footer>Made by mecold. Relevance is binary; every user weighs the same.</footer>"


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in table.head)
    rows = []
    for row in table.rows:
        mark = ' class="mark"' if row[0] in table.marked else ""
        rows.append(f"<tr{mark}>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>")
    return (
        f'<h2>{escape(table.title)}</h2><p class="note">{escape(table.note)}</p>'
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    )


def _plain(title: str, pairs: list[tuple[str, str]]) -> str:
    if not pairs:
        return ""
    rows = "".join(f"<tr><td>{escape(key)}</td><td>{escape(value)}</td></tr>" for key, value in pairs)
    return f'<h2>{title}</h2><div class="scroll"><table class="plain"><tbody>{rows}</tbody></table></div>'
