"""Hard negatives by rule: questions that look like another one and ask something else.

Two sources: rules that change one thing in a given question, and questions of our own in which two fillings of a place
ask different things. The word lists here are written apart from the gate's; several of the fillings are no words that
the gate knows (a lease is not a loan), so that what the gate lets pass is tried as well. Some pairs of our own that do
ask the same stand here too: those that have to hit.
"""

import random
import re
from collections.abc import Callable, Iterator, Sequence

_SWAPS = """
increase reduce|improve ruin|gain lose|buy sell|start stop|open close|love hate|best worst|good bad|easy difficult
legal illegal|possible impossible|men women|boys girls|before after|male female|rich poor|old young|fast slow|first last
lend borrow|import export|win lose|safe dangerous|private public|income expenses|upload download|black white|hot cold
husband wife|father mother|day night|with without|more less|accept reject|delete restore|hide show|follow unfollow
""".replace("\n", "|").strip("|")
SWAPS = {a: b for one, other in (pair.split() for pair in _SWAPS.split("|")) for a, b in ((one, other), (other, one))}
_PLACES = ["Norway", "Chile", "Kenya", "Vietnam", "Portugal", "Ohio"]
_AUXILIARY = re.compile(
    r"\b(do|does|did|can|could|should|would|will|is|are|was|were)\b (I|we|you|he|she|it|they|people|one)\b"
)


def _number(text: str, rng: random.Random) -> str | None:
    found = re.search(r"\b\d{1,5}\b", text)
    if not found:
        return None
    return text[: found.start()] + str(int(found[0]) + rng.choice([3, 7, 11, 13])) + text[found.end() :]


def _added_number(text: str, rng: random.Random) -> str | None:
    return f"{text.rstrip(' ?.!')} in {rng.randint(2, 30)} days?"


def _negation(text: str, _: random.Random) -> str | None:
    found = _AUXILIARY.search(text)
    if not found or re.search(r"\b(not|n't|never|no)\b", text):
        return None
    return f"{text[: found.end()]} not{text[found.end() :]}"


def _antonym(text: str, _: random.Random) -> str | None:
    for found in re.finditer(r"[A-Za-z]+", text):
        other = SWAPS.get(found[0])
        if other:
            return text[: found.start()] + other + text[found.end() :]
    return None


def _name(text: str, rng: random.Random) -> str | None:
    found = list(re.finditer(r"(?<=[a-z] )[A-Z][a-z]{3,}\b", text))
    if not found:
        return None
    one = found[-1]
    return text[: one.start()] + rng.choice(_PLACES) + text[one.end() :]


def _place(text: str, rng: random.Random) -> str | None:
    return f"{text.rstrip(' ?.!')} in {rng.choice(_PLACES)}?"


def _question(text: str, rng: random.Random) -> str | None:
    for begins, instead in (
        ("How do I ", ["When do I ", "Why do I ", "Should I "]),
        ("How can I ", ["When can I ", "Why can I ", "Can I "]),
        ("How do you ", ["When do you ", "Why do you "]),
        ("What is ", ["Where is ", "Who is ", "Why is "]),
        ("Why do ", ["How many ", "When do "]),
        ("Who ", ["When ", "Why "]),
    ):
        if text.startswith(begins):
            return rng.choice(instead) + text[len(begins) :]
    return None


def _narrowed(text: str, rng: random.Random) -> str | None:
    added = ["without paying", "for a child", "at night", "after an accident", "as a beginner", "on a phone"]
    return f"{text.rstrip(' ?.!')} {rng.choice(added)}?"


RULES: dict[str, Callable[[str, random.Random], str | None]] = {
    "number": _number,
    "number added": _added_number,
    "negation": _negation,
    "antonym": _antonym,
    "named thing": _name,
    "place added": _place,
    "question word": _question,
    "narrowed": _narrowed,
}


def changed(questions: Sequence[str], count: int, seed: int) -> list[tuple[str, str, str]]:
    """About ``count`` triples: the rule, a question, and what the rule made of it; each rule about equally often."""
    rng = random.Random(seed)
    made: list[tuple[str, str, str]] = []
    for name, rule in RULES.items():
        left = count // len(RULES)
        for question in rng.sample(list(questions), len(questions)):
            other = rule(question, rng)
            if other and other != question and left:
                made.append((name, question, other))
                left -= 1
    return made


# A place in brackets is filled with each of its alternatives: two questions that differ there ask different things.
OWN = {
    "opposite": """How do I turn [on|off] dark mode?
How do I [enable|disable] two-factor authentication?
How do I [mute|unmute] a channel?
Where can I [upload|download] my invoices?
How do I [encrypt|decrypt] a folder?
How can I [add|remove] a team member?
Why does the price [rise|fall] at the end of the month?
How do I [sign in to|sign out of] the app?
Is it safe to [freeze|thaw] chicken twice?
How do I [subscribe to|unsubscribe from] the newsletter?""",
    "direction": """How do I convert [miles to kilometres|kilometres to miles]?
How do I move a site from [Wix to WordPress|WordPress to Wix]?
How do I transfer money from [savings to checking|checking to savings]?
What is the cheapest flight from [Rome to Oslo|Oslo to Rome]?
Does [stress cause insomnia|insomnia cause stress]?
How do I translate from [German to Polish|Polish to German]?""",
    "number": """How do I lose [5|15|50] kilos?
What can I deduct with an income of [20,000|200,000] dollars?
What changed in version [3.10|3.11|3.12]?
Is [two|three|four] weeks of notice enough?
What is [15|25] percent of [80|90]?""",
    "unit": """How many [grams|ounces] are in a cup of flour?
What is the boiling point of water in [Celsius|Fahrenheit|Kelvin]?
What does a [monthly|yearly] plan cost?
How far is the moon in [miles|kilometres]?
How much is a hundred [dollars|euros|yen] worth?""",
    "named thing": """Who is the president of [France|Brazil|Kenya]?
How do I cancel my [Netflix|Spotify|Audible] subscription?
What is the capital of [Peru|Chile|Bolivia]?
How do I reset my [Gmail|Outlook] password?
What are the opening hours of the [Madrid|Lisbon] store?""",
    "language": """How do I reverse a string in [Python|Java|Rust|Go]?
How do I say thank you in [Japanese|Korean|Thai]?
How do I read a file in [perl|ruby|scala]?
How do I format a date in [excel|word]?""",
    "code": """What does `[git reset --hard|git reset --soft]` do?
Why does `[foo(1)|foo(2)]` fail?
What is the difference between `a` and `[b|c]`?
How do I import [os.path|os.environ]?
What does the flag [--force|--dry-run] do?
Why do I get the error "[404 Not Found|403 Forbidden]"?""",
    "class": """Is the office open on [Monday|Saturday|Sunday]?
What should I wear to a wedding in [June|December]?
Can I take [ibuprofen|paracetamol|aspirin] with alcohol?
Is a [lease|loan] tax deductible?
How long does [rice|pasta|barley] keep in the fridge?
How do I clean a [leather|suede|canvas] shoe?
How do I train a [puppy|kitten]?
How do I remove a [wine|coffee|blood] stain?
Which [vitamin|mineral] helps against cramps?
How do I update my [billing|shipping] address?
What is the interest on a [savings|checking] account?
Can I change my [seat|meal] after booking?
How do I [merge|rebase] a branch?
How do I dispute a [charge|fee]?
How do I export a [report|contact]?""",
    "question": """[How|When|Where|Why] do I renew my passport?
[Who|When|Why] did they build the old bridge?
[Can|How can|Should] I pay by invoice?
[How many|Which] people work at the plant?
[How long|How often] should I water a cactus?""",
    "time": """Who [won|will win] the final?
What should I eat [before|after] a run?
What happened [yesterday|today] on the stock market?
What are the symptoms [during|after] a migraine?""",
    "negation": """Which foods are [|not ]allowed on this diet?
Why is my payment [|not ]refunded?
Can I travel [with|without] a visa?
Which cars are [|never ]sold with a warranty?""",
}

# These ask the same, one way and another.
SAME = """
How do I reset my password?|How can I reset my password?
How do I reset my password?|Please tell me how to reset my password
What is your refund policy?|What's your refund policy
Can I change my delivery address?|Is it possible to change my delivery address?
How do I cancel my subscription?|What is the way to cancel my subscription?
How much does the premium plan cost?|What is the cost of the premium plan?
Why was my card declined?|What is the reason that my card was declined?
Where can I find my invoices?|Where do I find my invoices?
How long does shipping take?|How long will the shipping take?
What does APR mean?|What is the meaning of APR?
How do I delete my account?|Hi there, how can I delete my account? Thanks!
How many vacation days do I get?|What is the number of vacation days I get?
Do you ship to Canada?|Will you ship to Canada?
What are your opening hours?|What are the opening hours?
How do I convert 5 km to miles?|How do you convert 5 kilometres to miles?
Who is the author of Dune?|Who was the author of Dune?
What is the best way to clean a cast iron pan?|How should I clean a cast iron pan?
How do I get rid of fruit flies?|How can I remove fruit flies?
Is it possible to pay in two instalments?|Can I pay in 2 instalments?
Could you tell me when the store closes?|When does the store close?
How can I export my data as CSV?|How do I export my data as CSV?
What documents do I need for a loan?|Which documents do I need for a loan?
How can one learn to swim as an adult?|How do I learn to swim as an adult?
I would like to know how to enable notifications|How do I enable notifications?
What should I do to improve my sleep?|How can I improve my sleep?
Why is the sky blue?|How come the sky is blue?
What is 15% of 80?|What is 15 percent of 80?
How do I sort a list in Python?|How can I sort a list in Python?
What happens if I miss a payment?|What happens when I miss a payment?
How do I contact support?|How can I contact the support?
"""


def fillings(template: str) -> list[str]:
    """A template with each of its alternatives."""
    texts = [""]
    for piece in re.split(r"(\[[^\]]*\])", template):
        choices = piece[1:-1].split("|") if piece.startswith("[") else [piece]
        texts = [text + choice for text in texts for choice in choices]
    return texts


def own() -> Iterator[tuple[str, str, str]]:
    """Triples of our own: kind, a question, and one that asks something else."""
    for kind, templates in OWN.items():
        for template in templates.splitlines():
            filled = fillings(template)
            yield from ((kind, one, other) for one in filled for other in filled if one != other)


def own_same() -> list[tuple[str, str]]:
    """Pairs of our own that ask the same."""
    pairs = [line.split("|") for line in SAME.strip().splitlines()]
    return [(one, other) for one, other in pairs]
