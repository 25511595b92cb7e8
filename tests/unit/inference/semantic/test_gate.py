"""What the content gate turns away, and what it lets pass."""

from __future__ import annotations

import pytest

from kaizen.inference.semantic.gate import difference, leftover, weight
from kaizen.inference.semantic.reading import read


@pytest.mark.parametrize(
    ("one", "other", "what"),
    [
        ("How do I turn on dark mode?", "How do I turn off dark mode?", "opposite"),
        ("How do I sign in to the app?", "How do I sign out of the app?", "opposite"),
        ("Is it legal to park here?", "Is it illegal to park here?", "opposite"),
        ("Do men like men?", "Do women like men?", "opposite"),
        ("Is Anna better at chess?", "Is Anna worse at chess?", "opposite"),
        ("Which foods are allowed?", "Which foods are not allowed?", "negation"),
        ("How do I live without meat?", "How do I not live without meat?", "negation"),
        ("Is it possible to win?", "Is it impossible to win?", "negation"),
        ("Can I fly with 2 bags?", "Can I fly with 3 bags?", "number"),
        ("Is a 18-year-old allowed?", "Is a 19-year-old allowed?", "number"),
        ("Lose weight in a week", "Lose 5 kilos of weight in a week", "number"),
        ("How far is it in miles?", "How far is it in kilometres?", "class"),
        ("Are you open on Monday?", "Are you open on Sunday?", "class"),
        ("Sort a list in python", "Sort a list in java", "class"),
        ("How do I leave Paris?", "How do I leave London?", "name"),
        ("Where can I use the Acme card?", "Where can I use the card?", "name"),
        ("What does `a` do?", "What does `b` do?", "code"),
        ("What is 5 + 3?", "What is 5 - 3?", "code"),
        ('What is "over the moon"?', 'What is "under the weather"?', "quotation"),
        ("Can I get a refund?", "How can I get a refund?", "question"),
        ("When did it open?", "Where did it open?", "question"),
        ("Who wins?", "Who wins and why?", "question"),
        ("Should I take it?", "Can I take it?", "question"),
        ("How long is it?", "How old is it?", "question"),
        ("What is your plan for today?", "What is my plan for today?", "person"),
        ("Who won the race?", "Who will win the race?", "tense"),
        ("What is the way to pay?", "What is the cheapest way to pay?", "degree"),
        ("Can I eat before a run?", "Can I eat a run?", "relation"),
        ("How do I learn it?", "How do I learn and practise it?", "addition"),
        ("Convert miles to kilometres", "Convert kilometres to miles", "direction"),
        ("flights from Paris to Rome", "flights from Rome to Paris", "direction"),
        ("Does stress cause insomnia?", "Does insomnia cause stress?", "direction"),
        ("How do I reset it?", "Wie kann ich es nicht ein und aus?", "language"),
        ("Wie kann ich das ändern und speichern?", "Wie kann ich das löschen und speichern?", "language"),
        ("How do I pay?", "Как мне заплатить?", "language"),
    ],
)
def test_what_asks_something_else_is_turned_away_both_ways(one: str, other: str, what: str) -> None:
    assert difference(read(one), read(other)) == what
    assert difference(read(other), read(one)) == what


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("How do I reset my password?", "Please tell me how I can reset my password"),
        ("What's your refund policy?", "What is your refund policy"),
        ("How much does it cost?", "What is the cost of it?"),
        ("Why was my card declined?", "How come my card was declined?"),
        ("How do I pay my rent?", "How do you pay your rent?"),
        ("Is 1,000 too much?", "Is 1k too much?"),
        ("Five kilometres in half an hour", "5 km in half an hour"),
        ("Which is better: tea or rum?", "Which is better: rum or tea?"),
        ("Does Rome like Paris and London?", "Does Rome like London and Paris?"),
        ("Who is the president of the United States?", "Who is the president of the US?"),
        ("Was the bridge built by Romans here?", "Was the bridge here built by Romans?"),
        ("Wie kann ich das Passwort ändern?", "Wie kann ich das Passwort ändern"),
        ("How can I delete my e-mail account?", "How do I delete my email account"),
        ("What does it mean to be Brave?", "What does it mean to be brave?"),
    ],
)
def test_what_asks_the_same_passes(one: str, other: str) -> None:
    assert difference(read(one), read(other)) == ""


def test_of_answers_it_is_not_asked_what_they_ask() -> None:
    one, other = read("It opens when you press it."), read("It opens if you press it.")
    assert difference(one, other) == "question"
    assert difference(one, other, asked=False) == ""
    doubly = read("No, it does not open.")
    assert difference(doubly, read("It does not open."), asked=False) == ""
    assert difference(doubly, read("It does open."), asked=False) == "negation"


def test_what_is_left_over_is_counted_and_weighed() -> None:
    one, other = read("a good night in a hotel at night"), read("a night in a hostel")
    left, right = leftover(one, other)
    assert (sorted(left), right) == (["good", "hotel", "night"], ["hostel"])
    assert weight(left) == pytest.approx(2.3)
    assert weight([]) == 0
