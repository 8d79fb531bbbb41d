"""What a card says of a training run: data, arguments, log, what was measured, on what, and with which versions.

All of it comes from a record, plain data that the run left (``training_record.json``): what is not in it is not in the card.
The template is a text in this module, so that it travels with a model's code to the Hub.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from huggingface_hub import EvalResult

from .markdown import code, plain

LOG_ROWS = 20
"""The most rows of the log that a card shows, evenly spread, the last among them."""

MEASURED = {
    "exact": ("exact_match", "requests whose call has the right result"),
    "selector_errors": ("selector_errors", "requests for which the wrong program or none was called"),
    "reader_errors": ("reader_errors", "requests whose arguments were misread"),
    "execution_errors": ("execution_errors", "requests whose program came to another result or to none"),
    "quiet": ("quiet", "other conversations without a call"),
    "loss": ("loss", "loss"),
}
"""What is measured → its metric on the Hub, and what it is in words. Shares lie from 0 to 1."""

TRAINING = """
{%- if training %}
## Training

{{ training.what }}
{% if training.data %}
| data | rows | left out as bad | answers that no program produces |
|---|---:|---:|---:|
{% for row in training.data -%}
| {{ row.name }}: {{ row.source }} | {{ row.rows }} | {{ row.bad }} | {{ row.unexplained }} |
{% endfor %}
{%- endif %}
{%- if training.arguments %}
| argument | value |
|---|---|
{% for name, value in training.arguments -%}
| {{ name }} | {{ value }} |
{% endfor %}
{%- endif %}
{%- if training.log %}
| {{ training.columns | join(" | ") }} |
|{% for column in training.columns %}---:|{% endfor %}
{% for row in training.log -%}
| {{ row | join(" | ") }} |
{% endfor %}
{%- endif %}
{%- if training.measured %}
## Evaluation

After {{ training.steps }} steps, on {{ training.evaluated_on }}:

| | |
|---|---:|
{% for name, value in training.measured -%}
| {{ name }} | {{ value }} |
{% endfor %}
{%- endif %}
{%- if training.made_with %}
{{ training.made_with }}
{% endif %}
{%- endif %}
"""


def training_fields(record: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """A record, ready for the template.

    Args:
        record: ``trained`` (what was), ``supervision``, ``estimator``; ``steps``, ``epochs``, ``seconds``; ``data``: "train" and
            names of evaluation data → ``source``, ``rows``, ``bad``, ``unexplained``; ``arguments``: name → value; ``log``: rows
            as ``Trainer.state.log_history`` has them; ``metrics``: name → number; ``sample_size``: rows that the shares among
            them are of; ``hardware``; ``versions``: package → version. Each may be missing.
    """
    if not record:
        return None
    columns, log = _log(record.get("log") or [])
    return {
        "what": _what(record),
        "data": [
            {"name": plain(name), "source": plain(str(data.get("source") or "not recorded"))}
            | {key: _number(data.get(key)) for key in ("rows", "bad", "unexplained")}
            for name, data in (record.get("data") or {}).items()
        ],
        "arguments": [(code(name), plain(str(value))) for name, value in (record.get("arguments") or {}).items()],
        "columns": [plain(column) for column in columns],
        "log": log,
        "steps": _number(record.get("steps")),
        "evaluated_on": plain(_evaluated_on(record)),
        "measured": [(plain(_in_words(name)), _number(value)) for name, value in _measured(record)],
        "made_with": _made_with(record),
    }


def evaluation_results(record: Mapping[str, Any] | None) -> list[EvalResult] | None:
    """What was measured, for the ``model-index`` of a card; None if nothing was."""
    if not record:
        return None
    held_out = [data for name, data in (record.get("data") or {}).items() if name != "train"]
    source = str((held_out[0].get("source") if held_out else None) or "evaluation rows")
    results = [
        EvalResult(
            task_type="text-generation",
            task_name="Text generation with calls",
            dataset_type=source,
            dataset_name=source,
            metric_type=MEASURED[name][0],
            metric_name=_in_words(name),
            metric_value=round(float(value), 4),
        )
        for name, value in _measured(record)
        if name in MEASURED
    ]
    return results or None


def _measured(record: Mapping[str, Any]) -> list[tuple[str, float]]:
    metrics = record.get("metrics") or {}
    return [(name, metrics[name]) for name in (*MEASURED, *sorted(set(metrics) - set(MEASURED))) if name in metrics]


def _in_words(name: str) -> str:
    return MEASURED[name][1] if name in MEASURED else name.replace("_", " ")


def _evaluated_on(record: Mapping[str, Any]) -> str:
    data = [(name, each) for name, each in (record.get("data") or {}).items() if name != "train"]
    sources = ", ".join(f"{each.get('source')} ({_number(each.get('rows'))} rows)" for _, each in data)
    sample = record.get("sample_size")
    shares = f"; shares are of a sample of at most {sample} rows, calls decided once" if sample else ""
    return (sources or "data that was not recorded") + shares


def _what(record: Mapping[str, Any]) -> str:
    trained = {
        "heads": "With a frozen backbone, the heads (selector, reader, writer) were trained",
        "heads+lora": "The heads (selector, reader, writer) and an adapter on the backbone were trained",
        "lora": "With frozen heads, an adapter on the backbone was trained",
        "library_keys": "With all else frozen, the offsets of the programs' keys were trained",
        "all": "The whole model was trained",
    }.get(str(record.get("trained")), "Trained")
    steps, epochs, seconds = (record.get(name) for name in ("steps", "epochs", "seconds"))
    how = [f"{_number(steps)} steps"] if steps else []
    before = record.get("steps_before")
    how += [f"after {_number(before)} steps of earlier runs"] if before else []
    how += [f"{epochs:.2f} epochs"] if epochs else []
    how += [f"{seconds:,.0f} seconds"] if seconds else []
    supervision = record.get("supervision")
    labels = {
        "answers": "from answers alone",
        "calls": "with labels of the calls",
        None: "",
    }.get(supervision, f"with labels of the calls in a share of {plain(str(supervision))} of the rows")
    words = " ".join(word for word in (trained, labels) if word)
    return f"{words}{': ' if how else ''}{', '.join(how)}."


def versions_in_words(versions: Mapping[str, str] | None) -> str:
    """Packages (name → version) as a card names them."""
    return ", ".join(f"{plain(package)} {plain(version)}" for package, version in (versions or {}).items())


def _made_with(record: Mapping[str, Any]) -> str:
    versions = versions_in_words(record.get("versions"))
    hardware = plain(str(record.get("hardware") or ""))
    parts = [f"Trained on {hardware}" if hardware else "", f"with {versions}" if versions else ""]
    line = " ".join(part for part in parts if part)
    return f"{line[:1].upper()}{line[1:]}." if line else ""


def _log(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Columns and rows: the losses and what was evaluated, at most ``LOG_ROWS`` steps."""
    steps: dict[int, dict[str, Any]] = {}
    for row in rows:
        if "step" in row and ("loss" in row or any(name.startswith("eval_") for name in row)):
            steps.setdefault(int(row["step"]), {}).update(row)
    wanted = ("step", "epoch", "loss", "answer_loss", "call_loss", "eval_loss", "eval_exact")
    columns = [name for name in wanted if any(name in row for row in steps.values())]
    order = sorted(steps)
    if len(order) > LOG_ROWS:
        order = sorted({order[round(i * (len(order) - 1) / (LOG_ROWS - 1))] for i in range(LOG_ROWS)})
    return columns, [[_number(steps[step].get(name)) for name in columns] for step in order]


def _number(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return "–" if value is None else plain(str(value))
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4f}"
