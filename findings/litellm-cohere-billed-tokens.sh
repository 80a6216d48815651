#!/usr/bin/env bash
# Package:  litellm==1.110.2
# Expected: `completion_cost` of a chat with Cohere is of the tokens that Cohere bills. Source: Cohere's API
#           reference, "Chat", `usage`: `billed_units` has "The number of billed input tokens", `tokens` "The total
#           number of input tokens processed".
# Seen:     the usage that LiteLLM reports, and its cost, are of all tokens that were processed, Cohere's own
#           instructions for the model among them: 70 tokens for a chat of which 5 are billed. `billed_units` are not
#           in the answer.
# Here:     gateway/assistant_gateway/providers/litellm.py (`_bill`) reads them from the provider's own bytes.
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

MODEL = "command-a-03-2025"
BILLED, PROCESSED = {"input_tokens": 3, "output_tokens": 2}, {"input_tokens": 66, "output_tokens": 4}
ANSWER = {
    "id": "1",
    "finish_reason": "COMPLETE",
    "message": {"role": "assistant", "content": [{"type": "text", "text": "Hello"}]},
    "usage": {"billed_units": BILLED, "tokens": PROCESSED},
}


class Cohere(http.server.BaseHTTPRequestHandler):
    """Answers in Cohere's words."""

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(ANSWER).encode())

    def log_message(self, *_):
        pass


def cost(tokens):
    """Return what these tokens cost by LiteLLM's own map."""
    price = litellm.model_cost[MODEL]
    return (
        tokens["input_tokens"] * price["input_cost_per_token"]
        + tokens["output_tokens"] * price["output_cost_per_token"]
    )


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Cohere)
threading.Thread(target=server.serve_forever, daemon=True).start()
answer = litellm.completion(
    model=f"cohere_chat/{MODEL}",
    messages=[{"role": "user", "content": "Hi"}],
    api_base=f"http://127.0.0.1:{server.server_port}/v2/chat",
    api_key="none",
)
seen = litellm.completion_cost(answer)
print(f"expected {cost(BILLED):.7f} USD for {BILLED}, seen {seen:.7f} USD for {answer.usage.total_tokens} tokens")
same = abs(seen - cost(PROCESSED)) < 1e-12 and "billed_units" not in answer.model_dump_json()
sys.exit(0 if same else "changed: LiteLLM reads other tokens of Cohere's answers")
END
