"""Divisors, primes and famous sequences, for whole numbers of any length as decimal text; others give "not a whole number"."""

from __future__ import annotations

from ._decimals import problem_with_pair, read_decimal, whole_problem
from ._limbs import (
    add_limbs,
    base_for,
    compare_limbs,
    divide_by_small,
    divide_limbs,
    gcd_limbs,
    is_zero,
    limbs_of,
    multiply_by_small,
    multiply_limbs,
    remainder_limbs,
    text_of,
)
from ._numbers import compare_numbers, small_integer

NEGATIVE = "not defined for negative numbers"
TOO_LARGE = "too large"


def greatest_common_divisor(a: str, b: str) -> str:
    """The greatest common divisor of two whole numbers (highest common factor)."""
    x = read_decimal(a)
    y = read_decimal(b)
    if problem_with_pair(x, y) != "":
        return problem_with_pair(x, y)
    base = base_for(len(x) + len(y))
    return text_of(gcd_limbs(limbs_of(x, base), limbs_of(y, base), base), base)


def least_common_multiple(a: str, b: str) -> str:
    """The least common multiple of two whole numbers."""
    x = read_decimal(a)
    y = read_decimal(b)
    if problem_with_pair(x, y) != "":
        return problem_with_pair(x, y)
    if x == "0" or y == "0":
        return "0"
    base = base_for(len(x) + len(y))
    first = limbs_of(x, base)
    second = limbs_of(y, base)
    parts = divide_limbs(first, gcd_limbs(first, second, base), base)
    return text_of(multiply_limbs(parts[0], second, base), base)


def factorial(n: str) -> str:
    """The factorial of a whole number: the product of all whole numbers from 1 up to it.

    "not defined for negative numbers" below 0, "too large" above 9999.
    """
    number = read_decimal(n)
    if whole_problem(number) != "":
        return whole_problem(number)
    if number[0] == "-":
        return NEGATIVE
    if len(number) > 4:
        return TOO_LARGE
    count = small_integer(number)
    base = base_for(count)
    product = [1]
    for factor in range(2, count + 1):
        multiply_by_small(product, factor, base)
    return text_of(product, base)


def fibonacci(n: str) -> str:
    """The n-th Fibonacci number, counting from fibonacci(0) = 0 and fibonacci(1) = 1.

    "not defined for negative numbers" below 0, "too large" above 99999.
    """
    number = read_decimal(n)
    if whole_problem(number) != "":
        return whole_problem(number)
    if number[0] == "-":
        return NEGATIVE
    if len(number) > 5:
        return TOO_LARGE
    count = small_integer(number)
    base = base_for(count // 4)
    current = [0]
    following = [1]
    for _step in range(count):
        add_limbs(current, following, base)
        current, following = following, current
    return text_of(current, base)


def fibonacci_recursive(n: int) -> int:
    """The n-th Fibonacci number, by recursion straight from its definition."""
    if n < 2:
        return n
    return fibonacci_recursive(n - 1) + fibonacci_recursive(n - 2)


def is_prime(n: str) -> str:
    """Say whether a whole number is prime.

    "yes" or "no": by trial division up to nine digits, above by the Miller-Rabin test with the first 13 primes, which
    is certain up to 3317044064679887385961980 (Sorenson and Webster, 2015). "too large" beyond, if that test does not
    show that it is not prime.
    """
    number = read_decimal(n)
    if whole_problem(number) != "":
        return whole_problem(number)
    if number[0] == "-":
        return "no"
    if len(number) <= 9:
        if _is_small_prime(small_integer(number)):
            return "yes"
        return "no"
    for witness in [2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41]:
        if _proves_composite(number, witness):
            return "no"
    if compare_numbers(number, "3317044064679887385961981") >= 0:
        return TOO_LARGE
    return "yes"


def _is_small_prime(number: int) -> bool:
    if number < 4:
        return number > 1
    if number % 2 == 0 or number % 3 == 0:
        return False
    # Every further prime is one less or one more than a multiple of six.
    divisor = 5
    while divisor * divisor <= number:
        if number % divisor == 0 or number % (divisor + 2) == 0:
            return False
        divisor += 6
    return True


def _proves_composite(number: str, witness: int) -> bool:
    """Whether Miller and Rabin's test with this witness shows that a number is not prime."""
    base = base_for(2 * len(number))
    modulus = limbs_of(number, base)
    if divide_by_small(modulus[:], witness, base) == 0:
        return True
    # number - 1 = odd · 2**twos
    last = limbs_of(number, base)
    last[0] -= 1
    if last[0] < 0:
        return True
    odd = last[:]
    twos = 0
    while odd[0] % 2 == 0:
        divide_by_small(odd, 2, base)
        twos += 1
    bits: list[int] = []
    while not is_zero(odd):
        bits.append(divide_by_small(odd, 2, base))
    power = [1]
    while len(bits) > 0:
        power = remainder_limbs(multiply_limbs(power, power, base), modulus, base)
        if bits.pop() == 1:
            multiply_by_small(power, witness, base)
            power = remainder_limbs(power, modulus, base)
    if (len(power) == 1 and power[0] == 1) or compare_limbs(power, last) == 0:
        return False
    for _square in range(1, twos):
        power = remainder_limbs(multiply_limbs(power, power, base), modulus, base)
        if compare_limbs(power, last) == 0:
            return False
    return True
