"""The run and its report: resuming, failing, comparing, foreign rankings, and the page in a real browser."""

import json
import os
import shutil
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from mecold.cli.main import app
from mecold.errors import InvalidDataError
from mecold.evaluation.dataset import Dataset
from mecold.evaluation.export import export
from mecold.evaluation.plan import make_plan
from mecold.evaluation.protocol import split
from mecold.evaluation.report import across, tables
from mecold.evaluation.report.records import Findings
from mecold.evaluation.run import evaluate
from mecold.evaluation.systems.base import FunctionSystem
from mecold.evaluation.systems.names import GRIDS, entries_of, with_members
from tests import reference
from tests.conftest import SMALL

SEEDS = (0, 1)


@pytest.fixture(scope="module")
def dataset(shop, encoder):
    return Dataset.read(shop.interactions, shop.items, name="shop", encoder=encoder)


def ours():
    from mecold.evaluation.systems.ours import Mecold

    return Mecold(config=SMALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("reports") / "report"


@pytest.fixture(scope="module")
def report(dataset, folder):
    return evaluate([ours(), "popularity,ease,directed,content"], dataset, seeds=SEEDS, out=folder)


def test_the_report_file_has_the_promised_schema(report, folder):
    data = json.loads((folder / "report.json").read_text())
    assert data == report.data
    assert (data["format"], data["protocol"], data["seeds"], data["shots"]) == (1, "user", [0, 1], [0, 1, 3, 5, 10])
    assert data["dataset"]["name"] == "shop"
    assert list(data["systems"]) == ["mecold", "popularity", "ease[l2=500]", "directed[l2=500]", "content"]
    for one in data["systems"].values():
        assert one["fit_seconds"] > 0
        assert one["peak_bytes"] >= 0
        for seed in ("0", "1"):
            for k in ("0", "1", "3", "5", "10"):
                cell = one["scores"][seed][k]
                assert {"ndcg@10", "recall@20", "mrr@10"} <= set(cell)
                assert cell["ndcg@10"]["low"] <= cell["ndcg@10"]["mean"] <= cell["ndcg@10"]["high"]
                assert cell["ndcg@10"]["users"] == data["split"][seed]["test_users"]


def test_means_are_those_of_the_per_user_file(report, folder):
    frame = pl.read_parquet(folder / "per_user.parquet")
    mean = frame.filter(system="ease[l2=500]", seed=1, shots=5)["ndcg@10"].mean()
    assert mean == pytest.approx(
        report.data["systems"]["ease[l2=500]"]["scores"]["1"]["5"]["ndcg@10"]["mean"], abs=1e-6
    )
    assert frame.select(pl.struct("system", "seed", "shots", "user_id").is_unique().all()).item()


def test_popularity_is_what_plain_loops_say(report, dataset, shop):
    histories = reference.histories_of(shop.interactions.to_dicts(), "timestamp")
    for seed in SEEDS:
        parts = reference.user_split(histories, seed)
        counts = dict.fromkeys(dataset.catalog.ids, 0)
        for history in parts["train"].values():
            for item, _ in history:
                counts[item] += 1
        for k in (1, 10):
            values = []
            for history in parts["test"].values():
                own = [item for item, _ in history]
                ranked = sorted((i for i in counts if i not in own[:k]), key=lambda i: -counts[i])[:20]
                values.append(reference.ndcg(ranked, set(own[k : k + 10])))
            found = report.data["systems"]["popularity"]["scores"][str(seed)][str(k)]["ndcg@10"]["mean"]
            assert found == pytest.approx(np.mean(values), abs=0.01)  # equal counts may stand in another order


def test_the_envelope_is_the_best_baseline_on_validation_users(report, dataset):
    one = split(dataset, "user", 0)
    envelope = report.data["envelope"]["all"]
    assert envelope["chosen_on"] == "validation users"
    again = evaluate("popularity,ease,directed,content", dataset, seeds=(0,), shots=(5,))
    assert again.data["envelope"]["all"]["by_seed"]["0"]["5"] == envelope["by_seed"]["0"]["5"]
    assert len(one.valid) > 10
    winner = envelope["by_seed"]["0"]["5"]["system"]
    assert winner in ("popularity", "ease[l2=500]", "directed[l2=500]", "content")
    levels = [envelope["by_seed"][s]["5"]["ndcg@10"] for s in ("0", "1")]
    own = report.data["systems"]["mecold"]["mean"]["5"]["ndcg@10"]["mean"]
    assert envelope["ratios"]["mecold"]["5"]["ratio"] == pytest.approx(own / np.mean(levels))


def test_mecold_beats_popularity_on_a_world_with_tastes_and_the_test_says_so(report):
    rows = [
        r for r in report.data["comparisons"] if r["system"] == "popularity" and r["seed"] == "all" and r["shots"] > 0
    ]
    assert all(row["difference"] < 0 and row["p_holm"] < 0.05 for row in rows)
    assert "times the best baseline" in report.markdown()


def test_the_same_run_twice_gives_the_same_report(report, dataset):
    again = evaluate([ours(), "popularity,ease,directed,content"], dataset, seeds=SEEDS)
    assert timeless(again.data) == timeless(report.data)
    assert again.per_user.equals(report.per_user)


def timeless(data):
    """A report without what the clock decides."""
    costs = ("_seconds", "_bytes", "_ms")
    systems = {
        name: {key: value for key, value in one.items() if not key.endswith(costs)}
        for name, one in data["systems"].items()
    }
    return data | {"systems": systems}


class Counting:
    """A system that counts its fits and can be told to break."""

    name, fingerprint = "counting", "counting 1"

    def __init__(self):
        self.fits, self.broken = 0, False

    def fit(self, training):
        self.fits += 1
        if self.broken and self.fits == 2:
            raise KeyboardInterrupt
        return FunctionSystem("inner", lambda t: lambda s: np.repeat(t.counts[None], len(s), 0)).fit(training)


def test_an_interrupted_run_goes_on_where_it_stopped(dataset, tmp_path):
    system = Counting()
    system.broken = True
    with pytest.raises(KeyboardInterrupt):
        evaluate([system], dataset, seeds=(0, 1, 2), out=tmp_path / "r")
    assert not (tmp_path / "r" / "report.json").exists()
    assert not list(tmp_path.rglob("*.part"))
    system.broken, system.fits = False, 0
    evaluate([system], dataset, seeds=(0, 1, 2), out=tmp_path / "r")
    assert system.fits == 2
    system.fits = 0
    more = evaluate([system, "popularity"], dataset, seeds=(0, 1, 2), out=tmp_path / "r")
    assert system.fits == 0
    cells = [more.data["systems"][name]["mean"]["5"]["ndcg@10"]["mean"] for name in ("counting", "popularity")]
    assert cells[0] == cells[1]
    damaged = next((tmp_path / "r" / "results").glob("*.npz"))
    damaged.write_bytes(damaged.read_bytes()[:40])
    evaluate([system, "popularity"], dataset, seeds=(0, 1, 2), out=tmp_path / "r")
    assert system.fits <= 1


def test_a_system_that_crashes_is_reported_and_the_others_go_on(dataset, tmp_path):
    def crashing(training):
        raise RuntimeError("out of luck")

    def wrong_shape(training):
        return lambda supports: np.zeros((len(supports), 3))

    found = evaluate([crashing, wrong_shape, "popularity"], dataset, seeds=(0,), out=tmp_path / "r")
    assert found.data["failed"]["crashing"] == "RuntimeError: out of luck"
    assert "shape" in found.data["failed"]["wrong_shape"]
    assert list(found.data["systems"]) == ["popularity"]
    assert "out of luck" in (tmp_path / "r" / "index.html").read_text()
    with pytest.raises(InvalidDataError, match="Every system failed"):
        evaluate([crashing], dataset, seeds=(0,))


def test_tuning_takes_per_shots_what_is_best_on_validation_users(dataset):
    tuned = evaluate("ease", dataset, seeds=(0,), shots=(1, 5), tune=True)
    grid = [f"ease[l2={l2}]" for l2 in GRIDS["ease"]["l2"]]
    alone = evaluate(",".join(grid), dataset, seeds=(0,), shots=(1, 5))
    chosen = tuned.data["systems"]["ease"]["chosen"]["0"]
    assert set(chosen.values()) <= set(grid)
    for k in ("1", "5"):
        best = alone.data["envelope"]["order-blind"]["by_seed"]["0"][k]
        assert chosen[k] == best["system"]
        assert tuned.data["systems"]["ease"]["mean"][k]["ndcg@10"]["mean"] == pytest.approx(best["ndcg@10"])


def test_tuning_in_the_time_split_looks_at_the_past_only(dataset):
    tuned = evaluate("ease", dataset, protocol="time", seeds=(0,), shots=(3,), tune=True)
    one = split(dataset, "time", 0)
    assert tuned.data["systems"]["ease"]["chosen"]["0"]["3"] in [f"ease[l2={l2}]" for l2 in GRIDS["ease"]["l2"]]
    assert one.inner.test.times.max() < one.test.times.min()
    assert tuned.data["envelope"]["all"]["chosen_on"] == "the test users themselves"


def test_cold_items_are_ranked_among_themselves_and_among_all(dataset):
    found = evaluate("content,popularity", dataset, protocol="item", seeds=(0,))
    one = split(dataset, "item", 0)
    cell = found.data["systems"]["content"]["scores"]["0"]["10"]
    assert {"ndcg@10", "full:ndcg@10"} <= set(cell)
    assert cell["ndcg@10"]["mean"] > cell["full:ndcg@10"]["mean"]
    assert found.data["split"]["0"]["cold_items"] == len(one.cold)
    assert 0 < found.data["systems"]["content"]["beyond"]["10"]["new_items"] < 1
    assert found.data["systems"]["popularity"]["beyond"]["10"]["new_items"] == 0


def test_findings_come_back_from_the_file_as_they_were(report, folder, dataset):
    items = evaluate("content,popularity", dataset, protocol="item", seeds=(0,))
    for one, text in ((report, (folder / "report.json").read_text()), (items, json.dumps(items.data))):
        again = Findings.from_json(json.loads(text))
        assert again.to_json() == one.data
        assert tables.markdown(again) == one.markdown()
    harmful = json.loads(json.dumps(items.data).replace('"popularity"', '"<script>alert(1)</script>"'))
    named = Findings.from_json(harmful | {"dataset": harmful["dataset"] | {"name": "<img src=x>"}})
    assert "&lt;script" in tables.markdown(named) and "<" not in tables.markdown(named)


def test_reports_of_many_sets_stand_side_by_side(report, dataset):
    other = replace(report.found, dataset=replace(report.found.dataset, name="other"))
    table = across.ratios([report.found, other], "mecold")
    envelope = report.found.envelope["all"]
    assert [row[0] for row in table.rows] == ["shop", "other"]
    assert table.rows[0][2].startswith(f"{envelope.ratios['mecold'][1].ratio:.3f} [")
    assert f"geometric mean {envelope.geometric_mean['mecold']:.3f}" in table.note
    assert [row[1] for row in across.scores([report.found], ["ease", "nothing", "mecold"]).rows] == ["ease", "mecold"]
    tested = across.against([report.found], "cont").rows
    assert [row[1] for row in tested] == ["ent"]
    assert float(tested[0][-1].partition("%")[0]) / 100 == pytest.approx(
        report.found.overall["content"].ratio - 1, abs=1e-3
    )
    frame = report.per_user.filter(pl.col("shots") > 0)
    means = [frame.filter(system=name)["ndcg@10"].mean() for name in ("content", "mecold")]
    assert report.found.overall["content"].ratio == pytest.approx(means[0] / means[1])


# ---- errors before any work


def test_what_cannot_be_run_is_said_before_any_work(dataset, folder, report, shop, encoder, tmp_path):
    never = FunctionSystem("never", lambda training: pytest.fail("work was done"))
    with pytest.raises(InvalidDataError, match=r"no system 'eese'; did you mean .*ease"):
        evaluate([never, "eese"], dataset)
    with pytest.raises(InvalidDataError, match="it has no setting lambda"):
        evaluate([never, "ease[lambda=3]"], dataset)
    with pytest.raises(InvalidDataError, match="after 500 shots; the longest history"):
        evaluate([never], dataset, shots=(1, 500))
    with pytest.raises(InvalidDataError, match="holds the report of another run: seeds"):
        evaluate([never], dataset, seeds=(5,), out=folder)
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(InvalidDataError, match="is no report of mecold"):
        evaluate([never], dataset, out=tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "keep me"
    with pytest.raises(InvalidDataError, match="needs timestamps"):
        untimed = Dataset.read(shop.interactions.drop("timestamp"), shop.items, encoder=encoder)
        evaluate([never], untimed, protocol="time")
    with pytest.raises(InvalidDataError, match="no metric 'ndgc@10'"):
        evaluate([never], dataset, metrics=["ndgc@10"])
    with pytest.raises(InvalidDataError, match="reference 'ease' is not among"):
        evaluate([never], dataset, reference="ease")
    with pytest.raises(InvalidDataError, match="called"):
        evaluate("ease,ease[l2=500]", dataset)
    with pytest.raises(InvalidDataError, match="is no system"):
        evaluate([3], dataset)


def test_groups_and_settings_are_understood():
    names = [entry.name for entry in entries_of("baselines,mecold,recent_popularity[half_life=7.5]")]
    assert names[-2:] == ["mecold", "recent_popularity[half_life=7.5]"]
    assert len(with_members(entries_of("als")[0]).members) == 4
    for entry in map(with_members, entries_of("baselines")):
        assert all(member.system.family == entry.name for member in entry.members)


# ---- rankings of other stacks


@pytest.fixture
def exported(dataset, tmp_path):
    plan = make_plan(dataset, seeds=(0,), shots=(0, 3))
    count = export(dataset, plan.splits, list(plan.shots), plan.depth, tmp_path / "tasks")
    tasks = pl.read_parquet(tmp_path / "tasks" / "tasks.parquet")
    assert tasks.height == count
    return tmp_path / "tasks", tasks


def popular_lists(place, tasks, depth=20):
    """What another stack would send back: popularity, from the exported files alone."""
    train, items = pl.read_parquet(place / "train-seed0.parquet"), pl.read_parquet(place / "items.parquet")
    counts = dict(train.group_by("item_id").len().iter_rows())
    ranked = sorted(items["item_id"], key=lambda item: -counts.get(item, 0))
    return [[item for item in ranked if item not in support][:depth] for support in tasks["support"]]


def test_lists_of_another_stack_are_scored_beside_ours(dataset, exported):
    place, tasks = exported
    lists = tasks.select("task_id").with_columns(items=pl.Series(popular_lists(place, tasks)))
    long = (
        lists.explode("items")
        .with_columns(rank=pl.int_range(1, pl.len() + 1).over("task_id"))
        .rename({"items": "item_id"})
    )
    found = evaluate(
        "popularity",
        dataset,
        seeds=(0,),
        shots=(0, 3),
        rankings={"a": lists, "b": long.sample(fraction=1, shuffle=True, seed=0)},
    )
    means = {name: one["mean"]["3"]["ndcg@10"]["mean"] for name, one in found.data["systems"].items()}
    assert means["a"] == means["b"]
    assert means["a"] == pytest.approx(means["popularity"], abs=0.004)
    assert "query" not in " ".join(tasks.columns)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda items, task: ["p99999", *items[1:]], "unknown items: 'p99999' at rank 1"),
        (lambda items, task: [task["support"][0], *items[1:]], "items of the support: .* at rank 1"),
        (lambda items, task: [items[1], *items[1:]], "duplicates: .* at rank 2"),
        (lambda items, task: items[:7], "7 items where 20 are asked for"),
        (lambda items, task: None, "no list"),
    ],
)
def test_what_is_wrong_with_foreign_lists_is_said_row_by_row(dataset, exported, change, message):
    place, tasks = exported
    lists = popular_lists(place, tasks)
    last = tasks.height - 1
    lists[last] = change(lists[last], tasks.row(last, named=True))
    frame = tasks.select("task_id").with_columns(items=pl.Series(lists)).filter(pl.col("items").is_not_null())
    with pytest.raises(InvalidDataError, match=message) as caught:
        evaluate([], dataset, seeds=(0,), shots=(0, 3), rankings={"theirs": frame})
    assert tasks["task_id"][last] in str(caught.value)
    assert f"1 problems in {tasks.height:,} tasks" in str(caught.value)


def test_lists_for_unknown_tasks_are_refused(dataset, exported):
    place, tasks = exported
    frame = tasks.select("task_id").with_columns(items=pl.Series(popular_lists(place, tasks)))
    extra = pl.concat([frame, frame.head(1).with_columns(task_id=pl.lit("9:9:nobody"))])
    with pytest.raises(InvalidDataError, match="no tasks of this evaluation: '9:9:nobody'"):
        evaluate([], dataset, seeds=(0,), shots=(0, 3), rankings={"theirs": extra})
    with pytest.raises(InvalidDataError, match="name tasks twice"):
        evaluate([], dataset, seeds=(0,), shots=(0, 3), rankings={"theirs": pl.concat([frame, frame])})


# ---- the command line


@pytest.fixture(scope="module")
def files(tmp_path_factory, shop):
    place = tmp_path_factory.mktemp("evaluate")
    shop.interactions.write_parquet(place / "log.parquet")
    shop.items.write_csv(place / "items.csv")
    return place, ["--interactions", f"{place}/log.parquet", "--items", f"{place}/items.csv", "--seeds", "0"]


def test_the_command_prints_one_table_and_writes_a_report(files):
    place, data = files
    run = CliRunner().invoke
    options = ["--systems", "popularity,ease[l2=100]", "--shots", "0,3", "--out", f"{place}/report"]
    done = run(app, ["evaluate", *data, *options], env={"COLUMNS": "120"})
    assert done.exit_code == 0, done.output
    assert "ease[l2=100]" in done.stdout
    assert "ndcg@10" in done.stdout
    assert {p.name for p in (place / "report").iterdir()} >= {
        "index.html",
        "report.json",
        "report.md",
        "per_user.parquet",
    }
    same = run(app, ["evaluate", *data, *options, "--json"])
    assert json.loads(same.stdout)["shots"] == [0, 3]
    bad = run(app, ["evaluate", *data, "--systems", "poplarity"])
    assert (bad.exit_code, "did you mean" in bad.stderr) == (1, True)
    assert run(app, ["evaluate", *data, "--shots", "a"]).exit_code == 1
    assert "--interactions and --items are needed" in " ".join(run(app, ["evaluate"]).stderr.split())


def test_export_and_score_from_the_command_line(files):
    place, data = files
    run = CliRunner().invoke
    done = run(app, ["evaluate", "export", *data, "--shots", "0,3", "--out", f"{place}/tasks"])
    assert done.exit_code == 0, done.output
    tasks = pl.read_parquet(place / "tasks" / "tasks.parquet")
    frame = tasks.select("task_id").with_columns(items=pl.Series(popular_lists(place / "tasks", tasks)))
    frame.write_parquet(place / "lists.parquet")
    scored = run(
        app, ["evaluate", "score", "--rankings", f"theirs={place}/lists.parquet", *data, "--shots", "0,3", "--json"]
    )
    assert scored.exit_code == 0, scored.output
    assert set(json.loads(scored.stdout)["systems"]) == {"popularity", "theirs"}
    again = run(app, ["evaluate", "export", *data, "--shots", "0,3", "--out", f"{place}/tasks"])
    assert (again.exit_code, "exists already" in again.stderr) == (1, True)


# ---- the page


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    binary = next(
        (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
    )
    if binary is None or shutil.which("chromedriver") is None:
        if os.environ.get("MECOLD_REQUIRE_BROWSER"):
            pytest.fail("chromium and chromedriver must be installed here")
        pytest.skip("no chromium with chromedriver on this machine")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = binary
    profile = tmp_path_factory.mktemp("profile")
    quiet = ("headless", "no-sandbox", "disable-gpu", "disable-background-networking", "disable-sync", "no-first-run")
    for argument in (*quiet, "disable-component-update", "disable-dev-shm-usage", f"user-data-dir={profile}"):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    yield driver
    driver.quit()


@pytest.mark.parametrize("width", [375, 1200])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_in_a_real_browser(report, folder, browser, width, scheme):
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500},
    )
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    browser.get((folder / "index.html").as_uri())
    assert browser.get_log("browser") == []
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    sizes = browser.execute_script(
        "return [...document.querySelectorAll('figure svg')].map(s => {"
        "const b = s.getBoundingClientRect(); const t = s.querySelector('text');"
        "return [b.width, b.height, s.querySelectorAll('path').length, getComputedStyle(t).fill]})"
    )
    assert len(sizes) == 5
    paper = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, paper[4:-1].split(","))) < 200) == (scheme == "dark")
    for wide, high, paths, ink in sizes:
        assert 200 < wide <= width
        assert high > 100
        assert paths > 10
        assert ink != paper
    links = browser.execute_script(
        "return [...document.querySelectorAll('[src],link[href]')].map(e => e.src || e.href)"
    )
    assert all(link.startswith("data:") for link in links)


# ---- what a review found


def test_an_encoder_that_fails_costs_only_the_systems_that_read_texts(shop):
    class Broken:
        fingerprint = "broken"

        def encode(self, texts, *, progress=False):
            raise RuntimeError("no model here")

    found = evaluate("popularity,content", Dataset.read(shop.interactions, shop.items, encoder=Broken()), seeds=(0,))
    assert list(found.data["systems"]) == ["popularity"]
    assert "no model here" in found.data["failed"]["content"]


def test_a_user_s_own_system_is_never_mistaken_for_a_built_in_one(dataset):
    def ease(training):
        return lambda supports: np.repeat(-training.counts[None], len(supports), 0)

    tuned = evaluate([ease], dataset, seeds=(0,), shots=(3,), tune=True)
    plain = evaluate([ease], dataset, seeds=(0,), shots=(3,))
    assert tuned.data["systems"]["ease"]["mean"] == plain.data["systems"]["ease"]["mean"]
    assert tuned.data["systems"]["ease"]["kind"] == "other"


def test_settings_of_one_s_own_are_tried_by_tuning_too():
    names = [member.name for member in with_members(entries_of("ease[l2=123]")[0]).members]
    assert names == ["ease[l2=123]", "ease[l2=100]", "ease[l2=500]", "ease[l2=2000]"]
    assert len(with_members(entries_of("ease")[0]).members) == 3


def test_results_are_not_shared_by_data_that_differ(shop, encoder):
    plain = Dataset.read(shop.interactions, shop.items, encoder=encoder)
    weighted = Dataset.read(shop.interactions.with_columns(weight=pl.lit(2.0)), shop.items, encoder=encoder)
    priced = Dataset.read(shop.interactions, shop.items.with_columns(price=pl.lit(1.5)), encoder=encoder)
    assert len({one.fingerprint for one in (plain, weighted, priced)}) == 3


def test_knowing_nothing_of_cold_items_is_worth_chance_whatever_the_order_of_the_catalogue(dataset, shop, encoder):
    counts = dict(shop.interactions.group_by("item_id").len().iter_rows())
    best_first = shop.items[sorted(range(shop.items.height), key=lambda i: -counts.get(shop.items["item_id"][i], 0))]
    ordered = Dataset.read(shop.interactions, best_first, encoder=encoder)
    scores = [
        evaluate("popularity", one, protocol="item", seeds=(0, 1)).data["systems"]["popularity"]["mean"]["10"][
            "ndcg@10"
        ]
        for one in (ordered, dataset)
    ]
    assert scores[0]["low"] < scores[1]["high"]


def test_a_report_without_slices_to_compare_is_drawn_all_the_same(shop, encoder, tmp_path):
    plain = shop.items.select("item_id").with_columns(title=pl.lit("same"))
    found = evaluate(
        "popularity", Dataset.read(shop.interactions, plain, encoder=encoder), protocol="item", shots=(0,), seeds=(0,),
        out=tmp_path / "r",
    )  # fmt: skip
    assert "ranked among the cold items" in found.html()
    assert (tmp_path / "r" / "index.html").is_file()


def test_the_default_encoder_is_made_when_the_first_system_asks_for_it(shop):
    few = shop.items.head(70)
    log = shop.interactions.filter(pl.col("item_id").is_in(few["item_id"].implode()))
    data = Dataset.read(log, few)
    assert "vectors" not in vars(data)
    assert data.vectors.shape == (70, 384)
