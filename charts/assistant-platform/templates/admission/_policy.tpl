{{- /* A policy without parameters denies wherever it matches: list root name */ -}}
{{- define "platform.denyBinding" -}}
{{- $name := index . 1 -}}
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata:
  name: {{ $name }}
  labels: {{- include "platform.labels" (list (index . 0) "assistant-admission") | nindent 4 }}
spec:
  policyName: {{ $name }}
  validationActions: [Deny]
{{- end }}

{{- define "platform.policyMeta" -}}
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata:
  name: {{ index . 1 }}
  labels: {{- include "platform.labels" (list (index . 0) "assistant-admission") | nindent 4 }}
{{- end }}
