"""Training, sampling and embedding on one GPU, side by side with what a user would pick instead, without a network.

    python -m benchmarks.gpu                 a model shaped like Llama-3.1-8B, on one H200-class GPU: 8 minutes at most
    python -m benchmarks.gpu --shape tiny    all of it on a CPU within a minute; its numbers mean nothing

Weights are random, since speed does not depend on their values. Stories are random words of one token each, with
log-normal lengths. Winners use one half of the words and losers the other, so that there is something to learn. Every
measurement is its own process with a time limit. After each, `speed.json` and the tables in `speed.md` are written.
They name the measurements that failed or had no time left; a second run with the same code, versions and GPU makes only
those. With several GPUs, the first is used. The minutes count from the time when the libraries have been read once,
which is slow on a machine that has just started.

DPO's contenders train on the same pairs; each adds one thing to the one before. All deviation weights are 1, so that
DDPO equals DPO by definition and losses can be compared. On a GPU, TRL's own head scores only response tokens, in every
row.
"""

import argparse
import hashlib
import json
import os
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from unittest.mock import patch

import numpy as np

from benchmarks.measure import Row, Sample, table

RESULTS = Path(__file__).parents[1] / "results" / "gpu"
LIMIT = 150  # seconds a measurement
MINUTES = 7.5  # for all of them, once the libraries have been read from disk
PAGE = 256  # tokens of a page of transformers' continuous batching
PASS = 8192  # tokens of one of its passes; left to itself, transformers 5.17 takes as many as fill the memory
WARM = 3  # steps that are not counted: kernels are compiled, and the longest batch comes first
SPREAD = 0.6  # standard deviation of the logarithm of a story's length
PADDED = "sdpa_padded"  # torch's attention under a name that `logps.can_pack` leaves alone
SAME = 3  # times the noise by which losses may be apart
# dense bf16, FLOP/s, by the vendor's datasheets; a device that is not here gets no utilisation
PEAKS = {"NVIDIA H200": 989e12, "NVIDIA H100 80GB HBM3": 989e12, "NVIDIA A100-SXM4-80GB": 312e12}


@dataclass(frozen=True)
class Shape:
    """A model's size and the work that it is given. Lengths are in tokens."""

    layers: int
    width: int
    inner: int
    heads: int
    kv_heads: int
    vocabulary: int
    rank: int  # of LoRA on q and v; alpha is twice that
    prompt: int
    story: int  # the median
    longest: int
    pairs: int  # a step
    steps: int
    rate: float  # the learning rate, with which something is learnt in these few steps
    asked: int  # prompts to sample
    in_turn: int  # of them one at a time
    new_tokens: int
    batch_tokens: int
    texts: int  # to embed


SHAPES = {
    "llama-8b": Shape(32, 4096, 14336, 32, 8, 128_256, 128, 50, 500, 2048, 4, 20, 1e-4, 64, 4, 128, 65_536, 4096),
    "tiny": Shape(2, 64, 128, 4, 2, 512, 8, 6, 20, 64, 2, 8, 1e-2, 4, 2, 4, 16_384, 16),
}


@dataclass(frozen=True)
class Training:
    """A contender: a kind of `training.KINDS` and what it is given besides the shape."""

    kind: str
    loss: str = "dpo"
    attention: str = "sdpa"
    cached: bool = True  # the reference's log-probabilities, computed before the clock starts
    by_length: bool = False
    checkpointing: bool = True


STOCK, AGAIN, OURS = "stock TRL DPO", "stock TRL DPO, attention written out", "+ packed without padding"
TRAININGS = {
    STOCK: Training("stock", cached=False),
    OURS: Training("ours"),
    AGAIN: Training("stock", cached=False, attention="eager"),
    "+ cached reference": Training("stock"),
    "+ weights": Training("ours", attention=PADDED),
    "+ batches of like length": Training("ours", by_length=True),
    "+ no checkpointing": Training("ours", by_length=True, checkpointing=False),
    "stock TRL ORPO": Training("stock orpo"),
    "DORPO": Training("ours", loss="orpo", by_length=True),
    "stock TRL SFT": Training("stock sft"),
    "SFT": Training("ours sft", by_length=True),
}
# each has what the one before it has, and one thing more
LADDER = [STOCK, "+ cached reference", "+ weights", OURS, "+ batches of like length", "+ no checkpointing"]
AGAINST = {  # a row of the table, and what its speed is set against
    **dict.fromkeys(LADDER, STOCK),
    **dict.fromkeys(["stock TRL ORPO", "DORPO"], "stock TRL ORPO"),
    **dict.fromkeys(["stock TRL SFT", "SFT"], "stock TRL SFT"),
}
SAMPLINGS = {
    "stock `generate`, one prompt at a time": "one_at_a_time",
    "ours, batches filled to a budget": "our_batches",
    "transformers' continuous batching": "continuous_batching",
    "vLLM": "vllm",
}
EMBEDDING, WEIGHTING = "embedding with MiniLM", "weighting itself"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, default="llama-8b")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for speed.json and speed.md")
    chosen = parser.parse_args(arguments)
    print(report(measure_all(chosen.shape, chosen.out)))


def names() -> list[str]:
    return [*list(TRAININGS)[:3], EMBEDDING, WEIGHTING, *list(TRAININGS)[3:], *SAMPLINGS]


def measure_all(shape: str, folder: Path) -> dict:
    """Every measurement, each in its own process; `speed.json` and `speed.md` in `folder` after each."""
    from ddpo_lib.base.files import write_json

    folder.mkdir(parents=True, exist_ok=True)
    content = begun(shape, folder / "speed.json")
    measured = content["measured"]
    missing = [name for name in names() if name not in measured]
    with tempfile.TemporaryDirectory() as cache:  # the reference's log-probabilities, which contenders share
        if missing:  # on a machine that has just started, the first to import the libraries waits for its disk
            measure_apart("tiny", STOCK, LIMIT, cache)
        until = time.monotonic() + 60 * MINUTES
        for name in missing:
            measured[name] = measure_apart(shape, name, min(LIMIT, until - time.monotonic()), cache)
            write_json(folder / "speed.json.new", content)
            (folder / "speed.json.new").replace(folder / "speed.json")  # a kill leaves the old one or the new one
            (folder / "speed.md").write_text(report(content), encoding="utf-8")
            print(name, measured[name].get("failed", "measured"), sep=": ", flush=True)
    return content


def begun(shape: str, file: Path) -> dict:
    """What an earlier run left, without what failed; a new beginning where shape, code, versions or GPU are others."""
    from ddpo_lib.base.run_folder import surroundings

    content = {
        "shape": shape,
        **asdict(SHAPES[shape]),
        **surroundings(),
        "code": code("benchmarks", "ddpo_lib"),
        "measured": {},
    }
    before = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    same = [key for key in content if key not in ("made", "commit", "hardware", "measured")]
    if any(before.get(key) != content[key] for key in same) or before["hardware"]["gpu"] != content["hardware"]["gpu"]:
        return content
    return before | {"measured": {name: made for name, made in before["measured"].items() if "failed" not in made}}


def code(*folders: str) -> str:
    """Hash of the code in folders of the project: a commit changes with the results, and is not known without git."""
    files = sorted(file for folder in folders for file in (RESULTS.parents[1] / folder).rglob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


def measure_apart(shape: str, name: str, limit: float, cache: str) -> dict:
    """What `measure` gives in a process of its own, or under "failed" why there is nothing."""
    import torch

    if limit <= 0:
        return {"failed": f"no time was left of {MINUTES:g} minutes"}
    processes = get_context("forkserver")
    # a process that has touched a GPU must not fork; without one, libraries that are there already save time
    processes.set_forkserver_preload(
        [] if torch.cuda.is_available() else ["ddpo_lib.training.train", "trl.experimental.orpo"]
    )
    here, there = processes.Pipe(duplex=False)
    work = processes.Process(target=send_measure, args=(there, SHAPES[shape], name, cache))
    work.start()
    there.close()
    try:
        return here.recv() if here.poll(limit) else {"failed": f"not done within {limit:.0f} s"}
    except EOFError:
        work.join()
        return {"failed": f"its process ended with status {work.exitcode}"}
    finally:
        work.kill()
        work.join()


def send_measure(there, shape: Shape, name: str, cache: str) -> None:
    os.environ["XDG_CACHE_HOME"] = cache
    take_one_gpu()
    try:
        there.send(measure(shape, name))
    except Exception as error:  # whatever it is, it is told beside the numbers of the others
        there.send({"failed": " ".join(f"{type(error).__name__}: {error}".split())[:500]})
        raise


def take_one_gpu() -> None:
    """Before torch is imported: on several, TRL's trainers want a process for each."""
    os.environ["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]


def measure(shape: Shape, name: str) -> dict:
    if name in TRAININGS:
        return train(shape, TRAININGS[name])
    if name in SAMPLINGS:
        return sample(shape, SAMPLINGS[name])
    return {EMBEDDING: embed, WEIGHTING: weigh}[name](shape)


# Training


def train(shape: Shape, training: Training) -> dict:
    """Losses of all steps; real tokens a second, and the share of computed positions that are padding, of those
    counted; FLOPs a real token; bytes at the peak."""
    import torch

    from benchmarks.training import train_clocked

    policy = adapted_model(shape, training.attention)
    positions = []

    def count(module, inputs):
        if torch.is_grad_enabled():  # not for the reference
            positions.append(inputs[0].numel())

    policy.get_base_model().get_input_embeddings().register_forward_pre_hook(count)
    columns, lengths = stories(shape)
    with tempfile.TemporaryDirectory() as folder:
        trainer = built(shape, training, policy, columns, folder)
        positions.clear()
        forget_peak()
        done = train_clocked(trainer, WARM)
    tokens, computed = done.result["tokens"], sum(positions[WARM:])
    return {
        "losses": done.result["losses"],
        "tokens_per_second": tokens / done.result["seconds"],
        "step_seconds": done.result["seconds"] / (shape.steps - WARM),
        "flops_per_token": flops(shape, lengths) / sum(prompt + story for prompt, story in lengths),
        # one prompt for both responses of a pair is computed once where batches are packed
        "padding": max(0.0, 1 - tokens / computed),
        "peak_bytes": peak(done),
    }


def built(shape: Shape, training: Training, policy, columns: dict, folder: str):
    """The trainer of a contender, ready to train."""
    from benchmarks.training import build
    from ddpo_lib.models.models import device

    options = {
        "learning_rate": shape.rate,
        "bf16": True,
        "use_cpu": device() == "cpu",
        "gradient_checkpointing": training.checkpointing,
        "train_sampling_strategy": "group_by_length" if training.by_length else "sequential",
        "dataloader_pin_memory": device() == "cuda",
        "max_length": 2 * shape.prompt + shape.longest,
    }
    rows, batch_size = columns, shape.pairs
    if training.kind.endswith("sft"):
        rows = {
            "prompt": [p for p in columns["prompt"] for _ in range(2)],
            "completion": [s for both in zip(columns["chosen"], columns["rejected"], strict=True) for s in both],
        }
        batch_size = 2 * shape.pairs
    if training.kind == "ours":
        rows = columns | {"weight": [1.0] * len(columns["prompt"])}
        options["loss"] = training.loss
    if training.kind == "stock":
        options["precompute_ref_log_probs"] = training.cached
    # to tell models apart TRL hashes all weights as float32, which for 8B outlasts the training; here they are known.
    # What rounds otherwise does not share the reference's log-probabilities
    with patch("trl.trainer.dpo_trainer.hash_module", lambda module: f"random weights, seed 0, {training.attention}"):
        return build(training.kind, policy, word_tokenizer(shape), rows, folder, batch_size, **options)


def adapted_model(shape: Shape, attention: str = "sdpa"):
    """The model with a new adapter, the same whenever it is made."""
    from peft import LoraConfig, get_peft_model
    from transformers import set_seed

    base = random_model(shape, attention)
    set_seed(0)
    lora = LoraConfig(
        r=shape.rank, lora_alpha=2 * shape.rank, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"
    )
    return get_peft_model(base, lora)


def random_model(shape: Shape, attention: str = "sdpa"):
    """A Llama in bfloat16 on its device, the same whenever it is made."""
    import torch
    from transformers import AttentionInterface, AutoModelForCausalLM, set_seed
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

    from ddpo_lib.models.models import device

    AttentionInterface.register(PADDED, sdpa_attention_forward)
    AttentionMaskInterface.register(PADDED, sdpa_mask)
    set_seed(0)
    with torch.device(device()):
        return AutoModelForCausalLM.from_config(llama(shape), dtype=torch.bfloat16, attn_implementation=attention)


def llama(shape: Shape):
    """The model's configuration."""
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.width,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=8192,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
        architectures=["LlamaForCausalLM"],  # by which vLLM knows the model
    )


def word_tokenizer(shape: Shape):
    """A token for each of the words w3, w4, ... that `words` draws."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import PreTrainedTokenizerFast

    vocabulary = ["<pad>", "<end>", "<unknown>", *(f"w{i}" for i in range(3, shape.vocabulary))]
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token="<unknown>"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<end>", unk_token="<unknown>", padding_side="left"
    )


def stories(shape: Shape) -> tuple[dict, list[tuple[int, int]]]:
    """Pairs for every step, and of each sequence the tokens of its prompt and of its story with the end token."""
    rng = np.random.default_rng(0)
    columns: dict[str, list[str]] = {"prompt": [], "chosen": [], "rejected": []}
    lengths = []
    for _ in range(shape.steps * shape.pairs):
        prompt = int(rng.integers(shape.prompt // 2, shape.prompt + shape.prompt // 2, endpoint=True))
        columns["prompt"].append(words(rng, shape, prompt) + " ")
        for side in ("chosen", "rejected"):
            length = int(np.clip(rng.lognormal(np.log(shape.story), SPREAD), 4, shape.longest))
            columns[side].append(words(rng, shape, length - 1, side))
            lengths.append((prompt, length))
    return columns, lengths


def words(rng: np.random.Generator, shape: Shape, number: int, side: str | None = None) -> str:
    """Of all words, or of the half that winners or losers use."""
    middle = shape.vocabulary // 2
    low, high = {"chosen": (3, middle), "rejected": (middle, shape.vocabulary), None: (3, shape.vocabulary)}[side]
    return " ".join(f"w{i}" for i in rng.integers(low, high, number))


def flops(shape: Shape, lengths: list[tuple[int, int]]) -> float:
    """Floating-point operations that training on these sequences takes at least, each by itself.

    Of a frozen matrix two a weight and token forwards and two backwards, of the adapter's two and four; the LM head
    only where a token of a story is predicted; attention, causal, two matrix products forwards and four backwards,
    each 2 times tokens times width for the half of the keys that a token sees. Recomputed activations and the
    reference do not count, nor do norms and the like.
    """
    narrow = shape.width * shape.kv_heads // shape.heads
    frozen = 2 * shape.width**2 + 2 * shape.width * narrow + 3 * shape.width * shape.inner
    adapter = shape.rank * (2 * shape.width + shape.width + narrow)
    total = 0.0
    for prompt, story in lengths:
        tokens = prompt + story
        total += shape.layers * tokens * (4 * frozen + 6 * adapter)
        total += shape.layers * 6 * tokens**2 * shape.width
        total += 4 * shape.width * shape.vocabulary * story
    return total


def weigh(shape: Shape) -> dict:
    """Seconds that weights add to the loss of a step."""
    import torch

    from benchmarks.training import weighting_seconds
    from ddpo_lib.models.models import device

    with torch.device(device()):
        return {"seconds": statistics.median(weighting_seconds(shape.pairs, calls=500))}


def forget_peak() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def peak(sample: Sample) -> int:
    """Bytes: what torch held of the GPU's memory at most, or without one the process of the machine's."""
    import torch

    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else sample.peak


# Sampling and embedding


def sample(shape: Shape, method: str) -> dict:
    """New tokens a second, every text as long as the limit lets it be; bytes at the peak, but for vLLM, which takes a
    share of the memory whatever it needs."""
    from ddpo_lib.profiles.settings import Sampling

    rng = np.random.default_rng(0)
    texts = [words(rng, shape, shape.prompt) for _ in range(shape.asked)]
    chosen = Sampling(max_new_tokens=shape.new_tokens, batch_tokens=shape.batch_tokens)
    forget_peak()
    done = globals()[method](shape, texts, chosen)
    speed = {"tokens_per_second": done.result / done.seconds}
    return speed if method == "vllm" else speed | {"peak_bytes": peak(done)}


def one_at_a_time(shape: Shape, texts: list[str], chosen) -> Sample:
    from benchmarks.sampling import by_generate

    return by_generate(unending(shape), word_tokenizer(shape), "{prompt}", texts[: shape.in_turn], chosen, 1)


def our_batches(shape: Shape, texts: list[str], chosen) -> Sample:
    from benchmarks.sampling import by_engine

    return by_engine(unending(shape), word_tokenizer(shape), "{prompt}", texts, chosen)


def continuous_batching(shape: Shape, texts: list[str], chosen) -> Sample:
    """It has no repetition penalty, and its warm-up counts. Its cache has pages for all requests and a few to spare."""
    from transformers import ContinuousBatchingConfig, GenerationConfig

    from benchmarks.measure import timed

    settings = GenerationConfig(
        do_sample=True,
        temperature=chosen.temperature,
        top_k=chosen.top_k,
        top_p=chosen.top_p,
        max_new_tokens=chosen.max_new_tokens,
        num_return_sequences=chosen.samples,
        eos_token_id=-1,
        pad_token_id=0,
    )
    model, prompts = random_model(shape).eval(), word_tokenizer(shape)(texts).input_ids
    pages = -(-(shape.prompt + shape.new_tokens) // PAGE)
    cache = ContinuousBatchingConfig(num_blocks=8 + len(prompts) * chosen.samples * pages, max_batch_tokens=PASS)

    def work() -> int:
        made = model.generate_batch(prompts, generation_config=settings, continuous_batching_config=cache)
        tokens = sum(len(one.generated_tokens) for one in made.values())
        if tokens < len(prompts) * chosen.samples * chosen.max_new_tokens:
            raise RuntimeError(f"continuous batching wrote {tokens} tokens, fewer than were asked for")
        return tokens

    return timed(work)


def vllm(shape: Shape, texts: list[str], chosen) -> Sample:
    """With weights that vLLM draws itself. Written by vLLM's documentation; it has not been run."""
    from benchmarks.measure import timed

    if find_spec("vllm") is None:
        raise RuntimeError("vLLM is not installed")
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # a process of its own would outlive this one
    from vllm import LLM, SamplingParams

    prompts = word_tokenizer(shape)(texts).input_ids
    with tempfile.TemporaryDirectory() as folder:
        llama(shape).save_pretrained(folder)
        engine = LLM(model=folder, load_format="dummy", skip_tokenizer_init=True, dtype="bfloat16")
    settings = SamplingParams(
        n=chosen.samples,
        temperature=chosen.temperature,
        top_k=chosen.top_k,
        top_p=chosen.top_p,
        repetition_penalty=chosen.repetition_penalty,
        max_tokens=chosen.max_new_tokens,
        ignore_eos=True,
        detokenize=False,
    )
    requests = [{"prompt_token_ids": ids} for ids in prompts]
    return timed(lambda: sum(len(o.token_ids) for r in engine.generate(requests, settings) for o in r.outputs))


def unending(shape: Shape):
    """The model, kept from ending a text before the limit. On a CPU without bfloat16 products it is in float32."""
    import torch

    model = random_model(shape).eval()
    if model.device.type == "cpu" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        model = model.float()
    model.generation_config.min_new_tokens = shape.new_tokens
    return model


def embed(shape: Shape) -> dict:
    """Texts a second: the package's corpus, again and again with a number behind, so that no text is there already."""
    from benchmarks.maps import embed_afresh
    from ddpo_lib.data.corpus import read_corpus

    corpus = read_corpus(held_out=0.0)["text"].tolist()
    forget_peak()
    done = embed_afresh([f"{corpus[i % len(corpus)]} {i}" for i in range(shape.texts)])
    return {"texts_per_second": len(done.result) / done.seconds, "peak_bytes": peak(done)}


# What it comes to


def compared_losses(measured: dict) -> dict | None:
    """Root mean squares over steps: how far ours is from stock, and stock from itself with attention written out.

    The second is the noise: the same arithmetic in bfloat16, rounded elsewhere. `same` where the first is at most
    SAME times it; None where a contender is missing.
    """
    if any("losses" not in measured.get(name, {}) for name in (STOCK, AGAIN, OURS, "+ weights")):
        return None
    stock = np.array(measured[STOCK]["losses"])

    def apart(name: str) -> float:
        return float(np.sqrt(np.mean((np.array(measured[name]["losses"]) - stock) ** 2)))

    noise, found = apart(AGAIN), {name: apart(name) for name in (OURS, "+ weights")}
    return {"noise": noise, "apart": found, "same": all(value <= SAME * noise for value in found.values())}


def report(content: dict) -> str:
    """The tables in Markdown, with machine, date and versions."""
    hardware = content["hardware"]
    shape = SHAPES[content["shape"]]
    measured = content["measured"]
    _, lengths = stories(shape)
    told = [story for _, story in lengths]
    machine = hardware["gpu"] or f"{hardware['processor']}, {hardware['threads']} threads"
    return "\n".join(
        [
            f"## Training and sampling on {machine}",
            "",
            f"- {content['made']}, commit {content['commit']}; shape {content['shape']}",
            f"- {', '.join(f'{name} {version}' for name, version in content['versions'].items())}",
            f"- {shape.layers} layers of {shape.width}, LoRA r {shape.rank} on q and v, bfloat16, random weights; "
            f"{shape.pairs} pairs a step, {shape.steps} steps, {WARM} of them not counted; stories of {min(told)} to "
            f"{max(told)} tokens, median {statistics.median(told):.0f}",
            "",
            "### Training",
            "",
            training_table(measured, hardware["gpu"]),
            "Tokens are those of prompts and responses, without padding. Each row of DPO has what the one above has, "
            "and one thing more. Utilisation is of the dense bf16 peak, by the operations that the mathematics needs.",
            "",
            table(goals(measured)),
            *losses_told(measured),
            "",
            "### Sampling and embedding",
            "",
            sampling_table(measured, shape),
            *(f"- {name}: {made['failed']}" for name, made in measured.items() if "failed" in made),
            "",
        ]
    )


def training_table(measured: dict, gpu: str | None) -> str:
    lines = [
        "| what | real tokens/s | against stock | utilisation | peak memory | padding |\n|---|---|---|---|---|---|\n"
    ]
    for name in AGAINST:
        made, stock = measured.get(name, {}), measured.get(AGAINST[name], {})
        if "losses" not in made:
            continue
        speed = made["tokens_per_second"]
        ratio = f"{speed / stock['tokens_per_second']:.2f}x" if "losses" in stock else ""
        used = f"{speed * made['flops_per_token'] / PEAKS[gpu]:.0%}" if gpu in PEAKS else ""
        memory = f"{made['peak_bytes'] / 2**30:.1f} GiB"
        lines.append(f"| {name} | {speed:,.0f} | {ratio} | {used} | {memory} | {made['padding']:.0%} |\n")
    return "".join(lines)


def goals(measured: dict) -> list[Row]:
    """What was asked of one H200 with 8B parameters; rows whose contenders are there."""
    speed = {n: made["tokens_per_second"] for n, made in measured.items() if "losses" in made}
    rows = []
    with_, without = "+ batches of like length", "+ no checkpointing"
    for name, asked in ((with_, 7_000), (without, 10_000)):
        if name in speed:
            said = f"{asked:,} tokens/s"
            rows.append(Row(f"DDPO, {name}", "the clock", said, f"{speed[name]:,.0f}", "", speed[name] >= asked))
    if speed.keys() >= {with_, STOCK}:
        ratio = speed[with_] / speed[STOCK]
        rows.append(Row("DDPO with checkpointing", STOCK, "1.5x tokens/s", f"{ratio:.2f}x", "", ratio >= 1.5))
        ours, stock = (measured[name]["peak_bytes"] / 2**30 for name in (with_, STOCK))
        memory = f"{ours:.1f} against {stock:.1f} GiB"
        rows.append(Row("DDPO with checkpointing", STOCK, "peak memory not above", memory, "", ours <= stock))
    if with_ in speed and "seconds" in measured.get(WEIGHTING, {}):
        step = measured[with_]["step_seconds"]
        share = measured[WEIGHTING]["seconds"] / step
        rows.append(Row(WEIGHTING, "a step of ours", "under 1%", f"{share:+.4%}", "", share < 0.01))
    found = compared_losses(measured)
    if found:
        apart = ", ".join(f"{value:.2g} ({name})" for name, value in found["apart"].items())
        noise = f"{apart} apart; {STOCK} and the same with attention written out {found['noise']:.2g}"
        rows.append(Row("losses of DDPO", STOCK, f"at most {SAME}x bf16 noise apart", noise, "", found["same"]))
    return rows


def losses_told(measured: dict) -> list[str]:
    shown = {name: measured[name]["losses"] for name in (STOCK, OURS) if "losses" in measured.get(name, {})}
    return [f"- losses, {name}: {' '.join(f'{loss:.4f}' for loss in losses)}" for name, losses in shown.items()]


def sampling_table(measured: dict, shape: Shape) -> str:
    lines = ["| what | a second | against one prompt at a time | peak memory |\n|---|---|---|---|\n"]
    first = measured.get(next(iter(SAMPLINGS)), {}).get("tokens_per_second")
    for name in SAMPLINGS:
        made = measured.get(name, {})
        if "tokens_per_second" in made:
            speed = made["tokens_per_second"]
            ratio = f"{speed / first:.1f}x" if first else ""
            memory = f"{made['peak_bytes'] / 2**30:.1f} GiB" if "peak_bytes" in made else ""
            lines.append(f"| {name} | {speed:,.0f} tokens | {ratio} | {memory} |\n")
    made = measured.get(EMBEDDING, {})
    if "texts_per_second" in made:
        speed, memory = made["texts_per_second"], made["peak_bytes"] / 2**30
        lines.append(f"| {EMBEDDING} | {speed:,.0f} texts | | {memory:.1f} GiB |\n")
    return "".join(lines)


if __name__ == "__main__":
    main()
