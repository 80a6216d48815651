#!/usr/bin/env bash
# Package:  @portkey-ai/gateway@1.15.2 with @hono/node-server@1.19.19, on Node 20 and 24
# Expected: a streamed chat of an OpenAI-compatible provider is passed on. Source: the package's README, "Supported
#           Providers", whose column "Stream" has a tick for OpenAI.
# Seen:     the whole answer of the same provider is passed on (200), the streamed one is a 500 "Something went wrong";
#           the log says "TypeError: immutable": the gateway adds a header to an answer of `fetch`, whose headers may
#           not be changed once @hono/node-server has put its own `Response` in place of Node's.
# Here:     tools/bench/gateway/tools.py has its server keep Node's own `Response`, so that streams can be compared.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
npm install --silent --no-audit --no-fund --ignore-scripts --prefix "$folder" @portkey-ai/gateway@1.15.2 @hono/node-server@1.19.19
cat >"$folder/check.mjs" <<'END'
import { spawn } from "node:child_process";
import http from "node:http";
import net from "node:net";

const message = { id: "c", created: 1, model: "m" };
const provider = http.createServer(async (request, response) => {
  let body = "";
  for await (const piece of request) body += piece;
  if (!JSON.parse(body).stream) {
    const choices = [{ index: 0, message: { role: "assistant", content: "Hello" }, finish_reason: "stop" }];
    response.writeHead(200, { "content-type": "application/json" });
    response.end(JSON.stringify({ ...message, object: "chat.completion", choices }));
    return;
  }
  const choices = [{ index: 0, delta: { content: "Hello" }, finish_reason: "stop" }];
  response.writeHead(200, { "content-type": "text/event-stream" });
  response.write(`data: ${JSON.stringify({ ...message, object: "chat.completion.chunk", choices })}\n\n`);
  response.end("data: [DONE]\n\n");
});
const listening = (server) => new Promise((done) => server.listen(0, "127.0.0.1", () => done(server.address().port)));
const upstream = await listening(provider);
const probe = net.createServer();
const port = await listening(probe);
await new Promise((done) => probe.close(done));

const script = `${process.argv[2]}/node_modules/@portkey-ai/gateway/build/start-server.js`;
const gateway = spawn(process.execPath, [script, `--port=${port}`, "--headless"], { stdio: "ignore" });
const ask = (stream) =>
  fetch(`http://127.0.0.1:${port}/v1/chat/completions`, {
    method: "POST",
    headers: {
      "content-type": "application/json",
      authorization: "Bearer none",
      "x-portkey-provider": "openai",
      "x-portkey-custom-host": `http://127.0.0.1:${upstream}/v1`,
    },
    body: JSON.stringify({ model: "m", stream, messages: [{ role: "user", content: "Hi" }] }),
    signal: AbortSignal.timeout(10_000),
  }).then((response) => response.status);

let seen = "no answer";
try {
  for (let tries = 0; tries < 60; tries++) {
    if (await fetch(`http://127.0.0.1:${port}/`).catch(() => undefined)) break;
    await new Promise((done) => setTimeout(done, 500));
  }
  seen = `whole ${await ask(false)}, streamed ${await ask(true)}`;
} finally {
  gateway.kill();
  provider.close();
}
console.log(`expected whole 200, streamed 200; seen: ${seen}`);
if (seen !== "whole 200, streamed 500") {
  console.log("changed: Portkey passes streams on, or does not answer at all");
  process.exit(1);
}
process.exit(0);
END
node "$folder/check.mjs" "$folder"
