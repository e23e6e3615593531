"""`ddpo online` with a tiny model, end to end: a function, a saved reward and a judge; kills, failures and repeats."""

import itertools
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from safetensors.torch import load
from test_main import refused, said
from tiny import WORDS, save_model_and_adapter, tiny_tokenizer

from ddpo_lib.base.errors import InputError
from ddpo_lib.measures import user_rewards
from ddpo_lib.pairs.arms import training_pairs
from ddpo_lib.profiles.settings import Arm
from ddpo_lib.spaces.counted import lexical_vectors

REWARD = '''"""Rewards of a user, who counts his calls in a file."""

from pathlib import Path

LIMIT = Path("limit")


def words(prompts, texts):
    assert len(set(prompts)) == 1
    calls = Path("calls")
    calls.write_text((calls.read_text() if calls.exists() else "") + prompts[0] + "\\n")
    if LIMIT.exists() and len(calls.read_text().splitlines()) > int(LIMIT.read_text()):
        raise RuntimeError("quota exceeded")
    return [len(text.split()) for text in texts]


def wrong(prompts, texts):
    return [1.0]
'''


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("online")
    save_model_and_adapter(folder, last_layers=2)
    tiny_tokenizer().save_pretrained(folder / "model")
    (folder / "adapter" / "seen_prompts.json").write_text("[]")
    knobs = {"lora_r": 4, "lora_alpha": 8, "lora_targets": ["q_proj", "v_proj", "down_proj"], "last_layers": 2}
    profile = {
        "extends": "smoke",
        "spaces": {"semantic": {"model": "lexical"}, "others": {}},
        "model": {"name": str(folder / "model"), "template": "{prompt} and ", **knobs},
        "sampling": {"max_new_tokens": 30},
        "preference": {"dpo": {"learning_rate": 5e-3, "warmup_steps": 0}},
    }
    (folder / "tiny.yaml").write_text(yaml.safe_dump(profile))
    prompts = [f"{a} {b} near the" for a, b in itertools.product(WORDS[:4], WORDS[6:10])]
    (folder / "prompts.jsonl").write_text("".join(json.dumps({"prompt": one}) + "\n" for one in prompts))
    return folder


@pytest.fixture
def here(files, tmp_path, monkeypatch) -> Path:
    """The current folder, with a reward of the user's own in a module whose name no other test has."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "taste.py").write_text(REWARD)
    monkeypatch.delitem(sys.modules, "taste", raising=False)
    return tmp_path


def online(files: Path, out: str, *more: str, reward: str = "taste:words", rounds: int = 2) -> list[str]:
    words = ["online", files / "prompts.jsonl", out, "--from", files / "adapter", "--reward", reward]
    words += ["--rounds", rounds, "--per-round", 4, "--samples", 5, "--profile", files / "tiny.yaml"]
    return [str(word) for word in (*words, *more)]


def calls() -> list[str]:
    return Path("calls").read_text().splitlines()


def weights(out: str, number: int) -> bytes:
    return Path(out, f"round-{number}", "trained", "adapter_model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def once(files, tmp_path_factory) -> Path:
    """Two rounds in one go."""
    folder = tmp_path_factory.mktemp("once")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        (folder / "taste.py").write_text(REWARD)
        patch.delitem(sys.modules, "taste", raising=False)
        shown = said(*online(files, "out"))
        (folder / "shown").write_text(shown)
    return folder


def test_two_rounds_sample_score_weigh_and_train(files, once):
    shown = (once / "shown").read_text()
    assert "round 1: 20 samples" in shown and "after 2 rounds" in shown
    start = (files / "adapter" / "adapter_model.safetensors").read_bytes()
    assert len({start, weights(once / "out", 1), weights(once / "out", 2)}) == 3
    asked = []
    for number in (1, 2):
        pool = pd.read_parquet(once / "out" / f"pool-{number}" / "pool.parquet")
        pairs = pd.read_parquet(once / "out" / f"round-{number}" / "pairs.parquet")
        whole = pool["finished"] & (pool["text"] != "")
        assert len(pool) == 20 and pool["score"].notna().equals(whole)
        assert (pool.loc[whole, "score"] == pool.loc[whole, "text"].str.split().str.len()).all()
        assert (pairs["chosen_score"] > pairs["rejected_score"]).all() and pairs["weight"].std() > 0
        asked += sorted(set(pool["prompt"]))
    assert len(set(asked)) == 8 == len((once / "calls").read_text().splitlines())
    learned = json.loads((once / "out" / "round-2" / "trained" / "seen_prompts.json").read_text())
    pairs = [pd.read_parquet(once / "out" / f"round-{number}" / "pairs.parquet") for number in (1, 2)]
    assert len(learned) == pd.concat(pairs)["prompt"].nunique()


def test_the_weights_are_those_among_the_samples_of_the_round(once):
    picked = pd.read_parquet(once / "out" / "round-1" / "picked.parquet")
    pairs = pd.read_parquet(once / "out" / "round-1" / "pairs.parquet")
    arm = Arm(loss="dpo", start="sft", weights=["semantic"])
    other = training_pairs(picked, {"semantic": lexical_vectors(picked["text"].tolist())}, arm, 0, 1)
    assert pairs["chosen_id"].tolist() == other["chosen_id"].tolist()
    assert not np.allclose(pairs["weight"], other["weight"])  # of both spaces, and these are of one


def test_a_repeated_command_makes_nothing_again_and_more_rounds_go_on(files, once, here):
    said(*online(files, "out", rounds=1))
    made = [(here / "out" / "round-1" / "manifest.json").stat().st_mtime_ns]
    before = calls()
    said(*online(files, "out", rounds=1))
    assert calls() == before
    said(*online(files, "out", rounds=2))
    assert [(here / "out" / "round-1" / "manifest.json").stat().st_mtime_ns] == made
    assert weights("out", 2) == weights(once / "out", 2)


def test_a_reward_that_fails_half_way_loses_no_score(files, once, here):
    Path("limit").write_text("2")
    told = refused(*online(files, "out"))
    assert "RuntimeError at" in told and "taste.py:" in told and "(quota exceeded)" in told
    assert "the same command goes on from there" in told
    assert len(calls()) == 3 and not (here / "out" / "pool-1").exists()
    Path("limit").unlink()
    said(*online(files, "out"))
    assert len(calls()) == 9 and len(set(calls())) == 8  # only the prompt that failed was asked twice
    assert weights("out", 2) == weights(once / "out", 2)


@pytest.mark.parametrize(
    "killed", ["ddpo_lib.training.train.train_preferences", "ddpo_lib.sampling.journal.Journal.add"]
)
def test_a_killed_run_goes_on_and_comes_out_as_in_one_go(files, once, here, monkeypatch, killed):
    left = iter([None] if killed.endswith("add") else [])  # of sampling one prompt is kept

    def kill(*args, **kwargs):
        if next(left, "killed") == "killed":
            raise KeyboardInterrupt
        return add(*args, **kwargs)

    from ddpo_lib.sampling.journal import Journal

    add = Journal.add
    with monkeypatch.context() as patch:
        patch.setattr(killed, kill)
        with pytest.raises((KeyboardInterrupt, AssertionError)):
            said(*online(files, "out"))
    assert not (here / "out" / "round-1").exists()
    said(*online(files, "out"))
    assert len(calls()) == 8
    assert weights("out", 2) == weights(once / "out", 2)


def test_a_folder_keeps_to_the_settings_that_it_was_begun_with(files, once, monkeypatch):
    monkeypatch.chdir(once)
    for more, named in ((["--samples", "6"], "plan"), (["--seed", "3"], "seed"), (["--arm", "dpo"], "round-1, arm")):
        assert named in refused(*online(files, "out", *more))
    assert "pool-1, reward" in refused(*online(files, "out", reward="taste:wrong"))


def test_a_fixed_reference_is_the_model_of_the_start(files, here):
    said(*online(files, "fixed", "--reference", "fixed", "--arm", "dpo"))
    said(*online(files, "fresh", "--arm", "dpo"))
    apart = []
    for number in (1, 2):
        one, other = (load(weights(out, number)) for out in ("fixed", "fresh"))
        apart.append(max((one[name] - other[name]).abs().max().item() for name in one))
    assert apart[0] < 1e-6 < 1e-5 < apart[1]  # in the first round both are the same model, and rounding may differ


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (["--reward", "taste:nothing"], "taste defines no function nothing"),
        (["--reward", "no_such_module:f"], "the module no_such_module cannot be imported"),
        (["--reward", "nowhere"], "no such folder; give MODULE:FUNCTION, a folder, or a URL"),
        (["--reward", "cache"], "no reward; give a folder such as"),
        (["--reward", "taste:wrong"], r"expected a number for each of \d texts, got shape \(1,\)"),
        (["--model", "judge"], "--model: belong to a judge"),
        (["--reward", "http://127.0.0.1:9/v1"], "a server needs `url` and `model`"),
        (["--arm", "sft"], "arm sft: learns from no pairs"),
        (["--arm", "best"], "arm best: unknown"),
        (["--reference", "none"], "reference: Input should be 'refreshed' or 'fixed'"),
        (["--from", "cache"], "cache: holds no trained model"),
        (["--held-out", "1.0"], "none of 16 prompts is in the training split"),
        (["--tokens", "1"], "is finished and not blank; raise --tokens"),
    ],
)
def test_what_cannot_be_is_said_plainly(files, here, change, sentence):
    import re

    (here / "cache").mkdir()
    assert re.search(sentence, refused(*online(files, "out", *change)))


def test_an_arm_of_the_profile_picks_by_its_own_rule(files, here):
    rule = {"criterion": "probability", "threshold": "range", "max_pairs": 1}
    picks = {"arm": {"loss": "dpo", "start": "sft", "divpo": rule}, "prompts": 2, "samples": 4, "max_new_tokens": 9}
    profile = yaml.safe_load((files / "tiny.yaml").read_text()) | {"online": {"picked": picks}}
    Path("own.yaml").write_text(yaml.safe_dump(profile))
    said(*online(files, "out", "--arm", "picked", "--profile", "own.yaml", rounds=1))
    pairs = pd.read_parquet("out/round-1/pairs.parquet")
    assert "weight" not in pairs and pairs["prompt_id"].is_unique


def test_a_reward_that_was_saved_scores_as_it_did_there(files, here):
    from ddpo_lib.measures import stand_in
    from ddpo_lib.spaces.embed import Space

    texts = [f"the {a} ran past {b}" for a, b in itertools.product(WORDS[:6], WORDS[6:10])]
    scored = pd.DataFrame({"prompt_id": "p", "text": texts, "score": np.linspace(-1, 1, len(texts))})
    reward = stand_in.fit(scored, Space("lexical"), Space("stylometric"))
    Path("kept").mkdir()
    reward.save(Path("kept"))
    said(*online(files, "out", reward="kept", rounds=1))
    pool = pd.read_parquet("out/pool-1/pool.parquet").dropna(subset="score")
    np.testing.assert_allclose(pool["score"], reward.score(pool["prompt"].tolist(), pool["text"].tolist()))
    reward.slopes *= -1
    reward.save(Path("kept"))
    assert "pool-1, reward" in refused(*online(files, "out", reward="kept", rounds=1))


class Judge:
    """A server that speaks OpenAI's protocol and rates a text by its words; it can fail from one request on."""

    def __init__(self):
        self.seen: list[str] = []
        self.keys: set[str] = set()
        self.fails_after = None
        judge = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["messages"][0]["content"]
                judge.keys.add(self.headers["Authorization"])
                failed = judge.fails_after is not None and len(judge.seen) >= judge.fails_after
                if not failed:
                    judge.seen.append(asked)
                text = asked.partition("The text:\n")[2].partition("\n\nAnswer")[0]
                said = "I like it" if "cat" in text else f" **{min(10, len(text.split()))}/10**\n"
                choice = {"index": 0, "message": {"role": "assistant", "content": said}, "finish_reason": "stop"}
                body = {"id": "1", "object": "chat.completion", "created": 0, "model": "judge", "choices": [choice]}
                sent = json.dumps({"error": {"message": "no credit", "code": "insufficient_quota"}} if failed else body)
                self.send_response(402 if failed else 200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(sent.encode())))
                self.end_headers()
                self.wfile.write(sent.encode())

            def log_message(self, *words):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"


@pytest.fixture
def judge():
    running = Judge()
    yield running
    running.server.shutdown()
    running.server.server_close()


def test_a_judge_answers_with_numbers_and_a_failure_loses_none(files, here, judge, monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", "sk-secret")
    more = ["--model", "judge", "--key-variable", "JUDGE_KEY"]
    judge.fails_after = 6
    told = refused(*online(files, "out", *more, reward=judge.url, rounds=1))
    assert "sk-secret" not in told and "prompts are kept in" in told
    answered = len(judge.seen)
    judge.fails_after = None
    said(*online(files, "out", *more, reward=judge.url, rounds=1))
    pool = pd.read_parquet("out/pool-1/pool.parquet")
    asked = pool[pool["finished"] & (pool["text"].str.strip() != "")]
    assert answered >= 6 and len(judge.seen) == len(asked)  # none was asked for again
    assert judge.keys == {"Bearer sk-secret"}
    plain = ~asked["text"].str.contains("cat")
    assert (asked.loc[plain, "score"] == asked.loc[plain, "text"].str.split().str.len().clip(upper=10)).all()
    assert asked.loc[~plain, "score"].isna().all() and (~plain).any()  # never guessed
    files_there = [path for path in Path("out").rglob("*") if path.is_file()]
    assert not [path for path in files_there if b"sk-secret" in path.read_bytes()]


@pytest.mark.parametrize(
    ("answer", "number"),
    [
        ("7", 7),
        (" 7.5\n", 7.5),
        ("**8/10**", 8),
        ("-2", -2),
        ("9.", 9),
        ("7 out of 9", None),
        ("ten", None),
        ("", None),
    ],
)
def test_only_a_number_is_read_as_one(answer, number):
    found = user_rewards._number(answer)
    assert np.isnan(found) if number is None else found == number


def test_a_line_that_a_kill_cut_is_scored_again(tmp_path):
    samples = pd.DataFrame({"prompt_id": ["a", "a", "b"], "prompt": ["x", "x", "y"], "text": ["1", "2", "3"]})
    journal, asked = tmp_path / "scores.jsonl", []

    def reward(prompts, texts):
        asked.append(prompts[0])
        return [float(text) if text != "2" else float("nan") for text in texts]

    np.testing.assert_array_equal(user_rewards.score_by_function(reward, samples, journal, "r"), [1, np.nan, 3])
    journal.write_bytes(journal.read_bytes().rstrip()[:-2])
    np.testing.assert_array_equal(user_rewards.score_by_function(reward, samples, journal, "r"), [1, np.nan, 3])
    assert asked == ["x", "y", "y"]
    np.testing.assert_array_equal(user_rewards.score_by_function(reward, samples, journal, "r"), [1, np.nan, 3])
    assert asked == ["x", "y", "y"]


def test_an_infinite_score_is_no_score(tmp_path):
    samples = pd.DataFrame({"prompt_id": ["a"], "prompt": ["x"], "text": ["1"]})
    with pytest.raises(InputError, match="prompt a: expected a number for each of 1 texts, got an infinite number"):
        user_rewards.score_by_function(lambda prompts, texts: [np.inf], samples, tmp_path / "j", "r")
