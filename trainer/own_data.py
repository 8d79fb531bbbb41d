"""Your own conversations as lessons: rows with ``messages``, or ``prompt`` and ``completion``, with or without ``calls``.

A row's last message is the answer; all before it is the prompt. ``calls`` says which calls the answer rests on, in order:
``[{"program": "add", "arguments": ["12", "30"]}]``, and ``[]`` that there are none. Without it they are searched for.
"""

from __future__ import annotations

import difflib
import json
import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice, pairwise, product
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from torch.utils.data import IterableDataset, get_worker_info
from transformers.utils import logging

from ..modeling_neurallib.loaded_libraries import records
from ..modeling_neurallib.machine.state import MachineError, RunResult
from ..modeling_neurallib.modeling_neurallib import NeuralLibForCausalLM
from ..modeling_neurallib.objective import (
    Explanation,
    Found,
    Labelling,
    MarginalObjective,
    Piece,
    pieces_text,
    result_spans,
    search,
)
from ..modeling_neurallib.writer import LEADS, lead_at_the_end, result_tokens
from .arguments import share_of_labels
from .dialogues import Dialogue
from .features import Conversation
from .lessons import Lesson, worked_off
from .prompts import prompt_tokens

logger = logging.get_logger(__name__)

SHOWN = 8
"""Bad rows that a message names."""

ROLES = ("system", "user", "assistant", "tool")


class TrainingDataError(ValueError):
    """Data that cannot be trained on."""


class RowError(ValueError):
    """A row that cannot be trained on; says why."""


@dataclass
class DataReport:
    """What was found in a data set.

    Attributes:
        rows: read. bad: (index, reason) of those that cannot be trained on. unexplained: indices of rows whose answer no program
            can produce. ambiguous: of rows with a result that has too many explanations to say anything.
    """

    rows: int = 0
    bad: list[tuple[int, str]] = field(default_factory=list)
    unexplained: list[int] = field(default_factory=list)
    ambiguous: list[int] = field(default_factory=list)

    def bad_rows(self) -> str:
        """How many rows are bad, and the first of them with the reason."""
        named = "; ".join(f"row {index}: {reason}" for index, reason in self.bad[:SHOWN])
        more = f"; and {len(self.bad) - SHOWN} more" if len(self.bad) > SHOWN else ""
        return f"{len(self.bad)} of {self.rows} rows cannot be trained on: {named}{more}"

    def unexplained_rows(self, libraries: Sequence[str]) -> str:
        """How many answers no program can produce, and the first of them."""
        named = ", ".join(map(str, self.unexplained[:SHOWN])) + (", …" if len(self.unexplained) > SHOWN else "")
        of = ("library " if len(libraries) == 1 else "libraries ") + ", ".join(map(repr, libraries))
        return (
            f"{len(self.unexplained)} of {self.rows} answers can be produced by no program of the {of} (rows {named})"
        )


# Where rows come from


@dataclass(frozen=True)
class FileRows(Iterable[Any]):
    """The rows of JSONL and Parquet files, read anew, row by row, each time they are iterated over."""

    paths: tuple[Path, ...]

    def __iter__(self) -> Iterator[Any]:
        for path in self.paths:
            yield from _parquet_rows(path) if path.suffix == ".parquet" else _json_rows(path)


def _json_rows(path: Path) -> Iterator[Any]:
    with path.open("rb") as lines:
        for line in lines:
            if line.strip():
                try:
                    yield json.loads(line)
                except ValueError as error:
                    yield RowError(f"the line is not JSON in UTF-8: {error}")


def _parquet_rows(path: Path) -> Iterator[Any]:
    from pyarrow import ArrowInvalid
    from pyarrow.parquet import ParquetFile

    try:
        for batch in ParquetFile(path).iter_batches(batch_size=256):
            yield from batch.to_pylist()
    except ArrowInvalid as error:
        raise TrainingDataError(f"{path} is not a Parquet file: {error}") from error


def load_rows(source: str | Path, split: str = "train", streaming: bool = False) -> Any:
    """Rows from JSONL or Parquet files, a folder of them, or a data set of the Hub.

    Args:
        source: a file, a folder, or a name for ``datasets.load_dataset``. split: of a data set of the Hub.
        streaming: read while training, not before.
    Raises:
        TrainingDataError: there is no such file, or the folder holds none of that kind.
    """
    path = Path(source)
    kinds = (".jsonl", ".ndjson", ".parquet")
    if path.is_dir():
        paths = tuple(sorted(file for file in path.iterdir() if file.suffix in kinds))
        if not paths:
            raise TrainingDataError(f"the folder {path} holds no file with the ending {', '.join(kinds)}")
    elif path.suffix in kinds:
        if not path.is_file():
            raise TrainingDataError(f"the training data {path} is not there")
        paths = (path,)
    else:
        from datasets import load_dataset

        try:
            return load_dataset(str(source), split=split, streaming=streaming)
        except (OSError, ValueError) as error:
            raise TrainingDataError(
                f"{source} is neither a file with the ending {', '.join(kinds)} nor a data set that can be loaded: {error}"
            ) from error
    rows = FileRows(paths)
    return rows if streaming else list(rows)


# What is in a row


def turns_of(row: Any) -> tuple[list[dict[str, str]], str]:
    """The messages of the prompt and the answer of a row.

    Raises:
        RowError: it has none, or they are of another form.
    """
    if isinstance(row, RowError):
        raise row
    if not isinstance(row, Mapping):
        raise RowError(f"it is a {type(row).__name__}, expected columns")
    if row.get("messages") is not None:
        messages = _messages("messages", row["messages"])
    elif row.get("prompt") is not None:
        if row.get("completion") is None:
            raise RowError("it has a prompt and no answer: its completion is missing")
        messages = _messages("prompt", row["prompt"]) + _messages("completion", row["completion"], "assistant")
    else:
        raise RowError(
            f"it has neither messages nor prompt and completion, but {', '.join(map(str, row)) or 'nothing'}"
        )
    if not messages or messages[-1]["role"] != "assistant":
        last = f"its last message is the {messages[-1]['role']}'s" if messages else "it has no messages"
        raise RowError(f"it has no answer: {last}")
    if not messages[-1]["content"].strip():
        raise RowError("its answer is empty")
    if len(messages) == 1:
        raise RowError("it has an answer and no prompt")
    return messages[:-1], messages[-1]["content"]


def _messages(column: str, value: Any, role: str = "user") -> list[dict[str, str]]:
    if isinstance(value, str):
        if column == "messages":
            raise RowError("messages is a text, expected a list of messages with role and content")
        value = [{"role": role, "content": value}]
    if not isinstance(value, Sequence):
        raise RowError(f"{column} is a {type(value).__name__}, expected a list of messages with role and content")
    found = []
    for number, message in enumerate(value):
        if not isinstance(message, Mapping) or not isinstance(message.get("content"), str):
            raise RowError(f"message {number} of {column} has no text")
        if message.get("role") not in ROLES:
            raise RowError(
                f"message {number} of {column} has the role {message.get('role')!r}, expected {', '.join(ROLES)}"
            )
        if not is_text(message["content"]):
            raise RowError(f"message {number} of {column} holds half of a surrogate pair, which is no character")
        found.append({"role": message["role"], "content": message["content"]})
    return found


def is_text(text: str) -> bool:
    """Whether a text is one that a tokenizer takes: without halves of surrogate pairs, which JSON can write and UTF-8 cannot."""
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def occurrences(text: str, argument: str, start: int) -> list[tuple[Piece, ...]]:
    """Where an argument stands in a text: whole, between word edges; else its numbers or words one after the other.

    Args:
        start: the first character that is searched.
    """

    def at_edges(first: int, last: int) -> bool:
        inside = first > 0 and text[first - 1].isalnum() and text[first].isalnum()
        return not inside and not (last < len(text) and text[last - 1].isalnum() and text[last].isalnum())

    def found(part: str, begin: int) -> Iterator[Piece]:
        at = text.find(part, begin)
        while at >= 0:
            if at_edges(at, at + len(part)):
                yield at, at + len(part)
            at = text.find(part, at + 1)

    if not argument.strip():
        return []
    whole: list[tuple[Piece, ...]] = [(piece,) for piece in found(argument.strip(), start)]
    parts = [part for part in re.split(r"[,\s]+", argument.strip()) if part]
    if whole or len(parts) < 2:
        return whole
    pieces: list[Piece] = []
    for part in parts:
        piece = next(found(part, pieces[-1][1] if pieces else start), None)
        if piece is None:
            return []
        pieces.append(piece)
    return [tuple(pieces)]


@dataclass(frozen=True)
class _Result:
    """A result in an answer: its characters, and the calls that have it, their pieces those of the prompt."""

    start: int
    end: int
    calls: list[Found]


class RowReader:
    """Rows → lessons: the chat format, the answer cut into tokens with its results as the writer cuts them, its calls.

    Args:
        model: for its library and its characters. tokenizer: with a chat template; without one, texts stand as they are.
        supervision, budget, most_explanations, max_length: see :class:`NeuralLibTrainingArguments`.
        seed: chooses the rows whose labels count, where supervision is a share; by what they say, wherever they stand.
    """

    def __init__(
        self,
        model: NeuralLibForCausalLM,
        tokenizer: Any,
        supervision: str | float = "answers",
        budget: int = 4_000,
        most_explanations: int = 64,
        max_length: int | None = None,
        seed: int = 0,
    ):
        library = model.computer.library
        if library is None:
            raise TrainingDataError("the model has no library, so nothing can be called: model.load_library(…) first")
        self.tokenizer, self.table, self.library = tokenizer, model.computer.table, library
        self.libraries = [record.name for record in records(model.config)]
        self.objective = MarginalObjective(model.computer, budget)
        self.programs, self.machine = self.objective.programs(), model.computer.machine
        self.share, self.most, self.max_length, self.seed = (
            share_of_labels(supervision),
            most_explanations,
            max_length,
            seed,
        )
        self.end = model.config.end_of_turn_token_id

    def lesson(self, row: Any, index: int = 0) -> tuple[Lesson, str]:
        """The lesson of a row, and what is to be said of it: "", "unexplained" or "ambiguous". A lesson is its own.

        Raises:
            RowError: it cannot be trained on.
        """
        if isinstance(row, Lesson):
            return row, ""
        messages, answer = turns_of(row)
        prompt = self._prompt(messages)
        labels = self._labels(row, messages, answer)
        remark = ""
        if labels is None:
            results = self._searched(prompt, answer)
            usable = [result for result in results if len(result.calls) <= self.most]
            remark = "unexplained" if not results else "" if usable else "ambiguous"
        else:
            usable = self._labelled(prompt, messages, answer, labels)
        tokens, explanations = self._written(prompt, answer, usable)
        if self.max_length is not None and len(tokens) > self.max_length:
            raise RowError(f"it has {len(tokens)} tokens, more than max_length={self.max_length}")
        spoken = tuple(message["content"] for message in messages if message["role"] != "system")
        dialogue = Dialogue(spoken, (), f"row:{index}")
        conversation = Conversation(tuple(tokens), len(prompt))
        return Lesson(dialogue, conversation, tuple(explanations), alone=not labels), remark

    def _prompt(self, messages: list[dict[str, str]]) -> list[int]:
        try:
            return prompt_tokens(self.tokenizer, messages)
        except TemplateError as error:
            raise RowError(f"the chat template refuses it: {error}") from error

    def _labels(
        self, row: Mapping[str, Any], messages: list[dict[str, str]], answer: str
    ) -> list[tuple[str, list[str]]] | None:
        """(program, arguments) of each call, None where they are to be searched for."""
        said = json.dumps([*((message["role"], message["content"]) for message in messages), answer])
        if random.Random(f"labelled:{self.seed}:{said}").random() >= self.share:
            return None
        calls = row.get("calls")
        if calls is None:
            if self.share == 1.0:
                raise RowError("supervision is 'calls', but it has no calls ([] says that nothing is called)")
            return None
        try:
            return [(program, arguments) for program, arguments, _ in labelled_calls(calls)]
        except (TypeError, KeyError, ValueError) as error:
            raise RowError(f"its calls are not a list of program and arguments: {calls!r}") from error

    def _program(self, name: str) -> tuple[int, str, int]:
        """Raises RowError: there is no such program, or more than one."""
        found = [one for one in self.programs if name in (one[1], one[1].rsplit(".", 1)[-1])]
        if len(found) == 1:
            return found[0]
        known = [one[1] for one in self.programs]
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(known)}"
        hint = f"say which: {', '.join(one[1] for one in found)}" if found else hint
        raise RowError(f"its call names the program {name!r}, of which the model has {len(found)}; {hint}")

    def _labelled(
        self, prompt: list[int], messages: list[dict[str, str]], answer: str, labels: list[tuple[str, list[str]]]
    ) -> list[_Result]:
        text = self.table.characters(prompt).text()
        begin = max(text.rfind(messages[-1]["content"].strip()), 0)
        results: list[_Result] = []
        at = 0
        for name, arguments in labels:
            index, program, arity = self._program(name)
            if len(arguments) != arity:
                raise RowError(f"its call of {name} has {len(arguments)} arguments, the program takes {arity}")
            places = []
            for argument in arguments:
                found = occurrences(text, argument, begin) or occurrences(text, argument, 0)
                if not found:
                    raise RowError(f"the argument {argument!r} of its call of {name} does not stand in the prompt")
                places.append(found)
            call = f"its call {name}({', '.join(arguments)})"
            labellings = [one for one in islice(product(*places), self.most) if _apart(one)]
            if not labellings:
                raise RowError(f"{call} has arguments that stand in the prompt only one within the other")
            runs = self._run(call, program, [[pieces_text(text, pieces) for pieces in one] for one in labellings])
            wanted = [run.text for run in runs]
            first = next((result for result in wanted if result is not None), None)
            if first is None:
                raise RowError(f"{call} ends with the fault {runs[0].fault.name} after {runs[0].steps} steps")
            if not first:
                raise RowError(f"{call} gives an empty text, which no answer can be seen to hold: leave the call out")
            start = answer.find(first, at)
            if start < 0:
                raise RowError(f"{call} gives {first!r}, which its answer lacks")
            calls = [Found(index, one, 1) for one, result in zip(labellings, wanted, strict=True) if result == first]
            at = start + len(first)
            results.append(_Result(start, at, calls))
        return results

    def _run(self, call: str, program: str, arguments: Sequence[Sequence[str]]) -> list[RunResult]:
        """Runs as long as the machine's own limit, as the model's are."""
        try:
            return self.library.run_batch([(program, texts) for texts in arguments], machine=self.machine)
        except MachineError as error:
            raise RowError(f"{call} cannot be run: {error}") from error

    def _searched(self, prompt: list[int], answer: str) -> list[_Result]:
        """The results in an answer that some call explains: the whole answer, else parts of it that do not overlap."""
        characters = self.table.characters(prompt)
        known: dict[tuple[str, tuple[str, ...]], str | None] = {}
        for spans in ([(0, len(answer))], result_spans(answer)):
            found = []
            for start, end in spans:
                calls = self.objective.calls_for(answer[start:end], characters, len(characters.code_points), known)
                if calls:
                    found.append(_Result(start, end, calls))
            if found:
                chosen: list[_Result] = []
                for result in sorted(found, key=lambda one: one.start - one.end):
                    if all(result.end <= other.start or other.end <= result.start for other in chosen):
                        chosen.append(result)
                return sorted(chosen, key=lambda one: one.start)
        return []

    def _written(
        self, prompt: list[int], answer: str, results: Sequence[_Result]
    ) -> tuple[list[int], list[Explanation]]:
        """Tokens of the conversation, the end of the turn included, and the explanations of its results."""
        tokens, explanations = list(prompt), []
        at = 0
        for result in results:
            before = answer[at : result.start]
            lead = lead_at_the_end(before)
            tokens += self._plain(before.removesuffix(LEADS[lead]))
            written = result_tokens(self.table, lead, answer[result.start : result.end])
            for one in result.calls:
                explanations.append(
                    Explanation(len(tokens) - 1, one.program, one.pieces, lead, len(written), one.candidates)
                )
            tokens += written
            at = result.end
        tokens += self._plain(answer[at:])
        return (tokens if self.end is None else [*tokens, self.end]), explanations

    def _plain(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False)) if text else []


def labelled_calls(calls: Any) -> list[tuple[str, list[str], str]]:
    """(program, arguments, answer or "") of each call of a label: a list of records, or such a list as JSON text.

    Raises:
        TypeError, KeyError, ValueError: it is something else.
    """
    found = []
    for call in json.loads(calls) if isinstance(calls, str) else calls:
        program, arguments = call["program"], call["arguments"]
        if isinstance(arguments, str):
            arguments = json.loads(arguments)
        if not isinstance(program, str) or not isinstance(arguments, (list, tuple)):
            raise TypeError(call)
        answer = call.get("answer")
        found.append((program, [_argument(value) for value in arguments], "" if answer is None else str(answer)))
    return found


def _argument(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_argument, value))
    if value is None or isinstance(value, (dict, bool)):
        raise TypeError(value)
    return str(value)


def _apart(labelling: Labelling) -> bool:
    """No character has two roles."""
    pieces = sorted(piece for argument in labelling for piece in argument)
    return all(before[1] <= after[0] for before, after in pairwise(pieces))


# Data sets


def read_rows(
    rows: Sequence[Any],
    reader: RowReader,
    on_bad_row: str = "refuse",
    on_unexplained: str = "keep",
    title: str = "data",
) -> tuple[list[Lesson], DataReport]:
    """The lessons of a finite data set, and what was found in it.

    Raises:
        TrainingDataError: bad rows, or answers that no program can produce, where they are to be refused; or no row is left.
    """

    def work(numbers: Sequence[int]) -> list[tuple[Lesson | None, str]]:
        read: list[tuple[Lesson | None, str]] = []
        for number in numbers:
            try:
                read.append(reader.lesson(rows[number], number))
            except RowError as error:
                read.append((None, str(error)))
        return read

    report = DataReport(rows=len(rows))
    lessons = []
    # Compile the engine once before processes are forked, not once in every one of them.
    search(reader.library, reader.programs, "1 2", "3", 1, reader.machine)
    for index, (lesson, remark) in enumerate(
        worked_off(work, len(rows), f"{title}: explaining answers", len(rows) >= 200)
    ):
        if lesson is None:
            report.bad.append((index, remark))
            continue
        if remark:
            (report.unexplained if remark == "unexplained" else report.ambiguous).append(index)
        # A result that too many calls explain is no conversation without a call: it says nothing.
        if remark == "ambiguous" or (remark == "unexplained" and on_unexplained != "keep"):
            continue
        lessons.append(lesson)
    if report.bad and on_bad_row == "refuse":
        raise TrainingDataError(f"{report.bad_rows()}. Correct them, or leave them out with on_bad_row='skip'")
    if report.unexplained and on_unexplained == "refuse":
        raise TrainingDataError(
            f"{report.unexplained_rows(reader.libraries)}. Correct them, load the library that can, or choose "
            "on_unexplained='keep' (nothing is called there) or 'skip'"
        )
    _tell(report, reader.libraries, on_unexplained)
    if not lessons:
        raise TrainingDataError(f"no row is left to train on of {len(rows)}")
    return lessons, report


def _tell(report: DataReport, libraries: Sequence[str], on_unexplained: str) -> None:
    if report.bad:
        logger.warning(f"{report.bad_rows()}. They are left out.")
    if report.unexplained:
        fate = "trained on as conversation in which nothing is called" if on_unexplained == "keep" else "left out"
        logger.warning(f"{report.unexplained_rows(libraries)}: they are {fate}.")
    if report.ambiguous:
        logger.warning(
            f"{len(report.ambiguous)} of {report.rows} answers have too many explanations: they are left out."
        )


class StreamedLessons(IterableDataset):  # type: ignore[type-arg]
    """Rows read while training. The report grows with what has been read. Workers of a loader share the rows.

    Raises:
        TrainingDataError: while iterating, at a row that is to be refused; or when a whole pass leaves none.
    """

    def __init__(
        self, rows: Iterable[Any], reader: RowReader, on_bad_row: str = "refuse", on_unexplained: str = "keep"
    ):
        self.rows, self.reader = rows, reader
        self.on_bad_row, self.on_unexplained = on_bad_row, on_unexplained
        self.report = DataReport()

    def set_epoch(self, epoch: int) -> None:
        """Streams that shuffle do so anew in each epoch."""
        if hasattr(self.rows, "set_epoch"):
            self.rows.set_epoch(epoch)

    def __iter__(self) -> Iterator[Lesson]:
        report, used = self.report, 0
        report.rows = 0
        for found in (report.bad, report.unexplained, report.ambiguous):
            found.clear()
        worker = get_worker_info()
        for index, row in self._mine(worker):
            report.rows += 1
            try:
                lesson, remark = self.reader.lesson(row, index)
            except RowError as error:
                report.bad.append((index, str(error)))
                if self.on_bad_row == "refuse":
                    raise TrainingDataError(
                        f"row {index} cannot be trained on: {error}. Correct it, or leave such rows out with "
                        "on_bad_row='skip'"
                    ) from error
                continue
            if remark:
                (report.unexplained if remark == "unexplained" else report.ambiguous).append(index)
            if remark == "unexplained" and self.on_unexplained == "refuse":
                raise TrainingDataError(f"row {index}: its answer can be produced by no program of the library")
            if remark == "ambiguous" or (remark == "unexplained" and self.on_unexplained == "skip"):
                continue
            used += 1
            yield lesson
        _tell(report, self.reader.libraries, self.on_unexplained)
        if not used and (report.rows or worker is None):
            raise TrainingDataError(f"no row is left to train on of {report.rows}")

    def _mine(self, worker: Any) -> Iterator[tuple[int, Any]]:
        """The rows of this worker, each with its number. Iterable data sets of torch and ``datasets`` divide their own."""
        alone = worker is None or isinstance(self.rows, IterableDataset) or hasattr(self.rows, "num_shards")
        return islice(enumerate(self.rows), 0 if alone else worker.id, None, 1 if alone else worker.num_workers)


def is_tokenized(dataset: Any) -> bool:
    """Whether the rows of a data set are tokens already (``input_ids`` and ``labels``)."""
    columns: Any = getattr(dataset, "column_names", None)
    listed = hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")  # a stream may have but the first
    if columns is None and listed and len(dataset) and isinstance(dataset[0], Mapping):
        columns = list(dataset[0])
    return columns is not None and "input_ids" in columns
