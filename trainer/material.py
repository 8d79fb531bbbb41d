"""What requests are filled with and surrounded by: names, things, words, sentences, greetings, distractions, units."""

from __future__ import annotations

import re
from itertools import product


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
CLAUSES = _entries("""
good morning sunshine|the early bird|once upon a time|a piece of cake|never say never|better late than never
open sesame|time flies|keep calm and carry on|to be or not to be|hello world|happy birthday to you
peanut butter and jelly|live and let live|easy come easy go|what goes up must come down|the cat sat on the mat
all that glitters|silence is golden|long time no see|see you later alligator|rock and roll|bread and butter
over the moon|step by step|ice cream|New York City|Lord of the Rings|tic tac toe|never odd or even
a man a plan a canal|race car|taco cat|top spot|step on no pets|don't panic|it's raining|rock 'n' roll|mother-in-law
state-of-the-art|ready, steady, go|red, white and blue
""")
SENTENCES = _entries("""
The quick brown fox jumps over the lazy dog.|She sells seashells by the seashore.|Hello, World!|How are you today?
I love programming.|Where did you put my keys?|Wait, what?|The meeting starts at noon.|Please call me back.|No way!
My dog ate my homework.|It was the best of times, it was the worst of times.|We'll be late, I think.
Don't worry, be happy.|Pack my box with five dozen liquor jugs.|Was it a car or a cat I saw?|Madam, I'm Adam.
A Santa at NASA.|See you at 8!|Peter Piper picked a peck of pickled peppers.
The rain in Spain stays mainly in the plain.|Roses are red, violets are blue.
I scream, you scream, we all scream for ice cream.|Nothing ventured, nothing gained.|Look before you leap.|Eureka!
The train to the airport leaves from platform two.|I think, therefore I am.|Mind the gap.|Room 101 is locked.
""")
SENTENCE_PATTERNS = _entries("""
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
LABELS = tuple(
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
TIMES = (
    *(tuple(f"{word} {day}" for day in days) for word, days in zip(("on", "on", "in", "in"), LABELS[:4], strict=True)),
    tuple(f"in week {number}" for number in _COUNTED_OFF[0]),
    tuple(f"in the {number} round" for number in _COUNTED_OFF[1]),
    tuple(f"for {label}" for label in LABELS[4]),
    tuple(f"in {label}" for label in LABELS[6]),
    tuple(f"in group {label}" for label in LABELS[7]),
)
"""What may follow each number of a list to say whose it is, in order."""
UNITS = _words("""
kg g km m cm mm miles metres feet litres l ml minutes min h hours seconds days years euros euro € dollars pounds cents
points pts goals votes people pages steps % percent degrees °C ° items calories kWh
""")
SETS_OFF = frozenset(
    (*(2 * mark for mark in "\"'`*_|~"), *map("".join, product("“”‘’«»", repeat=2)), "()", "[]", "><", "<>", "„“")
)
"""What stands before and after a text in a wording that leaves no doubt where it ends."""
QUOTES = (("“", "”"), ("`", "`"), ("‘", "’"), ("«", "»"), ("'", "'"), ("'", "'"), ("'", "'"), *((('"', '"'),) * 7))
