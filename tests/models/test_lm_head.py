"""Log-probabilities of logits, and of states under a frozen head, in float64 and by hand."""

import pytest
import torch
import torch.nn.functional as F
from packed_rows import ROWS, SMALL, check_model, packed, random_model
from transformers import GraniteConfig, LlamaConfig, LlamaForCausalLM

from ddpo_lib.models import frozen_linears, lm_head
from ddpo_lib.models.lm_head import FEWEST, HeadLogProbs, LogProbs, frozen_head
from ddpo_lib.models.packing import can_pack

needs_onednn = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch was built without oneDNN")

TOKENS = 500  # of the vocabulary of these logits


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(lm_head, "LOGITS", TOKENS * FEWEST)


def check_distribution(logits: torch.Tensor, tokens: torch.Tensor, found: tuple) -> torch.Tensor:
    """Compare with float64; gives the (R, V) gradients of the log-probabilities for the logits."""
    log_probs, entropy, mean, top1 = found
    exact = logits.detach().double().log_softmax(dim=1)
    at = torch.arange(len(tokens))
    torch.testing.assert_close(log_probs.double(), exact[at, tokens], atol=1e-5, rtol=1e-6)
    torch.testing.assert_close(entropy.double(), -(exact.exp() * exact).sum(dim=1), atol=2e-5, rtol=0)
    torch.testing.assert_close(mean.double(), logits.double().mean(dim=1), atol=1e-6, rtol=0)
    assert top1.tolist() == (exact.argmax(dim=1) == tokens).tolist()
    assert not (entropy.requires_grad or mean.requires_grad or top1.requires_grad)
    return F.one_hot(tokens, TOKENS) - exact.exp()


@pytest.mark.parametrize("rows", [0, 1, 2 * FEWEST + 3])
def test_log_probs_of_logits_and_what_the_log_says_of_them(small_blocks, rows):
    """Over more tokens than are taken at once; logits reach 40, so that some shares vanish."""
    torch.manual_seed(0)
    logits = (10 * torch.randn(rows, TOKENS)).requires_grad_()
    tokens = torch.where(torch.arange(rows) % 3 == 0, logits.argmax(dim=1), torch.randint(TOKENS, (rows,)))
    found = LogProbs.apply(logits, tokens)
    slopes = check_distribution(logits, tokens, found)

    scale = torch.linspace(0.5, 2, rows)
    (gradient,) = torch.autograd.grad((scale * found[0]).sum(), logits, retain_graph=True)
    torch.testing.assert_close(gradient.double(), scale[:, None] * slopes, atol=1e-6, rtol=1e-5)
    if rows:
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            torch.autograd.grad(found[0].sum(), logits)  # the shares are the gradient now
    with torch.no_grad():
        assert torch.equal(LogProbs.apply(logits, tokens)[1], found[1])


@pytest.mark.parametrize("onednn", [False, pytest.param(True, marks=needs_onednn)])
@pytest.mark.parametrize("rows", [0, 1, 2 * FEWEST + 3])
def test_log_probs_under_afrozen_head(monkeypatch, small_blocks, rows, onednn):
    monkeypatch.setattr(frozen_linears, "_mkl_is_slow", lambda: onednn)
    torch.manual_seed(0)
    head = torch.nn.Linear(16, TOKENS, bias=False).requires_grad_(False)
    states = (40 * torch.randn(rows, 16)).requires_grad_()
    logits = head(states).detach()
    tokens = torch.where(torch.arange(rows) % 3 == 0, logits.argmax(dim=1), torch.randint(TOKENS, (rows,)))
    with frozen_linears.fast_frozen_linears(head):
        found = HeadLogProbs.apply(states, head.weight, tokens, *frozen_linears.products_of(head))
    slopes = check_distribution(logits, tokens, found)
    (gradient,) = torch.autograd.grad((torch.linspace(0.5, 2, rows) * found[0]).sum(), states)
    expected = torch.linspace(0.5, 2, rows)[:, None] * (slopes @ head.weight.double())
    torch.testing.assert_close(gradient.double(), expected, atol=1e-5, rtol=1e-5)


class Capped(LlamaForCausalLM):
    """With logits that cannot exceed 2, as other families have them."""

    def forward(self, input_ids=None, position_ids=None, **kwargs):
        outputs = super().forward(input_ids, position_ids=position_ids, **kwargs)
        outputs.logits = 2 * torch.tanh(outputs.logits / 2)
        return outputs


@pytest.mark.parametrize(
    ("build", "alone"),
    [
        (lambda: random_model(LlamaConfig(**SMALL)), True),
        (lambda: random_model(GraniteConfig(**SMALL, logits_scaling=4.0)), True),
        (lambda: Capped(LlamaConfig(**SMALL, initializer_range=0.3)).eval(), False),
    ],
    ids=["as they are", "divided", "capped"],
)
def test_afrozen_head_takes_part_if_it_alone_makes_logits(build, alone):
    torch.manual_seed(3)
    model = build().requires_grad_(False)
    assert can_pack(model)
    inputs = packed(ROWS).inputs() | {"logits_to_keep": packed(ROWS).predicting}
    assert (frozen_head(model, inputs) is model.lm_head) is alone
    assert "forward" not in vars(model.lm_head)
    model.lm_head.requires_grad_(True)
    assert frozen_head(model, inputs) is None
    if alone:
        check_model(build().requires_grad_(False))
