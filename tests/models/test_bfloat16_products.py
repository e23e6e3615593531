"""Products with frozen weights in bfloat16: errors within what its rounding allows, and where they are refused.

u = 2**-9 is the most by which rounding changes a number, relative to it. A product rounds its weight, its input and its
output, so that an output errs by at most (1 + u)**3 - 1 of the sum of its terms' sizes. Errors of one product after
another are independent, so after n of them numbers err by about sqrt(n) u.
"""

from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from pydantic import ValidationError
from tiny import tiny_model, tiny_pairs, tiny_tokenizer
from torch import nn

from ddpo_lib.base.errors import InputError
from ddpo_lib.data.corpus import read_corpus
from ddpo_lib.models import models
from ddpo_lib.models.frozen_linears import check_bfloat16, fast_frozen_linears, fast_product, use_onednn
from ddpo_lib.profiles.profile import load_profile
from ddpo_lib.profiles.settings import Model
from ddpo_lib.sampling import engines
from ddpo_lib.sampling.engines import Local
from ddpo_lib.training import logps
from ddpo_lib.training.frozen_layers import Trunk
from ddpo_lib.training.logps import score_responses, with_fused_head
from ddpo_lib.training.trainer import DeviationConfig, DeviationTrainer

U = 2.0**-9
SEQUENTIAL = 4  # products in sequence in a layer: q, k or v; o; gate or up; down


def is_possible() -> bool:
    try:
        check_bfloat16(nn.Linear(4, 4).requires_grad_(False))
    except InputError:
        return False
    return True


needs_bfloat16 = pytest.mark.skipif(not is_possible(), reason="the processor or torch has no bfloat16 products")


# One layer


@needs_bfloat16
@pytest.mark.parametrize("rows", [1, 64])
@pytest.mark.parametrize("shape", [(576, 576), (1536, 576), (576, 1536)], ids=str)
def test_a_product_errs_by_no_more_than_three_roundings(shape, rows):
    torch.manual_seed(0)
    weight, x = torch.randn(shape), torch.randn(rows, shape[1])
    exact, sizes = (x.double() @ weight.double().t(), x.double().abs() @ weight.double().abs().t())
    found = fast_product(weight, bfloat16=True)(x)
    assert found.dtype == torch.float32
    assert ((found - exact).abs() <= ((1 + U) ** 3 - 1 + 1e-5) * sizes).all()
    assert (found - exact).norm() > 0.3 * U * exact.norm(), "nothing was rounded"


@needs_bfloat16
def test_values_that_bfloat16_holds_are_multiplied_exactly():
    layer = nn.Linear(3, 2).requires_grad_(False)
    layer.load_state_dict({"weight": torch.tensor([[1.0, 2, 3], [0.5, -1, 4]]), "bias": torch.tensor([1 / 3, 0.0])})
    x = torch.tensor([[1.0, 1, 1]], requires_grad=True)
    with fast_frozen_linears(layer, bfloat16=True):
        y = layer(x)
    y.sum().backward()
    assert y.tolist() == [pytest.approx([6 + 1 / 3, 3.5], rel=1e-6)]  # the bias stays float32
    assert x.grad.tolist() == [[1.5, 1.0, 7.0]]


@needs_bfloat16
def test_lora_and_a_head_stay_float32():
    """With a base weight of zero, nothing but LoRA is left of a layer, and nothing is rounded."""
    torch.manual_seed(0)
    model = get_peft_model(nn.Sequential(nn.Linear(48, 32)), LoraConfig(target_modules=["0"], init_lora_weights=False))
    model.base_model.model[0].base_layer.weight.zero_()
    x = torch.randn(7, 48)
    expected = model(x)
    with fast_frozen_linears(model, bfloat16=True):
        torch.testing.assert_close(model(x), expected, rtol=1e-6, atol=1e-6)

    causal = tiny_model().requires_grad_(False)
    states = torch.randn(5, causal.config.hidden_size)
    expected = causal.lm_head(states)
    with fast_frozen_linears(causal, bfloat16=True):
        torch.testing.assert_close(causal.lm_head(states), expected, rtol=1e-5, atol=1e-6)


# The embedded model on stories


@pytest.fixture(scope="module")
def scored():
    """Log-probabilities of stories under the embedded model with an adapter, and its gradients, in both ways."""
    torch.manual_seed(0)
    model = models.load_model("smollm2-135m-instruct")
    tokenizer = models.load_tokenizer("smollm2-135m-instruct")
    policy = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"])).eval()
    for name, parameter in policy.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.01)
    with_fused_head(policy)
    corpus = read_corpus(held_out=0.0).groupby("prompt_id").head(2).head(4)
    template = load_profile("embedded").model.template
    prompts = [tokenizer(template.replace("{prompt}", prompt)).input_ids for prompt in corpus["prompt"]]
    texts = [tokenizer(text).input_ids[:64] for text in corpus["text"]]
    batch = tokenizer.pad(
        {"input_ids": [p + t for p, t in zip(prompts, texts, strict=True)]}, padding_side="right", return_tensors="pt"
    )
    response = batch["attention_mask"].bool() & (
        torch.arange(batch["input_ids"].shape[1]) >= torch.tensor([[len(p)] for p in prompts])
    )

    def run(bfloat16: bool):
        tokens = []
        with pytest.MonkeyPatch.context() as patch, fast_frozen_linears(policy, bfloat16=bfloat16):
            summed = logps._summed
            patch.setattr(logps, "_summed", lambda *args: tokens.append(args[0].detach()) or summed(*args))
            found = score_responses(policy, batch, response)
            parameters = [parameter for parameter in policy.parameters() if parameter.requires_grad]
            slopes = torch.autograd.grad((found.logps * torch.tensor([1.0, -1, 1, -1])).sum(), parameters)
        return SimpleNamespace(
            tokens=tokens[-1].double(),
            sums=found.logps.detach().double(),
            gradient=torch.cat([slope.flatten() for slope in slopes]).double(),
            row=found.row,
        )

    with torch.no_grad():
        logits = model(**batch).logits[response]
    depth = SEQUENTIAL * model.config.num_hidden_layers
    return SimpleNamespace(exact=run(False), rounded=run(True), depth=depth, spread=logits.std(dim=1).mean().item())


@needs_bfloat16
def test_log_probabilities_of_tokens_err_by_what_the_layers_roundings_give(scored):
    """A state errs by sqrt(depth) u of itself, and a log-probability by that share of the spread of logits."""
    errors = scored.rounded.tokens - scored.exact.tokens
    bound = scored.depth**0.5 * U * scored.spread
    assert 0.05 * bound < errors.square().mean().sqrt() < bound
    assert errors.abs().max() < 6 * bound  # of some 250 nearly normal ones, the largest is 3 to 4 times their size
    assert errors.mean().abs() < 4 * bound / len(errors) ** 0.5  # no bias


@needs_bfloat16
def test_log_probabilities_of_responses_and_margins_add_up_independent_errors(scored):
    tokens = scored.exact.row.bincount().double()
    bound = scored.depth**0.5 * U * scored.spread * tokens.sqrt()
    errors = scored.rounded.sums - scored.exact.sums
    assert (errors.abs() < 4 * bound).all()
    margins = errors[0::2] - errors[1::2]
    assert (margins.abs() < 4 * (bound[0::2] ** 2 + bound[1::2] ** 2).sqrt()).all()


@needs_bfloat16
def test_gradients_err_by_both_passes_and_the_losss_slope(scored):
    """Twice the depth of products, and slopes of tokens that change by the errors of their log-probabilities."""
    found, exact = scored.rounded.gradient, scored.exact.gradient
    bound = U * scored.depth**0.5 * (2 + scored.spread**2) ** 0.5
    assert (found - exact).norm() / exact.norm() < bound
    assert torch.cosine_similarity(found, exact, dim=0) > 1 - bound**2
    assert abs(found.norm() / exact.norm() - 1) < bound


# Training and sampling


def trainer(folder, bfloat16: bool, **options) -> DeviationTrainer:
    torch.manual_seed(0)
    policy = get_peft_model(tiny_model(), LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"]))
    settings = {"per_device_train_batch_size": 4, "learning_rate": 0.01, "logging_steps": 1, "use_cpu": True}
    config = DeviationConfig(
        str(folder), bfloat16_products=bfloat16, save_strategy="no", report_to="none", **settings, **options
    )
    return DeviationTrainer(policy, args=config, train_dataset=tiny_pairs(8), processing_class=tiny_tokenizer())


@needs_bfloat16
def test_a_trainer_rounds_its_products_and_its_references(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    losses, references = {}, {}
    for bfloat16 in (False, True):
        trained = trainer(tmp_path, bfloat16, num_train_epochs=2)
        trained.train()
        losses[bfloat16] = [entry["loss"] for entry in trained.state.log_history if "loss" in entry]
        references[bfloat16] = torch.tensor(trained.train_dataset["ref_chosen_logps"])
    assert losses[True] == pytest.approx(losses[False], rel=0.02)
    assert losses[True][1:] != losses[False][1:]
    assert not torch.equal(references[True], references[False])  # they are stored apart
    torch.testing.assert_close(references[True], references[False], rtol=0.02, atol=0)
    # the policy still is its reference where training starts, since both are rounded alike
    assert losses[True][0] == pytest.approx(losses[False][0], rel=1e-4)


@needs_bfloat16
def test_states_of_lower_layers_are_stored_apart(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert Trunk(tiny_model(), 1).version != Trunk(tiny_model(), 1, bfloat16=True).version


@needs_bfloat16
def test_an_engine_says_that_its_products_are_rounded():
    tokenizer = tiny_tokenizer()
    plain, rounded = (Local(tiny_model(), tokenizer, str, bfloat16=each).facts() for each in (False, True))
    assert rounded == plain | {"products": "bfloat16"}


# Where it is refused

MODEL = {"name": "any", "template": "{prompt}", "lora_r": 4, "lora_alpha": 8, "dtype": "float32"}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"lora_r": None, "lora_alpha": None}, "lora_r: null trains all weights"),
        ({"dtype": "bfloat16"}, "dtype: bfloat16 rounds all products"),
    ],
)
def test_a_profile_without_frozen_float32_weights_is_refused(change, why):
    assert Model(**MODEL, bfloat16_products=True).bfloat16_products
    with pytest.raises(ValidationError, match=f"bfloat16_products: {why}"):
        Model(**MODEL | change, bfloat16_products=True)


@needs_bfloat16
@pytest.mark.parametrize(
    "model",
    [nn.Linear(4, 4), nn.Linear(4, 4).requires_grad_(False).bfloat16(), nn.Linear(4, 4, device="meta")],
    ids=["trains", "another dtype", "another device"],
)
def test_models_without_frozen_float32_weights_on_the_cpu_are_refused(model):
    with pytest.raises(InputError, match="there are none"), fast_frozen_linears(model, bfloat16=True):
        pass


def test_a_processor_without_instructions_for_it_is_refused(monkeypatch):
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: False)
    with pytest.raises(InputError, match="neither AVX512_BF16 nor AMX"):
        use_onednn(nn.Linear(4, 4), bfloat16=True)


def test_vllm_is_refused(tmp_path):
    with pytest.raises(InputError, match="bfloat16_products: vLLM"):
        engines.open_trained(Model(**MODEL, bfloat16_products=True), tmp_path, "vllm")
