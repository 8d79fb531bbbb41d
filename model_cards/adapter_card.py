"""The card of an adapter (PEFT) for a model with a computer inside: which base it is for, what it changes, how it was trained.

It goes up with ``neurallib publish``, with the Trainer's ``push_to_hub``, and with that of a model which the Trainer wrapped. A
model that was wrapped by ``peft.get_peft_model``, or loaded by ``AutoPeftModelForCausalLM``, is of PEFT's own class: its
``push_to_hub`` puts up PEFT's empty draft, because PEFT asks neither model nor adapter for a card. Such a draft is replaced by this
card when the folder is published with ``neurallib publish``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from .evaluation_section import EVALUATION, evaluated, evaluation_fields
from .library_card import program_rows
from .markdown import code, literal, plain
from .model_card import TAGS
from .published import MADE
from .training_section import TRAINING, evaluation_results, training_fields, versions_in_words

TEMPLATE = (
    """---
{{ card_data }}
---
"""
    + MADE
    + """
# {{ name }}

An adapter ({{ kind }}, made with PEFT){% if heads %} with the heads (selector, reader, writer){% endif %} for {{ base }},
a language model with a computer inside (neurallib): it reads a request, decides when to call a compiled program, copies
the program's arguments out of the text, runs it inside the forward pass, and writes the result as its next tokens.

```python
from peft import AutoPeftModelForCausalLM
from transformers import AutoTokenizer

model = AutoPeftModelForCausalLM.from_pretrained({{ repository }}, trust_remote_code=True)
tokenizer = AutoTokenizer.from_pretrained({{ base_repository }})
messages = [{"role": "user", "content": "What is 123 times 45?"}]
inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
output = model.generate(**inputs, max_new_tokens=64, return_dict_in_generate=True)
print(tokenizer.decode(output.sequences[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
print(output.calls)  # which programs ran, on which arguments, with which results
```

`model.merge_and_unload()` makes one model of both.

## Base and adapter

| | |
|---|---|
| base model | {{ base }} |
| its revision | {{ revision }} |
{% for key, value in shape -%}
| {{ key }} | {{ value }} |
{% endfor %}
The adapter fits that base and revision: on another one it is refused, or answers otherwise.
{% if programs %}
## Programs it can call

They are in the base model. Arguments and results are text; the types say what a program reads and writes.

| program | signature | what it does | instructions | words needed, V ≥ |
|---|---|---|---:|---:|
{% for program in programs -%}
| {{ program.name }} | {{ program.signature }} | {{ program.docstring }} | {{ program.instructions }} | {{ program["values"] }} |
{% endfor %}
{%- endif %}"""
    + TRAINING
    + EVALUATION
    + """
## Limits

A result is exact for the arguments that were read; the model can still read the wrong ones, choose the wrong program, or
call where nothing should be called. Every output carries `calls`, so that this can be seen. `trust_remote_code=True` runs the
code of the base model's repository: its card lists the files with their sha256.
{% if versions %}
Card made with {{ versions }}.
{% endif %}
"""
)

SHAPE = ("r", "lora_alpha", "lora_dropout", "use_dora", "target_modules", "feedforward_modules", "modules_to_save")
"""Fields of ``adapter_config.json`` that the card shows, where they are set."""


def adapter_card(
    repository: str,
    config: Mapping[str, Any],
    library: Mapping[str, Any] | None = None,
    *,
    heads: bool = True,
    disabled: list[str] | None = None,
    license: str | None = None,
    versions: Mapping[str, str] | None = None,
    training: Mapping[str, Any] | None = None,
    evaluation: Mapping[str, Any] | None = None,
) -> ModelCard:
    """The card of an adapter.

    Args:
        repository: ``org/name``; the snippet loads it.
        config: what ``adapter_config.json`` says; ``base_model_name_or_path`` is the base's ``org/name``, ``revision`` its commit.
        library: what ``library_config.json`` says of the programs inside the base; None if there are none.
        heads: the adapter brings the heads too.
        disabled: programs inside that the base may not call.
        license: an identifier of the Hub's list.
        versions: package → version with which the card was made.
        training: the record of a training run, see :func:`~.training_section.training_fields`; None if there is none.
        evaluation: that of an evaluation, see :func:`~.evaluation_section.evaluation_fields`, likewise.
    """
    base = str(config["base_model_name_or_path"])
    results = [*(evaluation_results(training) or ()), *evaluated(evaluation)] or None
    data = ModelCardData(
        base_model=base,
        base_model_relation="adapter",
        library_name="peft",
        license=license,
        pipeline_tag="text-generation",
        tags=TAGS,
        eval_results=results,
        model_name=repository if results else None,
    )
    programs = [each for each in (library or {}).get("programs", []) if each["name"] not in set(disabled or [])]
    place = literal(base)
    if config.get("revision"):
        place += f", revision={literal(config['revision'])}"
    return ModelCard.from_template(
        data,
        template_str=TEMPLATE,
        name=plain(repository),
        repository=literal(repository),
        kind=plain(str(config.get("peft_type", "kind not recorded"))),
        heads=heads,
        base=plain(base),
        base_repository=place,
        revision=code(config["revision"]) if config.get("revision") else "not recorded; the newest is loaded",
        shape=[(code(name), plain(_shown(config[name]))) for name in SHAPE if config.get(name)],
        programs=program_rows(programs),
        versions=versions_in_words(versions),
        training=training_fields(training),
        evaluation=evaluation_fields(evaluation),
    )


def _shown(value: Any) -> str:
    return ", ".join(sorted(map(str, value))) if isinstance(value, (list, tuple, set)) else str(value)
