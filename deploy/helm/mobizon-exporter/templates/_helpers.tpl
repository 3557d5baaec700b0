{{- define "mobizon-exporter.selector" -}}
app.kubernetes.io/name: mobizon-exporter
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "mobizon-exporter.labels" -}}
{{ include "mobizon-exporter.selector" . }}
# Also the name of the Prometheus job, by which the alert rules know the exporter.
app.kubernetes.io/part-of: mobizon
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- /*
A manifest of deploy/kubernetes (files/ has links to them), named and labelled for this release. Takes `root`, `file`,
and where they are wanted `suffix` for the name and more `labels`.
*/}}
{{- define "mobizon-exporter.manifest" -}}
{{- $manifest := .root.Files.Get (printf "files/%s.yaml" .file) | fromYaml }}
{{- $metadata := $manifest.metadata }}
{{- $labels := include "mobizon-exporter.labels" .root | fromYaml }}
{{- $_ := set $metadata "name" (printf "%s%s" .root.Release.Name (.suffix | default "")) }}
{{- $_ := set $metadata "labels" (merge (dict) (.labels | default dict) $labels ($metadata.labels | default dict)) }}
{{- toYaml $manifest }}
{{- end }}
