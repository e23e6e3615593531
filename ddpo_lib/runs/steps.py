"""A profile and a corpus -> the steps that make a run's artifacts, in the order of the data flow."""

from functools import partial
from pathlib import Path

from ddpo_lib.base.errors import InputError
from ddpo_lib.base.run_folder import Step
from ddpo_lib.data.files import folder_parts
from ddpo_lib.domains.steps import domain_steps, program_steps
from ddpo_lib.models.versions import known_version
from ddpo_lib.profiles.evaluation_settings import Baseline
from ddpo_lib.profiles.profile import Profile, prompts_of, seeds_of, swept, twins
from ddpo_lib.profiles.settings import Section
from ddpo_lib.profiles.world_settings import MAIN_WORLD
from ddpo_lib.runs import artifacts, evaluations, online
from ddpo_lib.runs.artifacts import seeded
from ddpo_lib.spaces.embed import COUNTED
from ddpo_lib.worlds import collect, online_steps, reward_steps, small_models

PARTS = 4  # processes among which the seeds of the worlds are divided


def make_steps(profile: Profile, source: str, hub: bool) -> dict[str, Step]:
    """The steps of a profile on a corpus, by name; those of the book are in `pipeline`.

    Args:
        profile: its settings.
        source: the corpus, a file, a folder or a data set of the hub.
        hub: whether it is a data set of the hub.

    Raises:
        InputError: two artifacts would have one name, and so one folder.
    """
    p = profile
    all_spaces = {name: _versioned(choice, choice.model) for name, choice in p.spaces.choices().items()}
    spaces = {name: all_spaces[name] for name in ("semantic", "style")}
    arms = ("sft", *p.arms) if p.arms else ()
    files = () if hub else tuple(folder_parts(Path(source))) if Path(source).is_dir() else (Path(source),)
    data = p.data.model_dump(exclude={"source", "gap", "pair_seed"}) | {"source": source if hub else Path(source).name}
    steps = [
        Step(
            "corpus",
            partial(artifacts.make_corpus, p, source),
            params=data
            | {"tokenizer": p.model.name, "template": p.model.template}
            | {"version": known_version(p.model.name, p.model.revision)},
            files=(*files, *filter(None, [artifacts.prompts_file(p, source)])),
        ),
        Step(
            "vectors",
            partial(artifacts.make_vectors, p),
            ("corpus",),
            {"spaces": all_spaces},
            job=True,
        ),
        Step(
            "pairs",
            partial(artifacts.make_pairs, p),
            ("corpus",),
            {"gap": p.data.gap, "seed": p.data.pair_seed},
            job=True,
        ),
        Step(
            "quality",
            partial(artifacts.make_quality, p),
            ("corpus",),
            {"quality": _quality_params(p, spaces), "seed": p.seed},
            unused=_other_reward(p),
            job=p.quality.kind == "reward-model",  # it trains for hours, in parallel with the arms
            after=_embedded_by(p),
        ),
        Step(
            "findings",
            partial(evaluations.make_findings, p),
            ("corpus", "vectors"),
            _settings(p, "bootstrap", "confidence") | {"seed": p.seed, "gap": p.data.gap},
        ),
        Step(
            "maps",
            partial(evaluations.make_maps, p, arms),
            ("corpus", "vectors", *(f"samples-{name}" for name in arms)),
            {"seed": p.seed, "spaces": all_spaces},
            job=True,
        ),
    ]
    steps.append(
        Step(
            "ranking",
            partial(evaluations.make_ranking, p),
            ("corpus",),
            {"spaces": spaces, "quality": _quality_params(p, spaces), "seed": p.seed, "size": p.sampling.samples}
            | {"held_out": p.data.held_out, "split_seed": p.data.split_seed}
            | _settings(p, "confidence"),
            unused=_other_reward(p),
        )
    )
    if arms:
        for seed in range(p.seeds):
            steps += _training_steps(p, seed)
        steps += _evaluation_steps(p, spaces)
        steps += [*_online_steps(p, spaces), *_world_steps(p), *online_steps.make_steps(p)]
        steps += reward_steps.make_steps(p, PARTS)
        steps += [*domain_steps(p.domains, p.data.gap), *program_steps(p.programs, p.data.gap)]
    _check_distinct([step.name for step in steps], p.name)
    return {step.name: step for step in steps}


def _check_distinct(names: list[str], profile: str) -> None:
    known: dict[str, str] = {}
    for name in names:
        same = name.casefold()  # on macOS, folders whose names differ in case are one
        if same in known:
            raise InputError(
                f"profile {profile}: two artifacts would share one folder, {known[same]} and {name}; rename an arm, a "
                "baseline, an online arm or a row of the worlds"
            )
        known[same] = name


def _other_reward(p: Profile) -> tuple[str, ...]:
    """The module of the reward that the profile does not use."""
    return ("stand_in",) if p.quality.kind == "reward-model" else ("reward_model",)


def _embedded_by(p: Profile) -> tuple[str, ...]:
    """The job that embeds the corpus for the profile's reward, which finds the vectors in the cache."""
    return () if p.quality.kind == "reward-model" else ("vectors",)


def _settings(p: Profile, *names: str) -> dict:
    """These settings of the profile's evaluation."""
    return p.evaluation.model_dump(include=set(names))


def _quality_params(p: Profile, spaces: dict) -> dict:
    """The settings that the profile's reward depends on."""
    if p.quality.kind == "reward-model":
        return _versioned(p.quality, p.quality.base)
    return {"kind": p.quality.kind, "spaces": spaces}


def _versioned(section: Section, model: str) -> dict:
    """A section of the profile with the exact version of the model that it names; None: counted, or not known yet."""
    return section.model_dump() | {"version": None if model in COUNTED else known_version(model, section.revision)}


def _baseline_model(p: Profile, baseline: Baseline) -> dict:
    """The model of a baseline: its own, or the profile's before training."""
    if baseline.engine == "server":
        return {"name": baseline.model}  # what a server runs by that name is not known
    name, revision = (baseline.model, baseline.revision) if baseline.model else (p.model.name, p.model.revision)
    return {"name": name, "version": known_version(name, revision), "dtype": p.model.dtype}


def _training_steps(p: Profile, seed: int) -> list[Step]:
    """SFT, every arm and their samples, for one of the profile's seeds."""
    model = _versioned(p.model, p.model.name)
    training = {"model": model, "seed": p.seed + seed, "max_tokens": p.data.max_tokens}
    sft = seeded("sft", seed)
    make_sft = partial(artifacts.make_sft, p, seed)
    params = training | {"optimiser": p.sft.model_dump()}
    steps = [Step(sft, make_sft, ("corpus", "pairs"), params, job=True, devices=p.sft.devices)]
    trained_here = [name for name in ("sft", *p.arms) if seed < seeds_of(p, name)]
    for name in trained_here[1:]:
        arm = p.arms[name]
        optimiser = (p.preference.dpo if arm.loss == "dpo" else p.preference.orpo).model_dump()
        learned = arm.model_dump(exclude={"swept", "seeds", "prompts", "against"})
        chosen = {"arm": learned, "optimiser": optimiser, "beta": p.preference.beta, "lam": p.preference.lam}
        chosen |= {"gap": p.data.gap, "pair_seed": p.data.pair_seed + seed}
        inputs = ("corpus", "pairs", "vectors", *([sft] if arm.start == "sft" else []))
        make = partial(artifacts.make_arm, p, arm, seed)
        devices = optimiser["devices"]
        steps.append(Step(seeded(f"arm-{name}", seed), make, inputs, training | chosen, devices=devices))
    for name in trained_here:
        trained = seeded("sft" if name == "sft" else f"arm-{name}", seed)
        drawn = {"model": model, "sampling": p.sampling.model_dump(), "seed": p.seed + seed}
        drawn["prompts"] = prompts_of(p, name)
        make, made = partial(artifacts.make_samples, p, name, trained, seed), seeded(f"samples-{name}", seed)
        steps.append(Step(made, make, ("corpus", trained), drawn, job=True))
        if name in swept(p) and seed == 0:
            drawn = drawn | {"temperatures": p.evaluation.temperatures, "prompts": prompts_of(p, "sweep")}
            make = partial(artifacts.make_sweep, p, trained)
            inputs = ("corpus", trained)
            # the job that samples an arm has trained it
            steps.append(Step(f"sweep-{name}", make, inputs, drawn, job=True, after=(made,)))
    return steps


def _evaluation_steps(p: Profile, spaces: dict) -> list[Step]:
    """The samples of the baselines, and the evaluation of every arm's samples."""
    settings = {"spaces": spaces, "seed": p.seed}
    arms = ("sft", *p.arms)
    samples = tuple(seeded(f"samples-{name}", seed) for name in arms for seed in range(seeds_of(p, name)))
    baselines = tuple(f"samples-{name}" for name in p.baselines)
    steps = [
        Step(
            f"samples-{name}",
            partial(artifacts.make_baseline, p, name, baseline),
            ("corpus",),
            {
                "model": _baseline_model(p, baseline),
                "prompts": prompts_of(p, name),
                "baseline": baseline.model_dump(),
                "sampling": baseline.limited(p.sampling).model_dump(),
                "seed": p.seed,
            },
            job=True,
        )
        for name, baseline in p.baselines.items()
    ]
    steps.append(
        Step(
            "evaluation",
            partial(evaluations.make_evaluation, p),
            ("corpus", "quality", *samples, *baselines),
            settings | _settings(p, "against", "confidence", "gold_draws") | {"twins": twins(p)},
            unused=_other_reward(p),
            job=True,
        )
    )
    steps.append(
        Step(
            "sharpness",
            partial(evaluations.make_sharpness, p),
            ("corpus", "quality", *samples),
            {"spaces": spaces, "samples": p.sampling.samples, "twins": twins(p)},
            unused=_other_reward(p),
            job=True,
        )
    )
    if p.evaluation.temperatures:
        sweeps = tuple(f"{kind}-{name}" for kind in ("samples", "sweep") for name in swept(p))
        settings |= _settings(p, "against", "bootstrap", "confidence")
        make, inputs = partial(evaluations.make_fronts, p), ("corpus", "quality", *sweeps)
        steps.append(Step("fronts", make, inputs, settings, unused=_other_reward(p), job=True))
    return steps


def _online_steps(p: Profile, spaces: dict) -> list[Step]:
    """Rounds of arms that learn from their own samples, and their results."""
    if not p.online:
        return []
    model, steps, unused = _versioned(p.model, p.model.name), [], _other_reward(p)
    common = {"model": model, "seed": p.seed}
    graders = {"quality": _quality_params(p, spaces), "seed": p.seed}
    make = partial(online.make_graders, p)
    several = len(p.online) > 1  # a job of its own, so that no other holds a GPU while one makes the graders
    steps.append(Step("graders", make, ("corpus",), graders, unused=unused, job=several, after=_embedded_by(p)))
    for name, arm in p.online.items():
        start = "sft"
        for number in range(1, arm.rounds + 1):
            pool, trained = f"pool-{name}-{number}", f"round-{name}-{number}"
            params = common | {"sampling": p.sampling.model_dump(), "online": arm.model_dump(), "round": number}
            make = partial(online.make_pool, p, arm, number, start)
            steps.append(Step(pool, make, ("corpus", "graders", start), params, unused=unused))
            params = common | {"arm": arm.arm.model_dump(), "preference": p.preference.model_dump(), "spaces": spaces}
            params |= {"max_tokens": p.data.max_tokens, "round": number}
            make = partial(online.make_round, p, arm, number, start, pool)
            starts = dict.fromkeys([start, "sft"] if arm.reference == "fixed" else [start])
            steps.append(Step(trained, make, (pool, *starts), params, unused=unused))
            start = trained
        drawn = {"model": model, "sampling": p.sampling.model_dump(), "seed": p.seed, "prompts": prompts_of(p, name)}
        make = partial(artifacts.make_samples, p, name, start, 0)
        steps.append(Step(f"samples-{name}", make, ("corpus", start), drawn, job=True))
    made = [step.name for step in steps]
    make = partial(online.make_results, p)
    samples = tuple(f"samples-{name}" for name in online.offline(p))
    inputs = ("corpus", *samples, *made)
    return [*steps, Step("online", make, inputs, {"spaces": spaces}, unused=unused, job=True)]


def _world_steps(p: Profile) -> list[Step]:
    """Models in worlds of known modes. A process works through the rows of several seeds, one after another."""
    w, steps = p.worlds, []
    common = {"sft": w.sft.model_dump(), "samples": w.samples}
    preference = {"preference": w.preference.model_dump(), "gap": p.data.gap, "prompts": w.preference_prompts}
    made: list[dict] = [{} for _ in range(min(PARTS, w.seeds))]
    shape = {"layers": w.layers, "width": w.width, "pretraining": w.pretraining.model_dump()}
    shape |= {"kinds": w.kinds, "seeds": w.seeds}  # the held-out prompts of all worlds are left out of pretraining
    for flaw in small_models.flaws(w):
        base, make = small_models.base_of(flaw), partial(small_models.make_base, p, flaw)
        steps.append(Step(base, make, (), shape | {"flaw": flaw}, job=True))
    for seed in range(w.seeds):
        for kind, fields in w.kinds.items():
            name, make = f"world-{kind}-{seed}", partial(small_models.make_world, p, kind, seed)
            start = small_models.base_of(small_models.world_of(w, kind, seed).flaw)
            steps.append(Step(name, make, (start,), common | {"world": fields, "seed": seed}))
            made[seed % len(made)][small_models.SFT + kind, seed] = name
        for name, row in w.rows.items():
            start, artifact = f"world-{row.world}-{seed}", f"row-{name}-{seed}"
            make = partial(small_models.make_row, p, row, seed, start)
            params = preference | {"row": row.model_dump()} | ({"trace": w.trace} if row.traced else {})
            steps.append(Step(artifact, make, (start,), params))
            made[seed % len(made)][name, seed] = artifact
    parts = [f"worlds-part{i}" for i in range(len(made))]
    for part, rows in zip(parts, made, strict=True):
        make = partial(collect.gather, p, rows)
        steps.append(Step(part, make, tuple(rows.values()), job=True))
    first = f"world-{MAIN_WORLD}-0"
    join = partial(collect.join, p, parts, first)
    return [*steps, Step("worlds", join, (*parts, first), {"worlds": w.model_dump()}, job=True)]
