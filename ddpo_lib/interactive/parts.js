// What the parts of a page share: elements, numbers in words, files to save, and the opening of a part.
// Whatever somebody wrote reaches the page through textContent alone.
window.ddpoParts ??= (() => {
  const SVG = "http://www.w3.org/2000/svg";
  const drawings = {}; // name of a part -> function (root, data)
  const unpacking = []; // promises of scripts that came compressed

  // An element of HTML; attributes that are functions become listeners.
  const make = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
  // The same for an element of SVG.
  const svg = (tag, attributes = {}, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

  function fill(element, attributes, children) {
    for (const [name, value] of Object.entries(attributes)) {
      if (typeof value === "function") element.addEventListener(name, value);
      else element.setAttribute(name, value);
    }
    element.append(...children);
    return element;
  }

  const count = (number) => number.toLocaleString("en");
  const short = (number) => String(Number(number.toPrecision(4)));
  const plural = (number, noun) => `${count(number)} ${noun}${number === 1 ? "" : "s"}`;

  // The mark of an arm, as `parts.arm_look` describes it; its name stands beside it.
  const sign = (arm) => svg("svg", { class: "ddpo-sign", viewBox: "-0.75 -0.75 1.5 1.5", "aria-hidden": "true", style: `--arm: ${arm.colour}` },
    svg("path", { d: arm.mark }));

  async function inflate(bytes) {
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).text();
  }

  function download(name, parts, type = "application/x-ndjson") {
    const link = make("a", { href: URL.createObjectURL(new Blob(parts, { type })), download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  }

  const add = (name, draw) => { drawings[name] = draw; };
  const bytesOf = (coded) => Uint8Array.from(atob(coded), (character) => character.charCodeAt(0));

  // A large script comes compressed, as a call of this. Parts are drawn when all that came so have run.
  function unpack(coded) {
    unpacking.push(inflate(bytesOf(coded)).then((code) => {
      const script = make("script", {}, code);
      document.head.append(script);
      script.remove();
    }));
  }

  // Draws a part where its figure stands; the still form is then for print alone. It stays if the drawing fails.
  async function open(figure) {
    const root = figure.querySelector(".ddpo-part");
    try {
      const coded = figure.querySelector('script[type="application/gzip;base64"]').textContent;
      const data = JSON.parse(await inflate(bytesOf(coded)));
      await Promise.all(unpacking);
      drawings[figure.dataset.part](root, data);
      figure.classList.add("ddpo-open");
    } catch (error) {
      root.textContent = `This part could not be drawn: ${error.message}`;
      throw error;
    }
  }

  return { make, svg, sign, count, short, plural, inflate, download, add, unpack, open };
})();
