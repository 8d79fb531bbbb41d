"""Characters of tokens: the vectorised spelling against the plain one, and numbers that go on."""

from __future__ import annotations

import numpy as np
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
]
TABLE = CharacterTable(
    np.frombuffer(b"".join(PIECES), dtype=np.uint8), np.cumsum([0, *map(len, PIECES)]).astype(np.int64)
)


def plain(tokens: list[int]) -> tuple[list[int], list[int], list[bool]]:
    """One character after the other, each with the token of its first byte."""
    points, owners, boundary = [], [], []
    stretch: list[tuple[int, int]] = []

    def flush() -> None:
        at = 0
        for number, character in enumerate(bytes(byte for byte, _ in stretch).decode(errors="replace")):
            points.append(ord(character))
            owners.append(stretch[min(at, len(stretch) - 1)][1])
            boundary.append(number == 0)
            at += 1 if character == "\ufffd" else len(character.encode())
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
