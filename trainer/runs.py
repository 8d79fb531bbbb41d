"""A run by a recipe: the model, the lessons, the training, and what is left in the output folder."""

from __future__ import annotations

import dataclasses
import difflib
import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from accelerate.utils import gather_object
from transformers import AutoTokenizer, PreTrainedConfig

from ..modeling_neurallib.library import NeuralLibrary
from ..modeling_neurallib.modeling_neurallib import NeuralLibForCausalLM
from ..modeling_neurallib.programs import standard_library
from ..modeling_neurallib.sharing import RECORD, UNTRAINED_BIAS, sha256
from .arguments import NeuralLibTrainingArguments
from .checkpoints import STAGE, last_checkpoint, put_back, put_in_place, said_clearly, write_whole
from .lessons import Lessons, lessons_of, weighed, with_features
from .outcomes import decided
from .own_data import load_rows
from .recipe import STANDARD, Recipe, RecipeError
from .record import training_record, write_record
from .shipping import LOW_RANK, is_plain_lora, load_base, load_heads, save_heads, save_low_rank
from .training import FROZEN, NeuralLibTrainer

NOT_FOR_REQUESTS = ["fibonacci_recursive", "insertion_sort"]
"""Programs of the standard library that do what another one does, kept for study: a request is answered by the other."""

BEGUN_WITH = "begun_with.json"
"""A file of the folder of a run with others before or after it: its recipe, and the sha256 of the heads that it began from."""


def train(recipe_path: str | Path, overrides: Iterable[str] = (), resume: bool = True) -> dict[str, Any]:
    """Train by a recipe; continues from the last checkpoint in the output folder.

    On generated requests the heads, and what LoRA adds to the backbone, come to lie in ``heads``; the model or the adapter in
    ``model``. The runs before the last one of a recipe with ``then`` have folders of their own, ``part-1`` and so on; one that
    has its heads is not made again.

    Returns:
        what was measured, also written to ``report.json`` beside them.
    Raises:
        RecipeError: one of the runs cannot be followed, which is said before the first begins; or what was made of one was begun
            with another recipe, or from other heads.
    """
    recipe = Recipe.load(recipe_path, overrides)
    # Set before anything starts the threads that would not hear of it later: see NeuralLibTrainer.train.
    torch.set_flush_denormal(True)
    parts = recipe.parts()
    for part in parts:
        _check(part, recipe)
        if resume:
            _check_begun(part, recipe)
    report: dict[str, Any] = {}
    for part in parts:
        for folder in (Path(part.output), Path(part.output) / "checkpoints"):
            put_back(folder)
        if resume:
            _check_begun(part, recipe)  # by now what it starts from is there
            if part.output != recipe.output and is_made(part):
                continue
        report = _follow(part, recipe, resume)
    return report


def is_made(part: Recipe) -> bool:
    """Whether a run that others go on from has its heads."""
    return (Path(part.output) / "heads" / "heads_config.json").is_file()


def _check(part: Recipe, whole: Recipe) -> None:
    """What can be known before anything is loaded.

    Raises:
        RecipeError: the run cannot be followed.
    """
    _check_keys(part)
    arguments = part.training_arguments(Path(part.output) / "checkpoints")
    if not whole.then and not part.weigh_explanations:
        return
    others = {
        "library": part.library != STANDARD,
        "base": _is_neurallib(part.base),
        "backbone_learning_rate": arguments.backbone_learning_rate is not None,
        "retention": arguments.retention > 0,
    }
    ruling_out = [*_beyond_heads(part, arguments), *(key for key, given in others.items() if given)]
    if ruling_out:
        raise RecipeError(
            "then and weigh_explanations are for the heads of a frozen backbone on generated requests, with the standard library; "
            f"here they are ruled out by {', '.join(ruling_out)}"
        )


def _check_keys(recipe: Recipe) -> None:
    """Refuses keys that contradict each other.

    Raises:
        RecipeError: they do.
    """
    if recipe.start_from is not None and recipe.peft is not None and (Path(recipe.start_from) / LOW_RANK).is_file():
        raise RecipeError(
            f"start_from={recipe.start_from} has low-rank weights of its own, beside which a new adapter cannot be shipped: leave "
            "peft out, or start from heads of a frozen backbone"
        )
    if recipe.weigh_explanations and recipe.start_from is None:
        raise RecipeError(
            "weigh_explanations asks the heads of start_from, and there is none: leave it out of the first run"
        )
    if recipe.start_from is not None and (recipe.heads or recipe.library != STANDARD):
        raise RecipeError("the heads of start_from have their shape and their library: leave heads and library out")


def _beyond_heads(recipe: Recipe, arguments: NeuralLibTrainingArguments) -> list[str]:
    """The keys that make a run one of more than the heads of a frozen backbone on generated requests."""
    given = {
        "data": recipe.data is not None,
        "peft": recipe.peft is not None,
        "train": arguments.train not in (None, *FROZEN),
        "estimator": arguments.estimator != "marginal",
        "cached_features": not arguments.cached_features,
    }
    return [key for key, beyond in given.items() if beyond]


def _is_neurallib(base: str) -> bool:
    """Whether the base is a folder of a model that has its heads already."""
    return Path(base).is_dir() and PreTrainedConfig.get_config_dict(base)[0].get("model_type") == "neurallib"


def _begun_with(part: Recipe) -> dict[str, Any]:
    heads = None if part.start_from is None else Path(part.start_from) / "heads.safetensors"
    return {"recipe": part.identity(), "heads": sha256(heads) if heads is not None and heads.is_file() else None}


def _check_begun(part: Recipe, whole: Recipe) -> None:
    """What lies in the folder of a run is taken up only by the recipe, and from the heads, that it was begun with.

    A folder that does not say is taken as it is by a recipe of one run. Heads that are not there yet are not compared.

    Raises:
        RecipeError: it was begun otherwise, or does not say, and ``then`` would take it for one of its runs.
    """
    output, last = Path(part.output), part.output == whole.output
    began = output / BEGUN_WITH
    if last_checkpoint(output / "checkpoints") is None and (last or not is_made(part)):
        return
    if not began.is_file() and not whole.then:
        return
    now, before, unsaid = _begun_with(part), _json_of(began), Recipe().identity()
    told = before.get("recipe") or {}
    other = [key for key, value in now["recipe"].items() if told.get(key, unsaid[key]) != value]
    if now["heads"] is not None and before.get("heads") != now["heads"]:
        other.append("the heads that it starts from")
    if other or not told:
        why = f"differing: {', '.join(other)}" if told else f"it has no {BEGUN_WITH}"
        raise RecipeError(
            f"{output / 'checkpoints' if last else output} was begun by another recipe ({why}): remove it, or choose another output"
        )


def _follow(recipe: Recipe, whole: Recipe, resume: bool) -> dict[str, Any]:
    """One run of a recipe, which is the ``whole`` or a part of it."""
    output = Path(recipe.output)
    output.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(recipe.seed)
    model, tokenizer = model_of(recipe)
    arguments = recipe.training_arguments(output / "checkpoints")
    try:
        with said_clearly("the run", output / "checkpoints"):
            if arguments.process_index == 0 and (whole.then or (output / BEGUN_WITH).is_file()):
                write_whole(output / BEGUN_WITH, json.dumps(_begun_with(recipe), indent=2))
            if _beyond_heads(recipe, arguments):
                report = _train_model(recipe, model, tokenizer, arguments, resume)
            else:
                report = _train_heads(recipe, whole, model, tokenizer, arguments, resume)
            if arguments.process_index == 0:
                write_whole(output / "report.json", json.dumps(report, indent=2))
    finally:
        if arguments.process_index == 0:
            put_back(output)
    return report


def model_of(recipe: Recipe) -> tuple[NeuralLibForCausalLM, Any]:
    """The model that a recipe trains, and its tokenizer.

    Raises:
        RecipeError: keys of the recipe contradict each other, or what is held out is not there.
    """
    _check_keys(recipe)
    library = standard_library() if recipe.library == STANDARD else NeuralLibrary.from_pretrained(recipe.library)
    if recipe.start_from is not None:
        base, tokenizer = load_base(recipe.base)
        model = load_heads(base, tokenizer, Path(recipe.start_from), to_go_on=True)
    elif _is_neurallib(recipe.base):
        model = NeuralLibForCausalLM.from_pretrained(recipe.base)
        tokenizer = AutoTokenizer.from_pretrained(recipe.base)
        if recipe.library != STANDARD:
            model.load_library(library, tokenizer=tokenizer)
    else:
        base, tokenizer = load_base(recipe.base)
        heads = {"disabled_programs": NOT_FOR_REQUESTS, **recipe.heads} if recipe.library == STANDARD else recipe.heads
        model = NeuralLibForCausalLM.from_llama(base, library, tokenizer=tokenizer, heads=heads)
    if recipe.held_out_programs:
        _hold_out(model, recipe.held_out_programs)
    return model, tokenizer


def unknown_programs(recipe: Recipe, model: NeuralLibForCausalLM) -> frozenset[int]:
    """The programs that the heads of ``start_from`` were never trained for: the library has got them since."""
    before = {} if recipe.start_from is None else _json_of(Path(recipe.start_from) / "heads_config.json")
    names = model.computer.programs
    known = set(before.get("programs") or names)
    return frozenset(number for number, name in enumerate(names) if name not in known)


def _hold_out(model: NeuralLibForCausalLM, programs: Sequence[str]) -> None:
    """These programs cannot be called; what a fresh selector was given of their descriptions it forgets.

    Raises:
        RecipeError: the model has no such program.
    """
    computer, known = model.computer, model.computer.programs
    for name in programs:
        if name not in known:
            nearest = difflib.get_close_matches(str(name), known, n=1)
            hint = f"did you mean {nearest[0]!r}?" if nearest else f"there are {', '.join(known)}"
            raise RecipeError(f"held_out_programs holds {name!r}, which the library lacks; {hint}")
    model.config.disabled_programs = list(dict.fromkeys([*(model.config.disabled_programs or ()), *programs]))
    if bool((computer.selector.no_call.bias == UNTRAINED_BIAS).all()):
        computer.selector.key.reset_parameters()
        computer.selector.begin_from(computer.descriptions[computer.allowed()])


def _train_heads(
    recipe: Recipe,
    whole: Recipe,
    model: NeuralLibForCausalLM,
    tokenizer: Any,
    arguments: NeuralLibTrainingArguments,
    resume: bool,
) -> dict[str, Any]:
    """The heads, on generated requests, which all runs of the whole recipe share."""
    output, data = Path(recipe.output), Path(whole.output)
    model.to(arguments.device)  # type: ignore[arg-type]  # the stub of transformers
    with arguments.main_process_first():
        lessons, left_out = lessons_of(model, tokenizer, recipe, "train", recipe.examples, data)
        held_out, _ = lessons_of(model, tokenizer, recipe, "validation", recipe.validation, data)
    training, validation = (with_features(part, model, recipe, data) for part in (lessons, held_out))
    judged = lessons[:400]  # with all of their explanations
    if recipe.weigh_explanations:
        training = _weighed(recipe, model, training, arguments)
    torch.manual_seed(recipe.seed)  # whatever was sampled before
    trainer = NeuralLibTrainer(
        model, arguments, train_dataset=training, eval_dataset=validation, processing_class=tokenizer
    )
    trainer.train(resume_from_checkpoint=resume and last_checkpoint(str(arguments.output_dir)) is not None)
    model.computer.cpu().eval()
    report: dict[str, Any] = dict(
        left_out=left_out,
        lessons=len(training),
        training=decided(Lessons(judged, training.cache, model.computer)),
        validation=decided(validation),
        recipe=dataclasses.asdict(whole if recipe.output == whole.output else recipe),
    )
    if trainer.is_world_process_zero():
        stage = output / STAGE / "heads"
        save_heads(model, stage, report)
        if recipe.start_from is not None and (Path(recipe.start_from) / LOW_RANK).is_file():
            shutil.copy(Path(recipe.start_from) / LOW_RANK, stage / LOW_RANK)
        write_record(stage, _record(trainer, recipe, report["validation"]))
        put_in_place(stage, output / "heads")
    trainer.accelerator.wait_for_everyone()  # the next run begins from them
    return report


def _weighed(
    recipe: Recipe, model: NeuralLibForCausalLM, lessons: Lessons, arguments: NeuralLibTrainingArguments
) -> Lessons:
    """Lessons with the explanations alone that the model's heads leave them; the processes divide the work."""
    unknown = unknown_programs(recipe, model)
    kept = {model.computer.programs.index(name) for name in recipe.keep_explanations}
    asked = weighed(lessons, arguments.process_index, arguments.world_size, unknown=unknown, kept=kept)
    chosen = list(lessons.lessons)
    for number, explanations in gather_object(asked):
        chosen[number] = chosen[number].with_explanations(explanations, lessons.end)
    return Lessons(chosen, lessons.cache, model.computer)


def _record(trainer: NeuralLibTrainer, recipe: Recipe, validation: dict[str, Any]) -> dict[str, Any]:
    """What a card tells of heads: the trainer's record, what they make of all held-out lessons, and the runs before this one."""
    record = training_record(trainer) | {
        "metrics": {name: validation[name] for name in ("exact", "quiet")},
        "sample_size": 0,
    }
    before = {} if recipe.start_from is None else _json_of(Path(recipe.start_from) / RECORD)
    steps = int(before.get("steps") or 0) + int(before.get("steps_before") or 0)
    return record | ({"steps_before": steps} if steps else {})


def _json_of(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text())) if path.is_file() else {}


def _train_model(
    recipe: Recipe, model: NeuralLibForCausalLM, tokenizer: Any, arguments: NeuralLibTrainingArguments, resume: bool
) -> dict[str, Any]:
    """The model or an adapter, or any of them on your own data."""
    output = Path(recipe.output)
    training: Any = recipe.data
    validation: Any = recipe.validation_data
    model.to(arguments.device)  # type: ignore[arg-type]  # the stub of transformers
    if training is None:
        with arguments.main_process_first():
            training, _ = lessons_of(model, tokenizer, recipe, "train", recipe.examples, output)
            validation, _ = lessons_of(model, tokenizer, recipe, "validation", recipe.validation, output)
    elif recipe.streaming:
        training = load_rows(training, streaming=True)
    torch.manual_seed(recipe.seed)  # whatever was sampled before
    trainer = NeuralLibTrainer(
        model,
        arguments,
        train_dataset=training,
        eval_dataset=validation,
        processing_class=tokenizer,
        peft_config=None if recipe.peft is None else recipe.adapter(),
    )
    trainer.train(resume_from_checkpoint=resume and last_checkpoint(str(arguments.output_dir)) is not None)
    data = {name: dataclasses.asdict(report) for name, report in trainer.data_reports.items()}
    measured = trainer.evaluate() if validation is not None else {}
    stage, first = output / STAGE, trainer.is_world_process_zero()
    trainer.save_model(str(stage / "model"))
    trainer.accelerator.wait_for_everyone()
    if first:
        put_in_place(stage / "model", output / "model")
    report: dict[str, Any] = dict(data=data, validation=measured, recipe=dataclasses.asdict(recipe))
    adapter = cast(Any, trainer.model)
    if (
        recipe.data is None
        and recipe.library == STANDARD
        and trainer.trained == "heads+lora"
        and is_plain_lora(adapter)
    ):
        record = training_record(trainer)
        if first:
            save_low_rank(adapter, stage / "heads")
        whole: NeuralLibForCausalLM = adapter.merge_and_unload().eval()
        with arguments.main_process_first():
            held_out, _ = lessons_of(whole, tokenizer, recipe, "validation", recipe.validation, output)
        lessons = with_features(held_out, whole, recipe, output)
        whole.computer.cpu()
        report["validation"] = {**measured, **decided(lessons)}
        if first:
            save_heads(whole, stage / "heads", report)
            write_record(stage / "heads", record)
            put_in_place(stage / "heads", output / "heads")
    return report
