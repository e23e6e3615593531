#!/usr/bin/env bash
# vendi-score 0.0.3: score_X ignores the order q, and of the two ways to ask for infinity one gives nan.
#
# Guess: vendi.score_X(vectors, q) is the Vendi score of order q, as vendi.score_K(kernel, q) is.
# Truth: score_X gives order 1 at every q. score_K and score_dual follow q. Infinity is the text "inf" there;
#   float("inf") gives nan. Nothing warns about q.
# Seen: three equal vectors and two others, orthogonal: score_X gives 2.586 at q = 0.1, 1, 2, 10 and "inf";
#   score_K gives 2.984, 2.586, 2.273, 1.764, 1.667.
# Matters for: profiles of diversity over q, where small q counts rare responses and large q common ones.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet vendi-score==0.0.3 numpy==2.4.6 scipy==1.17.1 scikit-learn==1.9.1
cd "$folder"
"$folder/venv/bin/python" -I - <<'PY'
import warnings

import numpy as np
from vendi_score import vendi

vectors = np.eye(3)[[0, 0, 0, 1, 2]]
orders = [0.1, 1, 2, 10, "inf"]
of_vectors = np.array([vendi.score_X(vectors, q=q) for q in orders])
of_kernel = np.array([vendi.score_K(vectors @ vectors.T, q=q) for q in orders])

shares = np.array([3, 1, 1]) / 5  # the kernel's eigenvalues over n
worked = [(shares**0.1).sum() ** (1 / 0.9), np.exp(-(shares * np.log(shares)).sum()), 1 / (shares**2).sum()]
worked += [(shares**10).sum() ** (1 / -9), 1 / shares.max()]
assert np.allclose(of_vectors, worked[1]), of_vectors
# at q < 1 the eigenvalues that rounding leaves a hair above 0 count too
assert np.allclose(of_kernel[1:], worked[1:]) and np.isclose(of_kernel[0], worked[0], atol=0.2), (of_kernel, worked)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    assert np.isnan(vendi.score_K(vectors @ vectors.T, q=float("inf")))

print("q:", orders)
print("score_X:", of_vectors.round(3).tolist())
print("score_K:", of_kernel.round(3).tolist())
print("PASS: vendi-score 0.0.3 score_X is order 1 at every q; float('inf') gives nan")
PY
