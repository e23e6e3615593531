"""How far products with frozen weights in bfloat16 move log-probabilities, gradients, margins and what is sampled.

All with the embedded model and stories of the package's corpus. The adapter, on all layers, is random: with it, the
policy is about as far from its reference as after training.
"""

import statistics
from functools import partial

from benchmarks.measure import Row, Sample, bfloat16_works, take_turns, timed
from benchmarks.training import MODEL, policy, stories

DEVIATION = 0.01  # standard deviation of the adapter's upper matrices


def rows(pairs: int = 8) -> list[Row]:
    """The table: errors against float32, in nats, and of gradients; nothing if the processor has no such products."""
    if not bfloat16_works():
        return []
    found = take_turns({"": partial(errors, pairs)}, repeats=1)[""][0].result
    what = f"products in bfloat16, {2 * pairs} stories of {found['tokens']:.0f} tokens on average: {{}}"
    lines = {
        "log-probability of a token (mean {mean:.2f})": "error {token:.3f} rms, {largest:.2f} at most, {bias:+.4f} on "
        "average",
        "log-probability of a story (mean {story:.0f})": "error {stories:.2f} rms",
        "margin of a pair, policy minus reference ({margin:.2f} rms)": "error {margins:.2f} rms",
        "gradient of the loss for the adapter": "cosine {cosine:.4f}, norm {norm:+.2%}",
        "distribution of the next token": "{divergence:.5f} nats of Kullback-Leibler divergence on average",
    }
    against = "float32 of the same build"
    return [
        Row(what.format(part.format(**found)), against, "", told.format(**found), "", None)
        for part, told in lines.items()
    ]


def errors(pairs: int) -> Sample:
    """Its result: by name, what `rows` writes."""
    import torch

    from ddpo_lib.models.frozen_linears import fast_frozen_linears
    from ddpo_lib.models.models import load_tokenizer
    from ddpo_lib.training.logps import with_fused_head
    from ddpo_lib.training.losses import ddpo_loss

    torch.set_num_threads(1)
    model = with_fused_head(policy().eval())
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=DEVIATION)
    columns, _ = stories(pairs)
    batches = [padded(load_tokenizer(MODEL), columns, row) for row in range(pairs)]
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]

    def measured(bfloat16: bool) -> list[dict]:
        found = []
        with fast_frozen_linears(model, bfloat16=bfloat16):
            for batch, response in batches:
                with torch.no_grad():
                    with model.disable_adapter():
                        reference = token_logps(model, batch, response)[1].sum(1)
                    distribution, tokens = token_logps(model, batch, response)
                logps = scored(model, batch, response)
                chosen, rejected = logps[:1], logps[1:]
                loss = ddpo_loss(chosen, rejected, reference[:1], reference[1:], torch.ones(1), 0.1).sum()
                gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)])
                ratios = logps.detach() - reference
                margin = (ratios[0] - ratios[1]).item()
                found.append(
                    {
                        "all": distribution,
                        "tokens": tokens,
                        "sums": logps.detach(),
                        "margin": margin,
                        "gradient": gradient,
                    }
                )
        return found

    return timed(lambda: compare(measured(False), measured(True), [response for _, response in batches]))


def compare(exact: list[dict], rounded: list[dict], responses: list) -> dict[str, float]:
    import torch

    def rms(values) -> float:
        return torch.as_tensor(values).double().square().mean().sqrt().item()

    both = list(zip(exact, rounded, responses, strict=True))
    token = torch.cat([(b["tokens"] - a["tokens"])[own[:, 1:]] for a, b, own in both])
    known = torch.cat([a["tokens"][own[:, 1:]] for a, _, own in both])
    divergence = [(a["all"].exp() * (a["all"] - b["all"])).sum(-1)[own[:, 1:]] for a, b, own in both]
    one, other = (sum(each["gradient"].double() for each in found) for found in (exact, rounded))
    return {
        "tokens": statistics.mean(float(own.sum()) / 2 for own in responses),
        "mean": known.mean().item(),
        "token": rms(token),
        "largest": token.abs().max().item(),
        "bias": token.mean().item(),
        "story": torch.cat([a["sums"] for a in exact]).mean().item(),
        "stories": rms(torch.cat([b["sums"] - a["sums"] for a, b, _ in both])),
        "margin": rms([a["margin"] for a in exact]),
        "margins": rms([b["margin"] - a["margin"] for a, b, _ in both]),
        "cosine": torch.cosine_similarity(one, other, dim=0).item(),
        "norm": (other.norm() / one.norm()).item() - 1,
        "divergence": torch.cat(divergence).mean().item(),
    }


def scored(model, batch: dict, response):
    """(2,) log-probabilities of a pair, with their gradient, as in training."""
    from ddpo_lib.training.logps import score_responses

    return score_responses(model, batch, response).logps


def token_logps(model, batch: dict, response):
    """(2, L - 1, V) log-probabilities of every token after a place, and (2, L - 1) of the story's own, else 0."""
    whole = model(**batch, use_cache=False).logits[:, :-1].log_softmax(-1)
    own = whole.gather(-1, batch["input_ids"][:, 1:, None])[..., 0]
    return whole, own * response[:, 1:]


def padded(tokenizer, columns: dict, row: int):
    """A pair as a batch of two rows, padded on the right, and where its responses are."""
    import torch

    start = len(tokenizer(columns["prompt"][row]).input_ids)
    ids = [
        [*tokenizer(columns["prompt"][row] + columns[side][row]).input_ids, tokenizer.eos_token_id]
        for side in ("chosen", "rejected")
    ]
    place = torch.arange(max(map(len, ids)))
    mask = torch.stack([place < len(own) for own in ids])
    padded = torch.tensor([own + [tokenizer.pad_token_id] * (len(place) - len(own)) for own in ids])
    return {"input_ids": padded, "attention_mask": mask.long()}, mask & (place >= start)


if __name__ == "__main__":
    from benchmarks.measure import table

    print(table(rows()))
