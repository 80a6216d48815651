{{- /* Where the stores are: the chart's own, or yours. `store` below is postgres, redis or weaviate. */ -}}

{{- /* Name of the Secret with a store's address and credentials: list root store */ -}}
{{- define "platform.storeSecret" -}}
{{- $root := index . 0 -}}
{{- $store := index . 1 -}}
{{- if (index $root.Values.embedded $store).enabled -}}
assistant-{{ $store }}
{{- else -}}
{{ required (printf "embedded.%s.enabled is false: name the Secret of your own in external.%s.existingSecret" $store $store) (index $root.Values.external $store).existingSecret }}
{{- end -}}
{{- end }}

{{- /* A setting of an external store that must be there: list root store setting example */ -}}
{{- define "platform.externalSetting" -}}
{{- $root := index . 0 -}}
{{- $store := index . 1 -}}
{{- $setting := index . 2 -}}
{{ required (printf "embedded.%s.enabled is false: set external.%s.%s (such as %s), under which tenants' pods reach it" $store $store $setting (index . 3)) (index (index $root.Values.external $store) $setting) }}
{{- end }}

{{- define "platform.postgresAddress" -}}
{{- if .Values.embedded.postgres.enabled -}}
{{ include "platform.host" (list . "assistant-postgres") }}:5432
{{- else -}}
{{ include "platform.externalSetting" (list . "postgres" "tenantAddress" "db.example.com:5432") }}
{{- end -}}
{{- end }}

{{- define "platform.redisAddress" -}}
{{- if .Values.embedded.redis.enabled -}}
{{ include "platform.host" (list . "assistant-redis") }}:6379
{{- else -}}
{{ include "platform.externalSetting" (list . "redis" "tenantAddress" "redis.example.com:6379") }}
{{- end -}}
{{- end }}

{{- define "platform.weaviateUrl" -}}
{{- if .Values.embedded.weaviate.enabled -}}
http://{{ include "platform.host" (list . "assistant-weaviate") }}:8080
{{- else -}}
{{ include "platform.externalSetting" (list . "weaviate" "tenantUrl" "https://weaviate.example.com") }}
{{- end -}}
{{- end }}

{{- define "platform.weaviateGrpc" -}}
{{- if .Values.embedded.weaviate.enabled -}}
{{ include "platform.host" (list . "assistant-weaviate") }}:50051
{{- else -}}
{{ include "platform.externalSetting" (list . "weaviate" "tenantGrpc" "weaviate.example.com:50051") }}
{{- end -}}
{{- end }}

{{- /* Ports of an external store as the pods see them, one per line: list root store */ -}}
{{- define "platform.externalPorts" -}}
{{- $root := index . 0 -}}
{{- $store := index . 1 -}}
{{- if eq $store "weaviate" -}}
{{ include "platform.urlPort" (include "platform.weaviateUrl" $root) }}
{{ include "platform.addressPort" (include "platform.weaviateGrpc" $root) }}
{{- else -}}
{{ include "platform.addressPort" (include (printf "platform.%sAddress" $store) $root) }}
{{- end -}}
{{- end }}

{{- /* External stores as the operator writes them into tenants' NetworkPolicies: JSON, [{cidr, ports}] */ -}}
{{- define "platform.tenantEgress" -}}
{{- $root := . -}}
{{- $ways := list -}}
{{- range list "postgres" "redis" "weaviate" -}}
{{- $store := . -}}
{{- if not (index $root.Values.embedded $store).enabled -}}
{{- $ports := list -}}
{{- range splitList "\n" (include "platform.externalPorts" (list $root $store)) | uniq -}}
{{- $ports = append $ports (int .) -}}
{{- end -}}
{{- range include "platform.externalCidrs" (list $root $store) | fromJsonArray -}}
{{- $ways = append $ways (dict "cidr" . "ports" $ports) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{ toJson $ways }}
{{- end }}

{{- /* Addresses of an external store, all of them where none are given: list root store; JSON */ -}}
{{- define "platform.externalCidrs" -}}
{{ (index (index . 0).Values.external (index . 1)).cidrs | default (list "0.0.0.0/0" "::/0") | toJson }}
{{- end }}

{{- define "platform.addressPort" -}}
{{ regexFind "[0-9]+$" . }}
{{- end }}

{{- define "platform.urlPort" -}}
{{- $port := regexFind ":[0-9]+$" (get (urlParse .) "host") | trimPrefix ":" -}}
{{ $port | default (ternary "443" "80" (hasPrefix "https:" .)) }}
{{- end }}

{{- /*
A password that stays over upgrades: what the Secret holds, or a new one. `lookup` finds nothing when a chart is only
rendered (helm template, GitOps tools): name Secrets of your own there, or the password changes with each rendering.
Arguments: list root secret key
*/ -}}
{{- define "platform.password" -}}
{{- $root := index . 0 -}}
{{- $live := lookup "v1" "Secret" $root.Release.Namespace (index . 1) | default dict -}}
{{- with get (get $live "data" | default dict) (index . 2) -}}
{{ b64dec . }}
{{- else -}}
{{ randAlphaNum 32 }}
{{- end -}}
{{- end }}
