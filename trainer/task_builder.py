"""The task generators as a builder of ``datasets``: named configurations, splits by phrasing, by length and by program.

    from neurallib import TaskBuilder, load_tasks
    load_tasks("requests", split="validation", seed=3, examples=500)
    TaskBuilder("numbers").as_streaming_dataset(split="digits_40")

``datasets`` runs no scripts any more, so the builder is imported, not named by a path; all else is the habitual interface.

**Example i of a split is a function of (configuration, seed, split, i)**, whichever process makes it: the examples are cut
into blocks, which are what ``num_proc`` workers and streaming readers share out. What was built is cached under a hash
of the phrasings, the generators and the programs, so that a change of any of them builds anew.
"""

from __future__ import annotations

import difflib
import hashlib
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

import datasets

from . import dialogues, drawing, material, rendering, tasks, wording, worked_examples
from .dialogues import Dialogue, DialogueGenerator, DialogueShares
from .tasks import BLOCK, RequestGenerator
from .wording import PARAMETERS, PHRASINGS, Split, TaskError

CARD_TEMPLATE = Path(__file__).parent / "templates" / "task_card.md"

TWO_NUMBERS = ("add", "subtract", "multiply", "divide", "remainder", "compare")
"""Asked with long numbers; the other arithmetic keeps to small results or runs."""

LISTS = tuple(program for program, parameters in PARAMETERS.items() if parameters == ("numbers",))

HELD_OUT = ("greatest_common_divisor", "maximum", "mean", "sort_descending", "power", "text_length")
"""Programs that the configuration "programs" keeps out of its train and validation splits."""


Kind = Literal["requests", "dialogues", "general"]


@dataclass(frozen=True)
class Shape:
    """What the requests of a split are like.

    Attributes:
        phrasings: whose wordings: "train", "validation", or "all".
        digits: least and most digits of a number. list_length: least and most numbers of a list.
        programs: those asked for.
    """

    phrasings: Split = "train"
    digits: tuple[int, int] = (1, 4)
    list_length: tuple[int, int] = (2, 8)
    programs: tuple[str, ...] = tuple(PARAMETERS)


_BY_PHRASING = {"train": Shape(), "validation": Shape("validation")}
_KNOWN = tuple(program for program in PARAMETERS if program not in HELD_OUT)


@dataclass
class TaskConfig(datasets.BuilderConfig):
    """A configuration of :class:`TaskBuilder`.

    Attributes:
        seed: of the streams; values, wordings and their order depend on it.
        examples: of every split, ≥ 1.
        kind: "requests" (one message), "dialogues" (see :class:`DialogueShares`), or "general" (nothing must be called).
        general_share: share of general conversation among requests, 0 to 1; of the kind "requests" alone.
        shares: of the kinds of dialogues, for the kind "dialogues" alone; None for the usual ones.
        splits: name → :class:`Shape`. evaluated: the splits that an evaluation takes if it is given none.
    """

    version: datasets.Version | str | None = "1.0.0"
    seed: int = 0
    examples: int = 1_000
    kind: Kind = "requests"
    general_share: float = 0.0
    shares: DialogueShares | None = None
    splits: Mapping[str, Shape] = field(default_factory=lambda: dict(_BY_PHRASING))
    evaluated: tuple[str, ...] = ("validation",)


_NUMBER_SPLITS = {
    "digits_1_4": Shape(programs=TWO_NUMBERS),
    "digits_5_12": Shape(programs=TWO_NUMBERS, digits=(5, 12)),
    "digits_40": Shape(programs=TWO_NUMBERS, digits=(40, 40)),
}
_LIST_SPLITS = {
    "length_2_8": Shape(programs=LISTS),
    "length_16": Shape(programs=LISTS, list_length=(16, 16)),
    "length_64": Shape(programs=LISTS, list_length=(64, 64)),
}
_PROGRAM_SPLITS = {
    "train": Shape(programs=_KNOWN),
    "validation": Shape("validation", programs=_KNOWN),
    "held_out": Shape("all", programs=HELD_OUT),
}


class TaskBuilder(datasets.GeneratorBasedBuilder):
    """Requests, conversations and the truth about them.

    Args:
        config_name: "requests", "dialogues", "general", "numbers", "lists" or "programs".
        cache_dir, …: of ``datasets.DatasetBuilder``. config_kwargs: fields of :class:`TaskConfig`.

    Columns:
        messages: ``role`` and ``content``; the last is the assistant's reply, or the user's message where nothing must be
            called. answers: what the reply must state, in order.
        calls: of the reply in order: ``program``, ``arguments``, ``answer``, and ``spans``: where the pieces of each argument
            stand (``message``, ``start``, ``end``: characters of the message's content).
        program: of the first call, "" without one. wording: identifiers of the phrasings used.
        length: of the longest argument of the first call, 0 without one; measure: what it counts: "digits", "numbers" of a
            list, "characters", or "".

    Raises:
        TaskError: an unknown configuration, a field that it does not have, or a value out of range.
    """

    BUILDER_CONFIG_CLASS = TaskConfig
    BUILDER_CONFIGS = [  # noqa: RUF012 - the name and the form that datasets prescribes
        TaskConfig(name="requests", description="One request, in phrasings of training or never seen in it."),
        TaskConfig(
            name="dialogues", description="Later turns, follow-ups, several requests at once.", kind="dialogues"
        ),
        TaskConfig(name="general", description="Conversation in which nothing must be called.", kind="general"),
        TaskConfig(
            name="numbers",
            description="Arithmetic by the length of its numbers.",
            splits=_NUMBER_SPLITS,
            evaluated=tuple(_NUMBER_SPLITS),
        ),
        TaskConfig(
            name="lists",
            description="Lists by their length.",
            splits=_LIST_SPLITS,
            evaluated=tuple(_LIST_SPLITS),
        ),
        TaskConfig(
            name="programs",
            description=f"{len(HELD_OUT)} programs kept out of training.",
            splits=_PROGRAM_SPLITS,
            evaluated=("held_out",),
        ),
    ]
    DEFAULT_CONFIG_NAME = "requests"

    def __init__(self, config_name: str | None = None, cache_dir: str | None = None, **kwargs: Any):
        names = [config.name for config in self.BUILDER_CONFIGS]
        if config_name is not None and config_name not in names:
            raise TaskError(f"there is no configuration {config_name!r}; there are {', '.join(names)}")
        known = [f.name for f in fields(TaskConfig)]
        for key in kwargs:
            if key not in (*known, *inspect.signature(datasets.DatasetBuilder.__init__).parameters):
                nearest = difflib.get_close_matches(key, known, n=1)
                hint = f"; did you mean {nearest[0]!r}?" if nearest else f"; it has {', '.join(known)}"
                raise TaskError(f"a configuration of tasks has no field {key!r}{hint}")
        super().__init__(
            cache_dir=cache_dir,
            config_name=config_name,
            **{"dataset_name": "neurallib_tasks", "hash": generator_hash(), **kwargs},
        )
        config: TaskConfig = self.config  # type: ignore[assignment]
        if config.examples < 1 or not 0 <= config.general_share <= 1:
            raise TaskError(
                f"expected examples ≥ 1 and general_share from 0 to 1, found {config.examples} and {config.general_share}"
            )
        if config.kind not in get_args(Kind):
            raise TaskError(f"kind must be one of {', '.join(get_args(Kind))}, found {config.kind!r}")
        for name, given, kind in (
            ("general_share", config.general_share != 0, "requests"),
            ("shares", config.shares is not None, "dialogues"),
        ):
            if given and config.kind != kind:
                raise TaskError(
                    f"{name} is of configurations of kind {kind!r}; {config.name} is of kind {config.kind!r}"
                )

    def _info(self) -> datasets.DatasetInfo:
        text, number = datasets.Value("string"), datasets.Value("int32")
        piece = {"message": number, "start": number, "end": number}
        call = {
            "program": text,
            "arguments": datasets.List(text),
            "answer": text,
            "spans": datasets.List(datasets.List(piece)),
        }
        features = {
            "messages": datasets.List({"role": text, "content": text}),
            "answers": datasets.List(text),
            "calls": datasets.List(call),
            "program": text,
            "wording": text,
            "length": number,
            "measure": text,
        }
        return datasets.DatasetInfo(
            description=self.config.description or "", features=datasets.Features(features), license="apache-2.0"
        )

    def _split_generators(self, dl_manager: Any) -> list[datasets.SplitGenerator]:
        config: TaskConfig = self.config  # type: ignore[assignment]
        blocks = [(start, min(BLOCK, config.examples - start)) for start in range(0, config.examples, BLOCK)]
        # Only the list is shared out among workers, so the shape must be none.
        return [
            datasets.SplitGenerator(name=name, gen_kwargs={"shape": shape, "blocks": blocks})  # type: ignore[arg-type]
            for name, shape in config.splits.items()
        ]

    def _generate_examples(  # type: ignore[override]
        self, shape: Shape, blocks: list[tuple[int, int]]
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        config: TaskConfig = self.config  # type: ignore[assignment]
        settings = (config.seed, shape.phrasings, shape.digits, shape.list_length, shape.programs)
        if config.kind == "dialogues":
            makes_dialogues = DialogueGenerator(*settings)
        else:
            makes_requests = RequestGenerator(*settings)
        for start, count in blocks:
            if config.kind == "dialogues":
                made = makes_dialogues.dialogues(count, config.shares or DialogueShares(), start)
            else:
                share = 1.0 if config.kind == "general" else config.general_share
                made = map(Dialogue.from_example, makes_requests.examples(count, share, start))
            for index, dialogue in enumerate(made, start):
                yield index, row(dialogue)


def row(dialogue: Dialogue) -> dict[str, Any]:
    """A conversation as a row of the data set; see the columns of :class:`TaskBuilder`."""
    messages = [
        {"role": ("user", "assistant")[at % 2], "content": message} for at, message in enumerate(dialogue.messages)
    ]
    answers = [step.answer for step in dialogue.steps]
    if answers:
        *before, after = dialogue.around
        reply = "".join(text + answer for text, answer in zip(before, answers, strict=True)) + after
        messages.append({"role": "assistant", "content": reply})
    calls = [
        {
            "program": step.program,
            "arguments": list(step.arguments),
            "answer": step.answer,
            "spans": [
                [{"message": message, "start": start, "end": end} for message, start, end in pieces]
                for pieces in step.spans
            ],
        }
        for step in dialogue.steps
    ]
    program = dialogue.steps[0].program if dialogue.steps else ""
    length, measure = measured(program, dialogue.steps[0].arguments) if program else (0, "")
    return {
        "messages": messages,
        "answers": answers,
        "calls": calls,
        "program": program,
        "wording": dialogue.wording,
        "length": length,
        "measure": measure,
    }


def measured(program: str, arguments: tuple[str, ...]) -> tuple[int, str]:
    """The length of a call's longest argument, and what it counts; decimals do not count."""
    parameters = PARAMETERS[program]
    if parameters == ("numbers",):
        return len(arguments[0].split(", ")), "numbers"
    if parameters[0] in ("text", "expression"):
        return len(arguments[0]), "characters"
    wholes = (argument.partition(".")[0] for argument in arguments)
    return max(sum(character.isdigit() for character in whole) for whole in wholes), "digits"


@cache
def generator_hash() -> str:
    """A hash of all that examples depend on besides the configuration: phrasings, generators, programs."""
    from ..modeling_neurallib.programs import standard_library

    digest = hashlib.sha256(standard_library().fingerprint.encode())
    modules = (wording, material, drawing, rendering, tasks, worked_examples, dialogues)
    sources = [Path(module.__file__ or "") for module in modules] + [Path(__file__)]
    for path in [*sorted(PHRASINGS.glob("*.txt")), *sources]:
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def load_tasks(
    name: str = "requests",
    split: str | None = None,
    num_proc: int | None = None,
    cache_dir: str | Path | None = None,
    **config: Any,
) -> Any:
    """A task as a ``Dataset``, or all its splits as a ``DatasetDict``; built once, then read from the cache.

    Args:
        name, cache_dir: see :class:`TaskBuilder`. split: as ``datasets.load_dataset`` takes it: "validation", "train[:100]".
        num_proc: workers; changes nothing in the examples. config: fields of :class:`TaskConfig`, such as ``seed``.

    Raises:
        TaskError: see :class:`TaskBuilder`; an unknown split.
    """
    builder = TaskBuilder(name, cache_dir=None if cache_dir is None else str(cache_dir), **config)
    builder.download_and_prepare(num_proc=num_proc)
    try:
        return builder.as_dataset(split=split)
    except ValueError as error:
        splits = ", ".join(builder.config.splits)  # type: ignore[attr-defined]
        raise TaskError(f"the task {name} cannot give the split {split!r}; it has {splits} ({error})") from error


def data_card(seed: int = 0, examples: int = 1_000) -> Any:
    """The card of the tasks, for a data set made of them on the Hub: configurations, splits, columns, how they are made.

    Returns:
        a ``huggingface_hub.DatasetCard``.
    """
    from huggingface_hub import DatasetCard, DatasetCardData

    configurations = []
    for config in TaskBuilder.BUILDER_CONFIGS:
        for name, shape in config.splits.items():
            parts = [f"phrasings: {shape.phrasings}"]
            if config.kind != "general":
                digits, lengths = ("–".join(map(str, sorted({*pair}))) for pair in (shape.digits, shape.list_length))
                parts += [f"{len(shape.programs)} programs", f"{digits} digits", f"lists of {lengths}"]
            configurations.append({"name": config.name, "split": name, "about": ", ".join(parts)})
    descriptions = {config.name: config.description for config in TaskBuilder.BUILDER_CONFIGS}
    columns = {name: str(type_) for name, type_ in (TaskBuilder("requests").info.features or {}).items()}
    sample = row(Dialogue.from_example(next(iter(RequestGenerator(seed).examples(1, 0.0)))))
    return DatasetCard.from_template(
        DatasetCardData(
            language="en",
            license="apache-2.0",
            annotations_creators="machine-generated",
            task_categories=["text-generation"],
            tags=["neurallib", "arithmetic", "synthetic"],
            pretty_name="neurallib tasks",
            configs=[
                {
                    "config_name": config.name,
                    "data_files": [
                        {"split": name, "path": f"{config.name}/{name}-*.parquet"} for name in config.splits
                    ],
                }
                for config in TaskBuilder.BUILDER_CONFIGS
            ],
        ),
        template_path=str(CARD_TEMPLATE),
        configurations=configurations,
        descriptions=descriptions,
        columns=columns,
        sample=sample,
        held_out=HELD_OUT,
        seed=seed,
        examples=examples,
        hash=generator_hash(),
    )
