"""Where the answers belong in what the backbone wrote."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from neurallib.trainer.carriers import spots

ADD = "What is 12 plus 7?"
SORT = "Sort these: 12, 3, 5"
BACKWARDS = 'Write "hello" backwards'


@pytest.mark.parametrize(
    ("prompt", "reply", "answers", "expected"),
    [
        (ADD, "20", ["19"], "{}"),
        (ADD, " The answer is 20.", ["19"], "The answer is {}."),
        (ADD, "12 + 7 = 20", ["19"], "12 + 7 = {}"),
        (ADD, "The sum of 12 and 7 is **20**. To see why, add them.", ["19"], "The sum of 12 and 7 is **{}**."),
        (ADD, "12 plus 7 is 20.\n\nSo the answer is 20.", ["19"], "12 plus 7 is {}."),
        (ADD, "It is -20!", ["19"], "It is {}!"),
        ("What is 1200 * 3?", "1,200 times 3 is 3,650.", ["3600"], "1,200 times 3 is {}."),
        ("Anna has $12 and gets $7.", "Anna now has $20.50 in total.", ["19"], "Anna now has ${} in total."),
        ("What is 7 divided by 3?", "7/3 = 2.5", ["7/3"], "7/3 = {}"),
        ("How many r's are in strawberry?", "There are 2 r's in strawberry.", ["3"], "There are {} r's in strawberry."),
        (
            "What is the largest of 3, 9, 4?",
            "The largest number of 3, 9, 4: 4",
            ["9"],
            "The largest number of 3, 9, 4: {}",
        ),
        (SORT, "The sorted list is 3, 12, 5.", ["3 5 12"], "The sorted list is {}."),
        (SORT, "Here you go: [3, 5, 12]", ["3 5 12"], "Here you go: [{}]"),
        (SORT, "12, 3, 5 in order: 3, 5, 12.", ["3 5 12"], "12, 3, 5 in order: {}."),
        (BACKWARDS, 'The word "hello" backwards is "olleh".', ["olleh"], 'The word "hello" backwards is "{}".'),
        (BACKWARDS, "The reverse of hello is oleh.", ["olleh"], "The reverse of hello is {}."),
        ("Is 17 prime?", "Yes.", ["yes"], "{}."),
        ("Is 17 prime?", "The answer is no.", ["yes"], "The answer is {}."),
        ("12 + 7? And 3 * 4?", "12 + 7 = 20 and 3 * 4 = 13.", ["19", "12"], "12 + 7 = {} and 3 * 4 = {}."),
        ("12 + 7? And 3 * 4?", "1. 20\n2. 13\n", ["19", "12"], "1. {}\n2. {}"),
        ("1 + 1? And sort 5 3 4", "First: 3000\nSecond: 4, 3, 5.", ["2", "3 4 5"], "First: {}\nSecond: {}."),
    ],
)
def test_the_places_of_the_answers(prompt, reply, answers, expected):
    assert spots(prompt, reply, answers) == expected


@pytest.mark.parametrize(
    ("prompt", "reply", "answers"),
    [
        (ADD, "I can help you with that.", ["19"]),
        (ADD, "12 and 7 are numbers.", ["19"]),
        (ADD, "12 plus 8 is 20.", ["19"]),  # an operand that was never asked about
        (ADD, "First 10 + 7 = 17, then 17 + 2 = 20.", ["19"]),
        (ADD, "It is 20. No, it is 21.", ["19"]),
        (ADD, "That is 20, or 20 exactly.", ["19"]),
        (ADD, "It is nineteen, or 20.", ["19"]),
        (ADD, "It is about 20.", ["19"]),
        (ADD, "The answer is 20 and this can be", ["19"]),
        (ADD, "Could it be 20?", ["19"]),
        (ADD, "It is the 20th number.", ["19"]),
        (ADD, "It is 20 * 3.", ["19"]),
        (ADD, "\\boxed{20}", ["19"]),
        (ADD, "The answer is 20.", ["19", "84"]),
        (ADD, "The answers are 20, 30 and 40.", ["19", "84"]),
        (ADD, "The answer is 20.", []),
        (SORT, "12, 3, 5", ["3 5 12"]),  # nothing but the prompt's own list
        (SORT, "3, 5, 12 or 5, 3, 12", ["3 5 12"]),
        (BACKWARDS, "That is a nice word.", ["olleh"]),
        (BACKWARDS, 'It is "oleh", not "ellho".', ["olleh"]),
        ("Is 17 prime?", "17 is a prime number.", ["yes"]),
        ("Is 17 prime?", "No, 17 is a prime number.", ["yes"]),
        ("Compare 12 and 15.", "12 is less than 15, so the answer is less.", ["less"]),
        ("1 + 1? And sort 5 3 4", "4, 3, 5. And 3000.", ["2", "3 4 5"]),  # the other way round
    ],
)
def test_what_cannot_be_told(prompt, reply, answers):
    assert spots(prompt, reply, answers) is None


@given(
    st.lists(st.integers(10**6, 10**9), min_size=1, max_size=3),
    st.sampled_from(["The answer is {}.", "{}", "I get {}, as you see.", "**{}**", "Result: {}"]),
    st.data(),
)
def test_filling_the_template_gives_the_reply_again(values, carrier, data):
    """For any made-up numbers in any of these sentences the template has one place for each."""
    sentences = "\n".join([carrier] * len(values))
    reply = sentences.format(*values)
    answers = [str(data.draw(st.integers(0, 10**9))) for _ in values]
    template = spots("What is it?", reply, answers)
    assert template is not None
    assert template.count("{}") == len(answers)
    assert template.format(*values) == reply


@given(st.text(max_size=80), st.text(max_size=80), st.lists(st.sampled_from(["19", "yes", "3 5"]), max_size=3))
def test_any_reply_is_taken(prompt, reply, answers):
    template = spots(prompt, reply, answers)
    assert template is None or template.count("{}") == len(answers)
