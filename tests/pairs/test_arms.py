"""Which responses an arm keeps, what makes its pairs, and what weighs them."""

import math

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import SHARED
from pydantic import ValidationError

from ddpo_lib.base.errors import InputError
from ddpo_lib.data.corpus import read_corpus
from ddpo_lib.deviation.distances import mean_distance
from ddpo_lib.deviation.weighting import weights
from ddpo_lib.evaluation.published import published
from ddpo_lib.pairs.arms import sum_weights, training_pairs, with_equal_steps
from ddpo_lib.pairs.divpo import diversity_by_words
from ddpo_lib.pairs.rules import make_pairs
from ddpo_lib.profiles.profile import load_profile
from ddpo_lib.profiles.settings import Arm, Optimiser
from ddpo_lib.runs.pipeline import open_run
from ddpo_lib.spaces.embed import COUNTED
from ddpo_lib.worlds.grammar import FLAWS
from ddpo_lib.worlds.modeworld import World, write_corpus


def arm(**fields):
    return Arm(loss="dpo", start="sft", **fields)


@pytest.fixture(scope="module")
def corpus():
    rng = np.random.default_rng(3)
    rows = [
        (f"p{i:05d}", f"prompt {i}", f"p{i:05d}-{j:04d}", f"text {i} {j}", float(score), "", "train")
        for i in range(9)
        for j, score in enumerate(rng.permutation(16) * 3)
    ]
    return pd.DataFrame(rows, columns="prompt_id prompt response_id text score source split".split())


@pytest.fixture(scope="module")
def vectors(corpus):
    rng = np.random.default_rng(4)
    return {name: rng.normal(size=(len(corpus), 5)).astype(np.float32) for name in ("semantic", "style")}


def group_of(corpus):
    return corpus["prompt_id"].astype("category").cat.codes.to_numpy()


def test_an_arm_that_keeps_all_has_the_pairs_and_weights_of_the_library(corpus, vectors):
    pairs = training_pairs(corpus, vectors, arm(weights=["semantic", "style"]), 5, 7)
    plain = make_pairs(corpus, 5, 7)
    assert pairs[plain.columns].equals(plain)
    distances = [mean_distance(v, group_of(corpus)) for v in vectors.values()]
    expected = dict(zip(corpus["response_id"], weights(distances, group_of(corpus)), strict=True))
    assert pairs["weight"].tolist() == pytest.approx([expected[i] for i in pairs["chosen_id"]])


def test_plain_dpo_has_no_weights(corpus, vectors):
    assert "weight" not in training_pairs(corpus, vectors, arm(), 5, 0)


@pytest.mark.parametrize("responses", [2, 4, 9])
def test_so_many_responses_a_prompt_are_kept_and_weights_sum_to_their_number(corpus, vectors, responses):
    kept = arm(weights=["semantic"], responses=responses)
    pairs = training_pairs(corpus, vectors, kept, 0, 0)
    assert (pairs.groupby("prompt_id").size() == responses // 2).all()
    # with a loss in every pair weighed, winner and loser, the weights of a prompt would sum to its responses
    if responses == 2:
        assert pairs["weight"].tolist() == pytest.approx([1.0] * len(pairs))  # two are equally far from each other
    else:
        assert (pairs.groupby("prompt_id")["weight"].sum() <= responses + 1e-9).all()


def test_other_prompts_do_not_change_which_responses_are_kept(corpus, vectors):
    some = corpus[corpus["prompt_id"].isin(["p00002", "p00005"])].reset_index(drop=True)
    whole = training_pairs(corpus, vectors, arm(responses=4), 5, 1)
    alone = training_pairs(some, vectors, arm(responses=4), 5, 1)
    same = whole[whole["prompt_id"].isin(["p00002", "p00005"])].reset_index(drop=True)
    assert alone.equals(same)


def test_best_first_keeps_the_pairs_of_the_best_winners(corpus, vectors):
    pairs = training_pairs(corpus, vectors, arm(responses=4, best_first=True, weights=["style"]), 5, 0)
    everything = make_pairs(corpus, 5, 0)
    for prompt, group in pairs.groupby("prompt_id"):
        best = everything.loc[everything["prompt_id"] == prompt, "chosen_score"].nlargest(2)
        assert sorted(group["chosen_score"]) == sorted(best)
    assert pairs["chosen_score"].mean() > training_pairs(corpus, vectors, arm(responses=4), 5, 0)["chosen_score"].mean()


def test_weights_are_those_among_the_kept_alone(corpus, vectors):
    pairs = training_pairs(corpus, vectors, arm(responses=4, weights=["style"]), 0, 0)
    kept = corpus["response_id"].isin({*pairs["chosen_id"], *pairs["rejected_id"]}).to_numpy()
    small = corpus[kept].reset_index(drop=True)
    expected = weights(mean_distance(vectors["style"][kept], group_of(small)), group_of(small))
    by_id = dict(zip(small["response_id"], expected, strict=True))
    assert pairs["weight"].tolist() == pytest.approx([by_id[i] for i in pairs["chosen_id"]])


def test_a_power_spreads_or_flattens_weights_and_keeps_their_sum(corpus, vectors):
    spaces = {"weights": ["semantic"]}
    one = training_pairs(corpus, vectors, arm(**spaces), 5, 0)["weight"]
    two = training_pairs(corpus, vectors, arm(power=2, **spaces), 5, 0)["weight"]
    none = training_pairs(corpus, vectors, arm(power=0, **spaces), 5, 0)["weight"]
    assert none.tolist() == pytest.approx([1.0] * len(none))
    heavy = one > 0
    ratio = two[heavy] / one[heavy] ** 2  # within a prompt the square, scaled by one number
    prompts = training_pairs(corpus, vectors, arm(**spaces), 5, 0)["prompt_id"][heavy]
    assert ratio.groupby(prompts).std().max() < 1e-9
    assert two.std() > one.std() > none.std()


def test_rescaled_weights_of_the_pairs_have_mean_1_the_same_order_and_the_same_zeros(corpus, vectors):
    fields = {"weights": ["semantic", "style"], "responses": 4}
    as_they_are = training_pairs(corpus, vectors, arm(**fields), 5, 0)
    rescaled = training_pairs(corpus, vectors, arm(rescale=True, **fields), 5, 0)
    assert rescaled.drop(columns="weight").equals(as_they_are.drop(columns="weight"))
    before, after = as_they_are["weight"], rescaled["weight"]
    assert abs(before.mean() - 1) > 0.01 and after.mean() == pytest.approx(1)
    assert (before == 0).any() and ((before == 0) == (after == 0)).all()
    assert after.to_numpy() == pytest.approx(before.to_numpy() / before.mean())


def test_what_is_rescaled_are_the_pairs_that_are_left(corpus, vectors):
    pairs = training_pairs(corpus, vectors, arm(weights=["style"], pairs=20, rescale=True), 5, 0)
    assert len(pairs) == 20 and pairs["weight"].mean() == pytest.approx(1)


def test_weights_of_zero_alone_cannot_be_rescaled_and_the_error_says_what_can_be_done(corpus):
    """Winners at the middle of their prompt, losers around it: the winner is the response nearest to the others."""
    three = corpus.groupby("prompt_id").head(3).reset_index(drop=True)
    three["score"] = np.tile([3.0, 1.0, 1.0], 9)
    angle = np.tile([0.0, -1.0, 1.0], 9)
    vectors = {"style": np.column_stack([np.cos(angle), np.sin(angle)])}
    with pytest.raises(InputError, match="field `rescale`: every winner has weight 0; set a `floor`"):
        training_pairs(three, vectors, arm(weights=["style"], rescale=True), 0, 0)
    floored = training_pairs(three, vectors, arm(weights=["style"], rescale=True, floor=0.1), 0, 0)
    assert floored["weight"].tolist() == pytest.approx([1.0] * 9)


@pytest.mark.parametrize("fields", [{}, {"responses": 4}, {"floor": 0.1}, {"scale": "ratio"}, {"power": 2.0}])
def test_weights_of_a_prompt_sum_to_its_responses_and_those_of_its_winners_to_what_the_pairs_have(
    corpus, vectors, fields
):
    weighted = arm(weights=["semantic", "style"], **fields)
    tied = corpus.assign(score=corpus["score"].where(corpus["prompt_id"] != "p00003", 7.0))  # a prompt without a pair
    sums, pairs = sum_weights(tied, vectors, weighted, 5, 1), training_pairs(tied, vectors, weighted, 5, 1)
    assert sums.index.tolist() == sorted(set(corpus["prompt_id"]))
    assert (sums["responses"] == fields.get("responses", 16)).all()
    assert sums["weight"].to_numpy() == pytest.approx(sums["responses"].to_numpy(), abs=1e-9)
    assert sums.loc["p00003", ["winners", "winner_weight"]].tolist() == [0, 0]
    mine = sums[sums["winners"] > 0]
    assert mine["winners"].tolist() == pairs.groupby("prompt_id").size().tolist()
    assert mine["winner_weight"].tolist() == pytest.approx(pairs.groupby("prompt_id")["weight"].sum().tolist())


def weighed_corpora():
    """The package's corpus, and a world with each kind of flaw; with their vectors in two counted spaces."""
    for name, table in {
        "package": read_corpus(),
        **{f: write_corpus(World(flaw=f, responses=16)) for f in FLAWS},
    }.items():
        texts = table["text"].tolist()
        yield name, table, {"semantic": COUNTED["lexical"](texts), "style": COUNTED["stylometric"](texts)}


def test_weights_of_a_prompt_sum_to_its_responses_in_every_corpus_whatever_its_winners_weigh():
    """Argument 3 of the paper, in two: the sum over responses is exact; the mean over winners depends on the corpus."""
    winner = {}
    for name, table, vectors in weighed_corpora():
        for spaces in (["semantic"], ["style"], ["semantic", "style"]):
            sums = sum_weights(table, vectors, arm(weights=spaces))
            assert (sums["weight"] / sums["responses"] - 1).abs().max() < published()["identity"]["tolerance"]
            winner[name, "-".join(spaces)] = sums["winner_weight"].sum() / sums["winners"].sum()
    assert winner["object", "semantic"] < 0.85 < 0.9 < winner["order", "semantic"] < 1.1
    assert 0.9 < winner["object", "style"] < 1.1


def test_at_most_so_many_pairs_are_drawn_with_the_weights_that_they_had(corpus, vectors):
    every = training_pairs(corpus, vectors, arm(weights=["style"]), 5, 0)
    some = training_pairs(corpus, vectors, arm(weights=["style"], pairs=20), 5, 0)
    assert len(some) == 20
    assert some.merge(every, how="left", on=list(every.columns), indicator=True)["_merge"].eq("both").all()


def test_as_many_pairs_as_divpo_makes_are_drawn_from_those_of_the_gap_rule(corpus, vectors):
    for responses in (4, None):
        cut = training_pairs(corpus, vectors, arm(pairs="divpo", responses=responses), 5, 0)
        assert len(cut) == len(training_pairs(corpus, vectors, arm(divpo={}, responses=responses), 5, 0))
        every = training_pairs(corpus, vectors, arm(responses=responses), 5, 0)
        assert set(cut["chosen_id"]) <= set(every["chosen_id"])


def test_divpo_learns_from_fewer_pairs_and_can_be_weighed_too(corpus, vectors):
    pairs = training_pairs(corpus, vectors, arm(divpo={}), 5, 0)
    assert (pairs.groupby("prompt_id").size() == 2).all() and "weight" not in pairs
    weighed = training_pairs(corpus, vectors, arm(divpo={}, weights=["semantic", "style"]), 5, 0)
    assert weighed[pairs.columns].equals(pairs)
    assert weighed["weight"].std() > 0


def ends_of(corpus, rho=0.25):
    """By prompt, the ids of the best and of the worst share of its responses."""
    k = max(2, int(rho * 16))
    order = corpus.sort_values("score", ascending=False).groupby("prompt_id")["response_id"]
    return {prompt: (ids.tolist()[:k], ids.tolist()[-k:]) for prompt, ids in order}


@pytest.mark.parametrize("criterion", ["words", "probability"])
def test_of_each_end_divpo_picks_by_the_criterion_of_the_arm(corpus, vectors, criterion):
    rng = np.random.default_rng(5)
    corpus = corpus.assign(text=[" ".join(rng.choice(list("abcdefghijklm"), 5)) for _ in range(len(corpus))])
    surprisal = rng.normal(size=len(corpus))
    diversity = (
        surprisal if criterion == "probability" else diversity_by_words(corpus["text"].tolist(), group_of(corpus))
    )
    value = pd.Series(diversity, corpus["response_id"])
    pairs = training_pairs(corpus, {}, arm(divpo={"criterion": criterion}), 5, 0, surprisal)
    for prompt, (best, worst) in ends_of(corpus).items():
        mine = pairs[pairs["prompt_id"] == prompt]
        assert sorted(value[mine["chosen_id"]]) == sorted(value[best].nlargest(2))
        assert sorted(value[mine["rejected_id"]]) == sorted(value[worst].nsmallest(2))


def test_surprisal_goes_with_the_responses_that_are_kept(corpus):
    """Cut to eight a prompt: the two best are drawn by the values of those eight, wherever they stood."""
    surprisal = np.arange(len(corpus), dtype=float)
    rule = {"criterion": "probability", "rho": 0.5, "max_pairs": 1}
    pairs = training_pairs(corpus, {}, arm(divpo=rule, responses=8), 5, 2, surprisal)
    value = pd.Series(surprisal, corpus["response_id"])
    seen = training_pairs(corpus, {}, arm(divpo={**rule, "max_pairs": 4}, responses=8), 5, 2, surprisal)
    for prompt, mine in pairs.groupby("prompt_id"):
        every = seen[seen["prompt_id"] == prompt]
        assert value[mine["chosen_id"]].item() == value[every["chosen_id"]].max()
        assert value[mine["rejected_id"]].item() == value[every["rejected_id"]].min()


@pytest.mark.parametrize("surprisal", [None, np.zeros(3)])
def test_picking_by_probability_without_it_is_an_error(corpus, surprisal):
    with pytest.raises(ValueError, match="surprisal: picking by probability needs 144 numbers"):
        training_pairs(corpus, {}, arm(divpo={"criterion": "probability"}), 5, 0, surprisal)


def test_a_threshold_by_range_reaches_the_pairs(corpus, vectors):
    """Scores 0 to 45 by threes: a quarter of the range is four responses; squared, two from above and eight below."""
    squared = corpus.assign(score=corpus["score"] ** 2)
    pairs = training_pairs(squared, vectors, arm(divpo={"threshold": "range", "max_pairs": 8}), 5, 0)
    assert pairs.groupby("prompt_id").size().unique().tolist() == [3]
    assert pairs["chosen_score"].min() >= 0.75 * 45**2 and pairs["rejected_score"].max() <= 0.25 * 45**2


def test_prompts_that_give_divpo_fewer_pairs_are_kept_and_counted(corpus, vectors):
    level = corpus.assign(score=corpus["score"].where(corpus["prompt_id"] != "p00003", 7.0))
    few = level[(level["prompt_id"] != "p00004") | (level.groupby("prompt_id").cumcount() < 3)]
    some = {name: values[few.index] for name, values in vectors.items()}
    pairs = training_pairs(few.reset_index(drop=True), some, arm(divpo={}), 5, 0)
    assert pairs.groupby("prompt_id").size().to_dict() == {f"p{i:05d}": 1 if i == 4 else 2 for i in range(9) if i != 3}
    assert {(d["what"], d["count"]) for d in pairs.attrs["dropped"]} == {
        ("prompts", 1),
        ("prompts with fewer than 2 pairs", 1),
    }


def test_identical_responses_are_picked_by_the_draw_under_every_criterion(corpus):
    same = corpus.assign(text="one and the same")
    one = {"semantic": np.ones((len(corpus), 3)), "style": np.ones((len(corpus), 3))}
    for criterion in ("distance", "words", "probability"):
        rule = arm(divpo={"criterion": criterion})
        pairs = training_pairs(same, one, rule, 5, 0, np.ones(len(corpus)))
        assert (pairs.groupby("prompt_id").size() == 2).all()
        assert pairs.equals(training_pairs(same, one, rule, 5, 0, np.ones(len(corpus))))


def test_on_real_data_a_cut_keeps_whole_pairs():
    file = SHARED / "data" / "creativity_triplets.jsonl"
    if not file.exists():
        pytest.skip("no shared data")
    table = read_corpus(file, held_out=0.0)
    vectors = {"style": np.random.default_rng(0).normal(size=(len(table), 4))}
    pairs = training_pairs(table, vectors, arm(responses=4), 0, 0)
    assert pairs.groupby("prompt_id").size().max() == 2
    assert (pairs["chosen_score"] > pairs["rejected_score"]).all()


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"best_first": True}, "best_first"),
        ({"floor": 0.1}, "weights"),
        ({"rescale": True}, "name some, or leave out scale, rescale"),
        ({"equal_steps": True, "epochs": 2.0}, "epochs"),
        ({"responses": 1}, "responses"),
        ({"divpo": {"rho": 0.6}}, "rho"),
        ({"divpo": {"rho": 0.0}}, "rho"),
        ({"divpo": {"criterion": "judge"}}, "criterion"),
        ({"divpo": {"criterion": "words", "spaces": ["semantic"]}}, "spaces"),
    ],
)
def test_settings_that_contradict_each_other_are_named(fields, named):
    with pytest.raises(ValidationError, match=named):
        arm(**fields)


@pytest.mark.parametrize(
    ("pairs", "every", "batch"), [(37, 191, 16), (16, 191, 16), (9, 9, 4), (3, 200, 7), (5, 4, 2), (98, 980, 2)]
)
def test_equal_steps_are_equal(pairs, every, batch):
    optimiser = Optimiser(
        learning_rate=1e-4, epochs=2.0, batch_size=batch, warmup_steps=0, schedule="linear", max_grad_norm=1.0
    )
    timed = with_equal_steps(arm(equal_steps=True), pairs, every, optimiser)
    steps = math.ceil(timed.epochs * math.ceil(pairs / batch))  # as transformers' Trainer counts them
    assert steps == math.ceil(optimiser.epochs * math.ceil(every / batch))
    assert with_equal_steps(arm(), pairs, every, optimiser) == arm()


def test_an_arm_of_a_profile_is_trained_on_what_it_says(tmp_path, monkeypatch):
    """The whole way from YAML to the trainer's door; what comes through it is kept, and nothing is trained."""
    arms = {
        "dpo": {"loss": "dpo", "start": "base"},
        "few": {"loss": "dpo", "start": "base", "weights": ["semantic", "lexical"], "responses": 4, "power": 2.0},
        "picked": {"loss": "dpo", "start": "base", "divpo": {"max_pairs": 1}, "equal_steps": True},
    }
    file = tmp_path / "arms.yaml"
    file.write_text(yaml.safe_dump({"extends": "smoke", "name": "arms", "arms": arms}))
    given = {}

    def keep(pairs, arm, start, model, preference, max_tokens, seed, folder):
        given[folder.name.split("-")[1]] = pairs, arm

    monkeypatch.setattr("ddpo_lib.training.train.train_preferences", keep)
    run = open_run(str(file), folder=tmp_path / "runs")
    for name in arms:
        run.path(f"arm-{name}")
    plain, few, picked = (given[name][0] for name in arms)
    assert plain.equals(run.table("pairs", "pairs.parquet"))
    assert few.groupby("prompt_id").size().max() == 2 and few["weight"].std() > 0
    assert picked.groupby("prompt_id").size().max() == 1
    assert given["picked"][1].epochs >= load_profile(file).preference.dpo.epochs


def test_no_rounding_adds_a_step():
    optimiser = Optimiser(
        learning_rate=1e-4, epochs=2.0, batch_size=1, warmup_steps=0, schedule="linear", max_grad_norm=1.0
    )
    for pairs in range(1, 120):
        for every in (13, 50, 191):
            assert (
                math.ceil(with_equal_steps(arm(equal_steps=True), pairs, every, optimiser).epochs * pairs) == 2 * every
            )
