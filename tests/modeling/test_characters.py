"""Characters of tokens: the vectorised spelling against the plain one, and numbers that go on."""

from __future__ import annotations

import copy
import json
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from neurallib.modeling_neurallib.characters import CharacterTable

PIECES = [
    b"",
    b"a",
    b"12",
    b"9",
    b" x",
    b"\xc3",
    b"\xa9",
    b"\xe2\x82",
    b"\xac",
    b"caf\xc3\xa9",
    b"\xf0\x9f\x98\x80",
    b"-",
    b" 7",
    b"\xef\xbf\xbd",
    b"\xf0\x9f",
    b"\xed\xa0",
]


def table_of(pieces: list[bytes]) -> CharacterTable:
    return CharacterTable(
        np.frombuffer(b"".join(pieces), dtype=np.uint8), np.cumsum([0, *map(len, pieces)]).astype(np.int64)
    )


TABLE = table_of(PIECES)


def size_of_the_first(data: bytes) -> int:
    """Bytes of the first character, or of the broken stretch that stands in its place."""
    for size in range(1, 5):
        with suppress(UnicodeDecodeError):
            if len(data[:size].decode()) == 1:
                return size
    with pytest.raises(UnicodeDecodeError) as broken:
        data.decode()
    return broken.value.end


def plain(tokens: list[int]) -> tuple[list[int], list[int], list[bool]]:
    """One character after the other, each with the token of its first byte."""
    points, owners, boundary = [], [], []
    stretch: list[tuple[int, int]] = []

    def flush() -> None:
        at, data = 0, bytes(byte for byte, _ in stretch)
        for number, character in enumerate(data.decode(errors="replace")):
            points.append(ord(character))
            owners.append(stretch[at][1])
            boundary.append(number == 0)
            at += size_of_the_first(data[at:])
        stretch.clear()

    for position, token in enumerate(tokens):
        if token < 0 or not PIECES[token]:
            flush()
            continue
        stretch.extend((byte, position) for byte in PIECES[token])
    flush()
    return points, owners, boundary


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(-1, len(PIECES) - 1), max_size=24))
def test_characters_are_those_of_the_plain_definition(tokens: list[int]) -> None:
    found = TABLE.characters(tokens)
    assert (found.code_points.tolist(), found.tokens.tolist(), found.boundary.tolist()) == plain(tokens)


def test_tokens_that_go_on_with_a_number() -> None:
    tokens = np.array([[2, 3, 2, 4, 2, 12, 3, 0, 3], [3, 3, -1, 3, 1, 2, 11, 2, 2]])
    goes_on = TABLE.goes_on(tokens, np.array([3, -1]))
    # "12" after "9", "9", "12" | " x" | "12" | " 7" begins anew, "9" | a special token | "9"
    assert goes_on.tolist() == [
        [True, True, True, False, False, False, True, False, False],
        [False, True, False, False, False, False, False, False, True],
    ]


def test_what_is_no_token_of_the_table_goes_on_with_nothing() -> None:
    beyond = len(TABLE)
    assert TABLE.goes_on(np.array([[3, beyond, 3, 3]]), np.array([beyond])).tolist() == [[False, False, False, True]]


@pytest.mark.parametrize("broken", [b"\xef\xbf\xbd", b"\xe2\x82", b"\xf0\x9f\x98", b"\xed\xa0\x80", b"\x80\xff"])
def test_characters_behind_broken_ones_keep_their_tokens(broken: bytes) -> None:
    table = table_of([broken, b" ", b"1", b"2", "é".encode()])
    characters = table.characters([0, 1, 2, 3, 0, 4, 2])
    assert characters.text() == (broken + b" 12" + broken + "é1".encode()).decode(errors="replace")
    replaced = len(broken.decode(errors="replace"))
    assert characters.tokens.tolist() == [*[0] * replaced, 1, 2, 3, *[4] * replaced, 5, 6]


def sentencepiece_tokenizer(pieces: str) -> Any:
    """A vocabulary of byte tokens, then of single characters, as that of Llama 2."""
    from tokenizers import Tokenizer, models, normalizers
    from transformers import PreTrainedTokenizerFast

    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *pieces]
    vocabulary = {name: index for index, name in enumerate(names)}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[], byte_fallback=True, unk_token="<unk>"))
    backend.normalizer = normalizers.Replace(" ", "▁")
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


@pytest.mark.parametrize("text", ["12 abc", "Ġ a", "a\n1", "é 0"])
def test_a_sentencepiece_vocabulary_is_cut_as_its_tokenizer_cuts(text: str) -> None:
    tokenizer = sentencepiece_tokenizer("▁0123456789abcĠ")
    # Llama 2 has more tokens with a space than with the letter "Ġ".
    tokenizer.add_tokens(["▁▁"])
    table = CharacterTable.from_tokenizer(tokenizer, 300)
    tokens = tokenizer(text).input_ids
    assert table.characters(tokens).text() == text
    assert table.cut(text) == tokens


def test_added_tokens_spell_themselves(tiny_tokenizer: Any) -> None:
    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.add_tokens(["café", "Ġx", " <tool>"])
    table = CharacterTable.from_tokenizer(tokenizer, len(tokenizer))
    text = "un café <tool> noir"
    assert table.characters(tokenizer(text).input_ids).text() == text
    assert table.bytes_of(tokenizer.convert_tokens_to_ids("Ġx")) == "Ġx".encode()


def test_a_vocabulary_with_unused_numbers_is_spelt_to_its_end(tiny_tokenizer: Any) -> None:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    description = json.loads(tiny_tokenizer.backend_tokenizer.to_str())
    vocabulary = description["model"]["vocab"]
    vocabulary["7"] = len(tiny_tokenizer) + 20
    backend = Tokenizer.from_str(json.dumps(description))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=tiny_tokenizer.eos_token)
    table = CharacterTable.from_tokenizer(tokenizer, len(tiny_tokenizer) + 30)
    assert table.cut("7") == tokenizer("7").input_ids == [len(tiny_tokenizer) + 20]
