#!/usr/bin/env bash
# sacrebleu 2.6.0: the BLEU of a corpus of short texts with itself is 0.
#
# Guess: the BLEU of texts with themselves as references is 100, for a corpus as for one sentence.
# Truth: corpus BLEU needs n-grams of four tokens. Where all texts have fewer than four, it is 0, whether the texts are
#   equal or have nothing in common. The default smoothing does not help, and nothing warns. A Chinese or Thai text
#   without blanks is one token by default, so it is short however long it is. Sentence BLEU of each is 100.
# Seen: three titles of three words with themselves: 0.0; each alone by `sentence_bleu`: 100. `effective_order=True` in
#   `BLEU` makes it 100.
# Matters for: titles, haiku lines and short answers; self-BLEU by corpus says that copies are all different.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet sacrebleu==2.6.0 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" -I -W error - 2>messages <<'PY' || { cat messages; exit 1; }
import sacrebleu
from sacrebleu.metrics import BLEU

titles = ["The Old Bell", "A Silver Fish", "Under Green Willows"]
thai = ["แมวตัวใหญ่นอนหลับอยู่บนหลังคาบ้านของฉันทุกวัน"]
for texts in (titles, thai):
    corpus = BLEU().corpus_score(texts, [texts]).score
    effective = BLEU(effective_order=True).corpus_score(texts, [texts]).score
    alone = [sacrebleu.sentence_bleu(text, [text]).score for text in texts]
    print("corpus", corpus, "with effective order", round(effective, 6), "sentences", [round(x, 6) for x in alone])
    assert corpus == 0.0 and abs(effective - 100) < 1e-6 and all(abs(x - 100) < 1e-6 for x in alone)
longer = ["The old bell rang twice."]
assert abs(BLEU().corpus_score(longer, [longer]).score - 100) < 1e-6
said = open("messages").read()
assert said == "", said
print("PASS: sacrebleu 2.6.0 corpus BLEU of short texts with themselves is 0")
PY
