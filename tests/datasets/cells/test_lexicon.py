"""The lexicon: one phrase, one translation, there and back."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from malpighi.datasets.cells.lexicon import load_lexicon, plain, shipped_lexicon
from malpighi.errors import DataError, FormatVersionError

LEXICON = shipped_lexicon()
TERM = "- {zh: 核膜, en: membrane, published: {规则: regular}, expected: {%s}}"


def descriptions():
    """Chinese descriptions of any keys, each of one or more known phrases, in full-width punctuation."""

    def value(term):
        phrases = st.sampled_from([zh.replace(":", "\uff1a") for zh, _ in term.phrases])
        breaks = st.sampled_from(["\uff0c", "\uff1b"])
        rest = st.lists(st.tuples(breaks, phrases).map("".join), max_size=3).map("".join)
        return st.tuples(phrases, rest).map("".join)

    return st.lists(st.sampled_from(LEXICON.terms), unique_by=lambda term: term.zh, min_size=1).flatmap(
        lambda terms: st.fixed_dictionaries({term.zh: value(term) for term in terms})
    )


def test_the_nine_keys_of_the_descriptions_are_there():
    assert [term.zh for term in LEXICON.terms] == [
        "核大小",
        "核染色质",
        "核数量",
        "核质比",
        "核膜",
        "核仁",
        "胞质状态",
        "异常病理指征",
        "细胞空间构型",
    ]


def test_keys_and_phrases_are_one_to_one():
    assert len({term.en for term in LEXICON.terms}) == len({term.zh for term in LEXICON.terms}) == 9
    for term in LEXICON.terms:
        assert len(term.phrases) == len(term.published) + len(term.expected)
        assert len({zh for zh, _ in term.phrases}) == len({en for _, en in term.phrases}) == len(term.phrases)


@given(descriptions())
def test_there_and_back_is_the_same(description):
    english = LEXICON.english(description)
    assert not re.search(r"[\u3000-\u9fff\uff00-\uffef]", "".join([*english, *english.values()]))
    assert LEXICON.chinese(english) == description
    assert LEXICON.english(LEXICON.chinese(english)) == english


def test_punctuation_of_either_width_and_a_full_stop_are_read_alike():
    wide = {"核染色质": "不均匀\uff0c颗粒粗\u3001聚集明显\u3002"}
    narrow = {"核染色质": " 不均匀, 颗粒粗,聚集明显"}
    assert LEXICON.english(wide) == LEXICON.english(narrow)
    assert LEXICON.english(wide) == {"chromatin": "uneven, coarsely granular, markedly clumped"}
    signs = "细胞核异型性\uff1a存在\uff1b角化异常\uff1a未见\uff0c不存在挖空细胞"
    english = LEXICON.english({"异常病理指征": signs})
    assert (
        english["abnormal signs"]
        == "nuclear atypia: present; abnormal keratinisation: not seen, no koilocyte"
    )
    assert LEXICON.chinese(english) == {"异常病理指征": signs}
    assert plain("\uff1a\u3002 ") == ":"


def test_what_is_not_known_is_named():
    with pytest.raises(DataError, match="no key '颜色'"):
        LEXICON.english({"颜色": "增大"})
    with pytest.raises(DataError, match="no '巨大' under 核大小"):
        LEXICON.english({"核大小": "增大\uff0c巨大"})
    with pytest.raises(DataError, match="no '' under 核大小"):
        LEXICON.english({"核大小": ""})
    with pytest.raises(DataError, match="no 'enlarged' under nucleolus"):
        LEXICON.chinese({"nucleolus": "enlarged"})


def written(tmp_path, term, version=1):
    path = tmp_path / "lexicon.yaml"
    path.write_text(f"format_version: {version}\nterms:\n{term}\n", encoding="utf-8")
    return path


def test_a_lexicon_of_ones_own(tmp_path):
    own = load_lexicon(written(tmp_path, TERM % "光滑: smooth"))
    assert own.english({"核膜": "光滑"}) == {"membrane": "smooth"}


@pytest.mark.parametrize(
    ("term", "word"),
    [
        (TERM % "光滑: regular", "'regular' stands for two"),
        (TERM % "规则: smooth", "'规则' stands for two"),
        ("\n".join([TERM % "", TERM % ""]), "'核膜' stands for two"),
        (TERM % "光滑: 'smooth, thin'", "no phrase"),
        (TERM % "'光滑\uff0c薄': smooth", "no phrase"),
        (TERM % "光滑: ' smooth'", "no phrase"),
        ("- {zh: 核膜}", "does not hold"),
    ],
)
def test_a_lexicon_that_is_not_one_to_one_is_refused(tmp_path, term, word):
    with pytest.raises(DataError, match=word):
        load_lexicon(written(tmp_path, term))


def test_another_version_or_no_file_is_refused(tmp_path):
    with pytest.raises(FormatVersionError):
        load_lexicon(written(tmp_path, TERM % "", version=2))
    with pytest.raises(DataError, match="nowhere"):
        load_lexicon(tmp_path / "nowhere.yaml")
