"""A DDPO step against stock TRL's DPOTrainer: SmolLM2-135M, LoRA on all layers, stories of uneven length, on the CPU.

Contenders train on the same pairs of the package's corpus in the same batches, with the reference's log-probabilities
computed before the clock starts. Tokens are those of prompts and responses, without padding. The first step of a run is
not counted.
"""

import copy
import os
import statistics
import tempfile
import time
from functools import partial

from benchmarks.builds import compared, step_against_earlier, step_in_bfloat16
from benchmarks.measure import Row, Sample, bfloat16_works, median_and_spread, table, take_turns, timed

AGREE = 1e-4  # most by which the losses of two contenders may differ at any step
MODEL = "smollm2-135m-instruct"
KINDS = {  # where from, its configuration and the trainer
    "stock": ("trl", "DPOConfig", "DPOTrainer"),
    "ours": ("ours", "DeviationConfig", "DeviationTrainer"),
    "stock orpo": ("orpo", "ORPOConfig", "ORPOTrainer"),
    "stock sft": ("trl", "SFTConfig", "SFTTrainer"),
    "ours sft": ("ours", "SFTConfig", "ResponseSFTTrainer"),
}
SETTINGS = {
    "beta": 0.1,
    "precompute_ref_log_probs": True,
    "max_length": 1024,
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
}
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def rows(steps: int = 20, batch_size: int = 4, repeats: int = 2) -> list[Row]:
    """The table: speed, memory and losses against stock, what weights cost, and how often the reference works."""
    samples = take_turns(contenders(steps, batch_size), repeats)
    step = statistics.median(sample.seconds for sample in samples["ours"]) / steps
    added = timed_apart(partial(weighting_seconds, batch_size)).result
    measured, spread = median_and_spread([seconds / step for seconds in added], "{:+.4%}")
    work = {kind: timed_apart(partial(reference_work, kind, 2, batch_size)).result for kind in ("ours", "stock")}
    share = sum(work["ours"]) / work["ours"][0]
    theirs = sum(work["stock"]) / work["stock"][0]
    cheap = statistics.median(added) < 0.01 * step
    what = "the reference's work for four arms that start from one model"
    return [
        *against_stock(samples, steps, batch_size),
        *(in_bfloat16(samples) if "bfloat16" in samples else ()),
        Row("weighting itself", "a step of ours; the same loss without weights", "under 1%", measured, spread, cheap),
        Row(what, "one arm's", "done once", f"{share:.2f}x", "", share == 1),
        Row("the same, stock TRL DPOTrainer", "one arm's", "", f"{theirs:.2f}x", "", None),
        *step_against_earlier(weighted_stories(12 * batch_size), 8, 2, repeats),
        *step_against_earlier(weighted_stories(5 * batch_size), None, 1, repeats),
        *(step_in_bfloat16(weighted_stories(12 * batch_size), 8, repeats) if "bfloat16" in samples else ()),
    ]


def contenders(steps: int, batch_size: int) -> dict:
    rounded = partial(contender, "ours", "sequential", steps, batch_size, bfloat16_products=True)
    return {
        "stock": partial(contender, "stock", "sequential", steps, batch_size),
        "ours": partial(contender, "ours", "sequential", steps, batch_size),
        "by length": partial(contender, "ours", "group_by_length", steps, batch_size),
    } | ({"bfloat16": rounded} if bfloat16_works() else {})


def against_stock(samples: dict[str, list[Sample]], steps: int, batch_size: int) -> list[Row]:
    results = {name: [sample.result for sample in runs] for name, runs in samples.items()}
    speed = {name: [run["tokens"] / run["seconds"] for run in runs] for name, runs in results.items()}
    peak = {name: max(sample.peak for sample in runs) / 2**30 for name, runs in samples.items()}
    pairs_of_runs = list(zip(results["ours"], results["stock"], strict=True))
    apart = max(
        abs(a - b) for ours, stock in pairs_of_runs for a, b in zip(ours["losses"], stock["losses"], strict=True)
    )
    what = (
        f"a DDPO step of {batch_size} pairs, {MODEL}, LoRA r 16 on all layers, {results['ours'][0]['threads']} threads"
    )
    stock = "stock TRL DPOTrainer, the same batches"

    def faster(name: str, against: str, least: float | None) -> Row:
        ratios = [ours / theirs for ours, theirs in zip(speed[name], speed["stock"], strict=True)]
        measured, spread = median_and_spread(ratios, "{:.2f}x")
        measured += f" ({statistics.median(speed[name]):.0f} against {statistics.median(speed['stock']):.0f} tokens/s)"
        asked = f"{least}x tokens/s" if least else ""
        return Row(what, against, asked, measured, spread, statistics.median(ratios) >= least if least else None)

    memory = f"{peak['ours']:.2f} against {peak['stock']:.2f} GiB"
    return [
        faster("ours", stock, 4.5),
        faster("by length", "the same pairs, batches of like length for ours alone", None),
        Row(what, stock, "half the peak memory", memory, "", peak["ours"] <= peak["stock"] / 2),
        Row(
            what, stock, f"loss equal to {AGREE:g} over {steps} steps", f"{apart:.1g} apart at most", "", apart <= AGREE
        ),
    ]


def in_bfloat16(samples: dict[str, list[Sample]]) -> list[Row]:
    """What products with frozen weights in bfloat16 gain, against float32 and stock, and how far losses move."""
    runs = {
        name: [Sample(s.result["seconds"], s.peak, s.grown, s.result["tokens"]) for s in samples[name]]
        for name in ("bfloat16", "ours", "stock")
    }
    losses = [[sample.result["losses"] for sample in samples[name]] for name in ("bfloat16", "ours")]
    apart = max(abs(a - b) for one, other in zip(*losses, strict=True) for a, b in zip(one, other, strict=True))
    what, against = "the same step, products with frozen weights in bfloat16", "float32 of the same build"
    return [
        *compared(what, against, {name: runs[name] for name in ("bfloat16", "ours")}),
        Row(what, against, "", f"losses {apart:.1g} apart at most", "", None),
        *compared(what, "stock TRL DPOTrainer, the same batches", {name: runs[name] for name in ("bfloat16", "stock")}),
    ]


def contender(kind: str, strategy: str, steps: int, batch_size: int, **changed) -> Sample:
    """Train. Its result: that of `train_clocked`."""
    from ddpo_lib.models.models import load_tokenizer

    columns, _ = stories(steps * batch_size)
    options = {**SETTINGS, "train_sampling_strategy": strategy, **changed}
    with tempfile.TemporaryDirectory() as folder:
        trainer = build(kind, policy(), load_tokenizer(MODEL), columns, folder, batch_size, **options)
        return train_clocked(trainer)


def train_clocked(trainer, warm: int = 1) -> Sample:
    """Train, a log entry a step. Its result: the losses, and tokens and seconds of all steps but the first `warm`."""
    import torch
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        seconds = ()

        def on_step_begin(self, args, state, control, **kwargs):
            self.begun = now()

        def on_step_end(self, args, state, control, **kwargs):
            self.seconds += (now() - self.begun,)

    def now() -> float:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter()

    clock, collate, tokens = Clock(), trainer.data_collator, []

    def counted(examples: list) -> dict:
        batch = collate(examples)
        masks = (name for name in batch if name.endswith("attention_mask") and not name.startswith("prompt"))
        tokens.append(sum(int(batch[name].sum()) for name in masks))
        return batch

    trainer.add_callback(clock)
    trainer.data_collator = counted
    sample = timed(trainer.train)
    result = {
        "tokens": sum(tokens[warm:]),
        "seconds": sum(clock.seconds[warm:]),
        "losses": [entry["loss"] for entry in trainer.state.log_history if "loss" in entry],
        "threads": torch.get_num_threads(),
    }
    return Sample(sample.seconds, sample.peak, sample.grown, result)


def weighting_seconds(batch_size: int, rounds: int = 5, calls: int = 2_000) -> list[float]:
    """Seconds that the weights add to one loss and its gradient, by round. A step is too long and uneven to show it."""
    import torch
    from torch.nn.functional import logsigmoid

    from ddpo_lib.training.losses import ddpo_loss

    chosen, rejected, ref_chosen, ref_rejected, weight = torch.rand(5, batch_size)
    chosen.requires_grad_()

    def plain():
        margin = (chosen - ref_chosen) - (rejected - ref_rejected)
        return -logsigmoid(0.1 * margin)

    def weighted():
        return ddpo_loss(chosen, rejected, ref_chosen, ref_rejected, weight, 0.1)

    def seconds(loss) -> float:
        return timed(lambda: [loss().mean().backward() for _ in range(calls)]).seconds / calls

    return [seconds(weighted) - seconds(plain) for _ in range(rounds)]


def reference_work(kind: str, steps: int, batch_size: int) -> list[int]:
    """Forward passes that each of four arms of other weights makes before it trains, in an empty cache."""
    from ddpo_lib.models.models import load_tokenizer

    columns, weight = stories(steps * batch_size)
    start = policy()
    passes = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        for power in (0, 1, 0.5, 2):
            arm = copy.deepcopy(start)
            calls = []
            arm.get_base_model().get_input_embeddings().register_forward_hook(lambda *_, calls=calls: calls.append(1))
            weights = {} if kind == "stock" else {"weight": [w**power for w in weight]}
            build(kind, arm, load_tokenizer(MODEL), columns | weights, folder, batch_size, **SETTINGS)
            passes.append(len(calls))
    return passes


def build(kind: str, model, tokenizer, columns: dict, folder: str, batch_size: int, trunk=None, **options):
    """A trainer of one of KINDS; of one that computes the reference's log-probabilities at once, with these.

    `trunk`: the lower layers of a trainer of ours, if they are stored.
    """
    import trl
    from datasets import Dataset
    from transformers import PrinterCallback
    from trl.experimental import orpo

    from ddpo_lib.training import trainer

    place, config, made = KINDS[kind]
    module = {"trl": trl, "orpo": orpo, "ours": trainer}[place]
    settings = {
        "per_device_train_batch_size": batch_size,
        "num_train_epochs": 1,
        "learning_rate": 5e-5,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }
    built = getattr(module, made)(
        model,
        args=getattr(module if hasattr(module, config) else trl, config)(output_dir=folder, **settings | options),
        train_dataset=Dataset.from_dict(columns),
        processing_class=tokenizer,
        **({} if trunk is None else {"trunk": trunk}),
    )
    built.remove_callback(PrinterCallback)
    return built


def policy():
    """The model with a new adapter on all layers, the same whenever it is made."""
    from peft import LoraConfig, get_peft_model
    from transformers import set_seed

    from ddpo_lib.models.models import load_model

    base = load_model(MODEL)
    set_seed(0)  # after the model is there: the first to want it turns it into safetensors, and draws numbers
    return get_peft_model(base, LoraConfig(r=16, lora_alpha=32, target_modules=TARGETS))


def stories(number: int) -> tuple[dict, list[float]]:
    """Columns of pairs of the package's corpus, templated, and the winners' deviation weights."""
    from ddpo_lib.profiles.profile import load_profile

    pairs = weighted_stories(number)
    template = load_profile("embedded").model.template
    columns = {
        "prompt": [template.replace("{prompt}", prompt) for prompt in pairs["prompt"]],
        "chosen": pairs["chosen"].tolist(),
        "rejected": pairs["rejected"].tolist(),
    }
    return columns, pairs["weight"].tolist()


def weighted_stories(number: int):
    """Pairs of the package's corpus: `prompt chosen rejected weight`, and more."""
    from ddpo_lib.data.corpus import read_corpus
    from ddpo_lib.deviation.distances import mean_distance
    from ddpo_lib.deviation.weighting import weights
    from ddpo_lib.pairs.rules import make_pairs
    from ddpo_lib.spaces.embed import embed

    corpus = read_corpus(held_out=0.0)
    groups = corpus["prompt_id"].astype("category").cat.codes.to_numpy()
    weight = weights(mean_distance(embed(corpus["text"].tolist(), "stylometric"), groups), groups)
    weight_of = dict(zip(corpus["response_id"], weight, strict=True))
    pairs = make_pairs(corpus).sample(number, random_state=0)
    return pairs.assign(weight=pairs["chosen_id"].map(weight_of))


def timed_apart(work) -> Sample:
    """One run of a contender in a process of its own."""
    return take_turns({"": partial(timed, work)}, repeats=1)[""][0]


if __name__ == "__main__":
    print(table(rows()))
