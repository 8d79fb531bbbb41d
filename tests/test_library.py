"""Libraries as files and as code of strangers: round trips, corruption, hostile content, linking, disassembly."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from neurallib.configuration.machine_config import MachineConfig, MachineConfigError
from neurallib.modeling_neurallib import library_files
from neurallib.modeling_neurallib.compiler.compiling import compile_source
from neurallib.modeling_neurallib.library import NeuralLibrary
from neurallib.modeling_neurallib.library_errors import LibraryError, ProgramFault
from neurallib.modeling_neurallib.library_files import CONFIG_FILE, TENSOR_FILE
from neurallib.modeling_neurallib.library_records import LearnedCode, Origin, Parameter, Program
from neurallib.modeling_neurallib.machine.operations import CODES, READS, Fault
from neurallib.modeling_neurallib.machine.state import MachineError, check_arguments
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner

from neurallib.command_line import app

SOURCE = '''
def double(a: int) -> int:
    """Twice a number."""
    return _again(a, 2)

def shout(text: str) -> str:
    """Louder."""
    return text + "!"

def _again(a: int, times: int) -> int:
    return a * times
'''


@pytest.fixture(scope="module")
def library() -> NeuralLibrary:
    return compile_source(SOURCE, name="sample")


def handmade(rows: list[tuple[int, int, int, int, int]], **changes: Any) -> NeuralLibrary:
    program = Program("p", "", (Parameter("a", "str"),), "str", 0, len(rows), "", 4)
    return NeuralLibrary("hand", {"p": replace(program, **changes)}, np.array(rows, dtype=np.int64).reshape(-1, 5))


HALT = (CODES["halt"], 0, 0, 0, 0)


def test_run_and_call(library: NeuralLibrary) -> None:
    assert library.run("double", "21") == "42"
    assert library.run("double", "x") == "not a number"
    assert library.call("shout", ["hé"]).text == "hé!"
    assert [result.text for result in library.run_batch([("double", ["4"]), ("shout", ["a"])])] == ["8", "a!"]
    assert library.run_batch([]) == []
    assert library.machine() is library.machine()


def test_calls_that_cannot_be(library: NeuralLibrary) -> None:
    with pytest.raises(LibraryError, match="has no program 'nothing of the kind'; it has double, shout"):
        library.program("nothing of the kind")
    with pytest.raises(LibraryError, match="did you mean 'double'"):
        library.run("doubel", "1")
    with pytest.raises(LibraryError, match=r"double takes 1 arguments \(a\), found 2"):
        library.run("double", "1", "2")
    with pytest.raises(LibraryError, match=r"double: a must be a text, found 5; every argument is one, numbers too"):
        library.run("double", 5)  # type: ignore[arg-type]
    with pytest.raises(LibraryError, match="double: a must be a text, found None"):
        library.run_batch([("double", ["1"]), ("double", [None])])  # type: ignore[list-item]
    with pytest.raises(LibraryError, match="double must be called with a list of texts, found 5"):
        library.call("double", 5)  # type: ignore[arg-type]
    with pytest.raises(LibraryError, match="no engine 'dense'"):
        library.run("double", "1", engine="dense")
    with pytest.raises(LibraryError, match="compiled for machines of 16 registers"):
        library.run("double", "1", machine=MachineConfig(registers=8))
    with pytest.raises(ProgramFault, match=r"double was stopped after .* overflow") as caught:
        library.run("double", "1000000000")
    assert caught.value.fault is Fault.overflow
    assert library.call("double", ["1000000000"]).text is None


@pytest.mark.parametrize("name", [None, 5, ["double"], {}, b"double"])
def test_a_name_that_is_no_text(library: NeuralLibrary, name: Any) -> None:
    for use in (library.run, library.program, library.library_of):
        with pytest.raises(LibraryError, match="library 'sample' is asked for by its name, a text, found"):
            use(name)


@pytest.mark.parametrize("name", ["x" * 10**6, "\n\x1b[31m" * 10**5])
def test_a_long_name_is_not_shown_whole(library: NeuralLibrary, name: str) -> None:
    with pytest.raises(LibraryError, match=r"has no program .*…; it has double, ") as caught:
        library.run(name)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 800


def test_round_trip(library: NeuralLibrary, tmp_path: Path) -> None:
    library.save_pretrained(tmp_path / "a" / "b")
    assert {path.name for path in (tmp_path / "a" / "b").iterdir()} == {CONFIG_FILE, TENSOR_FILE}
    loaded = NeuralLibrary.from_pretrained(tmp_path / "a" / "b")
    assert loaded.programs == library.programs
    assert loaded.origins == library.origins
    assert loaded.fingerprint == library.fingerprint
    assert loaded.run("double", "4") == "8"
    loaded.save_pretrained(tmp_path / "again")
    for name in (CONFIG_FILE, TENSOR_FILE):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "a" / "b" / name).read_bytes()


def test_nothing_half_written(library: NeuralLibrary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library.save_pretrained(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(library_files.os, "replace", fail)
    with pytest.raises(LibraryError, match="disk full"):
        compile_source("def f(a: str) -> str:\n    return a").save_pretrained(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_file_where_a_folder_is_wanted(library: NeuralLibrary, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LibraryError, match="cannot be written"):
        library.save_pretrained(tmp_path / "file")


def edit(key: str, value: Any) -> Callable[[Path], None]:
    """Changes one entry of the description: ``programs.0.entry`` and the like."""

    def change(folder: Path) -> None:
        data = json.loads((folder / CONFIG_FILE).read_text())
        *path, last = [int(part) if part.isdigit() else part for part in key.split(".")]
        holder = data
        for part in path:
            holder = holder[part]
        holder[last] = value
        (folder / CONFIG_FILE).write_text(json.dumps(data))

    return change


def tensor(name: str, position: int, value: int) -> Callable[[Path], None]:
    """Changes one instruction field, hash and all, as a hostile author would."""

    def change(folder: Path) -> None:
        tensors = load_file(folder / TENSOR_FILE)
        tensors[name][position] = value
        _replace(folder, tensors)

    return change


def _replace(folder: Path, tensors: dict[str, np.ndarray]) -> None:
    import hashlib

    save_file(tensors, folder / TENSOR_FILE)
    edit("sha256", hashlib.sha256((folder / TENSOR_FILE).read_bytes()).hexdigest())(folder)


def shorter(folder: Path) -> None:
    tensors = load_file(folder / TENSOR_FILE)
    tensors["line"] = tensors["line"][:-1].copy()
    _replace(folder, tensors)


def floats(folder: Path) -> None:
    tensors = load_file(folder / TENSOR_FILE)
    tensors["operation"] = tensors["operation"].astype(np.float32)
    _replace(folder, tensors)


def header(text: bytes) -> Callable[[Path], None]:
    """Puts a file of tensors there that has nothing but this header."""

    def change(folder: Path) -> None:
        import hashlib

        content = len(text).to_bytes(8, "little") + text
        (folder / TENSOR_FILE).write_bytes(content)
        edit("sha256", hashlib.sha256(content).hexdigest())(folder)

    return change


def _learned(folder: Path, tensors: dict[str, np.ndarray] | None = None, **numbers: int) -> None:
    relearned(compile_source(SOURCE, name="sample")).save_pretrained(folder)
    for key, number in numbers.items():
        edit(f"learned.{key}", number)(folder)
    if tensors is not None:
        _replace(folder, load_file(folder / TENSOR_FILE) | tensors)


HUGE = 10**400
DAMAGE: list[tuple[str, Callable[[Path], object], str]] = [
    ("no description", lambda folder: (folder / CONFIG_FILE).unlink(), f"{CONFIG_FILE} cannot be read"),
    ("no tensors", lambda folder: (folder / TENSOR_FILE).unlink(), f"{TENSOR_FILE} cannot be read"),
    ("not JSON", lambda folder: (folder / CONFIG_FILE).write_text("{"), "is not JSON"),
    ("deep JSON", lambda folder: (folder / CONFIG_FILE).write_text("[" * 100_000), "is not JSON"),
    ("a list", lambda folder: (folder / CONFIG_FILE).write_text("[]"), "format version None"),
    ("newer", edit("format_version", 99), "format version 99"),
    ("truncated", lambda f: (f / TENSOR_FILE).write_bytes((f / TENSOR_FILE).read_bytes()[:-9]), "sha256 differs"),
    ("garbage", header(b"garbage!"), "is corrupt"),
    ("a header that is shown", header(b'{"a":{"dtype":"' + rb"\n\u001b[2J" * 9_999 + b'"}}'), "is corrupt"),
    ("a large header", header(b"{" + b" " * 2**20 + b"}"), "its header is larger than 1048576 bytes"),
    ("too short a column", shorter, "differ in length"),
    ("floats", floats, "must be integers"),
    ("operation", tensor("operation", 3, 77), "operation must be 0…31, found 77"),
    ("negative operation", tensor("operation", 3, -1), "operation must be 0…31, found -1"),
    ("register", tensor("source_b", 0, 16), "source_b must be 0…15, found 16"),
    ("target", tensor("target", 0, -1), "target must be 0…15, found -1"),
    ("a call outside the code", tensor("immediate", 2, 10**6), "instruction 2: immediate must be 0"),
    ("a line", tensor("line", 2, -5), "line number"),
    ("entry", edit("programs.0.entry", 10**9), "entry 1000000000 is outside the code"),
    ("negative entry", edit("programs.0.entry", -1), "entry -1 is outside"),
    ("entry is true", edit("programs.0.entry", True), "'entry' must be of type int, found bool"),
    ("length", edit("programs.0.length", 10**9), "reaches outside"),
    ("name", edit("programs.0.name", "rm -rf /"), "named like a Python function"),
    ("name of a control character", edit("programs.0.name", "a\x1b[2J"), "named like a Python function"),
    ("two of a name", edit("programs.1.name", "double"), "two programs named"),
    ("library name", edit("name", "../x"), "named by letters"),
    ("no programs", edit("programs", []), "must have 1…4096 programs"),
    ("programs is text", edit("programs", "x"), "'programs' must be of type list"),
    ("a program is text", edit("programs.0", "x"), "'name' must be of type str"),
    ("docstring", edit("programs.0.docstring", "x" * 100_001), "at most 100000 characters"),
    ("returns", edit("programs.0.returns", "object"), "the result must be one of"),
    ("parameter type", edit("programs.0.parameters.0.type", "file"), "must be one of"),
    ("parameter name", edit("programs.0.parameters.0.name", "a b"), "named like a Python variable"),
    ("parameters", edit("programs.0.parameters", [{"name": "a", "type": "str"}] * 7), "7 parameters"),
    ("registers", edit("registers", 3), "registers must be 6…256"),
    ("symbol", edit("symbols.0.address", 10**9), "outside the code"),
    ("symbol text", edit("symbols.0.name", 5), "'name' must be of type str"),
    ("symbol line", edit("symbols.0.line", -5), "line number"),
    ("a list for a version", edit("format_version", [{}] * 9_999), "format version list"),
    ("a long text for a version", edit("format_version", "\x1b[2J" * 9_999), "format version '\\x1b[2J"),
    ("a huge version", edit("format_version", HUGE), "format version an integer of 1329 bits"),
    ("huge registers", edit("registers", HUGE), "registers must be 6…256, found an integer of 1329 bits"),
    ("a huge entry", edit("programs.0.entry", HUGE), "entry an integer of 1329 bits is outside the code"),
    ("a huge length", edit("programs.0.length", -HUGE), "length an integer of 1329 bits reaches outside"),
    ("a huge symbol", edit("symbols.0.address", HUGE), "symbol at an integer of 1329 bits is outside the code"),
    ("huge learned values", lambda folder: _learned(folder, values=HUGE), "values an integer of 1329 bits or offset 0"),
    ("huge learned offset", lambda folder: _learned(folder, offset=-HUGE), "they must be 4…4294967296 and 0…"),
    (
        "learned of control characters",
        lambda folder: _learned(folder, {f"learned.x\nAll is well\x1b[31m{i}": np.zeros(1) for i in range(99)}),
        "there must be weights of operation, source_a, source_b, target, immediate, found",
    ),
    (
        "learned of many dimensions",
        lambda folder: _learned(folder, {"learned.target": np.zeros((1,) * 10)}),
        "found 10 dimensions",
    ),
    (
        "no learned rows",
        lambda folder: _learned(folder, {"learned.rows": np.zeros(1)}),
        "'learned.rows' must be integers",
    ),
]


@pytest.mark.parametrize(("change", "message"), [case[1:] for case in DAMAGE], ids=[case[0] for case in DAMAGE])
def test_damage(library: NeuralLibrary, tmp_path: Path, change: Callable[[Path], object], message: str) -> None:
    library.save_pretrained(tmp_path)
    change(tmp_path)
    with pytest.raises(LibraryError, match=re.escape(message)) as caught:
        NeuralLibrary.from_pretrained(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert str(caught.value).isprintable() and len(str(caught.value)) < len(str(tmp_path)) + 800


@pytest.mark.parametrize(("limit", "file"), [("MAXIMUM_FILE", TENSOR_FILE), ("MAXIMUM_DESCRIPTION", CONFIG_FILE)])
def test_a_file_that_is_too_large(
    library: NeuralLibrary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, file: str
) -> None:
    library.save_pretrained(tmp_path / "read")
    monkeypatch.setattr(library_files, limit, 100)
    with pytest.raises(LibraryError, match=f"{file} is larger than"):
        NeuralLibrary.from_pretrained(tmp_path / "read")
    with pytest.raises(LibraryError, match=f"{file} would be larger than .* extract a part"):
        library.save_pretrained(tmp_path / "written")
    assert not (tmp_path / "written").exists()


@pytest.mark.parametrize(
    "text",
    ["[{},{},{}]", "[[],[],[]]", "[[[[[[", '{"format_version":[1,2,3,4]}', r'["\\\"",[],[],[]]', r'["\\",[],[],["]'],
)
def test_a_description_of_too_many_values_is_not_parsed(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(library_files, "MAXIMUM_VALUES", 4)
    monkeypatch.setattr(library_files.json, "loads", lambda _: pytest.fail("was parsed"))
    with pytest.raises(LibraryError, match="folder has more than 4 values; do not use this library"):
        library_files._parsed(text.encode(), "folder")


@pytest.mark.parametrize("text", [r'["[,{\"[,{\\", ""]', '{"[[[[": "{{{{"}', r'"\\\",,,,,"'])
def test_what_stands_in_texts_is_no_value(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(library_files, "MAXIMUM_VALUES", 2)
    assert library_files._parsed(text.encode(), "folder") == json.loads(text)
    assert library_files._parsed(text.encode("utf-8-sig"), "folder") == json.loads(text)


def test_a_description_that_is_not_utf_8() -> None:
    with pytest.raises(LibraryError, match="folder is not JSON"):
        library_files._parsed("[1]".encode("utf-16"), "folder")


@pytest.mark.parametrize("name", ["operation", "line", "learned.rows", "learned.origin"])
def test_a_tensor_of_too_many_instructions_is_not_widened(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(library_files, "MAXIMUM_INSTRUCTIONS", 9)
    shape = (10, 5) if name == "learned.origin" else (10,)
    with pytest.raises(LibraryError, match=rf"tensor '{name}' must have at most 9 entries, .*found \[10"):
        library_files._integers({name: np.zeros(shape, np.int8)}, name, "folder")


@pytest.mark.parametrize("inside", ["", "nothing"])
def test_a_folder_of_control_characters(library: NeuralLibrary, tmp_path: Path, inside: str) -> None:
    folder = tmp_path / "a\nAll is well\x1b[31m"
    library.save_pretrained(folder)
    edit("sha256", "")(folder)
    (folder / "nothing").mkdir()
    with pytest.raises(LibraryError) as caught:
        NeuralLibrary.from_pretrained(folder / inside)
    assert str(caught.value).isprintable()
    with pytest.raises(LibraryError) as caught:
        library.save_pretrained(folder / CONFIG_FILE)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("source", ["/no/such/folder", "a" * 5_000, "org/" + "a" * 300, "a\n\x1b[31m" * 99, "a\0b"])
def test_no_such_folder(source: str) -> None:
    with pytest.raises(LibraryError, match="give the folder of a library") as caught:
        NeuralLibrary.from_pretrained(source)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 500


@pytest.mark.parametrize("said", ["no network", "no network\n\x1b[31m" * 999])
def test_no_such_repository(monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    import huggingface_hub

    def offline(*_: object, **__: object) -> str:
        raise OSError(said)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(LibraryError, match=r"can be had from the Hub: no network.*; check name") as caught:
        NeuralLibrary.from_pretrained("org/no-such-library")
    assert str(caught.value).isprintable() and len(str(caught.value)) < 1_000


@pytest.mark.parametrize(("rows", "fault"), [
    ([(CODES["jump"], 0, 0, 0, 0)], Fault.out_of_steps),
    ([(CODES["call"], 0, 0, 0, 0)], Fault.stack_overflow),
    ([(CODES["return"], 0, 0, 0, 0)], Fault.stack_underflow),
    ([(CODES["move"], 0, 0, 1, 0)], Fault.bad_program_counter),
    ([(CODES["load"], 0, 0, 0, 2_000_000), HALT], Fault.wild_access),
    ([(CODES["store"], 0, 1, 0, -5), HALT], Fault.wild_access),
    ([(CODES["constant"], 0, 0, 1, 1_000_000), HALT], Fault.wild_access),
    ([(CODES["constant"], 0, 0, 1, -1), HALT], Fault.wild_access),
])  # fmt: skip
def test_hostile_code_only_faults(rows: list[tuple[int, int, int, int, int]], fault: Fault) -> None:
    result = handmade(rows).call("p", ["abc"], MachineConfig(max_steps=10_000))
    assert (result.text, result.fault) == (None, fault)


@pytest.mark.parametrize("immediate", [2**31, -(2**40)])
def test_immediates_that_no_machine_has(immediate: int) -> None:
    with pytest.raises(LibraryError, match="immediate must be"):
        handmade([(CODES["constant"], 0, 0, 0, immediate), HALT])


def test_wrong_arrays() -> None:
    program = Program("p", "", (), "str", 0, 1, "", 4)
    for code in (np.zeros((0, 5), np.int64), np.zeros((3, 4), np.int64), np.zeros((3, 5)), [[0] * 5]):
        with pytest.raises(LibraryError):
            NeuralLibrary("x", {"p": program}, code)  # type: ignore[arg-type]


def test_two_programs_of_a_name_in_a_model_are_refused(library: NeuralLibrary) -> None:
    description, tensors = library.to_tensors()
    assert list(NeuralLibrary.from_tensors(description, tensors).programs) == ["double", "shout"]
    description["programs"][1]["name"] = "double"
    with pytest.raises(LibraryError, match="the model's configuration: two programs named 'double'"):
        NeuralLibrary.from_tensors(description, tensors)


def test_limits_are_those_of_the_machine(library: NeuralLibrary) -> None:
    parameters = tuple(Parameter(f"p{number}", "str") for number in range(7))
    assert len(handmade([HALT], parameters=parameters[:6]).program("p").parameters) == 6
    with pytest.raises(LibraryError, match="7 parameters, at most 6 may be"):
        handmade([HALT], parameters=parameters)
    with pytest.raises(MachineError, match="at most 6 arguments, found 7"):
        check_arguments([1] * 7, 97, MachineConfig())
    for registers in (5, 257):
        with pytest.raises(LibraryError, match="registers must be 6…256"):
            replace(library, registers=registers)
        with pytest.raises(MachineConfigError, match="registers must be between 6 and 256"):
            MachineConfig(registers=registers)


def test_link_relocates_and_qualifies(library: NeuralLibrary) -> None:
    other = compile_source("def double(a: str) -> str:\n    return _again(a)\n"
                           "def _again(a: str) -> str:\n    return a + a\n"
                           "def triple(a: str) -> str:\n    return double(a) + a", name="echo-texts")  # fmt: skip
    linked = NeuralLibrary.link([library, other])
    assert set(linked.programs) == {"sample.double", "echo_texts.double", "shout", "triple"}
    assert linked.run("sample.double", "4") == "8"
    assert linked.run("echo_texts.double", "4") == "44"
    assert linked.run("triple", "ab") == "ababab"
    assert linked.run("shout", "x") == "x!"
    assert NeuralLibrary.link([library]).fingerprint == library.fingerprint
    with pytest.raises(LibraryError, match="two libraries named"):
        NeuralLibrary.link([library, library])
    with pytest.raises(LibraryError, match="nothing to link"):
        NeuralLibrary.link([])
    with pytest.raises(LibraryError, match="different registers"):
        NeuralLibrary.link([library, compile_source(SOURCE, name="small", registers=12)])


def test_provenance_stays_with_a_program(library: NeuralLibrary, tmp_path: Path) -> None:
    other = compile_source("def triple(a: str) -> str:\n    return a + a + a", name="echo")
    third = compile_source("def first(a: str) -> str:\n    return a[0]", name="cut")
    linked = NeuralLibrary.link([NeuralLibrary.link([library, other], name="both"), third])
    expected = {"double": "sample", "shout": "sample", "triple": "echo", "first": "cut"}
    assert {name: linked.library_of(name) for name in linked.programs} == expected
    linked.save_pretrained(tmp_path)
    loaded = NeuralLibrary.from_pretrained(tmp_path)
    assert {name: loaded.library_of(name) for name in loaded.programs} == expected
    assert library.library_of("double") == "sample"
    assert loaded.fingerprint == linked.fingerprint
    assert loaded.extract(["triple"]).library_of("triple") == "echo"
    edit("programs.0.library", "\x1b[2J")(tmp_path)
    with pytest.raises(LibraryError, match="the library that it comes from"):
        NeuralLibrary.from_pretrained(tmp_path)


def test_a_part_is_the_library_that_was_linked(library: NeuralLibrary) -> None:
    other = compile_source("def double(a: str) -> str:\n    return a + a", name="echo")
    linked = NeuralLibrary.link([library, other])
    start = len(library.instructions)
    names = {"sample.double": "double", "shout": "shout"}
    assert linked.part("sample", names, 0, start).fingerprint == library.fingerprint
    assert (
        linked.part("echo", {"echo.double": "double"}, start, len(linked.instructions)).fingerprint == other.fingerprint
    )
    with pytest.raises(LibraryError):
        linked.part("sample", names, 0, 1)


def test_worked_examples_are_runs(library: NeuralLibrary) -> None:
    found = library.worked_examples()
    assert [example.program for example in found] == ["double", "shout"]
    for example in found:
        assert library.run(example.program, *example.arguments) == example.result
    # A sample that the program can do something with is taken before one that it cannot.
    picky = compile_source(
        'def half(a: str) -> str:\n    if a == "12":\n        return "6"\n    return "not a number"', name="picky"
    )
    assert picky.worked_examples()[0].result == "6"
    endless = compile_source("def f(a: str) -> str:\n    while True:\n        a = a\n    return a", name="endless")
    assert endless.worked_examples(max_steps=1_000) == []


def test_the_card_shows_what_ran(library: NeuralLibrary) -> None:
    card = library.card("org/sample", "mit")
    example = library.worked_examples(["double"])[0]
    assert f'library.run("double", "{example.arguments[0]}")  # "{example.result}"' in card
    assert library.fingerprint in card and "license: mit" in card and card.count("Louder.") == 1


def test_the_listing_puts_instructions_beside_their_source(library: NeuralLibrary) -> None:
    functions = library.listing("double")
    lines = [line for function in functions for line in function]
    beside = next(line for line in lines if line.source == "    return a * times")
    assert beside.line == 11 and any("multiply" in instruction for instruction in beside.instructions)
    shown = [each for line in lines for each in line.instructions if not each.startswith(".")]
    assert all(each in library.disassemble("double") for each in shown)
    assert len([each for f in library.listing() for line in f for each in line.instructions if each[0] != "."]) == len(
        library.instructions
    )


FIRST_FORMAT = Path(__file__).parent / "data" / "library_format_1"


def test_a_library_of_the_first_format_is_read() -> None:
    library = NeuralLibrary.from_pretrained(FIRST_FORMAT)
    assert library.fingerprint == "e8f5e8c13092b0ebcae6f0d833fbe9fecffeebc704edc834b44eb19e1e6ffceb"
    assert library.run("add", "12", "30") == "42" and library.run("reverse", "desserts") == "stressed"


def test_an_older_format_is_migrated_step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library_files, "FORMAT_VERSION", 3)
    with pytest.raises(LibraryError, match=r"format version 1, this neurallib reads 1…3"):
        NeuralLibrary.from_pretrained(FIRST_FORMAT)

    def second(data: dict[str, Any]) -> dict[str, Any]:
        return data | {"name": data["name"] + "_2"}

    def third(data: dict[str, Any]) -> dict[str, Any]:
        assert data["format_version"] == 2
        return data | {"name": data["name"] + "_3"}

    monkeypatch.setattr(library_files, "MIGRATIONS", {1: second, 2: third})
    library = NeuralLibrary.from_pretrained(FIRST_FORMAT)
    assert library.name == "tiny_programs_2_3" and library.run("add", "1", "2") == "3"


def test_a_newer_format_is_refused(tmp_path: Path, library: NeuralLibrary) -> None:
    library.save_pretrained(tmp_path)
    edit("format_version", 2)(tmp_path)
    with pytest.raises(LibraryError, match=r"format version 2 is newer than 1, .*; upgrade neurallib"):
        NeuralLibrary.from_pretrained(tmp_path)


def test_extract(library: NeuralLibrary) -> None:
    alone = library.extract(["shout"])
    assert list(alone.programs) == ["shout"]
    assert len(alone.instructions) < len(library.instructions) / 2
    assert alone.run("shout", "a") == "a!"
    assert "_again" not in alone.symbols.values()
    assert library.extract(["double"]).run("double", "-3") == "-6"


def test_minimum_values_and_smaller_machines(library: NeuralLibrary) -> None:
    assert compile_source("def f(a: str) -> str:\n    return a[1:]").programs["f"].minimum_values <= 128
    assert compile_source("def f(a: int) -> int:\n    return a + 1000").programs["f"].minimum_values >= 2048
    small = MachineConfig(values=128, memory=128)
    assert library.run("shout", "17", machine=small) == "17!"
    assert library.run("double", "17", machine=small) == "34"
    assert library.call("double", ["60"], small).fault is Fault.overflow


def test_disassembly_follows_the_source(library: NeuralLibrary) -> None:
    text = library.disassemble("double")
    assert "_again:   (<source>, line 10)" in text
    assert "    #   11     return a * times" in text
    assert re.search(r"multiply +r\d r\d r\d +; r\d ← r\d · r\d", text)
    assert re.search(r"call +_again", text)
    assert "shout" not in text
    whole = library.disassemble()
    assert all(name in whole for name in ("entry of shout", "entry of double"))
    assert len(re.findall(r"^ +\d+  [a-z]", whole, re.MULTILINE)) == len(library.instructions)
    with pytest.raises(LibraryError):
        library.disassemble("nothing")


def test_disassembly_shows_no_control_characters() -> None:
    rows = [(CODES["call"], 0, 0, 0, 1), HALT]
    program = Program("p", "", (), "str", 0, 2, "", 4)
    origins = {0: Origin("p", "", 1, "x\x1b[2J"), 1: Origin("\x1b[31mred", "\x1b", 1, "")}
    library = NeuralLibrary("x", {"p": program}, np.array(rows, np.int64), origins, np.array([1, 1]))
    assert "\x1b" not in library.disassemble()


def test_fingerprint_depends_on_everything(library: NeuralLibrary) -> None:
    prints = {library.fingerprint}
    for before, after in (("Louder", "Loud"), ("a * times", "times * a"), ("double", "twice")):
        change = SOURCE.replace(before, after)
        prints.add(compile_source(change, name="sample").fingerprint)
    prints.add(compile_source(SOURCE, name="other").fingerprint)
    assert len(prints) == 5
    assert compile_source(SOURCE, name="sample").fingerprint == library.fingerprint


# Learned programs


def relearned(library: NeuralLibrary, wrong: str = "", value: float = 0.0) -> NeuralLibrary:
    """The library with the constant 2 of ``double`` learned to be 3, and one weight set to a wrong value."""
    address = int(
        np.flatnonzero((library.instructions[:, 0] == CODES["constant"]) & (library.instructions[:, 4] == 2))[0]
    )
    row = library.instructions[address].copy()
    row[4] = 3
    widths = dict(zip(("operation", "source_a", "source_b", "target", "immediate"), (32, 16, 16, 16, 64), strict=True))
    weights = {name: np.zeros((1, width), np.float32) for name, width in widths.items()}
    for name, entry in zip(weights, row.tolist(), strict=True):
        weights[name][0, entry] = 1
    weights["immediate"][0, [2, 3]] = 0.25, 0.75
    if wrong:
        weights[wrong][0, 0] = value
    learned = LearnedCode(library.instructions, np.array([address]), 64, 0, weights)
    return library.with_learned(learned, row[None])


def test_learned_programs_are_saved_with_what_they_were(library: NeuralLibrary, tmp_path: Path) -> None:
    learned = relearned(library)
    assert learned.run("double", "5") == "15" and library.run("double", "5") == "10" and not library.changes()
    assert learned.fingerprint != library.fingerprint
    learned.save_pretrained(tmp_path)
    loaded = NeuralLibrary.from_pretrained(tmp_path)
    assert loaded.fingerprint == learned.fingerprint and loaded.run("double", "5") == "15"
    (change,) = loaded.changes()
    assert change == learned.changes()[0] and change.weight == 0.75 and change.function == "double"
    assert "3" in change.after and "2" in change.before
    assert NeuralLibrary.link([loaded]).learned is None and NeuralLibrary.link([loaded]).run("double", "5") == "15"


@pytest.mark.parametrize(
    ("wrong", "value", "message"),
    [
        ("operation", float("nan"), "weights of operation are not finite"),
        ("target", 1.5, "weights of target must be at least 0 and sum to 1"),
        ("immediate", -1.0, "weights of immediate must be at least 0"),
    ],
)
def test_learned_weights_are_validated(library: NeuralLibrary, wrong: str, value: float, message: str) -> None:
    with pytest.raises(LibraryError, match=message):
        relearned(library, wrong, value)


def test_learned_rows_and_shapes_are_validated(library: NeuralLibrary) -> None:
    learned = relearned(library).learned
    assert learned is not None
    row = library.instructions[learned.rows]
    for changes, message in (
        ({"rows": np.array([10**6])}, "rows must be ascending addresses"),
        ({"origin": library.instructions[:3]}, "the origin must be"),
        ({"weights": {"operation": learned.weights["operation"]}}, "there must be weights of"),
        ({"weights": {**learned.weights, "target": np.ones((1, 3), np.float32)}}, "weights of target must be"),
    ):
        with pytest.raises(LibraryError, match=message):
            library.with_learned(replace(learned, **changes), row)
    with pytest.raises(LibraryError, match="there must be 1 learned instructions"):
        library.with_learned(learned, row[:, :3])
    with pytest.raises(LibraryError, match="must be integers, found float32; discretise the soft program"):
        library.with_learned(learned, row.astype(np.float32))


def test_inspect_shows_what_learning_changed(library: NeuralLibrary, tmp_path: Path) -> None:
    relearned(library).save_pretrained(tmp_path / "learned")
    library.save_pretrained(tmp_path / "compiled")
    shown = {
        arguments: CliRunner().invoke(app, ["inspect", str(tmp_path / arguments[0]), *arguments[1:]]).stdout
        for arguments in (("learned",), ("learned", "double"), ("compiled",), ("learned", "--json"))
    }
    for arguments in (("learned",), ("learned", "double")):
        assert "learned: 1 of 1 instructions differ from the compiled ones" in shown[arguments]
        line = next(line for line in shown[arguments].splitlines() if "0.75" in line)
        assert re.search(r"double +constant +r\d+ 2 .*constant +r\d+ 3 ", line)
    assert "differ" not in shown["compiled",]
    (change,) = json.loads(shown["learned", "--json"])["learned"]
    assert change["function"] == "double" and change["weight"] == 0.75


def test_fields_that_no_operation_reads_are_no_change(library: NeuralLibrary) -> None:
    learned = relearned(library)
    assert learned.learned is not None
    row = library.instructions[learned.learned.rows]
    assert not READS[row[0, 0], 1]
    row[0, 1] = 7  # a source of ``constant``
    assert not library.with_learned(learned.learned, row).changes()
