#!/usr/bin/env bash
# evalica 0.4.2: one system that never loses (or never wins) makes bradley_terry call all systems equal.
#
# Guess: the unbeaten system gets a very large score, or there is an error; the others keep their order.
# Truth: every system gets the score 1e-06, so every win probability is 0.5. The result says that it converged, after
#   2 of 100 iterations; a larger `limit` changes nothing, and nothing warns. `newman` gives the same scores. One loss
#   of the unbeaten system restores all scores.
# Seen: a beats b 5:0, a beats c 5:0, b beats c 4:1 -> a, b and c 1e-06. With one win of c over a: 4.71, 0.67, 0.32.
# Matters for: few comparisons per pair, where one arm often wins them all.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet evalica==0.4.2 numpy==2.4.6 pandas==3.1.1
cd "$folder"
"$folder/venv/bin/python" -I - <<'PY'
import warnings

import evalica
from evalica import Winner

warnings.simplefilter("error")


def fit(method, games, **settings):
    left, right = zip(*games, strict=True)
    return method(left, right, [Winner.X] * len(games), **settings)


games = [("a", "b")] * 5 + [("a", "c")] * 5 + [("b", "c")] * 4 + [("c", "b")]  # the first of a pair won
for solver in ("pyo3", "naive"):
    for limit in (100, 100_000):
        result = fit(evalica.bradley_terry, games, solver=solver, limit=limit)
        assert result.scores.to_dict() == {"a": 1e-6, "b": 1e-6, "c": 1e-6}, result
        assert result.iterations == 2, result
assert (fit(evalica.newman, games).scores == 1e-6).all()
assert (evalica.pairwise_frame(result.scores) == 0.5).all(axis=None)
shares = fit(evalica.average_win_rate, games).scores
assert shares["a"] > shares["b"] > shares["c"], shares

turned = [(loser, winner) for winner, loser in games]  # now a never wins
assert (fit(evalica.bradley_terry, turned).scores == 1e-6).all()

once_beaten = fit(evalica.bradley_terry, [*games, ("c", "a")]).scores
assert once_beaten["a"] > 4 > 1 > once_beaten["b"] > once_beaten["c"] > 0.3, once_beaten

print("a unbeaten:", result.scores.to_dict(), "iterations:", result.iterations)
print("a beaten once:", once_beaten.round(2).to_dict())
print("PASS: evalica 0.4.2 calls all systems equal where one is unbeaten or winless")
PY
