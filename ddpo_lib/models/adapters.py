"""A trained folder knows what it was made from: its base model at an exact version, and the template of its prompts.

An adapter that is put on other weights of the same shapes gives text of some kind, and no error. So does a template
that the model was not trained with. Both are noted in `base.json` beside the weights, and checked before they are used.
"""

import json
import logging
from pathlib import Path

from ddpo_lib.base.errors import InputError
from ddpo_lib.base.files import write_json
from ddpo_lib.models.models import is_adapter, model_place
from ddpo_lib.models.versions import exact_version
from ddpo_lib.profiles.settings import Model

log = logging.getLogger(__name__)

FILE = "base.json"


def write_base(folder: Path, name: str, revision: str | None, template: str) -> None:
    """Write into a trained folder which model it was made from, and the template of the prompts that it learned from.

    Args:
        folder: of the adapter or of the whole model.
        name, revision: of the base model.
        template: with `{prompt}`.
    """
    write_json(folder / FILE, {"name": name, "version": exact_version(name, revision), "template": template})
    name_base(folder, name)


def name_base(folder: Path, name: str) -> None:
    """In what PEFT wrote beside an adapter, call the base model by its name, not by its place on this machine.

    The place of an embedded model is in the cache, which is in the user's home.

    Args:
        folder: of the adapter; a folder with a whole model has no such files.
        name: of the base model.
    """
    for file in map(folder.joinpath, ("adapter_config.json", "README.md")):
        if file.exists():
            text = file.read_text(encoding="utf-8")
            file.write_text(text.replace(str(model_place(name)), name), encoding="utf-8")


def check_base(folder: Path, name: str, revision: str | None = None) -> None:
    """Check that an adapter was trained on a model. A whole model needs no base, so any is right for it.

    An adapter that was not trained here names its base at most. If that is another name, a line in the log says so.

    Raises:
        InputError: the adapter was trained on another model, or on other weights in the same place. The message names
            both.
    """
    if not is_adapter(folder):
        return
    known = _read(folder)
    if known is None:
        _compare_names(folder, name)
        return
    version = exact_version(name, revision)
    if version != known["version"]:
        raise InputError(
            f"{folder}: is an adapter of {known['name']} ({_short(known['version'])}), not of {name} "
            f"({_short(version)}); give the profile that it was trained with, as in --profile mine.yaml"
        )


def check_template(folder: Path, template: str) -> None:
    """Check that a trained model learned from prompts in a template.

    Raises:
        InputError: it was trained with another template. The message names both.
    """
    known = _read(folder)
    if known is not None and known["template"] != template:
        raise InputError(
            f"{folder}: was trained with the template {known['template']!r}, not with {template!r}; give the profile "
            "that it was trained with, as in --profile mine.yaml"
        )


def layers_below(model: Model, base, start: Path | None = None) -> int:
    """The number of layers below the first that an adapter changes; the adapter is `start`, or a new one.

    Raises:
        InputError: more last layers than there are.
    """
    from peft import PeftConfig

    layers = number_of_layers(base)
    if (last := model.last_layers or layers) > layers:
        raise InputError(f"model.last_layers: {last} are more than the {layers} layers of {model.name}; give fewer")
    if start is not None and is_adapter(start):
        changed = PeftConfig.from_pretrained(str(start)).layers_to_transform
        return min([changed] if isinstance(changed, int) else changed or [0])
    return layers - last


def add_adapter(base, model: Model, **options):
    """The base with a new LoRA adapter, as a model of PEFT; `options` are those of `peft.get_peft_model`.

    Raises:
        InputError: no name of `lora_targets` matches a layer, or more last layers than there are. Names that match
            nothing beside others that do are told by a line in the log.
    """
    from peft import LoraConfig, get_peft_model

    below, layers = layers_below(model, base), number_of_layers(base)
    lora = LoraConfig(
        r=model.lora_r,
        lora_alpha=model.lora_alpha,
        target_modules=model.lora_targets,
        layers_to_transform=list(range(below, layers)) if model.last_layers else None,
        task_type="CAUSAL_LM",
    )
    try:
        policy = get_peft_model(base, lora, **options)
    except ValueError as error:  # no name matches, or PEFT does not know which layers an architecture has
        raise InputError(
            f"model.lora_targets: {str(error).splitlines()[0]} Choose from the linear layers of {model.name}: "
            f"{', '.join(linear_names(base))}"
        ) from error
    check_targets(policy)
    return policy


def continue_adapter(base, start: Path, model: Model, **options):
    """The base with the adapter of a folder, to be trained on; `options` are those of `PeftModel.from_pretrained`.

    Raises:
        InputError: as `check_targets`.
    """
    from peft import PeftModel

    policy = PeftModel.from_pretrained(base, str(start), is_trainable=True, **options)
    # its place on this machine, from which PEFT reads how large the vocabulary is; an embedded name is none of the hub
    policy.peft_config["default"].base_model_name_or_path = str(model_place(model.name))
    check_targets(policy)
    return policy


def check_targets(policy) -> None:
    """Check which modules a LoRA adapter has found: names or numbers of layers that match nothing are silent in PEFT.

    Args:
        policy: a model with an adapter, from PEFT.

    Raises:
        InputError: a layer of `layers_to_transform` that the model does not have, or an adapter outside these layers.
    """
    config, model = policy.peft_config["default"], policy.get_base_model()
    kind, found = type(model).__name__, policy.base_model.targeted_module_names
    number = number_of_layers(model)
    layers = config.layers_to_transform
    layers = [layers] if isinstance(layers, int) else list(layers or [])
    if beyond := [layer for layer in layers if not 0 <= layer < number]:
        raise InputError(f"layers_to_transform: {kind} has the layers 0 to {number - 1}, not {_listed(beyond)}")
    if elsewhere := [name for name in found if layers and _layer(name) not in layers]:
        raise InputError(f"layers_to_transform: {elsewhere[0]} got an adapter, and is in none of {_listed(layers)}")
    targets = config.target_modules
    names = set() if isinstance(targets, str) else set(targets)
    if unknown := sorted(n for n in names if not any(f".{module}".endswith(f".{n}") for module in found)):
        log.warning(
            "lora_targets: %s of %d names match no layer of %s: %s. Its linear layers are %s",
            *(len(unknown), len(names), kind, ", ".join(unknown), _listed(linear_names(model))),
        )


def number_of_layers(model) -> int:
    """Of its decoder, also in a model that reads more than text."""
    return model.config.get_text_config().num_hidden_layers


def linear_names(model) -> list[str]:
    """The names of a model's linear layers besides its head, each once: what `lora_targets` can choose from."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()
    layers = ((name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D))
    plain = (
        name
        for name, module in layers
        if module is not head and "lora_" not in name and "Router" not in type(module).__name__  # it gives a tuple
    )
    return sorted({name.removesuffix(".base_layer").rsplit(".", 1)[-1] for name in plain})


def _layer(module: str) -> int | None:
    """The number of the decoder layer that a module is in, by its name."""
    return next((int(part) for part in module.split(".") if part.isdigit()), None)


def _read(folder: Path) -> dict | None:
    file = folder / FILE
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None


def _compare_names(folder: Path, name: str) -> None:
    base = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8")).get("base_model_name_or_path")
    if base and base not in (name, str(model_place(name))):
        log.warning("%s: says that its base is %s, and is put on %s; no %s tells more", folder, base, name, FILE)


def _short(version: str) -> str:
    """A version with the first digits of its hash."""
    kind, _, digits = version.partition(" ")
    return f"{kind} {digits[:12]}"


def _listed(values: list) -> str:
    return ", ".join(map(str, values))
