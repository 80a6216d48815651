// The official `openai` package, and Vercel's AI SDK with its two providers, unchanged, pointed at the tenant API.
import assert from "node:assert/strict";
import { test } from "node:test";

import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateObject, generateText, stepCountIs, streamText, tool } from "ai";
import OpenAI from "openai";
import { z } from "zod";

const { CLIENTS_URL: baseURL, CLIENTS_KEY: apiKey, CLIENTS_QUESTION: prompt } = process.env;
const { CLIENTS_WORDS: words, CLIENTS_TITLE: title } = process.env;
const messages = [{ role: "user", content: prompt }];
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });
const ai = {
  openai: createOpenAI({ baseURL, apiKey }).chat,
  compatible: createOpenAICompatible({ name: "tenant", baseURL, apiKey, supportsStructuredOutputs: true }),
};

test("openai: a cited answer, whole and streamed", async () => {
  const { message } = (await client.chat.completions.create({ model: "support", messages })).choices[0];
  assert.ok(message.content.includes(words));
  for (const { type, url_citation: place } of message.annotations) {
    assert.equal(type, "url_citation");
    assert.equal(place.title, title);
    // The indices count code points, of which JavaScript has no index: see docs/api.md.
    assert.match([...message.content].slice(place.start_index, place.end_index).join(""), /^\[[\d, ]+\]$/);
  }
  const opened = await fetch(message.annotations[0].url_citation.url, { headers: { authorization: `Bearer ${apiKey}` } });
  assert.ok((await opened.text()).includes(words));
  const streamed = await client.chat.completions.stream({ model: "support", messages }).finalMessage();
  assert.equal(streamed.content, message.content);
  assert.deepEqual(streamed.annotations, message.annotations);
});

test("openai: errors have their classes", async () => {
  const ask = (model, from = client) => from.chat.completions.create({ model, messages });
  await assert.rejects(ask("nobody"), OpenAI.NotFoundError);
  await assert.rejects(ask("limited").then(() => ask("limited")), OpenAI.RateLimitError); // one request a minute
  await assert.rejects(ask("plain", new OpenAI({ baseURL, apiKey: "ak_wrong" })), OpenAI.AuthenticationError);
});

for (const [name, provider] of Object.entries(ai)) {
  test(`ai with ${name}: whole and streamed`, async () => {
    for (const model of ["support", "plain"]) {
      const whole = await generateText({ model: provider(model), prompt, maxRetries: 0 });
      assert.equal(whole.text.includes(words), model === "support");
      assert.ok(whole.usage.totalTokens > 0);
      const stream = streamText({ model: provider(model), prompt, maxRetries: 0 });
      assert.equal(await stream.text, whole.text);
      if (name === "openai") {
        const sources = [whole.sources, await stream.sources].map((found) => found.map((source) => source.title));
        const expected = model === "support" ? [title] : [];
        assert.deepEqual(sources.map((titles) => [...new Set(titles)]), [expected, expected]);
      }
    }
  });

  test(`ai with ${name}: tools and objects`, async () => {
    const asked = [];
    const weather = tool({
      description: "Tell the weather of a city.",
      inputSchema: z.object({ city: z.string() }),
      execute: async ({ city }) => asked.push(city) && "21 degrees",
    });
    const options = { model: provider("plain"), maxRetries: 0, prompt: "The weather in 'Bern'?" };
    const answered = await generateText({ ...options, tools: { weather }, stopWhen: stepCountIs(3) });
    assert.deepEqual(asked, ["Bern"]);
    assert.ok(answered.text);
    const streamed = streamText({ ...options, tools: { weather }, stopWhen: stepCountIs(3) });
    await streamed.consumeStream();
    assert.deepEqual(asked, ["Bern", "Bern"]);
    const schema = z.object({ city: z.string(), degrees: z.number() });
    const made = await generateObject({ ...options, prompt: "In 'Bern' it has 21 degrees", schema });
    assert.deepEqual(made.object, { city: "Bern", degrees: 21 });
  });

  test(`ai with ${name}: errors say their status`, async () => {
    const failed = generateText({ model: provider("nobody"), prompt, maxRetries: 0 });
    await assert.rejects(failed, (error) => error.statusCode === 404 && /nobody/.test(error.message));
  });
}
