"""Four small programs, so that the tests of the model need not compile the standard library."""


def add(first: int, second: int) -> int:
    """Add two integers."""
    return first + second


def double(number: int) -> int:
    """Twice an integer."""
    return number + number


def reverse(text: str) -> str:
    """The characters of a text, from the last to the first."""
    result = ""
    for i in range(len(text)):
        result += text[len(text) - 1 - i]
    return result


def count(values: list[int]) -> int:
    """How many numbers a list has."""
    return len(values)
