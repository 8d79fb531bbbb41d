"""What is outside the language is refused with file, line, the construct and a way out."""

from __future__ import annotations

from pathlib import Path

import pytest
from neurallib.modeling_neurallib.compiler.allocate import allocate
from neurallib.modeling_neurallib.compiler.compiling import compile_library, compile_source
from neurallib.modeling_neurallib.compiler.errors import CompileError
from neurallib.modeling_neurallib.compiler.three_address import Routine

BODIES = [
    ("return (lambda: 1)()", "call of something", "by its name"),
    ("xs = [i for i in range(3)]\n    return 1", "list comprehension", "for loop"),
    ("d = {1: 2}\n    return 1", "dictionary", "lists"),
    ("s = {1, 2}\n    return 1", "set", "list"),
    ("t = (1, 2)\n    return 1", "tuple", "list"),
    ("return a.real", "attribute", "objects"),
    ("try:\n        return 1\n    except ValueError:\n        return 2", "try", "test the condition"),
    ("raise ValueError", "raise", "return a text"),
    ("assert a > 0\n    return a", "assert", "if"),
    ("with open('x') as f:\n        return 1", "with", "files"),
    ("global a\n    return 1", "global", "parameter"),
    ("def g() -> int:\n        return 1\n    return g()", "function inside", "top of the file"),
    ("import os\n    return 1", "import inside", "top"),
    ("match a:\n        case 1:\n            return 1\n    return 2", "match", "if/elif"),
    ("if (b := a) > 1:\n        return b\n    return 1", "assignment inside", "statement of its own"),
    ("while a:\n        a -= 1\n    else:\n        a = 2\n    return a", "else after a loop", "bool variable"),
    ("for i in range(3):\n        a = i\n    else:\n        a = 2\n    return a", "else after a loop", "bool"),
    ("for i, j in [1, 2]:\n        a = i\n    return a", "several variables", "one loop variable"),
    ("for i in range(0, 9, a):\n        pass\n    return a", "step is not a constant", "while"),
    ("for i in range(0, 9, 0):\n        pass\n    return a", "step is not a constant", "while"),
    ("for i in range():\n        pass\n    return a", "range with 0", "one to three"),
    ("for i in a:\n        pass\n    return a", "loop over int", "range"),
    ("x = y = 1\n    return x", "chained assignment", "one assignment"),
    ("x, y = f(a)\n    return x", "unpacking", "as many values"),
    ("return a / 2", "operator /", "//"),
    ("return a ** a", "power", "loop"),
    ("return a ** -1", "power", "loop"),
    ("return 1.5", "float", "integers"),
    ("return None", "return without a value", "annotation"),
    ("return 'a'", "str where int", "that type"),
    ("return a == 1", "bool where int", "int("),
    ("x = 1\n    x = 'abc'\n    return 1", "'x' is int and is given str", "second variable"),
    ("return b", "'b' is not known", "define it"),
    ("return f", "function 'f' as a value", "call it"),
    ("return f(1, 2)", "2 arguments", "takes 1"),
    ("return f(a=1)", "keyword", "position"),
    ("return sum([a])", "'sum'", "loop"),
    ("return int('5')", "int of str", "digits"),
    ("return len(a)", "length of int", "texts and lists"),
    ("return ord('ab')", "ord of str", "one character"),
    ("return min([a])", "min or max of a list", "loop"),
    ("s = 'abc'\n    s[0] = 'x'\n    return 1", "character of a text", "never change"),
    ("xs = [1]\n    xs[0:1] = [2]\n    return 1", "slice", "loop"),
    ("xs = [1]\n    xs += [2]\n    return 1", "augmented assignment to a list", "append"),
    ("xs = [1, 'a']\n    return 1", "several types", "one type"),
    ("return [1, 2][::2][0]", "slice with a step", "loop"),
    ("xs = [1]\n    xs.sort()\n    return 1", "method .sort", ".append"),
    ("return 1 if a is 1 else 2", "is", "=="),
    ("return 1 if [1] == [1] else 2", "comparison of list", "loop"),
    ("return 1 if 'ab' in 'abc' else 2", "`in` of str", "single character"),
    ("return a and 1", "and/or of int", "compare first"),
    ("return a + 'x'", "Add of int and str", "numbers with numbers"),
    ("a\n    return 1", "not used", "assign it"),
    ("s = f'{a:5}'\n    return 1", "format", "function of your own"),
    ("s = f'{a == 1}'\n    return 1", "text of bool", "yes"),
    ("break", "break outside", "remove"),
    ("if a:\n        x = 1\n    return x", "'x' may be read before", "beginning"),
    ("if a > 1:\n        return 1", "can end without a return", "every way"),
    ("while a > 0:\n        return 1", "can end without a return", "every way"),
    ("return 2 ** 40 + a", "constant 1099511627776", "text"),
    ("return 1 if a < 2 ** 40 else 2", "constant 1099511627776", "text"),
    ("for i in range(2 ** 40):\n        a = i\n    return a", "constant 1099511627776", "text"),
    ("xs = [[]]\n    xs[0].append(1)\n    return g(xs)", "'g'", "define it"),
    ("return b'x'[0]", "constant of type bytes", "int, bool or str"),
    ("return int", "'int' is not known", "define it"),
    ("del a\n    return 1", "del", "pop"),
    ("xs = [1, 2]\n    return 1 if 0 < a in xs else 0", "`in` within a chain", "and"),
    ("s = 'abc'\n    return 1 if 'b' == s[1] in s else 0", "`in` within a chain", "and"),
    ("s = 'abc'\n    s[0:1] += 'x'\n    return 1", "part of a text", "never change"),
    ("rows = [['a']]\n    for row in [rows[0]]:\n        row.append('xy')\n    return 1", "list of single characters", "type"),
    ("for i in range(0, 5, 2**40):\n        a = i\n    return a", "constant 1099511627776", "text"),
    ("for i in range(5, 0, -2**31):\n        a = i\n    return a", "constant -2147483648", "text"),
    ("return ord('abc'[-2147483648])", "constant -2147483648", "text"),
    ("return ord(str(a)[2147483647])", "constant 2147483647", "text"),
    ("return 0x" + "f" * 5_000, "constant of 20000 bits", "text"),
    ("return (10**64)**64 * (10**64)**64", "power", "loop"),
    ("return 1 if " + "not " * 2_000 + "a else 2", "nested too deeply", "split"),
    ("if a == 0:\n        return 0\n" + "".join(f"    elif a == {i}:\n        return {i}\n" for i in range(1, 1_500))
     + "    return a", "nested too deeply", "split"),
    ("s = '" + "a" * 10_001 + "'\n    return 1", "text of 10001 characters", "argument"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "construct", "advice"), BODIES, ids=[body[:30] for body, _, _ in BODIES])
def test_bodies(body: str, construct: str, advice: str) -> None:
    with pytest.raises(CompileError) as caught:
        compile_source(f"def f(a: int) -> int:\n    {body}\n")
    assert caught.value.file == "<source>"
    assert caught.value.line >= 1
    assert construct in caught.value.construct, str(caught.value)
    assert advice in caught.value.advice, str(caught.value)


@pytest.mark.parametrize(("source", "construct"), [
    ("def f(a) -> int:\n    return 1", "parameter 'a' of f has no type"),
    ("def f(a: float) -> int:\n    return 1", "parameter 'a' of f has no type"),
    ("def f(a: int):\n    return 1", "result of f has no type"),
    ("def f(a: int = 1) -> int:\n    return 1", "default"),
    ("def f(*a: int) -> int:\n    return 1", "star"),
    ("@cache\ndef f(a: int) -> int:\n    return 1", "decorator"),
    ("def f(a: int) -> None:\n    pass", "program with none"),
    ("def f(a: list[str]) -> int:\n    return 1", "program with list[str]"),
    ("def f(a: str, b: str, c: str, d: str, e: str, g: str, h: str) -> str:\n    return a", "7 parameters"),
    ("def _f(a: int) -> int:\n    return 1", "nothing to compile"),
    ("def f(a: int) -> int:\n  return (", "not Python"),
    ("from os import getpid\ndef f(a: int) -> int:\n    return getpid()", "import from elsewhere"),
    ("def f(a: int) -> int:\n    return 1\ndef g(a: int) -> int:\n    return _p(a) + 1\n"
     "def _p(a: int) -> None:\n    return", "Add of none"),
    ("def café(a: str) -> str:\n    return a", "program named 'café'"),
    ("def " + "f" * 200 + "(a: str) -> str:\n    return a", "200 characters"),
    ("def f(" + "a" * 200 + ": str) -> str:\n    return 'b'", "200 characters"),
    ("def f(a: str) -> str:\n    '" + "a" * 100_001 + "'\n    return a", "docstring of 100001 characters"),
    ("def f(a: str) -> str:\n    '\\ud800'\n    return a", "surrogate"),
    ("def f(a: str) -> str:\n    # " + "a" * 100_000 + "\n    return a", "function of 1000"),
    ("def f(a: int) -> int:\n    return a" + " + a" * 3_000, "nested too deeply"),
    ("def f(a: 'list[' * 9) -> int:\n    return 1", "parameter 'a' of f has no type"),
])  # fmt: skip
def test_sources(source: str, construct: str) -> None:
    with pytest.raises(CompileError) as caught:
        compile_source(source)
    assert construct in caught.value.construct, str(caught.value)


@pytest.mark.parametrize("module", [
    "X = 1\nX += 4", "X = 1\nX = X + int('4')", "X = 1\nX = Y = 2", "X = 1\nX, Y = 2, 3", "X = 1\nif True:\n    X = 2",
    "X = 1\nfor X in (5,):\n    pass", "X = 1\nX = [1]", "X = 3\ndel X", "X = 1\nimport os as X", "X = 1\nfrom math import *",
    "X = 1\nL = [(X := i) for i in range(3)]", "X = 1\nclass X:\n    pass", "X = 1\nwith open('x') as X:\n    pass",
    "X = 1\ntry:\n    pass\nexcept OSError as X:\n    pass", "X = 1\nmatch 1:\n    case X:\n        pass",
    "X = 1\ndef _set() -> None:\n    global X\n    X = 9\n_set()", "Y = 1\nY += 1\nX = Y + 1",
    "X = (((10**64)**64)**64)**64", "X = 1.5",
])  # fmt: skip
def test_constants_known_only_by_running_the_file(module: str) -> None:
    with pytest.raises(CompileError, match="the name 'X' is or may be bound here to something else"):
        compile_source(f"{module}\ndef f(a: int) -> int:\n    return X")
    assert compile_source(f"{module}\ndef f(a: int) -> int:\n    return a").run("f", "2") == "2"


@pytest.mark.parametrize(("source", "construct"), [
    ("def _g(a: int) -> int:\n    return 1\nif True:\n    def _g(a: int) -> int:\n        return 2\n"
     "def f(a: int) -> int:\n    return _g(a)", "'_g'"),
    ("def _g(a: int) -> int:\n    return 9\ndef f(a: int) -> int:\n    return 1\nf = _g", "'f'"),
    ("len = 4\ndef f(a: str) -> int:\n    return len(a)", "'len'"),
    ("import os as abs\ndef f(a: int) -> int:\n    return abs(a)", "'abs'"),
    ("class abs:\n    pass\ndef f(a: int) -> int:\n    return abs(a)", "'abs'"),
    ("from math import *\ndef f(a: str) -> int:\n    return len(a)", "'len'"),
    ("range = [1]\ndef f(a: int) -> int:\n    for a in range(3):\n        pass\n    return a", "'range'"),
    ("range = 1\ndef f(a: int) -> int:\n    for a in range(3):\n        pass\n    return a", "'range'"),
])  # fmt: skip
def test_functions_known_only_by_running_the_file(source: str, construct: str) -> None:
    with pytest.raises(CompileError) as caught:
        compile_source(source)
    assert construct in caught.value.construct, str(caught.value)


@pytest.mark.parametrize(("parameters", "registers", "construct"), [
    (0, 5, "machine of 5 registers"),
    (0, 300, "machine of 300 registers"),
    (7, 6, "7 parameters on a machine of 6"),
    (7, 8, "7 parameters on a machine of 8"),
    (5, 6, "5 parameters on a machine of 6"),
])  # fmt: skip
def test_too_few_registers_for_a_function(parameters: int, registers: int, construct: str) -> None:
    names = "abcdefg"[:parameters]
    helper = f"def _g({', '.join(f'{name}: int' for name in names)}) -> int:\n    return {'+'.join(names) or 1}\n"
    source = f"{helper}def f(t: str) -> str:\n    return str(_g({', '.join('1' for _ in names)}))"
    with pytest.raises(CompileError, match=construct):
        compile_source(source, registers=registers)


@pytest.mark.parametrize("registers", [6, 7])
def test_too_few_registers_for_a_program(registers: int) -> None:
    with pytest.raises(CompileError, match="a program with 3 parameters; use at most 2"):
        compile_source("def f(a: str, b: str, c: str) -> str:\n    return a", registers=registers)


def test_spilling_ends() -> None:
    routine = Routine("all at once", 7)
    words = [routine.register() for _ in range(7)]
    for position, word in enumerate(words):
        routine.emit("move", word, position)
    routine.emit("return", reads=tuple(range(7)))
    with pytest.raises(CompileError, match="all at once needs more than 8 registers"):
        allocate(routine, 8)


def test_what_cannot_be_compiled_at_all() -> None:
    with pytest.raises(CompileError, match="int instead of functions"):
        compile_library(5)  # type: ignore[arg-type]
    with pytest.raises(CompileError, match="cannot be read"):
        compile_library("a\0b")
    with pytest.raises(CompileError, match="what no library can hold"):
        compile_source("def f(a: str) -> str:\n    return a", name="a b")


def test_the_error_names_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("def f(a: int) -> int:\n    b = a\n\n    return b / 2\n")
    with pytest.raises(CompileError, match=r"mine\.py:4: the operator /; use // and %"):
        compile_library(path)
    with pytest.raises(CompileError, match="cannot be read"):
        compile_library(tmp_path / "missing.py")
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(CompileError, match="cannot be read"):
        compile_library(path)


def test_functions_without_source() -> None:
    with pytest.raises(CompileError, match="cannot be found"):
        compile_library([len])


def test_imports_from_a_file_beside(tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text("from .two import double, OFFSET\n"
                                     "def f(a: int) -> int:\n    return double(a) + OFFSET\n")  # fmt: skip
    (tmp_path / "two.py").write_text("OFFSET = 3\ndef double(a: int) -> int:\n    return _again(a)\n"
                                     "def _again(a: int) -> int:\n    return a * 2\n")  # fmt: skip
    library = compile_library(tmp_path / "one.py")
    assert library.name == "one"
    assert list(library.programs) == ["f"]
    assert library.run("f", "5") == "13"
    (tmp_path / "two.py").unlink()
    with pytest.raises(CompileError, match=r"no file two\.py beside it"):
        compile_library(tmp_path / "one.py")
