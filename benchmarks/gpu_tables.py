"""What was measured of every contender, by its name -> tables in Markdown, with the numbers asked of one GPU,
whether they are met, and whether the losses differ by more than noise.
"""

import statistics

import numpy as np

from benchmarks.gpu_sampling import EMBEDDING, SAMPLINGS
from benchmarks.gpu_shapes import SHAPES, Shape, stories
from benchmarks.gpu_training import AGAIN, AGAINST, OURS, STOCK, WARM, WEIGHTING
from benchmarks.measure import Row, table

SAME = 3  # times the noise by which losses may be apart
# dense bf16, FLOP/s, by the vendor's datasheets; a device that is not here gets no utilisation
PEAKS = {"NVIDIA H200": 989e12, "NVIDIA H100 80GB HBM3": 989e12, "NVIDIA A100-SXM4-80GB": 312e12}


def compared_losses(measured: dict) -> dict | None:
    """Root mean squares over steps: how far ours is from stock, and stock from itself with attention written out.

    The second is the noise: the same arithmetic in bfloat16, rounded elsewhere. `same` where the first is at most
    SAME times it; None where a contender is missing.
    """
    if any("losses" not in measured.get(name, {}) for name in (STOCK, AGAIN, OURS, "+ weights")):
        return None
    stock = np.array(measured[STOCK]["losses"])

    def apart(name: str) -> float:
        return float(np.sqrt(np.mean((np.array(measured[name]["losses"]) - stock) ** 2)))

    noise, found = apart(AGAIN), {name: apart(name) for name in (OURS, "+ weights")}
    return {"noise": noise, "apart": found, "same": all(value <= SAME * noise for value in found.values())}


def report(content: dict) -> str:
    """The tables in Markdown, with machine, date and versions."""
    hardware = content["hardware"]
    shape = SHAPES[content["shape"]]
    measured = content["measured"]
    _, lengths = stories(shape)
    told = [story for _, story in lengths]
    machine = hardware["gpu"] or f"{hardware['processor']}, {hardware['threads']} threads"
    return "\n".join(
        [
            f"## Training and sampling on {machine}",
            "",
            f"- {content['made']}, commit {content['commit']}; shape {content['shape']}",
            f"- {', '.join(f'{name} {version}' for name, version in content['versions'].items())}",
            f"- {shape.layers} layers of {shape.width}, LoRA r {shape.rank} on q and v, bfloat16, random weights; "
            f"{shape.pairs} pairs a step, {shape.steps} steps, {WARM} of them not counted; stories of {min(told)} to "
            f"{max(told)} tokens, median {statistics.median(told):.0f}",
            "",
            "### Training",
            "",
            training_table(measured, hardware["gpu"]),
            "Tokens are those of prompts and responses, without padding. Each row of DPO has what the one above has, "
            "and one thing more. Utilisation is of the dense bf16 peak, by the operations that the mathematics needs.",
            "",
            table(goals(measured)),
            *losses_told(measured),
            "",
            "### Sampling and embedding",
            "",
            sampling_table(measured, shape),
            *(f"- {name}: {made['failed']}" for name, made in measured.items() if "failed" in made),
            "",
        ]
    )


def training_table(measured: dict, gpu: str | None) -> str:
    lines = [
        "| what | real tokens/s | against stock | utilisation | peak memory | padding |\n|---|---|---|---|---|---|\n"
    ]
    for name in AGAINST:
        made, stock = measured.get(name, {}), measured.get(AGAINST[name], {})
        if "losses" not in made:
            continue
        speed = made["tokens_per_second"]
        ratio = f"{speed / stock['tokens_per_second']:.2f}x" if "losses" in stock else ""
        used = f"{speed * made['flops_per_token'] / PEAKS[gpu]:.0%}" if gpu in PEAKS else ""
        memory = f"{made['peak_bytes'] / 2**30:.1f} GiB"
        lines.append(f"| {name} | {speed:,.0f} | {ratio} | {used} | {memory} | {made['padding']:.0%} |\n")
    return "".join(lines)


def goals(measured: dict) -> list[Row]:
    """What was asked of one H200 with 8B parameters; rows whose contenders are there."""
    speed = {n: made["tokens_per_second"] for n, made in measured.items() if "losses" in made}
    rows = []
    with_, without = "+ batches of like length", "+ no checkpointing"
    for name, asked in ((with_, 7_000), (without, 10_000)):
        if name in speed:
            said = f"{asked:,} tokens/s"
            rows.append(Row(f"DDPO, {name}", "the clock", said, f"{speed[name]:,.0f}", "", speed[name] >= asked))
    if speed.keys() >= {with_, STOCK}:
        ratio = speed[with_] / speed[STOCK]
        rows.append(Row("DDPO with checkpointing", STOCK, "1.5x tokens/s", f"{ratio:.2f}x", "", ratio >= 1.5))
        ours, stock = (measured[name]["peak_bytes"] / 2**30 for name in (with_, STOCK))
        memory = f"{ours:.1f} against {stock:.1f} GiB"
        rows.append(Row("DDPO with checkpointing", STOCK, "peak memory not above", memory, "", ours <= stock))
    if with_ in speed and "seconds" in measured.get(WEIGHTING, {}):
        step = measured[with_]["step_seconds"]
        share = measured[WEIGHTING]["seconds"] / step
        rows.append(Row(WEIGHTING, "a step of ours", "under 1%", f"{share:+.4%}", "", share < 0.01))
    found = compared_losses(measured)
    if found:
        apart = ", ".join(f"{value:.2g} ({name})" for name, value in found["apart"].items())
        noise = f"{apart} apart; {STOCK} and the same with attention written out {found['noise']:.2g}"
        rows.append(Row("losses of DDPO", STOCK, f"at most {SAME}x bf16 noise apart", noise, "", found["same"]))
    return rows


def losses_told(measured: dict) -> list[str]:
    shown = {name: measured[name]["losses"] for name in (STOCK, OURS) if "losses" in measured.get(name, {})}
    return [f"- losses, {name}: {' '.join(f'{loss:.4f}' for loss in losses)}" for name, losses in shown.items()]


def sampling_table(measured: dict, shape: Shape) -> str:
    lines = ["| what | a second | against one prompt at a time | peak memory |\n|---|---|---|---|\n"]
    first = measured.get(next(iter(SAMPLINGS)), {}).get("tokens_per_second")
    for name in SAMPLINGS:
        made = measured.get(name, {})
        if "tokens_per_second" in made:
            speed = made["tokens_per_second"]
            ratio = f"{speed / first:.1f}x" if first else ""
            memory = f"{made['peak_bytes'] / 2**30:.1f} GiB" if "peak_bytes" in made else ""
            lines.append(f"| {name} | {speed:,.0f} tokens | {ratio} | {memory} |\n")
    made = measured.get(EMBEDDING, {})
    if "texts_per_second" in made:
        speed, memory = made["texts_per_second"], made["peak_bytes"] / 2**30
        lines.append(f"| {EMBEDDING} | {speed:,.0f} texts | | {memory:.1f} GiB |\n")
    return "".join(lines)
