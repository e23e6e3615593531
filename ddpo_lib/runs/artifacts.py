"""How each artifact of a run is made: the files of earlier steps -> the files of one folder. Its results are made by
`evaluations`, and the rounds of online arms by `online`.

Large libraries are imported inside the functions, so that checking which artifacts are stale is fast.
"""

import logging
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd

from ddpo_lib.base.errors import InputError
from ddpo_lib.base.files import write_json
from ddpo_lib.base.run_folder import Run
from ddpo_lib.data.corpus import PACKAGE_CORPUS, PACKAGE_PROMPTS
from ddpo_lib.measures.from_profile import fit_reward, space
from ddpo_lib.profiles.evaluation_settings import Baseline
from ddpo_lib.profiles.profile import Profile, prompts_of
from ddpo_lib.profiles.settings import Arm

log = logging.getLogger(__name__)


def make_corpus(profile: Profile, source: str, folder: Path, run: Run) -> None:
    from ddpo_lib.data.corpus import Limits, read_corpus
    from ddpo_lib.models import models

    data, model = profile.data, profile.model
    count_tokens = models.token_counter(model.name, model.revision, model.template)
    limits = Limits(data.max_prompts, data.max_responses, data.max_tokens, count_tokens, data.max_held_out)
    split = {"held_out": data.held_out, "seed": data.split_seed}
    table = read_corpus(source, **split, limits=limits, reddit=data.reddit)
    table.to_parquet(folder / "corpus.parquet")
    prompts_to_sample(profile, source, limits).to_parquet(folder / "prompts.parquet")
    report = {"source": None if source == str(PACKAGE_CORPUS) else Path(source).name, **table.attrs}
    write_json(folder / "report.json", report)


def prompts_to_sample(profile: Profile, source: str, limits) -> pd.DataFrame:
    """The held-out prompts of a corpus and those that the profile adds: `prompt_id prompt responses`.

    Prompts with responses come first. Arguments are as in `corpus.read_corpus`.
    """
    from ddpo_lib.data.corpus import read_prompts

    data = profile.data
    split = {"held_out": data.held_out, "seed": data.split_seed}
    known = read_prompts(source, **split, limits=limits, reddit=data.reddit)
    parts = [known[known["split"] == "test"]]
    if file := prompts_file(profile, source):
        alone = read_prompts(file, **split)
        alone = alone[~alone["prompt"].isin(known["prompt"])]
        parts.append(alone.assign(prompt_id="x" + alone["prompt_id"], responses=0))
    held_out = pd.concat(parts, ignore_index=True)[["prompt_id", "prompt", "responses"]]
    return held_out.sort_values("responses", key=lambda n: n == 0, kind="stable", ignore_index=True)


def prompts_file(profile: Profile, source: str) -> Path | None:
    """The file of held-out prompts that the profile adds to those of a corpus."""
    if profile.data.prompts != "package":
        return profile.data.prompts and Path(profile.data.prompts)
    return PACKAGE_PROMPTS if source == str(PACKAGE_CORPUS) else None


def held_out_prompts(profile: Profile, name: str, run: Run) -> pd.DataFrame:
    """The prompts, `prompt_id prompt`, for which an arm or baseline is sampled; "sweep": at other temperatures."""
    prompts = run.table("corpus", "prompts.parquet")[["prompt_id", "prompt"]]
    return prompts.head(prompts_of(profile, name) or len(prompts))


def make_vectors(profile: Profile, folder: Path, run: Run) -> None:
    """Write the vectors of every space, one row per response; `deviation.parquet`, the distances in every space and the
    weights of `semantic`, `style` and both; and `overlong.json`, how many texts are longer than a space reads."""
    from ddpo_lib.deviation.distances import mean_distance
    from ddpo_lib.deviation.equal_weights import describe_equal
    from ddpo_lib.deviation.weighting import weights
    from ddpo_lib.spaces.embed import count_overlong, embed

    corpus = run.table("corpus", "corpus.parquet")
    groups = corpus["prompt_id"].astype("category").cat.codes.to_numpy()
    table, overlong = corpus[["response_id"]].copy(), {}
    for name in profile.spaces.choices():
        vectors = embed(corpus["text"].tolist(), space(profile, name))
        np.save(folder / f"{name}.npy", vectors)
        table[name] = mean_distance(vectors, groups)
        overlong[name] = count_overlong(corpus["text"].tolist(), space(profile, name))
    for name, spaces in {"semantic": ["semantic"], "style": ["style"], "both": ["semantic", "style"]}.items():
        table[f"weight_{name}"] = weights([table[s].to_numpy() for s in spaces], groups)
    if equal := describe_equal(table["weight_both"].to_numpy(), groups):
        log.warning("%s", equal)
    table.to_parquet(folder / "deviation.parquet")
    write_json(folder / "overlong.json", overlong)


def make_pairs(profile: Profile, folder: Path, run: Run) -> None:
    from ddpo_lib.pairs.rules import make_pairs

    corpus = run.table("corpus", "corpus.parquet")
    try:
        pairs = make_pairs(corpus[corpus["split"] == "train"], profile.data.gap, profile.data.pair_seed)
    except InputError as error:
        raise InputError(f"{run.steps['corpus'].params['source']}: {error}") from None
    if not corpus["split"].eq("test").any():
        prompts = corpus["prompt_id"].nunique()
        raise InputError(
            f"no prompt is held out of {prompts} prompts with held_out={profile.data.held_out}; the text of a prompt "
            "decides. Give more prompts, or in a profile raise data.held_out or change data.split_seed"
        )
    if corpus[corpus["split"] == "test"].groupby("prompt_id").size().max() < 2:
        raise InputError(
            f"{run.steps['corpus'].params['source']}: no held-out prompt has two responses, which diversity "
            "needs; give prompts with several responses"
        )
    pairs.to_parquet(folder / "pairs.parquet")


def make_quality(profile: Profile, folder: Path, run: Run) -> None:
    corpus = run.table("corpus", "corpus.parquet")
    try:
        _, predicted, report = fit_reward(profile, corpus, folder)
    except InputError as error:
        raise InputError(f"{run.steps['corpus'].params['source']}: {error}") from None
    predicted.to_parquet(folder / "held_out.parquet")
    write_json(folder / "report.json", report)


def lacks_vllm(profile: Profile) -> bool:
    """Whether vLLM samples arms or a baseline of the profile, and is not installed."""
    engines = {profile.sampling.engine, *(baseline.engine for baseline in profile.baselines.values())}
    return "vllm" in engines and find_spec("vllm") is None


def make_sft(profile: Profile, seed: int, folder: Path, run: Run) -> None:
    from ddpo_lib.sampling.vllm_engine import MISSING
    from ddpo_lib.training.train import train_sft

    if lacks_vllm(profile):  # said before hours of training
        raise InputError(MISSING)
    corpus = run.table("corpus", "corpus.parquet")
    train = corpus[corpus["split"] == "train"]
    train_sft(train, profile.model, profile.sft, profile.data.max_tokens, profile.seed + seed, folder)


def make_arm(profile: Profile, arm: Arm, seed: int, folder: Path, run: Run) -> None:
    from ddpo_lib.measures.surprisal import mean_surprisal
    from ddpo_lib.pairs.arms import training_pairs, with_equal_steps
    from ddpo_lib.sampling.vllm_engine import MISSING
    from ddpo_lib.training.train import train_preferences

    if lacks_vllm(profile):
        raise InputError(MISSING)
    corpus, data = run.table("corpus", "corpus.parquet"), profile.data
    rows = (corpus["split"] == "train").to_numpy()
    train = corpus[rows].reset_index(drop=True)
    vectors = {name: np.load(run.path("vectors") / f"{name}.npy")[rows] for name in arm.spaces()}
    start = run.path(seeded("sft", seed)) / "trained" if arm.start == "sft" else None
    surprisal = mean_surprisal(train, profile.model, start) if arm.picks_by_probability() else None
    pairs = training_pairs(train, vectors, arm, data.gap, data.pair_seed + seed, surprisal)
    optimiser = profile.preference.dpo if arm.loss == "dpo" else profile.preference.orpo
    arm = with_equal_steps(arm, len(pairs), len(run.table("pairs", "pairs.parquet")), optimiser)
    settings = profile.model, profile.preference, profile.data.max_tokens, profile.seed + seed
    train_preferences(pairs, arm, start, *settings, folder)


def make_samples(profile: Profile, name: str, trained: str, seed: int, folder: Path, run: Run) -> None:
    from ddpo_lib.sampling.engines import open_trained
    from ddpo_lib.sampling.generate import generate
    from ddpo_lib.sampling.journal import remove_journal

    engine = open_trained(profile.model, run.path(trained) / "trained", profile.sampling.engine)
    journal = folder / "journal.jsonl"
    samples = generate(
        engine,
        held_out_prompts(profile, name, run),
        profile.sampling,
        profile.seed + seed,
        journal=journal,
    )
    samples.to_parquet(folder / "samples.parquet")
    remove_journal(journal)


def make_sweep(profile: Profile, trained: str, folder: Path, run: Run) -> None:
    from ddpo_lib.sampling.engines import open_trained
    from ddpo_lib.sampling.generate import generate
    from ddpo_lib.sampling.journal import remove_journal

    engine = open_trained(profile.model, run.path(trained) / "trained", profile.sampling.engine)
    prompts, parts = held_out_prompts(profile, "sweep", run), []
    for temperature in profile.evaluation.temperatures:
        sampling = profile.sampling.model_copy(update={"temperature": temperature})
        journal = folder / f"journal-{temperature}.jsonl"
        samples = generate(engine, prompts, sampling, profile.seed, journal=journal)
        parts.append(samples.assign(temperature=temperature))
    pd.concat(parts, ignore_index=True).to_parquet(folder / "samples.parquet")
    for temperature in profile.evaluation.temperatures:
        remove_journal(folder / f"journal-{temperature}.jsonl")


def make_baseline(profile: Profile, name: str, baseline: Baseline, folder: Path, run: Run) -> None:
    from ddpo_lib.sampling.engines import open_engine
    from ddpo_lib.sampling.generate import generate
    from ddpo_lib.sampling.journal import remove_journal

    engine = open_engine(baseline, profile.model)
    journal = folder / "journal.jsonl"
    asked = {"how": baseline.how, "instruction": baseline.instruction, "journal": journal}
    prompts = held_out_prompts(profile, name, run)
    samples = generate(engine, prompts, baseline.limited(profile.sampling), profile.seed, **asked)
    samples.to_parquet(folder / "samples.parquet")
    write_json(folder / "engine.json", engine.facts() | samples.attrs["answers"])
    remove_journal(journal)


def make_chapter(notebook: Path, profile: str, corpus: str | None, folder: Path, run: Run) -> None:
    from ddpo_lib.report.book import execute

    execute(notebook, folder, {"profile": profile, "corpus": corpus, "runs": str(run.folder.parent)})


def make_book(project: Path, chapters: tuple[str, ...], folder: Path, run: Run) -> None:
    from ddpo_lib.interactive.parts import assets
    from ddpo_lib.pages.finish import finish
    from ddpo_lib.pages.launch import buttons, make_downloadable, origin
    from ddpo_lib.report.book import build, write_downloads
    from ddpo_lib.report.kept_run import announcement, footer

    executed = [run.path(f"chapter-{stem}") / f"{stem}.ipynb" for stem in chapters]
    source, foot = origin(project), footer(run, project / "CITATION.cff")
    build(project, executed, folder, assets(), announcement(run), foot, buttons(source))
    html = folder / "_build" / "html"
    for notebook in (html / "_sources").glob("*.ipynb"):
        make_downloadable(notebook, source)
    write_downloads(run.folder, html / "_static")
    finish(html)


def seeded(name: str, seed: int) -> str:
    """An artifact's name for one of the profile's seeds; for the first, 0, it is the name itself."""
    return f"{name}-seed{seed}" if seed else name
