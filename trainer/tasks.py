"""Training requests: what people type when they want a computation, with the truth beside it.

A request is a **wording** (one line of ``phrasings/<program>.txt``, written by hand), filled with arguments drawn for
the program, with a surface drawn for them (separators, brackets, quotes, units), sometimes wrapped into what surrounds
requests in real life. Lines of ``phrasings/general.txt`` become conversation in which nothing must be called.

Two promises:

* **Example i is a function of (seed, split, i).** Every draw comes from ``random.Random`` seeded with a SHA-256 of
  those, so any process, resumed or not, sees the same stream.
* **The split is by wording.** A wording belongs to "validation" when the first eight bytes of the SHA-256 of its line,
  read as a big-endian integer, leave less than 8 modulo 100; to "train" otherwise. It depends on the line alone, so
  adding lines moves none.

Answers come from the compiled programs themselves; an example whose program faults is drawn again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from hashlib import sha256
from itertools import product
from pathlib import Path
from random import Random
from typing import Any, Literal, Protocol

Split = Literal["train", "validation", "all"]

GENERAL = "general"
VALIDATION_PERCENT = 8
PHRASINGS = Path(__file__).parent / "phrasings"

#: Programs of the standard library that have phrasings, with their arguments in calling order.
PARAMETERS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("add", "subtract", "multiply", "divide", "remainder", "power", "compare"), ("a", "b")),
    **dict.fromkeys(("greatest_common_divisor", "least_common_multiple"), ("a", "b")),
    **dict.fromkeys(("factorial", "fibonacci", "is_prime"), ("n",)),
    **dict.fromkeys(("sum_numbers", "maximum", "minimum", "mean", "count_numbers"), ("numbers",)),
    **dict.fromkeys(("sort_ascending", "sort_descending", "reverse_list"), ("numbers",)),
    "reverse_text": ("text",),
    "count_letter": ("text", "letter"),
    "text_length": ("text",),
    "evaluate": ("expression",),
}
_ARGUMENTS = ("a", "b", "n", "numbers", "text", "letter", "expression")
_FILLERS = ("name", "name2", "things", "place", "x", "y")
_SLOT = re.compile("{(" + "|".join((*_ARGUMENTS, *_FILLERS)) + ")}")
_COUNTED = re.compile(
    r"\b(how (many|much (?!is\b)|old|long|far|tall|young)|left|remaining|ages?|years|months|weeks|hours|days|people|children|pupils"
    r"|friends|floor|runs|goals|points|weigh\w*|weights?|prices?|costs?|seats|euros|dollars|sales|budget|stock|scores?|km|kg)"
    r"\b",
    re.IGNORECASE,
)
_OF_ALL_KINDS = re.compile(
    r"\b(things|objects|items|animals|pets|fruits?|vegetables|toys|tools|instruments|pieces|goods|articles)\b", re.IGNORECASE
)
"""What says in a sum that things of several kinds are counted together."""
_BEST_OF = {"maximum", "minimum"}
_OF_TWO = re.compile(r"\b(two|bigger|larger|greater|higher|smaller|lesser|lower)\b", re.IGNORECASE)
"""A comparative is mostly of two numbers."""
_ROUNDED = re.compile(
    r"\b(whole|full|rounded?|complete|entire|at most|integer|int|quotient|floor|div|left|remain\w*)\b|//", re.IGNORECASE
)
"""What says in a story that a quotient is rounded down."""
_OF_YEARS = re.compile(r"\b(years?|born|century|reign\w*)\b", re.IGNORECASE)
_DATED = re.compile(r"\b(in|since|until|from|to|between|and|the year|from year|until year)( the year)? $", re.IGNORECASE)
"""What stands before a number that is a year, in a wording that is about years."""
WITH_DECIMALS = {
    *("add", "subtract", "multiply", "power", "compare"),
    *("sum_numbers", "maximum", "minimum", "mean", "count_numbers", "sort_ascending", "sort_descending", "reverse_list"),
}
"""Programs that are asked for with decimals, too (a power's base). ``divide`` takes them, but rounds down: few would expect it."""
_WHOLE = re.compile(
    r"\b(whole|int|integers?|digits?|bits?|natural|years?|born|century|quotient|remainder|mod|modulo)\b|//|%", re.IGNORECASE
)
"""What says that numbers are whole, or asks for what few ask of others."""
_MONEY = re.compile(r"[$€£]$"), re.compile(r" ?(euros?|dollars?|pounds?|€)\b")
"""What stands before and after an amount of money."""
_MEASURES = re.compile(
    r" ?(euros?|dollars?|pounds?|€|kg|kilos?|km|m|cm|g|grams?|kilograms?|lit(?:re|er)s?|met(?:re|er)s?|miles?|kilomet(?:re|er)s?|"
    r"centimet(?:re|er)s?|hours?|tons?|tonnes?|degrees|°C|°)\b"
)
"""What follows a number that may have decimals in a story."""
ATTEMPTS = 40
BLOCK = 128  # examples whose programs run in one batch; changes nothing in the stream


class TaskError(ValueError):
    """A phrasing file that cannot be used, or a request that cannot be drawn."""


class _Result(Protocol):
    @property
    def text(self) -> str | None: ...


class _Library(Protocol):
    def run_batch(self, calls: Sequence[tuple[str, Sequence[str]]]) -> Sequence[_Result]: ...


@dataclass(frozen=True)
class Example:
    """One request and the truth about it.

    Attributes:
        prompt: the user's message.
        answer: the program's result text; None where nothing must be called.
        program: the program that answers; None where nothing must be called.
        arguments: the program's arguments in calling order; a list's numbers are joined by ", ".
        spans: for each argument the character ranges [start, end) of its pieces in ``prompt``: one for each number of a
            list, else one.
        wording: the phrasing line, ``"add:17"`` for ``wordings("add")[17]``.
        reply: the whole reply where it is more than the answer, which it then contains.
    """

    prompt: str
    answer: str | None
    program: str | None
    arguments: tuple[str, ...]
    spans: tuple[tuple[tuple[int, int], ...], ...]
    wording: str
    reply: str | None = None


# ---------------------------------------------------------------------------------------------------------- wordings


@dataclass(frozen=True)
class _Wording:
    """A phrasing line cut at its placeholders: ``parts`` alternates text, slot name, text, … and ends with text."""

    identifier: str
    line: str
    parts: tuple[str, ...]

    @property
    def slots(self) -> tuple[str, ...]:
        return self.parts[1::2]

    @property
    def is_story(self) -> bool:
        """Whether the numbers count things of the world, where a negative or a zero would read oddly."""
        named = any(slot in ("name", "things", "place") for slot in self.slots)
        return named or len(self.line) > 75 or _COUNTED.search(self.line) is not None

    def places(self, slot: str) -> list[tuple[str, str]]:
        """The text before and after each occurrence of a slot; a neighbouring slot counts as a letter."""
        found = []
        for at in (at for at, part in enumerate(self.parts) if at % 2 and part == slot):
            before, after = self.parts[at - 1], self.parts[at + 1]
            found.append((before or ("x" if at > 1 else ""), after or ("x" if at + 2 < len(self.parts) else "")))
        return found


@cache
def _load(program: str) -> tuple[_Wording, ...]:
    """The wordings of a program, or of general conversation, in the order of the file.

    Raises:
        TaskError: no such file, or a line without an argument's placeholder, or with more than one of a list's.
    """
    path = PHRASINGS / f"{program}.txt"
    if program != GENERAL and program not in PARAMETERS:
        raise TaskError(f"no phrasings for {program!r}; there are some for {', '.join(PARAMETERS)}")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise TaskError(f"cannot read the phrasings of {program}: {path.name}: {error.strerror}") from error
    result: list[_Wording] = []
    for row, raw in enumerate(lines, 1):
        line = raw.strip()
        if not line or (line.startswith("# ") and not line.startswith("# of ")):
            continue
        wording = _Wording(f"{program}:{len(result)}", line, tuple(_SLOT.split(line.replace("\\n", "\n"))))
        found = [slot for slot in wording.slots if slot in _ARGUMENTS]
        if program != GENERAL and (set(found) != set(PARAMETERS[program]) or found.count("numbers") > 1):
            wanted = " ".join(f"{{{name}}}" for name in PARAMETERS[program])
            raise TaskError(
                f"{path.name}, line {row}: expected {wanted} (a list once), found {found or 'none'}: {line!r}"
            )
        result.append(wording)
    if not result:
        raise TaskError(f"{path.name} holds no wording")
    return tuple(result)


def wordings(program: str) -> list[str]:
    """The phrasing lines of a program, or of ``"general"``; ``"add:17"`` stands for ``wordings("add")[17]``."""
    return [wording.line for wording in _load(program)]


def is_validation(line: str) -> bool:
    """Whether a phrasing line is kept for validation: see the rule at the top of this file."""
    return int.from_bytes(sha256(line.encode()).digest()[:8], "big") % 100 < VALIDATION_PERCENT


@cache
def _select(program: str, split: Split) -> tuple[_Wording, ...]:
    """The wordings of one side of the split.

    Raises:
        TaskError: none lies on that side.
    """
    chosen = tuple(w for w in _load(program) if split == "all" or is_validation(w.line) == (split == "validation"))
    if not chosen:
        raise TaskError(f"no wording of {program} lies in the split {split!r}; add phrasings")
    return chosen


# ---------------------------------------------------------------------------------------------------------- material


def _words(block: str) -> list[str]:
    """The words of a block of text."""
    return block.split()


def _entries(block: str) -> list[str]:
    """The entries of a block of text, parted by bars and line ends."""
    return [entry.strip() for entry in re.split(r"[|\n]", block) if entry.strip()]


NAMES = _words("""
Anna Ben Carla David Emma Farid Grace Hassan Ines Jack Karim Lena Maria Noah Olga Pedro Quinn Rosa Sam Tina Uma Victor
Wendy Xavier Yusuf Zoe Aisha Bruno Chloe Diego Elif Fatima Giulia Henrik Ivan Jamal Keiko Liam Mei Nikhil Oscar Priya
Rahul Sofia Tom Ursula Vera Wei Ximena Yuki Zara Alejandro Bjorn Chiara Dmitri Esther Felix Greta Hugo Isla Joao Katya
Lucas Miriam Nadia Otto Petra Ravi Sven Thandi José Zoë
""")
THINGS = _words("""
apples pears plums oranges lemons bananas cherries strawberries grapes melons eggs cookies cupcakes muffins pancakes
sandwiches pizzas bagels chocolates candies marbles stickers stamps coins books notebooks pencils pens erasers crayons
brushes cards puzzles dolls kites balloons candles lamps chairs tables bottles cups plates spoons forks bowls baskets
boxes bags tickets posters photos letters envelopes keys buttons beads shells stones flowers roses tulips trees seeds
leaves cows sheep chickens ducks rabbits kittens puppies fish frogs bees bikes cars buses bricks tiles planks nails
screws batteries cables shirts socks hats scarves gloves shoes jackets magnets tokens medals
""")
PLACES = _words("""
London Paris Berlin Madrid Rome Lisbon Vienna Prague Warsaw Oslo Stockholm Helsinki Dublin Athens Budapest Brussels
Leeds York Bristol Glasgow Boston Chicago Denver Seattle Austin Toronto Montreal Sydney Perth Auckland Tokyo Osaka
Seoul Delhi Mumbai Cairo Nairobi Lagos Accra Lima Bogotá Quito Santiago Springfield Riverside Greenville Oakwood
Hamburg Zürich Lyon
""")
WORDS = _words("""
strawberry banana mississippi raspberry bookkeeper committee balloon coffee letter hello world python computer level
radar racecar madam noon civic kayak apple orange elephant giraffe hippopotamus crocodile penguin kangaroo butterfly
dragonfly spider tiger lion zebra monkey rabbit hamster dolphin whale octopus shark eagle parrot sparrow pigeon
ostrich flamingo table chair window door kitchen garden house castle tower bridge street avenue village city mountain
river ocean island desert forest jungle valley canyon volcano glacier thunder lightning rainbow snowflake hurricane
tornado breeze sunshine moon planet galaxy comet asteroid universe gravity rocket satellite telescope microscope
laboratory chemistry physics biology mathematics geometry algebra history geography philosophy psychology economics
politics grammar alphabet dictionary encyclopedia library museum gallery theater cinema orchestra symphony melody
rhythm harmony guitar piano violin trumpet saxophone clarinet drum accordion bread butter cheese yogurt chocolate
vanilla cinnamon pepper garlic onion tomato potato cucumber carrot spinach broccoli cauliflower mushroom avocado
pineapple blueberry watermelon pumpkin zucchini spaghetti lasagna pizza pancake waffle sandwich hamburger breakfast
lunch dinner restaurant recipe ingredient refrigerator microwave football basketball volleyball tennis hockey cricket
swimming gymnastics marathon athlete champion victory trophy medal stadium referee birthday holiday wedding
anniversary celebration festival carnival parade christmas easter family mother father sister brother cousin grandma
grandpa neighbor friend teacher student doctor nurse engineer lawyer carpenter plumber electrician pilot captain
sailor soldier farmer baker butcher tailor barber happiness sadness courage curiosity patience honesty kindness
jealousy freedom justice wisdom silence darkness shadow mirror candle lantern feather pillow blanket mattress curtain
carpet bicycle motorcycle airplane helicopter submarine train tractor ambulance passport suitcase umbrella necklace
bracelet sweater jacket trousers pajamas sneakers keyboard monitor printer software algorithm database variable
function parameter recursion compiler network protocol password encryption internet quantum electron neutron molecule
oxygen hydrogen nitrogen calcium aluminium copper silver platinum diamond emerald sapphire turquoise purple yellow
crimson indigo magenta abracadabra onomatopoeia antidisestablishmentarianism rhubarb queue rhythmic syzygy zephyr
fjord sphinx quartz jazz buzz fizz puzzle pizzazz bubble wobble giggle wiggle squirrel scissors possess assassin
tattoo raccoon woolloomooloo tennessee massachusetts connecticut cat dog cow sun sea ice egg ant owl fox bee key map
pen cup hat box bus zoo art a I go yes no okay maybe never always tomorrow yesterday through thought enough although
knight island receipt colonel lieutenant pneumonia naïve café jalapeño façade über piñata résumé crème fiancé
smörgåsbord Ångström doppelgänger garçon señor
""")
_CLAUSES = _entries("""
good morning sunshine|the early bird|once upon a time|a piece of cake|never say never|better late than never
open sesame|time flies|keep calm and carry on|to be or not to be|hello world|happy birthday to you
peanut butter and jelly|live and let live|easy come easy go|what goes up must come down|the cat sat on the mat
all that glitters|silence is golden|long time no see|see you later alligator|rock and roll|bread and butter
over the moon|step by step|ice cream|New York City|Lord of the Rings|tic tac toe|never odd or even
a man a plan a canal|race car|taco cat|top spot|step on no pets|don't panic|it's raining|rock 'n' roll|mother-in-law
state-of-the-art|ready, steady, go|red, white and blue
""")
_SENTENCES = _entries("""
The quick brown fox jumps over the lazy dog.|She sells seashells by the seashore.|Hello, World!|How are you today?
I love programming.|Where did you put my keys?|Wait, what?|The meeting starts at noon.|Please call me back.|No way!
My dog ate my homework.|It was the best of times, it was the worst of times.|We'll be late, I think.
Don't worry, be happy.|Pack my box with five dozen liquor jugs.|Was it a car or a cat I saw?|Madam, I'm Adam.
A Santa at NASA.|See you at 8!|Peter Piper picked a peck of pickled peppers.
The rain in Spain stays mainly in the plain.|Roses are red, violets are blue.
I scream, you scream, we all scream for ice cream.|Nothing ventured, nothing gained.|Look before you leap.|Eureka!
The train to the airport leaves from platform two.|I think, therefore I am.|Mind the gap.|Room 101 is locked.
""")
_SENTENCE_PATTERNS = _entries("""
{n} lives in {p}.|{n} likes {t} and {u}.|Did {n} buy the {t}?|{n}, bring {t}!|The {w} is near the {v}.
I saw a {w} in {p}|my {w} likes {t}|No {t} today|{p} has more {t} than {q}.
A {w}, a {v} and some {t}|where is the {w}?|{n}'s {w} and {u}
""")
#: What people put before a request.
LEADS = _entries("""
hi there,|hi,|Hi!|hey,|Hey!|hello,|Hello.|hi! quick one:|Quick question -|quick q:|One more thing:
Sorry to bother you,|um,|ok so|So,|Okay,|please help:|Please|pls|Can you help?|I need help with this.
Help me with my homework:|Homework question:|Question:|Q:|Task:|Exercise:|Problem:|Next one:|Another one:|And now:
Thanks! Next:|Good morning.|Good evening,|Dear assistant,|Hey assistant,|Hello again.|I'm stuck.
I forgot my calculator.|No calculator here.|My calculator is broken.|Just checking:|Just curious:|Out of curiosity,
Asking for a friend:|For school:|For work:|For my daughter:|Test:|Let's try this:|Let me ask you something.|Tell me:
Be quick.|Not a trick question:|Real quick,|yo,|heya|Greetings.|Thank you for earlier.|Short answer please.
No explanation please.|Don't explain.|Be exact.|Please be careful with this one.|alright,|user:
""")
#: What people put after one.
TRAILS = _entries("""
thanks!|Thanks.|thanks|thx|ty|Thank you!|Thank you very much.|thanks in advance|Many thanks.|cheers|Cheers!|please|pls
plz|please?|Please help.|asap|ASAP please|quick please|Hurry!|no rush|:)|:-)|I need it for school.|I need it for work.
Just the answer.|Just the answer please.|answer only|Answer only, please.|Only the result.|just the result
No explanation.|no explanation needed|Don't explain.|Don't show the steps.|No steps please.|Keep it short.|Be brief.
Short answer.|Be exact.|exact answer please|Take your time.|I can't figure it out.|I keep getting it wrong.
My teacher wants to know.|My boss is waiting.|Bye!|Have a nice day.|You're the best.|Any idea?|Do you know?
What do you get?|Can you do that?|Is that possible?|Let me know.|Reply with the result only.|Nothing else.|That's all.
I would appreciate it.|Much appreciated!|...|!!|🙏|lol|haha
""")
#: The same where the result is a number.
NUMBER_TRAILS = _entries("""
Answer with the number only.|Just the number.|just the number please|Only the number, please.|number only
Give me just a number.|Respond with a single number.|Reply with digits only.|One number, nothing else.
What number is that?
""")
#: Sentences that have nothing to do with the request, many with a number in them.
DISTRACTIONS = _entries("""
I'm in room {x}.|I have {x} minutes.|It's {x} degrees outside today.|My name is {name}.
My name is {name} and I'm {x} years old.|I live in {place}.|This is question {x}.|We are {x} people in class.
It's my {x}th question today.|I bought {x} {things} yesterday.|My bus leaves in {x} minutes.|The exam is on page {x}.
I am a teacher from {place}.|{name} and I are having an argument.|{name} couldn't solve this one.
My phone is at {x} percent.|I've been at this since {x} o'clock.|We moved to {place} in {y}.|The shop closes at {x}.
I asked {name} but got no reply.|It's for a worksheet with {x} questions.|I got {x} out of {y} in the last test.
{name} says hi.|My kids love {things}.|I'm writing from {place}.|Version {x} of the form is wrong.
I already asked this {x} times.|The train to {place} is late.|There are {x} {things} on my desk, by the way.
Ticket {y}.|Yesterday you helped me with {x} other things.|I'm on level {x}.
""")
#: Numbers that people put before and after a request and that are no arguments.
NUMBERED_LEADS = _entries("""
Q{x}:|Q{x}.|{x}.|{x})|({x})|#{x}|#{x}:|Question {x}:|Question {x}.|Problem {x}:|Problem {x}.|Exercise {x}:|Ex. {x}:|Task {x}:
Item {x}:|[item {x}]|[{x}]|({x} points)|[{x} marks]|Step {x}:|Part {x}:|Section {x}:|No. {x}:|{x}/{y}:|Question {x} of {y}:
Question {x}/{y}.|Quiz {x}, question {y}:|Level {x}:|Chapter {x}, exercise {y}:|v{x}:|ID {x}:|Round {x}:
""")
NUMBERED_TRAILS = _entries("""
({x} points)|({x} pts)|[{x} marks]|({x} of {y})|(page {x})|(table {x}, row {y})|(level {x})|(see exercise {x})
Answer in at most {x} words.|Use no more than {x} words.|In under {x} words, please.|You have {x} seconds.
You get {x} points for this.|I have only {x} minutes left.|That was question {x} of {y}.|It is worth {x} points.|max {x} words
This is my try number {x}.|It's for grade {x}.|I need it by {x} o'clock.|room {x}|Thanks, {x} more to go.
""")
_LABELS = tuple(
    entry.split()
    for entry in _entries("""
Mon Tue Wed Thu Fri Sat Sun
Monday Tuesday Wednesday Thursday Friday Saturday Sunday
Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec
January February March April May June July August September October November December
rent food heating phone water insurance petrol clothes internet gifts
north south east west centre
maths English science history art music sport geography
A B C D E F G H I J K
""")
)
_COUNTED_OFF = tuple(
    zip(
        *(
            pair.split("/")
            for pair in _words("""
one/first two/second three/third four/fourth five/fifth six/sixth seven/seventh eight/eighth
""")
        ),
        strict=True,
    )
)
_TIMES = (
    *(tuple(f"{word} {day}" for day in days) for word, days in zip(("on", "on", "in", "in"), _LABELS[:4], strict=True)),
    tuple(f"in week {number}" for number in _COUNTED_OFF[0]),
    tuple(f"in the {number} round" for number in _COUNTED_OFF[1]),
    tuple(f"for {label}" for label in _LABELS[4]),
    tuple(f"in {label}" for label in _LABELS[6]),
    tuple(f"in group {label}" for label in _LABELS[7]),
)
"""What may follow each number of a list to say whose it is, in order."""
_UNITS = _words("""
kg g km m cm mm miles metres feet litres l ml minutes min h hours seconds days years euros euro € dollars pounds cents
points pts goals votes people pages steps % percent degrees °C ° items calories kWh
""")
_SETS_OFF = frozenset(
    (*(2 * mark for mark in "\"'`*_|~"), *map("".join, product("“”‘’«»", repeat=2)), "()", "[]", "><")
)
"""What stands before and after a text in a wording that leaves no doubt where it ends."""
_QUOTES = (("“", "”"), ("`", "`"), ("‘", "’"), ("«", "»"), ("'", "'"), ("'", "'"), ("'", "'"), *((('"', '"'),) * 7))

# A stretch of the prompt and its owner: the argument it belongs to, or one of these two.
_WORDING = -1  # text of the wording and its surroundings, open to augmentation
_FIXED = -2  # quotes, separators, units: as rendered
_Segment = tuple[str, int]
_Values = Mapping[str, str | list[str]]


def random_of(*parts: object) -> Random:
    return Random(int.from_bytes(sha256("\0".join(map(str, parts)).encode()).digest(), "big"))


def _weighted(rng: Random, choices: Mapping[str, float]) -> str:
    return rng.choices(list(choices), list(choices.values()))[0]


# ----------------------------------------------------------------------------------------------- drawing the arguments


@dataclass(frozen=True)
class Draw:
    """Draws arguments of one request: sizes are uniform over the number of digits."""

    rng: Random
    digits: tuple[int, int]
    list_length: tuple[int, int]
    program: str = GENERAL

    def number(self) -> int:
        count = self.rng.randint(*self.digits)
        value = self.rng.randint(10 ** (count - 1) if count > 1 else 0, 10**count - 1)
        if count > 1 and self.rng.random() < 0.12:  # people like round numbers
            value -= value % 10 ** self.rng.randint(1, count - 1)
        return value

    def positive(self) -> int:
        return self.number() or self.rng.randint(1, 9)

    def up_to(self, most: int) -> int:
        """From 1 to ``most``, uniform over the number of digits."""
        count = self.rng.randint(1, len(str(most)))
        return self.rng.randint(10 ** (count - 1), min(most, 10**count - 1))

    @property
    def limit(self) -> int:
        return 10 ** self.digits[1] - 1

    def pair(self) -> tuple[int, int]:
        return self.number(), self.number()

    def years(self, wording: _Wording, a: int, b: int) -> dict[str, int]:
        """Where one of a pair is the year of something, it is mostly of our age, and the other, if no year, a span of years."""
        values = {"a": a, "b": b}
        if not self.digits[0] <= 4 <= self.digits[1] or not _OF_YEARS.search(wording.line):
            return values
        dated = [
            name
            for name in values
            if any(_DATED.search(before) and not after.startswith(" year") for before, after in wording.places(name))
        ]
        if not dated or self.rng.random() < 0.25:
            return values
        return {name: self.rng.randint(1850, 2035) if name in dated else self.rng.randint(1, 99) for name in values}

    def signed(self, wording: _Wording, values: dict[str, int]) -> dict[str, str]:
        """Sometimes negative, where the wording has room for a sign."""
        result = {}
        for name, value in values.items():
            room = not wording.is_story and all(
                (not before or before[-1] in " \n([,=:\"'") and after[:1] not in ("t", "s", "-")
                for before, after in wording.places(name)
            )
            result[name] = f"-{value}" if value and room and self.rng.random() < 0.15 else str(value)
        return result

    def with_point(self, wording: _Wording, values: Mapping[str, str]) -> dict[str, str]:
        """Sometimes a power of ten smaller, with decimals, where the wording has room for them.

        Args:
            values: parameter → whole number.
        """
        result = dict(values)
        places = {name: wording.places(name) for name in values}
        if self.rng.random() < 0.84 or not self._divisible(wording, [place for own in places.values() for place in own]):
            return result
        money = any(_MONEY[0].search(before) or _MONEY[1].match(after) for own in places.values() for before, after in own)
        drawn = iter(self._divided([*values.values()], money))
        return {name: next(drawn) for name in values}

    def list_with_point(self, wording: _Wording, values: Sequence[int], alike: bool = False) -> list[str]:
        """The same for the numbers of a list; ``alike``: all are divided by the same."""
        whole = [str(value) for value in values]
        if self.rng.random() < 0.8 or not self._divisible(wording, wording.places("numbers")):
            return whole
        return self._divided(whole, wording.is_story and self.rng.random() < 0.5, alike)

    def _divisible(self, wording: _Wording, places: Sequence[tuple[str, str]]) -> bool:
        """Whether numbers at these places may have decimals."""
        if self.digits[0] > 3 or _WHOLE.search(wording.line):  # of long numbers the digits are counted
            return False
        measured = any(_MONEY[0].search(before) or _MEASURES.match(after) for before, after in places)
        beside = all(
            (not before or before[-1] in " \n([{,=:;\"'$€£*/+-") and after[:1] not in ("t", "s") and not re.match(r"[.,]\d", after)
            for before, after in places
        )
        return beside and (measured or not wording.is_story)

    def _divided(self, numbers: Sequence[str], money: bool, alike: bool = False) -> list[str]:
        """Whole numbers divided by 10, 100 or 1,000, mostly by no more than they are; sums of money have two decimals or none."""
        rng = self.rng
        count = 2 if money else rng.choices((1, 2, 3), (50, 40, 10))[0]
        found = []
        for number in numbers:
            digits = number.lstrip("-")
            places = count
            if not (money or alike) and rng.random() < 0.9:
                places = min(count if rng.random() < 0.7 else rng.randint(1, 3), max(1, len(digits) - 1))
            digits = digits.zfill(places + 1)
            text = f"{digits[:-places]}.{digits[-places:]}"
            if text.endswith("00") if money else rng.random() < 0.85:
                text = text.rstrip("0").rstrip(".")
            found.append(f"-{text}" if number.startswith("-") and text != "0" else text)
        return found

    def numbers(self, wording: _Wording) -> list[int]:
        length = self.rng.randint(*self.list_length)
        of_two = _OF_TWO.search(wording.line) if self.program in _BEST_OF and self.list_length[0] <= 2 else None
        if of_two and ("two" in of_two[0].lower() or self.rng.random() < 0.7):
            length = 2
        if self.rng.random() < 0.4:  # all of about the same size, as measurements are
            count = self.rng.randint(*self.digits)
            values = [Draw(self.rng, (count, count), self.list_length).number() for _ in range(length)]
        else:
            values = [self.number() for _ in range(length)]
        if self.rng.random() < 0.25:
            values[self.rng.randrange(length)] = self.rng.choice(values)
        if not wording.is_story and self.rng.random() < 0.18:
            values = [-value if self.rng.random() < 0.4 else value for value in values]
        return values

    # -- text

    def text(self, wording: _Wording) -> str:
        """A word, phrase, code or sentence that the wording can hold without doubt about where it ends."""
        rng = self.rng
        before, after = wording.places("text")[0]
        quoted = before[-1:] + after[:1] in _SETS_OFF
        line = _SLOT.sub("", wording.line.lower())
        if "dna" in line:
            return "".join(rng.choice("ACGT") for _ in range(rng.randint(4, 20)))
        if "my name is" in line or "full name" in line or "name of" in line:
            return f"{rng.choice(NAMES)} {rng.choice(WORDS).capitalize()}" if rng.random() < 0.5 else rng.choice(NAMES)
        if re.search(r"\b(town|city|village|place)\b", line):
            return rng.choice(PLACES)
        weights = {
            "word": 38.0,
            "Word": 8,
            "NAME": 6,
            "WORD": 4,
            "letters": 8,
            "code": 7,
            "phrase": 20,
            "clause": 10,
            "sentence": 12,
        }
        if re.search(r"\b(sentence|phrase|motto|slogan|title|quote|message|line)\b", line):
            weights.update(word=6, Word=2, NAME=1, WORD=1, letters=1, code=1, phrase=30, clause=20, sentence=25)
        elif re.search(r"\b(word|wrd|name|spell|spells|spelled|hangman|scrabble)\b", line):
            weights.update(phrase=1, clause=0, sentence=0, code=1)
        if (
            self.program == "text_length"
            and re.search(r"\bletters?\b", line)
            and not re.search(r"\b(character|space)s?\b", line)
        ):
            # A space or a mark is a character of a text and no letter of it.
            weights = {
                kind: weight for kind, weight in weights.items() if kind in ("word", "Word", "NAME", "WORD", "letters")
            }
        value = self._text_of(_weighted(rng, weights))
        if not quoted and after[:1] not in ("", "\n") and not value[-1].isalnum():
            value = value.rstrip(".!?")  # its own full stop could be taken for the wording's
        return value if value else rng.choice(WORDS)

    def _text_of(self, kind: str) -> str:
        rng = self.rng
        if kind == "letters":
            some = rng.choice(
                ("abcdefghijklmnopqrstuvwxyz", "abc", "xyz", "aeiou", "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "qwertyuiop")
            )
            return "".join(rng.choice(some) for _ in range(rng.randint(3, 14)))
        if kind == "code":
            if rng.random() < 0.2:
                return str(rng.randint(100, 10 ** rng.randint(3, 9)))
            some = (
                "ABCDEFGHJKLMNPQRSTUVWXYZ0123456789" if rng.random() < 0.6 else "abcdefghijklmnopqrstuvwxyz0123456789"
            )
            groups = ("".join(rng.choice(some) for _ in range(rng.randint(2, 6))) for _ in range(rng.randint(1, 3)))
            return rng.choice(("", "-", "_")).join(groups)
        if kind == "phrase":
            words = [rng.choice(WORDS) for _ in range(rng.randint(2, 5))]
            if rng.random() < 0.2:
                words[0] = words[0].capitalize()
            return rng.choice((" and ", ", ", *[" "] * 4)).join(words[:2]) + "".join(f" {word}" for word in words[2:])
        if kind == "clause":
            return rng.choice(_CLAUSES)
        if kind == "sentence":
            if rng.random() < 0.5:
                return rng.choice(_SENTENCES)
            template = rng.choice(_SENTENCE_PATTERNS)
            return template.format(
                n=rng.choice(NAMES), p=rng.choice(PLACES), q=rng.choice(PLACES), t=rng.choice(THINGS),
                u=rng.choice(THINGS), w=rng.choice(WORDS), v=rng.choice(WORDS),
            )  # fmt: skip
        if kind == "NAME":
            return rng.choice(rng.choice((NAMES, PLACES)))
        word = rng.choice(rng.choice((WORDS, WORDS, WORDS, THINGS)))
        return {"word": word, "Word": word.capitalize(), "WORD": word.upper()}[kind]

    def letter(self, text: str) -> str:
        rng = self.rng
        own = [c for c in text if c.isalpha()]
        if own and rng.random() < 0.75:
            # An argument that occurs often is the more telling one: half of the time the most frequent letter.
            letter = max(own, key=own.count) if rng.random() < 0.3 else rng.choice(own)
            return letter.swapcase() if rng.random() < 0.1 and len(letter.swapcase()) == 1 else letter
        letter = rng.choice("abcdefghijklmnopqrstuvwxyz")
        return letter.upper() if rng.random() < 0.2 else letter

    # -- expressions

    def expression(self) -> str:
        rng = self.rng
        for _ in range(ATTEMPTS):
            signs = {"+": "+", "-": "-", "*": rng.choice("*******x××"), "/": rng.choice("//////÷")}
            space = rng.random() < 0.6 or signs["*"] == "x"
            leaves = rng.choices((2, 3, 4, 5), (6, 44, 30, 20))[0]
            decimals = rng.choice((1, 1, 2)) if rng.random() < 0.12 else 0
            try:
                text, _, _ = self._tree(leaves, signs, " " if space else "", decimals)
            except ZeroDivisionError:
                continue
            return text
        return "1 + 2 * 3"

    def _tree(self, leaves: int, signs: Mapping[str, str], space: str, decimals: int = 0) -> tuple[str, Fraction, int]:
        """Text, value and binding strength (1 sum, 2 product, 3 atom) of a random tree; many of its numbers have ``decimals``."""
        rng = self.rng
        if leaves == 1:
            value = min(self.number(), self.number())
            if decimals and rng.random() < 0.7:
                digits = str(value).zfill(decimals + 1)
                return f"{digits[:-decimals]}.{digits[-decimals:]}", Fraction(value, 10**decimals), 3
            if value and rng.random() < 0.03:
                return f"(-{value})", Fraction(-value), 3
            return str(value), Fraction(value), 3
        cut = rng.randint(1, leaves - 1)
        sign = rng.choices("+-*/", (32, 26, 28, 14))[0]
        left, x, left_binds = self._tree(cut, signs, space, decimals)
        right, y, right_binds = self._tree(leaves - cut, signs, space, decimals)
        if sign == "/" and left_binds == 3 and y.denominator == 1 and 0 < y <= self.limit and rng.random() < 0.6:
            x = y * self.up_to(max(1, self.limit // int(y)))
            left = str(x)
        binds = 1 if sign in "+-" else 2
        if left_binds < binds or (left_binds < 3 and rng.random() < 0.1):
            left = f"({left})"
        if right_binds < binds or (right_binds == binds and sign in "-/") or (right_binds < 3 and rng.random() < 0.1):
            right = f"({right})"
        result = x + y if sign == "+" else x - y if sign == "-" else x * y if sign == "*" else x / y
        return f"{left}{space}{signs[sign]}{space}{right}", result, binds


def _is_prime(n: int) -> bool:
    return n > 1 and all(n % d for d in range(2, int(n**0.5) + 1))


def _signed_pair(draw: Draw, wording: _Wording) -> _Values:
    a, b = draw.pair()
    return draw.with_point(wording, draw.signed(wording, {"a": a, "b": b}))


def _add(draw: Draw, wording: _Wording) -> _Values:
    return draw.with_point(wording, draw.signed(wording, draw.years(wording, *draw.pair())))


def _subtract(draw: Draw, wording: _Wording) -> _Values:
    a, b = draw.years(wording, *draw.pair()).values()
    # The greater number is no sign of which one is taken from, but in a story, where one seldom gives more than one has.
    if a < b and draw.rng.random() < (0.98 if wording.is_story else 0.15):
        a, b = b, a
    return draw.with_point(wording, draw.signed(wording, {"a": a, "b": b}))


def _compare(draw: Draw, wording: _Wording) -> _Values:
    a, b = draw.pair()
    draw_kind = draw.rng.random()
    if draw_kind < 0.2:
        b = a
    elif draw_kind < 0.4:
        b = abs(a + draw.rng.choice((-10, -2, -1, 1, 2, 10)))
    elif draw_kind < 0.5:
        b = int(str(a)[::-1])
    values = draw.signed(wording, {"a": a, "b": b})
    if a == b and draw.rng.random() < 0.8:
        values["b"] = values["a"] = str(a)
    if (
        not wording.is_story
        and not re.search(r"\b(whole|int|integers?)\b", wording.line, re.I)
        and draw.rng.random() < 0.15
    ):
        same = draw.rng.random() < 0.6  # the same number before the point, as in 9.9 and 9.11
        decimals = [str(draw.rng.randint(0, 999)).zfill(draw.rng.randint(1, 2)) for _ in values]
        values = {
            name: f"{a if same else value}.{decimal}"
            for (name, value), decimal in zip(values.items(), decimals, strict=True)
        }
    return values


def _division(draw: Draw, wording: _Wording) -> _Values:
    rng = draw.rng
    b = draw.positive()
    # A price or a speed is not rounded down where nobody says so.
    even = draw.program == "divide" and wording.is_story and not _ROUNDED.search(wording.line)
    if even:
        a = b * draw.up_to(max(1, draw.limit // b))
    elif rng.random() < 0.5:
        a = b * draw.up_to(max(1, draw.limit // b))
        a += rng.choice((0, 0, 0, 1, 2)) if a < draw.limit - 2 else 0
    else:
        a = draw.number()
        if a < b and rng.random() < 0.85:
            a, b = b, a or 1
    if not wording.is_story and rng.random() < 0.012:
        b = 0
    return {"a": str(a), "b": str(b)}


def _divisors(draw: Draw, wording: _Wording) -> _Values:
    rng = draw.rng
    a, b = draw.positive(), draw.positive()
    kind = rng.random()
    if kind < 0.4:
        common = max(1, min(draw.up_to(99), draw.limit // 2))
        low = 10 ** (draw.digits[0] - 1) // common + 1 if draw.digits[0] > 1 else 1
        a, b = (common * max(low, draw.up_to(max(1, draw.limit // common))) for _ in range(2))
    elif kind < 0.5:
        b = a * draw.up_to(max(1, min(99, draw.limit // a)))
    if rng.random() < 0.5:
        a, b = b, a
    if not wording.is_story and rng.random() < 0.01:
        a = 0
    return {"a": str(a), "b": str(b)}


def _power(draw: Draw, wording: _Wording) -> _Values:
    rng = draw.rng
    kind = rng.random()
    if draw.digits[0] > 2:
        a, b = draw.number(), rng.randint(0, 4)
    elif kind < 0.75:
        a, b = rng.randint(2, 50 if rng.random() < 0.5 else 12), rng.randint(2, 12 if rng.random() < 0.5 else 5)
    elif kind < 0.85:
        a, b = rng.choice((2, 2, 3, 5, 10)), rng.randint(2, 64)
    elif kind < 0.96:
        a, b = draw.number(), rng.randint(2, 4)
    else:
        a, b = rng.randint(0, 20), rng.choice((0, 1))
    base = {"a": str(a)}
    return {**(draw.with_point(wording, base) if b < 7 else base), "b": str(b)}


def _factorial(draw: Draw, wording: _Wording) -> _Values:
    rng = draw.rng
    return {"n": str(rng.randint(0, 60) if rng.random() < 0.1 else rng.randint(0, rng.choice((12, 20, 30))))}


def _fibonacci(draw: Draw, wording: _Wording) -> _Values:
    rng = draw.rng
    return {
        "n": str(
            rng.randint(90, 200) if rng.random() < 0.06 else rng.randint(rng.random() < 0.9, rng.choice((20, 40, 90)))
        )
    }


def _prime(draw: Draw, wording: _Wording) -> _Values:
    # Trial division decides primality in the program, so that more than five digits would cost millions of steps.
    n = Draw(draw.rng, (min(draw.digits[0], 5), min(draw.digits[1], 5)), draw.list_length).number()
    if draw.rng.random() < 0.5:
        while not _is_prime(n):
            n += 1
    elif n % 2 == 0 and draw.rng.random() < 0.6:
        n += 1  # even numbers are easy
    return {"n": str(n)}


def _list(draw: Draw, wording: _Wording) -> _Values:
    return {"numbers": draw.list_with_point(wording, draw.numbers(wording))}


def _mean(draw: Draw, wording: _Wording) -> _Values:
    values = draw.numbers(wording)
    if draw.rng.random() < 0.6:  # a whole mean, or one with a half
        rest = sum(values) % len(values)
        low = 10 ** (draw.digits[0] - 1) if draw.digits[0] > 1 else 0
        at = next((i for i, value in enumerate(values) if value - rest >= low), None)
        if at is not None:
            values[at] -= rest
    return {"numbers": draw.list_with_point(wording, values, alike=True)}


def _text(draw: Draw, wording: _Wording) -> _Values:
    return {"text": draw.text(wording)}


def _letter(draw: Draw, wording: _Wording) -> _Values:
    text = draw.text(wording)
    letter = draw.letter(text)
    plural = any(after.startswith("s") for _, after in wording.places("letter"))
    if plural and draw.rng.random() < 0.4 and len(letter.upper()) == 1:  # "how many Ls"
        letter = letter.upper()
    return {"text": text, "letter": letter}


def _expression(draw: Draw, wording: _Wording) -> _Values:
    return {"expression": draw.expression()}


def _anything(draw: Draw, wording: _Wording) -> _Values:
    """Every kind of value, for general conversation."""
    values: dict[str, str | list[str]] = {name: str(draw.number()) for name in ("a", "b", "n")}
    values["numbers"] = draw.list_with_point(wording, draw.numbers(wording)) if "numbers" in wording.slots else []
    values["expression"] = draw.expression()
    values["text"] = draw.text(wording) if "text" in wording.slots else ""
    values["letter"] = draw.letter("etaoin")
    return values


_ARGUMENT_DRAWERS: dict[str, Callable[[Draw, _Wording], _Values]] = {
    **{program: _list for program, names in PARAMETERS.items() if names == ("numbers",)},
    "add": _add,
    "subtract": _subtract,
    "multiply": _signed_pair,
    "divide": _division,
    "remainder": _division,
    "power": _power,
    "compare": _compare,
    "greatest_common_divisor": _divisors,
    "least_common_multiple": _divisors,
    "factorial": _factorial,
    "fibonacci": _fibonacci,
    "is_prime": _prime,
    "mean": _mean,
    "reverse_text": _text,
    "count_letter": _letter,
    "text_length": _text,
    "evaluate": _expression,
    GENERAL: _anything,
}
_STORY_LISTS = {"sum_numbers", "maximum", "minimum", "mean", "count_numbers", "sort_ascending", "sort_descending"}
_TEXT_RESULTS = {"reverse_text", "compare", "is_prime", "sort_ascending", "sort_descending", "reverse_list"}


# ------------------------------------------------------------------------------------------------------------ rendering


def _joined(numbers: Sequence[str], separator: str, last: str, owner: int) -> list[_Segment]:
    segments: list[_Segment] = [(numbers[0], owner)]
    for position, number in enumerate(numbers[1:], 2):
        segments += [(last if position == len(numbers) else separator, _FIXED), (number, owner)]
    return segments


_INLINE = {
    **{", ": 34.0, ",": 8, " ": 13, "; ": 5, ";": 1, " / ": 1.5, "/": 1, " | ": 1.5, "\t": 1, "   ": 1, " , ": 1},
    **{"... ": 0.5, ", then ": 0.7, " then ": 0.3, ". ": 0.3},
    **{"and": 15, ", and": 7, "&": 1.5},
    **{"[]": 6, "()": 2.5, "{}": 1, "quotes": 1},
}
_BLOCK_STYLES = {"\n": 5.0, "- ": 2, "* ": 1, "• ": 1, ",\n": 1, "1. ": 0.4, "\n\n": 0.3}


def _render_list(
    rng: Random, numbers: list[str], before: str, after: str, owner: int, story: bool, units: bool, alternatives: bool,
    kinds: bool = False,
) -> list[_Segment]:
    """A list as people write it: numbers are pieces of the argument, all between them is fixed."""
    code = before[-1:] in ("(", "[", "{", '"', "'") and bool(before)
    if code:
        separator = _weighted(rng, {", ": 6.0, ",": 3, " ": 1, "; ": 0.5})
        segments = _joined(numbers, separator, separator, owner)
        if before[-1] == "(" and "," in separator and rng.random() < 0.3:
            return [("[", _FIXED), *segments, ("]", _FIXED)]
        return segments
    inline_end = not after or after[0] in ".?,;:!\n"
    positive = not any(number.startswith("-") for number in numbers)
    if (
        story
        and inline_end
        and positive
        and before[-1:] in ("", " ", "\n")
        and "=" not in before
        and rng.random() < (0.8 if kinds else 0.24)
    ):
        return _render_story(rng, numbers, owner, after in ("", "\n") and rng.random() < 0.15, units, kinds)
    alone = (not before or before[-1] == "\n" or before.endswith(": ")) and (not after or after[0] == "\n")
    if alone and rng.random() < 0.3:
        style = _weighted(rng, _BLOCK_STYLES)
        lead = "" if not before or before[-1] == "\n" else "\n"
        if style in ("- ", "* ", "• "):
            return [(lead + style, _FIXED), *_joined(numbers, "\n" + style, "\n" + style, owner)]
        if style == "1. ":
            rows = [((f"{lead}1. ") if i == 1 else f"\n{i}. ", number) for i, number in enumerate(numbers, 1)]
            return [segment for mark, number in rows for segment in ((mark, _FIXED), (number, owner))]
        return [(lead, _FIXED), *_joined(numbers, style, style, owner)]
    style = _weighted(
        rng,
        _INLINE
        | ({"or": 8.0, ", or": 4.0} if alternatives else {})
        | ({"-": 1.0} if positive and len(numbers) > 2 else {}),
    )
    if style in ("or", ", or"):
        return _joined(
            numbers,
            rng.choice((", ", ", ", " or ")),
            f"{style} " if len(numbers) > 2 and "," in style else " or ",
            owner,
        )
    if style in ("[]", "()", "{}", "quotes"):
        pair = '""' if style == "quotes" else style
        separator = rng.choice((", ", ", ", ",", " "))
        return [(pair[0], _FIXED), *_joined(numbers, separator, separator, owner), (pair[1], _FIXED)]
    if len(numbers) == 2 and style == ", and":
        style = "and"
    if style in ("and", ", and", "&"):
        return _joined(numbers, ", ", {"and": " and ", ", and": ", and ", "&": " & "}[style], owner)
    return _joined(numbers, style, style, owner)


def _different(rng: Random, entries: Sequence[str], count: int) -> list[str]:
    """Different entries, as long as there are enough."""
    return rng.sample(entries, count) if count <= len(entries) else rng.choices(entries, k=count)


def _unit(rng: Random) -> str:
    unit = rng.choice(_UNITS)
    return unit if unit in "%°" or (len(unit) < 3 and rng.random() < 0.5) else f" {unit}"


def _render_story(
    rng: Random, numbers: list[str], owner: int, block: bool, units: bool, kinds_of_things: bool = False
) -> list[_Segment]:
    """Numbers with a unit (if ``units``) or a label each: ``Mon 5, Tue 3``, ``5 kg, 3 kg``, ``$5, $3``, ``5 cups, 3 forks``."""
    kinds = {"name": 3.0, "label": 3, "owner": 1, "when": 2.5, "table": 1.5 if block else 0}
    if kinds_of_things:
        kinds["things"] = 40.0
    elif units:
        kinds |= {"unit": 4, "currency": 2, "thing": 1, "things": 1}
    kind = _weighted(rng, kinds)
    before, after = [""] * len(numbers), [""] * len(numbers)
    if kind == "unit":
        after = [_unit(rng)] * len(numbers)
    elif kind == "currency":
        before = [rng.choice("$€£")] * len(numbers)
    elif kind == "thing":
        after = [" " + rng.choice(THINGS)] * len(numbers)
    elif kind == "things":
        after = [" " + thing for thing in _different(rng, THINGS, len(numbers))]
    elif kind == "owner":
        after = [
            rng.choice((" for {}", " from {}", " ({})")).replace("{}", name)
            for name in rng.choices(NAMES, k=len(numbers))
        ]
    elif kind == "when" and len(numbers) <= len(_TIMES[0]):
        times = rng.choice([times for times in _TIMES if len(times) >= len(numbers)])
        after = [f" {time}" for time in times[: len(numbers)]]
        if units and rng.random() < 0.6:  # the unit is said with all of them or with the first
            unit = f" {rng.choice(THINGS)}" if rng.random() < 0.5 else _unit(rng)
            once = rng.random() < 0.6
            after = [unit * (not once or at == 0) + time for at, time in enumerate(after)]
    else:
        table = kind == "table"
        labelled = kind == "label" or (table and rng.random() < 0.5)
        fitting = [labels for labels in _LABELS if len(labels) >= len(numbers)] if labelled else []
        people = _different(rng, NAMES, len(numbers))
        labels = rng.choice(fitting)[: len(numbers)] if fitting else people
        mark = rng.choice((" ", " ", ": ", ": ", " = ", " has " if kind == "name" else " - "))
        if table and rng.random() < 0.5:
            before, after = [f"| {label} | " for label in labels], [" |"] * len(numbers)
        elif table:
            comma = rng.choice((",", "\t"))
            before = [label + comma for label in labels]
        else:
            before = [label + mark for label in labels]
        if units and not table and rng.random() < 0.15:
            after = [_unit(rng)] * len(numbers)
    separator = "\n" if block else rng.choice((", ", ", ", ", ", "; "))
    last = separator if block else rng.choice((separator, separator, " and ", ", and "))
    segments: list[_Segment] = [("\n" if block else "", _FIXED)]
    for position, number in enumerate(numbers):
        gap = "" if position == 0 else last if position == len(numbers) - 1 else separator
        segments += [(gap + before[position], _FIXED), (number, owner), (after[position], _FIXED)]
    return segments


def _render_text(rng: Random, text: str, before: str, after: str, owner: int) -> list[_Segment]:
    """A text, in quotes where the wording has none and would leave its end in doubt, and half of the time anyway."""
    marks = before[-1:] + after[:1]
    if marks in _SETS_OFF:
        if any(mark in text for mark in marks):
            text = "".join(c for c in text if c not in marks)
        return [(text, owner)]
    edge_before = not before or before[-1] == "\n" or before.endswith(": ")
    edge_after = not after or after[0] == "\n"
    plain = all(c.isalnum() for c in text)
    ends = text[-1].isalnum() or edge_after
    clear = plain or (ends and ((edge_before and (edge_after or after[0] in ".,")) or (edge_after and bool(before))))
    glued = bool((before and before[-1].isalnum()) or (after and after[0].isalnum()))
    if not clear or glued or rng.random() < 0.5:
        fitting = [marks for marks in _QUOTES if not any(mark in text for mark in marks)]
        if fitting:
            opening, closing = rng.choice(fitting)
            return [(opening, _FIXED), (text, owner), (closing, _FIXED)]
    return [(text, owner)]


def _render_letter(rng: Random, letter: str, before: str, after: str, owner: int) -> list[_Segment]:
    free = (not before or before[-1] in " \n(,") and (not after or after[0] in " \n?.,):")
    if free and rng.random() < 0.25:
        mark = rng.choice('""\'')
        return [(mark, _FIXED), (letter, owner), (mark, _FIXED)]
    return [(letter, owner)]


def _ordinal(number: str) -> str:
    if number[-2:] in ("11", "12", "13"):
        return "th"
    return {"1": "st", "2": "nd", "3": "rd"}.get(number[-1], "th")


def _fillers(rng: Random, taken: set[str]) -> dict[str, str]:
    name, name2 = rng.sample(NAMES, 2)
    numbers: list[str] = []
    while len(numbers) < 2:
        number = str(rng.randint(2, rng.choice((9, 30, 99, 400))))
        if number not in taken and number not in numbers:
            numbers.append(number)
    things, place = rng.choice(THINGS), rng.choice(PLACES)
    return {"name": name, "name2": name2, "things": things, "place": place, "x": numbers[0], "y": numbers[1]}


def _render(
    rng: Random, wording: _Wording, values: _Values, program: str, fillers: Mapping[str, str]
) -> list[_Segment]:
    names = PARAMETERS.get(program, ())
    segments: list[_Segment] = []
    ordinal = rng.random() < 0.8
    asks = (
        "?" in wording.line or re.match(r"\W*(which|what)", wording.line, re.I) is not None
    )  # "5 or 7" is no statement
    # Of an argument that is said more than once, one place, drawn, counts as where it is read.
    said: dict[str, list[int]] = {}
    for at, part in enumerate(wording.parts):
        if at % 2 and part in names:
            said.setdefault(part, []).append(at)
    owners = {rng.choice(places) if len(places) > 1 else places[0]: names.index(part) for part, places in said.items()}
    for at, part in enumerate(wording.parts):
        if at % 2 == 0:
            number = segments[-1][0] if segments else ""
            if ordinal and number.isdigit() and (match := re.match(r"(-?)th\b", part)):
                part = match[1] + _ordinal(number) + part[match.end() :]
            segments.append((part, _WORDING))
            continue
        if part in fillers:
            segments.append((fillers[part], _WORDING))
            continue
        owner = owners.get(at, _FIXED)
        before = wording.parts[at - 1] or ("x" if at > 1 else "")
        after = wording.parts[at + 1] or ("x" if at + 2 < len(wording.parts) else "")
        value = values[part]
        if isinstance(value, list):
            segments += _render_list(
                rng,
                value,
                before,
                after,
                owner,
                program in _STORY_LISTS,
                not wording.is_story,
                program in _BEST_OF and asks,
                program == "sum_numbers" and _OF_ALL_KINDS.search(wording.line) is not None,
            )
        elif part == "text":
            segments += _render_text(rng, value, before, after, owner)
        elif part == "letter":
            segments += _render_letter(rng, value, before, after, owner)
        else:
            segments.append((value, owner))
    return [(text, owner) for text, owner in segments if text]


def _augment(rng: Random, segments: list[_Segment], program: str, fillers: Mapping[str, str]) -> list[_Segment]:
    """What surrounds requests in real life: case, punctuation, greetings, thanks, noise. Arguments stay as they are."""
    result = list(segments)
    if rng.random() < 0.35:
        result = [(text.lower() if owner == _WORDING else text, owner) for text, owner in result]
    last, owner = result[-1]
    if owner == _WORDING and rng.random() < 0.35 and len(result) > 1:
        result[-1] = (last.rstrip(".?!").rstrip(" ") or last, owner)
    if rng.random() < 0.15:
        for at, (text, owner) in enumerate(result):
            if owner == _WORDING and (match := re.search(r"[.?!:] (?=\w)", text)) is not None:
                result[at] = (
                    text[: match.end() - 1] + rng.choice(("  ", "\n", "\n", "\n\n")) + text[match.end() :],
                    owner,
                )
                break
    elif rng.random() < 0.12:
        for at, (text, owner) in enumerate(result):
            if owner == _WORDING and " " in text.strip():
                spot = rng.choice([i for i, c in enumerate(text.strip()) if c == " "]) + len(text) - len(text.lstrip())
                result[at] = (text[:spot] + "  " + text[spot + 1 :], owner)
                break
    # A text without quotes at the edge of the message would run into what is put beside it: a new line parts them.
    bare_text = program in ("reverse_text", "text_length", "count_letter")
    if rng.random() < 0.35:
        lead = rng.choice(LEADS)
        first, owner = result[0]
        gap = "\n" if (bare_text and owner >= 0) or rng.random() < 0.08 else " "
        if (
            lead[-1] == ","
            and owner == _WORDING
            and first[:1].isupper()
            and first[1:2].islower()
            and rng.random() < 0.7
        ):
            result[0] = (first[0].lower() + first[1:], owner)
        result.insert(0, (lead + gap, _WORDING))
    filled = dict(zip("xy", sorted((fillers["x"], fillers["y"]), key=int), strict=True))
    if rng.random() < 0.22 and result[0][1] == _WORDING:  # not before a bare number, which it would run into
        mark = rng.choice(NUMBERED_LEADS).format(**filled)
        result.insert(0, (mark + rng.choice((" ", " ", " ", "\n")), _WORDING))
    if rng.random() < 0.2:
        sentence = _SLOT.sub(lambda match: fillers[match[1]], rng.choice(DISTRACTIONS))
        result.insert(0, (sentence + rng.choice((" ", " ", " ", "\n")), _WORDING))
    if rng.random() < 0.12:
        mark = rng.choice(NUMBERED_TRAILS).format(**filled)
        result.append((("\n" if bare_text and result[-1][1] >= 0 else rng.choice((" ", " ", "\n"))) + mark, _WORDING))
    elif rng.random() < 0.35:
        numeric = program not in _TEXT_RESULTS and rng.random() < (0.3 if program != GENERAL else 0.1)
        trail = rng.choice(NUMBER_TRAILS if numeric else TRAILS)
        last, owner = result[-1]
        if bare_text and owner >= 0:
            gap = "\n"
        elif last[-1] in ".?!":
            gap = rng.choice((" ", " ", " ", "\n"))
        else:
            gap = rng.choice((". ", "\n", ", ", " ")) if trail[0].islower() else rng.choice((". ", "\n"))
        result.append((gap + trail, _WORDING))
    return result


def _assemble(segments: Sequence[_Segment], arguments: int) -> tuple[str, tuple[tuple[tuple[int, int], ...], ...]]:
    spans: list[list[tuple[int, int]]] = [[] for _ in range(arguments)]
    at = 0
    for text, owner in segments:
        if owner >= 0:
            spans[owner].append((at, at + len(text)))
        at += len(text)
    return "".join(text for text, _ in segments), tuple(map(tuple, spans))


# ------------------------------------------------------------------------------------------------------------ generator


_GROUPED = {program for program, names in PARAMETERS.items() if names in (("a", "b"), ("n",))}
_IN_CODE = re.compile(r"[(\[{,=*/+^%:-]\s*$")


def _grouped(value: str | list[str], places: Sequence[tuple[str, str]]) -> str | list[str]:
    """A number of four to six digits with a comma before the last three, where no other comma or code is beside it."""
    if isinstance(value, list) or not value.isdecimal() or not 4 <= len(value) <= 6:
        return value
    in_code = any(_IN_CODE.search(before) or after[:1] in (",", ")", "]") for before, after in places)
    return value if in_code else f"{value[:-3]},{value[-3:]}"


class RequestGenerator:
    """A deterministic, endless stream of requests.

    Args:
        seed: the stream's seed.
        split: whose wordings to use: "train", "validation" (never in "train"), or "all".
        digits: least and most digits of a number, 1 ≤ least ≤ most. Programs whose results would explode (power,
            factorial, fibonacci) or whose runs would (is_prime) keep to smaller numbers.
        list_length: least and most numbers of a list, 2 ≤ least ≤ most.
        programs: the programs to ask for; all of ``PARAMETERS`` by default.
        library: where answers come from; the standard library by default.

    Raises:
        TaskError: a program without phrasings, an unknown split, or a range that is none.
    """

    def __init__(
        self,
        seed: int,
        split: Split = "train",
        digits: tuple[int, int] = (1, 4),
        list_length: tuple[int, int] = (2, 8),
        programs: Sequence[str] | None = None,
        library: Any | None = None,
    ):
        if split not in ("train", "validation", "all"):
            raise TaskError(f"unknown split {split!r}; expected train, validation or all")
        for name, (low, high), least in (("digits", digits, 1), ("list_length", list_length, 2)):
            if not least <= low <= high:
                raise TaskError(f"{name} is ({low}, {high}); expected {least} ≤ least ≤ most")
        self.seed = seed
        self.split = split
        self.digits = digits
        self.list_length = list_length
        self.programs = tuple(PARAMETERS) if programs is None else tuple(programs)
        if not self.programs:
            raise TaskError("no programs to ask for; leave programs out for all")
        for program in self.programs:
            _select(program, split)
        self._library: _Library | None = library
        self._drawn: dict[str, int] = {}

    def example(self, program: str) -> Example:
        """The next request for a program: the k-th call for it gives the same example in every process."""
        return self._answered([self._draft(program, f"single {self._next(program)}", 0)])[0]

    def general(self) -> Example:
        """The next request of general conversation, in which nothing must be called."""
        return self._draft(GENERAL, f"single {self._next(GENERAL)}", 0).example

    def examples(self, count: int, general_share: float = 0.3, start: int = 0) -> Iterator[Example]:
        """Examples ``start`` … ``start + count − 1`` of the stream: a share of general ones, the others balanced.

        Raises:
            TaskError: ``general_share`` is no share, or a program faults on every draw.
        """
        if not 0 <= general_share <= 1:
            raise TaskError(f"general_share is {general_share}; expected a share from 0 to 1")
        for first in range(start, start + count, BLOCK):
            block = range(first, min(first + BLOCK, start + count))
            yield from self._answered(
                [self._draft(self._kind(index, general_share), f"stream {index}", 0) for index in block]
            )

    def request(self, program: str, key: str, wording: int | None = None) -> Example:
        """A request without its answer, or general conversation: a function of seed, split and these.

        Args:
            wording: which of the split's wordings of the program, from 0; any by default.
        """
        return self._draft(program, key, 0, wording).example

    def wordings(self, program: str) -> int:
        """How many wordings of a program, or of general conversation, lie on the split's side."""
        return len(_select(program, self.split))

    def filled(
        self, rng: Random, program: str, line: str, values: Mapping[str, str] | None = None, surrounded: float = 0.3
    ) -> Example:
        """A request, without its answer, by a wording from elsewhere.

        Args:
            values: texts of the arguments that ``line`` has placeholders for; drawn for the program by default. An argument
                without a placeholder gets no pieces.
            surrounded: how often greetings, thanks and the like are put around it, 0 to 1.
        """
        wording = _Wording(line, line, tuple(_SLOT.split(line.replace("\\n", "\n"))))
        return self._filled(
            rng, program, wording, self._drawn_values(rng, program, wording) if values is None else values, surrounded
        )

    def run(self, calls: Sequence[tuple[str, Sequence[str]]]) -> list[str | None]:
        """The results of calls; None for one that faults."""
        if self._library is None:
            # Imported here, so that wordings and splits can be read without the machine.
            from ..modeling_neurallib.programs import standard_library

            self._library = standard_library()
        return [result.text for result in self._library.run_batch(calls)]

    def _next(self, program: str) -> int:
        index = self._drawn.get(program, 0)
        self._drawn[program] = index + 1
        return index

    def _kind(self, index: int, general_share: float) -> str:
        """Program of the stream's example: general ones evenly spread, programs in rounds of shuffled order."""
        general_before = int(index * general_share + 1e-9)
        if int((index + 1) * general_share + 1e-9) > general_before:
            return GENERAL
        turn, place = divmod(index - general_before, len(self.programs))
        order = list(self.programs)
        random_of(self.seed, self.split, "round", turn).shuffle(order)
        return order[place]

    def _draft(self, program: str, index: str, attempt: int, number: int | None = None) -> _Draft:
        """The example without its answer."""
        rng = random_of(self.seed, self.split, index, program, attempt)
        chosen = _select(program, self.split)
        wording = rng.choice(chosen) if number is None else chosen[number]
        example = self._filled(rng, program, wording, self._drawn_values(rng, program, wording), 0.3)
        return _Draft(example, program, index, attempt)

    def _drawn_values(self, rng: Random, program: str, wording: _Wording) -> _Values:
        values = _ARGUMENT_DRAWERS[program](Draw(rng, self.digits, self.list_length, program), wording)
        if program in _GROUPED and rng.random() < 0.15:
            return {name: _grouped(value, wording.places(name)) for name, value in values.items()}
        return values

    def _filled(self, rng: Random, program: str, wording: _Wording, values: _Values, surrounded: float) -> Example:
        taken = {text for value in values.values() for text in (value if isinstance(value, list) else [value])}
        fillers = _fillers(rng, taken)
        segments = _render(rng, wording, values, program, fillers)
        if rng.random() < surrounded:
            segments = _augment(rng, segments, program, fillers)
        names = PARAMETERS.get(program, ())
        prompt, spans = _assemble(segments, len(names))
        arguments = tuple(", ".join(prompt[start:end] for start, end in pieces) for pieces in spans)
        truth = None if program == GENERAL else program
        return Example(prompt, None, truth, arguments, spans, wording.identifier)

    def _answered(self, drafts: list[_Draft]) -> list[Example]:
        """Run the programs of many drafts at once; draft again where one faults.

        Raises:
            TaskError: a program faults on every draw.
        """
        open_positions = [position for position, draft in enumerate(drafts) if draft.program != GENERAL]
        examples = [draft.example for draft in drafts]
        while open_positions:
            results = self.run([(drafts[p].program, drafts[p].example.arguments) for p in open_positions])
            faulted = []
            for position, answer in zip(open_positions, results, strict=True):
                draft = drafts[position]
                if answer is None:
                    if draft.attempt + 1 == ATTEMPTS:
                        raise TaskError(
                            f"{draft.program} faults on {ATTEMPTS} draws, the last {draft.example.arguments}"
                        )
                    drafts[position] = self._draft(draft.program, draft.index, draft.attempt + 1)
                    faulted.append(position)
                    continue
                e = draft.example
                examples[position] = Example(e.prompt, answer, e.program, e.arguments, e.spans, e.wording)
            open_positions = faulted
        return examples


@dataclass(frozen=True)
class _Draft:
    """An example before its answer, and how to draw it again."""

    example: Example
    program: str
    index: str
    attempt: int
