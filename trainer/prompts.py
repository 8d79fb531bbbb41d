"""A conversation as tokens, up to where the next reply begins: the same for training, for evaluation and for drift."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def has_chat_format(tokenizer: Any) -> bool:
    """Whether a tokenizer says how the messages of a conversation stand in a text."""
    return bool(getattr(tokenizer, "chat_template", None))


def prompt_tokens(tokenizer: Any, messages: Sequence[Mapping[str, str]]) -> list[int]:
    """The tokens of a conversation; where there is no chat format, those of its texts as they are, one a line.

    Args:
        messages: each with ``role`` and ``content``.
    Raises:
        jinja2.TemplateError: the chat format refuses them.
    """
    if not has_chat_format(tokenizer):
        return list(tokenizer("\n".join(message["content"] for message in messages))["input_ids"])
    turns = [dict(message) for message in messages]
    encoded = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=True, tokenize=True)
    return list(encoded["input_ids"])
