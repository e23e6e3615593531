"""Logits -> tokens: repetition penalty, temperature, top-k, top-p, and a draw whose noise is a hash.

The noise of a token depends only on the sample's key, the step and the token. So a sample has the same noise in any
batch. Models that are sampled with the same keys share the noise, so chance explains less of the difference between
them.
"""

import hashlib
from collections import Counter
from dataclasses import dataclass

import torch

from ddpo_lib.profiles.settings import Sampling

# constants of splitmix64 (Steele, Lea, Flood 2014), as signed 64-bit integers
STEP = 0x9E3779B97F4A7C15 - (1 << 64)
FIRST = 0xBF58476D1CE4E5B9 - (1 << 64)
SECOND = 0x94D049BB133111EB - (1 << 64)
BITS = 52  # bits of a hash from which a number between 0 and 1 is made


@dataclass(frozen=True)
class Draw:
    """How the next token is drawn. `ends`: tokens that end a text; `least`: the fewest tokens before a text may end."""

    sampling: Sampling
    ends: tuple[int, ...]
    least: int = 0

    def __call__(
        self, logits: torch.Tensor, said: torch.Tensor, keys: torch.Tensor, steps: torch.Tensor
    ) -> torch.Tensor:
        """The next token of each sample.

        Args:
            logits: (n, V), changed in place.
            said: (n, t) tokens of the responses so far; shorter ones are padded with an end token.
            keys: (n,) int64, from `sample_keys`.
            steps: (n,) int64, the number of tokens so far.

        Returns:
            (n,) tokens.
        """
        ends = torch.tensor(self.ends, device=logits.device)
        penalise(logits, said, self.sampling.repetition_penalty, ends)
        if self.least:
            logits[:, ends] = logits[:, ends].masked_fill((steps < self.least)[:, None], -torch.inf)
        kept, ids = survivors(logits, self.sampling)
        # the argmax of logits plus Gumbel noise is a draw from their softmax
        return ids.gather(1, (kept + gumbel(keys, steps, ids)).argmax(1, keepdim=True)).squeeze(1)


def penalise(logits: torch.Tensor, said: torch.Tensor, penalty: float, spared: torch.Tensor) -> None:
    """Make tokens that a response already contains less probable, in place (CTRL, Keskar et al. 2019).

    A positive logit is divided by the penalty, a negative one multiplied by it. How often the token occurs does not
    matter.

    Args:
        logits: (n, V).
        said: (n, t) tokens of the responses, without their prompts.
        penalty: 1 changes nothing.
        spared: (e,) tokens that keep their logits: those that end a text.
    """
    if penalty == 1:
        return
    before = logits.gather(1, said)
    after = torch.where(before > 0, before / penalty, before * penalty)
    logits.scatter_(1, said, torch.where(torch.isin(said, spared), before, after))


def survivors(logits: torch.Tensor, sampling: Sampling) -> tuple[torch.Tensor, torch.Tensor]:
    """Apply temperature, top-k and top-p to (n, V) logits.

    The distribution is that of transformers' warpers in this order, with one exception: where tokens tie at the k-th
    place, exactly k are kept. Sorting, exponentiation and noise then cost k tokens, not V.

    Returns:
        (n, k) logits divided by the temperature, minus infinity where top-p cuts, and their (n, k) token ids; k is V
        with `top_k` 0.
    """
    vocabulary = logits.shape[1]
    if not sampling.top_k and sampling.top_p == 1:
        return logits / sampling.temperature, torch.arange(vocabulary, device=logits.device).expand_as(logits)
    kept, ids = logits.topk(min(sampling.top_k or vocabulary, vocabulary))
    kept = kept / sampling.temperature
    tail = kept.softmax(1).flip(1).cumsum(1).flip(1)  # probability of a token and all less probable ones
    cut = tail <= 1 - sampling.top_p
    cut[:, 0] = False
    return kept.masked_fill(cut, -torch.inf), ids


def sample_keys(texts: list[str], samples: int, seed: str) -> list[list[int]]:
    """The keys of each text's samples, signed 64-bit integers.

    A key depends on the seed, the text and the number of the sample, not on the other texts. A text that occurs twice
    gets different keys each time.
    """
    keys, met = [], Counter()
    for text in texts:
        again = met[text]
        met[text] += 1
        names = (f"{seed}\n{again}\n{s}\n{text}".encode() for s in range(samples))
        keys.append([int.from_bytes(hashlib.sha256(name).digest()[:8], signed=True) for name in names])
    return keys


def gumbel(keys: torch.Tensor, steps: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Standard Gumbel noise of tokens; the same key, step and token give the same noise.

    Args:
        keys: (n,) int64.
        steps: (n,) int64.
        ids: (n, k) int64.

    Returns:
        (n, k) float32: minus the log of an exponential variable. It is finite: from about -2.8 to 36.7.
    """
    stream = mix(keys + STEP * (steps + 1))
    hashed = mix(stream[:, None] + STEP * (ids + 1))
    # the largest noise comes from numbers near 0, where float32 is precise; 1 is excluded, as its noise is not finite
    uniform = ((_shift(hashed, 64 - BITS).float() + 0.5) * 2.0**-BITS).clamp(max=1 - 2.0**-24)
    return -torch.log(-torch.log1p(-uniform))


def mix(numbers: torch.Tensor) -> torch.Tensor:
    """The finaliser of splitmix64 on int64, which wraps around as uint64 does."""
    numbers = (numbers ^ _shift(numbers, 30)) * FIRST
    numbers = (numbers ^ _shift(numbers, 27)) * SECOND
    return numbers ^ _shift(numbers, 31)


def _shift(numbers: torch.Tensor, by: int) -> torch.Tensor:
    """Shift to the right and fill with zeros; `>>` alone would fill with the sign."""
    return (numbers >> by) & ((1 << (64 - by)) - 1)
