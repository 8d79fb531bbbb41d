"""Characters of tokens, and tokens of characters: what lets one reader and one writer serve every vocabulary.

A token of a byte-level vocabulary is a string of bytes. The table of all of them is a buffer of the model (``token_bytes``,
``token_offsets``), so that a model pulled from the Hub reads and writes characters without its tokenizer.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np


class TokenizerError(ValueError):
    """A tokenizer whose tokens cannot be turned into characters."""


_BYTE_TOKEN = re.compile("<0x[0-9A-F]{2}>")
"""How a SentencePiece vocabulary names the token of a byte."""


def _bytes_of_byte_level_symbols() -> dict[str, int]:
    """The printable stand-ins that byte-level BPE (GPT-2, Llama 3, SmolLM2) uses for the 256 bytes."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table = {chr(byte): byte for byte in printable}
    hidden = [byte for byte in range(256) if byte not in printable]
    table.update({chr(0x100 + position): byte for position, byte in enumerate(hidden)})
    return table


_BROKEN = 0xDC00
"""A code point that no UTF-8 spells: decoding puts it, plus the number of bytes, in place of a broken stretch."""

_SIZED = f"{__name__}.sized"


def _sized(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return chr(_BROKEN + error.end - error.start), error.end


codecs.register_error(_SIZED, _sized)


def _decoded(data: bytes) -> tuple[np.ndarray, np.ndarray]:
    """The code points that UTF-8 spells and the byte at which each begins, int64 [C] both; U+FFFD for a broken stretch."""
    if data.isascii():
        return np.frombuffer(data, dtype=np.uint8).astype(np.int64), np.arange(len(data))
    text = data.decode("utf-8", errors=_SIZED)
    points = np.frombuffer(text.encode("utf-32-le", errors="surrogatepass"), dtype="<u4").astype(np.int64)
    sizes = 1 + (points >= 0x80) + (points >= 0x800) + (points >= 0x10000)
    broken = (points >= _BROKEN) & (points < 0xE000)
    sizes[broken] = points[broken] - _BROKEN
    points[broken] = 0xFFFD
    return points, np.cumsum(sizes) - sizes


@dataclass(frozen=True)
class Characters:
    """The characters of a prefix, each with the token that begins it.

    Attributes:
        code_points: int64 [C].
        tokens: int64 [C], position of the token in the prefix that holds the character's first byte; non-decreasing.
        boundary: bool [C], True where a special token stands between the character and the one before.
    """

    code_points: np.ndarray
    tokens: np.ndarray
    boundary: np.ndarray

    @property
    def digits(self) -> np.ndarray:
        """bool [C]: the decimal digits of ASCII."""
        found: np.ndarray = (self.code_points >= ord("0")) & (self.code_points <= ord("9"))
        return found

    def text(self, start: int = 0, end: int | None = None) -> str:
        return "".join(map(chr, self.code_points[start:end]))


class CharacterTable:
    """Bytes of every token: ``data[offsets[i]:offsets[i + 1]]`` are those of token i; special tokens have none.

    Args:
        data: uint8 [bytes].
        offsets: int64 [vocabulary + 1], non-decreasing, from 0 to ``len(data)``.
    """

    def __init__(self, data: np.ndarray, offsets: np.ndarray):
        self.data = np.ascontiguousarray(data, dtype=np.uint8)
        self.offsets = np.ascontiguousarray(offsets, dtype=np.int64)

    @classmethod
    def from_tokenizer(cls, tokenizer: Any, vocabulary: int) -> CharacterTable:
        """The table of a tokenizer, padded with empty tokens to the model's ``vocabulary``.

        Raises:
            TokenizerError: the tokenizer is neither byte-level nor a SentencePiece vocabulary with byte fallback.
        """
        symbols = _bytes_of_byte_level_symbols()
        added = tokenizer.added_tokens_decoder
        special = set(tokenizer.all_special_ids) | {index for index, token in added.items() if token.special}
        entries = tokenizer.get_vocab()
        tokens = tokenizer.convert_ids_to_tokens(list(range(min(1 + max(entries.values(), default=-1), vocabulary))))
        # Both signs are in both kinds: "Ġ" is a letter in Llama 2's vocabulary, "▁" is in special tokens of byte-level ones.
        byte_level = sum("Ġ" in token for token in entries) > sum("▁" in token for token in entries)
        pieces: list[bytes] = []
        for index, token in enumerate(tokens):
            if token is None or index in special:
                pieces.append(b"")
            elif byte_level:
                known = index not in added and all(symbol in symbols for symbol in token)
                pieces.append(bytes(symbols[s] for s in token) if known else token.encode())
            elif _BYTE_TOKEN.fullmatch(token):
                pieces.append(bytes([int(token[3:5], 16)]))
            else:
                pieces.append(token.replace("▁", " ").encode())
        if len(set(b"".join(pieces)) & set(b"0123456789")) < 10:
            raise TokenizerError(
                f"the vocabulary of {type(tokenizer).__name__} does not spell the ten digits; "
                "a byte-level or SentencePiece vocabulary of a Llama is expected"
            )
        pieces.extend(b"" for _ in range(vocabulary - len(pieces)))
        offsets = np.zeros(vocabulary + 1, dtype=np.int64)
        np.cumsum([len(piece) for piece in pieces], out=offsets[1:])
        return cls(np.frombuffer(b"".join(pieces), dtype=np.uint8), offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def bytes_of(self, token: int) -> bytes:
        return self.data[self.offsets[token] : self.offsets[token + 1]].tobytes()

    def characters(self, tokens: Sequence[int]) -> Characters:
        """The characters that a prefix spells. Bytes that are no UTF-8 become U+FFFD, one for each broken stretch.

        A special token ends the stretch before it, so that no character straddles it.
        """
        pieces = self._pieces
        spelt = [pieces[token] if 0 <= token < len(pieces) else b"" for token in map(int, tokens)]
        lengths = np.array([len(piece) for piece in spelt], dtype=np.int64)
        breaks = np.flatnonzero(lengths == 0).tolist()
        code_points, owners, boundary = [], [], []
        for first, last in pairwise([-1, *breaks, len(spelt)]):
            stretch = b"".join(spelt[first + 1 : last])
            if not stretch:
                continue
            points, at = _decoded(stretch)
            of_byte = np.repeat(np.arange(first + 1, last), lengths[first + 1 : last])
            begins = np.zeros(len(points), dtype=bool)
            begins[0] = True
            code_points.append(points)
            owners.append(of_byte[at])
            boundary.append(begins)
        if not code_points:
            return Characters(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, bool))
        return Characters(np.concatenate(code_points), np.concatenate(owners), np.concatenate(boundary))

    @cached_property
    def _pieces(self) -> list[bytes]:
        """The bytes of every token."""
        data, edges = self.data.tobytes(), self.offsets.tolist()
        return [data[start:end] for start, end in pairwise(edges)]

    @cached_property
    def _tokens_of_bytes(self) -> dict[bytes, int]:
        """The first token that spells each string of bytes; a byte token of SentencePiece only where no other spells it."""
        table: dict[bytes, int] = {}
        last = self._byte_tokens
        for token in (*range(last.start), *range(last.stop, len(self)), *last):
            piece = self.bytes_of(token)
            if piece and piece not in table:
                table[piece] = token
        return table

    @cached_property
    def _byte_tokens(self) -> range:
        """The tokens <0x00>…<0xFF> of a SentencePiece vocabulary, which stand in a row; none in a byte-level one."""
        begins = self.data.tobytes().find(bytes(range(256)))
        first = int(self.offsets.searchsorted(begins, side="right")) - 1
        edges = self.offsets[first : first + 257]
        if begins < 0 or not np.array_equal(edges, np.arange(begins, begins + 257)):
            return range(0)
        return range(first, first + 256)

    @cached_property
    def _longest(self) -> int:
        return int(np.diff(self.offsets).max(initial=0))

    def cut(self, text: str) -> list[int]:
        """Cut a text into tokens by one rule: from the left, always the longest token that fits.

        Raises:
            TokenizerError: the vocabulary cannot spell a byte of the text.
        """
        data = text.encode()
        tokens: list[int] = []
        start = 0
        while start < len(data):
            for end in range(min(len(data), start + self._longest), start, -1):
                token = self._tokens_of_bytes.get(data[start:end])
                if token is not None:
                    tokens.append(token)
                    start = end
                    break
            else:
                raise TokenizerError(f"the vocabulary has no token for the byte {data[start]:#04x} of a result")
        return tokens

    @cached_property
    def extending(self) -> np.ndarray:
        """bool [vocabulary]: tokens whose first character would make a number or word before them longer.

        Letters, digits, and a point or comma with a digit behind it; a byte of a longer UTF-8 character counts as a letter.
        """
        mask = np.zeros(len(self), dtype=bool)
        for token in range(len(self)):
            piece = self.bytes_of(token)
            if not piece:
                continue
            first = piece[0]
            mask[token] = (
                first >= 0x80
                or chr(first).isalnum()
                or (first in b".,'_" and len(piece) > 1 and chr(piece[1]).isalnum())
            )
        return mask

    @cached_property
    def digit_first(self) -> np.ndarray:
        """bool [vocabulary]: tokens that begin with a decimal digit."""
        return np.array([self.bytes_of(token)[:1].isdigit() for token in range(len(self))], dtype=bool)

    @cached_property
    def digit_last(self) -> np.ndarray:
        """bool [vocabulary]: tokens that end with a decimal digit."""
        return np.array([self.bytes_of(token)[-1:].isdigit() for token in range(len(self))], dtype=bool)

    @cached_property
    def _digits_at_edges(self) -> tuple[np.ndarray, np.ndarray]:
        """``digit_first`` and ``digit_last``, bool [vocabulary + 1]: behind them False, for what is no token of the table."""
        return np.append(self.digit_first, False), np.append(self.digit_last, False)

    def goes_on(self, tokens: np.ndarray, before: np.ndarray) -> np.ndarray:
        """Which tokens go on with the digits of the token before them.

        Args:
            tokens: int64 [B, T], −1 for padding; what the table does not have goes on with nothing. before: int64 [B], the
                token before the first of each row, −1 for none.
        Returns:
            bool [B, T].
        """
        previous = np.concatenate([before[:, None], tokens[:, :-1]], axis=1)
        first, last = self._digits_at_edges
        result: np.ndarray = first[np.minimum(tokens, len(self))] & last[np.minimum(previous, len(self))]
        return result
