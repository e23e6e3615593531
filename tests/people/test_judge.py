"""A judge behind a real server that follows a rule: what it is asked, what of it counts, and how that adds up."""

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pandas as pd
import pytest
from test_human_eval import ARMS, SIZES, write_answers, write_run
from test_main import said

from ddpo_lib.base.errors import InputError
from ddpo_lib.people.answers import read_items
from ddpo_lib.people.human_eval import prepare
from ddpo_lib.people.judge import judge, judge_study, parse, read_judged, write_question
from ddpo_lib.people.judge_report import asked_twice, compare_with_people, describe, describe_positions
from ddpo_lib.people.simulated_votes import simulate
from ddpo_lib.people.votes import QUESTIONS, analyse
from ddpo_lib.profiles.evaluation_settings import Baseline
from ddpo_lib.profiles.profile import load_profile
from ddpo_lib.sampling.engines import open_engine

ANSWERED = {"refused": 0, "only_thoughts": 0, "thoughts": 0, "left_out": {}}
SETTINGS = {"draws": 500, "confidence": 0.95, "seed": 0}


class Reader:
    """A server that speaks OpenAI's protocol and answers by `rule`: (stories of A, stories of B) -> text."""

    def __init__(self):
        self.rule = None
        self.reason = "stop"
        self.seen: list[str] = []
        reader = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["messages"][0]["content"]
                reader.seen.append(asked)
                message = {"role": "assistant", "content": reader.rule(*read_sets(asked))}
                choice = {"index": 0, "message": message, "finish_reason": reader.reason}
                body = {"id": "1", "object": "chat.completion", "created": 0, "model": "reader", "choices": [choice]}
                sent = json.dumps(body).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(sent)))
                self.end_headers()
                self.wfile.write(sent)

            def log_message(self, *words):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"

    def close(self):
        self.server.shutdown()
        self.server.server_close()


def read_sets(asked: str) -> tuple[list[str], list[str]]:
    _, a, b = re.split(r"^Set [AB]$", asked.rpartition("\n\n1. ")[0], flags=re.M)
    return tuple([story.strip() for story in re.split(r"^Story \d+:$", part, flags=re.M)[1:]] for part in (a, b))


def answer(story, more) -> str:
    return f"Best story: {story}\nMore diverse set: {more}"


def longest_and_most_varied(a: list[str], b: list[str]) -> str:
    """A fair reader: the longest story, and the set with more distinct stories."""
    lengths = [len(story) for story in a + b]
    more = {1: "A", -1: "B", 0: "hard to decide"}[int(np.sign(len(set(a)) - len(set(b))))]
    return answer(int(np.argmax(lengths)) + 1, more)


@pytest.fixture(scope="module")
def reader():
    reader = Reader()
    yield reader
    reader.close()


@pytest.fixture
def engine(reader):
    reader.seen.clear()
    reader.reason = "stop"
    baseline = Baseline(engine="server", model="reader", url=reader.url)
    return open_engine(baseline, load_profile("embedded").model)


ITEMS = pd.DataFrame(
    {
        "item": ["i1", "i2", "i3"],
        "prompt_id": ["p1", "p2", "p3"],
        "prompt": ["A lighthouse.", "The last train.", "Two {stories}."],
        "first": [["short", "the longest story of all", "c", "d"], ["a", "b", "c", "d"], ["one", "one", "one", "one"]],
        "second": [
            ["x", "x", "x", "y"],
            ["a much longer story", "f", "g", "h"],
            ["two", "three", "three", "a {prompt}"],
        ],
    }
)


def test_a_fair_judge_names_the_same_arms_in_both_orders(reader, engine, tmp_path):
    reader.rule = longest_and_most_varied
    table, counts = judge(engine, ITEMS, name="reader", seed=0, journal=tmp_path / "journal")
    assert counts == {"asked": 6, "answers": 6, "cut": 0, "quality": 0, "diversity": 0} | ANSWERED
    assert table.groupby("item")["quality"].agg(set).to_dict() == {"i1": {"first"}, "i2": {"second"}, "i3": {"second"}}
    assert table.groupby("item")["diversity"].agg(set).to_dict() == {"i1": {"first"}, "i2": {"tie"}, "i3": {"second"}}
    by_order = table.set_index(["item", "first_side"])
    assert by_order.loc[("i1", "left"), "story"] == 2
    assert by_order.loc[("i1", "right"), "story"] == 6
    assert by_order.loc[("i1", "right"), "quality_side"] == "right"
    assert by_order.loc[("i3", "left"), "diversity_side"] == "right"
    assert by_order.loc[("i2", "left"), "diversity_side"] == "tie"
    assert set(table["annotator"]) == {"reader"}
    found = describe_positions(table, confidence=0.95)
    assert (found["quality"]["same"], found["quality"]["with_tie"]) == (3, 0)
    assert found["quality"]["left"]["mean"] == 0.5
    assert (found["diversity"]["same"], found["diversity"]["with_tie"]) == (2, 1)
    asked = len(reader.seen)
    again = judge(engine, ITEMS, name="reader", seed=0, journal=tmp_path / "journal")
    pd.testing.assert_frame_equal(table, again.table)
    assert len(reader.seen) == asked == 6


def test_each_story_is_shown_as_it_is_in_either_order(reader, engine):
    reader.rule = longest_and_most_varied
    judge(engine, ITEMS, name="reader", seed=0)
    shown = {tuple(map(tuple, read_sets(asked))) for asked in reader.seen}
    expected = {(tuple(a), tuple(b)) for a, b in zip(ITEMS["first"], ITEMS["second"], strict=True)}
    assert shown == expected | {(b, a) for a, b in expected}
    assert any("Two {stories}." in asked and "a {prompt}" in asked for asked in reader.seen)


def test_a_judge_that_always_takes_the_left_has_a_position_and_no_preference(reader, engine):
    reader.rule = lambda a, b: answer(1, "A")
    many = pd.concat([ITEMS.assign(item=f"{n}-" + ITEMS["item"]) for n in range(10)], ignore_index=True)
    table, _ = judge(engine, many, name="reader", seed=0)
    found = describe_positions(table, confidence=0.95)
    for question in ("quality", "diversity"):
        assert (found[question]["items"], found[question]["always_left"], found[question]["same"]) == (30, 30, 0)
        assert found[question]["consistent"]["high"] == pytest.approx(1 - 0.025 ** (1 / 30))
        assert found[question]["left"]["low"] > 0.8
    analysed = analyse(table, **SETTINGS)
    assert analysed["quality"]["score"]["mean"] == 0.5
    assert analysed["quality"]["side"]["left"]["p"] < 0.001
    assert analysed["quality"]["items"]["ties"] == 30


def test_answers_out_of_form_are_counted_and_never_guessed(reader, engine):
    said = iter(
        [answer(3, "A"), "I like story 2 best.", answer(9, "B"), answer(1, "both"), answer(1, "A"), answer(2, "B")]
    )
    reader.rule = lambda a, b: next(said)
    table, counts = judge(engine, ITEMS, name="reader", seed=0)
    assert counts == {"asked": 6, "answers": 3, "cut": 0, "quality": 2, "diversity": 2} | ANSWERED
    assert len(table) == 3


def test_an_answer_is_read_after_the_thoughts_before_it(reader, engine):
    thoughts = f"<think>\n{answer(1, 'A')}\nBest story: 3, perhaps?\n</think>\n\n"
    reader.rule = lambda a, b: thoughts + longest_and_most_varied(a, b)
    table, counts = judge(engine, ITEMS, name="reader", seed=0)
    reader.rule = longest_and_most_varied
    pd.testing.assert_frame_equal(table, judge(engine, ITEMS, name="reader", seed=0).table)
    assert counts == {"asked": 6, "answers": 6, "cut": 0, "quality": 0, "diversity": 0} | ANSWERED | {"thoughts": 6}


def test_answers_that_are_only_thoughts_or_refused_are_counted_and_told(reader, engine, study):
    said = iter(["<think>Who", None, *["<think>Who</think>" + answer(1, "A")] * 6])
    reader.rule = lambda a, b: next(said)
    judged = judge_study(study, engine, name="thinker", seed=0)
    assert (judged.counts["answers"], judged.counts["thoughts"], judged.counts["only_thoughts"]) == (6, 7, 1)
    told = describe(read_judged(study / "judge-thinker.parquet"), judged.table.iloc[:0], **SETTINGS)
    assert "only thoughts 1: raise --tokens; thoughts taken off 7" in told
    assert "<think>Who" in (study / "judge-thinker.jsonl").read_text()  # the raw answers


def test_an_answer_that_the_limit_cut_does_not_count(reader, engine):
    reader.rule, reader.reason = longest_and_most_varied, "length"
    table, counts = judge(engine, ITEMS, name="reader", seed=0)
    assert counts == {"asked": 6, "answers": 0, "cut": 6, "quality": 6, "diversity": 6} | ANSWERED
    assert table.empty
    assert describe_positions(table, confidence=0.95)["quality"]["left"]["mean"] is None


@pytest.mark.parametrize(
    ("said", "answers"),
    [
        (answer(8, "B"), (8, "right")),
        ("Thinking about it ...\n\n**Best story:** 4\n**More diverse set:** A.\n", (4, "left")),
        (answer("Hard to decide", "hard to decide."), (0, "tie")),
        ("best story: 2\nmore diverse set: b", (2, "right")),
        (answer(0, "A"), (None, "left")),
        (answer(9, "C"), (None, None)),
        (answer("1 or 2", "A or B"), (None, None)),
        ("Best story: 1\nBest story: 2\nMore diverse set: A", (None, "left")),
        ("Best story:\n3\nMore diverse set: A", (None, "left")),
        ("The best story: 3. The more diverse set: A", (None, None)),
        ("Best story: -1\nMore diverse set: <A or B>", (None, None)),
        ("Best story: ٣\nMore diverse set:", (None, None)),
        ("", (None, None)),
    ],
)
def test_only_the_form_that_was_asked_for_is_an_answer(said, answers):
    assert parse(said, 8) == answers


def test_the_form_is_in_the_question_and_filling_it_in_is_an_answer():
    asked = write_question("A {number} of stories", ["one", "two"], ["three"])
    assert "A {number} of stories" in asked
    assert "one of the 3 stories" in asked
    form = asked.rpartition("after the colon.\n")[2]
    filled = form.replace("<the number of the story>", "3").replace("<A or B>", "B")
    assert parse(filled, 3) == (3, "right")
    assert parse(form, 3) == (None, None)


def test_agreement_with_people_worked_by_hand():
    people = simulate(items=6, labels=3, per_annotator=6, seed=1)
    verdicts = {0: "first", 1: "first", 2: "second", 3: "tie", 4: "first", 5: "second"}
    for question in ("quality", "diversity"):
        people[question] = people["item"].map({f"item-{i:04d}": v for i, v in verdicts.items()})
    rows = []
    said = {
        0: ("first", "first"),
        1: ("second", "second"),
        2: ("second", "second"),
        3: ("first", "first"),
        4: ("first", "tie"),
    }
    for i, pair in said.items():
        for side, vote in zip(("left", "right"), pair, strict=True):
            both = dict.fromkeys(QUESTIONS, vote) | dict.fromkeys(("quality_side", "diversity_side"), "left")
            rows.append({"item": f"item-{i:04d}", "annotator": "judge", "first_side": side} | both)
    rows.append(rows[0] | {"item": "item-0005"})  # asked in one order only
    found = compare_with_people(pd.DataFrame(rows), people, **SETTINGS)["quality"]
    # people: f f s t f; the judge: f s s f t, since one tie makes no verdict of both orders
    assert (found["items"], found["decided"]) == (5, 3)
    assert found["same"]["mean"] == pytest.approx(2 / 5)
    assert found["same_decided"]["mean"] == pytest.approx(2 / 3)
    # of 10 verdicts 5 are f, 3 s, 2 t: observed disagreement 6 / 10, by chance (100 - 25 - 9 - 4) / 90
    assert found["alpha"]["mean"] == pytest.approx(1 - 0.6 / (62 / 90))
    assert found["people_alpha"] == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda items: items.drop(columns="second"), "no column `second`"),
        (lambda items: items.assign(first=[["a"], [], ["b"]]), "item i2, `first`"),
        (lambda items: items.assign(second="one story"), "item i1, `second`"),
    ],
)
def test_items_that_cannot_be_shown_are_named(engine, change, words):
    with pytest.raises(InputError, match=words):
        judge(engine, change(ITEMS), name="reader", seed=0)


# The judge of a study


@pytest.fixture
def study(tmp_path):
    """Four items of whole stories, the first arm's as long as the second's, and a check."""
    run = write_run(
        tmp_path / "run", 4, story=lambda p, arm, s: f"{arm[:2]} {s} of {p}" + " very" * (s + (arm == "dpo"))
    )
    prepare(run, ARMS, tmp_path / "study", **SIZES | {"prompts": 4, "items": 4})
    return tmp_path / "study"


def test_a_judge_is_asked_what_annotators_saw_and_the_command_holds_it_beside_people(reader, engine, study):
    reader.rule = longest_and_most_varied
    judge_study(study, engine, name="reader", seed=0)
    items = read_items(study)
    shown = {tuple(map(tuple, read_sets(asked))) for asked in reader.seen}
    expected = {(tuple(a), tuple(b)) for a, b in zip(items["first"], items["second"], strict=True)}
    assert shown == expected | {(b, a) for a, b in expected}
    assert len(reader.seen) == 8  # four items in both orders, no check
    table, counts = read_judged(study / "judge-reader.parquet")
    assert counts == {"asked": 8, "answers": 8, "cut": 0, "quality": 0, "diversity": 0} | ANSWERED
    assert set(table["quality"]) == {"first"}  # the longest story is one of dpo
    assert set(table["diversity"]) == {"tie"}
    sides = json.loads((study / "key.json").read_text())["items"]
    for name in items["item"][:3]:
        best = "1" if sides[name]["first_side"] == "left" else "5"
        write_answers(study, f"ann-{name}", {name: [("quality", best), ("diversity", "Hard to decide")]})
    told = said("annotate", "judge", study, "--model", "reader", "--url", reader.url)
    assert len(reader.seen) == 8  # it is not asked again
    assert "judge reader: first is dpo, second is ddpo-both\na model's answers, not people's: 8 of 8" in told
    people = [line.split(maxsplit=4)[4] for line in told.splitlines() if "the verdict of people" in line]
    assert people[0].startswith("1.000 [0.292, 1.000] of 3 items, 1.000 [0.292, 1.000] of the 3 that both decided")
    assert people[1].startswith("1.000 [0.292, 1.000] of 3 items, — of the 0 that both decided")
    assert not re.search(r"\bnan\b", told)
    with pytest.raises(InputError, match=r"judge-reader\.parquet: .* another judge \(seed\); .* another --name"):
        judge_study(study, engine, name="reader", seed=1)


def test_a_judge_that_was_killed_goes_on_where_it_was(reader, engine, study):
    reader.rule = longest_and_most_varied
    whole = judge_study(study, engine, name="Reader 1", seed=0)
    (study / "judge-Reader-1.parquet").unlink()
    journal = study / "judge-Reader-1.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(lines[:6]) + lines[6][:20])  # the settings, five answers and half of the next
    reader.seen.clear()
    again = judge_study(study, engine, name="Reader 1", seed=0)
    assert len(reader.seen) == 3
    pd.testing.assert_frame_equal(whole.table, again.table)
    kept = read_judged(study / "judge-Reader-1.parquet")
    pd.testing.assert_frame_equal(kept.table, again.table)
    assert kept.counts == again.counts == whole.counts
    assert sorted(path.name for path in study.glob("*judge*")) == ["judge-Reader-1.jsonl", "judge-Reader-1.parquet"]


def test_what_is_told_counts_items_that_were_answered_in_both_orders(reader, engine, study):
    """The judge takes the first story, and answers where dpo's set stands left, and once where it stands right."""
    first = set(read_items(study)["first"].map(tuple)[:1])
    reader.rule = lambda a, b: answer(1, "A") if a[0].startswith("dp") or tuple(b) in first else "No form."
    judged = judge_study(study, engine, name="reader", seed=0)
    assert (len(judged.table), len(asked_twice(judged.table))) == (5, 2)
    told = describe(judged, judged.table.iloc[:0], **SETTINGS)
    assert "5 of 8 requests answered in the form; cut at the token limit 0; without an answer on quality 3" in told
    assert "1 items answered in both orders" in told
    assert told.count("0.500 [no interval]") == 6  # first, second and score: not the 0.8 that the side gives
    assert "no person has answered these items yet" in told
    reader.rule = lambda a, b: "No form."
    silent = judge_study(study, engine, name="silent", seed=0)
    assert describe(silent, silent.table, **SETTINGS).endswith("no item was answered in both orders")
    assert read_judged(study / "judge-silent.parquet").table.empty


def test_a_file_that_is_no_judges_is_named(study):
    pd.DataFrame({"item": ["a"]}).to_parquet(study / "judge-x.parquet")
    (study / "judge-y.parquet").write_text("no")
    for name in "xy":
        with pytest.raises(InputError, match=rf"judge-{name}\.parquet: not "):
            read_judged(study / f"judge-{name}.parquet")
