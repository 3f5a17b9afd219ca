"""Encoders that are no small English BERT: decoder-only models, and models that read Chinese."""

import json

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import BertConfig, BertModel, GPT2Config, GPT2Model, PreTrainedTokenizerFast, Qwen2Config, Qwen2Model

from mecold import EncoderError, TextEncoder

TITLES = ["red pen", "a green notebook with a hard cover", "pen", "blue pen, pack of ten", "desk lamp"]
CHINESE = ["红色钢笔", "绿色硬皮笔记本", "蓝色圆珠笔十支装", "台灯", "红色台灯", "儿童水彩笔套装"]
DECODERS = {
    "gpt2": (GPT2Model, GPT2Config(n_positions=64, n_embd=32, n_layer=2, n_head=2, bos_token_id=1, eos_token_id=1)),
    "qwen2": (Qwen2Model, Qwen2Config(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
                                      intermediate_size=64, max_position_embeddings=64)),
}  # fmt: skip


def byte_tokenizer(folder, texts, **special):
    """Reads every byte, as those of GPT-like models do; learned from some texts."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=400, special_tokens=list(special.values()), initial_alphabet=alphabet)
    )
    found = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=64, **special)
    found.save_pretrained(folder)
    return len(tokenizer.get_vocab())


def sentence_folder(folder, pooling, prompt=""):
    """What sentence-transformers writes beside a model."""
    kinds = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
    modules = [
        {"idx": at, "name": str(at), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for at, (path, kind) in enumerate(kinds.items())
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    (folder / "2_Normalize").mkdir()
    about = {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": False, f"pooling_mode_{pooling}": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(about))
    prompts = {"prompts": {"query": prompt}, "default_prompt_name": "query" if prompt else None}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(prompts))


@pytest.mark.parametrize("prompt", ["", "Instruct: what goes with it\nItem: "])
@pytest.mark.parametrize("kind", DECODERS)
def test_decoder_only_models_give_the_state_of_their_last_token(kind, prompt, tmp_path):
    torch.manual_seed(0)
    size = byte_tokenizer(tmp_path, TITLES, pad_token="<pad>", eos_token="<end>")
    make, config = DECODERS[kind]
    config.vocab_size = size
    make(config).save_pretrained(tmp_path)
    sentence_folder(tmp_path, "lasttoken", prompt)
    encoder = TextEncoder(tmp_path, cache=None, device="cpu")
    assert (encoder.pooling, encoder.prompt) == ("last", prompt)
    theirs = SentenceTransformer(str(tmp_path), device="cpu").encode(TITLES, normalize_embeddings=True)
    np.testing.assert_allclose(encoder.encode(TITLES), theirs, atol=1e-5)
    alone = np.concatenate([encoder.encode([title]) for title in TITLES])
    np.testing.assert_allclose(encoder.encode(TITLES), alone, atol=1e-5)  # padding says nothing


def test_a_tokenizer_without_a_token_for_padding_will_do(tmp_path):
    config = DECODERS["gpt2"][1]
    config.vocab_size = byte_tokenizer(tmp_path, TITLES, eos_token="<end>")
    GPT2Model(config).save_pretrained(tmp_path)
    encoder = TextEncoder(tmp_path, pooling="last", cache=None, device="cpu")
    alone = np.concatenate([encoder.encode([title]) for title in TITLES])
    np.testing.assert_allclose(encoder.encode(TITLES), alone, atol=1e-5)


def test_other_ways_of_pooling_are_refused(tmp_path):
    config = DECODERS["gpt2"][1]
    config.vocab_size = byte_tokenizer(tmp_path, TITLES, eos_token="<end>")
    GPT2Model(config).save_pretrained(tmp_path)
    sentence_folder(tmp_path, "weightedmean_tokens")
    with pytest.raises(EncoderError, match="mean, cls and last token"):
        TextEncoder(tmp_path, cache=None)


def test_chinese_titles_are_read_by_a_tokenizer_that_knows_them(tmp_path):
    """The default model has one token for all of these words; a multilingual one tells the titles apart."""
    size = byte_tokenizer(tmp_path, CHINESE, pad_token="<pad>", eos_token="<end>")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=size, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=64,
    )  # fmt: skip
    BertModel(config).save_pretrained(tmp_path)
    encoder = TextEncoder(tmp_path, cache=None, device="cpu")
    assert not encoder.unread(CHINESE)
    assert len(np.unique(encoder.encode(CHINESE).round(4), axis=0)) == len(CHINESE)
    assert TextEncoder(cache=None, device="cpu").unread(CHINESE)
