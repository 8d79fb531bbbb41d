"""The card of a library: what its programs do and need, what they gave when they ran, and which bytes it consists of.

The template is a text in this module, not a file beside it, so that it travels with a model's code to the Hub.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from .markdown import code, literal, plain

TEMPLATE = """---
{{ card_data }}
---

# {{ name }}

A library of {{ programs | length }} compiled programs for language models with a computer inside
(neurallib). It is data: `library_config.json` says what the programs are called and what they take,
`library.safetensors` holds their {{ instructions }} instructions. Whatever loads it validates it first; running a program
touches no file and ends at the latest at the machine's step limit.

```python
from neurallib import NeuralLibrary

library = NeuralLibrary.from_pretrained({{ repository }})
library.run({{ call }}){% if result %}  # {{ result }}{% endif %}
```

After this a model with a computer inside (`NeuralLibForCausalLM`) may call its programs, also when PEFT wraps it:

```python
model.load_library({{ repository }})  # revision="…" for one commit, by_reference=True to keep it out of the model's files
```

Heads that were not trained with them call them less often, and never call programs with more parameters than
`max_arguments` (2 by default).
`model.set_library([{{ own_name }}])` calls only these, `model.delete_library({{ own_name }})` takes them out again.

## Programs

Arguments and results are text; the types say what a program reads and writes.

| program | signature | what it does | instructions | words needed, V ≥ |
|---|---|---|---:|---:|
{% for program in programs -%}
| {{ program.name }} | {{ program.signature }} | {{ program.docstring }} | {{ program.instructions }} | {{ program["values"] }} |
{% endfor %}
{%- if examples %}
## Examples

Each of these was run when this card was made.

| call | result |
|---|---|
{% for example in examples -%}
| {{ example.call }} | {{ example.result }} |
{% endfor %}
{%- endif %}
## Needs

A machine of {{ registers }} registers whose words have at least {{ minimum_values }} values. Format version {{ format_version }}.
Any base model will do: the keys by which it selects programs are made from their names and docstrings when the library is
loaded.
{%- if tuned %}
Keys that were tuned come with it for these:

| base model | revision | sha256 of its heads |
|---|---|---|
{% for row in tuned -%}
| {{ row | join(" | ") }} |
{% endfor %}
{%- endif %}

## Integrity

sha256 of the content: `{{ fingerprint }}`
{% if files %}
| file | sha256 |
|---|---|
{% for file in files -%}
| {{ file.name }} | {{ file.sha256 }} |
{% endfor %}
{%- endif %}
"""

TAG = "neurallib-library"
"""Marks a repository of the Hub as a library."""


def program_rows(programs: Sequence[Mapping[str, Any]], whole: bool = False) -> list[dict[str, str]]:
    """Programs, as ``library_config.json`` describes them, ready for the table of a card.

    Args:
        programs: each with ``name``, ``docstring``, ``parameters`` (``name``, ``type``), ``returns``, ``length`` and
            ``minimum_values``.
        whole: show docstrings whole, not their first paragraphs.
    """
    rows = []
    for program in programs:
        parameters = ", ".join(f"{parameter['name']}: {parameter['type']}" for parameter in program["parameters"])
        docstring = program["docstring"].strip()
        rows.append(
            {
                "name": code(program["name"]),
                "signature": code(f"({parameters}) -> {program['returns']}"),
                "docstring": plain(docstring if whole else docstring.split("\n\n")[0]),
                "instructions": f"{int(program['length']):,}",
                "values": f"{int(program['minimum_values']):,}",
            }
        )
    return rows


def example_rows(examples: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Runs of programs (``program``, ``arguments``, ``result``), ready for the table of a card."""
    return [
        {
            "call": code(f"{example['program']}({', '.join(map(literal, example['arguments']))})"),
            "result": code(example["result"]),
        }
        for example in examples
    ]


def file_rows(files: Mapping[str, str]) -> list[dict[str, str]]:
    """Files (name → sha256), ready for the table of a card."""
    return [{"name": code(name), "sha256": code(digest)} for name, digest in sorted(files.items())]


def library_card(
    description: Mapping[str, Any],
    fingerprint: str,
    repository: str | None = None,
    license: str | None = None,
    *,
    examples: Sequence[Mapping[str, Any]] = (),
    files: Mapping[str, str] | None = None,
) -> ModelCard:
    """The card of a library.

    Args:
        description: the content of ``library_config.json``.
        fingerprint: sha256 of the library's content.
        repository: ``org/name`` on the Hub, for the snippet; the library's name if there is none yet.
        license: an identifier of the Hub's list, such as ``"apache-2.0"``.
        examples: runs of its programs: ``program``, ``arguments`` and ``result``; the first goes into the snippet.
        files: file → sha256.
    """
    data = ModelCardData(license=license, library_name="neurallib", tags=["neurallib", TAG])
    first = description["programs"][0]
    example = examples[0] if examples else None
    words = (
        [example["program"], *example["arguments"]] if example else [first["name"], *["…"] * len(first["parameters"])]
    )
    return ModelCard.from_template(
        data,
        template_str=TEMPLATE,
        name=plain(description["name"]),
        own_name=literal(description["name"]),
        repository=literal(repository or description["name"]),
        programs=program_rows(description["programs"], whole=True),
        call=", ".join(map(literal, words)),
        result=literal(example["result"]) if example else "",
        examples=example_rows(examples),
        instructions=f"{int(description['instructions']):,}",
        registers=int(description["registers"]),
        minimum_values=f"{int(description['minimum_values']):,}",
        format_version=int(description["format_version"]),
        fingerprint=fingerprint,
        tuned=[
            [
                plain(keys["base"]) or "not on the Hub",
                code(keys["revision"]) if keys["revision"] else "–",
                code(keys["heads"]),
            ]
            for keys in description.get("keys", ())
        ],
        files=file_rows(files or {}),
    )
