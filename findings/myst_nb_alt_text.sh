#!/usr/bin/env bash
# myst-nb 1.4.0 (Jupyter Book 1.0.4): the alternative text of an image's output metadata does not reach the page.
#
# Guess: `IPython.display.Image(png, alt="A red dot", width=40)` puts both in the output's metadata, and the page has
#   both.
# Truth: the width is used and the text is not: the page's `alt` is the file's name, 64 digits and ".png". A screen
#   reader reads that out. There is no warning. `mystnb: {image: {alt: ...}}` in the cell's metadata works, but it must
#   be typed before the figure is computed.
# Seen: <img alt="_images/6b7fa4...png" ... style="width: 40px;" />.
# Matters for: books whose figures come from runs, and whose texts for those figures state what was computed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet \
  jupyter-book==1.0.4.post1 myst-nb==1.4.0 sphinx==7.4.7 ipykernel==7.4.0 ipython==9.18.1
cd "$folder"
export JUPYTER_CONFIG_DIR="$folder/config" JUPYTER_DATA_DIR="$folder/data" IPYTHONDIR="$folder/ipython"
cat >page.md <<'MD'
---
jupytext: {text_representation: {extension: .md, format_name: myst}}
kernelspec: {name: python3, display_name: Python 3, language: python}
---
# Page

```{code-cell} ipython3
import base64
from IPython.display import Image
dot = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
Image(base64.b64decode(dot), alt="A red dot", width=40)
```

```{code-cell} ipython3
:mystnb: {image: {alt: A typed text}}
Image(base64.b64decode(dot), alt="A red dot", width=50)
```
MD
printf 'title: book\nexecute: {execute_notebooks: force}\n' >_config.yml
printf 'format: jb-book\nroot: page\n' >_toc.yml
"$folder/venv/bin/jupyter-book" build . >messages 2>&1 || { cat messages; exit 1; }
"$folder/venv/bin/python" -I - <<'PY'
import re

page, said = open("_build/html/page.html").read(), open("messages").read()
images = [image for image in re.findall(r"<img[^>]*>", page) if "style=" in image and "_images/" in image]
texts = [re.search(r'alt="([^"]*)"', image)[1] for image in images]
assert len(images) == 2 and "width: 40px" in images[0] and "width: 50px" in images[1], images
assert re.fullmatch(r"_images/[0-9a-f]{64}\.png", texts[0]) and texts[1] == "A typed text", texts
assert "A red dot" not in "".join(images), images
assert not re.search(r"page\.md.*WARNING", said), said
print(images[0])
print(images[1])
print("PASS: myst-nb 1.4.0 uses the width of an image's output metadata and not its alternative text")
PY
