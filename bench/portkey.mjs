// Node's own Response stays in place: with the lighter one that Portkey's server library puts there,
// every streamed reply is a 500 ("TypeError: immutable").
const define = Object.defineProperty;
Object.defineProperty = (object, name, value) =>
  object === globalThis && name === "Response" ? object : define(object, name, value);
