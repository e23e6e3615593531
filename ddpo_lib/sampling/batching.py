"""Prompts of different lengths -> batches of similar length, each with as many sequences as fit."""

import torch

from ddpo_lib.profiles.settings import Sampling

ALIKE = 0.8  # share of the longest sequence's tokens that a sequence of its group needs at least


def count_at_once(need: int, samples: int, sampling: Sampling) -> int:
    """How many prompts fit into `sampling.batch_tokens`, at `samples` sequences of `need` tokens each; at least 1."""
    return max(1, sampling.batch_tokens // (need * samples))


def group_alike(needs: list[int]) -> list[list[int]]:
    """Positions in groups of similar length, the longest first, so that a lack of memory shows at the start.

    Within a group, each sequence gets the room of the longest. So the shortest needs at least `ALIKE` of its tokens.

    Args:
        needs: for each prompt, the most tokens of a sequence.
    """
    groups: list[list[int]] = []
    for i in _longest_first(needs):
        if not groups or needs[i] < ALIKE * needs[groups[-1][0]]:
            groups.append([])
        groups[-1].append(i)
    return groups


def fill_batches(needs: list[int], samples: int, sampling: Sampling) -> list[list[int]]:
    """Positions in batches of similar length, the longest first.

    Args:
        needs: for each prompt, the most tokens of a sequence.
        samples: sequences per prompt.
        sampling: `batch_tokens` is the most tokens of all sequences of a batch, padding included. A batch contains at
            least one prompt, even if that prompt exceeds the limit.
    """
    order = _longest_first(needs)
    batches = []
    while order:
        count = count_at_once(needs[order[0]], samples, sampling)
        batches.append(order[:count])
        order = order[count:]
    return batches


def _longest_first(needs: list[int]) -> list[int]:
    return sorted(range(len(needs)), key=lambda i: (-needs[i], i))


def pad_left(prompts: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """n token lists -> ids and attention mask, both (n, longest); a row is padded with its own first token."""
    longest = max(map(len, prompts))
    ids = torch.tensor([ids[:1] * (longest - len(ids)) + ids for ids in prompts])
    mask = torch.tensor([[0] * (longest - len(ids)) + [1] * len(ids) for ids in prompts])
    return ids, mask
