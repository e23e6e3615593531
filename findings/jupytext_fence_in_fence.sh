#!/usr/bin/env bash
# jupytext 1.19.6: a Markdown cell that shows a fence of three backticks within one of four swallows the cells after it.
#
# Guess: a notebook written as Jupytext Markdown and read again has the same cells. Four backticks around three are
#   ordinary Markdown, the way to show a code block as text.
# Truth: the reader takes the inner fence's first line for the end of the outer one, and the outer one's end for a new
#   beginning. All later cells, code too, become text of that Markdown cell. There is no error or warning. The formats
#   md:myst and py:percent keep the cells.
# Seen: a notebook of four cells, two of code, comes back as two cells; its last code cell is text.
# Matters for: tutorials that show how to write a chapter or a prompt; their later code is no longer run.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet jupytext==1.19.6 nbformat==5.11.1
cd "$folder"
"$folder/venv/bin/python" -I -W error - <<'PY'
import jupytext
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

shown = "Write it so:\n\n````\n```\nx\n```\n````"
kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
cells = [new_code_cell("a = 1"), new_markdown_cell(shown), new_markdown_cell("Then:"), new_code_cell("b = 2")]
notebook = new_notebook(cells=cells, metadata=kernel)
before = [(cell.cell_type, cell.source) for cell in cells]


def again(format_name):
    read = jupytext.reads(jupytext.writes(notebook, format_name), format_name)
    return [(cell.cell_type, cell.source) for cell in read.cells]


assert again("md:myst") == before and again("py:percent") == before
after = again("md")
assert [kind for kind, _ in after] == ["code", "markdown"], after
assert after[0] == before[0] and after[1][1].startswith(shown) and "b = 2" in after[1][1], after

print("before:", before)
print("after: ", after)
print("PASS: jupytext 1.19.6 loses the cells after a fence within a fence in Jupytext Markdown")
PY
