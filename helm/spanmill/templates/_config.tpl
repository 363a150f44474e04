{{- /* The configuration file's text. */ -}}
{{- define "spanmill.config" -}}
{{- if .Values.configSecret -}}
secret: {{ .Values.configSecret }}
{{- else -}}
{{ toYaml .Values.config }}
{{- end -}}
{{- end -}}
