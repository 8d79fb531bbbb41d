"""The card of a model with a computer inside: how to load it, what it can call, and which code comes with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from .library_card import example_rows, file_rows, program_rows
from .markdown import code, literal, plain

TEMPLATE = Path(__file__).parent / "templates" / "model_card.md"


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
) -> ModelCard:
    """The card of an assembled model.

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
        versions: package → version with which the model was made.
        libraries: a record of each library inside: ``name``, ``programs``, ``fingerprint``, ``repository``, ``revision``,
            ``by_reference``.
        examples: runs of programs: ``program``, ``arguments`` and ``result``.
    """
    data = ModelCardData(
        base_model=base_model,
        language=language,
        library_name="transformers",
        license=license,
        pipeline_tag="text-generation",
        tags=["neurallib", "program-calling", "differentiable-computer"],
    )
    callable_programs = [p for p in (library or {}).get("programs", []) if p["name"] not in set(disabled or [])]
    return ModelCard.from_template(
        data,
        template_path=str(TEMPLATE),
        name=plain(name),
        repository=literal(name),
        base=plain(base),
        library_name_in_words=plain((library or {}).get("name", "")),
        programs=program_rows(callable_programs),
        disabled=[code(program) for program in disabled or []],
        trained=trained,
        libraries=[_library_row(library) for library in libraries],
        examples=example_rows([each for each in examples if each["program"] in {p["name"] for p in callable_programs}]),
        code_files=file_rows(code_hashes),
        machine={plain(key.replace("_", " ")): f"{int(value):,}" for key, value in (machine or {}).items()},
        versions={plain(package): plain(version) for package, version in (versions or {}).items()},
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
