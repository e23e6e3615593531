"""The laboratory of weights in Chromium from file://: its weights are the library's, by mouse, touch and keyboard."""

import html
import re
from itertools import product

import numpy as np
import pandas as pd
import pytest
from browser import Watched
from part_pages import focus_width, nameless, opened, too_faint, written

from ddpo_lib.base.errors import InputError
from ddpo_lib.deviation import mean_distance, weights
from ddpo_lib.interactive import laboratory
from ddpo_lib.pairs import arms
from ddpo_lib.profiles.settings import Arm
from ddpo_lib.report.figures import use_style
from ddpo_lib.rewards.rules import cosine_distances
from ddpo_lib.spaces import counted

ROOT = ".ddpo-lab"
TEXTS = [
    "A fox learns to count, and counts the hens twice.",
    "<script>window.pwned=1</script><img src=x onerror='window.pwned=2'>",
    "The hen that reads maps is never late.",
    "Nobody came.",
    "A fox counts hens; the hens count foxes.\n\nThen it snowed.",
]
WEIGHTS = "[...document.querySelectorAll('.ddpo-lab-weight')].map(e => parseFloat(e.dataset.weight))"
VECTORS = {"semantic": counted.lexical_vectors, "style": counted.stylometric_vectors}


def group(texts: list[str] = TEXTS) -> pd.DataFrame:
    scores = [10.0, 40.0, np.nan, 25.0, 10.0, 8.0, 7.0, 6.0, 5.0][: len(texts)]
    return pd.DataFrame({"prompt": "Write of a fox & a <hen>.", "text": texts, "score": scores})


def made(texts: list[str] = TEXTS, **options) -> str:
    vectors = {space: of(texts) for space, of in VECTORS.items()}
    return laboratory.weights_laboratory(group(texts), vectors, {"semantic": "tf-idf", "style": "n-grams"}, **options)


def library(texts: list[str], spaces: str, scale="minmax", floor=0.0, power=1.0) -> np.ndarray:
    """The weights that an arm would train with, from vectors as they are stored but in float64."""
    names = ["semantic", "style"] if spaces == "both" else [spaces]
    kept = pd.DataFrame({"prompt_id": "p", "text": texts})
    vectors = [VECTORS[name](texts).astype(np.float64) for name in names]
    arm = Arm(loss="dpo", start="sft", weights=names, scale=scale, floor=floor, power=power)
    return arms._weights(kept, vectors, arm)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    use_style()
    return written(tmp_path_factory.mktemp("book"), made(caption="Where to look & why."))


@pytest.fixture
def page(browser, place):
    """The laboratory, drawn; afterwards nothing was asked of a network, nothing went wrong, no text ran."""
    watched = Watched(browser)
    page = opened(watched, place)
    yield page
    assert watched.outside() == [] and watched.errors == []
    assert page.evaluate("window.pwned") is None
    page.context.close()


def shown(page) -> np.ndarray:
    return np.array(page.evaluate(WEIGHTS))


def choose(page, spaces="semantic", scale="minmax", floor=0.0, power=1.0) -> None:
    page.get_by_label("Spaces").select_option(spaces)
    page.get_by_label("Normalisation").select_option(scale)
    for name, value in (("Floor", floor), ("Power", power)):
        slider = page.get_by_label(name, exact=True)
        slider.evaluate("(e, v) => { e.value = v; e.dispatchEvent(new Event('input')); }", str(value))
        assert float(slider.input_value()) == value


def write(page, texts: list[str]) -> None:
    """Type these texts, in as many fields."""
    page.get_by_label("Distances come from").select_option("texts")
    fields = page.locator(f"{ROOT} textarea")
    while fields.count() > len(texts):
        page.get_by_role("button", name="Remove A").click()
    while fields.count() < len(texts):
        page.get_by_role("button", name="Add a response").click()
    for i, text in enumerate(texts):
        fields.nth(i).fill(text)


def places(page, space: str) -> np.ndarray:
    """Where the dots of a plane are, as their names tell, with all their digits."""
    told = page.locator(f"[aria-label$='{space} space'][role=slider]").evaluate_all(
        "all => all.map(e => e.getAttribute('aria-valuetext'))"
    )
    found = [re.match(r"x (\S+), y (\S+),", text.replace("−", "-")).groups() for text in told]
    return np.array(found, dtype=float)


def dot(page, name: str, space: str = "semantic"):
    return page.locator(f"[role=slider][aria-label='Response {name}, {space} space']")


def middle(page, name: str, space: str = "semantic") -> tuple[float, float]:
    box = dot(page, name, space).locator(".ddpo-lab-mark").bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def pixels(page) -> float:
    """Pixels of the screen in a distance of 1 on the semantic plane."""
    drawn = dot(page, "A").evaluate("e => e.ownerSVGElement.getScreenCTM().a")
    return drawn * 120 / float(dot(page, "A").get_attribute("aria-valuemax"))


def summary(page) -> str:
    page.wait_for_timeout(400)
    return page.locator(f"{ROOT} [role=status]").text_content()


OPTIONS = [
    ("minmax", 0, 1),
    ("ratio", 0, 1),
    ("minmax", 0.3, 1),
    ("minmax", 1, 1),
    ("ratio", 0.85, 2),
    ("minmax", 0.2, 0.5),
    ("minmax", 0, 0),
    ("minmax", 0, 3),
]


def test_weights_of_the_runs_responses_are_the_librarys(page):
    for spaces, (scale, floor, power) in product(("semantic", "style", "both"), OPTIONS):
        choose(page, spaces, scale, floor, power)
        expected = library(TEXTS, spaces, scale, floor, power)
        np.testing.assert_allclose(shown(page), expected, atol=1e-6, err_msg=f"{spaces} {scale} {floor} {power}")


HARD = {
    "ordinary": [
        "The fox waited by the gate.",
        "A fox waits at gates.",
        "Dear Sir, your bill of 3 May is unpaid!",
        "NO.",
    ],
    "all alike": ["The same words."] * 4,
    "ties": ["One tale.", "One tale.", "Another story, with a fox.", "Another story, with a fox."],
    "two": ["A fox.", "Something else entirely, which is long."],
    "one": ["A fox."],
    "signs": [
        "Ünïcödé ’tis ‘quoted’ “twice” — and… so 🐉👨‍👩‍👧 on",
        "ÄÖ ½ ² ①x ٣٤ Ⅷ don't DON'T O'Neill's x_y __ 3rd 1,000.5",
        "tabs\tand\u00a0spaces\u2003here\x1cand\ufeffthere\n\n\nlines\n next",
        "ǅungla İstanbul ΣΊΣΥΦΟΣ straße Straße",
        "בראשית ברא וكان يا ما كان 昔々 あるところに ไทย नमस्ते é",
    ],
    "single signs": ["!", "?", "a", "7"],
}


@pytest.mark.parametrize("name", HARD)
def test_weights_of_typed_texts_are_those_of_the_counted_spaces(page, name):
    texts = HARD[name]
    write(page, texts)
    for spaces, scale, floor in (("semantic", "minmax", 0), ("style", "ratio", 0.5), ("both", "minmax", 0)):
        choose(page, spaces, scale, floor)
        expected = library(texts, spaces, scale, floor) if len(texts) > 1 else np.ones(1)
        np.testing.assert_allclose(shown(page), expected, atol=1e-6, err_msg=f"{spaces} {scale} {floor}")
        if name in ("all alike", "two", "one"):
            assert (shown(page) == 1).all()


def test_vectors_in_the_page_are_those_of_the_library(page):
    """Any two texts are as far apart in the page as in Python: over real stories, in both spaces."""
    texts = [
        text[:n]
        for text, n in zip(counted._package_texts()[:40:5], (40, 80, 160, 320, 640, 900, 1200, 1500), strict=True)
    ]
    norms = laboratory.counted_norms()
    for space, of in (("lexical", counted.lexical_vectors), ("stylometric", counted.stylometric_vectors)):
        found = page.evaluate(
            "([norms, texts, space]) => texts.map(text => [...ddpoCounted.spaces(norms)[space](text)])",
            [norms, texts, space],
        )
        np.testing.assert_allclose(np.array(found), of(texts), atol=2e-8)


def test_a_text_without_words_does_not_count(page):
    write(page, ["A fox.", " \n\x1c\u2003", "A hen, and a fox.", "A bill."])
    found = shown(page)
    assert np.isnan(found[1])
    np.testing.assert_allclose(
        found[[0, 2, 3]], library(["A fox.", "A hen, and a fox.", "A bill."], "semantic"), atol=1e-6
    )


def test_dragged_dots_have_the_weights_of_their_distances(page):
    choose(page, "both", "minmax", 0.1, 2)
    page.get_by_label("Distances come from").select_option("plane")
    before = places(page, "semantic")
    x, y = middle(page, "B")
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 60, y - 25, steps=4)
    page.mouse.up()
    after = places(page, "semantic")
    np.testing.assert_allclose(after[1] - before[1], np.array([60, 25]) / pixels(page), atol=2e-3)
    assert (after[[0, 2, 3, 4]] == before[[0, 2, 3, 4]]).all()
    _is_of_plane(page, 0.1, 2, ("semantic", "style"))
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Response B, semantic space"


def test_arrow_keys_move_a_dot_and_its_new_weight_is_told(page):
    page.get_by_label("Distances come from").focus()
    page.keyboard.press("Tab")
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.getAttribute('aria-label')") == "Response A, semantic space":
            break
    page.keyboard.press("Tab")
    assert focus_width(page) >= 2
    before = places(page, "semantic")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Response B, semantic space"
    page.keyboard.press("Shift+ArrowUp")
    page.keyboard.press("ArrowDown")
    step = float(dot(page, "B").get_attribute("aria-valuemax")) / 40
    np.testing.assert_allclose(places(page, "semantic")[1] - before[1], [step, 4 * step], atol=3e-4)
    _is_of_plane(page)
    assert page.get_by_label("Distances come from").input_value() == "plane"
    told = dot(page, "B").get_attribute("aria-valuetext")
    assert told.endswith(f"weight {shown(page)[1]:.2f}, highest score")
    page.keyboard.press("Control+ArrowDown")
    assert dot(page, "B").get_attribute("aria-valuetext") == told  # the browser's own keys stay its own
    for _ in range(100):
        page.keyboard.press("Shift+ArrowDown")
    assert places(page, "semantic")[1][1] == pytest.approx(-40 * step, abs=2e-4)  # the edge


def test_a_click_moves_the_chosen_dot(page):
    dot(page, "C").focus()
    box = page.locator(f"{ROOT} svg").bounding_box()
    page.mouse.click(box["x"] + 100, box["y"] + box["height"] - 60)
    x, y = middle(page, "C")
    assert (x, y) == pytest.approx((box["x"] + 100, box["y"] + box["height"] - 60), abs=1)
    _is_of_plane(page)


def test_a_finger_moves_a_dot_and_scrolls_the_page_elsewhere(browser, place):
    watched = Watched(browser, viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True)
    page = opened(watched, place)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    dot(page, "D").scroll_into_view_if_needed()
    x, y = middle(page, "D")
    before, scrolled = places(page, "semantic"), page.evaluate("scrollY")
    touch = page.context.new_cdp_session(page)

    def send(kind, *points):
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": a, "y": b} for a, b in points]})

    for kind, *points in (
        ("touchStart", (x, y)),
        ("touchMove", (x - 20, y + 30)),
        ("touchMove", (x - 40, y + 40)),
        ("touchEnd",),
    ):
        send(kind, *points)
    page.wait_for_timeout(100)
    moved = places(page, "semantic") - before
    np.testing.assert_allclose(moved[3], np.array([-40, -40]) / pixels(page), atol=0.03 * 40 / pixels(page))
    assert (moved[[0, 1, 2, 4]] == 0).all()
    assert page.evaluate("scrollY") == scrolled
    _is_of_plane(page)
    box = page.locator(f"{ROOT} svg").bounding_box()
    x, y = box["x"] + box["width"] - 15, box["y"] + 20  # no dot is there
    for kind, *points in (
        ("touchStart", (x, y)),
        ("touchMove", (x, y - 40)),
        ("touchMove", (x, y - 120)),
        ("touchEnd",),
    ):
        send(kind, *points)
    page.wait_for_function("was => scrollY > was", arg=scrolled)
    assert (places(page, "semantic") - before == moved).all()
    page.get_by_role("button", name="Rare in meaning, ordinary in style").tap()
    page.get_by_role("button", name="The same words").tap()
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert watched.outside() == [] and watched.errors == []


CASES = {
    "A cluster and an outlier": "Largest weight: E,",
    "Two clusters": "Largest weight:",
    "One place": "All deviations are equal, so every weight is 1.",
    "Two responses": "Two responses are equally far from each other, so both weights are 1.",
    "Rare in meaning, ordinary in style": "A (closest to the others in style)",
    "Three alike, one apart": "Largest weight: D,",
    "The same words, another style": "nothing is learned from its wins",
    "All the same": "All deviations are equal, so every weight is 1.",
}


def test_each_case_shows_what_its_name_says(page):
    for name, told in CASES.items():
        page.get_by_label("Spaces").select_option("both" if "style" in name else "semantic")
        page.get_by_role("button", name=name).click()
        assert told in summary(page), name
        assert shown(page).sum() == pytest.approx(len(shown(page)))
        if page.get_by_label("Distances come from").input_value() == "plane":
            both = page.get_by_label("Spaces").input_value() == "both"
            _is_of_plane(page, spaces=("semantic", "style") if both else ("semantic",))


def test_pairs_and_distances_are_those_of_the_responses(page):
    cells = "all => all.map(row => [...row.children].map(cell => cell.textContent))"
    rows = page.locator(f"{ROOT} table").nth(1).locator("tbody tr").evaluate_all(cells)
    weight = shown(page)
    assert rows == [["B", "A, D and E", f"{weight[1]:.2f}"], ["D", "A and E", f"{weight[3]:.2f}"]]  # C has no score
    apart = cosine_distances(VECTORS["semantic"](TEXTS))
    rows = page.locator(f"{ROOT} table").nth(0).locator("tbody tr").evaluate_all(cells)
    assert [row[2] for row in rows] == [f"{apart[i, 1]:.2f}" if i != 1 else "–" for i in range(5)]
    deviation = mean_distance(VECTORS["semantic"](TEXTS), np.zeros(5, dtype=int))
    assert [row[-1] for row in rows] == [f"{value:.3f}" for value in deviation]
    page.get_by_label("Score of C").fill("99")
    rows = page.locator(f"{ROOT} table").nth(1).locator("tbody tr").evaluate_all(cells)
    assert ["C", "A, B, D and E", f"{weight[2]:.2f}"] in rows
    for name in "ABCDE":
        page.get_by_label(f"Score of {name}").fill("1")
    assert "there is no pair" in page.locator(f"{ROOT} .ddpo-lab-tables").text_content()


def test_who_drops_to_zero_is_told_and_a_floor_prevents_it(page):
    near = "ABCDE"[int(library(TEXTS, "semantic").argmin())]
    assert f"Weight 0: {near} (closest to the others in semantic)." in summary(page)
    zero = page.locator(".ddpo-lab-zero")
    assert zero.count() == 1 and zero.get_attribute("aria-label") == f"Response {near}, semantic space"
    choose(page, floor=0.25)
    assert f"Without the floor, the weight of {near} would be 0." in summary(page)
    assert zero.count() == 0 and shown(page).min() == pytest.approx(0.25)


def test_responses_come_and_go_and_all_starts_again(page):
    start = shown(page)
    for _ in range(3):
        page.get_by_role("button", name="Add a response").click()
    assert len(shown(page)) == 8 and page.get_by_role("button", name="Add a response").is_disabled()
    _is_of_plane(page, spaces=("semantic",))
    for _ in range(7):
        page.get_by_role("button", name="Remove A").click()
    assert shown(page).tolist() == [1] and page.get_by_role("button", name="Remove A").is_disabled()
    assert "One response alone" in summary(page)
    page.get_by_role("button", name="Start again").click()
    np.testing.assert_allclose(shown(page), start)


def test_moving_a_dot_of_typed_texts_takes_the_plane(page):
    page.get_by_role("button", name="Three alike, one apart").click()
    dot(page, "A", "words").focus()
    page.keyboard.press("ArrowUp")
    assert page.get_by_label("Distances come from").input_value() == "plane"
    assert page.locator(f"{ROOT} textarea").count() == 0
    _is_of_plane(page, spaces=("semantic",))
    page.get_by_label("Distances come from").select_option("texts")
    assert "Dear Sir" in page.get_by_label("Text of D").input_value()


def test_texts_are_shown_as_they_were_written(page):
    page.locator(f"{ROOT} summary").nth(4).press("Enter")
    assert page.locator(f"{ROOT} details").nth(4).locator("p").all_text_contents() == TEXTS[4].split("\n\n")
    assert page.locator(f"{ROOT} details").nth(1).locator("summary").text_content() == TEXTS[1]
    assert "Write of a fox & a <hen>." in page.locator(".ddpo-lab-prompt").text_content()
    assert not page.locator(f"{ROOT} :is(img, script)").count()


def test_it_is_well_seen_in_light_and_dark(page):
    page.get_by_label("Spaces").select_option("both")
    assert nameless(page) == too_faint(page) == []
    page.get_by_role("button", name="The same words").click()
    assert nameless(page) == too_faint(page) == []


def test_dots_glide_only_where_motion_is_welcome(browser, place):
    for wish, seconds in (("reduce", "0s"), ("no-preference", "0.35s")):
        page = opened(Watched(browser, reduced_motion=wish), place)
        click = (
            "e => { e.click(); return getComputedStyle(document.querySelector('.ddpo-lab-dot')).transitionDuration; }"
        )
        assert page.get_by_role("button", name="Two clusters").evaluate(click) == seconds


def test_print_and_readers_without_scripts_get_the_picture_in_words(browser, place, page):
    page.emulate_media(media="print")
    assert page.locator(".ddpo-still img").is_visible() and not page.locator(ROOT).is_visible()
    still = page.locator(".ddpo-still").text_content()
    weight = library(TEXTS, "semantic")
    far, near = int(weight.argmax()), int(weight.argmin())
    assert f"Response {'ABCDE'[far]} is farthest from the others" in still and f"its weight {weight[far]:.2f}" in still
    assert f"Response {'ABCDE'[near]} is closest" in still
    assert page.locator(".ddpo-still li").nth(1).text_content() == f"B: {TEXTS[1]}"
    assert html.escape(TEXTS[1]) in made()


def test_places_have_the_distances_that_a_plane_can_show():
    corners = np.array([[0.0, 0.0], [0.3, 0.0], [0.3, 0.4], [0.0, 0.4], [0.1, 0.2]])
    apart = np.linalg.norm(corners[:, None] - corners[None], axis=-1)
    found = laboratory.place(apart)
    np.testing.assert_allclose(np.linalg.norm(found[:, None] - found[None], axis=-1), apart, atol=1e-6)
    assert np.isfinite(laboratory.place(np.zeros((3, 3)))).all()
    assert np.linalg.norm(np.diff(laboratory.place(np.array([[0, 0.4], [0.4, 0]])), axis=0)) == pytest.approx(0.4)


@pytest.mark.parametrize("number", [1, 9])
def test_too_few_or_too_many_responses_are_an_error(number):
    with pytest.raises(InputError, match=f"2 to 8 responses to a prompt, got {number}"):
        made([f"Story {i}." for i in range(number)])


def _is_of_plane(page, floor: float = 0.0, power: float = 1.0, spaces: tuple[str, ...] = ("semantic",)) -> None:
    """Assert that the weights are those which the library makes from the distances between the dots."""
    distances = []
    for space in spaces:
        own = places(page, space)
        apart = np.linalg.norm(own[:, None] - own[None], axis=-1)
        distances.append(apart.sum(axis=1) / (len(own) - 1))
    weight = weights(distances, np.zeros(len(own), dtype=int), floor=floor) ** power
    np.testing.assert_allclose(shown(page), weight * len(weight) / weight.sum(), atol=1e-6)
