"""Learning through the run: log p(answer) with the program executed by the dense engine on a soft copy of its arguments.

Here gradients do cross the machine. The reader's probabilities make each argument's memory cells distributions over
characters (a soft copy), the selector's make the result a mixture over programs, and the loss is the cross-entropy between
the answer's characters and the distributions that the machine leaves in its memory. It costs a dense run for every program
of every row, so it is for small machines and libraries; ``marginal`` learns the choices for all others.

Source: arXiv 2407.04899, the paper's own estimator.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from ..configuration.machine_config import MachineConfig
from .characters import Characters
from .labelling import role_probabilities
from .machine.dense import DenseMachine, SoftProgram

if TYPE_CHECKING:
    from .library import NeuralLibrary

LARGEST_PROGRAM = 2_048
"""Instructions of a library that the dense engine takes: its immediates are [P, max(V, P)]."""

LONGEST_ARGUMENT = 8
"""Characters of an argument; longer ones are cut."""


class DenseObjectiveError(ValueError):
    """A library or a text that the dense engine is too small for."""


def soft_copy(roles: Tensor, characters: Tensor, longest: int) -> tuple[Tensor, Tensor]:
    """What memory holds when each character belongs to an argument with some probability, independently.

    The j-th cell holds the character that is the j-th of those copied, so its position in the text follows the
    distribution of a sum of independent coins (Poisson-binomial).

    Args:
        roles: [C], probability that the argument copies each character. characters: one-hot words [C, V].
        longest: cells of the argument, L.
    Returns:
        the cells [L, V], the word 0 where the text is shorter; the distribution of the length, [L + 1] (longer texts are cut).
    """
    before = roles.new_zeros(longest + 1)
    before[0] = 1.0
    cells = [roles.new_zeros(characters.shape[1]) for _ in range(longest)]
    for position in range(len(roles)):
        here = roles[position]
        copied = torch.stack(cells) + (here * before[:longest])[:, None] * characters[position][None]
        cells = list(copied.unbind())
        moved = torch.cat([before.new_zeros(1), before[:-1]])
        full = one_hot(torch.tensor(longest), longest + 1).to(before)
        before = (1 - here) * before + here * (moved + before[-1] * full)
    filled = torch.stack(cells)
    blank = one_hot(torch.tensor(0), characters.shape[1]).to(filled)
    return filled + (1 - filled.sum(-1, keepdim=True)) * blank, before


class DenseObjective:
    """log p(answer) where the whole reply is the result of one call at the end of the prompt.

    Args:
        computer: the model's :class:`Computer`. machine: shape of the dense machine.
    Raises:
        DenseObjectiveError: the library has more instructions than the dense engine takes.
    """

    def __init__(self, computer: Any, machine: MachineConfig):
        library: NeuralLibrary | None = computer.library
        if library is None or len(library.instructions) > LARGEST_PROGRAM:
            size = 0 if library is None else len(library.instructions)
            raise DenseObjectiveError(
                f"the dense estimator runs libraries of 1…{LARGEST_PROGRAM} instructions, found {size}: "
                "load a smaller library, or use the estimator 'marginal'"
            )
        self.computer, self.config, self.library = computer, machine, library

    def log_likelihood(
        self, features: Tensor, weights: Tensor, characters: Characters, start: int, answer: str, base: Tensor
    ) -> Tensor:
        """log [ p(no call) p_base + Σ_program p(program) p(answer | program, soft copy of its arguments) ], a scalar.

        Args:
            features: [L, ·] of one sequence. weights: [L], log-weights of its tokens in attention.
            characters: of its tokens 0…start.
            start: column of the last prompt token. base: the backbone's log-probability of the reply, a scalar.
        """
        computer, config = self.computer, self.config
        if any(ord(character) >= config.values for character in answer):
            raise DenseObjectiveError(
                f"the answer {answer!r} has characters beyond the dense machine's V = {config.values}"
            )
        prefix = features[None, : start + 1]
        weights = weights[None, : start + 1]
        states = computer.projection(prefix)
        pooled = computer.selector.pool(states[:, -1:], computer.selector.remember(states), weights[:, None])[0, 0]
        keys = computer.keys()
        choices = computer.choose(pooled, keys, computer.allowed(), computer.biases())
        encoded = computer.reader.encode(computer.reader.projection(prefix), weights, pooled[None])
        count = len(characters.code_points)
        code_points = torch.from_numpy(characters.code_points).to(states.device)
        tokens = torch.from_numpy(characters.tokens).to(states.device)
        texts = torch.zeros(len(keys), dtype=torch.int64, device=states.device)
        potentials = computer.reader(encoded, code_points[None], tokens[None], keys, texts)
        roles = role_probabilities(potentials, computer.reader.max_arguments)
        words = one_hot(code_points.clamp(max=config.values - 1), config.values).to(states.dtype)
        soft = SoftProgram.from_instructions(
            self.library.instructions_for(config), config, dtype=states.dtype, device=states.device
        )
        machine = DenseMachine(soft, config)
        memories, registers, entries = [], [], []
        for program, description in enumerate(self.library.programs.values()):
            memory, register = self._layout(machine, roles[program, :count], words, len(description.parameters))
            memories.append(memory)
            registers.append(register)
            entries.append(description.entry)
        state = machine.state_from(torch.stack(memories), torch.stack(registers), entries)
        state, _ = machine.run(state)
        lengths, cells = machine.result(state, len(answer))
        tiny = torch.finfo(states.dtype).tiny
        found = lengths[:, len(answer)].clamp_min(tiny).log() + state.halted.clamp_min(tiny).log()
        for position, character in enumerate(answer):
            found = found + cells[:, position, ord(character)].clamp_min(tiny).log()
        return torch.cat([(choices[0] + base)[None], choices[1:] + found]).logsumexp(0)

    def _layout(self, machine: DenseMachine, roles: Tensor, words: Tensor, arguments: int) -> tuple[Tensor, Tensor]:
        """Memory [N, V] and registers [R, V] of a program about to start: an argument has ``LONGEST_ARGUMENT`` cells of its own."""
        config = self.config
        needed = 1 + arguments * (1 + LONGEST_ARGUMENT)
        if needed >= config.memory:
            raise DenseObjectiveError(
                f"{arguments} arguments of {LONGEST_ARGUMENT} characters do not fit in N = {config.memory} words"
            )
        blank = machine.one_hot_words([0]).to(words)
        rows, register = [blank], [blank[0]] * config.registers
        for argument in range(arguments):
            cells, length = soft_copy(roles[:, 1 + argument], words, LONGEST_ARGUMENT)
            address = sum(len(row) for row in rows) + 1
            rows += [blank, cells]
            register[2 * argument] = machine.one_hot_words([address]).to(words)[0]
            register[2 * argument + 1] = torch.nn.functional.pad(length, (0, config.values - len(length)))
        register[-2] = machine.one_hot_words([needed]).to(words)[0]
        register[-1] = machine.one_hot_words([config.memory - 1]).to(words)[0]
        rows.append(blank.expand(config.memory - needed, -1))
        return torch.cat(rows), torch.stack(register)
