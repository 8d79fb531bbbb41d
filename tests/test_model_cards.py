"""Cards: complete from plain data, and safe whatever a stranger wrote into a docstring."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from neurallib.model_cards.adapter_card import adapter_card
from neurallib.model_cards.library_card import library_card
from neurallib.model_cards.markdown import code, literal, plain
from neurallib.model_cards.model_card import model_card
from neurallib.model_cards.published import is_made, published_card
from neurallib.model_cards.training_section import LOG_ROWS

from neurallib import model_cards

HOSTILE = (
    "x |\n\n# Loud\n<script>alert(1)</script> ![](http://a) www.a.b m@a.b [b](c) ``` "
    "{{ 7 * 7 }} \x1b[2J {% raw %} --- `end` \\"
)

PROGRAM = {
    "name": "add",
    "docstring": "Add two integers.\n\nMore, which the table leaves out.",
    "parameters": [{"name": "first", "type": "int"}, {"name": "second", "type": "int"}],
    "returns": "int",
    "entry": 0,
    "length": 1234,
    "minimum_values": 256,
}
LIBRARY = {
    "format_version": 1,
    "name": "sums",
    "registers": 16,
    "instructions": 5678,
    "minimum_values": 256,
    "programs": [PROGRAM],
}


def front_matter(text: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(text.split("---")[1])
    return found


def test_a_model_card_says_what_the_model_is() -> None:
    card = model_card(
        "org/llama-with-sums",
        "Llama-3.2-1B-Instruct",
        LIBRARY,
        {"modeling_neurallib.py": "a" * 64},
        base_model="meta-llama/Llama-3.2-1B-Instruct",
        license="llama3.2",
        language="en",
        machine={"values": 2**31, "memory": 65536},
        versions={"torch": "2.13.0"},
    )
    assert front_matter(card.content) == {
        "base_model": "meta-llama/Llama-3.2-1B-Instruct",
        "language": "en",
        "library_name": "transformers",
        "license": "llama3.2",
        "pipeline_tag": "text-generation",
        "tags": ["neurallib", "program-calling", "differentiable-computer"],
    }
    text = str(card)
    assert 'from_pretrained("org/llama-with-sums", trust_remote_code=True)' in text
    signature = "(first: int, second: int) -&#62; int"
    assert f"| <code>add</code> | <code>{signature}</code> | Add two integers. | 1,234 | 256 |" in text
    assert "More, which" not in text
    assert f"| <code>modeling&#95;neurallib.py</code> | <code>{'a' * 64}</code> |" in text
    assert "| values | 2,147,483,648 |" in text and "torch 2.13.0." in text
    assert "untrained" not in text


def test_a_model_card_without_programs_or_training_says_so() -> None:
    text = str(model_card("m", "a Llama", None, {}, trained=False))
    assert "untrained" in text and "Programs it can call" not in text and "Code in this repository" not in text


def test_disabled_programs_are_not_offered() -> None:
    other = PROGRAM | {"name": "subtract"}
    text = str(model_card("m", "a Llama", LIBRARY | {"programs": [PROGRAM, other]}, {}, disabled=["subtract"]))
    table, _, after = text.partition("Inside, but switched off: ")
    assert code("subtract") not in table and after.startswith(code("subtract"))


def test_a_library_card_says_what_the_library_is() -> None:
    card = library_card(LIBRARY, "f" * 64, repository="org/sums", license="apache-2.0")
    assert front_matter(card.content)["tags"] == ["neurallib", "neurallib-library"]
    text = str(card)
    assert 'library.run("add", "…", "…")' in text and 'from_pretrained("org/sums")' in text
    assert "5,678 instructions" in text and "f" * 64 in text


def test_examples_and_libraries_stand_in_cards() -> None:
    example = {"program": "add", "arguments": ("12", "a|b`"), "result": HOSTILE}
    record = {"name": "sums", "programs": ["add"], "fingerprint": "f" * 64, "by_reference": True}
    record |= {"repository": "org/sums", "revision": "c" * 40}
    other = {**example, "program": "gone"}
    card = str(model_card("m", "a Llama", LIBRARY, {}, libraries=[record], examples=[example, other]))
    assert (
        f"| <code>sums</code> | 1 | org/sums &#64; {'c' * 12} | fetched from there | <code>{'f' * 64}</code> |" in card
    )
    assert "gone" not in card
    for text in (card, str(library_card(LIBRARY, "f", examples=[example], files={"a.json": "e" * 64}))):
        row = next(line for line in text.splitlines() if line.startswith("| <code>add("))
        assert row.count("|") == 3 and "<script>" not in text and "\x1b" not in text
    assert "e" * 64 in text


@pytest.mark.parametrize("text", ["add", 'a"b', "a'b", "a\\b", "```\nx", "\u202e", "∑"])
def test_a_literal_is_the_text_on_one_line(text: str) -> None:
    written = literal(text)
    assert ast.literal_eval(written) == text and written.isprintable() and "`" not in written


def test_a_published_card_lists_its_files_once() -> None:
    first = published_card('# A\n\nfrom_pretrained("a")\n', "org/a", {"x.py": "1" * 64}, before="a")
    second = published_card(first, "org/b", {"y|.py": "2" * 64}, before="org/a")
    assert 'from_pretrained("org/b")' in second and "1" * 64 not in second and second.count("## Files") == 1
    assert f"| <code>y&#124;.py</code> | <code>{'2' * 64}</code> |" in second


def test_a_card_of_ours_and_a_draft_are_made_anew() -> None:
    assert is_made(str(model_card("m", "A Llama", None, {}))) and is_made("# X\n\n[More Information Needed]\n")
    assert not is_made("# Mine\n\nWritten by hand.\n")


def test_the_snippets_are_python() -> None:
    for card in (model_card("m", "a Llama", LIBRARY, {}), library_card(LIBRARY, "f" * 64)):
        ast.parse(str(card).split("```python\n")[1].split("```")[0])


RECORD = {
    "trained": "heads+lora", "supervision": "answers", "steps": 40, "epochs": 2.0, "seconds": 61.2,
    "data": {
        "train": {"source": "rows.jsonl", "rows": 900, "bad": 1, "unexplained": 7},
        "held_out": {"source": "org/rows", "rows": 90},
    },
    "arguments": {"learning_rate": 0.002, "stretch": 1.0},
    "log": [
        *({"step": step, "epoch": step / 20, "loss": 10.0 - step / 10} for step in range(1, 41)),
        {"step": 40, "eval_loss": 5.5},
    ],
    "metrics": {"exact": 0.875, "loss": 5.5, "something_else": 3.0}, "sample_size": 32,
    "hardware": "2 cores (x86_64)", "versions": {"torch": "2.13.0"},
}  # fmt: skip
ADAPTER = {
    "peft_type": "LORA",
    "base_model_name_or_path": "org/base",
    "revision": "c" * 40,
    "r": 8,
    "target_modules": ["v", "q"],
}


def test_a_record_of_training_stands_in_cards() -> None:
    for card in (
        model_card("org/m", "A Llama", LIBRARY, {}, training=RECORD),
        adapter_card("org/m", ADAPTER, training=RECORD),
    ):
        text, head = str(card), front_matter(str(card))
        assert (
            "and an adapter on the backbone were trained from answers alone: 40 steps, 2.00 epochs, 61 seconds." in text
        )
        assert "| train: rows.jsonl | 900 | 1 | 7 |" in text and "| held&#95;out: org/rows | 90 | – | – |" in text
        assert "| <code>learning&#95;rate</code> | 0.002 |" in text
        rows = [line for line in text.splitlines() if re.fullmatch(r"\| [\d,]+ \| \d\.\d{4} \|.*", line)]
        assert len(rows) == LOG_ROWS and rows[-1] == "| 40 | 2.0000 | 6.0000 | 5.5000 |"
        assert "After 40 steps, on org/rows (90 rows); shares are of a sample of at most 32 rows" in text
        assert "| requests whose call has the right result | 0.8750 |" in text and "| something else | 3.0000 |" in text
        assert "Trained on 2 cores (x86&#95;64) with torch 2.13.0." in text
        (entry,) = head["model-index"]
        (result,) = entry["results"]
        assert entry["name"] == "org/m" and result["dataset"] == {"name": "org/rows", "type": "org/rows"}
        assert {each["type"]: each["value"] for each in result["metrics"]} == {"exact_match": 0.875, "loss": 5.5}


def test_what_was_not_recorded_is_not_told() -> None:
    text = str(model_card("org/m", "A Llama", LIBRARY, {}))
    assert "## Training" not in text and "## Evaluation" not in text and "model-index" not in text
    text = str(model_card("org/m", "A Llama", LIBRARY, {}, training={"trained": "all", "data": {"train": {}}}))
    assert (
        "The whole model was trained." in text and "| train: not recorded | – | – | – |" in text and "None" not in text
    )
    text = str(model_card("org/m", "A Llama", LIBRARY, {}, training={"steps": 1_498, "steps_before": 11_984}))
    assert "1,498 steps, after 11,984 steps of earlier runs." in text


def test_an_adapters_card_names_its_base() -> None:
    text = str(adapter_card("org/adapter", ADAPTER, LIBRARY, license="mit"))
    head = front_matter(text)
    assert (head["base_model"], head["base_model_relation"], head["library_name"]) == ("org/base", "adapter", "peft")
    assert (
        f"| its revision | <code>{'c' * 40}</code> |" in text and "| <code>target&#95;modules</code> | q, v |" in text
    )
    snippet = text.split("```python\n")[1].split("```")[0]
    ast.parse(snippet)
    assert (
        f'from_pretrained("org/base", revision="{"c" * 40}")' in snippet
        and 'from_pretrained("org/adapter", ' in snippet
    )
    unknown = str(adapter_card("org/adapter", ADAPTER | {"revision": None}))
    assert "not recorded; the newest is loaded" in unknown and "revision=" not in unknown


def test_a_strangers_text_stays_text() -> None:
    shown = plain(HOSTILE)
    assert "\n" not in shown and "\x1b" not in shown
    assert not set(shown) & set("|<>[]!`{}\\*_@")
    assert "&#35; Loud" in shown and "://" not in shown and "www." not in shown
    program = PROGRAM | {"docstring": HOSTILE, "name": "a`|b"}
    for card in (
        library_card(LIBRARY | {"programs": [program]}, "f"),
        model_card("m", HOSTILE, LIBRARY | {"programs": [program], "name": HOSTILE}, {}),
    ):
        text = str(card)
        assert "<script>" not in text and "49" not in text.replace("5,678", "")
        rows = [line for line in text.splitlines() if line.startswith("| <code>a")]
        assert len(rows) == 1 and rows[0].count("|") == 6


@pytest.mark.parametrize("text", ["", "12 + 30 = 42", "naïve – ∑"])
def test_plain_renders_as_the_text_itself(text: str) -> None:
    import html

    assert html.unescape(plain(text)) == text


def test_cards_import_nothing_of_ours() -> None:
    allowed = {"huggingface_hub", "jinja2", "markupsafe", *sys.stdlib_module_names}
    own = {path.stem for path in Path(model_cards.__path__[0]).glob("*.py")}
    for path in Path(model_cards.__path__[0]).glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                assert {alias.name.split(".")[0] for alias in node.names} <= allowed
            elif isinstance(node, ast.ImportFrom):
                name = (node.module or "").split(".")[0]
                assert (node.level == 1 and name in own) or (node.level == 0 and name in allowed)
