"""Training conversations: one stream in every process, pieces that say what they claim, a split by wording."""

import dataclasses
import re
import subprocess
import sys
from collections import Counter
from fractions import Fraction
from hashlib import sha256
from itertools import pairwise
from random import Random
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from neurallib.modeling_neurallib.programs import standard_library
from neurallib.trainer import dialogues, wording
from neurallib.trainer.dialogues import Dialogue, DialogueGenerator, DialogueShares, Step
from neurallib.trainer.tasks import Example
from neurallib.trainer.wording import GENERAL, PARAMETERS, TaskError, is_validation
from neurallib.trainer.worked_examples import Pattern, patterns
from test_tasks import as_fraction, oracle

NONE = {"general": 0.0, "later": 0.0, "follow_up": 0.0, "again": 0.0, "several": 0.0, "examples": 0.0}


def only(kind: str) -> DialogueShares:
    return DialogueShares(**{**NONE, kind: 1.0})


@pytest.fixture(scope="module")
def library():
    return standard_library()


def check(dialogue: Dialogue) -> None:
    assert len(dialogue.messages) % 2 == 1
    assert all(message.strip() for message in dialogue.messages)
    # LaTeX has braces of its own.
    unfilled = re.compile(r"(?<![_^])\{(a|b|n|numbers|text|letter|expression|name2?|things|place|x|y|first|second|third)\}")
    assert not any(unfilled.search(message) for message in dialogue.messages[::2]), dialogue
    for step in dialogue.steps:
        assert len(step.arguments) == len(step.spans) == len(PARAMETERS[step.program])
        for argument, pieces in zip(step.arguments, step.spans, strict=True):
            texts = [dialogue.messages[message][start:end] for message, start, end in pieces]
            assert ", ".join(texts) == argument, dialogue
            assert all(text and text == text.strip() for text in texts), dialogue
        owned = [(m, at) for pieces in step.spans for m, start, end in pieces for at in range(start, end)]
        assert len(owned) == len(set(owned)), dialogue
    assert len(dialogue.around) == len(dialogue.steps) + 1
    if dialogue.reply is not None:
        answers = [step.answer for step in dialogue.steps]
        assert dialogue.reply.format(*answers) == "".join(
            part for pair in zip(dialogue.around, [*answers, ""], strict=True) for part in pair
        )


def is_right(step: Step) -> bool:
    try:
        expected = oracle(step.program, step.arguments)
    except ZeroDivisionError:
        return "zero" in step.answer
    if isinstance(expected, list):
        return [Fraction(number) for number in step.answer.split()] == expected
    if isinstance(expected, Fraction):
        return as_fraction(step.answer) == expected
    return step.answer == str(expected)


@pytest.mark.parametrize("kind", NONE)
def test_pieces_and_answers(kind, library):
    seen = Counter()
    for dialogue in DialogueGenerator(3, "all", library=library).dialogues(250, only(kind)):
        check(dialogue)
        for step in dialogue.steps:
            seen[step.program] += 1
            assert is_right(step), (step, dialogue)
        # A turn of the assistant is small talk, or the result of what was asked before it.
        if kind in ("general", "several"):
            assert len(dialogue.messages) == 1
            assert len(dialogue.steps) == 0 if kind == "general" else len(dialogue.steps) in (2, 3, 4)
        if kind == "examples":
            assert len(dialogue.messages) == len(dialogue.steps) == 1
        if kind == "later":
            assert len(dialogue.messages) in (3, 5)
            assert all(m == len(dialogue.messages) - 1 for s in dialogue.steps for p in s.spans for m, _, _ in p)
        if kind == "again":
            assert len(dialogue.steps) == 1 and len(dialogue.messages) in (3, 5, 7)
    assert len(seen) == (0 if kind == "general" else 28 if kind == "follow_up" else len(PARAMETERS))


def test_a_follow_up_reads_the_result_before_it(library):
    orders = set()
    for dialogue in DialogueGenerator(5, "all", library=library).dialogues(900, only("follow_up")):
        (step,) = dialogue.steps
        last = len(dialogue.messages) - 1
        read = [{message for message, _, _ in pieces} for pieces in step.spans]
        assert sorted(map(tuple, read)) in ([(last - 1,)], [(last - 1,), (last,)]), dialogue
        if len(read) == 2:
            orders.add((step.program, read[0] == {last}))
        (earlier,) = (argument for argument, where in zip(step.arguments, read, strict=True) if where == {last - 1})
        reply = dialogue.messages[last - 1]
        assert earlier in (reply, reply.replace(" ", ", "))
    assert {("subtract", True), ("subtract", False), ("divide", True), ("divide", False)} <= orders


def test_what_is_asked_again_has_other_arguments_or_the_same(library):
    """Other arguments stand in the last message; the same ones in one before it, where they were asked about already."""
    counts = Counter()
    for dialogue in DialogueGenerator(6, "all", library=library).dialogues(250, only("again")):
        (step,) = dialogue.steps
        last = len(dialogue.messages) - 1
        (where,) = {message for pieces in step.spans for message, _, _ in pieces}
        identifier = dialogue.wording.split()[-1]
        counts[where == last, last - where] += 1
        assert where == last or (where % 2 == 0 and dialogue.messages[last] == lines_of(identifier).replace("\\n", "\n"))
        assert identifier.startswith("again:") and ("{arguments}" in lines_of(identifier)) == (where == last)
        assert step.answer != dialogue.messages[last - 1] or where == last
    assert min(counts[True, 0], counts[False, 2], counts[False, 4]) > 20, counts


def test_earlier_replies_are_the_results_of_their_requests(library):
    calls: list[tuple[str, tuple[str, ...], str | None]] = []

    class Listening:
        def run_batch(self, batch):
            results = library.run_batch(batch)
            calls.extend((*call, result.text) for call, result in zip(batch, results, strict=True))
            return results

    generator = DialogueGenerator(9, "all", library=Listening())
    talk = {(message, reply) for _, message, reply in dialogues._small_talk("all", True)}
    replies = 0
    for dialogue in generator.dialogues(150, DialogueShares(general=0, later=0.5, follow_up=0.5, several=0)):
        for at in range(0, len(dialogue.messages) - 1, 2):
            message, reply = dialogue.messages[at : at + 2]
            program = dialogue.wording.split()[at // 2].split(":")[0]
            if program == "small_talk":
                assert (message, reply) in talk
                continue
            replies += 1
            read = message if program in PARAMETERS else "".join(dialogue.messages[at - 1 : at + 1])
            assert any(
                result == reply
                and program in (called, "follow_ups")
                and all(word in read for argument in arguments for word in argument.split(", "))
                for called, arguments, result in calls
            ), dialogue
    assert replies > 100


def test_several_requests_stand_in_order_and_apart(library):
    for dialogue in DialogueGenerator(2, "all", library=library).dialogues(250, only("several")):
        if ":" not in dialogue.wording.partition(" ")[2]:
            assert len({step.spans for step in dialogue.steps}) == 1  # one set of arguments for all
            continue
        edges = [[(s, e) for pieces in step.spans for _, s, e in pieces] for step in dialogue.steps]
        for one, other in pairwise(edges):
            end, start = max(e for _, e in one), min(s for s, _ in other)
            assert end < start
            between = dialogue.messages[0][end:start]
            assert re.search(r"[\n;|•\d]", between) or any(c.isalpha() for c in between), dialogue


@pytest.mark.parametrize(
    ("line", "apart"),
    [
        ("{first} plus {second}", False), ("{first} And {second}", False), ("{first} , {second}", False),
        ("1. {first} 2. {second}", True), ("{first}; {second}", True), ("{first}\n{second}", True),
        ("{first} and then {second}", True),
    ],
)  # fmt: skip
def test_formulas_stand_beside_each_other_where_it_is_clear_that_they_are_two(line, apart, library):
    spans = (((0, 1),), ((4, 5),))
    requests = [Example(text, None, "add", tuple(text.split(" + ")), spans, "add:0") for text in ("1 + 2", "3 + 4")]
    generator, pattern = DialogueGenerator(0, library=library), dialogues._Joined("several:0", line, ())
    if not apart:
        with pytest.raises(dialogues._Unfit, match="could be read as part of"):
            generator._together(Random(0), pattern, requests)
        return
    message, spans = generator._together(Random(0), pattern, requests)
    told = [[message[start:end] for pieces in own for start, end in pieces] for own in spans]
    assert told == [["1", "2"], ["3", "4"]]


def test_examples_are_solved_rightly_before_the_request(library, monkeypatch):
    """Examples are of the request's program, with CPython's results, and none of them is the request."""
    shown = []

    def message(self, task, solved, request):
        made = plain(self, task, solved, request)
        shown.append((made[0], solved, request))
        return made

    plain = Pattern.message
    monkeypatch.setattr(Pattern, "message", message)
    made = {one.messages[0] for one in DialogueGenerator(5, "all", library=library).dialogues(150, only("examples"))}
    assert made == {text for text, _, _ in shown}
    assert {len(solved) for _, solved, _ in shown} == {0, 1, 2, 3, 4}
    for text, solved, request in shown:
        at = 0
        for example, answer in solved:
            assert example.program == request.program and example.arguments != request.arguments
            assert is_right(Step(example.program, example.arguments, answer, ()))
            at = text.index(answer, text.index(example.prompt, at) + len(example.prompt))
        assert at < text.rindex(request.prompt)


def test_a_pattern_keeps_the_pieces_of_its_request():
    request = Example("2 and 3", None, "add", ("2", "3"), (((0, 1),), ((6, 7),)), "add:arguments")
    for pattern in patterns("all"):
        solved = [(dataclasses.replace(request, prompt=f"{n} and {n}"), str(2 * n)) for n in (1, 4)]
        message, spans = pattern.message("Add.", solved, request)
        assert [message[start:end] for pieces in spans for start, end in pieces] == ["2", "3"]
        assert message.startswith("Add.\n") and "{" not in message.replace('{"', "")
        assert message.index("1 and 1") < message.index("4 and 4") < message.rindex("2 and 3") and "8" in message


def test_the_stream_is_a_function_of_the_seed_and_the_index(library):
    first = list(DialogueGenerator(7, library=library).dialogues(150))
    assert first[120:140] == list(DialogueGenerator(7, library=library).dialogues(20, start=120))
    assert first != list(DialogueGenerator(8, library=library).dialogues(150))


def test_the_stream_is_the_same_in_another_process():
    code = (
        "import hashlib\n"
        "from neurallib.trainer.dialogues import DialogueGenerator\n"
        "print(hashlib.sha256(repr(list(DialogueGenerator(5).dialogues(60))).encode()).hexdigest())"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    here = sha256(repr(list(DialogueGenerator(5).dialogues(60))).encode()).hexdigest()
    assert run.stdout.strip() == here


def lines_of(identifier: str) -> str:
    """The text that decides on which side of the split a wording lies."""
    name, _, number = identifier.partition(":")
    if name in PARAMETERS or name == GENERAL:
        return wording.wordings(name)[int(number)]
    text = dialogues._rows(name)[int(number)][1]
    return text if name == "small_talk" or "{first}" in text or "{arguments}" in text else re.sub(r"^[a-z_ ]+: ", "", text)


@pytest.mark.parametrize("split", ["train", "validation"])
def test_every_wording_lies_on_its_side(split, library):
    seen = Counter()
    for dialogue in DialogueGenerator(4, split, library=library).dialogues(300):
        for identifier in dialogue.wording.split():
            seen[identifier.split(":")[0]] += 1
            assert is_validation(lines_of(identifier)) == (split == "validation"), identifier
    assert {"follow_ups", "several", "small_talk", GENERAL} <= set(seen)


def test_both_sides_have_follow_ups_for_every_program():
    counts = {split: Counter(w.program for w in dialogues._follow_ups(split)) for split in ("all", "validation")}
    assert len(counts["all"]) == 28
    assert min(counts["all"].values()) >= 25
    assert set(counts["validation"]) == set(counts["all"])


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**40),
    parts=st.lists(st.integers(0, 10), min_size=6, max_size=6).filter(any),
    start=st.integers(0, 10**9),
)
def test_kinds_are_spread_as_asked(library, seed, parts, start):
    kinds = ("general", "later", "follow_up", "again", "several")
    shares = DialogueShares(**{kind: part / sum(parts) for kind, part in zip(kinds, parts, strict=False)})
    drawn = list(DialogueGenerator(seed, "all", library=library).dialogues(40, shares, start))
    for dialogue in drawn:
        check(dialogue)
    several = sum(len(dialogue.steps) > 1 for dialogue in drawn)
    general = sum(len(dialogue.messages) == 1 and not dialogue.steps for dialogue in drawn)
    assert abs(several - 40 * shares.several) < 4
    assert abs(general - 40 * shares.general) < 4


@pytest.mark.parametrize("shares", [{"general": -0.1}, {"general": 0.9, "later": 0.2}, {"several": 1.01}])
def test_shares_that_are_none_are_refused(shares):
    with pytest.raises(TaskError, match="shares"):
        DialogueShares(**{**NONE, **shares})


def test_programs_that_cannot_follow_are_refused(library):
    with pytest.raises(TaskError, match="no follow-up"):
        next(DialogueGenerator(0, programs=["is_prime"], library=library).dialogues(1))
    plain = DialogueGenerator(0, programs=["is_prime"], library=library).dialogues(20, DialogueShares(**NONE))
    assert {dialogue.steps[0].program for dialogue in plain} == {"is_prime"}


def test_a_run_that_faults_is_drawn_again():
    class Moody:
        """Faults on every number with a 7."""

        def run_batch(self, calls):
            return [SimpleNamespace(text=None if "7" in "".join(a) else "12") for _, a in calls]

    for dialogue in DialogueGenerator(1, programs=["add", "subtract"], library=Moody()).dialogues(80):
        assert not any("7" in argument for step in dialogue.steps for argument in step.arguments)

    class Broken:
        def run_batch(self, calls):
            return [SimpleNamespace(text=None) for _ in calls]

    with pytest.raises(TaskError, match="in 40 draws"):
        next(DialogueGenerator(1, library=Broken()).dialogues(1, only("follow_up")))


def test_long_numbers_can_be_asked_for(library):
    generator = DialogueGenerator(6, digits=(20, 20), library=library)
    for dialogue in generator.dialogues(60, only("follow_up")):
        check(dialogue)


def test_an_example_is_a_conversation_of_one_message():
    example = Example("12 and 7?", "19", "add", ("12", "7"), (((0, 2),), ((7, 8),)), "add:0", "The answer is 19.")
    dialogue = Dialogue.from_example(example)
    assert dialogue == Dialogue(
        ("12 and 7?",), (Step("add", ("12", "7"), "19", (((0, 0, 2),), ((0, 7, 8),))),), "add:0", "The answer is {}."
    )
    assert dialogue.around == ("The answer is ", ".")
    assert Dialogue.from_example(Example("hi", None, None, (), (), "general:0")).around == ("",)


@pytest.mark.parametrize(
    ("name", "line", "message"),
    [
        ("follow_ups", "add: plus", "expected 1 placeholders for add"),
        ("follow_ups", "add: {a} and {b}", "expected 1 placeholders for add"),
        ("follow_ups", "addd: plus {b}", "expected a program"),
        ("follow_ups", "add after lunch: plus {b}", "no program's result is 'lunch'"),
        ("again", "and {arguments} or {arguments}?", "expected a program"),
        ("again", "add: and {a} and {b}?", "expected {arguments}, or a program that shares"),
        ("again", "power: and the power?", "expected {arguments}, or a program that shares"),
        ("several", "{second} {first}", "expected {first} {second}"),
        ("several", "add mean: {a} {b}", "programs that share"),
        ("examples", "{question} {answer} | {question}", "expected 'example | between | request'"),
        ("examples", "{question} | \\n | {question}", "expected 'example | between | request'"),
        ("examples", "{question} {answer} |  | {arguments}", "expected 'example | between | request'"),
        ("examples", "{question} {answer} |  | {question} {answer}", "expected 'example | between | request'"),
    ],
)
def test_a_line_that_cannot_be_used_is_named(name, line, message, tmp_path, monkeypatch):
    (tmp_path / f"{name}.txt").write_text(f"# a comment\n{line}\n", encoding="utf-8")
    monkeypatch.setattr(wording, "PHRASINGS", tmp_path)
    own = {"again": dialogues._again, "follow_ups": dialogues._follow_ups, "several": dialogues._several}
    read = {**own, "examples": patterns}[name]
    with pytest.raises(TaskError, match=re.escape(message)) as raised:
        read.__wrapped__("all")
    assert f"{name}.txt, line 2" in str(raised.value)


def test_programs_are_asked_for_as_often_as_emphasis_says(library):
    asked = ["add", "subtract", "is_prime"]
    shares = DialogueShares(**NONE)
    generator = DialogueGenerator(0, programs=asked, library=library, emphasis={"subtract": 3})
    counts = Counter(step.program for dialogue in generator.dialogues(900, shares) for step in dialogue.steps)
    wordings = {program: len(wording.select(program, "train")) for program in asked}
    whole = wordings["add"] + 3 * wordings["subtract"] + wordings["is_prime"]
    for program, times in (("add", 1), ("subtract", 3), ("is_prime", 1)):
        assert abs(counts[program] / 900 - times * wordings[program] / whole) < 0.06
    plain = [
        list(DialogueGenerator(0, programs=asked, library=library, emphasis=emphasis).dialogues(40, shares))
        for emphasis in (None, {"add": 1})
    ]
    assert plain[0] == plain[1]


@pytest.mark.parametrize("emphasis", [{"subtrakt": 2}, {"add": 0}, {"add": 1.5}, {"add": True}, {"power": 2}])
def test_emphasis_that_cannot_be_given(emphasis, library):
    with pytest.raises(TaskError, match=f"emphasis has '{next(iter(emphasis))}'.*expected a program that is asked for"):
        DialogueGenerator(0, programs=["add"], library=library, emphasis=emphasis)
