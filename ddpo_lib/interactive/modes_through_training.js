// The shares of modes while arms train: a slider over the measurements of a training, bars beside each other.
// modes_through_training.py computes every number; this file chooses which are shown.
window.ddpoParts.add("modes_through_training", (root, data) => {
  const { make, sign } = window.ddpoParts;
  const PAUSE = 1200; // milliseconds between two measurements
  const last = data.arms[0].views[0].length - 1;
  const state = { kind: 0, view: 0, stop: 0, shown: data.arms.map((_, i) => i < 2) };
  let timer = null;
  root.classList.add("ddpo-own", "ddpo-modes");

  const percent = (share) => (share === null ? "—" : `${(100 * share).toFixed(1)}%`);
  const arms = () => data.arms.filter((_, i) => state.shown[i]);
  const now = (arm) => arm.views[state.view][state.stop];

  // The share at which bars end: the same for all arms, seeds and measurements, so that their lengths compare.
  function fullest(kind) {
    const shares = data.arms.flatMap((arm) => arm.views.flat().flatMap((stop) => stop[kind.name].shares));
    return Math.min(1, Math.ceil(10 * Math.max(...shares)) / 10);
  }

  // --- controls ---

  const pick = (what) => (event) => { state[what] = Number(event.target.value); draw(); };
  const menu = (names, what) => make("select", { change: pick(what) }, ...names.map((name, i) => make("option", { value: i }, name)));
  const boxes = data.arms.map((arm, i) => {
    const box = make("input", { type: "checkbox", change: () => { state.shown[i] = box.checked; draw(); } });
    box.checked = state.shown[i];
    return make("label", {}, box, sign(arm), arm.name);
  });
  const slider = make("input", { type: "range", min: 0, max: last, step: 1, input: () => { pause(); go(Number(slider.value)); } });
  const play = make("button", { type: "button", click: () => (timer === null ? start() : (pause(), draw())) });
  const place = make("span", { class: "ddpo-place" });
  const told = make("p", { class: "ddpo-told", role: "status" });
  const panels = make("div", { class: "ddpo-panels" });
  const note = make("p", { class: "ddpo-note" });
  root.replaceChildren(
    make("div", { class: "ddpo-controls" },
      make("label", {}, "Modes", menu(data.kinds.map((kind) => kind.name), "kind")),
      make("label", {}, "Seeds", menu(data.views.map((view) => view.name), "view")),
      make("fieldset", {}, make("legend", {}, "Arms"), ...boxes)),
    make("div", { class: "ddpo-time" }, play, make("label", {}, make("span", {}, "Training"), slider), place),
    told, panels, note);

  // --- playing ---

  function go(to) {
    state.stop = to;
    if (to === last) pause();
    draw();
  }

  function start() {
    timer = setInterval(() => go(state.stop + 1), PAUSE);
    go(state.stop === last ? 0 : state.stop + 1);
  }

  function pause() {
    clearInterval(timer);
    timer = null;
  }

  // --- drawing ---

  function bar(kind, arm, i, full) {
    const before = arm.views[state.view][0][kind.name].shares[i];
    const rare = i >= kind.modes.length - kind.rare;
    const track = make("span", { class: "ddpo-track", "aria-hidden": "true" },
      make("span", { class: "ddpo-bar" }), make("span", { class: "ddpo-before" }));
    const value = make("span", { class: "ddpo-value" });
    const row = make("li", rare ? { class: "ddpo-rare" } : {},
      make("span", { class: "ddpo-mode" }, kind.modes[i], ...(rare ? [" ", make("small", {}, "rare")] : [])), track, value);
    const update = () => {
      const share = now(arm)[kind.name].shares[i];
      value.textContent = percent(share);
      track.style.setProperty("--share", `${(100 * (share ?? 0)) / full}%`);
      track.style.setProperty("--before", `${(100 * (before ?? 0)) / full}%`);
    };
    return { row, update };
  }

  function panel(arm, kind) {
    const full = fullest(kind);
    const bars = kind.modes.map((_, i) => bar(kind, arm, i, full));
    const bits = make("strong"), rare = make("strong");
    const element = make("div", { class: "ddpo-panel", role: "group", style: `--arm: ${arm.colour}`, "aria-label": arm.name },
      make("p", { class: "ddpo-head" }, sign(arm), arm.name),
      make("p", {}, `Entropy over ${kind.name}: `, bits, " bits"),
      make("p", {}, `Rare ${kind.name}: `, rare),
      make("ol", {}, ...bars.map(({ row }) => row)));
    const update = () => {
      bits.textContent = now(arm)[kind.name].entropy;
      rare.textContent = now(arm)[kind.name].rare;
      bars.forEach((one) => one.update());
    };
    return { element, update };
  }

  let drawn = "", updates = [];
  function draw() {
    const kind = data.kinds[state.kind];
    const key = `${state.kind} ${state.view} ${state.shown}`;
    if (key !== drawn) { // else the same bars grow and shrink
      const made = arms().map((arm) => panel(arm, kind));
      panels.replaceChildren(...made.map(({ element }) => element));
      updates = made.map(({ update }) => update);
      drawn = key;
    }
    updates.forEach((update) => update());
    const view = data.views[state.view];
    place.textContent = state.stop === 0 ? "before preference training" : `after ${view.trained[state.stop]} of the training`;
    slider.value = state.stop;
    slider.setAttribute("aria-valuetext", place.textContent);
    play.textContent = timer === null ? "Play" : "Pause";
    told.setAttribute("aria-live", timer === null ? "polite" : "off"); // while it plays, a voice could not keep up
    told.textContent = arms().length
      ? `${place.textContent[0].toUpperCase()}${place.textContent.slice(1)}, ${view.name}: `
        + `${arms().map((arm) => `${arm.name} ${now(arm)[kind.name].entropy}`).join("; ")} bits over ${kind.name}.`
      : "No arm is chosen.";
    note.textContent = `A full bar would be ${Math.round(100 * fullest(kind))}%. The line across a bar is the share before preference training. `
      + `Striped bars are rare ${kind.name}. Equally common ${kind.name} would have ${kind.most.toFixed(2)} bits.`;
  }
  draw();
});
