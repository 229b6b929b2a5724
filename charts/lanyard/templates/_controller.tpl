{{/* Says something where a controller is at work, and does not only plan. */}}
{{- define "lanyard.controllerRuns" -}}
{{- if and .Values.controller.enabled (not .Values.controller.dryRun) }}yes{{ end }}
{{- end }}

{{/* Do agents wait for AzureAssignments? */}}
{{- define "lanyard.assignments" -}}
{{- if .Values.agent.assignments }}
{{- .Values.agent.assignments }}
{{- else if include "lanyard.controllerRuns" . }}
{{- "required" }}
{{- else }}
{{- "ignored" }}
{{- end }}
{{- end }}

{{/* The tenant that the controller signs in to. */}}
{{- define "lanyard.controllerTenant" -}}
{{- default .Values.azure.tenantID .Values.controller.azure.tenantID }}
{{- end }}

{{/* Says something where the controller signs in by what a Secret holds. */}}
{{- define "lanyard.controllerSecret" -}}
{{- if has .Values.controller.azure.auth (list "certificate" "secret") }}yes{{ end }}
{{- end }}

{{/* Says something where the controller asks IMDS: from a pod's network the agent would answer, and refuse. */}}
{{- define "lanyard.controllerOnHost" -}}
{{- if eq .Values.controller.azure.auth "nodeIdentity" }}yes{{ end }}
{{- end }}

{{- define "lanyard.controllerLabels" -}}
{{ include "lanyard.labels" . }}
app.kubernetes.io/component: controller
{{- end }}

{{- define "lanyard.controllerSelector" -}}
{{ include "lanyard.selector" . }}
app.kubernetes.io/component: controller
{{- end }}
