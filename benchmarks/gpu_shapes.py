"""A model's size and the work that it is given -> a model with random weights, its tokenizer and its texts,
and the floating-point operations that training on these texts takes.

Weights are random, since speed does not depend on their values. Stories are random words of one token each, with
log-normal lengths. Winners use one half of the words and losers the other, so that there is something to learn.
"""

from dataclasses import dataclass

import numpy as np

SPREAD = 0.6  # standard deviation of the logarithm of a story's length
PADDED = "sdpa_padded"  # torch's attention under a name that `logps.can_pack` leaves alone


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
