"""The recipe: all that a training run depends on, from YAML and ``key=value``.

Beside its own keys a recipe has those of :class:`NeuralLibTrainingArguments`, and so of ``TrainingArguments``.
"""

from __future__ import annotations

import copy
import dataclasses
import difflib
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import yaml

from .arguments import NeuralLibTrainingArguments, TrainingArgumentsError
from .wording import PARAMETERS

STANDARD = "standard"
"""Name of the library that the package ships."""

CHANGING = (
    "epochs", "batch_size", "learning_rate", "weight_decay", "warmup", "prompt_weight", "stretch", "tempering",
    "weigh_explanations", "keep_explanations", "arguments",
)  # fmt: skip
"""Keys of a recipe in which the runs of ``then`` may differ, beside arguments of training."""

GOING_BEFORE = {
    "epochs": ("num_train_epochs", "max_steps"),
    "batch_size": ("per_device_train_batch_size",),
    "warmup": ("warmup_steps", "warmup_ratio"),
}
"""Keys of a recipe → arguments of training that go before them; those of other keys have the key's name."""

SHARES = ("plain_share", "framed_share", "mistyped_share", "sentence_share")
"""Keys of a recipe that are a part of something, 0…1."""

WITHOUT_EFFECT = (
    "log", "save_", "sample_", "report_to", "disable_tqdm", "run_name", "project", "trackio_", "push_to_hub", "hub_", "use_cpu",
    "ddp_",
)  # fmt: skip
"""How arguments of training begin on which the outcome of a run does not depend."""

RENAMED = {
    "gradient_checkpointing": "activation_checkpointing",
    "gradient_checkpointing_kwargs": "activation_checkpointing_kwargs",
}
"""Arguments of transformers → what later versions call them. A recipe may use either name."""


class RecipeError(ValueError):
    """A recipe that cannot be followed."""


@dataclass
class Recipe:
    """What a training run depends on.

    Attributes:
        base: "smollm2-135m", a model id or a folder.
        output: folder of checkpoints and of the trained heads.
        examples: conversations drawn. shares: parts of them of each kind of :class:`DialogueShares`, by name; the rest are
            plain requests.
        emphasis: program → how many times as often as others the wordings of its plain requests are drawn in training.
        replies: general conversations whose reply is written by the backbone first, so that the gate learns to stay shut
            within replies.
        sentence_share: part of the plain requests whose reply is a sentence of the backbone's, with the result put in;
            several results have a line each. reply_tokens: the most tokens that the backbone writes.
        plain_share: part of the conversations of one message that have no chat template around them.
        mistyped_share: part of the requests that look as if typed in a hurry: small letters, a letter left out or swapped.
        framed_share: part of the others of one message in which it stands in a frame ("Question: … Answer:") within the template.
        supervision: "answers" (the search explains them), "calls" (the truth is given), or a share of requests with the truth.
        labelled: program → the share of its requests whose truth is given, where answers alone do not suffice for it.
        budget: exact runs spent on the search of one answer. most_explanations: an answer with more is left out.
        validation: conversations with wordings that training never sees.
        prompt_weight: weight of "no call within the prompt" beside the likelihood of the reply.
        stretch: how much longer than they are lists look while training, at most: see ``lengthened`` in ``objective.py``.
            tempering: see :class:`NeuralLibTrainingArguments`.
        heads: fields of ``NeuralLibConfig`` that shape the heads.
        then: what comes after, of heads on generated requests: for each further run, the keys in which it differs from
            the first. It goes on from the heads of the one before, over the same conversations.
        weigh_explanations: before a run the heads of ``start_from`` read all explanations of the lessons, and steps in which
            nothing is read take their word: see ``Explanation.read``. What has next to no part in them is left out.
        keep_explanations: programs none of whose explanations is left out, because the heads of ``start_from`` know them badly.
        start_from: a folder of trained heads (``heads`` of another run) to go on from, with what LoRA added to their backbone.
        seed, epochs, batch_size, learning_rate, weight_decay, warmup: of the optimisation.
        library: "standard", or a folder or Hub id of another.
        held_out_programs: programs that are not learned: generated conversations never ask for them, and they cannot be called,
            so that neither the search nor the softmax over programs knows them. They stay in the library.
        data, validation_data: your own conversations in the place of generated ones: a JSONL or Parquet file, a folder of them
            or a data set of the Hub. streaming: read ``data`` while training, not before.
        peft: an adapter on the backbone: ``peft_type`` (by default LORA) and the fields of its configuration.
        arguments: of :class:`NeuralLibTrainingArguments`, those that were given; they go before the ones above.
    """

    base: str = "smollm2-135m"
    output: str = "runs/smollm2-135m"
    examples: int = 7_000
    shares: dict[str, float] = field(default_factory=dict)
    emphasis: dict[str, int] = field(default_factory=dict)
    replies: int = 300
    reply_tokens: int = 32
    sentence_share: float = 0.08
    plain_share: float = 0.0
    framed_share: float = 0.0
    mistyped_share: float = 0.0
    supervision: str | float = "answers"
    labelled: dict[str, float] = field(default_factory=dict)
    budget: int = 6_000
    most_explanations: int = 64
    validation: int = 480
    prompt_weight: float = 1.0
    stretch: float = 10.0
    tempering: float = 0.0
    heads: dict[str, Any] = field(default_factory=dict)
    then: list[dict[str, Any]] = field(default_factory=list)
    weigh_explanations: bool = False
    keep_explanations: list[str] = field(default_factory=list)
    start_from: str | None = None
    seed: int = 0
    epochs: float = 6.0
    batch_size: int = 32
    learning_rate: float = 1e-3
    weight_decay: float = 0.02
    warmup: float = 0.05
    library: str = STANDARD
    held_out_programs: list[str] = field(default_factory=list)
    data: str | None = None
    validation_data: str | None = None
    streaming: bool = False
    peft: dict[str, Any] | None = None
    arguments: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def load(cls, path: str | Path, overrides: Iterable[str] = ()) -> Recipe:
        """A recipe from YAML, with ``key=value`` overrides.

        Raises:
            RecipeError: no such file, not a mapping, an unknown key (the nearest valid one is named), a value of another type.
        """
        try:
            values = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
        except OSError as error:
            raise RecipeError(f"the recipe {path} cannot be read: {error.strerror}") from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise RecipeError(f"the recipe {path} is not YAML: {' '.join(str(error).split())}") from error
        if not isinstance(values, dict):
            raise RecipeError(f"the recipe {path} must be a mapping of keys to values, found {type(values).__name__}")
        for override in overrides:
            key, equals, value = override.partition("=")
            if not equals:
                raise RecipeError(f"an override has the form key=value, found {override!r}")
            try:
                values[key] = yaml.safe_load(value)
            except yaml.YAMLError as error:
                raise RecipeError(f"the value of {override!r} is not YAML: {' '.join(str(error).split())}") from error
        recipe = cls(**cls._checked(values))
        recipe.parts()
        return recipe

    @classmethod
    def _checked(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Keys and values as the constructor takes them, those of the training's arguments among ``arguments``.

        Raises:
            RecipeError: an unknown key, or a value of another type.
        """
        values = dict(values)
        fields = {f.name: f for f in dataclasses.fields(cls)}
        others = {f.name for f in dataclasses.fields(NeuralLibTrainingArguments) if f.init} - {"output_dir"}
        values = {_as_installed(key, others): value for key, value in values.items()}
        arguments = values.pop("arguments", None) or {}
        if not isinstance(arguments, dict):
            raise RecipeError(f"arguments must be a mapping of keys to values, found {arguments!r}")
        given = {_as_installed(key, others): value for key, value in arguments.items()}
        given |= {key: values.pop(key) for key in list(values) if key in others and key not in fields}
        values["arguments"] = given
        for key, valid in [*((key, [*fields, *others]) for key in values), *((key, [*others]) for key in given)]:
            if key not in valid:
                nearest = difflib.get_close_matches(str(key), valid, n=1)
                hint = f"; did you mean {nearest[0]!r}?" if nearest else f"; known keys: {', '.join(fields)}"
                raise RecipeError(f"the recipe has no key {key!r}{hint}")
        hints = get_type_hints(NeuralLibTrainingArguments)
        values["arguments"] = {key: _fitting(key, value, hints[key]) for key, value in given.items()}
        for key, value in values.items():
            default = getattr(cls(), key)
            accepts: tuple[type, ...] = (int, float) if isinstance(default, float) else (type(default),)
            accepts = (str, float, int) if key == "supervision" else accepts
            accepts = {"data": (str,), "validation_data": (str,), "start_from": (str,), "peft": (dict,)}.get(
                key, accepts
            )
            if value is None and default is None:
                continue
            if isinstance(value, str) and float in accepts and str not in accepts:
                values[key] = _number(value)
            if not isinstance(values[key], accepts) or (isinstance(value, bool) and bool not in accepts):
                raise RecipeError(f"{key} must be {' or '.join(t.__name__ for t in accepts)}, found {value!r}")
            if key in SHARES and not 0 <= values[key] <= 1:
                raise RecipeError(f"{key} is a part of the conversations: expected 0…1, found {value!r}")
        _check_asked("keep_explanations", values.get("keep_explanations", ()))
        return values

    def parts(self) -> list[Recipe]:
        """The runs that this recipe is made of, one after another: itself, or, with ``then``, as many as that and one.

        The last one's folder is the recipe's; those before have folders in it.

        Raises:
            RecipeError: ``then`` changes what all runs share, or has an unknown key or a value of another type.
        """
        folders = [str(Path(self.output) / f"part-{number}") for number in range(1, 1 + len(self.then))]
        first, *others = [*folders, self.output]
        parts = [dataclasses.replace(self, then=[], output=first)]
        for number, (changes, folder) in enumerate(zip(self.then, others, strict=True), 1):
            if not isinstance(changes, dict):
                raise RecipeError(
                    f"then, run {number + 1}: must be a mapping of keys to values, found {changes!r}; as in {{epochs: 1}}"
                )
            for key in changes:
                if key in {f.name for f in dataclasses.fields(self)} - set(CHANGING):
                    raise RecipeError(
                        f"then, run {number + 1}: {key!r} is the same in all runs; they differ in {', '.join(CHANGING)}"
                    )
            try:
                told = self._checked(changes)
            except RecipeError as error:
                raise RecipeError(f"then, run {number + 1}: {error}") from error
            given = told.pop("arguments")
            overridden = {name for key in told for name in GOING_BEFORE.get(key, (key,))}
            kept = {key: value for key, value in self.arguments.items() if key not in overridden}
            arguments = {**kept, **given}
            before = str(Path(parts[-1].output) / "heads")
            shared = dataclasses.replace(self, then=[], heads={}, start_from=before, output=folder, arguments=arguments)
            parts.append(dataclasses.replace(shared, **told))
        return parts

    def identity(self) -> dict[str, Any]:
        """What the outcome of a run depends on, as JSON: not its folder, nor what is logged, saved and looked at on the way."""
        told = {key: value for key, value in dataclasses.asdict(self).items() if key not in ("output", "start_from")}
        told["arguments"] = {key: value for key, value in self.arguments.items() if not key.startswith(WITHOUT_EFFECT)}
        return dict(json.loads(json.dumps(told)))

    def training_arguments(self, output: str | Path) -> NeuralLibTrainingArguments:
        """The arguments of training with checkpoints in ``output``.

        Raises:
            RecipeError: they contradict each other, or one has a value that cannot be.
        """
        told: dict[str, Any] = dict(
            per_device_train_batch_size=self.batch_size,
            num_train_epochs=self.epochs,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            warmup_steps=self.warmup,
            lr_scheduler_type="cosine",
            max_grad_norm=1.0,
            logging_steps=25,
            save_steps=200,
            save_total_limit=2,
            report_to=[],
            seed=self.seed,
            prompt_weight=self.prompt_weight,
            stretch=self.stretch,
            tempering=self.tempering,
            supervision=str(self.supervision),
            budget=self.budget,
            most_explanations=self.most_explanations,
        )
        try:
            return NeuralLibTrainingArguments(output_dir=str(output), **{**told, **copy.deepcopy(self.arguments)})
        except TrainingArgumentsError as error:
            raise RecipeError(f"the recipe cannot be followed: {error}") from error

    def asked_programs(self) -> tuple[str, ...]:
        """The programs that generated conversations ask for.

        Raises:
            RecipeError: ``held_out_programs`` holds a program for which there are no requests, or leaves none to ask for.
        """
        _check_asked("held_out_programs", self.held_out_programs)
        asked = tuple(program for program in PARAMETERS if program not in self.held_out_programs)
        if not asked:
            raise RecipeError("held_out_programs leaves no program to ask for: hold fewer out")
        return asked

    def adapter(self) -> Any:
        """The configuration of the adapter.

        Raises:
            RecipeError: PEFT knows no such kind, or no such field of it (the nearest is named).
        """
        from peft import PEFT_TYPE_TO_CONFIG_MAPPING, PeftType

        told = {"task_type": "CAUSAL_LM", **(self.peft or {})}
        kind = str(told.pop("peft_type", "LORA")).upper()
        kinds = {str(known.value): known for known in PEFT_TYPE_TO_CONFIG_MAPPING}
        config = PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(kind)] if kind in kinds else None
        known = [f.name for f in dataclasses.fields(config)] if config is not None else []
        for name, value, valid in [("peft_type", kind, [*kinds]), *(("peft", key, known) for key in told)]:
            if value not in valid:
                nearest = difflib.get_close_matches(value, valid, n=1)
                hint = f"did you mean {nearest[0]!r}?" if nearest else f"known: {', '.join(valid)}"
                raise RecipeError(f"{name} of the recipe has no {value!r}; {hint}")
        assert config is not None
        return config(**told)


def _check_asked(key: str, names: Iterable[Any]) -> None:
    """Refuses a list that holds what generated conversations never ask for.

    Raises:
        RecipeError: it does; the nearest program is named.
    """
    for name in names:
        if str(name) not in PARAMETERS:
            nearest = difflib.get_close_matches(str(name), PARAMETERS, n=1)
            hint = f"did you mean {nearest[0]!r}?" if nearest else f"expected some of {', '.join(PARAMETERS)}"
            raise RecipeError(f"{key} holds {name!r}, for which no requests are generated; {hint}")


PLAIN = (bool, int, float, str, list, dict, type(None))


def _fitting(key: str, value: Any, hint: Any) -> Any:
    """The value of an argument of training, a number where YAML takes one for text.

    Raises:
        RecipeError: it is of another type than the argument, if that is a plain one.
    """
    kinds = [
        get_origin(kind) or kind for kind in (get_args(hint) if get_origin(hint) in (Union, UnionType) else [hint])
    ]
    if not all(kind in PLAIN for kind in kinds) or key == "supervision":
        return value
    if isinstance(value, str) and float in kinds and str not in kinds:
        value = _number(value)
    if type(value) in kinds or (type(value) is int and float in kinds):
        return value
    names = " or ".join(kind.__name__ for kind in kinds if kind is not type(None))
    raise RecipeError(f"{key} must be {names}, found {value!r}")


def _number(text: str) -> str | float:
    """A finite number that YAML takes for text, as it does 5e-4; else the text."""
    try:
        number = float(text)
    except ValueError:
        return text
    return number if math.isfinite(number) else text


def _as_installed(key: Any, known: set[str]) -> Any:
    """The name of an argument in the version of transformers that is installed."""
    names = next((pair for pair in RENAMED.items() if key in pair), (key,))
    return next((name for name in reversed(names) if name in known), key)
