// @anthropic-ai/sdk before models of three makers.
import { byModel, CITY, failure, PERSON } from "./common.mjs";
const [sdk, baseURL, apiKey] = process.argv.slice(2);
const { default: Anthropic } = await import(sdk);
const { jsonSchemaOutputFormat } = await import(`${sdk}/helpers/json-schema`);
const { betaTool } = await import(`${sdk}/helpers/beta/json-schema`);
const client = new Anthropic({ baseURL, apiKey, maxRetries: 0 });

const tools = [{ name: "get_weather", input_schema: CITY }];
const asking = (model, content, more = {}) => ({
  model,
  max_tokens: 2048,
  messages: [{ role: "user", content }],
  ...more,
});
const tell = (error) => [
  error.constructor.name,
  error.status ?? null,
  error.type ?? null,
  Boolean(error.requestID?.startsWith("req_")),
];

await byModel(async (model) => {
  const seen = {};
  const plain = await client.messages.create(asking(model, "hello"));
  seen.plain = [plain.content[0].text, plain.model, plain.stop_reason];
  seen.usage = [plain.usage.input_tokens, plain.usage.output_tokens];
  seen.request = plain._request_id.startsWith("req_");

  seen.pieces = 0;
  const stream = client.messages.stream(asking(model, "hello")).on("text", () => seen.pieces++);
  const streamed = await stream.finalMessage();
  seen.stream = [streamed.content[0].text, streamed.stop_reason, streamed.usage.output_tokens];

  const called = await client.messages.stream(asking(model, "weather", { tools })).finalMessage();
  seen.tool = [called.stop_reason, called.content[0].name, called.content[0].input];
  const result = { type: "tool_result", tool_use_id: called.content[0].id, content: "sunny" };
  const turns = [
    ...asking(model, "weather").messages,
    { role: "assistant", content: called.content },
    { role: "user", content: [result] },
  ];
  const answer = await client.messages.create(asking(model, "", { tools, messages: turns }));
  seen.answer = answer.content[0].text;

  const weather = { name: "get_weather", description: "", inputSchema: CITY };
  const run = ({ city }) => `sunny in ${city}`;
  const runner = { ...asking(model, "weather"), tools: [betaTool({ ...weather, run })] };
  seen.ran = (await client.beta.messages.toolRunner(runner).runUntilDone()).content[0].text;

  const format = jsonSchemaOutputFormat(PERSON);
  const parsed = await client.messages.parse(
    asking(model, "structured", { output_config: { format } }),
  );
  seen.parsed = parsed.parsed_output;

  const thought = await client.messages.stream(asking(model, "think")).finalMessage();
  seen.thought = thought.content.map((block) => block.thinking ?? block.text);

  seen.errors = {};
  for (const content of ["invalid", "limited", "broken", "busy", "cut"]) {
    const call = () => client.messages.stream(asking(model, content)).finalMessage();
    seen.errors[content] = await failure(call, tell);
  }
  seen.errors.model = await failure(() => client.messages.create(asking("none", "")), tell);
  const wrong = new Anthropic({ baseURL, apiKey: "tk-wrong", maxRetries: 0 });
  seen.errors.key = await failure(() => wrong.messages.create(asking(model, "hello")), tell);

  const retrying = new Anthropic({ baseURL, apiKey, maxRetries: 1 });
  for (const content of ["limited", "invalid"]) {
    await failure(() => retrying.messages.create(asking(model, `${content}, said to ${model}`)), tell);
  }
  return seen;
});
