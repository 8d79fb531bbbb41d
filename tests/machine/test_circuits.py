"""Circuits of soft gates: the tables on one-hot words, exact marginals on independent digits, gradients, the engine."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from machine_programs import assemble, runs
from neurallib.configuration.machine_config import MachineConfig
from neurallib.modeling_neurallib.machine.circuits import CIRCUITS, digits, distribution, evaluate_circuit
from neurallib.modeling_neurallib.machine.dense import DenseMachine, SoftProgram, lookup_table
from neurallib.modeling_neurallib.machine.operations import CODES, OPERATIONS
from neurallib.modeling_neurallib.machine.state import MachineError
from torch.nn.functional import one_hot

FORMS = sorted(CIRCUITS)
EXACT_ON_INDEPENDENT_DIGITS = ("add", "and", "equal", "less_than", "or", "shift_left", "shift_right", "subtract", "xor")
CONFIGS = [
    MachineConfig(values=8, memory=8, registers=6, call_depth=2),
    MachineConfig(values=16, memory=11, registers=6, call_depth=1),
]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """The tensors here are far too small for more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def by_table(form: str, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """The distribution of the table's entry for independent words."""
    table = lookup_table(CODES[form], a.shape[-1])
    pairs = (a[:, :, None] * b[:, None]).flatten(1)
    return torch.zeros_like(a).scatter_add(1, table.flatten().expand(len(a), -1), pairs)


def random_digits(seed: int, batch: int, width: int) -> torch.Tensor:
    return torch.rand(batch, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_every_tabulated_operation_of_two_words_has_a_circuit():
    wires = {"move", "constant"}
    named = {o.name for o in OPERATIONS if o.kind == "alu"} - wires
    assert named == CIRCUITS


@pytest.mark.parametrize("values", [4, 8, 16, 64])
@pytest.mark.parametrize("form", FORMS)
def test_one_hot_words_give_the_tables_word(form: str, values: int):
    words = torch.arange(values)
    a, b = words.repeat_interleave(values), words.repeat(values)
    result = evaluate_circuit(form, one_hot(a, values).float(), one_hot(b, values).float())
    assert torch.equal(result, one_hot(lookup_table(CODES[form], values).flatten(), values).float())


@pytest.mark.parametrize("form", EXACT_ON_INDEPENDENT_DIGITS)
def test_marginals_are_exact_where_digits_are_independent(form: str):
    a, b = distribution(random_digits(0, 20, 4)), distribution(random_digits(1, 20, 4))
    torch.testing.assert_close(digits(evaluate_circuit(form, a, b)), digits(by_table(form, a, b)))


@pytest.mark.parametrize("form", FORMS)
def test_soft_words_give_distributions(form: str):
    generator = torch.Generator().manual_seed(2)
    a, b = (torch.rand(30, 16, generator=generator, dtype=torch.float64).pow(8).softmax(-1) for _ in range(2))
    result = evaluate_circuit(form, a, b)
    assert (result >= 0).all()
    torch.testing.assert_close(result.sum(-1), torch.ones(30, dtype=torch.float64))


@pytest.mark.parametrize("form", FORMS)
def test_gradients_equal_finite_differences(form: str):
    logits = [torch.randn(2, 8, generator=torch.Generator().manual_seed(k), dtype=torch.float64) for k in (3, 4)]
    weights = torch.linspace(-1, 1, 16, dtype=torch.float64).sin().reshape(2, 8)

    def loss(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (weights * evaluate_circuit(form, a.softmax(-1), b.softmax(-1))).sum()

    assert torch.autograd.gradcheck(loss, [each.requires_grad_() for each in logits])


def test_coding_there_and_back():
    bits = random_digits(5, 7, 5)
    torch.testing.assert_close(digits(distribution(bits)), bits)
    words = one_hot(torch.arange(32), 32).float()
    assert torch.equal(distribution(digits(words)), words)


@settings(max_examples=25, deadline=None)
@given(runs(CONFIGS, longest=30))
def test_the_dense_engine_runs_the_same_with_either(case):
    config, code, entries, registers, memory = case
    program = SoftProgram.from_instructions(code, config)
    tables, circuits = (DenseMachine(program, config, arithmetic=unit) for unit in ("tables", "circuits"))
    states = [
        machine.state_from(machine.one_hot_words(memory).float(), machine.one_hot_words(registers).float(), entries)
        for machine in (tables, circuits)
    ]
    for _ in range(15):
        states = [machine.step(state) for machine, state in zip((tables, circuits), states, strict=True)]
        for name, rows in vars(states[0]).items():
            assert torch.equal(rows, getattr(states[1], name)), name


def test_gradients_flow_through_a_circuit_in_the_machine():
    """r0 = a · b + 1 is to be 7: the gradient of b at a = 2 prefers 3 to what it is."""
    config = MachineConfig(values=16, memory=4, registers=6, call_depth=1)
    code = assemble("multiply 0 0 1", "add_immediate 0 0 1", "halt")
    machine = DenseMachine(SoftProgram.from_instructions(code, config), config, arithmetic="circuits")
    words = machine.one_hot_words([[2, 2, 0, 0, 0, 0]]).float()
    words[0, 1] = 0.9 * words[0, 1] + 0.1 / 16
    words.requires_grad_()
    state, _ = machine.run(machine.state_from(machine.one_hot_words([[0] * 4]).float(), words, [0]))
    state.registers[0, 0, 7].backward()
    assert words.grad is not None
    assert int(words.grad[0, 1].argmax()) in (3, 11)  # 2 · 3 = 2 · 11 = 6 modulo 16
    assert np.isfinite(words.grad.numpy()).all()


def test_another_arithmetic_is_refused():
    program = SoftProgram.from_instructions(assemble("halt"), CONFIGS[0])
    with pytest.raises(MachineError, match="arithmetic must be 'tables' or 'circuits', found 'abacus'"):
        DenseMachine(program, CONFIGS[0], arithmetic="abacus")  # type: ignore[arg-type]
