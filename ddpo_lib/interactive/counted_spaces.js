// Short texts -> unit vectors of the lexical and the stylometric space: the counts of ddpo_lib/spaces/counted.py.
// The data bring what counted.py takes from the package's corpus, its lists of words and its constants.
window.ddpoCounted ??= (() => {
  const SPACE = "\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000"; // as Python's \s
  const LETTER = "[\\p{L}\\p{Nl}\\p{No}]"; // as Python's [^\W\d_]
  const TOKEN = new RegExp(`${LETTER}+(?:'${LETTER}+)*|\\p{Nd}+|[${SPACE}]+|[^\\p{L}\\p{N}_${SPACE}]|_`, "gu");
  const BLANK = new RegExp(`^[${SPACE}]*$`, "u");
  const encoder = new TextEncoder();

  const isBlank = (text) => BLANK.test(text);
  const isUpper = (token) => /\p{Uppercase}/u.test(token) && !/[\p{Lowercase}\p{Lt}]/u.test(token);
  const tokens = (text) => text.replace(/[’‘]/gu, "'").replace(/[“”]/gu, '"').match(TOKEN) ?? [];
  const words = (text) => tokens(text).filter((token) => !isBlank(token)).map((token) => token.toLowerCase());

  // MurmurHash3 (32 bits, seed 0), by which scikit-learn's HashingVectorizer numbers its columns.
  function hash(text) {
    const bytes = encoder.encode(text), whole = bytes.length & ~3;
    const mixed = (k) => {
      const turned = Math.imul(k, 0xcc9e2d51);
      return Math.imul((turned << 15) | (turned >>> 17), 0x1b873593);
    };
    let h = 0;
    for (let i = 0; i < whole; i += 4) {
      h ^= mixed(bytes[i] | (bytes[i + 1] << 8) | (bytes[i + 2] << 16) | (bytes[i + 3] << 24));
      h = (Math.imul((h << 13) | (h >>> 19), 5) + 0xe6546b64) | 0;
    }
    let rest = 0;
    for (let i = bytes.length - 1; i >= whole; i--) rest = (rest << 8) | bytes[i];
    if (bytes.length > whole) h ^= mixed(rest);
    h ^= bytes.length;
    h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
    h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
    return h ^ (h >>> 16);
  }

  function counts(features, size) {
    const counted = new Float64Array(size);
    for (const feature of features) counted[Math.abs(hash(feature)) % size] += 1;
    return counted;
  }

  function unit(values) {
    const length = Math.hypot(...values);
    return values.map((value) => value / length);
  }

  // A text's own counts and one coordinate common to all texts, so that the expected distance does not depend on length.
  function level(own, total, { likeness, amount }, most) {
    const share = (most * (1 - likeness)) / (1 - (likeness * total) / (total + amount));
    const scaled = unit(own).map((value) => value * Math.sqrt(share));
    return Float32Array.from([...scaled, Math.sqrt(1 - share)]);
  }

  // The spaces of the data: name -> function (text) that gives its vector.
  function spaces(data) {
    const functionWords = new Set(data.functionWords);

    function masked(token) {
      if (isBlank(token)) return token.includes("\n") ? "\n" : " ";
      const first = String.fromCodePoint(token.codePointAt(0));
      if (/\p{Nd}/u.test(first) || data.digits.includes(first)) return "#";
      if (!/\p{L}/u.test(first) || functionWords.has(token.toLowerCase())) return token;
      if (isUpper(token) && [...token].length > 1) return "A";
      return isUpper(first) ? "^" : "*";
    }

    function ngrams(text) {
      const signs = [...text];
      return [1, 2, 3].flatMap((n) => signs.slice(n - 1).map((_, at) => signs.slice(at, at + n).join("")));
    }

    function stylometric(text) {
      const found = ngrams(tokens(text).map(masked).join(""));
      const scale = data.ngrams.map((count) => Math.sqrt((count + 1) / (data.ngramTotal + 1)));
      const rates = counts(found, scale.length).map((count, i) => count / found.length / scale[i]);
      return level(rates, found.length, data.stylometric, data.own);
    }

    function lexical(text) {
      const found = words(text);
      const tf = counts(found, data.rarity.length).map((count, i) => (count ? (1 + Math.log(count)) * data.rarity[i] : 0));
      return level(unit(tf).map((value, i) => value - data.mean[i] / 2), found.length, data.lexical, data.own);
    }

    return { lexical, stylometric };
  }

  // Cosine distances of vectors of any length, in [0, 2].
  function distances(vectors) {
    const units = vectors.map((vector) => unit(Float64Array.from(vector)));
    const apart = (a, b) => Math.min(2, Math.max(0, 1 - a.reduce((dot, value, i) => dot + value * b[i], 0)));
    return units.map((a) => units.map((b) => (a === b ? 0 : apart(a, b))));
  }

  return { spaces, distances, isBlank };
})();
