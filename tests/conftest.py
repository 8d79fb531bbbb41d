"""What the tests share: a tokenizer, a Llama and a library so small that all of them are made in a second."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

# No test may reach for a network. The Hugging Face libraries read this when they are imported, hence before all else.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Models this small only lose time to threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

    from neurallib import NeuralLibForCausalLM, NeuralLibrary

TINY_PROGRAMS = Path(__file__).parent / "tiny_programs.py"

TINY_HEADS = {"head_width": 16, "head_heads": 2, "key_width": 8, "reader_layers": 1}

CORPUS = [
    "What is 123 times 45? It is 5535.",
    "Sort these numbers: 52 7 913 4, please. Here they are: 4 7 52 913.",
    "Reverse the word strawberry. The result is yrrebwarts.",
    "Add 12 and 30; the sum of the two numbers is 42.",
    "How many numbers are in the list 4, 8, 15, 16, 23? There are 5.",
    "The quick brown fox jumps over the lazy dog.",
]

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(autouse=True)
def wide_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """What commands print depends on the terminal, and on what a CI service says in its place: every test has one wide page."""
    monkeypatch.setenv("COLUMNS", "160")
    for name in ("LINES", "FORCE_COLOR", "PY_COLORS", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "GITHUB_ACTIONS"):
        monkeypatch.delenv(name, raising=False)


def make_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE of 400 tokens that spells every text, each digit by itself, with a chat format."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>", padding_side="left"
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def make_base(tokenizer: Any) -> LlamaForCausalLM:
    """A random Llama of two layers; its weights are the same in every run."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=400,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=tokenizer.convert_tokens_to_ids("<|im_start|>"),
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config).eval()


@pytest.fixture(scope="session")
def tiny_tokenizer() -> PreTrainedTokenizerFast:
    return make_tokenizer()


@pytest.fixture(scope="session")
def tiny_library() -> NeuralLibrary:
    """The programs of ``tiny_programs.py``: add, double, reverse, count."""
    from neurallib import compile_library

    return compile_library(str(TINY_PROGRAMS))


@pytest.fixture
def tiny_base(tiny_tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    return make_base(tiny_tokenizer)


@pytest.fixture
def tiny_model(
    tiny_base: LlamaForCausalLM, tiny_tokenizer: PreTrainedTokenizerFast, tiny_library: NeuralLibrary
) -> NeuralLibForCausalLM:
    """The tiny Llama with the tiny library. Untrained, so it never calls, unless it is ``opened``."""
    import torch

    from neurallib import NeuralLibForCausalLM

    torch.manual_seed(1)
    return NeuralLibForCausalLM.from_llama(tiny_base, library=tiny_library, tokenizer=tiny_tokenizer, heads=TINY_HEADS)


def opened(model: NeuralLibForCausalLM) -> NeuralLibForCausalLM:
    """The same model, its gate wide open: it calls some program wherever none is open.

    No result begins with a line break: one called for before the line break that ends a prompt would go on behind it.
    """
    from neurallib.modeling_neurallib.writer import LEADS

    model.computer.selector.no_call.bias.data.fill_(-50.0)
    model.computer.writer.lead.bias.data[LEADS.index("\n")] = -50.0
    return model
