{{- /* The release's name, with the chart's unless it holds that already; short enough for a pod's suffix. */ -}}
{{- define "spanmill.fullname" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- /* What a stage's pods are found by; these never change. Takes a dict of root and stage, like all below. */ -}}
{{- define "spanmill.selector" -}}
app.kubernetes.io/name: spanmill
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .stage }}
{{- end -}}

{{- define "spanmill.labels" -}}
{{ include "spanmill.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end -}}

{{- define "spanmill.metadata" -}}
name: {{ include "spanmill.fullname" .root }}-{{ .stage }}
labels:
  {{- include "spanmill.labels" . | nindent 2 }}
{{- end -}}
