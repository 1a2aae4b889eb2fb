// OpenAI's Node SDK as the caller: `node openai.mjs`, asked and answering as `../lines.py` says.
import { createInterface } from "node:readline";

import OpenAI from "openai";

const HELLO = "Hello there, my friend.";
const RESULTS = { weather: "rain", clock: "noon" };
const SCHEMAS = {
  weather: { type: "object", properties: { city: { type: "string" } }, required: ["city"], additionalProperties: false },
  clock: { type: "object", properties: {}, additionalProperties: false },
};
const TOOLS = Object.entries(SCHEMAS).map(([name, parameters]) => ({ type: "function", function: { name, parameters } }));
const FORM = { type: "json_schema", json_schema: { name: "weather", strict: true, schema: SCHEMAS.weather } };

function contentOf(asked) {
  if (!asked.image) return HELLO;
  return [
    { type: "text", text: HELLO },
    { type: "image_url", image_url: { url: asked.image } },
  ];
}

// Asks once and returns the message; nothing when the caller left.
async function ask(client, messages, asked, heard) {
  const request = { model: "m1", messages, ...asked.body };
  if (asked.tools) request.tools = TOOLS;
  if (asked.form) request.response_format = FORM;
  let reply;
  if (asked.whole) {
    reply = await client.chat.completions.create(request);
    heard.words += reply.choices[0].message.content ?? "";
  } else {
    const stream = client.chat.completions.stream({ ...request, stream_options: { include_usage: true } });
    for await (const chunk of stream) {
      heard.words += chunk.choices[0]?.delta?.content ?? "";
      if (heard.words && asked.leaves) return stream.abort();
    }
    reply = await stream.finalChatCompletion();
  }
  heard.usage = reply.usage ? [reply.usage.prompt_tokens, reply.usage.completion_tokens] : null;
  if (asked.form) heard.form = JSON.parse(reply.choices[0].message.content);
  return reply.choices[0].message;
}

async function turn(asked, heard) {
  const settings = { baseURL: asked.url, apiKey: "sk-caller", timeout: 5000 };
  const client = new OpenAI({ ...settings, maxRetries: asked.retries, defaultHeaders: asked.headers });
  const messages = [{ role: "user", content: contentOf(asked) }];
  for (;;) {
    const message = await ask(client, messages, asked, heard);
    if (!message?.tool_calls?.length) return;
    messages.push(message);
    for (const { id, function: called } of message.tool_calls) {
      heard.ran.push([called.name, JSON.parse(called.arguments)]);
      messages.push({ role: "tool", tool_call_id: id, content: RESULTS[called.name] });
    }
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  const asked = { body: {}, headers: {}, retries: 0, ...JSON.parse(line) };
  const heard = { words: "", ran: [], usage: null, form: null, error: null };
  try {
    await turn(asked, heard);
  } catch (error) {
    const { status, type, code, message } = error;
    heard.error = { class: error.constructor.name, status: status ?? null, type, code, message };
  }
  console.log(JSON.stringify(heard));
}
