{{- define "tidegate.name" -}}
{{- if contains "tidegate" .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-tidegate" (.Release.Name | trunc 40 | trimSuffix "-") }}{{ end }}
{{- end }}

{{- define "tidegate.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "tidegate.selector" -}}
app.kubernetes.io/name: tidegate
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "tidegate.labels" -}}
{{ include "tidegate.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "tidegate.isSidecar" -}}
{{- if eq .Values.edge.mode "sidecar" }}yes{{ else if ne .Values.edge.mode "deployment" }}{{ fail "edge.mode: is sidecar or deployment" }}{{ end }}
{{- end }}

{{- define "tidegate.hasTrunkPort" -}}
{{- if and (not (include "tidegate.isSidecar" .)) (eq .Values.edge.variant "openresty") }}yes{{ end }}
{{- end }}

{{/* config.yaml: of nodes, and of the edge that goes with them. What .Values.config says goes before it. */}}
{{- define "tidegate.config" -}}
{{- $sidecar := include "tidegate.isSidecar" . }}
{{- $server := dict "hosts" (list (required "host: the name by which clients ask" .Values.host)) }}
{{- $trunk := dict }}
{{- $upstreams := list }}
{{- if $sidecar }}
{{- $_ := set $server "socket" "/run/tidegate-node/node.sock" }}
{{- $upstreams = list "unix:/run/tidegate-node/node.sock" }}
{{- else }}
{{- $_ := set $server "address" "0.0.0.0" }}
{{- $upstreams = list (printf "%s-nodes.%s.svc:8000" (include "tidegate.name" .) .Release.Namespace) }}
{{- if include "tidegate.hasTrunkPort" . }}
{{- $_ := set $trunk "address" "0.0.0.0" }}
{{- $_ := set $trunk "port" 8002 }}
{{- end }}
{{- end }}
{{- $edge := dict "nginx" "image" "upstreams" $upstreams "address" "0.0.0.0" "port" 8080 "internal" "0.0.0.0:8081" "run_dir" "/run/tidegate" "tls_dir" "/tls" "workers" 2 }}
{{- if $sidecar }}
{{- $_ := set $edge "trunk" false }}{{/* It would keep clients of a node that ends, and knows none to take them to. */}}
{{- end }}
{{- $_ := set $edge "tls_port" (ternary 8443 0 (ne .Values.edge.tlsSecret "")) }}
{{- if not $sidecar }}
{{- $_ := set $edge "resolver" (required "edge.resolver: the cluster's DNS server, host:port" .Values.edge.resolver) }}
{{- end }}
{{- $keys := list (dict "name" "application" "key_file" "/run/secrets/tidegate/api") }}
{{- $internal := dict "address" "0.0.0.0" "probes_by_address" true "api_keys" $keys "hosts" (list "localhost" "127.0.0.1" (printf "%s-internal" (include "tidegate.name" .)) (printf "%s-internal.%s.svc" (include "tidegate.name" .) .Release.Namespace)) }}
{{- $auth := dict "mode" "jwt" "key_file" "/run/secrets/tidegate/tokens" }}
{{- $ours := dict "server" $server "trunk" $trunk "internal" $internal "auth" $auth "broker" (dict "kind" "redis") "calls" (dict "allow" list) "edge" $edge }}
{{- if .Values.events.enabled }}
{{- $_ := set $ours "events" (dict "enabled" true) }}
{{- end }}
{{- mustMergeOverwrite $ours (deepCopy .Values.config) | toYaml }}
{{- end }}

{{/* Seconds of a drain; and how long a pod may take to end: it lingers, drains, and its edge lets go of what is left. */}}
{{- define "tidegate.drain" -}}
{{- $server := .Values.config.server | default dict }}
{{- $drain := 20 }}
{{- if hasKey $server "drain_s" }}{{ $drain = $server.drain_s }}{{ end }}
{{- $drain | int }}
{{- end }}

{{- define "tidegate.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "tidegate.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* The environment of whatever reads the settings. */}}
{{- define "tidegate.env" -}}
- {name: TIDEGATE_CONFIG, value: /etc/tidegate/config.yaml}
- name: TIDEGATE_BROKER__URL
  valueFrom: {secretKeyRef: {name: {{ required "secret: the name of a Secret that exists" .Values.secret | quote }}, key: redis-url}}
{{- if include "tidegate.hasTrunkPort" . }}
- name: TIDEGATE_TRUNK__KEY
  valueFrom: {secretKeyRef: {name: {{ .Values.secret | quote }}, key: trunk}}
{{- end }}
{{- end }}

{{/* Renders nginx's configuration from the nodes' settings, with the Lua and JavaScript of the same version. */}}
{{- define "tidegate.render" -}}
- name: render
  image: {{ include "tidegate.image" . | quote }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  args: [render, --out, /edge]
  env:
    {{- include "tidegate.env" . | nindent 4 }}
  securityContext:
    {{- include "tidegate.containerSecurity" . | nindent 4 }}
  resources:
    requests: {cpu: 100m, memory: 64Mi}
    limits: {memory: 256Mi}
  volumeMounts:
    - {name: config, mountPath: /etc/tidegate, readOnly: true}
    - {name: edge, mountPath: /edge}
{{- end }}

{{/* .lingerSeconds: how long it takes new connections after it was told to end. */}}
{{- define "tidegate.edge" -}}
{{- $root := .root }}
{{- $variant := $root.Values.edge.variant }}
- name: edge
  image: {{ get $root.Values.edge.images $variant | required "edge.variant: is plain, njs or openresty" | quote }}
  command: [{{ ternary "openresty" "nginx" (eq $variant "openresty") }}, -e, stderr, -c, /edge/conf.d/{{ $variant }}.conf, -g, daemon off;]
  ports:
    - {name: ws, containerPort: 8080}
    {{- if $root.Values.edge.tlsSecret }}
    - {name: wss, containerPort: 8443}
    {{- end }}
    - {name: metrics-edge, containerPort: 8081}
  readinessProbe:
    httpGet: {path: /healthz, port: metrics-edge}
    periodSeconds: 5
  livenessProbe:
    httpGet: {path: /healthz, port: metrics-edge}
    periodSeconds: 10
    failureThreshold: 3
  lifecycle:
    preStop: {exec: {command: [sleep, {{ .lingerSeconds | quote }}]}}
  securityContext:
    {{- include "tidegate.containerSecurity" $root | nindent 4 }}
  resources:
    {{- toYaml $root.Values.edge.resources | nindent 4 }}
  volumeMounts:
    - {name: edge, mountPath: /edge, readOnly: true}
    - {name: run, mountPath: /run/tidegate}
    - {name: cache, mountPath: /var/cache/nginx}
    - {name: tmp, mountPath: /tmp}
    {{- if include "tidegate.isSidecar" $root }}
    - {name: node, mountPath: /run/tidegate-node, readOnly: true}
    {{- end }}
    {{- if $root.Values.edge.tlsSecret }}
    - {name: tls, mountPath: /tls, readOnly: true}
    {{- end }}
{{- end }}

{{- define "tidegate.edgeVolumes" -}}
- name: edge
  emptyDir: {medium: Memory, sizeLimit: 16Mi}
- name: run
  emptyDir: {}
- name: cache
  emptyDir: {}
{{- if .Values.edge.tlsSecret }}
- name: tls
  secret:
    secretName: {{ .Values.edge.tlsSecret | quote }}
    items:
      - {key: tls.crt, path: fullchain.pem}
      - {key: tls.key, path: privkey.pem}
{{- end }}
{{- end }}
