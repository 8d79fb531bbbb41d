"""One small program for each feature of the language, run in tests on the machine and under CPython."""

from __future__ import annotations

LIMIT = 7
GREETING = "hé" + "llo"
NEGATIVE = -(3**2)


def arithmetic(a: int, b: int) -> list[int]:
    values = [a + b, a - b, a * b, a // 7, a % 7, a // -7, a % -7, 100 - a, 3 * a, a * -2, -a, +b, abs(a), abs(b)]
    values.append(a**3)
    values.append(a**0 + b**1)
    values.append(min(a, b, 3))
    values.append(max(a, b))
    if b != 0:
        values.append(a // b)
        values.append(a % b)
    return values


def bits(a: int, b: int) -> list[int]:
    return [a & b, a | b, a ^ b, ~a, abs(a) << 3, a >> 2, a >> 40, 0 << 50, 1 << (abs(b) % 8)]


def comparisons(a: int, b: int) -> str:
    out: list[str] = []
    for flag in [a < b, a <= b, a > b, a >= b, a == b, a != b]:
        out.append("1" if flag else "0")
    for flag in [a < 3, a <= 3, a > 3, a >= 3, 3 < a, 3 <= a, 3 > a, 3 >= a, 3 == a, 3 != a]:  # noqa: SIM300
        out.append("1" if flag else "0")
    if 0 < a < b <= 50:
        out.append("chain")
    if not (0 < a < b) and (a == 3 or b == 3 or not a):
        out.append("mixed")
    both = a > 0 and b > 0
    either = a > 0 or b > 0
    out.append(str(int(both) + int(either) + int(not both)))
    if both ^ either:
        out.append("xor")
    return " ".join(out)


def loops(n: int) -> list[int]:
    found: list[int] = []
    for i in range(n):
        if i == 3:
            continue
        if i == 9:
            break
        found.append(i)
    for i in range(2, n, 3):
        found.append(i * 100)
        i = 5
    for i in range(n, -3, -2):
        found.append(i)
    last = -1
    for last in range(4):  # noqa: B007
        pass
    found.append(last)
    k = 0
    while True:
        k += 1
        if k % 5 == 0:
            break
        if k % 2 == 0:
            continue
        found.append(k + 1000)
    while k < n and k * k < 200:
        k += 1
    found.append(k)
    for i in range(0):
        found.append(i)
    return found


def lists_of_numbers(values: list[int]) -> list[int]:
    copy = values[:]
    alias = copy
    alias.append(17)
    if len(copy) > 2:
        copy[0], copy[-1] = copy[-1], copy[0]
        copy[1] += 5
        copy[1] *= 2
    last = copy.pop()
    both = copy + [last, LIMIT, NEGATIVE]  # noqa: RUF005
    both = both + copy[1:3] + copy[-2:] + copy[:-1] + copy[5:1]
    filled = [last] * 3
    for value in filled:
        both.append(value)
    other = 2 * [0]
    other[1] = len(both)
    grown: list[int] = []
    for k in range(20):
        grown.append(k)
        other.append(k * k)
    if 17 in values:
        other.append(1)
    if 18 not in other:
        other.append(2)
    return both + other + grown


def nested(n: int) -> str:
    rows: list[list[int]] = []
    for i in range(n % 6):
        row: list[int] = []
        for j in range(i):
            row.append(i * j)
        rows.append(row)
    rows.append([n, n + 1])
    rows[-1][0] += 10
    pieces: list[str] = []
    for row in rows:
        for cell in row:
            pieces.append(str(cell))
    return ",".join(pieces)


def texts(text: str, other: str) -> str:
    out: list[str] = []
    out.append(text + other)
    out.append(text[1:3] + "|" + text[:-1] + "|" + text[-2:] + "|" + text[2:1] + "|" + text[:100])
    if text == other:
        out.append("equal")
    if text != "":
        out.append(text[0] + text[-1] + text[len(text) - 1])
    if text == "a" or text == "b":
        out.append("short")
    if text == "abc":
        out.append("abc")
    if text:
        out.append("full")
    characters = []
    for character in text:
        if character in "aeiou":
            characters.append("*")
        elif character not in other:
            characters.append(character)
        else:
            characters.append(chr(ord(character) + 1))
    out.append("".join(characters))
    out.append("-".join(characters) + GREETING)
    doubled = ""
    for character in other:
        doubled += character
        doubled = character + doubled
    out.append(doubled)
    out.append(f"{text}:{len(text)}!")
    out.append("".join(out))
    return " ".join(out)


def widened(text: str, number: int) -> str:
    """Variables that begin as characters and become longer texts, and lists of them."""
    letters = []
    for letter in text:
        letters.append(letter)
    last = "?"
    for one in letters:
        last = one
        one = one + "+"
        last += one
    words = []
    words.append("x")
    same = words
    same.append(last)
    copied: list[str] = letters[:]
    copied.append(integer_to_text(number) + copy(str(number)))
    return "".join(words) + "/".join(copied) + last + f"{number}"


def integer_to_text(number: int) -> str:
    """A name that the compiler uses itself, as is the next."""
    return "a number" if number else "zero"


def copy(text: str) -> str:
    return text + text


def orders(text: str, other: str) -> str:
    result = ""
    result += "<" if text < other else "."
    result += "≤" if text <= other else "."
    result += ">" if text > other else "."
    result += "≥" if text >= other else "."
    for character in text:
        if "a" <= character <= "m":
            result += "h"
        if character < "é" and character >= "0":
            result += "l"
        if "0" < character < "9":
            result += "d"
        if character > "z":
            result += "z"
    return result


def choices(a: int, b: bool) -> str:
    if a < 0:
        word = "negative"
    elif a == 0:
        word = "zero"
    elif a < 10:
        word = "small"
    else:
        word = "large"
    mark = "!" if b else "??"
    number = (a if a > 5 else -a) + (1 if b else 0)
    return word + mark + str(number) + ("x" if a else "")


def truth(a: int, b: bool) -> bool:
    return bool(a) != b or (a == 3) == b


def _gcd(a: int, b: int) -> int:
    if b == 0:
        return a
    return _gcd(b, a % b)


def _even(n: int) -> bool:
    return n == 0 or _odd(n - 1)


def _odd(n: int) -> bool:
    if n == 0:
        return False
    return _even(n - 1)


def _hanoi(n: int, a: str, b: str, c: str, moves: list[str]) -> None:
    if n == 0:
        return
    _hanoi(n - 1, a, c, b, moves)
    moves.append(a + c)
    _hanoi(n - 1, b, a, c, moves)


def _seven(a: int, b: int, c: int, d: int, e: int, f: int, g: int) -> int:
    return a + 2 * b + 3 * c + 4 * d + 5 * e + 6 * f + 7 * g


def recursion(a: int, b: int) -> str:
    moves: list[str] = []
    _hanoi(abs(a) % 4, "A", "B", "C", moves)
    parity = "even" if _even(abs(b) % 20) else "odd"
    total = _seven(1, a, b, 4, _gcd(abs(a), abs(b)), 6, _seven(b, a, 3, 2, 1, 0, -1))
    return f"{_gcd(abs(a), abs(b))} {parity} {total} " + " ".join(moves)


def many_variables(a: int, b: int) -> int:
    c = a + b
    d = c + a
    e = d - b
    f = e + c
    g = f - d
    h = g + e
    i = h - f
    j = i + g
    k = j - h
    m = k + i
    n = m - j
    p = n + k
    q = p - m
    r = q + n
    s = _gcd(abs(r), abs(q))
    for t in range(3):
        s += a - b + c - d + e - f + g - h + i - j + k - m + n - p + q - r + t
        a, b, c = b + 1, c, a
    return s + a + b + c + d + e + f + g + h + i + j + k + m + n + p + q + r
