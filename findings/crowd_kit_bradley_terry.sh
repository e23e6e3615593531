#!/usr/bin/env bash
# crowd-kit 1.4.2: BradleyTerry stops after two iterations, whatever `n_iter` and `tol` are.
#
# Guess: a larger n_iter and a smaller tol bring the scores closer to the maximum of the likelihood.
# Truth: n_iter=2 and n_iter=10000 with tol=1e-12 give the same scores, to the last bit. The scores are far too close
#   to each other, and the best system can be another one. Nothing warns.
# Seen: where a beats b 3:1, b beats c 30:10 and a beats c 9:1, the scores have to be 9:3:1 (0.692, 0.231, 0.077);
#   crowd-kit gives 0.534, 0.356, 0.110. In a tournament of four, crowd-kit puts s2 first, the likelihood puts s0 first.
# Matters for: win rates of models from people's or a judge's comparisons.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet crowd-kit==1.4.2 attrs==26.1.0 numpy==2.4.6 pandas==3.1.1 scikit-learn==1.9.1
cd "$folder"
"$folder/venv/bin/python" -I - <<'PY'
import warnings

warnings.simplefilter("ignore")  # on import: not about the scores
import numpy as np
import pandas as pd
from crowdkit.aggregation import BradleyTerry


def fit(wins, **settings):
    rows = [("judge", i, j, i) for (i, j), times in wins.items() for _ in range(times)]
    table = pd.DataFrame(rows, columns=["worker", "left", "right", "label"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return BradleyTerry(**settings).fit_predict(table)


def likelihood(wins, scores):
    return sum(times * np.log(scores[i] / (scores[i] + scores[j])) for (i, j), times in wins.items())


def maximum(wins, names):
    """Scores at which every system's expected wins are its wins."""
    scores = dict.fromkeys(names, 1.0)
    for _ in range(20000):
        for i in names:
            won = sum(times for (winner, _), times in wins.items() if winner == i)
            games = [(pair[1] if pair[0] == i else pair[0], times) for pair, times in wins.items() if i in pair]
            scores[i] = won / sum(times / (scores[i] + scores[other]) for other, times in games)
    total = sum(scores.values())
    return pd.Series(scores) / total


three = {("a", "b"): 3, ("b", "a"): 1, ("b", "c"): 30, ("c", "b"): 10, ("a", "c"): 9, ("c", "a"): 1}
two_steps, many_steps = fit(three, n_iter=2), fit(three, n_iter=10000, tol=1e-12)
best = maximum(three, "abc")
assert (two_steps == many_steps).all(), (two_steps, many_steps)
assert np.allclose(many_steps[list("abc")], [0.5335, 0.3562, 0.1102], atol=1e-4), many_steps
assert np.allclose(best, [9 / 13, 3 / 13, 1 / 13], atol=1e-9), best

four = {(0, 1): 2, (0, 2): 2, (0, 3): 4, (1, 2): 2, (2, 1): 8, (2, 3): 3, (3, 0): 6, (3, 2): 1}
four = {(f"s{i}", f"s{j}"): times for (i, j), times in four.items()}
found, best_of_four = fit(four, n_iter=10000, tol=1e-12), maximum(four, ["s0", "s1", "s2", "s3"])
assert found.idxmax() == "s2" and best_of_four.idxmax() == "s0", (found, best_of_four)
assert likelihood(four, found) < likelihood(four, best_of_four) - 0.1

print("scores at n_iter=2 and at n_iter=10000:", *(s.round(3).to_dict() for s in (two_steps, many_steps)))
print("scores of the highest likelihood:", best.round(3).to_dict())
print("four systems:", found.round(3).to_dict(), "highest likelihood:", best_of_four.round(3).to_dict())
print("PASS: crowd-kit 1.4.2 BradleyTerry stops after two iterations")
PY
