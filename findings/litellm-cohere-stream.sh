#!/usr/bin/env bash
# Package:  litellm==1.110.2
# Expected: a streamed answer of Cohere's API (v2), which LiteLLM asks, arrives. Source: Cohere's API reference, "Chat
#           with Streaming", `stream`: "When true, the response will be a SSE stream of events."
# Seen:     MidStreamFallbackError at the first line of server-sent events. LiteLLM takes each line for a JSON
#           document, as the API's first version sent them. The same events, one JSON document a line, are read.
# Here:     gateway/assistant_gateway/providers/litellm.py (`_cohere`) reads the lines itself.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m pip install --quiet --root-user-action ignore --no-compile --no-warn-conflicts \
    --target "$folder" litellm==1.110.2
LITELLM_LOCAL_MODEL_COST_MAP=True PYTHONPATH=$folder python3 - <<'END'
import http.server
import json
import sys
import threading

import litellm

litellm.suppress_debug_info = True
EVENTS = (
    {"type": "message-start", "id": "1", "delta": {"message": {"role": "assistant", "content": []}}},
    {"type": "content-start", "index": 0, "delta": {"message": {"content": {"type": "text", "text": ""}}}},
    {"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": "Hello"}}}},
    {"type": "content-end", "index": 0},
    {"type": "message-end", "delta": {"finish_reason": "COMPLETE"}},
)


class Cohere(http.server.BaseHTTPRequestHandler):
    """Answers in Cohere's words: as server-sent events, and at `/lines` as one JSON document a line."""

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        for event in EVENTS:
            line = json.dumps(event) + "\n"
            self.wfile.write((line if self.path == "/lines" else f"event: {event['type']}\ndata: {line}\n").encode())

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Cohere)
threading.Thread(target=server.serve_forever, daemon=True).start()


def answer(path):
    """Return the text that arrives, or the name of the error."""
    try:
        chunks = litellm.completion(
            model="cohere_chat/command-a-03-2025",
            messages=[{"role": "user", "content": "Hi"}],
            api_base=f"http://127.0.0.1:{server.server_port}{path}",
            api_key="none",
            stream=True,
        )
        return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    except Exception as error:
        return type(error).__name__


seen, lines = answer("/v2/chat"), answer("/lines")
print(f"expected 'Hello'; seen {seen!r}, and of one JSON document a line {lines!r}")
sys.exit(0 if (seen, lines) == ("MidStreamFallbackError", "Hello") else "changed: LiteLLM reads streams otherwise")
END
