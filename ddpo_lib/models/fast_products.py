"""A trainer's frozen linear layers run as `frozen_linears` makes them."""

from contextlib import nullcontext

from ddpo_lib.base.errors import InputError
from ddpo_lib.models.frozen_linears import fast_frozen_linears


class FastProducts:
    """A trainer whose frozen linear layers run as `frozen_linears` makes them, from `train` to the end of `evaluate`.

    So do those of a `ref_model`, which is frozen. With FSDP or DeepSpeed they run as before: no process has a whole
    layer.
    """

    bfloat16_products = False

    def fast_products(self):
        """The context; another one within it changes nothing.

        Raises:
            InputError: `bfloat16_products` is set, and cannot apply.
        """
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            if self.bfloat16_products:
                raise InputError("bfloat16_products: FSDP and DeepSpeed divide the weights; leave the option out")
            return nullcontext()
        models = [self.model]
        reference = getattr(self, "ref_model", None)
        if reference is not None and not self.args.sync_ref_model:
            models.append(reference.requires_grad_(False))
        elif reference is not None and self.bfloat16_products:
            raise InputError("bfloat16_products: a reference that changes is not frozen; leave out sync_ref_model")
        return fast_frozen_linears(*models, bfloat16=self.bfloat16_products)

    def train(self, *args, **kwargs):
        with self.fast_products():
            return super().train(*args, **kwargs)

    def evaluation_loop(self, *args, **kwargs):
        with self.fast_products():
            return super().evaluation_loop(*args, **kwargs)
