// The samples of two or three arms for one prompt, side by side. story_reader.py packs texts and measures.
window.ddpoParts.add("story_reader", (root, data) => {
  const { make, sign, count, plural } = window.ddpoParts;
  const MARKS = ["words that no other arm shown uses in any sample for this prompt", "words that no other story shown uses", "nothing"];
  const segmenter = new Intl.Segmenter(undefined, { granularity: "word" });
  const [first, second, third = null] = data.chosen;
  const state = { prompt: 0, arms: [first, second, third], sample: 0, measure: 0, marks: 0, found: false };
  root.classList.add("ddpo-own", "ddpo-reader");

  const arms = () => [...new Set(state.arms.filter((arm) => arm !== null))];
  const shared = () => [...data.prompts.keys()].filter((prompt) => arms().every((arm) => data.stories[arm][prompt].length));
  const most = () => Math.max(...arms().map((arm) => data.stories[arm][state.prompt].length));
  const line = (text) => text.replace(/\s+/gu, " ").trim();

  function opening(text, most) {
    const start = Array.from(line(text.slice(0, 4 * most))); // whole characters, not halves of pairs
    return start.length > most ? `${start.slice(0, most).join("").trim()}…` : start.join("");
  }

  // --- words ---

  const pieces = (text) => [...segmenter.segment(text)];
  const norm = (piece) => piece.segment.toLowerCase().replaceAll("’", "'");
  const words = (text) => pieces(text).filter((piece) => piece.isWordLike).map(norm);

  // The words from which those of an arm's story are told apart.
  function others(arm) {
    const stories = arms().filter((other) => other !== arm).flatMap((other) => {
      const all = data.stories[other][state.prompt];
      return state.marks === 0 ? all : [all[state.sample]];
    });
    return new Set(stories.flatMap((story) => (story ? words(story[0]) : [])));
  }

  // Paragraphs of a text, with a mark around each word that `known` lacks; adds such words to `only`.
  function paragraphs(text, known, only) {
    return text.split(/\r\n|\r|\n/).filter((part) => part.trim()).map((part) => {
      const paragraph = make("p", { dir: "auto" });
      let plain = "";
      for (const piece of pieces(part)) {
        const word = piece.isWordLike && known ? norm(piece) : null;
        if (word === null || known.has(word)) {
          plain += piece.segment;
        } else {
          only.add(word);
          paragraph.append(plain, make("mark", {}, piece.segment));
          plain = "";
        }
      }
      paragraph.append(plain);
      return paragraph;
    });
  }

  function story(arm) {
    const look = data.arms[arm], told = data.stories[arm][state.prompt][state.sample];
    const head = make("p", { class: "ddpo-head" }, sign(look), look.name);
    const card = make("article", { class: "ddpo-panel", style: `--arm: ${look.colour}`, "aria-label": look.name }, head);
    if (!told) {
      card.append(make("p", { class: "ddpo-note" }, "This arm has no such sample."));
      return card;
    }
    const [text, ended, cut] = told;
    const only = new Set();
    const body = paragraphs(text, state.marks === 2 ? null : others(arm), only);
    const facts = [plural(words(text).length, "word"), ...(ended ? [ended] : [])].join(" · ");
    card.append(make("p", { class: "ddpo-note" }, facts),
      make("div", { class: "ddpo-text" }, ...(body.length ? body : [make("p", {}, "(nothing)")])));
    if (cut) card.append(make("p", { class: "ddpo-note" }, `The first ${count(data.longest)} characters.`));
    if (only.size) {
      card.append(make("details", {}, make("summary", {}, `${plural(only.size, "word")} that only ${look.name} uses`),
        make("p", { dir: "auto" }, [...only].join(", "))));
    }
    return card;
  }

  // --- where arms differ most ---

  // The largest difference between the arms shown, by prompt; null where an arm was not measured.
  function apart(prompt) {
    const values = arms().map((arm) => data.measured[arm][state.measure][prompt]);
    return values.includes(null) ? null : Math.max(...values) - Math.min(...values);
  }

  function differMost() {
    const known = shared().filter((prompt) => apart(prompt) !== null);
    if (!known.length) return;
    go(known.reduce((best, prompt) => (apart(prompt) > apart(best) ? prompt : best)), true);
  }

  // --- controls ---

  function go(prompt, found = false) {
    Object.assign(state, { prompt, found });
    draw();
  }

  const prompt = make("select", { change: () => go(Number(prompt.value)) });
  const sample = make("select", { change: () => { state.sample = sample.selectedIndex; draw(); } });
  const option = (name, value) => make("option", { value }, name);
  const pickers = ["First arm", "Second arm", "Third arm"].map((label, place) => {
    const select = make("select", { change: () => { state.arms[place] = select.value === "" ? null : Number(select.value); go(state.prompt); } },
      ...(place === 2 ? [option("none", "")] : []), ...data.arms.map((arm, i) => option(arm.name, i)));
    select.value = state.arms[place] ?? "";
    return make("label", {}, label, select);
  });
  const measure = make("select", { change: () => { state.measure = measure.selectedIndex; go(state.prompt); } },
    ...data.measures.map(([name]) => make("option", {}, name)));
  const marks = make("select", { change: () => { state.marks = marks.selectedIndex; draw(); } }, ...MARKS.map((name) => make("option", {}, name)));
  const next = make("button", { type: "button", click: () => { state.sample = (state.sample + 1) % most(); draw(); } }, "Same prompt, next sample");
  const find = make("button", { type: "button", click: differMost }, "Show me where they differ most");
  const quoted = make("blockquote", { dir: "auto" });
  const told = make("p", { class: "ddpo-told", role: "status" });
  const cards = make("div", { class: "ddpo-panels" });
  const whole = make("a", { href: data.more, download: "" }, "the samples of all arms, seeds and prompts");
  root.replaceChildren(
    make("div", { class: "ddpo-controls" }, make("label", { class: "ddpo-wide" }, "Prompt", prompt), ...pickers, make("label", {}, "Sample", sample)),
    make("div", { class: "ddpo-controls" }, next, find, make("label", {}, "They differ in", measure), make("label", { class: "ddpo-wide" }, "Underlined", marks)),
    told, quoted, cards,
    make("p", { class: "ddpo-note" }, "These are samples of the first seed",
      data.prompts.length < data.of ? `, for the first ${count(data.prompts.length)} of ${plural(data.of, "prompt")}` : "", ". Download ", whole, "."));

  // --- drawing ---

  function tell() {
    if (state.arms[0] === state.arms[1] || arms().length < state.arms.filter((arm) => arm !== null).length) return "Choose different arms to compare them.";
    const here = `Prompt ${count(state.prompt + 1)} of ${count(data.prompts.length)}, sample ${state.sample + 1} of ${most()}.`;
    if (!state.found) return here;
    const values = arms().map((arm) => `${data.arms[arm].name} ${data.measured[arm][state.measure][state.prompt].toFixed(3)}`);
    return `${here} Among the ${plural(shared().length, "prompt")} of these arms, this is the one where they differ most in ${data.measures[state.measure][1]}: `
      + `${values.join(", ")}. It was picked for its difference, so it is not typical.`;
  }

  function draw() {
    const prompts = shared();
    find.disabled = next.disabled = !prompts.length;
    if (!prompts.length) {
      prompt.replaceChildren();
      cards.replaceChildren();
      quoted.textContent = "";
      told.textContent = "These arms have no prompt in common.";
      return;
    }
    if (!prompts.includes(state.prompt)) state.prompt = prompts[0];
    state.sample = Math.min(state.sample, most() - 1);
    prompt.replaceChildren(...prompts.map((i) => option(`${i + 1}. ${opening(data.prompts[i], 90)}`, i)));
    prompt.value = state.prompt;
    sample.replaceChildren(...Array.from({ length: most() }, (_, i) => option(`${i + 1} of ${most()}`, i)));
    sample.selectedIndex = state.sample;
    quoted.textContent = data.prompts[state.prompt];
    cards.replaceChildren(...arms().map(story));
    told.textContent = tell();
  }
  draw();
});
