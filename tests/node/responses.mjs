// An openai SDK for Node: responses and embeddings, before models of three makers.
import { byModel, CITY, failure, PERSON } from "./common.mjs";
const [sdk, baseURL, apiKey] = process.argv.slice(2);
const { default: OpenAI } = await import(sdk);
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });

const tools = [{ type: "function", name: "get_weather", parameters: CITY, strict: true }];
const tell = (error) => [
  error.constructor.name,
  error.status ?? null,
  error.code ?? null,
  Boolean(error.requestID?.startsWith("req_")),
];
const unheard = (error) => [error.constructor.name, error.code ?? null];

await byModel(async (model) => {
  const seen = {};
  const create = (input, more = {}) => client.responses.create({ model, input, ...more });
  const finished = (input, more = {}) =>
    client.responses.stream({ model, input, ...more }).finalResponse();

  const plain = await create("hello");
  seen.plain = [plain.output_text, plain.model, plain.status, plain.usage.total_tokens];
  seen.request = plain._request_id.startsWith("req_");
  const streamed = await finished("hello");
  seen.stream = [streamed.output_text, streamed.model, streamed.usage.total_tokens];

  const called = await finished("weather", { tools });
  seen.tool = [called.output[0].name, called.output[0].arguments];
  const turns = [
    { role: "user", content: "weather" },
    ...called.output.map(({ parsed_arguments, ...item }) => item),
    { type: "function_call_output", call_id: called.output[0].call_id, output: "sunny" },
  ];
  seen.answer = (await create(turns, { tools })).output_text;

  const format = { type: "json_schema", name: "person", schema: PERSON, strict: true };
  seen.structured = JSON.parse((await finished("structured", { text: { format } })).output_text);
  seen.thought = (await finished("think", { reasoning: { effort: "low" } })).output[0].summary[0].text;

  const kept = await create("hello", { store: true });
  seen.kept = (await client.responses.retrieve(kept.id)).output_text;
  seen.continued = (await create("hello", { previous_response_id: kept.id })).output_text;

  seen.errors = {};
  for (const input of ["invalid", "too long", "limited", "broken"]) {
    seen.errors[input] = await failure(() => create(input, { stream: true }), tell);
  }
  seen.errors.model = await failure(() => create("hello", { model: "none" }), tell);
  seen.cut = await failure(() => finished("cut"), unheard);

  const retrying = new OpenAI({ baseURL, apiKey, maxRetries: 1 });
  for (const content of ["limited", "unpaid"]) {
    const input = `${content}, said to ${model}`;
    await failure(() => retrying.responses.create({ model, input }), tell);
  }

  if (model === "gpt") {
    seen.vector = (await client.embeddings.create({ model, input: "hello" })).data[0].embedding;
  } else {
    seen.vector = await failure(() => client.embeddings.create({ model, input: "hello" }), tell);
  }
  return seen;
});
