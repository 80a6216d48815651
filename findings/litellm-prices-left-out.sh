#!/usr/bin/env bash
# Package:  litellm==1.110.2
# Expected: a call is priced by what its map of prices has for the tier and for the length of the prompt. Source:
#           LiteLLM's documentation, "Model Cost Map": "_batches, _priority and _flex are the batch and service-tier
#           rates, _above_200k_tokens and _above_272k_tokens are long-context rates".
# Seen:     models of Fireworks cost the standard price in the tier `priority`, and long prompts of Perplexity's
#           models the price of short ones, although their entries have these prices. The calculators of both
#           providers do not look.
# Here:     gateway/assistant_gateway/providers/price_map.py reads both; tests/integration/gateway/test_price_map.py lists where
#           its bill is another than LiteLLM's.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m pip install --quiet --root-user-action ignore --no-compile --no-warn-conflicts \
    --target "$folder" litellm==1.110.2
LITELLM_LOCAL_MODEL_COST_MAP=True PYTHONPATH=$folder python3 - <<'END'
import sys

import litellm

ASKED, ANSWERED = 300_000, 1000
changed = False
for model, tier, variant in (
    ("fireworks_ai/accounts/fireworks/models/deepseek-v4-pro-0813", "priority", "_priority"),
    ("perplexity/xai/grok-4.6", None, "_above_200k_tokens"),
    ("xai/grok-4.6", None, "_above_200k_tokens"),  # the same prices at another provider, whose calculator looks
):
    entry = litellm.model_cost[model]
    standard, expected = (
        ASKED * entry["input_cost_per_token" + end] + ANSWERED * entry["output_cost_per_token" + end]
        for end in ("", variant)
    )
    seen = sum(
        litellm.cost_per_token(
            model=model, prompt_tokens=ASKED, completion_tokens=ANSWERED, service_tier=tier
        )
    )
    print(f"{model}, {ASKED:,} tokens, tier {tier}: expected {expected:.4f} USD, seen {seen:.4f} USD")
    right = expected if model.startswith("xai/") else standard
    changed |= abs(seen - right) > 1e-9
sys.exit("changed: LiteLLM calculates other costs" if changed else 0)
END
