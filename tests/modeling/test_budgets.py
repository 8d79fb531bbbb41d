"""What bounds the calls of a generation: steps in each and in all of them, memory, depth, and what a configuration may ask for."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from huggingface_hub.errors import StrictDataclassClassValidationError
from neurallib.configuration.configuration_neurallib import NeuralLibConfig
from neurallib.configuration.machine_config import MachineConfig, MachineConfigError
from neurallib.modeling_neurallib.modeling_neurallib import CACHE
from test_generation import calling, greedy, prompt  # noqa: F401 - fixtures

from neurallib import NeuralLibForCausalLM, compile_library

OUT_OF_STEPS = "out_of_steps"


def calls_of(model: NeuralLibForCausalLM, tokens: torch.Tensor) -> list[Any]:
    """Those of the first sequence, of the prompt too, which count in its budget."""
    output = greedy(model, tokens, return_dict_in_generate=True)
    return list(model.calls_of(output.sequences, output.get(CACHE))[0])


@pytest.mark.parametrize("missing", [0, 1, 10])
def test_the_steps_of_a_generation_are_bounded(calling: Any, prompt: torch.Tensor, missing: int) -> None:  # noqa: F811
    """Of the second call the budget lacks as many; that call is stopped where it is spent, and there is no third."""
    free = calls_of(calling, prompt)
    assert len(free) > 2 and all(call.steps > 10 and not call.fault for call in free[:2])
    calling.config.max_steps = free[0].steps + free[1].steps - missing
    bounded = calls_of(calling, prompt)
    assert len(bounded) == 2 and bounded[0].result == free[0].result
    assert sum(call.steps for call in bounded) == calling.config.max_steps
    if missing:
        assert bounded[1].fault == OUT_OF_STEPS and bounded[1].result is None
    else:
        assert bounded[1].result == free[1].result and not bounded[1].fault


def test_each_sequence_has_a_budget_of_its_own(calling: Any, prompt: torch.Tensor) -> None:  # noqa: F811
    calling.config.max_steps = calls_of(calling, prompt)[0].steps
    output = greedy(calling, prompt.repeat(2, 1), return_dict_in_generate=True)
    together = calling.calls_of(output.sequences, output.get(CACHE))
    assert [len(calls) for calls in together] == [1, 1]
    assert all(call.steps == calling.config.max_steps for calls in together for call in calls)


@pytest.mark.parametrize("budget", ["max_steps", "max_calls"])
def test_without_a_budget_the_model_is_its_base(
    calling: Any,  # noqa: F811
    tiny_base: Any,
    prompt: torch.Tensor,  # noqa: F811
    budget: str,
) -> None:
    setattr(calling.config, budget, 0)
    output = greedy(calling, prompt, return_dict_in_generate=True)
    assert not output.calls[0]
    assert output.sequences.tolist() == greedy(tiny_base, prompt).tolist()


def test_a_call_has_the_lesser_of_both_limits(calling: Any) -> None:  # noqa: F811
    for machine, rest, wanted in ((7, 100, 7), (100, 7, 7)):
        calling.config.machine = {**calling.config.machine, "max_steps": machine}
        outcome, fault = calling.computer.run("add", ["12", "34"], rest)
        assert (outcome.steps, outcome.text, fault) == (wanted, None, OUT_OF_STEPS)


def test_the_memory_of_a_call_is_the_configurations(calling: Any, prompt: torch.Tensor) -> None:  # noqa: F811
    """What does not fit is said in the call's record; what fits until the program wants more is a fault. Neither raises."""
    calling.config.machine = {**calling.config.machine, "memory": 3}
    calls = calls_of(calling, prompt)
    assert calls and all(call.result is None and call.steps == 0 for call in calls)
    assert any("words of memory and a free one, the machine has 3" in call.fault for call in calls)
    calling.config.machine = {**calling.config.machine, "memory": 12}
    assert calling.computer.run("reverse", ["12345678"], 10_000)[1] == "out_of_memory"
    calling.config.machine = {**calling.config.machine, "memory": 200}
    assert calling.computer.run("reverse", ["12345678"], 10_000)[0].text == "87654321"


def deep(count: int) -> int:
    """A number, counted by calls."""
    if count <= 0:
        return 0
    return 1 + deep(count - 1)


def test_the_depth_of_calls_is_bounded() -> None:
    library = compile_library([deep])
    for depth, wanted in ((50, "stack_overflow"), (200, "none")):
        result = library.call("deep", ["100"], MachineConfig(call_depth=depth))
        assert result.fault.name == wanted and (result.text == "100") == (wanted == "none")


@pytest.mark.parametrize(
    ("machine", "message"),
    [
        ({"call_depth": 2**20 + 1}, "call_depth must be between 1 and 1048576, found 1048577"),
        ({"call_depth": 0}, "call_depth must be between 1 and 1048576, found 0"),
        ({"call_depth": float("inf")}, "call_depth must be an integer, found inf"),
        ({"max_steps": 2**62 + 1}, "max_steps must be between 1 and 4611686018427387904"),
        ({"max_steps": 10**30}, "max_steps must be between 1"),
        ({"max_steps": "100"}, "max_steps must be an integer, found '100'"),
        ({"memory": 2**31 + 1}, "memory must be between 1 and values = 2147483648"),
        ({"memory": True}, "memory must be an integer, found True"),
        ({"values": 2**33}, "values must be a power of two from 4 to 2"),
        ({"values": 128.0}, "values must be an integer, found 128.0"),
        ({"registers": 257}, "registers must be between 6 and 256, found 257"),
    ],
)
def test_a_machine_beyond_all_bounds_is_refused(machine: dict[str, Any], message: str) -> None:
    """By itself, and in a model's configuration, which may be a stranger's: before anything is allocated."""
    with pytest.raises(MachineConfigError, match=message):
        MachineConfig(**machine)
    for field in ("machine", "dense_machine"):
        with pytest.raises(StrictDataclassClassValidationError, match=message):
            NeuralLibConfig(**{field: machine})


def test_the_greatest_bounds_can_be_run() -> None:
    machine = MachineConfig(call_depth=2**20, max_steps=2**62)
    assert compile_library([deep]).call("deep", ["1000"], machine).text == "1000"
