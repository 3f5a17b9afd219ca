"""Arrows go down: a module imports from its own floor or from below, and heavy libraries have one door each."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "mecold"

FOLDERS = [
    "errors portable types values version devices plugins shop report tracking math swap forks threads lazy",
    "journal", "data sealed", "encode space", "heads tuning", "meta", "model", "rules", "renewing",
    "store serving stock rating", "answers keeping day_one audience", "observing", "reaching",
    "evaluation recommender choice tasks", "jobs", "cli",
]  # fmt: skip
"""From the ground up; a module imports from its own folder, or from a folder of a line above its own in this list."""


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


def folder(name):
    return name.partition(".")[0]


def floor(name):
    return next((level for level, names in enumerate(FOLDERS) if folder(name) in names.split()), None)


def test_every_module_has_a_floor():
    for name in set(modules()) - {""}:
        assert floor(name) is not None, name


@pytest.mark.parametrize("name", sorted(set(modules()) - {""}))
def test_arrows_go_down(name):
    for target, _ in imports(modules()[name]):
        assert target != "mecold", "the package's face is above every room"
        inside = target.removeprefix("mecold.")
        if inside != target and floor(inside) is not None and folder(inside) != folder(name):
            assert floor(inside) < floor(name) or floor(name) == 0 == floor(inside), target


def test_no_circle_of_modules():
    names = modules()
    reached = {name: {t.removeprefix("mecold.") for t, _ in imports(path)} & set(names) for name, path in names.items()}
    order = TopologicalSorter({name: targets - {name} for name, targets in reached.items()})
    assert list(order.static_order())  # raises on a circle, and names it


def test_the_picture_in_the_architecture_is_this_list():
    text = (ROOT.parent / "ARCHITECTURE.md").read_text()
    places = [text.index("\n    " + names + "\n") for names in FOLDERS]
    assert places == sorted(places, reverse=True), "the list in ARCHITECTURE.md stands top down"


CORE = [
    name for name in modules() if folder(name) in ("space", "heads", "meta") or name in ("store", "serving", "model")
]


def test_channels_are_addressed_by_name_alone():
    """No place from behind in vectors or tables of gains, and no channel's name outside the file that makes it."""
    makers = {"host", "symmetric", "directed", "trend", "alike", "new"}
    for name in CORE:
        for node in ast.walk(ast.parse(modules()[name].read_text())):
            if isinstance(node, ast.Compare) and not name.startswith("space.channels"):
                words = {n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
                assert not words & (makers | {"text", "popularity"}), f"{name}:{node.lineno}"
            if (
                isinstance(node, ast.Subscript)
                and isinstance(node.slice, ast.Tuple)
                and folder(name) in ("heads", "meta")
            ):
                last = node.slice.elts[-1]
                assert not isinstance(last, ast.UnaryOp), f"{name}:{node.lineno} counts columns from behind"


@pytest.mark.parametrize(
    ("library", "door"),
    [
        ("faiss", "space.faiss_library"),
        ("transformers", "encode.encoder"),
        ("tensorboard", "tracking"),
        ("wandb", "tracking"),
        ("matplotlib", "evaluation.report.charts"),
        ("implicit", "evaluation.systems.factors"),
        ("irspack", "evaluation.systems.factors"),
        ("psutil", "evaluation.ranking"),
        ("ray", "jobs.on_ray"),
    ],
)
def test_heavy_libraries_have_one_door_and_are_imported_lazily(library, door):
    for name, path in modules().items():
        for target, column in imports(path):
            if target and target.split(".")[0] == library:
                assert name == door
                assert column > 0, f"{name} imports {library} at module level"


def test_the_ground_floor_needs_torch_and_numpy_only():
    for name in ("math.losses", "math.metrics", "heads.inner", "errors", "types", "version"):
        outside = {t.split(".")[0] for t, _ in imports(modules()[name]) if t}
        assert outside <= {
            "torch",
            "numpy",
            "jaxtyping",
            "mecold",
            "collections",
            "contextlib",
            "dataclasses",
            "datetime",
            "typing",
            "base64",
            "json",
        }
