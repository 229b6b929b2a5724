//! Azure's world and the cluster's objects for the trials of sources.

/// Azure's side.
pub const WORLD: &str = "
tenant: {id: 72f988bf-0000-4000-8000-00000000000a}
identities:
  - name: payments
    clientID: 11111111-1111-4111-8111-111111111111
    principalID: aaaaaaaa-1111-4111-8111-111111111111
    resourceID: /subscriptions/5d9c1e00-0000-4000-8000-000000000001/resourceGroups/shop/providers/Microsoft.ManagedIdentity/userAssignedIdentities/payments
    federatedCredentials:
      - {name: cluster, issuer: 'https://kubernetes.default.svc', subject: 'system:serviceaccount:shop:payments'}
applications:
  - {name: app, clientID: 33333333-3333-4333-8333-333333333333, principalID: 33333333-0000-4333-8333-333333333333, secrets: [canary~first-client-secret]}
vms:
  - {name: node-1, sources: [10.0.0.0/8], location: westeurope, identities: [payments]}
";

/// The cluster's side, without pods, Secrets and rights.
pub const OBJECTS: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {team: shop}}
---
apiVersion: lanyard.dev/v1alpha1
kind: AzureIdentityPolicy
metadata: {name: shop}
spec:
  namespaces: {matchLabels: {team: shop}}
  resourceIDPrefixes: [/subscriptions/5d9c1e00-0000-4000-8000-000000000001/resourceGroups/shop]
  clientIDs: [33333333-3333-4333-8333-333333333333]
---
apiVersion: lanyard.dev/v1alpha1
kind: AzureIdentity
metadata: {name: app, namespace: shop}
spec:
  clientID: 33333333-3333-4333-8333-333333333333
  tenantID: 72f988bf-0000-4000-8000-00000000000a
  tokenSources:
  - servicePrincipal: {secretRef: {name: app}}
---
apiVersion: lanyard.dev/v1alpha1
kind: AzureIdentity
metadata: {name: payments, namespace: shop}
spec:
  clientID: 11111111-1111-4111-8111-111111111111
  tenantID: 72f988bf-0000-4000-8000-00000000000a
  resourceID: /subscriptions/5d9c1e00-0000-4000-8000-000000000001/resourceGroups/shop/providers/Microsoft.ManagedIdentity/userAssignedIdentities/payments
  tokenSources:
  - federated: {}
  - imds: {}
---
apiVersion: lanyard.dev/v1alpha1
kind: AzureIdentityBinding
metadata: {name: app, namespace: shop}
spec:
  identity: app
  subjects: [{podSelector: {matchLabels: {app: app}}}]
---
apiVersion: lanyard.dev/v1alpha1
kind: AzureIdentityBinding
metadata: {name: payments, namespace: shop}
spec:
  identity: payments
  subjects: [{podSelector: {matchLabels: {app: payments}}}]
";

/// What the chart renders for `agent.secrets: [{namespace: shop, names: [app]}]`.
pub const MAY_READ: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: lanyard-secrets, namespace: shop}
rules:
- {apiGroups: [''], resources: [secrets], resourceNames: [app], verbs: [get, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: lanyard-secrets, namespace: shop}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: lanyard-secrets}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: lanyard-agents}]
";

/// And for `agent.federated.namespaces: [shop]`; the second lets Entra read the issuer's keys.
pub const MAY_ASK: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: lanyard-federated, namespace: shop}
rules:
- {apiGroups: [''], resources: [serviceaccounts/token], verbs: [create]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: lanyard-federated, namespace: shop}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: lanyard-federated}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: lanyard-agents}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: issuer-discovery}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: 'system:service-account-issuer-discovery'}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: 'system:unauthenticated'}]
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: payments, namespace: shop}
";
