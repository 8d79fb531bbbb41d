"""Compiled functions against CPython: each feature, and random programs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import language
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from neurallib.configuration.machine_config import MachineConfig
from neurallib.modeling_neurallib.compiler.compiling import compile_library, compile_source
from neurallib.modeling_neurallib.compiler.errors import CompileError
from neurallib.modeling_neurallib.machine.operations import Fault

LIBRARY = compile_library(Path(language.__file__))
numbers = st.integers(-60, 60)
short_texts = st.text(alphabet="abcxyz019 éß", max_size=8)
STRATEGIES = {"int": numbers, "bool": st.booleans(), "str": short_texts, "list[int]": st.lists(numbers, max_size=6)}


def printed(value: Any) -> str:
    """A result as the machine prints it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return " ".join(map(str, value))
    return str(value)


@pytest.mark.parametrize("name", sorted(LIBRARY.programs))
def test_every_feature_equals_cpython(name: str) -> None:
    program = LIBRARY.programs[name]
    function: Callable = getattr(language, name)

    @settings(max_examples=25, deadline=None)
    @given(st.tuples(*(STRATEGIES[parameter.type] for parameter in program.parameters)))
    def compare(arguments: tuple) -> None:
        result = LIBRARY.call(name, [printed(argument) for argument in arguments])
        assert result.text == printed(function(*arguments)), result.fault

    compare()


@st.composite
def expressions(draw: st.DrawFn, depth: int = 3) -> str:
    """An int expression over a, b and c that never divides by zero and stays small."""
    if depth == 0 or draw(st.booleans()):
        return draw(st.sampled_from(["a", "b", "c", "0", "1", "2", "-3", "17"]))
    inner = expressions(depth=depth - 1)
    shape = draw(st.integers(0, 8))
    x, y = draw(inner), draw(inner)
    if shape < 4:
        return f"({x} {draw(st.sampled_from(['+', '-', '&', '|', '^']))} {y})"
    if shape == 4:
        return f"({x} {draw(st.sampled_from(['//', '%']))} {draw(st.sampled_from(['5', '-4', '(b * b + 1)']))})"
    if shape == 5:
        return f"(({x}) % 50 * (({y}) % 50))"
    if shape == 6:
        return f"({x} if {draw(conditions(depth=depth - 1))} else {y})"
    if shape == 7:
        return f"{draw(st.sampled_from(['min', 'max']))}({x}, {y})"
    return f"abs({x})"


@st.composite
def conditions(draw: st.DrawFn, depth: int = 2) -> str:
    operator = st.sampled_from(["<", "<=", ">", ">=", "==", "!="])
    inner = expressions(depth=max(depth - 1, 0))
    plain = f"{draw(inner)} {draw(operator)} {draw(inner)}"
    if depth <= 0:
        return plain
    shape = draw(st.integers(0, 4))
    if shape == 0:
        return f"{plain} {draw(operator)} {draw(inner)}"
    if shape == 1:
        return f"not ({draw(conditions(depth=depth - 1))})"
    if shape < 4:
        return f"({plain} {draw(st.sampled_from(['and', 'or']))} {draw(conditions(depth=depth - 1))})"
    return plain


@st.composite
def blocks(draw: st.DrawFn, depth: int = 2, indent: str = "    ") -> list[str]:
    lines: list[str] = []
    for _ in range(draw(st.integers(1, 3))):
        kind = draw(st.integers(0, 6 if depth else 2))
        if kind == 0:
            lines.append(f"{indent}{draw(st.sampled_from('abc'))} = {draw(expressions())} % 1000")
        elif kind == 1:
            lines.append(f"{indent}xs.append({draw(expressions())})")
        elif kind == 2:
            lines.append(f"{indent}a, c = c, {draw(expressions(depth=1))} % 1000")
        elif kind == 3:
            lines.append(f"{indent}if {draw(conditions())}:")
            lines += draw(blocks(depth=depth - 1, indent=indent + "    "))
            if draw(st.booleans()):
                lines.append(f"{indent}else:")
                lines += draw(blocks(depth=depth - 1, indent=indent + "    "))
        elif kind == 4:
            lines.append(f"{indent}for i{depth} in range({draw(expressions(depth=1))} % 5):")
            lines += draw(blocks(depth=depth - 1, indent=indent + "    "))
            lines.append(f"{indent}    b = i{depth}")
        elif kind == 5:
            lines.append(f"{indent}if len(xs) > 2:")
            lines.append(f"{indent}    xs[0], xs[-1] = xs[1] + 1, xs[0] % 1000")
            lines.append(f"{indent}    xs[len(xs) // 2] += a")
        else:
            lines += [f"{indent}for x in xs[:3]:", f"{indent}    c = (c + x * 3) % 777"]
            if draw(st.booleans()):
                lines.append(f"{indent}    if c % 3 == 1:")
                lines.append(f"{indent}        {draw(st.sampled_from(['break', 'continue']))}")
            lines.append(f"{indent}    b += 1")
    return lines


@settings(max_examples=40, deadline=None)
@given(blocks(depth=3), numbers, numbers, numbers)
def test_random_programs_equal_cpython(block: list[str], a: int, b: int, c: int) -> None:
    header = "def f(a: int, b: int, c: int) -> list[int]:\n    xs: list[int] = []\n"
    source = header + "\n".join(block) + "\n    return xs + [a, b, c]\n"
    names: dict[str, Any] = {}
    exec(source, names)
    library = compile_source(source)
    result = library.call("f", [str(a), str(b), str(c)])
    if result.fault is Fault.out_of_memory:
        return
    assert result.text == printed(names["f"](a, b, c)), source


SUBTLE: list[tuple[str, tuple]] = [
    # Chains of comparisons between characters and texts; the order in which operands are evaluated.
    ("def f(t: str, b: str) -> bool:\n    return t[0] == t[1] == b", ("aa", "a")),
    ("def f(t: str, b: str) -> bool:\n    return b == t[0] == t[1]", ("aa", "a")),
    ("def f(t: str, b: str) -> bool:\n    return t[0] < t[1] < b", ("ab", "c")),
    ("def f(t: str, b: str) -> bool:\n    return 'a' == t[0] == b != ''", ("aa", "a")),
    ("def f(n: int) -> bool:\n    xs = [n, 3, 1]\n    return xs.pop() < xs.pop() < 100", (1,)),
    ("def _g(xs: list[str]) -> str:\n    xs[0] = 'z'\n    return 'm'\n"
     "def f(t: str) -> bool:\n    xs = [t]\n    return xs[0] < _g(xs) < t + 'z'", ("a",)),
    # Characters and the empty text.
    ("def f(t: str) -> int:\n    n = 0\n    for c in t:\n        if c == '':\n            n += 1\n    return n", ("abc",)),
    ("def f(t: str) -> int:\n    n = 0\n    for c in t:\n        if c != '':\n            n += 1\n    return n", ("abc",)),
    ("def f(t: str) -> bool:\n    return '' == t[0]", ("abc",)),
    ("def f(t: str) -> bool:\n    return t[-1] == ''", ("abc",)),
    ("def f(t: str) -> bool:\n    return 'a' == ''", ("abc",)),
    # Loops over lists of lists of characters that become lists of texts.
    ("def f(t: str) -> str:\n    rows = [['a'], ['b']]\n    for row in rows:\n        row.append(t)\n"
     "    return ''.join(rows[0])", ("xy",)),
    ("def _g(row: list[str]) -> str:\n    return row[0]\n"
     "def f(t: str) -> str:\n    rows = [['a'], ['b']]\n    for row in rows:\n        t += _g(row)\n    return t", ("xy",)),
    ("def f(t: str) -> str:\n    rows = [[t[0]], [t[1]]]\n    row = ['xyz']\n    for row in rows:\n        pass\n"
     "    return row[0]", ("ab",)),
    ("def f(t: str) -> str:\n    boxes = [[['a']], [[t[0]]]]\n    for rows in boxes:\n        for row in rows:\n"
     "            row.append('xy')\n    return ''.join(boxes[0][0] + boxes[1][0])", ("q",)),
    ("def f(t: str) -> str:\n    for row in [[t[0]], ['b']]:\n        row.append('xy')\n        t = ''.join(row)\n"
     "    return t", ("q",)),
    # What a module binds: the last binding counts.
    ("X = 1\nY = X + 1\nX = X + 4\ndef f(n: int) -> int:\n    return X * 10 + Y + n", (1,)),
    ("def f(n: int) -> int:\n    return 1\ndef f(n: int) -> int:\n    return n + 2", (1,)),
    ("X = 1\nX += 1\nX = 7\ndef f(n: int) -> int:\n    return X + n", (1,)),
    ("X = 3\nL = [X for X in range(9)]\nX: int\ndef f(n: int) -> int:\n    return X + n", (1,)),
    ("def g(n: int) -> int:\n    return 2\ng = 4\ndef f(n: int) -> int:\n    return g + n", (1,)),
    ("def range(n: int) -> list[int]:\n    return [7, n]\n"
     "def f(n: int) -> int:\n    s = 0\n    for i in range(n):\n        s += i\n    return s", (3,)),
    ("def len(t: str) -> str:\n    return t + 'abc'\ndef f(n: int) -> str:\n    return len(str(n))", (41,)),
    # Augmented assignments to elements evaluate the list and the position once.
    ("def _g(ys: list[int]) -> int:\n    ys[0] = 1\n    return 10\n"
     "def f(n: int) -> list[int]:\n    ys = [0]\n    xs = [5, n]\n    xs[ys[0]] += _g(ys)\n    return xs", (6,)),
    ("def _g(rows: list[list[int]]) -> int:\n    rows[0] = [100]\n    return 10\n"
     "def f(n: int) -> list[int]:\n    old = [n]\n    rows = [old]\n    rows[0][0] += _g(rows)\n    return old + rows[0]", (5,)),
    ("def _g(xs: list[int]) -> int:\n    xs.append(7)\n    return 1\n"
     "def f(n: int) -> list[int]:\n    xs = [n, 2, 3, 4]\n    xs[_g(xs)] += _g(xs)\n    xs[-1] += _g(xs)\n    return xs", (5,)),
    # Parameters named like the functions that read and print them.
    ("def f(integer: int, integer_: int) -> int:\n    return integer - integer_", (3, 5)),
    ("def f(truth: bool, is_integer: int) -> bool:\n    return truth and is_integer > 0", (True, 5)),
    ("def f(integer_to_text: int, __program__: int) -> int:\n    return integer_to_text - __program__", (3, 5)),
    # The largest code point; numbers that are large only while compiling.
    ("def f(n: int) -> str:\n    return chr(n)", (0x10FFFF,)),
    ("def f(n: int) -> int:\n    return 10**40 // 10**39 + n", (1,)),
    ("def f(n: int) -> int:\n    y = n % 3 + n // 4 + (n << 2) + (n >> 3)\n    return 1", (5,)),
]  # fmt: skip


@pytest.mark.parametrize(("source", "arguments"), SUBTLE, ids=[source[-40:] for source, _ in SUBTLE])
def test_what_is_easily_got_wrong_equals_cpython(source: str, arguments: tuple) -> None:
    names: dict[str, Any] = {}
    exec(source, names)
    expected = printed(names["f"](*arguments))
    result = compile_source(source).call("f", [printed(argument) for argument in arguments])
    assert result.text == expected, result.fault


@pytest.mark.parametrize(("source", "fault"), [
    ("def f(a: int) -> int:\n    return a * 1000000", Fault.overflow),
    ("def f(a: int) -> int:\n    return a // (a - a)", Fault.division_by_zero),
    ("def f(a: int) -> int:\n    return [1, 2][a]", Fault.index_out_of_range),
    ("def f(a: int) -> int:\n    return [1, 2][-3]", Fault.index_out_of_range),
    ("def f(a: int) -> int:\n    return ord('abc'[0 - a])", Fault.index_out_of_range),
    ("def f(a: int) -> int:\n    xs: list[int] = []\n    return xs.pop()", Fault.index_out_of_range),
    ("def f(a: int) -> int:\n    return ord(chr(-a))", Fault.index_out_of_range),
    ("def f(a: int) -> int:\n    return len('a' + chr(a * 1000))", Fault.index_out_of_range),
    ("def f(a: int) -> int:\n    b = 1 // (a - 1234)\n    return 5", Fault.division_by_zero),
    ("def f(a: int) -> int:\n    b = 1 % (a - 1234)\n    return 5", Fault.division_by_zero),
    ("def f(a: int) -> int:\n    b = (1 // (a - 1234)) ** 0\n    return 5", Fault.division_by_zero),
    ("def f(a: int) -> int:\n    b = 1 << -a\n    return 5", Fault.overflow),
    ("def f(a: int) -> int:\n    a >>= -a\n    return 5", Fault.overflow),
    ("def f(a: int) -> int:\n    xs = [0] * 70000\n    return len(xs)", Fault.wild_access),
    ("def f(a: int) -> int:\n    while True:\n        xs = [a]", Fault.out_of_memory),
    ("def f(a: int) -> int:\n    return f(a) + 1", Fault.stack_overflow),
    ("def f(a: int) -> int:\n    while True:\n        pass", Fault.out_of_steps),
])  # fmt: skip
def test_what_cannot_be_computed_faults(source: str, fault: Fault) -> None:
    config = MachineConfig(max_steps=2_000_000, call_depth=500)
    result = compile_source(source).call("f", ["1234"], config)
    assert (result.text, result.fault) == (None, fault)


def test_a_small_machine_gives_the_same_result_or_a_fault() -> None:
    cases = [("bits", ["5", "3"]), ("loops", ["4"]), ("orders", ["az", "b"]), ("truth", ["3", "yes"])]
    for name, arguments in cases:
        expected = LIBRARY.run(name, *arguments)
        for values in (128, 256, 4096, 2**16):
            small = MachineConfig(values=values, memory=values)
            assert LIBRARY.call(name, arguments, small).text in (expected, None)


def test_functions_can_be_compiled_one_by_one() -> None:
    def twice(text: str) -> str:
        """Say it twice."""
        return echo(text, 2)

    def echo(text: str, count: int) -> str:
        result = ""
        for _ in range(count):
            result += text
        return result

    library = compile_library([twice, echo], name="echoes")
    assert (library.run("twice", "ab"), library.run("echo", "x", "4")) == ("abab", "xxxx")
    assert library.programs["twice"].docstring == "Say it twice."
    assert compile_library([language.recursion]).run("recursion", "7", "21") == language.recursion(7, 21)


OFFSET = 1


def test_a_function_inside_a_function_does_not_see_what_that_one_hides() -> None:
    OFFSET = 5

    def moved(number: int) -> int:
        return number + OFFSET

    def unmoved(number: int) -> int:
        return number - LEFT_OUT

    with pytest.raises(CompileError, match="'OFFSET' is not known here"):
        compile_library([moved])
    assert compile_library([unmoved]).run("unmoved", "7") == str(unmoved(7))


LEFT_OUT = OFFSET + 1

FOR_FEW_REGISTERS = """
def f(a: int, b: int) -> int:
    c = a * 2
    d = b * 3
    e = c + d
    g = e - a
    h = g * c + _difference(d, e)
    for i in range(3):
        h += _difference(c + i, d) * e
    return h * 2 + c + d + e + g + a + b

def _difference(a: int, b: int) -> int:
    return a - b
"""


@pytest.mark.parametrize("registers", [8, 10, 12, 16, 40])
def test_machines_of_other_registers(registers: int) -> None:
    names: dict[str, Any] = {}
    exec(FOR_FEW_REGISTERS, names)
    library = compile_source(FOR_FEW_REGISTERS, registers=registers)
    assert library.run("f", "5", "7", machine=MachineConfig(registers=registers)) == str(names["f"](5, 7))


SEVEN_PARAMETERS = """
def f(n: int) -> int:
    x = n * 2
    y = [n, x]
    return _g(1, 2, 3, 4, 5, n, 7) + x * 1000 + y[1]

def _g(a: int, b: int, c: int, d: int, e: int, f: int, g: int) -> int:
    return a - b * c + d * e - f * g
"""


@pytest.mark.parametrize("registers", [9, 11])
def test_as_many_parameters_as_registers(registers: int) -> None:
    names: dict[str, Any] = {}
    exec(SEVEN_PARAMETERS, names)
    library = compile_source(SEVEN_PARAMETERS, registers=registers)
    assert library.run("f", "3", machine=MachineConfig(registers=registers)) == str(names["f"](3))


def test_long_texts() -> None:
    text = "ab" * 2_000
    assert compile_source(f"def f(t: str) -> str:\n    return t + {text!r}").run("f", "x") == "x" + text
