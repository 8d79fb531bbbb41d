"""The compiled loop for one position is the selector: same states, same choices, same memory, whatever the cache went through."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from neurallib.modeling_neurallib import selector_loop as module
from neurallib.modeling_neurallib.call import CallLayer
from neurallib.modeling_neurallib.modeling_neurallib import Computer
from test_generation import greedy, often_open, uncached

from neurallib import NeuralLibForCausalLM, NeuralLibrary

pytest.importorskip("numba")


@pytest.fixture
def computer(tiny_model: NeuralLibForCausalLM) -> Computer:
    computer: Computer = often_open(tiny_model, 0.0).computer
    torch.manual_seed(3)
    for parameter in computer.selector.parameters():
        parameter.data.normal_(std=0.3)
    return computer.eval()


@torch.no_grad()
def consider(computer: Computer, layer: CallLayer, tokens: torch.Tensor, mask: torch.Tensor, features: torch.Tensor):  # type: ignore[no-untyped-def]
    pooled, choices, _ = computer.consider(layer, tokens, mask, features)
    for number, row in enumerate(layer.rows):
        row.tokens += tokens[number][mask[number]].tolist()
    return pooled, choices


def assert_same(found: tuple[torch.Tensor, ...], expected: tuple[torch.Tensor, ...]) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("seed", range(8))
def test_position_by_position_as_all_at_once(computer: Computer, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A layer that was fed by the loop, cropped and reordered between, is one that the definition was fed at once."""
    draw = random.Random(seed)
    torch.manual_seed(seed)
    stepwise, whole = CallLayer(), CallLayer()
    for _ in range(14):
        rows = len(stepwise.rows) or 3
        kind = draw.choice(["one", "one", "one", "many", "crop", "select"])
        if kind in ("one", "many"):
            count = 1 if kind == "one" else draw.randint(2, 5)
            features = torch.randn(rows, count, computer.projection.linear.in_features)
            tokens = torch.randint(0, 390, (rows, count))
            mask = torch.rand(rows, count) > 0.2
            found = consider(computer, stepwise, tokens, mask, features)
            with monkeypatch.context() as patch:
                patch.setattr(module, "numba", None)
                assert_same(found, consider(computer, whole, tokens, mask, features))
        elif stepwise.length > 1:
            number, order = -draw.randint(1, stepwise.length - 1), torch.randint(0, rows, (draw.randint(1, 4),))
            for layer in (stepwise, whole):
                layer.crop(number) if kind == "crop" else layer.reorder_cache(order)
    for name in ("memory", "mask", "weights"):
        torch.testing.assert_close(getattr(stepwise, name), getattr(whole, name), rtol=1e-4, atol=1e-4)


def one(computer: Computer, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(seed)
    features = torch.randn(1, 1, computer.projection.linear.in_features)
    return torch.tensor([[7]]), torch.ones(1, 1, dtype=torch.bool), features


def test_it_runs_where_it_fits_and_nowhere_else(computer: Computer, monkeypatch: pytest.MonkeyPatch) -> None:
    _, _, features = one(computer)
    with torch.no_grad():
        assert computer.loop.fits(features)
        assert not computer.loop.fits(features.expand(1, 2, -1)), "several positions"
        assert not computer.loop.fits(features.double())
        assert not computer.loop.fits(features.to("meta"))
        computer.double()
        assert not computer.loop.fits(features)
        computer.float()
        ran = []
        monkeypatch.setattr(module.SelectorLoop, "__call__", lambda self, *given: ran.append(given))
        computer.train()
        consider(computer, CallLayer(), *one(computer))
        assert not ran, "dropout is in the definition"
        monkeypatch.setattr(module, "numba", None)
        assert not computer.loop.fits(features)
    assert not computer.loop.fits(features), "there may be something to differentiate"


@pytest.mark.parametrize("change", ["in place", "data", "data in place", "assigned", "fused"])
def test_changed_parameters_are_packed_anew(computer: Computer, change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = consider(computer, CallLayer(), *one(computer))
    weight = computer.selector.hops[1].mix[2].weight
    if change == "in place":
        with torch.no_grad():
            weight.mul_(-3.0)
    elif change == "data":
        weight.data = weight.data * -3.0
    elif change == "data in place":
        weight.data.mul_(-3.0)
    elif change == "assigned":
        state = {
            name: tensor * -3.0 if name.endswith("mix.2.weight") else tensor.clone()
            for name, tensor in computer.state_dict().items()
        }
        computer.load_state_dict(state, assign=True)
    else:
        optimizer = torch.optim.AdamW(computer.parameters(), lr=0.1, fused=True)
        computer.train()
        for parameter in computer.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        computer.eval()
    after = consider(computer, CallLayer(), *one(computer))
    assert not torch.allclose(before[0], after[0], atol=1e-2)
    monkeypatch.setattr(module, "numba", None)
    assert_same(after, consider(computer, CallLayer(), *one(computer)))


def test_biases_and_disabled_programs_count(
    tiny_model: NeuralLibForCausalLM, tiny_library: NeuralLibrary, tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = often_open(tiny_model, 0.0).eval()
    model.load_library(tiny_library, name="more", bias=2.5, tokenizer=tiny_tokenizer)
    computer = model.computer
    model.config.disabled_programs = [computer.programs[0]]
    found = consider(computer, CallLayer(), *one(computer))
    assert computer.biases() is not None and found[1][0, 0, 1] < -1e30
    monkeypatch.setattr(module, "numba", None)
    assert_same(found, consider(computer, CallLayer(), *one(computer)))


def test_keys_are_made_anew_for_a_new_text(computer: Computer) -> None:
    computer.consider(CallLayer(), *one(computer))
    computer.selector.key.weight.data.mul_(-3.0)  # as averaged weights are put in, without a trace
    assert torch.equal(computer.consider(CallLayer(), *one(computer))[2], computer.keys())


def test_adapted_heads_generate_as_without_a_cache(tiny_model: NeuralLibForCausalLM, tiny_tokenizer: Any) -> None:
    peft = pytest.importorskip("peft")
    prompt = tiny_tokenizer("What is 123 times 45? Sort 52 7 913 4, please.", return_tensors="pt").input_ids
    model = often_open(tiny_model, 0.0)
    torch.manual_seed(0)
    heads = r".*computer.*(linear|query|merge|memory|key|no_call|mix\.0|mix\.2)"
    adapted = peft.get_peft_model(model, peft.LoraConfig(target_modules=heads, r=4, init_lora_weights=False)).eval()
    computer = model.computer
    assert greedy(model, prompt)[0].tolist() == uncached(model, prompt)
    before = computer.settled()[0].clone()
    with torch.no_grad(), adapted.disable_adapter():
        assert torch.equal(computer.settled()[0], computer.keys())
        assert not torch.allclose(computer.settled()[0], before)


def test_the_callers_mask_stays_as_it_is(computer: Computer) -> None:
    tokens, mask, features = one(computer)
    mask = mask.expand(1, 3).clone()
    given = mask.clone()
    layer = CallLayer()
    consider(computer, layer, tokens.expand(1, 3), mask, features.expand(1, 3, -1))
    layer.crop(-2)
    consider(computer, layer, tokens, torch.zeros(1, 1, dtype=torch.bool), features)
    assert torch.equal(mask, given) and layer.mask.tolist() == [[True, False]]


def test_a_prefix_read_in_inference_mode_goes_on_outside(computer: Computer) -> None:
    tokens, mask, features = one(computer)
    frozen, free = CallLayer(), CallLayer()
    with torch.inference_mode():
        consider(computer, frozen, tokens.expand(1, 4), mask.expand(1, 4), features.expand(1, 4, -1))
    consider(computer, free, tokens.expand(1, 4), mask.expand(1, 4), features.expand(1, 4, -1))
    for layer in (frozen, free):
        layer.crop(-1)
    assert_same(consider(computer, frozen, tokens, mask, features), consider(computer, free, tokens, mask, features))
