import hashlib
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddpo_lib.base.errors import InputError
from ddpo_lib.data.corpus import COLUMNS, EMPTY, Limits, place, read_corpus, read_prompts, side, transform_scores

DATA = Path(__file__).parents[3] / "shared" / "data"

GROUPED = [
    {
        "prompt": "A door opens.",
        "responses": [{"text": "It was me.", "score": 7, "source": "ann"}, {"text": "No one.", "score": None}],
    },
    {"prompt": "A door shuts.", "responses": [{"text": "At last.", "score": -2.5, "source": "bo"}]},
]
RAW = [
    {
        "post_title": "[WP] A door opens.",
        "post_text": "Nobody knocked.",
        "comment_texts": ["It was me.", "No one."],
        "comment_scores": [7, 1],
        "comment_times": [10, 20],
    },
    {
        "post_title": "A door shuts [quietly].",
        "post_text": "",
        "comment_texts": ["At last."],
        "comment_scores": [-2],
        "comment_times": [5],
    },
]


def write_lines(path: Path, *records) -> Path:
    """A JSONL file; a record that is text already is written as it is."""
    lines = (record if isinstance(record, str) else json.dumps(record, ensure_ascii=False) for record in records)
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def write(path: Path, records: list[dict]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(records), path)
        return path
    return write_lines(path, *records)


def grouped(prompt: str, *texts: str, score: float | None = 1) -> dict:
    return {"prompt": prompt, "responses": [{"text": text, "score": score} for text in texts]}


def counts(table: pd.DataFrame) -> dict[str, int]:
    return {entry["what"]: entry["count"] for entry in table.attrs["dropped"]}


# Both formats


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_a_prompt_grouped_file_becomes_a_row_a_response(tmp_path, suffix):
    table = read_corpus(write(tmp_path / f"mine{suffix}", GROUPED), held_out=0.0)
    assert list(table.columns) == COLUMNS
    assert table["prompt"].tolist() == ["A door opens.", "A door opens.", "A door shuts."]
    assert table["text"].tolist() == ["It was me.", "No one.", "At last."]
    assert table["source"].tolist() == ["ann", "", "bo"]
    np.testing.assert_array_equal(table["score"], [7.0, math.nan, -2.5])
    assert table["prompt_id"].nunique() == 2
    assert table["response_id"].is_unique
    assert table.attrs == {"read": {"prompts": 2, "responses": 3}, "dropped": [], "changed": []}


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_a_raw_file_loses_the_leading_tag_and_joins_title_and_text(tmp_path, suffix):
    table = read_corpus(write(tmp_path / f"raw{suffix}", RAW), held_out=0.0)
    assert table["prompt"].unique().tolist() == ["A door opens.\nNobody knocked.", "A door shuts [quietly]."]
    assert table["text"].tolist() == ["It was me.", "No one.", "At last."]
    assert table["score"].tolist() == [7.0, 1.0, -2.0]


def test_a_byte_order_mark_and_blank_lines_do_no_harm(tmp_path):
    path = tmp_path / "bom.jsonl"
    path.write_bytes("\n\n".join(map(json.dumps, GROUPED)).encode("utf-8-sig"))
    assert len(read_corpus(path)) == 3


# Bad input: the message names file, line and field


GOOD_LINE = json.dumps(GROUPED[0])
RAW_LINE = '{"post_title": "[WP] A door.", "post_text": "", "comment_texts": %s, "comment_scores": %s}'
BAD_LINES = {
    "not JSON": ('{"prompt": "p", "responses": [', "not JSON"),
    "not an object": ("[1, 2]", "a list"),
    "no prompt": ('{"responses": [{"text": "t", "score": 1}]}', "`prompt`"),
    "prompt a number": ('{"prompt": 3, "responses": []}', "`prompt`"),
    "no responses": ('{"prompt": "p"}', "`responses`"),
    "responses a text": ('{"prompt": "p", "responses": "t"}', "`responses`"),
    "responses an object": ('{"prompt": "p", "responses": {"text": "t"}}', "`responses`"),
    "response a text": ('{"prompt": "p", "responses": [{"text": "t"}, "t"]}', "`responses`, entry 2"),
    "no text": ('{"prompt": "p", "responses": [{"score": 1}]}', "entry 1, field `text`"),
    "text a number": ('{"prompt": "p", "responses": [{"text": 5}]}', "entry 1, field `text`"),
    "score infinite": ('{"prompt": "p", "responses": [{"text": "t", "score": Infinity}]}', "field `score`"),
    "score minus infinite": ('{"prompt": "p", "responses": [{"text": "t", "score": -Infinity}]}', "field `score`"),
    "score over the range": ('{"prompt": "p", "responses": [{"text": "t", "score": 1e999}]}', "field `score`"),
    "score of 400 digits": (
        '{"prompt": "p", "responses": [{"text": "t", "score": 1' + "0" * 400 + "}]}",
        "field `score`",
    ),
    "score a text": ('{"prompt": "p", "responses": [{"text": "t", "score": "5"}]}', "field `score`"),
    "score true": ('{"prompt": "p", "responses": [{"text": "t", "score": true}]}', "field `score`"),
    "raw, no title": ('{"comment_texts": ["t"], "comment_scores": [1]}', "`post_title`"),
    "raw, text a number": (RAW_LINE % ("[4]", "[1]"), "`comment_texts`, entry 1"),
    "raw, comments a text": (RAW_LINE % ('"t"', "[1]"), "`comment_texts`"),
    "raw, a score short": (RAW_LINE % ('["t", "u"]', "[1]"), "`comment_scores`"),
}


@pytest.mark.parametrize(("line", "field"), BAD_LINES.values(), ids=BAD_LINES)
def test_a_bad_line_is_named_with_its_field(tmp_path, line, field):
    path = write_lines(tmp_path / "bad.jsonl", GOOD_LINE, line)
    with pytest.raises(InputError) as error:
        read_corpus(path)
    assert f"{path}, line 2" in str(error.value)
    assert field in str(error.value)
    assert "\n" not in str(error.value)


def test_a_line_that_is_not_utf8_is_named(tmp_path):
    path = tmp_path / "latin.jsonl"
    path.write_bytes(GOOD_LINE.encode() + b"\n" + GOOD_LINE.replace("me", "mé").encode("latin-1") + b"\n")
    with pytest.raises(InputError, match=r"latin\.jsonl, line 2: not UTF-8"):
        read_corpus(path)


BAD_ROWS = {
    "no prompt": ({"text": ["a", "b"]}, "row 1: no field `prompt`"),
    "score infinite": (
        {"prompt": ["p"], "responses": [[{"text": "t", "score": math.inf}]]},
        "row 1, field `responses`, entry 1, field `score`",
    ),
}


@pytest.mark.parametrize(("columns", "place"), BAD_ROWS.values(), ids=BAD_ROWS)
def test_a_bad_parquet_row_is_named_with_its_field(tmp_path, columns, place):
    path = tmp_path / "bad.parquet"
    pq.write_table(pa.table(columns), path)
    with pytest.raises(InputError) as error:
        read_corpus(path)
    assert f"{path}, {place}" in str(error.value)


def _cut_short(path: Path) -> None:
    write(path, GROUPED)
    path.write_bytes(path.read_bytes()[:-40])


def _damaged_inside(path: Path) -> None:
    write(path, GROUPED)
    content = bytearray(path.read_bytes())
    content[4:40] = b"\xff" * 36
    path.write_bytes(content)


def _not_utf8(path: Path) -> None:
    text = pa.array([b"\xff\xfe"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"prompt": text, "responses": [[{"text": "t", "score": 1.0}]]}), path)


@pytest.mark.parametrize("spoil", [_cut_short, _damaged_inside, _not_utf8])
def test_a_spoilt_parquet_file_is_named(tmp_path, spoil):
    path = tmp_path / "spoilt.parquet"
    spoil(path)
    with pytest.raises(InputError, match=r"spoilt\.parquet"):
        read_corpus(path)


def test_a_missing_an_empty_and_a_hollow_file_are_named(tmp_path):
    for name, content, words in (
        ("missing.jsonl", None, "no such file"),
        ("empty.jsonl", b"", "is empty"),
        ("blank.jsonl", b"\n \n", "blank.jsonl"),
        ("hollow.jsonl", b'{"prompt": "p", "responses": []}\n', "no response is left"),
    ):
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(InputError) as error:
            read_corpus(path)
        assert str(path) in str(error.value)
        assert words in str(error.value)
    (tmp_path / "hollow").mkdir()
    with pytest.raises(InputError, match="is a folder without"):
        read_corpus(tmp_path / "hollow")


def test_a_hub_name_without_a_network_is_told_plainly(tmp_path):
    """In a process of its own: the hub's library reads the switch when it is imported."""
    name = "euclaise/WritingPrompts_preferences"
    code = f"""
from ddpo_lib.data.corpus import read_corpus
from ddpo_lib.base.errors import InputError
try:
    read_corpus({name!r})
except InputError as error:
    print(error)
"""
    offline = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=offline, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.startswith(f"{name}: cannot be read from the hub")
    assert "network" in done.stdout


# What is left out is counted


def test_moderation_removed_and_repeated_comments_are_dropped_and_counted(tmp_path):
    texts = [
        "**Welcome to the Prompt!** Be kind.",
        "Hello! **Off-Topic Discussion**: here.",
        "Sorry, This submission has been removed for rule 2.",
        "[removed]",
        " [deleted]\n",
        "A story\nof two lines.",
        "A story  of two\tlines.",
        "A story in which the word [removed] occurs.",
    ]
    post = {"post_title": "[EU] [WP] A door.", "post_text": None, "comment_texts": texts, "comment_scores": [*range(8)]}
    gone = {"post_title": "[WP] Gone.", "post_text": "[removed]", "comment_texts": ["x", "y"], "comment_scores": [1, 2]}
    table = read_corpus(write_lines(tmp_path / "raw.jsonl", post, gone), held_out=0.0)
    assert table["prompt"].unique().tolist() == ["[WP] A door."]
    assert table["text"].tolist() == ["A story\nof two lines.", "A story in which the word [removed] occurs."]
    assert table["score"].tolist() == [5.0, 7.0]
    assert counts(table) == {
        "moderation comments": 3,
        "removed comments": 2,
        "removed posts": 2,
        "duplicate responses": 1,
    }


def test_a_post_whose_title_is_nothing_but_a_tag_does_not_become_a_blank_prompt(tmp_path):
    """Removed accounts leave such titles behind."""
    nameless = {"post_title": "[deleted by user]", "post_text": "", "comment_texts": ["t"], "comment_scores": [1]}
    table = read_corpus(write_lines(tmp_path / "raw.jsonl", RAW[0], nameless), held_out=0.0)
    assert table["prompt"].str.strip().ne("").all()
    assert sum(counts(table).values()) == 1


def test_repeated_prompts_are_merged_and_repeated_responses_dropped(tmp_path):
    path = write_lines(
        tmp_path / "twice.jsonl",
        grouped("p", "a", "b"),
        grouped("q", "a"),
        grouped(" p ", "b", "c"),
    )
    table = read_corpus(path, held_out=0.0)
    assert table.groupby("prompt")["text"].agg(list).to_dict() == {"p": ["a", "b", "c"], "q": ["a"]}
    assert table.groupby("prompt")["prompt_id"].nunique().tolist() == [1, 1]
    assert counts(table) == {"duplicate prompts": 1, "duplicate responses": 1}
    kept = read_corpus(path, held_out=0.0, keep_repeats=True)
    assert kept.loc[kept["prompt"] == "p", "text"].tolist() == ["a", "b", "b", "c"]


def test_a_response_over_the_token_limit_is_dropped_whole(tmp_path):
    texts = ["one two", "one two three four", "one two three four five six"]
    path = write_lines(tmp_path / "long.jsonl", grouped("two words", *texts), grouped("a b c d e f", "g h i"))
    limits = Limits(tokens=6, count_tokens=lambda prompt, text: len(prompt.split()) + len(text.split()))
    table = read_corpus(path, held_out=0.0, limits=limits)
    assert table["text"].tolist() == texts[:2]
    assert counts(table) == {"long responses": 2}


def test_caps_keep_what_they_say_and_count_the_rest(tmp_path):
    records = [grouped(f"prompt {i}", *(f"text {i} {j}" for j in range(3 + i))) for i in range(6)]
    path = write_lines(tmp_path / "many.jsonl", *records)
    table = read_corpus(path, limits=Limits(prompts=4, responses=5))
    sizes = table.groupby("prompt_id").size()
    assert len(sizes) == 4
    assert sizes.max() == 5
    written = {(record["prompt"], response["text"]) for record in records for response in record["responses"]}
    assert set(zip(table["prompt"], table["text"], strict=True)) <= written
    assert len(table) + sum(counts(table).values()) == len(written)
    pd.testing.assert_frame_equal(table, read_corpus(path, limits=Limits(prompts=4, responses=5)))
    assert any(
        set(read_corpus(path, seed=s, limits=Limits(prompts=4))["prompt"]) != set(table["prompt"]) for s in (1, 2)
    )


def test_a_cap_on_held_out_prompts_keeps_some_of_them_and_all_that_train(tmp_path):
    records = [grouped(f"prompt {i}", f"one {i}", f"two {i}") for i in range(20)]
    path = write_lines(tmp_path / "many.jsonl", *records)
    every, capped = (read_corpus(path, held_out=0.5, limits=limits) for limits in (None, Limits(held_out=3)))
    split = {name: every["prompt"][every["split"] == name] for name in ("train", "test")}
    all_held_out = split["test"].nunique()
    kept = capped["prompt"][capped["split"] == "test"]
    assert kept.nunique() == 3
    assert set(kept) < set(split["test"])
    assert capped["prompt"][capped["split"] == "train"].tolist() == split["train"].tolist()
    assert counts(capped) == {f"responses of {all_held_out - 3} held-out prompts": 2 * (all_held_out - 3)}
    assert counts(read_corpus(path, held_out=0.5, limits=Limits(held_out=all_held_out))) == {}


def test_blank_and_cut_samples_are_dropped_where_something_may_learn_from_them(tmp_path):
    texts = {"A story.": True, EMPTY: True, "A story that st": False, "Another.": None}
    responses = [{"text": text, "score": 1, "finished": finished} for text, finished in texts.items()]
    path = write_lines(tmp_path / "samples.jsonl", {"prompt": "p", "seen": True, "responses": responses})
    table = read_corpus(path, held_out=0.0)
    assert table["text"].tolist() == ["A story.", "Another."]
    assert list(table.columns) == COLUMNS
    assert counts(table) == {"blank samples": 1, "cut samples": 1}
    samples = read_corpus(path, held_out=0.0, keep_repeats=True, flags=("seen", "finished"))
    assert samples["text"].tolist() == list(texts)
    assert samples["finished"].tolist() == list(texts.values())
    assert samples["seen"].tolist() == [True] * 4
    assert list(samples.columns) == [*COLUMNS, "seen", "finished"]


def test_a_flag_that_is_no_truth_value_is_named(tmp_path):
    path = write_lines(tmp_path / "bad.jsonl", {"prompt": "p", "seen": "no", "responses": [{"text": "t"}]})
    assert len(read_corpus(path)) == 1
    with pytest.raises(InputError, match="line 1, field `responses`, entry 1, field `seen`: expected true, false"):
        read_corpus(path, flags=("seen",))


@settings(max_examples=40)
@given(
    records=st.lists(st.tuples(st.sampled_from("pqrs"), st.lists(st.sampled_from("abcdef"), max_size=7)), min_size=1),
    prompts=st.none() | st.integers(1, 3),
    responses=st.none() | st.integers(1, 3),
    tokens=st.none() | st.integers(1, 8),
    held_out=st.none() | st.integers(1, 2),
)
def test_every_response_read_is_in_the_table_or_counted_once(records, prompts, responses, tokens, held_out):
    limits = Limits(prompts, responses, tokens, lambda prompt, text: ord(text) - ord("a") + 1, held_out)
    with TemporaryDirectory() as folder:
        path = write_lines(Path(folder) / "any.jsonl", *(grouped(prompt, *texts) for prompt, texts in records))
        try:
            table = read_corpus(path, held_out=0.5, limits=limits)
        except InputError as error:
            assert "no response is left" in str(error)
            return
    left_out = sum(count for what, count in counts(table).items() if what != "duplicate prompts")
    assert len(table) + left_out == table.attrs["read"]["responses"] == sum(len(texts) for _, texts in records)


# The split


def split_of(path: Path, **options) -> dict[str, str]:
    """The side of each prompt."""
    return dict(read_corpus(path, **options)[["prompt", "split"]].itertuples(index=False))


@pytest.fixture(scope="module")
def thousand(tmp_path_factory) -> list[dict]:
    """1,000 prompts of 8 responses."""
    return [grouped(f"prompt {i}", *(f"text {i} {j}" for j in range(8))) for i in range(1000)]


@pytest.mark.parametrize("held_out", [0.0, 0.1, 0.18, 1.0])
def test_the_split_holds_out_about_a_share_of_whole_prompts(tmp_path, thousand, held_out):
    table = read_corpus(write_lines(tmp_path / "split.jsonl", *thousand, *thousand[:30]), held_out=held_out)
    assert (table.groupby("prompt")["split"].nunique() == 1).all()
    assert set(table["split"]) <= {"train", "test"}
    spread = 3 * math.sqrt(held_out * (1 - held_out) / 1000)  # three standard deviations of a binomial share
    assert abs((table.drop_duplicates("prompt")["split"] == "test").mean() - held_out) <= spread


def test_the_split_is_a_function_of_the_seed():
    prompts = [f"prompt {i}" for i in range(30)]
    held_out = [tuple(side(prompt, 0.3, seed) for prompt in prompts) for seed in (42, 42, 0, 1, 2)]
    assert held_out[0] == held_out[1]
    assert len(set(held_out)) == 4


def test_a_place_worked_by_hand():
    """The SHA-256 of "42", a line break and the prompt begins with bf531e9e in hexadecimal digits."""
    assert hashlib.sha256(b"42\nA door opens.").hexdigest().startswith("bf531e9e")
    assert 0xBF531E9E / 2**32 <= place(42, "A door opens.") < 0xBF531E9F / 2**32
    assert place(42, "A door opens.") == place(42, "\n A  door\topens. ")
    assert side("A door opens.", 0.74, 42) == "train"
    assert side("A door opens.", 0.75, 42) == "test"


def test_no_prompt_changes_its_side_when_one_is_appended_or_the_file_is_shuffled(tmp_path, thousand):
    before = split_of(write_lines(tmp_path / "before.jsonl", *thousand))
    after = split_of(write_lines(tmp_path / "after.jsonl", *thousand, grouped("one more", "a", "b")))
    assert {prompt: after[prompt] for prompt in before} == before
    shuffled = np.random.default_rng(0).permutation(1000)
    assert split_of(write_lines(tmp_path / "shuffled.jsonl", *(thousand[i] for i in shuffled))) == before


def test_no_prompt_changes_its_side_when_responses_or_prompts_are_capped(tmp_path, thousand):
    path = write_lines(tmp_path / "many.jsonl", *thousand)
    before = split_of(path)
    assert split_of(path, limits=Limits(responses=5)) == before
    fewer = split_of(path, limits=Limits(prompts=400))
    assert len(fewer) == 400
    assert fewer.items() < before.items()
    # a cap on prompts draws by another hash than the split, or all that are kept would be held out
    assert 0.05 < list(fewer.values()).count("test") / 400 < 0.15


def test_an_appended_prompt_takes_the_place_of_one_at_most_under_a_cap(tmp_path, thousand):
    limits = Limits(prompts=400, held_out=20)
    before = split_of(write_lines(tmp_path / "before.jsonl", *thousand), limits=limits).keys()
    appended = [grouped(f"one more {i}", "a") for i in range(5)]
    after = split_of(write_lines(tmp_path / "after.jsonl", *thousand, appended[0]), limits=limits).keys()
    assert len(before ^ after) <= 2
    most = split_of(write_lines(tmp_path / "most.jsonl", *thousand, *appended), limits=limits).keys()
    assert len(before - most) <= 5


def test_capped_responses_are_the_same_in_any_order_and_stay_in_that_of_the_file(tmp_path):
    texts = [f"text {j}" for j in range(40)]
    kept = {}
    for name, order in (("forward", texts), ("backward", texts[::-1]), ("more", [*texts, "one more"])):
        path = write_lines(tmp_path / f"{name}.jsonl", grouped("p", *order))
        kept[name] = read_corpus(path, held_out=0.0, limits=Limits(responses=10))["text"].tolist()
    assert kept["backward"] == kept["forward"][::-1]
    assert [text for text in texts if text in kept["forward"]] == kept["forward"] != texts[:10]
    assert len(set(kept["forward"]) - set(kept["more"])) <= 1


def test_the_corpus_of_the_package_is_split_usefully_by_the_profiles(tmp_path):
    """About 16 of 40 prompts, and 6 of the 10 of the profile `smoke`."""
    from ddpo_lib.profiles.profile import load_profile

    for name, prompts, held_out in (("embedded", 40, 16), ("smoke", 10, 6)):
        data = load_profile(name).data
        limits = Limits(prompts=data.max_prompts, responses=data.max_responses)
        table = read_corpus(held_out=data.held_out, seed=data.split_seed, limits=limits).drop_duplicates("prompt")
        assert (len(table), (table["split"] == "test").sum()) == (prompts, held_out)


# Prompts, with responses or without


def test_prompts_without_responses_are_held_out_and_in_no_corpus(tmp_path):
    removed = {"post_title": "[WP] Silence.", "comment_texts": ["[removed]"], "comment_scores": [1]}
    lone = [{"prompt": "No field."}, {"prompt": "An empty list.", "responses": []}, removed]
    path = write_lines(tmp_path / "mixed.jsonl", *GROUPED, *lone)
    table = read_prompts(path, held_out=0.0, seed=42)
    assert table.columns.tolist() == ["prompt_id", "prompt", "split", "responses"]
    assert table["prompt"].tolist() == ["A door opens.", "A door shuts.", "No field.", "An empty list.", "Silence."]
    assert table["split"].tolist() == ["train"] * 2 + ["test"] * 3
    assert table["responses"].tolist() == [2, 1, 0, 0, 0]
    with pytest.raises(InputError, match="line 3, field `responses`"):
        read_corpus(path)
    corpus = read_corpus(write_lines(tmp_path / "lists.jsonl", *GROUPED, *lone[1:]), held_out=0.0)
    assert corpus["prompt"].unique().tolist() == ["A door opens.", "A door shuts."]


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_a_file_of_prompts_alone_can_be_read(tmp_path, suffix):
    path = write(tmp_path / f"alone{suffix}", [{"prompt": "One."}, {"prompt": "Two."}])
    table = read_prompts(path, held_out=0.1, seed=0)
    assert table["prompt"].tolist() == ["One.", "Two."]
    assert table["split"].tolist() == ["test", "test"]


def test_prompts_with_responses_are_those_of_the_corpus_under_every_cap(tmp_path, thousand):
    lone = [{"prompt": f"alone {i}", "responses": []} for i in range(50)]
    path = write_lines(tmp_path / "mixed.jsonl", *lone[:25], *thousand[:200], *lone[25:])
    for limits in (None, Limits(prompts=60), Limits(prompts=60, responses=3, held_out=20), Limits(held_out=80)):
        prompts = read_prompts(path, held_out=0.3, seed=1, limits=limits)
        answered = prompts[prompts["responses"] > 0]
        assert dict(zip(answered["prompt"], answered["split"], strict=True)) == split_of(
            path, held_out=0.3, seed=1, limits=limits
        )
        most = limits.held_out if limits and limits.held_out else 1000
        test = (prompts["split"] == "test").sum()
        assert test == min(most, (answered["split"] == "test").sum() + 50)


# Upvotes


def test_transform_agrees_with_the_released_code(golden):
    for case in golden["transform_scores"]:
        made = transform_scores(case["scores"], case["min_score"], case["max_score"], case["compression_factor"])
        np.testing.assert_allclose(made, case["transformed"], atol=1e-9)


def test_transform_worked_by_hand():
    """Scores 0, 1, 6 from a least of 0 become 1, 2, 7; one log(x + 1) makes them log 2, log 3, log 8."""
    middle = 2 * (math.log(3) - math.log(2)) / (math.log(8) - math.log(2)) - 1
    np.testing.assert_allclose(transform_scores([0, 1, 6], 0, 6, compression=1), [-1, middle, 1], atol=1e-12)
    assert transform_scores([4, 4], 4, 4).tolist() == [0.0, 0.0]


@given(
    low=st.integers(-10_000, -2),
    steps=st.lists(st.integers(1, 5000), min_size=1, max_size=30),
)
def test_scores_below_zero_stay_finite_and_in_order(low, steps):
    """The released code gives NaN from a smallest score of -2 on."""
    scores = low + np.concatenate([[0], np.cumsum(steps)])
    made = transform_scores(scores, scores[0], scores[-1])
    assert np.isfinite(made).all()
    assert (np.diff(made) > 0).all()
    np.testing.assert_allclose(made[[0, -1]], [-1, 1], atol=1e-12)
    assert transform_scores([scores[0] - 9, scores[-1] + 9], scores[0], scores[-1]).tolist() == made[[0, -1]].tolist()


@given(shift=st.integers(-1000, 1000))
def test_transform_does_not_depend_on_where_the_scores_start(shift):
    scores = np.array([1, 3, 10, 400, 2500])
    moved = transform_scores(scores + shift, 1 + shift, 2500 + shift)
    np.testing.assert_allclose(moved, transform_scores(scores, 1, 2500), atol=1e-9)


# Real data


@pytest.mark.parametrize(
    ("name", "prompts", "responses", "scored"),
    [("newyorker_captions", 173, 8565, 8565), ("creativity_triplets", 290, 910, 910), ("hanna", 96, 672, 96)],
)
def test_real_data_is_read_whole(name, prompts, responses, scored):
    path = DATA / f"{name}.jsonl"
    if not path.exists():
        pytest.skip("shared/data is not beside the project")
    table = read_corpus(path)
    assert table["prompt_id"].nunique() == table["prompt"].nunique() == prompts
    assert len(table) == responses
    assert table["score"].notna().sum() == scored
    assert table.attrs == {"read": {"prompts": prompts, "responses": responses}, "dropped": [], "changed": []}
    held_out = table.loc[table["split"] == "test", "prompt_id"].nunique()
    assert abs(held_out - prompts / 10) <= 3 * math.sqrt(0.09 * prompts)  # three standard deviations of a binomial
