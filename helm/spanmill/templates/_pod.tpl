{{- define "spanmill.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}

{{- define "spanmill.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "spanmill.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{- /*
The volume with spanmill.yaml, and that of tenants beside it. Takes a dict of root and configMap. It is mounted as a
directory, never file by file (subPath): only so does kubelet bring a running pod what has changed.
*/ -}}
{{- define "spanmill.configVolume" -}}
name: config
{{- if .root.Values.configSecret }}
{{- if .root.Values.tenants }}
{{- fail "tenants needs config; with configSecret, put their file into the Secret and name it in its spanmill.yaml" }}
{{- end }}
secret:
  secretName: {{ .root.Values.configSecret }}
{{- else }}
configMap:
  name: {{ .configMap }}
{{- end }}
{{- end -}}

{{- /*
The pod template of a stage. Takes a dict of root, stage, settings (the stage's values), ports (a map of names to
numbers, beside that of the own metrics) and member: true for stages whose pods keep their names, which are then their
names in the consumer group, so that a pod which restarts gets its partitions back without moving anyone else's.
*/ -}}
{{- define "spanmill.pod" -}}
{{- $root := .root -}}
metadata:
  labels:
    {{- include "spanmill.labels" . | nindent 4 }}
    {{- with $root.Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    checksum/config: {{ include "spanmill.config" $root | sha256sum }}
    {{- with $root.Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  {{- $asks := and .member $root.Values.leaveOnScaleDown | empty | not }}
  automountServiceAccountToken: {{ $asks }}
  {{- if $asks }}
  serviceAccountName: {{ include "spanmill.fullname" $root }}-scale-down
  {{- end }}
  {{- with $root.Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  terminationGracePeriodSeconds: {{ $root.Values.terminationGracePeriodSeconds }}
  securityContext:
    {{- include "spanmill.podSecurityContext" $root | nindent 4 }}
  initContainers:
    # The root file system is read-only, and numba needs a cache that it may write to: it begins with the image's.
    - name: kernels
      image: {{ include "spanmill.image" $root }}
      imagePullPolicy: {{ $root.Values.image.pullPolicy }}
      command: [cp, --recursive, /var/cache/spanmill/., /kernels]
      securityContext:
        {{- include "spanmill.securityContext" $root | nindent 8 }}
      resources:
        requests: {cpu: 50m, memory: 32Mi}
        limits: {memory: 64Mi}
      volumeMounts:
        - name: kernels
          mountPath: /kernels
  containers:
    - name: {{ .stage }}
      image: {{ include "spanmill.image" $root }}
      imagePullPolicy: {{ $root.Values.image.pullPolicy }}
      args: [{{ .stage }}, --config.file=/etc/spanmill/spanmill.yaml]
      env:
        - name: NUMBA_CACHE_DIR
          value: /kernels
        {{- if .member }}
        - name: SPANMILL_INSTANCE_ID
          valueFrom:
            fieldRef:
              fieldPath: metadata.name
        {{- if $asks }}
        - name: SPANMILL_STATEFULSET
          value: {{ include "spanmill.fullname" $root }}-{{ .stage }}
        {{- end }}
        {{- end }}
      ports:
        - name: http
          containerPort: 3200
        {{- range $name, $port := .ports }}
        - name: {{ $name }}
          containerPort: {{ $port }}
        {{- end }}
      # Compiling, recovering and waiting for Kafka are no reason to be killed, only to be given no work yet.
      startupProbe:
        httpGet: {path: /healthz, port: http}
        periodSeconds: 5
        timeoutSeconds: 5
        failureThreshold: 36
      livenessProbe:
        httpGet: {path: /healthz, port: http}
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 6
      readinessProbe:
        httpGet: {path: /readyz, port: http}
        periodSeconds: 5
        timeoutSeconds: 5
      securityContext:
        {{- include "spanmill.securityContext" $root | nindent 8 }}
      resources:
        {{- toYaml .settings.resources | nindent 8 }}
      volumeMounts:
        - name: config
          mountPath: /etc/spanmill
          readOnly: true
        - name: data
          mountPath: /var/lib/spanmill
        - name: kernels
          mountPath: /kernels
        - name: tmp
          mountPath: /tmp
  volumes:
    - {{- include "spanmill.configVolume" (dict "root" $root "configMap" (include "spanmill.fullname" $root)) | nindent 6 }}
    # All state is in Kafka: what is here may go with the pod.
    - name: data
      emptyDir: {}
    - name: kernels
      emptyDir: {}
    - name: tmp
      emptyDir: {}
  {{- with $root.Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $root.Values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $root.Values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}
