"""Copies are copies in every script, and English keeps the values of the published tools."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU

from ddpo_lib.data.corpus import read_corpus
from ddpo_lib.data.words import WORD, choose_tokenizer, words, words_and_marks
from ddpo_lib.measures.lengths import matched_length, truncate
from ddpo_lib.measures.word_measures import distinct_n, ngram_diversity, rouge_l, self_bleu

HANNA = Path(__file__).parents[3] / "shared" / "data" / "hanna.jsonl"
WORDS = {
    "The cat's “mat”, 2 don’ts.": ["the", "cat's", "mat", "2", "don'ts"],
    "Übergröße für Zoë": ["übergröße", "für", "zoë"],
    "Zoe\u0308": ["zoë"],
    "老船长在雾里。": ["老", "船", "长", "在", "雾", "里"],
    "GPT写2个故事": ["gpt", "写", "2", "个", "故", "事"],
    "海のカメラです": ["海", "の", "カメラ", "で", "す"],
    "كتب الرجل رسالةً": ["كتب", "الرجل", "رسالةً"],
    "हिन्दी में": ["हिन्दी", "में"],
    "ที่นี่": ["ที่", "นี่"],
    "바다 이야기": ["바다", "이야기"],
    "Он шёл.": ["он", "шёл"],
    "": [],
    "…!": [],
}
VARIED = {  # four different sentences, and one sentence with a word exchanged
    "Chinese": (
        [
            "老船长听见了年轻时的歌声。",
            "市场里没有人买那条会说话的鱼！",
            "灯塔昨夜自己走到了山上去。",
            "她把整个冬天缝进一件外套。",
        ],
        [
            "老船长听见了年轻时的歌声。",
            "老船长听到了年轻时的歌声。",
            "老船长听见了年少时的歌声。",
            "老船长听见了年轻时的琴声。",
        ],
    ),
    "Arabic": (
        [
            "عاد البحار إلى بيته القديم ليلا",
            "باعت السمكة قصتها في السوق",
            "مشت المنارة وحدها نحو الجبل",
            "خاطت شتاء كاملا في معطف",
        ],
        [
            "عاد البحار إلى بيته القديم ليلا",
            "رجع البحار إلى بيته القديم ليلا",
            "عاد البحار إلى بيته القديم فجرا",
            "عاد البحار نحو بيته القديم ليلا",
        ],
    ),
    "Thai": (
        ["กะลาสีเฒ่าได้ยินเสียงเพลง", "ปลาพูดได้ในตลาดเช้า", "ประภาคารเดินขึ้นภูเขา", "เธอเย็บฤดูหนาวไว้ในเสื้อ"],
        ["กะลาสีเฒ่าได้ยินเสียงเพลง", "กะลาสีเฒ่าได้ยินเสียงพิณ", "กะลาสีแก่ได้ยินเสียงเพลง", "กะลาสีเฒ่าได้ฟังเสียงเพลง"],
    ),
    "German": (
        [
            "Der Bär hörte früh die Möwen über dem Fluss",
            "Käthe übte täglich für ihr schönstes Stück",
            "Böse Züge fuhren grün vorüber",
            "Süße Äpfel lägen dort für später",
        ],
        [
            "Der Bär hörte früh die Möwen über dem Fluss",
            "Der Bär hörte spät die Möwen über dem Fluss",
            "Der Bär hörte früh die Möwen über dem Grün",
            "Die Bärin hörte früh die Möwen über dem Fluss",
        ],
    ),
}


def one(measure: tuple) -> float:
    return float(measure[1][0])


def alone(texts: list[str]) -> np.ndarray:
    return np.zeros(len(texts), dtype=int)


@pytest.mark.parametrize(("text", "expected"), WORDS.items())
def test_words_of_a_script(text, expected):
    assert words(text) == expected


def test_marks_are_kept_where_they_are_asked_for():
    assert words_and_marks("“Go,” said 他。") == ["“", "Go", ",", "”", "said", "他", "。"]


@given(st.text())
def test_every_letter_and_digit_is_in_one_word(text):
    letters = [character for word in WORD.findall(text) for character in word if character.isalnum()]
    assert "".join(letters) == "".join(filter(str.isalnum, text))


@given(st.text("ab cX1.,'’-_\n\"é"))
def test_english_words_are_runs_of_letters_and_digits(text):
    run = re.compile(r"[^\W_]+(?:'[^\W_]+)*")
    assert words(text) == run.findall(text.lower().replace("’", "'"))


@pytest.mark.parametrize("script", VARIED)
def test_copies_are_more_alike_than_different_texts_in_every_script(script):
    varied, copies = VARIED[script]
    assert choose_tokenizer([*varied, *copies]) == "unicode"
    for measure in (rouge_l, self_bleu):
        assert one(measure(copies, alone(copies))) > 0.6 > 0.45 > one(measure(varied, alone(varied)))
        assert one(measure(copies[:1] * 3, alone(copies[:3]))) == pytest.approx(1)
    for measure in (lambda *of: distinct_n(*of, 2), ngram_diversity):
        assert one(measure(copies, alone(copies))) < 0.75 * one(measure(varied, alone(varied)))


@pytest.mark.parametrize("script", VARIED)
def test_a_matched_length_cuts_in_every_script(script):
    varied, _ = VARIED[script]
    length = matched_length({"short": [text[: len(text) // 2] for text in varied], "whole": varied})
    cut = truncate(varied, length)
    assert 1 < length < max(len(words(text)) for text in varied)
    assert all(text.startswith(part) and len(words(part)) <= length for text, part in zip(varied, cut, strict=True))
    assert cut != varied
    assert truncate(varied, 1000) == varied


def test_a_few_letters_of_other_languages_leave_english_with_the_published_tokenizer():
    english = "The café of Zoë was shut. " + "Nobody came, and the rain went on and on. " * 8
    assert choose_tokenizer([english]) == "published"
    assert choose_tokenizer(["", "123 …"]) == "published"
    assert choose_tokenizer(["A sea story.", "海"]) == "unicode"


@pytest.mark.skipif(not HANNA.exists(), reason="shared/data is not beside the project")
def test_english_has_the_values_of_rouge_score_and_sacrebleu():
    table = read_corpus(HANNA)
    texts = table.loc[table["prompt_id"] == table["prompt_id"].iloc[0], "text"].tolist()[:5]
    assert choose_tokenizer(table["text"]) == "published"
    scorer = RougeScorer(["rougeL"])
    pairs = [(i, j) for i in range(len(texts)) for j in range(i)]
    rouge = np.mean([scorer.score(texts[i], texts[j])["rougeL"].fmeasure for i, j in pairs])
    assert one(rouge_l(texts, alone(texts))) == pytest.approx(rouge, abs=1e-12)
    bleu = BLEU(effective_order=True)
    scores = [bleu.sentence_score(text, texts[:i] + texts[i + 1 :]).score / 100 for i, text in enumerate(texts)]
    assert one(self_bleu(texts, alone(texts))) == pytest.approx(np.mean(scores), abs=1e-12)
    assert one(rouge_l(texts, alone(texts), "unicode")) == pytest.approx(rouge, abs=0.03)


def test_the_tokenizer_is_named_in_results_and_chosen_over_all_arms(tmp_path):
    from ddpo_lib.evaluation.compare_arms import score_by_prompt
    from ddpo_lib.measures.quality import Reward
    from ddpo_lib.spaces.embed import Space

    class Zero(Reward):
        def predict(self, prompts, texts):
            return np.zeros(len(texts))

        def save(self, folder):
            raise NotImplementedError

        load = save

    files = {}
    for name, texts in zip(("varied", "copies"), VARIED["Chinese"], strict=True):
        files[name] = tmp_path / f"{name}.jsonl"
        files[name].write_text(json.dumps({"prompt": "海", "responses": [{"text": text} for text in texts]}))
    tables = {name: read_corpus(file, held_out=0.0) for name, file in files.items()}
    spaces = {"semantic": Space("lexical"), "style": Space("stylometric")}
    found, shared = score_by_prompt(tables, Zero(), spaces, baseline="varied", to_match=["varied", "copies"])
    assert shared["tokenizer"] == "unicode"
    assert shared["overlong"] == {"semantic": 0, "style": 0}
    assert shared["words"] == 12
    whole = found[found["length"] == "whole"].set_index("arm")
    assert whole.loc["copies", "rouge-l"] > 0.8 > whole.loc["varied", "rouge-l"]
    assert whole.loc["copies", "self-bleu"] > 0.6 > whole.loc["varied", "self-bleu"]
