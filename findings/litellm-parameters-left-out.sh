#!/usr/bin/env bash
# Package:  litellm==1.110.2
# Expected: a parameter of a chat that a model cannot be told is an error, unless `drop_params` is set. Source:
#           LiteLLM's documentation, "Drop Unsupported Params": "By default, LiteLLM raises an exception if you send a
#           parameter to a model that doesn't support it."
# Seen:     `get_supported_openai_params` names these parameters, and they are then left out of the request without a
#           word: `response_format: json_object` of Anthropic, `parallel_tool_calls: false` of Gemini, `tool_choice:
#           required` of Cohere. The answer is prose, or several calls, or no call.
# Here:     gateway/assistant_gateway/providers/litellm_request.py refuses them by name.
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
requests = []


class Provider(http.server.BaseHTTPRequestHandler):
    """Keeps what it is asked, and answers nothing of use."""

    def do_POST(self):
        requests.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(400)
        self.end_headers()

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Provider)
threading.Thread(target=server.serve_forever, daemon=True).start()


def asked(model, **parameters):
    """Return the request that reaches the provider, None where LiteLLM refuses the parameters."""
    requests.clear()
    try:
        litellm.completion(
            model=model,
            messages=[{"role": "user", "content": "Two stars, please."}],
            api_base=f"http://127.0.0.1:{server.server_port}",
            api_key="none",
            max_retries=0,
            **parameters,
        )
    except litellm.UnsupportedParamsError:
        return None
    except litellm.BadRequestError:
        return requests[0]


TOOLS = [{"type": "function", "function": {"name": "star", "parameters": {"type": "object", "properties": {}}}}]
changed = asked("anthropic/claude-sonnet-4-5", seed=1) is not None  # this one is refused, as it should be
for model, others, name, value in (
    ("anthropic/claude-sonnet-4-5", {}, "response_format", {"type": "json_object"}),
    ("gemini/gemini-2.5-flash", {"tools": TOOLS}, "parallel_tool_calls", False),
    ("cohere_chat/command-a-03-2025", {"tools": TOOLS}, "tool_choice", "required"),
):
    listed = name in litellm.get_supported_openai_params(model)
    with_it, without = asked(model, **others, **{name: value}), asked(model, **others)
    seen = "refused" if with_it is None else "left out" if with_it == without else "sent"
    print(f"{model}, {name}={value} (listed as supported: {listed}): expected sent or refused, seen {seen}")
    changed |= not listed or seen != "left out"
sys.exit("changed: LiteLLM no longer leaves these parameters out" if changed else 0)
END
