{{- /* Resources, with the GPU's in both places, where Kubernetes wants them equal. */ -}}
{{- define "nerve.resources" -}}
{{- $resources := deepCopy .Values.resources -}}
{{- if .Values.gpu.enabled -}}
{{- range $side := list "requests" "limits" -}}
{{- $_ := set $resources $side (merge (dict $.Values.gpu.resource $.Values.gpu.count) (default dict (get $resources $side))) -}}
{{- end -}}
{{- end -}}
{{ toYaml $resources }}
{{- end -}}

{{- define "nerve.modelVolume" -}}
{{- if eq .Values.models.from "claim" -}}
persistentVolumeClaim: {claimName: {{ required "models.claim.name is needed with models.from: claim" .Values.models.claim.name }}}
{{- else if eq .Values.models.from "newClaim" -}}
persistentVolumeClaim: {claimName: {{ include "nerve.name" . }}-models}
{{- else if eq .Values.models.from "image" -}}
emptyDir: {}
{{- else -}}
{{ toYaml (required "models.volume is needed with models.from: volume" .Values.models.volume) }}
{{- end -}}
{{- end -}}
