"""The arguments of training: those of the Hugging Face Trainer, and what is ours."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Any

from transformers import TrainingArguments

from ..configuration.configuration_neurallib import ESTIMATORS

TRAINED = ("heads", "heads+lora", "lora", "library_keys", "all")
BAD_ROWS = ("refuse", "skip")
UNEXPLAINED = ("keep", "skip", "refuse")
OF_CALLS = ("supervision", "prompt_weight", "stretch", "alone_weight", "tempering", "reading_share")
"""What says how calls explain an answer, and so is of the estimator 'marginal'."""

SOFT_PROGRAMS = (
    "train='soft_programs' is refused: what learns through the model's loss is a mixture of programs that gives the answers, and "
    "the instructions nearest to it seldom do. Learn a program with modeling_neurallib.machine.learning.learn, where exact runs "
    "decide, put it into its library with NeuralLibrary.with_learned, and that into the model with load_library"
)


class TrainingArgumentsError(ValueError):
    """Arguments of training that cannot be followed."""


def one_of(name: str, value: Any, allowed: Iterable[str]) -> str:
    """The value, if it is allowed.

    Raises:
        TrainingArgumentsError: it is not; the nearest allowed one is named.
    """
    known = list(allowed)
    if value in known:
        return str(value)
    near = difflib.get_close_matches(str(value), known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(map(repr, known))}"
    raise TrainingArgumentsError(f"{name} cannot be {value!r}; {hint}")


def share_of_labels(supervision: str | float) -> float:
    """The part of the examples whose call labels are used: "answers" 0, "calls" 1, or a number from 0 to 1.

    Raises:
        TrainingArgumentsError: none of these.
    """
    named = {"answers": 0.0, "calls": 1.0}.get(str(supervision))
    if named is not None:
        return named
    try:
        share = float(supervision)
    except ValueError:
        one_of("supervision", supervision, ("answers", "calls", "a share from 0 to 1"))
        raise
    if not 0 <= share <= 1:
        raise TrainingArgumentsError(f"supervision as a share lies from 0 to 1, found {share}")
    return share


@dataclass
class NeuralLibTrainingArguments(TrainingArguments):
    """``TrainingArguments`` with what a model that calls programs needs besides.

    Raises:
        TrainingArgumentsError: a value that cannot be; the nearest that can is named.
    """

    estimator: str = field(
        default="marginal",
        metadata={
            "help": "What the loss differentiates: 'marginal', the choices of a call, or 'dense', the run itself too."
        },
    )
    train: str | None = field(
        default=None,
        metadata={
            "help": "What is trained: 'heads', 'heads+lora' (any adapter of a peft_config), 'lora' (the adapter alone), "
            "'library_keys' (the offsets of the programs' keys), 'all'. By default 'heads', with an adapter 'heads+lora'."
        },
    )
    tuned_programs: list[str] | None = field(
        default=None,
        metadata={
            "help": "With train='library_keys': the programs whose keys are tuned (names in the model); every other key stays, to "
            "the last bit. By default all are tuned."
        },
    )
    supervision: str = field(
        default="answers",
        metadata={
            "help": "'answers' (calls are searched for), 'calls' (they are given), or the share of rows whose labels count."
        },
    )
    prompt_weight: float = field(
        default=1.0,
        metadata={"help": "Weight of 'no call within the prompt' beside the likelihood of the answer; ≥ 0."},
    )
    stretch: float = field(
        default=1.0,
        metadata={
            "help": "The most that a number counts as in attention, which stands for longer lists; above 1 their states drift, too."
        },
    )
    alone_weight: float = field(
        default=1.0,
        metadata={
            "help": "What the backbone alone counts as an explanation of an answer that calls explain too; 0: at least one call is "
            "made for it, even where the backbone would say the same; 0 to 1."
        },
    )
    tempering: float = field(
        default=0.0,
        metadata={
            "help": "The part of training, from its beginning, in which the probability of reading counts less (its power rises "
            "from 0.05 to 1): for heads that are trained from nothing; 0 to 1."
        },
    )
    reading_share: float = field(
        default=1.0,
        metadata={
            "help": "The part of the training steps, evenly spread, in which reading is learned. In the others every reading of an "
            "answer counts alike and calls are chosen alone: several times faster, and choosing takes more steps to learn; "
            "above 0, at most 1."
        },
    )
    drift_directions: int = field(
        default=0,
        metadata={
            "help": "The heads are kept blind to so many directions in which the backbone's states drift along lists of random "
            "numbers, which are measured before training: lists longer than any that was trained on are then read; ≥ 0."
        },
    )
    end_drift_directions: int = field(
        default=0,
        metadata={
            "help": "So many more, in which what the chat template puts behind a message drifts with the length of a list in it: a "
            "program is then called on a longer list as on a short one. Without a chat template there are none; ≥ 0."
        },
    )
    whitening: float = field(
        default=0.0,
        metadata={
            "help": "Heads without dropout that train on remembered features learn in coordinates in which those are white: "
            "choosing is learned in fewer steps. What is added to the second moment, as a share of its mean eigenvalue (0.1, say); "
            "0: off."
        },
    )
    keys_from_descriptions: bool = field(
        default=False,
        metadata={
            "help": "Keys are what descriptions say: their offsets stay, and each batch draws one of many descriptions of every "
            "program of the standard library. For libraries that are loaded later."
        },
    )
    retention: float = field(
        default=0.0,
        metadata={
            "help": "With an adapter: weight of KL(base ‖ adapted) of the next token, which keeps the backbone's own words; ≥ 0."
        },
    )
    backbone_learning_rate: float | None = field(
        default=None, metadata={"help": "Of an adapter, or of the backbone, beside the heads' learning_rate; > 0."}
    )
    redescribe_steps: int = field(
        default=50,
        metadata={"help": "Optimisation steps after which a backbone that learns describes the programs anew; ≥ 1."},
    )
    budget: int = field(default=4_000, metadata={"help": "Exact runs spent on the search for one answer; ≥ 1."})
    most_explanations: int = field(
        default=64, metadata={"help": "A result with more explanations than this says nothing and is not used; ≥ 1."}
    )
    cached_features: bool = field(
        default=True,
        metadata={"help": "Compute the states of a frozen backbone once and keep them on disk (finite data sets)."},
    )
    bf16_features: bool = field(
        default=False,
        metadata={"help": "Compute those states in bfloat16 where the processor multiplies it, which is several times faster."},
    )
    on_bad_row: str = field(
        default="refuse", metadata={"help": "Rows that cannot be read: 'refuse' the data set, or 'skip' them."}
    )
    on_unexplained: str = field(
        default="keep",
        metadata={
            "help": "Answers that no program can produce: 'keep' them as conversation in which nothing is called, 'skip' "
            "or 'refuse'. Their number is reported in every case."
        },
    )
    max_length: int | None = field(
        default=None, metadata={"help": "Rows with more tokens are bad rows: a cut could go through an argument."}
    )
    packing: bool = field(default=False, metadata={"help": "Refused: see DataCollatorForCalls."})
    sample_size: int = field(
        default=32, metadata={"help": "Rows on which calls are really decided and compared; 0: none."}
    )
    sample_steps: int = field(
        default=200, metadata={"help": "Optimisation steps between samples while training; evaluation has its own."}
    )

    def __post_init__(self) -> None:
        if self.train in ("soft_programs", "soft programs"):
            raise TrainingArgumentsError(SOFT_PROGRAMS)
        one_of("estimator", self.estimator, ESTIMATORS)
        if self.train is not None:
            one_of("train", self.train, TRAINED)
        one_of("on_bad_row", self.on_bad_row, BAD_ROWS)
        one_of("on_unexplained", self.on_unexplained, UNEXPLAINED)
        self.supervision = str(self.supervision)
        share_of_labels(self.supervision)
        for name, least in (
            ("prompt_weight", 0), ("stretch", 1), ("budget", 1), ("most_explanations", 1), ("sample_size", 0), ("sample_steps", 1),
            ("retention", 0), ("redescribe_steps", 1), ("drift_directions", 0),
            ("end_drift_directions", 0), ("whitening", 0),
        ):  # fmt: skip
            if getattr(self, name) < least:
                raise TrainingArgumentsError(f"{name} is at least {least}, found {getattr(self, name)}")
        if self.backbone_learning_rate is not None and not self.backbone_learning_rate > 0:
            raise TrainingArgumentsError(
                f"backbone_learning_rate is greater than 0, found {self.backbone_learning_rate}"
            )
        if self.tuned_programs is not None and self.train != "library_keys":
            raise TrainingArgumentsError(
                f"tuned_programs chooses among the keys of train='library_keys', but train is {self.train!r}: "
                "leave tuned_programs out, or train the keys alone"
            )
        if self.keys_from_descriptions and self.train == "library_keys":
            raise TrainingArgumentsError(
                "keys_from_descriptions leaves the keys' offsets as they are, and train='library_keys' trains nothing else: "
                "choose one of them"
            )
        for name in ("tempering", "alone_weight"):
            if not 0 <= getattr(self, name) <= 1:
                raise TrainingArgumentsError(f"{name} lies from 0 to 1, found {getattr(self, name)}")
        if not 0 < self.reading_share <= 1:
            raise TrainingArgumentsError(f"reading_share is greater than 0 and at most 1, found {self.reading_share}")
        given = [each.name for each in fields(self) if each.name in OF_CALLS and getattr(self, each.name) != each.default]
        if self.estimator != "marginal" and given:
            raise TrainingArgumentsError(
                f"the estimator {self.estimator!r} runs every program and weighs no calls, so it has no {', '.join(given)}: leave "
                "that out, or use the estimator 'marginal'"
            )
        if self.packing:
            raise TrainingArgumentsError(NO_PACKING)
        # Our data sets have columns of their own, and a batch in which nothing is called leaves the reader unused.
        self.remove_unused_columns = False
        if self.ddp_find_unused_parameters is None:
            self.ddp_find_unused_parameters = True
        super().__post_init__()


NO_PACKING = (
    "packing puts several conversations into one row, but a call reads its arguments from all of the row before it, so it "
    "would read from other conversations: leave packing off; train_sampling_strategy='group_by_length' saves most of the padding"
)
