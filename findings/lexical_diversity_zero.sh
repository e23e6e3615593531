#!/usr/bin/env bash
# lexical-diversity 0.1.1: a text without any repeated word has the lowest MTLD, and a short text an HD-D of 0.
#
# Guess: MTLD and HD-D are larger for more varied texts; where a text is too short for the formula, there is an error or
#   nan.
# Truth: where no factor is completed, MTLD divides by zero and answers 0.0, the value of the least diverse text; so
#   does `mtld_ma_bid`. HD-D, which draws 42 words, answers 0.0 for 41 different words and 1.0 for 42. There is no error
#   and no warning.
# Seen: eleven different words: MTLD 0.0; eleven words of which five differ: 11.0. A thousand different words: 0.0.
# Matters for: lexical diversity of short responses, poems and titles: the most varied are ranked last.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet lexical-diversity==0.1.1
cd "$folder"
"$folder/venv/bin/python" -I - 2>messages <<'PY' || { cat messages; exit 1; }
from lexical_diversity import lex_div

varied = "a quiet river carries small silver fish under green willow branches".split()
repeated = "the cat saw the dog and the dog saw the cat".split()
numbers = [f"word{i}" for i in range(1000)]

assert len(varied) == len(set(varied)) == len(repeated) == 11 and len(set(repeated)) == 5
assert lex_div.mtld(varied) == 0.0 and abs(lex_div.mtld(repeated) - 11) < 1e-9
assert lex_div.mtld(numbers) == 0.0
assert lex_div.mtld_ma_bid(numbers[:100]) == 0.0
assert lex_div.hdd(numbers[:41]) == 0.0 and abs(lex_div.hdd(numbers[:42]) - 1) < 1e-9

said = open("messages").read()
assert said == "", said
print("MTLD of eleven different words:", lex_div.mtld(varied), "; where five differ:", lex_div.mtld(repeated))
print("HD-D of 41 and 42 different words:", lex_div.hdd(numbers[:41]), round(lex_div.hdd(numbers[:42]), 6))
print("PASS: lexical-diversity 0.1.1 gives 0 to texts without a repeated word")
PY
