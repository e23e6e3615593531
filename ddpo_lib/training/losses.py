"""Losses of the paper, unreduced: log-probabilities and weights -> one loss per pair. Needs only torch.

B is the number of pairs. A trainer takes the mean over pairs; `weight` is the deviation weight of the pair's
*winner*. With weights of 1 these are plain DPO and ORPO.
"""

import torch
import torch.nn.functional as F


def ddpo_loss(
    chosen: torch.Tensor,
    rejected: torch.Tensor,
    ref_chosen: torch.Tensor,
    ref_rejected: torch.Tensor,
    weight: torch.Tensor,
    beta: float,
    policy_beta: float | None = None,
) -> torch.Tensor:
    """DDPO (paper, the DDPO objective): weight * -log sigmoid(beta * (logratio_w - logratio_l)).

    With `policy_beta`, the margin is policy_beta * (log pi_w - log pi_l) - beta * (log ref_w - log ref_l): the
    preference loss whose optimum is pi ~ ref^(beta / policy_beta) p^(1 / policy_beta), as in Soft Preference Learning
    (ICLR 2025, arXiv:2511.08594; the loss is derived from its optimum). A larger `policy_beta` keeps more entropy.

    Args:
        chosen, rejected: (B,) log pi(y | x) of the policy in nats, summed over response tokens.
        ref_chosen, ref_rejected: (B,) the same under the frozen reference.
        weight: (B,) deviation weight of the winner, >= 0.
        beta: how strongly the loss keeps the policy near the reference, > 0.
        policy_beta: that of the policy's log-probabilities, > 0; None: `beta`, plain DDPO.

    Returns:
        (B,) losses, not reduced.

    Raises:
        ValueError: beta or policy_beta <= 0 or not finite, or an argument that is not (B,).
    """
    policy_beta = beta if policy_beta is None else policy_beta
    _check_positive("beta", beta)
    _check_positive("policy_beta", policy_beta)
    _check_shapes(chosen=chosen, rejected=rejected, ref_chosen=ref_chosen, ref_rejected=ref_rejected, weight=weight)
    margin = beta * ((chosen - ref_chosen) - (rejected - ref_rejected)) + (policy_beta - beta) * (chosen - rejected)
    return weight * -F.logsigmoid(margin)


def dorpo_loss(
    chosen_mean: torch.Tensor,
    rejected_mean: torch.Tensor,
    weight: torch.Tensor,
    lam: float,
    *,
    variant: str = "paper",
) -> torch.Tensor:
    """DORPO (paper, the DORPO objective): weight * (NLL(y_w) + lam * -log sigmoid(log odds(y_w) - log odds(y_l))).

    Args:
        chosen_mean, rejected_mean: (B,) *mean* log-probability of a response token, <= 0.
        weight: (B,) deviation weight of the winner, >= 0.
        lam: weight of the odds-ratio term, > 0.
        variant: "paper", or "released" for what the authors' code computes. It averages the NLL over the batch before
            it multiplies by the weight, and puts the weight of the odds-ratio term inside log-sigmoid.

    Returns:
        (B,) losses, not reduced.

    Raises:
        ValueError: lam <= 0 or not finite, an argument that is not (B,), or an unknown variant.
    """
    _check_positive("lam", lam)
    _check_shapes(chosen_mean=chosen_mean, rejected_mean=rejected_mean, weight=weight)
    log_odds_ratio = log_odds(chosen_mean) - log_odds(rejected_mean)
    if variant == "paper":
        return weight * (-chosen_mean - lam * F.logsigmoid(log_odds_ratio))
    if variant == "released":
        return weight * -chosen_mean.mean() - lam * F.logsigmoid(weight * log_odds_ratio)
    raise ValueError(f'variant: expected "paper" or "released", got {variant!r}')


def log_odds(logp: torch.Tensor) -> torch.Tensor:
    """log(p / (1 - p)) from log p <= 0. It is finite also near log p = 0, since log p is kept just below 0."""
    logp = logp.clamp(max=-torch.finfo(logp.dtype).tiny)
    return logp - torch.log(-torch.expm1(logp))


def _check_positive(name: str, value: float) -> None:
    if not (0 < value < float("inf")):
        raise ValueError(f"{name}: expected a positive number, got {value}")


def _check_shapes(**values: torch.Tensor) -> None:
    """Check that all are (B,) with the B of the first; other shapes would broadcast to meaningless losses."""
    first, *_ = values.items()
    for name, value in values.items():
        if value.ndim != 1:
            raise ValueError(f"{name}: expected one number per pair, got shape {tuple(value.shape)}")
        if len(value) != len(first[1]):
            raise ValueError(f"{name}: expected {len(first[1])} numbers, as many as {first[0]}, got {len(value)}")
