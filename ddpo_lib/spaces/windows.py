"""Texts longer than an encoder reads -> windows that it reads whole, and their vectors -> one vector per text."""

import itertools
from collections.abc import Callable

import numpy as np

from ddpo_lib.base.errors import InputError
from ddpo_lib.spaces.encoders import pads_with_its_tokenizer


def split(texts: list[str], encoder, prompt: str = "") -> list[list[str]]:
    """The windows of each text: consecutive pieces that an encoder reads whole; a text that fits is one window.

    A window ends before the last word that begins in it, so its tokens are those of the whole text; a run of characters
    without white space is cut where a token begins. The white space between two windows is left out.

    Args:
        texts: n texts, none of them blank.
        encoder: of sentence-transformers. One that reads texts of any length gives one window per text.
        prompt: what the encoder puts before each window.

    Raises:
        InputError: the encoder's tokenizer does not tell where its tokens begin.
    """
    if not encoder.max_seq_length or not pads_with_its_tokenizer(encoder):
        return [[text] for text in texts]
    tokenizer = encoder.tokenizer
    if not tokenizer.is_fast:
        raise InputError("windows: the model's tokenizer does not tell where its tokens begin; embed without windows")
    options = {"add_special_tokens": False, "return_offsets_mapping": True, "verbose": False}
    before = len(tokenizer(prompt, add_special_tokens=False).input_ids) if prompt else 0
    room = encoder.max_seq_length - tokenizer.num_special_tokens_to_add() - before
    if room < 1:
        raise InputError(f"windows: the prompt of {before} tokens leaves no room in {encoder.max_seq_length}")
    places = [tokenizer(text, **options)["offset_mapping"] for text in texts]
    return [_pieces(text, [start for start, _ in of], room) for text, of in zip(texts, places, strict=True)]


def _pieces(text: str, starts: list[int], room: int) -> list[str]:
    cuts, first = [0], 0
    while len(starts) - first > room:
        words = (i for i in range(first + room, first, -1) if text[starts[i] - 1 : starts[i]].isspace())
        first = next(words, first + room)
        cuts.append(starts[first])
    pieces = (text[start:end].strip() for start, end in itertools.pairwise([*cuts, len(text)]))
    return [piece for piece in pieces if piece]


def embed_windows(windows: list[list[str]], embed: Callable[[list[str]], np.ndarray]) -> np.ndarray:
    """The vector of each text from those of its windows: their mean, each weighted by its number of characters.

    Args:
        windows: of each text, as from `split`.
        embed: texts -> (n, d) unit vectors.

    Returns:
        (n, d) float32, rows of unit length; for a text of one window the vector of that window.
    """
    vectors = embed(list(itertools.chain.from_iterable(windows)))
    sizes = np.array([len(piece) for of in windows for piece in of], dtype=np.float32)
    ends = np.cumsum([len(of) for of in windows])
    sums = np.add.reduceat(vectors * sizes[:, None], np.concatenate([[0], ends[:-1]]), axis=0)
    several = np.array([len(of) > 1 for of in windows])
    sums[several] /= np.linalg.norm(sums[several], axis=1, keepdims=True)
    sums[~several] = vectors[ends[~several] - 1]
    return sums
