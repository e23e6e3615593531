"""Texts -> unit vectors in a space; every distinct text once, kept on disk."""

import hashlib
import logging
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ddpo_lib import models
from ddpo_lib.corpus import PACKAGE_CORPUS
from ddpo_lib.errors import InputError
from ddpo_lib.store import Store, content_key
from ddpo_lib.stylometry import stylometric_vectors

log = logging.getLogger(__name__)

BLOCK = 256  # texts encoded between two writes to disk: what a kill can lose


@dataclass(frozen=True)
class Space:
    """An embedding space: a sentence-transformers model (embedded, local or on the hub), or "stylometric"."""

    model: str
    revision: str | None = None
    trust_remote_code: bool = False


def embed(texts: list[str], space: Space | str) -> np.ndarray:
    """Unit vectors of texts (paper: jina-embeddings-v3 for the semantic space, Style-Embedding for style).

    Args:
        texts: n texts, none of them blank; repeated texts cost nothing.
        space: "minilm" (embedded), "stylometric" (computed, topic-blind), or the name of any
            sentence-transformers model; a `Space` where a revision or remote code matters.

    Returns:
        (n, d) float32, rows of unit length, equal for equal texts.

    Raises:
        InputError: a blank text (names its position), or a model that cannot be had.
    """
    space = Space(space) if isinstance(space, str) else space
    for i, text in enumerate(texts):
        if not text.strip():
            raise InputError(f"texts: entry {i} is blank and has no direction in any space")
    store = Store("vectors-" + content_key(space.model)[:16])
    version = _version(space)
    keys = [content_key(version, text) for text in texts]
    distinct = dict(zip(keys, texts, strict=True))
    vectors = store.get(list(distinct))
    missing = sorted((key for key in distinct if key not in vectors), key=lambda key: (len(distinct[key]), key))
    for start in tqdm(range(0, len(missing), BLOCK), desc=f"embedding ({space.model})", disable=not missing):
        block = missing[start : start + BLOCK]
        made = _encode([distinct[key] for key in block], space)
        store.put(zip(block, made, strict=True))
        vectors.update(zip(block, made, strict=True))
    return np.stack([vectors[key] for key in keys])


def _encode(texts: list[str], space: Space) -> np.ndarray:
    if space.model == "stylometric":
        return stylometric_vectors(texts)
    encoder = _encoder(space)
    return encoder.encode(texts, batch_size=32, normalize_embeddings=True, show_progress_bar=False).astype(np.float32)


@cache
def _encoder(space: Space):
    from sentence_transformers import SentenceTransformer

    place = models.encoder_place(space.model)
    try:
        return SentenceTransformer(
            str(place), revision=space.revision, trust_remote_code=space.trust_remote_code, device=models.device()
        )
    except OSError as error:
        raise InputError(
            f"embedding model {space.model}: cannot be loaded ({type(error).__name__}); without a network use "
            '"minilm" or "stylometric", or a folder that holds the model'
        ) from None


def _version(space: Space) -> str:
    """What a vector depends on besides its text."""
    if space.model == "stylometric":
        return "stylometric " + _file_hash(Path(__file__).with_name("stylometry.py")) + _file_hash(PACKAGE_CORPUS)
    return f"{space.model} {models.weights_version(space.model, space.revision)}"


@cache
def _file_hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
