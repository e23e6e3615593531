"""Settings of a preference training: TRL's `DPOConfig` with a choice of loss, and which of its options are refused."""

from dataclasses import dataclass, field
from math import ceil

from transformers import ProcessorMixin
from trl import DPOConfig

from ddpo_lib.models.models import device
from ddpo_lib.profiles.settings import Optimiser

_ONE_LOSS = "it belongs to TRL's own losses; here `loss` chooses the loss, and a `weight` column weights it"
REFUSED = {  # option of DPOConfig -> the only value that is taken, and why
    "loss_type": (["sigmoid"], _ONE_LOSS),
    "loss_weights": (None, _ONE_LOSS),
    "label_smoothing": (0.0, _ONE_LOSS),
    "ld_alpha": (None, _ONE_LOSS),
    "f_divergence_type": ("reverse_kl", _ONE_LOSS),
    "f_alpha_divergence_coef": (0.5, _ONE_LOSS),
    "use_weighting": (False, _ONE_LOSS),
    "discopop_tau": (0.05, _ONE_LOSS),
    "label_smoothing_factor": (0.0, "no preference loss uses it, in TRL neither"),
    "truncation_mode": ("keep_start", "no pair is ever cut: one over `max_length` tokens is an error"),
    "padding_free": (False, "batches have no padding where the model's attention allows it, without this option"),
    "use_liger_kernel": (False, "it replaces the parts of the model that packed batches pass through"),
    "liger_kernel_config": (None, "it goes with use_liger_kernel, which is refused"),
    "neftune_noise_alpha": (None, "its noise depends on a row's length, and a packed batch is one row"),
    "parallelism_config": (
        None,
        "packed sequences cannot be divided among devices; use FSDP or DeepSpeed",
    ),
}

MOVES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")  # how values of `init_lora_weights` begin
BASE_MOVED = (
    f"init_lora_weights: a start of {', '.join(MOVES_BASE)} changes the weights of the base, so the model without its "
    "adapter is no reference for DPO; use True, 'gaussian', 'orthogonal' or 'eva', or give the `ref_model`"
)

NOTHING_LEARNED = (
    "{rows} {what} make one step of training, and a warm-up begins with a learning rate of 0, so nothing would be "
    "learned; in the profile, set its warmup_steps to 0, lower its batch_size or raise its epochs"
)


@dataclass
class DeviationConfig(DPOConfig):
    """TRL's DPOConfig with a choice of loss. Without a GPU, training is in float32 by default.

    A pair with more than `max_length` tokens is an error; it is never cut. By default the reference's log-probabilities
    are computed once and stored. With `precompute_ref_log_probs=False` they are computed in every step, by a copy of
    the model as it is given if all of it is trained. Then data sets may be streamed, and `sync_ref_model` may be set.

    Raises:
        ValueError: a loss or variant that does not exist, `beta`, `policy_beta` or `lam` that is not positive and
            finite, an option of TRL's that these losses do not have (`REFUSED`), or `sync_ref_model` or `policy_beta`
            with ORPO, which has no reference.
    """

    loss: str = field(default="dpo", metadata={"help": '"dpo" or "orpo"; with a `weight` column DDPO or DORPO'})
    policy_beta: float | None = field(
        default=None, metadata={"help": "beta of the policy's log-probabilities, see losses.ddpo_loss; None: `beta`"}
    )
    lam: float = field(default=0.25, metadata={"help": "lambda, the weight of ORPO's odds-ratio term"})
    dorpo_variant: str = field(default="paper", metadata={"help": '"paper" or "released", see losses.dorpo_loss'})
    max_length: int | None = field(default=2048, metadata={"help": "most tokens of prompt and response"})
    train_sampling_strategy: str = field(default="group_by_length", metadata={"help": "see TrainingArguments"})
    precompute_ref_log_probs: bool = field(
        default=True, metadata={"help": "compute the reference's log-probabilities once, before training"}
    )
    bfloat16_products: bool = field(
        default=False, metadata={"help": "on a CPU, frozen weights are multiplied in bfloat16; see frozen_linears"}
    )

    def __post_init__(self):
        if self.loss not in ("dpo", "orpo"):
            raise ValueError(f'loss: expected "dpo" or "orpo", got {self.loss!r}')
        if self.dorpo_variant not in ("paper", "released"):
            raise ValueError(f'dorpo_variant: expected "paper" or "released", got {self.dorpo_variant!r}')
        for name in ("beta", "policy_beta", "lam"):
            value = getattr(self, name)
            if not ((name == "policy_beta" and value is None) or 0 < value < float("inf")):
                raise ValueError(f"{name}: expected a positive number, got {value}")
        if self.bf16 is None and device() == "cpu":
            self.bf16 = False  # TRL's default is bfloat16, which transformers refuses without a GPU
        super().__post_init__()
        for name, (value, why) in REFUSED.items():
            if getattr(self, name) != value:
                raise ValueError(f"{name}: {getattr(self, name)!r} is refused: {why}; leave it at {value!r}")
        if self.loss == "orpo":
            if self.policy_beta is not None:
                raise ValueError("policy_beta: ORPO has no reference to weigh against; leave it out")
            if self.sync_ref_model:
                raise ValueError("sync_ref_model: ORPO has no reference to synchronise; leave it at False")
            self.precompute_ref_log_probs = True  # TRL then loads no second model


def moves_base(model, args, peft_config) -> bool:
    """Whether an adapter's start takes something out of the base weights, where the reference should be the base.

    Unless a `ref_model` is given, the reference is the model without its adapter. With such a start that is not the
    model that was given. For a model that comes with an adapter, TRL adds a second one, whose start changes the base
    again (findings/trl_pissa_*.sh).
    """
    starts = [getattr(c, "init_lora_weights", "") for c in (peft_config, *getattr(model, "peft_config", {}).values())]
    return args.loss == "dpo" and any(str(start).startswith(MOVES_BASE) for start in starts)


def check_arguments(args, ref_model, processing_class, compute_metrics, trunk) -> None:
    """Raise a ValueError for an argument of TRL's `DPOTrainer` that does not fit these losses."""
    if not isinstance(args, DeviationConfig):
        raise ValueError(f"args: expected a DeviationConfig, which takes all of DPOConfig, got {type(args).__name__}")
    if args.activation_offloading and args.device.type == "cpu":
        raise ValueError("activation_offloading: on a CPU, activations are in its memory already; leave it at False")
    if isinstance(processing_class, ProcessorMixin):
        raise ValueError("processing_class: give the processor's `tokenizer`; this trainer does not read pictures")
    if ref_model is not None and args.loss == "orpo":
        raise ValueError("ref_model: ORPO has no reference; leave it out")
    if compute_metrics is not None and trunk is not None:
        raise ValueError("compute_metrics: it is given whole logits, which a model without its trunk cannot make")


def learns_nothing(rows: int, optimiser: Optimiser) -> bool:
    """Whether there is one step only, and it is the first of a warm-up, whose learning rate is 0."""
    batches = ceil(rows / (optimiser.batch_size * optimiser.devices))
    return optimiser.warmup_steps > 0 and ceil(ceil(batches / optimiser.accumulation) * optimiser.epochs) <= 1
