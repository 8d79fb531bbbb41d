"""Evaluation of a model on tasks: every reply kept as it comes, the metrics over them, tables and a plot.

Replies are appended to ``examples.jsonl``, one line an example, keyed by task, number, conversation and what decodes it. A run
that was interrupted answers what is missing; batches are put together as if nothing had been answered yet, so that the replies
do not depend on where it stopped.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import os
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any, cast

import torch
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from ..modeling_neurallib.modeling_neurallib import NeuralLibForCausalLM
from .adapters import is_adapted
from .checkpoints import write_whole
from .figures import EvaluationError
from .metrics import scoring
from .own_data import is_text, labelled_calls
from .prompts import prompt_tokens

ENDINGS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".arrow")
"""How the name of a file of rows ends. All but the last two may be compressed (``.jsonl.gz``)."""

PROMPTS = ("prompt", "request", "question")
ANSWERS = ("answer", "completion")

MARGIN = 32
"""Tokens that a reply may have beyond those of its answers, if that is more than asked for."""

STEPS = ("exact", "calling", "selecting", "reading", "executing", "writing")
"""Where a reply to a computation goes wrong first: no call, another program, other arguments, another result, other words."""


@dataclass(frozen=True)
class Example:
    """One conversation and what the reply must be.

    Attributes:
        messages: ``role`` and ``content``, up to the user's last message.
        answers: what the reply must state, in order; () where there is nothing to check.
        calls: the calls wanted: ``program``, ``arguments``, perhaps ``answer``; None if they are not known.
        program: of the first call, "" if there is none. length, measure: see :class:`TaskBuilder`; 0 and "" if not known.
    """

    messages: tuple[Mapping[str, str], ...]
    answers: tuple[str, ...]
    calls: tuple[Mapping[str, Any], ...] | None = None
    program: str = ""
    length: int = 0
    measure: str = ""

    @property
    def digest(self) -> str:
        """Names the conversation."""
        return hashlib.sha256(json.dumps([dict(m) for m in self.messages]).encode()).hexdigest()[:16]

    @property
    def quiet(self) -> bool:
        """Whether nothing is to be computed: no call is wanted, or no calls are known and there is nothing to check."""
        return not self.answers if self.calls is None else not self.calls


@dataclass(frozen=True)
class Task:
    """Examples under a name; ``group``: the configuration or file that they come from."""

    name: str
    group: str
    examples: tuple[Example, ...]

    @property
    def fingerprint(self) -> str:
        """Two tasks with the same fingerprint ask and expect the same."""
        told = [[e.digest, e.answers, None if e.calls is None else [dict(c) for c in e.calls]] for e in self.examples]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]


# Tasks


def load(spec: str, count: int | None = None, seed: int = 0) -> list[Task]:
    """The tasks that a word of the command line stands for.

    Args:
        spec: a configuration of :class:`TaskBuilder` ("numbers": the splits meant for evaluation), one split of it
            ("numbers:digits_40"), or a file of rows, see ``ENDINGS``.
        count: the most examples of each task; of a file all by default, of a configuration 200.
        seed: of the configuration's values.

    Raises:
        EvaluationError: no such file or configuration, a file that cannot be read, a row that is none.
        TaskError: no such split.
    """
    if _ending(Path(spec)) in ENDINGS or Path(spec).exists():
        return [_file(Path(spec), count)]
    from .task_builder import TaskBuilder, load_tasks
    from .wording import TaskError

    name, _, split = spec.partition(":")
    config = next((one for one in TaskBuilder.BUILDER_CONFIGS if one.name == name), None)
    if config is None:
        names = ", ".join(one.name for one in TaskBuilder.BUILDER_CONFIGS)
        raise EvaluationError(
            f"{spec!r} is no task and no file; tasks are {names}; files end with {', '.join(ENDINGS)}"
        )
    if split and split not in config.splits:
        raise TaskError(f"the task {name} has no split {split!r}; it has {', '.join(config.splits)}")
    with _without_bars():
        found = load_tasks(name, seed=seed, examples=200 if count is None else count)
    return [
        Task(f"{name}:{part}", name, tuple(_example(row, f"{name}:{part}", at) for at, row in enumerate(found[part])))
        for part in ([split] if split else config.evaluated)
    ]


@contextmanager
def _without_bars() -> Iterator[None]:
    """Within, ``datasets`` shows no progress bars."""
    import datasets

    shown = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()


def _ending(path: Path) -> str:
    """How the name of a file ends, compressed or not."""
    return (path.with_suffix("") if path.suffix == ".gz" else path).suffix


def _file(path: Path, count: int | None) -> Task:
    if not path.is_file():
        raise EvaluationError(f"{path} is no file")
    if _ending(path) not in ENDINGS:
        raise EvaluationError(f"{path} cannot be read as a task: a file's name ends with {', '.join(ENDINGS)}")
    try:
        taken = list(islice(_rows(path), count))
    except Exception as error:  # whatever pandas, pyarrow and json raise
        raise EvaluationError(f"{path} cannot be read: {' '.join(str(error.__cause__ or error).split())}") from error
    if not taken:
        raise EvaluationError(f"{path} has no rows")
    return Task(path.name, path.name, tuple(_example(row, str(path), at) for at, row in enumerate(taken)))


def _rows(path: Path) -> Iterator[Any]:
    """The rows of a file as they stand in it: a text that looks like a number or a date stays that text."""
    ending = _ending(path)
    # datasets would make one type of a column of JSON: a date of "2024-03-01", a number of the text "1" beside a 1.
    if ending in (".jsonl", ".ndjson", ".json"):
        with _opened(path) as file:
            yield from _json_rows(file, ending == ".json")
        return
    import datasets

    # Streamed, without a copy in the cache: a file that has changed since is read anew.
    options: dict[str, Any] = {}
    if ending in (".csv", ".tsv"):
        separator = {".csv": ",", ".tsv": "\t"}[ending]
        with _opened(path) as file:
            columns = next(csv.reader(file, delimiter=separator), [])
        # All as text: an answer "007" is no number, and "none" is not missing.
        features = datasets.Features({name: datasets.Value("string") for name in columns})
        options = {"features": features, "keep_default_na": False, "sep": separator}
    reader = {".tsv": "csv"}.get(ending, ending[1:])
    yield from datasets.load_dataset(reader, data_files=str(path), split="train", streaming=True, **options)


def _opened(path: Path) -> IO[str]:
    if path.suffix == ".gz":
        return cast("IO[str]", gzip.open(path, "rt", encoding="utf-8", newline=""))
    return path.open(encoding="utf-8", newline="")


def _json_rows(file: IO[str], whole: bool) -> Iterator[Any]:
    """The objects of a file, one a line, or (``whole``) in a list."""
    if whole and file.read(100).lstrip().startswith("["):
        file.seek(0)
        yield from json.load(file)
        return
    file.seek(0)
    for number, line in enumerate(file, 1):
        if line.strip():
            try:
                yield json.loads(line)
            except ValueError as error:
                raise ValueError(f"line {number} is no JSON: {error}") from None


def _example(row: Mapping[str, Any], source: str, at: int) -> Example:
    """A row of any data set with ``messages``, or a prompt and an answer; ``calls`` or ``program`` and ``arguments`` if it has.

    Raises:
        EvaluationError: columns missing, or values of another type.
    """
    where = f"{source}, row {at}"
    if not isinstance(row, Mapping):
        raise EvaluationError(f"{where}: it is a {type(row).__name__}, expected columns")
    prompt = next((row[name] for name in PROMPTS if row.get(name)), None)
    messages = row.get("messages") or ([{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt)
    if not messages:
        expected = f"messages, or one of {', '.join(PROMPTS)}"
        raise EvaluationError(f"{where}: there is no prompt; expected a column {expected}; found {', '.join(row)}")
    if not isinstance(messages, list) or not all(
        isinstance(m, Mapping) and isinstance(m.get("role"), str) and isinstance(m.get("content"), str)
        for m in messages
    ):
        raise EvaluationError(
            f"{where}: messages must be a list with the texts role and content, found {messages!r:.80}"
        )
    turns = [{"role": m["role"], "content": m["content"]} for m in messages]
    answers: Any = row.get("answers")
    if answers in (None, ""):
        said = next((row[name] for name in ANSWERS if row.get(name) is not None), None)
        if isinstance(said, list) and said and isinstance(said[-1], Mapping):
            said = said[-1].get("content")
        if said is None and turns[-1]["role"] == "assistant":
            said = turns[-1]["content"]
        # JSON may hold a number where the answer is one.
        answers = [] if said is None or said == "" else [str(said)]
    if not isinstance(answers, list) or not all(isinstance(answer, str) and answer for answer in answers):
        raise EvaluationError(f"{where}: answers must be a list of texts that are not empty, found {answers!r:.80}")
    if not all(map(is_text, [*(turn["content"] for turn in turns), *answers])):
        raise EvaluationError(f"{where}: its text holds half of a surrogate pair, which is no character")
    if turns[-1]["role"] == "assistant":
        turns.pop()
    if not turns or turns[-1]["role"] != "user":
        raise EvaluationError(f"{where}: there is no user's message to reply to")
    calls = _wanted(row, where)
    program = str(row.get("program") or (calls[0]["program"] if calls else ""))
    length = row.get("length") or 0
    if isinstance(length, str) and length.isdigit():
        length = int(length)
    if not isinstance(length, int):
        raise EvaluationError(f"{where}: length must be an integer, found {length!r:.80}")
    return Example(tuple(turns), tuple(answers), calls, program, length, str(row.get("measure") or ""))


def _wanted(row: Mapping[str, Any], where: str) -> tuple[Mapping[str, Any], ...] | None:
    """The calls that a row is labelled with."""
    calls = row.get("calls")
    # Columns of text, as in a CSV file, are empty where there is nothing.
    if calls in (None, "") and row.get("program") and row.get("arguments") not in (None, ""):
        calls = [{"program": row["program"], "arguments": row["arguments"], "answer": None}]
    if calls in (None, ""):
        return None
    try:
        return tuple(
            {"program": program, "arguments": arguments} | ({"answer": answer} if answer else {})
            for program, arguments, answer in labelled_calls(calls)
        )
    except (TypeError, KeyError, ValueError):
        raise EvaluationError(
            f"{where}: a call must have the text program and the list of texts arguments: {calls!r:.80}"
        ) from None


# Replies


def caller_of(model: Any) -> NeuralLibForCausalLM | None:
    """The model that calls programs, itself or within an adapter of PEFT; None if there is none."""
    inner = model.get_base_model() if is_adapted(model) else model
    # Not isinstance: the code of a model that came with its own is another class.
    return inner if getattr(inner.config, "model_type", None) == "neurallib" else None


def identity(model: PreTrainedModel) -> str:
    """A hash of a model's configuration and of a sample of every tensor of it, the heads and the library whole."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        # An odd step, so that the sample does not stay in one column of a matrix.
        step = 1 if ".computer." in name else max(1, tensor.numel() // 256) | 1
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.flatten()[::step].float().cpu().numpy().tobytes())
    told = [model.config, *(getattr(model, "peft_config", {}).values())]
    for config in told:
        fields = {name: value for name, value in config.to_dict().items() if name not in OF_NO_ACCOUNT}
        digest.update(json.dumps(fields, sort_keys=True, default=_plain).encode())
    caller = caller_of(model)
    if caller is not None and caller.library is not None:
        digest.update(caller.library.fingerprint.encode())
    return digest.hexdigest()[:16]


OF_NO_ACCOUNT = (
    *("_name_or_path", "name_or_path", "base_model_name_or_path", "revision", "_commit_hash", "architectures"),
    *("auto_map", "transformers_version", "peft_version", "dtype", "torch_dtype", "inference_mode"),
)
"""Fields of a configuration on which no reply depends; the type of the numbers is that of the tensors."""


def _plain(value: Any) -> Any:
    return sorted(value, key=str) if isinstance(value, set | frozenset) else str(value)


@contextmanager
def without_calls(model: Any) -> Iterator[None]:
    """Within, no program may be called: the logits of a model with a computer are those of its backbone, to the last bit."""
    caller = caller_of(model)
    if caller is None:
        yield
        return
    config = caller.config
    before, config.disabled_programs = config.disabled_programs, list(caller.computer.programs)
    try:
        yield
    finally:
        config.disabled_programs = before


class Examples:
    """``examples.jsonl``: replies that were given, in the order in which they came.

    Args:
        path: the file; made if it is not there. A last line that was cut off while it was written is dropped.

    Raises:
        EvaluationError: a line that is none of ours.
    """

    def __init__(self, path: Path):
        self.path = path
        self.found: dict[str, dict[str, Any]] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = 0
        for number, line in enumerate(path.read_bytes().splitlines(keepends=True) if path.exists() else (), 1):
            if not line.endswith(b"\n"):
                break
            try:
                record = json.loads(line)
                self.found[record["key"]] = record
            except (ValueError, KeyError, TypeError) as error:
                raise EvaluationError(
                    f"{path}, line {number} is no reply of an evaluation; choose another --output, or remove the file"
                ) from error
            whole += len(line)
        self._file = path.open("ab")
        self._file.truncate(whole)

    def add(self, record: dict[str, Any]) -> None:
        """Append a reply; it is in the file when this returns."""
        # Escaped: what a program returned may hold code points that are no characters, such as lone surrogates.
        self._file.write(json.dumps(record).encode() + b"\n")
        self._file.flush()
        self.found[record["key"]] = record

    def close(self) -> None:
        self._file.close()


class Answerer:
    """Asks a model, greedily, in left-padded batches of similar length.

    Args:
        who: "model" or "base", for the records. calls: whether programs may be called.
        batch_size: conversations at once, ≥ 1. new_tokens: the longest reply in tokens, ≥ 1; longer where the answers are.
    """

    def __init__(self, who: str, model: PreTrainedModel, tokenizer: Any, calls: bool, batch_size: int, new_tokens: int):
        self.who, self.model, self.tokenizer, self.calls = who, model.eval(), tokenizer, calls
        self.batch_size, self.new_tokens = batch_size, new_tokens
        told = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
        ends = {getattr(model.config, "end_of_turn_token_id", None), tokenizer.eos_token_id}
        self.ends = sorted((ends | {*(told if isinstance(told, list) else [told])}) - {None})
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        self.pad = 0 if pad is None else pad
        settings = [identity(model), calls, batch_size, new_tokens, self.ends, tokenizer.chat_template]
        self.settings = hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:16]

    def answer(self, task: Task, kept: Examples) -> list[dict[str, Any]]:
        """The record of each example, those that are not kept yet asked for now."""
        keys = [
            f"{self.settings}:{task.fingerprint}:{number}:{example.digest}"
            for number, example in enumerate(task.examples)
        ]
        missing = sum(key not in kept.found for key in keys)
        if missing:
            prompts = [prompt_tokens(self.tokenizer, example.messages) for example in task.examples]
            order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i))
            with tqdm(
                total=len(keys), initial=len(keys) - missing, desc=f"{self.who}, {task.name}", disable=None
            ) as bar:
                for start in range(0, len(order), self.batch_size):
                    chosen = order[start : start + self.batch_size]
                    if all(keys[i] in kept.found for i in chosen):
                        continue
                    answers = [task.examples[i].answers for i in chosen]
                    for i, record in zip(chosen, self._batch([prompts[i] for i in chosen], answers), strict=True):
                        if keys[i] not in kept.found:
                            said = {"who": self.who, "task": task.name, "index": i}
                            kept.add({"key": keys[i], **said, **record})
                            bar.update()
        return [kept.found[key] for key in keys]

    @torch.no_grad()
    def _batch(self, prompts: Sequence[list[int]], answers: Sequence[Sequence[str]]) -> list[dict[str, Any]]:
        """What the model replies to each prompt: reply, tokens, calls, seconds; error where there is no room for a reply."""
        context = getattr(self.model.config, "max_position_embeddings", None) or max(map(len, prompts)) + 2**20
        fits = [at for at, prompt in enumerate(prompts) if len(prompt) < context]
        records: list[dict[str, Any]] = [
            {
                "reply": "",
                "tokens": [],
                "calls": [],
                "seconds": 0.0,
                "error": f"the prompt has {len(prompt)} tokens, the model's context holds {context}",
            }
            for prompt in prompts
        ]
        if not fits:
            return records
        width = max(len(prompts[at]) for at in fits)
        tokens = torch.tensor([[self.pad] * (width - len(prompts[at])) + prompts[at] for at in fits])
        mask = torch.tensor([[0] * (width - len(prompts[at])) + [1] * len(prompts[at]) for at in fits])
        longest = max(len(self.tokenizer.encode(" ".join(answers[at]), add_special_tokens=False)) for at in fits)
        began = time.perf_counter()
        with without_calls(self.model) if not self.calls else _as_it_is():
            output: Any = self.model.generate(  # type: ignore[operator]
                input_ids=tokens.to(self.model.device),
                attention_mask=mask.to(self.model.device),
                max_new_tokens=min(max(self.new_tokens, longest + MARGIN), context - width),
                do_sample=False,
                eos_token_id=self.ends or None,
                pad_token_id=self.pad,
                return_dict_in_generate=True,
            )
        seconds = (time.perf_counter() - began) / len(fits)
        called = output.get("calls") or [()] * len(fits)
        for at, written, made in zip(fits, output.sequences[:, width:].tolist(), called, strict=True):
            end = next((place for place, token in enumerate(written) if token in self.ends), len(written))
            reply = written[:end]
            # A call that the gate opened within the prompt, or in the padding behind the end, while longer replies of the batch
            # went on, was never written, and is none of the reply's.
            first = len(prompts[at])
            calls = [call.record() for call in made if first <= call.start <= first + end]
            text = self.tokenizer.decode(reply, skip_special_tokens=True)
            records[at] = {"reply": text, "tokens": written[: end + 1], "calls": calls, "seconds": seconds}
        return records


@contextmanager
def _as_it_is() -> Iterator[None]:
    yield


# Metrics


def verdict(example: Example, record: Mapping[str, Any]) -> str:
    """Where a reply went wrong first: one of ``STEPS``; "writing" too where it is not known which calls were wanted."""
    if scoring.is_exact(record["reply"], example.answers):
        return "exact"
    if not example.calls:
        return "writing"
    found = scoring.pairs(record["calls"], example.calls)
    if len(found) < len(example.calls):
        return "calling"
    if not all(scoring.same_program(*pair) for pair in found):
        return "selecting"
    if not all(scoring.same_arguments(*pair) for pair in found):
        return "reading"
    expected = [call.get("answer") for call in example.calls]
    if len(example.answers) == len(expected):
        expected = list(example.answers)
    results = [made["result"] for made, _ in found]
    if any(result is None or (want and result != want) for result, want in zip(results, expected, strict=True)):
        return "executing"
    return "writing"


def measured(examples: Sequence[Example], records: Sequence[Mapping[str, Any]], calls: bool = True) -> dict[str, Any]:
    """The metrics over replies: those which the labels of the examples allow.

    Args:
        calls: whether the model can call, so that it is said how it did.
    """
    both = list(zip(examples, records, strict=True))
    asked = [(example, record) for example, record in both if example.answers]
    report: dict[str, Any] = {"examples": len(both), "seconds": sum(record["seconds"] for record in records)}
    errors = [record["error"] for record in records if record.get("error")]
    if errors:
        report["without_reply"] = {"count": len(errors), "first": errors[0]}
    if asked:
        verdicts = [verdict(*pair) for pair in asked]
        report["exact_match"] = scoring.share(one == "exact" for one in verdicts)
        report["stated"] = scoring.share(scoring.is_stated(record["reply"], e.answers) for e, record in asked)
        programs: dict[str, list[bool]] = defaultdict(list)
        for (example, _), one in zip(asked, verdicts, strict=True):
            programs[example.program].append(one == "exact")
        if set(programs) != {""}:
            report["programs"] = {name: scoring.share(hits) for name, hits in sorted(programs.items())}
        if calls:
            counts = Counter(verdicts)
            report["errors"] = {step: counts[step] for step in STEPS[1:] if counts[step]}
    labelled = [(example.calls, record["calls"]) for example, record in both if example.calls is not None]
    if calls and labelled:
        wanted, made = [w for w, _ in labelled], [m for _, m in labelled]
        report["calls"] = scoring.call_precision_recall(made, wanted)
        report["selection_accuracy"] = scoring.share(scoring.selections(made, wanted))
        report["reading_accuracy"] = scoring.share(scoring.readings(made, wanted))
    return report


def curves(examples: Sequence[Example], records: Sequence[Mapping[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Exact match by length, for each measure of length that takes values in more than one bucket."""
    by_measure: dict[str, list[tuple[bool, int]]] = defaultdict(list)
    for example, record in zip(examples, records, strict=True):
        if example.answers and example.length > 0:
            hit = scoring.is_exact(record["reply"], example.answers)
            by_measure[example.measure or "length"].append((hit, example.length))
    found = {
        m: scoring.length_curve([h for h, _ in points], [n for _, n in points]) for m, points in by_measure.items()
    }
    return {measure: curve for measure, curve in found.items() if len(curve) > 1}


def evaluate(
    model: PreTrainedModel,
    tokenizer: Any,
    tasks: Sequence[Task],
    output: Path,
    base: tuple[PreTrainedModel, Any] | None = None,
    batch_size: int = 8,
    new_tokens: int = 64,
    names: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Evaluate a model on tasks; what was answered before under ``output`` is not asked again.

    Args:
        base: the base model and its tokenizer, to compare with. A base that is ``model`` itself answers without calls, as its
            backbone does.
        output: folder for ``examples.jsonl`` and ``report.json``.
        batch_size, new_tokens: see :class:`Answerer`. names: of ``model`` and ``base``, for the report.

    Returns:
        the report: ``model`` and, if asked for, ``base``, ``tasks`` (of each what :func:`measured` says, and ``base``,
        ``retention``), ``length_generalisation`` (group → measure → curve), ``settings``.

    Raises:
        EvaluationError: no task, two tasks of one name, a setting out of range, or ``examples.jsonl`` is something else.
    """
    if batch_size < 1 or new_tokens < 1:
        raise EvaluationError(f"expected batch_size and new_tokens ≥ 1, found {batch_size} and {new_tokens}")
    _check(tasks)
    can_call = caller_of(model) is not None
    base_calls = base is not None and base[0] is not model and caller_of(base[0]) is not None
    asked = Answerer("model", model, tokenizer, can_call, batch_size, new_tokens)
    reference = None if base is None else Answerer("base", *base, base_calls, batch_size, new_tokens)
    kept = Examples(output / "examples.jsonl")
    report: dict[str, Any] = {"format": 1, **(names or {}), "tasks": {}, "length_generalisation": {}}
    groups: dict[str, list[tuple[Example, dict[str, Any]]]] = defaultdict(list)
    try:
        for task in tasks:
            records = asked.answer(task, kept)
            groups[task.group] += zip(task.examples, records, strict=True)
            found = {"fingerprint": task.fingerprint, **measured(task.examples, records, can_call)}
            if reference is not None:
                alone = reference.answer(task, kept)
                found["base"] = measured(task.examples, alone, base_calls)
                quiet = [n for n, example in enumerate(task.examples) if example.quiet]
                if quiet:
                    tokens, before = ([given[n]["tokens"] for n in quiet] for given in (records, alone))
                    found["retention"] = scoring.retention(tokens, before)
            report["tasks"][task.name] = found
    finally:
        kept.close()
    for group, pairs in groups.items():
        drawn = curves([example for example, _ in pairs], [record for _, record in pairs])
        if drawn:
            report["length_generalisation"][group] = drawn
    report["settings"] = {
        "batch_size": batch_size,
        "max_new_tokens": new_tokens,
        "identity": identity(model),
        "decoding": "greedy",
    }
    write_whole(output / "report.json", json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    return report


def _check(tasks: Sequence[Task]) -> None:
    """Refuses no task, and two of one name."""
    if not tasks:
        raise EvaluationError("there is no task to evaluate on")
    for name, count in Counter(task.name for task in tasks).items():
        if count > 1:
            asks = {task.fingerprint for task in tasks if task.name == name}
            why = "is given twice" if len(asks) == 1 else "stands for different examples: rename one of the files"
            raise EvaluationError(f"the task {name} {why}")


# Comparison and what people see

HEADLINES = {
    "exact match": ("exact_match",),
    "stated": ("stated",),
    "selection": ("selection_accuracy",),
    "reading": ("reading_accuracy",),
}
"""Column → where in a task's report a share stands."""


def load_report(path: Path) -> dict[str, Any]:
    """The report of another run: its ``report.json``, or the folder that holds it.

    Raises:
        EvaluationError: there is none, or the file is something else.
    """
    file = path / "report.json" if path.is_dir() else path
    try:
        report = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise EvaluationError(f"{file}: {error.strerror}") from error
    except ValueError as error:
        raise EvaluationError(f"{file} is no report of an evaluation: {error}") from error
    if not isinstance(report, dict) or report.get("format") != 1 or not isinstance(report.get("tasks"), dict):
        raise EvaluationError(f"{file} is no report of an evaluation of this version: it needs format 1 and tasks")
    return report


def compared(report: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """What has changed since another run, for each task of both.

    Returns:
        task → metric → ``difference``, ``low``, ``high`` (interval of 95 % of independent samples), all of shares; and
        ``same_examples``: whether both runs were asked the same.
    """
    found: dict[str, Any] = {}
    for name, task in report["tasks"].items():
        before = other["tasks"].get(name)
        if before is None:
            continue
        changes: dict[str, Any] = {"same_examples": task["fingerprint"] == before.get("fingerprint")}
        for (key,) in HEADLINES.values():
            change = scoring.difference(task[key], before[key]) if key in task and key in before else None
            if change is not None:
                changes[key] = dict(zip(("difference", "low", "high"), change, strict=True))
        found[name] = changes
    return found


def plot(report: Mapping[str, Any], path: Path) -> None:
    """Draw exact match of each task, beside the base's, and the length-generalisation curves, with 95 % intervals.

    Args:
        path: the picture; its ending chooses the format. One of an earlier report is removed, if nothing is drawn too.

    Raises:
        ImportError: matplotlib is not installed.
    """
    path.unlink(missing_ok=True)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lines = [
        (f"{group} ({measure})", curve)
        for group, measures in report["length_generalisation"].items()
        for measure, curve in measures.items()
    ]
    tasks = {name: task for name, task in report["tasks"].items() if "exact_match" in task}
    panels = [panel for panel, wanted in (("tasks", tasks), ("lengths", lines)) if wanted]
    if not panels:
        return
    figure = Figure(figsize=(6 * len(panels), 4), layout="constrained")
    FigureCanvasAgg(figure)
    for number, panel in enumerate(panels, 1):
        axes = figure.add_subplot(1, len(panels), number)
        axes.set_ylim(0, 1.02)
        axes.set_ylabel("exact match")
        if panel == "tasks":
            _draw_tasks(axes, tasks)
        else:
            _draw_lengths(axes, lines)
        axes.legend()
    scratch = path.with_name(f".{os.getpid()}.{path.name}")
    figure.savefig(scratch, dpi=150)
    os.replace(scratch, path)


def _draw_tasks(axes: Any, tasks: Mapping[str, Any]) -> None:
    """A bar for each task, beside it the base's where all have one."""
    series = [("model", [task["exact_match"] for task in tasks.values()])]
    if all("exact_match" in task.get("base", ()) for task in tasks.values()):
        series.append(("base", [task["base"]["exact_match"] for task in tasks.values()]))
    for place, (label, shares) in enumerate(series):
        at = [column + (place - (len(series) - 1) / 2) * 0.4 for column in range(len(tasks))]
        axes.bar(at, [s["share"] for s in shares], 0.38, yerr=_bars(shares), capsize=3, label=label)
    axes.set_xticks(range(len(tasks)), list(tasks), rotation=30, ha="right")


def _draw_lengths(axes: Any, lines: Sequence[tuple[str, Any]]) -> None:
    """A line for each label and its curve."""
    for label, curve in lines:
        at = [point["most"] for point in curve]
        axes.errorbar(at, [p["share"] for p in curve], yerr=_bars(curve), marker="o", capsize=3, label=label)
    ends = sorted({point["most"] for _, curve in lines for point in curve})
    axes.set_xscale("log", base=2)
    axes.set_xticks(ends, [f"{end:,}" for end in ends])
    axes.set_xlabel("length, up to")


def _bars(shares: Iterable[Mapping[str, Any]]) -> list[list[float]]:
    """Lengths of error bars below and above, ≥ 0: [2][number of shares]."""
    found = list(shares)
    # The ends of an interval are rounded: that of a share of 0 may begin above it.
    return [[max(0.0, s["share"] - s["low"]) for s in found], [max(0.0, s["high"] - s["share"]) for s in found]]
