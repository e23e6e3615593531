"""A model and responses -> how improbable the model finds each: DivPO's criterion "probability" (see `pairs`)."""

from itertools import groupby
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from ddpo_lib.models import models
from ddpo_lib.models.adapters import check_template
from ddpo_lib.models.frozen_linears import use_onednn
from ddpo_lib.profiles.settings import Model
from ddpo_lib.training.logps import score_responses, with_fused_head

AT_ONCE = 32  # responses to one prompt; the model reads the prompt once for all of them


def mean_surprisal(corpus: pd.DataFrame, model: Model, trained: Path | None = None) -> np.ndarray:
    """Minus the mean log-probability of a response's tokens under a model, including the end token.

    It is the mean, because a sum grows with the number of tokens: the least probable response would mostly be the
    longest one.

    Args:
        corpus: n rows with `prompt` and `text`.
        model: the profile's model; its template wraps the prompts, as in training.
        trained: folder with the result of a training, an adapter or a whole model; None: the base model.

    Returns:
        (n,) float64 in nats per token; higher is less probable.

    Raises:
        InputError: a model that cannot be loaded, or one that was trained from another model or with another template;
            bfloat16 products that are not possible.
    """
    if trained is not None:
        check_template(trained, model.template)
    tokenizer = models.load_tokenizer(model.name, model.revision)
    loaded = models.load_model(model.name, trained, revision=model.revision, dtype=model.dtype)
    policy = with_fused_head(use_onednn(loaded.eval(), bfloat16=model.bfloat16_products))
    prompts = [model.template.replace("{prompt}", prompt) for prompt in corpus["prompt"]]
    logps, tokens = sum_logps(policy, tokenizer, prompts, corpus["text"].tolist())
    return -logps / tokens


@torch.inference_mode()
def sum_logps(policy, tokenizer, prompts: list[str], texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities of responses, each including its end token.

    Args:
        policy: a causal language model on its device, in evaluation mode.
        tokenizer: its tokenizer.
        prompts: n texts that the model continues.
        texts: n continuations.

    Returns:
        (n,) float64 sums over a response's tokens, in nats, and (n,) numbers of tokens.
    """
    starts = [len(tokenizer(prompt).input_ids) for prompt in prompts]
    ids = [
        [*tokenizer(prompt + text).input_ids, tokenizer.eos_token_id]
        for prompt, text in zip(prompts, texts, strict=True)
    ]
    logps, counts = np.zeros(len(ids)), np.zeros(len(ids), dtype=np.int64)
    order = sorted(range(len(ids)), key=lambda i: (prompts[i], len(ids[i])))
    for _, same in groupby(order, key=lambda i: prompts[i]):
        rows = list(same)
        for part in (rows[at : at + AT_ONCE] for at in range(0, len(rows), AT_ONCE)):
            place = torch.arange(len(ids[part[-1]]))  # the last is the longest
            padded = [ids[i] + [tokenizer.pad_token_id] * (len(place) - len(ids[i])) for i in part]
            mask = place < torch.tensor([[len(ids[i])] for i in part])
            response = mask & (place >= torch.tensor([[starts[i]] for i in part]))
            batch = {"input_ids": torch.tensor(padded).to(policy.device), "attention_mask": mask.to(policy.device)}
            scored = score_responses(policy, batch, response.to(policy.device))
            logps[part], counts[part] = scored.logps.cpu(), scored.counts.cpu()
    return logps, counts
