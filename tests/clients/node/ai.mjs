// Vercel's AI SDK with `@ai-sdk/openai-compatible` as the caller: `node ai.mjs`, asked and answering as `../lines.py` says.
import { createInterface } from "node:readline";

import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateObject, generateText, isStepCount, Output, streamText, tool } from "ai";
import { z } from "zod";

const HELLO = "Hello there, my friend.";
const FORM = z.object({ city: z.string() });

// The app's own two tools; they note that they ran.
function toolsOf(heard) {
  return {
    weather: tool({
      description: "Say how the weather is.",
      inputSchema: FORM,
      execute: (input) => (heard.ran.push(["weather", input]), "rain"),
    }),
    clock: tool({
      description: "Say how late it is.",
      inputSchema: z.object({}),
      execute: (input) => (heard.ran.push(["clock", input]), "noon"),
    }),
  };
}

function contentOf(asked) {
  if (!asked.image) return HELLO;
  return [
    { type: "text", text: HELLO },
    { type: "file", mediaType: "image/png", data: asked.image },
  ];
}

async function turn(asked, heard) {
  const provider = createOpenAICompatible({
    name: "firstword",
    baseURL: asked.url,
    apiKey: "sk-caller",
    headers: asked.headers,
    includeUsage: true,
    supportsStructuredOutputs: true,
    transformRequestBody: (body) => ({ ...body, ...asked.body }),
  });
  const leaving = new AbortController();
  const options = {
    model: provider("m1"),
    messages: [{ role: "user", content: contentOf(asked) }],
    maxRetries: asked.retries,
    stopWhen: isStepCount(5),
    abortSignal: AbortSignal.any([leaving.signal, AbortSignal.timeout(8000)]),
    ...(asked.tools ? { tools: toolsOf(heard) } : {}),
    ...(asked.form ? { output: Output.object({ schema: FORM }) } : {}),
  };
  let result;
  if (asked.whole && asked.form) {
    const { object, usage } = await generateObject({ ...options, output: "object", schema: FORM });
    heard.form = object;
    heard.usage = [usage.inputTokens, usage.outputTokens];
    return;
  }
  if (asked.whole) {
    result = await generateText(options);
    heard.words += result.text;
  } else {
    result = streamText({ ...options, onError: () => {} }); // it is told by the part below
    for await (const part of result.fullStream) {
      if (part.type === "error") throw part.error;
      if (part.type === "text-delta") heard.words += part.text;
      if (part.type === "text-delta" && part.text && asked.leaves) return leaving.abort();
    }
  }
  const usage = await result.totalUsage;
  heard.usage = [usage.inputTokens, usage.outputTokens];
  if (asked.form) heard.form = await result.output;
}

for await (const line of createInterface({ input: process.stdin })) {
  const asked = { body: {}, headers: {}, retries: 0, ...JSON.parse(line) };
  const heard = { words: "", ran: [], usage: null, form: null, error: null };
  try {
    await turn(asked, heard);
  } catch (caught) {
    const error = caught?.lastError ?? caught; // a RetryError holds the last one
    const { type, code } = error?.data?.error ?? {};
    heard.error = { class: error?.constructor?.name, status: error?.statusCode ?? null, type, code, message: `${error?.message ?? JSON.stringify(error)}` };
  }
  console.log(JSON.stringify(heard));
}
