"""Training: the Trainer of models that call programs, on remembered features or through the whole model."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, cast

import torch
from huggingface_hub import HfApi
from torch import Tensor, nn
from torch.utils.data import Dataset
from tqdm.auto import tqdm
from transformers import Trainer, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, HubStrategy, rotate_checkpoints

from ..modeling_neurallib.call import Call
from ..modeling_neurallib.dense_objective import DenseObjective
from ..modeling_neurallib.library_hub import hub_reason
from ..modeling_neurallib.loaded_libraries import records
from ..modeling_neurallib.modeling_neurallib import Computer, MachineConfig, NeuralLibForCausalLM
from ..modeling_neurallib.objective import CallBatch, MarginalObjective
from ..modeling_neurallib.selector import StateProjection
from ..modeling_neurallib.sharing import CARD, PublishError
from .adapters import adapted, is_adapted, language_model_of
from .arguments import NeuralLibTrainingArguments, TrainingArgumentsError
from .callbacks import DescriptionsFollowTheBackbone, KeysFollowTheBackbone, OtherKeysStay
from .checkpoints import STAGE, check_made_with, put_back, put_in_place, said_clearly, write_made_with
from .collator import DataCollatorForCalls
from .descriptions import Descriptions
from .drift import BlindToDrift, drift_directions
from .features import FeatureCache, backbone_hash
from .lessons import Lesson, Lessons, SimilarLengths, collate
from .outcomes import Expected, calls_of_lessons, expected, outcome, summary
from .own_data import DataReport, RowReader, StreamedLessons, is_tokenized, load_rows, read_rows
from .publishing import describe, upload
from .publishing import prepare as prepared_publication
from .record import source_of, training_record, write_record
from .whitening import plain_state, whitened_for

FROZEN = ("heads", "library_keys")
"""What can be trained with the backbone as it is."""

RETAINED = 1_024
"""Positions of a batch on which an adapted backbone is compared with its base."""


class HeadsForTraining(nn.Module):
    """The computer with the marginal objective: what the Trainer optimises while the backbone is frozen."""

    # What ``loss_is_scaled_for_ga`` says, for versions of transformers that ask the model.
    accepts_loss_kwargs = True

    def __init__(self, computer: Computer):
        super().__init__()
        self.computer = computer

    def forward(self, batch: CallBatch) -> dict[str, Any]:
        """``log_likelihoods`` [B] of the replies and their ``parts``, what the backbone's own words cost left out."""
        # The heads are float32 whatever precision the rest trains in.
        with torch.autocast(batch.features.device.type, enabled=False):
            likelihoods, parts = MarginalObjective(self.computer).score(batch)
        called = torch.tensor([bool(found) for found in batch.explanations], device=likelihoods.device)
        # The backbone's own words cost what they cost: only what the heads decide is compared between lessons.
        fixed = torch.where(called, torch.zeros_like(likelihoods), batch.base.sum(1))
        return {"log_likelihoods": likelihoods - fixed, "parts": parts}


class NeuralLibTrainer(Trainer):
    """The Hugging Face Trainer for a model that calls programs.

    With a frozen backbone (``train="heads"`` or ``"library_keys"``) and finite data, the backbone runs once over the data, its
    states are kept on disk, and only the heads run while training. Otherwise the data goes through the whole model. Both
    maximise the mean log-likelihood of the answers, so a number of accumulated or distributed batches has the gradient
    of one big batch.

    Args:
        model: with a library; may be wrapped by PEFT. args: those of the Hugging Face Trainer leave ours at their defaults.
        data_collator: :class:`DataCollatorForCalls` by default.
        train_dataset, eval_dataset: rows as :mod:`.own_data` describes them (``datasets``, a list, anything that can be iterated
            over, or a file or name for :func:`load_rows`), rows of ``input_ids`` and ``labels``, or :class:`Lessons`.
        processing_class: the tokenizer; needed but for lessons.
        peft_config: puts an adapter on the backbone.
        kwargs: of ``Trainer``.
    Raises:
        TrainingArgumentsError: arguments that contradict each other, or the model.
        TrainingDataError: data that cannot be trained on.
    """

    # compute_loss divides by the sequences of all accumulated batches.
    loss_is_scaled_for_ga = True

    def __init__(
        self,
        model: Any,
        args: TrainingArguments | None = None,
        data_collator: Any = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        peft_config: Any = None,
        **kwargs: Any,
    ):
        args = NeuralLibTrainingArguments(output_dir="tmp_trainer") if args is None else args
        self.ours = args if isinstance(args, NeuralLibTrainingArguments) else _ours_by_default(args)
        if args is not self.ours:
            args = copy.copy(args)
            args.remove_unused_columns = False
            if args.ddp_find_unused_parameters is None:
                args.ddp_find_unused_parameters = self.ours.ddp_find_unused_parameters
        model = NeuralLibForCausalLM.from_pretrained(model) if isinstance(model, str) else model
        self.language_model = language_model_of(model)
        self.trained = _what_is_trained(self.ours.train, is_adapted(model), peft_config)
        self._check_trained()
        if peft_config is not None:
            model = adapted(self.language_model, peft_config, heads=self.trained == "heads+lora")
        self.language_model.config.estimator = self.ours.estimator
        if self.ours.estimator == "dense":
            # Refuses what the dense engine is too small for, before any data is read.
            DenseObjective(
                self.language_model.computer, MachineConfig(**(self.language_model.config.dense_machine or {}))
            )
        _freeze(self.language_model, self.trained)
        self.data_reports: dict[str, DataReport] = {}
        held_out = eval_dataset if isinstance(eval_dataset, dict) else {"evaluation": eval_dataset}
        self._sources = {name: source_of(data) for name, data in {"train": train_dataset, **held_out}.items()}
        self._tokenizer, self._args = processing_class, args
        self.cached = self._from_features(train_dataset if train_dataset is not None else eval_dataset)
        self._check_stock(args)
        self._features = Path(str(args.output_dir)) / "features"
        train_dataset = self._lessons(train_dataset, "train")
        if isinstance(eval_dataset, dict):
            eval_dataset = {name: self._lessons(one, name) for name, one in eval_dataset.items()}
        else:
            eval_dataset = self._lessons(eval_dataset, "evaluation")
        if data_collator is None:
            data_collator = collate if self.cached else self._collator()
        self._sums: dict[str, float] = defaultdict(float)
        self._samples: dict[int, tuple[Any, list[tuple[Any, Expected]]]] = {}
        self._samples_taken = 0
        self._staging: Path | None = None
        self._backbone = backbone_hash(self.language_model) if self.trained in FROZEN else ""
        super().__init__(
            model=HeadsForTraining(self.language_model.computer) if self.cached else model,
            args=args,
            data_collator=data_collator,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            **kwargs,
        )
        self.model_accepts_loss_kwargs = True  # of :meth:`compute_loss`, which divides accumulated batches itself; not of the model
        self._descriptions: Descriptions | None = None
        if self.ours.keys_from_descriptions:
            self._descriptions = Descriptions(self.language_model, self._tokenizer)
            for computer in self.language_model._computers():
                computer.offsets.requires_grad_(False)
        if not self.cached and self.trained in ("all", "heads+lora") and self._tokenizer is not None:
            self.add_callback(KeysFollowTheBackbone(self.language_model, self._tokenizer, self.ours.redescribe_steps))
            if self._descriptions is not None:
                self.add_callback(DescriptionsFollowTheBackbone(self._descriptions, self.ours.redescribe_steps))
        if self.ours.whitening:
            self._check_whitening()
        self._drift: Tensor | None = None
        if self.ours.drift_directions or self.ours.end_drift_directions:
            self._blind_the_heads()
        if self.ours.tuned_programs is not None:
            self.add_callback(OtherKeysStay(self.language_model.computer, self.ours.tuned_programs))

    def _check_trained(self) -> None:
        """Refuses arguments for the backbone or an adapter where none is trained."""
        if self.ours.backbone_learning_rate is not None and self.trained in FROZEN:
            raise TrainingArgumentsError(
                f"backbone_learning_rate is given, but train={self.trained!r} leaves the backbone as it is: leave it out"
            )
        if self.ours.retention and not self.trained.endswith("lora"):
            raise TrainingArgumentsError(
                f"retention compares an adapted backbone with its base, and train={self.trained!r} has no adapter: pass "
                "peft_config=LoraConfig(task_type='CAUSAL_LM', target_modules=…), or leave retention at 0"
            )

    def _check_stock(self, args: TrainingArguments) -> None:
        """Refuses what the stock Trainer offers and this one does not."""
        if self.cached and args.torch_compile:
            raise TrainingArgumentsError(
                "torch_compile compiles the backbone, which does not run while heads train on remembered features: leave it "
                "off, or set cached_features=False"
            )
        if args.push_to_hub and args.hub_strategy in (HubStrategy.CHECKPOINT, HubStrategy.ALL_CHECKPOINTS):
            raise TrainingArgumentsError(NO_CHECKPOINTS_ON_THE_HUB)

    def _blind_the_heads(self) -> None:
        """Measures how the backbone's states drift along lists; no projection that learns will see it."""
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            raise TrainingArgumentsError(
                "drift_directions and end_drift_directions need the heads' weights whole in each process, which FSDP and "
                "DeepSpeed divide: leave them at 0"
            )
        if self._tokenizer is None:
            raise TrainingArgumentsError(
                "drift_directions and end_drift_directions need the tokenizer: pass processing_class=tokenizer"
            )
        learning = [part.linear for part in self._projections()]
        if not learning:
            raise TrainingArgumentsError(
                f"drift_directions and end_drift_directions change projections that train={self.trained!r} leaves as they are: "
                "leave them at 0"
            )
        self.language_model.to(self._args.device)  # type: ignore[arg-type]  # the stub of transformers
        self._drift = drift_directions(
            self.language_model, self._tokenizer, self.ours.drift_directions, self.ours.end_drift_directions
        )
        blind_by_themselves = self._to_whiten() if self.ours.whitening else []
        for linear in learning:
            if not any(linear is one for one in blind_by_themselves):
                self.add_callback(BlindToDrift(linear, self._drift))

    def _projections(self) -> list[StateProjection]:
        """Of features to the states of the heads: those that learn."""
        parts = [part.projection for each in self.language_model._computers() for part in (each, each.reader)]
        return [part for part in parts if part.linear.weight.requires_grad]

    def _to_whiten(self) -> list[nn.Linear]:
        """Those whose features are not dropped: a channel that is left out is noise in all white directions."""
        return [part.linear for part in self._projections() if not part.dropout.share]

    def _check_whitening(self) -> None:
        if not self.cached or self.trained != "heads":
            raise TrainingArgumentsError(
                f"whitening is of remembered features, from which heads learn: here train={self.trained!r} goes through the whole "
                "model or leaves the projections as they are; leave it at 0"
            )
        if not self._to_whiten():
            raise TrainingArgumentsError(
                "whitening needs a head_dropout or a reader_dropout of 0: a channel that is dropped is noise in all white "
                "directions"
            )
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            raise TrainingArgumentsError(
                "whitening needs the heads' weights whole in each process, which FSDP and DeepSpeed divide: leave it at 0"
            )

    # Data

    def _from_features(self, dataset: Any) -> bool:
        """Whether the heads train on remembered features."""
        frozen = self.trained in FROZEN and self.ours.estimator == "marginal"
        if isinstance(dataset, Lessons):
            if not frozen:
                raise TrainingArgumentsError(
                    f"lessons hold features of a frozen backbone, which train={self.trained!r} and "
                    f"estimator={self.ours.estimator!r} cannot use: pass the rows themselves"
                )
            return True
        finite = isinstance(dataset, (str, Path)) or hasattr(dataset, "__len__")
        if not (frozen and self.ours.cached_features and finite):
            return False
        return isinstance(dataset, (str, Path)) or not is_tokenized(dataset)

    def _reader(self) -> RowReader:
        if self._tokenizer is None:
            raise TrainingArgumentsError("rows of text need the tokenizer: pass processing_class=tokenizer")
        ours = self.ours
        return RowReader(
            self.language_model,
            self._tokenizer,
            ours.supervision,
            ours.budget,
            ours.most_explanations,
            ours.max_length,
            self._args.seed,
        )

    def _collator(self) -> DataCollatorForCalls:
        if self._tokenizer is None:
            raise TrainingArgumentsError("the collator needs the tokenizer: pass processing_class=tokenizer")
        return DataCollatorForCalls(self._tokenizer, self.language_model, budget=self.ours.budget)

    def _lessons(self, dataset: Any, name: str) -> Any:
        """A data set as the training loop takes it."""
        if isinstance(dataset, (str, Path)):
            dataset = load_rows(dataset)
        if dataset is None or isinstance(dataset, (Lessons, _Listed, StreamedLessons)) or is_tokenized(dataset):
            return dataset
        reader, ours = self._reader(), self.ours
        if not hasattr(dataset, "__len__"):
            stream = StreamedLessons(dataset, reader, ours.on_bad_row, ours.on_unexplained)
            self.data_reports[name] = stream.report
            return stream
        lessons, self.data_reports[name] = read_rows(dataset, reader, ours.on_bad_row, ours.on_unexplained, name)
        if not self.cached:
            return _Listed(lessons)
        with said_clearly("features of the backbone", self._features):
            self.language_model.to(self._args.device)  # type: ignore[arg-type]  # the stub of transformers
            cache = FeatureCache(self.language_model, self._features, self.ours.bf16_features)
            with tqdm(total=len(lessons), desc=f"{name}: features of the backbone") as bar:
                end = self.language_model.config.end_of_turn_token_id
                cache.fill([lesson.heard(end) for lesson in lessons], progress=bar.update)
        return Lessons(lessons, cache, self.language_model.computer)

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        lessons = self.train_dataset if train_dataset is None else train_dataset
        if isinstance(lessons, (Lessons, _Listed)):
            lengths = [len(lesson.conversation.tokens) for lesson in lessons.lessons]
            # The order depends on the epoch alone: a checkpoint within one does not hold the random state at its beginning.
            return SimilarLengths(lengths, self.args.train_batch_size, seed=self.args.seed)
        return super()._get_train_sampler(train_dataset)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        if eval_dataset is not None and not isinstance(eval_dataset, str):
            eval_dataset = self._lessons(eval_dataset, "evaluation")
        return super().get_eval_dataloader(eval_dataset)

    def get_test_dataloader(self, test_dataset: Any) -> Any:
        return super().get_test_dataloader(self._lessons(test_dataset, "test"))

    # Loss

    def _get_num_items_in_batch(self, batch_samples: list[dict[str, Any]], device: torch.device) -> Tensor:
        """Sequences in all accumulated batches of all processes."""
        count = sum(len(batch["batch"] if "batch" in batch else batch["input_ids"]) for batch in batch_samples)
        rows = torch.tensor(float(count), device=device)
        return self.accelerator.gather(rows).sum() if self.args.world_size > 1 else rows

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """−(Σ log p(answer) + ``prompt_weight`` · Σ mean log p(no call in the prompt)) / sequences + ``retention`` · departure."""
        with self._weighing(model.training):
            outputs = model(**inputs)
        likelihoods, parts = outputs["log_likelihoods"], outputs.get("parts") or {}
        quiet = parts.get("prompt_no_call", torch.zeros_like(likelihoods))
        rows = len(likelihoods) if num_items_in_batch is None else num_items_in_batch
        loss = -(likelihoods.sum() + self.ours.prompt_weight * quiet.sum()) / rows
        if self.ours.retention and model.training and not self.cached:
            departure = self._departure(model, inputs, outputs["logits"])
            loss = loss + self.ours.retention * departure * len(likelihoods) / rows
            parts = {**parts, "departure": departure.detach().expand(len(likelihoods))}
        if num_items_in_batch is not None:
            # The gradients of the processes are averaged.
            loss = loss * self.accelerator.num_processes
        if model.training:
            self._remember(likelihoods.detach(), {name: part.detach() for name, part in parts.items()})
        return (loss, outputs) if return_outputs else loss

    @contextmanager
    def _weighing(self, training: bool) -> Iterator[None]:
        """Within, the computer scores as this step of training does, or as evaluation; afterwards as it did before."""
        # PEFT's wrapper of the computer keeps what is set on it; what the copies within look at is set on each.
        computer, each = self.language_model.computer, self.language_model._computers()
        before = (computer.reading_weight, computer.alone_weight, computer.stretch)
        try:
            computer.reading_weight = self._reading_weight() if training else 1.0
            computer.alone_weight = self.ours.alone_weight if training else 1.0
            computer.stretch = self.ours.stretch
            if training and self._descriptions is not None:
                drawn = self._descriptions.draw().to(computer.descriptions.device)
                for one in each:
                    one.drawn = drawn
            yield
        finally:
            computer.reading_weight, computer.alone_weight, computer.stretch = before
            for one in each:
                one.drawn = None

    def _departure(self, model: nn.Module, inputs: dict[str, Any], logits: Tensor) -> Tensor:
        """KL(base ‖ adapted) of the next token, in nats: a mean over ``RETAINED`` positions of a batch, drawn at random."""
        tokens, mask = inputs["input_ids"], inputs.get("attention_mask")
        mask = torch.ones_like(tokens) if mask is None else mask
        rows, columns = mask.nonzero(as_tuple=True)
        chosen = torch.randperm(len(rows), device=rows.device)[:RETAINED]
        rows, columns = rows[chosen], columns[chosen]
        language_model = self.language_model
        with torch.no_grad(), self.accelerator.unwrap_model(model).disable_adapter():  # type: ignore[operator]
            states = language_model.model(tokens, attention_mask=mask, use_cache=False, decide_calls=False)
            wanted = language_model.lm_head(states.last_hidden_state[rows, columns]).float().log_softmax(-1)
        found = logits[rows, columns].float().log_softmax(-1)
        return nn.functional.kl_div(found, wanted, reduction="batchmean", log_target=True)

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        """As the stock one; what is not of the heads learns at ``backbone_learning_rate``, where one is given."""
        fresh = self.optimizer is None
        optimizer: torch.optim.Optimizer = super().create_optimizer(*args, **kwargs)
        rate = self.ours.backbone_learning_rate
        if fresh and rate is not None and not self.cached:
            heads = {id(parameter) for parameter in self.language_model.computer.parameters()}
            for group in list(optimizer.param_groups):
                others = [parameter for parameter in group["params"] if id(parameter) not in heads]
                group["params"] = [parameter for parameter in group["params"] if id(parameter) in heads]
                optimizer.add_param_group({**group, "params": others, "lr": rate})
        return optimizer

    def _reading_weight(self) -> float:
        """See :class:`MarginalObjective`: rises from 0.05 to 1 in the part ``tempering`` of the steps; 0 where nothing is read."""
        step, share = self.state.global_step, self.ours.reading_share
        if int((step + 1) * share) == int(step * share):
            return 0.0
        tempered = self.ours.tempering * max(self.state.max_steps, 1)
        return min(1.0, 0.05 + 0.95 * self.state.global_step / tempered) if tempered else 1.0

    def prediction_step(
        self, model: nn.Module, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: list[str] | None = None
    ) -> tuple[Tensor | None, Any, Any]:
        if not self.cached:
            return super().prediction_step(model, inputs, prediction_loss_only, ignore_keys)
        with torch.no_grad():
            loss = self.compute_loss(model, self._prepare_inputs(inputs))
        return loss, None, None

    def _prepare_input(self, data: Any) -> Any:
        return data.to(self.args.device) if isinstance(data, CallBatch) else super()._prepare_input(data)

    # What is logged

    def _remember(self, likelihoods: Tensor, parts: dict[str, Tensor]) -> None:
        """Sums over sequences until the next log."""
        sums = self._sums
        sums["rows"] += len(likelihoods)
        sums["likelihood"] += float(likelihoods.sum())
        for name, part in parts.items():
            sums[name] += float(part.sum())
        if "calls" in parts:
            sums["explained"] += float((parts["calls"] != 0).sum())

    def _parts(self) -> dict[str, float]:
        """Means since the last log, over all processes.

        ``loss`` = ``answer_loss`` + ``prompt_weight`` · ``prompt_loss`` + ``retention`` · ``departure``: −log p(answer) a
        sequence, and −log p(no call), the mean over a prompt. Besides ``call_loss``: −log p(the calls that explain it: gate,
        program, reading, lead, end) a sequence that has any; ``selection_entropy``, nats; ``call_rate``: share of sequences
        whose gate opens where a call should begin, else at the last prompt token; ``departure``: KL(base ‖ adapted) of the
        next token, nats.
        """
        names = ("rows", "likelihood", "explained", "calls", "prompt_no_call", "entropy", "opens", "departure")
        sums = torch.tensor([self._sums[name] for name in names], device=self.args.device)
        self._sums.clear()
        if self.args.world_size > 1:
            sums = self.accelerator.reduce(sums)
        rows, likelihood, explained, calls, quiet, entropy, opens, departure = sums.tolist()
        if not rows:
            return {}
        return {
            "answer_loss": -likelihood / rows,
            "prompt_loss": -quiet / rows,
            **({"call_loss": -calls / explained} if explained else {}),
            "selection_entropy": entropy / rows,
            "call_rate": opens / rows,
            **({"departure": departure / rows} if self.ours.retention else {}),
        }

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            logs |= self._parts() if self.ours.estimator == "marginal" else {}
            taken = self.state.global_step // self.ours.sample_steps
            if taken > self._samples_taken:
                logs |= {f"sample_{name}": value for name, value in self.sampled(self.train_dataset).items()}
            self._samples_taken = taken
        super().log(logs, start_time)

    def evaluation_loop(self, dataloader: Any, *args: Any, **kwargs: Any) -> Any:
        output = super().evaluation_loop(dataloader, *args, **kwargs)
        prefix = kwargs.get("metric_key_prefix", "eval")
        sampled = {f"{prefix}_{name}": value for name, value in self.sampled(dataloader.dataset).items()}
        output = output._replace(metrics=(output.metrics or {}) | sampled)
        return output

    @torch.no_grad()
    def sampled(self, dataset: Any) -> dict[str, float]:
        """What the model really does on a sample of a data set: see :func:`~.outcomes.summary`. Nothing for rows of tokens."""
        if not self.ours.sample_size or dataset is None or is_tokenized(dataset):
            return {}
        if id(dataset) not in self._samples:
            self._samples[id(dataset)] = (dataset, self._sample(dataset))
        chosen = self._samples[id(dataset)][1]
        # The loop trains a model that may be wrapped and sharded: it is asked as it is.
        model = cast(nn.Module, self.model_wrapped if self.is_in_train else self.model)
        training = model.training
        model.eval()
        found = []
        size = max(1, self.args.eval_batch_size)
        for start in range(0, len(chosen), size):
            part = chosen[start : start + size]
            ends = [wanted.start for _, wanted in part]
            with torch.autocast(self.args.device.type, enabled=False):
                if isinstance(dataset, Lessons):
                    decided_calls = calls_of_lessons(dataset, [index for index, _ in part], ends)
                else:
                    decided_calls = self._calls([lesson for lesson, _ in part], ends, model)
            found += [outcome(wanted, calls) for (_, wanted), calls in zip(part, decided_calls, strict=True)]
        model.train(training)
        return summary(found)

    def _sample(self, dataset: Any) -> list[tuple[Any, Expected]]:
        """Lessons (in :class:`Lessons` their numbers) evenly spread, each with the call that should open first."""
        size, computer = self.ours.sample_size, self.language_model.computer
        keys: Sequence[Any]
        if isinstance(dataset, StreamedLessons):
            if iter(dataset.rows) is dataset.rows:
                return []  # it can be read but once
            # A pass of its own, so that neither the order nor the report of the training data changes.
            rows = StreamedLessons(dataset.rows, dataset.reader, "skip", dataset.on_unexplained)
            keys = lessons = list(islice(rows, size))
        else:
            lessons = [dataset.lessons[i] for i in range(0, len(dataset), max(1, len(dataset) // size))][:size]
            cached = isinstance(dataset, Lessons)
            keys = list(range(0, len(dataset), max(1, len(dataset) // size)))[:size] if cached else lessons
        wanted = [expected(computer.table, computer.programs, one.conversation, one.explanations) for one in lessons]
        return list(zip(keys, wanted, strict=True))

    def _calls(self, lessons: Sequence[Lesson], ends: Sequence[int], model: nn.Module) -> list[tuple[Call, ...]]:
        tokens = torch.zeros(len(lessons), max(ends), dtype=torch.long)
        mask = torch.zeros_like(tokens)
        for row, (lesson, end) in enumerate(zip(lessons, ends, strict=True)):
            tokens[row, :end] = torch.tensor(lesson.conversation.tokens[:end])
            mask[row, :end] = 1
        device = self.args.device
        output = model(input_ids=tokens.to(device), attention_mask=mask.to(device), use_cache=False, logits_to_keep=1)
        calls: list[tuple[Call, ...]] = list(output.calls)
        return calls

    # Saving

    def train(self, *args: Any, **kwargs: Any) -> Any:
        put_back(Path(str(self.args.output_dir)))
        # The gradients of very unlikely labellings are denormal numbers, which make a CPU ten times slower.
        torch.set_flush_denormal(True)
        try:
            lessons = cast(Lessons, self.train_dataset)
            with whitened_for(lessons, self._to_whiten(), self.ours.whitening, self._drift):
                return super().train(*args, **kwargs)
        finally:
            torch.set_flush_denormal(False)

    def _get_output_dir(self, trial: Any) -> str:
        return super()._get_output_dir(trial) if self._staging is None else str(self._staging)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """As the stock one, but the checkpoint appears in one step, when all of it is written.

        Raises:
            SavingError: no space left; the checkpoints before are whole.
        """
        run = Path(self._get_output_dir(trial))
        name = f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        with said_clearly(name, run), self._staged(run / STAGE):
            super()._save_checkpoint(model, trial)
            if self.args.should_save:
                write_made_with(run / STAGE / name, self._made_with())
            self.accelerator.wait_for_everyone()
            if self.state.best_model_checkpoint == str(run / STAGE / name):
                self.state.best_model_checkpoint = str(run / name)
            if self.args.should_save:
                put_in_place(run / STAGE / name, run / name)
            self.accelerator.wait_for_everyone()
        if self.args.push_to_hub and self.args.hub_strategy == HubStrategy.EVERY_SAVE:
            self.push_to_hub(f"Training in progress, step {self.state.global_step}")
        if self.args.should_save:
            rotate_checkpoints(str(run), self.args.save_total_limit, self.state.best_model_checkpoint, use_mtime=True)

    def _made_with(self) -> dict[str, str]:
        """What a checkpoint of this run belongs to. A backbone that learns is in the checkpoint itself."""
        found = {f"library {each.name!r}": each.fingerprint for each in records(self.language_model.config)}
        whitening = {"whitening": str(self.ours.whitening)} if self.ours.whitening else {}
        return found | ({"backbone": self._backbone} if self._backbone else {}) | whitening

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        check_made_with(Path(resume_from_checkpoint), self._made_with())
        super()._load_from_checkpoint(resume_from_checkpoint, model)

    @contextmanager
    def _staged(self, folder: Path) -> Iterator[None]:
        """What is saved within goes to this folder, of which nothing stays."""
        self._staging = folder
        try:
            yield
        finally:
            self._staging = None
            if self.args.should_save:
                put_back(folder.parent)

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Nothing yet: what there is goes up once the checkpoint is in its place."""

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """The whole model with its tokenizer, where the heads alone were trained too, or the adapter; with the training's record.

        A checkpoint of heads holds them alone.
        """
        folder = str(output_dir or self.args.output_dir)
        with said_clearly("the model", folder):
            if not self.cached or self._staging is not None:
                super().save_model(output_dir, _internal_call=True)
            elif self.args.should_save:
                # In the middle of training, too: by then projections may be parametrized.
                self.language_model.save_pretrained(folder, state_dict=plain_state(self.language_model))
                if self._tokenizer is not None:
                    self._tokenizer.save_pretrained(folder)
            if self.args.should_save and self._staging is None:
                write_record(folder, training_record(self))
        if self.args.push_to_hub and not _internal_call:
            self.push_to_hub(commit_message="Model save", revision=self.args.hub_revision)

    # Publishing

    @property
    def data_described(self) -> dict[str, dict[str, Any]]:
        """Name of each data set → its source, and the numbers of its rows, of bad and of unexplained ones, where they are known."""
        described: dict[str, dict[str, Any]] = {}
        for name, source in self._sources.items():
            report = self.data_reports.get(name)
            if report is not None:
                numbers = {"rows": report.rows, "bad": len(report.bad), "unexplained": len(report.unexplained)}
                described[name] = {"source": source, **numbers}
            elif source is not None:
                held: Any = self.train_dataset if name == "train" else self.eval_dataset
                held = held.get(name) if isinstance(held, dict) else held
                described[name] = {"source": source} | ({"rows": len(held)} if hasattr(held, "__len__") else {})
        return described

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        """As the stock one.

        Raises:
            PublishError: the Hub refuses or cannot be reached.
        """
        name = self.args.hub_model_id or Path(str(self.args.output_dir)).absolute().name
        try:
            # Not every version of transformers takes ``private`` here.
            self.args.hub_private_repo = self.args.hub_private_repo if private is None else private
            super().init_hf_repo(token)
        except Exception as error:  # the HTTP library's, whichever that is, among them
            raise PublishError(f"{name} cannot be made on the Hub: {hub_reason(error, name)}") from error

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """The card of what :meth:`save_model` left in the output folder, as ``README.md`` beside it. A card of your own is kept.

        Args:
            kwargs: ``license``; ``base_model`` and ``base_revision`` of an adapter whose base was not loaded from the Hub.
        Raises:
            PublishError: see :func:`~.publishing.prepare`.
        """
        if self.is_world_process_zero():
            folder = Path(str(self.args.output_dir))
            named = {name: kwargs.get(name) for name in ("license", "base_model", "base_revision")}
            card = describe(folder, self.hub_model_id or folder.absolute().name, **named).card
            (folder / CARD).write_text(card, encoding="utf-8")

    def push_to_hub(
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """The model or the adapter with tokenizer, code and card, in one commit; no pickles.

        Args:
            kwargs: as for :meth:`create_model_card`.
        Returns:
            the ``CommitInfo``; a future of it unless ``blocking``; None but in the first process.
        Raises:
            SavingError: no space left to save what is to go up. PublishError: see :func:`~.publishing.prepare` and
            :func:`~.publishing.upload`. The repository is then as it was.
        """
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        token = token if token is not None else self.args.hub_token
        if self.hub_model_id is None:
            self.init_hf_repo(token=token, private=private)
        self.save_model(_internal_call=True)
        if not self.is_world_process_zero():
            return None
        named = {name: kwargs.get(name) for name in ("license", "base_model", "base_revision")}
        publication = prepared_publication(Path(str(self.args.output_dir)), str(self.hub_model_id), **named)
        details = (private, revision or self.args.hub_revision, commit_message, token)
        if blocking:
            return upload(publication, *details)
        return HfApi().run_as_future(upload, publication, *details)


NO_CHECKPOINTS_ON_THE_HUB = (
    "hub_strategy='checkpoint' and 'all_checkpoints' upload the optimizer's state, which is a pickle and can run code where it is "
    "loaded: choose 'every_save', 'end', or keep checkpoints on this machine"
)


class _Listed(Dataset):  # type: ignore[type-arg]
    """Lessons that go through the whole model."""

    def __init__(self, lessons: Sequence[Lesson]):
        self.lessons = lessons

    def __len__(self) -> int:
        return len(self.lessons)

    def __getitem__(self, index: int) -> Lesson:
        return self.lessons[index]


def _ours_by_default(args: TrainingArguments) -> NeuralLibTrainingArguments:
    return NeuralLibTrainingArguments(output_dir=args.output_dir, use_cpu=args.use_cpu, report_to=[])


def _what_is_trained(asked: str | None, is_adapter: bool, peft_config: Any) -> str:
    """Raises TrainingArgumentsError: what is asked for and the adapter do not fit."""
    if is_adapter and peft_config is not None:
        raise TrainingArgumentsError(
            "the model has an adapter already: pass it without peft_config, or its base with one"
        )
    adapter = is_adapter or peft_config is not None
    if asked is None:
        return "heads+lora" if adapter else "heads"
    if asked.endswith("lora") and not adapter:
        raise TrainingArgumentsError(
            f"train={asked!r} needs an adapter: pass peft_config=LoraConfig(task_type='CAUSAL_LM', target_modules=…)"
        )
    if adapter and not asked.endswith("lora"):
        raise TrainingArgumentsError(
            f"the backbone has an adapter, which train={asked!r} leaves out: say train='heads+lora'"
        )
    return asked


def _freeze(model: NeuralLibForCausalLM, trained: str) -> None:
    """Says which parameters are trained; with an adapter PEFT has said so."""
    if trained.endswith("lora"):
        return
    for parameter in model.parameters():
        parameter.requires_grad_(trained == "all")
    computer = model.computer
    for parameter in [computer.offsets] if trained == "library_keys" else computer.parameters():
        parameter.requires_grad_(True)
