// An application on the AI SDK, with either of its providers for OpenRouter; says what it saw, as JSON.
//
// node program.mjs PROVIDER BASE_URL MODEL ODD_MODEL

import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { createOpenRouter } from "@openrouter/ai-sdk-provider";
import { generateObject, generateText, streamObject, streamText, tool } from "ai";
import { z } from "zod";

const [name, baseURL, model, odd] = process.argv.slice(2);
const apiKey = "an-access-token-of-the-table";
const prompt = "Hej Åsa";
const schema = z.object({ good: z.boolean(), why: z.string() });
const weather = tool({ description: "The weather", inputSchema: z.object({ city: z.string() }) });
const onError = (event) => {
  console.error(event.error);
  process.exit(1);
};
const collect = async (stream) => {
  const pieces = [];
  for await (const piece of stream) pieces.push(piece);
  return pieces;
};

const provider = {
  "openai-compatible": () =>
    createOpenAICompatible({ name: "rollout", baseURL, apiKey, includeUsage: true, supportsStructuredOutputs: true }),
  openrouter: () => createOpenRouter({ baseURL, apiKey, compatibility: "strict" }),
}[name]();
const ask = (id, more) => ({ model: provider.chatModel ? provider.chatModel(id) : provider.chat(id), prompt, maxRetries: 0, ...more });
const tools = { tools: { weather }, toolChoice: "required" };

const plain = await generateText(ask(model));
const streamed = streamText(ask(odd, { onError }));
const called = await generateText(ask(model, tools));
const calling = streamText(ask(odd, { ...tools, onError }));
const found = await generateObject(ask(model, { schema }));
const finding = streamObject(ask(odd, { schema, onError }));

const pieces = await collect(streamed.textStream);
await collect(calling.fullStream);
await collect(finding.partialObjectStream);

console.log(
  JSON.stringify({
    plain: plain.text,
    stream: pieces.join(""),
    finish: [plain.finishReason, await streamed.finishReason],
    tools: [...called.toolCalls, ...(await calling.toolCalls)].map((each) => each.toolName),
    json: [found.object.good, (await finding.object).good],
  }),
);
