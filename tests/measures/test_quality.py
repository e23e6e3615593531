"""What every reward does, the report on it, the stand-in, and the reward model on a model small enough to train."""

import itertools
import json
import logging
import math
import random
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import SHARED
from safetensors.torch import load_file
from scipy.stats import norm, spearmanr, t
from tiny import WORDS, tiny_model, tiny_tokenizer
from transformers import T5Config, T5ForSequenceClassification, TrainerCallback, TrainingArguments
from transformers.modeling_outputs import SequenceClassifierOutput

from ddpo_lib.base.errors import InputError
from ddpo_lib.data import seen_prompts
from ddpo_lib.data.corpus import EMPTY, read_corpus, transform_scores
from ddpo_lib.measures import quality, reward_model, stand_in
from ddpo_lib.measures.from_profile import fit_reward, load_reward
from ddpo_lib.measures.quality import Reward
from ddpo_lib.models import models
from ddpo_lib.profiles.evaluation_settings import Quality
from ddpo_lib.profiles.profile import load_profile
from ddpo_lib.spaces.embed import Space

STYLE = Space("stylometric")


@pytest.fixture(scope="module", autouse=True)
def private_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


# Every reward


class Says(Reward):
    """A reward with the answers given."""

    name, facts = "fixed", {}

    def __init__(self, answers):
        self.answers = answers

    def predict(self, prompts, texts):
        return self.answers

    def save(self, folder):
        raise NotImplementedError

    load = save


def test_a_reward_that_gives_no_number_is_named_with_the_first_response():
    texts = ["", "fine", "The third one.", "more", "even more"]
    with pytest.raises(InputError, match=r"fixed: 2 of 4 scores are not finite; the first, nan, .*2 \('The third one"):
        Says([0.1, math.nan, 0.3, math.inf]).score(["p"] * 5, texts)


@pytest.mark.parametrize("answers", [[0.1, 0.2], [0.1] * 4, 0.5, [[0.1], [0.2], [0.3]]])
def test_a_reward_that_gives_too_few_or_too_many_numbers_is_refused(answers):
    with pytest.raises(InputError, match=r"fixed: scores of shape \(.*\) for 3 .* the first mismatch is response \d"):
        Says(answers).score(["p"] * 3, ["a", "b", "c"])


def test_blank_texts_get_the_lowest_score_and_are_not_predicted():
    assert Says([0.5, 0.25]).score(["p"] * 4, ["", "a", "b", " \n"]).tolist() == [-1.0, 0.5, 0.25, -1.0]
    assert Says([math.nan]).score(["p"], [""]).tolist() == [-1.0]


def test_the_placeholder_of_a_blank_sample_is_scored_as_blank(fitted):
    assert Says([0.5]).score(["p"] * 3, [EMPTY, "a", f" {EMPTY}\n"]).tolist() == [-1.0, 0.5, -1.0]
    assert fitted.score(["A door opens."] * 2, [EMPTY, ""]).tolist() == [-1.0, -1.0]


def test_scores_are_transformed_by_the_range_of_the_training_split():
    corpus = pd.DataFrame({"split": ["train", "test", "train", "test", "train"], "score": [3.0, 1.0, 50.0, 90.0, None]})
    train, test = quality.split_scored(corpus)
    assert train["score"].tolist() == [-1.0, 1.0]
    assert test["score"].tolist() == [-1.0, 1.0]  # beyond the range is its end
    assert len(quality.split_scored(corpus.assign(score=[3.0, 9.0, 50.0, 9.0, 9.0]))[0]) == 3
    with pytest.raises(InputError, match="no response of the training split has a score"):
        quality.split_scored(corpus[corpus["split"] == "test"])


# The report


def held_out(score, prompts, words=None) -> pd.DataFrame:
    words = range(1, len(score) + 1) if words is None else words
    return pd.DataFrame({"prompt_id": prompts, "score": score, "words": words})


@pytest.fixture(scope="module")
def noisy() -> tuple[np.ndarray, pd.DataFrame]:
    """30 prompts of 1 to 8 responses with ties, predictions of some worth."""
    rng = np.random.default_rng(3)
    prompts = np.repeat([f"p{i}" for i in range(30)], rng.integers(1, 9, 30))
    predicted = rng.normal(size=len(prompts)).round(1)
    score = (predicted + rng.normal(size=len(prompts))).round(1)
    return predicted, held_out(score, prompts, rng.integers(1, 40, len(prompts)))


def test_rank_correlations_are_those_of_scipy(noisy):
    predicted, table = noisy
    report = quality.report(predicted, table, seed=0)
    assert report["spearman"]["mean"] == pytest.approx(spearmanr(predicted, table["score"]).statistic)
    table = table.assign(predicted=predicted)
    rated = [group for _, group in table.groupby("prompt_id") if group["score"].nunique() > 1]
    rhos = [spearmanr(g["predicted"], g["score"]).statistic if g["predicted"].nunique() > 1 else 0.0 for g in rated]
    assert report["within_prompt"]["mean"] == pytest.approx(np.mean(rhos))
    assert report["within_prompt"]["prompts"] == len(rated) < table["prompt_id"].nunique()
    assert report["within_prompt"]["low"] < np.mean(rhos) < report["within_prompt"]["high"]
    assert report["mean_absolute_error"] == pytest.approx((table["predicted"] - table["score"]).abs().mean())
    assert json.loads(json.dumps(report, allow_nan=False)) == report


def test_the_interval_of_rho_is_that_of_whole_prompts_drawn_anew(noisy):
    predicted, table = noisy
    found = quality.report(predicted, table, seed=0)["spearman"]
    rng, parts = np.random.default_rng(5), list(table.assign(predicted=predicted).groupby("prompt_id"))
    drawn = []
    for _ in range(1500):
        resample = pd.concat([parts[i][1] for i in rng.integers(0, len(parts), len(parts) - 1)])
        drawn.append(spearmanr(resample["predicted"], resample["score"]).statistic)
    tail = norm.cdf(t.ppf(0.025, len(parts) - 1))  # the expanded percentile, below 0.025
    assert found["low"] == pytest.approx(np.quantile(drawn, tail), abs=0.03)
    assert found["high"] == pytest.approx(np.quantile(drawn, 1 - tail), abs=0.03)


def test_the_permutation_p_counts_orders_within_prompts():
    # two prompts of three, all ranked right: 1 of 36 pairs of orders is as good
    report = quality.report([1, 2, 3, 1, 2, 3], held_out([4, 5, 6, 7, 8, 9], list("aaabbb")), seed=0)
    assert report["within_prompt"]["mean"] == pytest.approx(1)
    assert report["p_within_prompt"] == pytest.approx(1 / 36, abs=0.012)
    assert report["better_than_chance"]
    # one of two ranked wrong: rhos 1 and -1
    report = quality.report([1, 2, 3, 3, 2, 1], held_out([4, 5, 6, 7, 8, 9], list("aaabbb")), seed=0)
    assert report["within_prompt"]["mean"] == pytest.approx(0)
    assert not report["better_than_chance"]


def test_p_is_below_a_twentieth_as_often_as_chance_has_it():
    rng = np.random.default_rng(0)
    prompts = np.repeat(np.arange(10), 5)
    lists = [(rng.normal(size=50), held_out(rng.normal(size=50), prompts)) for _ in range(60)]
    found = [quality.report(*pair, seed)["better_than_chance"] for seed, pair in enumerate(lists)]
    assert sum(found) <= 8  # 3 are expected


def test_calibration_is_by_tenths_of_the_predictions():
    rng = np.random.default_rng(0)
    order = rng.permutation(40)
    predicted = np.arange(40) / 10
    score = np.arange(40) / 20
    report = quality.report(predicted[order], held_out(score[order], [f"p{i % 4}" for i in range(40)]), seed=0)
    assert [part["responses"] for part in report["calibration"]] == [4] * 10
    # the first four predictions are 0, 0.1, 0.2 and 0.3, their scores half of that
    assert report["calibration"][0]["predicted"] == pytest.approx(0.15)
    assert report["calibration"][0]["score"] == pytest.approx(0.075)
    assert report["calibration"][-1]["predicted"] == pytest.approx(3.75)
    assert report["calibration"][-1]["score"] == pytest.approx(1.875)


def test_equal_predictions_stay_in_one_part_of_the_calibration():
    report = quality.report([0.5] * 30, held_out(np.arange(30.0), ["a", "b"] * 15), seed=0)
    assert report["calibration"] == [{"responses": 30, "predicted": 0.5, "score": 14.5}]
    assert report["spearman"] is None
    assert report["within_prompt"]["mean"] == 0
    assert not report["better_than_chance"]
    # the median held-out score is 14.5 as well: off by 7.5 on the mean
    assert report["error_of_median"] == 7.5


def test_error_and_rank_are_told_by_length():
    words = [1, 2, 3, 10, 20, 30, 100, 200, 300, 1000, 2000, 3000]
    score = np.arange(12.0)
    predicted = score.copy()
    predicted[9:] = [14, 13, 12]  # of the longest: too high by 5, 3, 1 and in the wrong order
    report = quality.report(predicted, held_out(score, list("abcd") * 3, words), seed=0)
    assert [(part["fewest"], part["most"]) for part in report["by_length"]] == [
        (1, 3),
        (10, 30),
        (100, 300),
        (1000, 3000),
    ]
    assert [part["mean_absolute_error"] for part in report["by_length"]] == pytest.approx([0, 0, 0, 3])
    assert [part["spearman"] for part in report["by_length"]] == pytest.approx([1, 1, 1, -1])
    assert report["by_length"][3]["predicted"] - report["by_length"][3]["score"] == pytest.approx(3)


def test_a_reward_of_length_is_seen_to_be_one():
    rng = np.random.default_rng(1)
    words = rng.permutation(60)
    report = quality.report(words / 60, held_out(rng.normal(size=60), np.repeat(np.arange(6), 10), words), seed=0)
    assert report["length"]["predicted"]["mean"] == pytest.approx(1)
    assert report["length"]["score"]["mean"] < 0.5


def test_a_report_on_little_says_so():
    one = quality.report([1, 2, 3], held_out([1, 3, 2], ["a"] * 3), seed=0)
    assert one["within_prompt"] == {"mean": pytest.approx(0.5), "low": None, "high": None, "prompts": 1}
    same = quality.report([1, 2], held_out([0, 0], ["a", "b"]), seed=0)
    assert (same["within_prompt"], same["p_within_prompt"], same["better_than_chance"]) == (None, None, False)
    nothing = quality.report(np.array([]), held_out([], []), seed=0)
    assert (nothing["responses"], nothing["spearman"], nothing["calibration"]) == (0, None, [])
    json.dumps([one, same, nothing], allow_nan=False)


# The stand-in, on the corpus of the package


@pytest.fixture(scope="module")
def corpus():
    return read_corpus(held_out=0.4)


@pytest.fixture(scope="module")
def fitted(corpus):
    return stand_in.fit(quality.split_scored(corpus)[0], STYLE, STYLE)


def report_on(reward: Reward, test: pd.DataFrame) -> dict:
    table = quality.predict_held_out(reward, test)
    return quality.report(table["predicted"], table, seed=0)


def test_the_stand_in_ranks_responses_of_prompts_that_it_never_saw(corpus, fitted):
    report = report_on(fitted, quality.split_scored(corpus)[1])
    assert report["within_prompt"]["low"] > 0.4
    assert report["better_than_chance"]
    assert report["mean_absolute_error"] < report["error_of_median"]
    assert fitted.name == "stand-in reward"


def test_the_stand_in_is_the_ridge_of_its_features(corpus, fitted):
    train = quality.split_scored(corpus)[0]
    x = stand_in._features(train["text"].tolist(), STYLE, STYLE)
    z = (x - x.mean(axis=0)) / np.where(x.std(axis=0) > 0, x.std(axis=0), 1)
    y, products = train["score"].to_numpy(), z @ z.T
    # by the kernel: slopes are z' (z z' + penalty)^-1 (y - mean)
    ridge = y.mean() + products @ np.linalg.solve(products + fitted.facts["penalty"] * np.eye(len(y)), y - y.mean())
    assert 0 < (np.abs(ridge) > 1).mean() < 0.1
    scores = fitted.score(train["prompt"].tolist(), train["text"].tolist())
    np.testing.assert_allclose(scores, ridge.clip(-1, 1), atol=1e-8)


def test_scores_shuffled_within_prompts_teach_the_stand_in_nothing(corpus):
    rng = np.random.default_rng(0)
    better = []
    for _ in range(5):
        shuffled = corpus.assign(score=corpus.groupby("prompt_id")["score"].transform(rng.permutation))
        train, test = quality.split_scored(shuffled)
        better.append(report_on(stand_in.fit(train, STYLE, STYLE), test)["better_than_chance"])
    assert sum(better) <= 2


def test_the_stand_in_scores_a_story_alike_under_every_prompt(corpus, fitted):
    texts, prompts = corpus["text"].tolist()[:16], corpus["prompt"].unique()
    own, other = (fitted.score([prompt] * 16, texts) for prompt in prompts[:2])
    np.testing.assert_array_equal(own, other)
    assert own.std() > 0


def test_a_saved_stand_in_gives_the_same_scores(corpus, fitted, tmp_path):
    fitted.save(tmp_path)
    kept = stand_in.StandIn.load(tmp_path)
    rows = corpus["prompt"].tolist()[:30], corpus["text"].tolist()[:30]
    np.testing.assert_array_equal(kept.score(*rows), fitted.score(*rows))
    assert kept.facts == fitted.facts
    assert not [file for file in tmp_path.iterdir() if file.suffix not in (".json", ".npz")]


def test_the_report_on_captions_that_a_crowd_scored_is_whole():
    source = SHARED / "data" / "newyorker_captions.jsonl"
    if not source.exists():
        pytest.skip("shared/data is not beside the project")
    table = read_corpus(source, held_out=0.0)
    first = table["prompt_id"].unique()[:20]
    table = table[table["prompt_id"].isin(first)].copy()
    table["split"] = np.where(table["prompt_id"].isin(first[:12]), "train", "test")
    train, test = quality.split_scored(table)
    report = report_on(stand_in.fit(train, STYLE, STYLE), test)
    assert (report["prompts"], report["responses"]) == (8, len(test))
    assert sum(part["responses"] for part in report["calibration"]) == len(test)
    assert sum(part["responses"] for part in report["by_length"]) == len(test)
    assert len(report["by_length"]) == 4
    assert -1 <= report["within_prompt"]["low"] < report["within_prompt"]["high"] <= 1


# The reward model


def test_the_model_reads_the_papers_frame():
    assert reward_model.frame("A king.", "He slept.\nEnd") == (
        "<prompt>A king.</prompt><response>He slept.\nEnd</response>"
    )


def test_the_loss_is_the_mean_absolute_difference():
    outputs = SequenceClassifierOutput(logits=torch.tensor([[0.5], [-1.0], [2.0], [0.0]]))
    labels = torch.tensor([0.25, 0.0, -1.0, 0.0])
    # 0.25, 1, 3 and 0: mean 1.0625; squares would give 2.515625
    assert reward_model.l1_loss(outputs, labels).item() == 1.0625
    assert reward_model.l1_loss(outputs, labels, num_items_in_batch=8).item() == 4.25 / 8


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """A folder with the tiny model and a tokenizer that tells the frame's tags from words."""
    folder = tmp_path_factory.mktemp("base") / "tiny-base"
    tokenizer, model = tiny_tokenizer(), tiny_model()
    tokenizer.add_tokens(["<prompt>", "</prompt>", "<response>", "</response>"])
    model.resize_token_embeddings(len(tokenizer))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def settings(base: Path, **changes) -> Quality:
    small = {"dtype": "float32", "learning_rate": 5e-3, "epochs": 6.0, "batch_size": 16, "patience": 20, "dev": 0.2}
    return Quality(**{"kind": "reward-model", "base": str(base)} | small | changes)


def stories(number: int, seed: int = 0) -> pd.DataFrame:
    """Prompts of 8 responses; the score is the number of times that a response says "dog"."""
    rng = random.Random(seed)
    rows = []
    for prompt, response in itertools.product(range(number), range(8)):
        dogs = rng.randint(0, 4)
        words = rng.choices([word for word in WORDS if word != "dog"], k=rng.randint(4, 10)) + ["dog"] * dogs
        rng.shuffle(words)
        rows.append((f"p{prompt:03d}", f"p{prompt:03d}-{response}", WORDS[prompt % len(WORDS)], " ".join(words), dogs))
    table = pd.DataFrame(rows, columns=["prompt_id", "response_id", "prompt", "text", "score"])
    return table.assign(score=transform_scores(table["score"], 0, 4))


@pytest.fixture(scope="module")
def trained(base, tmp_path_factory):
    return reward_model.fit(stories(40), settings(base), 0, tmp_path_factory.mktemp("trained"))


def test_the_reward_model_learns_a_rule_and_keeps_to_it_on_other_prompts(trained):
    report = report_on(trained, stories(20, seed=1))
    assert report["within_prompt"]["low"] > 0.5
    assert report["better_than_chance"]
    assert report["mean_absolute_error"] < 0.7 * report["error_of_median"]
    assert trained.name == "reward model (tiny-base)"


def test_scores_shuffled_within_prompts_teach_the_reward_model_nothing(base, tmp_path):
    table = stories(40)
    rng = np.random.default_rng(0)
    table["score"] = table.groupby("prompt_id")["score"].transform(rng.permutation)
    model = reward_model.fit(table, settings(base, epochs=2.0), 0, tmp_path)
    held = stories(20, seed=1)
    held["score"] = held.groupby("prompt_id")["score"].transform(rng.permutation)
    assert not report_on(model, held)["better_than_chance"]


def test_a_saved_reward_model_gives_the_same_scores_and_holds_its_head(trained, tmp_path):
    trained.save(tmp_path)
    weights = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert [name for name in weights if "score" in name]
    assert weights[next(name for name in weights if "score" in name)].dtype == torch.float32
    kept = reward_model.RewardModel.load(tmp_path)
    held = stories(4, seed=2)
    rows = held["prompt"].tolist(), held["text"].tolist()
    np.testing.assert_array_equal(kept.score(*rows), trained.score(*rows))
    assert (kept.facts, kept.settings) == (trained.facts, trained.settings)


def test_neither_order_nor_company_changes_a_score(trained):
    held = stories(6, seed=2).sample(frac=1, random_state=0)
    prompts, texts = held["prompt"].tolist(), held["text"].tolist()
    together = trained.score(prompts, texts)
    np.testing.assert_allclose(trained.score(prompts[::-1], texts[::-1])[::-1], together, atol=1e-5)
    alone = [trained.score([prompt], [text])[0] for prompt, text in zip(prompts, texts, strict=True)]
    np.testing.assert_allclose(alone, together, atol=1e-5)
    assert len(set(together.round(4))) > 10


def test_the_reward_model_reads_the_prompt(trained):
    texts = stories(2, seed=2)["text"].tolist()
    one, other = (trained.score([prompt] * len(texts), texts) for prompt in ("a king", "the door opened"))
    assert np.abs(one - other).max() > 1e-4


def test_what_is_over_the_limit_is_cut_before_the_last_tag_and_counted(base, trained, caplog):
    tokenizer = trained.tokenizer
    texts = ["dog ran", " ".join(["dog"] * 40)]
    ids, cut = reward_model._encode(tokenizer, ["a", "a"], texts, 16)
    assert cut == 1
    assert tokenizer.convert_ids_to_tokens(ids[1]) == ["<prompt>", "a", "</prompt>", "<response>"] + ["dog"] * 11 + [
        "</response>"
    ]
    model = reward_model.RewardModel(trained.policy, tokenizer, settings(base, max_tokens=16), {})
    with caplog.at_level(logging.WARNING):
        long = model.score(["a", "a"], [texts[1], " ".join(["dog"] * 11)])
    assert long[0] == pytest.approx(long[1], abs=1e-6)
    assert "1 of 2 responses over 16 tokens are cut" in caplog.text


def test_the_prompts_that_decide_when_to_stop_teach_nothing(trained):
    assert (trained.facts["prompts"], trained.facts["dev_prompts"]) == (32, 8)
    assert trained.facts["responses"] == 32 * 8
    ids = stories(40)["prompt_id"]
    dev = reward_model._draw_dev(ids, 0.2, 0)
    assert not set(ids[dev]) & set(ids[~dev])
    assert (dev == reward_model._draw_dev(ids, 0.2, 0)).all()
    assert (dev != reward_model._draw_dev(ids, 0.2, 1)).any()
    assert reward_model._draw_dev(pd.Series(["a", "b"]), 0.01, 0).sum() == 1
    with pytest.raises(InputError, match="two prompts"):
        reward_model._draw_dev(pd.Series(["a", "a"]), 0.1, 0)


def test_training_stops_early_and_the_best_weights_are_kept(base, tmp_path):
    """Steps far too large: the loss on the prompts set aside rises, and the least is not the last."""
    wild = settings(base, learning_rate=0.5, epochs=50.0, patience=3)
    table = stories(20)
    model = reward_model.fit(table, wild, 0, tmp_path)
    log = json.loads((tmp_path / "log.json").read_text())
    losses = {entry["step"]: entry["eval_loss"] for entry in log if "eval_loss" in entry}
    best = min(losses, key=losses.get)
    assert model.facts["best_step"] == best < model.facts["steps"] == max(losses) < 50 * 8
    assert len([step for step in losses if step > best]) == 3
    dev = table[reward_model._draw_dev(table["prompt_id"], wild.dev, 0)]
    error = np.abs(model.score(dev["prompt"].tolist(), dev["text"].tolist()) - dev["score"]).mean()
    assert error == pytest.approx(losses[best], abs=1e-5)
    assert error != pytest.approx(losses[max(losses)], abs=1e-3)


class TwoGPUs(TrainingArguments):
    def __post_init__(self):
        super().__post_init__()
        self._n_gpu = 2  # as transformers counts them


def test_of_several_gpus_that_are_seen_one_trains_with_the_batch_of_the_settings(base, tmp_path, monkeypatch):
    monkeypatch.setattr(reward_model, "TrainingArguments", TwoGPUs)
    model = reward_model.fit(stories(5), settings(base, epochs=1.0), 0, tmp_path)
    assert model.facts["responses"] == 4 * 8
    assert model.facts["steps"] == 4 * 8 / 16


def test_a_killed_training_goes_on_to_the_same_weights(base, tmp_path, monkeypatch):
    table, small = stories(12), settings(base, epochs=2.0)
    whole = reward_model.fit(table, small, 0, tmp_path / "whole")

    class Kill(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 5:
                raise KeyboardInterrupt

    class Killed(reward_model.RewardTrainer):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.add_callback(Kill())

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(reward_model, "RewardTrainer", Killed)
        reward_model.fit(table, small, 0, tmp_path / "killed")
    assert list((tmp_path / "killed" / "checkpoints").glob("checkpoint-*"))
    resumed = reward_model.fit(table, small, 0, tmp_path / "killed")
    rows = table["prompt"].tolist(), table["text"].tolist()
    np.testing.assert_allclose(resumed.score(*rows), whole.score(*rows), atol=1e-5)
    assert resumed.facts == whole.facts


def test_a_head_on_a_bfloat16_model_is_float32_and_trains(base, tmp_path):
    held = stories(12)
    model = reward_model.fit(held, settings(base, dtype="bfloat16", epochs=2.0), 0, tmp_path)
    trainable = {p.dtype for p in model.policy.parameters() if p.requires_grad}
    assert trainable == {torch.float32}
    assert model.policy.get_base_model().model.embed_tokens.weight.dtype == torch.bfloat16
    scores = model.score(held["prompt"].tolist(), held["text"].tolist())
    assert (scores != torch.tensor(scores).bfloat16().double().numpy()).mean() > 0.9
    model.save(tmp_path)
    kept = reward_model.RewardModel.load(tmp_path)
    np.testing.assert_array_equal(kept.score(held["prompt"].tolist(), held["text"].tolist()), scores)


def test_a_base_that_cannot_be_had_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match=f"model {tmp_path / 'nothing'}: cannot be loaded"):
        models.load_scorer(str(tmp_path / "nothing"))


def test_a_base_with_another_kind_of_head_is_named(tmp_path):
    tiny = T5Config(vocab_size=9, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2, num_labels=1)
    T5ForSequenceClassification(tiny).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="T5ForSequenceClassification has no `score` or `classifier`"):
        models.load_scorer(str(tmp_path))


# By a profile


@pytest.mark.parametrize("kind", ["stand-in", "reward-model"])
def test_a_profile_says_which_reward_is_fitted_kept_and_loaded(base, tmp_path, kind):
    file = tmp_path / "mine.yaml"
    model = f"base: {base}, dtype: float32, learning_rate: 5.0e-3, epochs: 2, batch_size: 16"
    file.write_text(
        f"extends: embedded\nquality: {{kind: {kind}, {model}}}\n"
        "spaces: {semantic: {model: stylometric}, style: {model: stylometric}}\n"
    )
    profile = load_profile(file)
    folder = tmp_path / "quality"
    folder.mkdir()
    table = stories(16).assign(split=["train"] * 96 + ["test"] * 32)
    reward, held, report = fit_reward(profile, table, folder)
    assert report["name"] == reward.name == ("stand-in reward" if kind == "stand-in" else "reward model (tiny-base)")
    assert (report["responses"], report["prompts"]) == (32, 4)
    assert list(held) == ["prompt_id", "response_id", "score", "predicted", "words"]
    json.dumps(report, allow_nan=False)
    kept = load_reward(profile, folder)
    test = table[table["split"] == "test"]
    np.testing.assert_array_equal(kept.score(test["prompt"].tolist(), test["text"].tolist()), held["predicted"])
    assert not (folder / "checkpoints").exists()
    trained_on = table.loc[table["split"] == "train", "prompt"]
    assert seen_prompts.read(folder) == {seen_prompts.fingerprint(prompt) for prompt in trained_on}
