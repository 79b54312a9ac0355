{{- /* Names, labels and checks. Object names come from the release name alone: it is also the cluster's name. */ -}}
{{- define "keelson.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "keelson.broker" -}}{{ .Release.Name }}-broker{{- end -}}
{{- define "keelson.headless" -}}{{ .Release.Name }}-broker-headless{{- end -}}
{{- define "keelson.identity" -}}{{ .Release.Name }}-broker-identity{{- end -}}
{{- define "keelson.bootstrap" -}}{{ .Release.Name }}-bootstrap{{- end -}}
{{- define "keelson.operator" -}}{{ .Release.Name }}-operator{{- end -}}
{{- define "keelson.uninstall" -}}{{ .Release.Name }}-uninstall{{- end -}}
{{- /* Cluster-scoped objects carry the namespace, so that equal releases in two namespaces do not meet. */ -}}
{{- define "keelson.clusterScoped" -}}keelson:{{ .Release.Namespace }}:{{ .Release.Name }}-operator{{- end -}}

{{- /* A name from (dict "root" $ "name" … "namespace" …); in another namespace than the release's with that of the release,
so that equal releases do not meet there. */ -}}
{{- define "keelson.nameIn" -}}
{{- .name -}}{{- if ne (.namespace | default .root.Release.Namespace) .root.Release.Namespace }}-{{ .root.Release.Namespace }}{{ end -}}
{{- end -}}

{{- /* From (dict "root" $ "component" "broker"): the account that the component's pods run under. */ -}}
{{- define "keelson.serviceAccount" -}}
{{- $account := (index .root.Values .component).serviceAccount -}}
{{- $account.name | default ($account.create | ternary (printf "%s-%s" .root.Release.Name .component) "default") -}}
{{- end -}}

{{- /* From (dict "root" $ "component" "broker"). Part of selectors: never changes. */ -}}
{{- define "keelson.selectorLabels" -}}
app.kubernetes.io/name: {{ include "keelson.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- /* The metadata of an object, from (dict "root" $ "component" "broker" "name" … ) and, where there are any, "namespace"
and the object's own "labels" and "annotations". What selectors are made of is overridden by nothing. */ -}}
{{- define "keelson.metadata" -}}
{{- $standard := dict
  "app.kubernetes.io/version" .root.Chart.AppVersion
  "app.kubernetes.io/part-of" "keelson"
  "app.kubernetes.io/managed-by" .root.Release.Service
  "helm.sh/chart" (printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_") -}}
{{- $selector := include "keelson.selectorLabels" . | fromYaml -}}
name: {{ include "keelson.nameIn" . | quote }}
{{- with .namespace }}
namespace: {{ . }}
{{- end }}
labels: {{- merge (dict) $selector (.labels | default dict) .root.Values.commonLabels $standard | toYaml | nindent 2 }}
{{- with merge (dict) (.annotations | default dict) .root.Values.commonAnnotations }}
annotations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- /* The metadata of a pod template, from (dict "root" $ "component" "broker") and perhaps "annotations". The version is
not in it: a new chart alone restarts nothing. */ -}}
{{- define "keelson.podMetadata" -}}
{{- $values := index .root.Values .component | default dict -}}
{{- $selector := include "keelson.selectorLabels" . | fromYaml -}}
labels: {{- merge (dict) $selector ($values.podLabels | default dict) .root.Values.commonLabels | toYaml | nindent 2 }}
{{- with merge (dict) (.annotations | default dict) ($values.podAnnotations | default dict) .root.Values.commonAnnotations }}
annotations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "keelson.image" -}}
{{- with .Values.image -}}
{{- with .registry | default ($.Values.global).imageRegistry }}{{ . }}/{{ end }}{{ .repository }}
{{- if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end -}}
{{- end -}}
{{- end -}}

{{- /* What the clients of the external listener are told, where the chart can know it; else the operator tells it. */ -}}
{{- define "keelson.externalAdvertised" -}}
{{- with .Values.broker.listeners.external -}}
{{- if .enabled -}}
{{- $host := .advertisedHost -}}
{{- if contains ":" $host -}}{{- $host = printf "[%s]" $host -}}{{- end -}}
{{- if eq .type "NodePort" -}}
,EXTERNAL://{{ $host | default "$(HOST_IP)" }}:{{ int .nodePort }}
{{- else if $host -}}
,EXTERNAL://{{ $host }}:{{ int .port }}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- define "keelson.toldByOperator" -}}
{{- with .Values.broker.listeners.external -}}
{{- if and .enabled (eq .type "LoadBalancer") (not .advertisedHost) -}}true{{- end -}}
{{- end -}}
{{- end -}}

{{- /* A YAML number arrives as a float; a property wants its digits. */ -}}
{{- define "keelson.property" -}}
{{- if kindIs "float64" . }}{{ int64 . }}{{ else }}{{ . }}{{ end -}}
{{- end -}}

{{- /* The namespaces that the operator watches, as JSON: [{"name": …, "prefix": …}, …]. */ -}}
{{- define "keelson.namespaces" -}}
{{- $all := list -}}
{{- range .Values.operator.watchNamespaces | default (list .Release.Namespace) -}}
{{- $all = append $all (kindIs "string" . | ternary (dict "name" .) .) -}}
{{- end -}}
{{- $all | toJson -}}
{{- end -}}

{{- /* The same as arguments of `keelson-operator run` and `release`. */ -}}
{{- define "keelson.namespaceArguments" -}}
{{- if .Values.operator.allNamespaces }}
- --all-namespaces
{{- else }}
{{- range fromJsonArray (include "keelson.namespaces" .) }}
- --namespace={{ .name }}{{ with .prefix }}={{ . }}{{ end }}
{{- end }}
{{- end }}
{{- end -}}

{{- /* What reconciling takes, as RBAC rules. */ -}}
{{- define "keelson.reconcileRules" -}}
# Resources are read, never created or deleted. They are patched for the finalizer, and a ConsumerGroup for the annotation
# in which earlier resets are remembered; the rest is status.
- apiGroups: [keelson.dev]
  resources: [topics, consumergroups]
  verbs: [get, list, watch, patch]
- apiGroups: [keelson.dev]
  resources: [topics/status, consumergroups/status]
  verbs: [get, patch]
- apiGroups: ["", events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end -}}

{{- /* The metadata of what exists only while `helm uninstall` begins, from (dict "root" $ "name" … "weight" "0"). */ -}}
{{- define "keelson.uninstallMetadata" -}}
{{- $hook := dict "helm.sh/hook" "pre-delete" "helm.sh/hook-weight" .weight
  "helm.sh/hook-delete-policy" "before-hook-creation,hook-succeeded" -}}
{{- include "keelson.metadata" (dict "root" .root "component" "uninstall" "name" .name "annotations" $hook) -}}
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
{{- range $key := list "listeners" "advertised.listeners" "listener.security.protocol.map" "http.listen" "keelson.known.dir" "keelson.termination.message.path" -}}
{{- if hasKey $.Values.broker.config $key -}}
{{- fail (printf "broker.config: the chart sets %s itself%s" $key (contains "listener" $key | ternary "; broker.listeners.external adds a listener" "")) -}}
{{- end -}}
{{- end -}}
{{- with .Values.broker.listeners.external -}}
{{- if and .enabled (eq .type "NodePort") (not .nodePort) -}}
{{- fail "broker.listeners.external.nodePort is not set: with type NodePort clients are told the port, so that it must be known" -}}
{{- end -}}
{{- $ignored := dict -}}
{{- if ne .type "LoadBalancer" -}}
{{- $ignored = dict "loadBalancerClass" .loadBalancerClass "loadBalancerSourceRanges" .loadBalancerSourceRanges
  "allocateLoadBalancerNodePorts" (not .allocateLoadBalancerNodePorts) -}}
{{- end -}}
{{- if eq .type "ClusterIP" -}}
{{- $ignored = merge (dict "nodePort" .nodePort "externalTrafficPolicy" (ne .externalTrafficPolicy "Local")) $ignored -}}
{{- if and .enabled (not .advertisedHost) -}}
{{- fail "broker.listeners.external.advertisedHost is not set: with type ClusterIP nobody else knows what clients reach it by" -}}
{{- end -}}
{{- end -}}
{{- range $key, $set := $ignored -}}
{{- if and $.Values.broker.listeners.external.enabled $set -}}
{{- fail (printf "broker.listeners.external.%s has no effect with type %s" $key $.Values.broker.listeners.external.type) -}}
{{- end -}}
{{- end -}}
{{- if and .enabled (eq .type "LoadBalancer") (not .advertisedHost) (not $.Values.operator.enabled) -}}
{{- fail "broker.listeners.external.advertisedHost is not set, and without the operator nobody tells the broker what address its load balancer got" -}}
{{- end -}}
{{- end -}}
{{- if and .Values.operator.allNamespaces .Values.operator.watchNamespaces -}}
{{- fail "operator.allNamespaces and operator.watchNamespaces exclude each other" -}}
{{- end -}}
{{- $seen := dict -}}
{{- range fromJsonArray (include "keelson.namespaces" .) -}}
{{- if hasKey $seen .name -}}
{{- fail (printf "operator.watchNamespaces has %q twice" .name) -}}
{{- end -}}
{{- $_ := set $seen .name true -}}
{{- end -}}
{{- if hasKey .Values.monitoring.prometheusRule.ruleLabels "severity" -}}
{{- fail "monitoring.prometheusRule.ruleLabels has severity, which each alert has of its own" -}}
{{- end -}}
{{- if and .Values.monitoring.serviceMonitor.enabled .Values.monitoring.podMonitor.enabled -}}
{{- fail "monitoring.serviceMonitor and monitoring.podMonitor exclude each other: everything would be scraped twice" -}}
{{- end -}}
{{- range $component := list "broker" "operator" -}}
{{- if and (index $.Values.networkPolicy $component).extraEgress (not $.Values.networkPolicy.restrictEgress) -}}
{{- fail (printf "networkPolicy.%s.extraEgress has no effect without networkPolicy.restrictEgress" $component) -}}
{{- end -}}
{{- end -}}
{{- end -}}
