// OpenAI's own Node SDK as the caller: `node talk.mjs BASE_URL`, then one line of JSON, `{way, body}`, for each request.
// Prints one line of JSON for each, what was heard; an error is told in it, by its class and what it says of itself.
import { createInterface } from "node:readline";

import OpenAI from "openai";

const client = new OpenAI({ baseURL: process.argv[2], apiKey: "sk-caller", timeout: 5000 });

class Heard {
  words = "";
  chunks = 0;
  calls = [];

  take(chunk) {
    this.chunks += 1;
    this.words += chunk.choices[0]?.delta?.content ?? "";
    if (chunk.usage) this.usage = chunk.usage;
  }
}

const ways = {
  async iterates(body, heard) {
    for await (const chunk of await client.chat.completions.create({ ...body, stream: true })) heard.take(chunk);
  },

  async asks_once(body, heard) {
    heard.whole = await client.chat.completions.create(body);
  },

  async uses_the_helper(body, heard) {
    const stream = client.chat.completions.stream(body);
    stream.on("chunk", (chunk) => heard.take(chunk));
    stream.on("tool_calls.function.arguments.done", (call) => heard.calls.push(call));
    heard.whole = await stream.finalChatCompletion();
  },

  async hangs_up(body, heard) {
    for await (const chunk of await client.chat.completions.create({ ...body, stream: true })) {
      heard.take(chunk);
      if (heard.words) break; // leaving the loop aborts the request
    }
  },

  async lists_models(_, heard) {
    for await (const model of client.models.list()) heard.words += `${model.id} `;
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const { way, body } = JSON.parse(line);
  const heard = new Heard();
  try {
    await ways[way](body, heard);
  } catch (error) {
    const { status, type, code, message } = error;
    heard.error = { class: error.constructor.name, api: error instanceof OpenAI.APIError, status, type, code, message };
  }
  console.log(JSON.stringify(heard));
}
