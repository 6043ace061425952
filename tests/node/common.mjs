// What the scripts share. Each is called as: node SCRIPT PACKAGE URL KEY, and prints one JSON document.
export const MODELS = ["gpt", "claude", "gemini"];
export const CITY = {
  type: "object",
  properties: { city: { type: "string" } },
  required: ["city"],
  additionalProperties: false,
};
export const PERSON = {
  type: "object",
  properties: { name: { type: "string" }, age: { type: "integer" } },
  required: ["name", "age"],
  additionalProperties: false,
};

// What a failing call throws, as `tell` sees it.
export async function failure(call, tell) {
  try {
    await call();
  } catch (error) {
    return tell(error);
  }
  return "no error";
}

export const byModel = async (look) =>
  console.log(JSON.stringify(Object.fromEntries(await Promise.all(MODELS.map(async (m) => [m, await look(m)])))));
