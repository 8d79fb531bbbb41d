"""The card of a library: what its programs do and need, and which bytes it consists of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from .markdown import code, plain

TEMPLATE = Path(__file__).parent / "templates" / "library_card.md"


def program_rows(programs: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Programs, as ``library_config.json`` describes them, ready for the table of a card.

    Args:
        programs: each with ``name``, ``docstring``, ``parameters`` (``name``, ``type``), ``returns``, ``length`` and
            ``minimum_values``.
    """
    rows = []
    for program in programs:
        parameters = ", ".join(f"{parameter['name']}: {parameter['type']}" for parameter in program["parameters"])
        rows.append(
            {
                "name": code(program["name"]),
                "signature": code(f"({parameters}) -> {program['returns']}"),
                "docstring": plain(program["docstring"].strip().split("\n\n")[0]),
                "instructions": f"{int(program['length']):,}",
                "values": f"{int(program['minimum_values']):,}",
            }
        )
    return rows


def library_card(
    description: Mapping[str, Any], fingerprint: str, repository: str | None = None, license: str | None = None
) -> ModelCard:
    """The card of a library.

    Args:
        description: the content of ``library_config.json``.
        fingerprint: sha256 of the library's content.
        repository: ``org/name`` on the Hub, for the snippet; the library's name if there is none yet.
        license: an identifier of the Hub's list, such as ``"apache-2.0"``.
    """
    data = ModelCardData(license=license, library_name="neurallib", tags=["neurallib", "neurallib-library"])
    programs = program_rows(description["programs"])
    return ModelCard.from_template(
        data,
        template_path=str(TEMPLATE),
        name=plain(description["name"]),
        repository=repository or description["name"],
        programs=programs,
        first=description["programs"][0]["name"] if programs else "",
        arguments=len(description["programs"][0]["parameters"]) if programs else 0,
        instructions=f"{int(description['instructions']):,}",
        registers=int(description["registers"]),
        minimum_values=f"{int(description['minimum_values']):,}",
        format_version=int(description["format_version"]),
        fingerprint=fingerprint,
    )
