"""A judge's answers -> how far they depend on the order and agree with people, as text for a terminal."""

import numpy as np
import pandas as pd

from ddpo_lib.base.files import plain
from ddpo_lib.people.agreement import CODES, alpha, alpha_interval, count_labels, majority
from ddpo_lib.people.human_eval import SIDES
from ddpo_lib.people.judge import Judged
from ddpo_lib.people.two_way_intervals import crossed_ratio
from ddpo_lib.people.votes import QUESTIONS, analyse, exact


def describe_positions(table: pd.DataFrame, *, confidence: float) -> dict[str, dict]:
    """How far a judge's answers depend on the order, by question, over the items that it answered in both orders.

    Returns:
        By question: `items`; how many of them have the `same` arm in both orders, `always_left`, `always_right`, or a
        tie in either order (`with_tie`); `consistent`, the share of `same`, with its exact interval; `left`, the share
        of choices for the left side, with a tie as half, and its interval over items. A preference for an arm does not
        change `left`, since arms change sides within an item.
    """
    both = asked_twice(table)
    found = {}
    for question in QUESTIONS:
        sides = both.pivot(index="item", columns="first_side", values=f"{question}_side").reindex(columns=SIDES)
        one, other = (sides[side].to_numpy(dtype=str) for side in SIDES)
        tie = (one == "tie") | (other == "tie")
        same = int((~tie & (one != other)).sum())
        code = both[f"{question}_side"].map({"left": 1.0, "tie": 0.5, "right": 0.0}).to_numpy()
        judges = both["annotator"].to_numpy()
        left = crossed_ratio(code, 1.0, both["item"].to_numpy(), judges, confidence=confidence) if len(both) else None
        found[question] = {
            "items": len(sides),
            "same": same,
            "always_left": int(((one == "left") & (other == "left")).sum()),
            "always_right": int(((one == "right") & (other == "right")).sum()),
            "with_tie": int(tie.sum()),
            "consistent": _share(same, len(sides), confidence),
            "left": {end: float(getattr(left, end)) if left else None for end in ("mean", "low", "high")},
        }
    return plain(found)


def compare_with_people(
    judged: pd.DataFrame, people: pd.DataFrame, *, draws: int, confidence: float, seed: int
) -> dict[str, dict]:
    """How far a judge agrees with people, by question, over the items that both have.

    The judge's verdict is the arm that it names in both orders, else a tie. People's verdict is the answer of more than
    half of them, else a tie.

    Returns:
        By question: `items`; `same`, the share of items with the same verdict; `same_decided`, this share among the
        `decided` items, for which neither verdict is a tie; both with exact intervals. `alpha`, Krippendorff's, of the
        two verdicts, with its interval over items; `people_alpha`, that among people on these items.
    """
    both = asked_twice(judged)
    real = people[~people["attention"].astype(bool)]
    shared = sorted(set(both["item"]) & set(real["item"]))
    both, real = (table[table["item"].isin(shared)] for table in (both, real))
    found = {}
    for question in QUESTIONS:
        verdicts = both[question].map(CODES).groupby(both["item"]).agg(lambda codes: int(codes.sum() / 2))
        ours, theirs = verdicts.to_numpy(), majority(real, question).to_numpy()
        decided = (ours != 0) & (theirs != 0)
        counts = np.stack([(ours == code).astype(int) + (theirs == code) for code in CODES.values()], axis=1)
        found[question] = {
            "items": len(shared),
            "same": _share(int((ours == theirs).sum()), len(shared), confidence),
            "decided": int(decided.sum()),
            "same_decided": _share(int((decided & (ours == theirs)).sum()), int(decided.sum()), confidence),
            "alpha": alpha_interval(counts, draws=draws, confidence=confidence, seed=seed),
            "people_alpha": alpha(count_labels(real, question).to_numpy()),
        }
    return plain(found)


def describe(judged: Judged, people: pd.DataFrame, *, draws: int, confidence: float, seed: int) -> str:
    """A judge's answers as text for a terminal; `people` is a table of answers, empty if there are none."""
    from ddpo_lib.profiles.wording import interval, p_value

    counts, both = judged.counts, asked_twice(judged.table)
    lines = [
        f"a model's answers, not people's: {counts['answers']} of {counts['asked']} requests answered in the form; "
        f"cut at the token limit {counts['cut']}; without an answer on quality {counts['quality']}, on diversity "
        f"{counts['diversity']}{_describe_answers(counts)}"
    ]
    if both.empty:
        return "\n".join([*lines, "no item was answered in both orders"])
    settings = {"draws": draws, "confidence": confidence, "seed": seed}
    found, places = analyse(both, **settings), describe_positions(both, confidence=confidence)
    agreed = compare_with_people(both, people, **settings)
    items = len(found["items"])
    lines.append(
        f"{items} items answered in both orders; [{confidence:.0%} intervals] over items; p two-sided, then after Holm"
    )
    for question in QUESTIONS:
        score, place, said = found[question]["score"], places[question], agreed[question]
        lines.append(f"\n{question}")
        lines += [f"  {kind:<32}{interval(found[question][kind])}" for kind in ("first", "second", "tie")]
        p = ", ".join(p_value(score[kind]) or "—" for kind in ("p", "p_corrected"))
        lines.append(f"  {'first, a tie as half':<32}{interval(score)}   p {p}")
        lines.append(
            f"  {'the same arm in both orders':<32}{interval(place['consistent'])} exact; of {items}: always left "
            f"{place['always_left']}, always right {place['always_right']}, a tie in either {place['with_tie']}"
        )
        lines.append(f"  {'left side, a tie as half':<32}{interval(place['left'])}")
        if said["items"]:
            lines.append(
                f"  {'the verdict of people':<32}{interval(said['same'])} of {said['items']} items, "
                f"{interval(said['same_decided'])} of the {said['decided']} that both decided; alpha "
                f"{interval(said['alpha'], 2)}, people's among themselves {_number(said['people_alpha'])}"
            )
    return "\n".join(lines if agreed["quality"]["items"] else [*lines, "", "no person has answered these items yet"])


def _describe_answers(counts: dict) -> str:
    """What else there is to say of the answers; studies of before do not have these counts."""
    parts = [
        f"refused {counts['refused']}" if counts.get("refused") else "",
        f"only thoughts {counts['only_thoughts']}: raise --tokens" if counts.get("only_thoughts") else "",
        f"thoughts taken off {counts['thoughts']}" if counts.get("thoughts") else "",
        *(f"{number} drawn without {name}" for name, number in counts.get("left_out", {}).items()),
    ]
    return "".join(f"; {part}" for part in parts if part)


def _number(value: float | None) -> str:
    return "—" if value is None else f"{value:.2f}".replace("-", "−")


def asked_twice(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of items that were answered in both orders; a bias for a side does not change their arms' wins."""
    return table[table.groupby("item")["first_side"].transform("nunique") == len(SIDES)]


def _share(part: int, whole: int, confidence: float) -> dict:
    found = exact(part, whole - part, 0, confidence=confidence)
    return {end: found[end] for end in ("mean", "low", "high")}
