"""Other words for what programs do, so that keys are learned from many descriptions and not from one for each program.

A projection that has seen one description a program can learn these by heart, and says little of a program that is loaded
later. ``phrasings/descriptions.txt`` has several for each program of the standard library that requests are generated for;
and a request without its values says what its program does too ("what is a minus b").
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from functools import cache

import torch
from torch import Tensor

from ..modeling_neurallib.library_records import Program
from ..modeling_neurallib.loaded_libraries import program_text
from ..modeling_neurallib.modeling_neurallib import NeuralLibForCausalLM
from ..modeling_neurallib.programs import standard_library
from . import wording


@cache
def paraphrases() -> dict[str, tuple[str, ...]]:
    """Program of the standard library → texts that could stand in the place of its name and docstring.

    Raises:
        TaskError: a line without a colon, or of a program for which there are no requests.
    """
    found = defaultdict(list)
    lines = (wording.PHRASINGS / "descriptions.txt").read_text(encoding="utf-8").splitlines()
    for row, line in enumerate(lines, 1):
        if line.strip() and not line.startswith("#"):
            program, _, text = (part.strip() for part in line.partition(":"))
            if program not in wording.PARAMETERS or not text:
                raise wording.TaskError(
                    f"descriptions.txt, line {row}: expected a program, a colon, a description: {line!r}"
                )
            found[program].append(text)
    return {program: tuple(texts) for program, texts in found.items()}


WORDINGS = 48
"""Requests of the training split that describe a program."""


def requests(name: str) -> tuple[str, ...]:
    """Wordings of the training split that ask for a program, the names of its arguments in the place of their values."""
    lines = [
        line for line in wording.wordings(name) if not wording.is_validation(line) and len(line) <= 90 and "\\n" not in line
    ]
    return tuple(re.sub(r"{(\w+)}", r"\1", line) for line in lines[:: max(1, len(lines) // WORDINGS)][:WORDINGS])


def texts_of(program: Program) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Descriptions of a program, its name and docstring first, and requests; those alone, if it is not of the standard library."""
    own, name = program_text(program.name, program.docstring), program.name.rsplit(".", 1)[-1]
    known = standard_library().programs.get(name)
    if known is None or known.docstring != program.docstring or name not in wording.PARAMETERS:
        return (own,), (own,)
    return (own, *paraphrases().get(name, ())), requests(name)


class Descriptions:
    """Descriptions of a model's programs through its backbone, of which training draws one for each program.

    Args:
        model: with a library. tokenizer: that of the model.
    Raises:
        LibraryError: there is no tokenizer.
    """

    def __init__(self, model: NeuralLibForCausalLM, tokenizer: object):
        self.model, self.tokenizer = model, tokenizer
        programs: Iterable[Program] = () if model.library is None else model.library.programs.values()
        # Two kinds for each program, one after the other: descriptions and requests.
        self.texts = [texts for program in programs for texts in texts_of(program)]
        self.counts = torch.tensor([len(texts) for texts in self.texts]).view(-1, 2)
        self.first = (self.counts.flatten().cumsum(0) - self.counts.flatten()).view(-1, 2)
        self.renew()

    def renew(self) -> None:
        """After the backbone has changed."""
        texts = [text for several in self.texts for text in several]
        order = sorted(range(len(texts)), key=lambda number: len(texts[number]))
        described = self.model._describe(self.tokenizer, [texts[number] for number in order])
        self.described: Tensor = torch.empty_like(described)
        self.described[order] = described

    def draw(self) -> Tensor:
        """[programs, features]: of each program one, every other time a request."""
        kinds = torch.randint(2, (len(self.counts), 1))
        first, counts = (table.gather(1, kinds).flatten() for table in (self.first, self.counts))
        chosen = first + (torch.rand(len(counts)) * counts).long()
        return self.described[chosen.to(self.described.device)]
