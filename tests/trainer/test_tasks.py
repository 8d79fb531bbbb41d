"""Training requests: exact spans, one stream in every process, a split by wording, and answers that are right."""

import math
import re
import subprocess
import sys
from collections import Counter
from fractions import Fraction
from random import Random
from types import SimpleNamespace

import pytest
from neurallib.trainer import drawing, tasks
from neurallib.trainer import wording as wording_files
from neurallib.trainer.tasks import Example, RequestGenerator
from neurallib.trainer.wording import GENERAL, PARAMETERS, TaskError, Wording, is_validation, load, wordings


class Echo:
    """Stands in for the library where only the requests matter."""

    def run_batch(self, calls):
        return [SimpleNamespace(text=f"{program}({'; '.join(arguments)})") for program, arguments in calls]


class Moody(Echo):
    """Faults on every list of more than four numbers."""

    def run_batch(self, calls):
        return [SimpleNamespace(text=None if arguments[0].count(",") > 3 else "ok") for _, arguments in calls]


def check(example: Example) -> None:
    if example.program is None:
        assert example.answer is None
        assert example.arguments == example.spans == ()
        assert example.wording.startswith(GENERAL)
    else:
        assert len(example.arguments) == len(example.spans) == len(PARAMETERS[example.program])
        assert example.wording.startswith(f"{example.program}:")
    owned: list[int] = []
    for argument, pieces in zip(example.arguments, example.spans, strict=True):
        texts = [example.prompt[start:end] for start, end in pieces]
        assert ", ".join(texts) == argument, example
        assert all(text and text == text.strip() for text in texts), example
        assert " ".join(texts) == argument or " ".join(texts) == argument.replace(", ", " "), example
        if example.program is not None and PARAMETERS[example.program] == ("numbers",):
            assert all(re.fullmatch(r"-?\d+(,\d{3})?(\.\d+)?", text) for text in texts), example
            # What stands between the numbers never makes one of them longer.
            edges = [(example.prompt[:start][-1:], example.prompt[end:][:1]) for start, end in pieces]
            assert not any(before.isdigit() or after.isdigit() for before, after in edges), example
        else:
            assert len(texts) == 1
        owned += [position for start, end in pieces for position in range(start, end)]
    assert len(owned) == len(set(owned)), example
    assert not re.search(
        r"(?<![_^])\{(a|b|n|numbers|text|letter|expression|name2?|things|place|x|y)\}", example.prompt
    ), example


def test_spans_and_balance():
    examples = list(RequestGenerator(3, "all", library=Echo()).examples(2500))
    for example in examples:
        check(example)
    counts = Counter(example.program for example in examples)
    assert abs(counts.pop(None) - 750) <= 1
    assert set(counts) == set(PARAMETERS)
    assert max(counts.values()) - min(counts.values()) <= 1
    assert len({example.prompt for example in examples}) > 2300


@pytest.mark.parametrize("program", [*PARAMETERS, GENERAL])
def test_every_wording_renders(program, monkeypatch):
    generator = RequestGenerator(1, "all", library=Echo())
    for wording in load(program):
        monkeypatch.setattr(tasks, "select", lambda *_, chosen=wording: (chosen,))
        example = generator.general() if program == GENERAL else generator.example(program)
        assert example.wording == wording.identifier
        check(example)


@pytest.mark.parametrize("program", [*PARAMETERS, GENERAL])
def test_no_wording_twice_within_a_program(program):
    assert [line for line, times in Counter(wordings(program)).items() if times > 1] == []


def test_no_wording_asks_for_two_programs():
    worded = {program: {line.lower() for line in wordings(program)} for program in PARAMETERS}
    asked = Counter(line for lines in worded.values() for line in lines if "{a}" in line or "{n}" in line)
    assert [line for line, times in asked.items() if times > 1] == []


def values_of(program, wording, draws=4):
    """Arguments that are drawn for a wording, as numbers."""
    for seed in range(draws):
        values = drawing.DRAWERS[program](drawing.Draw(Random(seed), (1, 4), (2, 8), program), wording)
        yield {name: written(value) for name, value in values.items()}


def test_the_larger_number_of_a_difference_is_the_first_where_it_matters():
    either_way = 0
    for wording in load("difference"):
        symmetric = drawing._EITHER_WAY.search(wording.line) is not None and not wording.is_story
        either_way += symmetric
        assert symmetric or all(drawn["a"] >= drawn["b"] for drawn in values_of("difference", wording)), wording.line
    assert 60 < either_way < 200


@pytest.mark.parametrize("program", ["square", "cube", "double", "half"])
@pytest.mark.parametrize("line", ["{n} cm wide", "side {n}, area?", "{n}²", "√x = {n}", "{name} has {n} {things}"])
def test_sizes_are_positive(program, line):
    wording = Wording(f"{program}:0", line, tuple(wording_files.SLOT.split(line)))
    assert all(drawn["n"] > 0 for drawn in values_of(program, wording, 60))


def test_percentages_are_of_money_too():
    line = "{a}% of ${b}"
    wording = Wording("percentage:0", line, tuple(wording_files.SLOT.split(line)))
    assert any(drawn["b"].denominator > 1 for drawn in values_of("percentage", wording, 60))
    assert all(0 < drawn["a"] <= 100 for drawn in values_of("percentage", wording, 60))


def test_the_stream_is_a_function_of_the_seed_and_the_index():
    first = list(RequestGenerator(7, library=Echo()).examples(300))
    assert first == list(RequestGenerator(7, library=Echo()).examples(300))
    assert first[170:200] == list(RequestGenerator(7, library=Echo()).examples(30, start=170))
    assert first != list(RequestGenerator(8, library=Echo()).examples(300))
    one, other = RequestGenerator(7, library=Echo()), RequestGenerator(7, library=Echo())
    assert [one.example("add"), one.example("mean"), one.example("add")][2] == [
        other.example("add"),
        other.example("add"),
    ][1]


def test_the_stream_is_the_same_in_another_process():
    code = (
        "from types import SimpleNamespace as N\n"
        "from neurallib.trainer.tasks import RequestGenerator\n"
        "class Echo:\n"
        "    def run_batch(self, calls): return [N(text=str(call)) for call in calls]\n"
        "import hashlib, sys\n"
        "prompts = [e.prompt for e in RequestGenerator(5, library=Echo()).examples(100)]\n"
        "assert 'torch' not in sys.modules\n"
        "print(hashlib.sha256(repr(prompts).encode()).hexdigest())"
    )
    runs = {subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout for _ in range(2)}
    assert len(runs) == 1


def test_splits_share_no_wording():
    generators = {split: RequestGenerator(2, split, library=Echo()) for split in ("train", "validation")}
    seen = {split: {e.wording for e in generator.examples(1500)} for split, generator in generators.items()}
    assert not seen["train"] & seen["validation"]
    for program in (*PARAMETERS, GENERAL):
        lines = wordings(program)
        kept = {f"{program}:{i}" for i, line in enumerate(lines) if is_validation(line)}
        assert 0 < len(kept) < 0.2 * len(lines)
        assert {w for w in seen["validation"] if w.startswith(f"{program}:")} <= kept
    total = [is_validation(line) for program in (*PARAMETERS, GENERAL) for line in wordings(program)]
    assert 0.06 < sum(total) / len(total) < 0.1


def test_lengths_and_digits_can_be_set():
    generator = RequestGenerator(
        4, digits=(40, 40), list_length=(64, 64), programs=["add", "sort_ascending"], library=Echo()
    )
    for example in generator.examples(40, general_share=0):
        check(example)
        numbers = re.findall(r"\d+", " ".join(example.arguments))
        assert {len(number) for number in numbers} == {40}
        assert len(numbers) == (2 if example.program == "add" else 64)


def test_a_faulting_program_is_drawn_again():
    generator = RequestGenerator(1, programs=["maximum"], library=Moody())
    assert {example.answer for example in generator.examples(50, general_share=0)} == {"ok"}
    with pytest.raises(TaskError, match="maximum faults on 40 draws"):
        next(
            RequestGenerator(1, list_length=(6, 6), programs=["maximum"], library=Moody()).examples(1, general_share=0)
        )


@pytest.mark.parametrize(
    "arguments",
    [{"split": "test"}, {"digits": (0, 3)}, {"list_length": (5, 4)}, {"programs": ["subtrakt"]}, {"programs": []}],
)
def test_bad_arguments_are_refused(arguments):
    with pytest.raises(TaskError):
        RequestGenerator(0, **arguments)


def test_a_share_outside_0_to_1_is_refused():
    with pytest.raises(TaskError, match="general_share"):
        next(RequestGenerator(0, library=Echo()).examples(1, general_share=1.5))


def test_a_line_without_its_placeholder_is_named(tmp_path, monkeypatch):
    (tmp_path / "add.txt").write_text("# add\n{a} plus {b}\nadd {a}\n", encoding="utf-8")
    monkeypatch.setattr(wording_files, "PHRASINGS", tmp_path)
    load.cache_clear()
    try:
        with pytest.raises(TaskError, match=r"add\.txt, line 3: expected \{a\} \{b\} \(a list once\), found"):
            wordings("add")
    finally:
        load.cache_clear()


def only(monkeypatch, program, line, seed=0, count=60):
    """Requests by one wording."""
    wording = Wording(f"{program}:0", line, tuple(wording_files.SLOT.split(line)))
    monkeypatch.setattr(tasks, "select", lambda *_: (wording,))
    return list(RequestGenerator(seed, programs=[program]).examples(count, general_share=0))


def test_an_argument_said_twice_is_one_argument_read_at_one_of_its_places(monkeypatch):
    examples = only(monkeypatch, "power", "{b} wheels with {a} letters, so {a} to the power {b}. What is it?")
    for example in examples:
        check(example)
        a, b = example.arguments
        assert f"{a} to the power {b}" in example.prompt or f"{a} TO THE POWER {b}" in example.prompt
        assert as_fraction(example.answer) == written(a) ** int(b)
    places = {example.prompt.index("wheels") < example.spans[0][0][0] - 12 for example in examples}
    assert places == {True, False}, "each of the places is drawn"


def test_numbers_in_groups_of_three_and_with_decimals(monkeypatch):
    examples = only(monkeypatch, "add", "What is {a} plus {b}?", count=400)
    grouped = [example for example in examples if "," in "".join(example.arguments)]
    assert grouped
    assert all(re.fullmatch(r"-?\d,\d{3}|-?\d+(\.\d+)?", text) for example in grouped for text in example.arguments)
    pointed = [example for example in examples if "." in "".join(example.arguments)]
    assert 0.08 * len(examples) < len(pointed) < 0.25 * len(examples)
    for example in examples:
        assert as_fraction(example.answer) == sum(map(written, example.arguments))
    for line in ("What is the whole number {a} plus {b}?", "{name} had {a} friends and found {b} more."):
        assert not any("." in "".join(e.arguments) for e in only(monkeypatch, "add", line, count=200)), line
    assert not any("," in "".join(e.arguments) for e in only(monkeypatch, "add", "add({a}, {b})", count=200))
    compared = only(monkeypatch, "compare", "How does {a} compare with {b}?", count=200)
    assert any("." in "".join(example.arguments) for example in compared)
    for example in compared:
        check(example)


def test_lists_hold_numbers_in_groups_where_not_only_commas_separate_them(monkeypatch):
    for line in ("Sort {numbers} please", "Ascending order: {numbers}", "{numbers}\nsmallest first"):
        examples = only(monkeypatch, "sort_ascending", line, count=600)
        grouped = [example for example in examples if re.search(r"\d,\d{3}\b", example.arguments[0])]
        assert 0.02 * len(examples) < len(grouped) < 0.1 * len(examples)
        for example in examples:
            check(example)
            numbers = sorted(map(written, example.arguments[0].split(", ")))
            assert [Fraction(number) for number in example.answer.split()] == numbers
        for example in grouped:
            assert not any(re.match(r",\d", example.prompt[end:]) for _, end in example.spans[0])
    in_code = only(monkeypatch, "sort_ascending", "sorted([{numbers}])", count=200)
    assert not any(re.search(r"\d,\d{3}\b", example.arguments[0]) for example in in_code)


def test_lists_say_when_and_stand_in_tables(monkeypatch):
    examples = only(monkeypatch, "sum_numbers", "How many people came in all?\n{numbers}", count=3000)
    prompts = [example.prompt for example in examples]
    for style in (r"\d+ on Mon\b", r"\d+ in week one\b", r"\| \w+ \| \d+ \|", r"\w+[,\t]\d+\n\w+[,\t]\d+"):
        assert any(re.search(style, prompt) for prompt in prompts), style
    for example in examples:
        check(example)
        assert as_fraction(example.answer) == sum(map(written, example.arguments[0].split(", ")))


def test_numbers_around_a_request_are_no_arguments(monkeypatch):
    examples = only(monkeypatch, "reverse_text", "{text} backwards", count=400)
    for example in examples:
        check(example)
        (((start, _),),) = example.spans
        assert not re.search(r"\d[.:)\]]? ?$", example.prompt[:start]), "a number runs into a bare text"
    asked = only(monkeypatch, "add", "What is {a} plus {b}?", count=400)
    assert any(re.match(r"(Question|Problem|Q|\()\d* ?\d+", example.prompt) for example in asked)


def test_two_numbers_are_drawn_where_two_are_meant(monkeypatch):
    examples = only(monkeypatch, "maximum", "Which of these two is it: {numbers}?")
    assert {len(example.arguments[0].split(", ")) for example in examples} == {2}
    assert any(" or " in example.prompt for example in examples)
    told = only(monkeypatch, "maximum", "Give me the highest number of {numbers}")
    assert not any(" or " in example.prompt for example in told)


def test_years_are_drawn_where_years_are_meant(monkeypatch):
    lines = {
        "subtract": "It was built in {b}. How old is it in the year {a}?",
        "add": "Born in {a}, in which year does she turn {b}?",
    }
    for program, line in lines.items():
        examples = only(monkeypatch, program, line)
        pairs = [tuple(int(text.replace(",", "")) for text in example.arguments) for example in examples]
        ours = [(a, b) for a, b in pairs if 1850 <= a <= 2035 and (1850 <= b <= a if program == "subtract" else b < 100)]
        assert 0.5 * len(pairs) < len(ours) < len(pairs), "mostly, not always"


def test_a_price_is_divided_evenly_where_nobody_rounds(monkeypatch):
    examples = only(monkeypatch, "divide", "{name} and {name2} paid {a} dollars for {b} tickets. What does one cost?")
    pairs = [[int(text.replace(",", "")) for text in example.arguments] for example in examples]
    assert all(a % b == 0 for a, b in pairs)
    rounded = only(monkeypatch, "divide", "{name} has {a} eggs and boxes of {b}. How many full boxes are there?")
    pairs = [[int(text.replace(",", "")) for text in example.arguments] for example in rounded]
    assert any(b and a % b for a, b in pairs)


def test_letters_are_asked_of_words_without_spaces(monkeypatch):
    examples = only(monkeypatch, "text_length", "How many letters are in {text}?", count=200)
    assert all(example.arguments[0].isalpha() for example in examples)


# ------------------------------------------------------------------------------------- answers of the standard library


def oracle(program: str, arguments: tuple[str, ...]) -> object:
    """The answer by CPython; a Fraction where the spelling of the result is the program's business."""
    if program in ("reverse_text", "text_length", "count_letter"):
        text = arguments[0]
        return {"reverse_text": text[::-1], "text_length": len(text)}.get(
            program,
            # Documented: upper and lower case of a letter count alike.
            text.lower().count(arguments[-1].lower()),
        )
    if program == "evaluate":
        plain = arguments[0].replace("x", "*").replace("×", "*").replace("÷", "/").replace("^", "**")
        return eval(re.sub(r"\d+(\.\d+)?", r"Fraction('\g<0>')", plain), {"Fraction": Fraction})
    if PARAMETERS[program] == ("numbers",):
        numbers = [written(number) for number in arguments[0].split(", ")]
        listed = {
            "sort_ascending": sorted(numbers),
            "sort_descending": sorted(numbers)[::-1],
            "reverse_list": numbers[::-1],
        }
        if program in listed:
            return listed[program]
        return {
            "sum_numbers": sum(numbers),
            "maximum": max(numbers),
            "minimum": min(numbers),
            "mean": Fraction(sum(numbers), len(numbers)),
            "count_numbers": len(numbers),
        }[program]
    numbers = [written(text) for text in arguments]
    a, b = (*(int(number) if number.denominator == 1 else number for number in numbers), 0)[:2]
    if program == "fibonacci":
        first, second = 0, 1
        for _ in range(a):
            first, second = second, first + second
        return first
    return {
        "add": lambda: a + b,
        "subtract": lambda: a - b,
        "multiply": lambda: a * b,
        "divide": lambda: a // b,
        "remainder": lambda: a % b,
        "power": lambda: a**b,
        "difference": lambda: abs(a - b),
        "percentage": lambda: Fraction(a * b) / 100,
        "square": lambda: a * a,
        "cube": lambda: a * a * a,
        "double": lambda: a + a,
        "half": lambda: Fraction(a) / 2,
        "compare": lambda: "less" if a < b else "greater" if a > b else "equal",
        "greatest_common_divisor": lambda: math.gcd(a, b),
        "least_common_multiple": lambda: math.lcm(a, b),
        "factorial": lambda: math.factorial(a),
        "is_prime": lambda: "yes" if a > 1 and all(a % d for d in range(2, math.isqrt(a) + 1)) else "no",
    }[program]()


def written(number: str) -> Fraction:
    """The value of a number that may be in groups of three digits."""
    return Fraction(number.replace(",", ""))


def as_fraction(answer: str) -> Fraction:
    """A whole number, a fraction, a mixed number or a decimal."""
    whole, _, rest = answer.rpartition(" ")
    if whole:
        sign = -1 if whole.startswith("-") else 1
        return Fraction(whole) + sign * Fraction(rest)
    return Fraction(answer)


@pytest.mark.parametrize("program", PARAMETERS)
def test_answers_are_those_of_cpython(program):
    generator = RequestGenerator(11, "all", programs=[program])
    for example in generator.examples(40, general_share=0):
        assert example.answer is not None
        try:
            expected = oracle(program, example.arguments)
        except ZeroDivisionError:
            assert re.search("zero", example.answer), example
            continue
        if isinstance(expected, list):
            assert [Fraction(number) for number in example.answer.split()] == expected, example
        elif isinstance(expected, Fraction):
            assert as_fraction(example.answer) == expected, example
        else:
            assert example.answer == str(expected), example


@pytest.mark.parametrize("program", [*PARAMETERS, GENERAL])
def test_mistyped_requests_keep_their_arguments(program):
    """Nearly all look otherwise than they would; what is asked, of what, and how many characters it may have changed, do not."""
    neat, hasty = (RequestGenerator(17, "all", programs=[*PARAMETERS], mistyped=part) for part in (0.0, 1.0))
    changed = 0
    for number in range(40):
        one, other = (generator.request(program, f"draw {number}") for generator in (neat, hasty))
        assert other.wording == one.wording and other.program == one.program
        for (_, pieces), before in zip(enumerate(other.spans), one.spans, strict=True):
            assert [other.prompt[start:end] for start, end in pieces] == [one.prompt[start:end] for start, end in before]
        assert abs(len(other.prompt) - len(one.prompt)) <= 2 + len(re.findall(r"['’.?! ]", one.prompt))
        changed += other.prompt != one.prompt
    assert changed > 20


def test_a_part_of_mistyped_requests_that_is_none_is_refused():
    with pytest.raises(TaskError, match="from 0 to 1"):
        RequestGenerator(0, mistyped=1.5)
