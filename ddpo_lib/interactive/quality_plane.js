// Quality against diversity, a curve per arm and a mark per temperature; quality_plane.py computes every number.
window.ddpoParts.add("quality_plane", (root, data) => {
  const { make, svg, sign } = window.ddpoParts;
  const EDGE = { left: 54, right: 14, top: 12, bottom: 46 }; // pixels around the plane
  const LEAST = 12; // pixels from a mark within which a finger or a pointer finds it
  const state = { measure: 0, shown: data.arms.map(() => true), intervals: false, at: null, places: [] };
  root.classList.add("ddpo-own", "ddpo-plane");

  const points = () => data.measures[state.measure].curves.flatMap((curve, arm) =>
    (state.shown[arm] ? curve.map((point, i) => ({ ...point, arm, i })) : []));
  const isAt = (point) => state.at !== null && state.at.arm === point.arm && state.at.i === point.i;

  // --- controls ---

  const box = (checked, change, ...label) => {
    const input = make("input", { type: "checkbox", change: () => { change(input.checked); draw(); } });
    input.checked = checked;
    return make("label", {}, input, ...label);
  };
  const measure = make("select", { change: () => { state.measure = measure.selectedIndex; draw(); } },
    ...data.measures.map((each) => make("option", {}, each.name)));
  const arms = data.arms.map((arm, i) => box(true, (checked) => { state.shown[i] = checked; }, sign(arm), arm.name));
  const plane = make("div", { class: "ddpo-plot" });
  const told = make("p", { class: "ddpo-told", role: "status" });
  root.replaceChildren(
    make("div", { class: "ddpo-controls" },
      make("label", {}, "Diversity", measure),
      make("fieldset", {}, make("legend", {}, "Arms"), ...arms),
      box(false, (checked) => { state.intervals = checked; }, `${data.confidence} intervals`)),
    plane, told,
    make("p", { class: "ddpo-note" }, "Point at a mark, tap it, or move from mark to mark with the arrow keys to read its numbers. A larger mark means a higher temperature."));

  // --- drawing ---

  // Round numbers between two ends, about `most` of them.
  function ticks(low, high, most) {
    const rough = (high - low) / most, power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((factor) => factor * power).find((each) => each >= rough);
    const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
    const first = Math.ceil(low / step);
    return Array.from({ length: Math.floor(high / step) - first + 1 }, (_, i) => ((first + i) * step).toFixed(digits));
  }

  // The ends of an axis: those of all arms, so that turning one off moves nothing.
  function limits(axis) {
    const values = data.measures[state.measure].curves.flat().flatMap((point) =>
      [point[axis], ...(state.intervals ? point.ends[axis] : [])]).filter((value) => value !== null);
    const low = Math.min(...values), high = Math.max(...values);
    const room = 0.08 * (high - low) || 0.05;
    return [low - room, high + room];
  }

  function scale([low, high], from, to) {
    return (value) => from + ((value - low) / (high - low)) * (to - from);
  }

  function axes(width, height, x, y, across, up) {
    const bottom = height - EDGE.bottom;
    const word = (text, attributes) => svg("text", attributes, text);
    return svg("g", { class: "ddpo-axes", "aria-hidden": "true" },
      svg("path", { d: `M${EDGE.left} ${EDGE.top}V${bottom}H${width - EDGE.right}` }),
      ...ticks(...across, Math.max(4, width / 90)).map((text) => svg("g", { transform: `translate(${x(Number(text))} ${bottom})` },
        svg("path", { d: "M0 0V5" }), word(text, { y: 18, "text-anchor": "middle" }))),
      ...ticks(...up, height / 60).map((text) => svg("g", { transform: `translate(${EDGE.left} ${y(Number(text))})` },
        svg("path", { d: "M0 0H-5" }), word(text, { x: -9, dy: "0.32em", "text-anchor": "end" }))),
      word(`${data.measures[state.measure].name}  (more diverse →)`, { x: (EDGE.left + width - EDGE.right) / 2, y: height - 6, "text-anchor": "middle" }),
      word(`${data.quality}  (better →)`, { transform: `translate(13 ${(EDGE.top + bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }));
  }

  function cross(point, x, y) {
    const [[left, right], [low, high]] = [point.ends.diversity, point.ends.quality];
    if (left === null || low === null) return [];
    return [svg("path", { class: "ddpo-ends", d: `M${x(left)} ${y(point.quality)}H${x(right)}M${x(point.diversity)} ${y(low)}V${y(high)}` })];
  }

  const diameter = (point) => Math.sqrt(25 + 45 * point.temperature ** 2) * 1.25; // pixels

  function mark(point, x, y, reached) {
    const size = diameter(point);
    return svg("g", {
      class: "ddpo-mark", role: "img", tabindex: reached ? 0 : -1, "data-arm": point.arm, "data-i": point.i,
      "aria-label": `${data.arms[point.arm].name}, temperature ${point.temperature}`, style: `--arm: ${data.arms[point.arm].colour}`,
      transform: `translate(${x(point.diversity)} ${y(point.quality)})`,
      focus: () => tell(point),
    },
    ...(isAt(point) ? [svg("circle", { class: "ddpo-here", r: size / 2 + 6 })] : []),
    svg("path", { d: data.arms[point.arm].mark, transform: `scale(${size})` }));
  }

  function tell(point) {
    if (isAt(point)) return;
    state.at = { arm: point.arm, i: point.i };
    draw();
  }

  // The mark nearest to a pointer, among those within reach; of two as near, the one on top.
  function nearest(event) {
    const { left, top } = plane.getBoundingClientRect();
    const near = state.places.map((place) => ({ ...place, far: Math.hypot(event.clientX - left - place.x, event.clientY - top - place.y) }))
      .filter(({ far, reach }) => far <= reach).reverse().sort((one, other) => one.far - other.far);
    return near[0]?.point;
  }
  plane.addEventListener("pointermove", (event) => {
    const point = nearest(event);
    plane.style.cursor = point ? "pointer" : "";
    if (point) tell(point);
  });
  plane.addEventListener("click", (event) => {
    const point = nearest(event);
    if (!point) return;
    tell(point);
    plane.querySelector(".ddpo-mark[tabindex='0']").focus();
  });

  // Arrow keys: left and right along a curve, up and down to the next arm's.
  function move(event) {
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    const from = event.target.closest(".ddpo-mark");
    if (!step || !from) return;
    event.preventDefault();
    const shown = data.arms.map((_, i) => i).filter((i) => state.shown[i]);
    const arm = shown[(shown.indexOf(Number(from.dataset.arm)) + step[0] + shown.length) % shown.length];
    const most = data.measures[state.measure].curves[arm].length - 1;
    tell({ arm, i: Math.min(most, Math.max(0, Number(from.dataset.i) + step[1])) });
    plane.querySelector(".ddpo-mark[tabindex='0']").focus();
  }
  plane.addEventListener("keydown", move);

  // Marks that the one read out may cover: a pointer cannot tell them apart, the keys can.
  const hidden = (under) => (under.length
    ? ` At the same place: ${under.map((point) => `${data.arms[point.arm].name} at temperature ${point.temperature}`).join(", ")}.` : "");

  function draw() {
    const width = plane.clientWidth, height = Math.round(Math.min(420, Math.max(300, 0.62 * width)));
    if (!width) return;
    const across = limits("diversity"), up = limits("quality");
    const x = scale(across, EDGE.left, width - EDGE.right), y = scale(up, height - EDGE.bottom, EDGE.top);
    const shown = points();
    if (!shown.some(isAt)) state.at = null;
    const reached = shown.find(isAt) ?? shown[0];
    state.places = shown.map((point) => ({ point, x: x(point.diversity), y: y(point.quality), reach: Math.max(LEAST, diameter(point) / 2 + 3) }));
    const curves = data.measures[state.measure].curves.map((curve, arm) => ({ curve, arm })).filter(({ arm }) => state.shown[arm]);
    const had = plane.contains(document.activeElement);
    plane.replaceChildren(svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "group", "aria-label": `${data.quality} against ${data.measures[state.measure].name}` },
      axes(width, height, x, y, across, up),
      ...curves.map(({ curve, arm }) => svg("g", { class: "ddpo-curve", "aria-hidden": "true", style: `--arm: ${data.arms[arm].colour}` },
        svg("polyline", { points: curve.map((point) => `${x(point.diversity)},${y(point.quality)}`).join(" ") }),
        ...(state.intervals ? curve.flatMap((point) => cross(point, x, y)) : []))),
      ...shown.map((point) => mark(point, x, y, point === reached))));
    if (had) plane.querySelector(".ddpo-mark[tabindex='0']")?.focus();
    const under = shown.filter((point) => point !== reached && Math.hypot(x(point.diversity) - x(reached.diversity), y(point.quality) - y(reached.quality)) < LEAST);
    told.textContent = state.at ? `${data.arms[reached.arm].name} at ${reached.words}${hidden(under)}` : shown.length ? "No mark is chosen." : "No arm is chosen.";
  }

  new ResizeObserver(draw).observe(plane);
});
