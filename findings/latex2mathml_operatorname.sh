#!/usr/bin/env bash
# latex2mathml 3.81.1: `\operatorname*{arg\,max}_y` becomes an empty operator, an asterisk and single italic letters.
#
# Guess: \operatorname*, which amsmath defines beside \operatorname, gives an upright operator with its limit below; an
#   unknown command raises an error.
# Truth: the star is taken for the operator's name. What a reader sees is "* argmax" as a product of six variables. A
#   command that is unknown is printed as text, with its backslash. There is no error or warning. \operatorname{softmax}
#   and \argmax are right.
# Seen: <mo/>, <mo>*</mo> and then <mi>a</mi>, <mi>r</mi>, <mi>g</mi>, a space, <mi>m</mi>, <mi>a</mi>, <mi>x</mi>.
# Matters for: pages and widgets that show a method's formulas without a LaTeX engine.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet latex2mathml==3.81.1
cd "$folder"
"$folder/venv/bin/python" -I -W error - <<'PY'
from xml.etree import ElementTree

from latex2mathml.converter import convert


def leaves(formula):
    elements = ElementTree.fromstring(convert(formula)).iter()
    return [(element.tag.rpartition("}")[2], element.text) for element in elements if len(element) == 0]


starred = leaves(r"\operatorname*{arg\,max}_y f(y)")
letters = [("mi", "a"), ("mi", "r"), ("mi", "g"), ("mspace", None), ("mi", "m"), ("mi", "a"), ("mi", "x")]
assert starred[:9] == [("mo", None), ("mo", "*"), *letters], starred
assert leaves(r"\operatorname{softmax}(x)")[0] == ("mo", "softmax")
assert len(leaves(r"\argmax_y")) == 2
assert leaves(r"\sigmoid(x)")[0] == ("mi", r"\sigmoid")

print(starred)
print("PASS: latex2mathml 3.81.1 takes the star of \\operatorname* for its name")
PY
