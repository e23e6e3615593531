"""What all parts share: their files, their data, and the still form."""

from pathlib import Path

from ddpo_lib.interactive import parts

FOLDER = Path(parts.__file__).parent


def test_the_book_gets_every_script_and_style_sheet_of_the_room():
    files = {file.name: file.read_bytes() for pattern in ("*.js", "*.css") for file in FOLDER.glob(pattern)}
    assets = parts.assets()
    assert assets.pop("plotly.min.js")
    assert assets == files


def test_the_same_data_give_the_same_part_whatever_the_time():
    data = {"words": "a</script>b", "numbers": [1, None, 0.5]}
    made = parts.part("deviation_map", data, still="<p>Still.</p>", caption="<b>")
    assert made == parts.part("deviation_map", data, still="<p>Still.</p>", caption="<b>")
    assert made.count("</script>") == 2  # its data and its start, and none of a text
    assert "<figcaption>&lt;b&gt;</figcaption>" in made and "<p>Still.</p>" in made
