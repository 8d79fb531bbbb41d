"""The engines on a CUDA device equal those of the CPU. Without a device the same kernels run in Triton's interpreter."""

from __future__ import annotations

import os
import sys
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from machine_programs import REVERSE, assemble, runs
from neurallib.configuration.machine_config import MachineConfig
from neurallib.modeling_neurallib.machine.adjoint import GradientError, run_adjoint
from neurallib.modeling_neurallib.machine.counterfactual import expected_loss, run_with_gradient
from neurallib.modeling_neurallib.machine.dense import SoftProgram
from neurallib.modeling_neurallib.machine.exact import ExactMachine
from neurallib.modeling_neurallib.machine.operations import OPERATIONS, Fault, evaluate, signed
from neurallib.modeling_neurallib.machine.state import FinalStates, MachineError

from neurallib import compile_library

ON_DEVICE = torch.cuda.is_available()
if not ON_DEVICE and "triton" in sys.modules:
    pytest.skip("triton was imported before it could be told to interpret", allow_module_level=True)
INTERPRETING = mock.patch.dict(os.environ, {} if ON_DEVICE else {"TRITON_INTERPRET": "1"})
with INTERPRETING:
    pytest.importorskip("triton", reason="Triton is not installed; it comes with PyTorch for CUDA")
    from neurallib.modeling_neurallib.machine import cuda, triton_kernels

# The interpreter is slow, and would take hours to shrink a failing example.
EXAMPLES = settings(
    max_examples=100 if ON_DEVICE else 12, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate)
)
SMALL = [
    MachineConfig(values=16, memory=16, registers=6, call_depth=2, max_steps=60),
    MachineConfig(values=64, memory=5, registers=6, call_depth=3, max_steps=60),
    MachineConfig(values=2**31, memory=70, registers=7, call_depth=2, max_steps=60),
    MachineConfig(values=2**32, memory=130, registers=6, call_depth=1, max_steps=60),
]
TEXT = MachineConfig(values=2**31, memory=300, registers=16, max_steps=1_000)


@pytest.fixture(autouse=True)
def interpreting_on_one_thread():
    """Triton reads its environment when it is imported and when it runs; the tensors here are small."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    # The interpreter takes as long for a block of any size.
    with INTERPRETING, mock.patch.object(cuda, "BLOCK", cuda.BLOCK if ON_DEVICE else 2048):
        yield
    torch.set_num_threads(threads)


def same(left: FinalStates, right: FinalStates) -> None:
    for name in ("faults", "steps", "program_counters", "registers", "memory"):
        np.testing.assert_array_equal(getattr(left, name), getattr(right, name), err_msg=name)


# ---------------------------------------------------------------------------------------------------------------------
# Operations, and the exact engine
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("values", [4, 16, 64])
def test_every_operation_on_every_pair_of_words_is_that_of_the_table(values):
    rows = [(o, a, b) for o in OPERATIONS if o.semantics for a in range(values) for b in range(values)]
    numbers = triton_kernels.NUMBERS[[o.code for o, _, _ in rows]] & (triton_kernels.IMMEDIATE - 1)
    device = cuda.device_of("cuda")
    operands = [[signed(row[column], values) for row in rows] for column in (1, 2)]
    kinds, a, b = (torch.tensor(list(column), device=device) for column in (numbers.tolist(), *operands))
    results, faults = torch.zeros_like(a), torch.zeros_like(a)
    triton_kernels.operate_on_pairs[(-(-len(rows) // 1024),)](
        kinds, a, b, results, faults, len(rows), values.bit_length() - 1, BLOCK=1024
    )
    for (o, a, b), result, fault in zip(rows, results.tolist(), faults.tolist(), strict=True):
        assert (result % values, fault) == evaluate(o.code, a, b, signed(b, values), values), (o.name, a, b)


@pytest.mark.parametrize("width", [31, 32])
def test_operations_at_the_edges_of_the_widest_words(width):
    """In 32 bits, and in the 64 that the widest need."""
    values = 2**width
    near = (0, 1, 2, 3, 7, 30, 31, 32, 33, 32_768, 46_341, values // 2 - 1, values // 2, values // 2 + 1)
    edges = [*near, values - 1, values - 2, values - 3, values - 31]
    config = MachineConfig(values=values, memory=1, registers=6, max_steps=2)
    for operation in (o for o in OPERATIONS if o.semantics and o.kind == "alu"):
        machine = ExactMachine(np.array([(operation.code, 0, 1, 2, 0), (0, 0, 0, 0, 0)]), config, device="cuda")
        registers = np.array([(a, b, 5, 0, 0, 0) for a in edges for b in edges])
        final = machine.execute([0] * len(registers), registers, np.zeros((len(registers), 1), np.int64))
        for k, (a, b) in enumerate(registers[:, :2].tolist()):
            value, fault = evaluate(operation.code, a, b, 0, values)
            assert (final.registers[k, 2], final.faults[k]) == (5 if fault else value, fault), (operation.name, a, b)


@EXAMPLES
@given(runs(SMALL, batch=5), st.integers(0, 60))
def test_random_programs_run_as_on_the_cpu(case, max_steps):
    config, code, entries, registers, memory = case
    found = ExactMachine(code, config, device="cuda").execute(entries, registers, memory, max_steps)
    same(found, ExactMachine(code, config).execute(entries, registers, memory, max_steps))


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        (["constant 0 7", "add_immediate 0 0 1", "halt"], Fault.overflow),
        (["divide 0 0 0", "halt"], Fault.division_by_zero),
        (["constant 0 -1", "load 1 0 0", "halt"], Fault.wild_access),
        (["constant 0 5", "store 0 7 0", "halt"], Fault.wild_access),
        (["index 0 0 1", "index_immediate 0 0 -1", "halt"], Fault.wild_access),
        (["check 0 0", "halt"], Fault.index_out_of_range),
        (["guard 0 0", "halt"], Fault.out_of_memory),
        (["call 0"], Fault.stack_overflow),
        (["return"], Fault.stack_underflow),
        (["jump 0"], Fault.out_of_steps),
        (["move 0 0"], Fault.bad_program_counter),
        (["jump 2", "return", "call 1"], Fault.bad_program_counter),
    ],
)  # fmt: skip
def test_faults_are_those_of_the_cpu(lines, fault):
    config = MachineConfig(values=16, memory=12, registers=6, call_depth=2, max_steps=10)
    start = [0], np.zeros((1, 6), np.int64), np.zeros((1, 12), np.int64)
    found = ExactMachine(assemble(*lines), config, device="cuda").execute(*start)
    assert Fault(found.faults[0]) is fault
    same(found, ExactMachine(assemble(*lines), config).execute(*start))


def test_more_machines_than_a_block_and_than_a_part(monkeypatch):
    generator = np.random.default_rng(0)
    batch, config = 75, MachineConfig(values=64, memory=4, registers=6, call_depth=2, max_steps=200)
    code = assemble("jump_if_zero 0 3", "add_immediate 0 0 -1", "jump 0", "store 1 0 2", "halt")
    registers = generator.integers(0, 12, (batch, 6))
    start = generator.integers(0, 4, batch).tolist(), registers, generator.integers(0, 64, (batch, 4))
    expected = ExactMachine(code, config).execute(*start)
    machine = ExactMachine(code, config, device="cuda")
    same(machine.execute(*start), expected)
    monkeypatch.setattr(cuda, "BLOCK", 32)
    same(machine.execute(*start), expected)
    monkeypatch.setattr(cuda, "LARGEST_BATCH", 4_800)
    assert len(list(cuda.parts(batch, cuda._state_bytes(config)))) > 1
    same(machine.execute(*start), expected)


def test_texts_go_in_and_come_out(monkeypatch):
    texts = ["", "a", "neurallib", "für 𝄞", "\0x"]
    half_a_pair = assemble("constant 2 55296", "store 0 0 2", "halt")
    beyond = assemble("constant 1 300", "halt")
    code = np.concatenate([REVERSE, half_a_pair, beyond])
    entries = [0] * len(texts) + [len(REVERSE), len(REVERSE) + len(half_a_pair)]
    calls = [[text] for text in texts] + [["ab"], ["ab"]]
    for part in (cuda.LARGEST_BATCH, 50_000):
        monkeypatch.setattr(cuda, "LARGEST_BATCH", part)
        found = ExactMachine(code, TEXT, device="cuda").run_batch(entries, calls)
        assert found == ExactMachine(code, TEXT).run_batch(entries, calls)
    assert [result.text for result in found] == [text[::-1] for text in texts] + [None, None]
    assert [result.fault for result in found[-2:]] == [Fault.wild_access] * 2


def test_an_empty_batch():
    machine = ExactMachine(assemble("halt"), TEXT, device="cuda")
    assert machine.run_batch([], []) == []
    final = machine.execute([], np.zeros((0, 16), np.int64), np.zeros((0, 300), np.int64))
    assert final.memory.shape == (0, 300) and final.steps.shape == (0,)


def add(first: int, second: int) -> int:
    """Add two integers."""
    return first + second


def initials(text: str) -> str:
    """The first letter of each word."""
    result = ""
    before = " "
    for character in text:
        if before == " " and character != " ":
            result += character
        before = character
    return result


def test_a_compiled_library_runs_as_on_the_cpu():
    library = compile_library([add, initials])
    config = MachineConfig(values=2**31, memory=512, registers=16, call_depth=16, max_steps=5_000)
    calls = [("add", ["12", "30"]), ("add", ["-7", "x"]), ("initials", ["big red dog"]), ("initials", [""])]
    code, entries = library.instructions_for(config), [library.programs[name].entry for name, _ in calls]
    arguments = [texts for _, texts in calls]
    found = ExactMachine(code, config, device="cuda").run_batch(entries, arguments)
    assert found == ExactMachine(code, config).run_batch(entries, arguments)
    assert found[0].text == "42" and found[2].text == "brd"


def test_other_devices_are_refused():
    with pytest.raises(MachineError, match="must be a CUDA device"):
        ExactMachine(assemble("halt"), TEXT, device="cpu")
    with mock.patch.object(cuda, "triton", None), pytest.raises(MachineError, match="Triton is not installed"):
        ExactMachine(assemble("halt"), TEXT, device="cuda")


# ---------------------------------------------------------------------------------------------------------------------
# Counterfactual gradients
# ---------------------------------------------------------------------------------------------------------------------

FEW_VALUES = [
    MachineConfig(values=8, memory=6, registers=6, call_depth=2, max_steps=30),
    MachineConfig(values=16, memory=11, registers=6, call_depth=1, max_steps=30),
]
# With 1 in r2: memory[2] ← the lesser of memory[0] and memory[1]; then, if they differ, memory[0] ← memory[2]
LESSER = assemble(
    "load 0 2 -1", "load 1 2 0", "min 3 0 1", "store 2 1 3", "equal 4 0 1", "jump_if_not_zero 4 7", "store 2 -1 3", "halt"
)  # fmt: skip


def one_hot(words: np.ndarray, values: int) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.as_tensor(words), values).double()


def inputs_of(code, config, registers, memory) -> list[torch.Tensor]:
    """Memory, registers and the five fields as one-hot distributions that want gradients."""
    soft = SoftProgram.from_instructions(code, config, dtype=torch.float64)
    words = one_hot(memory, config.values), one_hot(registers, config.values)
    return [rows.requires_grad_() for rows in (*words, *vars(soft).values())]


def gradients_of_a_run(inputs, config, entries, seed, kind, **options):
    """Final states, steps, and the gradients of all inputs of a loss in which every entry counts differently."""
    state, report = run_with_gradient(
        SoftProgram(*inputs[2:]), config, *inputs[:2], entries, kind, unfinished="state", **options
    )
    generator = torch.Generator().manual_seed(seed)
    loss = torch.zeros((), dtype=torch.float64)
    for rows in (state.memory, state.registers, state.program_counter, state.halted):
        loss = loss + (torch.randn(rows.shape, generator=generator, dtype=torch.float64) * rows).sum()
    return state, report, torch.autograd.grad(loss, inputs, allow_unused=True)


@EXAMPLES
@given(runs(FEW_VALUES, batch=2, longest=6), st.integers(1, 30), st.integers(0, 99))
def test_counterfactual_gradients_are_those_of_the_cpu(case, max_steps, seed):
    config, code, entries, registers, memory = case
    inputs = inputs_of(code, config, registers, memory)
    (state, report, found), (expected, other, wanted) = (
        gradients_of_a_run(inputs, config, entries, seed, "counterfactual", max_steps=max_steps, device=device)
        for device in ("cuda", None)
    )
    assert all(torch.equal(x, y) for x, y in zip(vars(state).values(), vars(expected).values(), strict=True))
    np.testing.assert_array_equal(report.steps, other.steps)
    for got, want in zip(found, wanted, strict=True):
        assert torch.equal(got, want)


@pytest.mark.parametrize("whole", [True, False])
def test_soft_machines_are_sampled_as_on_the_cpu(whole, monkeypatch):
    """Of whole final states, or of a sum over their rows; with a program of its own for every sample, in parts."""
    config = MachineConfig(values=4, memory=3, registers=6, call_depth=1, max_steps=30)
    inputs = inputs_of(LESSER, config, np.array([[0, 0, 1, 0, 0, 0]] * 2), np.array([[1, 2, 0], [3, 3, 1]]))
    generator = torch.Generator().manual_seed(0)
    soft = [0.9 * x.detach() + 0.1 * torch.rand(x.shape, generator=generator, dtype=torch.float64) for x in inputs]
    soft = [(x / x.sum(-1, keepdim=True)).requires_grad_() for x in soft]

    def both(device):
        options = {"samples": 3, "generator": torch.Generator().manual_seed(1), "unfinished": "state", "device": device}
        if whole:
            losses, report = expected_loss(
                SoftProgram(*soft[2:]), config, *soft[:2], [0, 1], lambda end: end.memory[:, 0] * end.steps.double(),
                **options,
            )  # fmt: skip
        else:
            state, report = run_with_gradient(
                SoftProgram(*soft[2:]), config, *soft[:2], [0, 1], "counterfactual", **options
            )
            losses = (state.memory * torch.arange(4)).sum((1, 2)) + state.halted
        return losses.detach(), torch.autograd.grad(losses.sum(), soft), report.variance

    wanted = both(None)
    for part in (cuda.LARGEST_BATCH, 150_000):
        monkeypatch.setattr(cuda, "LARGEST_BATCH", part)
        found = both("cuda")
        assert torch.equal(found[0], wanted[0])
        assert all(torch.equal(x, y) for x, y in zip(found[1], wanted[1], strict=True))
        assert all(torch.equal(found[2][name], wanted[2][name]) for name in wanted[2])


def test_alternatives_without_an_end_are_named_as_on_the_cpu():
    config = MachineConfig(values=8, memory=4, registers=6, call_depth=1, max_steps=30)
    code = assemble("jump_if_zero 0 3", "add_immediate 0 0 -1", "jump 0", "load 1 1 0", "jump_if_zero 1 4", "halt")
    inputs = inputs_of(code, config, np.array([[2, 1, 0, 0, 0, 0]]), np.array([[1, 2, 3, 4]]))
    messages = []
    for device in ("cuda", None):
        with pytest.raises(GradientError, match="alternatives of machine 0 have not halted") as caught:
            state, _ = run_with_gradient(
                SoftProgram(*inputs[2:]), config, *inputs[:2], [0], "counterfactual", device=device
            )
            state.memory.square().sum().backward()
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


# ---------------------------------------------------------------------------------------------------------------------
# Adjoints
# ---------------------------------------------------------------------------------------------------------------------

# r0 counts down; each call adds 3 to memory[r1] until r0 is 0, then all return.
RECURSION = assemble(
    "call 2", "halt",
    "jump_if_zero 0 8", "add_immediate 0 0 -1", "load 2 1 0", "add_immediate 2 2 3", "store 1 0 2", "call 2",  # 2
    "return",  # 8
)  # fmt: skip
ALL = ("memory", "registers", "program_counter", "stack", "depth", "halted")


def compare_adjoints(code, config, entries, registers, memory, *, seed=0, parts=ALL, wants=slice(None), **options):
    """Final states, steps and the gradient of every input, on the device against the CPU."""
    inputs = inputs_of(code, config, registers, memory)
    found = []
    for device in ("cuda", None):
        state, steps = run_adjoint(
            SoftProgram(*inputs[2:]), config, *inputs[:2], entries, unfinished="state", device=device, **options
        )
        generator = torch.Generator().manual_seed(seed)
        rows = [getattr(state, name) for name in parts]
        loss = sum((torch.randn(x.shape, generator=generator, dtype=torch.float64) * x).sum() for x in rows)
        found.append((state, steps, torch.autograd.grad(loss, inputs[wants])))
    (state, steps, gradients), (expected, counts, wanted) = found
    np.testing.assert_array_equal(steps, counts)
    assert all(torch.equal(getattr(state, name), getattr(expected, name)) for name in ALL)
    for got, want in zip(gradients, wanted, strict=True):
        assert float((got - want).abs().max()) <= 1e-9 * max(1.0, float(want.abs().max()))


@EXAMPLES
@given(
    runs(FEW_VALUES, batch=3, longest=10), st.integers(0, 20), st.integers(0, 99), st.sampled_from(["separate", "joint"]),
    st.sampled_from([1.0, 0.3]), st.sampled_from([ALL, ALL[:3], ALL[:1]]),
)  # fmt: skip
def test_adjoints_are_those_of_the_cpu(case, max_steps, seed, fetch, damping, parts):
    config, code, entries, registers, memory = case
    compare_adjoints(
        code,
        config,
        entries,
        registers,
        memory,
        max_steps=max_steps,
        seed=seed,
        fetch=fetch,
        damping=damping,
        parts=parts,
    )


@pytest.mark.parametrize("fetch", ["separate", "joint"])
@pytest.mark.parametrize("parts", [ALL, ALL[:2]])
def test_adjoints_through_calls_and_returns(fetch, parts, monkeypatch):
    config = MachineConfig(values=32, memory=8, registers=6, call_depth=5)
    registers = np.array([[2, 1, 0, 0, 0, 0], [3, 5, 1, 0, 7, 0], [7, 0, 0, 0, 0, 0]])
    memory = np.arange(24).reshape(3, 8)
    monkeypatch.setattr(cuda, "BACK_LANES", 16)  # more words than lanes
    compare_adjoints(RECURSION, config, [0, 0, 2], registers, memory, fetch=fetch, parts=parts, max_steps=60)


def test_adjoints_in_parts_and_of_inputs_alone(monkeypatch):
    config = MachineConfig(values=16, memory=8, registers=6, call_depth=2)
    registers, memory = np.array([[0, 0, 1, 0, 0, 0], [0, 0, 2, 0, 0, 0]] * 2), np.arange(32).reshape(4, 8) % 16
    monkeypatch.setattr(cuda, "LARGEST_BATCH", 10_000)
    compare_adjoints(LESSER, config, [0] * 4, registers, memory, wants=slice(2), parts=ALL[:1])
    compare_adjoints(LESSER, config, [0] * 4, registers, memory)


def test_an_adjoint_that_overflows_names_the_step_as_on_the_cpu():
    """A loop that doubles the gradient at every turn."""
    config = MachineConfig(values=64, memory=1, registers=6, call_depth=1)
    code = assemble("add 0 0 0", "add_immediate 1 1 -1", "jump_if_not_zero 1 0", "halt")
    inputs = inputs_of(code, config, np.array([[1, 2, 0, 0, 0, 0], [1, 20, 0, 0, 0, 0]]), np.zeros((2, 1), np.int64))
    messages = []
    for device in ("cuda", None):
        state, _ = run_adjoint(SoftProgram(*inputs[2:]), config, *inputs[:2], [0, 0], device=device)
        with pytest.raises(GradientError, match="gradient of machine 1 overflows float64") as caught:
            torch.autograd.grad((state.registers[:, 0] * torch.arange(64.0)).sum() * 1e304, inputs[:2])
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


def test_empty_batches_of_gradients():
    config = FEW_VALUES[0]
    inputs = inputs_of(LESSER, config, np.zeros((0, 6), np.int64), np.zeros((0, 6), np.int64))
    for kind in ("adjoint", "counterfactual"):
        found = []
        for device in ("cuda", None):
            state, report = run_with_gradient(
                SoftProgram(*inputs[2:]), config, *inputs[:2], [], kind, unfinished="state", device=device
            )
            found.append((state.memory.shape, report.executed))
        assert found[0] == found[1]
