"""Which models of sentence-transformers give vectors of single texts, with which prompt, and how they pad a batch."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path

from ddpo_lib.base.errors import InputError

log = logging.getLogger(__name__)

STEP = 8  # tokens: texts are padded to a multiple of it
_OTHERS = {  # `model_type` of a model -> why it has no vectors of single texts that can be compared by direction
    "CrossEncoder": "is a cross-encoder: it scores two texts together and has no vector of one",
    "SparseEncoder": "is a sparse encoder, whose vectors have one entry per word of its vocabulary",
    "MultiVectorEncoder": "has one vector per token, not per text",
}
_READ = 1024  # texts that are cut into tokens at once


def check_kind(name: str, place: str | Path, revision: str | None) -> None:
    """Raise an InputError for a model that gives no vectors of single texts; log a warning for a bare language model.

    sentence-transformers loads these too, with a pooling that they were not trained for.
    """
    kind = _read_json(place, "config_sentence_transformers.json", revision).get("model_type")
    modules = _file(place, "modules.json", revision)
    architectures = _read_json(place, "config.json", revision).get("architectures") or []
    if modules is None and any(each.endswith("ForSequenceClassification") for each in architectures):
        kind = "CrossEncoder"
    if kind in _OTHERS:
        raise InputError(f"embedding model {name}: {_OTHERS[kind]}; give a model of the kind SentenceTransformer")
    if modules is None and architectures:
        log.warning("embedding model %s: no sentence encoder (no modules.json); its token states are pooled", name)


def on_one_route(encoder):
    """A model without a router: of an asymmetric model, the part that encodes documents, else its default part."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Router

    first, *rest = encoder
    if not isinstance(first, Router):
        return encoder
    routes = first.route_mappings
    asked = [routes.get((task, kind)) for task in ("document", None) for kind in ("text", None)]
    names = [*asked, "document" if "document" in first.sub_modules else None, first.default_route]
    name = next((name for name in names if name is not None), None)
    if name is None:
        raise InputError(f"embedding model: its router has no route for documents; it has {list(first.sub_modules)}")
    log.info("embedding with the route %r of the model's router", name)
    return SentenceTransformer(
        modules=[*first.sub_modules[name], *rest],
        prompts=encoder.prompts,
        default_prompt_name=encoder.default_prompt_name,
        truncate_dim=encoder.truncate_dim,
        device=str(encoder.device),
    )


def prompt_text(name: str, encoder, asked: str | None) -> str:
    """The text that is put before each text.

    Args:
        name: of the model, for messages.
        encoder: the model.
        asked: the name of one of the model's prompts, or a text with a blank or a colon; None: the model's default.

    Raises:
        InputError: `asked` is one word that is no prompt of the model.
    """
    prompts = {key: text for key, text in encoder.prompts.items() if text}
    if asked is None:
        if prompts and encoder.default_prompt_name is None:
            log.info("embedding model %s: has prompts (%s) and no default, so none is used", name, ", ".join(prompts))
        return prompts.get(encoder.default_prompt_name, "")
    if asked in encoder.prompts:
        return encoder.prompts[asked]
    if not any(mark in asked for mark in " :\n"):
        raise InputError(f"embedding model {name}: has no prompt {asked!r}; it has {', '.join(prompts) or 'none'}")
    return asked


def padded_lengths(texts: list[str], encoder, prompt: str, budget: int) -> tuple[list[int], dict]:
    """How many tokens of a batch each text takes, and the options that make the encoder pad to these lengths.

    Only texts of one padded length may share a batch, so that a vector depends on nothing but its text. Texts of a
    model that does not pad have length 1. If a model's padding is not known, a text has a batch of its own, `budget`.
    """
    from sentence_transformers.sentence_transformer.modules import BoW, StaticEmbedding

    if isinstance(encoder[0], (StaticEmbedding, BoW)):
        return [1] * len(texts), {}
    if not pads_with_its_tokenizer(encoder):
        return [budget] * len(texts), {}
    longest = encoder.max_seq_length
    step = STEP if longest and longest % STEP == 0 else 1  # padding must not outgrow the model's positions
    lengths = token_counts([prompt + text for text in texts], encoder, truncate=True)
    options = {"processing_kwargs": {"text": {"pad_to_multiple_of": step}}}
    return [-(-length // step) * step for length in lengths], options


def pads_with_its_tokenizer(encoder) -> bool:
    """Whether a batch is padded by a tokenizer of transformers, to the longest of its texts."""
    from sentence_transformers.base.modules import Transformer
    from transformers import PreTrainedTokenizerBase

    first = encoder[0]
    chats = "message" in first.modalities if isinstance(first, Transformer) else True
    return not chats and isinstance(encoder.tokenizer, PreTrainedTokenizerBase)


def token_counts(texts: list[str], encoder, *, truncate: bool) -> Iterator[int]:
    """Tokens of each text, special ones included, of an encoder that `pads_with_its_tokenizer`."""
    cut = truncate and encoder.max_seq_length
    options = {"truncation": True, "max_length": encoder.max_seq_length} if cut else {"verbose": False}
    for start in range(0, len(texts), _READ):
        for ids in encoder.tokenizer(texts[start : start + _READ], **options).input_ids:
            yield len(ids)


def _read_json(place: str | Path, file: str, revision: str | None) -> dict:
    path = _file(place, file, revision)
    return {} if path is None else json.loads(Path(path).read_text(encoding="utf-8"))


def _file(place: str | Path, file: str, revision: str | None) -> str | None:
    """The path of a model's file in its folder or in the hub's cache; None if there is none."""
    from sentence_transformers.util import load_file_path

    return load_file_path(str(place), file, revision=revision)
