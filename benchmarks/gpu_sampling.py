"""A shape and an engine that samples -> new tokens per second and the peak of memory;
texts to embed -> texts per second.
"""

import os
import tempfile
from importlib.util import find_spec

import numpy as np

from benchmarks.gpu_shapes import Shape, llama, random_model, word_tokenizer, words
from benchmarks.measure import Sample, forget_peak, peak

EMBEDDING = "embedding with MiniLM"
PAGE = 256  # tokens of a page of transformers' continuous batching
PASS = 8192  # tokens of one of its passes; left to itself, transformers 5.17 takes as many as fill the memory
SAMPLINGS = {
    "stock `generate`, one prompt at a time": "one_at_a_time",
    "ours, batches filled to a budget": "our_batches",
    "transformers' continuous batching": "continuous_batching",
    "vLLM": "vllm",
}


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
