"""A prompt's samples -> diversity measures of their words. Most of them depend on text length: see `lengths`.

Every measure takes texts and their groups. It returns the group ids, ascending, and one float64 per group, which is
NaN for a group of fewer than two texts. The order of a group's texts does not matter.

Words are those of `words`, in any script. ROUGE-L, self-BLEU and the matched length are published with tokenizers made
for English. They use those on texts whose letters are nearly all a to z, and the words of `words` on others, so that
copies count as copies in every script (`words.choose_tokenizer`). Give one `tokenizer` for everything that is compared.
"""

import gzip
import itertools
from collections.abc import Sequence

import numpy as np
import pandas as pd
from rapidfuzz.distance import LCSseq
from rouge_score.scoring import fmeasure
from rouge_score.tokenize import tokenize

from ddpo_lib.data.words import Tokenizer, choose_tokenizer, words, words_and_marks
from ddpo_lib.deviation.groups import by_group, index_groups

LONGEST = 4  # longest n-gram of `ngram_diversity` and `self_bleu`, as published
LEVEL = 9  # of gzip; the bytes also depend on the version of zlib that Python was built with


def distinct_n(texts: list[str], groups: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Distinct n-grams of a group over all its n-grams (Li et al. 2016, NAACL, "distinct-1" and "distinct-2").

    Li et al. divide by the number of words. Division by the number of n-grams is usual since; a group without
    repetition then scores 1. Higher is more diverse; in [0, 1]. Longer texts repeat more and score lower, so compare
    at matched length or use `ead`. Blank texts add nothing; a group without any n-gram scores 0.

    Args:
        texts: n texts. groups: (n,) integers, rows in any order.
        n: words in an n-gram.

    Returns:
        The group ids, ascending, and their shares; NaN for a group of one.

    Raises:
        TypeError: a text that is not a string (names the row).
        ValueError: n below 1, or groups of the wrong shape.
    """
    ids, distinct, total = _count(texts, groups, [n])
    return ids, _share(distinct, total)[0]


def ead(texts: list[str], groups: np.ndarray, n: int, vocabulary: int) -> tuple[np.ndarray, np.ndarray]:
    """Expectation-adjusted distinct n-grams (Liu et al. 2022, ACL, "Rethinking and Refining the Distinct Metric").

    With N distinct n-grams among C, EAD = N / (V (1 - ((V - 1) / V)^C)). The denominator is the expected number of
    distinct n-grams in C draws from V equally likely ones. Higher is more diverse; 0 or more, and 1 where N equals
    that expectation. EAD corrects `distinct_n` for length, fully only if all n-grams are equally likely, which those
    of a language are not. Blank texts add nothing; a group without any n-gram scores 0.

    Args:
        texts: n texts. groups: (n,) integers, rows in any order.
        n: words in an n-gram.
        vocabulary: V, the number of n-grams to draw from. Use one number for everything compared, such as
            `count_vocabulary` of the texts of all arms together.

    Returns:
        The group ids, ascending, and their EAD; NaN for a group of one.

    Raises:
        TypeError, ValueError: as `distinct_n`; or the vocabulary is smaller than a group's number of distinct n-grams.
    """
    ids, distinct, total = _count(texts, groups, [n])
    most = np.nanmax(distinct, initial=1)
    if not vocabulary >= most:
        raise ValueError(f"vocabulary: got {vocabulary}, but a group holds {most:.0f} distinct {n}-grams")
    missed = ((vocabulary - 1) / vocabulary) ** total  # probability that none of the draws gives a given n-gram
    return ids, _share(distinct, vocabulary * (1 - missed))[0]


def ngram_diversity(texts: list[str], groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sum over n = 1..4 of the distinct n-grams of a group over all its n-grams (Padmakumar & He 2024, ICLR,
    arXiv:2309.05196; Shaib et al. 2024, arXiv:2403.00553).

    N-grams are counted over the whole group, as published; no n-gram spans two texts. Higher is more diverse; in
    [0, 4]. Longer texts score lower. An n for which a group has no n-gram adds 0; a group of blank texts scores 0.

    Args:
        texts: n texts. groups: (n,) integers, rows in any order.

    Returns:
        The group ids, ascending, and their sums; NaN for a group of one.

    Raises:
        TypeError, ValueError: as `distinct_n`.
    """
    ids, distinct, total = _count(texts, groups, range(1, LONGEST + 1))
    return ids, _share(distinct, total).sum(axis=0)


def count_vocabulary(texts: list[str], n: int) -> int:
    """How many distinct n-grams the texts contain, at least 1: the `vocabulary` of `ead` for everything compared."""
    check_texts(texts)
    code, _ = _ngrams(texts, n)[n]
    return max(1, len(np.unique(code)))


def self_bleu(
    texts: list[str], groups: np.ndarray, tokenizer: Tokenizer | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Mean BLEU of each text of a group against its other texts as references (Zhu et al. 2018, SIGIR, "Texygen").

    BLEU is sacrebleu's sentence score, divided by 100:

    - n-grams up to 4 of the tokens of its "13a" tokenizer (with "unicode": of words and marks in any script), cased,
      each clipped to the reference that contains it most;
    - exponential smoothing: the i-th n without a match counts as 2^-i of a match; 0 if no word matches;
    - effective order: only those n for which the text has n-grams;
    - a brevity penalty relative to the reference nearest in length.

    Lower is more diverse; in [0, 1], and 1 for identical texts. The score rises with the size of the group, since there
    are more references. So compare groups of the same size. A blank text scores 1 if another is blank, else 0.

    Args:
        texts: n texts. groups: (n,) integers, rows in any order.
        tokenizer: "published" or "unicode"; None chooses by these texts (`words.choose_tokenizer`).

    Returns:
        The group ids, ascending, and their means; NaN for a group of one.

    Raises:
        TypeError, ValueError: a text that is not a string (names the row); groups of the wrong shape.
    """
    from sacrebleu.metrics import BLEU

    check_texts(texts)
    by_script = (tokenizer or choose_tokenizer(texts)) == "unicode"
    texts = [" ".join(words_and_marks(text)) for text in texts] if by_script else texts
    # force: no warning about tokenized input
    bleu = BLEU(tokenize="none" if by_script else "13a", smooth_method="exp", effective_order=True, force=True)

    def score(text: str, others: list[str]) -> float:
        if not text.strip():
            return float(any(not other.strip() for other in others))
        return min(bleu.sentence_score(text, others).score / 100, 1.0)  # its exp(log(100)) rounds to slightly above 100

    def mean_score(group: list[str]) -> float:
        return float(np.mean([score(text, group[:i] + group[i + 1 :]) for i, text in enumerate(group)]))

    return by_group(lambda rows: [mean_score([texts[i] for i in group]) for group in rows], groups, len(texts))


def rouge_l(texts: list[str], groups: np.ndarray, tokenizer: Tokenizer | None = None) -> tuple[np.ndarray, np.ndarray]:
    """ROUGE-L homogenisation: mean over all pairs of a group of the F1 of their longest common subsequence (Lin 2004;
    homogenisation after Padmakumar & He 2024, ICLR, arXiv:2309.05196).

    With L words in the longest common subsequence of two texts of a and b words, F1 = 2 L / (a + b). It equals
    rouge_score's "rougeL" without stemming, whose tokens are runs of a-z and 0-9 in lower case; with "unicode" they are
    the words of `words.words`. The released code leaves out the last text of a group; here every pair counts.
    Lower is more diverse; in [0, 1]. Two texts without tokens count 1 if they are equal up to surrounding white space
    (rouge_score gives 0). A text without tokens and one with tokens count 0.

    Args:
        texts: n texts. groups: (n,) integers, rows in any order.
        tokenizer: "published" or "unicode"; None chooses by these texts (`words.choose_tokenizer`).

    Returns:
        The group ids, ascending, and their means; NaN for a group of one.

    Raises:
        TypeError, ValueError: a text that is not a string (names the row); groups of the wrong shape.
    """
    check_texts(texts)
    by_script = (tokenizer or choose_tokenizer(texts)) == "unicode"
    tokens = [words(text) if by_script else tokenize(text, None) for text in texts]
    code = {token: i for i, token in enumerate(set(itertools.chain.from_iterable(tokens)))}
    coded = [[code[token] for token in of] for of in tokens]

    def f1(i: int, j: int) -> float:
        one, two = coded[i], coded[j]
        if not one or not two:
            return float(not one and not two and texts[i].strip() == texts[j].strip())
        common = LCSseq.similarity(one, two)
        return fmeasure(common / len(two), common / len(one))

    def mean_f1(group: np.ndarray) -> float:
        return float(np.mean([f1(i, j) for i, j in itertools.combinations(group, 2)]))

    return by_group(lambda rows: [mean_f1(group) for group in rows], groups, len(texts))


def compression_ratio(texts: list[str], groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bytes of a group's texts over their bytes after gzip, with all texts compressed together (Shaib et al. 2024,
    arXiv:2403.00553, "CR").

    The texts are joined by a space, as published, and in sorted order, so that the order of samples does not matter.
    They are encoded as UTF-8 and compressed by gzip at level 9 without a time stamp. gzip finds repetitions only within
    32,768 bytes. Lower is more diverse; above 0. The ratio rises with length and is low for short texts because of the
    header, so compare at matched length. It is NaN if all texts are blank.

    Args:
        texts: n texts. groups: (n,) integers, rows in any order.

    Returns:
        The group ids, ascending, and their ratios; NaN for a group of one.

    Raises:
        TypeError, ValueError: a text that is not a string (names the row); groups of the wrong shape.
    """
    check_texts(texts)

    def ratio(group: list[str]) -> float:
        together = " ".join(sorted(group)).encode("utf-8", "surrogatepass")
        return len(together) / len(gzip.compress(together, LEVEL, mtime=0)) if together.strip() else np.nan

    return by_group(lambda rows: [ratio([texts[i] for i in group]) for group in rows], groups, len(texts))


def check_texts(texts: list[str]) -> None:
    """Raise TypeError if a text is not a string; the message names the row."""
    row = next((i for i, text in enumerate(texts) if not isinstance(text, str)), None)
    if row is not None:
        raise TypeError(f"texts: row {row} is {texts[row]!r}, not a string")


def _count(texts: list[str], groups: np.ndarray, orders: Sequence[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The group ids, ascending, and each group's number of distinct n-grams and of n-grams in total: two (orders, g)
    arrays of floats, NaN for a group of one."""
    check_texts(texts)
    groups = np.asarray(groups)
    inverse, sizes = index_groups(groups, len(texts))
    ngrams = _ngrams(texts, max(orders))
    counts = np.full((2, len(orders), len(sizes)), np.nan)
    several = sizes > 1
    for row, n in enumerate(orders):
        code, text = ngrams[n]
        kinds = code.max(initial=0) + 1
        found = inverse[text] * kinds + code
        for count, of in zip(counts, (np.unique(found), found), strict=True):
            count[row, several] = np.bincount(of // kinds, minlength=len(sizes))[several]
    return np.unique(groups), *counts


def _ngrams(texts: list[str], longest: int) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """For n = 1, 2, ... longest: a code for each n-gram, equal for equal words, and the row of its text."""
    if longest < 1:
        raise ValueError(f"n: expected 1 or more, got {longest}")
    found = [words(text) for text in texts]
    row = np.repeat(np.arange(len(texts)), [len(of) for of in found])
    word = pd.factorize(np.array(list(itertools.chain.from_iterable(found)), dtype=object))[0].astype(np.int64)
    code, ngrams = word, {}
    for n in range(1, longest + 1):
        if n > 1:  # an n-gram is the (n - 1)-gram that starts at the same word, and the next word
            pair = code[: len(word) - n + 1] * (word.max(initial=0) + 1) + word[n - 1 :]
            code = np.unique(pair, return_inverse=True)[1]
        start = row[: len(code)]
        inside = start == row[n - 1 :]
        ngrams[n] = code[inside], start[inside]
    return ngrams


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, and 0 where whole is 0."""
    return np.divide(part, whole, out=np.where(np.isnan(whole), np.nan, 0.0), where=whole > 0)
