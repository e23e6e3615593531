"""The reader of samples as a reader meets it, in Chromium from file://, against the kept run's samples."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from browser import Watched
from part_pages import opened, too_faint, unpacked, written
from report.test_hostile import HOSTILE, Tags

from ddpo_lib.interactive import story_reader
from ddpo_lib.report import figures

KEPT = Path(__file__).parents[2] / "results" / "embedded"
NEXT, FIND = "Same prompt, next sample", "Show me where they differ most"
FOCUSED = "(document.activeElement.labels?.[0] ?? document.activeElement).firstChild.textContent"
SHOWN = """() => [...document.querySelectorAll(".ddpo-panel")].map((card) => ({
  arm: card.querySelector(".ddpo-head").textContent,
  lines: [...card.querySelectorAll(".ddpo-text p")].map((each) => each.textContent),
  marked: [...card.querySelectorAll("mark")].map((each) => each.textContent),
  note: card.querySelector(".ddpo-note").textContent,
  listed: card.querySelector("details p")?.textContent,
}))"""


@pytest.fixture(scope="module")
def by_prompt() -> pd.DataFrame:
    return pd.read_parquet(KEPT / "evaluation" / "by_prompt.parquet").query("length == 'whole'")


@pytest.fixture(scope="module")
def samples() -> dict[str, pd.DataFrame]:
    arms = [arm for arm in json.loads((KEPT / "evaluation" / "results.json").read_text())["arms"] if arm != "gold"]
    return {arm: pd.read_parquet(KEPT / f"samples-{arm}" / "samples.parquet") for arm in arms}


def part(samples: dict[str, pd.DataFrame], by_prompt: pd.DataFrame, chosen=("dpo", "ddpo-both")) -> str:
    return story_reader.page(
        samples, by_prompt, chosen=chosen, quality="stand-in reward", more="_static/samples.zip",
        still=figures.cards([("DPO", "A first story."), ("DDPO-both", "A second.")]), caption="Read several.",
    )  # fmt: skip


def made(stories: dict[str, list[list[str]]]) -> tuple[dict[str, pd.DataFrame], pd.DataFrame]:
    """Samples and measures of arms -> their texts by prompt."""
    samples, measured = {}, []
    for number, (arm, prompts) in enumerate(stories.items()):
        rows = [(f"p{p}", f"Prompt {p}", s, text, 5, True) for p, of in enumerate(prompts) for s, text in enumerate(of)]
        samples[arm] = pd.DataFrame(rows, columns=["prompt_id", "prompt", "sample", "text", "tokens", "finished"])
        for p in range(len(prompts)):
            numbers = dict.fromkeys(("semantic", "style", "quality"), number * p / 10)
            measured.append({"arm": arm, "prompt_id": f"p{p}", "seed": 0} | numbers)
    return samples, pd.DataFrame(measured)


def noise(length: int, *seed: int) -> str:
    """Words that hardly compress."""
    return "".join(np.random.default_rng(seed).choice(list("abcdefghijklmnopqrstuvwxyz     "), length))


@pytest.fixture(scope="module")
def place(samples, by_prompt, tmp_path_factory) -> Path:
    return written(tmp_path_factory.mktemp("book"), part(samples, by_prompt))


@pytest.fixture
def watched(browser):
    watched = Watched(browser)
    yield watched
    assert watched.outside() == watched.errors == []
    watched.page.context.close()


@pytest.fixture
def seen(watched, place):
    return opened(watched, place)


def field(page, label: str):
    return page.locator("label").filter(has_text=re.compile(f"^{label}")).locator("select")


def texts(page) -> list[str]:
    return ["\n".join(card["lines"]) for card in page.evaluate(SHOWN)]


def of(samples: dict, arm: str, prompt: str, sample: int) -> str:
    """A sample's text, as its paragraphs are shown."""
    row = samples[arm].query("prompt_id == @prompt and sample == @sample").iloc[0]
    return "\n".join(line for line in row["text"].splitlines() if line.strip())


def test_it_opens_at_the_first_sample_of_the_first_prompt(seen, samples):
    first = samples["dpo"].iloc[0]
    assert seen.locator("blockquote").text_content() == first["prompt"]
    assert texts(seen) == [of(samples, arm, first["prompt_id"], 0) for arm in ("dpo", "ddpo-both")]
    assert [card["arm"] for card in seen.evaluate(SHOWN)] == ["DPO", "DDPO-both"]
    assert seen.locator("figcaption").text_content() == "Read several."
    link = seen.get_by_role("link")
    assert link.get_attribute("href") == "_static/samples.zip"


def test_every_sample_of_a_prompt_comes_in_turn(seen, samples):
    field(seen, "Prompt").select_option(index=4)
    prompt = samples["dpo"]["prompt_id"].unique()[4]
    for turn in [*range(8), 0]:
        assert texts(seen) == [of(samples, arm, prompt, turn) for arm in ("dpo", "ddpo-both")]
        assert f"Prompt 5 of 36, sample {turn + 1} of 8." in seen.get_by_role("status").text_content()
        for arm, card in zip(("dpo", "ddpo-both"), seen.evaluate(SHOWN), strict=True):
            row = samples[arm].query("prompt_id == @prompt and sample == @turn").iloc[0]
            cut = "" if row["finished"] else f" · truncated at {row['tokens']} tokens"
            assert re.fullmatch(rf"[\d,]+ words?{cut}", card["note"])
        seen.get_by_role("button", name=NEXT).click()


@pytest.mark.parametrize(
    ("label", "column"), [("variety in meaning", "semantic"), ("variety in style", "style"), ("quality", "quality")]
)
def test_it_finds_the_prompt_where_arms_differ_most_by_the_measures_of_the_evaluation(
    seen, samples, by_prompt, label, column
):
    for arms in (("dpo", "ddpo-both"), ("orpo", "instruct", "sft")):
        for place, arm in zip(("First arm", "Second arm", "Third arm"), arms, strict=False):
            field(seen, place).select_option(figures.name(arm))
        seen.get_by_label("They differ in").select_option(label)
        seen.get_by_role("button", name=FIND).click()
        wide = by_prompt[by_prompt["seed"] <= 0].pivot(index="prompt_id", columns="arm", values=column)
        wide = wide[list(arms)].dropna()
        apart = wide.max(axis=1) - wide.min(axis=1)
        wanted = apart.idxmax()
        prompt = samples[arms[0]].query("prompt_id == @wanted")["prompt"].iloc[0]
        assert seen.locator("blockquote").text_content() == prompt
        assert texts(seen) == [of(samples, arm, wanted, 0) for arm in arms]
        told = seen.get_by_role("status").text_content()
        assert (
            f"Among the {len(wide)} prompts of these arms, this is the one where they differ most in {label} (" in told
        )
        assert ", ".join(f"{figures.name(arm)} {wide.loc[wanted, arm]:.3f}" for arm in arms) in told
        assert told.endswith("It was picked for its difference, so it is not typical.")


def test_only_prompts_that_all_arms_have_can_be_chosen(seen, samples):
    field(seen, "Prompt").select_option(index=35)
    field(seen, "Third arm").select_option("ORPO")
    common = list(dict.fromkeys(samples["orpo"]["prompt"]))
    assert field(seen, "Prompt").locator("option").count() == len(common) < 36
    assert seen.locator("blockquote").text_content() == common[0]
    field(seen, "Third arm").select_option("none")
    assert field(seen, "Prompt").locator("option").count() == 36 and len(texts(seen)) == 2
    field(seen, "Second arm").select_option("DPO")
    assert seen.get_by_role("status").text_content() == "Choose different arms to compare them."


def test_words_of_one_arm_alone_are_marked(watched, tmp_path):
    stories = {
        "dpo": [["The CAT sat. It’s “late”, isn't it?\n\nAn end.", "A dog ran."]],
        "ddpo-both": [["The dog sat down; it's late.", "A cat’s end, and a naïve end."]],
        "sft": [["Down it went."]],
    }
    page = opened(watched, written(tmp_path, part(*made(stories))))
    shown = page.evaluate(SHOWN)
    assert shown[0]["lines"] == ["The CAT sat. It’s “late”, isn't it?", "An end."]
    assert [card["marked"] for card in shown] == [["CAT", "isn't", "it", "An"], ["down"]]
    assert [card["listed"] for card in shown] == ["cat, isn't, it, an", "down"]
    assert [card["note"] for card in shown] == ["9 words", "6 words"]
    page.get_by_label("Underlined").select_option("words that no other story shown uses")
    assert [card["marked"] for card in page.evaluate(SHOWN)] == [["CAT", "isn't", "it", "An", "end"], ["dog", "down"]]
    field(page, "Third arm").select_option("SFT")
    assert [card["marked"] for card in page.evaluate(SHOWN)] == [["CAT", "isn't", "An", "end"], ["dog"], ["went"]]
    page.get_by_label("Underlined").select_option("nothing")
    assert [card["marked"] for card in page.evaluate(SHOWN)] == [[], [], []]
    page.get_by_role("button", name=NEXT).click()
    assert page.evaluate(SHOWN)[2]["note"] == "This arm has no such sample."


def test_a_mark_does_not_rely_on_colour(seen):
    field(seen, "Sample").select_option("2 of 8")
    look = seen.locator("mark").first.evaluate("mark => ({ ...getComputedStyle(mark) })")
    assert look["textDecorationLine"] == "underline" and look["fontWeight"] == "600"


def test_the_marks_of_the_run_are_the_words_that_the_other_arm_never_uses(seen, samples):
    """On plain English, a word is a run of letters, with apostrophes inside; of the other arm all samples count."""

    def words(text):
        return {word.lower().replace("’", "'") for word in re.findall(r"[^\W_]+(?:['’.][^\W_]+)*", text)}

    field(seen, "Sample").select_option("2 of 8")
    prompt = samples["dpo"]["prompt_id"].iloc[0]
    for card, arm, other in zip(seen.evaluate(SHOWN), ("dpo", "ddpo-both"), ("ddpo-both", "dpo"), strict=True):
        known = words(" ".join(samples[other].query("prompt_id == @prompt")["text"]))
        assert {word.lower().replace("’", "'") for word in card["marked"]} == words(of(samples, arm, prompt, 1)) - known
        assert card["marked"]


def test_the_keyboard_alone_reads_and_finds(seen, samples):
    reached = []
    for _ in range(10):
        seen.keyboard.press("Tab")
        reached.append(seen.evaluate(FOCUSED))
        assert seen.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        if reached[-1] == NEXT:
            seen.keyboard.press("Enter")
            assert "sample 2 of 8" in seen.get_by_role("status").text_content()
            assert seen.evaluate("document.activeElement.textContent") == NEXT
        if reached[-1] == FIND:
            seen.keyboard.press("Space")
            assert "differ most" in seen.get_by_role("status").text_content()
        if reached[-1] == "Third arm":
            seen.keyboard.type("SFT")
            assert len(texts(seen)) == 3
            seen.keyboard.press("Home")
            assert len(texts(seen)) == 2
    assert reached[:5] == ["Prompt", "First arm", "Second arm", "Third arm", "Sample"]
    assert reached[5:9] == [NEXT, FIND, "They differ in", "Underlined"]
    assert reached[9].endswith("uses") or reached[9] == "the samples of all arms, seeds and prompts"


def test_hostile_texts_prompts_and_names_are_only_text(watched, tmp_path):
    rows = [(f"p{i}", text, 0, text, 5, i % 2 == 0) for i, text in enumerate(HOSTILE.values())]
    table = pd.DataFrame(rows, columns=["prompt_id", "prompt", "sample", "text", "tokens", "finished"])
    names = [HOSTILE["event"], HOSTILE["closed"]]
    numbers = dict.fromkeys(("semantic", "style", "quality"), 0.1)
    measured = [
        {"arm": arm, "prompt_id": prompt, "seed": 0} | numbers for arm in names for prompt in table["prompt_id"]
    ]
    other = table.assign(text=table["text"].str.upper())
    html = part(dict(zip(names, (table, other), strict=True)), pd.DataFrame(measured), chosen=tuple(names))
    assert "window.mark" not in html
    assert {"figure", "figcaption", "script", "div", "p"} >= set(Tags(html).names())
    page = opened(watched, written(tmp_path, html))
    for i, text in enumerate(HOSTILE.values()):
        field(page, "Prompt").select_option(index=i)
        assert page.locator("blockquote").text_content() == text
        lines = [line for line in text.splitlines() if line.strip()]
        assert [card["lines"] for card in page.evaluate(SHOWN)] == [lines, [line.upper() for line in lines]]
        assert [card["arm"] for card in page.evaluate(SHOWN)] == names
        assert not page.locator(".ddpo-part :is(img, script, b, iframe)").count()
    assert page.locator(".ddpo-part a").count() == 1
    assert page.evaluate("window.mark") is None


def test_blank_and_missing_stories_and_other_scripts_are_shown(watched, tmp_path):
    stories = {"dpo": [["", "בראשית ברא המספר."]], "ddpo-both": [["  \n ", "昔々、狐がいた。"]]}
    page = opened(watched, written(tmp_path, part(*made(stories))))
    assert texts(page) == ["(nothing)", "(nothing)"]
    page.get_by_role("button", name=NEXT).click()
    assert page.locator(".ddpo-text p").first.evaluate("p => getComputedStyle(p).direction") == "rtl"
    assert len(page.evaluate(SHOWN)[1]["marked"]) > 1  # words, although no spaces divide them


def test_more_samples_than_fit_are_those_of_the_first_prompts_and_the_part_says_so(watched, tmp_path):
    arms = ("dpo", "ddpo-both")
    stories = {arm: [[noise(2000, prompt, sample) for sample in range(4)] for prompt in range(150)] for arm in arms}
    samples, measured = made(stories)
    html = part(samples, measured)
    data = unpacked(html)
    kept = len(data["prompts"])
    size = len(re.search(r'base64">([^<]*)<', html).group(1))
    assert 1 < kept < 150 and 0.98e6 < size <= story_reader.PAGE_BYTES
    page = opened(watched, written(tmp_path, html))
    assert (
        f"samples of the first seed, for the first {kept} of 150 prompts."
        in page.locator(".ddpo-own > .ddpo-note").text_content()
    )
    page.get_by_role("button", name=FIND).click()  # the difference rises with the number of the prompt
    assert page.locator("blockquote").text_content() == f"Prompt {kept - 1}"
    assert texts(page)[0] == stories["dpo"][kept - 1][0]


def test_one_prompt_that_does_not_fit_has_its_texts_cut(watched, tmp_path, monkeypatch):
    monkeypatch.setattr(story_reader, "PAGE_BYTES", 9_000)
    stories = {arm: [[noise(30_000, seed), "Short."]] * 2 for seed, arm in enumerate(("dpo", "ddpo-both"))}
    html = part(*made(stories))
    size = len(re.search(r'base64">([^<]*)<', html).group(1))
    longest = unpacked(html)["longest"]
    assert 8_900 < size <= 9_000 and unpacked(html)["stories"][0][0][0][0] == stories["dpo"][0][0][:longest]
    page = opened(watched, written(tmp_path, html))
    assert page.locator(".ddpo-panel").first.get_by_text(f"The first {longest:,} characters.").is_visible()
    page.get_by_role("button", name=NEXT).click()
    assert texts(page) == ["Short.", "Short."] and not page.get_by_text("characters.").count()


def test_the_kept_run_is_whole_and_small(samples, by_prompt):
    html = part(samples, by_prompt)
    data = unpacked(html)
    assert len(html) < 250_000 and data["longest"] is None and len(data["prompts"]) == data["of"] == 36
    assert sum(len(prompt) for arm in data["stories"] for prompt in arm) == sum(map(len, samples.values()))


def test_on_a_phone_nothing_is_wider_than_the_screen_and_taps_work(browser, place, samples):
    watched = Watched(browser, viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True)
    page = opened(watched, place)
    page.get_by_role("button", name=NEXT).tap()
    page.locator("summary").first.tap()
    assert page.locator("details p").first.is_visible()
    page.get_by_role("button", name=FIND).tap()
    assert "sample 2 of 8" in page.get_by_role("status").text_content()
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert page.locator(".ddpo-own").evaluate("root => root.scrollWidth <= root.clientWidth")
    assert watched.outside() == watched.errors == []


def test_contrast_is_enough_in_light_and_in_dark(seen):
    field(seen, "Sample").select_option("2 of 8")
    seen.locator("summary").first.click()
    assert too_faint(seen) == []


def test_print_and_readers_without_scripts_see_two_stories(browser, place):
    page = opened(Watched(browser), place)
    page.emulate_media(media="print")
    assert page.locator(".ddpo-still").is_visible() and not page.locator(".ddpo-part").is_visible()
    page = Watched(browser, java_script_enabled=False).open(place)
    first, second = (page.locator(".ddpo-still .ddpo-story").nth(i).bounding_box() for i in (0, 1))
    assert first["y"] == second["y"] and first["x"] < second["x"]
