#!/usr/bin/env bash
# textstat 0.7.13: sentences of one or two words are no sentences, but their words count.
#
# Guess: "Snow fell. Nobody spoke. We waited." are three sentences of two words each.
# Truth: sentences of up to two words are left out of the number of sentences, yet their words stay in the number of
#   words. The mean length of a sentence grows with each short sentence. Nothing warns.
# Seen: five sentences of 13 words in all, four of them of two words: one sentence, 13 words per sentence, not 2.6.
# Matters for: readability and sentence length of verse, dialogue and terse prose; terse texts look long-winded.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet textstat==0.7.13
cd "$folder"
"$folder/venv/bin/python" -I -W error - <<'PY'
import textstat

terse = "Snow fell. Nobody spoke. We waited. The old bell rang twice. Then silence."
assert textstat.lexicon_count(terse) == 13
assert textstat.sentence_count("Snow fell. Nobody spoke. We waited.") == 1
assert textstat.sentence_count(terse) == 1 and textstat.words_per_sentence(terse) == 13.0
longer = "The old bell rang twice. The snow fell all night."
assert textstat.sentence_count(longer) == 2 and textstat.words_per_sentence(longer) == 5.0

print("five sentences:", textstat.sentence_count(terse), "sentence,", textstat.words_per_sentence(terse), "words each")
print("PASS: textstat 0.7.13 leaves short sentences out, but not their words")
PY
