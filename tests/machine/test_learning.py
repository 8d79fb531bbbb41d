"""Programs that learn: the gradient against runs one by one, discretising, adaptation, repair, search, and bad input."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from machine_programs import assemble, runs
from neurallib.configuration.machine_config import MachineConfig
from neurallib.modeling_neurallib.machine import learning
from neurallib.modeling_neurallib.machine.adjoint import GradientError, entries_of, execute, packed
from neurallib.modeling_neurallib.machine.dense import SoftProgram
from neurallib.modeling_neurallib.machine.exact import ExactMachine
from neurallib.modeling_neurallib.machine.learning import (
    READS,
    Examples,
    LearningError,
    Objective,
    discretised,
    judge,
    learn,
)
from neurallib.modeling_neurallib.machine.operations import CODES, Fault
from neurallib.modeling_neurallib.machine.program_search import search, walk
from neurallib.modeling_neurallib.machine.state import MachineError, SoftProgramError

SMALL = MachineConfig(values=16, memory=8, registers=6, call_depth=2, max_steps=40)

# r0 ← r0 + r1 by counting, called by the two instructions before it
COUNTED = assemble(
    "call 2", "halt", "jump 5", "add_immediate 0 0 1", "add_immediate 1 1 -1", "less_immediate 2 1 1", "jump_if_zero 2 3",
    "return",
)  # fmt: skip
ROWS = np.arange(len(COUNTED)) >= 2


def counted(count: int = 24, seed: int = 0, least: int = 1) -> Examples:
    """Sums of r0, 0…2, and r1, from ``least`` to 4."""
    random = np.random.default_rng(seed)
    start = np.zeros((count, SMALL.registers + SMALL.memory), np.int64)
    start[:, 0], start[:, 1] = random.integers(0, 3, count), random.integers(least, 5, count)
    judged = np.zeros(start.shape, bool)
    judged[:, 0] = True
    return Examples.of(COUNTED, SMALL, start, judged)


def test_fields_that_are_read() -> None:
    assert READS[CODES["store"]].tolist() == [True, True, True, False, True]
    assert READS[CODES["return"]].tolist() == [True, False, False, False, False]
    assert READS[CODES["jump_if_zero"]].tolist() == [True, True, False, False, True]


@settings(max_examples=40, deadline=None)
@given(runs([SMALL, MachineConfig(values=32, memory=8, registers=6, call_depth=1, max_steps=40)]))
def test_a_strict_run_ends_where_exact_finds_a_fault(drawn: Any) -> None:
    config, code, entries, registers, memory = drawn
    final = ExactMachine(code, config, portable=True).execute(entries, registers, memory)
    fault = Fault(int(final.faults[0]))
    at = code[min(int(final.program_counters[0]), len(code) - 1), 0]
    if fault in (Fault.overflow, Fault.division_by_zero) or (
        fault and at in (CODES["index"], CODES["index_immediate"])
    ):
        return  # overflow, of a word or of an address
    r, m, stack = registers[0].copy(), memory[0].astype(np.int32), np.zeros(config.call_depth, np.int32)
    cursor = np.array([entries[0], 0, 0, 0, 0], np.int64)
    execute(
        packed(entries_of(code, config), config.values), r, m, stack, cursor, 40, config.values,
        np.empty((0, 2), np.int32), True,
    )  # fmt: skip
    assert bool(cursor[3]) == (fault is Fault.none)
    if fault is Fault.none:
        assert r.tolist() == final.registers[0].tolist() and m.tolist() == final.memory[0].tolist()
        assert cursor[2] == final.steps[0]


def test_the_gradient_is_the_loss_of_every_alternative() -> None:
    examples, objective = counted(1), Objective(1, 0.5, 0.25, 0)
    weights = learning._Weights(COUNTED, ROWS, SMALL, spread=1e-9, free=False)
    weights.columns = weights.exact  # every draw is the program itself
    below = 0.2
    gradients, loss, spent, proposed = learning._counterfactual(
        weights, SMALL, examples, objective, 30, np.random.default_rng(0), np.array([below]), 10**6
    )

    def loss_of(code: np.ndarray) -> float:
        final = ExactMachine(code, SMALL).execute([0], examples.start[:, :6], examples.start[:, 6:], 30)
        stopped = not final.faults[0] and final.program_counters[0] == 1
        steps = 30 if final.faults[0] else int(final.steps[0])
        return (final.registers[0, 0] != examples.wanted[0, 0]) + 0.5 * (not stopped) + 0.25 * steps / 30

    assert loss == pytest.approx(loss_of(COUNTED)) and spent > 100
    for row, column, value in ((5, 0, CODES["equal_immediate"]), (2, 4, 3), (2, 4, 7), (3, 4, 0), (6, 4, 4)):
        changed = COUNTED.copy()
        changed[row, column] = value
        # A fault leaves the words that were there; the result is then judged as it stands.
        assert gradients[column][row, value] == pytest.approx(loss_of(changed)), (row, column, value)
    assert not gradients[0][:2].any()
    ((code, edits),) = proposed  # those of a loss below, the least first
    losses = [gradients[column][row, value] for row, column, value in edits]
    assert (code == entries_of(COUNTED, SMALL)).all() and losses == sorted(losses) and losses[-1] < below
    assert len(losses) == sum(int((each[ROWS] < below).sum()) for each in gradients)


def test_discretised_is_the_inverse_of_one_hot() -> None:
    program = SoftProgram.from_instructions(COUNTED, SMALL)
    assert (discretised(program, SMALL) == COUNTED).all()
    soft = SoftProgram(*(0.9 * rows + 0.1 / rows.shape[1] for rows in vars(program).values()))
    assert (discretised(soft, SMALL, COUNTED) == COUNTED).all()


def test_a_jump_takes_an_address_that_exists() -> None:
    program = SoftProgram.from_instructions(COUNTED, SMALL, torch.float64)
    program.immediate[2] = 0
    program.immediate[2, 15], program.immediate[2, 4] = 0.6, 0.4
    assert discretised(program, SMALL)[2, 4] == 4


def test_soft_programs_are_refused_where_they_are_wrong() -> None:
    program = SoftProgram.from_instructions(COUNTED, SMALL)
    for value, message in (
        (float("nan"), "immediate of the program has weights that are not finite"),
        (3.0, "sum to 1"),
    ):
        immediate = program.immediate.clone()
        immediate[1, 0] = value
        with pytest.raises(GradientError, match=message):
            discretised(replace(program, immediate=immediate), SMALL)


def test_a_soft_program_given_to_exact_is_named_by_its_softest_field() -> None:
    program = SoftProgram.from_instructions(COUNTED, SMALL, torch.float64)
    with pytest.raises(
        SoftProgramError, match=r"\[P, 5\], found a program of distributions, and all its fields are one-hot"
    ):
        ExactMachine(program, SMALL)  # type: ignore[arg-type]
    program.immediate[3, 1], program.immediate[3, 4] = 0.75, 0.25
    program.target[4, 1], program.target[4, 0] = 0.875, 0.125
    with pytest.raises(
        SoftProgramError, match=r"2 of its fields are soft.*0\.75, of entry 1, 0\.25 from.*discretised"
    ) as e:
        learn(program, SMALL, counted(2), Objective())  # type: ignore[arg-type]
    assert (e.value.field, e.value.instruction, e.value.distance) == ("immediate", 3, 0.25)
    program.source_a[2] *= -0.5
    with pytest.raises(SoftProgramError, match=r"3 of its fields are soft.*source_a of instruction 2.* 1 from one-hot"):
        ExactMachine(program, SMALL)  # type: ignore[arg-type]
    program.source_a[2, 0] = float("nan")
    with pytest.raises(SoftProgramError, match="source_a of instruction 2 has weights that are not finite"):
        judge(program, SMALL, counted(2))  # type: ignore[arg-type]


def test_adaptation_saves_steps_and_stays_right() -> None:
    given_, new = counted(), counted(100, seed=1)
    found = learn(COUNTED, SMALL, given_, Objective(1, 1, 1, 1), rows=ROWS, iterations=60, max_steps=30, seed=0)
    before, after = judge(COUNTED, SMALL, new), judge(found.instructions, SMALL, new)
    assert found.right and after.right.all()
    assert after.steps.mean() < before.steps.mean() - 0.9
    assert (found.instructions[:2] == COUNTED[:2]).all()
    assert (discretised(found.program, SMALL, COUNTED) == found.instructions).all()
    again = learn(COUNTED, SMALL, given_, Objective(1, 1, 1, 1), rows=ROWS, iterations=60, max_steps=30, seed=0)
    assert (again.instructions == found.instructions).all() and again.losses == found.losses


def test_proposals_are_judged_on_all_examples() -> None:
    """The steepest change at one example may be wrong on another: it is tried, and not kept."""
    examples = counted()
    trial = learning.Trial(COUNTED, ROWS, SMALL, examples, 30)
    assert trial.judge(COUNTED) and trial.runs == len(examples)
    before = trial.steps.copy()
    code = entries_of(COUNTED, SMALL)
    # Not to jump to the test before the first turn is right where one is added at least once; r1 left as it is never is.
    trial.propose(code, np.array([[4, 4, 0], [2, 4, 3], [2, 4, 4]]))
    assert trial.best[2, 4] == 3 and (trial.best != COUNTED).sum() == 1 and (trial.steps == before - 2).all()
    spent = trial.runs
    trial.propose(code, np.array([[2, 4, 3]]), budget=5)
    assert trial.runs == spent + 5


def test_learning_with_proposals_and_without() -> None:
    found = {}
    for proposals in (0, 16):
        found[proposals] = learn(
            COUNTED, SMALL, counted(), Objective(1, 1, 1, 1), rows=ROWS, iterations=2, batch=2, proposals=proposals,
            max_steps=30, seed=0,
        )  # fmt: skip
    steps = {each: judge(found[each].instructions, SMALL, counted()).steps.mean() for each in found}
    assert steps[16] < steps[0] and found[16].right and found[0].right


def broken() -> np.ndarray:
    wrong = COUNTED.copy()
    wrong[3, 4] = 2
    return wrong


def test_repair_by_gradient_and_by_search() -> None:
    examples, new = counted(least=0), counted(100, seed=1, least=0)
    assert not judge(broken(), SMALL, examples).right.all()
    found = learn(
        broken(),
        SMALL,
        examples,
        Objective(),
        rows=ROWS,
        iterations=60,
        max_steps=40,
        first=True,
        budget=200_000,
        seed=0,
    )
    assert found.right and judge(found.instructions, SMALL, new).right.all()
    for exhaustive in (True, False):
        found = search(broken(), SMALL, examples, 50_000, rows=ROWS, exhaustive=exhaustive, seed=0)
        assert found.right and judge(found.instructions, SMALL, examples).right.all() and found.runs <= 50_000
    assert search(broken(), SMALL, examples, 5, rows=ROWS, exhaustive=True).runs == 5


def test_a_search_for_fewer_steps() -> None:
    found = search(COUNTED, SMALL, counted(), 100_000, rows=ROWS, fewest=True, max_steps=30, seed=0)
    before, after = (judge(program, SMALL, counted(100, seed=1)) for program in (COUNTED, found.instructions))
    assert found.right and found.runs <= 101_000 and after.right.all() and after.steps.mean() < before.steps.mean()
    with pytest.raises(LearningError, match="leave out fewest, or repair it first"):
        search(broken(), SMALL, counted(), 100, rows=ROWS, fewest=True)


def test_repair_by_a_walk() -> None:
    examples, new = counted(least=0), counted(100, seed=1, least=0)
    found = walk(broken(), SMALL, examples, Objective(), 50_000, rows=ROWS, seed=0)
    assert found.right and judge(found.instructions, SMALL, new).right.all()
    twice = broken()
    twice[5, 4] = 3
    one = walk(twice, SMALL, examples, Objective(), 200_000, rows=ROWS, most=1, seed=0)
    assert not one.right and (one.instructions == twice).all()  # and it ends, with most of its runs unspent
    start = np.zeros((1, 14), np.int64)
    impossible = Examples(0, 1, start, np.full((1, 14), 9), np.ones((1, 14)))
    none = walk(assemble("jump 2", "halt", "jump 1"), SMALL, impossible, Objective(), 10**9, rows=ROWS[:3], most=2)
    assert not none.right and none.runs < 10**6
    found, again = (walk(twice, SMALL, examples, Objective(), 200_000, rows=ROWS, seed=0) for _ in range(2))
    assert found.right and judge(found.instructions, SMALL, new).right.all()
    assert (found.instructions == again.instructions).all() and found.runs == again.runs
    assert walk(COUNTED, SMALL, examples, Objective(), 10**6, rows=ROWS).runs == len(examples)


def test_what_an_operation_does_not_read_is_still_there_for_repair() -> None:
    wrong = COUNTED.copy()
    wrong[3, 0] = CODES["return"]  # in place of add_immediate 0 0 1
    examples = counted(least=0)
    found = walk(wrong, SMALL, examples, Objective(), 3_000, rows=ROWS, most=1, seed=0)
    assert found.right and (found.instructions == COUNTED).all()
    found = learn(
        wrong, SMALL, examples, Objective(), rows=ROWS, iterations=1, free=False, spread=1e-6, max_steps=40, first=True
    )
    assert found.right and (found.instructions == COUNTED).all()
    assert search(wrong, SMALL, examples, 3_000, rows=ROWS, exhaustive=True, most=1).right


def test_what_the_best_program_does_not_need_is_undone() -> None:
    trial = learning.Trial(COUNTED, ROWS, SMALL, counted(), 30)
    program = COUNTED.copy()
    program[2, 4], program[5, 3], program[6, 1] = 3, 4, 4
    assert trial.judge(program)
    program = program.copy()
    program[5, 3], program[6, 1], program[7, 1] = 2, 2, 3  # a field that is not read, and no other register
    trial.drift(entries_of(program, SMALL))
    trial.tidy()
    assert trial.best[2, 4] == 3 and (trial.best != COUNTED).sum() == 1


def test_the_best_program_drifts() -> None:
    """Only to programs that are right in no more steps."""
    trial = learning.Trial(COUNTED, ROWS, SMALL, counted(), 30)
    assert trial.judge(COUNTED)
    code = entries_of(COUNTED, SMALL)
    wrong, other = code.copy(), code.copy()
    wrong[3, 4], other[5, 3], other[6, 1] = 2, 4, 4  # another register for the comparison
    trial.drift(wrong)
    assert trial.best is COUNTED
    trial.drift(other)
    assert trial.best[5, 3] == 4 and trial.right and judge(trial.best, SMALL, counted(100, seed=1)).right.all()


@pytest.mark.parametrize("kind", ["adjoint", "dense"])
def test_other_gradients_learn_too(kind: Any) -> None:
    """A wrong constant that is read once: there all three agree on the way."""
    config = replace(SMALL, memory=2)
    right, wrong = (assemble("call 2", "halt", f"constant 0 {value}", "return") for value in (5, 3))
    start = np.zeros((2, 8), np.int64)
    judged = np.arange(8)[None].repeat(2, 0) == 0
    examples = Examples.of(right, config, start, judged)
    rows = np.array([False, False, True, False])
    found = learn(
        wrong,
        config,
        examples,
        Objective(),
        rows=rows,
        kind=kind,
        iterations=20,
        batch=2,
        spread=0.2,
        max_steps=6,
        first=True,
    )
    assert found.right and found.instructions[2, 4] == 5


@pytest.mark.parametrize(
    ("correctness", "halting", "message"),
    [(0.0, 1.0, r"overflows torch.float64 .* at step \d of at most 40"), (1.0, 0.0, "of the program overflows .* instruction 2")],
    ids=["in a step", "summed over the run"],
)
def test_a_dense_gradient_that_overflows_is_an_error(correctness: float, halting: float, message: str) -> None:
    """Whether it does at some step or only in a field's sum: a program of weights that are no numbers never comes of it."""
    code = assemble("call 2", "halt", "add_immediate 0 0 1", "add_immediate 0 0 1", "return")
    start = np.zeros((2, 14), np.int64)
    start[:, :2] = 1, 4
    examples = Examples.of(code, SMALL, start, np.arange(14)[None].repeat(2, 0) == 0)
    examples = replace(examples, wanted=(examples.wanted + 1) % 16)
    options: dict[str, Any] = {"kind": "dense", "iterations": 1, "batch": 2, "spread": 0.1, "rows": np.arange(len(code)) >= 2}
    found = learn(code, SMALL, examples, Objective(1e290 * correctness, 1e290 * halting), **options)
    assert all(torch.isfinite(rows).all() for rows in vars(found.program).values()) and np.isfinite(found.losses).all()
    with pytest.raises(GradientError, match=message):
        learn(code, SMALL, examples, Objective(1e308 * correctness, 1e308 * halting), **options)


def test_bad_input() -> None:
    examples = counted(4)
    cases: list[tuple[str, dict[str, Any], Any]] = [
        ("rows must be bool of shape", {"rows": np.ones(3, bool)}, examples),
        ("spread must be greater than 0", {"spread": 0.0}, examples),
        ("rate must be greater than 0", {"rate": float("nan")}, examples),
        ("proposals must be at least 0, found -1", {"proposals": -1}, examples),
        ("kind must be one of", {"kind": "magic"}, examples),
        ("no derivative by the number of steps", {"kind": "adjoint"}, examples),
        ("weights of the examples must be finite", {}, replace(examples, weights=examples.weights * np.nan)),
        ("wanted of the examples must have shape", {}, replace(examples, wanted=examples.wanted[:, :3])),
        ("start of the examples must hold", {}, replace(examples, start=examples.start + 100)),
        ("stop must be a code address", {}, replace(examples, stop=99)),
        ("there are no examples", {}, examples[:0]),
    ]
    for message, options, given_ in cases:
        with pytest.raises(LearningError, match=message):
            learn(COUNTED, SMALL, given_, Objective(efficiency=1), **options)
    with pytest.raises(LearningError, match="efficiency must be 0"):
        walk(COUNTED, SMALL, examples, Objective(efficiency=1), 100)
    with pytest.raises(LearningError, match="most must be at least 1, found 0"):
        walk(COUNTED, SMALL, examples, Objective(), 100, most=0)
    with pytest.raises(LearningError, match="efficiency must be a finite weight"):
        Objective(efficiency=float("inf"))
    with pytest.raises(LearningError, match="must halt at address 1"):
        Examples.of(assemble("halt", "halt"), SMALL, examples.start, examples.weights > 0)
    with pytest.raises(MachineError, match="instruction 2"):
        learn(np.where(COUNTED == 5, 99, COUNTED), SMALL, examples, Objective())
