"""Prompts of uneven length -> batches of like length, as many sequences in each as fit."""

import torch

from ddpo_lib.profiles.settings import Sampling

ALIKE = 0.8  # of the longest sequence's tokens


def count_at_once(need: int, samples: int, sampling: Sampling) -> int:
    """Prompts whose sequences, of `need` tokens each, come to no more than `sampling.batch_tokens`; one at least."""
    return max(1, sampling.batch_tokens // (need * samples))


def group_alike(needs: list[int]) -> list[list[int]]:
    """Positions in groups, the longest first, so that memory that does not suffice shows at once.

    The shortest of a group needs `ALIKE` of the longest's tokens at least: each gets as much room as the longest.
    """
    groups: list[list[int]] = []
    for i in _longest_first(needs):
        if not groups or needs[i] < ALIKE * needs[groups[-1][0]]:
            groups.append([])
        groups[-1].append(i)
    return groups


def fill_batches(needs: list[int], samples: int, sampling: Sampling) -> list[list[int]]:
    """Positions in batches of like length, the longest first.

    Args:
        needs: tokens of a sequence of each prompt, at most.
        samples: sequences per prompt.
        sampling: `batch_tokens` bounds what all sequences of a batch can come to, padding included; a batch holds one
            prompt at least.
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
    """Token lists -> (n, longest) ids and attention mask; a row is filled with its own first token, masked."""
    longest = max(map(len, prompts))
    ids = torch.tensor([ids[:1] * (longest - len(ids)) + ids for ids in prompts])
    mask = torch.tensor([[0] * (longest - len(ids)) + [1] * len(ids) for ids in prompts])
    return ids, mask
