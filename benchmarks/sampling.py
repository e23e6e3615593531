"""Sampling four stories for each of 64 prompts with the embedded model: tokens a second, against stock `generate`.

Every contender uses the same model, prompts and settings. No text may end before the limit of new tokens, so all
contenders write the same number of tokens. The prompts are those of the package's corpus, repeated if it has fewer.
"""

import statistics
from functools import partial

from benchmarks.builds import SAMPLING, against_earlier, compared
from benchmarks.measure import Row, Sample, bfloat16_works, median_and_spread, table, take_turns, timed

MODEL = "smollm2-135m-instruct"
SAMPLES = 4
IN_BATCH = 16  # prompts of a stock batch, 64 sequences
IN_TURN = 8  # prompts that are taken one at a time


def rows(prompts: int = 64, new_tokens: int = 64, repeats: int = 3) -> list[Row]:
    """The table: ours against one prompt at a time, and against batches of 64 sequences."""
    methods = {"ours": ours, "in turn": in_turn, "in batches": in_batches}
    methods |= {"bfloat16": partial(ours, bfloat16=True)} if bfloat16_works() else {}
    samples = take_turns({name: partial(method, prompts, new_tokens) for name, method in methods.items()}, repeats)
    rates = {name: [sample.result / sample.seconds for sample in runs] for name, runs in samples.items()}

    def against(name: str, words: str, asked: float | None) -> Row:
        ratios = [our / their for our, their in zip(rates["ours"], rates[name], strict=True)]
        ratio, spread = median_and_spread(ratios, "{:.2f}x")
        measured = f"{ratio} ({statistics.median(rates['ours']):.0f} against {statistics.median(rates[name]):.0f})"
        met = None if asked is None else statistics.median(ratios) >= asked
        return Row(what, words, f"{asked:g}x tokens/s" if asked else "", measured, spread, met, note)

    what = f"sampling {prompts} prompts x {SAMPLES} with the embedded model, {new_tokens} new tokens each"
    taken = min(prompts, IN_TURN)
    note = (
        f"Of the {prompts} prompts, stock `generate` takes the first {taken} one at a time, or one batch, to be short."
    )
    rounded = {name: samples[name] for name in ("bfloat16", "ours") if name in samples}
    return [
        against("in turn", f"stock `generate`, one prompt at a time, {SAMPLES} sequences", 3),
        against("in batches", f"stock `generate`, {IN_BATCH * SAMPLES} sequences at a time", None),
        *(
            compared(f"{what}, products in bfloat16", "float32 of the same build", rounded)
            if rounded.get("bfloat16")
            else ()
        ),
        *against_earlier(what, SAMPLING.format(prompts=prompts, new_tokens=new_tokens), 2, repeats),
    ]


def ours(prompts: int, new_tokens: int, bfloat16: bool = False) -> Sample:
    return by_engine(*prepare(prompts, new_tokens), settings(new_tokens), bfloat16)


def by_engine(model, tokenizer, template: str, texts: list[str], chosen, bfloat16: bool = False) -> Sample:
    """By `generate.generate`, the engine ready; `result` is the number of new tokens."""
    import pandas as pd

    from ddpo_lib.sampling.engines import Local
    from ddpo_lib.sampling.generate import generate
    from ddpo_lib.sampling.rendering import fill_template

    engine = Local(model, tokenizer, fill_template(template), bfloat16=bfloat16)
    table = pd.DataFrame({"prompt_id": range(len(texts)), "prompt": texts})
    return timed(lambda: int(generate(engine, table, chosen, 0)["tokens"].sum()))


def in_turn(prompts: int, new_tokens: int) -> Sample:
    return stock(min(prompts, IN_TURN), new_tokens, 1)


def in_batches(prompts: int, new_tokens: int) -> Sample:
    return stock(min(prompts, IN_BATCH), new_tokens, IN_BATCH)


def stock(prompts: int, new_tokens: int, at_once: int) -> Sample:
    return by_generate(*prepare(prompts, new_tokens), settings(new_tokens), at_once)


def by_generate(model, tokenizer, template: str, texts: list[str], chosen, at_once: int) -> Sample:
    """By `model.generate`, with `at_once` prompts per call; `result` is the number of new tokens."""
    import torch

    drawn = {"temperature": chosen.temperature, "top_k": chosen.top_k, "top_p": chosen.top_p}

    def work() -> int:
        made = 0
        for start in range(0, len(texts), at_once):
            part = [template.replace("{prompt}", text) for text in texts[start : start + at_once]]
            batch = tokenizer(part, return_tensors="pt", padding=True).to(model.device)
            output = model.generate(
                **batch,
                do_sample=True,
                num_return_sequences=chosen.samples,
                repetition_penalty=chosen.repetition_penalty,
                max_new_tokens=chosen.max_new_tokens,
                pad_token_id=tokenizer.pad_token_id,
                **drawn,
            )
            made += output.shape[0] * (output.shape[1] - batch["input_ids"].shape[1])
        return made

    torch.manual_seed(0)
    return timed(work)


def prepare(prompts: int, new_tokens: int):
    """Model, tokenizer, template and the first prompts; the model is kept from ending a text before the limit."""
    from ddpo_lib.data.corpus import read_corpus
    from ddpo_lib.models import models
    from ddpo_lib.profiles.profile import load_profile

    model, tokenizer = models.load_model(MODEL), models.load_tokenizer(MODEL)
    model.generation_config.min_new_tokens = new_tokens
    texts = read_corpus(held_out=0.0).drop_duplicates("prompt_id")["prompt"].tolist()
    texts = [texts[i % len(texts)] for i in range(prompts)]
    return model, tokenizer, load_profile("embedded").model.template, texts


def settings(new_tokens: int):
    """The embedded profile's, the paper's but for the length."""
    from ddpo_lib.profiles.profile import load_profile

    return load_profile("embedded").sampling.model_copy(update={"samples": SAMPLES, "max_new_tokens": new_tokens})


if __name__ == "__main__":
    print(table(rows()))
