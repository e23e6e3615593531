// Distances -> weights: what ddpo_lib.deviation and the options of an arm (scale, floor, power) do for one prompt.
window.ddpoWeighting ??= (() => {
  const sum = (values) => values.reduce((total, value) => total + value, 0);

  // A matrix of distances -> each response's mean distance to the others; NaN for a response that is alone.
  const deviations = (matrix) => matrix.map((row) => sum(row) / (row.length - 1));

  // One space's deviations on a common scale; 0.5 if all are equal.
  function scaled(values, scale, tie) {
    const low = Math.min(...values), high = Math.max(...values);
    if (values.length === 1 || high - low <= tie) return values.map(() => 0.5);
    if (scale === "ratio") return values;
    return values.map((value) => (value - low <= tie ? 0 : (value - low) / (high - low)));
  }

  // Scale to a sum of n; 1 each if the sum is 0.
  function toSize(values) {
    const total = sum(values);
    return total > 0 ? values.map((value) => (values.length * value) / total) : values.map(() => 1);
  }

  // Raise weights below the floor to it and scale the others down, until none is below it.
  function lift(weights, floor) {
    const lifted = weights.map(() => false);
    let values = weights;
    while (values.some((value, i) => !lifted[i] && value < floor)) {
      values.forEach((value, i) => { lifted[i] ||= value < floor; });
      const room = weights.length - floor * lifted.filter(Boolean).length;
      const free = sum(weights.filter((_, i) => !lifted[i]));
      values = weights.map((weight, i) => (lifted[i] ? floor : weight * (free > 0 ? room / free : 0)));
    }
    return values;
  }

  // Deviations in one or more spaces -> `weights`, and the `shares` in each space from which they are made.
  function weigh(spaces, { scale, floor, power, tie }) {
    const shares = spaces.map((values) => scaled(values, scale, tie));
    const combined = spaces[0].map((_, i) => shares.reduce((product, of) => product * of[i], 1) ** (1 / spaces.length));
    const lifted = floor > 0 ? lift(toSize(combined), floor) : toSize(combined);
    return { shares, weights: power === 1 ? lifted : toSize(lifted.map((weight) => weight ** power)) };
  }

  return { deviations, weigh };
})();
