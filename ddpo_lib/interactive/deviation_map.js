// The map of responses: drawn by plotly.js, in a page of the book (as a part) and as a widget (ddpoMap.render).
// deviation_map.py packs the data. plotly, whose labels understand some HTML, gets texts with & < > escaped.
window.ddpoMap = (() => {
  const { make, count, short, plural, inflate, download } = window.ddpoParts;
  const OPENING = 160; // characters of a text in a hover label
  const LISTED = 200; // selected responses in the reader at once
  const NOWHERE = "#8c8c8c"; // a point without the number that colours the others
  const SHADES = 60; // of the colours between the ends of the bar
  let maps = 0; // on this page; makes ids unique
  let drawings = 0; // a new number wipes plotly's outline of a lasso

  const line = (text) => text.replace(/[\s\p{Cc}]+/gu, " ").trim();
  const escaped = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

  function opening(text, most) {
    const start = Array.from(line(text.slice(0, 4 * most))); // whole characters, not halves of pairs
    return start.length > most ? `${start.slice(0, most).join("").trim()}…` : start.join("");
  }

  function wrapped(text, width) {
    const lines = [""];
    for (const word of text.split(" ")) {
      const pieces = word.match(new RegExp(`.{1,${width}}`, "gsu")) ?? [];
      for (const piece of pieces) {
        const last = lines[lines.length - 1];
        if (last && last.length + piece.length + 1 > width) lines.push(piece);
        else lines[lines.length - 1] = last ? `${last} ${piece}` : piece;
      }
    }
    return lines.map(escaped).join("<br>");
  }

  function hasWebGL() {
    const context = document.createElement("canvas").getContext("webgl");
    context?.getExtension("WEBGL_lose_context")?.loseContext();
    return Boolean(context);
  }

  // What a point can be coloured by: words for the bar, and a number a row.
  function measures(points) {
    const deviations = points.spaces.map((space) => ({
      label: `${space.name} deviation`, more: "rarer", values: space.deviation,
    }));
    return [
      ...deviations,
      { label: "score", more: "better", values: points.score },
      { label: "length in words", more: "longer", values: points.words },
    ];
  }

  function facts(points, row) {
    const deviations = points.spaces
      .filter((space) => space.deviation[row] !== null)
      .map((space) => `${space.name} deviation ${short(space.deviation[row])}`);
    const score = points.score[row];
    return [
      points.who[points.arm[row]].name, score === null ? "no score" : `score ${short(score)}`,
      plural(points.words[row], "word"), ...deviations,
    ];
  }

  // Rows as prompt-grouped JSONL, the interchange format of the project; a response without text is no response there.
  function jsonLines(points, rows) {
    const prompts = new Map();
    for (const row of rows.filter((r) => points.text[r].trim())) {
      const response = { text: points.text[row], score: points.score[row], source: points.who[points.arm[row]].name };
      for (const space of points.spaces) response[`deviation ${space.name}`] = space.deviation[row];
      if (points.cut[row]) response.cut = true;
      if (!prompts.has(points.prompt[row])) prompts.set(points.prompt[row], []);
      prompts.get(points.prompt[row]).push(response);
    }
    return [...prompts].map(([prompt, responses]) => `${JSON.stringify({ prompt: points.prompts[prompt], responses })}\n`);
  }

  // --- what is drawn ---

  // Where each row stands: in the map of the chosen prompt if it has one, else in that of the whole corpus.
  function places(points, state) {
    const space = points.spaces[state.space];
    const rows = [...points.text.keys()].filter((row) => state.prompt === null || points.prompt[row] === state.prompt);
    const own = state.prompt !== null && rows.some((row) => space.own[0][row] !== null);
    const [x, y] = own ? space.own : space.corpus;
    return { x, y, own, rows, placed: rows.filter((row) => x[row] !== null && !state.hidden.has(points.arm[row])) };
  }

  // Sizes by rank of score, since votes are often few and sometimes thousands.
  function sizes(points, rows) {
    const [least, most] = rows.length > 2000 ? [4, 10] : [6, 16];
    const known = [...new Set(rows.map((row) => points.score[row]).filter((score) => score !== null))].sort((a, b) => a - b);
    const rank = new Map(known.map((score, i) => [score, known.length > 1 ? i / (known.length - 1) : 0.5]));
    const size = (row) => (points.score[row] === null ? least : least + 1 + (most - least - 1) * rank.get(points.score[row]));
    return { size, least: known[0], most: known[known.length - 1], some: rows.some((row) => points.score[row] === null) };
  }

  // The range of colours leaves out a hundredth at either end, so that one odd value does not grey all others.
  function range(values) {
    const sorted = values.filter((value) => value !== null).sort((a, b) => a - b);
    const at = (share) => sorted[Math.round(share * (sorted.length - 1))] ?? 0;
    const [low, high] = [at(0.01), at(0.99)];
    return high > low ? [low, high] : [low - 0.5, high + 0.5];
  }

  // Few colours: WebGL keeps them in a palette, and paints points wrongly on first sight of more than 256.
  function painter(values, [low, high]) {
    const share = (value) => Math.round(SHADES * Math.min(1, Math.max(0, (value - low) / (high - low)))) / SHADES;
    return (row) => (values[row] === null ? NOWHERE : low + share(values[row]) * (high - low));
  }

  function traces(points, state, place, paint, size, hover, isBright, type, edge) {
    const faded = state.query || state.selected.size;
    return points.who.flatMap((who, arm) => {
      const rows = place.placed.filter((row) => points.arm[row] === arm);
      if (!rows.length) return [];
      return [{
        type, mode: "markers", name: who.name, customdata: rows, hoverinfo: "text", hovertext: rows.map(hover),
        x: rows.map((row) => place.x[row]), y: rows.map((row) => place.y[row]),
        marker: {
          symbol: who.shape, size: rows.map(size), coloraxis: "coloraxis",
          color: rows.map(paint),
          opacity: faded ? rows.map((row) => (isBright(row) ? 0.95 : 0.15)) : 0.85,
          line: { width: who.shape.endsWith("-open") ? 1.5 : 0.5, ...(who.shape.endsWith("-open") ? {} : { color: edge }) },
        },
      }];
    });
  }

  function layout(root, narrow, colour, limits, key) {
    const look = getComputedStyle(root);
    const surface = look.getPropertyValue("--part-surface"), border = look.getPropertyValue("--part-border");
    const axis = { showgrid: false, zeroline: false, showticklabels: false, ticks: "" };
    const bar = narrow
      ? { orientation: "h", y: 0, yanchor: "top", ypad: 6, title: { text: `${escaped(colour.label)} (${colour.more} →)`, side: "bottom" } }
      : { title: { text: `${escaped(colour.label)} (${colour.more} ↑)`, side: "right" } };
    return {
      autosize: true, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", showlegend: false, hovermode: "closest",
      margin: { l: 8, r: narrow ? 8 : 80, t: 34, b: narrow ? 56 : 8 }, font: { color: look.color, family: look.fontFamily, size: 12 },
      xaxis: axis, yaxis: axis,
      coloraxis: { colorscale: "Cividis", cmin: limits[0], cmax: limits[1], colorbar: { thickness: 11, outlinewidth: 0, ...bar } },
      dragmode: matchMedia("(pointer: coarse)").matches ? false : "lasso", // a finger scrolls the page
      modebar: { bgcolor: "rgba(0,0,0,0)", color: look.color, activecolor: look.getPropertyValue("--part-accent"), uirevision: "kept" },
      hoverlabel: { bgcolor: surface, bordercolor: border, font: { color: look.color, size: 12 }, align: "left" },
      newselection: { line: { color: look.color, width: 1.5 } }, selections: [], uirevision: key, selectionrevision: ++drawings,
    };
  }

  // --- the map ---

  // Draws into `root`; `onSelect` gets the numbers of the selected rows. Gives back `select(rows)` and `destroy()`.
  function draw(root, Plotly, points, onSelect = () => {}) {
    const id = `ddpo-map-${++maps}`;
    const state = { prompt: null, space: 0, colour: 0, hidden: new Set(), query: "", selected: new Set(), opened: null };
    const colours = measures(points);
    const labels = points.prompts.map((prompt, i) => `${i + 1}. ${opening(prompt, 100)}`);
    const rowOf = new Map(points.row.map((number, i) => [number, i]));
    const type = hasWebGL() ? "scattergl" : "scatter";
    let lower = null; // texts in lower case, made for the first search
    let narrow = false, drawn = false, shown = [];
    let busy = 0; // while plotly draws it tells of selections that no user made

    const plot = make("div", { class: "ddpo-map-plot" });
    const reader = make("section", { class: "ddpo-map-reader", tabindex: "0", "aria-label": "Reader", "aria-live": "polite" });
    const status = make("p", { class: "ddpo-map-status", role: "status" });
    const legend = make("p", { class: "ddpo-map-legend" });
    const hits = make("output");
    const choose = make("button", { type: "button", click: () => select(shown.filter(isBright)) });

    const isHit = (row) => !state.query || lower[row].includes(state.query);
    const isBright = (row) => isHit(row) && (!state.selected.size || state.selected.has(row));
    const hovers = new Map();
    function hover(row) {
      const width = narrow ? 42 : 64;
      const key = 2 * row + Number(narrow);
      if (!hovers.has(key)) {
        const parts = [
          `<b>${wrapped(opening(points.prompts[points.prompt[row]], 100), width)}</b>`,
          wrapped(opening(points.text[row], OPENING), width), `<i>${wrapped(facts(points, row).join(" · "), width)}</i>`,
        ];
        hovers.set(key, parts.join("<br>"));
      }
      return hovers.get(key);
    }

    function redraw() {
      if (!drawn && !plot.clientWidth) return; // not on the page yet; the observer calls again
      const place = places(points, state), colour = colours[state.colour];
      shown = place.placed;
      const scale = sizes(points, shown);
      const limits = range(shown.map((row) => colour.values[row]));
      const edge = getComputedStyle(root).getPropertyValue("--part-muted");
      const paint = painter(colour.values, limits);
      const data = traces(points, state, place, paint, scale.size, hover, isBright, type, edge);
      const key = `${state.prompt} ${state.space}`;
      const config = {
        displaylogo: false, scrollZoom: true, displayModeBar: true, modeBarButtonsToRemove: ["autoScale2d", "toImage"],
        showSendToCloud: false, plotlyServerURL: "", // stories stay here
      }; // not `responsive`, which sees the window's size alone
      busy += 1;
      Plotly.react(plot, data, layout(root, narrow, colour, limits, key), config).then(() => { busy -= 1; });
      if (!drawn) listen();
      drawn = true;
      describe(place, colour, scale);
    }

    function describe(place, colour, scale) {
      const where = state.prompt === null ? "on the map of the whole corpus"
        : place.own ? "on this prompt's own map" : "to this prompt, too few for a map of their own: where they lie in that of the whole corpus";
      const lost = place.rows.filter((row) => place.x[row] === null).length;
      status.textContent = `${plural(shown.length, "response")} ${where}${lost ? `; ${count(lost)} have no place on it` : ""}.`;
      const grey = shown.some((row) => colour.values[row] === null);
      legend.textContent = `Colour: ${colour.label}, yellow is ${colour.more}; it ends at the 1st and 99th percentile${grey ? `; grey: no ${colour.label}` : ""}. `
        + (scale.least === undefined ? "No point shown has a score, so that all have one size."
          : `Size: rank of score among the points shown, ${short(scale.least)} to ${short(scale.most)}${scale.some ? "; the smallest have none" : ""}.`);
      const bright = shown.filter(isHit).length;
      hits.textContent = state.query ? `${plural(bright, "hit")}` : "";
      choose.textContent = state.query ? "List the hits" : "List all shown";
      choose.disabled = !bright;
      for (const [arm, box] of boxes.entries()) {
        box.total.textContent = `(${count(place.rows.filter((row) => points.arm[row] === arm).length)})`;
      }
    }

    // --- reading and selecting ---

    function select(rows) {
      state.selected = new Set([...rows].sort((a, b) => a - b));
      state.opened = null;
      redraw();
      read();
      onSelect([...state.selected].map((row) => points.row[row]));
    }

    function story(row) {
      const text = make("div", { class: "ddpo-map-text", dir: "auto" });
      text.append(...points.text[row].split(/\r\n|\r|\n/).filter((part) => part.trim()).map((part) => make("p", { dir: "auto" }, part)));
      if (!text.childNodes.length) text.append(make("p", {}, "(nothing)"));
      const cut = points.cut[row]
        ? [make("p", { class: "ddpo-map-facts" }, `The first ${count(points.longest)} characters; the whole text is in JupyterLab: make lab, notebook explore.`)] : [];
      return [
        make("p", { class: "ddpo-map-facts" }, facts(points, row).join(" · ")),
        make("blockquote", { dir: "auto" }, points.prompts[points.prompt[row]]), text, ...cut,
      ];
    }

    function read() {
      const rows = [...state.selected];
      reader.scrollTop = 0;
      if (state.opened !== null) {
        const back = make("button", { type: "button", click: () => { state.opened = null; read(); } }, `Back to the ${count(rows.length)} selected`);
        reader.replaceChildren(...(rows.length ? [make("div", { class: "ddpo-map-buttons" }, back)] : []), ...story(state.opened));
      } else if (rows.length) {
        reader.replaceChildren(...list(rows));
      } else {
        reader.replaceChildren(make("p", { class: "ddpo-map-facts" },
          "Click a point to read it. Draw around points to list them: lasso and box are above the map, on the right."));
      }
    }

    function list(rows) {
      const cut = rows.some((row) => points.cut[row]);
      const save = make("button", { type: "button", click: () => download("selection.jsonl", jsonLines(points, rows)) },
        `Save ${count(rows.length)} as JSONL`);
      const clear = make("button", { type: "button", click: () => select([]) }, "Clear");
      const entries = rows.slice(0, LISTED).map((row) => {
        const summary = make("summary", { dir: "auto" }, opening(points.text[row], 90) || "(nothing)");
        const entry = make("details", {}, summary);
        entry.addEventListener("toggle", () => { if (entry.childNodes.length === 1) entry.append(...story(row)); });
        return entry;
      });
      const words = `${plural(rows.length, "response")} selected${rows.length > LISTED ? `; the first ${LISTED} are listed` : ""}.`
        + (cut ? ` Texts are openings of ${count(points.longest)} characters, in the file too; whole ones in JupyterLab: make lab, notebook explore.` : "");
      return [make("p", { class: "ddpo-map-facts" }, words), make("div", { class: "ddpo-map-buttons" }, save, clear), ...entries];
    }

    function listen() {
      plot.on("plotly_click", (event) => {
        state.opened = event.points[0].customdata;
        read();
        if (narrow) reader.scrollIntoView({ block: "nearest" });
      });
      plot.on("plotly_selected", (event) => { if (event && !busy) select(event.points.map((point) => point.customdata).filter(isHit)); });
      plot.on("plotly_deselect", () => { if (!busy) select([]); });
    }

    // --- controls ---

    function change(what, value) {
      state[what] = value;
      redraw();
    }

    function pickPrompt(typed, done) {
      const words = typed.trim().toLowerCase();
      const exact = labels.indexOf(typed);
      const found = exact >= 0 || !done || !words ? exact : labels.findIndex((label) => label.toLowerCase().includes(words));
      if (found >= 0) prompt.value = labels[found];
      prompt.setCustomValidity(done && words && found < 0 ? "No prompt has these words." : "");
      if (done) prompt.reportValidity();
      const chosen = found >= 0 ? found : null;
      if ((found >= 0 || !words) && chosen !== state.prompt) change("prompt", chosen);
    }

    const prompt = make("input", {
      type: "search", list: `${id}-prompts`, placeholder: `all ${count(labels.length)}: type to find one`, autocomplete: "off",
      input: () => pickPrompt(prompt.value, false), change: () => pickPrompt(prompt.value, true),
    });
    const options = make("datalist", { id: `${id}-prompts` }, ...labels.map((label) => make("option", { value: label })));
    const menu = (names, what) => make("select", { change: (event) => change(what, event.target.selectedIndex) },
      ...names.map((name) => make("option", {}, name)));
    let waiting;
    const search = make("input", {
      type: "search", placeholder: "words in a text",
      input: () => {
        clearTimeout(waiting);
        waiting = setTimeout(() => {
          lower ??= points.text.map((text) => text.toLowerCase());
          change("query", search.value.toLowerCase());
        }, 200);
      },
    });
    const boxes = points.who.map((who, arm) => {
      const total = make("span");
      const box = make("input", { type: "checkbox", change: () => { state.hidden[box.checked ? "delete" : "add"](arm); redraw(); } });
      box.checked = true;
      return { total, label: make("label", {}, box, `${who.glyph} ${who.name} `, total) };
    });
    const controls = make("div", { class: "ddpo-map-controls" },
      make("label", { class: "ddpo-map-prompt" }, "Prompt", prompt), options,
      make("label", {}, "Space", menu(points.spaces.map((space) => space.name), "space")),
      make("label", {}, "Colour", menu(colours.map((colour) => colour.label), "colour")),
      make("label", { class: "ddpo-map-search" }, "Search", search), hits, choose,
      make("fieldset", { "aria-label": "Who wrote it" }, ...boxes.map((box) => box.label)));
    const note = points.of > points.row.length
      ? [make("p", { class: "ddpo-map-note" }, `${count(points.row.length)} of ${count(points.of)} responses, drawn at random, are on the map.`)] : [];
    root.replaceChildren(...note, controls, status, make("div", { class: "ddpo-map-body" }, plot, reader), legend);
    read();

    const resized = new ResizeObserver(() => {
      if (!plot.clientWidth) return;
      const was = narrow;
      narrow = plot.clientWidth < 480;
      if (drawn && was !== narrow) { // plotly keeps the margin of a bar that changes sides
        Plotly.purge(plot);
        drawn = false;
      }
      if (drawn) Plotly.Plots.resize(plot);
      else redraw();
    });
    resized.observe(plot);
    const themed = new MutationObserver(() => redraw());
    themed.observe(document.documentElement, { attributeFilter: ["data-theme"] });
    themed.observe(document.body, { attributeFilter: ["data-jp-theme-light"] });
    return {
      select: (numbers) => select(numbers.map((number) => rowOf.get(number)).filter((row) => row !== undefined)),
      destroy() {
        resized.disconnect();
        themed.disconnect();
        Plotly.purge(plot);
      },
    };
  }

  function failed(root, error) {
    root.textContent = `The map could not be drawn: ${error.message}`;
    throw error;
  }

  window.ddpoParts.add("deviation_map", (root, points) => {
    root.classList.add("ddpo-map");
    draw(root, window.Plotly, points);
  });

  // plotly.js out of the one model that carries it, evaluated once a page; a Plotly that the page has stays in place.
  async function plotlyOf(model) {
    const script = await model.widget_manager.get_model(model.get("_plotly").replace("IPY_MODEL_", ""));
    const code = await inflate(script.get("code"));
    const module = { exports: {} }, before = window.Plotly;
    new Function("module", code)(module);
    window.Plotly = before;
    return module.exports;
  }

  // In JupyterLab: anywidget's render.
  async function render({ model, el }) {
    const root = make("div", { class: "ddpo-map" }, "The map is being drawn.");
    el.append(root);
    try {
      window.ddpoMapPlotly ??= plotlyOf(model);
      const [Plotly, text] = await Promise.all([window.ddpoMapPlotly, inflate(model.get("_points"))]);
      let known = "";
      const map = draw(root, Plotly, JSON.parse(text), (rows) => {
        known = String(rows);
        model.set("selected", rows);
        model.save_changes();
      });
      const follow = () => { if (String(model.get("selected")) !== known) map.select(model.get("selected")); };
      model.on("change:selected", follow);
      follow();
      return () => {
        model.off("change:selected", follow);
        map.destroy();
      };
    } catch (error) {
      return failed(root, error);
    }
  }

  return { render };
})();
