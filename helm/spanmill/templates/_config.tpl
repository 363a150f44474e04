{{- /* The configuration file's text, which decides whether pods are replaced. That of tenants isn't in it. */ -}}
{{- define "spanmill.config" -}}
{{- if .Values.configSecret -}}
secret: {{ .Values.configSecret }}
{{- else -}}
{{- $config := .Values.config -}}
{{- if .Values.tenants -}}
{{- if dig "overrides" "per_tenant_override_config" "" $config -}}
{{- fail "tenants is the file that config.overrides.per_tenant_override_config names; set one of them" -}}
{{- end -}}
{{- $named := dict "overrides" (dict "per_tenant_override_config" "/etc/spanmill/overrides.yaml") -}}
{{- $config = mergeOverwrite (deepCopy $config) $named -}}
{{- end -}}
{{ toYaml $config }}
{{- end -}}
{{- end -}}

{{- /* What is in /etc/spanmill, as a ConfigMap's data. */ -}}
{{- define "spanmill.configData" -}}
spanmill.yaml: |
  {{- include "spanmill.config" . | nindent 2 }}
{{- if .Values.tenants }}
overrides.yaml: |
  {{- dict "overrides" .Values.tenants | toYaml | nindent 2 }}
{{- end }}
{{- end -}}
