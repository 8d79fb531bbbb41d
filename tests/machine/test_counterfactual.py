"""Counterfactual gradients: the expected loss, enumerated; and the one interface to every kind of gradient."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from machine_programs import REVERSE, assemble, runs
from neurallib.configuration.machine_config import MachineConfig
from neurallib.modeling_neurallib.machine import adjoint
from neurallib.modeling_neurallib.machine.adjoint import GradientError, entries_of
from neurallib.modeling_neurallib.machine.counterfactual import Outcomes, expected_loss, run_with_gradient
from neurallib.modeling_neurallib.machine.dense import DenseMachine, SoftProgram
from neurallib.modeling_neurallib.machine.exact import reference_step
from neurallib.modeling_neurallib.machine.state import MachineState

CONFIGS = [
    MachineConfig(values=8, memory=6, registers=6, call_depth=2),
    MachineConfig(values=16, memory=11, registers=6, call_depth=1),
]
TINY = MachineConfig(values=4, memory=3, registers=6, call_depth=1, max_steps=30)
# With 1 in r2: memory[2] ← the lesser of memory[0] and memory[1]; then, if they differ, memory[0] ← memory[2]
LESSER = assemble(
    "load 0 2 -1", "load 1 2 0", "min 3 0 1", "store 2 1 3", "equal 4 0 1", "jump_if_not_zero 4 7", "store 2 -1 3", "halt"
)  # fmt: skip
START = [0, 0, 1, 0, 0, 0]


@pytest.fixture(autouse=True)
def one_thread():
    """The tensors here are far too small for more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def one_hot(words, values: int) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.as_tensor(np.asarray(words)), values).double()


def program_of(code: np.ndarray, config: MachineConfig) -> SoftProgram:
    return SoftProgram.from_instructions(code, config, dtype=torch.float64)


def reference_loss(rows, config, entry, registers, memory, steps, weights) -> float:
    """The loss of one run by ``reference_step``, weights by what the final state holds: memory, registers, counter, halt."""
    size = len(rows)
    jumps = ("jump", "jump_if_zero", "jump_if_not_zero", "call")
    code = []
    for row in np.asarray(rows).tolist():
        if adjoint.OPERATIONS[row[0]].name in jumps:
            row[4] = min(row[4], size)
        else:
            row[4] = (row[4] + config.half) % config.values - config.half
        code.append(tuple(row))
    state = MachineState(list(registers), list(memory), entry, [])
    taken = 0
    while not state.halted and taken < steps:
        reference_step(code, state, config, total=True)
        taken += 1
    total = sum(weights[0][n][word] for n, word in enumerate(state.memory))
    total += sum(weights[1][r][word] for r, word in enumerate(state.registers))
    return float(total + weights[2][state.program_counter] + weights[3] * state.halted)


def random_weights(seed: int, config: MachineConfig, size: int):
    generator = np.random.default_rng(seed)
    return (
        generator.normal(size=(config.memory, config.values)),
        generator.normal(size=(config.registers, config.values)),
        generator.normal(size=size + 1),
        float(generator.normal()),
    )


def weighted(state, weights) -> torch.Tensor:
    total = sum(
        (torch.from_numpy(part) * rows).sum()
        for part, rows in zip(weights, (state.memory, state.registers, state.program_counter), strict=False)
    )
    return total + (weights[3] * state.halted).sum()


@pytest.mark.parametrize("portable", [False, True])
@settings(max_examples=15, deadline=None)
@given(runs(CONFIGS, longest=12), st.sampled_from([1, 5, 25]), st.integers(0, 99))
def test_every_entry_is_the_loss_of_the_run_with_that_change(portable, case, steps, seed):
    """Memory, registers and all five fields of the program, on random programs, against runs made one by one."""
    config, code, entries, registers, memory = case
    rows = entries_of(code, config)
    inputs = [
        one_hot(memory, config.values),
        one_hot(registers, config.values),
        *vars(program_of(code, config)).values(),
    ]
    inputs = [part.requires_grad_() for part in inputs]
    weights = random_weights(seed, config, len(code))
    state, report = run_with_gradient(
        SoftProgram(*inputs[2:]), config, inputs[0], inputs[1], entries, "counterfactual", max_steps=steps,
        unfinished="state", portable=portable,
    )  # fmt: skip
    found = torch.autograd.grad(weighted(state, weights), inputs)

    def loss(rows, r, m) -> float:
        return reference_loss(rows, config, entries[0], r, m, steps, weights)

    base = loss(rows, registers[0], memory[0])
    assert float(weighted(state, weights).detach()) == pytest.approx(base)
    generator = np.random.default_rng(seed)
    for _ in range(25):
        which = int(generator.integers(0, 7))
        other_rows, r, m = rows.copy(), registers[0].copy(), memory[0].copy()
        target = m if which == 0 else r if which == 1 else other_rows[:, which - 2]
        cell = int(generator.integers(0, len(target)))
        target[cell] = value = int(generator.integers(0, inputs[which].shape[-1]))
        gradient = found[which][0] if which < 2 else found[which]
        assert float(gradient[cell, value]) == pytest.approx(loss(other_rows, r, m) - base, abs=1e-9)
    assert all(float(part.abs().max()) == 0 for part in report.variance.values())
    assert report.samples == 1


def enumerated(distributions: torch.Tensor, loss) -> torch.Tensor:
    """The expected loss of independent cells [N, V], by all of their combinations."""
    cells, values = distributions.shape
    total = torch.zeros((), dtype=torch.float64)
    for words in product(range(values), repeat=cells):
        weight = torch.stack([distributions[n, word] for n, word in enumerate(words)]).prod()
        total = total + weight * loss(words)
    return total


def soft_memory(seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (2 * torch.randn(1, 3, 4, generator=generator, dtype=torch.float64)).softmax(-1)


def test_soft_inputs_are_unbiased_and_their_variance_is_right():
    """The mean over repetitions is within five standard errors, which are those that the report gives."""
    program, registers = program_of(LESSER, TINY), one_hot([START], 4)

    def judge(outcomes: Outcomes) -> torch.Tensor:  # of whole states: no sum over cells
        return (outcomes.memory[:, 0] * outcomes.memory[:, 2]).double() + (outcomes.registers[:, 4] == 1)

    def one(words) -> float:
        a, b = words[0], words[1]
        lesser = min(a, b, key=lambda word: word - 4 if word >= 2 else word)
        return (a if a == b else lesser) * lesser + float(a == b)

    exact = soft_memory(0).requires_grad_()
    expectation = enumerated(exact[0], one)
    (wanted,) = torch.autograd.grad(expectation, exact)
    generator = torch.Generator().manual_seed(0)
    memory = soft_memory(0).requires_grad_()
    losses, report = expected_loss(
        program, TINY, memory, registers, [0], judge, samples=3000, generator=generator
    )  # fmt: skip
    (found,) = torch.autograd.grad(losses.sum(), memory)
    assert float(losses.detach()) == pytest.approx(float(expectation), abs=0.2)
    average = memory.detach()
    centred = (found - (found * average).sum(-1, keepdim=True)) - (wanted - (wanted * average).sum(-1, keepdim=True))
    error = report.variance["memory"].sqrt()
    assert float((centred.abs() / (5 * error.amax(-1, keepdim=True) + 1e-9)).max()) < 1
    assert float(error.max()) > 0

    # The variance is the one that repetitions have.
    repeated, reported = [], torch.zeros_like(average)
    for _ in range(200):
        losses, small = expected_loss(program, TINY, memory, registers, [0], judge, samples=8, generator=generator)
        repeated.append(torch.autograd.grad(losses.sum(), memory)[0])
        reported += small.variance["memory"]
    spread = torch.stack(repeated).var(0)
    assert float(reported.sum() / 200) == pytest.approx(float(spread.sum()), rel=0.3)


def test_sampled_outputs_are_the_marginals():
    program, registers = program_of(LESSER, TINY), one_hot([START], 4)
    memory = soft_memory(1).requires_grad_()
    state, report = run_with_gradient(
        program, TINY, memory, registers, [0], "counterfactual", samples=4000,
        generator=torch.Generator().manual_seed(1),
    )  # fmt: skip

    def lesser_is(word):
        return lambda words: float(min(words[:2], key=lambda x: x - 4 if x >= 2 else x) == word)

    wanted = torch.stack([enumerated(memory[0].detach(), lesser_is(word)) for word in range(4)])
    torch.testing.assert_close(state.memory[0, 2].detach(), wanted, atol=0.04, rtol=0)
    assert report.samples == 4000 and report.steps.shape == (1, 4000)
    state, single = run_with_gradient(program, TINY, memory, registers, [0], "counterfactual", samples=1)
    state.memory[0, 2, 1].backward()
    assert single.variance["memory"].isnan().all()


def test_a_soft_program_is_sampled():
    config = MachineConfig(values=8, memory=2, registers=6, call_depth=1)
    program = program_of(assemble("add 2 0 1", "halt"), config)
    operation = program.operation.clone()
    operation[0] *= 0.25
    operation[0, adjoint.CODES["multiply"]] = 0.75
    operation.requires_grad_()
    mixed = SoftProgram(operation, *list(vars(program).values())[1:])
    state, _ = run_with_gradient(
        mixed, config, one_hot([[0, 0]], 8), one_hot([[2, 3, 0, 0, 0, 0]], 8), [0], "counterfactual", samples=2000,
        generator=torch.Generator().manual_seed(0), max_steps=5, unfinished="state",
    )  # fmt: skip
    assert float(state.registers[0, 2, 6]) == pytest.approx(0.75, abs=0.05)
    (gradient,) = torch.autograd.grad(state.registers[0, 2, 6], operation)
    gap = gradient[0, adjoint.CODES["multiply"]] - gradient[0, adjoint.CODES["add"]]
    assert float(gap) == pytest.approx(1.0)


def test_it_sees_what_the_mean_field_counts_twice():
    """memory[0] − memory[0] is 0 whatever it holds; dense and adjoint take its two readings for independent."""
    code = assemble("load 0 3 0", "load 1 3 0", "subtract 2 0 1", "halt")
    config = MachineConfig(values=8, memory=2, registers=6, call_depth=1)
    for kind, sees in (("dense", False), ("adjoint", False), ("counterfactual", True)):
        memory = one_hot([[5, 0]], 8).requires_grad_()
        state, _ = run_with_gradient(program_of(code, config), config, memory, one_hot([[0] * 6], 8), [0], kind)
        state.registers[0, 2, 0].backward()
        gradient = memory.grad[0, 0] - memory.grad[0, 0, 5]
        assert (float(gradient.abs().max()) < 1e-12) == sees


def test_the_kinds_are_interchangeable():
    """One call, one shape of answer; dense and adjoint agree in a batch whose machines halt at different steps."""
    config = MachineConfig(values=16, memory=16, registers=8, call_depth=1, max_steps=120)
    memory = one_hot(np.arange(32).reshape(2, 16) % 16, 16)
    registers = one_hot(np.array([[1, 5, 0, 0, 0, 0, 0, 0], [2, 2, 0, 0, 0, 0, 0, 0]]), 16)
    answers = {}
    for kind in ("dense", "adjoint", "counterfactual"):
        inputs = [memory.clone(), registers.clone(), *vars(program_of(REVERSE, config)).values()]
        inputs = [part.requires_grad_() for part in inputs]
        state, report = run_with_gradient(
            SoftProgram(*inputs[2:]), config, *inputs[:2], [0, 0], kind, unfinished="state"
        )
        weights = random_weights(3, config, len(REVERSE))
        gradients = torch.autograd.grad(weighted(state, weights), inputs)
        answers[kind] = state, report.steps.reshape(2).tolist(), gradients
        assert report.halted.all()
    for kind in ("adjoint", "counterfactual"):
        assert answers[kind][1] == answers["dense"][1]
        for name in ("memory", "registers", "program_counter", "depth", "halted"):
            assert torch.equal(getattr(answers[kind][0], name), getattr(answers["dense"][0], name))
    assert len(set(answers["dense"][1])) == 2
    for want, got, at in zip(answers["dense"][2], answers["adjoint"][2], inputs, strict=True):
        hot = at.detach().argmax(-1, keepdim=True)
        want, got = want - want.gather(-1, hot), got - got.gather(-1, hot)
        assert float((want - got).abs().max()) <= 1e-9 * max(1.0, float(want.abs().max()))


def test_cells_that_are_not_chosen_get_no_gradient():
    memory = one_hot([[1, 0, 3]], 4).requires_grad_()
    whole, chosen = [
        torch.autograd.grad(
            weighted(
                run_with_gradient(
                    program_of(LESSER, TINY), TINY, memory, one_hot([START], 4), [0], "counterfactual", cells=cells
                )[0],
                random_weights(0, TINY, len(LESSER)),
            ),
            memory,
        )[0]
        for cells in (None, [1])
    ]
    assert torch.equal(chosen[0, 1], whole[0, 1]) and float(whole[0, 1].abs().max()) > 0
    assert float(chosen[0, [0, 2]].abs().max()) == 0


# -- what is refused ---------------------------------------------------------------------------------------------------


def test_budgets_that_run_out():
    """memory[0] counts down to 0; were it another word, it would count longer than there are steps."""
    code = assemble("load 0 1 0", "jump_if_zero 0 4", "add_immediate 0 0 -1", "jump 1", "halt")
    config = MachineConfig(values=16, memory=2, registers=6, call_depth=1, max_steps=20)
    program, registers = program_of(code, config), one_hot([[0] * 6], 16)
    memory = one_hot([[2, 0]], 16).requires_grad_()
    for kind in ("dense", "adjoint", "counterfactual"):
        with pytest.raises(GradientError, match=f"machine 0 of the {kind} run has not halted at step 4"):
            run_with_gradient(program, config, memory, registers, [0], kind, max_steps=4)
    state, _ = run_with_gradient(program, config, memory, registers, [0], "counterfactual")
    message = r"10 alternatives of machine 0 have not halted at step 20, the limit max_steps, first memory\[0\] = 6"
    with pytest.raises(GradientError, match=message):
        state.registers[0, 0, 0].backward()
    state, _ = run_with_gradient(program, config, memory, registers, [0], "counterfactual", unfinished="state")
    state.registers[0, 0, 0].backward()
    assert float(memory.grad[0, 0, 5]) == 0 and float(memory.grad[0, 0, 7]) == -1


def test_gradients_that_overflow_or_are_not_finite():
    """A doubling loop: the gradient overflows single precision in dense, by step and tensor; counterfactual is bounded."""
    code = assemble("add 0 0 0", "add 0 0 0", "add 0 0 0", "add_immediate 1 1 -1", "jump_if_not_zero 1 0", "halt")
    config = MachineConfig(values=64, memory=2, registers=6, call_depth=1, max_steps=400)
    program = SoftProgram.from_instructions(code, config)
    memory, registers = one_hot([[0, 0]], 64).float(), one_hot([[1, 31, 0, 0, 0, 0]], 64).float().requires_grad_()
    weights = torch.linspace(-1, 1, 64)

    def back(kind: str) -> torch.Tensor:
        state, _ = run_with_gradient(program, config, memory, registers, [0], kind)  # type: ignore[arg-type]
        return torch.autograd.grad((state.registers[0, 0] * weights).sum() * 1e30, registers)[0]

    with pytest.raises(GradientError, match=r"gradient of \w+ overflows torch.float32 .* at step \d+ of at most 400"):
        back("dense")
    machine = DenseMachine(program, config)
    state, _ = machine.run(machine.state_from(memory, registers, [0]))
    with pytest.raises(GradientError, match=r"gradient of \w+ overflows torch.float32 .* at step \d+ of at most 400"):
        ((state.registers[0, 0] * weights).sum() * 1e30).backward()
    with pytest.raises(GradientError, match=r"gradient of registers overflows torch.float32"):
        back("adjoint")
    assert float(back("counterfactual").abs().max()) <= 2e30
    state, _ = run_with_gradient(program, config, memory, registers, [0], "counterfactual")
    with pytest.raises(GradientError, match=r"final registers overflows torch.float32 \(3.4e\+38\) after the last step"):
        (state.registers[0, 0] * float("inf")).sum().backward()


def test_malformed_calls():
    program, memory, registers = program_of(LESSER, TINY), one_hot([[1, 2, 3]], 4), one_hot([START], 4)
    for kind in ("dense", "adjoint", "counterfactual"):
        with pytest.raises(GradientError, match=r"memory must have rows that sum to 1, but row \(0, 0\) sums to 0.5"):
            run_with_gradient(program, TINY, memory * 0.5, registers, [0], kind)
        with pytest.raises(GradientError, match="memory must be floating point of shape"):
            run_with_gradient(program, TINY, memory[:, :2], registers, [0], kind)
        with pytest.raises(GradientError, match="operation of the program has weights that are not finite"):
            broken = SoftProgram(program.operation * float("nan"), *list(vars(program).values())[1:])
            run_with_gradient(broken, TINY, memory, registers, [0], kind)
    with pytest.raises(GradientError, match="kind must be"):
        run_with_gradient(program, TINY, memory, registers, [0], "exact")  # type: ignore[arg-type]
    with pytest.raises(GradientError, match="samples must be at least 1"):
        run_with_gradient(program, TINY, memory, registers, [0], "counterfactual", samples=0)
    with pytest.raises(GradientError, match="unfinished must be"):
        run_with_gradient(program, TINY, memory, registers, [0], unfinished="ignore")  # type: ignore[arg-type]
    memory.requires_grad_()
    wrong, _ = expected_loss(program, TINY, memory, registers, [0], lambda o: o.steps.double().log())
    with pytest.raises(GradientError, match="must return one value a run"):
        expected_loss(program, TINY, memory, registers, [0], lambda o: o.steps.sum().double())
    with pytest.raises(GradientError, match="loss of machine 0 is not finite"):
        expected_loss(program, TINY, memory, registers, [0], lambda o: o.registers[:, 5].double().log())
    wrong.sum().backward()
    assert memory.grad is not None
