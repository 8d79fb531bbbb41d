"""What happened in one answer, as plain data: which programs were considered, what was read, run and written.

The next token is a function of the prefix alone. So an answer is explained after it was given: the choices and the readings
are computed again from its text, and the machine runs the same arguments once more, step by step. Everything here is numbers,
strings, lists and dictionaries, ready for JSON. Texts of strangers (docstrings, results) stand in it as they are: whoever
shows them escapes them.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
import torch

from .call import Call, CallLayer, Place, Row
from .labelling import MOVES, role_probabilities
from .library import NeuralLibrary
from .library_records import Origin
from .loaded_libraries import records
from .machine.operations import Fault, signed
from .machine.state import TraceStep, initial_state, result_range

if TYPE_CHECKING:
    from ..configuration.machine_config import MachineConfig
    from .modeling_neurallib import NeuralLibForCausalLM

CHOICES = 5
"""The most programs that are named beside "no call"."""

FIRST_STEPS = 60
LAST_STEPS = 60
"""Steps that are kept of a long run, from its beginning and from its end."""

TRACED_STEPS = 50_000
"""The longest run that is followed to its end: step by step a machine is slow."""

SHOWN_WORDS = 256
"""The most words of arguments, and of the result, that are kept of the memory."""


LENDERS: list[Callable[[], NeuralLibrary]] = []
"""Libraries with functions and source lines, which a saved model does not keep: the package puts the standard library here."""


class ExplanationError(ValueError):
    """A prompt that cannot be answered, or not be explained."""


class Choice(TypedDict):
    """A program that was considered, and its probability, 0…1."""

    program: str
    library: str
    probability: float


class Argument(TypedDict):
    """A parameter of the program that was called, and the text that was copied for it."""

    name: str
    type: str
    text: str


class ReadText(TypedDict):
    """The text before a call, as its reader saw it.

    text: C characters; those of special tokens are none. breaks: positions where a special token stands before the character.
    roles: "none", then the names of the parameters. weights: [C][roles], the probability of each role, 0…1.
    labels: [C], the role that each character was given.
    """

    text: str
    breaks: list[int]
    roles: list[str]
    weights: list[list[float]]
    labels: list[int]


class Function(TypedDict):
    """A function of which instructions ran; ``line`` is that of the first line of ``source`` in ``file``."""

    name: str
    file: str
    line: int
    source: str


class Step(TypedDict):
    """One instruction that ran. Words are integers, two's complement.

    step: its number, from 1. function: index into the run's functions, −1 for none. line: source line in the file, 0 for none.
    register: [register, new word], of the register that it wrote. memory: [address, new word], likewise.
    read: address of the word that it loaded. fault: "" if it raised none.
    """

    step: int
    address: int
    function: int
    line: int
    instruction: str
    register: list[int] | None
    memory: list[int] | None
    read: int | None
    fault: str


class Run(TypedDict):
    """The run of the machine: its first steps and, after ``left_out`` others, its last.

    steps: how many ran. result: [address, length] of the result's text. registers: R words before the first step.
    cells: addresses of the words of memory that are kept: of the arguments, of the result, read or changed by the steps here.
    memory: their words before the first step. registers_before_last, memory_before_last: the same before ``last``; empty
    where that is empty. unshown: words of arguments and result that are not kept.
    """

    values: int
    steps: int
    functions: list[Function]
    first: list[Step]
    left_out: int
    last: list[Step]
    result: list[int] | None
    registers: list[int]
    registers_before_last: list[int]
    cells: list[int]
    memory: list[int]
    memory_before_last: list[int]
    unshown: int


class ExplainedCall(TypedDict):
    """One call of an answer.

    position: tokens before it, the prompt included. no_call: probability of calling nothing. choices: the most likely
    programs. others: how many more could have been called, and other_probability: of all of them together.
    result: None after a fault. tokens: the texts of the tokens that were written. run: None if none was started.
    """

    position: int
    program: str
    library: str
    docstring: str
    no_call: float
    choices: list[Choice]
    others: int
    other_probability: float
    arguments: list[Argument]
    reading: ReadText
    run: Run | None
    steps: int
    seconds: float
    result: str | None
    fault: str
    tokens: list[str]


class WrittenToken(TypedDict):
    """A token of the answer. special: it is no text, but a sign. call: index of the call whose result it writes, or None.

    call_probability: of calling any program before it, 0…1; None where a result was being written, so that nobody asked.
    """

    text: str
    special: bool
    call: int | None
    call_probability: float | None


class ExplainedAnswer(TypedDict):
    """One answer.

    prompt: messages with "role" and "content". model: name or folder. threshold: probability from which a program is called.
    """

    model: str
    prompt: list[dict[str, str]]
    answer: str
    threshold: float
    tokens: list[WrittenToken]
    calls: list[ExplainedCall]


@dataclass(frozen=True)
class Reply:
    """An answer as it was generated.

    Attributes:
        prompt: messages with "role" and "content". tokens: of prompt and answer. start: tokens of the prompt.
        text: the answer. calls: those made in the answer.
    """

    prompt: list[dict[str, str]]
    tokens: list[int]
    start: int
    text: str
    calls: tuple[Call, ...]


def reply(
    model: NeuralLibForCausalLM,
    tokenizer: Any,
    prompt: str | Sequence[dict[str, str]],
    max_new_tokens: int = 256,
) -> Reply:
    """The most likely answer to a prompt, or to the messages of a chat.

    Raises:
        ExplanationError: the prompt leaves no room in the model's context, or there is no chat format for the messages.
    """
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else [dict(each) for each in prompt]
    if tokenizer.chat_template:
        inputs = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
    elif isinstance(prompt, str):
        inputs = tokenizer(prompt, return_tensors="pt")
    else:
        raise ExplanationError("the tokenizer has no chat template for messages: pass the prompt as one text")
    start, context = inputs["input_ids"].shape[1], model.config.max_position_embeddings
    if start >= context:
        raise ExplanationError(
            f"the prompt has {start} tokens, the model's context holds {context}; shorten the prompt"
        )
    ends = {model.config.end_of_turn_token_id, tokenizer.eos_token_id} - {None}
    output = model.generate(
        input_ids=inputs["input_ids"].to(model.device),
        attention_mask=inputs["attention_mask"].to(model.device),
        max_new_tokens=min(max_new_tokens, context - start),
        do_sample=False,
        eos_token_id=sorted(ends) or None,
        pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id,
        return_dict_in_generate=True,
    )
    tokens = output.sequences[0].tolist()
    text = tokenizer.decode(tokens[start:], skip_special_tokens=True).strip()
    return Reply(messages, tokens, start, text, output.calls[0])


@torch.no_grad()
def explained(
    model: NeuralLibForCausalLM, tokenizer: Any, answer: Reply, libraries: Sequence[NeuralLibrary] = ()
) -> ExplainedAnswer:
    """What happened in an answer of :func:`reply`.

    Args:
        libraries: some that may have the functions and source lines of those in the model, besides :func:`lenders`.
    """
    computer = model.computer
    tokens = answer.tokens
    calls: list[ExplainedCall] = []
    choices: np.ndarray | None = None
    made: list[Call] = []
    texts = [
        computer.table.characters([token]).text() or str(tokenizer.convert_ids_to_tokens(token))
        for token in tokens[answer.start :]
    ]
    if not computer.idle:
        ids = torch.tensor([tokens], device=model.device)
        output = model.model(ids, use_cache=False, decide_calls=False, output_hidden_states=True)
        layer = CallLayer()
        features = model.model.features(output.hidden_states)
        # The heads are float32 whatever precision the backbone runs in.
        with torch.autocast(model.device.type, enabled=False):
            everything, again = torch.ones_like(ids, dtype=torch.bool), CallLayer()
            pooled, found, keys = computer.consider(layer, ids, everything, features)
            computer.advance(again, ids, everything, features)
            made = again.rows[0].calls  # those that the gate opened in the prompt, too
            places: dict[int, Place] = {}
            edges = {at for call in answer.calls for at in (call.start, call.start + len(call.tokens))}
            for start in sorted(at for at in edges if at <= len(tokens)):
                before = Row(tokens[:start], [call for call in made if call.start < start])
                here = places[start] = Place(0, start - 1, features[0, start - 1], before.covered())
                if here.covered:
                    pooled[0, start - 1], found[0, start - 1] = computer.consider_again(layer, here)
        choices = found[0].exp().cpu().numpy()
        sources = {name: with_sources(its, lenders(model, libraries)) for name, its in model.libraries.items()}
        homes = [(record.name, own) for record in records(model.config) for own in record.programs]
        for call in answer.calls:
            chosen = computer.programs.index(call.program)
            position = call.start - 1
            with torch.autocast(model.device.type, enabled=False):
                reading = computer.read(
                    layer, places[call.start], pooled[0, position], keys[chosen], tokens[: call.start], chosen
                )
            name, own = homes[chosen]
            calls.append(
                _explained_call(call, choices[position], reading, computer, sources[name], own, texts, answer.start)
            )
    written = []
    for place, text in enumerate(texts, answer.start):
        within = [n for n, call in enumerate(answer.calls) if call.start <= place < call.start + len(call.tokens)]
        # While a result is written, where the turn ends with it, and behind an end, nobody asks whether to call.
        before = Row(tokens[:place], [call for call in made if call.start < place])
        asked = computer.write(before)[0] is None and tokens[place - 1] not in computer.endings
        probability = None if choices is None or not asked else _rounded(1 - choices[place - 1][0])
        special = not computer.table.characters([tokens[place]]).text()
        call_number = within[0] if within else None
        written.append(WrittenToken(text=text, special=special, call=call_number, call_probability=probability))
    return ExplainedAnswer(
        model=str(model.config.name_or_path),
        prompt=answer.prompt,
        answer=answer.text,
        threshold=float(model.config.call_threshold),
        tokens=written,
        calls=calls,
    )


def _explained_call(
    call: Call,
    choices: np.ndarray,
    reading: Any,
    computer: Any,
    library: NeuralLibrary,
    own: str,
    texts: Sequence[str],
    start: int,
) -> ExplainedCall:
    program = library.program(own)
    allowed = computer.allowed().cpu().numpy()
    order = [int(each) for each in np.argsort(-choices[1:], kind="stable") if allowed[each]]
    named = order[:CHOICES]
    roles = ["none", *(parameter.name for parameter in program.parameters)]
    arity = len(program.parameters)
    potentials = np.concatenate([reading.potentials[:, :arity], reading.potentials[:, -len(MOVES) :]], axis=1)
    weights = role_probabilities(torch.from_numpy(potentials), arity).numpy()
    return ExplainedCall(
        position=call.start,
        program=call.program,
        library=call.library,
        docstring=program.docstring,
        no_call=_rounded(choices[0]),
        choices=[
            Choice(
                program=computer.programs[each],
                library=computer.library.library_of(computer.programs[each]),
                probability=_rounded(choices[1 + each]),
            )
            for each in named
        ],
        others=len(order) - len(named),
        other_probability=_rounded(sum(float(choices[1 + each]) for each in order[CHOICES:])),
        arguments=[
            Argument(name=parameter.name, type=parameter.type, text=text)
            for parameter, text in zip(program.parameters, call.arguments, strict=True)
        ],
        reading=ReadText(
            text=reading.characters.text(),
            breaks=[int(each) for each in np.flatnonzero(reading.characters.boundary)],
            roles=roles,
            weights=[[_rounded(weight) for weight in row] for row in weights],
            labels=[int(label) for label in reading.labelling],
        ),
        run=run_record(library, own, call.arguments, computer.machine, call.steps) if call.steps else None,
        steps=call.steps,
        seconds=call.seconds,
        result=call.result,
        fault=call.fault,
        tokens=list(texts[call.start - start : call.start - start + len(call.tokens)]),
    )


def run_record(library: NeuralLibrary, name: str, arguments: Sequence[str], config: MachineConfig, steps: int) -> Run:
    """The run of one program, step by step.

    Args:
        name: the program. arguments: a text for each parameter. config: the machine's shape. steps: how many are known to run.

    Raises:
        MachineError: the arguments do not fit the machine.
    """
    entry = library.program(name).entry
    state = initial_state(arguments, entry, config)
    used = state.registers[-2]
    start_registers, start_memory = list(state.registers), list(state.memory)
    starts = sorted(library.origins)
    functions: dict[int, int] = {}
    first: list[Step] = []
    last: deque[tuple[Step, TraceStep]] = deque()
    whole = steps <= TRACED_STEPS
    # The state before ``last``, and the registers after the present step.
    registers, memory, now = list(start_registers), list(start_memory), list(start_registers)
    step: TraceStep | None = None
    for number, step in enumerate(library.machine(config).trace(entry, arguments, steps if whole else FIRST_STEPS), 1):
        record = _step(library, number, step, now, starts, functions, config.values)
        _apply(step, now)
        if number <= FIRST_STEPS:
            first.append(record)
            _apply(step, registers, memory)
            continue
        last.append((record, step))
        if len(last) > LAST_STEPS:
            _apply(last.popleft()[1], registers, memory)
    ending = [record for record, _ in last]
    halted = step is not None and step.operation == "halt" and step.fault is Fault.none
    where = result_range(now[0], now[1], config) if whole and halted else None
    shown = set(range(1, min(used, 1 + SHOWN_WORDS)))
    unshown = used - 1 - len(shown)
    if where is not None:
        shown.update(range(where[0], min(where[1], where[0] + SHOWN_WORDS)))
        unshown += max(0, where[1] - where[0] - SHOWN_WORDS)
    for record in (*first, *ending):
        shown.update([record["memory"][0]] if record["memory"] else [])
        shown.update([record["read"]] if record["read"] is not None else [])
    cells = sorted(shown)

    def words(held: Sequence[int]) -> list[int]:
        return [signed(word, config.values) for word in held]

    return Run(
        values=config.values,
        steps=steps,
        functions=[_function(library.origins[starts[place]]) for place in functions],
        first=first,
        left_out=steps - len(first) - len(ending),
        last=ending,
        result=None if where is None else [where[0], where[1] - where[0]],
        registers=words(start_registers),
        registers_before_last=words(registers) if ending else [],
        cells=cells,
        memory=words([start_memory[cell] for cell in cells]),
        memory_before_last=words([memory[cell] for cell in cells]) if ending else [],
        unshown=unshown,
    )


def _step(
    library: NeuralLibrary,
    number: int,
    step: TraceStep,
    registers: Sequence[int],
    starts: Sequence[int],
    functions: dict[int, int],
    values: int,
) -> Step:
    """The record of a step that found these registers; ``functions``: place in ``starts`` → number, which grows."""
    place = bisect_right(starts, step.program_counter) - 1
    loads = step.operation == "load" and step.fault is Fault.none
    changed = [[where, signed(word, values)] for where, word in step.registers.items()]
    stored = [[where, signed(word, values)] for where, word in step.memory.items()]
    return Step(
        step=number,
        address=step.program_counter,
        function=functions.setdefault(place, len(functions)) if place >= 0 else -1,
        line=int(library.lines[step.program_counter]),
        instruction=library.instruction_text(step.program_counter),
        register=changed[0] if changed else None,
        memory=stored[0] if stored else None,
        read=registers[step.instruction[1]] + step.instruction[4] if loads else None,
        fault="" if step.fault is Fault.none else step.fault.name.replace("_", " "),
    )


def _apply(step: TraceStep, registers: list[int], memory: list[int] | None = None) -> None:
    for register, word in step.registers.items():
        registers[register] = word
    if memory is not None:
        for address, word in step.memory.items():
            memory[address] = word


def _function(origin: Origin) -> Function:
    return Function(name=origin.name, file=Path(origin.file).name, line=origin.line, source=origin.source)


def lenders(model: NeuralLibForCausalLM, libraries: Sequence[NeuralLibrary] = ()) -> Iterator[NeuralLibrary]:
    """Libraries that may have sources: these, those that the model loaded in this process or by reference, and :data:`LENDERS`."""
    yield from (*libraries, *model.loaded_here.values(), *model.computer.references.values())
    yield from (lend() for lend in LENDERS)


def with_sources(library: NeuralLibrary, known: Iterable[NeuralLibrary]) -> NeuralLibrary:
    """The same library with its functions and source lines, if one of these is it: the same instructions and programs."""
    for each in known:
        same = [(its.name, its.entry) for its in each.programs.values()] == [
            (its.name, its.entry) for its in library.programs.values()
        ]
        if same and each.registers == library.registers and np.array_equal(each.instructions, library.instructions):
            return each
    return library


def _rounded(probability: float) -> float:
    return round(float(probability), 4)
