"""A laboratory of weights: a reader moves the responses of one prompt, or writes others, and sees their weights.

`laboratory.js` draws it. `weighting.js` computes weights as `ddpo_lib.deviation` does, and `counted_spaces.js` computes
the lexical and the stylometric vectors of `ddpo_lib.spaces.counted`.
"""

import html
import string

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.manifold import ClassicalMDS, smacof

from ddpo_lib.base.errors import InputError
from ddpo_lib.deviation import mean_distance, weights
from ddpo_lib.deviation.weighting import TIE
from ddpo_lib.interactive.parts import COUNTED, LABORATORY, WEIGHTING, part
from ddpo_lib.report import figures
from ddpo_lib.rewards.rules import cosine_distances
from ddpo_lib.spaces import counted

SPACES = ("semantic", "style")
MOST = 8  # responses at once
STEPS = 500  # of stress majorization; five to eight responses settle within 200
OPENING = 160  # characters of a response in the still form


def weights_laboratory(
    group: pd.DataFrame, vectors: dict[str, np.ndarray], models: dict[str, str], *, caption: str = ""
) -> str:
    """The laboratory as HTML, for a page beside a folder `_static/` that contains `parts.assets()`.

    Args:
        group: responses to one prompt, a row each: `prompt text score`; score is NaN if there is none.
        vectors: "semantic" and "style" -> (n, d) rows, as `group`'s.
        models: "semantic" and "style" -> the name of the space's model, for readers.
        caption: a sentence below the part.

    Returns:
        A `figure` element. Its still form shows the weights in the semantic space.

    Raises:
        InputError: there are fewer than 2 responses or more than 8.
    """
    if not 2 <= len(group) <= MOST:
        raise InputError(f"the laboratory shows 2 to {MOST} responses to a prompt, got {len(group)}")
    distances = {space: cosine_distances(vectors[space]) for space in SPACES}
    data = {
        "prompt": group["prompt"].iloc[0],
        "texts": group["text"].tolist(),
        "scores": [None if pd.isna(score) else float(score) for score in group["score"]],
        "models": models,
        "distances": {space: of.tolist() for space, of in distances.items()},
        "places": {space: np.round(place(of), 4).tolist() for space, of in distances.items()},
        "most": MOST,
        "tie": TIE,
        "counted": counted_norms(),
    }
    still = _still(group, distances["semantic"], vectors["semantic"])
    return part(LABORATORY.stem, data, still=still, caption=caption, scripts=(WEIGHTING.name, COUNTED.name))


def place(distances: np.ndarray) -> np.ndarray:
    """(n, 2) places in the plane whose distances are as near to the given (n, n) ones as can be.

    Classical scaling is the start, and stress majorization (SMACOF) lowers the sum of squared errors.
    """
    if not distances.any():
        return np.zeros((len(distances), 2))
    start = np.nan_to_num(ClassicalMDS(metric="precomputed").fit_transform(distances))  # NaN: an axis that is not there
    return smacof(distances, init=start, n_init=1, max_iter=STEPS, eps=0)[0]


def counted_norms() -> dict:
    """What `counted_spaces.js` needs to compute the lexical and the stylometric space: word lists and constants.

    The lists of numbers have one entry per column of the space, in the order of the vectors.
    """
    of_ngram = np.asarray(
        counted._ngram_counter().transform(map(counted.distort, counted._package_texts())).sum(axis=0)
    )
    rarity, mean = counted._word_norms()
    return {
        "functionWords": sorted(counted._function_words()),
        "digits": "".join(sign for sign in map(chr, range(0x110000)) if sign.isdigit() and not sign.isdecimal()),
        "ngrams": of_ngram.ravel().astype(int).tolist(),
        "ngramTotal": int(of_ngram.sum()),
        "rarity": np.round(rarity.idf_, 12).tolist(),
        "mean": np.round(mean, 11).tolist(),
        "lexical": counted.LEXICAL._asdict(),
        "stylometric": counted.STYLOMETRIC._asdict(),
        "own": counted.OWN,
    }


def _still(group: pd.DataFrame, distances: np.ndarray, vectors: np.ndarray) -> str:
    """The picture of the responses in the plane, of their weights, and the same in words."""
    ids = np.zeros(len(group), dtype=int)
    deviation = mean_distance(vectors, ids)
    weight = weights(deviation, ids)
    names = string.ascii_uppercase[: len(group)]
    far, near = int(deviation.argmax()), int(deviation.argmin())
    if weight.min() == weight.max():
        seen = "All deviations are equal, so every weight is 1."
    else:
        seen = (
            f"Response {names[far]} is farthest from the others: its deviation is {deviation[far]:.2f} and its weight "
            f"{weight[far]:.2f}. Response {names[near]} is closest to the others: its deviation is "
            f"{deviation[near]:.2f} and its weight {weight[near]:.2f}."
        )
    sentence = (
        f"Left: {len(group)} responses to the prompt “{group['prompt'].iloc[0]}”; close points are similar in meaning. "
        f"Lines lead from {names[far]} to the others; the mean of these distances is its deviation. "
        f"Right: deviation → weight. {seen} The weights sum to {len(group)}."
    )
    items = "".join(
        f"<li>{name}: {html.escape(_opening(text))}</li>" for name, text in zip(names, group["text"], strict=True)
    )
    figure = _draw(place(distances), deviation, weight, names, far)
    return f'{figures.picture(figure, alt=seen)}<p>{html.escape(sentence)}</p><ul class="ddpo-openings">{items}</ul>'


def _draw(places: np.ndarray, deviation: np.ndarray, weight: np.ndarray, names: str, far: int) -> plt.Figure:
    """Responses as dots with lines from the farthest one, and a bar for each weight."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.6, 3.6), gridspec_kw={"width_ratios": [1.4, 1]})
    share = (deviation - deviation.min()) / max(np.ptp(deviation), TIE)
    for other in range(len(places)):
        if other != far:
            left.plot(*zip(places[far], places[other], strict=True), color="#d55e00", lw=1, alpha=0.6, zorder=0)
    left.scatter(*places.T, s=60 + 180 * weight, c=deviation, cmap="cividis", zorder=2, clip_on=False)
    for i, (x, y) in enumerate(places):
        spot = {"xytext": (0, 13 + 4 * weight[i]), "textcoords": "offset points", "ha": "center"}
        left.annotate(names[i], (x, y), **spot)
    left.set_aspect("equal", adjustable="datalim")
    left.margins(0.25)
    left.set_xticks([])
    left.set_yticks([])
    for side in ("left", "bottom"):
        left.spines[side].set_visible(False)
    left.set_title(f"{len(places)} responses to one prompt", pad=32)
    order = np.argsort(weight)
    right.barh([names[i] for i in order], weight[order], color=plt.cm.cividis(share[order]))
    for row, i in enumerate(order):
        right.text(weight[i] + 0.05, row, f"{deviation[i]:.2f} → {weight[i]:.2f}", va="center")
    right.set_xlim(0, weight.max() * 1.55)
    right.set_xlabel("weight  (more influence in training →)")
    right.set_title("deviation → weight")
    figure.tight_layout()
    return figure


def _opening(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= OPENING else f"{line[:OPENING].strip()}…"
