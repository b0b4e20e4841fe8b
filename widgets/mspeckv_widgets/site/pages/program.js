// Takes the steps that `tracing.py` wrote down, for the numbers of a page. No formula stands here.
const each = (f) => (...given) => {
  const list = given.find(Array.isArray);
  if (!list) return f(...given);
  return list.map((_, place) => f(...given.map((one) => (Array.isArray(one) ? one[place] : one))));
};
const STEPS = {
  add: each((a, b) => a + b), subtract: each((a, b) => a - b), multiply: each((a, b) => a * b),
  divide: each((a, b) => a / b), floor_divide: each((a, b) => Math.floor(a / b)),
  power: each((a, b) => a ** b), ceil: each(Math.ceil), absolute: each(Math.abs),
  maximum: each((a, b) => Math.max(a, b)), minimum: each((a, b) => Math.min(a, b)),
  greater: each((a, b) => +(a > b)), greater_equal: each((a, b) => +(a >= b)),
  less: each((a, b) => +(a < b)), less_equal: each((a, b) => +(a <= b)),
  equal: each((a, b) => +(a === b)), bitwise_and: each((a, b) => +(a && b)),
  where: each((which, a, b) => (which ? a : b)),
  pick: (place, list) => list[place],
  max: (list) => Math.max(...list), any: (list) => +list.some(Boolean),
  sum: (list) => list.reduce((a, b) => a + b, 0),
};
// The results that are `wanted`, by name, of a trace of `packed` for the numbers `given`.
const compute = (packed, name, given, wanted) => {
  const [which, own] = packed.uses[name], { nodes, results } = packed.programs[which], values = [];
  const value = (place) => {
    if (values[place] !== undefined) return values[place];
    const [step, ...operands] = nodes[place];
    if (step === "given") values[place] = given[operands[0]];
    else if (step === "own") values[place] = own[operands[0]];
    else if (step === "constant") [values[place]] = operands;
    else values[place] = STEPS[step](...operands.map(value));
    return values[place];
  };
  return Object.fromEntries((wanted || Object.keys(results)).map((key) => [key, value(results[key])]));
};
