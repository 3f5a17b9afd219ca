"""Training of the encoder: what is learned, what is never seen, what is kept, and what survives a kill."""

import json
import shutil
from dataclasses import replace
from functools import partial
from html import escape

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from mecold import DataWarning, EncoderError, InvalidDataError, Recommender, TextEncoder
from mecold.cli.main import app
from mecold.data.catalog import Catalog
from mecold.data.interactions import Interactions
from mecold.encode.beside import SideBySide
from mecold.encode.taught import TAUGHT
from mecold.evaluation.dataset import Dataset
from mecold.evaluation.run import evaluate
from mecold.evaluation.systems import ours
from mecold.evaluation.systems.tuned import MecoldTuned
from mecold.meta import newcomers
from mecold.meta.fit import fit
from mecold.shop import make_shop
from mecold.tuning.base import Base
from mecold.tuning.config import EncoderTraining
from mecold.tuning.folder import RECORD
from mecold.tuning.ground import Shop
from mecold.tuning.judge import HeldOut, NewItems
from mecold.tuning.lessons import Numbers, Pairs
from mecold.tuning.tasks import TASKS
from mecold.tuning.tower import Tower
from mecold.tuning.train import train_encoder
from tests.conftest import SMALL, word_vectors

QUICK = EncoderTraining(trained_layers=2, steps=40, batch=128, learning_rate=3e-3, check_every=10)
CPU = torch.device("cpu")


def tiny_bert(folder, texts, *, layers=3, width=32):
    """A random BERT whose words are those of some texts."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    words = sorted({word for text in texts for word in text.lower().replace(".", " ").replace(",", " ").split()})
    vocabulary = {word: at for at, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", ",", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", model_max_length=64
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=width, num_hidden_layers=layers, num_attention_heads=2,
        intermediate_size=2 * width, max_position_embeddings=64,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def goods():
    return make_shop(n_items=300, n_users=1000, rng=3)


@pytest.fixture(scope="module")
def base(goods, tmp_path_factory):
    return tiny_bert(tmp_path_factory.mktemp("tiny") / "bert", Catalog.read(goods.items).texts)


@pytest.fixture(scope="module")
def trained(goods, base, tmp_path_factory):
    out = tmp_path_factory.mktemp("trained") / "encoder"
    return train_encoder(goods.items, goods.interactions, out=out, base=base, config=QUICK)


def shop_of(goods):
    catalog = Catalog.read(goods.items)
    return Shop(catalog, goods.items, Interactions.read(goods.interactions, catalog))


def drawn_from(shop, share, seed):
    return HeldOut.draw(shop.readable, shop.catalog.texts, shop.things, shop.log, share, np.random.default_rng(seed))


NOTHING = HeldOut(np.array([], np.int64), np.array([], np.int64))


def test_held_out_items_are_ranked_better_after_training(trained):
    assert trained.score > 1.05 * trained.base
    assert trained.weight > 0
    curve = [value for _, value in trained.report.curve("held_out")]
    assert trained.score >= max(curve) - 1e-6
    losses = [value for _, value in trained.report.curve("loss/together")]
    assert losses[-1] < losses[0]


def test_what_is_written_is_an_ordinary_model_folder(trained, goods):
    from sentence_transformers import SentenceTransformer

    texts = list(Catalog.read(goods.items).texts)[:20]
    ours = TextEncoder(trained.folder, cache=None).encode(texts)
    theirs = SentenceTransformer(str(trained.folder), device="cpu").encode(texts, normalize_embeddings=True)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    about = json.loads((trained.folder / RECORD).read_text())
    assert (about["score"], about["tasks"]) == (trained.score, ["together"])
    assert not [path for path in trained.folder.parent.iterdir() if path != trained.folder], "something was left behind"


def test_a_trained_encoder_says_what_it_was_taught(trained, goods):
    shop = shop_of(goods)
    held = drawn_from(shop, QUICK.held_out, 0)
    taught = TextEncoder(trained.folder, cache=None).taught([*shop.catalog.texts, "", "never seen"])
    wanted = np.isin(np.arange(shop.catalog.size), np.setdiff1d(shop.readable, held.items))
    assert 0 < len(held.items) < wanted.sum()
    assert taught.tolist() == [*wanted.tolist(), True, False]  # an empty text is no example of one not seen


def test_what_a_base_was_taught_is_not_forgotten(goods, trained, tmp_path):
    again = train_encoder(
        goods.items, goods.interactions, out=tmp_path / "again", base=trained.folder, config=replace(QUICK, steps=1), rng=7
    )  # fmt: skip
    texts = list(Catalog.read(goods.items).texts)
    before, after = (TextEncoder(one, cache=None).taught(texts) for one in (trained.folder, again.folder))
    assert (after >= before).all() and before.any()
    assert any("held out now" in note for note in again.report.notes)


def test_an_evaluation_hears_what_the_encoder_was_taught(goods, trained, monkeypatch):
    """Through a factory too, as the command line passes it."""
    heard = []
    monkeypatch.setattr(
        ours, "fit", lambda *args, taught, **kw: heard.append(taught) or fit(*args, taught=taught, **kw)
    )
    data = Dataset.read(
        goods.interactions, goods.items, name="goods", encoder=partial(TextEncoder, trained.folder, device="cpu")
    )
    evaluate("mecold", data, protocol="item", seeds=(0,))
    assert heard[0].any() and not heard[0].all()


def test_a_base_was_taught_nothing(base):
    assert not TextEncoder(base, cache=None).taught(["red pen", ""]).any()


def test_a_damaged_list_of_what_was_taught_is_named(trained, tmp_path):
    copied = tmp_path / "copy"
    shutil.copytree(trained.folder, copied)
    for content in (b"", (trained.folder / TAUGHT).read_bytes()[:-3]):
        (copied / TAUGHT).write_bytes(content)
        with pytest.raises(EncoderError, match=f"{TAUGHT}' cannot be read"):
            TextEncoder(copied)


def test_items_that_the_encoder_was_taught_do_not_stand_for_new_ones(goods, trained, monkeypatch):
    rehearsed, encoder = [], TextEncoder(trained.folder, cache=None)

    class Spy(newcomers.Rehearsal):
        def __init__(self, known, new, users, alike):
            rehearsed.append(new)
            super().__init__(known, new, users, alike)

    monkeypatch.setattr(newcomers, "Rehearsal", Spy)
    Recommender(encoder, rng=0, device="cpu", config=SMALL).fit_meta(goods.interactions, goods.items)
    taught = torch.from_numpy(encoder.taught(Catalog.read(goods.items).texts))
    assert taught.any() and len(rehearsed) >= 3
    assert all(new.any() and not (new & taught).any() for new in rehearsed)


def test_only_the_topmost_layers_changed(trained, base):
    before, after = (load_file(folder / "model.safetensors") for folder in (base, trained.folder))
    changed = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert changed
    assert {name.split(".")[2] for name in changed} <= {"1", "2"}, "layer 0 and the embeddings stand still"


def test_the_score_is_that_of_the_vectors_of_what_was_written(trained, goods):
    """The judge reads the trained layers over states in half precision; the folder is read by the encoder."""
    shop = shop_of(goods)
    judge = NewItems.of(shop.log, drawn_from(shop, QUICK.held_out, 0), shop.catalog.texts)
    vectors = TextEncoder(trained.folder, cache=None).encode(list(shop.catalog.texts))
    assert judge.score(torch.from_numpy(vectors)) == pytest.approx(trained.score, abs=2e-3)


def test_the_judge_counts_as_the_protocol_does(goods):
    shop = shop_of(goods)
    held, texts = drawn_from(shop, 0.2, 5), list(shop.catalog.texts)
    texts[held.items[0]] = texts[0] = ""
    judge = NewItems.of(shop.log, held, texts)
    vectors = torch.randn(len(texts), 8, generator=torch.Generator().manual_seed(0))
    told = np.array([text != "" for text in texts])
    known = vectors.double().numpy()
    known = known - known[told].mean(0)
    variance, axes = np.linalg.eigh(known[told].T @ known[told] / told.sum())
    text = known @ (axes * variance**-0.25)
    text = text / np.linalg.norm(text, axis=1, keepdims=True) * told[:, None]
    marks = []
    for history in shop.log.take(held.users).split():
        new = [item for item in history if item in set(held.items)]
        old = [item for item in history if item not in set(held.items)]
        if not new or len(old) < 3:
            continue
        order = held.items[np.argsort(-(text[old[-10:]].sum(0) @ text[held.items].T), kind="stable")][:10]
        gain = sum(1 / np.log2(at + 2) for at, item in enumerate(order) if item in new)
        marks.append(gain / sum(1 / np.log2(at + 2) for at in range(min(10, len(new)))))
    assert judge.score(vectors) == pytest.approx(np.mean(marks), abs=1e-4)
    assert judge.score(vectors * torch.nan) < 0


def test_nothing_of_held_out_items_and_users_is_learned_from(goods):
    shop = shop_of(goods)
    held = drawn_from(shop, 0.3, 1)
    ground = shop.ground(held, 32, QUICK)
    assert not set(ground.log.users) & set(shop.log.users.gather(held.users))
    assert not np.isin(ground.log.items, held.items).any()
    hidden = {shop.catalog.texts[row] for row in held.items} - {""}
    assert hidden
    assert not hidden & set(ground.texts), "items of one text are held out together"
    assert ground.columns[held.items].drop("item_id").null_count().row(0) == (len(held.items),) * 4
    for name, task in TASKS.items():
        lesson = task(ground)
        if lesson is not None:
            drawn = lesson.draw(np.random.default_rng(0), 200)
            assert "" not in {lesson.texts[at] for at in drawn}, name


def test_what_is_disliked_and_what_is_not_predicted_is_no_lesson(goods):
    catalog = Catalog.read(goods.items)
    labelled = goods.interactions.with_columns(label=1.0 - pl.int_range(pl.len()) % 2 * 2)
    shop = Shop(catalog, goods.items, Interactions.read(labelled, catalog))
    assert len(shop.liked.items) < 0.6 * len(shop.log.items)
    counts = np.bincount(shop.liked.items, minlength=catalog.size)
    lesson = TASKS["together"](shop.ground(NOTHING, 32, QUICK))
    assert (lesson.counts == counts.clip(1)).all()


def test_items_without_text_are_not_learned_from(goods):
    bare = goods.items.with_columns(
        pl.when(pl.int_range(pl.len()) % 3 > 0).then(pl.col(name)).alias(name)
        for name in ("title", "brand", "category", "description")
    )
    with pytest.warns(DataWarning, match="no text"):
        catalog = Catalog.read(bare)
    shop = Shop(catalog, bare, Interactions.read(goods.interactions, catalog))
    ground = shop.ground(NOTHING, 32, QUICK)
    assert all(ground.texts[row] for row in ground.rows)
    lesson = TASKS["together"](ground)
    assert "" not in {lesson.texts[row] for row in lesson.rows}


def test_a_killed_run_goes_on_and_ends_with_the_same_weights(goods, base, tmp_path):
    class Killer:
        def log(self, step, values):
            if step == 20:
                raise KeyboardInterrupt

    given = {"base": base, "config": QUICK, "tasks": ["together", "usage", "dropout"]}
    whole = train_encoder(goods.items, goods.interactions, out=tmp_path / "whole", **given)
    with pytest.raises(KeyboardInterrupt):
        train_encoder(goods.items, goods.interactions, out=tmp_path / "killed", trackers=[Killer()], **given)
    assert not (tmp_path / "killed").exists()
    resumed = train_encoder(goods.items, goods.interactions, out=tmp_path / "killed", **given)
    assert any("Went on from step 10" in note for note in resumed.report.notes)
    assert resumed.report.curve("held_out") == whole.report.curve("held_out")
    weights = [load_file(one.folder / "model.safetensors") for one in (whole, resumed)]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_another_training_does_not_go_on_from_what_is_there(goods, base, tmp_path):
    class Killer:
        def log(self, step, values):
            raise KeyboardInterrupt

    out, rated = (
        tmp_path / "encoder",
        goods.interactions.with_columns(rating=1.0 + pl.int_range(pl.len()) % 2 * 4),
    )
    with pytest.raises(KeyboardInterrupt):
        train_encoder(goods.items, rated, out=out, base=base, config=QUICK, liked_from=1.0, trackers=[Killer()])
    with pytest.raises(EncoderError, match="what another training left"):
        train_encoder(goods.items, rated, out=out, base=base, config=QUICK, liked_from=4.0)


def test_the_base_is_kept_where_training_gains_nothing(goods, base, tmp_path):
    config = EncoderTraining(steps=10, trained_layers=2, batch=64, least_gain=50.0)
    found = train_encoder(goods.items, goods.interactions, out=tmp_path / "encoder", base=base, config=config)
    assert (found.weight, found.score) == (0.0, found.base)
    assert any("The base was kept" in note for note in found.report.notes)
    before, after = (load_file(folder / "model.safetensors") for folder in (base, found.folder))
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_the_tower_gives_the_vectors_of_the_encoder(goods, base, tmp_path):
    texts = list(Catalog.read(goods.items).texts)
    tower = Tower(Base.load(base), texts, trained_layers=2, max_length=64, place=tmp_path, device=CPU)
    expected = TextEncoder(base, cache=None).encode(texts)
    np.testing.assert_allclose(tower.vectors(np.arange(len(texts))).numpy(), expected, atol=2e-3)
    some = np.array([7, 3, 7, 250])
    tower.top.eval()
    np.testing.assert_allclose(tower(some).detach().numpy(), expected[some], atol=2e-3)


def test_texts_alone_are_enough(goods, base, tmp_path):
    found = train_encoder(goods.items, out=tmp_path / "encoder", base=base, config=QUICK)
    assert (found.tasks, found.measure[:15]) == (("views",), "reciprocal rank")
    assert found.score > found.base


def test_one_text_column_without_a_log_names_the_task_that_needs_no_more(goods, base, tmp_path):
    titles = goods.items.select("item_id", "title")
    with pytest.raises(InvalidDataError, match="`dropout` needs texts alone"):
        train_encoder(titles, out=tmp_path / "encoder", base=base, config=QUICK)
    found = train_encoder(titles, out=tmp_path / "encoder", base=base, config=QUICK, tasks="dropout")
    assert found.tasks == ("dropout",)
    assert any("Too little is held out to judge by" in note for note in found.report.notes)


def test_pairs_lose_what_a_loop_over_them_would(goods):
    lesson = TASKS["together"](shop_of(goods).ground(NOTHING, 32, QUICK))
    assert isinstance(lesson, Pairs)
    drawn = lesson.draw(np.random.default_rng(0), 40)
    vectors = torch.nn.functional.normalize(torch.randn(40, 6, generator=torch.Generator().manual_seed(1)), dim=1)
    met, text = lesson.together.toarray(), [lesson.texts[row] for row in drawn]
    losses = []
    for i in range(40):
        others = [j for j in range(40) if text[j] != text[i]]
        logs = torch.log_softmax(torch.stack([vectors[i] @ vectors[j] / QUICK.temperature for j in others]), 0)
        share = np.array([met[drawn[i], drawn[j]] for j in others])
        if share.sum():
            losses.append(-float((torch.from_numpy(share / share.sum()) * logs).sum()))
    assert float(lesson.loss(vectors, drawn)) == pytest.approx(np.mean(losses), rel=1e-4)


def test_items_are_together_within_five_steps_of_a_history():
    items = pl.DataFrame({"item_id": range(20), "title": [f"thing {i}" for i in range(20)]})
    log = pl.DataFrame({"user_id": [1] * 20, "item_id": range(20), "timestamp": range(20)})
    catalog = Catalog.read(items)
    ground = Shop(catalog, items, Interactions.read(log, catalog)).ground(NOTHING, 32, QUICK)
    distance = np.arange(20)[None] - np.arange(20)[:, None]
    both, after = TASKS["together"](ground), TASKS["follows"](ground)
    assert (both.together.toarray() == ((abs(distance) <= 5) & (distance != 0))).all()
    assert (after.together.toarray() == ((distance > 0) & (distance <= 5))).all()


@pytest.mark.parametrize("name", TASKS)
def test_every_task_can_be_learned(name, goods, base, tmp_path):
    """Prices, and how often an item is rated how, go by the category, which the texts tell."""
    length = pl.col("category").str.len_chars()
    priced = goods.items.with_columns(price=length.cast(pl.Float64) + 1)
    rated = goods.interactions.join(priced, on="item_id").select(
        "user_id", "item_id", "timestamp", rating=(length % 5).cast(pl.Float64)
    )
    config = EncoderTraining(steps=60, trained_layers=2, batch=256, learning_rate=3e-3, patience=100)
    shown = priced.select(
        pl.col("title").alias("text"), impressions=100, clicks=length % 10, group=pl.int_range(pl.len()) % 20
    )
    more = {"same": {"same": "category"}, "clicks": {"impressions": shown}}.get(name, {})
    found = train_encoder(priced, rated, out=tmp_path / "encoder", base=base, config=config, tasks=name, **more)
    losses = [value for _, value in found.report.curve(f"loss/{name}")]
    assert losses[-1] < losses[0]


def test_tasks_without_ground_are_told_and_left_out(goods, base, tmp_path):
    config = EncoderTraining(steps=2, trained_layers=2, batch=16)
    with pytest.warns(DataWarning, match="no ground for the tasks 'rating'"):
        found = train_encoder(
            goods.items, goods.interactions, out=tmp_path / "encoder", base=base, config=config,
            tasks=["together", "rating"],
        )  # fmt: skip
    assert found.tasks == ("together",)


def test_a_task_of_ones_own(goods, base, tmp_path):
    def length(ground):
        """How long the title is."""
        sizes = np.array([[len(text)] for text in ground.texts], np.float32)[ground.rows]
        texts = [ground.texts[row] for row in ground.rows]
        return Numbers(texts, (sizes - sizes.mean()) / sizes.std(), torch.nn.Linear(ground.dim, 1))

    config = EncoderTraining(steps=60, trained_layers=2, batch=128, learning_rate=3e-3, patience=100)
    found = train_encoder(
        goods.items, goods.interactions, out=tmp_path / "encoder", base=base, config=config, tasks={"length": length}
    )  # fmt: skip
    losses = [value for _, value in found.report.curve("loss/length")]
    assert losses[-1] < losses[0]


def test_a_step_that_runs_out_of_memory_goes_on_with_less(goods, base, tmp_path, monkeypatch):
    forward = Tower.forward

    def small(self, rows):
        if torch.is_grad_enabled() and self.lengths[rows].sum() > 1500:
            raise torch.OutOfMemoryError
        return forward(self, rows)

    monkeypatch.setattr(Tower, "forward", small)
    found = train_encoder(goods.items, goods.interactions, out=tmp_path / "encoder", base=base, config=QUICK)
    assert any("ran out of memory" in note for note in found.report.notes)
    assert found.score > found.base


def test_an_unknown_task_is_named(goods, base, tmp_path):
    with pytest.raises(InvalidDataError, match="no task 'togther'"):
        train_encoder(goods.items, goods.interactions, out=tmp_path / "encoder", base=base, tasks="togther")
    assert not (tmp_path / "encoder").exists()


def test_all_layers_of_a_small_model_learn(base, trained, goods, tmp_path):
    config = EncoderTraining(steps=2, batch=16, trained_layers=9)
    found = train_encoder(goods.items, goods.interactions, out=tmp_path / "encoder", base=base, config=config)
    assert found.report.curve("loss/together")


def test_a_damaged_checkpoint_is_named(goods, base, tmp_path):
    class Killer:
        def log(self, step, values):
            if step == 20:
                raise KeyboardInterrupt

    given = {"out": tmp_path / "encoder", "base": base, "config": QUICK}
    with pytest.raises(KeyboardInterrupt):
        train_encoder(goods.items, goods.interactions, trackers=[Killer()], **given)
    file = tmp_path / ".encoder.training" / "checkpoint.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(EncoderError, match="is damaged"):
        train_encoder(goods.items, goods.interactions, **given)


def test_a_refused_call_does_not_stand_in_the_way_of_the_next(goods, base, tmp_path):
    from transformers import GPT2Config, GPT2Model

    folder = tiny_bert(tmp_path / "gpt", ["a b"])
    GPT2Model(GPT2Config(vocab_size=50, n_positions=64, n_embd=32, n_layer=2, n_head=2)).save_pretrained(folder)
    given = {"out": tmp_path / "encoder", "tasks": "dropout", "config": EncoderTraining(steps=2, batch=16)}
    with pytest.raises(EncoderError, match="not built like BERT"):
        train_encoder(goods.items, base=folder, **given)
    train_encoder(goods.items, base=base, **given)


def test_lists_in_a_text_column_are_read(goods, base, tmp_path):
    listed = goods.items.with_columns(category=pl.concat_list("category", "brand"))
    config = EncoderTraining(steps=2, batch=16, trained_layers=2)
    assert train_encoder(listed, out=tmp_path / "encoder", base=base, config=config).tasks == ("views",)


def test_layers_that_need_more_than_states_are_refused(goods, tmp_path):
    """MPNet's layers want to know how far tokens are apart: without it they give other vectors, and no error."""
    from transformers import MPNetConfig, MPNetModel

    folder = tiny_bert(tmp_path / "mpnet", Catalog.read(goods.items).texts)
    size = json.loads((folder / "config.json").read_text())["vocab_size"]
    torch.manual_seed(0)
    model = MPNetModel(
        MPNetConfig(
            vocab_size=size, hidden_size=32, num_hidden_layers=3, num_attention_heads=2, intermediate_size=64,
            max_position_embeddings=66,
        )
    )  # fmt: skip
    with torch.no_grad():
        model.encoder.relative_attention_bias.weight.normal_(std=5.0)
    model.save_pretrained(folder)
    with pytest.raises(EncoderError, match="not built like BERT"):
        Base.load(folder)


def test_electra_with_narrow_words_can_learn(goods, tmp_path):
    from transformers import ElectraConfig, ElectraModel

    folder = tiny_bert(tmp_path / "electra", Catalog.read(goods.items).texts)
    size = json.loads((folder / "config.json").read_text())["vocab_size"]
    ElectraModel(
        ElectraConfig(
            vocab_size=size, embedding_size=16, hidden_size=32, num_hidden_layers=3, num_attention_heads=2,
            intermediate_size=64, max_position_embeddings=64,
        )
    ).save_pretrained(folder)  # fmt: skip
    found = train_encoder(goods.items, goods.interactions, out=tmp_path / "encoder", base=folder, config=QUICK)
    assert found.score > found.base


def test_mecold_tuned_trains_inside_the_split(goods, base, tmp_path):
    data = Dataset.read(goods.interactions, goods.items, encoder=TextEncoder(base, cache=None))
    system, out = MecoldTuned(steps=20, layers=2), tmp_path / "report"
    report = evaluate([system, "popularity"], data, protocol="item", seeds=(0,), out=out)
    assert report.data["systems"]["mecold-tuned"]["mean"]["10"]["ndcg@10"]["mean"] > 0
    told = report.data["systems"]["mecold-tuned"]["told"]["0"]
    assert "told" not in report.data["systems"]["popularity"]
    assert told.startswith(("Texts: ", "The base was kept"))
    assert escape(told) in (out / "index.html").read_text()
    again = evaluate([system, "popularity"], data, protocol="item", seeds=(0,), out=out)  # from what is kept
    assert again.data["systems"]["mecold-tuned"]["told"] == {"0": told}
    blind = Dataset.read(goods.interactions, goods.items, encoder=word_vectors(list(data.catalog.texts)))
    with pytest.raises(InvalidDataError, match="mecold-tuned needs a TextEncoder"):
        evaluate("mecold-tuned", blind, protocol="item", seeds=(0,))


def test_a_folder_that_is_in_the_way_is_left_alone(goods, base, tmp_path):
    (tmp_path / "encoder").mkdir()
    (tmp_path / "encoder" / "mine.txt").write_text("mine")
    with pytest.raises(EncoderError, match="not an empty folder"):
        train_encoder(goods.items, goods.interactions, out=tmp_path / "encoder", base=base, config=QUICK)
    assert (tmp_path / "encoder" / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize("setting", [{"steps": 0}, {"held_out": 1.0}, {"blends": ()}, {"temperature": 0.0}])
def test_settings_that_cannot_be_used_are_named(setting):
    with pytest.raises(InvalidDataError, match=next(iter(setting))):
        EncoderTraining(**setting)


def test_the_command_line_trains_and_fit_reads_what_it_wrote(goods, base, tmp_path):
    goods.items.write_parquet(tmp_path / "items.parquet")
    goods.interactions.write_parquet(tmp_path / "log.parquet")
    files = ["--items", str(tmp_path / "items.parquet"), "--interactions", str(tmp_path / "log.parquet")]
    out = str(tmp_path / "encoder")
    ran = CliRunner().invoke(
        app, ["encoder", "train", *files, "--out", out, "--base", str(base), "--steps", "5", "--layers", "2", "--json"]
    )
    assert ran.exit_code == 0, ran.output
    assert json.loads(ran.stdout.splitlines()[-1])["tasks"] == ["together"]
    ran = CliRunner().invoke(app, ["fit", *files, "--encoder", out, "--out", str(tmp_path / "model"), "--json"])
    assert ran.exit_code == 0, ran.output
    both = [
        "--encoder",
        str(base),
        "--tune-encoder",
        str(tmp_path / "tuned"),
        "--out",
        str(tmp_path / "model2"),
        "--json",
    ]
    ran = CliRunner().invoke(app, ["fit", *files, *both])
    assert ran.exit_code == 0, ran.output
    answer = json.loads(ran.stdout.splitlines()[-1])
    first, mine = TextEncoder(base, cache=None), TextEncoder(tmp_path / "tuned", cache=None)
    candidates = {"base": first, "trained": mine, "both": SideBySide(first, mine)}
    taken = candidates[answer["encoder_choice"].removeprefix("Texts: ").partition(".")[0]]
    assert answer["encoder"] == taken.fingerprint
    assert Recommender.load(tmp_path / "model2", encoder=taken).info()["encoder"] == taken.fingerprint
    two = ["--encoder", str(base), "--encoder", out, "--json"]
    ran = CliRunner().invoke(app, ["fit", *files, *two, "--out", str(tmp_path / "model3")])
    assert json.loads(ran.stdout.splitlines()[-1])["encoder"].count(" beside ") == 1
    ran = CliRunner().invoke(
        app, ["fit", *files, *two, "--out", str(tmp_path / "m"), "--tune-encoder", str(tmp_path / "t")]
    )
    assert ran.exit_code == 1 and "starts from one encoder" in " ".join(ran.output.split())
    ran = CliRunner().invoke(app, ["fit", *files, "--tune-encoder", out, "--out", out, "--json"])
    assert ran.exit_code == 1
