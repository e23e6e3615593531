#!/usr/bin/env bash
# scikit-learn 1.9.1: weighted kappa orders a scale of words by the alphabet, and closes the gap of an unused point.
#
# Guess: `cohen_kappa_score(a, b, weights="quadratic")` weighs by the distance of two ratings; ratings that are words
#   have no distance, so they raise an error; a point of the scale that nobody used changes nothing.
# Truth: the distance is that of the places among the values that occur, sorted. Of "low", "medium" and "high", "high"
#   is the lowest and "medium" the highest. If nobody gives a 3, then 2 and 4 are neighbours. Nothing warns. With
#   `labels=[...]`, in the scale's order, both are right.
# Seen: on the same ratings, 0.00 as words and 0.75 as numbers; 0.81 with 3 unused, 0.77 with the whole scale named.
# Matters for: the agreement of annotators, or of a person and a judge, on a scale.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet scikit-learn==1.9.1 numpy==2.4.6 scipy==1.17.1
cd "$folder"
"$folder/venv/bin/python" -I -W error - <<'PY'
import numpy as np
from sklearn.metrics import cohen_kappa_score


def by_hand(a, b):
    """Quadratic kappa of numbers: 1 - mean squared difference, over that of all pairs of a rating of each rater."""
    a, b = np.array(a), np.array(b)
    return 1 - ((a - b) ** 2).mean() / ((a[:, None] - b[None, :]) ** 2).mean()


scale = ["low", "medium", "high"]
one = ["low", "medium", "high", "high", "low", "medium"]
other = ["low", "high", "high", "medium", "low", "medium"]
numbers = [[scale.index(word) for word in words] for words in (one, other)]
as_words = cohen_kappa_score(one, other, weights="quadratic")
as_numbers = cohen_kappa_score(*numbers, weights="quadratic")
named = cohen_kappa_score(one, other, weights="quadratic", labels=scale)
assert abs(as_words) < 1e-9 and np.isclose(as_numbers, by_hand(*numbers)) and np.isclose(named, as_numbers)

a, b = [1, 2, 2, 4, 4, 5, 1, 5, 2, 4], [1, 2, 4, 4, 2, 5, 2, 5, 1, 4]
unused = cohen_kappa_score(a, b, weights="quadratic")
whole = cohen_kappa_score(a, b, weights="quadratic", labels=[1, 2, 3, 4, 5])
assert np.isclose(whole, by_hand(a, b)) and unused - whole > 0.03, (unused, whole)

print(f"words: {as_words:.2f}; the same as numbers: {as_numbers:.2f}; words with labels named: {named:.2f}")
print(f"1 to 5, 3 unused: {unused:.3f}; with labels named: {whole:.3f}; by hand: {by_hand(a, b):.3f}")
print("PASS: scikit-learn 1.9.1 weighs by places among sorted values, not by the scale")
PY
