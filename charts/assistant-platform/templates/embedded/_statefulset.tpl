{{- /*
What the three StatefulSets share: one pod with one volume. Changed start scripts roll it. Arguments: list root store.
What is particular to a store's container is in `platform.<store>Container`.
*/ -}}
{{- define "platform.statefulSet" -}}
{{- $root := index . 0 -}}
{{- $store := index . 1 -}}
{{- $name := printf "assistant-%s" $store -}}
{{- $values := index $root.Values.embedded $store -}}
apiVersion: apps/v1
kind: StatefulSet
metadata:
  name: {{ $name }}
  labels: {{- include "platform.labels" (list $root $name) | nindent 4 }}
spec:
  serviceName: {{ $name }}
  replicas: 1
  selector:
    matchLabels: {{- include "platform.selector" (list $root $name) | nindent 6 }}
  template:
    metadata:
      labels: {{- include "platform.podLabels" (list $root $name) | nindent 8 }}
      annotations:
        assistantplatform.io/start-scripts: {{ include "platform.scriptsDigest" (list $root $store) | quote }}
        {{- with $values.podAnnotations }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    spec:
      automountServiceAccountToken: false
      enableServiceLinks: false
      securityContext: {{- include "platform.podSecurity" $root | nindent 8 }}
      terminationGracePeriodSeconds: 60
      {{- include "platform.placement" (list $root $values) | nindent 6 }}
      containers:
        - name: {{ $store }}
          image: {{ $values.image }}
          imagePullPolicy: {{ $root.Values.image.pullPolicy }}
          securityContext: {{- include "platform.containerSecurity" $root | nindent 12 }}
          resources: {{- toYaml $values.resources | nindent 12 }}
          {{- include (printf "platform.%sContainer" $store) $root | nindent 10 }}
      volumes:
        - {name: tmp, emptyDir: {}}
        - {name: run, emptyDir: {}}
        - name: secrets
          secret: {secretName: {{ $name }}, defaultMode: 0440}
        - name: scripts
          configMap: {name: assistant-store-scripts}
  volumeClaimTemplates:
    - apiVersion: v1
      kind: PersistentVolumeClaim
      metadata:
        name: data
      spec:
        accessModes: [ReadWriteOnce]
        {{- with $values.storage.className }}
        storageClassName: {{ . }}
        {{- end }}
        resources: {requests: {storage: {{ $values.storage.size }}}}
{{- end }}

{{- define "platform.scriptsDigest" -}}
{{ ((index . 0).Files.Glob (printf "files/%s-*.sh" (index . 1))).AsConfig | sha256sum | trunc 16 }}
{{- end }}

{{- /* A Service of an embedded store: list root store ports, where ports is a map name -> number */ -}}
{{- define "platform.storeService" -}}
{{- $root := index . 0 -}}
{{- $name := printf "assistant-%s" (index . 1) -}}
apiVersion: v1
kind: Service
metadata:
  name: {{ $name }}
  labels: {{- include "platform.labels" (list $root $name) | nindent 4 }}
spec:
  selector: {{- include "platform.selector" (list $root $name) | nindent 4 }}
  ports:
    {{- range $port, $number := index . 2 }}
    - {name: {{ $port }}, port: {{ $number }}, targetPort: {{ $port }}}
    {{- end }}
{{- end }}
