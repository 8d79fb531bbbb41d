"""An explanation is what really happened, as plain data; its page is small, self-contained, and safe from strangers' texts."""

from __future__ import annotations

import base64
import hashlib
import html.parser
import json
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TINY_HEADS, make_base, opened
from neurallib.model_cards import explanation_page as page_module
from neurallib.model_cards.explanation_page import PAGE_BYTES, PageError, explanation_page, visible
from neurallib.modeling_neurallib import explanation as explanation_module
from neurallib.modeling_neurallib.explanation import ExplanationError, lenders, run_record, with_sources
from neurallib.modeling_neurallib.labelling import argument_texts
from neurallib.modeling_neurallib.writer import END
from typer.testing import CliRunner

from neurallib import (
    MachineConfig,
    NeuralLibForCausalLM,
    NeuralLibrary,
    command_line,
    compile_library,
    standard_library,
)

PROMPT = "Sort 52 7 913 4, please."
HOSTILE = (
    '</script></style><script>alert(1)</script><img src=x onerror=alert(1)> "\' onmouseover="x {{ 7 * 7 }} '
    "<!-- ]]> \u202etxt \x1b[2J"
)
MACHINE = MachineConfig()


def calling(tokenizer: Any, library: NeuralLibrary) -> NeuralLibForCausalLM:
    """The tiny model with an open gate; what it reads is arbitrary, but real."""
    torch.manual_seed(1)
    model = NeuralLibForCausalLM.from_llama(
        make_base(tokenizer), library=library, tokenizer=tokenizer, heads=TINY_HEADS
    )
    torch.manual_seed(5)
    model.computer.reader.scores.weight.data.normal_()
    return opened(model)


@pytest.fixture(scope="module")
def model(tiny_tokenizer: Any, tiny_library: NeuralLibrary) -> NeuralLibForCausalLM:
    return calling(tiny_tokenizer, tiny_library)


@pytest.fixture(scope="module")
def answer(model: NeuralLibForCausalLM, tiny_tokenizer: Any, tiny_library: NeuralLibrary) -> Any:
    found = model.explain(PROMPT, tiny_tokenizer, max_new_tokens=24, libraries=[tiny_library])
    assert found["calls"], "nothing is tested unless something was called"
    return found


def spelled(run: Mapping[str, Any]) -> str:
    """The result's text in the memory after all steps, as the record tells it."""
    late = bool(run["last"])
    memory = dict(zip(run["cells"], run["memory_before_last" if late else "memory"], strict=True))
    for step in run["last"] if late else run["first"]:
        if step["memory"]:
            memory[step["memory"][0]] = step["memory"][1]
    address, length = run["result"]
    return "".join(chr(memory[cell]) for cell in range(address, address + length))


def replaced(data: Any, text: str) -> Any:
    """The same data with every text, but for keys, a stranger's."""
    if isinstance(data, str):
        return text
    if isinstance(data, Mapping):
        length = len(data["text"]) if "labels" in data else 0
        new = {key: replaced(value, text) for key, value in data.items()}
        return new | {"text": (text * length)[:length]} if length else new
    if isinstance(data, Sequence):
        return [replaced(each, text) for each in data]
    return data


# The data


def test_it_is_plain_data(answer: Any) -> None:
    assert json.loads(json.dumps(answer)) == answer


def test_it_tells_of_the_calls_that_generate_makes(
    answer: Any, model: NeuralLibForCausalLM, tiny_tokenizer: Any
) -> None:
    chat = [{"role": "user", "content": PROMPT}]
    inputs = tiny_tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    output = model.generate(**inputs, max_new_tokens=24, do_sample=False, return_dict_in_generate=True)
    made = output.calls[0]
    assert [call["program"] for call in answer["calls"]] == [call.program for call in made]
    for told, call in zip(answer["calls"], made, strict=True):
        assert tuple(argument["text"] for argument in told["arguments"]) == call.arguments
        assert (told["position"], told["result"], told["steps"]) == (call.start, call.result, call.steps)
        assert told["choices"][0]["program"] == call.program
        assert told["choices"][0]["probability"] == pytest.approx(call.probability, abs=1e-3)
        assert "".join(told["tokens"]).strip() == call.result
    written = "".join(token["text"] for token in answer["tokens"] if token["call"] == 0)
    assert written == "".join(answer["calls"][0]["tokens"])


def test_probabilities_are_complete(answer: Any) -> None:
    for call in answer["calls"]:
        total = call["no_call"] + call["other_probability"] + sum(each["probability"] for each in call["choices"])
        assert total == pytest.approx(1, abs=2e-3)
        weights = np.array(call["reading"]["weights"])
        assert weights.shape == (len(call["reading"]["text"]), len(call["reading"]["roles"]))
        assert weights.min() >= 0 and weights.sum(1).max() <= 1.001
    for token in answer["tokens"]:
        assert token["call_probability"] is None or 0 <= token["call_probability"] <= 1


def test_the_gate_is_asked_right_behind_a_result(tiny_library: NeuralLibrary, tiny_tokenizer: Any) -> None:
    """A call that follows another is decided where the result of the first is complete; where the turn ends nobody asks."""
    model = calling(tiny_tokenizer, tiny_library)
    model.computer.writer.end.bias.data[END] = -50.0
    found = model.explain(PROMPT, tiny_tokenizer, max_new_tokens=24)
    first = found["calls"][0]["position"]
    ends = [call["position"] + len(call["tokens"]) for call in found["calls"]]
    following = [call for call in found["calls"] if call["position"] in ends]
    assert following
    for call in following:
        opened = found["tokens"][call["position"] - first]
        assert opened["call_probability"] == pytest.approx(1 - call["no_call"], abs=1e-3)
    model.computer.writer.end.bias.data[END] = 50.0
    ended = model.explain(PROMPT, tiny_tokenizer, max_new_tokens=24)
    assert ended["tokens"][-1]["special"] and ended["tokens"][-1]["call_probability"] is None


def test_the_labels_copy_the_arguments(answer: Any) -> None:
    for call in answer["calls"]:
        reading = call["reading"]
        assert PROMPT in reading["text"]
        boundary = np.zeros(len(reading["text"]), dtype=bool)
        boundary[reading["breaks"]] = True
        points = np.array([ord(character) for character in reading["text"]])
        texts = argument_texts(np.array(reading["labels"]), points, boundary, len(reading["roles"]) - 1)
        assert texts == [argument["text"] for argument in call["arguments"]]


def test_the_run_is_the_one_that_gave_the_result(answer: Any) -> None:
    ran = [call for call in answer["calls"] if call["run"] and call["result"]]
    assert ran
    for call in ran:
        assert spelled(call["run"]) == call["result"]
        assert call["run"]["steps"] == call["steps"]


def test_nothing_is_called_by_an_untrained_model(tiny_model: NeuralLibForCausalLM, tiny_tokenizer: Any) -> None:
    found = tiny_model.explain(PROMPT, tiny_tokenizer, max_new_tokens=4)
    assert found["calls"] == [] and len(found["tokens"]) == 4
    assert all(token["call"] is None and token["call_probability"] < 0.5 for token in found["tokens"])
    with tiny_model.disable_library():
        assert tiny_model.explain(PROMPT, tiny_tokenizer, max_new_tokens=4)["answer"] == found["answer"]


def test_messages_and_prompts_that_do_not_fit(
    model: NeuralLibForCausalLM, tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat = [{"role": "user", "content": "Add 1 and 2"}, {"role": "assistant", "content": "3"}]
    chat.append({"role": "user", "content": "Reverse it"})
    found = model.explain(chat, tiny_tokenizer, max_new_tokens=3)
    assert found["prompt"] == chat and "Reverse it" in found["calls"][0]["reading"]["text"]
    with pytest.raises(ExplanationError, match="the model's context holds 512"):
        model.explain("1 2 3 4 " * 200, tiny_tokenizer)
    monkeypatch.setattr(tiny_tokenizer, "chat_template", None)
    with pytest.raises(ExplanationError, match="no chat template"):
        model.explain(chat, tiny_tokenizer)


# Runs


def test_a_short_run_is_whole_and_has_its_source_lines(
    tiny_library: NeuralLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explanation_module, "FIRST_STEPS", 1_000)
    steps = tiny_library.call("double", ["7"]).steps
    run = run_record(tiny_library, "double", ["7"], MACHINE, steps)
    shown = [*run["first"], *run["last"]]
    assert run["left_out"] == 0 and [step["step"] for step in shown] == list(range(1, steps + 1))
    assert spelled(run) == "14" and shown[-1]["instruction"].strip() == "halt"
    lines = set()
    for step in shown:
        function = run["functions"][step["function"]]
        source = function["source"].splitlines()
        if step["line"] and function["file"] == "tiny_programs.py":
            lines.add(source[step["line"] - function["line"]].strip())
    assert "return number + number" in lines


def test_a_long_run_keeps_its_first_and_last_steps(tiny_library: NeuralLibrary) -> None:
    text = "strawberry " * 4
    result = tiny_library.call("reverse", [text])
    run = run_record(tiny_library, "reverse", [text], MACHINE, result.steps)
    assert (len(run["first"]), len(run["last"])) == (explanation_module.FIRST_STEPS, explanation_module.LAST_STEPS)
    assert run["left_out"] == result.steps - len(run["first"]) - len(run["last"]) > 0
    assert run["last"][-1]["step"] == result.steps
    assert spelled(run) == result.text == text[::-1]
    assert len(run["cells"]) < 2 * explanation_module.SHOWN_WORDS + 2 * 120


def test_a_run_too_long_to_follow_keeps_its_first_steps(
    tiny_library: NeuralLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explanation_module, "TRACED_STEPS", 100)
    text = "x" * 500
    run = run_record(tiny_library, "reverse", [text], MACHINE, tiny_library.call("reverse", [text]).steps)
    assert run["last"] == [] and run["result"] is None
    assert run["left_out"] == run["steps"] - len(run["first"]) > 0
    assert run["unshown"] == 500 + 1 - explanation_module.SHOWN_WORDS


def test_a_faulted_run_ends_where_it_was_stopped(tmp_path: Path) -> None:
    (tmp_path / "sixths.py").write_text("def sixth(text: str) -> str:\n    return text[5]\n")
    library = compile_library(tmp_path / "sixths.py")
    result = library.call("sixth", ["ab"])
    run = run_record(library, "sixth", ["ab"], MACHINE, result.steps)
    shown = [*run["first"], *run["last"]]
    assert shown[-1]["fault"] == result.fault.name.replace("_", " ") != "" and run["result"] is None
    assert all(step["fault"] == "" for step in shown[:-1])


def test_only_the_very_library_lends_its_sources(
    model: NeuralLibForCausalLM, tiny_tokenizer: Any, tmp_path: Path
) -> None:
    (tmp_path / "tiny_programs.py").write_text("def add(first: int, second: int) -> int:\n    return first\n")
    other = compile_library(tmp_path / "tiny_programs.py")
    model.save_pretrained(tmp_path / "model")
    saved = NeuralLibForCausalLM.from_pretrained(tmp_path / "model")
    found = saved.explain(PROMPT, tiny_tokenizer, max_new_tokens=4, libraries=[other])
    assert [call["run"]["functions"] for call in found["calls"] if call["run"]] == [[]], (
        "a saved model keeps no sources"
    )
    found = model.explain(PROMPT, tiny_tokenizer, max_new_tokens=4, libraries=[other])
    shown = [function["name"] for call in found["calls"] if call["run"] for function in call["run"]["functions"]]
    assert shown, "the library that was loaded in this process lends its own"


def test_the_standard_library_lends_its_sources_unasked(tiny_base: Any, tiny_tokenizer: Any) -> None:
    library = standard_library()
    description, tensors = library.to_tensors()
    stripped = NeuralLibrary.from_tensors(description, tensors)
    model = NeuralLibForCausalLM.from_llama(tiny_base, tokenizer=tiny_tokenizer, heads=TINY_HEADS)
    assert not stripped.origins and with_sources(stripped, lenders(model)).origins == library.origins


# The page


class Elements(html.parser.HTMLParser):
    """Every element with its attributes; refuses a page whose elements do not close in order."""

    def __init__(self, page: str):
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in ("meta", "input"):
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def checked(page: str) -> Elements:
    """The elements of a page that is small, reaches for nothing outside itself, and lets only its own script act."""
    assert len(page.encode()) <= PAGE_BYTES
    elements = Elements(page)
    tags = [tag for tag, _ in elements.found]
    assert not {"img", "link", "iframe", "object", "embed", "form", "base"} & set(tags)
    for tag, attributes in elements.found:
        assert not any(name.startswith("on") or name in ("src", "style", "action") for name in attributes)
        assert attributes.get("href", "#").startswith("#"), tag
    assert not re.search(r"https?:|url\(|@import", page)
    scripts = [attributes.get("type") for tag, attributes in elements.found if tag == "script"]
    assert scripts.count(None) == 1 and set(scripts) <= {None, "application/json"}
    policy = next(a["content"] for _, a in elements.found if a.get("http-equiv") == "Content-Security-Policy")
    for kind in ("script", "style"):
        inline = re.findall(rf"<{kind}>(.*?)</{kind}>", page, flags=re.DOTALL)
        assert len(inline) == 1
        digest = base64.b64encode(hashlib.sha256(inline[0].encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in str(policy)
    assert str(policy).startswith("default-src 'none'")
    return elements


def test_a_page_shows_what_happened(answer: Any) -> None:
    elements = checked(explanation_page([answer]))
    text = " ".join("".join(elements.text).split())
    call = answer["calls"][0]
    for shown in (call["program"], call["docstring"], "no call", "Registers", "Memory", call["reading"]["roles"][1]):
        assert " ".join(shown.split()) in text
    assert " ".join(call["run"]["first"][0]["instruction"].split()) in text


def test_the_script_gets_every_step_that_the_table_has(answer: Any) -> None:
    page = explanation_page([answer])
    blocks = re.findall(r'<script type="application/json">(.*?)</script>', page, flags=re.DOTALL)
    runs = [call["run"] for call in answer["calls"] if call["run"]]
    assert len(blocks) == len(runs)
    assert sum(len(json.loads(block)["steps"]) for block in blocks) == page.count("<tr data-step>")
    data = json.loads(blocks[0])
    assert data["registers"] == runs[0]["registers"] and len(data["cells"]) == len(data["memory"])


def test_nothing_of_a_stranger_acts(answer: Any) -> None:
    page = explanation_page([replaced(answer, HOSTILE)])
    elements = checked(page)
    assert "<script>alert" not in page and "\u202e" not in page and "\x1b" not in page
    text = "".join(elements.text)
    assert "<script>alert(1)</script>" in text and "{{ 7 * 7 }}" in text and "\\u202e" in text


def test_visible_writes_out_what_prints_nothing() -> None:
    assert visible("a\u202eb\x00\n\tc") == "a\\u202eb\\x00\n\tc"
    assert visible("x" * 50, 10) == "xxxxx … 40 characters … xxxxx"


def large(answer: Any, times: int) -> Any:
    """The answer with its first call many times, on texts of twenty thousand characters."""
    call = next(call for call in answer["calls"] if call["run"])
    words = "12 <&> " * 3_000
    reading = call["reading"] | {"text": words, "breaks": []}
    reading["weights"] = [[0.5, *[0.5] * (len(reading["roles"]) - 1)]] * len(words)
    reading["labels"] = [number // 3 % 2 for number in range(len(words))]
    arguments = [argument | {"text": words} for argument in call["arguments"]]
    long = call | {"reading": reading, "result": words, "arguments": arguments, "tokens": ["<12>"] * 10_000}
    return answer | {"calls": [long] * times, "tokens": answer["tokens"] * 1_000, "answer": words}


@pytest.mark.parametrize("times", [1, 64])
def test_a_page_stays_small(answer: Any, times: int) -> None:
    page = explanation_page([large(answer, times)])
    checked(page)
    assert "characters" in page and "more tokens" in page
    assert ("more calls are left out" in page) == (times > page_module.CALLS)


@pytest.mark.parametrize("detail", [5, 20, 60])
def test_a_run_that_is_shown_in_part_starts_its_end_from_the_right_state(
    tiny_library: NeuralLibrary, detail: int
) -> None:
    for text in ("ab", "abcdefgh", "strawberry " * 4):
        result = tiny_library.call("reverse", [text])
        run = run_record(tiny_library, "reverse", [text], MACHINE, result.steps)
        data = page_module._run(run, detail)["data"]
        late = data["late"] or data
        memory = dict(zip(data["cells"], late["memory"], strict=True))
        for *_, stored, _ in data["steps"][data["gap"] if data["late"] else 0 :]:
            if stored:
                memory[stored[0]] = stored[1]
        address, length = data["result"]
        assert "".join(chr(memory[address + n]) for n in range(length)) == text[::-1]
        assert len(data["steps"]) <= max(2 * detail, explanation_module.FIRST_STEPS)


def test_nothing_to_explain_is_refused() -> None:
    with pytest.raises(PageError, match="at least one"):
        explanation_page([])


def test_the_end_of_a_turn_is_shown_as_a_sign(tiny_library: NeuralLibrary, tiny_tokenizer: Any) -> None:
    model = calling(tiny_tokenizer, tiny_library)
    model.computer.writer.end.bias.data[END] = 50.0
    found = model.explain(PROMPT, tiny_tokenizer, max_new_tokens=60)
    texts = [token["text"] for token in found["tokens"] if token["special"]]
    assert texts == ["<|im_end|>"] == [found["tokens"][-1]["text"]]
    assert explanation_page([found]).count('special">&lt;|im_end|&gt;</span>') == 1


def test_what_the_compiler_made_is_in_no_file(answer: Any) -> None:
    files = {f["file"] for call in answer["calls"] if call["run"] for f in call["run"]["functions"]}
    assert files > {"entry", "runtime"}
    page = explanation_page([answer])
    assert re.search(r"<code>entry of \w+</code></summary>", page) and '<span class="quiet">runtime</span></summary>' in page


def browsed(page: str, folder: Path, *options: str) -> str:
    """The page as it stands in a browser when its scripts have run."""
    (folder / "page.html").write_text(page)
    command = ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"]
    command += [*options, "--dump-dom", (folder / "page.html").as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=True).stdout


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium here")
def test_a_browser_runs_the_script(answer: Any, tmp_path: Path) -> None:
    shown = browsed(explanation_page([answer]), tmp_path)
    runs = sum(1 for call in answer["calls"] if call["run"])
    assert shown.count('class="panes live"') == runs
    assert "before the first step: the arguments are in memory" in shown


MEASURE = """<script>
const outside = [...document.querySelectorAll("main *")].filter((each) => each.getBoundingClientRect().right > innerWidth + 1);
const scrolled = outside.filter((each) => !each.closest(".steps, .reading, pre, .memory"));
document.title = "outside: " + scrolled.length + " of " + innerWidth;
</script></body>"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium here")
@pytest.mark.parametrize("width", [500, 1280])
@pytest.mark.parametrize("text", ["", HOSTILE, "x" * 3_000], ids=["as it is", "hostile", "without a space"])
def test_nothing_stands_outside_of_the_window(answer: Any, tmp_path: Path, width: int, text: str) -> None:
    page = explanation_page([replaced(answer, text) if text else answer])
    policy = re.compile(r"<meta http-equiv=.Content-Security-Policy.[^>]*>")  # would not let the test's own script run
    page = policy.sub("", page).replace("</body>", MEASURE)
    assert f"<title>outside: 0 of {width}</title>" in browsed(page, tmp_path, f"--window-size={width},900")


# The command line


def test_ask_writes_the_page(
    model: NeuralLibForCausalLM, tiny_tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command_line, "_language_model", lambda source: (model, tiny_tokenizer))
    file = tmp_path / "page.html"
    arguments = ["ask", "Add 1, 2", "Double 3", "--max-new-tokens", "6", "--explain", str(file)]
    done = CliRunner().invoke(command_line.app, [*arguments, "--json"])
    assert done.exit_code == 0, done.output
    assert [json.loads(line)["prompt"] for line in done.stdout.splitlines()] == ["Add 1, 2", "Double 3"]
    checked(file.read_text(encoding="utf-8"))
    assert "Double 3" in file.read_text(encoding="utf-8")


def test_ask_refuses_a_page_that_cannot_be_written(tmp_path: Path) -> None:
    done = CliRunner().invoke(command_line.app, ["ask", "x", "--explain", str(tmp_path / "none" / "page.html")])
    assert done.exit_code == 1 and "is no folder" in done.stderr and done.stderr.count("\n") == 1
