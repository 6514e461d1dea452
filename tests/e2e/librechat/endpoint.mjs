// What LibreChat does with a custom endpoint, in its own words: its schema, its HTTP client, its model client.
//
// Reads {yaml, env, extraHeaders, person, conversation, steps, model, text, dropParams} as JSON from standard input.
// Steps are: models, chat, title, structured_title. Prints one JSON object per line: {"chunk": ...} for the pieces of a
// chat, then {"answer": ...} or {"error": ...} for each step. LibreChat's server is not installed: it is an application,
// no package. Placeholders and options are filled in here the way its packages/api does.
import { readFileSync } from "node:fs";
import { ChatOpenAI } from "@langchain/openai";
import axios from "axios";
import yaml from "js-yaml";
import { configSchema, extractEnvVariable } from "librechat-data-provider";

const asked = JSON.parse(readFileSync(0, "utf8"));
const print = (line) => process.stdout.write(JSON.stringify(line) + "\n");
Object.assign(process.env, asked.env);

const parsed = configSchema.strict().safeParse(yaml.load(readFileSync(asked.yaml, "utf8")));
if (!parsed.success) {
  print({ error: { name: "ConfigInvalid", message: JSON.stringify(parsed.error.issues) } });
  process.exit(0);
}
const endpoint = parsed.data.endpoints.custom[0];
const apiKey = extractEnvVariable(endpoint.apiKey);
const baseURL = extractEnvVariable(endpoint.baseURL);
const fill = (value) =>
  extractEnvVariable(
    value
      .replaceAll("{{LIBRECHAT_USER_ID}}", asked.person)
      .replaceAll("{{LIBRECHAT_BODY_CONVERSATIONID}}", asked.conversation ?? ""),
  );
const configured = { ...endpoint.headers, ...asked.extraHeaders };
const headers = Object.fromEntries(Object.entries(configured).map(([name, value]) => [name, fill(value)]));

let sent = 0; // requests that really left, repetitions included
const counting = (...args) => {
  sent += 1;
  return fetch(...args);
};

const client = (more) => {
  const options = { model: asked.model, user: asked.person, temperature: 1, topP: 1, ...endpoint.addParams, ...more };
  for (const name of asked.dropParams ?? endpoint.dropParams ?? []) delete options[name];
  return new ChatOpenAI({ ...options, apiKey, configuration: { baseURL, defaultHeaders: headers, fetch: counting } });
};

const steps = {
  models: async () => {
    const { data } = await axios.get(`${baseURL}/models`, {
      headers: { ...headers, Authorization: `Bearer ${apiKey}` },
      timeout: 5000,
    });
    return { models: data.data.map((model) => model.id) };
  },
  chat: async () => {
    let whole;
    for await (const chunk of await client({ streaming: true }).stream([["human", asked.text]])) {
      print({ chunk: chunk.content });
      whole = whole ? whole.concat(chunk) : chunk;
    }
    return { content: whole.content, usage: whole.usage_metadata };
  },
  title: async () => {
    const message = await client({ model: endpoint.titleModel }).invoke([["human", asked.text]]);
    return { content: message.content, usage: message.usage_metadata };
  },
  structured_title: async () => {
    const schema = {
      title: "title",
      type: "object",
      properties: { title: { type: "string", description: "A concise title of five words or less" } },
      required: ["title"],
    };
    const structured = client({ model: endpoint.titleModel }).withStructuredOutput(schema, { name: "title" });
    return { content: await structured.invoke([["human", asked.text]]) };
  },
};

for (const step of asked.steps) {
  try {
    print({ answer: await steps[step](), sent });
  } catch (error) {
    const { name, message, status = null, code = null } = error;
    print({ error: { name, message, status, code }, sent });
  }
}
