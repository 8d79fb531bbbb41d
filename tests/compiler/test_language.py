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


@pytest.mark.parametrize(("source", "fault"), [
    ("def f(a: int) -> int:\n    return a * 1000000", Fault.overflow),
    ("def f(a: int) -> int:\n    return a // (a - a)", Fault.division_by_zero),
    ("def f(a: int) -> int:\n    return [1, 2][a]", Fault.index_out_of_range),
    ("def f(a: int) -> int:\n    return [1, 2][-3]", Fault.index_out_of_range),
    ("def f(a: int) -> int:\n    return ord('abc'[0 - a])", Fault.index_out_of_range),
    ("def f(a: int) -> int:\n    xs: list[int] = []\n    return xs.pop()", Fault.index_out_of_range),
    ("def f(a: int) -> int:\n    return ord(chr(-a))", Fault.index_out_of_range),
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
