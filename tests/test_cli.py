"""The command line, as a user calls it."""

import json
import shutil
from pathlib import Path

import polars as pl
import pytest
from rich.console import Console
from typer.testing import CliRunner

from mecold import InvalidDataError, Recommender, TextEncoder, TextTemplate
from mecold.cli.demo import run_demo
from mecold.cli.main import app
from mecold.cli.terminal import Files

run = CliRunner().invoke


@pytest.fixture(scope="module")
def world(tmp_path_factory, shop):
    place = tmp_path_factory.mktemp("cli")
    shop.interactions.rename({"user_id": "customer"}).write_parquet(place / "log.parquet")
    shop.items.write_csv(place / "items.csv")
    users = shop.interactions["user_id"].unique().sort()
    pl.DataFrame(
        {"user_id": users, "age": range(len(users)), "club": ["ab"[n % 2] for n in range(len(users))]}
    ).write_csv(place / "users.csv")
    files = ["--interactions", f"{place}/log.parquet", "--items", f"{place}/items.csv", "--out", f"{place}/model",
             "--attributes", f"{place}/users.csv"]  # fmt: skip
    done = run(app, ["fit", *files, "--column", "user_id=customer", "--json"])
    assert done.exit_code == 0, done.output
    answer = json.loads(done.stdout)
    assert answer["items"] == 300
    assert set(answer["held_out_ndcg@10"]) == {"0", "1", "3", "5", "10"}
    return place


def test_recommend_for_one_user(world):
    done = run(app, ["recommend", f"{world}/model", "--items", "p1", "p2", "-k", "4", "--json"])
    found = json.loads(done.stdout)
    assert len(found) == 4
    assert not {"p1", "p2"} & {one["item"] for one in found}
    table = run(app, ["recommend", f"{world}/model", "--items", "p1", "--items", "p2", "-k", "4"])
    assert all(one["item"] in table.stdout for one in found)


def test_recommend_for_a_file_of_users(world):
    out = world / "lists.parquet"
    histories = ["--history", f"{world}/log.parquet", "--column", "user_id=customer"]
    done = run(app, ["recommend", f"{world}/model", *histories, "--out", str(out), "-k", "3"])
    assert done.exit_code == 0, done.output
    lists = pl.read_parquet(out)
    assert lists.columns == ["user_id", "rank", "item_id", "score"]
    assert lists.height == 3 * lists["user_id"].n_unique() == 1500
    printed = run(app, ["recommend", f"{world}/model", *histories, "-k", "1"])
    assert printed.stdout.startswith("user_id,rank,item_id,score\n")


def test_files_say_who_gets_what_and_how_many_of_a_group(world, shop):
    pairs = pl.DataFrame({"customer": ["u0", "u0", "u1"], "item_id": ["p5", "p6", "p7"]})
    pairs.write_csv(world / "pairs.csv")
    pairs.select("item_id").write_csv(world / "items_of_all.csv")
    shop.items.select("item_id", "brand").write_parquet(world / "brands.parquet")
    few = shop.interactions.filter(pl.col("user_id").is_in(["u0", "u1", "u2"])).rename({"user_id": "customer"})
    few.write_parquet(world / "few.parquet")
    many = [
        "recommend",
        f"{world}/model",
        "--history",
        f"{world}/few.parquet",
        "--column",
        "user_id=customer",
        "-k",
        "300",
    ]

    def lists(*more):
        done = run(app, [*many, *more, "--json"])
        assert done.exit_code == 0, done.output
        found = pl.DataFrame(json.loads(done.stdout))
        return {user: found.filter(pl.col("user_id") == user)["item_id"].to_list() for user in ("u0", "u1", "u2")}

    whole, own = lists(), {"u0": ["p5", "p6"], "u1": ["p7"], "u2": []}
    left = lists("--exclude", f"{world}/pairs.csv")
    only = lists("--among", f"{world}/pairs.csv")
    for user, items in whole.items():
        assert left[user] == [item for item in items if item not in own[user]]
        assert only[user] == [item for item in items if item in own[user]]
    one = ["recommend", f"{world}/model", "--items", "p1", "--json"]
    found = json.loads(run(app, [*one, "--among", f"{world}/items_of_all.csv"]).stdout)
    assert {each["item"] for each in found} == {"p5", "p6", "p7"}
    capped = [*one, "--groups", f"{world}/brands.parquet", "--per-group", "2", "--diversity", "0.3", "-k", "12"]
    brand = dict(shop.items.select("item_id", "brand").iter_rows())
    brands = [brand[each["item"]] for each in json.loads(run(app, capped).stdout)]
    assert len(brands) == 12
    assert max(map(brands.count, brands)) <= 2
    refused = run(app, [*one, "--exclude", f"{world}/pairs.csv", "--column", "user_id=customer"])
    assert refused.exit_code == 1
    assert "--exclude has a column user_id" in " ".join(refused.stderr.split())


def test_types_of_ids_are_said_on_the_command_line(world):
    (world / "digits.csv").write_text("user_id,item_id\n5,p1\n7,p2\n")
    lists = []
    for said in ([], ["--type", "user_id=text", "--type", "item_id=text"]):
        out = world / "typed.parquet"
        done = run(app, ["recommend", f"{world}/model", "--history", f"{world}/digits.csv", *said, "--out", str(out)])
        assert done.exit_code == 0, done.output
        lists.append(pl.read_parquet(out))
    assert [some["user_id"].dtype for some in lists] == [pl.Int64, pl.String]
    assert lists[0]["item_id"].to_list() == lists[1]["item_id"].to_list()
    refused = run(app, ["recommend", f"{world}/model", "--history", f"{world}/digits.csv", "--type", "item_id=integer"])
    assert refused.exit_code == 1
    assert "'p1'" in refused.stderr


def test_files_follow_the_items_and_the_options(tmp_path):
    (tmp_path / "log.csv").write_text("who,sku,ts\n5,12,2024-01-01 00:00:00 UTC\n")
    (tmp_path / "items.csv").write_text("sku,ts,title\n12,2024,x\n13,2024,y\n")
    columns = ["item_id=sku", "user_id=who", "timestamp=ts"]
    for said, kind in ([], pl.Int64), (["item_id=text"], pl.String):
        files = Files(tmp_path / "log.csv", tmp_path / "items.csv", columns, said, TextTemplate())
        log, items = files.read()
        assert log["item_id"].dtype == items["item_id"].dtype == kind
        assert log["timestamp"].dtype == pl.Datetime
        assert items.columns == ["item_id", "ts", "title"]
    with pytest.raises(InvalidDataError, match="no file has such"):
        Files(tmp_path / "log.csv", tmp_path / "items.csv", ["user_id=nobody"], [], TextTemplate()).read()


def test_items_are_hidden_shown_and_synced_in_the_folder(world, shop, tmp_path):
    model = shutil.copytree(world / "model", tmp_path / "model")
    before = [one["item"] for one in json.loads(run(app, ["similar", str(model), "p1", "-k", "5", "--json"]).stdout)]
    done = run(app, ["hide", str(model), before[0], before[1]])
    assert "298 items on offer, 2 hidden" in done.stderr
    after = [one["item"] for one in json.loads(run(app, ["similar", str(model), "p1", "-k", "5", "--json"]).stdout)]
    assert after[:3] == before[2:]
    assert run(app, ["hide", str(model), "nothing"]).exit_code == 1
    assert "299 items on offer, 1 hidden" in run(app, ["show", str(model), before[0]]).stderr
    shop.items.filter(pl.col("item_id") != "p9").write_csv(tmp_path / "feed.csv")
    done = run(app, ["sync", str(model), "--items", f"{tmp_path}/feed.csv", "--json"])
    assert json.loads(done.stdout) == {"added": 0, "updated": 0, "shown": 1, "hidden": 1, "removed": 0}
    assert Recommender.load(model).item_ids(hidden=True) == ["p9"]


def test_similar_items_of_a_basket_within_limits(world, fitted):
    pl.DataFrame({"item_id": [f"p{n}" for n in range(40)]}).write_csv(world / "some.csv")
    basket = ["similar", f"{world}/model", "p1", "p2", "-k", "5", "--among", f"{world}/some.csv", "--json"]
    found = [one["item"] for one in json.loads(run(app, basket).stdout)]
    assert len(found) == 5
    assert set(found) <= {f"p{n}" for n in range(40)} - {"p1", "p2"}


def test_what_is_like_a_text(world):
    model = f"{world}/model"
    found = json.loads(run(app, ["similar", model, "--text", "leather travel mug", "-k", "3", "--json"]).stdout)
    expected = Recommender.load(model).similar_items(text="leather travel mug", k=3)
    assert [one["item"] for one in found] == [one.item for one in expected]
    both = json.loads(run(app, ["similar", model, "p1", "--text", "leather travel mug", "-k", "3", "--json"]).stdout)
    assert len(both) == 3
    done = run(app, ["similar", model], env={"COLUMNS": "300"})
    assert done.exit_code == 1
    assert "name at least one" in done.stderr


def test_attributes_and_what_was_seen_on_the_command_line(world):
    one = ["recommend", f"{world}/model", "--items", "p1", "-k", "300", "--json"]
    assert len(json.loads(run(app, one).stdout)) == 299
    assert len(json.loads(run(app, [*one, "--include-seen"]).stdout)) == 300
    told = [*one, "--attribute", "age=20", "--attribute", "club=a"]
    assert run(app, told).exit_code == 0
    assert "age is a number" in run(app, [*one, "--attribute", "age=old"]).stderr
    assert "knows no attributes 'city'" in run(app, [*one, "--attribute", "city=x"]).stderr
    many = [
        "recommend",
        f"{world}/model",
        "--history",
        f"{world}/log.parquet",
        "--column",
        "user_id=customer",
        "-k",
        "2",
    ]
    done = run(app, [*many, "--attributes", f"{world}/users.csv"])
    assert done.exit_code == 0, done.output
    assert len(done.stdout.splitlines()) == 1001


def test_similar_and_info(world):
    similar = json.loads(run(app, ["similar", f"{world}/model", "p1", "-k", "2", "--json"]).stdout)
    assert len(similar) == 2
    info = json.loads(run(app, ["info", f"{world}/model", "--json"]).stdout)
    assert info["encoder"] == TextEncoder(cache=None).fingerprint
    assert info["model"] in run(app, ["info", f"{world}/model"]).stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["recommend", "MODEL", "--items", "zz"], 1, "'zz'"),
        (["recommend", "MODEL", "--items", "p1", "--history", "x.parquet"], 1, "not both"),
        (["recommend", "nowhere", "--items", "p1"], 1, "no mecold model"),
        (["recommend", "MODEL", "--history", "none.parquet"], 1, "There is no file"),
        (["fit", "--interactions", "a.txt", "--items", "b.csv", "--out", "m"], 1, "must end in"),
        (["fit", "--interactions", "a.csv", "--items", "b.csv", "--out", "m", "--column", "x"], 1, "--column takes"),
        (["fit", "--interactions", "a.csv", "--items", "b.csv", "--out", "m", "--column", "time=x"], 1, "'timestamp'"),
        (
            ["fit", "--interactions", "a.csv", "--items", "b.csv", "--out", "m", "--type", "item_id=date"],
            1,
            "--type takes",
        ),
        (["recommend", "MODEL", "--history", "x.csv", "--type", "rating=text"], 1, "'user_id', 'item_id'"),
        (["recommend", "MODEL", "--history", "x.csv", "--column", "time=x"], 1, "'timestamp'"),
        (["similar", "MODEL", "p1", "-k", "0"], 2, "-k"),
        (["fit"], 2, "--interactions"),
        (["nonsense"], 2, "nonsense"),
    ],
)
def test_what_goes_wrong_is_said_on_stderr_with_an_exit_code(world, arguments, code, message):
    done = run(app, [argument.replace("MODEL", f"{world}/model") for argument in arguments], env={"COLUMNS": "300"})
    assert done.exit_code == code
    assert message in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_help_teaches_every_command():
    text = run(app, ["--help"]).stdout
    for command in ("fit", "recommend", "similar", "info", "demo"):
        assert command in text
        assert run(app, [command, "--help"]).exit_code == 0
    assert "Example: mecold fit" in " ".join(run(app, ["fit", "--help"]).stdout.split())


def test_the_demo_beats_popularity_by_far():
    console = Console(record=True, width=120)
    found = run_demo(console, n_items=400, n_users=700)
    assert list(found.shots) == [0, 1, 3, 5, 10]
    assert all(found.score("mecold", k).mean > 1.5 * found.score("popularity", k).mean for k in found.positive)
    printed = console.export_text()
    assert "A stranger with 10 purchases" in printed
    assert "ndcg@10" in printed


def test_readme_commands_exist():
    readme = Path(__file__).parents[1].joinpath("README.md").read_text()
    assert "make demo" in readme
    assert "make test" in readme
