"""Texts -> unit vectors in a space. Each distinct text is embedded once, and its vector is kept on disk.

A text's vector does not depend on what else is embedded with it; on a CPU it is the same bit for bit. A batch contains
only texts that are padded to one length, and that length depends only on the text. So the shards of a corpus give the
same vectors as the whole corpus.
"""

import itertools
import json
import logging
import os
import re
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from tqdm import tqdm

from ddpo_lib.base.code_keys import code_key
from ddpo_lib.base.errors import InputError
from ddpo_lib.base.store import Store, content_key
from ddpo_lib.models import models
from ddpo_lib.models.versions import exact_version
from ddpo_lib.spaces import counted, windows
from ddpo_lib.spaces.encoders import (
    STEP,
    check_kind,
    on_one_route,
    padded_lengths,
    pads_with_its_tokenizer,
    prompt_text,
    token_counts,
)

log = logging.getLogger(__name__)

COUNTED = {
    "stylometric": counted.stylometric_vectors,
    "delta": counted.delta_vectors,
    "lexical": counted.lexical_vectors,
}
TOKENS = {"cpu": 512, "mps": 8192, "cuda": 65536}  # tokens per batch: they fit a core's cache, or fill a GPU
SUBMIT = 32  # batches that are given to the threads at once
KEEP = 20.0  # seconds between two writes to disk; a kill loses about so much work


@dataclass(frozen=True)
class Space:
    """An embedding space: a sentence-transformers model (embedded, local or on the hub), or one of `COUNTED`.

    `trust_remote_code` lets the model's own Python code run on this machine. It needs a `revision` that is a commit of
    40 digits. The revision does not pin code that a model fetches from another repository.

    `prompt` is put before each text: the name of one of the model's prompts, or a text with a blank or a colon, such as
    "query: ". Without one, the model's own default is used, if it has one. `truncate_dim` keeps the first so many
    dimensions, for models that were trained for it (Matryoshka). Counted spaces have neither.

    With `windows`, a text longer than the model reads is embedded in windows that it reads whole (`windows`). Otherwise
    the vector depends on the beginning of the text alone.
    """

    model: str
    revision: str | None = None
    trust_remote_code: bool = False
    prompt: str | None = None
    truncate_dim: int | None = None
    windows: bool = False

    def __post_init__(self):
        if self.trust_remote_code and not re.fullmatch("[0-9a-f]{40}", self.revision or ""):
            raise InputError(
                f"space {self.model}: trust_remote_code runs code from the hub; pin its revision to a commit"
            )
        if self.model in COUNTED and (self.prompt, self.truncate_dim) != (None, None):
            raise InputError(f"space {self.model}: is counted, and has no prompt and no truncate_dim")
        if self.truncate_dim is not None and self.truncate_dim < 1:
            raise InputError(f"space {self.model}: truncate_dim: expected 1 or more, got {self.truncate_dim}")


def embed(texts: list[str], space: Space | str) -> np.ndarray:
    """Unit vectors of texts (paper: jina-embeddings-v3 for the semantic space, Style-Embedding for style).

    Vectors that are not on disk are computed in batches with a budget of tokens, longest texts first, and are stored as
    they are computed. So the same call continues after a kill. Processes that `accelerate launch` starts share the
    work; they need the same cache folder.

    Args:
        texts: n texts, none of them blank; repeated texts cost nothing.
        space: "minilm" (embedded), "stylometric", "delta" or "lexical" (counted), or the name of any
            sentence-transformers model; a `Space` to give a revision or a prompt, or to allow remote code. Of a model
            with a router, the route for documents is used.

    Returns:
        (n, d) float32, rows of unit length, equal for equal texts.

    Raises:
        InputError: no texts, a blank text (names its position), a text that the model gives no direction, a model that
            cannot be loaded, or one that has no vectors of single texts (sparse and cross-encoders).
    """
    space = Space(space) if isinstance(space, str) else space
    if not texts:
        raise InputError("texts: there are none to embed")
    for i, text in enumerate(texts):
        if not text.strip():
            raise InputError(f"texts: entry {i} is blank and has no direction in any space")
    if space.windows and space.model not in COUNTED:
        plain = replace(space, windows=False)
        pieces = windows.split(texts, _encoder(plain), prompt_text(space.model, _encoder(plain), space.prompt))
        return windows.embed_windows(pieces, lambda parts: embed(parts, plain))
    store = Store("vectors-" + content_key(space.model)[:16])
    version = _version(space)
    keys = [content_key(version, text) for text in texts]
    distinct = dict(zip(keys, texts, strict=True))
    stored = store.stored(list(distinct))
    _fill(store, {key: text for key, text in distinct.items() if key not in stored}, space)
    store.wait_for(list(distinct))
    return store.matrix(keys)


def count_overlong(texts: list[str], space: Space | str) -> int:
    """How many texts are longer than the model reads. Logs a warning, since their vectors do not depend on the rest of
    the text; with `windows`, they do."""
    space = Space(space) if isinstance(space, str) else space
    if space.model in COUNTED:
        return 0
    encoder = _encoder(replace(space, windows=False))
    longest = encoder.max_seq_length
    if not longest or not pads_with_its_tokenizer(encoder):
        return 0
    prompt = prompt_text(space.model, encoder, space.prompt)
    lengths = token_counts([prompt + text for text in texts], encoder, truncate=False)
    count = sum(length > longest for length in lengths)
    if count and not space.windows:
        log.warning(
            "%s: %d of %d texts are longer than the %d tokens that it reads; only their beginnings count. "
            "Windows (--windows, or `windows: true` in a profile's space) read all of a text",
            *(space.model, count, len(texts), longest),
        )
    return count


def _fill(store: Store, missing: dict[str, str], space: Space) -> None:
    """Compute and store the missing vectors. Several processes divide the texts among themselves by their keys."""
    shared = int(os.environ.get("WORLD_SIZE", "1")) > 1
    if shared:
        from accelerate import PartialState

        state = PartialState()
        mine = (key for key in missing if int(key[:8], 16) % state.num_processes == state.process_index)
        missing = {key: missing[key] for key in mine}
    if missing:
        fill = _count_all if space.model in COUNTED else _encode_all
        fill(store, missing, space)
    if shared:
        state.wait_for_everyone()


def _count_all(store: Store, missing: dict[str, str], space: Space) -> None:
    for keys in tqdm(_parts(list(missing), 1024), desc=f"embedding ({space.model})"):
        store.put(zip(keys, COUNTED[space.model]([missing[key] for key in keys]), strict=True))


def _encode_all(store: Store, missing: dict[str, str], space: Space) -> None:
    """Compute vectors with a model. On a CPU each core encodes its own batches, faster than all cores at one batch."""
    import torch

    encoder = _encoder(space)
    keys, texts = list(missing), list(missing.values())
    prompt, device = prompt_text(space.model, encoder, space.prompt), models.device()
    padded, options = padded_lengths(texts, encoder, prompt, TOKENS[device])

    def encode(batch: list[int]) -> np.ndarray:
        vectors = encoder.encode(
            [texts[i] for i in batch],
            prompt=prompt,
            batch_size=len(batch),
            normalize_embeddings=True,
            truncate_dim=space.truncate_dim,
            show_progress_bar=False,
            **options,
        )
        _check_directions(vectors, [texts[i] for i in batch], space)
        return vectors

    encode([0])  # sets the tokenizer's padding, which threads must not do at the same time
    cores = torch.get_num_threads() if device == "cpu" else 1
    with (
        ThreadPoolExecutor(cores, initializer=torch.set_num_threads, initargs=(1,)) as pool,
        tqdm(total=sum(padded), desc=f"embedding ({space.model})", unit=" tokens", unit_scale=True) as progress,
    ):
        made, written = [], time.monotonic()
        for batches in _parts(_batches(padded, TOKENS[device]), SUBMIT):
            for batch, vectors in zip(batches, pool.map(encode, batches), strict=True):
                made += zip([keys[i] for i in batch], vectors, strict=True)
                progress.update(sum(padded[i] for i in batch))
            if time.monotonic() - written > KEEP:
                store.put(made)
                made, written = [], time.monotonic()
        store.put(made)


def _batches(padded: list[int], budget: int) -> list[list[int]]:
    """Positions of texts, longest first, in batches of one padded length with at most `budget` tokens, or one text."""
    order = sorted(range(len(padded)), key=lambda i: -padded[i])
    by_length = itertools.groupby(order, key=lambda i: padded[i])
    return [batch for length, same in by_length for batch in _parts(list(same), max(1, budget // length))]


def _check_directions(vectors: np.ndarray, texts: list[str], space: Space) -> None:
    """A model that knows none of a text's words gives it the zero vector."""
    bad = np.flatnonzero(~(np.abs(np.linalg.norm(vectors, axis=1) - 1) < 1e-3))
    if len(bad):
        text = texts[bad[0]]
        start = text if len(text) <= 40 else text[:40] + "..."
        raise InputError(f"embedding model {space.model}: gives no direction to {start!r}; leave it out of the data")


def _parts(items: list, size: int) -> list[list]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def version_of(space: Space | str) -> str:
    """What the vectors of a space depend on besides text and arithmetic: the model's exact version, or the code."""
    space = Space(space) if isinstance(space, str) else space
    if space.model in COUNTED:
        return f"{space.model} {json.dumps(code_key(COUNTED[space.model]), sort_keys=True)}"
    return exact_version(space.model, space.revision)


def _encoder(space: Space):
    return _load_encoder(space, version_of(space))


@lru_cache(maxsize=4)
def _load_encoder(space: Space, version: str):
    """The encoder of a space; a model that is trained anew in its folder has another version, and is loaded anew."""
    from sentence_transformers import SentenceTransformer

    from ddpo_lib.models.frozen_linears import use_onednn

    place = models.encoder_place(space.model)
    kind, _, commit = version.partition(" ")
    options = {"revision": commit} if kind == "commit" else {}
    try:
        check_kind(space.model, place, options.get("revision"))
        encoder = SentenceTransformer(
            str(place), trust_remote_code=space.trust_remote_code, device=models.device(), **options
        )
    except InputError:
        raise
    except (OSError, ValueError) as error:
        if not space.trust_remote_code and "trust_remote_code" in str(error):
            raise InputError(
                f"embedding model {space.model}: brings code of its own, which runs on this machine. Read it on the "
                "hub. To let it run, write a profile that sets the space's `trust_remote_code: true` and its "
                "`revision`, the commit that you read"
            ) from None
        raise InputError(
            f"embedding model {space.model}: cannot be loaded ({str(error).splitlines()[0]}); without a network, use "
            f'"minilm", {", ".join(COUNTED)}, or a folder that holds the model'
        ) from None
    encoder = on_one_route(encoder)
    dims = encoder.get_embedding_dimension()
    if space.truncate_dim is not None and dims is not None and space.truncate_dim > dims:
        raise InputError(f"space {space.model}: truncate_dim: {space.truncate_dim} of its {dims} dimensions are asked")
    return encoder if space.trust_remote_code else use_onednn(encoder)


def _version(space: Space) -> str:
    """What a vector depends on besides its text."""
    if space.model in COUNTED:
        return version_of(space)
    from ddpo_lib.models.numerics import numerics  # imports torch

    asked = {"prompt": space.prompt, "truncate_dim": space.truncate_dim}
    changed = {name: value for name, value in asked.items() if value is not None}
    computed = f"in steps of {STEP}, {numerics(models.device(), dtype='as stored')}"
    return f"{version_of(space)} {computed}" + (f" with {changed}" if changed else "")
