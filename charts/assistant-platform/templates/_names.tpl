{{- /*
Names and labels. Objects have fixed names: the parts find each other by them, and a second installation in one
cluster, whose operator would fight with the first, fails at the cluster-scoped ones.
*/ -}}

{{- define "platform.routesNamespace" -}}
{{ .Release.Namespace }}-routes
{{- end }}

{{- /* What selects the pods of a part: list root name */ -}}
{{- define "platform.selector" -}}
app.kubernetes.io/name: {{ index . 1 }}
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
{{- end }}

{{- /* Labels of a pod: no versions, so that an upgrade of the chart restarts only what changed: list root name */ -}}
{{- define "platform.podLabels" -}}
{{ include "platform.selector" . }}
app.kubernetes.io/part-of: assistant-platform
{{- end }}

{{- /* All labels of an object of a part: list root name */ -}}
{{- define "platform.labels" -}}
{{- $root := index . 0 -}}
{{ include "platform.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: assistant-platform
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ $root.Chart.Name }}-{{ $root.Chart.Version }}
{{- end }}

{{- /* Image of a part of ours: list root part */ -}}
{{- define "platform.image" -}}
{{- $root := index . 0 -}}
{{- $part := index . 1 -}}
{{- with (index $root.Values $part).image -}}
{{ . }}
{{- else -}}
{{ $root.Values.image.registry }}/{{ $part }}:{{ $root.Values.image.tag | default $root.Chart.AppVersion }}
{{- end -}}
{{- end }}

{{- /* Address of a Service in the platform namespace: list root service */ -}}
{{- define "platform.host" -}}
{{ index . 1 }}.{{ (index . 0).Release.Namespace }}.svc
{{- end }}
