"""A trainer whose frozen linear layers run as `frozen_linears` makes them."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from ddpo_lib.base.errors import InputError
from ddpo_lib.models.frozen_linears import fast_frozen_linears


class FastProducts:
    """For a trainer of transformers: frozen linear layers are fast in training, evaluation and references.

    So are those of a `ref_model`, which is frozen meanwhile. With FSDP or DeepSpeed they run as before: no process has
    a whole layer.
    """

    bfloat16_products = False

    @contextmanager
    def fast_products(self) -> Iterator[None]:
        """The context; another one within it changes nothing.

        Raises:
            InputError: `bfloat16_products` is set, and cannot apply.
        """
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            if self.bfloat16_products:
                raise InputError("bfloat16_products: FSDP and DeepSpeed divide the weights; leave the option out")
            yield
            return
        models, reference = [self.model], getattr(self, "ref_model", None)
        if reference is not None and not self.args.sync_ref_model:
            models.append(reference)
        elif reference is not None and self.bfloat16_products:
            raise InputError("bfloat16_products: a reference that changes is not frozen; leave out sync_ref_model")
        with frozen(*models[1:]), fast_frozen_linears(*models, bfloat16=self.bfloat16_products):
            yield

    def train(self, resume_from_checkpoint=None, trial=None, ignore_keys_for_eval=None):
        with self.fast_products():
            return super().train(resume_from_checkpoint, trial, ignore_keys_for_eval)

    def evaluation_loop(self, *args, **kwargs):
        with self.fast_products():
            return super().evaluation_loop(*args, **kwargs)


@contextmanager
def frozen(*models: nn.Module) -> Iterator[None]:
    """A context in which no parameter of the models is trained."""
    parameters = [parameter for model in models for parameter in model.parameters() if parameter.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
