"""Sampling here: the draw, the batches, the journal, and a run that is really killed."""

import json
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import tiny_model, tiny_tokenizer
from transformers import AutoConfig, AutoModelForCausalLM

from ddpo_lib.base.errors import InputError
from ddpo_lib.models import models
from ddpo_lib.models.frozen_linears import use_onednn
from ddpo_lib.profiles.evaluation_settings import Baseline
from ddpo_lib.profiles.profile import load_profile
from ddpo_lib.profiles.settings import Sampling
from ddpo_lib.sampling import decoding, engines
from ddpo_lib.sampling.batching import ALIKE, fill_batches, group_alike, pad_left
from ddpo_lib.sampling.engines import Local, open_engine
from ddpo_lib.sampling.generate import generate
from ddpo_lib.sampling.prompting import conversation
from ddpo_lib.sampling.rendering import chat, fill_template

SHORT = Sampling(samples=2, max_new_tokens=6, batch_tokens=60, top_k=8)
LONG = SHORT.model_copy(update={"max_new_tokens": 40})
WIDE = SHORT.model_copy(update={"max_new_tokens": 12, "batch_tokens": 10_000})


# Batches


@given(st.lists(st.integers(1, 60), max_size=40), st.integers(1, 5), st.integers(1, 2000))
def test_batches_hold_every_prompt_once_and_no_more_than_their_budget(lengths, samples, budget):
    sampling = Sampling(batch_tokens=budget)
    batches = fill_batches(lengths, samples, sampling)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        tokens = len(batch) * samples * max(lengths[i] for i in batch)
        assert tokens <= budget or len(batch) == 1
    flat = [lengths[i] for batch in batches for i in batch]
    assert flat == sorted(lengths, reverse=True)


@given(st.lists(st.integers(1, 3000), max_size=40))
def test_groups_hold_every_prompt_once_and_those_of_a_group_need_alike(needs):
    groups = group_alike(needs)
    flat = [needs[i] for group in groups for i in group]
    assert sorted(i for group in groups for i in group) == list(range(len(needs)))
    assert flat == sorted(needs, reverse=True)
    assert all(needs[group[-1]] >= ALIKE * needs[group[0]] for group in groups)
    assert all(needs[after[0]] < ALIKE * needs[group[0]] for group, after in pairwise(groups))


def test_padding_is_masked_and_adds_no_token_that_the_prompt_has_not():
    ids, mask = pad_left([[7, 8, 9], [5]])
    assert ids.tolist() == [[7, 8, 9], [5, 5, 5]]
    assert mask.tolist() == [[1, 1, 1], [0, 0, 1]]


# The whole, on a random model


def stories(number: int) -> pd.DataFrame:
    prompts = ["the cat sat", "a king", "the old ship burned near the door", "dog ran", "one star"]
    return pd.DataFrame({"prompt_id": [f"p{i}" for i in range(number)], "prompt": (prompts * number)[:number]})


def tiny_engine(seed: int = 0) -> Local:
    return Local(tiny_model(seed), tiny_tokenizer(), fill_template("the {prompt} and"))


def test_samples_are_a_row_each_and_the_seed_decides_them():
    prompts = stories(5).sample(frac=1, random_state=0)
    made = generate(tiny_engine(), prompts, SHORT, 0)
    assert made[["prompt_id", "sample"]].to_numpy().tolist() == [[f"p{i}", s] for i in range(5) for s in range(2)]
    assert made.merge(prompts, on=["prompt_id", "prompt"]).shape[0] == 10
    assert (made["finished"] | (made["tokens"] == 6)).all()
    assert (made["text"].str.split().str.len() <= made["tokens"]).all()
    assert made["probability"].isna().all()
    pd.testing.assert_frame_equal(made, generate(tiny_engine(), prompts, SHORT, 0))
    assert not made.equals(generate(tiny_engine(), prompts, SHORT, 1))


@pytest.fixture(params=["in slots", "by generate"])
def path(request, monkeypatch):
    """Both ways of `Local`; the model takes slots, and is told not to."""
    monkeypatch.setattr(engines, "takes_slots", lambda config: request.param == "in slots")


@pytest.mark.parametrize("top_k", [0, 1])
def test_with_one_survivor_the_samples_are_those_of_greedy_decoding_whatever_the_batches(top_k, path):
    settings = {"top_k": top_k, "top_p": 1e-6, "repetition_penalty": 1.0, "max_new_tokens": 10}
    prompts, tokenizer, model = stories(5), tiny_tokenizer(), tiny_model()
    for budget in (1, 60, 10_000):
        made = generate(tiny_engine(), prompts, Sampling(samples=2, batch_tokens=budget, **settings), 0)
        for prompt, text in made[["prompt", "text"]].to_numpy():
            ids = tokenizer(f"the {prompt} and", return_tensors="pt").input_ids
            greedy = model.generate(ids, do_sample=False, max_new_tokens=10)[0, ids.shape[1] :]
            assert text == tokenizer.decode(greedy, skip_special_tokens=True).strip()


def test_the_penalty_counts_the_response_and_neither_the_prompt_nor_an_end_token(path):
    """Step by step against the definition, on a prompt that holds an end token, as a chat template does."""
    settings = {"top_k": 1, "top_p": 1.0, "repetition_penalty": 1.5, "max_new_tokens": 12}
    tokenizer, model = tiny_tokenizer(), tiny_model()
    engine = Local(tiny_model(), tokenizer, fill_template("the {prompt} <end> the and"))
    made = generate(engine, stories(5), Sampling(samples=2, batch_tokens=100, **settings), 0)
    repeated = 0
    for prompt, text in made[["prompt", "text"]].to_numpy():
        ids, said = tokenizer(f"the {prompt} <end> the and").input_ids, []
        assert 1 in ids
        while len(said) < 12 and 1 not in said:
            with torch.no_grad():
                logits = model(torch.tensor([ids + said])).logits[0, -1]
            for token in set(said) - {1}:
                logits[token] = logits[token] / 1.5 if logits[token] > 0 else logits[token] * 1.5
            said.append(int(logits.argmax()))
        repeated += len(said) - len(set(said))
        assert text == tokenizer.decode(said, skip_special_tokens=True).strip()
    assert repeated


def test_a_sample_does_not_depend_on_what_else_is_sampled(path):
    prompts = stories(5)
    whole = generate(tiny_engine(), prompts, LONG, 0).set_index(["prompt_id", "sample"])["text"]
    alone, others = prompts[3:4], prompts[::-1]
    for part, changes in ((alone, {}), (others, {"batch_tokens": 10_000}), (others, {"samples": 3})):
        made = generate(tiny_engine(), part, LONG.model_copy(update=changes), 0)
        made = made[made["sample"] < 2].set_index(["prompt_id", "sample"])["text"]
        pd.testing.assert_series_equal(made, whole[made.index])


def test_both_ways_draw_the_same_texts(monkeypatch):
    in_slots = generate(tiny_engine(), stories(5), LONG, 0)
    monkeypatch.setattr(engines, "takes_slots", lambda config: False)
    pd.testing.assert_frame_equal(in_slots, generate(tiny_engine(), stories(5), LONG, 0))


def test_no_sequence_is_read_on_after_its_end_and_no_more_are_read_at_once_than_fit(monkeypatch):
    read, counts = decoding.SlotCache.read, []
    monkeypatch.setattr(decoding.SlotCache, "read", lambda *args: counts.append(len(args[-1])) or read(*args))
    made = generate(tiny_engine(), stories(20), LONG.model_copy(update={"batch_tokens": 300}), 0)
    assert made["finished"].any()
    assert sum(counts) == made["tokens"].sum() + made["finished"].sum()  # one step per token, ends included
    assert max(counts) == 6  # three prompts of 46 to 50 tokens with their answers, twice


@pytest.mark.parametrize(("kind", "slots"), [("gpt2", True), ("qwen3", True), ("bloom", True), ("mistral", False)])
def test_other_kinds_of_models_are_sampled_too(kind, slots):
    """Absolute, rotary and relative positions in slots; a sliding window, shorter than the texts, by `generate`."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "initializer_range": 0.3}
    more = {
        "qwen3": {"head_dim": 8, "num_key_value_heads": 2},
        "mistral": {"sliding_window": 6, "num_key_value_heads": 2},
    }.get(kind, {})
    torch.manual_seed(0)
    ends = {"eos_token_id": 1, "pad_token_id": 0, "bos_token_id": None}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, vocab_size=23, **sizes, **ends, **more)).eval()
    assert decoding.takes_slots(model.config) == slots
    tokenizer, expected = tiny_tokenizer(), []
    for prompt in stories(4)["prompt"]:
        ids = tokenizer(f"the {prompt} and", return_tensors="pt").input_ids
        greedy = model.generate(ids, do_sample=False, max_new_tokens=14)[0, ids.shape[1] :]
        expected += [tokenizer.decode(greedy, skip_special_tokens=True).strip()] * 2
    only = Sampling(samples=2, top_k=1, top_p=1.0, repetition_penalty=1.0, max_new_tokens=14, batch_tokens=80)
    made = generate(Local(model, tokenizer, fill_template("the {prompt} and")), stories(4), only, 0)
    assert made["text"].tolist() == expected


def test_samples_and_prompts_that_are_equal_have_noise_of_their_own():
    made = generate(tiny_engine(), stories(60), WIDE, 0)
    assert made.groupby("prompt")["text"].nunique().ge(20).all()  # of 24


def test_models_that_differ_little_write_much_the_same_with_one_seed_and_not_with_two():
    changed = tiny_model()
    with torch.no_grad():
        changed.lm_head.weight += 0.01 * torch.randn(changed.lm_head.weight.shape, generator=torch.manual_seed(1))
    other = Local(changed, tiny_tokenizer(), fill_template("the {prompt} and"))
    texts = generate(tiny_engine(), stories(60), WIDE, 0)["text"]
    alike = [(generate(other, stories(60), WIDE, seed)["text"] == texts).mean() for seed in (0, 1)]
    assert alike[0] > 0.5
    assert alike[1] < 0.1


def test_a_prompt_that_fills_the_context_is_refused_and_one_that_nearly_does_is_cut_short(caplog):
    engine = tiny_engine()
    engine.model.config.max_position_embeddings = 8
    made = generate(engine, stories(1), SHORT, 0)  # 5 tokens with the template
    assert made["tokens"].le(3).all()
    assert "gets at most 3 new ones" in caplog.text
    with pytest.raises(InputError, match="9 tokens leaves no room"):
        generate(engine, stories(3), SHORT, 0)


# The journal


def test_what_a_journal_holds_is_not_sampled_again_and_a_torn_line_is(tmp_path):
    journal = tmp_path / "journal"
    whole = generate(tiny_engine(), stories(5), SHORT, 0, journal=journal)
    lines = journal.read_bytes().splitlines(keepends=True)
    assert len(lines) == 6
    for torn in (
        b"".join(lines[:3]),
        b"".join(lines[:3]) + lines[3][:-9],
        b"".join(lines[:3]) + b"\0" * 9 + b"\n",
        b"{",
    ):
        journal.write_bytes(torn)
        pd.testing.assert_frame_equal(whole, generate(tiny_engine(), stories(5), SHORT, 0, journal=journal))
        assert sorted(journal.read_bytes().splitlines(keepends=True)) == sorted(lines)
    kept = json.loads(lines[1])
    kept["completions"][0]["text"] = "as kept"
    journal.write_bytes(lines[0] + json.dumps(kept).encode() + b"\n")
    again = generate(tiny_engine(), stories(5), SHORT, 0, journal=journal)
    assert (again["text"] == "as kept").sum() == 1
    assert again["text"].ne(whole["text"]).sum() == 1


@pytest.mark.parametrize("changed", ["seed", "sampling", "engine", "prompts", "how"])
def test_a_journal_of_other_settings_is_set_aside_and_the_difference_named(tmp_path, caplog, changed):
    journal = tmp_path / "journal"
    generate(tiny_engine(), stories(3), SHORT, 0, journal=journal)
    before = journal.read_bytes()
    made = generate(
        tiny_engine(1 if changed == "engine" else 0),
        stories(2 if changed == "prompts" else 3),
        SHORT.model_copy(update={"temperature": 1.1} if changed == "sampling" else {}),
        1 if changed == "seed" else 0,
        how="iter" if changed == "how" else "plain",
        journal=journal,
    )
    assert f"begun with another {changed}" in caplog.text
    assert (tmp_path / "journal.other").read_bytes() == before
    assert len(made) == (4 if changed == "prompts" else 6)


KILLED = """
import sys
from pathlib import Path
import torch
import test_generate
torch.set_num_threads(1)
test_generate.long_run(sys.argv[1], Path(sys.argv[2]))
"""


def long_run(how: str, journal: Path) -> pd.DataFrame:
    return generate(tiny_engine(), stories(60), LONG, 0, how=how, journal=journal)


@pytest.mark.parametrize(("how", "lines"), [("plain", 61), ("iter", 121)])
def test_a_run_that_is_killed_and_started_again_gives_the_texts_of_a_whole_one(tmp_path, how, lines, one_thread):
    journal = tmp_path / "killed"
    command = [sys.executable, "-c", KILLED, how, str(journal)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}  # this file and the helpers of tests
    running = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    while running.poll() is None and (not journal.exists() or journal.read_bytes().count(b"\n") < lines * 2 // 3):
        time.sleep(0.002)
    running.send_signal(signal.SIGKILL)
    assert running.wait() == -signal.SIGKILL
    assert lines * 2 // 3 <= journal.read_bytes().count(b"\n") < lines
    whole = long_run(how, tmp_path / "whole")
    assert len(whole) == 120
    pd.testing.assert_frame_equal(long_run(how, journal), whole)


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# The embedded model, asked in three ways


@pytest.fixture(scope="module")
def embedded() -> Local:
    return open_engine(Baseline(), load_profile("embedded").model)


PROMPTS = pd.DataFrame({"prompt_id": ["a", "b"], "prompt": ["A lighthouse at night.", "The last train home."]})


def test_iter_shows_each_sample_to_the_next(embedded, monkeypatch):
    talks = []
    monkeypatch.setattr(embedded, "render", lambda talk: talks.append(talk) or chat(embedded.tokenizer)(talk))
    sampling = Sampling(samples=3, max_new_tokens=8, temperature=1.5)  # at 1 this small model repeats itself
    made = generate(embedded, PROMPTS, sampling, 0, how="iter", instruction="Story: {prompt}")
    assert made["text"].nunique() == 6
    asked = [talk for talk in talks if talk[0]["content"] != "{prompt}"]
    assert [len(talk) for talk in asked] == [1, 1, 3, 3, 5, 5]
    last = asked[-1]
    assert [m["role"] for m in last] == ["user", "assistant", "user", "assistant", "user"]
    assert last[0]["content"] == "Story: The last train home."
    assert [last[1]["content"], last[3]["content"]] == made.query("prompt_id == 'b'")["text"].tolist()[:2]


def test_verbalized_asks_once_and_says_how_many_prompts_gave_too_few(embedded, caplog):
    made = generate(embedded, PROMPTS, Sampling(samples=2, max_new_tokens=12), 0, how="verbalized")
    few = 2 - int((made.groupby("prompt_id").size() == 2).sum())
    assert few == 0 or f"{few} of 2 prompts gave fewer than 2 answers" in caplog.text
    assert made["tokens"].isna().all()
    (talk,) = conversation("verbalized", "Story", [], 7)
    assert "Give 7 different answers" in talk["content"]
    assert talk["content"].endswith("Story")


def test_verbalized_reads_answers_out_of_what_is_kept(tmp_path, caplog):
    """A journal stands in for a model that does as it is told, which the embedded one seldom does."""
    journal = tmp_path / "journal"
    engine = tiny_engine()
    sampling = SHORT.model_copy(update={"samples": 3})
    generate(engine, stories(2), sampling, 0, how="verbalized", journal=journal)
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    answer = "<answer><probability>{}</probability><text>{}</text></answer>".format
    told = {
        0: (answer(0.5, "one") + answer(0.1, "two") + "<answer><text>thr", "length"),
        1: (answer(1, "only"), "stop"),
    }
    for line in lines[1:]:
        text, reason = told[line["prompt"]]
        line["completions"] = [{"text": text, "tokens": 9, "reason": reason}]
    journal.write_text("".join(json.dumps(line) + "\n" for line in lines))
    made = generate(engine, stories(2), sampling, 0, how="verbalized", journal=journal)
    assert made["text"].tolist() == ["one", "two", "thr", "only"]
    assert made["sample"].tolist() == [0, 1, 2, 0]
    assert made["finished"].tolist() == [True, True, False, True]
    assert made["probability"].tolist()[:2] == [0.5, 0.1]
    assert made["probability"].isna().tolist() == [False, False, True, False]
    assert "1 of 2 prompts gave fewer than 3 answers" in caplog.text


def test_a_chat_template_is_used_where_there_is_one(embedded):
    assert chat(tiny_tokenizer())([{"role": "user", "content": "the cat"}]) == "the cat\n\n"
    assert embedded.facts()["template"].endswith("{prompt}<|im_end|>\n<|im_start|>assistant\n")


def test_linears_in_onednn_change_no_more_than_rounding():
    model = models.load_model("smollm2-135m-instruct")
    ids = models.load_tokenizer("smollm2-135m-instruct")("A lighthouse at night.", return_tensors="pt").input_ids
    with torch.no_grad():
        before = model(ids).logits
        after = use_onednn(model)(ids).logits
    torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-3)


def test_vllm_that_is_not_there_is_said_with_what_to_install():
    if find_spec("vllm"):
        pytest.skip("vLLM is installed")
    baseline = Baseline(engine="vllm")
    with pytest.raises(InputError, match="pip install vllm"):
        open_engine(baseline, load_profile("embedded").model)
