"""Where the time of a decoding step goes, on one core, and how near it is to what the processor and memory allow."""

import time
from collections import Counter
from functools import partial

from benchmarks.measure import Row, Sample, bfloat16_works, median_and_spread, take_turns, timed
from benchmarks.sampling import prepare, settings

SLOTS = 64  # sequences at once
SAMPLES = 4
PARTS = {
    "layers": "the layers' products",
    "head": "the head's product",
    "attention": "attention over the cache, and writing to it",
    "draw": "penalty, top-k, top-p, noise",
    "other": "norms, SwiGLU, rotary embedding, copies",
    "outside": "Python and what no operation accounts for",
}
PRODUCT = "mkldnn::_linear_pointwise"


def rows(new_tokens: int = 48, repeats: int = 3) -> list[Row]:
    """The table: a row for each part, and the walls, for float32 and for products in bfloat16."""
    contenders = {"float32": partial(shares, new_tokens)}
    contenders |= {"bfloat16": partial(shares, new_tokens, bfloat16=True)} if bfloat16_works() else {}
    result = []
    for kind, samples in take_turns(contenders, repeats).items():
        found = [sample.result for sample in samples]
        what = f"a decoding step of {SLOTS} sequences with the embedded model, one thread, {kind}: {{}}"

        def row(part: str, against: str, form: str, key: str, what=what, found=found) -> Row:
            measured, spread = median_and_spread([each[key] for each in found], form)
            return Row(what.format(part), against, "", measured, spread, None)

        result += [row(words, "the whole step", "{:.1%}", part) for part, words in PARTS.items()]
        result += [
            row("all of it", "the clock", "{:.0f} ms", "step"),
            row(
                f"its arithmetic, {found[0]['flop']:.1f} GFLOP, at the speed of the fastest product here",
                "the whole step",
                "{:.0%}",
                "arithmetic",
            ),
            row(
                f"reading its weights, {found[0]['bytes']:.2f} GB, once at the speed of one read of memory",
                "the whole step",
                "{:.0%}",
                "reading",
            ),
        ]
    return result


def shares(new_tokens: int, bfloat16: bool = False) -> Sample:
    """The share of each part of PARTS in decoding with all slots in use; prompts are read before the clock starts."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    from ddpo_lib.sampling import decoding
    from ddpo_lib.sampling.engines import Local
    from ddpo_lib.sampling.rendering import encode, fill_template

    torch.set_num_threads(1)
    model, tokenizer, template, texts = prepare(1, new_tokens)
    engine = Local(model, tokenizer, fill_template(template), bfloat16=bfloat16)
    ids = encode(tokenizer, template.replace("{prompt}", texts[0]))
    cache = decoding.SlotCache(model.config, SLOTS, len(ids) + new_tokens, "cpu")
    draw = decoding.Draw(settings(new_tokens), tuple(engine._ends), new_tokens)
    keys = torch.arange(SLOTS)

    @torch.inference_mode()
    def work() -> None:
        cache.admit(model, ids[:-1], slice(0, SLOTS))
        last, said = torch.full((SLOTS,), ids[-1]), torch.zeros((SLOTS, new_tokens), dtype=torch.long)
        for step in range(new_tokens):
            with torch.profiler.record_function("a step"):
                logits = cache.read(model, last)
                with torch.profiler.record_function("a draw"):
                    last = draw(logits.float(), said[:, :step], keys, torch.full((SLOTS,), step))
                said[:, step] = last

    work()
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiled:
        sample = timed(work)
    spent, seconds = Counter(), 0.0
    for event in profiled.events():
        part = part_of(event)
        spent[part or ""] += event.self_cpu_time_total / 1e6
        seconds += event.cpu_time_total / 1e6 if event.name == "a step" else 0
    spent["outside"] += seconds - sum(spent[part] for part in PARTS)
    layers = sum(p.numel() for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n and "head" not in n)
    head = model.get_output_embeddings().weight.numel()
    width = 2 if bfloat16 else 4
    step, flop, read = seconds / new_tokens, 2 * SLOTS * (layers + head) / 1e9, (width * layers + 4 * head) / 1e9
    result = {part: spent[part] / seconds for part in PARTS}
    speed = product_speed(bfloat16)
    arithmetic = (2 * SLOTS * layers / 1e9) / speed + (2 * SLOTS * head / 1e9) / product_speed(False)
    result |= {"step": 1000 * step, "flop": flop, "bytes": read}
    result |= {"arithmetic": arithmetic / step, "reading": read / read_speed() / step}
    return Sample(sample.seconds, sample.peak, sample.grown, result)


def part_of(event) -> str | None:
    """The part of PARTS that an event of torch's profiler belongs to; None outside of the steps."""
    callers, parent = [], event
    while parent is not None:
        callers.append(parent.name)
        parent = parent.cpu_parent
    if "a step" not in callers:
        return None
    if event.name in ("a step", "a draw"):
        return "outside"
    if "a draw" in callers:
        return "draw"
    if event.name == PRODUCT:
        return "head" if event.input_shapes[1][0] > 10_000 else "layers"
    within = " ".join(callers)
    return "attention" if "attention" in within or "index_put" in within else "other"


def product_speed(bfloat16: bool) -> float:
    """GFLOP/s of a product whose weight stays in the cache, the best of some."""
    import torch

    from ddpo_lib.models.frozen_linears import fast_product

    weight, x = torch.randn(576, 576), torch.randn(256, 576)
    product = fast_product(weight, always=True, bfloat16=bfloat16)
    return 2 * x.numel() * 576 / _least(lambda: product(x), 50) / 1e9


def read_speed() -> float:
    """GB/s of one core that reads an array larger than its caches, the best of some."""
    import torch

    array = torch.ones(2**27, dtype=torch.int64)[: 2**26]
    return array.numel() * 8 / _least(array.sum, 5) / 1e9


def _least(work, calls: int) -> float:
    seconds = []
    for _ in range(calls):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)
