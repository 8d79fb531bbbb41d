"""Llama 3.2 without its weights: its own configuration in small, its own tokenizer, from from_llama to a saved folder."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from neurallib.modeling_neurallib.characters import CharacterTable
from transformers import LlamaConfig, LlamaForCausalLM

from neurallib import NeuralLibForCausalLM

HEADS = {"head_width": 16, "head_heads": 2, "key_width": 8, "reader_layers": 1}


@pytest.fixture(scope="module")
def llama3_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The real vocabulary of Llama 3: digits stand in groups of up to three."""
    spec = importlib.util.find_spec("llama_models")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("the package llama-models, which carries the tokenizer, is not installed")
    from transformers import PreTrainedTokenizerFast
    from transformers.convert_slow_tokenizer import TikTokenConverter

    path = Path(next(iter(spec.submodule_search_locations))) / "llama3" / "tokenizer.model"
    special = ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"]
    pattern = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    converted = TikTokenConverter(str(path), pattern=pattern, extra_special_tokens=special).converted()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=converted, eos_token="<|eot_id|>", pad_token="<|end_of_text|>")
    tokenizer.add_special_tokens({"additional_special_tokens": special})
    return tokenizer


@pytest.fixture(scope="module")
def llama3(llama3_tokenizer: Any) -> LlamaForCausalLM:
    """Llama 3.2 1B's own configuration (scaled rotary embedding, tied embeddings, grouped queries), in small."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=128_256,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=8,
        max_position_embeddings=131_072,
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 500_000.0,
            "factor": 32.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8_192,
        },
        tie_word_embeddings=True,
        bos_token_id=llama3_tokenizer.convert_tokens_to_ids("<|begin_of_text|>"),
        eos_token_id=[llama3_tokenizer.convert_tokens_to_ids(t) for t in ("<|end_of_text|>", "<|eot_id|>")],
        pad_token_id=llama3_tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config).eval()


def test_results_are_cut_as_the_tokenizer_cuts_them(llama3_tokenizer: Any) -> None:
    table = CharacterTable.from_tokenizer(llama3_tokenizer, 128_256)
    for text in ("5535", "12345678901", "4 7 52 913", "-42", " 5535"):
        assert table.cut(text) == llama3_tokenizer.encode(text, add_special_tokens=False)
    tokens = llama3_tokenizer.encode("What is 12345 times 678?", add_special_tokens=False)
    characters = table.characters(tokens)
    assert characters.text() == "What is 12345 times 678?"
    assert len({characters.tokens[characters.text().index("123") + i] for i in range(3)}) == 1, (
        "one token for three digits"
    )


def test_the_whole_path(llama3: LlamaForCausalLM, llama3_tokenizer: Any, tiny_library: Any, tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = NeuralLibForCausalLM.from_llama(llama3, library=tiny_library, tokenizer=llama3_tokenizer, heads=HEADS)
    assert model.config.end_of_turn_token_id == llama3_tokenizer.convert_tokens_to_ids("<|eot_id|>")
    assert model.lm_head.weight is model.model.embed_tokens.weight
    prompt = llama3_tokenizer("Add 1234 and 5678.").input_ids
    reply = [*model.computer.table.cut("6912"), model.config.end_of_turn_token_id]
    tokens = torch.tensor([prompt + reply])
    labels = torch.tensor([[-100] * len(prompt) + reply])
    optimizer = torch.optim.Adam(model.computer.parameters(), lr=0.03)
    for _ in range(40):
        optimizer.zero_grad()
        model(tokens, labels=labels).loss.backward()
        optimizer.step()
    request = torch.tensor([prompt])
    output = model.generate(request, max_new_tokens=8, do_sample=False, return_dict_in_generate=True)
    call = next(call for call in output.calls[0] if call.start == len(prompt))
    assert (call.program, sorted(call.arguments), call.result) == ("add", ["1234", "5678"], "6912")
    assert output.sequences[0, len(prompt) :].tolist() == reply, (
        "the result in groups of three digits, then the end of the turn"
    )
    model.save_pretrained(tmp_path)
    again = NeuralLibForCausalLM.from_pretrained(tmp_path)
    same = again.generate(request, max_new_tokens=8, do_sample=False)
    assert same.tolist() == output.sequences.tolist()
