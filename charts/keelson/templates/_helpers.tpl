{{- /* Names and labels. Object names come from the release name alone: it is also the cluster's name. */ -}}
{{- define "keelson.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "keelson.broker" -}}{{ .Release.Name }}-broker{{- end -}}
{{- define "keelson.headless" -}}{{ .Release.Name }}-broker-headless{{- end -}}
{{- define "keelson.bootstrap" -}}{{ .Release.Name }}-bootstrap{{- end -}}
{{- define "keelson.operator" -}}{{ .Release.Name }}-operator{{- end -}}
{{- define "keelson.uninstall" -}}{{ .Release.Name }}-uninstall{{- end -}}
{{- /* Cluster-scoped objects carry the namespace, so that equal releases in two namespaces do not meet. */ -}}
{{- define "keelson.clusterScoped" -}}keelson:{{ .Release.Namespace }}:{{ .Release.Name }}-operator{{- end -}}

{{- /* Call with (dict "root" $ "component" "broker"). Part of selectors: never changes. */ -}}
{{- define "keelson.selectorLabels" -}}
app.kubernetes.io/name: {{ include "keelson.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "keelson.labels" -}}
{{ include "keelson.selectorLabels" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: keelson
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "keelson.image" -}}
{{- with .Values.image -}}
{{- if .registry }}{{ .registry }}/{{ end }}{{ .repository }}
{{- if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end -}}
{{- end -}}
{{- end -}}

{{- /* Restricted Pod Security: the pod's half and the container's half. */ -}}
{{- define "keelson.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "keelson.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{- /* A YAML number arrives as a float; a property wants its digits. */ -}}
{{- define "keelson.property" -}}
{{- if kindIs "float64" . }}{{ int64 . }}{{ else }}{{ . }}{{ end -}}
{{- end -}}

{{- define "keelson.namespaces" -}}
{{- .Values.operator.watchNamespaces | default (list .Release.Namespace) | uniq | toJson -}}
{{- end -}}

{{- /* What reconciling takes, as RBAC rules. */ -}}
{{- define "keelson.reconcileRules" -}}
# Resources are read, never created or deleted. A Topic is patched for its finalizer only; the rest is status.
- apiGroups: [keelson.dev]
  resources: [topics]
  verbs: [get, list, watch, patch]
- apiGroups: [keelson.dev]
  resources: [consumergroups]
  verbs: [get, list, watch]
- apiGroups: [keelson.dev]
  resources: [topics/status, consumergroups/status]
  verbs: [get, patch]
- apiGroups: ["", events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end -}}

{{- /* Annotations of what exists only while `helm uninstall` begins. */ -}}
{{- define "keelson.uninstallHook" -}}
helm.sh/hook: pre-delete
helm.sh/hook-weight: {{ .weight | quote }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end -}}

{{- /* Scheduling, from (dict "values" .Values.broker "root" $). */ -}}
{{- define "keelson.scheduling" -}}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end -}}

{{- /* What the schema cannot say, or says without the reason. */ -}}
{{- define "keelson.check" -}}
{{- if gt (int .Values.broker.replicas) 1 -}}
{{- fail (printf "broker.replicas is %d: only one broker is supported, since brokers do not replicate to each other in this version; a second one would share nothing with the first" (int .Values.broker.replicas)) -}}
{{- end -}}
{{- if not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" .Release.Name) -}}
{{- fail (printf "the release name %q cannot name services: it must start with a letter and have only a-z, 0-9 and -" .Release.Name) -}}
{{- end -}}
{{- if gt (len .Release.Name) 40 -}}
{{- fail (printf "the release name %q has more than 40 characters: pod and service names made from it would be too long" .Release.Name) -}}
{{- end -}}
{{- if and .Values.operator.allNamespaces .Values.operator.watchNamespaces -}}
{{- fail "operator.allNamespaces and operator.watchNamespaces exclude each other" -}}
{{- end -}}
{{- end -}}
