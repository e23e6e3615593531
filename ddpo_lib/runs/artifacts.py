"""How each artifact of a run is made: the files of earlier steps -> the files of one folder.

Large libraries are imported inside the functions, so that checking which artifacts are stale is fast.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from ddpo_lib.base.errors import InputError
from ddpo_lib.base.files import write_json
from ddpo_lib.base.run_folder import Run
from ddpo_lib.data.corpus import PACKAGE_CORPUS, PACKAGE_PROMPTS
from ddpo_lib.measures.from_profile import fit_reward, load_reward, space
from ddpo_lib.profiles.profile import prompts_of, seeds_of, swept, twins
from ddpo_lib.profiles.settings import Arm, Baseline, Profile


def make_corpus(profile: Profile, source: str, folder: Path, run: Run) -> None:
    from ddpo_lib.data.corpus import Limits, read_corpus
    from ddpo_lib.models import models

    data, model = profile.data, profile.model
    count_tokens = models.token_counter(model.name, model.revision, model.template)
    limits = Limits(data.max_prompts, data.max_responses, data.max_tokens, count_tokens, data.max_held_out)
    table = read_corpus(source, held_out=data.held_out, seed=data.split_seed, limits=limits)
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
    known = read_prompts(source, held_out=data.held_out, seed=data.split_seed, limits=limits)
    parts = [known[known["split"] == "test"]]
    if file := prompts_file(profile, source):
        alone = read_prompts(file, held_out=data.held_out, seed=data.split_seed)
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
    table.to_parquet(folder / "deviation.parquet")
    write_json(folder / "overlong.json", overlong)


def make_findings(profile: Profile, folder: Path, run: Run) -> None:
    from ddpo_lib.evaluation.findings import collect_findings

    vectors = {name: np.load(run.path("vectors") / f"{name}.npy") for name in profile.spaces.choices()}
    settings = profile.evaluation
    options = {"draws": settings.bootstrap, "confidence": settings.confidence, "seed": profile.seed}
    corpus = run.table("corpus", "corpus.parquet")
    if corpus.groupby("prompt_id").size().max() < 2:
        source = run.steps["corpus"].params["source"]
        raise InputError(f"{source}: no prompt has two responses, and deviation needs two; give prompts with several")
    write_json(folder / "findings.json", collect_findings(corpus, vectors, gap=profile.data.gap, **options))


def make_maps(profile: Profile, arms: tuple[str, ...], folder: Path, run: Run) -> None:
    from ddpo_lib.data.corpus import EMPTY
    from ddpo_lib.report.explore import FEWEST, draw_prompts, make_points
    from ddpo_lib.spaces.embed import embed

    corpus = run.table("corpus", "corpus.parquet")
    if len(corpus) < FEWEST:
        source = run.steps["corpus"].params["source"]
        raise InputError(
            f"{source}: a map needs {FEWEST} responses or more, but only {len(corpus)} are left after cleaning"
        )
    rows = draw_prompts(corpus, seed=profile.seed)
    spaces = profile.spaces.choices()
    vectors = {name: np.load(run.path("vectors") / f"{name}.npy")[rows] for name in spaces}
    samples = {arm: run.table(f"samples-{arm}", "samples.parquet") for arm in arms}
    for made in samples.values():
        made["text"] = made["text"].replace("", EMPTY)
    made_vectors = {
        arm: {name: embed(made["text"].tolist(), space(profile, name)) for name in spaces}
        for arm, made in samples.items()
    }
    points = make_points(corpus.iloc[rows].reset_index(drop=True), vectors, samples, made_vectors, profile.seed)
    points.to_parquet(folder / "points.parquet")


def make_ranking(profile: Profile, folder: Path, run: Run) -> None:
    from ddpo_lib.data.corpus import read_corpus
    from ddpo_lib.evaluation.ranking import rank_sources

    data, settings = profile.data, profile.evaluation
    # a corpus of several sources may have no scores, so the reward is fitted on the package's own; the result says so
    reward, _, report = fit_reward(profile, read_corpus(held_out=data.held_out, seed=data.split_seed), folder)
    spaces = {name: space(profile, name) for name in ("semantic", "style")}
    options = {"confidence": settings.confidence, "seed": profile.seed}
    corpus = run.table("corpus", "corpus.parquet")
    ranked = rank_sources(corpus, reward, spaces, size=profile.sampling.samples, **options)
    write_json(folder / "ranking.json", {**ranked, "quality": report})


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


def make_sft(profile: Profile, seed: int, folder: Path, run: Run) -> None:
    from ddpo_lib.training.train import train_sft

    corpus = run.table("corpus", "corpus.parquet")
    train = corpus[corpus["split"] == "train"]
    train_sft(train, profile.model, profile.sft, profile.data.max_tokens, profile.seed + seed, folder)


def make_arm(profile: Profile, arm: Arm, seed: int, folder: Path, run: Run) -> None:
    from ddpo_lib.pairs.arms import training_pairs, with_equal_steps
    from ddpo_lib.training.surprisal import mean_surprisal
    from ddpo_lib.training.train import train_preferences

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

    engine = open_trained(profile.model, run.path(trained) / "trained")
    journal = folder / "journal.jsonl"
    samples = generate(
        engine,
        held_out_prompts(profile, name, run),
        profile.sampling,
        profile.seed + seed,
        journal=journal,
    )
    samples.to_parquet(folder / "samples.parquet")
    journal.unlink(missing_ok=True)


def make_sweep(profile: Profile, trained: str, folder: Path, run: Run) -> None:
    from ddpo_lib.sampling.engines import open_trained
    from ddpo_lib.sampling.generate import generate

    engine = open_trained(profile.model, run.path(trained) / "trained")
    prompts, parts = held_out_prompts(profile, "sweep", run), []
    for temperature in profile.evaluation.temperatures:
        sampling = profile.sampling.model_copy(update={"temperature": temperature})
        journal = folder / f"journal-{temperature}.jsonl"
        samples = generate(engine, prompts, sampling, profile.seed, journal=journal)
        parts.append(samples.assign(temperature=temperature))
    pd.concat(parts, ignore_index=True).to_parquet(folder / "samples.parquet")
    for journal in folder.glob("journal-*"):
        journal.unlink()


def make_baseline(profile: Profile, name: str, baseline: Baseline, folder: Path, run: Run) -> None:
    from ddpo_lib.sampling.engines import open_engine
    from ddpo_lib.sampling.generate import generate

    engine = open_engine(baseline, profile.model)
    journal = folder / "journal.jsonl"
    asked = {"how": baseline.how, "instruction": baseline.instruction, "journal": journal}
    prompts = held_out_prompts(profile, name, run)
    samples = generate(engine, prompts, baseline.limited(profile.sampling), profile.seed, **asked)
    samples.to_parquet(folder / "samples.parquet")
    write_json(folder / "engine.json", engine.facts())
    journal.unlink(missing_ok=True)


def make_evaluation(profile: Profile, folder: Path, run: Run) -> None:
    from ddpo_lib.data import seen_prompts
    from ddpo_lib.evaluation.compare_arms import GOLD, LENGTHS, describe_samples, draw_sets, score_by_prompt, summarise
    from ddpo_lib.evaluation.verdicts import decide_arms
    from ddpo_lib.measures.probes import probe

    corpus, settings, size = run.table("corpus", "corpus.parquet"), profile.evaluation, profile.sampling.samples
    arms, people = ["sft", *profile.arms], corpus[corpus["split"] == "test"]
    samples = {
        arm: pd.concat(
            [
                run.table(seeded(f"samples-{arm}", s), "samples.parquet").assign(seed=s)
                for s in range(seeds_of(profile, arm))
            ],
            ignore_index=True,
        )
        for arm in arms
    }
    samples |= {name: run.table(f"samples-{name}", "samples.parquet") for name in profile.baselines}
    tables = {GOLD: draw_sets(people, size, settings.gold_draws, profile.seed), **samples}
    spaces = {name: space(profile, name) for name in ("semantic", "style")}
    reward = load_reward(profile, run.path("quality"))
    by_prompt, shared = score_by_prompt(tables, reward, spaces, baseline=settings.against, to_match=[GOLD, *arms])
    by_prompt.to_parquet(folder / "by_prompt.parquet")
    compared = {"against": twins(profile), "confidence": settings.confidence}
    whole, matched, finished = (summarise(by_prompt[by_prompt["length"] == length], **compared) for length in LENGTHS)
    about = {arm: describe_samples(table) for arm, table in samples.items()}
    firsts = {arm: table[table["seed"] == 0] if "seed" in table else table for arm, table in samples.items()}
    firsts[GOLD] = people
    probes = {
        arm: probe(reward, table, confidence=settings.confidence, seed=profile.seed) for arm, table in firsts.items()
    }
    facts = {
        "matched": matched,
        "finished": finished,
        "samples": about,
        "seeds": {arm: seeds_of(profile, arm) for arm in arms},
        "smaller_gold_sets": int((people.groupby("prompt_id").size() < size).sum()),  # sets smaller than a model's
        "probes": probes,
    }
    results = whole | facts | shared
    # how many evaluation prompts the arms or the reward were trained on; the number must be 0
    # it is unknown if a model stayed on another machine; that is no reason to train it again
    models = {arm: run.folder / ("sft" if arm == "sft" else f"arm-{arm}") / "trained" for arm in arms}
    asked = {arm: samples[arm]["prompt"].unique() for arm in arms}
    results["seen"] = {arm: seen_prompts.count(models[arm], asked[arm]) for arm in arms}
    results["seen"]["reward"] = seen_prompts.count(run.path("quality"), pd.unique(np.concatenate(list(asked.values()))))
    results["claims"] = decide_arms(results, run.json("quality", "report.json"))
    write_json(folder / "results.json", results)


def make_fronts(profile: Profile, folder: Path, run: Run) -> None:
    from ddpo_lib.evaluation.compare_arms import score_sets, summarise_sweep

    prompts, parts = held_out_prompts(profile, "sweep", run)["prompt_id"], []
    for arm in swept(profile):
        once = run.table(f"samples-{arm}", "samples.parquet").assign(temperature=profile.sampling.temperature)
        once = once[once["prompt_id"].isin(prompts)]
        parts.append(pd.concat([once, run.table(f"sweep-{arm}", "samples.parquet")]).assign(arm=arm))
    spaces = {name: space(profile, name) for name in ("semantic", "style")}
    keys, reward = ["arm", "temperature", "prompt_id"], load_reward(profile, run.path("quality"))
    samples, settings = pd.concat(parts, ignore_index=True), profile.evaluation
    by_prompt = score_sets(samples, keys, reward, spaces)
    by_prompt.to_parquet(folder / "by_prompt.parquet")
    found = summarise_sweep(
        by_prompt,
        baseline=settings.against,
        temperature=profile.sampling.temperature,
        draws=settings.bootstrap,
        confidence=settings.confidence,
        seed=profile.seed,
    )
    # shares of samples that the token limit cut; samples at higher temperatures are longer
    found["cut"] = {
        arm: [{"temperature": t, "share": float((~part["finished"]).mean())} for t, part in of.groupby("temperature")]
        for arm, of in samples.groupby("arm", sort=False)
    }
    write_json(folder / "fronts.json", found)


def make_sharpness(profile: Profile, folder: Path, run: Run) -> None:
    """Write `by_set.parquet`, the headline measures of the arms that claims compare, by seed, prompt and number of
    samples, and `costs.json`, the seconds that these arms took."""
    from ddpo_lib.evaluation.compare_arms import score_sets
    from ddpo_lib.evaluation.published import claims_of

    claims = claims_of(twins(profile))
    arms = sorted({claim[side] for claim in claims for side in ("arm", "against")})
    samples = pd.concat(
        [
            run.table(seeded(f"samples-{arm}", seed), "samples.parquet").assign(arm=arm, seed=seed)
            for arm in arms
            for seed in range(seeds_of(profile, arm))
        ],
        ignore_index=True,
    )
    sizes = sorted({size for size in (2, 4, 8, 16) if size < profile.sampling.samples} | {profile.sampling.samples})
    parts = [samples[samples["sample"] < size].assign(samples=size) for size in sizes]
    spaces = {name: space(profile, name) for name in ("semantic", "style")}
    keys, reward = ["arm", "seed", "prompt_id", "samples"], load_reward(profile, run.path("quality"))
    by_set = score_sets(pd.concat(parts, ignore_index=True), keys, reward, spaces)
    by_set.to_parquet(folder / "by_set.parquet")
    seconds = {
        step: run.manifest(step)["seconds"]
        for arm in ("sft", *arms)
        for seed in range(seeds_of(profile, arm))
        for step in (seeded("sft" if arm == "sft" else f"arm-{arm}", seed), seeded(f"samples-{arm}", seed))
    }
    write_json(folder / "costs.json", seconds)


def make_chapter(notebook: Path, profile: str, corpus: str | None, folder: Path, run: Run) -> None:
    from ddpo_lib.report.book import execute

    execute(notebook, folder, {"profile": profile, "corpus": corpus, "runs": str(run.folder.parent)})


def make_book(project: Path, chapters: tuple[str, ...], folder: Path, run: Run) -> None:
    from ddpo_lib.report.book import build

    executed = [run.path(f"chapter-{stem}") / f"{stem}.ipynb" for stem in chapters]
    build(project, executed, folder)


def seeded(name: str, seed: int) -> str:
    """An artifact's name for one of the profile's seeds; for the first, 0, it is the name itself."""
    return f"{name}-seed{seed}" if seed else name
