// The laboratory of weights; laboratory.py describes it. Distances come from the run's texts, from dots on a plane that
// a reader moves, or from texts that a reader writes.
(() => {
  const { make, svg, add } = window.ddpoParts;
  const NAMES = "ABCDEFGHIJ";
  const SPACES = ["semantic", "style"];
  const [WIDTH, HEIGHT, EDGE] = [400, 300, 30]; // of a plane, in units of its drawing
  const REACH = 0.6; // distance from the middle of a plane to its upper edge, where a preset starts
  const DIGITS = 4; // of a place
  const STEPS = 40; // presses of an arrow key from the middle of a plane to its upper edge
  const QUIET = 250; // ms without a change before the summary is told
  const GLIDE = 350; // ms that dots take to a new arrangement
  const SOURCES = { run: "this run's texts", plane: "dots on the plane", texts: "your own texts" };

  // Arrangements of dots, in shares of the reach, with scores; the style plane has the same dots unless it has its own.
  const ARRANGED = {
    "A cluster and an outlier": { dots: [[-0.5, 0.1], [-0.4, 0.35], [-0.3, 0], [-0.6, -0.2], [0.9, -0.3]], scores: [40, 10, 25, 5, 30] },
    "Two clusters": { dots: [[-0.7, 0.1], [-0.6, -0.1], [0.6, 0.1], [0.7, -0.1]], scores: [40, 10, 30, 20] },
    "One place": { dots: [[0, 0], [0, 0], [0, 0], [0, 0]], scores: [40, 10, 30, 20] },
    "Two responses": { dots: [[-0.5, 0], [0.5, 0.2]], scores: [20, 10] },
    "Rare in meaning, ordinary in style": {
      dots: [[0.9, 0], [-0.4, 0.2], [-0.5, -0.1], [-0.3, -0.3]], style: [[-0.35, -0.05], [0.9, 0], [-0.5, 0.1], [-0.3, -0.3]], scores: [40, 30, 20, 10],
    },
  };
  const WRITTEN = {
    "Three alike, one apart": {
      texts: ["The fox waited by the gate until the hens fell asleep.", "The fox waited at the gate until the hens were asleep.",
        "A fox waited near the gate while the hens fell asleep.", "Dear Sir, your bill of 3 May is still unpaid!"],
      scores: [40, 10, 25, 30],
    },
    "The same words, another style": {
      texts: ["The fox waited by the gate, and the hens slept.", "The fox waited by the gate, and the hens slept soundly.",
        "THE FOX!! WAITED... BY THE GATE?! AND THE HENS?? SLEPT!!!", "My aunt sold the boat, and the sea forgot her."],
      scores: [40, 10, 25, 30],
    },
    "All the same": { texts: Array(4).fill("The fox waited by the gate."), scores: [40, 10, 30, 20] },
  };

  const number = (value, digits = 2) => value.toFixed(digits).replace("-", "−");
  const list = (words) => (words.length < 2 ? words.join("") : `${words.slice(0, -1).join(", ")} and ${words[words.length - 1]}`);
  const clamp = (value, most) => Number(Math.min(most, Math.max(-most, value)).toFixed(DIGITS));
  const hypot = ([a, b], [c, d]) => Math.hypot(a - c, b - d);
  const apart = (places) => places.map((a) => places.map((b) => hypot(a, b)));
  const farthest = (places) => Math.max(...places.map(([x, y]) => Math.max(Math.abs(y), (Math.abs(x) * HEIGHT) / WIDTH)), 1e-3);

  // Places in the plane whose distances are near to given ones: stress majorization from several circles, the best kept.
  function placed(matrix) {
    const n = matrix.length;
    const mean = matrix.flat().reduce((sum, value) => sum + value, 0) / Math.max(1, n * (n - 1));
    let best = null;
    for (let turn = 1; turn <= Math.max(1, n - 1); turn++) {
      let places = matrix.map((_, i) => [Math.cos, Math.sin].map((wave) => (mean / 1.5) * wave((2 * Math.PI * ((i * turn) % n + i / 7)) / n)));
      for (let step = 0; step < 300; step++) {
        const now = apart(places);
        places = places.map((own, i) => [0, 1].map((axis) => places.reduce(
          (sum, other, j) => sum + (now[i][j] > 0 ? (matrix[i][j] / now[i][j]) * (own[axis] - other[axis]) : 0), 0) / n));
      }
      const stress = apart(places).flat().reduce((sum, value, i) => sum + (value - matrix.flat()[i]) ** 2, 0);
      if (best === null || stress < best.stress) best = { places, stress };
    }
    return best.places;
  }

  function draw(root, data) {
    root.classList.add("ddpo-tool", "ddpo-lab");
    const { deviations, weigh } = window.ddpoWeighting; // here, since scripts of a part arrive in any order
    const counted = window.ddpoCounted;
    const vectors = counted.spaces(data.counted);
    const known = { semantic: new Map(), style: new Map() }; // text -> vector, of texts that a reader wrote
    let state, planes, rows, telling;

    const restart = () => ({
      source: "run", spaces: "semantic", scale: "minmax", floor: 0, power: 1, chosen: 0,
      reach: Object.fromEntries(SPACES.map((space) => [space, 1.35 * farthest(data.places[space])])),
      responses: data.texts.map((text, run) => ({
        run, text, written: "", score: data.scores[run], places: Object.fromEntries(SPACES.map((space) => [space, data.places[space][run]])),
      })),
    });
    const shown = () => (state.spaces === "both" ? SPACES : [state.spaces]);
    const title = (space) => (state.source !== "texts" ? space : space === "semantic" ? "words" : "style");
    const counts = (response) => state.source !== "texts" || !counted.isBlank(response.written);

    // --- what follows from the state ---

    function matrix(space, responses) {
      if (state.source === "run") return responses.map((a) => responses.map((b) => data.distances[space][a.run][b.run]));
      if (state.source === "plane") return apart(responses.map((response) => response.places[space]));
      const of = space === "semantic" ? vectors.lexical : vectors.stylometric;
      const found = known[space];
      for (const { written } of responses) if (!found.has(written)) found.set(written, of(written));
      return counted.distances(responses.map((response) => found.get(response.written)));
    }

    // Everything that is shown, for the responses that count; `at` is their numbers.
    function compute() {
      const at = [...state.responses.keys()].filter((i) => counts(state.responses[i]));
      const responses = at.map((i) => state.responses[i]);
      const matrices = Object.fromEntries(SPACES.map((space) => [space, matrix(space, responses)]));
      const deviation = Object.fromEntries(SPACES.map((space) => [space, deviations(matrices[space])]));
      const { scale, floor, power } = state;
      const { shares, weights } = at.length
        ? weigh(shown().map((space) => deviation[space]), { scale, floor, power, tie: data.tie }) : { shares: [], weights: [] };
      return { at, responses, matrices, deviation, shares, weights, names: at.map((i) => NAMES[i]) };
    }

    // The number of the response with the highest score; -1 if none has a score, or two have the highest.
    function highest(responses) {
      const top = Math.max(...responses.map(({ score }) => score ?? -Infinity));
      const at = responses.map(({ score }) => score).indexOf(top);
      return responses.filter(({ score }) => score === top).length === 1 ? at : -1;
    }

    function summary({ at, shares, weights, names, responses }) {
      if (!at.length) return "No response has a text yet.";
      if (at.length === 1) return "One response alone has weight 1: it deviates from nothing.";
      if (at.length === 2) return "Two responses are equally far from each other, so both weights are 1.";
      const most = Math.max(...weights), least = Math.min(...weights);
      if (most - least < 1e-9) {
        const equal = shares.every((of) => of.every((share) => share === of[0]));
        if (state.power === 0) return "With power 0 every weight is 1, so this prompt counts as in plain DPO.";
        if (state.floor === 1) return "With floor 1 every weight is 1, so this prompt counts as in plain DPO.";
        return `${equal ? "All deviations are equal" : "Each response has a share of 0 in one of the spaces"}, so every weight is 1. This prompt then counts as in plain DPO.`;
      }
      const named = (which) => list(names.filter((_, i) => which(i)));
      const said = [`Largest weight: ${named((i) => most - weights[i] < 1e-9)}, ${number(most)}.`];
      const lowest = (i) => list(shown().filter((_, s) => shares[s][i] === 0).map(title));
      const none = names.map((name, i) => [name, i]).filter(([, i]) => weights[i] === 0);
      if (none.length) said.push(`Weight 0: ${list(none.map(([name, i]) => `${name} (closest to the others in ${lowest(i)})`))}.`);
      const raised = named((i) => state.floor > 0 && shares.some((of) => of[i] === 0));
      if (raised) said.push(`Without the floor, the weight of ${raised} would be 0.`);
      const best = highest(responses);
      if (best >= 0 && weights[best] === 0) said.push(`${names[best]} has the highest score, but nothing is learned from its wins.`);
      return said.join(" ");
    }

    // How well the plane shows the distances; dots that a reader moved show them exactly.
    function fit(found) {
      if (state.source === "plane") return "The distance between two dots is the distance between two responses.";
      const errors = shown().map((space) => {
        const seen = apart(found.responses.map((response) => response.places[space]));
        const pairs = seen.flatMap((row, i) => row.slice(0, i).map((value, j) => Math.abs(value - found.matrices[space][i][j])));
        return `${number(pairs.reduce((sum, value) => sum + value, 0) / Math.max(1, pairs.length), 3)} (${title(space)})`;
      });
      const models = state.source === "run" ? `Cosine distances of the run's vectors: ${shown().map((space) => `${data.models[space]} for ${space}`).join(", ")}.`
        : "Cosine distances of counted words (the lexical space, since no model runs in this page) and of counted characters (the stylometric space).";
      return `${models} Distances on the plane are off by ${list(errors)} on average. If you move a dot, the distances on the plane count.`;
    }

    // --- changes ---

    // `rebuild`: other dots or planes; `relist`: other fields in the list. Dots that move by themselves glide there.
    function change(values, { rebuild = false, relist = rebuild, glide = false } = {}) {
      Object.assign(state, values);
      if (state.source === "texts") arrange();
      if (rebuild) build();
      if (relist) listRows();
      if (glide) for (const plane of Object.values(planes)) plane.glide();
      update();
    }

    function arrange() {
      const responses = state.responses.filter(counts);
      for (const space of SPACES) {
        const places = placed(matrix(space, responses));
        responses.forEach((response, i) => { response.places = { ...response.places, [space]: places[i].map((value) => clamp(value, 10)) }; });
        if (places.length) state.reach[space] = Math.max(1.35 * farthest(places), 0.05);
      }
    }

    const fresh = (score) => ({ run: null, text: "", written: "", score, places: { semantic: [0, 0], style: [0, 0] } });

    function takeArrangement({ dots, style = dots, scores }) {
      const at = ([x, y]) => [x * REACH, y * REACH];
      const responses = dots.map((dot, i) => ({ ...fresh(scores[i]), places: { semantic: at(dot), style: at(style[i]) } }));
      const spaces = style === dots ? state.spaces : "both";
      change({ source: "plane", spaces, chosen: 0, responses, reach: { semantic: REACH, style: REACH } }, { rebuild: true, glide: true });
    }

    function takeTexts({ texts, scores }) {
      change({ source: "texts", chosen: 0, responses: texts.map((written, i) => ({ ...fresh(scores[i]), written })) }, { rebuild: true });
    }

    function takeSource(source) {
      if (source === "run") state = { ...restart(), ...Object.fromEntries(["spaces", "scale", "floor", "power"].map((name) => [name, state[name]])) };
      else if (source === "texts" && !state.responses.some((response) => response.written)) return takeTexts(WRITTEN["Three alike, one apart"]);
      return change({ source }, { rebuild: true });
    }

    function addResponse() {
      const response = fresh(null);
      const source = state.source === "texts" ? "texts" : "plane";
      change({ source, responses: [...state.responses, response], chosen: state.responses.length }, { rebuild: true });
      (rows[state.chosen].text ?? rows[state.chosen].score).focus();
    }

    function remove(i) {
      change({ responses: state.responses.filter((_, at) => at !== i), chosen: 0 }, { rebuild: true });
      rows[Math.min(i, rows.length - 1)].score.focus();
    }

    function move(i, space, [x, y]) {
      const reach = state.reach[space];
      const response = state.responses[i];
      response.places = { ...response.places, [space]: [clamp(x, (reach * WIDTH) / HEIGHT), clamp(y, reach)] };
      change({ source: "plane", chosen: i }, { relist: state.source !== "plane" });
    }

    // --- a plane ---

    function plane(space) {
      const reach = () => state.reach[space];
      const scale = () => (HEIGHT / 2 - EDGE) / reach();
      const pixel = ([x, y]) => [WIDTH / 2 + x * scale(), HEIGHT / 2 - y * scale()];
      const lines = svg("g", { class: "ddpo-lab-lines" });
      const bar = svg("g", { class: "ddpo-lab-bar" });
      const surface = svg("rect", { x: 0, y: 0, width: WIDTH, height: HEIGHT, class: "ddpo-lab-surface" });
      const dots = state.responses.map((_, i) => dot(i));
      const drawing = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "group" }, surface, bar, lines, ...dots.map((one) => one.element));
      const heading = make("p", { class: "ddpo-lab-title" });
      const element = make("div", { class: "ddpo-lab-plane" }, heading, drawing);

      function under(event) {
        const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(drawing.getScreenCTM().inverse());
        return [(point.x - WIDTH / 2) / scale(), (HEIGHT / 2 - point.y) / scale()];
      }
      surface.addEventListener("click", (event) => {
        if (!counts(state.responses[state.chosen])) return;
        move(state.chosen, space, under(event));
        dots[state.chosen].element.focus({ preventScroll: true });
      });

      function dot(i) {
        const ring = svg("circle", { class: "ddpo-lab-ring" });
        const mark = svg("circle", { class: "ddpo-lab-mark" });
        const name = svg("text", { class: "ddpo-lab-name" });
        const own = svg("g", {
          class: "ddpo-lab-dot", tabindex: "0", role: "slider", "aria-roledescription": "movable dot",
          focus: () => { if (state.chosen !== i) change({ chosen: i }); },
          keydown: (event) => {
            const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
            if (!way || event.altKey || event.ctrlKey || event.metaKey) return;
            event.preventDefault();
            const step = (reach() / STEPS) * (event.shiftKey ? 5 : 1);
            const [x, y] = state.responses[i].places[space];
            move(i, space, [x + step * way[0], y + step * way[1]]);
          },
          // else the page scrolls, whatever touch-action an SVG group has; a scroll that has begun cannot be stopped
          touchstart: (event) => { if (event.cancelable) event.preventDefault(); },
          pointerdown: (event) => {
            if (event.button !== 0) return;
            event.preventDefault();
            own.focus({ preventScroll: true });
            grip(i, event);
          },
        }, svg("circle", { class: "ddpo-lab-touch", r: 20 }), ring, mark, name);
        return { element: own, ring, mark, name };
      }

      // Follows a pointer until it is lifted.
      function grip(i, start) {
        const [x, y] = state.responses[i].places[space], [left, top] = under(start);
        const follow = (event) => {
          if (event.pointerId !== start.pointerId) return;
          const [right, bottom] = under(event);
          move(i, space, [x + right - left, y + bottom - top]);
        };
        const stop = (event) => {
          if (event.pointerId !== start.pointerId) return;
          removeEventListener("pointermove", follow);
          removeEventListener("pointerup", stop);
          removeEventListener("pointercancel", stop);
        };
        addEventListener("pointermove", follow);
        addEventListener("pointerup", stop);
        addEventListener("pointercancel", stop);
      }

      function show({ at, deviation, weights, matrices, responses }) {
        const chosen = at.indexOf(state.chosen), top = highest(responses);
        heading.textContent = `${title(space)} space`;
        drawing.setAttribute("aria-label", `Plane of the ${title(space)} space`);
        dots.forEach((one, i) => {
          const k = at.indexOf(i);
          one.element.classList.toggle("ddpo-lab-absent", k < 0);
          if (k < 0) return;
          const place = state.responses[i].places[space], radius = 6 + 6 * Math.sqrt(Math.min(weights[k], 4));
          const [left, down] = pixel(place);
          one.element.style.transform = `translate(${left}px, ${down}px)`;
          one.element.setAttribute("aria-label", `Response ${NAMES[i]}, ${title(space)} space`);
          one.element.classList.toggle("ddpo-lab-zero", weights[k] === 0);
          one.element.classList.toggle("ddpo-lab-chosen", k === chosen);
          one.mark.setAttribute("r", radius);
          one.ring.setAttribute("r", radius + 4);
          one.name.setAttribute("y", down < 50 ? radius + 15 : -radius - 6);
          one.name.textContent = `${NAMES[i]}${k === top ? " ★" : ""}`;
          const values = { min: -reach(), max: reach(), now: place[0] };
          for (const [key, value] of Object.entries(values)) one.element.setAttribute(`aria-value${key}`, value.toFixed(DIGITS));
          one.element.setAttribute("aria-valuetext",
            `x ${number(place[0], DIGITS)}, y ${number(place[1], DIGITS)}, deviation ${number(deviation[space][k], 3)}, weight ${number(weights[k])}${k === top ? ", highest score" : ""}`);
        });
        lines.replaceChildren(...(chosen < 0 ? [] : at.flatMap((i, k) => (k === chosen ? [] : line(chosen, k, at, matrices[space])))));
        const length = [1, 2, 5].flatMap((digit) => [0.001, 0.01, 0.1, 1].map((ten) => digit * ten)).sort((a, b) => a - b)
          .filter((one) => one * scale() < 90).pop() ?? 0.001;
        const end = 14 + length * scale();
        bar.replaceChildren(svg("path", { d: `M14 ${HEIGHT - 16}v6H${end}v-6` }),
          svg("text", { x: end + 6, y: HEIGHT - 8 }, `distance ${length.toPrecision(1)}`));
      }

      function line(from, to, at, distances) {
        const [[a, b], [c, d]] = [from, to].map((k) => pixel(state.responses[at[k]].places[space]));
        return [svg("line", { x1: a, y1: b, x2: c, y2: d }),
          svg("text", { x: a + 0.58 * (c - a), y: b + 0.58 * (d - b) }, number(distances[from][to]))];
      }

      function glide() {
        drawing.classList.add("ddpo-lab-glide");
        setTimeout(() => drawing.classList.remove("ddpo-lab-glide"), GLIDE);
      }
      return { element, show, glide };
    }

    // --- the list of responses ---

    function row(i) {
      const response = state.responses[i], name = NAMES[i];
      const weight = make("span", { class: "ddpo-lab-weight" });
      const bar = make("span", { class: "ddpo-lab-fill" });
      const facts = make("span", { class: "ddpo-lab-facts" });
      const score = make("input", {
        type: "number", step: "any", "aria-label": `Score of ${name}`,
        input: () => { response.score = score.value === "" ? null : Number(score.value); update(); },
      });
      score.value = response.score ?? "";
      const gone = make("button", { type: "button", "aria-label": `Remove ${name}`, click: () => remove(i) }, "×");
      gone.disabled = state.responses.length < 2;
      let text = null, words = [];
      if (state.source === "texts") {
        text = make("textarea", { rows: 2, "aria-label": `Text of ${name}`, input: () => { response.written = text.value; change({}); } });
        text.value = response.written;
        words = [text];
      } else if (response.text) {
        const whole = make("details", { class: "ddpo-lab-text" }, make("summary", { dir: "auto" }, opening(response.text)),
          ...response.text.split(/\r\n|\r|\n/).filter((line) => line.trim()).map((line) => make("p", { dir: "auto" }, line)));
        words = [whole];
      }
      const element = make("li", {},
        make("div", { class: "ddpo-lab-measures" }, make("span", { class: "ddpo-lab-track", "aria-hidden": "true" }, bar), weight, facts),
        make("label", { class: "ddpo-lab-score" }, "score", score), gone, ...words);
      function show({ at, deviation, weights }) {
        const k = at.indexOf(i);
        weight.replaceChildren(make("b", {}, name), k < 0 ? " has no text" : ` weight ${number(weights[k])}`);
        weight.dataset.weight = k < 0 ? "" : weights[k]; // all digits
        bar.style.width = k < 0 ? "0" : `${(100 * weights[k]) / at.length}%`;
        facts.textContent = k < 0 || at.length < 2 ? "" : `deviation ${shown().map((space) => `${number(deviation[space][k], 3)} ${title(space)}`).join(", ")}`;
      }
      return { element, show, score, text };
    }

    function opening(text) {
      const start = Array.from(text.slice(0, 400).replace(/\s+/gu, " ").trim());
      return start.length > 90 ? `${start.slice(0, 90).join("").trim()}…` : start.join("");
    }

    // --- tables ---

    const cell = (tag, text, attributes = {}) => make(tag, attributes, text);
    function table(caption, head, body) {
      return make("div", { class: "ddpo-lab-scroll", tabindex: "0", role: "region", "aria-label": caption },
        make("table", {}, make("caption", {}, caption), make("thead", {}, make("tr", {}, ...head.map((text) => cell("th", text, { scope: "col" })))),
          make("tbody", {}, ...body.map(([first, ...others]) => make("tr", {}, cell("th", first, { scope: "row" }), ...others.map((text) => cell("td", text)))))));
    }

    function tables(found) {
      const { names, matrices, deviation, weights, responses } = found;
      const ofSpace = (space) => table(`Distances in the ${title(space)} space, and their means`, ["", ...names, "deviation"],
        matrices[space].map((row, i) => [names[i], ...row.map((value, j) => (i === j ? "–" : number(value))), number(deviation[space][i], 3)]));
      const wins = responses.map(({ score }, i) => names.filter((_, j) => score !== null && responses[j].score !== null && score > responses[j].score));
      const winners = names.map((_, i) => i).filter((i) => wins[i].length);
      return [
        ...(names.length > 1 ? shown().map(ofSpace) : []),
        winners.length ? table("Pairs: the winner's weight multiplies the loss", ["winner", "can win over", "weight of the pair"],
          winners.map((i) => [names[i], list(wins[i]), number(weights[i])])) : make("p", {}, "No two responses have different scores, so there is no pair."),
      ];
    }

    // --- all of it ---

    const menu = (label, choices, value, choose) => {
      const select = make("select", { change: () => choose(select.value) }, ...Object.entries(choices).map(([key, text]) => make("option", { value: key }, text)));
      select.value = value;
      return { element: make("label", {}, label, select), set: (now) => { select.value = now; } };
    };
    function range(label, most, step, name) {
      const told = make("span", {});
      const input = make("input", { type: "range", min: 0, max: most, step, "aria-label": label, input: () => change({ [name]: Number(input.value) }) });
      return { element: make("label", {}, make("span", {}, `${label}: `, told), input), set: (now) => { input.value = now; told.textContent = number(now); } };
    }
    const button = (text, click) => make("button", { type: "button", click }, text);

    state = restart();
    const source = menu("Distances come from", SOURCES, state.source, takeSource);
    const spaces = menu("Spaces", { semantic: "semantic", style: "style", both: "both" }, state.spaces, (value) => change({ spaces: value }, { rebuild: true }));
    const scale = menu("Normalisation", { minmax: "min-max", ratio: "ratio" }, state.scale, (value) => change({ scale: value }));
    const floor = range("Floor", 1, 0.05, "floor"), power = range("Power", 3, 0.25, "power");
    const told = make("p", { class: "ddpo-lab-summary", role: "status" });
    const note = make("p", { class: "ddpo-lab-note" });
    const board = make("div", { class: "ddpo-lab-planes" });
    const entries = make("ol", { class: "ddpo-lab-list", "aria-label": "Responses" });
    const more = button("Add a response", addResponse);
    const grids = make("div", { class: "ddpo-lab-tables" });
    root.replaceChildren(
      make("p", { class: "ddpo-lab-prompt", dir: "auto" }, make("span", {}, "Prompt: "), data.prompt),
      make("p", { class: "ddpo-lab-note" }, "Drag a dot, or choose one and use the arrow keys (with Shift: larger steps) or click where it should go. A larger dot has a larger weight; a dashed one has weight 0. A star marks the highest score."),
      make("div", { class: "ddpo-lab-controls" }, ...[source, spaces, scale, floor, power].map((control) => control.element)),
      make("div", { class: "ddpo-lab-buttons", role: "group", "aria-label": "Arrangements of dots" }, make("span", {}, "Dots:"),
        ...Object.entries(ARRANGED).map(([name, arranged]) => button(name, () => takeArrangement(arranged)))),
      make("div", { class: "ddpo-lab-buttons", role: "group", "aria-label": "Sets of texts" }, make("span", {}, "Texts:"),
        ...Object.entries(WRITTEN).map(([name, written]) => button(name, () => takeTexts(written)))),
      make("div", { class: "ddpo-lab-buttons" }, button("Start again", () => { state = restart(); change({}, { rebuild: true, glide: true }); })),
      make("div", { class: "ddpo-lab-body" }, board, make("div", {}, entries, more)), told, note, grids);

    function build() {
      planes = Object.fromEntries(shown().map((space) => [space, plane(space)]));
      board.replaceChildren(...Object.values(planes).map((one) => one.element));
    }

    function listRows() {
      rows = state.responses.map((_, i) => row(i));
      entries.replaceChildren(...rows.map((one) => one.element));
    }

    function update() {
      const found = compute();
      for (const one of [...Object.values(planes), ...rows]) one.show(found);
      for (const [control, name] of [[source, "source"], [spaces, "spaces"], [scale, "scale"], [floor, "floor"], [power, "power"]]) control.set(state[name]);
      more.disabled = state.responses.length >= data.most;
      grids.replaceChildren(...tables(found));
      note.textContent = fit(found);
      clearTimeout(telling);
      telling = setTimeout(() => { told.textContent = summary(found); }, QUIET);
    }

    change({}, { rebuild: true });
  }

  add("laboratory", draw);
})();
