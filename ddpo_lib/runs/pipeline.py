"""A profile and a corpus -> the steps of a run: its artifacts, and the artifacts that each is made from."""

import json
import re
from functools import cache, partial
from pathlib import Path

from ddpo_lib.base.code_keys import LIBRARY
from ddpo_lib.base.errors import InputError
from ddpo_lib.base.run_folder import Run, Step
from ddpo_lib.data.corpus import PACKAGE_CORPUS
from ddpo_lib.data.formats import is_hub_name
from ddpo_lib.profiles.profile import load_profile, prompts_of, seeds_of, swept, twins
from ddpo_lib.profiles.settings import MAIN_WORLD, Profile
from ddpo_lib.report.book import benchmark_files
from ddpo_lib.runs import artifacts, online
from ddpo_lib.runs.artifacts import seeded
from ddpo_lib.worlds import small_models

PROJECT = Path(__file__).parents[2]  # in a checkout it contains notebooks/ and book/
CHAPTERS = {  # notebook -> the artifacts that it reads besides the corpus
    "00a-welcome": ("vectors", "evaluation", "quality"),
    "00b-read-and-run": ("evaluation", "fronts", "findings", "maps", "online", "worlds"),
    "00c-method": ("vectors", "pairs"),
    "00d-data": ("vectors", "pairs", "quality"),
    "01-deviation-analysis": ("vectors", "findings", "maps"),
    "02-training": ("evaluation", "fronts", "quality", "pairs"),
    "02b-measures": ("evaluation", "quality"),
    "02a-sharpness": ("evaluation", "sharpness"),
    "02c-why-it-works": ("worlds", "vectors", "evaluation"),  # of the evaluation it reads only the settings
    "03-ablations": ("worlds", "vectors", "evaluation"),
    "04-divpo": ("vectors", "pairs", "evaluation", "quality", "worlds", "online"),
    "05-human-eval": ("evaluation",),
    "06-released-code": ("vectors", "pairs"),
    "07-inside": (),
}
ANNOTATED = "05-human-eval"  # the chapter that reads people's answers on a run's stories
INSIDE = "07-inside"  # the chapter that reads the library's source
KEPT = {  # a folder of results/ -> the profile, artifact and corpus from which it is made
    "deviation-captions": ("deviation", "findings", "newyorker_captions.jsonl"),
    "deviation-hanna": ("deviation", "findings", "hanna.jsonl"),
    "deviation-triplets": ("deviation", "findings", "creativity_triplets.jsonl"),
    "measures-hanna": ("deviation", "ranking", "hanna.jsonl"),
    "worlds": ("full", "worlds", None),
}
PARTS = 4  # processes among which the seeds of the worlds are divided
ALONE = "01-deviation-analysis"  # the chapter that needs no training


def open_run(profile: str = "embedded", corpus: str | None = None, folder: str | Path = "runs") -> Run:
    """The run of a profile on a corpus, with the artifacts that it has so far.

    Args:
        profile: a profile of the package, or a YAML file.
        corpus: a JSONL or Parquet file, or a hub data set; None for the profile's corpus, or else the package's.
        folder: the folder of all runs; this run is `folder/<profile>` or `folder/<profile>-<corpus>`.

    Raises:
        InputError: the profile is unknown or malformed, or the corpus file is missing.
    """
    settings = load_profile(profile)
    small_models.check_kinds(settings.worlds, f"profile {profile}")
    profile = str(Path(profile).resolve()) if Path(profile).suffix else profile
    source = source_of(settings, corpus)
    hub = is_hub_name(source)
    other = corpus and source != settings.data.source
    name = settings.name + (f"-{re.sub(r'[^A-Za-z0-9]+', '-', Path(source).stem).strip('-')}" if other else "")
    place = Path(folder).resolve() / name
    steps = _steps(settings, source, hub)
    if (PROJECT / "notebooks").is_dir():
        steps |= _book_steps(settings, profile, source, set(steps), annotations(place))
    return Run(place, steps)


@cache
def recipe(profile: str, artifact: str) -> str:
    """The key of an artifact of one of the package's profiles, from its code and settings alone, without a corpus."""
    return Run(Path("runs"), _steps(load_profile(profile), "", True)).key(artifact)


def is_current(name: str) -> bool:
    """Whether the code and settings that made a folder of results/ are those of this checkout."""
    file = PROJECT / "results" / name / "manifest.json"
    profile, artifact, _ = KEPT[name]
    made = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    return made.get("recipe") == recipe(profile, artifact)


def source_of(profile: Profile, corpus: str | None) -> str:
    """A run's corpus: a hub data set, or the absolute path of a file. None gives the profile's, or else the package's.

    Raises:
        InputError: the file is missing.
    """
    source = str(corpus or profile.data.source or PACKAGE_CORPUS)
    if is_hub_name(source):
        return source
    if not Path(source).is_file():
        raise InputError(f"{source}: no such file; give a JSONL or Parquet file, or a hub data set as owner/name")
    return str(Path(source).resolve())


def _steps(profile: Profile, source: str, hub: bool) -> dict[str, Step]:
    p = profile
    spaces = p.spaces.model_dump(include={"semantic", "style"})
    arms = ("sft", *p.arms) if p.arms else ()
    files = () if hub else (Path(source),)
    label = source if hub else Path(source).name
    data = p.data.model_dump(exclude={"source", "gap", "pair_seed"})
    steps = [
        Step(
            "corpus",
            partial(artifacts.make_corpus, p, source),
            params=data
            | {"source": label, "tokenizer": p.model.name, "revision": p.model.revision, "template": p.model.template},
            files=(*files, *filter(None, [artifacts.prompts_file(p, source)])),
        ),
        Step(
            "vectors",
            partial(artifacts.make_vectors, p),
            ("corpus",),
            {"spaces": p.spaces.model_dump()},
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
            partial(artifacts.make_findings, p),
            ("corpus", "vectors"),
            _settings(p, "bootstrap", "confidence") | {"seed": p.seed, "gap": p.data.gap},
        ),
        Step(
            "maps",
            partial(artifacts.make_maps, p, arms),
            ("corpus", "vectors", *(f"samples-{name}" for name in arms)),
            {"seed": p.seed, "spaces": p.spaces.model_dump()},
            job=True,
        ),
    ]
    steps.append(
        Step(
            "ranking",
            partial(artifacts.make_ranking, p),
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
        steps += _online_steps(p, spaces)
        steps += _world_steps(p)
    return {step.name: step for step in steps}


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
    return p.quality.model_dump() if p.quality.kind == "reward-model" else {"kind": p.quality.kind, "spaces": spaces}


def _training_steps(p: Profile, seed: int) -> list[Step]:
    """SFT, every arm and their samples, for one of the profile's seeds."""
    model = p.model.model_dump()
    training = {"model": model, "seed": p.seed + seed, "max_tokens": p.data.max_tokens}
    sft = seeded("sft", seed)
    make_sft = partial(artifacts.make_sft, p, seed)
    steps = [Step(sft, make_sft, ("corpus", "pairs"), training | {"optimiser": p.sft.model_dump()}, job=True)]
    trained_here = [name for name in ("sft", *p.arms) if seed < seeds_of(p, name)]
    for name in trained_here[1:]:
        arm = p.arms[name]
        optimiser = (p.preference.dpo if arm.loss == "dpo" else p.preference.orpo).model_dump()
        learned = arm.model_dump(exclude={"swept", "seeds", "prompts", "against"})
        chosen = {"arm": learned, "optimiser": optimiser, "beta": p.preference.beta, "lam": p.preference.lam}
        chosen |= {"gap": p.data.gap, "pair_seed": p.data.pair_seed + seed}
        inputs = ("corpus", "pairs", "vectors", *([sft] if arm.start == "sft" else []))
        make = partial(artifacts.make_arm, p, arm, seed)
        steps.append(Step(seeded(f"arm-{name}", seed), make, inputs, training | chosen))
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
                "model": p.model.name,
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
            partial(artifacts.make_evaluation, p),
            ("corpus", "quality", *samples, *baselines),
            settings | _settings(p, "against", "confidence", "gold_draws") | {"twins": twins(p)},
            unused=_other_reward(p),
            job=True,
        )
    )
    steps.append(
        Step(
            "sharpness",
            partial(artifacts.make_sharpness, p),
            ("corpus", "quality", *samples),
            {"spaces": spaces, "samples": p.sampling.samples, "twins": twins(p)},
            unused=_other_reward(p),
            job=True,
        )
    )
    if p.evaluation.temperatures:
        sweeps = tuple(f"{kind}-{name}" for kind in ("samples", "sweep") for name in swept(p))
        settings |= _settings(p, "against", "bootstrap", "confidence")
        make, inputs = partial(artifacts.make_fronts, p), ("corpus", "quality", *sweeps)
        steps.append(Step("fronts", make, inputs, settings, unused=_other_reward(p), job=True))
    return steps


def _online_steps(p: Profile, spaces: dict) -> list[Step]:
    """Rounds of arms that learn from their own samples, and their results."""
    if not p.online:
        return []
    model, steps, unused = p.model.model_dump(), [], _other_reward(p)
    common = {"model": model, "seed": p.seed}
    graders = {"quality": _quality_params(p, spaces), "seed": p.seed}
    make = partial(online.make_graders, p)
    steps.append(Step("graders", make, ("corpus",), graders, unused=unused, after=_embedded_by(p)))
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
            steps.append(Step(trained, make, (pool, start), params, unused=unused))
            start = trained
        drawn = {"model": model, "sampling": p.sampling.model_dump(), "seed": p.seed}
        drawn["prompts"] = prompts_of(p, name)
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
        make = partial(small_models.gather, p, rows)
        steps.append(Step(part, make, tuple(rows.values()), job=True))
    first = f"world-{MAIN_WORLD}-0"
    join = partial(small_models.join, p, parts, first)
    return [*steps, Step("worlds", join, (*parts, first), {"worlds": w.model_dump()}, job=True)]


def _book_steps(p: Profile, named: str, source: str, made: set[str], annotated: list[Path]) -> dict[str, Step]:
    """Executed chapters and the HTML; only in a checkout, which contains the notebooks. A chapter reads only artifacts
    in `made`, since a profile may lack some, such as those of online arms."""
    steps = []
    corpus = None if source == source_of(p, None) else source
    read = {ANNOTATED: annotated, INSIDE: sorted(LIBRARY.rglob("*.py"))}
    chapters = CHAPTERS if p.arms else {ALONE: CHAPTERS[ALONE]}
    outdated = [name for name in KEPT if not is_current(name)]  # pages show a warning for these
    for stem, inputs in chapters.items():
        notebook = PROJECT / "notebooks" / f"{stem}.md"
        params = {"profile": Path(named).name, "corpus": corpus and Path(corpus).name, "outdated": outdated}
        make = partial(artifacts.make_chapter, notebook, named, corpus)
        name = f"chapter-{stem}"
        inputs = ("corpus", *(name for name in inputs if name in made))
        files = (notebook, *_kept_results(), *read.get(stem, ()))
        steps.append(Step(name, make, inputs, params, files, notebook))
    if p.arms:
        pages = tuple(sorted(f for f in (PROJECT / "book").rglob("*") if f.is_file() and "_build" not in f.parts))
        files = (*pages, PROJECT / "_config.yml", *benchmark_files(PROJECT))
        executed = tuple(f"chapter-{stem}" for stem in CHAPTERS)
        steps.append(
            Step(
                "book",
                partial(artifacts.make_book, PROJECT, tuple(CHAPTERS)),
                executed,
                files=files,
                job=True,
            )
        )
    return {step.name: step for step in steps}


def annotations(place: Path) -> list[Path]:
    """The files of annotation studies in a run folder that the chapter reads: keys, and answers of people and judges.

    No step makes them. The logs and pages that Potato writes are not among them.
    """
    read = ("key.json", "study/annotation_output/*/user_state.json", "judge-*.parquet")
    return sorted(f for kind in read for f in (place / "annotations").glob(f"*/{kind}"))


def _kept_results() -> list[Path]:
    """Results that are stored with the project and that chapters read; not those from which only README is made."""
    return sorted(f for f in (PROJECT / "results").glob("*/**/*") if f.suffix in (".json", ".parquet"))
