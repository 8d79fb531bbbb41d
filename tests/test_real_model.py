"""The shipped heads on SmolLM2-135M-Instruct: every way of generating gives the run without a cache. Slow tier."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from neurallib import NeuralLibForCausalLM
from neurallib.command_line import app

pytestmark = pytest.mark.slow

PROMPTS = [
    "What is 123 times 45?",
    "Sort these numbers: 52 7 913 4",
    "What is 98765432109876543210987654321 plus 12345678901234567890?",
    "How many r's are there in strawberry?",
    "Who wrote Hamlet? Answer in a few words.",
    "Please reverse the word algorithm.",
]
TURNS = [
    {"role": "user", "content": "What is 12 plus 30?"},
    {"role": "assistant", "content": "42"},
    {"role": "user", "content": "Now multiply that by 100."},
]
LENGTH = 16


@pytest.fixture(scope="module")
def shipped() -> tuple[NeuralLibForCausalLM, Any]:
    from neurallib.trainer.shipping import load_shipped

    model, tokenizer = load_shipped()
    tokenizer.padding_side = "left"
    return model, tokenizer


def encoded(tokenizer: Any, prompt: str | list[dict[str, str]]) -> torch.Tensor:
    turns = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    return tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt", return_dict=True)[
        "input_ids"
    ]


def uncached(model: NeuralLibForCausalLM, tokens: torch.Tensor) -> list[int]:
    start = tokens.shape[1]
    for _ in range(LENGTH):
        following = model(tokens, use_cache=False, logits_to_keep=1).logits[:, -1].argmax(-1, keepdim=True)
        tokens = torch.cat([tokens, following], dim=1)
        if int(following) == model.config.end_of_turn_token_id:
            break
    return tokens[0, start:].tolist()


def generated(model: NeuralLibForCausalLM, tokens: torch.Tensor, **settings: Any) -> list[int]:
    output = model.generate(tokens, max_new_tokens=LENGTH, do_sample=False, **settings)
    return output[0, tokens.shape[1] :].tolist()


@pytest.mark.parametrize("prompt", [*PROMPTS, TURNS], ids=str)
def test_ways_of_generating_agree(shipped: tuple[NeuralLibForCausalLM, Any], prompt: Any) -> None:
    model, tokenizer = shipped
    tokens = encoded(tokenizer, prompt)
    expected = uncached(model, tokens)
    assert generated(model, tokens) == expected
    assert generated(model, tokens, cache_implementation="static") == expected
    assert generated(model, tokens, prompt_lookup_num_tokens=3) == expected
    assert generated(model, tokens, prefill_chunk_size=7) == expected


def test_beams_agree_with_and_without_a_cache(shipped: tuple[NeuralLibForCausalLM, Any]) -> None:
    model, tokenizer = shipped
    for prompt in PROMPTS[:3]:
        tokens = encoded(tokenizer, prompt)
        assert generated(model, tokens, num_beams=3) == generated(model, tokens, num_beams=3, use_cache=False)


def test_a_left_padded_batch_agrees_with_each_alone(shipped: tuple[NeuralLibForCausalLM, Any]) -> None:
    model, tokenizer = shipped
    texts = [
        tokenizer.apply_chat_template([{"role": "user", "content": p}], add_generation_prompt=True, tokenize=False)
        for p in PROMPTS
    ]
    batch = tokenizer(texts, return_tensors="pt", padding=True)
    together = model.generate(**batch, max_new_tokens=LENGTH, do_sample=False, pad_token_id=tokenizer.pad_token_id)
    width = batch["input_ids"].shape[1]
    for row, prompt in enumerate(PROMPTS):
        alone = generated(model, encoded(tokenizer, prompt))
        assert together[row, width : width + len(alone)].tolist() == alone


def test_logits_without_a_call_are_the_bases_to_the_bit(shipped: tuple[NeuralLibForCausalLM, Any]) -> None:
    from neurallib.trainer.shipping import SMOLLM2, load_base

    model, tokenizer = shipped
    base, _ = load_base(SMOLLM2)
    tokens = encoded(tokenizer, "Tell me a story about the sea.")
    ours = model(tokens)
    assert ours.calls == ((),)
    assert torch.equal(ours.logits, base(tokens).logits)


def test_the_card_of_an_assembled_model_tells_how_its_heads_came_about(tmp_path: Path) -> None:
    from neurallib.trainer.shipping import SMOLLM2

    output = tmp_path / "model"
    done = CliRunner().invoke(app, ["assemble", "--base", SMOLLM2, "--output", str(output)])
    assert done.exit_code == 0, done.output
    card = (output / "README.md").read_text()
    assert "model-index" in card and "steps of earlier runs" in card and "requests whose call has the right result" in card


@pytest.mark.parametrize("prompt, answer", [(PROMPTS[0], "5535"), (PROMPTS[1], "4 7 52 913")])
def test_the_demo_is_right(shipped: tuple[NeuralLibForCausalLM, Any], prompt: str, answer: str) -> None:
    model, tokenizer = shipped
    reply = generated(model, encoded(tokenizer, prompt))
    assert tokenizer.decode(reply, skip_special_tokens=True).strip() == answer
