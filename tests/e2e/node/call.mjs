// One call with the OpenAI SDK for Node.js, described as JSON on standard input.
//
// It prints one JSON object per line: {"chunk": ...} for each piece of a stream as it arrives, then {"answer": ...} with
// the response's headers, or {"error": ...} with the class, code and message that the SDK raised.
import { readFileSync } from "node:fs";
import OpenAI, { AzureOpenAI } from "openai";

const { kind, options, api, body, headers } = JSON.parse(readFileSync(0, "utf8"));
const print = (line) => process.stdout.write(JSON.stringify(line) + "\n");

let sent = 0; // requests that really left, the SDK's own retries included
const counting = (...args) => {
  sent += 1;
  return fetch(...args);
};
const settings = { ...options, fetch: counting };
const client = kind === "azure" ? new AzureOpenAI(settings) : new OpenAI(settings);
const methods = {
  chat: (...args) => client.chat.completions.create(...args),
  responses: (...args) => client.responses.create(...args),
  embeddings: (...args) => client.embeddings.create(...args),
  models: (_, ...args) => client.models.list(...args),
  parse: (...args) => client.chat.completions.parse(...args), // structured outputs
};

try {
  const { data, response } = await methods[api](body, { headers }).withResponse();
  if (body.stream) {
    for await (const chunk of data) print({ chunk });
  }
  print({
    answer: body.stream ? null : data,
    headers: Object.fromEntries(response.headers),
    status: response.status,
    sent,
  });
} catch (error) {
  print({
    error: {
      name: error.constructor.name,
      status: error.status ?? null,
      code: error.code ?? null,
      type: error.type ?? null,
      message: error.message,
      body: error.error ?? null,
      headers: Object.fromEntries(error.headers ?? []),
    },
    sent,
  });
}
