"""Where the time of a DDPO step goes, on one core: products of frozen layers, LoRA, attention, head, and the rest."""

import tempfile
from collections import Counter
from functools import partial

from benchmarks.measure import Row, Sample, median_and_spread, take_turns, timed
from benchmarks.training import MODEL, SETTINGS, TARGETS, build, stories

LAST_LAYERS = 8
RANK = 16
PARTS = {
    "base": "frozen layers' products",
    "lora": "LoRA's products",
    "attention": "attention",
    "head": "the head's products",
    "softmax": "probabilities and log-probabilities under the head",
    "optimiser": "the optimiser and the clipping of gradients",
    "other": "norms, SwiGLU, rotary embedding, copies",
    "outside": "data, Python and what no operation accounts for",
}
PRODUCTS = ("mkldnn::_linear_pointwise", "aten::mm", "aten::addmm", "aten::addmm_", "aten::bmm")


def rows(steps: int = 8, batch_size: int = 4, repeats: int = 2) -> list[Row]:
    """The table: a row for each part."""
    samples = take_turns({"ours": partial(shares, steps, batch_size)}, repeats)["ours"]
    what = f"a DDPO step of {batch_size} pairs, LoRA on the last {LAST_LAYERS} layers, one thread: {{}}"
    result = []
    for part, words in PARTS.items():
        measured, spread = median_and_spread([sample.result[part] for sample in samples], "{:.1%}")
        result.append(Row(what.format(words), "the whole step", "", measured, spread, None))
    return result


def shares(steps: int, batch_size: int) -> Sample:
    """The share of each part of PARTS in the time of a training whose stored states are known."""
    import torch
    from peft import LoraConfig, get_peft_model
    from torch.profiler import ProfilerActivity, profile
    from transformers import set_seed

    from ddpo_lib.models.models import load_model, load_tokenizer
    from ddpo_lib.training.frozen_layers import Trunk

    torch.set_num_threads(1)
    columns, weight = stories(steps * batch_size)
    base = load_model(MODEL)
    depth = base.config.num_hidden_layers - LAST_LAYERS
    trunk = Trunk(base, depth)
    set_seed(0)
    upper = list(range(depth, base.config.num_hidden_layers))
    lora = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=TARGETS, layers_to_transform=upper)
    policy = get_peft_model(base, lora)
    with tempfile.TemporaryDirectory() as folder:
        arguments = {**SETTINGS, "loss": "dpo"}
        data = columns | {"weight": weight}
        trainer = build("ours", policy, load_tokenizer(MODEL), data, folder, batch_size, trunk=trunk, **arguments)
        trainer.train()
        with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiled:
            sample = timed(trainer.train)
    spent = Counter()
    for event in profiled.events():
        spent[part_of(event)] += event.self_cpu_time_total / 1e6
    spent["outside"] = max(0.0, sample.seconds - spent.total())
    return Sample(sample.seconds, sample.peak, sample.grown, {part: spent[part] / spent.total() for part in PARTS})


def part_of(event) -> str:
    """The part of PARTS that an event of torch's profiler belongs to, by its name, its callers and its shapes."""
    callers, parent = [], event
    while parent is not None:
        callers.append(parent.name)
        parent = parent.cpu_parent
    within = " ".join(callers)
    if "Optimizer" in within or "clip_grad" in within:
        return "optimiser"
    if "HeadLogProbs" in within:
        return "head" if event.name in PRODUCTS[:4] else "softmax"
    if "attention" in within:
        return "attention"
    if event.name in PRODUCTS:
        small = any(RANK in shape for shape in event.input_shapes if shape)
        return "lora" if small else "base"
    return "other"
