"""Arithmetic by circuits of soft logic gates: the dense engine's other arithmetic unit, beside its lookup tables.

A word of n = log2 V digits is held as n probabilities, each that one digit is 1, least significant first. A gate is the
multilinear function that agrees with its truth table at 0 and 1, so a circuit is exact on exact digits and
differentiable everywhere:

    not a = 1 − a      a and b = a b      a or b = a + b − a b      a xor b = a + b − 2 a b

A distribution over V words becomes digits by the marginals, and digits become a distribution by the product of their
probabilities. That is where a circuit forgets: a table keeps the whole joint distribution of its result, a circuit only
the marginals of its digits. Where the operands' digits are independent, those marginals are exact for addition,
subtraction, comparison, shifts and digit by digit operations, in which no gate meets the same variable twice;
multiplication, division, ``min`` and ``max`` reuse digits and are exact at one-hot operands only.

A circuit costs O(n² + V) a row where a table costs O(V²); the O(V) is the change of coding.

Source: arXiv 2407.04899 (operations as tables and as circuits). Ripple carry, carry save, the barrel shifter and
restoring division are the textbook circuits.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import pad


@lru_cache(maxsize=64)
def _binary(values: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The digits of every word, [V, n]."""
    words = torch.arange(values, device=device)
    return (words[:, None] >> torch.arange(values.bit_length() - 1, device=device) & 1).to(dtype)


def digits(words: Tensor) -> Tensor:
    """The probability of each digit of words given as distributions: [..., V] → [..., log2 V]."""
    return words @ _binary(words.shape[-1], words.dtype, words.device)


def distribution(bits: Tensor) -> Tensor:
    """Words whose digits are independent: [..., n] → [..., 2**n]. Rows sum to one for every input."""
    whole = torch.ones_like(bits[..., :1])
    for bit in bits.unbind(-1):
        whole = torch.cat([whole * (1 - bit)[..., None], whole * bit[..., None]], dim=-1)
    return whole


# Gates, on tensors of any shape


def soft_xor(a: Tensor, b: Tensor) -> Tensor:
    return a + b - 2 * a * b


def soft_or(a: Tensor, b: Tensor) -> Tensor:
    return a + b - a * b


def choose(condition: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    """Digits [..., n] of one word or the other, by one digit [...]."""
    return no + condition[..., None] * (yes - no)


def full_adder(a: Tensor, b: Tensor, carry: Tensor) -> tuple[Tensor, Tensor]:
    """Sum and carry of three digits. The two ways to carry exclude each other, so their probabilities add."""
    half = soft_xor(a, b)
    return soft_xor(half, carry), a * b + half * carry


# Circuits, on digits [..., n]


def ripple_carry(a: Tensor, b: Tensor, carry: Tensor) -> tuple[Tensor, Tensor]:
    """a + b + carry: the digits [..., n] and the last carry [...]. Subtraction is a + (not b) + 1."""
    result = []
    for x, y in zip(a.unbind(-1), b.unbind(-1), strict=True):
        total, carry = full_adder(x, y, carry)
        result.append(total)
    return torch.stack(result, dim=-1), carry


def at_least(a: Tensor, b: Tensor) -> Tensor:
    """The probability [...] that a ≥ b as unsigned words: the last carry of a − b."""
    carry = torch.ones_like(a[..., 0])
    for x, y in zip(a.unbind(-1), (1 - b).unbind(-1), strict=True):
        carry = x * y + soft_xor(x, y) * carry
    return carry


def _up(bits: Tensor, places: int) -> Tensor:
    """Digits moved to higher places, zeros following."""
    return pad(bits, (places, 0))[..., : bits.shape[-1]]


def _add(a: Tensor, b: Tensor) -> Tensor:
    return ripple_carry(a, b, torch.zeros_like(a[..., 0]))[0]


def _subtract(a: Tensor, b: Tensor) -> Tensor:
    return ripple_carry(a, 1 - b, torch.ones_like(a[..., 0]))[0]


def _multiply(a: Tensor, b: Tensor) -> Tensor:
    """Shift and add: a row of partial products for each digit of b, summed with the carries saved to the end."""
    total, carries = torch.zeros_like(a), torch.zeros_like(a)
    for place, bit in enumerate(b.unbind(-1)):
        total, carries = full_adder(total, _up(a * bit[..., None], place), carries)
        carries = _up(carries, 1)
    return _add(total, carries)


def _signed_if(negative: Tensor, bits: Tensor) -> Tensor:
    """−x where ``negative`` [...], else x."""
    return ripple_carry(soft_xor(bits, negative[..., None]), torch.zeros_like(bits), negative)[0]


def _any(bits: Tensor) -> Tensor:
    return 1 - (1 - bits).prod(-1)


def _long_division(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Quotient and rest of unsigned words, by restoring division."""
    rest, quotient = torch.zeros_like(a), []
    one = torch.ones_like(a[..., 0])
    for bit in reversed(a.unbind(-1)):
        rest = torch.cat([bit[..., None], rest[..., :-1]], dim=-1)
        difference, fits = ripple_carry(rest, 1 - b, one)
        rest = choose(fits, difference, rest)
        quotient.append(fits)
    return torch.stack(quotient[::-1], dim=-1), rest


def _divide(a: Tensor, b: Tensor) -> Tensor:
    """⌊a / b⌋: the quotient of the magnitudes, negated, and one less if the signs differ and something is left."""
    negative, below = a[..., -1], b[..., -1]
    quotient, rest = _long_division(_signed_if(negative, a), _signed_if(below, b))
    differ = soft_xor(negative, below)
    zeros = torch.zeros_like(a)
    # −q = (not q) + 1, and −q − 1 = not q.
    floor = ripple_carry(soft_xor(quotient, differ[..., None]), zeros, differ * (1 - _any(rest)))[0]
    return floor * _any(b)[..., None]


def _modulo(a: Tensor, b: Tensor) -> Tensor:
    """a − b·⌊a / b⌋, which has the sign of b; a itself for b = 0."""
    negative, below = a[..., -1], b[..., -1]
    divisor = _signed_if(below, b)
    _, rest = _long_division(_signed_if(negative, a), divisor)
    other_side = soft_xor(negative, below) * _any(rest)
    magnitude = choose(other_side, _subtract(divisor, rest), rest)
    return choose(_any(b), _signed_if(below, magnitude), a)


def _shift(a: Tensor, b: Tensor, left: bool) -> Tensor:
    """A barrel shifter: stage k moves by 2^k. A negative amount has its highest digit set and moves everything out."""
    width, sign = a.shape[-1], a[..., -1:]
    for stage, bit in enumerate(b.unbind(-1)):
        places = min(2**stage, width)
        moved = _up(a, places) if left else torch.cat([a[..., places:], *[sign] * places], dim=-1)
        a = choose(bit, moved, a)
    return a


def _less_than(a: Tensor, b: Tensor) -> Tensor:
    """Two's complement: with the sign digits exchanged the order is that of unsigned words."""
    return 1 - at_least(torch.cat([a[..., :-1], b[..., -1:]], -1), torch.cat([b[..., :-1], a[..., -1:]], -1))


_WORDS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": _add,
    "subtract": _subtract,
    "multiply": _multiply,
    "divide": _divide,
    "modulo": _modulo,
    "min": lambda a, b: choose(_less_than(a, b), a, b),
    "max": lambda a, b: choose(_less_than(a, b), b, a),
    "and": lambda a, b: a * b,
    "or": soft_or,
    "xor": soft_xor,
    "shift_left": lambda a, b: _shift(a, b, left=True),
    "shift_right": lambda a, b: _shift(a, b, left=False),
}
"""Circuits whose result is a word."""

_TRUTHS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "equal": lambda a, b: (1 - soft_xor(a, b)).prod(-1),
    "less_than": _less_than,
}
"""Circuits whose result is 0 or 1."""

CIRCUITS = frozenset(_WORDS | _TRUTHS)
"""Operations that have a circuit. ``move`` and ``constant`` are wires."""


def evaluate_circuit(form: str, a: Tensor, b: Tensor) -> Tensor:
    """The value of one of ``CIRCUITS`` on distributions over words, [B, V] each, as a distribution [B, V].

    On one-hot operands it is the one-hot word of the operation's table, edge values included.
    """
    values = a.shape[-1]
    if form in _TRUTHS:
        true = _TRUTHS[form](digits(a), digits(b))
        return pad(torch.stack([1 - true, true], dim=-1), (0, values - 2))
    return distribution(_WORDS[form](digits(a), digits(b)))
