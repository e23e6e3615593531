#!/usr/bin/env bash
# anywidget 0.11.0 with nbclient 0.11.0 and ipywidgets 8.1.9: nan in a list becomes the text "nan", or breaks the page.
#
# Guess: a widget's list with nan reaches the front end as null, as other tools write it, or an error is raised.
# Truth: it depends on the way. A notebook that is run by nbclient, as papermill and Jupyter Book do, stores the text
#   "nan": a front end that adds or draws numbers gets a string. `ipywidgets.embed` writes NaN, which is no JSON, so a
#   browser's JSON.parse fails on the state of all widgets of that page. The first way leaves a warning about JSON in
#   the cell's output; the second leaves none.
# Seen: [2.0, nan] is [2.0, "nan"] in the notebook and [2.0, NaN] in the page.
# Matters for: maps and charts of measures that have no value for some rows.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet \
  anywidget==0.11.0 ipywidgets==8.1.9 nbclient==0.11.0 nbformat==5.11.1 ipykernel==7.4.0 jupyter_client==8.10.0
cd "$folder"
export JUPYTER_CONFIG_DIR="$folder/config" JUPYTER_DATA_DIR="$folder/data" IPYTHONDIR="$folder/ipython"
"$folder/venv/bin/python" -I - 2>messages <<'PY' || { cat messages; exit 1; }
import json
import re

import nbclient
from nbformat.v4 import new_code_cell, new_notebook

make = """
import anywidget
import traitlets


class Chart(anywidget.AnyWidget):
    _esm = "export default {render({model, el}) {el.textContent = JSON.stringify(model.get('values'))}}"
    values = traitlets.List().tag(sync=True)


chart = Chart(values=[2.0, float("nan")])
chart
"""
kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
notebook = new_notebook(cells=[new_code_cell(make)], metadata=kernel)
nbclient.NotebookClient(notebook).execute()
states = notebook.metadata["widgets"]["application/vnd.jupyter.widget-state+json"]["state"].values()
stored = [widget["state"]["values"] for widget in states if "values" in widget["state"]]
assert stored == [[2.0, "nan"]], stored

from ipywidgets import embed

exec(make)
embed.embed_minimal_html("page.html", views=[chart], title="chart")
page = open("page.html").read()
start = page.index(">", page.index("application/vnd.jupyter.widget-state+json")) + 1
state = page[start : page.index("</script>", start)]


def refuse(constant):
    raise ValueError(f"{constant} is no JSON")


json.loads(state)  # Python's reader is more tolerant than the standard
try:
    json.loads(state, parse_constant=refuse)
    raise AssertionError("the page's state is JSON")
except ValueError as error:
    said = str(error)
assert said == "NaN is no JSON", said

print("in the notebook:", stored[0], "; in the page:", re.sub(r"\s+", " ", re.search(r'"values": \[[^]]*\]', state)[0]))
print("PASS: anywidget 0.11.0 stores nan as text in a notebook, and as no JSON in a page")
PY
