"""The world with known modes: each comes as often as stated, and each space sees the mode that it should."""

import re
from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest, chi2_contingency, chisquare, spearmanr

from ddpo_lib.data.corpus import read_corpus
from ddpo_lib.deviation.distances import mean_distance
from ddpo_lib.deviation.weighting import weights
from ddpo_lib.pairs.rules import make_pairs
from ddpo_lib.spaces.embed import embed
from ddpo_lib.statistics.intervals import bootstrap_ratio
from ddpo_lib.worlds.grammar import HEROES, OBJECTS, PLACES, Mode, read_mode, wordings
from ddpo_lib.worlds.modeworld import World, flaw_probabilities, plot_probabilities, voice_probabilities, write_corpus


@pytest.fixture(scope="module")
def large() -> pd.DataFrame:
    return write_corpus(World(prompts=64, held_out=0, responses=512, seed=11))


# How often


def test_plots_and_voices_come_as_often_as_stated(large):
    world, n = World(), len(large)
    for name, stated in (("plot", plot_probabilities(world)), ("voice", voice_probabilities(world))):
        assert stated.sum() == pytest.approx(1)
        assert chisquare(np.bincount(large[name]), n * stated).pvalue > 0.01


def test_zipf_is_a_power_of_the_rank():
    assert plot_probabilities(World(plots=4, zipf=1)) == pytest.approx(np.array([12, 6, 4, 3]) / 25)
    assert voice_probabilities(World(voices=2, voice_zipf=2)) == pytest.approx([0.8, 0.2])
    assert plot_probabilities(World(zipf=0)) == pytest.approx(np.full(6, 1 / 6))
    assert voice_probabilities(World(voice_zipf=0)) == pytest.approx(np.full(3, 1 / 3))


def test_flaws_are_independent_of_plot_and_voice_unless_set_against(large):
    assert flaw_probabilities(World()) == pytest.approx(np.full(6, 0.4))
    assert binomtest(int(large["flawed"].sum()), len(large), 0.4).pvalue > 0.01
    for name in ("plot", "voice"):
        assert chi2_contingency(pd.crosstab(large[name], large["flawed"])).pvalue > 0.01
    assert chi2_contingency(pd.crosstab(large["plot"], large["voice"])).pvalue > 0.01


@pytest.mark.parametrize("against", [0, 0.3, 1])
@pytest.mark.parametrize("flawed", [0, 0.1, 0.4, 0.9, 1])
@pytest.mark.parametrize("zipf", [0, 1.3, 3])
def test_flaws_set_against_rare_plots_keep_their_overall_share(zipf, flawed, against):
    world = World(zipf=zipf, flawed=flawed, against=against)
    flaws = flaw_probabilities(world)
    assert plot_probabilities(world) @ flaws == pytest.approx(flawed)
    assert (flaws >= 0).all()
    assert (flaws <= 1).all()
    assert (np.diff(flaws) >= -1e-12).all()


def test_flaws_fill_the_rarest_plots_first():
    """Plots of 12, 6, 4 and 3 in 25: flaws of 8 in 25 fill the two rarest and a sixth of the next."""
    world = World(plots=4, zipf=1, flawed=8 / 25, against=1)
    assert flaw_probabilities(world) == pytest.approx([0, 1 / 6, 1, 1])
    half = World(plots=4, zipf=1, flawed=8 / 25, against=0.5)
    assert flaw_probabilities(half) == pytest.approx((np.array([0, 1 / 6, 1, 1]) + 8 / 25) / 2)


def test_flaws_are_drawn_as_often_as_stated_where_they_are_set_against():
    world = World(prompts=64, held_out=0, responses=128, against=0.5, seed=5)
    table = write_corpus(world)
    for plot, stated in enumerate(flaw_probabilities(world)):
        flawed = table.loc[table["plot"] == plot, "flawed"]
        assert binomtest(int(flawed.sum()), len(flawed), stated).pvalue > 0.01


# The corpus


def test_the_table_is_that_of_read_corpus_with_the_modes_beside_it():
    table, real = write_corpus(World()), read_corpus()
    assert list(table.columns) == [*real.columns, "plot", "voice", "flawed"]
    assert table.dtypes[real.columns].equals(real.dtypes)
    assert len(table) == 40 * 32
    assert table["response_id"].is_unique
    assert (table.groupby("prompt_id").size() == 32).all()
    assert table.groupby("prompt_id")["split"].first().value_counts().to_dict() == {"train": 32, "test": 8}
    assert table["prompt"].nunique() == table["prompt_id"].nunique() == 40


def test_every_pair_is_a_good_story_against_a_flawed_one():
    pairs = make_pairs(write_corpus(World()))
    assert not any(read_mode(text).flawed for text in pairs["chosen"])
    assert all(read_mode(text).flawed for text in pairs["rejected"])


@pytest.mark.parametrize("seed", range(5))
def test_held_out_prompts_are_new_combinations_of_known_words(seed):
    table = write_corpus(World(responses=1, seed=seed))

    def casts(split: str) -> list[tuple]:
        prompts = table.loc[table["split"] == split, "prompt"].str.findall(r"\w+")
        return [tuple(name for name in (*HEROES, *PLACES, *OBJECTS) if name in words) for words in prompts]

    train, test = casts("train"), casts("test")
    assert {len(cast) for cast in train + test} == {3}
    assert len(set(train + test)) == 40
    assert {name for cast in test for name in cast} <= {name for cast in train for name in cast}
    words = {
        split: set(table.loc[table["split"] == split, "prompt"].str.findall(r"\w+").sum())
        for split in ("train", "test")
    }
    assert words["test"] <= words["train"]


def test_all_combinations_of_hero_place_and_object_can_be_prompts():
    table = write_corpus(World(prompts=16**3, held_out=0, responses=1))
    assert table["prompt"].nunique() == 16**3


def test_texts_repeat_only_where_all_wordings_of_a_mode_are_used():
    world = World(prompts=2, held_out=0, responses=300, plots=1, voices=2, flawed=0.3)
    for _, group in write_corpus(world).groupby(["prompt_id", "voice", "flawed"]):
        times = group["text"].value_counts()
        all_wordings = 810 if group["flawed"].iloc[0] else 54
        assert times.max() == -(-len(group) // all_wordings)
        assert len(times) == min(len(group), all_wordings)


def test_the_same_world_is_written_the_same_and_another_seed_another():
    small = {"prompts": 16, "held_out": 2, "responses": 8}
    first = write_corpus(World(**small))
    pd.testing.assert_frame_equal(first, write_corpus(World(**small)))
    other = write_corpus(World(**small, seed=1))
    assert (other["text"] != first["text"]).mean() > 0.9
    for fields in ({"flawed": 0.6, "against": 1}, {"flaw": "order"}):
        changed = write_corpus(World(**small, **fields))
        pd.testing.assert_frame_equal(first[["prompt", "plot", "voice"]], changed[["prompt", "plot", "voice"]])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("prompts", 0),
        ("prompts", 16**3 + 1),
        ("prompts", 15),  # with held-out ones
        ("prompts", 20.0),
        ("held_out", -1),
        ("held_out", 16**3),
        ("responses", 0),
        ("plots", 0),
        ("plots", 9),
        ("plots", True),
        ("voices", 5),
        ("zipf", -0.1),
        ("zipf", float("nan")),
        ("zipf", "1"),
        ("voice_zipf", float("inf")),
        ("flawed", 1.1),
        ("against", -0.5),
        ("flaw", "rhyme"),
        ("flaw", 1),
        ("seed", -1),
    ],
)
def test_a_value_out_of_range_names_its_field(field, value):
    with pytest.raises(ValueError, match=rf"^{field}: expected"):
        World(**{field: value})


# What each space sees


@pytest.fixture(scope="module", params=[(6, 3), (8, 4)], ids=["default", "all-plots-and-voices"])
def seen(request) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    plots, voices = request.param
    table = write_corpus(World(prompts=16, held_out=0, responses=128, plots=plots, voices=voices))
    return table, {space: embed(table["text"].tolist(), space) for space in ("lexical", "stylometric")}


def groups(table: pd.DataFrame) -> np.ndarray:
    return table["prompt_id"].factorize()[0]


def explained(value: np.ndarray, label: np.ndarray) -> float:
    """eta squared: the share of the variance of a value that lies between the labels."""
    mean = pd.Series(value).groupby(np.asarray(label)).transform("mean")
    return float(np.var(mean) / np.var(value))


def deviation(table: pd.DataFrame, vectors: np.ndarray) -> pd.Series:
    """Within each prompt, less its mean."""
    distance = pd.Series(mean_distance(vectors, groups(table)))
    return distance - distance.groupby(groups(table)).transform("mean")


def test_lexical_deviation_follows_the_plot_and_stylometric_deviation_the_voice(seen):
    table, vectors = seen
    lexical, style = (deviation(table, vectors[space]) for space in ("lexical", "stylometric"))
    assert explained(lexical, table["plot"]) > 0.5
    assert explained(lexical, table["plot"]) > 3 * explained(lexical, table["voice"])
    assert explained(style, table["voice"]) > 0.7
    assert explained(style, table["voice"]) > 20 * explained(style, table["plot"])


def test_distance_between_two_stories_follows_the_plot_in_one_space_and_the_voice_in_the_other(seen):
    table, vectors = seen
    upper = np.triu_indices(128, 1)

    def of_pairs(compare, values: np.ndarray) -> np.ndarray:
        return np.concatenate([compare(of_prompt)[upper] for of_prompt in np.split(values, 16)])

    same = {name: of_pairs(lambda x: x[:, None] == x, table[name].to_numpy()) for name in ("plot", "voice")}
    for space, follows, other, times in (("lexical", "plot", "voice", 4), ("stylometric", "voice", "plot", 50)):
        distance = of_pairs(lambda x: 1 - x @ x.T, vectors[space])
        assert explained(distance, same[follows]) > times * explained(distance, same[other])


def test_rare_plots_deviate_in_what_is_told_and_rare_voices_in_how(seen):
    table, vectors = seen
    mean = {
        (space, name): deviation(table, vectors[space]).groupby(table[name]).mean()
        for space, name in product(vectors, ("plot", "voice"))
    }
    spread = {key: value.max() - value.min() for key, value in mean.items()}
    assert mean["lexical", "plot"].idxmin() == 0
    assert spearmanr(mean["lexical", "plot"].index, mean["lexical", "plot"]).statistic > 0.5
    assert list(mean["stylometric", "voice"]) == sorted(mean["stylometric", "voice"])
    assert spread["lexical", "plot"] > 1.5 * spread["lexical", "voice"]
    assert spread["stylometric", "voice"] > 3 * spread["stylometric", "plot"]


def test_flaws_leave_the_style_alone(seen):
    table, vectors = seen
    assert explained(deviation(table, vectors["stylometric"]), table["flawed"]) < 0.01


def flawed_minus_good(flaw: str, space: str, prompts: int, responses: int) -> tuple[float, float]:
    """Mean deviation of flawed stories minus that of good ones, over prompts; and its standard error."""
    table = write_corpus(World(prompts=prompts, held_out=0, responses=responses, flaw=flaw, seed=2))
    distance = mean_distance(embed(table["text"].tolist(), space), groups(table))
    means = pd.Series(distance).groupby([groups(table), table["flawed"]]).mean().unstack()
    difference = (means[True] - means[False]).dropna()
    return difference.mean(), difference.std() / len(difference) ** 0.5


@pytest.mark.parametrize("space", ["lexical", "stylometric", "delta"])
def test_no_space_sees_the_flaw_of_order(space):
    difference, error = flawed_minus_good("order", space, 128, 32)
    assert abs(difference) < 2.5 * error and error < 0.006


def test_a_language_model_hardly_sees_the_flaw_of_order_and_does_see_that_of_the_object():
    order, error = flawed_minus_good("order", "minilm", 10, 20)
    assert abs(order) < 2.5 * error
    seen, error = flawed_minus_good("object", "minilm", 10, 20)
    assert seen > 2.5 * error and seen > 3 * abs(order)


def test_words_see_the_flaw_of_the_object():
    """The same measurement, where there is something to see."""
    difference, error = flawed_minus_good("object", "lexical", 128, 32)
    assert difference > 10 * error


def words(text: str) -> list[str]:
    return sorted(re.findall(r"\w+|[^\w\s]", text))


def test_a_story_with_the_flaw_of_order_has_the_words_and_the_vectors_of_a_good_one():
    """Style may differ under the 16th of prompts that name the mill, which it takes for a function word."""
    table = write_corpus(World(prompts=32, held_out=0, responses=16, voices=4, flaw="order"))
    flawed = table[table["flawed"]]
    twins = []
    for prompt, text, plot, voice in flawed[["prompt", "text", "plot", "voice"]].itertuples(index=False):
        good = wordings(prompt, Mode(plot, voice, False))
        twins.append(next(other for other in good if words(other) == words(text)))
    assert not set(flawed["text"]) & set(twins)
    for space in ("lexical", "delta"):
        assert embed(twins, space) == pytest.approx(embed(flawed["text"].tolist(), space), abs=1e-6)
    of_twins, of_flawed = (embed(list(texts), "stylometric") for texts in (twins, flawed["text"]))
    same = np.isclose(of_twins, of_flawed, atol=1e-6).all(axis=1)
    mill = np.array(["mill" in prompt for prompt in flawed["prompt"]])
    assert same[~mill].all() and mill.mean() < 0.15


@pytest.mark.parametrize(
    ("flaw", "space", "one"), [("order", "lexical", True), ("order", "stylometric", True), ("object", "lexical", False)]
)
def test_a_winner_weighs_1_on_average_where_its_space_does_not_see_the_flaw(flaw, space, one):
    """Over all responses to a prompt weights sum to their number; over the good ones they need not."""
    table = write_corpus(World(prompts=256, held_out=0, responses=16, flaw=flaw, seed=4))
    weight = pd.Series(weights(mean_distance(embed(table["text"].tolist(), space), groups(table)), groups(table)))
    assert weight.groupby(groups(table)).sum().to_numpy() == pytest.approx(np.full(256, 16.0))
    good = ~table["flawed"]
    of_good = weight[good].groupby(groups(table)[good])
    value = bootstrap_ratio(of_good.sum().to_numpy(), of_good.size().to_numpy(), draws=2000, confidence=0.95, seed=0)
    assert (value.low < 1 < value.high) == one
    assert value.high - value.low < 0.1 and (one or value.high < 0.85)


def test_where_all_modes_are_equally_common_good_stories_of_each_weigh_alike():
    """What a space sees in a mode besides its rarity is small: a null world stays a null world."""
    table = write_corpus(World(prompts=16, held_out=0, responses=256, zipf=0, voice_zipf=0))
    for space in ("lexical", "stylometric"):
        distance = mean_distance(embed(table["text"].tolist(), space), groups(table))
        weight = pd.Series(weights(distance, groups(table)))[~table["flawed"]]
        means = weight.groupby(table["plot"]).mean()
        assert means.max() < 1.4 * means.min()
