"""What a trained folder was made from, and which modules of a model an adapter finds."""

import json
import re

import pytest
from peft import LoraConfig, PeftModel, get_peft_model
from tiny import LAYERS, save_model_and_adapter, tiny_model, tiny_tokenizer
from transformers import Phi3Config, Phi3ForCausalLM

from ddpo_lib.base.errors import InputError
from ddpo_lib.measures.surprisal import mean_surprisal
from ddpo_lib.models.adapters import (
    add_adapter,
    check_base,
    check_targets,
    check_template,
    continue_adapter,
    layers_below,
    write_base,
)
from ddpo_lib.models.models import load_model, model_place
from ddpo_lib.profiles.settings import Model
from ddpo_lib.sampling.engines import open_trained

TEMPLATE = "{prompt} "


@pytest.fixture
def trained(tmp_path):
    """Folders of two models of one shape, and of an adapter that was trained on the first."""
    first, adapter = save_model_and_adapter(tmp_path)
    second = tmp_path / "second"
    tiny_model(seed=1).save_pretrained(second)
    for folder in (first, second):
        tiny_tokenizer().save_pretrained(folder)
    write_base(adapter, str(first), None, TEMPLATE)
    return first, second, adapter


def settings(name, template=TEMPLATE, **fields) -> Model:
    adapter = {"lora_r": 4, "lora_alpha": 8, "lora_targets": ["q_proj"]} | fields
    return Model(name=str(name), dtype="float32", template=template, **adapter)


def test_an_adapter_is_refused_on_another_base_of_the_same_shapes(trained):
    first, second, adapter = trained
    check_base(adapter, str(first))
    said = rf"{re.escape(str(adapter))}: is an adapter of \S+/model \(folder \w{{12}}\), not of \S+/second \(folder "
    for use in (
        lambda: check_base(adapter, str(second)),
        lambda: load_model(str(second), adapter),
        lambda: open_trained(settings(second), adapter),
        lambda: open_trained(settings(second), adapter, "vllm"),
    ):
        with pytest.raises(InputError, match=said) as error:
            use()
        assert "\n" not in str(error.value)


def test_an_adapter_of_an_embedded_model_says_nothing_of_this_machine(tmp_path):
    model = Model(**settings("smollm2-135m-instruct").model_dump() | {"last_layers": 1})
    policy = add_adapter(load_model(model.name), model)
    policy.save_pretrained(tmp_path)
    written = [tmp_path / "adapter_config.json", tmp_path / "README.md"]
    assert all(str(model_place(model.name)) in file.read_text() for file in written)  # so does PEFT
    write_base(tmp_path, model.name, None, TEMPLATE)
    assert not any(str(model_place(model.name)) in file.read_text() for file in written)
    assert json.loads(written[0].read_text())["base_model_name_or_path"] == model.name
    load_model(model.name, tmp_path)


def test_an_adapter_that_is_trained_on_asks_the_hub_nothing(tmp_path, monkeypatch):
    """When it saves an adapter, PEFT asks the hub for the base of that name, unless it finds a folder there."""
    model = Model(**settings("smollm2-135m-instruct").model_dump() | {"last_layers": 1})
    base = load_model(model.name)
    add_adapter(base, model).save_pretrained(tmp_path / "sft")
    write_base(tmp_path / "sft", model.name, None, TEMPLATE)
    asked = []
    monkeypatch.setattr("peft.utils.save_and_load.check_file_exists_on_hf_hub", lambda *names: asked.append(names))
    PeftModel.from_pretrained(load_model(model.name), tmp_path / "sft").save_pretrained(tmp_path / "plain")
    assert asked == [(model.name, "config.json")]
    policy = continue_adapter(load_model(model.name), tmp_path / "sft", model)
    policy.save_pretrained(tmp_path / "arm")
    assert len(asked) == 1
    assert any(parameter.requires_grad for parameter in policy.parameters())


def test_a_base_is_known_by_its_weights_and_not_by_its_place(trained, tmp_path):
    first, _, adapter = trained
    moved = first.rename(tmp_path / "elsewhere")
    load_model(str(moved), adapter)
    tiny_model(seed=2).save_pretrained(moved)
    with pytest.raises(InputError, match="is an adapter of"):
        load_model(str(moved), adapter)


def test_another_template_is_refused(trained):
    first, _, adapter = trained
    check_template(adapter, TEMPLATE)
    said = re.escape("was trained with the template '{prompt} ', not with 'Q: {prompt} A:'; give the profile")
    other = settings(first, template="Q: {prompt} A:")
    for use in (lambda: open_trained(other, adapter), lambda: mean_surprisal(None, other, adapter)):
        with pytest.raises(InputError, match=said):
            use()


def test_an_adapter_from_elsewhere_is_used_and_another_name_is_told(trained, caplog):
    first, second, adapter = trained
    (adapter / "base.json").unlink()
    check_base(adapter, str(first))
    assert not caplog.messages
    check_base(adapter, str(second))
    (line,) = caplog.messages
    assert re.match(r"\S+/adapter: says that its base is \S+/model, and is put on \S+/second", line)


def test_a_whole_model_needs_no_base(trained):
    first, second, _ = trained
    write_base(first, str(second), None, TEMPLATE)
    check_base(first, "gone")
    with pytest.raises(InputError, match="was trained with the template"):
        check_template(first, "{prompt}")


# Which modules an adapter finds

EMBEDDED = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]  # of the profile `embedded`


@pytest.fixture
def phi3():
    """Its projections are fused."""
    sizes = {"vocab_size": 23, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    return Phi3ForCausalLM(Phi3Config(**sizes, num_attention_heads=4, pad_token_id=0))


def test_names_that_match_nothing_are_told(phi3, caplog):
    add_adapter(phi3, settings("phi3", lora_targets=EMBEDDED))
    assert caplog.messages == [
        "lora_targets: 5 of 7 names match no layer of Phi3ForCausalLM: gate_proj, k_proj, q_proj, up_proj, v_proj. "
        "Its linear layers are down_proj, gate_up_proj, o_proj, qkv_proj"
    ]


def test_names_of_which_none_matches_are_an_error(phi3):
    with pytest.raises(InputError, match=r"model.lora_targets: .*: down_proj, gate_up_proj, o_proj, qkv_proj$"):
        add_adapter(phi3, settings("phi3", lora_targets=["q_proj"]))


def test_names_that_all_match_are_not_told(caplog):
    add_adapter(tiny_model(), settings("tiny", lora_targets=EMBEDDED, last_layers=2))
    assert not caplog.messages


def test_more_last_layers_than_there_are_is_an_error():
    assert layers_below(settings("tiny", last_layers=3), tiny_model()) == LAYERS - 3
    with pytest.raises(InputError, match=rf"model.last_layers: 9 are more than the {LAYERS} layers of tiny"):
        layers_below(settings("tiny", last_layers=9), tiny_model())


def test_the_layers_of_the_adapter_that_training_starts_from_decide(trained):
    """With the profile's last layers, the start's adapters below them would be left out without a word."""
    _, _, adapter = trained
    assert layers_below(settings("tiny", last_layers=1), tiny_model(), adapter) == 0


def test_a_layer_past_the_last_is_an_error():
    """PEFT passes it over."""
    lora = LoraConfig(target_modules=["q_proj"], layers_to_transform=[2, LAYERS], task_type="CAUSAL_LM")
    with pytest.raises(InputError, match=rf"LlamaForCausalLM has the layers 0 to {LAYERS - 1}, not {LAYERS}"):
        check_targets(get_peft_model(tiny_model(), lora))
