"""Comparing words with words: exact match, token F1, BLEU-4."""

from collections import Counter

from sacrebleu.metrics.bleu import BLEU

from malpighi.grading.names import plain_text

_ARTICLES = {"a", "an", "the"}
_BLEU = BLEU(lowercase=True, tokenize="13a", smooth_method="exp", effective_order=True)
_PLAIN_BLEU = BLEU(lowercase=True, tokenize="none", smooth_method="none", effective_order=False)


def normal_words(text: str) -> list[str]:
    """Words without case, punctuation and articles; articles stay where there is nothing else.

    Example:
        >>> normal_words("The B-cell lymphoma.")
        ['b', 'cell', 'lymphoma']
    """
    folded = plain_text(text).casefold()
    words = "".join(c if c.isalnum() or c in "+%" else " " for c in folded).split()
    return [word for word in words if word not in _ARTICLES] or words


def exact_match(text: str, truth: str) -> float:
    """1 where both have the same normal words and at least one, else 0."""
    words = normal_words(text)
    return float(bool(words) and words == normal_words(truth))


def token_f1(text: str, truth: str) -> float:
    """Harmonic mean of precision and recall over normal words, each counted as often as it stands.

    Example:
        >>> token_f1("invasive ductal carcinoma", "ductal carcinoma")
        0.8
    """
    said, wanted = Counter(normal_words(text)), Counter(normal_words(truth))
    shared = (said & wanted).total()
    return 2 * shared / (said.total() + wanted.total()) if shared else 0.0


def bleu4(text: str, truth: str) -> float:
    """Sentence BLEU-4, 0 to 1, that gives a right answer of one word its 1 and that padding cannot raise.

    Equals `bleu4_sacrebleu` where the text has as many words as the truth, or more and the truth has four.

    Source: BLEU (Papineni et al. 2002), tokens and exponential smoothing of sacrebleu, n up to the length of
    the truth.
    Departs: n-grams are counted against the longer of the two texts, as GLEU does, in place of a brevity
    penalty. That penalty falls so fast that filler pays: to "hyaline cartilage" the answer "cartilage" has
    0.37 and "cartilage cartilage" 0.50; here both have 0.50, and a third word lowers it.

    Example:
        >>> bleu4("Koilocytic atypia", "koilocytic atypia")
        1.0
    """
    found = _BLEU.sentence_score(plain_text(text), [plain_text(truth)])
    orders = min(4, found.ref_len)
    if not orders or not found.counts[0]:
        return 0.0
    product, missing = 1.0, 0
    for n in range(orders):
        longest = max(found.totals[n], found.ref_len - n)
        missing += not found.counts[n]
        product *= (found.counts[n] or 2.0**-missing) / longest
    return float(product ** (1 / orders))


def bleu4_sacrebleu(text: str, truth: str) -> float:
    """Sentence BLEU-4, 0 to 1, as sacrebleu counts it: effective order, exponential smoothing, 13a tokens.

    Departs: without case; the case of a diagnosis says nothing about its correctness.
    """
    return _unit(_BLEU.sentence_score(text, [truth]).score)


def bleu4_paper(text: str, truth: str) -> float:
    """Sentence BLEU-4 as published: 0 for every answer shorter than four words, right or wrong.

    Source: NLTK's sentence_bleu without smoothing over lower-case words, the variant that the published
    values of SmartPath-R1 on short answers are consistent with.
    """
    return _unit(_PLAIN_BLEU.corpus_score([text], [[truth]]).score)


def _unit(percent: float) -> float:
    # sacrebleu gives 100.00000000000004 for some perfect answers.
    return min(max(percent / 100.0, 0.0), 1.0) if abs(percent - 100.0) > 1e-9 else 1.0
