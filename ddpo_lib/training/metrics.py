"""What the log says of a step: TRL's metrics under TRL's names, and what the weights did.

All are over the pairs, responses or tokens of all processes.
"""

from collections.abc import Callable

import torch

from ddpo_lib.training.logps import Scored

Gather = Callable[[torch.Tensor], torch.Tensor]  # every process's values, end to end


def preference_metrics(
    scored: Scored, losses: torch.Tensor, weight: torch.Tensor, rewards: torch.Tensor, gather: Gather
) -> dict[str, torch.Tensor]:
    """Of a batch of B pairs.

    Args:
        scored: the 2B responses, winners first.
        losses, weight: (B,).
        rewards: (2B,), TRL's for the loss.
        gather: the accelerator's.
    """
    is_chosen = scored.row < len(losses)
    losses, weight = gather(losses), gather(weight)
    chosen, rejected = (gather(part) for part in rewards.chunk(2))
    chosen_logps, rejected_logps = (gather(part) for part in scored.logps.detach().chunk(2))
    return {
        "weight/mean": weight.mean(),
        "weight/effective_pairs": weight.sum() ** 2 / (weight**2).sum().clamp(min=1e-12),
        "weight/zero": (weight == 0).float().mean(),
        "loss/top_weights": losses[weight >= weight.quantile(0.75)].mean(),
        "loss/bottom_weights": losses[weight <= weight.quantile(0.25)].mean(),
        "rewards/chosen": chosen.mean(),
        "rewards/rejected": rejected.mean(),
        "rewards/accuracies": (chosen > rejected).float().mean(),
        "rewards/margins": (chosen - rejected).mean(),
        "logps/chosen": chosen_logps.mean(),
        "logps/rejected": rejected_logps.mean(),
        "logits/chosen": _token_mean(scored.mean_logits[is_chosen], gather),
        "logits/rejected": _token_mean(scored.mean_logits[~is_chosen], gather),
        "entropy": _token_mean(scored.entropy, gather),
        "mean_token_accuracy": _token_mean(scored.top1[is_chosen], gather),
    }


def response_metrics(scored: Scored, gather: Gather) -> dict[str, torch.Tensor]:
    """Of a batch of responses that are learnt from as they are."""
    return {
        "entropy": _token_mean(scored.entropy, gather),
        "mean_token_accuracy": _token_mean(scored.top1, gather),
    }


def _token_mean(values: torch.Tensor, gather: Gather) -> torch.Tensor:
    """Processes hold different numbers of tokens."""
    total = torch.stack([values.float().sum(), torch.tensor(len(values), device=values.device, dtype=torch.float32)])
    total = gather(total[None]).sum(dim=0)
    return total[0] / total[1].clamp(min=1)
