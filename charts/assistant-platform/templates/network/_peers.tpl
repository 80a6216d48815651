{{- /* The named ways of the NetworkPolicies. Each is a list of rules' items. */ -}}

{{- define "platform.toDNS" -}}
- ports: [{protocol: UDP, port: 53}, {protocol: TCP, port: 53}]
  {{- with .Values.networkPolicies.dns }}
  to: {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}

{{- define "platform.toAPIServer" -}}
- to:
    {{- include "platform.ipBlocks" (list . .Values.networkPolicies.apiServer.cidrs) | nindent 4 }}
  ports:
    {{- range .Values.networkPolicies.apiServer.ports }}
    - {port: {{ . }}}
    {{- end }}
{{- end }}

{{- /*
Ranges of addresses: list root cidrs. `networkPolicies.never` is taken out of "everywhere"; a narrower range is meant as
it is written, and Kubernetes refuses an exception outside of it.
*/ -}}
{{- define "platform.ipBlocks" -}}
{{- $root := index . 0 -}}
{{- range index . 1 }}
- ipBlock:
    cidr: {{ . | quote }}
    {{- if has . (list "0.0.0.0/0" "::/0") }}
    {{- $six := contains ":" . }}
    {{- $except := list }}
    {{- range $root.Values.networkPolicies.never }}
    {{- if eq $six (contains ":" .) }}
    {{- $except = append $except . }}
    {{- end }}
    {{- end }}
    {{- with $except }}
    except: {{ toJson . }}
    {{- end }}
    {{- end }}
{{- end }}
{{- end }}

{{- /* To a part of ours: list root name ports */ -}}
{{- define "platform.toPart" -}}
- to:
    - podSelector:
        matchLabels: {{- include "platform.selector" . | nindent 10 }}
  ports:
    {{- range index . 2 }}
    - {port: {{ . }}}
    {{- end }}
{{- end }}

{{- /* To a store, embedded or external: list root store ports-of-the-embedded */ -}}
{{- define "platform.toStore" -}}
{{- $root := index . 0 -}}
{{- $store := index . 1 -}}
{{- if (index $root.Values.embedded $store).enabled -}}
{{ include "platform.toPart" (list $root (printf "assistant-%s" $store) (index . 2)) }}
{{- else -}}
- to:
    {{- include "platform.ipBlocks" (list $root (include "platform.externalCidrs" (list $root $store) | fromJsonArray)) | nindent 4 }}
  ports:
    {{- range splitList "\n" (include "platform.externalPorts" (list $root $store)) | uniq }}
    - {port: {{ . }}}
    {{- end }}
{{- end }}
{{- end }}

{{- /* From parts of ours: list root names... as list items of `from` */ -}}
{{- define "platform.fromParts" -}}
{{- $root := index . 0 -}}
{{- range index . 1 }}
- podSelector:
    matchLabels: {{- include "platform.selector" (list $root .) | nindent 6 }}
{{- end }}
{{- end }}

{{- /* From tenants' pods, in any namespace: what they may do there is for their credentials to say. */ -}}
{{- define "platform.fromTenants" -}}
- namespaceSelector: {}
  podSelector:
    matchLabels: {app.kubernetes.io/managed-by: assistant-operator}
{{- end }}

{{- /* Metrics, from the namespaces that carry the label; tenants' NetworkPolicies go by the same. */ -}}
{{- define "platform.fromMonitoring" -}}
- from:
    - namespaceSelector:
        matchLabels: {assistantplatform.io/monitoring: "true"}
  ports: [{port: 9090}]
{{- end }}

{{- /* To an OTLP collector, as tenants' pods reach it too: the URL's port, in the namespace of its Service if it is one */ -}}
{{- define "platform.toTelemetry" -}}
{{- with .Values.telemetry.otlpEndpoint }}
- ports: [{port: {{ include "platform.urlPort" . }}}]
  {{- $labels := splitList "." (regexReplaceAll ":[0-9]+$" (get (urlParse .) "host") "") }}
  {{- if and (gt (len $labels) 2) (eq (index $labels 2) "svc") }}
  to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: {{ index $labels 1 }}}}}]
  {{- end }}
{{- end }}
{{- end }}

{{- define "platform.policyHead" -}}
{{- $root := index . 0 -}}
{{- $name := index . 1 -}}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ $name }}
  labels: {{- include "platform.labels" (list $root $name) | nindent 4 }}
spec:
  podSelector:
    matchLabels: {{- include "platform.selector" (list $root $name) | nindent 6 }}
  policyTypes: [Ingress, Egress]
{{- end }}
