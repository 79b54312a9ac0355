{{- /* What the pods of this chart have in common: broker, operator, and the two that run once. */ -}}

{{- /* Pod-level keys from (dict "root" $ "values" .Values.broker): who the pod runs as, and where. */ -}}
{{- define "keelson.pod" -}}
enableServiceLinks: false
{{- $secrets := list -}}
{{- range concat ((.root.Values.global).imagePullSecrets | default list) (.root.Values.imagePullSecrets | default list) -}}
{{- $secrets = append $secrets (kindIs "string" . | ternary (dict "name" .) .) -}}
{{- end }}
{{- with $secrets | uniq }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.podSecurityContext }}
securityContext: {{- toYaml . | nindent 2 }}
{{- end }}
{{- range $key := list "nodeSelector" "tolerations" "affinity" "priorityClassName" "runtimeClassName" "schedulerName"
  "hostAliases" "dnsPolicy" "dnsConfig" }}
{{- with index $.values $key }}
{{ dict $key . | toYaml }}
{{- end }}
{{- end }}
{{- end -}}

{{- /* Container-level keys from the same. */ -}}
{{- define "keelson.container" -}}
image: {{ include "keelson.image" .root }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
# The program writes the reason of a fatal end; where it could not, the last lines of its log must do.
terminationMessagePolicy: FallbackToLogsOnError
{{- with .values.resources }}
resources: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.containerSecurityContext }}
securityContext: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- /* What only the pods that stay have, from (dict "root" $ "component" "broker" "values" .Values.broker). Spread
constraints without a selector get that of the component. */ -}}
{{- define "keelson.longRunningPod" -}}
serviceAccountName: {{ include "keelson.serviceAccount" . }}
terminationGracePeriodSeconds: {{ .values.terminationGracePeriodSeconds }}
{{- with .values.topologySpreadConstraints }}
topologySpreadConstraints:
{{- $selector := dict "labelSelector" (dict "matchLabels" (include "keelson.selectorLabels" $ | fromYaml)) }}
{{- range . }}
  - {{- merge (dict) . $selector | toYaml | nindent 4 }}
{{- end }}
{{- end }}
{{- with .values.initContainers }}
initContainers: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "keelson.longRunningContainer" -}}
startupProbe: {{- merge (dict "httpGet" (dict "path" "/startupz" "port" "http")) .values.startupProbe | toYaml | nindent 2 }}
livenessProbe: {{- merge (dict "httpGet" (dict "path" "/livez" "port" "http")) .values.livenessProbe | toYaml | nindent 2 }}
readinessProbe: {{- merge (dict "httpGet" (dict "path" "/readyz" "port" "http")) .values.readinessProbe | toYaml | nindent 2 }}
{{- with .values.lifecycle }}
lifecycle: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.extraEnvFrom }}
envFrom: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
