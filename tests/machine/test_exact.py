"""The exact engine: three paths, one meaning; never out of bounds, always stopped."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from machine_programs import REVERSE, assemble, runs
from neurallib.configuration.machine_config import MachineConfig
from neurallib.modeling_neurallib.machine.exact import ExactMachine
from neurallib.modeling_neurallib.machine.operations import ANC_OPERATIONS, OPERATIONS, Fault, evaluate
from neurallib.modeling_neurallib.machine.state import FinalStates, MachineError, RunResult

SMALL = [
    MachineConfig(values=16, memory=16, registers=6, call_depth=2, max_steps=60),
    MachineConfig(values=64, memory=5, registers=6, call_depth=3, max_steps=60),
    MachineConfig(values=2**31, memory=70, registers=7, call_depth=2, max_steps=60),
    MachineConfig(values=2**32, memory=130, registers=6, call_depth=1, max_steps=60),
]
TEXT = MachineConfig(values=2**31, memory=4_096, registers=16, max_steps=1_000)
PATHS = [pytest.param(False, id="native"), pytest.param(True, id="portable")]


def same(left: FinalStates, right: FinalStates) -> None:
    for name in ("faults", "steps", "program_counters", "registers", "memory"):
        np.testing.assert_array_equal(getattr(left, name), getattr(right, name), err_msg=name)


@settings(max_examples=100, deadline=None)
@given(runs(SMALL, batch=3), st.integers(1, 60))
def test_native_and_portable_equal_the_reference(case, max_steps):
    config, code, entries, registers, memory = case
    reference = ExactMachine(code, config, portable=True).reference(entries, registers, memory, max_steps)
    assert (reference.steps <= max_steps).all()
    for portable in (False, True):
        same(ExactMachine(code, config, portable=portable).execute(entries, registers, memory, max_steps), reference)


@pytest.mark.parametrize("portable", PATHS)
@pytest.mark.parametrize("operation", [o for o in OPERATIONS if o.semantics], ids=lambda o: o.name)
def test_every_operation_on_every_pair_of_words(operation, portable):
    config = MachineConfig(values=16, memory=1, registers=6, max_steps=2)
    pairs = [(a, b) for a in range(16) for b in range(16)]
    immediates = range(-8, 8) if operation.kind == "immediate" else (0,)
    for immediate in immediates:
        code = np.array([(operation.code, 0, 1, 2, immediate), (0, 0, 0, 0, 0)])
        registers = np.array([(a, b, 5, 0, 0, 0) for a, b in pairs])
        final = ExactMachine(code, config, portable).execute([0] * 256, registers, np.zeros((256, 1), np.int64))
        for k, (a, b) in enumerate(pairs):
            value, fault = evaluate(operation.code, a, b, immediate, 16)
            assert (final.registers[k, 2], final.faults[k]) == (5 if fault else value, fault), (a, b, immediate)
            assert final.steps[k] == (1 if fault else 2)


def test_arithmetic_is_that_of_integers():
    """The table itself against Python, spelled out once more in another way."""
    plain: dict[str, Callable[[int, int], int]] = {
        "add": lambda a, b: a + b, "subtract": lambda a, b: a - b, "multiply": lambda a, b: a * b,
        "divide": lambda a, b: a // b, "modulo": lambda a, b: a - b * (a // b), "min": min, "max": max,
        "equal": lambda a, b: a == b, "less_than": lambda a, b: a < b, "and": lambda a, b: a & b,
        "or": lambda a, b: a | b, "xor": lambda a, b: a ^ b, "move": lambda a, b: a,
        "shift_left": lambda a, b: a * 2**b, "shift_right": lambda a, b: a // 2**b,
    }  # fmt: skip
    codes = {operation.name: operation.code for operation in OPERATIONS}
    for name, function in plain.items():
        for a in range(-8, 8):
            for b in range(-8, 8):
                value, fault = evaluate(codes[name], a % 16, b % 16, 0, 16)
                if name in ("divide", "modulo") and b == 0:
                    assert (value, fault) == (0 if name == "divide" else a % 16, Fault.division_by_zero)
                elif name.startswith("shift") and b < 0:
                    assert (value, fault) == (15 if name == "shift_right" and a < 0 else 0, Fault.overflow)
                else:
                    expected = int(function(a, b))
                    assert value == expected % 16 or b >= 4
                    assert bool(fault) == (not -8 <= expected < 8)


@pytest.mark.parametrize("portable", PATHS)
def test_the_operations_of_adaptive_neural_compilation(portable):
    """Each is one instruction. r0 = 4, r1 = 3, r2 the target, memory[3] = 6."""
    config = MachineConfig(values=16, memory=8, registers=6)
    targets = {"ZERO": 0, "INC": 5, "ADD": 7, "SUB": 1, "DEC": 3, "MIN": 3, "MAX": 4, "READ": 6, "WRITE": 2, "JEZ": 2}
    for name, form in ANC_OPERATIONS.items():
        pointer, other = ("1", "0") if name in ("READ", "WRITE") else ("0", "1")
        names = {"t": "2", "a": pointer, "b": other, "l": "2"}
        line = " ".join(names.get(part, part) for part in form.split())
        machine = ExactMachine(assemble(line, "halt", "halt"), config, portable)
        final = machine.execute([0], np.array([[4, 3, 2, 0, 0, 0]]), np.array([[0, 0, 0, 6, 0, 0, 0, 0]]))
        assert final.faults[0] == Fault.none
        assert final.registers[0, 2] == targets.get(name, 2), name
        assert final.memory[0, 3] == (4 if name == "WRITE" else 6)
        assert final.program_counters[0] == (0 if name == "STOP" else 1)  # JEZ: 4 is not zero
    jump = ExactMachine(assemble(ANC_OPERATIONS["JEZ"].replace("a l", "5 2"), "halt", "halt"), config, portable)
    assert jump.execute([0], np.zeros((1, 6), np.int64), np.zeros((1, 8), np.int64)).program_counters[0] == 2


@pytest.mark.parametrize("portable", PATHS)
@pytest.mark.parametrize(
    ("lines", "fault", "steps"),
    [
        (["constant 0 7", "add_immediate 0 0 1", "halt"], Fault.overflow, 2),
        (["divide 0 0 0", "halt"], Fault.division_by_zero, 1),
        (["constant 0 -1", "load 1 0 0", "halt"], Fault.wild_access, 2),
        (["constant 0 -1", "load 1 0 -8", "halt"], Fault.none, 3),  # addresses are unsigned: 15 − 8
        (["constant 0 5", "store 0 7 0", "halt"], Fault.wild_access, 2),
        (["index 0 0 1", "index_immediate 0 0 -1", "halt"], Fault.wild_access, 2),
        (["check 0 0", "halt"], Fault.index_out_of_range, 1),
        (["guard 0 0", "halt"], Fault.out_of_memory, 1),
        (["constant 0 -1", "guard 1 0", "halt"], Fault.none, 3),
        (["call 0"], Fault.stack_overflow, 3),
        (["return"], Fault.stack_underflow, 1),
        (["jump 0"], Fault.out_of_steps, 10),
        (["move 0 0"], Fault.bad_program_counter, 1),
        (["jump 2", "return", "call 1"], Fault.bad_program_counter, 3),  # returns past the end
    ],
)  # fmt: skip
def test_faults(lines, fault, steps, portable):
    config = MachineConfig(values=16, memory=12, registers=6, call_depth=2, max_steps=10)
    machine = ExactMachine(assemble(*lines), config, portable)
    final = machine.execute([0], np.zeros((1, 6), np.int64), np.zeros((1, 12), np.int64))
    assert (Fault(final.faults[0]), final.steps[0]) == (fault, steps)


@pytest.mark.parametrize("portable", PATHS)
@settings(max_examples=40, deadline=None)
@given(texts=st.lists(st.text(max_size=80), min_size=1, max_size=6))
def test_texts_go_in_and_come_out(portable, texts):
    machine = ExactMachine(REVERSE, TEXT, portable)
    results = machine.run_batch([0] * len(texts), [[text] for text in texts])
    assert [result.text for result in results] == [text[::-1] for text in texts]
    assert results == [machine.run(0, [text]) for text in texts]
    assert [result.steps for result in results] == [sum(1 for _ in machine.trace(0, [text])) for text in texts]


@pytest.mark.parametrize("portable", PATHS)
def test_a_batch_leaves_no_words_behind(portable):
    """Whatever a run writes, the next one finds memory as if it were the first: here at both ends and in the middle."""
    config = MachineConfig(values=2**31, memory=300, registers=8)
    dirty = ["constant 2 77", "store 3 299 2", "store 3 0 2", "store 3 150 2", "store 3 256 2"]
    look = ["constant 0 0", "constant 1 300", "halt"]
    machine = ExactMachine(assemble(*dirty, "halt", *look), config, portable)
    outcome = machine.run_batch([0, 6, 0, 6], [["x" * 200], [], ["y"], ["ab", ""]])
    assert outcome[1].text == "\0" * 300
    assert outcome[3].text == "\0\0ab" + "\0" * 296
    assert machine.run(6, []).text == "\0" * 300


@pytest.mark.parametrize("portable", PATHS)
def test_arguments_lie_where_the_convention_says(portable):
    """The registers at the start, returned through memory as characters."""
    config = MachineConfig(values=256, memory=64, registers=8)
    lines = [f"store 7 {k - 20} {k}" for k in range(8)]  # sp = 63
    machine = ExactMachine(assemble(*lines, "constant 0 43", "constant 1 8", "halt"), config, portable)
    text = machine.run(0, ["abc", "", "de"]).text
    assert text is not None
    assert [ord(character) for character in text] == [2, 3, 6, 0, 7, 2, 9, 63]


@pytest.mark.parametrize("portable", PATHS)
@pytest.mark.parametrize(
    "lines",
    [
        ["constant 0 4000", "constant 1 97", "halt"],  # 4097 words in a memory of 4096
        ["constant 0 0", "constant 1 -1", "halt"],
        ["constant 0 -1", "constant 1 0", "halt"],
        ["constant 0 1", "constant 1 1", "constant 2 1114112", "store 0 0 2", "halt"],
        ["constant 0 1", "constant 1 1", "constant 2 55296", "store 0 0 2", "halt"],
        ["constant 0 1", "constant 1 1", "constant 2 -1", "store 0 0 2", "halt"],
    ],
)
def test_a_result_that_is_no_text_is_a_fault(lines, portable):
    code = assemble(*lines)
    assert ExactMachine(code, TEXT, portable).run(0, []) == RunResult(None, len(lines), Fault.wild_access)


@pytest.mark.parametrize("portable", PATHS)
@settings(max_examples=40, deadline=None)
@given(
    case=runs(
        [
            MachineConfig(values=2**31, memory=200, registers=6, call_depth=2, max_steps=80),
            MachineConfig(values=128, memory=128, registers=6, call_depth=2, max_steps=80),  # "~" reads as −2
        ]
    )
)
def test_a_batch_of_hostile_runs_equals_single_runs_of_the_reference(portable, case):
    config, code, entries, _, _ = case
    machine = ExactMachine(code, config, portable)
    arguments = [["a~", ""], [], ["x" * 60]]
    batch = machine.run_batch(entries * 3, arguments)
    assert all(result.steps <= config.max_steps for result in batch)
    assert batch == [machine.run(entries[0], texts, trace=lambda step: None) for texts in arguments]


@pytest.mark.parametrize("portable", PATHS)
def test_a_long_result_grows_the_output(portable):
    text = "é" * 30_000
    machine = ExactMachine(assemble("halt"), MachineConfig(), portable)
    assert [result.text for result in machine.run_batch([0] * 3, [[text], ["b"], [text]])] == [text, "b", text]


def test_steps_of_a_trace():
    machine = ExactMachine(assemble("load 2 0 0", "store 0 1 2", "divide 2 2 5"), MachineConfig(registers=8))
    steps = list(machine.trace(0, ["A"]))
    assert [step.operation for step in steps] == ["load", "store", "divide"]
    assert [step.registers for step in steps] == [{2: 65}, {}, {}]
    assert [step.memory for step in steps] == [{}, {3: 65}, {}]
    assert [step.fault for step in steps] == [Fault.none, Fault.none, Fault.division_by_zero]
    assert len(list(ExactMachine(assemble("jump 0"), MachineConfig()).trace(0, [], limit=7))) == 7


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[99, 0, 0, 0, 0]], r"instruction 0 \(unknown\): operation must be 0…31, found 99"),
        ([[0, 0, 0, 0, 0], [2, 16, 0, 0, 0]], r"instruction 1 \(move\): source_a must be 0…15, found 16"),
        ([[25, 0, 0, 0, 1]], r"instruction 0 \(jump\): immediate must be 0…0, found 1"),
        ([[28, 0, 0, 0, -1]], r"instruction 0 \(call\): immediate must be 0…0, found -1"),
        ([[1, 0, 0, 0, 2**30]], r"instruction 0 \(constant\): immediate must be"),
        ([[1, 0, 0, 0, 2**40]], r"instruction 0 \(constant\): immediate must be"),
        ([[0, 0, 0, 0]], r"shape \[P, 5\]"),
        (np.zeros((0, 5), np.int64), "P ≥ 1"),
        ([[0.0, 0, 0, 0, 0]], "must be integers"),
    ],
)
def test_instructions_out_of_range_are_refused(rows, message):
    with pytest.raises(MachineError, match=message):
        ExactMachine(np.array(rows), MachineConfig())


@pytest.mark.parametrize("portable", PATHS)
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["1"] * 7, "at most 6 arguments, found 7"),
        (["x" * 100], "need 102 words of memory"),
        (["x" * 128], "argument 0 has 128 characters"),
        (["\u20ac"], "U\\+20AC is no word of a machine of 256 values"),
        (["\ud800"], "half of a surrogate pair"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments, message, portable):
    machine = ExactMachine(assemble("halt"), MachineConfig(values=256, memory=102, registers=16), portable)
    for call in (machine.run, lambda entry, texts: machine.run(entry, texts, trace=print)):
        with pytest.raises(MachineError, match=message):
            call(0, arguments)
    with pytest.raises(MachineError, match="code address 0…0, found 1"):
        machine.run(1, [])


def test_much_code_is_translated_in_part(monkeypatch):
    """The portable path goes on in the reference interpreter where the translation was cut short."""
    monkeypatch.setattr("neurallib.modeling_neurallib.machine.exact._TRANSLATED", 5)
    for text in ("", "a", "abc", "abcdef"):
        portable = ExactMachine(REVERSE, TEXT, portable=True)
        assert portable.run(0, [text]) == ExactMachine(REVERSE, TEXT).run(0, [text])


@pytest.mark.parametrize("portable", PATHS)
def test_characters_are_words_in_twos_complement(portable):
    """On V = 128 a letter is a negative integer, for every path."""
    config = MachineConfig(values=128, memory=32, registers=8)
    code = assemble("load 2 0 0", "less_immediate 3 2 0", "add_immediate 3 3 48", "store 0 0 3", "halt")
    machine = ExactMachine(code, config, portable)
    assert [machine.run(0, [text]).text for text in ("a", "1", "~")] == ["1", "0", "1"]
    assert machine.run(0, ["a"], trace=lambda step: None).text == "1"
