"""The adjoint engine: the dense engine's gradient at one-hot points, by both of its paths."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from machine_programs import REVERSE, assemble, runs
from neurallib.configuration.machine_config import MachineConfig
from neurallib.modeling_neurallib.machine import adjoint
from neurallib.modeling_neurallib.machine.adjoint import AdjointMachine, GradientError, entries_of, run_adjoint
from neurallib.modeling_neurallib.machine.dense import DenseMachine, DenseState, SoftProgram
from neurallib.modeling_neurallib.machine.operations import OPERATIONS, evaluate
from neurallib.modeling_neurallib.machine.state import MachineError, initial_state
from neurallib.modeling_neurallib.programs.number_theory import fibonacci_recursive
from neurallib.modeling_neurallib.programs.texts import reverse_text, text_length

from neurallib import compile_library, standard_library

PATHS = [pytest.param(False, id="native"), pytest.param(True, id="portable")]
CONFIGS = [
    MachineConfig(values=8, memory=8, registers=6, call_depth=2),
    MachineConfig(values=16, memory=11, registers=6, call_depth=1),
    MachineConfig(values=32, memory=32, registers=7, call_depth=3),
    MachineConfig(values=8, memory=5, registers=6, call_depth=1),
]
# r0 counts down; each call adds 3 to memory[r1] until r0 is 0, then all return.
RECURSION = assemble(
    "call 2", "halt",
    "jump_if_zero 0 8", "add_immediate 0 0 -1", "load 2 1 0", "add_immediate 2 2 3", "store 1 0 2", "call 2",  # 2
    "return",  # 8
)  # fmt: skip


@pytest.fixture(autouse=True)
def one_thread():
    """The tensors here are far too small for more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def one_hot(words: np.ndarray, values: int) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.as_tensor(words), values).double()


def relative(gradient: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    """A gradient on the tangent of the simplex: relative to the entry of the word that the row holds."""
    return gradient - gradient.gather(-1, at.argmax(-1, keepdim=True))


def weighted(state: DenseState, seed: int, parts: tuple[str, ...]) -> torch.Tensor:
    """A loss in which every entry of these parts of a state counts differently."""
    generator = torch.Generator().manual_seed(seed)
    total = torch.zeros((), dtype=torch.float64)
    for name in parts:
        rows = getattr(state, name)
        total = total + (torch.randn(rows.shape, generator=generator, dtype=torch.float64) * rows).sum()
    return total


ALL = tuple(field.name for field in fields(DenseState))


def compare(code, config, registers, memory, steps, *, seed=0, parts=ALL, entry=0, portable=(False, True), **options):
    """Adjoint against dense: final states, steps, and the gradient of every input. Returns the steps taken.

    Gradients are compared entry by entry to 1e-9; where they exceed 1e3, to 1e-9 of the greatest.
    """
    soft = SoftProgram.from_instructions(code, config, dtype=torch.float64)
    inputs = [one_hot(np.asarray(memory)[None], config.values), one_hot(np.asarray(registers)[None], config.values)]
    inputs = [rows.requires_grad_() for rows in (*inputs, *vars(soft).values())]
    machine = DenseMachine(SoftProgram(*inputs[2:]), config, **options)
    expected, taken = machine.run(machine.state_from(*inputs[:2], [entry]), max_steps=steps)
    wanted = torch.autograd.grad(weighted(expected, seed, parts), inputs, allow_unused=True)
    for path in portable:
        state, counts = run_adjoint(
            SoftProgram(*inputs[2:]), config, *inputs[:2], [entry], max_steps=steps, unfinished="state", portable=path,
            **options,
        )  # fmt: skip
        assert counts.tolist() == [taken]
        for name in ALL:
            assert torch.equal(getattr(state, name), getattr(expected, name)), name
        found = torch.autograd.grad(weighted(state, seed, parts), inputs)
        for want, got, at in zip(wanted, found, inputs, strict=True):
            want = torch.zeros_like(at) if want is None else relative(want, at.detach())
            greatest = float(want.abs().max())
            scale = greatest if greatest > 1e3 else 1.0
            assert float((relative(got, at.detach()) - want).abs().max()) <= 1e-9 * scale
            assert float(got.gather(-1, at.argmax(-1, keepdim=True)).abs().max()) <= 1e-9 * scale
    return taken


@settings(max_examples=40, deadline=None)
@given(runs(CONFIGS, longest=30), st.sampled_from([1, 2, 7, 30]), st.integers(0, 99))
def test_gradients_equal_dense_on_random_programs(case, steps, seed):
    config, code, entries, registers, memory = case
    compare(code, config, registers[0], memory[0], steps, seed=seed, entry=entries[0])


@settings(max_examples=30, deadline=None)
@given(runs([MachineConfig(values=16, memory=16, registers=6, call_depth=2)], longest=16), st.integers(1, 12), st.integers(0, 99))
def test_gradients_equal_dense_where_memory_has_a_cell_for_every_word(case, steps, seed):
    config, code, entries, registers, memory = case
    compare(code, config, registers[0], memory[0], steps, seed=seed, entry=entries[0])


@settings(max_examples=5, deadline=None)
@given(runs([MachineConfig(values=128, memory=128, registers=6, call_depth=2)], longest=12), st.integers(1, 6), st.integers(0, 99))
def test_gradients_equal_dense_on_the_papers_machine(case, steps, seed):
    config, code, entries, registers, memory = case
    compare(code, config, registers[0], memory[0], steps, seed=seed, entry=entries[0], portable=(False,))


@settings(max_examples=25, deadline=None)
@given(runs(CONFIGS[:2], longest=8), st.sampled_from([1, 3, 12]), st.sampled_from([0.0, 0.3, 1.0]))
def test_gradients_equal_dense_with_joint_fetch_and_damping(case, steps, damping):
    config, code, entries, registers, memory = case
    for fetch in ("separate", "joint"):
        compare(code, config, registers[0], memory[0], steps, entry=entries[0], fetch=fetch, damping=damping)


@pytest.mark.parametrize("name", [operation.name for operation in OPERATIONS])
@pytest.mark.parametrize("config", CONFIGS[:2], ids=["V8", "V16"])
def test_every_operation(name, config):
    """In the middle of a program, on operands that include the edges."""
    row = {"t": "2", "a": "0", "b": "1", "i": "-2", "l": "3"}
    line = " ".join([name, *(row[letter] for letter in OPERATIONS[adjoint.CODES[name]].operands)])
    code = assemble("move 3 0", line, "add 4 2 0", "store 1 0 4", "load 5 4 1", "jump_if_zero 2 0", "halt")
    generator = np.random.default_rng(0)
    for a, b in ((0, 0), (1, config.half), (config.half, config.values - 1), (3, 2)):
        registers = [a, b, *generator.integers(0, config.values, config.registers - 2)]
        compare(code, config, registers, generator.integers(0, config.values, config.memory), 9)


@pytest.mark.parametrize("values", [64, 128])
def test_random_programs_on_larger_machines(values):
    generator = np.random.default_rng(values)
    config = MachineConfig(values=values, memory=values, registers=8, call_depth=4)
    for _ in range(3):
        code = np.column_stack([
            generator.integers(1, len(OPERATIONS), 40), *generator.integers(0, 8, (3, 40)),
            generator.integers(0, 32, 40),
        ])  # fmt: skip
        registers, memory = generator.integers(0, values, 8), generator.integers(0, values, values)
        compare(code, config, registers, memory, 12, portable=(False,))


def test_calls_and_returns_to_the_depth_of_the_stack():
    config = MachineConfig(values=16, memory=8, registers=6, call_depth=5)
    for count in (0, 2, 4, 7):  # the last two fill the stack, and overflow it
        taken = compare(RECURSION, config, [count, 3, 0, 0, 0, 0], [1] * 8, 60)
        assert taken < 60
        # Where the loss does not read the stack, its unused rows are left out.
        compare(RECURSION, config, [count, 3, 0, 0, 0, 0], [1] * 8, 60, parts=("memory", "registers", "halted"))


def lower(text: str) -> str:
    """The letters of a text, each moved to the next."""
    result = ""
    for i in range(len(text)):
        result += chr(ord(text[i]) + 1)
    return result


def order(values: list[int]) -> list[int]:
    """The numbers in ascending order."""
    for i in range(1, len(values)):
        j = i
        while j > 0 and values[j - 1] > values[j]:
            spare = values[j]
            values[j] = values[j - 1]
            values[j - 1] = spare
            j -= 1
    return values


@pytest.mark.parametrize(("name", "argument"), [("lower", "abc"), ("order", "3 1 2")])
def test_compiled_programs_to_500_steps(name, argument):
    config = MachineConfig(values=128, memory=128, registers=16, call_depth=8, max_steps=500)
    library = compile_library([lower, order])
    code = library.instructions_for(config)
    start = initial_state([argument], library.programs[name].entry, config)
    taken = compare(
        code, config, start.registers, start.memory, 500, entry=start.program_counter, portable=(False,),
        parts=("memory", "registers"),
    )  # fmt: skip
    assert taken > 100


@pytest.mark.parametrize(
    ("function", "argument"),
    [(text_length, "ab"), (reverse_text, "abc"), (fibonacci_recursive, 3)],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_programs_of_the_library_whose_inputs_fit(function, argument):
    """They halt on the exact engine with CPython's answer, and the adjoint of that run is dense's gradient."""
    config = MachineConfig(values=128, memory=128, registers=16, call_depth=16, max_steps=500)
    name = function.__name__
    library = standard_library().extract([name])
    result = library.run_batch([(name, [str(argument)])], machine=config)[0]
    assert result.text == str(function(argument))
    code = library.instructions_for(config)
    start = initial_state([str(argument)], library.programs[name].entry, config)
    taken = compare(
        code, config, start.registers, start.memory, 500, entry=start.program_counter, portable=(False,),
        parts=("memory", "registers"),
    )  # fmt: skip
    assert 100 < taken == result.steps < 500


def test_native_equals_portable_on_a_long_run():
    config = MachineConfig(values=32, memory=32, registers=8, call_depth=2)
    rows = entries_of(REVERSE, config)
    memory = np.random.default_rng(1).integers(0, 32, 32)
    registers = np.array([1, 15, 0, 0, 0, 0, 0, 0])
    results = []
    for portable in (False, True):
        machine = AdjointMachine(rows, config, portable=portable)
        run = machine.run(0, registers, memory)
        gradient = machine.blank(run)
        gradient.memory[:, :32] = adjoint.tangent(np.random.default_rng(2).normal(size=(32, 32)), run.memory)
        found = machine.backward(run, gradient, program=True)
        results.append((run, gradient, found))
    (run, gradient, found), (other_run, other_gradient, other_found) = results
    np.testing.assert_array_equal(run.log, other_run.log)
    for part in ("memory", "registers", "counter"):
        left, right = getattr(gradient, part), getattr(other_gradient, part)
        np.testing.assert_allclose(left, right, rtol=1e-9, atol=1e-9 * np.abs(right).max())
    for left, right in zip(vars(found).values(), vars(other_found).values(), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-9, atol=1e-9 * max(1, np.abs(right).max()))
    # Going back leaves the run as it was.
    assert run.memory[1:16].tolist() == memory[1:16][::-1].tolist()
    assert run.log.nbytes <= 32 * run.steps


def test_the_compiled_loop_computes_what_the_table_says():
    edges = [0, 1, 3, 63, 64, 65, 127, 128, 191, 192, 254, 255]
    for values, words in ((8, range(8)), (64, range(64)), (256, edges), (65_536, [*edges, 32_767, 32_768, 65_535])):
        for code, operation in enumerate(OPERATIONS):
            if operation.semantics is None:
                continue
            kind = int(adjoint.SLOTS[code]) & 31
            for a in words:
                for b in words:
                    signed = b - values if b >= values // 2 else b
                    assert adjoint._value(kind, a, b, values) == evaluate(code, a, b, signed, values)[0]


# -- what is refused ---------------------------------------------------------------------------------------------------


def ordinary(code=REVERSE, values=16):
    config = MachineConfig(values=values, memory=values, registers=8, call_depth=1, max_steps=200)
    program = SoftProgram.from_instructions(code, config, dtype=torch.float64)
    memory = one_hot(np.arange(values)[None] % values, values)
    registers = one_hot(np.array([[1, 4, 0, 0, 0, 0, 0, 0]]), values)
    return program, config, memory, registers, [0]


def test_soft_and_malformed_inputs_are_refused():
    program, config, memory, registers, entries = ordinary()
    soft = memory.clone()
    soft[0, 3, 3], soft[0, 3, 5] = 0.75, 0.25
    with pytest.raises(GradientError, match=r"memory is soft: row \(0, 3\) has the greatest weight 0.75"):
        run_adjoint(program, config, soft, registers, entries)
    with pytest.raises(GradientError, match=r"registers must have rows that sum to 1, but row \(0, 0\) sums to 2"):
        run_adjoint(program, config, memory, registers * 2, entries)
    broken = memory.clone()
    broken[0, 2, 1] = float("nan")
    with pytest.raises(GradientError, match=r"memory has weights that are not finite, first in row \(0, 2\)"):
        run_adjoint(program, config, broken, registers, entries)
    broken[0, 2, 1] = -1.0
    with pytest.raises(GradientError, match=r"memory has negative weights"):
        run_adjoint(program, config, broken, registers, entries)
    with pytest.raises(GradientError, match=r"memory must be floating point of shape \(1, 16, 16\)"):
        run_adjoint(program, config, memory[:, :5], registers, entries)
    with pytest.raises(GradientError, match=r"registers must be floating point of shape \(2, 8, 16\)"):
        run_adjoint(program, config, memory.expand(2, -1, -1), registers, [0, 0])
    with pytest.raises(GradientError, match="entry must be a code address"):
        run_adjoint(program, config, memory, registers, [len(program)])
    operation = program.operation.clone()
    operation[2] = operation[2] * 0.5 + operation[1] * 0.5
    halves = SoftProgram(operation, *list(vars(program).values())[1:])
    with pytest.raises(GradientError, match=r"operation of the program is soft: row \(2,\)"):
        run_adjoint(halves, config, memory, registers, entries)


def test_machines_and_options_that_are_refused():
    rows = entries_of(assemble("halt"), CONFIGS[0])
    with pytest.raises(MachineError, match="V ≤ 65536"):
        AdjointMachine(rows, MachineConfig())
    large = AdjointMachine(rows, MachineConfig(values=2**15, memory=2**14, registers=6, call_depth=2))
    run = large.run(0, np.zeros(6, int), np.zeros(2**14, int))
    assert run.halted
    with pytest.raises(MachineError, match="gradients of the adjoint engine take N · V ≤ 268435456, found N = 16384"):
        large.blank(run)
    with pytest.raises(MachineError, match="fetch must be"):
        AdjointMachine(rows, CONFIGS[0], fetch="both")
    with pytest.raises(MachineError, match="damping must be"):
        AdjointMachine(rows, CONFIGS[0], damping=1.5)


def test_a_run_out_of_steps_is_an_error_or_a_state():
    program, config, memory, registers, entries = ordinary(assemble("add_immediate 0 0 1", "jump 0"))
    with pytest.raises(
        GradientError, match="machine 0 of the adjoint run has not halted at step 200, the limit max_steps"
    ):
        run_adjoint(program, config, memory, registers, entries)
    state, steps = run_adjoint(program, config, memory, registers, entries, max_steps=6, unfinished="state")
    assert steps.tolist() == [6] and state.halted.tolist() == [0.0]
    assert state.registers[0, 0].argmax() == 4


def test_a_log_that_is_full(monkeypatch):
    monkeypatch.setattr(adjoint, "LONGEST_RUN", 1024)
    for portable in (False, True):
        machine = AdjointMachine(entries_of(assemble("jump 0"), CONFIGS[0]), CONFIGS[0], portable=portable)
        with pytest.raises(GradientError, match="log of the run is full at step 1024"):
            machine.run(0, np.zeros(6, int), np.zeros(8, int), 5000)


@pytest.mark.parametrize("portable", PATHS)
def test_an_overflow_names_its_step(portable):
    """A loop that doubles the gradient at every turn overflows float64 after some hundred of them."""
    code = assemble("add 0 0 0", "add_immediate 1 1 -1", "jump_if_not_zero 1 0", "halt")
    config = MachineConfig(values=2048, memory=4, registers=6, call_depth=1, max_steps=10_000)
    machine = AdjointMachine(entries_of(code, config), config, portable=portable)
    run = machine.run(0, np.array([1, 200, 0, 0, 0, 0]), np.zeros(4, int))
    assert run.halted

    def back(scale: float) -> None:
        gradient = machine.blank(run)
        gradient.registers[0, :2048] = adjoint.tangent(scale * np.arange(2048.0), np.array(run.registers[0]))
        machine.backward(run, gradient, tensor="the test")

    back(1e-300)
    with pytest.raises(
        GradientError, match=r"test overflows float64 \(1.8e308\) in its \w+, at step \d+ of 601, \d+ steps back"
    ):
        back(1e300)
    with pytest.raises(GradientError, match="in its final registers, at step 601 of 601, before the first one back"):
        back(float("inf"))


REST_OF_A_LOOP = ("add_immediate 1 1 -1", "jump_if_not_zero 1 0", "halt")
DOUBLING = assemble("add 0 0 0", *REST_OF_A_LOOP)


@pytest.mark.parametrize("portable", PATHS)
@pytest.mark.parametrize(
    ("code", "scale", "damping", "programs", "part", "step"),
    [
        (DOUBLING, 1e303, 0.5, (False, True), "counter", 61),
        (DOUBLING, 1e303, 0.0, (False, True), "registers", 57),
        (assemble("load 0 5 0", "load 2 5 0", "halt"), 2e306, 0.0, (False, True), "memory", 0),
        (assemble("add_immediate 0 0 3", *REST_OF_A_LOOP), 1.6e305, 0.0, (True,), "operation", 12),
    ],
    ids=["counter", "registers", "memory", "fields"],
)
def test_an_overflow_is_found_at_its_step_whatever_overflows_first(code, scale, damping, programs, part, step, portable):
    """Also with the gradient of the program, whose rows are added to over the whole run."""
    config = MachineConfig(values=64, memory=4, registers=6, call_depth=1, max_steps=2_000)
    for program in programs:
        machine = AdjointMachine(entries_of(code, config), config, portable=portable, damping=damping)
        run = machine.run(0, np.array([0, 31, 0, 0, 0, 0]), np.zeros(4, int))
        gradient = machine.blank(run)
        for register in (0, 2):
            gradient.registers[register, :64] = adjoint.tangent(scale * np.arange(64.0), run.registers[register])
        with pytest.raises(GradientError, match=rf"in its {part}, at step {step} of {run.steps}"):
            machine.backward(run, gradient, program)


def test_an_overflow_in_single_precision_names_its_tensor():
    program, config, memory, registers, entries = ordinary()
    memory = memory.float().requires_grad_()
    single = SoftProgram(*(rows.float() for rows in vars(program).values()))
    state, _ = run_adjoint(single, config, memory, registers.float(), entries, fetch="joint")
    with pytest.raises(GradientError, match=r"gradient of memory overflows torch.float32"):
        (state.memory[0] * torch.linspace(-1, 1, 16) * 3e38).sum().backward()
