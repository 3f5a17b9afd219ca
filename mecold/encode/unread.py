"""Texts that an encoder cannot read: words of a script that its tokenizer does not know all look alike to it."""

from collections.abc import Iterator, Sequence
from typing import Any

import polars as pl

from mecold.errors import few

_SHARE = 0.5  # of a text's words that are unknown, above which the text counts as unread
_AT_ONCE = 8192  # texts


def unread_texts(tokenizer: Any, texts: Sequence[str]) -> list[int]:
    """Places of the texts of whose words more than half become the tokenizer's unknown token.

    Words are those that the tokenizer sees and that have a letter; signs and numbers count only in a text without any
    letter. Tokenizers that know every character, byte by byte, read every text.

    Args:
        tokenizer: a fast tokenizer of `transformers`; of another kind none is found.
        texts: what is to be read.
    """
    unknown = tokenizer.unk_token_id
    if unknown is None or not tokenizer.is_fast:
        return []
    # word by word first: a large catalogue has few different words, and mostly all of them are known
    words = list({word for text in texts for word in text.split()})
    strange = {word for word, one in zip(words, _cut(tokenizer, words), strict=True) if unknown in one.ids}
    rows = [row for row, text in enumerate(texts) if not strange.isdisjoint(text.split())] if strange else []
    some = [texts[row] for row in rows]
    cut = zip(rows, some, _cut(tokenizer, some), strict=True)
    return [row for row, text, one in cut if _unknown_share(text, one, unknown) > _SHARE]


def _cut(tokenizer: Any, texts: list[str]) -> Iterator[Any]:
    for start in range(0, len(texts), _AT_ONCE):
        yield from tokenizer(texts[start : start + _AT_ONCE], add_special_tokens=False, verbose=False).encodings


def _unknown_share(text: str, encoding: Any, unknown: int) -> float:
    """Share of the words of a text that are unknown; of a word in several pieces, the share of its characters."""
    sizes: dict[int, int] = {}
    missed: dict[int, int] = {}
    lettered: set[int] = set()
    for token, word, (start, end) in zip(encoding.ids, encoding.word_ids, encoding.offsets, strict=True):
        if word is not None:
            sizes[word] = sizes.get(word, 0) + end - start
            missed[word] = missed.get(word, 0) + (end - start if token == unknown else 0)
            if any(character.isalpha() for character in text[start:end]):
                lettered.add(word)
    counted = lettered or set(sizes)
    return sum(missed[word] / max(1, sizes[word]) for word in counted) / max(1, len(counted))


def told_unread(encoder: object, items: pl.Series, texts: Sequence[str]) -> list[str]:
    """Which items an encoder cannot read, in words, if it can tell (a method `unread`, as `TextEncoder` has) and there are any.

    Args:
        encoder: the encoder.
        items: ids of the items.
        texts: their texts; one that is empty is nothing to read.
    """
    unread = getattr(encoder, "unread", None)
    rows = unread(texts) if callable(unread) else []
    if not rows:
        return []
    return [
        f"Texts: {len(rows):,} of {len(texts):,} items are mostly words that the encoder does not know "
        f"({few([items[row] for row in rows])}); texts that it cannot read have nearly one and the same vector. Pass an "
        "encoder that knows their script, for instance "
        "TextEncoder('sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2')."
    ]
