"""Small models that learn from rewards by TRL's trainers: what a row measures, and what a profile may ask for."""

import jupytext
import numpy as np
import pandas as pd
import pytest
import yaml

from ddpo_lib.base.errors import InputError
from ddpo_lib.profiles.profile import load_profile
from ddpo_lib.profiles.reward_settings import RewardRow
from ddpo_lib.report import figures
from ddpo_lib.rewards.rules import RULES
from ddpo_lib.runs.pipeline import KEPT, PROJECT, open_run
from ddpo_lib.worlds import grids, modes, reward_grid, reward_rows
from ddpo_lib.worlds.grammar import Mode, wordings
from ddpo_lib.worlds.modeworld import World, held_out, write_corpus
from ddpo_lib.worlds.reward_steps import GRID

CHAPTER = PROJECT / "notebooks" / "02d-rewards.md"
ROWS = {
    "plain": {"generations": 4},
    "product": {"generations": 4, "rule": "product", "scaled": False},
    "rloo": {"generations": 8, "rule": "similarity", "trainer": "rloo"},
}
SECTION = {"seeds": 1, "steps": 4, "samples": 16, "learning_rate": 1.0e-3, "rows": ROWS}
ASKED = {"extends": "smoke", "name": "small", "worlds": {"seeds": 1, "samples": 24}}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run whose grid of rewards is made."""
    folder = tmp_path_factory.mktemp("rewards")
    file = folder / "small.yaml"
    file.write_text(yaml.safe_dump(ASKED | {"rewards": SECTION}))
    run = open_run(str(file), folder=folder / "runs")
    run.path(GRID)
    return run


@pytest.fixture(scope="module")
def grid(run):
    return reward_grid.read_rewards(run.path(GRID))


def test_the_grid_is_one_table_with_a_row_for_each_row_and_seed_and_for_the_start(run, grid):
    assert grid.table["row"].tolist() == [reward_grid.SFT, *ROWS]
    found = run.json("reward-product-0", "modes.json")
    product = grid.table.set_index("row").loc["product"]
    assert product["good"] == found["row"]["good"] and product["flat"] == found["flat"]
    assert len(found["quality"]) == SECTION["steps"] and product["last"] == found["quality"][-1]
    assert product["seconds"] > 0 and not (run.folder / "reward-product-0" / "trained").exists()


def test_what_is_good_is_counted_among_all_samples_of_held_out_prompts(run, grid):
    texts = run.table("reward-plain-0", "samples.parquet")
    told = [reward_rows.is_good(*pair) for pair in zip(texts["text"], texts["prompt"], strict=True)]
    assert grid.table.set_index("row")["good"]["plain"] == pytest.approx(np.mean(told))
    corpus = run.table("world-main-0", "corpus.parquet")
    assert set(texts["prompt"]) == set(corpus.loc[corpus["split"] == "test", "prompt"])


def test_training_changes_what_is_written_and_a_row_comes_out_the_same_twice(run, tmp_path):
    profile = load_profile(run.folder.parent.parent / "small.yaml")
    reward_rows.make_reward_row(profile, profile.rewards.rows["plain"], 0, "world-main-0", tmp_path, run)
    again, first = (pd.read_parquet(place / "samples.parquet") for place in (tmp_path, run.path("reward-plain-0")))
    pd.testing.assert_frame_equal(again, first)
    assert again["text"].tolist() != run.table("world-main-0", "samples.parquet")["text"].tolist()


def test_a_rule_s_advantages_are_told_by_kind_of_sample(grid):
    panels = grid.panels.set_index(["rule", "scaled", "kind"])["advantage"]
    assert set(grid.panels["rule"]) == set(RULES)
    for scaled in (True, False):
        kinds = panels["plain", scaled]
        good = [kinds[kind] for kind in (reward_grid.RARE, reward_grid.OTHER) if kind in kinds]
        assert good and all(value > kinds[reward_grid.FLAWED] for value in good)
    samples = grid.panels.groupby(["rule", "scaled"])["samples"].sum()
    assert samples.nunique() == 1 and samples.iloc[0] == 24 // reward_grid.GROUP * reward_grid.GROUP * 4  # prompts


def test_a_story_is_good_if_it_can_be_read_matches_its_prompt_and_has_no_flaw():
    prompt, other = held_out(World(held_out=2))
    good, flawed = (next(wordings(prompt, Mode(0, 1, flaw))) for flaw in (False, True))
    assert reward_rows.is_good(good, prompt) and reward_rows.is_good(good, prompt + "<story>")
    assert not any(reward_rows.is_good(*pair) for pair in [(flawed, prompt), (good, other), (good[:-1], prompt)])


def test_a_factor_and_a_shift_are_the_same_for_all_samples_of_a_prompt():
    corpus = write_corpus(World(held_out=0, responses=4))
    pair = corpus["prompt"].tolist(), corpus["text"].tolist()
    plain = np.array(reward_rows.Judge(RewardRow(), 0)(*pair)).reshape(-1, 4)
    assert plain.ravel().tolist() == (~corpus["flawed"]).astype(float).tolist()
    factor = np.array(reward_rows.Judge(RewardRow(factor=3.0), 0)(*pair)).reshape(-1, 4)
    shift = np.array(reward_rows.Judge(RewardRow(shift=2.0), 0)(*pair)).reshape(-1, 4)
    of_group = np.where(plain.any(axis=1), factor.max(axis=1), 1)
    assert factor == pytest.approx(plain * of_group[:, None]) and np.ptp(of_group) > 1 and of_group.max() <= 3
    assert np.ptp(shift - plain, axis=1) == pytest.approx(0) and np.ptp((shift - plain)[:, 0]) > 1
    noisy = np.array(reward_rows.Judge(RewardRow(noise=0.5), 0)(*pair)).reshape(-1, 4) - plain
    assert noisy.std() == pytest.approx(0.5, rel=0.2)


def test_a_profile_without_the_section_has_no_such_steps(tmp_path):
    file = tmp_path / "none.yaml"
    file.write_text(yaml.safe_dump(ASKED))
    assert not [name for name in open_run(str(file), folder=tmp_path).steps if "reward-" in name or GRID in name]


def test_there_are_no_more_seeds_than_worlds(tmp_path):
    file = tmp_path / "seeds.yaml"
    file.write_text(yaml.safe_dump(ASKED | {"worlds": {"seeds": 2}, "rewards": SECTION | {"seeds": 5}}))
    steps = open_run(str(file), folder=tmp_path).steps
    assert [name for name in steps if name.startswith("reward-plain")] == ["reward-plain-0", "reward-plain-1"]
    assert steps[f"{GRID}-part1"].inputs == tuple(f"reward-{row}-1" for row in ROWS)


def test_an_unchanged_row_keeps_its_key_if_another_joins(run, tmp_path):
    file = tmp_path / "more.yaml"
    more = SECTION | {"rows": ROWS | {"logdet": {"rule": "logdet"}}}
    file.write_text(yaml.safe_dump(ASKED | {"name": "more", "rewards": more}))
    other = open_run(str(file), folder=tmp_path)
    assert other.key("reward-plain-0") == run.key("reward-plain-0")
    assert other.key(GRID) != run.key(GRID)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"rows": {"product": {"rule": "product"}}}, "rows: plain is missing"),
        ({"rows": {"plain": {}, "odd": {"generations": 6}}}, r"rows.odd.generations: 6 does not divide 16"),
        ({"rows": {"plain": {"spaces": ["plot"]}}}, "plot is no space of texts; there are semantic"),
        ({"rows": {"plain": {"trainer": "rloo", "scaled": False}}}, "RLOO never divides"),
        ({"rows": {"plain": {"rule": "products"}}}, "rewards.rows.plain.rule"),
        ({"rows": {"plain": {}, "a/b": {}}}, "'a/b' cannot name a folder"),
    ],
)
def test_a_grid_that_cannot_be_is_named(tmp_path, change, named):
    file = tmp_path / "odd.yaml"
    file.write_text(yaml.safe_dump(ASKED | {"rewards": SECTION | change}))
    with pytest.raises(InputError, match=named):
        load_profile(file)


# the chapter, expectations, and which grid is shown


def said_by_the_chapter(monkeypatch, profile: str, runs) -> str:
    """What the chapter displays, from its own cells."""
    shown = []
    monkeypatch.setattr(figures, "_put", lambda content, place: shown.append(content.data))
    cells = [cell.source for cell in jupytext.read(CHAPTER).cells if cell.cell_type == "code"]
    names = {}
    exec(cells[0], names)
    names |= {"profile": profile, "runs": str(runs)}
    for cell in cells[1:]:
        exec(cell, names)
    return "\n".join(shown)


def test_the_chapter_shows_the_grid_of_a_run(run, monkeypatch):
    file = run.folder.parent.parent / "small.yaml"
    told = said_by_the_chapter(monkeypatch, str(file), run.folder.parent)
    assert "Mean advantage" in told and told.count("<svg") == 0 and told.count("data:image/svg") == 2
    assert "Expectations written before the run: 4;" in told
    assert "samples per group" in told and "similarity; RLOO" in told
    assert "plain; GRPO, divided; generations 4" in told


def test_the_chapter_says_how_to_get_a_grid_if_a_profile_has_no_section(tmp_path, monkeypatch):
    file = tmp_path / "none.yaml"
    file.write_text(yaml.safe_dump(ASKED))
    told = said_by_the_chapter(monkeypatch, str(file), tmp_path)
    stored = (PROJECT / "results" / GRID / "manifest.json").is_file()
    assert ("is stored with the project" if stored else "ddpo make world-rewards") in told


def test_each_expectation_is_of_rows_and_measures_that_the_full_grid_has(grid):
    rows = {*load_profile("full").rewards.rows, reward_grid.SFT}
    claims = reward_grid.expected()
    assert {claim["letter"] for claim in claims} == set("abcde")
    for claim in claims:
        assert {claim["row"], claim["against"]} <= rows, claim
        assert claim["measure"] in grid.table.columns, claim
        assert ("margin" in claim) == (claim["expect"] in ("unchanged", "not lower")), claim
    assert len({(claim["row"], claim["against"], claim["measure"]) for claim in claims}) == len(claims)


def test_the_section_of_embedded_is_a_part_of_the_full_one():
    few, full = (load_profile(name).rewards for name in ("embedded", "full"))
    alike = {"exclude": {"rows", "seeds"}}
    assert few.model_dump(**alike) == full.model_dump(**alike)
    assert few.rows.items() <= full.rows.items() and few.seeds < full.seeds == 10
    assert {row.rule for row in full.rows.values()} == set(RULES)
    assert KEPT[GRID] == ("full", GRID, None)


def test_expectations_get_verdicts_from_differences_over_seeds():
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        [
            {"row": row, "seed": seed, "rare_good": level + noise[0], "good": 0.5 + noise[1], "flat": 0.1 + noise[2]}
            for row, level in (("plain", 0.2), ("product", 0.3), ("plain-shift", 0.2))
            for seed, noise in enumerate(0.01 * rng.normal(size=(10, 3)))
        ]
    )
    decided = grids.decide_rows(table, reward_grid.expected(), confidence=0.95)
    found = {(c["row"], c["measure"]): c["verdict"] for c in decided}
    assert found["product", "rare_good"] == "reproduced" and found["plain-shift", "rare_good"] == "reproduced"
    assert len(decided) == 5


def test_the_grid_with_more_seeds_is_shown_if_it_is_of_the_same_kind(grid, run, tmp_path):
    kept = tmp_path / GRID
    assert reward_grid.fullest(grid, kept) == (grid, True) and reward_grid.fullest(None, kept) == (None, True)
    kept.mkdir()
    for file in run.path(GRID).iterdir():
        (kept / file.name).write_bytes(file.read_bytes())
    assert reward_grid.fullest(None, kept)[1] is False
    assert reward_grid.fullest(grid, kept)[1] is True  # as many seeds
    more = pd.concat([grid.table, grid.table.assign(seed=1)])
    more.to_parquet(kept / "rewards.parquet")
    other, is_own = reward_grid.fullest(grid, kept)
    assert not is_own and len(other.table) == len(more)
    changed = grid._replace(settings=grid.settings.model_copy(update={"steps": 5}))
    assert reward_grid.fullest(changed, kept) == (changed, True)


def test_rare_plots_are_the_last_of_the_world():
    texts = pd.DataFrame({"prompt": ["p"] * 8, "text": ["words"] * 8})
    assert modes.rare_modes(6) == 2
    found = reward_grid.advantages_by_kind(texts, (2, 6))
    assert set(found["kind"]) == {reward_grid.BROKEN} and (found["advantage"].abs() < 1e-6).all()
