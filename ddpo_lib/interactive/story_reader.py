"""A part of a page: the samples of two or three arms for one prompt side by side, to read.

`story_reader.js` draws it. It marks words that only one arm uses. The measures by which it finds the prompt where arms
differ most are those of the evaluation.
"""

from collections.abc import Callable
from typing import Any

import pandas as pd

from ddpo_lib.base.files import plain
from ddpo_lib.evaluation.compare_arms import NO_SEED
from ddpo_lib.interactive.parts import arm_look, largest, pack, part

PAGE_BYTES = 1_000_000  # limit for the samples in a page
MEASURES = {  # column of the evaluation -> in words
    "semantic": "variety in meaning (the mean semantic distance between an arm's samples for the prompt)",
    "style": "variety in style (the mean style distance between an arm's samples for the prompt)",
    "quality": "quality (the mean {quality} of an arm's samples for the prompt)",
}


def page(
    samples: dict[str, pd.DataFrame],
    by_prompt: pd.DataFrame,
    *,
    chosen: tuple[str, ...],
    quality: str,
    more: str,
    still: str,
    caption: str,
) -> str:
    """The part as HTML, for a page beside a folder `_static/` that contains `parts.assets()`.

    Args:
        samples: by arm, one row per sample of the first seed: `prompt_id prompt sample text tokens finished`.
        by_prompt: of `compare_arms.score_by_prompt`, of whole samples.
        chosen: the two or three arms that are shown first.
        quality: the name of the measure of quality.
        more: the address of a file with all samples of the run.
        still: HTML for print and for readers without scripts.
        caption: a sentence below the part.

    Returns:
        HTML with at most 1 MB of samples. If there are more, it contains those for the first prompts only. If those for
        the first prompt alone do not fit, their texts are cut. The part says so.
    """
    rows = pd.concat([table.assign(arm=arm) for arm, table in samples.items()], ignore_index=True)
    rows["place"] = pd.factorize(rows["prompt_id"])[0]
    first_seed = by_prompt[by_prompt["seed"].isin((0, NO_SEED))]
    data = {
        "arms": [arm_look(arm) for arm in samples],
        "chosen": [list(samples).index(arm) for arm in chosen],
        "measures": [[words.partition(" (")[0], words.format(quality=quality)] for words in MEASURES.values()],
        "more": more,
        "of": rows["prompt_id"].nunique(),
    }

    def packed(prompts: int, longest: int | None = None) -> bytes:
        kept = rows[rows["place"] < prompts]
        return pack(plain(data | {"longest": longest} | _content(kept, first_seed, list(samples), longest)))

    fitted = _fit(packed, data["of"], int(rows["text"].str.len().max()))
    return part("story_reader", fitted, still=still, caption=caption)


def _content(rows: pd.DataFrame, by_prompt: pd.DataFrame, arms: list[str], longest: int | None) -> dict[str, Any]:
    """Prompts; by arm and prompt the stories, in the order of their samples; and by arm, measure and prompt a number.

    A story is its text, how it ended, and whether its text is cut to `longest` characters; None if there is none.
    """
    prompts = rows.drop_duplicates("place").set_index("prompt_id")["prompt"]
    stories = {
        key: [None] * (int(of["sample"].max()) + 1) for key, of in rows.groupby(["arm", "prompt_id"], sort=False)
    }
    for row in rows.itertuples():
        ended = "" if row.finished is None or row.finished else f"truncated at {row.tokens} tokens"
        cut = longest is not None and len(row.text) > longest
        stories[row.arm, row.prompt_id][row.sample] = [row.text[:longest], ended, int(cut)]
    measured = by_prompt.set_index(["arm", "prompt_id"])[list(MEASURES)]
    return {
        "prompts": prompts.tolist(),
        "stories": [[stories.get((arm, prompt), []) for prompt in prompts.index] for arm in arms],
        "measured": [
            measured.reindex([(arm, prompt) for prompt in prompts.index])[list(MEASURES)].T.to_numpy(float).tolist()
            for arm in arms
        ],
    }


def _fit(packed: Callable[..., bytes], prompts: int, longest: int) -> bytes:
    """Data with as many prompts as the limit admits; if it does not admit one, with texts as long as it admits."""
    limit = PAGE_BYTES * 3 // 4  # base64 needs four bytes for three
    most = largest(prompts, lambda number: len(packed(number)) <= limit)
    made = packed(most)
    return made if len(made) <= limit else packed(1, largest(longest, lambda cut: len(packed(1, cut)) <= limit))
