// The calculator of precision; power.py describes it and its data. The formulas are those of evaluation/sharpness.py,
// evaluation/precision.py and statistics/crossed.py.
window.ddpoPower ??= (() => {
  const { make, svg, add, plural } = window.ddpoParts;
  const [WIDTH, HEIGHT] = [440, 300]; // of the drawing, in its units
  const [LEFT, RIGHT, TOP, BOTTOM] = [50, 100, 30, 44]; // margins
  const POINTS = 13; // of a line
  const FROM = { prompts: 8, samples: 2, seeds: 2 }; // where a line starts, unless the choice is less
  const NUMBERS = { prompts: "Held-out prompts", samples: "Samples per prompt", seeds: "Training seeds" };
  const QUIET = 300; // ms without a change before the result is told

  // --- the formulas ---

  // A Chebyshev series at x in [-1, 1], by Clenshaw's recurrence.
  function series(coefficients, x) {
    let [now, last] = [0, 0];
    for (let i = coefficients.length - 1; i > 0; i--) [now, last] = [coefficients[i] + 2 * x * now - last, now];
    return coefficients[0] + x * now - last;
  }

  // Variance of a mean and its degrees of freedom: statistics.crossed.total_variance.
  function totalVariance([byPrompt, bySeed, alone], [ofPrompt, ofSeed, ofAlone]) {
    const promptsRule = ofPrompt > ofSeed || (ofPrompt === ofSeed && byPrompt >= bySeed);
    const [more, fewer] = promptsRule ? [byPrompt, bySeed] : [bySeed, byPrompt];
    const [ofMore, ofFewer] = promptsRule ? [ofPrompt, ofSeed] : [ofSeed, ofPrompt];
    if (!(fewer > alone)) return [more, ofMore];
    const variance = more + fewer - alone;
    const spread = more ** 2 / Math.max(ofMore, 1) + fewer ** 2 / Math.max(ofFewer, 1) + alone ** 2 / Math.max(ofAlone, 1);
    return [variance, Math.max(variance ** 2 / spread, ofFewer)];
  }

  // The expected half-width for a measure of the data: sharpness.project.
  function halfWidth(measure, { prompts, samples, seeds }, quantiles) {
    let [prompt, seed, residual] = measure.stays.map((part, i) => part + measure.falls[i] / samples);
    if (seeds === 1) [prompt, seed, residual] = [prompt + residual, 0, 0];
    const alone = residual / (prompts * seeds);
    const means = [prompt / prompts + alone, seed / seeds + alone, alone];
    const free = [prompts - 1, seeds - 1, (prompts - 1) * (seeds - 1)];
    const drawn = free.map((of, i) => quantiles.chi2.map((row) => means[i] * series(row, 2 / Math.sqrt(Math.max(of, 1)) - 1) ** 3));
    let half = 0;
    drawn[0].forEach((byPrompt, a) => drawn[1].forEach((bySeed, b) => drawn[2].forEach((byBoth, c) => {
      const [variance, freedom] = totalVariance([byPrompt, bySeed, byBoth], free);
      const t = Math.exp(series(quantiles.t, 2 / freedom - 1));
      half += t * Math.sqrt(variance) * quantiles.shares[a] * quantiles.shares[b] * quantiles.shares[c];
    })));
    return half;
  }

  const minutes = ({ training, sampling }, { prompts, samples, seeds }) => (seeds * (training + prompts * samples * sampling)) / 60;

  // --- words and numbers ---

  const digits = (value) => value.toPrecision(2).replace(/\.?0+$/, (end) => (end.startsWith(".") ? "" : end));
  const written = (value) => (value >= 0.0995 ? value.toFixed(2) : value.toFixed(4));
  const time = (value) => (value < 1 ? "less than a minute" : value < 120 ? plural(Math.round(value), "minute") : `${(value / 60).toFixed(1)} hours`);

  // Whole numbers from least to most, about evenly spaced by ratio.
  function spaced(least, most, points) {
    const all = Array.from({ length: points }, (_, i) => Math.round(least * (most / least) ** (i / (points - 1))));
    return [...new Set(all)];
  }

  // Round numbers for an axis of logarithms: 1, 2 and 5 times powers of ten.
  function ticks(low, high) {
    const found = [];
    for (let ten = Math.floor(Math.log10(low)); ten <= Math.ceil(Math.log10(high)); ten++) {
      for (const digit of [1, 2, 5]) found.push(Number(`${digit}e${ten}`));
    }
    return found.filter((value) => value >= low && value <= high);
  }

  function draw(root, data) {
    root.classList.add("ddpo-tool", "ddpo-power");
    const cache = new Map();
    const state = { ...data.here, measure: 0, sizes: data.measures.map((measure) => measure.sizes[0].size) };
    let telling;

    function half(measure, choice) {
      const key = [measure.name, ...Object.keys(NUMBERS).map((name) => choice[name])].join();
      if (!cache.has(key)) cache.set(key, halfWidth(measure, choice, data.quantiles));
      return cache.get(key);
    }
    const chosen = () => Object.fromEntries(Object.keys(NUMBERS).map((name) => [name, state[name]]));
    const point = (measure, choice) => [minutes(data.cost, choice), half(measure, choice)];

    // --- the picture ---

    function lines(measure) {
      return Object.keys(NUMBERS).map((name) => ({
        name, points: spaced(Math.min(FROM[name], state[name]), data.most[name], POINTS).map((value) => point(measure, { ...chosen(), [name]: value })),
      }));
    }

    function picture() {
      const measure = data.measures[state.measure], size = state.sizes[state.measure];
      const drawn = lines(measure), now = point(measure, chosen()), run = [minutes(data.cost, data.here), measure.measured];
      const all = [...drawn.flatMap((line) => line.points), now, run];
      const xs = all.map(([x]) => x), ys = [...all.map(([, y]) => y), ...(size > 0 ? [size] : [])].filter((y) => y > 0);
      const [left, right, low, high] = [Math.min(...xs), Math.max(...xs), Math.min(...ys) / 1.2, Math.min(Math.max(...ys), 100 * Math.min(...ys)) * 1.2];
      const along = (value, from, to) => Math.log(value / from) / Math.log(to / from);
      const x = (value) => LEFT + along(value, left, right * 1.0001) * (WIDTH - LEFT - RIGHT);
      const y = (value) => HEIGHT - BOTTOM - along(Math.min(value, high), low, high) * (HEIGHT - TOP - BOTTOM);
      const text = (attributes, words) => svg("text", attributes, words);
      const grid = [
        ...ticks(left, right).map((value) => text({ x: x(value), y: HEIGHT - BOTTOM + 18, "text-anchor": "middle" }, String(value))),
        ...ticks(low, high).flatMap((value) => [
          svg("path", { class: "ddpo-power-grid", d: `M${LEFT} ${y(value)}H${WIDTH - RIGHT}` }),
          text({ x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, String(value)),
        ]),
        text({ x: (LEFT + WIDTH - RIGHT) / 2, y: HEIGHT - 6, "text-anchor": "middle" }, "minutes of computing"),
        text({ x: 4, y: 16 }, "half-width"),
      ];
      const goal = size > 0 ? [
        svg("path", { class: "ddpo-power-goal", d: `M${LEFT} ${y(size)}H${WIDTH - RIGHT}` }),
        text({ x: WIDTH - RIGHT + 6, y: y(size) + 4 }, `size ${digits(size)}`),
      ] : [];
      const ends = spread(drawn.map((line) => y(line.points[line.points.length - 1][1])), size > 0 ? y(size) : null);
      const curves = drawn.flatMap((line, i) => [
        svg("polyline", { class: `ddpo-power-line ddpo-power-${line.name}`, points: line.points.map(([a, b]) => `${x(a)},${y(b)}`).join(" ") }),
        text({ x: WIDTH - RIGHT + 6, y: ends[i] + 4 }, `more ${line.name}`),
        svg("path", { class: `ddpo-power-line ddpo-power-lead ddpo-power-${line.name}`, d: `M${x(line.points[line.points.length - 1][0])} ${y(line.points[line.points.length - 1][1])}L${WIDTH - RIGHT + 3} ${ends[i]}` }),
      ]);
      const marks = [
        svg("circle", { class: "ddpo-power-now", cx: x(now[0]), cy: y(now[1]), r: 7 }),
        svg("circle", { class: "ddpo-power-run", cx: x(run[0]), cy: y(run[1]), r: 4 }),
      ];
      return svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `Half-width for ${measure.name} against minutes of computing. Your choice: ${written(now[1])}, ${time(now[0])}.` },
        ...grid, ...goal, ...curves, ...marks);
    }

    // Heights of labels, moved apart so that none covers another.
    function spread(heights, taken) {
      const order = [...heights.keys()].sort((a, b) => heights[a] - heights[b]);
      const placed = [...heights];
      let last = -Infinity;
      for (const i of order) {
        placed[i] = Math.max(placed[i], last + 15);
        if (taken !== null && Math.abs(placed[i] - taken) < 15) placed[i] = Math.max(taken + 15, last + 15);
        last = placed[i];
      }
      return placed;
    }

    // --- the answer ---

    const decides = (i) => half(data.measures[i], chosen()) < state.sizes[i];
    const list = (words) => words.join(", ") || "nothing";

    function answer() {
      const { prompts, samples, seeds } = state;
      const halves = data.measures.map((measure) => `${measure.name} ${written(half(measure, chosen()))}`);
      return `${plural(prompts, "prompt")}, ${plural(samples, "sample")} each, ${plural(seeds, "seed")}: ${time(minutes(data.cost, chosen()))}. `
        + `Half-widths: ${list(halves)}. Decidable: ${list(data.measures.map(({ name }) => name).filter((_, i) => decides(i)))}.`
        + (seeds === 1 ? " One seed cannot show how much seeds differ, so these half-widths leave that out." : "");
    }

    // --- controls ---

    function number(name) {
      const { least: { [name]: min }, most: { [name]: max } } = data;
      const take = (field) => {
        const value = Math.round(Number(field.value));
        if (field.value === "" || !(value >= min && value <= max)) return field.setAttribute("aria-invalid", "true");
        field.removeAttribute("aria-invalid");
        return change({ [name]: value });
      };
      const field = make("input", { type: "number", min, max, step: 1, input: () => take(field), change: () => { update(); field.removeAttribute("aria-invalid"); } });
      const slider = make("input", { type: "range", min, max, step: 1, "aria-label": `${NUMBERS[name]}, slider`, input: () => take(slider) });
      const show = (value) => {
        if (document.activeElement !== field || Number(field.value) !== value) field.value = value;
        slider.value = value;
      };
      return { element: make("div", {}, make("label", {}, `${NUMBERS[name]} (${min} to ${max})`, field), slider), show: () => show(state[name]) };
    }

    function sizeField(measure, i) {
      const field = make("input", {
        type: "number", min: 0, step: "any", "aria-label": `Size of the effect on ${measure.name}`,
        input: () => { if (Number(field.value) > 0) change({ sizes: state.sizes.map((size, at) => (at === i ? Number(field.value) : size)) }); },
      });
      const set = (size) => { field.value = digits(size); };
      set(state.sizes[i]);
      const choices = measure.sizes.map(({ what, size }) => make("button", {
        type: "button", "aria-label": `${measure.name}: ${what}, ${digits(size)}`,
        click: () => { set(size); change({ sizes: state.sizes.map((old, at) => (at === i ? size : old)) }); },
      }, `${what}: ${digits(size)}`));
      return { field, choices };
    }

    function change(values) {
      Object.assign(state, values);
      update();
    }

    const numbers = Object.keys(NUMBERS).map(number);
    const fields = data.measures.map(sizeField);
    const told = make("p", { class: "ddpo-power-told", role: "status" });
    const board = make("div", {});
    const measure = make("select", { change: () => change({ measure: measure.selectedIndex }) }, ...data.measures.map(({ name }) => make("option", {}, name)));
    measure.selectedIndex = state.measure;
    const halves = data.measures.map(() => make("td", {})), answers = data.measures.map(() => make("td", {}));
    const heads = ["measure", "expected", "in this run", "to detect", "decidable"].map((head) => make("th", { scope: "col" }, head));
    const table = make("table", {}, make("caption", {}, `Half-width of the ${Math.round(100 * data.confidence)}% interval of ${data.arms}`),
      make("thead", {}, make("tr", {}, ...heads)),
      make("tbody", {}, ...data.measures.map(({ name }, i) => make("tr", {}, make("th", { scope: "row" }, name), halves[i], make("td", {}, written(data.measures[i].measured)), make("td", {}, fields[i].field), answers[i]))));
    root.replaceChildren(
      make("div", { class: "ddpo-power-controls" }, ...numbers.map((one) => one.element)),
      make("div", { class: "ddpo-power-body" },
        make("div", {}, told, make("div", { class: "ddpo-power-scroll", tabindex: "0", role: "region", "aria-label": "Half-widths" }, table),
          ...data.measures.map(({ name }, i) => make("div", { class: "ddpo-power-sizes", role: "group", "aria-label": `Sizes for ${name}` },
            make("span", {}, `${name}:`), ...fields[i].choices)),
          make("p", { class: "ddpo-power-note" }, data.note)),
        make("div", {}, make("label", { class: "ddpo-power-choice" }, "Picture for ", measure), board,
          make("p", { class: "ddpo-power-note" }, "Filled: your choice. Open: the interval of this run, which may be narrower or wider than expected, most with few seeds. Each line changes one number and keeps the other two. Lower is more precise."))),
      make("div", { class: "ddpo-power-buttons" }, make("button", { type: "button", click: () => change({ ...data.here }) }, "Back to this run")));

    function update() {
      for (const one of numbers) one.show();
      data.measures.forEach((one, i) => {
        const value = half(one, chosen());
        halves[i].textContent = written(value);
        halves[i].dataset.half = value; // all digits
        answers[i].textContent = decides(i) ? "yes" : "no";
      });
      board.replaceChildren(picture());
      clearTimeout(telling);
      telling = setTimeout(() => { told.textContent = answer(); }, QUIET);
    }
    update();
  }

  add("power", draw);
  return { halfWidth };
})();
