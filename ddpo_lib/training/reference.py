"""Pairs and a frozen reference -> the reference's log-probabilities, computed once per sequence and stored on disk.

Arms and ablations that start from one model share them, whatever their weights.
"""

import json
from collections.abc import Callable
from contextlib import contextmanager, nullcontext

import numpy as np
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from datasets import Dataset
from peft import PeftModel
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.integrations import is_deepspeed_zero3_enabled
from trl.trainer.utils import hash_module, use_adapter

from ddpo_lib.base.code_keys import code_key
from ddpo_lib.base.locks import lease
from ddpo_lib.base.store import Store, content_key
from ddpo_lib.models.numerics import settings_of
from ddpo_lib.training import logps
from ddpo_lib.training.batches import with_column

SIDES = ("chosen", "rejected")
AT_ONCE = 4096  # rows between two writes; a kill loses at most so many


def with_reference_logps(data: Dataset, version: str, compute: Callable[[Dataset], list[np.ndarray]]) -> Dataset:
    """Add `ref_chosen_logps` and `ref_rejected_logps`, float32 sums over response tokens.

    Args:
        data: rows with `prompt_ids`, `chosen_ids` and `rejected_ids`.
        version: a key of everything that the log-probabilities depend on besides the tokens.
        compute: n rows -> (n,) log-probabilities of the chosen and (n,) of the rejected responses. It is called for
            rows that are not stored yet, with at most `AT_ONCE` of them, and its results are stored before the next
            call. With several processes, all of them call it with the same rows.
    """
    version = _from_main(version)
    keys = {}
    for side in SIDES:
        texts = zip(data["prompt_ids"], data[f"{side}_ids"], strict=True)
        keys[side] = [content_key(version, str(prompt), str(response)) for prompt, response in texts]
    store = Store("reference-logps")
    processes = PartialState()
    # a second job with these pairs waits here and then finds the results; one with other pairs does not hold its GPU
    # idle. Processes of one job must not wait for each other
    lock = store.path / f"{content_key(*sorted({*keys['chosen'], *keys['rejected']}))[:16]}.lock"
    with lease(lock) if processes.num_processes == 1 else nullcontext():
        known = _from_main(store.get(list({*keys["chosen"], *keys["rejected"]})))
        rows = [row for row, both in enumerate(zip(*keys.values(), strict=True)) if not known.keys() >= set(both)]
        for start in range(0, len(rows), AT_ONCE):
            part, new = rows[start : start + AT_ONCE], {}
            for side, values in zip(SIDES, compute(data.select(part)), strict=True):
                new |= {keys[side][row]: values[i : i + 1] for i, row in enumerate(part)}
            if processes.is_local_main_process:
                store.put(new.items())
            known |= new
    for side in SIDES:
        column = np.array([known[key][0] for key in keys[side]], dtype=np.float32)
        data = with_column(data, f"ref_{side}_logps", column)
    return data


def version_of(model, weights: str, below: str, arithmetic: str) -> str:
    """A key of what a reference log-probability depends on besides the tokens, including the code that computes it.

    Args:
        model: the reference; its settings count, and those of its adapters.
        weights: a hash of its weights.
        below: a hash of the layers that were taken out of it, or "".
        arithmetic: of `numerics.numerics_of`.
    """
    adapters = {name: config.to_dict() for name, config in getattr(model, "peft_config", {}).items()}
    code = code_key(logps.score_responses)["code"]
    settings = settings_of(model), json.dumps(adapters, sort_keys=True, default=_plain)
    return content_key(weights, below, *settings, arithmetic, code)


@contextmanager
def as_reference(model, policy):
    """A context in which `model` has no dropout, and the adapter that `policy` had before training.

    Args:
        model: the model that is called, perhaps wrapped for several devices.
        policy: the same model unwrapped; None if the reference is a model of its own.
    """
    initial = nullcontext()
    if isinstance(policy, PeftModel):
        initial = use_adapter(policy, "ref" if "ref" in policy.peft_config else None)
    training = model.training
    model.eval()
    try:
        with initial:
            yield
    finally:
        model.train(training)


def needs_copy(model, args, peft_config) -> bool:
    """Whether the reference of every step must be a copy of the model as it is given, since all of it is trained."""
    whole = isinstance(model, PreTrainedModel) and peft_config is None  # without an adapter to switch off
    return whole and not args.precompute_ref_log_probs and not is_deepspeed_zero3_enabled()


def load_initial(model, args, weights: str):
    """The model before training, from the folder or hub name that it came from, ready for `logps.score_responses`.

    Args:
        model: the model that was trained.
        args: the trainer's; its `model_init_kwargs` are used.
        weights: TRL's hash of the weights before training.

    Raises:
        ValueError: there is no such folder, or it does not hold these weights.
    """
    place = getattr(model.config, "_name_or_path", "")
    try:
        options = {"dtype": model.dtype, "trust_remote_code": args.trust_remote_code, **(args.model_init_kwargs or {})}
        initial = AutoModelForCausalLM.from_pretrained(place, **options) if place else None
    except (OSError, ValueError):
        initial = None
    if initial is None or hash_module(initial) != weights:
        raise ValueError(
            "eval_dataset: this set is new, and the model as it was before training is not in memory, nor in "
            f"{place or 'a folder'}; give the set as `eval_dataset` when the trainer is built, give a `ref_model`, or "
            "set `precompute_ref_log_probs=False`, which keeps a copy of the model"
        )
    return logps.with_fused_head(initial).requires_grad_(False).eval()


def _plain(value):
    """For JSON: a set as a sorted list, anything else as text."""
    return sorted(map(str, value)) if isinstance(value, (set, frozenset)) else str(value)


def _from_main(value):
    """The main process's value, on every process."""
    box = [value]
    broadcast_object_list(box)
    return box[0]
