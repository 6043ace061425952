// Vercel's AI SDK before models of three makers. Its argument for PACKAGE says which of its interfaces.
import { embed, generateText, isStepCount, jsonSchema, Output, streamText, tool } from "ai";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { byModel, CITY, failure, PERSON } from "./common.mjs";

globalThis.AI_SDK_LOG_WARNINGS = false;
const [kind, baseURL, apiKey] = process.argv.slice(2);
const settings = { name: "tollkeeper", baseURL, apiKey, includeUsage: true };
const compatible = createOpenAICompatible({ ...settings, supportsStructuredOutputs: true });
const openai = createOpenAI({ baseURL, apiKey });
const make = { responses: openai.responses, chat: openai.chat, compatible }[kind];
const vectors = kind === "compatible" ? compatible.embeddingModel : openai.embeddingModel;
const thinking = {
  openai: { reasoningEffort: "low", forceReasoning: true },
  tollkeeper: { reasoningEffort: "low" },
};
const tools = {
  get_weather: tool({ inputSchema: jsonSchema(CITY), execute: async ({ city }) => `sunny in ${city}` }),
};
const tell = (error) => [
  error.name,
  error.statusCode ?? null,
  error.data?.error?.code ?? null,
  error.isRetryable ?? null,
];

await byModel(async (name) => {
  const seen = {};
  const asking = (prompt, more = {}) => ({ model: make(name), prompt, maxRetries: 0, ...more });
  const ask = (prompt, more) => generateText(asking(prompt, more));

  const plain = await ask("hello");
  seen.plain = [plain.text, plain.finishReason, plain.response.modelId];
  seen.usage = [plain.usage.inputTokens, plain.usage.outputTokens];
  seen.request = plain.response.headers["x-request-id"].startsWith("req_");

  const stream = streamText(asking("hello"));
  const pieces = [];
  for await (const piece of stream.textStream) pieces.push(piece);
  seen.stream = [pieces.join(""), pieces.length > 1, await stream.finishReason];
  seen.streamed = (await stream.usage).outputTokens;

  const agent = { tools, stopWhen: isStepCount(3) };
  const ran = await ask("weather", agent);
  seen.tool = [ran.steps.length, ran.steps[0].toolCalls[0].input, ran.text];
  const streaming = streamText(asking("weather", agent));
  seen.toolInStream = [await streaming.text, (await streaming.steps).length];
  // What was said is sent back by its ids alone, unless nothing is to be kept.
  const unkept = { providerOptions: { openai: { store: false } } };
  seen.textBeforeTool = [];
  for (const more of [{}, unkept]) {
    const chatty = await ask("chatty", { ...agent, ...more });
    seen.textBeforeTool.push(chatty.steps[0].text, chatty.text);
  }
  const said = { role: "user", content: "think" };
  const first = await ask("think", { providerOptions: thinking });
  const turns = [said, ...first.response.messages, { role: "user", content: `chatty with ${name}` }];
  const next = await generateText({ ...asking(), messages: turns, ...agent, providerOptions: thinking });
  seen.nextTurn = [next.steps.length, next.text];

  const output = Output.object({ schema: jsonSchema(PERSON) });
  seen.object = (await ask("structured", { output })).output;
  seen.thought = (await ask("think", { providerOptions: thinking })).reasoningText ?? null;

  seen.errors = {};
  for (const prompt of ["invalid", "limited", "broken"]) {
    seen.errors[prompt] = await failure(() => ask(prompt), tell);
  }
  seen.errors.model = await failure(() => generateText({ ...asking("hello"), model: make("none") }), tell);
  const again = asking(`limited, said to ${name}`, { maxRetries: 1 });
  seen.errors.again = await failure(() => generateText(again), (error) => error.name);

  const told = [];
  const cut = streamText(asking("cut", { onError: ({ error }) => told.push(error) }));
  await failure(() => cut.consumeStream(), tell);
  const messages = told.map((error) => error.message ?? error.error?.message ?? String(error));
  seen.cut = messages.some((message) => message.includes("broke off its reply")) ? "told" : messages;

  const embedding = () => embed({ model: vectors(name), value: "hello", maxRetries: 0 });
  seen.vector = name === "gpt" ? (await embedding()).embedding : await failure(embedding, tell);
  return seen;
});
