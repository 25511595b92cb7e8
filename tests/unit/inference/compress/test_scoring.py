from __future__ import annotations

import numpy as np

from kaizen.inference.compress.scoring import FEATURES, LEXICAL, WEIGHTS, Passage, features, scores
from tests.unit.inference.compress.requests import FILLER, GOLD, QUESTION

BRIDGE = (
    Passage("Kirton End", ("Kirton End is a hamlet in the Boston district. ", "It has a church. ")),
    Passage("Boston, Lincolnshire", ("Boston is a town. ", "The town had 35,124 people at the census. ")),
    Passage("Paris", ("Paris is a city on a river. ", "The city had two million people in a later year. ")),
    Passage("Oslo", ("Oslo is a city by the sea. ", "Its people like to ski there. ")),
    Passage("Rome", ("Rome is a city on hills. ", "Its people like to eat there. ")),
)


def test_the_sentence_that_answers_comes_first() -> None:
    found = scores(QUESTION, [Passage("", (one,)) for one in (*FILLER, GOLD)])
    assert int(found.argmax()) == len(FILLER)


def test_a_passage_that_the_first_one_names_comes_before_strangers() -> None:
    question = "How many people live in the town in whose district Kirton End lies?"
    named = features(question, BRIDGE)[:, FEATURES.index("named")]
    assert named[2] == named[3] > max(named[4:])
    found = scores(question, BRIDGE)
    assert max(found[2], found[3]) > max(found[4:])


def test_meaning_counts_where_there_are_embeddings() -> None:
    two = [Passage("", ("Alpha beta gamma. ",)), Passage("", ("Delta epsilon zeta. ",))]
    vectors = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    assert scores("Something else?", two, vectors)[1] > scores("Something else?", two, vectors)[0]
    assert features("Something else?", two)[:, FEATURES.index("meaning")].tolist() == [0.0, 0.0]


def test_every_feature_has_a_weight_and_those_of_meaning_none_without_an_embedder() -> None:
    assert set(WEIGHTS) == set(LEXICAL) == set(FEATURES)
    assert LEXICAL["meaning"] == LEXICAL["near_top"] == LEXICAL["passage_meaning"] == 0.0


def test_one_lone_sentence_and_very_many_passages_have_scores() -> None:
    assert scores("Who?", [Passage("", ("Nobody. ",))]).shape == (1,)
    many = [Passage("", (f"Passage {number} speaks of thing {number}. ",)) for number in range(300)]
    found = features("Which passage speaks of thing 7?", many)
    assert found.shape == (len(many), len(FEATURES))
    assert not found[:, FEATURES.index("named")].any()


def test_material_without_a_word_has_scores_too() -> None:
    assert np.isfinite(scores("...", [Passage("", ("... ", "!!! "))])).all()
