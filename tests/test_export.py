"""Encoders as ONNX graphs: the same vectors, or nearly; nothing is written that is wrong."""

import json
import pickle
import shutil

import numpy as np
import pytest
from typer.testing import CliRunner

from mecold import EncoderError, InvalidDataError, TextEncoder
from mecold.cli.main import app
from mecold.data.catalog import Catalog
from mecold.encode.onnx import ONNX
from mecold.tuning import export
from mecold.tuning.export import export_encoder
from mecold.tuning.train import train_encoder
from tests.test_tuning import tiny_bert

TEXTS = ["red pen", "a green notebook, lined", "", "pen " * 200, "notebook"]


@pytest.fixture(scope="module")
def base(shop, tmp_path_factory):
    return tiny_bert(tmp_path_factory.mktemp("tiny") / "bert", [*Catalog.read(shop.items).texts, *TEXTS])


@pytest.fixture(scope="module")
def exported(base, tmp_path_factory):
    place = tmp_path_factory.mktemp("exports")
    return {name: export_encoder(base, out=place / name, precision=name) for name in ("fp32", "int8")}


def vectors(folder, texts=TEXTS, **settings):
    return TextEncoder(folder, device="cpu", cache=None, **settings).encode(texts)


def test_the_same_numbers_give_the_same_vectors(base, exported):
    np.testing.assert_allclose(vectors(exported["fp32"].folder), vectors(base), atol=1e-5)
    np.testing.assert_allclose(
        vectors(exported["fp32"].folder, batch_tokens=8), vectors(base), atol=1e-5
    )  # whatever the shape of a batch


def test_eight_bits_are_nearly_the_same_and_smaller(base, exported):
    cosines = (vectors(exported["int8"].folder) * vectors(base)).sum(1)
    assert 0.98 < cosines.min() <= cosines.max() < 1 - 1e-6
    assert exported["int8"].megabytes < 0.8 * exported["fp32"].megabytes
    assert 0.9 < exported["int8"].cosine < exported["fp32"].cosine == pytest.approx(1.0, abs=1e-5)


def test_each_export_is_an_encoder_of_its_own(base, exported):
    names = {TextEncoder(one, cache=None).fingerprint for one in (base, *(e.folder for e in exported.values()))}
    assert len(names) == 3


def test_a_model_is_fitted_on_an_export(shop, fit, exported):
    encoder = TextEncoder(exported["int8"].folder, cache=None)
    model = fit(shop.interactions, shop.items, encoder=encoder)
    assert model.info()["encoder"] == encoder.fingerprint
    assert len(model.recommend(model.adapt_user([shop.items["item_id"][0]]), k=5)) == 5


def test_the_command_line_exports(base, tmp_path):
    out = tmp_path / "small"
    ran = CliRunner().invoke(app, ["encoder", "export", "--encoder", str(base), "--out", str(out), "--json"])
    assert ran.exit_code == 0, ran.output
    assert json.loads(ran.stdout)["precision"] == "int8"
    assert vectors(out).shape == (len(TEXTS), 32)
    again = CliRunner().invoke(app, ["encoder", "export", "--encoder", str(base), "--out", str(out)])
    assert again.exit_code == 1 and "not an empty folder" in " ".join(again.output.split())


def test_a_wrong_graph_is_not_written(base, tmp_path, monkeypatch):
    monkeypatch.setitem(export.LEAST_COSINE, "int8", 1.1)
    with pytest.raises(EncoderError, match=r"other vectors than the model.*precision='fp32'"):
        export_encoder(base, out=tmp_path / "out")
    assert not any(tmp_path.iterdir())


def test_another_precision_is_named(base, tmp_path):
    with pytest.raises(InvalidDataError, match="precision='int4' must be one of int8, fp32"):
        export_encoder(base, out=tmp_path / "out", precision="int4")


def test_what_is_missing_is_named(base, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "NEEDED", ("onnx", "no_such_package"))
    with pytest.raises(ImportError, match=r"no_such_package: pip install 'mecold\[onnx\]'"):
        export_encoder(base, out=tmp_path / "out")


def test_an_export_is_neither_exported_nor_trained(shop, exported, tmp_path):
    folder = exported["int8"].folder
    with pytest.raises(EncoderError, match="holds an export already"):
        export_encoder(folder, out=tmp_path / "again")
    with pytest.raises(EncoderError, match="holds an ONNX graph, which cannot learn"):
        train_encoder(shop.items, shop.interactions, out=tmp_path / "trained", base=folder)


def test_a_damaged_graph_is_named(exported, tmp_path):
    broken = tmp_path / "broken"
    (broken / ONNX).parent.mkdir(parents=True)
    for file in exported["int8"].folder.iterdir():
        if file.is_file():
            (broken / file.name).write_bytes(file.read_bytes())
    (broken / ONNX).write_bytes((exported["int8"].folder / ONNX).read_bytes()[:1000])
    with pytest.raises(EncoderError, match=r"Cannot load '.*model.onnx'"):
        TextEncoder(broken)


def test_a_model_on_an_export_can_be_copied(base, exported):
    encoder = TextEncoder(exported["int8"].folder, device="cpu", cache=None)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(encoder)).encode(TEXTS), encoder.encode(TEXTS))


def test_wrong_numbers_are_no_likeness(base, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "_cosine", lambda *_: float("nan"))
    with pytest.raises(EncoderError, match="other vectors than the model"):
        export_encoder(base, out=tmp_path / "out")


def test_a_model_that_cannot_be_exported_is_named_with_the_reason(base, tmp_path, monkeypatch):
    def broken(*_):
        raise RuntimeError("step 1 of 3") from ValueError("no such operator: twist")

    monkeypatch.setattr(export, "_export", broken)
    with pytest.raises(EncoderError, match=r"\(BertModel\) cannot be exported: no such operator: twist"):
        export_encoder(base, out=tmp_path / "out")
    assert not any(tmp_path.iterdir())


def test_a_plain_folder_of_another_kind_is_exported(base, tmp_path):
    from transformers import DistilBertConfig, DistilBertModel

    shutil.copytree(base, tmp_path / "distil")
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "distil" / name).unlink()
    vocabulary = json.loads((base / "config.json").read_text())["vocab_size"]
    DistilBertModel(
        DistilBertConfig(
            vocab_size=vocabulary, dim=32, hidden_dim=64, n_layers=2, n_heads=2, max_position_embeddings=64
        )
    ).save_pretrained(tmp_path / "distil")
    found = export_encoder(tmp_path / "distil", out=tmp_path / "out", precision="fp32")
    np.testing.assert_allclose(vectors(found.folder), vectors(tmp_path / "distil"), atol=1e-5)
