"""The Trainer on rows: what is trained, how, what is logged; on remembered features and through the whole model."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from neurallib.trainer.own_data import RowReader, load_rows
from neurallib.trainer.recipe import Recipe, RecipeError
from neurallib.trainer.runs import train as follow
from transformers import EarlyStoppingCallback, Trainer, TrainerCallback, TrainingArguments

from neurallib import (
    DataCollatorForCalls,
    NeuralLibForCausalLM,
    NeuralLibTrainer,
    NeuralLibTrainingArguments,
    TrainingArgumentsError,
    TrainingDataError,
)

ROWS = [
    {"prompt": "Add 12 and 30", "completion": "42"},
    {"prompt": "the sum of 5, 6 please", "completion": "11"},
    {"prompt": "Turn strawberry around", "completion": "yrrebwarts"},
    {"prompt": "Who was Ada?", "completion": "A mathematician."},
]
CHECKPOINTING = "activation_checkpointing"
if not hasattr(TrainingArguments, CHECKPOINTING):
    CHECKPOINTING = "gradient_checkpointing"  # its name in earlier versions of transformers
PARTS = {"answer_loss", "call_loss", "prompt_loss", "selection_entropy", "call_rate"}


def arguments(folder: Path, **more: Any) -> NeuralLibTrainingArguments:
    settings: dict[str, Any] = dict(
        output_dir=str(folder),
        max_steps=1,
        per_device_train_batch_size=4,
        learning_rate=5e-3,
        lr_scheduler_type="constant",
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        sample_size=0,
    )
    return NeuralLibTrainingArguments(**{**settings, **more})


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def fresh(model: NeuralLibForCausalLM, dropout: float = 0.0) -> NeuralLibForCausalLM:
    """The same model as another object: accelerate prepares each but once, whatever the next Trainer asks for."""
    config = copy.deepcopy(model.config)
    config.head_dropout = config.reader_dropout = dropout
    other = NeuralLibForCausalLM(config)
    other.load_state_dict(model.state_dict())
    return other


def lora(**more: Any) -> Any:
    from peft import LoraConfig

    return LoraConfig(**{"r": 2, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM", **more})


def test_arguments_that_cannot_be(tmp_path: Path) -> None:
    for name, value, hint in [
        ("estimator", "marginals", "did you mean 'marginal'"),
        ("train", "head", "did you mean 'heads'"),
        ("train", "soft_programs", r"Learn a program with .*learning\.learn"),
        ("supervision", "answer", "did you mean 'answers'"),
        ("supervision", "1.5", "from 0 to 1"),
        ("on_bad_row", "skipp", "did you mean 'skip'"),
        ("stretch", 0.5, "at least 1"),
        ("retention", -1.0, "at least 0"),
        ("redescribe_steps", 0, "at least 1"),
        ("backbone_learning_rate", 0.0, "greater than 0"),
        ("packing", True, "other conversations"),
    ]:
        with pytest.raises(TrainingArgumentsError, match=hint):
            NeuralLibTrainingArguments(output_dir=str(tmp_path), **{name: value})


def test_what_does_not_fit_together(tiny_model: NeuralLibForCausalLM, tiny_tokenizer: Any, tmp_path: Path) -> None:
    def start(peft_config: Any = None, model: Any = tiny_model, **more: Any) -> None:
        NeuralLibTrainer(model, arguments(tmp_path, **more), None, ROWS, None, tiny_tokenizer, peft_config)

    with pytest.raises(TrainingArgumentsError, match="needs an adapter"):
        start(train="heads+lora")
    with pytest.raises(TrainingArgumentsError, match=r"say train='heads\+lora'"):
        start(lora(), train="heads")
    with pytest.raises(TrainingArgumentsError, match="task_type"):
        start(lora(task_type="SEQ_CLS"))
    with pytest.raises(TrainingArgumentsError, match="retention"):
        start(train="all", retention=1.0)
    with pytest.raises(TrainingArgumentsError, match="expected a NeuralLibForCausalLM"):
        start(model=torch.nn.Linear(1, 1))
    with pytest.raises(TrainingArgumentsError, match="cached_features=False"):
        start(torch_compile=True)
    with pytest.raises(TrainingArgumentsError, match="processing_class"):
        NeuralLibTrainer(tiny_model, arguments(tmp_path), train_dataset=ROWS)
    with pytest.raises(TrainingDataError, match="row 0"):
        NeuralLibTrainer(tiny_model, arguments(tmp_path), train_dataset=[{"a": 1}], processing_class=tiny_tokenizer)


@pytest.mark.parametrize("adapter", [False, True])
def test_stock_arguments_serve(
    tiny_model: NeuralLibForCausalLM, tiny_tokenizer: Any, tmp_path: Path, adapter: bool
) -> None:
    stock = TrainingArguments(str(tmp_path), max_steps=1, report_to=[], use_cpu=True, disable_tqdm=True, save_strategy="no")
    trainer = NeuralLibTrainer(
        tiny_model, stock, None, ROWS[:3], ROWS[:2], tiny_tokenizer, peft_config=lora() if adapter else None
    )
    assert trainer.train().training_loss > 0 and trainer.evaluate()["eval_loss"] > 0
    assert stock.remove_unused_columns, "the arguments of whoever passed them stay as they are"


@pytest.mark.parametrize("trained", ["heads", "library_keys", "all", "heads+lora", "lora"])
def test_only_what_is_asked_for_is_trained(
    tiny_model: NeuralLibForCausalLM, tiny_tokenizer: Any, tmp_path: Path, trained: str
) -> None:
    trainer = NeuralLibTrainer(
        tiny_model,
        arguments(tmp_path, train=trained, max_steps=2, cached_features=False),
        train_dataset=ROWS[:3],
        processing_class=tiny_tokenizer,
        peft_config=lora() if trained.endswith("lora") else None,
    )
    before = weights(trainer.model)
    trainer.train()
    changed = {name for name, value in weights(trainer.model).items() if not torch.equal(value, before[name])}
    heads = {name for name in changed if ".computer." in name}
    adapter = {name for name in changed if "lora_" in name}
    assert {
        "heads": heads and heads == changed,
        "library_keys": changed == {"model.computer.offsets"},
        "all": {"model.embed_tokens.weight"} <= changed - heads and heads,
        "heads+lora": heads and adapter and heads | adapter == changed and all("modules_to_save" in n for n in heads),
        "lora": adapter and adapter == changed,
    }[trained]
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert set(logged[0]) >= PARTS
    assert logged[0]["loss"] == pytest.approx(logged[0]["answer_loss"] + logged[0]["prompt_loss"], rel=1e-4)


def held_to_its_base(model: NeuralLibForCausalLM, tokenizer: Any, folder: Path, **more: Any) -> NeuralLibTrainer:
    """A Trainer of an adapter, after its training."""
    trainer = NeuralLibTrainer(
        fresh(model),
        arguments(folder, **{"max_steps": 8, "learning_rate": 1e-2, **more}),
        train_dataset=ROWS[:3],
        processing_class=tokenizer,
        peft_config=lora(target_modules="all-linear"),
    )
    trainer.train()
    return trainer


def test_retention_is_the_divergence_from_the_base(
    tiny_model: NeuralLibForCausalLM, tiny_base: Any, tiny_tokenizer: Any, tmp_path: Path
) -> None:
    trainer = held_to_its_base(tiny_model, tiny_tokenizer, tmp_path, retention=0.5)
    for entry in (entry for entry in trainer.state.log_history if "loss" in entry):
        parts = entry["answer_loss"] + entry["prompt_loss"] + 0.5 * entry["departure"]
        assert entry["loss"] == pytest.approx(parts, rel=1e-4)
    assert trainer.state.log_history[0]["departure"] == pytest.approx(0, abs=1e-5), "an adapter begins as its base"

    batch = tiny_tokenizer([row["prompt"] for row in ROWS], return_tensors="pt", padding=True)
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    model = trainer.model.eval()
    inner = model.get_base_model()
    logits = inner.lm_head(inner.model(**inputs, decide_calls=False).last_hidden_state)
    found = trainer._departure(model, inputs, logits)
    with torch.no_grad():
        wanted = tiny_base(**inputs).logits.log_softmax(-1)
    each = (wanted.exp() * (wanted - logits.log_softmax(-1))).sum(-1)
    expected = each[inputs["attention_mask"].bool()].mean()
    assert expected > 1e-3
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-4)
    found.backward()
    moved = {
        name for name, parameter in model.named_parameters() if parameter.grad is not None and parameter.grad.any()
    }
    assert moved and all("lora_" in name for name in moved)


def test_retention_keeps_an_adapter_near_its_base(
    tiny_model: NeuralLibForCausalLM, tiny_tokenizer: Any, tmp_path: Path
) -> None:
    departures = []
    for weight in (1e-6, 300.0):
        trainer = held_to_its_base(tiny_model, tiny_tokenizer, tmp_path, retention=weight, max_steps=20)
        departures.append([entry["departure"] for entry in trainer.state.log_history if "departure" in entry][-1])
    assert departures[1] < 0.3 * departures[0]


def test_a_frozen_backbone_has_no_learning_rate(
    tiny_model: NeuralLibForCausalLM, tiny_tokenizer: Any, tmp_path: Path
) -> None:
    given = arguments(tmp_path, train="heads", backbone_learning_rate=2e-4)
    with pytest.raises(TrainingArgumentsError, match="leaves the backbone as it is"):
        NeuralLibTrainer(tiny_model, given, train_dataset=ROWS[:3], processing_class=tiny_tokenizer)


@pytest.mark.parametrize("trained", ["heads+lora", "all", "lora"])
def test_the_backbone_has_a_learning_rate_of_its_own(
    tiny_model: NeuralLibForCausalLM, tiny_tokenizer: Any, tmp_path: Path, trained: str
) -> None:
    rates = dict(learning_rate=5e-3, backbone_learning_rate=2e-4, lr_scheduler_type="linear", weight_decay=0.1)
    trainer = NeuralLibTrainer(
        tiny_model,
        arguments(tmp_path, train=trained, max_steps=4, cached_features=False, **rates),
        train_dataset=ROWS[:3],
        processing_class=tiny_tokenizer,
        peft_config=lora() if trained.endswith("lora") else None,
    )
    groups = trainer.create_optimizer().param_groups
    found = {id(parameter): group for group in groups for parameter in group["params"]}
    learning = {name: parameter for name, parameter in trainer.model.named_parameters() if parameter.requires_grad}
    assert sum(len(group["params"]) for group in groups) == len(found) == len(learning)
    decays = set(trainer.get_decay_parameter_names(trainer.model))
    for name, parameter in learning.items():
        group = found[id(parameter)]
        assert group["lr"] == (5e-3 if ".computer." in name else 2e-4), name
        assert group["weight_decay"] == (0.1 if name in decays else 0.0), name
    trainer.train()
    optimizer = trainer.optimizer.optimizer if hasattr(trainer.optimizer, "optimizer") else trainer.optimizer
    assert {group["lr"] for group in optimizer.param_groups} == {0.0}, "both follow the schedule"
    assert {group["initial_lr"] for group in optimizer.param_groups} == {5e-3, 2e-4}


class _Watched(TrainerCallback):
    """The descriptions at the beginning of every step."""

    def __init__(self, model: NeuralLibForCausalLM):
        self.model = model
        self.seen: list[torch.Tensor] = []

    def on_step_begin(self, *parts: Any, **kwargs: Any) -> None:
        self.seen.append(self.model.computer.descriptions.clone())


@pytest.mark.parametrize("trained", ["all", "heads+lora", "lora", "heads"])
def test_descriptions_follow_a_backbone_that_learns(
    tiny_model: NeuralLibForCausalLM, tiny_tokenizer: Any, tmp_path: Path, trained: str
) -> None:
    first = tiny_model.computer.descriptions.clone()
    watched = _Watched(tiny_model)
    trainer = NeuralLibTrainer(
        tiny_model,
        arguments(tmp_path, train=trained, max_steps=3, redescribe_steps=2, cached_features=False),
        train_dataset=ROWS[:3],
        processing_class=tiny_tokenizer,
        peft_config=lora() if trained.endswith("lora") else None,
        callbacks=[watched],
    )
    trainer.train()
    computer, last = tiny_model.computer, tiny_model.computer.descriptions.clone()
    same = [torch.equal(one, first) for one in [*watched.seen, last]]
    if trained in ("heads", "lora"):
        assert all(same), "heads that a backbone leaves, or is trained for, keep their keys"
        return
    assert same == [True, True, False, False] and not torch.equal(watched.seen[2], last)
    tiny_model.redescribe(tiny_tokenizer)
    assert torch.equal(computer.descriptions, last), "they are those of the backbone as it is"
    computer.eval()
    assert torch.equal(computer.settled()[0], computer.keys())
    if trained == "heads+lora":
        with trainer.model.disable_adapter():
            assert torch.equal(tiny_model.computer.descriptions, first), "the base has its own again"


@pytest.mark.parametrize("cached", [True, False])
def test_accumulated_batches_are_one_big_batch(
    tiny_model: NeuralLibForCausalLM, tiny_tokenizer: Any, tmp_path: Path, cached: bool
) -> None:
    # An open gate, so that calls weigh as much as the backbone's words.
    tiny_model.computer.selector.no_call.bias.data.zero_()
    found = []
    for size, steps in ((4, 1), (1, 4), (3, 2)):
        model = fresh(tiny_model)
        how = dict(optim="sgd", learning_rate=0.1, max_grad_norm=0.0, cached_features=cached, prompt_weight=0.5)
        trainer = NeuralLibTrainer(
            model,
            arguments(tmp_path, per_device_train_batch_size=size, gradient_accumulation_steps=steps, **how),
            train_dataset=ROWS,
            processing_class=tiny_tokenizer,
        )
        trainer.train()
        found.append((weights(model.computer), trainer.state.log_history[0]["loss"]))
    for values, loss in found[1:]:
        assert loss == pytest.approx(found[0][1], rel=1e-4)
        for name, value in found[0][0].items():
            torch.testing.assert_close(values[name], value, atol=2e-5, rtol=1e-3)


def test_heads_learn_from_rows_and_are_saved_as_a_model(
    tiny_model: NeuralLibForCausalLM, tiny_tokenizer: Any, tmp_path: Path
) -> None:
    # An answer that the backbone finds unlikely: else a random one explains it better than an untrained reader does.
    rows = [{"prompt": "Turn strawberryblueberry around", "completion": "yrrebeulbyrrebwarts"}, ROWS[3]]
    more = dict(max_steps=60, logging_steps=20, sample_size=4, sample_steps=20, eval_strategy="steps", eval_steps=30)
    trainer = NeuralLibTrainer(
        fresh(tiny_model),
        arguments(tmp_path, learning_rate=1e-2, lr_scheduler_type="linear", **more),
        train_dataset=rows,
        eval_dataset=rows,
        processing_class=tiny_tokenizer,
    )
    trainer.train()
    assert trainer.cached and trainer.data_reports["train"].unexplained == [1]
    last = [entry for entry in trainer.state.log_history if "eval_exact" in entry][-1]
    assert last["eval_exact"] == last["eval_quiet"] == 1 and last["eval_call_rate"] == 0.5
    assert last["eval_steps_per_call"] > 1 and last["eval_selector_errors"] == last["eval_reader_errors"] == 0
    assert any("sample_exact" in entry for entry in trainer.state.log_history)
    trainer.save_model(str(tmp_path / "model"))
    loaded = NeuralLibForCausalLM.from_pretrained(tmp_path / "model")
    prompt = tiny_tokenizer.apply_chat_template(
        [{"role": "user", "content": rows[0]["prompt"]}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    output = loaded.generate(**prompt, max_new_tokens=30, do_sample=False, return_dict_in_generate=True)
    answer = tiny_tokenizer.decode(output.sequences[0, prompt["input_ids"].shape[1] :])
    assert answer == rows[0]["completion"] + "<|im_end|>" and output.calls[0][0].result == rows[0]["completion"]


def test_checkpointed_activations_and_bf16(
    tiny_model: NeuralLibForCausalLM, tiny_tokenizer: Any, tmp_path: Path
) -> None:
    found = []
    for more in ({}, {CHECKPOINTING: True}, {"bf16": True}):
        model = fresh(tiny_model)
        how = dict(optim="sgd", learning_rate=0.01, max_grad_norm=0.0, train="all", **more)
        trainer = NeuralLibTrainer(
            model, arguments(tmp_path, **how), train_dataset=ROWS[:3], processing_class=tiny_tokenizer
        )
        seen: set[torch.dtype] = set()
        model.computer.selector.memory.register_forward_hook(lambda *parts: seen.add(parts[2].dtype))  # noqa: B023
        trainer.train()
        assert seen == {torch.float32}, "the heads compute in float32"
        found.append((weights(model), trainer.state.log_history[0]["loss"]))
    assert found[1][1] == pytest.approx(found[0][1], rel=1e-6)
    for name, value in found[0][0].items():
        torch.testing.assert_close(found[1][0][name], value, atol=1e-6, rtol=1e-5)
    assert found[2][1] == pytest.approx(found[0][1], rel=0.02) and found[2][1] != found[0][1]


def test_an_adapter_resumes_to_the_bit(tiny_model: NeuralLibForCausalLM, tiny_tokenizer: Any, tmp_path: Path) -> None:
    def run(steps: int, folder: str, resume: bool = False) -> dict[str, torch.Tensor]:
        torch.manual_seed(7)
        more = dict(max_steps=steps, per_device_train_batch_size=2, save_strategy="steps", save_steps=3)
        more |= dict(retention=0.5, backbone_learning_rate=1e-3, redescribe_steps=2)
        trainer = NeuralLibTrainer(
            fresh(tiny_model, dropout=0.1),
            arguments(tmp_path / folder, **more),
            train_dataset=ROWS,
            processing_class=tiny_tokenizer,
            peft_config=lora(lora_dropout=0.1),
        )
        trainer.train(resume_from_checkpoint=resume or None)
        return {
            name: value
            for name, value in weights(trainer.model).items()
            if "lora_" in name or "modules_to_save" in name
        }

    straight = run(6, "straight")
    run(3, "halved")
    resumed = run(6, "halved", resume=True)
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)
    assert any("lora_B" in name and value.abs().sum() > 0 for name, value in straight.items())


def test_early_stopping_on_what_is_measured(
    tiny_model: NeuralLibForCausalLM, tiny_tokenizer: Any, tmp_path: Path
) -> None:
    more = dict(max_steps=20, eval_strategy="steps", eval_steps=2, save_strategy="steps", save_steps=2, sample_size=4)
    trainer = NeuralLibTrainer(
        tiny_model,
        arguments(
            tmp_path,
            learning_rate=0.0,
            load_best_model_at_end=True,
            metric_for_best_model="exact",
            save_total_limit=1,
            **more,
        ),
        train_dataset=ROWS[:3],
        eval_dataset=ROWS[:3],
        processing_class=tiny_tokenizer,
        callbacks=[EarlyStoppingCallback(early_stopping_patience=2)],
    )
    trainer.train()
    assert trainer.state.global_step == 6
    assert trainer.state.best_model_checkpoint == str(tmp_path / "checkpoint-2")
    assert (tmp_path / "checkpoint-2").is_dir() and not (tmp_path / ".unfinished").exists()


@pytest.mark.parametrize("cached", [True, False])
def test_predictions_on_rows_are_those_of_evaluation(
    tiny_model: NeuralLibForCausalLM, tiny_tokenizer: Any, tmp_path: Path, cached: bool
) -> None:
    settings = arguments(tmp_path, sample_size=4, cached_features=cached)
    trainer = NeuralLibTrainer(tiny_model, settings, train_dataset=ROWS[:2], processing_class=tiny_tokenizer)
    found, evaluated = trainer.predict(ROWS).metrics, trainer.evaluate(ROWS)
    for name in ("loss", "exact", "quiet"):
        assert found[f"test_{name}"] == pytest.approx(evaluated[f"eval_{name}"]), name
    assert trainer.data_reports["test"].unexplained == [3]


def test_a_stream_trains_through_the_model(
    tiny_model: NeuralLibForCausalLM, tiny_tokenizer: Any, tmp_path: Path
) -> None:
    from datasets import Dataset

    Dataset.from_list(ROWS).to_parquet(tmp_path / "rows.parquet")
    trainer = NeuralLibTrainer(
        tiny_model,
        arguments(tmp_path, max_steps=3, per_device_train_batch_size=2, on_unexplained="skip"),
        train_dataset=load_rows(tmp_path / "rows.parquet", streaming=True),
        processing_class=tiny_tokenizer,
    )
    trainer.train()
    assert not trainer.cached and trainer.state.global_step == 3


def test_the_stock_trainer_and_tokens(tiny_model: NeuralLibForCausalLM, tiny_tokenizer: Any, tmp_path: Path) -> None:
    from datasets import Dataset

    plain = TrainingArguments(
        output_dir=str(tmp_path), max_steps=30, per_device_train_batch_size=3, learning_rate=5e-3, report_to=[],
        use_cpu=True, disable_tqdm=True, save_strategy="no", logging_steps=10, remove_unused_columns=False,
    )  # fmt: skip
    data = Dataset.from_list(ROWS[:3])
    collator = DataCollatorForCalls(tiny_tokenizer, tiny_model)
    stock = Trainer(tiny_model, plain, collator, data, eval_dataset=data)
    stock.train()
    losses = [entry["loss"] for entry in stock.state.log_history if "loss" in entry]
    assert losses[-1] < losses[0] and stock.predict(data).predictions.shape[0] == 3
    reader = RowReader(tiny_model, tiny_tokenizer)
    tokens = []
    for row in ROWS[:3]:
        conversation = reader.lesson(row)[0].conversation
        ids = list(conversation.tokens)
        tokens.append({"input_ids": ids, "labels": [-100] * conversation.prompt + ids[conversation.prompt :]})
    trainer = NeuralLibTrainer(
        tiny_model, arguments(tmp_path), train_dataset=Dataset.from_list(tokens), processing_class=tiny_tokenizer
    )
    trainer.train()
    assert trainer.state.log_history[0]["call_loss"] > 0, "rows of tokens are explained in the model"


def test_a_compiled_backbone_has_the_same_loss(
    tiny_model: NeuralLibForCausalLM, tiny_tokenizer: Any, tmp_path: Path
) -> None:
    from torch._dynamo.utils import counters

    losses = []
    for compiled in (False, True):
        counters.clear()
        more = dict(torch_compile=compiled, torch_compile_backend="aot_eager" if compiled else None)
        trainer = NeuralLibTrainer(
            fresh(tiny_model),
            arguments(tmp_path, train="all", **more),
            train_dataset=ROWS[:2],
            processing_class=tiny_tokenizer,
        )
        trainer.train()
        assert (counters["frames"]["ok"] > 0) == compiled
        losses.append(trainer.state.log_history[0]["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_a_recipe_for_your_own_data(tiny_model: NeuralLibForCausalLM, tiny_tokenizer: Any, tmp_path: Path) -> None:
    from datasets import Dataset

    base, data = tmp_path / "base", tmp_path / "rows.parquet"
    tiny_model.save_pretrained(base)
    tiny_tokenizer.save_pretrained(base)
    Dataset.from_list(ROWS).to_parquet(data)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"base: {base}\noutput: {tmp_path / 'run'}\ndata: {data}\nvalidation_data: {data}\nbatch_size: 2\n"
        "max_steps: 2\nuse_cpu: true\npeft: {r: 2, target_modules: [q_proj]}\n"
    )
    report = follow(recipe, ["gradient_accumulation_steps=2"])
    assert report["data"]["train"]["unexplained"] == [3] and "eval_exact" in report["validation"]
    assert (tmp_path / "run" / "model" / "adapter_model.safetensors").exists()
    with pytest.raises(RecipeError, match="did you mean 'gradient_accumulation_steps'"):
        Recipe.load(recipe, ["gradient_acumulation_steps=2"])
    with pytest.raises(RecipeError, match="did you mean 'heads'"):
        Recipe.load(recipe, ["train=head"]).training_arguments(tmp_path)
    with pytest.raises(RecipeError, match="did you mean 'target_modules'"):
        Recipe.load(recipe, ["peft={target_module: [q_proj]}"]).adapter()
    with pytest.raises(RecipeError, match="did you mean 'LORA'"):
        Recipe.load(recipe, ["peft={peft_type: lorra}"]).adapter()


@pytest.mark.parametrize("name", ["activation_checkpointing", "gradient_checkpointing"])
def test_a_recipe_names_an_argument_as_any_version_does(tmp_path: Path, name: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(f"use_cpu: true\n{name}: true\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        found = Recipe.load(path, [f"{name}_kwargs={{use_reentrant: false}}"]).training_arguments(tmp_path)
    assert getattr(found, CHECKPOINTING) is True
    assert getattr(found, f"{CHECKPOINTING}_kwargs") == {"use_reentrant": False}


def test_recipes_that_are_shipped_can_be_followed(tmp_path: Path) -> None:
    folder = Path(__file__).parents[2] / "configuration" / "recipes"
    found = {path.stem: Recipe.load(path, ["use_cpu=true", "bf16=false"]) for path in folder.glob("*.yaml")}
    assert found["llama-3.2-1b-lora"].adapter().r == 16 and found["own-data"].data == "rows.jsonl"
    for recipe in found.values():
        assert recipe.training_arguments(tmp_path).learning_rate == recipe.learning_rate
