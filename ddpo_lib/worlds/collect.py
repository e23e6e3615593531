"""Small models of all worlds and rows -> tables of their modes, and the exact probabilities of one model's modes."""

from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from ddpo_lib.base.files import write_json
from ddpo_lib.base.run_folder import Run
from ddpo_lib.data.corpus import held_out_prompts
from ddpo_lib.profiles.profile import Profile
from ddpo_lib.profiles.world_settings import MAIN_WORLD
from ddpo_lib.worlds import grammar, modes, modeworld
from ddpo_lib.worlds.small_models import BASE, CORPUS, MANY, SFT, TEMPLATE, sample, world_of


def gather(profile: Profile, rows: dict[tuple[str, int], str], folder: Path, run: Run) -> None:
    """One table of the measured modes of rows and worlds, and one of the modes during training of the traced rows.

    Args:
        rows: (name of a row, or "sft:" and the name of a world; seed) -> its artifact.
    """
    table, traces = [], []
    for (name, seed), artifact in rows.items():
        found = run.json(artifact, "modes.json")
        kind = name.removeprefix(SFT) if name.startswith(SFT) else profile.worlds.rows[name].world
        facts = {"row": name, "seed": seed, "world": kind}
        if name.startswith(SFT):
            table += [{**facts, **found["sft"]}, {**facts, "row": CORPUS + kind, **found["corpus"]}]
        else:
            about = {key: found[key] for key in ("pairs", "pressure", "zero_winners", "flawed_winners")}
            table.append({**facts, **about, **found["row"]})
            traces += [{**facts, **point} for point in found["trace"]]
    pd.DataFrame(table).to_parquet(folder / "modes.parquet")
    pd.DataFrame(traces, columns=None if traces else ["row"]).to_parquet(folder / "traces.parquet")


def join(profile: Profile, parts: list[str], first: str, folder: Path, run: Run) -> None:
    """Join the tables of `gather`; add the true shares of each world and the modes of the model that all start from.

    It also writes, for one prompt and the first model after SFT, the exact probability of every mode and its count
    among `MANY` samples.

    Args:
        parts: artifacts of `gather`.
        first: the artifact of the main world's first seed.
    """
    for file in ("modes.parquet", "traces.parquet"):
        pd.concat([run.table(part, file) for part in parts], ignore_index=True).to_parquet(folder / file)
    place, kinds = run.path(first), profile.worlds.kinds
    corpus = pd.read_parquet(place / "corpus.parquet")
    prompt = held_out_prompts(corpus)["prompt"].iloc[0]
    scored = score_modes(place / "trained", prompt, world_of(profile.worlds, MAIN_WORLD, 0))
    many = profile.worlds.model_copy(update={"samples": MANY})
    told = modes.read_modes(sample(place / "trained", corpus[corpus["prompt"] == prompt], many, 0))
    found = told[told["faithful"]].value_counts(list(grammar.Mode._fields))
    scored["sampled"] = found.reindex(pd.MultiIndex.from_frame(scored[found.index.names]), fill_value=0).to_numpy()
    scored.assign(prompt=prompt, samples=MANY).to_parquet(folder / "scored.parquet")
    write_json(folder / "settings.json", profile.worlds.model_dump())
    write_json(folder / "base.json", run.json(BASE, "modes.json"))
    write_json(folder / "truth.json", {kind: modes.true_shares(world_of(profile.worlds, kind, 0)) for kind in kinds})


def score_modes(trained: Path, prompt: str, world: modeworld.World) -> pd.DataFrame:
    """The exact probability of every mode under a model: the sum over all texts of the mode for one prompt.

    Args:
        trained: folder of a model of this world.
        prompt: one of the world's prompts.
        world: its plots and voices are scored.

    Returns:
        One row per mode: `plot voice flawed probability`. The probabilities sum to the share of the model's texts that
        can be read and are faithful to the prompt.
    """
    from ddpo_lib.measures.surprisal import sum_logps
    from ddpo_lib.models import models
    from ddpo_lib.training.logps import with_fused_head

    tokenizer, model = models.load_tokenizer(str(trained)), with_fused_head(models.load_model(str(trained)).eval())
    every = product(range(world.plots), range(world.voices), (False, True))
    rows = [(mode, text) for mode in (grammar.Mode(*m) for m in every) for text in grammar.wordings(prompt, mode)]
    asked = [TEMPLATE.replace("{prompt}", prompt)] * len(rows)
    probability = np.exp(sum_logps(model, tokenizer, asked, [text for _, text in rows])[0])
    scored = pd.DataFrame([mode for mode, _ in rows]).assign(probability=probability)
    return scored.groupby(list(grammar.Mode._fields), as_index=False)["probability"].sum()
