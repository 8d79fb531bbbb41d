"""The dense engine: on one-hot input the reference interpreter, elsewhere differentiable and a distribution."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from machine_programs import REVERSE, assemble, runs
from neurallib.configuration.machine_config import MachineConfig
from neurallib.modeling_neurallib.machine import dense as dense_module
from neurallib.modeling_neurallib.machine.dense import DenseMachine, DenseState, SoftProgram
from neurallib.modeling_neurallib.machine.exact import ExactMachine, reference_step
from neurallib.modeling_neurallib.machine.operations import CODES, OPERATIONS, Fault
from neurallib.modeling_neurallib.machine.state import GradientError, MachineError, MachineState, initial_state

CONFIGS = [
    MachineConfig(values=8, memory=8, registers=6, call_depth=2),
    MachineConfig(values=16, memory=11, registers=6, call_depth=1),
    MachineConfig(values=32, memory=32, registers=7, call_depth=3),
]


@pytest.fixture(autouse=True)
def one_thread():
    """The tensors here are far too small for more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


TINY = MachineConfig(values=4, memory=3, registers=6, call_depth=2)


def assert_equal(dense: DenseState, state: MachineState) -> None:
    """A one-hot state, compared cell by cell."""
    pairs = [
        (dense.memory[0], state.memory),
        (dense.registers[0], state.registers),
        (dense.program_counter, [state.program_counter]),
        (dense.stack[0, : len(state.stack)], state.stack),
        (dense.depth, [len(state.stack)]),
    ]
    for rows, expected in pairs:
        assert torch.equal(rows.amax(-1), torch.ones(len(expected)))
        assert rows.argmax(-1).tolist() == expected
    assert dense.halted.tolist() == [float(state.halted)]


@settings(max_examples=50, deadline=None)
@given(runs(CONFIGS, longest=40))
def test_one_hot_equals_the_reference_at_every_step(case):
    config, code, entries, registers, memory = case
    machine = DenseMachine(SoftProgram.from_instructions(code, config), config)
    dense = machine.state_from(machine.one_hot_words(memory).float(), machine.one_hot_words(registers).float(), entries)
    state = MachineState(registers[0].tolist(), memory[0].tolist(), entries[0], [])
    instructions = [tuple(row) for row in code.tolist()]
    for _ in range(20):
        ended = state.halted
        if not ended:
            reference_step(instructions, state, config, total=True)
        dense = machine.step(dense)
        assert_equal(dense, state)
        if ended:  # one step more than it took to halt: nothing has changed
            break


def test_a_whole_program_equals_exact():
    config = MachineConfig(values=128, memory=32, registers=8, call_depth=2, max_steps=200)
    machine = DenseMachine(SoftProgram.from_instructions(REVERSE, config), config)
    texts = ["12+34", "7"]
    final, steps = machine.run(machine.initial_state([[text] for text in texts], [0, 0]))
    exact = ExactMachine(REVERSE, config).run_batch([0, 0], [[text] for text in texts])
    assert steps == max(result.steps for result in exact)
    lengths, characters = machine.result(final, 5)
    assert lengths.argmax(-1).tolist() == [5, 1]
    read = ["".join(map(chr, row[:n])) for row, n in zip(characters.argmax(-1).tolist(), [5, 1], strict=True)]
    assert read == [result.text for result in exact]


def test_the_initial_state_is_that_of_exact():
    config = MachineConfig(values=128, memory=20, registers=8)
    machine = DenseMachine(SoftProgram.from_instructions(assemble("halt"), config), config)
    assert_equal(machine.initial_state([["12", "", "x"]], [0]), initial_state(["12", "", "x"], 0, config))


def random_rows(generator: torch.Generator, *shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=generator, dtype=torch.float64).softmax(-1)


def soft_machine(seed: int, batch: int, size: int = 5) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Random fields of a program and a random state in the interior of the simplex, TINY in shape; P > V."""
    g = torch.Generator().manual_seed(seed)
    r = TINY.registers
    widths = (len(OPERATIONS), r, r, r, size)
    state = [(TINY.memory, 4), (r, 4), (size + 1,), (TINY.call_depth, size + 1), (TINY.call_depth + 1,)]
    return [random_rows(g, size, width) for width in widths], [
        *(random_rows(g, batch, *shape) for shape in state),
        torch.linspace(0.25, 0, batch, dtype=torch.float64),
    ]


@pytest.mark.parametrize(("seed", "steps"), [(0, 1), (1, 2), (2, 5)])
def test_gradients_equal_finite_differences(seed, steps):
    """Through everything: the five fields, memory, registers, program counter, stack, depth and halting.

    ``fast_mode`` compares derivatives along random directions, which touch every entry at once.
    """
    fields, state = soft_machine(seed, batch=2)
    weights = [torch.linspace(-1, 1, part.numel(), dtype=torch.float64).sin().reshape(part.shape) for part in state]

    def loss(*parts: torch.Tensor) -> torch.Tensor:
        machine = DenseMachine(SoftProgram(*parts[:5]), TINY)
        final = DenseState(*parts[5:])
        for _ in range(steps):
            final = machine.step(final)
        values = vars(final).values()
        return torch.stack([(w * value).sum() for w, value in zip(weights, values, strict=True)]).sum()

    parts = [part.requires_grad_() for part in (*fields, *state)]
    assert torch.autograd.gradcheck(loss, parts, fast_mode=True)


def test_soft_states_stay_distributions():
    fields, parts = soft_machine(1, batch=2)
    machine = DenseMachine(SoftProgram(*fields), TINY)
    state = DenseState(*parts)
    for _ in range(20):
        before = state.halted
        state = machine.step(state)
        assert (state.halted >= before).all() and (state.halted <= 1).all()
        for name in ("memory", "registers", "program_counter", "stack", "depth"):
            rows = getattr(state, name)
            assert (rows >= 0).all()
            torch.testing.assert_close(rows.sum(-1), torch.ones_like(rows.sum(-1)))


def test_a_mixture_of_two_operations_is_the_mixture_of_their_results():
    config = MachineConfig(values=16, memory=4, registers=6, call_depth=1)
    one = SoftProgram.from_instructions(assemble("add 2 0 1", "halt"), config)
    other = SoftProgram.from_instructions(assemble("multiply 2 0 1", "halt"), config)
    mixed = SoftProgram(0.75 * one.operation + 0.25 * other.operation, *list(vars(one).values())[1:])
    machine = DenseMachine(mixed, config)
    registers = machine.one_hot_words([[3, 2, 0, 0, 0, 0]]).float()
    final, steps = machine.run(machine.state_from(machine.one_hot_words([[0] * 4]).float(), registers, [0]))
    assert steps == 2
    expected = torch.zeros(16)
    expected[5], expected[6] = 0.75, 0.25
    torch.testing.assert_close(final.registers[0, 2], expected)


def test_a_soft_halt_halts_in_part_and_keeps_what_it_had():
    config = MachineConfig(values=16, memory=4, registers=6, call_depth=1, max_steps=50)
    program = SoftProgram.from_instructions(assemble("halt", "add_immediate 0 0 1", "jump 0"), config)
    operation = program.operation.clone()
    operation[0, CODES["halt"]], operation[0, CODES["move"]] = 0.5, 0.5
    machine = DenseMachine(SoftProgram(operation, *list(vars(program).values())[1:]), config)
    start = machine.initial_state([[]], [0])
    state = machine.step(start)
    assert state.halted.tolist() == [0.5]
    state, steps = machine.run(start, halt_threshold=0.9)
    assert 0.9 <= float(state.halted) < 1 and steps < 50
    assert machine.run(start, max_steps=3, halt_threshold=0.9)[1] == 3


def test_gradients_reach_a_soft_copied_argument():
    """What a reader wrote into memory receives a gradient from the result: the last character from the first read."""
    config = MachineConfig(values=64, memory=16, registers=8, call_depth=1, max_steps=100)
    machine = DenseMachine(SoftProgram.from_instructions(REVERSE, config), config)
    logits = torch.zeros(3, 64)
    logits[range(3), [10, 20, 30]] = 4.0
    logits.requires_grad_()
    final, _ = machine.run(machine.initial_state([[logits.softmax(-1)]], [0]))
    _, characters = machine.result(final, 3)
    assert characters[0].argmax(-1).tolist() == [30, 20, 10]
    (-characters[0, 0, 33].log()).backward()
    assert logits.grad is not None
    assert logits.grad[2, 33] < 0 < logits.grad[2, 30]
    torch.testing.assert_close(logits.grad[0], torch.zeros(64))


def test_a_run_of_what_are_no_distributions_is_refused():
    program = SoftProgram.from_instructions(assemble("halt", "halt"), TINY, torch.float64)
    words = [torch.eye(4, dtype=torch.float64)[torch.zeros(1, count, dtype=torch.long)] for count in (3, 6)]
    machine = DenseMachine(program, TINY)
    machine.run(machine.state_from(*words, [0]))
    for tensor, name in ((program.target, "target of the program"), (words[0], "memory"), (words[1], "registers")):
        for value, message in (
            (float("nan"), "are not finite, first in row"),
            (0.5, "sum to 1, but row .* sums to 1.5"),
        ):
            before, tensor[..., 1, 2] = float(tensor[..., 1, 2]), value
            with pytest.raises(GradientError, match=f"{name} .*{message}"):
                machine.run(machine.state_from(*words, [0]))
            tensor[..., 1, 2] = before
    for given_, message in (
        ((words[0][:, :2], words[1], [0]), r"memory must be floating point of shape \(1, 3, 4\), found .* \(1, 2, 4\)"),
        ((words[0], words[1], [0, 0]), r"memory must be floating point of shape \(2, 3, 4\)"),
        ((words[0], words[1], [2]), "entry must be a code address 0…1, found 2"),
    ):
        with pytest.raises(GradientError, match=message):
            machine.state_from(*given_)


def test_what_the_dense_engine_refuses():
    program = SoftProgram.from_instructions(assemble("halt"), TINY)
    with pytest.raises(MachineError, match="V ≤ 1024"):
        DenseMachine(program, MachineConfig())
    with pytest.raises(MachineError, match="source_a of the program must have shape"):
        DenseMachine(program, MachineConfig(values=4, memory=3, registers=7))
    machine = DenseMachine(program, TINY)
    with pytest.raises(MachineError, match="need 3 words of memory"):
        machine.initial_state([["\1"]], [0])
    with pytest.raises(MachineError, match="soft argument"):
        DenseMachine(SoftProgram.from_instructions(assemble("halt"), CONFIGS[0]), CONFIGS[0]).initial_state(
            [[torch.zeros(1, 4)]], [0]
        )
    with pytest.raises(MachineError, match="instruction 0"):
        SoftProgram.from_instructions(np.array([[40, 0, 0, 0, 0]]), TINY)


def test_faults_have_edge_values_instead():
    """Where exact stops, dense goes on: a division by zero is 0, a wild load 0, a wild store nothing."""
    config = MachineConfig(values=16, memory=4, registers=6, call_depth=1)
    code = assemble("divide 0 0 1", "constant 2 7", "load 3 2 0", "store 2 0 2", "check 2 2", "return")
    assert ExactMachine(code, config).execute([0], np.array([[5] * 6]) * 0, np.zeros((1, 4), int)).faults[0] == Fault(2)
    machine = DenseMachine(SoftProgram.from_instructions(code, config), config)
    state = machine.state_from(
        machine.one_hot_words([[1, 1, 1, 1]]).float(), machine.one_hot_words([[5, 0, 0, 5, 0, 0]]).float(), [0]
    )
    final, steps = machine.run(state)
    assert steps == 6
    assert final.registers[0].argmax(-1).tolist() == [0, 0, 7, 0, 0, 0]
    assert final.memory[0].argmax(-1).tolist() == [1, 1, 1, 1]


def test_looking_now_and_then_for_the_end_changes_nothing(monkeypatch):
    config = MachineConfig(values=64, memory=32, registers=12, call_depth=1, max_steps=500)
    program = SoftProgram.from_instructions(REVERSE, config)
    soft = SoftProgram(*((12.0 * field).softmax(-1) for field in vars(program).values()))
    machine = DenseMachine(soft, config)
    start = machine.initial_state([["+-*/"]], [0])
    for limit in (0, 7, 16, 40, 500):
        found = []
        for between in (1, 16, 5):
            monkeypatch.setitem(dense_module._STEPS_BETWEEN_LOOKS, "cpu", between)
            found.append(machine.run(start, limit, halt_threshold=0.9))
        assert len({steps for _, steps in found}) == 1
        for state, _ in found[1:]:
            pairs = zip(vars(state).values(), vars(found[0][0]).values(), strict=True)
            assert all(torch.equal(new, old) for new, old in pairs)


def test_a_step_compiles_to_one_graph(monkeypatch):
    """Forward and backward, eager and compiled alike; no table of V² words is made, or traced, in a step."""
    config = MachineConfig(values=64, memory=16, registers=6, call_depth=1)
    code = assemble("load 2 0 1", "subtract 3 2 1", "jump_if_zero 3 5", "store 0 0 3", "call 6", "halt", "return")
    program = SoftProgram.from_instructions(code, config, dtype=torch.float64)
    machine = DenseMachine(program, config, damping=0.5)
    monkeypatch.setattr(dense_module, "lookup_table", None)
    generator = torch.Generator().manual_seed(0)
    parts = [random_rows(generator, 2, *shape) for shape in ((16, 64), (6, 64), (8,), (1, 8), (2,))]
    parts = [rows.requires_grad_() for rows in (*parts, torch.tensor([0.25, 0.0], dtype=torch.float64))]
    torch._dynamo.reset()
    found = []
    for step in (machine.step, torch.compile(machine.step, backend="aot_eager", fullgraph=True)):
        after = list(vars(step(DenseState(*parts))).values())
        weights = [torch.linspace(-1, 1, rows.numel(), dtype=torch.float64).reshape(rows.shape) for rows in after]
        found.append([*after, *torch.autograd.grad(after, parts, weights)])
    for eager, compiled in zip(*found, strict=True):
        torch.testing.assert_close(compiled, eager, rtol=1e-12, atol=1e-12)
    assert float(found[0][-1].abs().max()) > 0
