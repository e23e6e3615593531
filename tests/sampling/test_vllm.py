"""Arms sampled by vLLM: what is handed over, what is refused and when, and what differs from sampling here.

No machine of this project runs vLLM. `vllm_interface` has the signatures of 0.33.0 and its rules.
"""

import json
import sys
from importlib.util import find_spec
from pathlib import Path

import pandas as pd
import pytest
import torch
import vllm_interface
from tiny import save_model_and_adapter, tiny_model, tiny_tokenizer
from transformers import RepetitionPenaltyLogitsProcessor

from ddpo_lib.base.errors import InputError
from ddpo_lib.models.adapters import write_base
from ddpo_lib.profiles.profile import load_profile
from ddpo_lib.profiles.settings import Model, Sampling
from ddpo_lib.runs import artifacts
from ddpo_lib.runs.plan import _to_settle
from ddpo_lib.runs.steps import make_steps
from ddpo_lib.sampling.draws import penalise
from ddpo_lib.sampling.engines import Local, open_trained
from ddpo_lib.sampling.generate import generate
from ddpo_lib.sampling.rendering import fill_template
from ddpo_lib.sampling.vllm_engine import VLLM, lora_options

TEMPLATE = "{prompt} and "
GREEDY = Sampling(samples=2, max_new_tokens=12, top_k=1, repetition_penalty=1.0)  # the noise decides nothing
FREE = Sampling(samples=3, max_new_tokens=12)
ASKED = ["the cat", "a king ran near the door", "the old ship", "past a star"]
PROMPTS = pd.DataFrame({"prompt_id": list("abcd"), "prompt": ASKED})
VLLM_PROFILE = "extends: small\nname: mine\nsampling: {engine: vllm}\n"


@pytest.fixture
def installed(monkeypatch):
    for name, module in vllm_interface.modules().items():
        monkeypatch.setitem(sys.modules, name, module)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Model, Path]:
    """The settings of a model with an adapter, and the adapter."""
    base, adapter = save_model_and_adapter(tmp_path_factory.mktemp("trained"))
    tiny_tokenizer().save_pretrained(base)
    write_base(adapter, str(base), None, TEMPLATE)
    return Model(name=str(base), dtype="bfloat16", template=TEMPLATE, lora_r=4, lora_alpha=8), adapter


def profile_of(folder: Path, text: str):
    path = folder / "mine.yaml"
    path.write_text(text)
    return load_profile(path)


# What is handed over


def test_where_the_noise_decides_nothing_both_engines_write_the_same(installed, trained):
    """Tokens of the prompt, adapter, end token, count and reason are then equal. In float32, which the rule of 16 bits
    for adapters keeps from users."""
    model, adapter = trained
    here = open_trained(model.model_copy(update={"dtype": "float32"}), adapter)
    there = VLLM(model.name, adapter, fill_template(TEMPLATE), dtype="float32")
    expected, made = (generate(engine, PROMPTS, GREEDY, 0) for engine in (here, there))
    pd.testing.assert_frame_equal(made, expected)
    assert made["finished"].nunique() == 2  # some end by the end token, others at the limit
    base = generate(VLLM(model.name, render=fill_template(TEMPLATE), dtype="float32"), PROMPTS, GREEDY, 0)
    assert base["text"].tolist() != made["text"].tolist()


def test_a_whole_model_is_sampled_from_its_folder(installed, tmp_path):
    tiny_model(seed=3).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    model = Model(name="anything", dtype="float32", template=TEMPLATE, lora_r=None)
    engine = open_trained(model, tmp_path, "vllm")
    assert engine.lora is None and engine.facts()["model"] == tmp_path.name
    expected = generate(Local(tiny_model(seed=3), tiny_tokenizer(), fill_template(TEMPLATE)), PROMPTS, GREEDY, 0)
    pd.testing.assert_frame_equal(generate(engine, PROMPTS, GREEDY, 0), expected)


def test_a_sample_depends_on_its_prompt_its_number_and_the_seed_alone(installed, trained):
    model, adapter = trained
    engine = open_trained(model, adapter, "vllm")
    made = generate(engine, PROMPTS, FREE, 0)
    assert made.groupby("prompt_id")["text"].nunique().gt(1).all()
    fewer = generate(engine, PROMPTS.iloc[2:], FREE, 0)
    pd.testing.assert_frame_equal(fewer, made[made["prompt_id"] > "b"].reset_index(drop=True))
    assert generate(engine, PROMPTS, FREE, 1)["text"].tolist() != made["text"].tolist()


def test_an_interrupted_sampling_goes_on_with_the_same_samples(installed, trained, tmp_path):
    model, adapter = trained
    engine = open_trained(model, adapter, "vllm")
    whole = generate(engine, PROMPTS, FREE, 0, journal=tmp_path / "journal")
    lines = (tmp_path / "journal").read_text().splitlines(keepends=True)
    (tmp_path / "journal").write_text("".join(lines[:3]))
    pd.testing.assert_frame_equal(generate(engine, PROMPTS, FREE, 0, journal=tmp_path / "journal"), whole)


@pytest.mark.parametrize(("rank", "taken"), [(1, 1), (2, 8), (8, 8), (24, 32), (300, 320), (512, 512)])
def test_the_rank_is_rounded_up_to_one_that_vllm_takes(tmp_path, rank, taken):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": rank}))
    assert lora_options(tmp_path) == {"enable_lora": True, "max_lora_rank": taken}
    assert taken in vllm_interface.RANKS


# What is refused, and when


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"r": 513}, "has rank 513, and vLLM takes 512 at most; use the engine transformers"),
        ({"r": 8, "use_dora": True, "rank_pattern": {"q_proj": 4}}, "has rank_pattern, use_dora, which vLLM"),
        ({"r": 8, "modules_to_save": ["embed_tokens"]}, "has modules_to_save, which vLLM does not know"),
        ({"r": 8, "trainable_token_indices": [3]}, "has trainable_token_indices, which"),
        ({"r": 8, "bias": "all"}, "has bias, which"),
    ],
)
def test_parts_of_adapters_that_vllm_would_leave_out_are_refused_before_it_loads(installed, tmp_path, config, said):
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=said):
        VLLM("no-model-is-loaded", tmp_path)


def test_what_vllm_refuses_is_one_line(installed, trained, tmp_path):
    model, _ = trained
    engine = VLLM(model.name, render=fill_template(TEMPLATE), dtype="float32")
    long = pd.DataFrame({"prompt_id": ["a"], "prompt": ["cat " * 3000]})
    with pytest.raises(InputError, match=r"vLLM refuses a request \(The prompt \(length 3001\)") as error:
        generate(engine, long, GREEDY, 0)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("model: {dtype: float32}", "dtype: vLLM multiplies adapters in 16-bit formats only; use dtype: bfloat16"),
        ("model: {dtype: float32, bfloat16_products: true}", "bfloat16_products: vLLM has its own products"),
        ("sampling: {engine: server}", "sampling.engine"),
    ],
)
def test_a_profile_that_vllm_cannot_sample_as_it_trains_is_refused_when_it_opens(tmp_path, change, said):
    text = VLLM_PROFILE + change if change.startswith("model") else VLLM_PROFILE.replace("vllm}", "server}")
    with pytest.raises(InputError, match=said):
        profile_of(tmp_path, text)


def test_a_whole_model_may_be_float32_and_a_baseline_too(tmp_path):
    whole = "model: {dtype: float32, lora_r: null, lora_alpha: null, lora_targets: null, last_layers: null}\n"
    profile_of(tmp_path, VLLM_PROFILE + whole)
    profile_of(tmp_path, "extends: embedded\nname: mine\nbaselines: {plain: {engine: vllm}}\n")


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed")
@pytest.mark.parametrize("text", [VLLM_PROFILE, "extends: small\nname: mine\nbaselines: {plain: {engine: vllm}}\n"])
def test_without_vllm_no_training_begins_and_the_plan_says_so(tmp_path, text):
    profile = profile_of(tmp_path, text)
    said = "engine vllm: vLLM is not installed; `pip install vllm`"
    for make in (artifacts.make_sft, artifacts.make_arm):
        arm = [] if make is artifacts.make_sft else [profile.arms["dpo"]]
        with pytest.raises(InputError, match=said):
            make(profile, *arm, 0, tmp_path, None)
    assert any(sentence.startswith(said) for sentence in _to_settle(profile, [], "H100"))
    assert not any("vLLM" in sentence for sentence in _to_settle(load_profile("small"), [], "H100"))


# What the engine changes in a run


def test_the_engine_counts_where_arms_are_sampled_and_nowhere_else(tmp_path):
    """The default is not written, so that manifests and journals of runs without the field stay valid."""
    corpus = tmp_path / "c.jsonl"
    corpus.write_text("")
    online = "online: {again: {arm: {loss: dpo, start: sft}, prompts: 4, samples: 2, max_new_tokens: 8}}\n"
    both = "extends: small\nname: mine\nbaselines: {plain: {model: other/model}}\nevaluation: {temperatures: [0.5]}\n"
    here = make_steps(profile_of(tmp_path, both + online), str(corpus), False)
    there = make_steps(profile_of(tmp_path, both + online + "sampling: {engine: vllm}\n"), str(corpus), False)
    changed = {name for name in here if here[name].params != there[name].params}
    baselines = {f"samples-{name}" for name in profile_of(tmp_path, both).baselines}
    arms = {name for name in here if name.startswith(("samples-", "sweep-", "pool-"))} - baselines
    assert {"samples-sft", "sweep-dpo", "pool-again-1"} <= arms and "samples-plain" in baselines
    assert changed == arms
    for name in arms:
        assert "engine" not in here[name].params["sampling"]
        assert there[name].params["sampling"] == here[name].params["sampling"] | {"engine": "vllm"}


# The closed form on the page


def law(logits, said, prompt, sampling, ends):
    """The probabilities of `Local` and those of vLLM by the page's formula, before top-k and top-p."""
    ours = logits.clone()[None]
    penalise(ours, said[None], sampling.repetition_penalty, ends)
    here = (ours[0] / sampling.temperature).softmax(-1)
    theta = sampling.repetition_penalty
    cost = torch.where(logits > 0, (1 - 1 / theta) * logits, (theta - 1) * -logits)
    spared = torch.ones_like(logits, dtype=torch.bool)
    spared[prompt] = False
    spared[ends] &= ~torch.isin(ends, said)
    inside = said[~torch.isin(said, ends)]
    spared[inside] = True
    there = here * torch.exp(-cost.masked_fill(spared, 0) / sampling.temperature)
    return here, there / there.sum()


@pytest.mark.parametrize("theta", [1.0, 1.1, 1.5, 0.9])
def test_the_formula_on_the_page_leads_from_one_engines_probabilities_to_the_others(theta):
    torch.manual_seed(0)
    sampling = Sampling(repetition_penalty=theta, temperature=0.7)
    logits, prompt, said = 6 * torch.randn(40).double(), torch.tensor([1, 4, 9, 9, 20]), torch.tensor([9, 3, 30, 3])
    ends = torch.tensor([1, 2])  # the first is in the template
    here, there = law(logits, said, prompt, sampling, ends)
    counted = RepetitionPenaltyLogitsProcessor(theta)(torch.cat([prompt, said])[None], logits[None].clone())[0]
    torch.testing.assert_close(there, (counted / sampling.temperature).softmax(-1))
    assert torch.allclose(here, there) == (theta == 1)


def test_an_end_token_in_the_template_ends_fewer_texts():
    """The page's example: a logit of 20 and a penalty of 1.1 divide the odds of the end by exp(20 / 11) = 6.2."""
    logits = torch.tensor([20.0, 21.0, 19.0]).double()
    end = torch.tensor([0])
    here, there = law(logits, torch.tensor([0])[:0], end, Sampling(temperature=1.0), end)
    odds = [p[0] / (1 - p[0]) for p in (here, there)]
    assert (odds[0] / odds[1]).item() == pytest.approx(6.16, abs=0.01)
