"""What compiled functions call for texts and lists: memory routines in the machine's own language.

One line an instruction, registers by name: ``target = operation a b immediate`` as the operation table orders them.
``hp`` and ``sp`` are the heap and the stack pointer. A text is ``[length, characters …]``; a list is ``[length,
capacity, address of the elements]``. Addresses are compared for equality only and moved by ``index``, which reads them
unsigned, so a heap may be as large as a word can address.
"""

from __future__ import annotations

from functools import cache

from .three_address import OPERANDS, Routine

SOURCE = """
function copy(source, target, count)
    end = index source count
    jump test
again:
    word = load source 0
    store target 0 word
    source = index_immediate source 1
    target = index_immediate target 1
test:
    done = equal source end
    jump_if_zero done again
    return

function text_concatenate(first, second)
    first_length = load first 0
    second_length = load second 0
    length = add first_length second_length
    result = move hp
    hp = index hp length
    hp = index_immediate hp 1
    guard hp sp
    store result 0 length
    from = index_immediate first 1
    to = index_immediate result 1
    call copy from to first_length
    from = index_immediate second 1
    to = index_immediate result 1
    to = index to first_length
    call copy from to second_length
    return result

function clamp(bound, length)
    negative = less_immediate bound 0
    jump_if_zero negative positive
    bound = add bound length
positive:
    zero = constant 0
    bound = max bound zero
    bound = min bound length
    return bound

function text_slice(text, start, stop)
    length = load text 0
    start = call clamp start length
    stop = call clamp stop length
    zero = constant 0
    count = subtract stop start
    count = max count zero
    result = move hp
    hp = index hp count
    hp = index_immediate hp 1
    guard hp sp
    store result 0 count
    from = index text start
    from = index_immediate from 1
    to = index_immediate result 1
    call copy from to count
    return result

function list_new(count)
    result = move hp
    hp = index_immediate hp 3
    store result 0 count
    store result 1 count
    store result 2 hp
    hp = index hp count
    guard hp sp
    return result

function list_slice(list, start, stop)
    length = load list 0
    start = call clamp start length
    stop = call clamp stop length
    zero = constant 0
    count = subtract stop start
    count = max count zero
    result = call list_new count
    from = load list 2
    from = index from start
    to = load result 2
    call copy from to count
    return result

function list_concatenate(first, second)
    first_length = load first 0
    second_length = load second 0
    length = add first_length second_length
    result = call list_new length
    from = load first 2
    to = load result 2
    call copy from to first_length
    from = load second 2
    to = load result 2
    to = index to first_length
    call copy from to second_length
    return result

function list_repeat(word, count)
    zero = constant 0
    count = max count zero
    result = call list_new count
    at = load result 2
    end = index at count
    jump test
again:
    store at 0 word
    at = index_immediate at 1
test:
    done = equal at end
    jump_if_zero done again
    return result

function list_grow(list)
    capacity = load list 1
    data = load list 2
    end = index data capacity
    top = equal end hp
    jump_if_zero top elsewhere
    two = constant 2
    extra = shift_right capacity two
    extra = add_immediate extra 4
    capacity = add capacity extra
    store list 1 capacity
    hp = index hp extra
    guard hp sp
    return
elsewhere:
    length = load list 0
    capacity = add capacity capacity
    capacity = add_immediate capacity 4
    store list 1 capacity
    store list 2 hp
    to = move hp
    hp = index hp capacity
    guard hp sp
    call copy data to length
    return

function list_contains(list, word)
    length = load list 0
    at = load list 2
    end = index at length
    jump test
again:
    other = load at 0
    found = equal other word
    jump_if_not_zero found yes
    at = index_immediate at 1
test:
    done = equal at end
    jump_if_zero done again
    zero = constant 0
    return zero
yes:
    one = constant 1
    return one

function text_contains(text, character)
    length = load text 0
    at = index_immediate text 1
    end = index at length
    jump test
again:
    other = load at 0
    found = equal other character
    jump_if_not_zero found yes
    at = index_immediate at 1
test:
    done = equal at end
    jump_if_zero done again
    zero = constant 0
    return zero
yes:
    one = constant 1
    return one

function text_equal(first, second)
    length = load first 0
    other = load second 0
    same = equal length other
    jump_if_zero same no
    end = index first length
    jump test
again:
    first = index_immediate first 1
    second = index_immediate second 1
    a = load first 0
    b = load second 0
    same = equal a b
    jump_if_zero same no
test:
    done = equal first end
    jump_if_zero done again
    one = constant 1
    return one
no:
    zero = constant 0
    return zero

function text_less(first, second)
    length = load first 0
    other = load second 0
    shorter = min length other
    end = index first shorter
    jump test
again:
    first = index_immediate first 1
    second = index_immediate second 1
    a = load first 0
    b = load second 0
    same = equal a b
    jump_if_zero same different
test:
    done = equal first end
    jump_if_zero done again
    less = less_than length other
    return less
different:
    next = add_immediate a 1
    check a next
    next = add_immediate b 1
    check b next
    less = less_than a b
    return less

function text_of_characters(list)
    length = load list 0
    result = move hp
    hp = index hp length
    hp = index_immediate hp 1
    guard hp sp
    store result 0 length
    from = load list 2
    to = index_immediate result 1
    call copy from to length
    return result

function text_join_characters(separator, list)
    width = load separator 0
    jump_if_not_zero width wide
    result = call text_of_characters list
    return result
wide:
    count = load list 0
    at = load list 2
    end = index at count
    separator = index_immediate separator 1
    result = move hp
    hp = index_immediate hp 1
    done = equal at end
    jump_if_not_zero done finish
    jump first
again:
    to = move hp
    hp = index hp width
    guard hp sp
    call copy separator to width
first:
    character = load at 0
    to = move hp
    hp = index_immediate hp 1
    guard hp sp
    store to 0 character
    at = index_immediate at 1
    done = equal at end
    jump_if_zero done again
finish:
    guard hp sp
    one = constant 1
    length = subtract count one
    length = multiply length width
    length = add length count
    zero = constant 0
    length = max length zero
    store result 0 length
    return result

function text_join(separator, list)
    width = load separator 0
    separator = index_immediate separator 1
    count = load list 0
    at = load list 2
    end = index at count
    length = constant 0
    result = move hp
    hp = index_immediate hp 1
    done = equal at end
    jump_if_not_zero done finish
    jump first
again:
    to = move hp
    hp = index hp width
    guard hp sp
    length = add length width
    call copy separator to width
first:
    text = load at 0
    size = load text 0
    to = move hp
    hp = index hp size
    guard hp sp
    length = add length size
    text = index_immediate text 1
    call copy text to size
    at = index_immediate at 1
    done = equal at end
    jump_if_zero done again
finish:
    guard hp sp
    store result 0 length
    return result
"""


@cache
def assembly() -> dict[str, list[str]]:
    """Routine name → its lines, the ``function`` line first."""
    found: dict[str, list[str]] = {}
    name = ""
    for line in SOURCE.splitlines():
        if line.startswith("function "):
            name = line[len("function ") : line.index("(")]
            found[name] = [line]
        elif line.strip():
            found[name].append(line.strip())
    return found


def routine(name: str, registers: int) -> Routine:
    """The routine in three-address form, for a machine of ``registers`` registers."""
    header, *lines = assembly()[name]
    parameters = [each.strip() for each in header[header.index("(") + 1 : header.index(")")].split(",")]
    built = Routine(name, len(parameters), file="runtime", source="\n".join(assembly()[name]))
    names = {"hp": registers - 2, "sp": registers - 1}

    def register(word: str) -> int:
        if word not in names:
            names[word] = built.register()
        return names[word]

    for position, parameter in enumerate(parameters):
        built.emit("move", register(parameter), position)
    for number, line in enumerate(lines, 2):
        built.current_line = number
        if line.endswith(":"):
            built.place(f"{name}.{line[:-1]}")
            continue
        left, _, right = line.rpartition("=")
        operation, *words = right.split()
        if operation == "call":
            for position, word in enumerate(words[1:]):
                built.emit("move", position, register(word))
            built.emit("call", label=words[0], reads=tuple(range(len(words) - 1)))
            if left:
                built.emit("move", register(left.strip()), 0)
            continue
        if operation == "return":
            if words:
                built.emit("move", 0, register(words[0]))
            built.emit("return", reads=(0,) if words else ())
            continue
        instruction = built.emit(operation)
        operands = OPERANDS[operation]
        if left:
            words.insert(0, left.strip())
        for operand, word in zip(operands, words, strict=True):
            if operand == "t":
                instruction.target = register(word)
            elif operand == "a":
                instruction.a = register(word)
            elif operand == "b":
                instruction.b = register(word)
            elif operand == "i":
                instruction.immediate = int(word)
            else:
                instruction.label = f"{name}.{word}"
    return built
