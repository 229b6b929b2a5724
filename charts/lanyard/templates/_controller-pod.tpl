{{/* The controller's pod: of the Deployment, or of the Job that only plans. */}}
{{- define "lanyard.controllerPod" -}}
{{- $name := printf "%s-controller" (include "lanyard.fullname" .) }}
{{- $azure := .Values.controller.azure }}
metadata:
  labels:
    {{- with .Values.controller.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    {{- include "lanyard.controllerLabels" . | nindent 4 }}
  annotations:
    kubectl.kubernetes.io/default-container: controller
    {{- if and .Values.controller.metrics.annotations (not .Values.controller.dryRun) }}
    prometheus.io/scrape: "true"
    prometheus.io/port: {{ .Values.controller.metrics.port | quote }}
    prometheus.io/path: /metrics
    {{- end }}
    {{- with trim .Values.azure.caBundle }}
    # Read at start: another bundle is another controller.
    lanyard.dev/azure-ca: {{ sha256sum . | trunc 16 | quote }}
    {{- end }}
    {{- with .Values.controller.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ $name }}
  {{- include "lanyard.pullSecrets" . | nindent 2 }}
  {{- if include "lanyard.controllerOnHost" . }}
  # A pod's request to IMDS would be the agent's to answer; only the node itself may ask for the node's identity.
  hostNetwork: true
  dnsPolicy: ClusterFirstWithHostNet
  {{- end }}
  priorityClassName: {{ .Values.controller.priorityClassName }}
  {{- if .Values.controller.dryRun }}
  restartPolicy: Never
  {{- end }}
  # A request to Azure that is under way is waited for before the lease is given back.
  terminationGracePeriodSeconds: 30
  securityContext:
    # Group of the mounted credentials: not root, and yet they can be read.
    fsGroup: 65532
  {{- with .Values.controller.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.controller.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  topologySpreadConstraints:
    - maxSkew: 1
      topologyKey: kubernetes.io/hostname
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "lanyard.controllerSelector" . | nindent 10 }}
  containers:
    - name: controller
      image: {{ include "lanyard.image" . }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      args:
        - controller
        - --namespace=$(NAMESPACE)
        - --lease-name={{ $name }}
        - --removal-marker={{ include "lanyard.fullname" . }}-removal
        {{- if .Values.agent.hostNetworkPods.enabled }}
        - --host-network-pods=true
        {{- end }}
        - --cloud={{ .Values.azure.cloud }}
        {{- with .Values.azure.armEndpoint }}
        - --arm-endpoint={{ . }}
        {{- end }}
        {{- with .Values.azure.authorityHost }}
        - --authority-host={{ . }}
        {{- end }}
        {{- with .Values.azure.imdsEndpoint }}
        - --imds-endpoint={{ . }}
        {{- end }}
        {{- if trim .Values.azure.caBundle }}
        - --azure-ca-file=/etc/lanyard/azure-ca/ca.crt
        {{- end }}
        - --auth={{ $azure.auth }}
        {{- with $azure.clientID }}
        - --client-id={{ . }}
        {{- end }}
        {{- with include "lanyard.controllerTenant" . }}
        - --tenant-id={{ . }}
        {{- end }}
        {{- if include "lanyard.controllerSecret" . }}
        - --credential-dir=/etc/lanyard/credential
        {{- else if eq $azure.auth "federated" }}
        - --federated-token-file=/etc/lanyard/federated/token
        {{- end }}
        - --debounce={{ .Values.controller.debounce }}
        - --removal-grace={{ .Values.controller.removalGrace }}
        - --drift-interval={{ .Values.controller.driftInterval }}
        - --operation-timeout={{ .Values.controller.operationTimeout }}
        - --metrics-address={{ ternary "$(POD_IP)" "0.0.0.0" (eq (include "lanyard.controllerOnHost" .) "yes") }}:{{ .Values.controller.metrics.port }}
        {{- if .Values.controller.dryRun }}
        - --dry-run
        {{- end }}
        - --log-level={{ .Values.controller.log.level }}
        - --log-format={{ .Values.controller.log.format }}
        {{- with .Values.controller.extraArgs }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      env:
        - name: NAMESPACE
          valueFrom:
            fieldRef:
              fieldPath: metadata.namespace
        - name: LANYARD_POD_NAME
          valueFrom:
            fieldRef:
              fieldPath: metadata.name
        - name: POD_IP
          valueFrom:
            fieldRef:
              fieldPath: status.podIP
        {{- with .Values.azure.httpsProxy }}
        - name: HTTPS_PROXY
          value: {{ . | quote }}
        {{- end }}
        {{- with .Values.azure.noProxy }}
        - name: NO_PROXY
          value: {{ . | quote }}
        {{- end }}
        {{- with .Values.controller.extraEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- if not .Values.controller.dryRun }}
      ports:
        # On the host's network it is the node's, and keeps a second replica off.
        - name: metrics
          containerPort: {{ .Values.controller.metrics.port }}
      startupProbe:
        httpGet:
          port: metrics
          path: /livez
        periodSeconds: 1
        timeoutSeconds: 3
        failureThreshold: 60
      livenessProbe:
        httpGet:
          port: metrics
          path: /livez
        periodSeconds: 15
        timeoutSeconds: 5
        failureThreshold: 4
      # One that waits for the lease is ready, too.
      readinessProbe:
        httpGet:
          port: metrics
          path: /readyz
        periodSeconds: 5
        timeoutSeconds: 3
      {{- end }}
      resources:
        {{- toYaml .Values.controller.resources | nindent 8 }}
      securityContext:
        {{- include "lanyard.confined" . | nindent 8 }}
      {{- if or (trim .Values.azure.caBundle) (not (include "lanyard.controllerOnHost" .)) }}
      volumeMounts:
        {{- if include "lanyard.controllerSecret" . }}
        - name: credential
          mountPath: /etc/lanyard/credential
          readOnly: true
        {{- else if eq $azure.auth "federated" }}
        - name: federated
          mountPath: /etc/lanyard/federated
          readOnly: true
        {{- end }}
        {{- if trim .Values.azure.caBundle }}
        - name: azure-ca
          mountPath: /etc/lanyard/azure-ca
          readOnly: true
        {{- end }}
      {{- end }}
  {{- if or (trim .Values.azure.caBundle) (not (include "lanyard.controllerOnHost" .)) }}
  volumes:
    {{- if include "lanyard.controllerSecret" . }}
    # A folder, not files by their names: a renewed credential is then seen without a restart.
    - name: credential
      secret:
        secretName: {{ $azure.secretName }}
        defaultMode: 256 # 0400
    {{- else if eq $azure.auth "federated" }}
    - name: federated
      projected:
        defaultMode: 256 # 0400
        sources:
          - serviceAccountToken:
              path: token
              audience: api://AzureADTokenExchange
              expirationSeconds: 3600
    {{- end }}
    {{- if trim .Values.azure.caBundle }}
    - name: azure-ca
      configMap:
        name: {{ include "lanyard.fullname" . }}-azure-ca
    {{- end }}
  {{- end }}
{{- end }}
