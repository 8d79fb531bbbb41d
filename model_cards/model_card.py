"""The card of a model with a computer inside: how to load it, what it can call, how it was trained, which code it carries.

The template is a text in this module, not a file beside it, so that it travels with a model's code to the Hub.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from .evaluation_section import EVALUATION, evaluated, evaluation_fields
from .library_card import example_rows, file_rows, program_rows
from .markdown import code, literal, plain
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

{{ base }} with a computer inside (neurallib): it reads a request, decides when to call a compiled program, copies the
program's arguments out of the text, runs it inside the forward pass, and writes the result as its next tokens. Where it
calls nothing, {% if backbone_trained %}the reply is that of its backbone, which was trained further.{% else %}its logits are those
of the base model, untouched.{% endif %}
{% if not trained %}
**Selector and reader of this model are untrained**, so it calls nothing yet: train them, for instance with
`neurallib train`.
{% endif %}
```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained({{repository}}, trust_remote_code=True)
tokenizer = AutoTokenizer.from_pretrained({{repository}}, trust_remote_code=True)
messages = [{"role": "user", "content": "What is 123 times 45?"}]
inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
output = model.generate(**inputs, max_new_tokens=64, return_dict_in_generate=True)
print(tokenizer.decode(output.sequences[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
print(output.calls)  # which programs ran, on which arguments, with which results
```
{% if programs %}
## Programs it can call

From the library {{ library_name_in_words }}. Arguments and results are text; the types say what a program reads and writes.

| program | signature | what it does | instructions | words needed, V ≥ |
|---|---|---|---:|---:|
{% for program in programs -%}
| {{ program.name }} | {{ program.signature }} | {{ program.docstring }} | {{ program.instructions }} | {{ program["values"] }} |
{% endfor %}
{%- if disabled %}
Inside, but switched off: {{ disabled | join(", ") }}.
{% endif %}
{%- endif %}
{%- if examples %}
Runs of them, made with this card:

| call | result |
|---|---|
{% for example in examples -%}
| {{ example.call }} | {{ example.result }} |
{% endfor %}
{%- endif %}
{%- if libraries %}
## Libraries

| library | programs | from | instructions | sha256 |
|---|---:|---|---|---|
{% for library in libraries -%}
| {{ library.name }} | {{ library.programs }} | {{ library.place }} | {{ library.kept }} | {{ library.sha256 }} |
{% endfor %}
{%- endif %}
{%- if machine %}
## The machine that answers

| | |
|---|---:|
{% for key, value in machine.items() -%}
| {{ key }} | {{ value }} |
{% endfor %}
{%- endif %}"""
    + TRAINING
    + EVALUATION
    + """
## Limits

A result is exact for the arguments that were read; the model can still read the wrong ones, choose the wrong program, or
call where nothing should be called. Every output carries `calls`, so that this can be seen.
{% if code_files %}
## Code in this repository

`trust_remote_code=True` runs these files. Compare them before you do:

| file | sha256 |
|---|---|
{% for file in code_files -%}
| {{ file.name }} | {{ file.sha256 }} |
{% endfor %}
{%- endif %}
{%- if versions %}
Card made with {{ versions }}.
{% endif %}
"""
)

TAGS = ["neurallib", "program-calling", "differentiable-computer"]


def model_card(
    name: str,
    base: str,
    library: Mapping[str, Any] | None,
    code_hashes: Mapping[str, str],
    *,
    base_model: str | None = None,
    license: str | None = None,
    language: str | None = None,
    trained: bool = True,
    disabled: list[str] | None = None,
    machine: Mapping[str, Any] | None = None,
    versions: Mapping[str, str] | None = None,
    libraries: Sequence[Mapping[str, Any]] = (),
    examples: Sequence[Mapping[str, Any]] = (),
    training: Mapping[str, Any] | None = None,
    evaluation: Mapping[str, Any] | None = None,
) -> ModelCard:
    """The card of a model.

    Args:
        name: the model's name, or ``org/name``; the snippet loads it.
        base: the Llama that it was built on, in words.
        library: what ``library_config.json`` says of the programs inside; None if there are none.
        code_hashes: file → sha256 of the code in the model's folder.
        base_model: ``org/name`` of the base on the Hub, if that is known.
        license: an identifier of the Hub's list. The base's license holds for its weights.
        trained: False if selector and reader have never been trained, so that nothing is called.
        disabled: programs inside that the model may not call.
        machine: fields of the machine's configuration.
        versions: package → version with which the card was made.
        libraries: a record of each library inside: ``name``, ``programs``, ``fingerprint``, ``repository``, ``revision``,
            ``by_reference``.
        examples: runs of programs: ``program``, ``arguments`` and ``result``.
        training: the record of a training run, see :func:`~.training_section.training_fields`; None if there is none.
        evaluation: that of an evaluation, see :func:`~.evaluation_section.evaluation_fields`, likewise.
    """
    results = [*(evaluation_results(training) or ()), *evaluated(evaluation)] or None
    data = ModelCardData(
        base_model=base_model,
        language=language,
        library_name="transformers",
        license=license,
        pipeline_tag="text-generation",
        tags=TAGS,
        eval_results=results,
        model_name=name if results else None,
    )
    callable_programs = [p for p in (library or {}).get("programs", []) if p["name"] not in set(disabled or [])]
    return ModelCard.from_template(
        data,
        template_str=TEMPLATE,
        name=plain(name),
        repository=literal(name),
        base=plain(base),
        library_name_in_words=plain((library or {}).get("name", "")),
        programs=program_rows(callable_programs),
        disabled=[code(program) for program in disabled or []],
        trained=trained,
        backbone_trained=(training or {}).get("trained") in ("heads+lora", "lora", "all"),
        libraries=[_library_row(library) for library in libraries],
        examples=example_rows([each for each in examples if each["program"] in {p["name"] for p in callable_programs}]),
        code_files=file_rows(code_hashes),
        machine={plain(key.replace("_", " ")): f"{int(value):,}" for key, value in (machine or {}).items()},
        versions=versions_in_words(versions),
        training=training_fields(training),
        evaluation=evaluation_fields(evaluation),
    )


def _library_row(library: Mapping[str, Any]) -> dict[str, str]:
    place = f"{library['repository']} @ {library['revision'][:12]}" if library["repository"] else "this repository"
    return {
        "name": code(library["name"]),
        "programs": f"{len(library['programs']):,}",
        "place": plain(place),
        "kept": "fetched from there" if library["by_reference"] else "inside the model",
        "sha256": code(library["fingerprint"]),
    }
