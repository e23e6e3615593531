"""A synthetic corpus of any size, written as a stream, and a check of the table of weights that is made from it."""

import itertools
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

LEAST, MOST = 4, 40  # responses to a prompt
WORDS = (10, 20)  # in a response
BLOCK = 1000  # prompts whose words are drawn at once
WEIGHTS = ("weight_semantic", "weight_style", "weight_both")
CLOSE = 1e-6  # a prompt's weights sum to its number of responses, times 1 +- CLOSE


def prompt_sizes(responses: int, seed: int) -> np.ndarray:
    """The number of responses to each prompt: uneven, `LEAST` to `MOST`, small ones more often; sums to `responses`.

    The last prompt also takes what would be less than `LEAST`.
    """
    draws = np.random.default_rng(seed).random(responses // LEAST + 1)
    sizes = LEAST + ((MOST + 1 - LEAST) * draws**2).astype(np.int64)
    ends = np.cumsum(sizes)
    whole = max(1, int(np.searchsorted(ends, responses - LEAST, side="right")))
    left = responses - int(ends[whole - 1])
    if left >= LEAST:
        return np.concatenate([sizes[:whole], [left]])
    sizes[whole - 1] += left
    return sizes[:whole]


def write_corpus(path: Path, responses: int, seed: int) -> np.ndarray:
    """Write JSON Lines, one prompt per line; return the sizes of its prompts.

    The words are drawn as often as they occur in the package's corpus, so that a share of them are function words.
    """
    sizes = prompt_sizes(responses, seed)
    with path.open("w", encoding="utf-8") as file:
        for line in _lines(sizes, np.random.default_rng([seed, 1])):
            file.write(line + "\n")
    return sizes


def sample_texts(count: int, seed: int) -> list[str]:
    """Texts of responses as in the corpus."""
    return next(_texts(np.random.default_rng([seed, 2]), [count]))


def _lines(sizes: np.ndarray, draws: np.random.Generator) -> Iterator[str]:
    blocks = np.split(sizes, range(BLOCK, len(sizes), BLOCK))
    number = 0
    for block, texts in zip(blocks, _texts(draws, [int(block.sum()) for block in blocks]), strict=True):
        answers = ({"text": text, "score": score} for text, score in zip(texts, itertools.count(), strict=False))
        for size in block.tolist():
            yield json.dumps({"prompt": f"Prompt number {number}", "responses": list(itertools.islice(answers, size))})
            number += 1


def _texts(draws: np.random.Generator, counts: list[int]) -> Iterator[list[str]]:
    """Lists of so many texts."""
    words, ends = _vocabulary()
    for count in counts:
        lengths = draws.integers(*WORDS, count, endpoint=True)
        drawn = words[np.searchsorted(ends, draws.random(int(lengths.sum())))].tolist()
        bounds = itertools.pairwise([0, *np.cumsum(lengths).tolist()])
        yield [" ".join(drawn[first:last]) for first, last in bounds]


def _vocabulary() -> tuple[np.ndarray, np.ndarray]:
    """The words of the package's corpus, and where each ends in [0, 1) if its share is as large as there."""
    from ddpo_lib.data.corpus import PACKAGE_CORPUS

    posts = map(json.loads, PACKAGE_CORPUS.read_text(encoding="utf-8").splitlines())
    texts = (text for post in posts for text in post["comment_texts"])
    counts = Counter(word for text in texts for word in re.findall(r"[a-z]+", text.lower()))
    shares = np.cumsum(list(counts.values())) / counts.total()
    return np.array(list(counts), dtype=object), shares


def check_table(path: Path, sizes: np.ndarray) -> dict:
    """Stream a table of weights: prompts in order, each with all its responses, and weights that sum to their number.

    Args:
        path: the merged Parquet file.
        sizes: as from `write_corpus`.

    Returns:
        `rows`, `prompts`, and `largest_gap`, the largest difference of a sum from the number, relative to the number.

    Raises:
        ValueError: rows are missing, too many or out of order, or a sum is wrong; it names the prompt.
    """
    import pyarrow.parquet as pq

    rows, sums = np.zeros(len(sizes), dtype=np.int64), np.zeros((len(WEIGHTS), len(sizes)))
    last = 0
    with pq.ParquetFile(path, buffer_size=2**20) as table:
        for batch in table.iter_batches(2**16, columns=["prompt_id", *WEIGHTS]):
            ids = np.array([int(name[1:]) for name in batch["prompt_id"].to_pylist()], dtype=np.int64)
            if ids[0] < last or (np.diff(ids) < 0).any() or ids[-1] >= len(sizes):
                raise ValueError(f"{path}: prompts out of order near {ids[0]}")
            last = ids[-1]
            here = slice(ids[0], last + 1)
            rows[here] += np.bincount(ids - ids[0])
            for of, name in zip(sums, WEIGHTS, strict=True):
                of[here] += np.bincount(ids - ids[0], batch[name].to_numpy(zero_copy_only=False))
    gaps = np.abs(sums / sizes - 1).max(axis=0)
    wrong = (rows != sizes) | ~(gaps < CLOSE)
    if wrong.any():
        at = int(wrong.argmax())
        raise ValueError(f"{path}, prompt {at}: {rows[at]} of {sizes[at]} responses, with weights {sums[:, at]}")
    return {"rows": int(rows.sum()), "prompts": len(sizes), "largest_gap": float(gaps.max())}
