"""What the log reports about a step: TRL's metrics under TRL's names, and the effect of the weights.

All metrics are over the pairs, responses or tokens of all processes.
"""

from collections.abc import Callable

import torch

from ddpo_lib.training.logps import Scored

Gather = Callable[[torch.Tensor], torch.Tensor]  # values of this process -> values of all processes, concatenated


def preference_metrics(
    scored: Scored, losses: torch.Tensor, weight: torch.Tensor, rewards: torch.Tensor, gather: Gather
) -> dict[str, torch.Tensor]:
    """Metrics of a batch of B pairs, by name, each one number.

    Args:
        scored: the 2B responses, winners first.
        losses, weight: (B,).
        rewards: (2B,), as TRL defines them for the loss.
        gather: the accelerator's function.
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
    """Metrics of a batch of responses in supervised fine-tuning, by name, each one number."""
    return {
        "entropy": _token_mean(scored.entropy, gather),
        "mean_token_accuracy": _token_mean(scored.top1, gather),
    }


def _token_mean(values: torch.Tensor, gather: Gather) -> torch.Tensor:
    """Mean over the tokens of all processes, which hold different numbers of them."""
    total = torch.stack([values.float().sum(), torch.tensor(len(values), device=values.device, dtype=torch.float32)])
    total = gather(total[None]).sum(dim=0)
    return total[0] / total[1].clamp(min=1)
