// Takes the steps that `tracing.py` wrote down, for the numbers of a page. No formula stands here.
// A number may be a list of numbers, all lists as long as one another.
const { isArray } = Array;
const one = (f) => (a) => (isArray(a) ? a.map(f) : f(a));
const two = (f) => (a, b) => {
  if (isArray(a)) return isArray(b) ? a.map((x, at) => f(x, b[at])) : a.map((x) => f(x, b));
  return isArray(b) ? b.map((x) => f(a, x)) : f(a, b);
};
const at = (list, place) => (isArray(list) ? list[place] : list);
const where = (which, a, b) => {
  const list = [which, a, b].find(isArray);
  return list ? list.map((_, place) => (at(which, place) ? at(a, place) : at(b, place))) : which ? a : b;
};
const STEPS = {
  add: two((a, b) => a + b), subtract: two((a, b) => a - b), multiply: two((a, b) => a * b),
  divide: two((a, b) => a / b), floor_divide: two((a, b) => Math.floor(a / b)),
  power: two((a, b) => a ** b), ceil: one((a) => Math.ceil(a)), absolute: one((a) => Math.abs(a)),
  maximum: two((a, b) => Math.max(a, b)), minimum: two((a, b) => Math.min(a, b)),
  greater: two((a, b) => +(a > b)), greater_equal: two((a, b) => +(a >= b)),
  less: two((a, b) => +(a < b)), less_equal: two((a, b) => +(a <= b)),
  equal: two((a, b) => +(a === b)), bitwise_and: two((a, b) => +(a && b)), where,
  pick: (place, list) => list[place],
  max: (list) => Math.max(...list), any: (list) => +list.some(Boolean),
  sum: (list) => list.reduce((a, b) => a + b, 0),
};
// The results that are `wanted`, by name, of a trace of `packed` for the numbers `given`.
const compute = (packed, name, given, wanted) => {
  const [which, own] = packed.uses[name], { nodes, results } = packed.programs[which], values = [];
  const value = (place) => {
    if (values[place] !== undefined) return values[place];
    const [step, a, b, c] = nodes[place];
    let found = a;
    if (step === "given") found = given[a];
    else if (step === "own") found = own[a];
    else if (step !== "constant")
      found = STEPS[step](value(a), b === undefined ? b : value(b), c === undefined ? c : value(c));
    values[place] = found;
    return found;
  };
  return Object.fromEntries((wanted || Object.keys(results)).map((key) => [key, value(results[key])]));
};
