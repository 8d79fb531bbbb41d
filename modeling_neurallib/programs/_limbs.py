"""Whole numbers without a sign as lists of limbs: digits in some base, the lowest first. No zeros at the high end.

The base is 10,000 where numbers are long: four decimal digits a limb, so that long multiplication takes a sixteenth of
the steps, and the product of two limbs fits a machine of 2**28 values and more. Where numbers are short it is 10: then
no integer exceeds 99, and the smallest machines that hold digits work them out too.

Restricted Python: what multiplication, division, powers and their kin share.
"""

from __future__ import annotations

from ._decimals import in_units, places_of, with_point
from ._numbers import without_zeros

SHORT = 16


def base_for(digits: int) -> int:
    """The base in which to work with numbers that have so many decimal digits together."""
    if digits <= SHORT:
        return 10
    # Not written as 10000, because a constant asks for machines that hold it wherever it could be reached.
    hundred = 100
    return hundred * hundred


def _width(base: int) -> int:
    """Decimal digits a limb."""
    if base == 10:
        return 1
    return 4


def limbs_of(number: str, base: int) -> list[int]:
    """The limbs of a number in decimal, its sign left out of account."""
    width = _width(base)
    first = 0
    if number[0] == "-":
        first = 1
    limbs: list[int] = []
    end = len(number)
    while end > first:
        limb = 0
        for i in range(max(first, end - width), end):
            limb = limb * 10 + (ord(number[i]) - 48)
        limbs.append(limb)
        end -= width
    return limbs


def text_of(limbs: list[int], base: int) -> str:
    """The number in decimal."""
    width = _width(base)
    digits = ["0"] * (width * len(limbs))
    end = len(digits)
    for limb in limbs:
        rest = limb
        i = end - 1
        while rest > 0:
            digits[i] = chr(48 + rest % 10)
            rest = rest // 10
            i -= 1
        end -= width
    return without_zeros("".join(digits))


def is_zero(limbs: list[int]) -> bool:
    return len(limbs) == 1 and limbs[0] == 0


def trim(limbs: list[int]) -> None:
    """Takes off the zeros at the high end."""
    while len(limbs) > 1 and limbs[-1] == 0:
        limbs.pop()


def compare_limbs(a: list[int], b: list[int]) -> int:
    """A negative number if a < b, zero if they are equal, a positive number if a > b."""
    if len(a) != len(b):
        return len(a) - len(b)
    for i in range(len(a) - 1, -1, -1):
        if a[i] != b[i]:
            return a[i] - b[i]
    return 0


def multiply_limbs(a: list[int], b: list[int], base: int) -> list[int]:
    """a · b by long multiplication: each limb of b times a, one place further left each time."""
    product = [0] * (len(a) + len(b))
    for j in range(len(b)):
        factor = b[j]
        carry = 0
        for i in range(len(a)):
            column = product[i + j] + a[i] * factor + carry
            product[i + j] = column % base
            carry = column // base
        product[j + len(a)] = carry
    trim(product)
    return product


def multiply_by_small(limbs: list[int], factor: int, base: int) -> None:
    """Multiplies a number in place by a factor of at most 10,000."""
    carry = 0
    for i in range(len(limbs)):
        column = limbs[i] * factor + carry
        limbs[i] = column % base
        carry = column // base
    while carry > 0:
        limbs.append(carry % base)
        carry = carry // base
    trim(limbs)


def divide_by_small(limbs: list[int], divisor: int, base: int) -> int:
    """Divides a number in place by a divisor of at most 10,000; returns the remainder."""
    rest = 0
    for i in range(len(limbs) - 1, -1, -1):
        rest = rest * base + limbs[i]
        limbs[i] = rest // divisor
        rest = rest % divisor
    trim(limbs)
    return rest


def add_limbs(a: list[int], b: list[int], base: int) -> None:
    """Adds b to a in place."""
    carry = 0
    i = 0
    while i < len(b) or carry > 0:
        if i == len(a):
            a.append(0)
        column = a[i] + carry
        if i < len(b):
            column += b[i]
        if column >= base:
            column -= base
            carry = 1
        else:
            carry = 0
        a[i] = column
        i += 1


def divide_limbs(a: list[int], b: list[int], base: int) -> list[list[int]]:
    """[quotient, remainder] of a and b, b not zero, by long division (Knuth, volume 2, algorithm D)."""
    if compare_limbs(a, b) < 0:
        return [[0], a]
    dividend = a[:]
    dividend.append(0)
    divisor = b[:]
    size = len(b)
    if size == 1:
        rest = divide_by_small(dividend, b[0], base)
        return [dividend, [rest]]
    # With the divisor's highest limb at least half the base, a guess from the highest limbs is nearly right.
    scale = base // (b[-1] + 1)
    multiply_by_small(divisor, scale, base)
    multiply_by_small(dividend, scale, base)
    while len(dividend) <= len(a):
        dividend.append(0)
    quotient = [0] * (len(a) - size + 1)
    for j in range(len(a) - size, -1, -1):
        top = dividend[j + size] * base + dividend[j + size - 1]
        guess = min(top // divisor[size - 1], base - 1)
        rest = top - guess * divisor[size - 1]
        while rest < base and guess * divisor[size - 2] > rest * base + dividend[j + size - 2]:
            guess -= 1
            rest += divisor[size - 1]
        borrow = 0
        for i in range(size):
            column = dividend[i + j] - guess * divisor[i] + borrow
            dividend[i + j] = column % base
            borrow = column // base
        dividend[j + size] += borrow
        if dividend[j + size] < 0:
            # The guess was one too high, which is rare: put one divisor back.
            guess -= 1
            carry = 0
            for i in range(size):
                column = dividend[i + j] + divisor[i] + carry
                dividend[i + j] = column % base
                carry = column // base
            dividend[j + size] += carry
        quotient[j] = guess
    trim(quotient)
    remainder = dividend[:size]
    trim(remainder)
    divide_by_small(remainder, scale, base)
    return [quotient, remainder]


def remainder_limbs(a: list[int], b: list[int], base: int) -> list[int]:
    """The remainder of a and b, b not zero."""
    parts = divide_limbs(a, b, base)
    return parts[1]


def gcd_limbs(a: list[int], b: list[int], base: int) -> list[int]:
    """The greatest common divisor, by Euclid's algorithm."""
    while not is_zero(b):
        a, b = b, remainder_limbs(a, b, base)
    return a


def signed_text(limbs: list[int], negative: bool, base: int) -> str:
    """The number in decimal, with a sign if it is negative and not zero."""
    text = text_of(limbs, base)
    if negative and text != "0":
        return "-" + text
    return text


def product_of(a: str, b: str) -> str:
    """a · b for numbers in decimal."""
    base = base_for(len(a) + len(b))
    product = multiply_limbs(limbs_of(a, base), limbs_of(b, base), base)
    return signed_text(product, (a[0] == "-") != (b[0] == "-"), base)


def product_of_decimals(x: str, y: str) -> str:
    """x · y for numbers that ``read_decimal`` found."""
    places_x = places_of(x)
    places_y = places_of(y)
    return with_point(product_of(in_units(x, places_x), in_units(y, places_y)), places_x + places_y)


def fraction_text(numerator: str, denominator: str) -> str:
    """A fraction as text, exactly: an integer, else a decimal where that ends, else the fraction in lowest terms.

    The denominator is a positive number.
    """
    negative = numerator[0] == "-"
    base = base_for(len(numerator) + len(denominator))
    top = limbs_of(numerator, base)
    bottom = limbs_of(denominator, base)
    divisor = gcd_limbs(top, bottom, base)
    top = divide_limbs(top, divisor, base)[0]
    bottom = divide_limbs(bottom, divisor, base)[0]
    text = signed_text(top, negative, base)
    if len(bottom) == 1 and bottom[0] == 1:
        return text
    # A decimal ends if the denominator is a product of twos and fives; then it has as many places as the more frequent.
    rest = bottom[:]
    twos = 0
    while rest[0] % 2 == 0:
        divide_by_small(rest, 2, base)
        twos += 1
    fives = 0
    while rest[0] % 5 == 0:
        divide_by_small(rest, 5, base)
        fives += 1
    if len(rest) > 1 or rest[0] != 1:
        return text + "/" + text_of(bottom, base)
    for _place in range(fives, twos):
        multiply_by_small(top, 5, base)
    for _place in range(twos, fives):
        multiply_by_small(top, 2, base)
    return with_point(signed_text(top, negative, base), max(twos, fives))
