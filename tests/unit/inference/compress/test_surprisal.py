from __future__ import annotations

from kaizen.inference.compress.surprisal import without_expected

TEXT = 'Ada went to the very old market with 12 coins, and the man said "please go to the mill" but not there. '
TOKENS = [(word, 0.1) for word in (f" {one}" for one in TEXT.split(" "))]


def expected(text: str) -> list[tuple[str, float]]:
    words = text.split(" ")
    return [(words[0], 0.1), *((f" {one}", 0.1) for one in words[1:])]


def test_numbers_names_negations_quotations_and_the_questions_words_stay() -> None:
    short = without_expected(TEXT, expected(TEXT), "Which market was it?", keep=0.0)
    for kept in ("Ada", "12", "market", '"please go to the mill"', "not", "there. "):
        assert kept in short
    assert " very " not in short
    assert " man " not in short


def test_what_the_model_did_not_expect_goes_last() -> None:
    text = "the cat sat on the purple mat again"
    tokens = [(piece, 9.0 if piece == " purple" else 0.1) for piece, _ in expected(text)]
    short = without_expected(text, tokens, "", keep=0.4)
    assert "purple" in short
    assert len(short) < len(text)


def test_all_of_it_stays_where_all_may() -> None:
    assert without_expected(TEXT, expected(TEXT), "", keep=1.0) == TEXT


def test_tokens_need_not_be_words() -> None:
    text = "unbelievable things happen here today "
    tokens = [("un", 0.1), ("believ", 8.0), ("able th", 0.1), ("ings hap", 0.1), ("pen here today", 0.1), (" ", 0.0)]
    short = without_expected(text, tokens, "", keep=0.6)
    assert short.startswith("unbelievable")
    assert len(short) < len(text)
