"""Worked numbers: each expected value was computed by hand from the formula and is written out."""

import pytest
import torch

from ddpo_lib.training.losses import ddpo_loss, dorpo_loss, log_odds


def numbers(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_ddpo_worked_by_hand():
    # margins: (-10 + 12) - (-20 + 19) = 3 and (-5 + 5) - (-7 + 7) = 0; beta 0.1: -log sigmoid(0.3) and log 2
    loss = ddpo_loss(numbers(-10, -5), numbers(-20, -7), numbers(-12, -5), numbers(-19, -7), numbers(2.0, 0.5), 0.1)
    torch.testing.assert_close(loss, numbers(2 * 0.5543552444685272, 0.5 * 0.6931471805599453))


def test_two_temperatures_worked_by_hand():
    # 0.3 (-10 + 20) - 0.1 (-12 + 19) = 2.3, and -log sigmoid(2.3)
    args = numbers(-10), numbers(-20), numbers(-12), numbers(-19), numbers(2.0), 0.1
    torch.testing.assert_close(ddpo_loss(*args, 0.3), numbers(2 * 0.09554546459796295))
    torch.testing.assert_close(ddpo_loss(*args, 0.1), ddpo_loss(*args))


def test_two_temperatures_have_the_optimum_of_soft_preference_learning():
    """Three answers whose preferences follow Bradley and Terry: the best policy is ref^(beta/alpha) p^(1/alpha)."""
    reference, quality, beta, alpha = numbers(0.5, 0.3, 0.2), numbers(1.0, 3.0, 2.0), 0.4, 0.7
    policy = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([policy], max_iter=200, line_search_fn="strong_wolfe", tolerance_grad=1e-10)
    sides = [(one, other) for one in range(3) for other in range(3) if one != other]
    w, v = (torch.tensor(side) for side in zip(*sides, strict=True))
    often = quality[w] / (quality[w] + quality[v])

    def expected():
        optimiser.zero_grad()
        logp, ref = policy.log_softmax(0), reference.log()
        loss = (often * ddpo_loss(logp[w], logp[v], ref[w], ref[v], torch.ones(6), beta, alpha)).sum()
        loss.backward()
        return loss

    optimiser.step(expected)
    best = reference ** (beta / alpha) * quality ** (1 / alpha)
    torch.testing.assert_close(policy.detach().softmax(0), best / best.sum(), atol=1e-5, rtol=0)


def test_dorpo_worked_by_hand():
    # p = 1/2 and 1/4: odds 1 and 1/3, log odds ratio log 3; NLL log 2; -log sigmoid(log 3) = log(4/3)
    chosen, rejected = numbers(0.5).log(), numbers(0.25).log()
    loss = dorpo_loss(chosen, rejected, numbers(1.5), 0.25)
    torch.testing.assert_close(loss, numbers(1.5 * (0.6931471805599453 + 0.25 * 0.28768207245178085)))


def test_the_released_dorpo_averages_the_nll_and_weighs_inside_the_sigmoid():
    # NLLs log 2 and log 4, mean 1.5 log 2; log odds ratios log 3 and 0; weights 2 and 1
    chosen, rejected = numbers(0.5, 0.25).log(), numbers(0.25, 0.25).log()
    loss = dorpo_loss(chosen, rejected, numbers(2.0, 1.0), 0.25, variant="released")
    mean_nll = 1.0397207708399179
    # -log sigmoid(2 log 3) = log(10/9), -log sigmoid(0) = log 2
    torch.testing.assert_close(
        loss, numbers(2 * mean_nll + 0.25 * 0.10536051565782628, mean_nll + 0.25 * 0.6931471805599453)
    )


def test_the_two_variants_agree_on_equal_pairs_of_weight_one():
    chosen, rejected, one = numbers(-0.5, -0.5), numbers(-1.0, -1.0), numbers(1.0, 1.0)
    torch.testing.assert_close(
        dorpo_loss(chosen, rejected, one, 0.25), dorpo_loss(chosen, rejected, one, 0.25, variant="released")
    )


def test_log_odds_worked_by_hand():
    torch.testing.assert_close(log_odds(numbers(0.5, 0.8).log()), numbers(0.0, 1.3862943611198906))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_losses_and_gradients_are_finite_near_and_far_from_zero(dtype):
    extreme = torch.tensor([0.0, -1e-30, -1e-8, -1.0, -50.0, -1e4], dtype=dtype)
    chosen = extreme.clone().requires_grad_()
    rejected = extreme.flip(0).clone().requires_grad_()
    one = torch.ones(6, dtype=dtype)
    total = dorpo_loss(chosen, rejected, one, 0.25).sum() + ddpo_loss(chosen, rejected, one, -one, one, 0.1).sum()
    total.backward()
    assert torch.isfinite(total)
    assert torch.isfinite(chosen.grad).all()
    assert torch.isfinite(rejected.grad).all()


@pytest.mark.parametrize("bad", [0.0, -0.1, float("nan"), float("inf")])
def test_beta_and_lambda_must_be_positive(bad):
    one = numbers(-1.0)
    with pytest.raises(ValueError, match="beta: expected a positive number"):
        ddpo_loss(one, one, one, one, one, bad)
    with pytest.raises(ValueError, match="lam: expected a positive number"):
        dorpo_loss(one, one, one, bad)


def test_an_unknown_variant_is_refused():
    one = numbers(-1.0)
    with pytest.raises(ValueError, match="variant: expected"):
        dorpo_loss(one, one, one, 0.25, variant="mine")


@pytest.mark.parametrize(
    ("place", "name"), [*enumerate(["chosen", "rejected", "ref_chosen", "ref_rejected", "weight"])], ids=str
)
@pytest.mark.parametrize("shape", [(), (1,), (4,), (3, 1), (1, 3)])
def test_ddpo_refuses_what_is_not_a_number_a_pair(place, name, shape):
    """Each of these would broadcast against (3,) or fail inside torch; the first sets how many pairs there are."""
    arguments = [-torch.ones(3) for _ in range(5)]
    arguments[place] = -torch.ones(shape)
    blamed = "rejected" if name == "chosen" and len(shape) == 1 else name
    with pytest.raises(ValueError, match=rf"^{blamed}: expected"):
        ddpo_loss(*arguments, 0.1)


@pytest.mark.parametrize(("place", "name"), [*enumerate(["chosen_mean", "rejected_mean", "weight"])], ids=str)
@pytest.mark.parametrize("shape", [(), (1,), (4,), (3, 1), (1, 3)])
@pytest.mark.parametrize("variant", ["paper", "released"])
def test_dorpo_refuses_what_is_not_a_number_a_pair(place, name, shape, variant):
    arguments = [-torch.ones(3) for _ in range(3)]
    arguments[place] = -torch.ones(shape)
    blamed = "rejected_mean" if name == "chosen_mean" and len(shape) == 1 else name
    with pytest.raises(ValueError, match=rf"^{blamed}: expected"):
        dorpo_loss(*arguments, 0.25, variant=variant)


def test_the_error_counts_weights_of_the_wrong_length():
    three = -torch.ones(3)
    with pytest.raises(ValueError, match=r"^weight: expected 3 numbers, as many as chosen, got 2$"):
        ddpo_loss(three, three, three, three, torch.ones(2), 0.1)
