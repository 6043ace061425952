// Stand-ins for OpenAI, Anthropic and Google on one port: prints its address, ends with its input.
import { LLMock } from "@copilotkit/aimock";

const mock = new LLMock({ port: 0, host: "127.0.0.1", chunkSize: 4, logLevel: "error" });
// The same usage in the words of each provider.
const usage = {
  ...{ prompt_tokens: 11, completion_tokens: 7 },
  ...{ input_tokens: 11, output_tokens: 7 },
  ...{ promptTokenCount: 11, candidatesTokenCount: 7 },
};
const toolCalls = [{ name: "get_weather", arguments: '{"city":"Paris"}', id: "call_1" }];
const broken = { truncateAfterChunks: 5, latency: 20 };

mock.on({ hasToolResult: true }, { content: "It is sunny in Paris.", usage });
mock.onMessage("hello", { content: "Hello, Wörld! 🌍", usage });
mock.onMessage("think", { content: "Four.", reasoning: "Two and two.", usage });
mock.onMessage("weather", { toolCalls, usage });
mock.onMessage("chatty", { content: "Let me see.", toolCalls, usage });
mock.onMessage("structured", { content: { name: "Ada", age: 36 }, usage });
mock.onMessage("cut", { content: "This never comes to its end.", usage }, broken);

const failing = (said, status, type, message, code) =>
  mock.onMessage(said, { error: { type, message, code }, status, retryAfter: 0 });
failing("invalid", 400, "invalid_request_error", "temperature: out of range");
failing("too long", 400, "invalid_request_error", "prompt is too long: 9 tokens > 8 maximum");
failing("denied", 401, "authentication_error", "invalid x-api-key");
failing("limited", 429, "rate_limit_error", "slow down");
failing("unpaid", 429, "insufficient_quota", "You exceeded your quota", "insufficient_quota");
failing("broken", 500, "api_error", "boom");
failing("busy", 529, "overloaded_error", "Overloaded");

const violent = { categories: { violence: true }, category_scores: { violence: 0.99 } };
mock.onEmbedding("hello", { embedding: [0.5, -0.25, 1] });
mock.onModerate("kill", { flagged: true, ...violent });
mock.onImage("cat", { image: { b64Json: "aW1hZ2U=" } });
mock.onSpeech("hello", { audio: "c291bmQ=", format: "mp3" });
mock.onTranscription({ transcription: { text: "Hello there.", language: "en", duration: 1 } });

console.log(await mock.start());
process.stdin.on("end", () => process.exit()).resume();
