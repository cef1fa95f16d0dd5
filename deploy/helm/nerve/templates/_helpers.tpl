{{- define "nerve.name" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "nerve.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "nerve.labels" -}}
{{ include "nerve.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "nerve.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag }}
{{- end -}}

{{- /* What the server is told by variables: a key of `settings` with the same name would have no effect. */ -}}
{{- define "nerve.env" -}}
- {name: NERVE_CONFIG, value: /etc/nerve/nerve.yaml}
- {name: NERVE_REPOSITORIES, value: {{ include "nerve.repository" . | quote }}}
- {name: NERVE_HTTP_PORT, value: {{ .Values.ports.http | quote }}}
- {name: NERVE_GRPC_PORT, value: {{ .Values.ports.grpc | quote }}}
- {name: NERVE_METRICS_PORT, value: {{ .Values.ports.metrics | quote }}}
- {name: NERVE_LOG_FORMAT, value: {{ .Values.logFormat | quote }}}
- {name: NERVE_SHUTDOWN_DELAY_S, value: {{ .Values.shutdown.delaySeconds | quote }}}
- {name: NERVE_SHUTDOWN_TIMEOUT_S, value: {{ .Values.shutdown.timeoutSeconds | quote }}}
{{- if .Values.tls.secretName }}
- {name: NERVE_CERT_FILE, value: /etc/nerve/tls/tls.crt}
- {name: NERVE_KEY_FILE, value: /etc/nerve/tls/tls.key}
{{- if .Values.tls.clientCa }}
- {name: NERVE_CLIENT_CA_FILE, value: /etc/nerve/tls/ca.crt}
{{- end }}
{{- end }}
{{- if .Values.apiKeys.secretName }}
- {name: NERVE_API_KEYS_FILE, value: {{ printf "/etc/nerve/keys/%s" .Values.apiKeys.key | quote }}}
{{- end }}
{{- if .Values.tracing.enabled }}
- {name: NERVE_ENABLE_OTEL, value: "true"}
- {name: NERVE_OTEL_EXPORTER_URL, value: {{ required "tracing.url is needed with tracing.enabled" .Values.tracing.url | quote }}}
{{- end }}
{{- end -}}

{{- define "nerve.repository" -}}
{{- if and .Values.models.path (has .Values.models.from (list "claim" "newClaim" "volume")) -}}
/models/{{ trimAll "/" .Values.models.path }}
{{- else -}}
/models
{{- end -}}
{{- end -}}

{{- /* The metrics' port wants neither keys nor certificates, which the kubelet does not have. */ -}}
{{- define "nerve.probe" -}}
httpGet: {path: {{ . }}, port: metrics}
{{- end -}}
