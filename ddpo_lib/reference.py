"""Pairs and a frozen reference -> its log-probabilities, computed once for each sequence and kept on disk.

Arms and ablations that start from one model share them, whatever their weights and whichever process comes first.
"""

from collections.abc import Callable
from contextlib import nullcontext

import numpy as np
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from datasets import Dataset
from filelock import FileLock

from ddpo_lib.store import Store, content_key

SIDES = ("chosen", "rejected")


def with_reference_logps(data: Dataset, version: str, compute: Callable[[Dataset], Dataset]) -> Dataset:
    """Add `ref_chosen_logps` and `ref_rejected_logps`, float32 sums over response tokens.

    Args:
        data: rows with `prompt_ids`, `chosen_ids` and `rejected_ids`.
        version: a key of all that the log-probabilities depend on besides the tokens.
        compute: adds both columns to the rows it is given: those that are not known in full. With several processes all
            of them call it, with the same rows.
    """
    version = _from_main(version)
    keys = {}
    for side in SIDES:
        texts = zip(data["prompt_ids"], data[f"{side}_ids"], strict=True)
        keys[side] = [content_key(version, str(prompt), str(response)) for prompt, response in texts]
    store = Store("reference-logps")
    processes = PartialState()
    # a second job waits here and then finds the work done; processes of one job must not wait for each other
    with FileLock(f"{store.path}.lock") if processes.num_processes == 1 else nullcontext():
        known = _from_main(store.get(list({*keys["chosen"], *keys["rejected"]})))
        rows = [row for row, both in enumerate(zip(*keys.values(), strict=True)) if not known.keys() >= set(both)]
        if rows:
            made = compute(data.select(rows))
            new = {}
            for side in SIDES:
                values = np.array(made[f"ref_{side}_logps"], dtype=np.float32)
                new |= {keys[side][row]: values[i : i + 1] for i, row in enumerate(rows)}
            if processes.is_local_main_process:
                store.put(new.items())
            known |= new
    for side in SIDES:
        column = np.array([known[key][0] for key in keys[side]], dtype=np.float32)
        data = data.add_column(f"ref_{side}_logps", column)
    return data


def _from_main(value):
    """The main process's value, on every process."""
    box = [value]
    broadcast_object_list(box)
    return box[0]
