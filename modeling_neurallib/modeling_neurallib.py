"""A LLaMA with a differentiable computer inside: read, select, run, write.

    text ─ tokens ─ hidden states ─┬─ Selector   call now? which program?
                                   ├─ Reader     which characters are its arguments?
                                   │      ↓
                                   │   Machine   runs the program until it halts
                                   │      ↓
                                   └─ Writer     result characters → next-token distribution

Where no call is open, the logits are those of the backbone, to the last bit. Where one is, the next token is the next token
of the result. The next token is a function of the prefix alone; a cache only saves work.

Source: arXiv 2407.04899 (Saldyt & Kambhampati), sections on the augmented LLaMA and its program library.
"""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from inspect import signature
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaForCausalLM,
    LlamaModel,
    PreTrainedModel,
)
from transformers import initialization as init
from transformers.cache_utils import Cache
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.utils.generic import can_return_tuple

from ..configuration.configuration_neurallib import NeuralLibConfig
from ..configuration.machine_config import MachineConfig
from .call import UNREAD, Call, CallLayer, Place, Row
from .characters import Characters, CharacterTable, TokenizerError
from .dense_objective import DenseObjective, DenseObjectiveError
from .explanation import ExplainedAnswer, explained, reply
from .labelling import argument_texts, decode
from .library import NeuralLibrary
from .loaded_libraries import LibraryManagement, callable_programs, library_shape, linked_library, program_biases
from .machine.operations import FIELDS
from .machine.state import MachineError, RunResult
from .objective import MarginalObjective
from .reader import Reader
from .selector import UNSEEN, Selector, StateProjection, causal
from .selector_loop import PLAIN, SelectorLoop
from .sharing import UNTRAINED_BIAS, Sharing
from .writer import END, Writer, forbidden_after, result_tokens

CACHE = "cache" if "cache" in signature(LlamaModel.forward).parameters else "past_key_values"
"""What this transformers calls the cache: it was renamed in 5.24."""

HUB_OPTIONS = (
    *("gguf_file", "revision", "subfolder", "token", "cache_dir", "force_download", "local_files_only", "proxies"),
    "trust_remote_code",
)
"""What says where a model is, and so where its tokenizer is too."""

CERTAIN = 1.0e4
"""How far a call moves logits apart: e^−10,000 is zero. The others keep their distances, so that where a processor bans the token
of a result, what is left is the backbone's own choice."""

DESCRIBED_AT_ONCE = 32
"""Programs whose docstrings go through the backbone together."""


class NeuralLibError(ValueError):
    """A model, tokenizer or input that the computer cannot work with."""


@dataclass
class Intervention:
    """What a call says about the token after one position: this one, or else none of those.

    Attributes:
        row: sequence in the batch. column: position in the input of this forward pass.
        token: the next token, or None. forbidden: bool [vocabulary], or None.
    """

    row: int
    column: int
    token: int | None = None
    forbidden: np.ndarray | None = None


@dataclass(frozen=True)
class Reading:
    """What the reader made of the text before a call.

    Attributes:
        characters: of the text. potentials: of its labellings, float [C, max_arguments + 6], see :mod:`.labelling`.
        labelling: the role of each character, int64 [C]. arguments: the texts that it copies.
    """

    characters: Characters
    potentials: np.ndarray
    labelling: np.ndarray
    arguments: list[str]

    @property
    def tokens(self) -> tuple[int, ...]:
        """The tokens that characters were copied from."""
        return tuple(np.unique(self.characters.tokens[self.labelling > 0]).tolist())


@dataclass
class NeuralLibModelOutput(BaseModelOutputWithPast):
    """Hidden states, and for every sequence its calls so far."""

    calls: tuple[tuple[Call, ...], ...] | None = None
    interventions: list[Intervention] | None = None


@dataclass
class NeuralLibCausalLMOutput(CausalLMOutputWithPast):
    """Logits, and for every sequence its calls so far, those that the gate opened in a prompt too.

    Attributes:
        loss: the negative log-likelihood of the answers, summed over calls, a mean per sequence; or, where one is given, their
            sum divided by ``num_items_in_batch``.
        logits: [B, kept positions, vocabulary]. calls: a tuple of calls for each sequence.
        log_likelihoods: [B], of each answer (with ``labels``).
        parts: what it is made of, [B] each; see :meth:`MarginalObjective.score`.
    """

    calls: tuple[tuple[Call, ...], ...] | None = None
    log_likelihoods: Tensor | None = None
    parts: dict[str, Tensor] | None = None


class Computer(nn.Module):
    """The heads and the library: everything that is added to a LLaMA.

    Parameters and buffers are float32 and integers whatever the backbone's precision, so that a gate in bfloat16 cannot
    disagree with itself. Buffers: ``token_bytes`` and ``token_offsets`` (character table), ``instructions`` int64 [P, 5],
    ``descriptions`` float32 [programs, features], the programs' docstrings through the backbone.

    ``references``: name → library, of those whose instructions are not in the buffer. ``suspended``: names of libraries
    that may not be called for the moment. ``reading_weight``, ``stretch``, ``alone_weight``: see :class:`MarginalObjective`.
    ``drawn``: other descriptions, float32 [programs, features], of which the keys are made while it trains.
    """

    offsets: nn.Parameter
    descriptions: Tensor
    instructions: Tensor
    token_bytes: Tensor
    token_offsets: Tensor

    def __init__(self, config: NeuralLibConfig):
        super().__init__()
        self.config = config
        layers = len(config.feature_layers or [])
        described = config.hidden_size * layers
        programs, instructions = library_shape(config)
        self.references: dict[str, NeuralLibrary] = {}
        self.suspended: frozenset[str] = frozenset()
        self.reading_weight = 1.0
        self.stretch = 1.0
        self.alone_weight = 1.0
        self.drawn: Tensor | None = None
        self.projection = StateProjection(config.hidden_size, layers, config.head_width, config.head_dropout)
        self.selector = Selector(
            config.head_width,
            config.head_heads,
            config.selector_hops,
            config.key_width,
            described,
        )
        self.reader = Reader(
            StateProjection(config.hidden_size, layers, config.head_width, config.reader_dropout),
            config.head_width,
            config.head_heads,
            config.reader_layers,
            config.key_width,
            config.max_arguments,
        )
        self.writer = Writer(config.head_width)
        self.offsets = nn.Parameter(torch.zeros(programs, config.key_width))
        self.register_buffer("descriptions", torch.zeros(programs, described))
        self.register_buffer("instructions", torch.zeros(instructions, len(FIELDS), dtype=torch.int64))
        self.register_buffer("token_bytes", torch.zeros(config.token_bytes, dtype=torch.uint8))
        self.register_buffer("token_offsets", torch.zeros(config.vocab_size + 1, dtype=torch.int64))

    def __deepcopy__(self, memo: dict[int, Any]) -> Computer:
        """A copy by itself, as PEFT makes one for each adapter, has the model's configuration; one within a model, that model's."""
        if not memo:
            memo[id(self.config)] = self.config
        copied = type(self).__new__(type(self))
        memo[id(self)] = copied
        copied.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return copied

    @property
    def weight(self) -> Tensor:
        """The keys' offsets. PEFT takes every module that it saves whole for a layer with a weight when it merges an adapter."""
        return self.offsets.detach()

    @weight.setter
    def weight(self, merged: Tensor) -> None:
        """PEFT gives a merged module the weight that it has."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        """Moves with the model, but is never narrowed: ``model.half()`` leaves the computer in float32."""

        def keep_precision(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            narrowed = tensor.is_floating_point() and moved.element_size() < tensor.element_size()
            return tensor.to(moved.device) if narrowed and not tensor.is_meta else moved

        return super()._apply(keep_precision, recurse)

    @cached_property
    def table(self) -> CharacterTable:
        return CharacterTable(self.token_bytes.cpu().numpy(), self.token_offsets.cpu().numpy())

    @cached_property
    def library(self) -> NeuralLibrary | None:
        return linked_library(self.config, self.instructions.cpu().numpy(), self.references)

    @cached_property
    def programs(self) -> list[str]:
        """Qualified names, in the order of the keys."""
        return list(self.library.programs) if self.library is not None else []

    @cached_property
    def loop(self) -> SelectorLoop:
        return SelectorLoop(self.projection, self.selector)

    @cached_property
    def arities(self) -> list[int]:
        """The number of arguments of each program."""
        return [len(program.parameters) for program in self.library.programs.values()] if self.library else []

    @property
    def endings(self) -> set[int | None]:
        """Tokens behind which nothing is called: the ends of a turn and of a sequence, and padding."""
        config = self.config
        several = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
        return {config.pad_token_id, config.end_of_turn_token_id, *several}

    @property
    def machine(self) -> MachineConfig:
        return self.config.machine_config

    def forget_cached(self) -> None:
        """After the buffers changed: what was derived from them is made anew."""
        for name in ("table", "library", "programs", "arities", "_settled"):
            self.__dict__.pop(name, None)

    def keys(self) -> Tensor:
        """[programs, key_width]"""
        drawn = self.drawn if self.training else None
        if drawn is None:
            return self.selector.keys(self.descriptions, self.offsets)
        return self.selector.keys(drawn, self.offsets.detach())  # the descriptions alone are to make the keys

    def may_be_called(self) -> list[bool]:
        """Of each program: of an active library, on the allow-list, not disabled, and of no more arguments than roles."""
        may = callable_programs(self.config, self.suspended)
        named = zip(self.programs, self.arities, strict=True)
        return [name in may and 0 < arity <= self.config.max_arguments for name, arity in named]

    def allowed(self) -> Tensor:
        """:meth:`may_be_called` as a tensor, bool [programs]."""
        return torch.tensor(self.may_be_called(), dtype=torch.bool, device=self.offsets.device)

    def biases(self) -> Tensor | None:
        """[programs], what is added to their logits; None where that is nothing."""
        biases = program_biases(self.config)
        return torch.tensor(biases, device=self.offsets.device) if any(biases) else None

    def train(self, mode: bool = True) -> Computer:
        """As ``Module.train``. A fused optimiser changes parameters without a trace, so what was settled is settled again."""
        self.unsettle()
        result: Computer = super().train(mode)
        return result

    def unsettle(self) -> None:
        """Forget what was made of the parameters, which may have changed without a trace."""
        for name in ("_settled", "loop"):
            self.__dict__.pop(name, None)

    def settled(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """:meth:`keys`, :meth:`allowed` and :meth:`biases` for inference, made again only when what they depend on changed.

        Or where an adapter, a quantizer or a parametrization has a hand in the keys: each time.
        """
        if type(self.selector.key) not in PLAIN:
            return self.keys().detach(), self.allowed(), self.biases()
        parameters = (self.offsets, self.descriptions, self.selector.key.weight, self.selector.key.bias)
        config = self.config
        lists = (config.disabled_programs, config.active_libraries, config.allowed_libraries, config.allowed_programs)
        state = (
            *((id(tensor), tensor._version) for tensor in parameters),
            *(None if listed is None else tuple(listed) for listed in lists),
            tuple((record["name"], record["bias"]) for record in config.libraries or ()),
            self.suspended,
            config.max_arguments,
        )
        remembered = self.__dict__.get("_settled")
        if remembered is None or remembered[0] != state:
            remembered = (state, (self.keys().detach(), self.allowed(), self.biases()))
            self.__dict__["_settled"] = remembered
        found: tuple[Tensor, Tensor, Tensor | None] = remembered[1]
        return found

    def choose(self, pooled: Tensor, keys: Tensor, allowed: Tensor, biases: Tensor | None) -> Tensor:
        """Log-probabilities over "no call" (index 0) and the programs, the libraries' biases added: [..., 1 + programs]."""
        return _biased(self.selector(pooled, keys, allowed), biases)

    @property
    def idle(self) -> bool:
        """True when there is nothing that could be called."""
        return self.config.library is None or self.offsets.shape[0] == 0

    @property
    def silent(self) -> bool:
        """True when nothing may be called now, whatever there is."""
        return self.idle or not any(self.may_be_called())

    def resize(self, vocabulary: int) -> None:
        """Fit the character table to a vocabulary: tokens that are added spell nothing, as special tokens do."""
        offsets = self.token_offsets[: vocabulary + 1]
        more = offsets[-1:].expand(vocabulary + 1 - len(offsets))
        self.token_offsets = torch.cat([offsets, more])
        self.token_bytes = self.token_bytes[: int(offsets[-1])].clone()
        self.config.token_bytes = len(self.token_bytes)
        self.forget_cached()

    @torch.compiler.disable(
        reason="a NeuralLib model decides and runs calls between graphs, so one graph cannot hold it: "
        "compile without fullgraph=True"
    )
    @torch.no_grad()
    def advance(self, layer: CallLayer, tokens: Tensor, mask: Tensor, features: Tensor) -> list[Intervention]:
        """Take in the next T positions of every sequence, decide calls, and say what they make of the tokens to come.

        Args:
            layer: the state of the prefix, which is extended. tokens: int64 [B, T]. mask: bool [B, T], False for padding.
            features: [B, T, ·] of these positions.
        """
        # The heads are float32 whatever precision the backbone runs in.
        with torch.autocast(features.device.type, enabled=False):
            return self._advance(layer, tokens, mask, features)

    def _advance(self, layer: CallLayer, tokens: Tensor, mask: Tensor, features: Tensor) -> list[Intervention]:
        pooled, choices, keys = self.consider(layer, tokens, mask, features)
        new, total = tokens.shape[1], layer.length
        opens = self.opens(choices).tolist()
        interventions = []
        real = mask.tolist()
        for number, row in enumerate(layer.rows):
            for column, read in enumerate(tokens[number].tolist()):
                if not real[number][column]:
                    continue
                row.tokens.append(read)
                following = self.write(row)
                # The gate rests while a result is being written, where the turn ends with it, and behind the end.
                covered = row.covered() if row.calls else frozenset()
                if following[0] is None and (opens[number][column] or covered) and read not in self.endings:
                    place = Place(number, total - new + column, features[number, column], covered)
                    state, weighed = pooled[number, column], choices[number, column]
                    if covered:
                        state, weighed = self.consider_again(layer, place)
                    call = self.open_call(layer, place, state, weighed, keys) if self.opens(weighed) else None
                    if call is not None and not row.repeats(call):
                        row.calls.append(call)
                        following = self.write(row)
                    elif call is not None:
                        # What was just said would be said again: the turn is over.
                        row.calls[-1] = replace(row.calls[-1], ends_turn=True)
                        following = self.write(row)
                token, forbidden = following
                if token is not None or forbidden is not None:
                    interventions.append(Intervention(number, column, token, forbidden))
        return interventions

    def consider(
        self, layer: CallLayer, tokens: Tensor, mask: Tensor, features: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Extend the prefix by T positions, and weigh at each of them whether to call and what.

        Args:
            layer, tokens, mask, features: as for :meth:`advance`.
        Returns:
            pooled states [B, T, width]; log-probabilities of "no call" and the programs [B, T, 1 + programs]; keys of the
            programs [programs, key_width].
        """
        if not layer.length:
            self.unsettle()
        keys, allowed, biases = self.settled()
        weights = self.weights(tokens, mask, layer.rows)
        if not self.training and self.loop.fits(features):
            held = layer.extend(features, self.loop.unwritten(features), mask, weights)
            pooled, choices = self.loop(features, held[0], held[2], layer.length, keys, allowed)
            choices = _biased(choices, biases)
        else:
            states = self.projection(features)
            layer.extend(features, self.selector.remember(states), mask, weights)
            pooled = self.selector.pool(states, layer.memory, causal(layer.weights, tokens.shape[1]))
            choices = self.choose(pooled, keys, allowed, biases)
        if layer.waiting > UNREAD:
            layer.settle(self.reader.projection)
        return pooled, choices, keys

    def consider_again(self, layer: CallLayer, place: Place) -> tuple[Tensor, Tensor]:
        """What :meth:`consider` says of a place, pooled state [width] and log-probabilities [1 + programs], with its coverage."""
        pooled = self.pool_covered(layer, place, place.covered)
        return pooled, self.choose(pooled, *self.settled())

    def pool_covered(self, layer: CallLayer, place: Place, covered: frozenset[int]) -> Tensor:
        """The pooled state [width] of a place where these tokens, padding not counted, are covered."""
        states = self.projection(place.features[None, None])
        memory, weights = (held[place.number, None, : place.position + 1] for held in (layer.memory, layer.weights))
        coverage = self.coverage(layer, place, covered)
        return self.selector.pool(states, memory, weights[:, None], coverage[None, None])[0, 0]

    def coverage(self, layer: CallLayer, place: Place, covered: frozenset[int]) -> Tensor:
        """[position + 1], 1 at these tokens, padding not counted, else 0."""
        real = layer.mask[place.number, : place.position + 1]
        coverage = torch.zeros(place.position + 1, dtype=self.offsets.dtype, device=real.device)
        coverage[real.nonzero().flatten()[sorted(covered)]] = 1.0
        return coverage

    def opens(self, choices: Tensor) -> Tensor:
        """Whether the gate opens: log-probabilities [..., 1 + programs] → bool [...]."""
        return choices[..., 0].exp() < 1 - self.config.call_threshold

    def weights(self, tokens: Tensor, mask: Tensor, rows: Sequence[Row] = ()) -> Tensor:
        """Log-weights [B, T] of tokens in attention: ``UNSEEN`` for padding and for what goes on with a number.

        Args:
            tokens: int64 [B, T]. mask: bool [B, T], False for padding. rows: the tokens before them, if there are any.
        """
        ids = torch.where(mask, tokens, -1).cpu().numpy()
        before = np.array([row.tokens[-1] if row.tokens else -1 for row in rows] or [-1] * len(ids))
        if ids.shape[1] > 1 and (ids < 0).any():
            # A number goes on behind padding too: the token before is the last real one.
            ids = np.concatenate([before[:, None], ids], axis=1)
            last = np.maximum.accumulate(np.where(ids < 0, 0, np.arange(ids.shape[1])), axis=1)
            ids = np.take_along_axis(ids, last, axis=1)[:, 1:]
        seen = mask & ~torch.from_numpy(self.table.goes_on(ids, before)).to(mask.device)
        return torch.where(seen, 0.0, UNSEEN).to(self.offsets.dtype)

    def write(self, row: Row) -> tuple[int | None, np.ndarray | None]:
        """The next token (of a result, or the end of the turn after it), and those forbidden after a result, bool [vocabulary].

        None and None where the backbone is free.
        """
        following = row.following()
        if following is None:
            return None, None
        call, written = following
        if written < len(call.tokens):
            return call.tokens[written], None
        after = written - len(call.tokens)
        turn_end = self.config.end_of_turn_token_id
        if after > 1:
            return None, None
        forbidden = forbidden_after(self.table, call.result or "", row.tokens[len(row.tokens) - after :])
        return (turn_end if after == 0 and call.ends_turn else None), forbidden

    def open_call(self, layer: CallLayer, place: Place, pooled: Tensor, choices: Tensor, keys: Tensor) -> Call | None:
        """Select, read, run: the call that opens at a place, or None when the sequence has used up its budget.

        Args:
            layer: the state of the prefix. pooled: [width] and choices: [1 + programs] of the place. keys: [programs, key_width].
        """
        row = layer.rows[place.number]
        spent = sum(call.steps for call in row.calls)
        if self.library is None or len(row.calls) >= self.config.max_calls or spent >= self.config.max_steps:
            return None
        began = time.perf_counter()
        chosen = int(choices[1:].argmax())
        program = self.library.programs[self.programs[chosen]]
        reading = self.read(layer, place, pooled, keys[chosen], row.tokens, chosen)
        arguments, read = reading.arguments, reading.tokens
        outcome, fault = self.run(program.name, arguments, self.config.max_steps - spent)
        result, written = None if outcome is None else outcome.text, list[int]()
        if result is not None:
            try:
                written = result_tokens(self.table, int(self.writer.lead_scores(pooled[None]).argmax()), result)
            except TokenizerError as error:
                result, fault = None, str(error)
        # The turn ends where nothing is left to answer, which what this call reads tells, too.
        after = self.pool_covered(layer, place, place.covered.union(read)) if written else pooled
        return Call(
            start=len(row.tokens),
            program=program.name,
            library=self.library.library_of(program.name),
            arguments=tuple(arguments),
            probability=float(choices[1 + chosen].exp()),
            result=result,
            tokens=tuple(written),
            ends_turn=bool(written) and int(self.writer.end_scores(after[None]).argmax()) == END,
            steps=0 if outcome is None else outcome.steps,
            fault=fault,
            seconds=time.perf_counter() - began,
            read=read,
        )

    def read(
        self, layer: CallLayer, place: Place, pooled: Tensor, key: Tensor, tokens: list[int], chosen: int
    ) -> Reading:
        """What a program's arguments are in the text before a place.

        Args:
            layer, place, pooled: as for :meth:`open_call`. key: [key_width] of the program. tokens: of the text, padding left out.
            chosen: the program's index.
        """
        characters = self.table.characters(tokens)
        real = layer.mask[place.number, : place.position + 1]
        states = layer.settle(self.reader.projection)
        held = states, layer.weights
        prefix, weights = (each[place.number, : place.position + 1][real].unsqueeze(0) for each in held)
        coverage = self.coverage(layer, place, place.covered)[real].unsqueeze(0) if place.covered else None
        scores = self.reader(
            self.reader.encode(prefix, weights, pooled.unsqueeze(0), coverage),
            torch.from_numpy(characters.code_points).to(prefix.device).unsqueeze(0),
            torch.from_numpy(characters.tokens).to(prefix.device).unsqueeze(0),
            key.view(1, -1),
            torch.zeros(1, dtype=torch.int64, device=prefix.device),
        )
        potentials = scores[0].cpu().numpy()
        arity = self.arities[chosen]
        labelling = decode(potentials, arity)
        arguments = argument_texts(labelling, characters.code_points, characters.boundary, arity)
        return Reading(characters, potentials, labelling, arguments)

    def run(self, program: str, arguments: Sequence[str], max_steps: int) -> tuple[RunResult | None, str]:
        """Run a program on the texts read; the second value says why there is no result."""
        assert self.library is not None
        if not all(arguments):
            missing = ", ".join(str(role + 1) for role, text in enumerate(arguments) if not text)
            return None, f"argument {missing} of {program} was not found in the text"
        limit = min(self.machine.max_steps, max_steps)
        try:
            outcome = self.library.run_batch([(program, arguments)], machine=self.machine, max_steps=limit)[0]
        except MachineError as error:
            return None, str(error)
        return outcome, "" if outcome.text is not None else outcome.fault.name


class NeuralLibModel(LlamaModel):
    """The backbone with its computer: hidden states and calls."""

    config_class = NeuralLibConfig
    _keep_in_fp32_modules_strict = ["computer"]  # noqa: RUF012  (what transformers declares)

    def __init__(self, config: NeuralLibConfig):
        super().__init__(config)
        self.computer = Computer(config)
        for layer in {*(config.feature_layers or [])} - {0, config.num_hidden_layers}:
            self.layers[layer - 1].register_forward_hook(partial(_noted, layer))
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        _init_computer(module)

    def features(self, hidden_states: Sequence[Tensor] | dict[int, Tensor]) -> Tensor:
        """What the heads read of the hidden states (as ``output_hidden_states`` gives them): [B, T, ·]."""
        return StateProjection.features([hidden_states[layer] for layer in self.config.feature_layers])

    def resize_token_embeddings(self, *args: Any, **kwargs: Any) -> nn.Embedding:
        """As in the base class; the character table goes with the vocabulary."""
        embeddings: nn.Embedding = super().resize_token_embeddings(*args, **kwargs)
        self.computer.resize(self.config.vocab_size)
        return embeddings

    @can_return_tuple
    def forward(  # type: ignore[override]
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        decide_calls: bool = True,
        cache: Cache | None = None,
        **kwargs: Any,
    ) -> NeuralLibModelOutput:
        """As ``LlamaModel``; besides it decides calls and says what they make of the logits.

        Args:
            cache, past_key_values: two names of the cache, the second that of transformers before 5.24.
            decide_calls: False leaves the computer out (training on given answers does).
        Raises:
            NeuralLibError: no tokens; embeddings in place of tokens (an argument is read from characters, which they do not
                have); a mask that is not that of the tokens; a cache that was filled without the computer.
        """
        if input_ids is not None and input_ids.shape[1] == 0:
            raise NeuralLibError("input_ids hold no token: pass one at least, such as the one that a text begins with")
        wanted = kwargs.pop("output_hidden_states", None)
        wanted = self.config.output_hidden_states if wanted is None else wanted
        active = decide_calls and not self.computer.idle
        if active and input_ids is None and self.computer.silent:
            active = False
        if active and input_ids is None:
            raise NeuralLibError(
                "inputs_embeds were given, but calls read characters, which embeddings do not have: pass input_ids, or "
                "decide_calls=False to use the backbone alone"
            )
        if active and attention_mask is not None and attention_mask.dim() != 2:
            raise NeuralLibError(
                f"attention_mask has {attention_mask.dim()} dimensions: the reader needs the 2-D one [batch, length], which "
                "says which tokens are padding"
            )
        remembered = past_key_values if cache is None else cache
        layers = remembered.layers if isinstance(remembered, Cache) else []
        own = [layer for layer in layers if isinstance(layer, CallLayer)]
        if active and attention_mask is not None and input_ids is not None:
            _fit(attention_mask, own[-1] if own else CallLayer(), input_ids.shape[1])
        # Noting a few states is cheaper than having all of them returned, but a compiled graph cannot do it.
        noting = active and not torch.compiler.is_compiling() and not any(map(_is_compiled, self.layers))
        states: dict[int, Tensor] | None = {} if noting else None
        tokens = input_ids
        if states is not None and 0 in self.config.feature_layers:
            input_ids, inputs_embeds = None, self.embed_tokens(input_ids)
            states[0] = inputs_embeds
        token = _notes.set(states) if noting else None
        try:
            # The masks of a static cache leave its unwritten places out only where all of its layers say that they are static.
            for each in own:
                each.is_compileable = True
            output = super().forward(
                input_ids=input_ids,
                attention_mask=attention_mask,
                position_ids=position_ids,
                inputs_embeds=inputs_embeds,
                use_cache=use_cache,
                output_hidden_states=True if active and not noting else wanted,
                return_dict=True,
                **{CACHE: remembered},
                **kwargs,
            )
        finally:
            for each in own:
                each.is_compileable = False
            if token is not None:
                _notes.reset(token)
        calls, interventions = None, None
        layer = self._call_layer(getattr(output, CACHE), tokens.shape[1]) if active and tokens is not None else None
        if layer is not None and tokens is not None:
            mask = torch.ones_like(tokens, dtype=torch.bool)
            if attention_mask is not None:
                mask = attention_mask[:, layer.length : layer.length + tokens.shape[1]].to(tokens.device).bool()
            if states is not None:
                states[self.config.num_hidden_layers] = output.last_hidden_state
            features = self.features(output.hidden_states if states is None else states)
            interventions = self.computer.advance(layer, tokens, mask, features)
            calls = tuple(tuple(row.calls) for row in layer.rows)
        return NeuralLibModelOutput(
            last_hidden_state=output.last_hidden_state,
            hidden_states=output.hidden_states if wanted else None,
            attentions=output.attentions,
            calls=calls,
            interventions=interventions,
            **{CACHE: getattr(output, CACHE)},
        )

    def _call_layer(self, cache: Cache | None, new: int) -> CallLayer | None:
        """The computer's layer of a cache, appended after the decoder's on the first pass; without a cache, a fresh one.

        None where the cache was filled without the computer, and nothing may be called anyway.
        """
        if cache is None:
            return CallLayer()
        layers = cache.layers
        if len(layers) > self.config.num_hidden_layers and isinstance(layers[-1], CallLayer):
            layer = layers[-1]
        else:
            layer = CallLayer()
            layers.append(layer)
        seen = int(cache.get_seq_length()) - new
        if layer.length != seen:
            if self.computer.silent:
                return None
            raise NeuralLibError(
                f"the cache holds {seen} tokens, but the computer has read {layer.length} of them: fill the cache with this "
                "model from the start, so that arguments can be read from all of the text"
            )
        return layer

    @torch.no_grad()
    def describe(self, tokenizer: Any, texts: Sequence[str]) -> Tensor:
        """Descriptions of programs: the mean over tokens of the features of each text, float32 [texts, features]."""
        rows = []
        device = self.embed_tokens.weight.device
        encoded = [tokenizer.encode(text, add_special_tokens=False) for text in texts]
        for start in range(0, len(encoded), DESCRIBED_AT_ONCE):
            batch = encoded[start : start + DESCRIBED_AT_ONCE]
            longest = max(len(tokens) for tokens in batch)
            tokens = torch.tensor([[*row, *[0] * (longest - len(row))] for row in batch], device=device)
            mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in batch], device=device)
            output = self(tokens, attention_mask=mask, use_cache=False, decide_calls=False, output_hidden_states=True)
            features = self.features(output.hidden_states)
            rows += [features[row, : len(ids)].mean(0) for row, ids in enumerate(batch)]
        return torch.stack(rows) if rows else torch.zeros(0, self.computer.descriptions.shape[1])


def _biased(choices: Tensor, biases: Tensor | None) -> Tensor:
    """Log-probabilities [..., 1 + programs] with biases [programs] added to those of the programs."""
    if biases is None:
        return choices
    return torch.cat([choices[..., :1], choices[..., 1:] + biases], dim=-1).log_softmax(-1)


_notes: ContextVar[dict[int, Tensor] | None] = ContextVar("hidden states of a forward pass", default=None)
"""Where the forward pass under way in this thread notes the hidden states that the heads read."""


def _is_compiled(layer: nn.Module) -> bool:
    """Whether a layer was compiled by itself, so that its hooks are inside the graph."""
    return layer._compiled_call_impl is not None


def _fit(attention_mask: Tensor, layer: CallLayer, new: int) -> None:
    """Make the text before T new tokens what the mask of both, [B, S + T], says that it is.

    Raises:
        NeuralLibError: the mask is not of all of them, or it shows what was hidden when it was read.
    """
    total = layer.length + new
    if attention_mask.shape[1] < total:
        raise NeuralLibError(
            f"attention_mask is of {attention_mask.shape[1]} positions, but there are {total}, {layer.length} of them in the "
            "cache: pass the mask of all of them"
        )
    # One token more is the next step of a generation, whose mask grows by that token.
    if new > 1 and layer.length and not layer.hide(attention_mask[:, : layer.length].to(layer.mask.device).bool()):
        raise NeuralLibError(
            "attention_mask shows tokens of the cache that were padding when they were read: fill a new cache with them"
        )


def _noted(layer: int, module: nn.Module, arguments: Any, output: Any) -> None:
    """Forward hook: notes hidden state ``layer``, counted as ``output_hidden_states`` does, where it is asked for."""
    if torch.compiler.is_compiling():
        return
    notes = _notes.get()
    if notes is not None:
        notes[layer] = output[0] if isinstance(output, tuple) else output


def _init_computer(module: nn.Module) -> None:
    """Initial values of what is ours, when a plain Llama checkpoint is loaded into the augmented class."""
    if isinstance(module, nn.Conv1d):
        init.normal_(module.weight, std=0.02)
        if module.bias is not None:
            init.zeros_(module.bias)
    if isinstance(module, Computer):
        init.zeros_(module.offsets)
        for buffer in (module.descriptions, module.instructions, module.token_bytes, module.token_offsets):
            init.zeros_(buffer)
    if isinstance(module, Reader | Selector):
        init.zeros_(module.covered)
    if isinstance(module, Selector):
        # Before training nothing is ever called: an untrained model is its backbone.
        init.constant_(module.no_call.bias, UNTRAINED_BIAS)


class NeuralLibForCausalLM(Sharing, LibraryManagement, LlamaForCausalLM):  # type: ignore[misc]  # push_to_hub keeps its signature open
    """A LLaMA that calls compiled programs.

    Get one with :meth:`from_llama` (any Llama checkpoint and a library) or ``from_pretrained`` (a folder or Hub repository
    that :meth:`save_pretrained` made). Its libraries are managed by :class:`LibraryManagement`.
    """

    config_class = NeuralLibConfig
    _keep_in_fp32_modules_strict = ["computer"]  # noqa: RUF012  (what transformers declares)
    _supports_context_parallel = False
    # The loss is a mean over sequences; the stock Trainer would have it divided by the label tokens.
    accepts_loss_kwargs = False

    def __init__(self, config: NeuralLibConfig):
        super().__init__(config)
        self.model = NeuralLibModel(config)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        _init_computer(module)

    @classmethod
    def is_backend_compatible(cls) -> bool:
        """Serving backends that bypass ``forward`` would run the backbone without its computer."""
        return False

    @property
    def computer(self) -> Computer:
        return self.model.computer

    def resize_token_embeddings(self, *args: Any, **kwargs: Any) -> nn.Embedding:
        """As in the base class; the character table goes with the vocabulary."""
        embeddings: nn.Embedding = super().resize_token_embeddings(*args, **kwargs)
        for computer in self._computers():
            computer.resize(self.config.vocab_size)
        return embeddings

    def init_continuous_batching(self, *args: Any, **kwargs: Any) -> Any:
        """Refused where something may be called: it packs requests into one sequence, and the computer reads one a row.

        Raises:
            NeuralLibError: the model has programs.
        """
        if not self.computer.idle:
            raise NeuralLibError(
                "continuous batching packs requests into one sequence, where the computer cannot tell them apart: call generate "
                "with a left-padded batch"
            )
        return super().init_continuous_batching(*args, **kwargs)  # type: ignore[misc]

    @classmethod
    def from_llama(
        cls,
        base: str | os.PathLike[str] | PreTrainedModel,
        library: NeuralLibrary | None = None,
        tokenizer: Any = None,
        machine: MachineConfig | None = None,
        heads: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> NeuralLibForCausalLM:
        """Put a computer into a Llama.

        Args:
            base: a model id, a folder or a loaded ``LlamaForCausalLM``; ``gguf_file=…`` among ``kwargs`` reads a GGUF.
            library: programs to call. None: load some later with :meth:`load_library`.
            tokenizer: that of the base; by default it is loaded from the same place.
            machine: shape of the machine that answers.
            heads: fields of :class:`NeuralLibConfig` that shape the heads, e.g. ``{"head_width": 64}``.
            kwargs: passed to ``AutoModelForCausalLM.from_pretrained``; what says where the base is, to the tokenizer's too.
        Raises:
            NeuralLibError: the base is not a Llama, or its tokenizer is missing.
        """
        if isinstance(base, str | os.PathLike):
            base = os.fspath(base)
            tokenizer = tokenizer or AutoTokenizer.from_pretrained(
                base, **{name: kwargs[name] for name in HUB_OPTIONS if name in kwargs}
            )
            base = AutoModelForCausalLM.from_pretrained(base, **{"dtype": torch.float32, **kwargs})
        if base.config.model_type != "llama":
            raise NeuralLibError(
                f"the base is a {base.config.model_type!r} model, but the computer is built for 'llama': "
                "choose a checkpoint of the Llama architecture"
            )
        if tokenizer is None:
            raise NeuralLibError(
                "a loaded base was given without its tokenizer: pass tokenizer=AutoTokenizer.from_pretrained(…)"
            )
        table = CharacterTable.from_tokenizer(tokenizer, base.config.vocab_size)
        shape = {
            k: v
            for k, v in base.config.to_dict().items()
            if k not in ("model_type", "quantization_config", "architectures")
        }
        config = NeuralLibConfig(
            **shape,
            **(heads or {}),
            machine=(machine or MachineConfig()).to_dict(),
            token_bytes=len(table.data),
            end_of_turn_token_id=end_of_turn(tokenizer, base.config.eos_token_id),
        )
        config._attn_implementation = base.config._attn_implementation
        with torch.device("meta"):
            model = cls(config)
        model.load_state_dict(base.state_dict(), strict=False, assign=True)
        model.model.rotary_emb = base.model.rotary_emb
        model.model.computer = Computer(config)
        model.model.computer.apply(_init_computer)
        model.model.computer.token_bytes.copy_(torch.from_numpy(table.data.copy()))
        model.model.computer.token_offsets.copy_(torch.from_numpy(table.offsets))
        model.tie_weights()
        model.model.computer.to(base.device)
        model.generation_config = base.generation_config
        model.config.name_or_path = base.config.name_or_path
        model.eval()
        if library is not None:
            model.load_library(library, tokenizer=tokenizer)
            model.computer.selector.begin_from(model.computer.descriptions)
        return model

    @can_return_tuple
    def forward(  # type: ignore[override]
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        call_targets: Tensor | None = None,
        cache: Cache | None = None,
        decide_calls: bool = True,
        **kwargs: Any,
    ) -> NeuralLibCausalLMOutput:
        """As ``LlamaForCausalLM``, with calls; with ``decide_calls=False`` the computer is left out.

        With ``labels`` (int64 [B, L], −100 for the prompt) the loss is the negative log-likelihood of the answers, summed over
        calls; logits are then the backbone's. ``call_targets`` (int64 [B, K, 9], see :func:`~.objective.call_labels`) says which
        calls explain them; without it they are searched for. (The estimator "dense" runs every program, and needs neither.)
        Without programs, or with ``decide_calls=False``, the loss is that of ``LlamaForCausalLM``.

        Raises:
            NeuralLibError: as for :meth:`NeuralLibModel.forward`; ``labels`` with embeddings in place of tokens.
            DenseObjectiveError: the estimator "dense" with a library that it is too small for, or with a row without a reply.
        """
        training = labels is not None and decide_calls and not self.computer.idle
        if training and input_ids is None:
            raise NeuralLibError(
                "labels were given with inputs_embeds, but calls that explain an answer read characters, which embeddings do not "
                "have: pass input_ids, or decide_calls=False for the loss of the backbone alone"
            )
        asked = kwargs.get("output_hidden_states")
        states_wanted = self.config.output_hidden_states if asked is None else asked
        if training:
            use_cache = False
        output = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            decide_calls=decide_calls and not training,
            return_dict=True,
            cache=past_key_values if cache is None else cache,
            **({**kwargs, "output_hidden_states": True} if training else kwargs),
        )
        hidden = output.last_hidden_state
        if isinstance(logits_to_keep, int):
            kept = torch.arange(hidden.shape[1])[-logits_to_keep if logits_to_keep else None :]
        else:
            kept = logits_to_keep.cpu() % hidden.shape[1]
        logits = self.lm_head(
            hidden[:, slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep]
        )
        loss, likelihoods, parts = None, None, None
        if labels is not None:
            if training and input_ids is not None:
                features = self.model.features(output.hidden_states)
                mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
                # The heads are float32 whatever precision the backbone trains in.
                with torch.autocast(input_ids.device.type, enabled=False):
                    likelihoods, parts = self._log_likelihoods(
                        features, input_ids, mask.bool(), labels, logits, call_targets
                    )
                items = kwargs.get("num_items_in_batch")
                loss = -likelihoods.sum() / (len(likelihoods) if items is None else items)
            else:
                loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size, **kwargs)
        if output.interventions:
            logits = self._intervene(logits, output.interventions, kept)
        return NeuralLibCausalLMOutput(
            loss=loss,
            logits=logits,
            hidden_states=output.hidden_states if states_wanted else None,
            attentions=output.attentions,
            calls=output.calls,
            log_likelihoods=likelihoods,
            parts=parts,
            **{CACHE: getattr(output, CACHE)},
        )

    @torch.compiler.disable(reason="the search for calls runs programs, which no graph can hold")
    def _log_likelihoods(
        self,
        features: Tensor,
        tokens: Tensor,
        mask: Tensor,
        labels: Tensor,
        logits: Tensor,
        calls: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """[B] log p(answer) by the estimator of the configuration, and its parts."""
        computer = self.computer
        if self.config.estimator == "marginal":
            objective = MarginalObjective(computer)
            return objective.score(objective.batch(features, tokens, mask, labels, logits, calls))
        dense = DenseObjective(computer, MachineConfig(**(self.config.dense_machine or {})))
        weights = computer.weights(tokens, mask)
        scores = logits.to(computer.offsets.dtype).log_softmax(-1)
        likelihoods = []
        for row in range(len(tokens)):
            reply = (labels[row] != -100).nonzero().flatten()
            ids = [token if real else -1 for token, real in zip(tokens[row].tolist(), mask[row].tolist(), strict=True)]
            if not len(reply) or not mask[row, : reply[0]].any():
                raise DenseObjectiveError(
                    f"row {row} of the batch has {'no prompt before its reply' if len(reply) else 'no reply'}, but the estimator "
                    "'dense' explains a reply by a call at the end of a prompt: set its labels to −100 on a prompt and on nothing "
                    "else, or use the estimator 'marginal'"
                )
            start = int(reply[0]) - 1
            answer = computer.table.characters(ids[start + 1 : int(reply[-1]) + 1]).text()
            base = scores[row, reply - 1, tokens[row, reply]].sum()
            characters = computer.table.characters(ids[: start + 1])
            likelihoods.append(dense.log_likelihood(features[row], weights[row], characters, start, answer, base))
        return torch.stack(likelihoods), {}

    @staticmethod
    def _intervene(logits: Tensor, interventions: Sequence[Intervention], kept: Tensor) -> Tensor:
        """Logits [B, kept, vocabulary] with what calls say about some of the positions ``kept``."""
        place: dict[int, list[int]] = {}
        for index, column in enumerate(kept.tolist()):
            place.setdefault(column, []).append(index)
        found = [(i, index) for i in interventions for index in place.get(i.column, ())]
        if not found:
            return logits
        logits = logits.clone()
        for intervention, index in found:
            scores = logits[intervention.row, index]
            if intervention.forbidden is not None:
                scores[torch.from_numpy(intervention.forbidden).to(logits.device)] -= CERTAIN
            if intervention.token is not None:
                scores[intervention.token] = scores.max() + CERTAIN
        return logits

    def _prepare_cache_for_generation(
        self, generation_config: Any, model_kwargs: dict[str, Any], *args: Any, **kwargs: Any
    ) -> Any:
        """The cache of the stock ``generate``, with the computer's layer behind the decoder's."""
        request = _request.get()
        if request is not None:
            request.mask = model_kwargs.get("attention_mask")
            eos, request.padding = generation_config.eos_token_id, generation_config.pad_token_id
            request.endings = {*eos} if isinstance(eos, (list, tuple)) else {eos}
        prepare: Any = super()._prepare_cache_for_generation  # type: ignore[misc]
        result = prepare(generation_config, model_kwargs, *args, **kwargs)
        cache = model_kwargs.get(CACHE)
        if isinstance(cache, Cache) and not self.computer.idle:
            layers = cache.layers
            if len(layers) == self.config.num_hidden_layers and not any(
                isinstance(layer, CallLayer) for layer in layers
            ):
                layers.append(CallLayer())
        return result

    @torch.no_grad()
    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """As ``GenerationMixin.generate``; with ``return_dict_in_generate`` the output has ``calls``, those of each reply."""
        stock: Any = super().generate  # type: ignore[misc]
        prompt = args[0] if args else kwargs.get("inputs", kwargs.get("input_ids"))
        request = Request(prompt.shape[1] if isinstance(prompt, Tensor) else int(kwargs.get("inputs_embeds") is None))
        token = _request.set(request)
        try:
            output = stock(*args, **kwargs)
        finally:
            _request.reset(token)
        if not isinstance(output, Tensor) and hasattr(output, "sequences"):
            sequences = output.sequences
            mask = request.text(sequences)
            decided = kwargs.get("decide_calls", True)
            starts, lengths = mask[:, : request.width].sum(1).tolist(), mask.sum(1).tolist()
            calls = self.calls_of(sequences, output.get(CACHE), mask) if decided else ((),) * len(sequences)
            output["calls"] = tuple(
                tuple(call for call in found if start <= call.start < length)
                for found, start, length in zip(calls, starts, lengths, strict=True)
            )
        return output

    def explain(
        self,
        prompt: str | Sequence[dict[str, str]],
        tokenizer: Any,
        *,
        max_new_tokens: int = 256,
        libraries: Sequence[NeuralLibrary] = (),
    ) -> ExplainedAnswer:
        """Answer a prompt, or the messages of a chat, and say what happened: considered, read, run and written.

        Args:
            libraries: those that the model was given, for their functions and source lines, which a model does not keep.
        Returns:
            plain data, ready for JSON: see :class:`ExplainedAnswer`.
        Raises:
            ExplanationError: the prompt leaves no room in the model's context, or messages have no chat format.
        """
        return explained(self, tokenizer, reply(self, tokenizer, prompt, max_new_tokens), libraries)

    def calls_of(
        self, sequences: Tensor, cache: Cache | None = None, mask: Tensor | None = None
    ) -> tuple[tuple[Call, ...], ...]:
        """The calls in finished sequences, prompts included; remembered where the cache holds that very text, else decided again.

        Args:
            sequences: int64 [B, L]. mask: bool [B, L], False for padding; by default what they begin with of the padding token.
        """
        if self.computer.idle:
            return tuple(() for _ in sequences)
        if mask is None:
            padding = self.config.pad_token_id
            padding = self.generation_config.pad_token_id if padding is None else padding
            mask = (sequences != padding).cumsum(1) > 0 if padding is not None else torch.ones_like(sequences).bool()
        layer = cache.layers[-1] if isinstance(cache, Cache) and cache.layers else None
        rows = layer.rows if isinstance(layer, CallLayer) else []
        found = []
        for number, real in enumerate(mask):
            tokens = sequences[number][real]
            text = tokens.tolist()
            row = rows[number] if len(rows) == len(sequences) else Row()
            # The cache has not read the last token, but has read what pads a sequence that ended early.
            if text and len(row.tokens) >= len(text) - 1 and row.tokens[: len(text)] == text[: len(row.tokens)]:
                found.append(tuple(call for call in row.calls if call.start <= len(text)))
            else:
                found.append(self.model(tokens[None], use_cache=False).calls[0] if text else ())
        return tuple(found)


@dataclass
class Request:
    """What a run of ``generate`` was asked for.

    Attributes:
        width: columns of the prompts. mask: [prompts or more, width], 0 for padding; None if there is none.
        endings: tokens that end a sequence. padding: the token that is written behind it.
    """

    width: int
    mask: Tensor | None = None
    endings: set[int | None] = field(default_factory=set)
    padding: int | None = None

    def text(self, sequences: Tensor) -> Tensor:
        """Which tokens of sequences [B, L] are text, and not padding before a prompt or behind an ending: bool [B, L]."""
        text = torch.ones_like(sequences, dtype=torch.bool)
        if self.mask is not None and self.mask.shape[1] >= self.width:
            # With beams there are more rows than sequences, those of a prompt side by side.
            rows = torch.arange(len(sequences), device=self.mask.device) * len(self.mask) // len(sequences)
            text[:, : self.width] = self.mask[rows, : self.width].to(text.device).bool()
        for row, written in enumerate(sequences[:, self.width :].tolist()):
            length = next((n for n, token in enumerate(written, 1) if token in self.endings), len(written))
            while length and written[length - 1] == self.padding and self.padding not in self.endings:
                length -= 1
            text[row, self.width + length :] = False
        return text


_request: ContextVar[Request | None] = ContextVar("what generate was asked for", default=None)
"""The run of ``generate`` under way in this thread."""


def end_of_turn(tokenizer: Any, eos: int | list[int] | None) -> int | None:
    """The token that ends a turn: the chat format's own where the vocabulary has one, else the end of sequence."""
    vocabulary = tokenizer.get_vocab()
    for token in ("<|eot_id|>", "<|im_end|>"):
        if token in vocabulary:
            return int(vocabulary[token])
    return eos[0] if isinstance(eos, list) else eos


__all__ = ["NeuralLibForCausalLM", "NeuralLibModel"]
