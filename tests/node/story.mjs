// An openai SDK for Node against a gateway: argv is package, base URL, key. Prints one JSON document.
const [sdk, baseURL, apiKey] = process.argv.slice(2);
const { default: OpenAI } = await import(sdk);
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });
const ask = (content, more = {}) =>
  client.chat.completions.create({ model: "demo", messages: [{ role: "user", content }], ...more });

const seen = {};
seen.plain = (await ask("hello")).choices[0].message.content;

seen.stream = "";
for await (const chunk of await ask("hello", { stream: true })) {
  seen.stream += chunk.choices[0]?.delta?.content ?? "";
}

const withUsage = { stream: true, stream_options: { include_usage: true } };
for await (const chunk of await ask("hello", withUsage)) {
  if (chunk.usage) seen.usage = chunk.usage.total_tokens;
}

seen.accumulated = await client.chat.completions
  .stream({ model: "demo", messages: [{ role: "user", content: "hello" }] })
  .finalContent();

seen.models = (await client.models.list()).data.map((model) => model.id);
seen.model = (await client.models.retrieve("demo")).pricing;

seen.errors = {};
const fail = async (name, call) => {
  try {
    await call();
    seen.errors[name] = "no error";
  } catch (error) {
    seen.errors[name] = [error.constructor.name, error.status ?? null, error.code ?? null];
  }
};
await fail("context", () => ask("context"));
await fail("filter", () => ask("filter"));
await fail("rate_limit", () => ask("status 429"));
await fail("server_error", () => ask("status 500"));
await fail("timeout", () => ask("status 504"));
await fail("model", () => ask("hello", { model: "unknown" }));
await fail("key", () =>
  new OpenAI({ baseURL, apiKey: "tk-wrong", maxRetries: 0 }).models.list(),
);
await fail("cut", async () => {
  for await (const chunk of await ask("cut 3", { stream: true })) seen.cut = chunk.choices.length;
});
console.log(JSON.stringify(seen));
