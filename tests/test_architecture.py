"""Arrows go down: a module imports from its own floor or from below, and heavy libraries have one door each."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "mecold"

FLOORS = [
    "errors types version plugins adapt losses metrics ridge shop",
    "frames catalog interactions vector_cache model_folder encoder trend factors neighbours lookalikes support tower "
    "head index model shelf tracking",
    "meta.config meta.report meta.episodes meta.crossfit meta.train meta.calibrate meta.cold meta.fit batch store arguments",
    "evaluation.dataset evaluation.protocol evaluation.systems evaluation.linear evaluation.neighbours evaluation.ours "
    "evaluation.registry evaluation.ranking evaluation.measures evaluation.plan evaluation.results evaluation.rankings "
    "evaluation.statistics evaluation.cells evaluation.tables evaluation.charts evaluation.page evaluation.summary "
    "evaluation.run",
    "recommender",
    "demo",
    "terminal cli_evaluate cli",
]


def modules():
    return {
        ".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix("__init__").rstrip("."): p
        for p in ROOT.rglob("*.py")
    }


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.col_offset) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module, node.col_offset
            yield from ((f"{node.module}.{alias.name}", node.col_offset) for alias in node.names)


def floor(name):
    return next((level for level, names in enumerate(FLOORS) if name in names.split()), None)


def test_every_module_has_a_floor():
    known = set(" ".join(FLOORS).split()) | {"", "meta", "evaluation"}
    assert set(modules()) <= known, set(modules()) - known


@pytest.mark.parametrize("name", sorted(set(modules()) - {""}))
def test_arrows_go_down(name):
    for target, _ in imports(modules()[name]):
        assert target != "mecold", "the package's face is above every room"
        if target.startswith("mecold.") and floor(target.removeprefix("mecold.")) is not None:
            assert floor(target.removeprefix("mecold.")) <= (floor(name) if floor(name) is not None else 0), target


@pytest.mark.parametrize(
    ("library", "door"),
    [
        ("faiss", "index"),
        ("transformers", "encoder"),
        ("tensorboard", "tracking"),
        ("wandb", "tracking"),
        ("matplotlib", "evaluation.charts"),
        ("implicit", "evaluation.neighbours"),
        ("irspack", "evaluation.neighbours"),
        ("psutil", "evaluation.ranking"),
    ],
)
def test_heavy_libraries_have_one_door_and_are_imported_lazily(library, door):
    for name, path in modules().items():
        for target, column in imports(path):
            if target and target.split(".")[0] == library:
                assert name == door
                assert column > 0, f"{name} imports {library} at module level"


def test_the_ground_floor_needs_torch_and_numpy_only():
    for name in ("adapt", "losses", "metrics", "errors", "types", "version"):
        outside = {t.split(".")[0] for t, _ in imports(modules()[name]) if t}
        assert outside <= {
            "torch",
            "numpy",
            "jaxtyping",
            "mecold",
            "collections",
            "dataclasses",
            "typing",
            "base64",
            "json",
        }
