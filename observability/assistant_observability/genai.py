"""Attribute and metric names of OpenTelemetry's semantic conventions for generative AI.

Source: the `gen_ai` registry of the OpenTelemetry semantic conventions.
"""

from __future__ import annotations

OPERATION_NAME = "gen_ai.operation.name"
PROVIDER_NAME = "gen_ai.provider.name"
REQUEST_MODEL = "gen_ai.request.model"
REQUEST_MAX_TOKENS = "gen_ai.request.max_tokens"
RESPONSE_MODEL = "gen_ai.response.model"
RESPONSE_FINISH_REASONS = "gen_ai.response.finish_reasons"
USAGE_INPUT_TOKENS = "gen_ai.usage.input_tokens"
USAGE_OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
ERROR_TYPE = "error.type"

# Ours, where the conventions have no word.
TENANT = "assistantplatform.tenant"
ASSISTANT = "assistantplatform.assistant"
KNOWLEDGE_BASE = "assistantplatform.knowledge_base"
PURPOSE = "assistantplatform.purpose"
