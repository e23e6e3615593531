"""What the library uses of TRL, transformers and sentence-transformers that they do not promise to keep.

A new version that changes one of these fails its test here; the message says what it is used for and what to do.
"""

import ast
import importlib
import inspect
from pathlib import Path

import pytest
import torch
from tiny import tiny_model, tiny_pairs, tiny_tokenizer
from trl import DPOConfig, DPOTrainer

LIBRARY = Path(__file__).parents[2] / "ddpo_lib"
PRIVATE = ("trl.", "transformers.", "accelerate.", "sentence_transformers.", "peft.")

# name: (its parameters, or None for a class; where it is used, and what to do if it is gone)
IMPORTED = {
    "accelerate.utils.gather_object": (
        ["object"],
        "texts of all processes, which embed together (deviation_reward.py): torch.distributed.all_gather_object",
    ),
    "trl.trainer.utils.hash_module": (
        ["module"],
        "keys of reference log-probabilities and of stored states (reference.py, frozen_layers.py): hash names, dtypes "
        "and bytes of `state_dict` there; old entries are then computed again",
    ),
    "trl.trainer.utils.use_adapter": (
        ["model", "adapter_name"],
        "the reference of a PEFT policy (reference.as_reference): `model.set_adapter`, or `model.disable_adapter()`",
    ),
    "trl.trainer.utils.add_fused_lm_head": (
        ["model"],
        "log-probabilities without all logits (logps.with_fused_head): use TRL's new way to the same outputs, or take "
        "them from the logits of response tokens as `lm_head` does on a CPU",
    ),
    "trl.trainer.dpo_trainer.DataCollatorForPreference": (
        None,
        "the padded batch (batches.WeightedPairs): subclass the collator that DPOTrainer makes now",
    ),
    "trl.models.prepare_deepspeed": (
        ["model", "accelerator"],
        "reference log-probabilities under DeepSpeed (trainer._reference_logps): see DPOTrainer._precompute_ref_logps",
    ),
    "trl.kernels.chunked_logprob._use_triton": (
        None,
        "whether TRL's head runs in Triton (logps._score_packed): see how add_fused_lm_head chooses its kernel now",
    ),
    "transformers.trainer_pt_utils.LengthGroupedSampler": (
        None,
        "batches of similar length (batches._EpochSampler): see Trainer._get_train_sampler",
    ),
    "transformers.integrations.is_deepspeed_zero3_enabled": ([], "ZeRO-3 (trainer, train): see DPOTrainer"),
    "transformers.integrations.sdpa_attention.sdpa_attention_forward": (
        None,
        "attention of an ordinary batch (packing.packed_attention): see transformers' AttentionInterface",
    ),
    "transformers.masking_utils.AttentionMaskInterface": (
        None,
        "masks of packed batches (packing): see its docs",
    ),
    "transformers.masking_utils.sdpa_mask": (None, "masks of packed batches (packing): see AttentionMaskInterface"),
    "transformers.cache_utils.CacheLayerMixin": (None, "the sampler's cache (sampling/decoding.py): see DynamicCache"),
    "transformers.cache_utils.DynamicLayer": (None, "the sampler's cache (sampling/decoding.py): see DynamicCache"),
    "accelerate.utils.extract_model_from_parallel": (None, "models in wrappers (packing): unwrap `.module` in a loop"),
    "accelerate.utils.broadcast_object_list": (
        None,
        "the main process's references: see torch.distributed",
    ),
    "accelerate.utils.parse_flag_from_env": (None, "FSDP and DeepSpeed (train.py): read the environment variable"),
    "transformers.pytorch_utils.Conv1D": (None, "linear layers of GPT-2, in messages: see GPT-2's layers"),
    "peft.tuners.lora.Linear": (None, "frozen layers under LoRA: see where PEFT keeps its LoRA layers"),
    "sentence_transformers.util.load_file_path": (
        None,
        "a model's files in a folder or on the hub (encoders._file): huggingface_hub.hf_hub_download does the same",
    ),
    "sentence_transformers.sentence_transformer.modules.BoW": (None, "encoders.padded_lengths: see where it moved"),
    "sentence_transformers.sentence_transformer.modules.StaticEmbedding": (None, "encoders.padded_lengths: as BoW"),
    "sentence_transformers.base.modules.Transformer": (None, "encoders.pads_with_its_tokenizer: see where it moved"),
    "sentence_transformers.base.modules.Router": (None, "encoders.on_one_route: see where it moved"),
}

# a method of DPOTrainer or Trainer that is overridden or called: (its parameters, what to do if it has changed)
METHODS = {
    "_prepare_dataset": (
        ["self", "dataset", "processing_class", "args", "dataset_name"],
        "DeviationTrainer checks rows here and adds lengths: find where DPOTrainer makes `prompt_ids` and do it there",
    ),
    "_precompute_ref_logps": (
        ["self", "dataset", "name", "batch_size"],
        "DeviationTrainer takes stored reference log-probabilities here: find where DPOTrainer computes them",
    ),
    "compute_ref_log_probs": (
        ["self", "model", "inputs"],
        "DeviationTrainer scores packed batches here: see what calls it, and give the same (B,) pairs of sums",
    ),
    "_set_signature_columns_if_needed": (["self"], "adds `weight` to the columns that are kept: see the collator"),
    "_get_num_items_in_batch": (
        ["self", "batch_samples", "device"],
        "counts the pairs of all micro-batches: see how Trainer scales a loss for gradient accumulation",
    ),
    "_get_train_sampler": (["self", "train_dataset"], "the order of batches (batches.ByLength): see Trainer"),
    "_save_checkpoint": (["self", "model", "trial"], "marks checkpoints as whole (checkpoints.py): see Trainer"),
    "_get_output_dir": (["self", "trial"], "the folder of checkpoints (checkpoints.py): see Trainer._save_checkpoint"),
}

# an attribute of a DPOTrainer: (whether a value is as expected, what to do if it has changed)
ATTRIBUTES = {
    "_precompute_model_hash": (
        lambda value: isinstance(value, str) and len(value) == 64,
        "the key of stored reference log-probabilities: hash the reference with trl.trainer.utils.hash_module",
    ),
    "_precompute_engine": (
        lambda value: value is None,
        "DeepSpeed's engine: see _precompute_ref_logps",
    ),
    "precompute_ref_logps": (lambda value: value is True, "whether batches hold the reference's sums: see evaluate"),
    "_signature_columns": (
        lambda value: value is None or "prompt_ids" in value,
        "columns that are kept: see the collator",
    ),
    "_metrics": (
        lambda value: value["train"]["any"] == [] and value["eval"]["any"] == [],
        "what the next entry of the log averages (trainer._note): see DPOTrainer.log",
    ),
    "_total_train_tokens": (lambda value: value == 0, "tokens so far, for the log (trainer._note): see DPOTrainer.log"),
    "aux_loss_enabled": (lambda value: value is False, "a router's loss is refused: see DPOTrainer.__init__"),
    "_name": (lambda value: value == "DPO", "the method's name on the model card: see create_model_card"),
    "_paper": (lambda value: {"title", "id"} <= value.keys(), "the paper on the model card: see create_model_card"),
    "_tag_names": (lambda value: "trl" in value, "tags on the model card: see create_model_card"),
}


@pytest.mark.parametrize("name", IMPORTED)
def test_a_name_can_be_imported_with_its_parameters(name):
    parameters, remedy = IMPORTED[name]
    module, _, last = name.rpartition(".")
    found = getattr(importlib.import_module(module), last, None)
    assert found is not None, f"{name} is gone. It gives {remedy}"
    if parameters is not None:
        assert list(inspect.signature(found).parameters)[: len(parameters)] == parameters, f"{name} changed: {remedy}"


@pytest.mark.parametrize("name", METHODS)
def test_a_method_has_its_parameters(name):
    parameters, remedy = METHODS[name]
    found = getattr(DPOTrainer, name, None)
    assert found is not None, f"DPOTrainer.{name} is gone. {remedy}"
    assert list(inspect.signature(found).parameters) == parameters, f"DPOTrainer.{name} changed. {remedy}"


@pytest.fixture(scope="module")
def stock(tmp_path_factory) -> DPOTrainer:
    args = DPOConfig(
        str(tmp_path_factory.mktemp("out")), use_cpu=True, bf16=False, report_to="none", precompute_ref_log_probs=True
    )
    return DPOTrainer(tiny_model(), args=args, train_dataset=tiny_pairs(2), processing_class=tiny_tokenizer())


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_an_attribute_of_the_trainer_is_as_expected(name, stock):
    expected, remedy = ATTRIBUTES[name]
    assert hasattr(stock, name), f"DPOTrainer.{name} is gone. It gives {remedy}"
    assert expected(getattr(stock, name)), f"DPOTrainer.{name} is {getattr(stock, name)!r}. It gives {remedy}"


def test_a_loss_that_is_scaled_for_accumulation_is_not_scaled_again(stock):
    remedy = "DeviationTrainer divides by the pairs of all micro-batches itself: see Trainer.training_step"
    assert hasattr(DPOTrainer, "loss_is_scaled_for_ga"), remedy


def test_a_model_tells_its_attention_and_where_it_came_from(tmp_path):
    model = tiny_model()
    assert model.config._attn_implementation == "sdpa", "packing.can_pack reads it: see set_attn_implementation"
    assert model._can_set_attn_implementation(), "packing.can_pack asks it: see set_attn_implementation"
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    assert again.config._name_or_path == str(tmp_path), "reference.load_initial reads it: see get_config_model_id"


def test_a_config_tells_on_how_many_gpus_one_process_would_train(stock):
    stock.args._n_gpu = 1
    assert stock.args.n_gpu == 1, "train.stay_on_one_device sets it: see TrainingArguments.n_gpu"
    assert stock.args._n_gpu == 1


def test_the_head_of_trl_gives_log_probabilities_of_labels(stock):
    """logps._score_packed and score_responses read these outputs."""
    batch = stock.data_collator([stock.train_dataset[0]])
    labels = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, -100)
    with torch.no_grad():
        outputs = stock.model(input_ids=batch["input_ids"], labels=labels, fused_lm_head=True, use_cache=False)
        logits = stock.model(input_ids=batch["input_ids"]).logits
    expected = logits.log_softmax(-1)[:, :-1].gather(-1, batch["input_ids"][:, 1:, None])[..., 0]
    predicted = labels[:, 1:] != -100
    remedy = "add_fused_lm_head gives other outputs: change logps._fused, which reads them"
    assert {"log_probs", "entropy", "mean_logits", "is_top1"} <= {k for k, v in outputs.items() if v is not None}, (
        remedy
    )
    width = predicted.shape[1]
    torch.testing.assert_close(outputs.log_probs[:, -width:][predicted], expected[predicted], atol=1e-4, rtol=0)


def test_every_such_name_in_the_library_is_in_these_lists():
    """What is not in a package's own namespace is not promised."""
    found = set()
    for path in LIBRARY.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(PRIVATE):
                found |= {f"{node.module}.{alias.name}" for alias in node.names}
    unknown = sorted(found - IMPORTED.keys())
    assert not unknown, f"{unknown}: add each to IMPORTED, with what to do when it is gone"
    gone = sorted(IMPORTED.keys() - found)
    assert not gone, f"{gone}: the library uses it no more; take it out of IMPORTED"
