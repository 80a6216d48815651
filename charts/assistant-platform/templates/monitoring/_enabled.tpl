{{- /* Whether a part of `monitoring` is to be there, "true" or "false": list root part */ -}}
{{- define "platform.monitoring" -}}
{{- $root := index . 0 -}}
{{- $enabled := (index $root.Values.monitoring (index . 1)).enabled -}}
{{- if eq (toString $enabled) "auto" -}}
{{- $root.Capabilities.APIVersions.Has "monitoring.coreos.com/v1/PrometheusRule" -}}
{{- else -}}
{{- $enabled -}}
{{- end -}}
{{- end }}
