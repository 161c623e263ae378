# managed by jitvault
#
# The worker creates task tokens through the token roles, revokes them and their leases, and looks both up.
# It writes no policy, role or mount, reads no credential, and signs nothing in anybody's name.
# `jitvault init` appends a stanza for each token role (worker-token-role.hcl), each Vault path that a
# template gives (worker-access-path.hcl) and each engine configuration (worker-read-path.hcl).

# Which networks are provisioned, and whether a role is still the approved one.
path "auth/token/roles" {
  capabilities = ["list"]
}

path "auth/token/roles/jitvault-*" {
  capabilities = ["read"]
}

# To compare each new token with what was requested, since Vault hides its warnings inside the wrapping.
path "auth/token/lookup-accessor" {
  capabilities = ["update"]
}

# Revoking a task token. Vault cannot limit this to jitvault's tokens (see the threat model).
path "auth/token/revoke-accessor" {
  capabilities = ["update"]
}

# A task token is renewed by one step at a time, up to its role's cap. By accessor, since the token may still be wrapped;
# Vault cannot limit this to jitvault's tokens either.
path "auth/token/renew-accessor" {
  capabilities        = ["update"]
  required_parameters = ["accessor", "increment"]
}

# The worker's own token: look-up, renewal, and revocation at the worker's exit.
path "auth/token/lookup-self" {
  capabilities = ["read"]
}

path "auth/token/renew-self" {
  capabilities = ["update"]
}

path "auth/token/revoke-self" {
  capabilities = ["update"]
}

# What its own token may do: asked at its start, each hour, and by `jitvault doctor`.
path "sys/capabilities-self" {
  capabilities = ["update"]
}

# HMACs of known values, to find them in the audit stream; and the canary, which shows that the stream is live.
path "sys/audit-hash/jitvault" {
  capabilities = ["update"]
}

# Whether a lease still exists. The lease id is in the body; Vault has no look-up by path.
path "sys/leases/lookup" {
  capabilities = ["update"]
}

# To detect drift: does a task's policy still have the approved text?
path "sys/policies/acl/jitvault-access-*" {
  capabilities = ["read"]
}

# Requesters and approvers: is the entity enabled, and in which of jitvault's groups is it?
path "identity/entity/id/*" {
  capabilities = ["read"]
}

path "identity/entity/name/*" {
  capabilities = ["read"]
}

path "identity/group/name/jitvault-*" {
  capabilities = ["read"]
}

# Requests and decisions: the worker reads them; only their authors write them.
path "jitvault/data/requests/*" {
  capabilities = ["read"]
}

path "jitvault/metadata/requests/*" {
  capabilities = ["list"]
}

path "jitvault/data/decisions/*" {
  capabilities = ["read"]
}

path "jitvault/metadata/decisions/*" {
  capabilities = ["list"]
}

path "jitvault/data/freezes/*" {
  capabilities = ["read"]
}

path "jitvault/metadata/freezes/*" {
  capabilities = ["list"]
}

# Registered approvers, written by administrators. The worker counts nobody else.
path "jitvault/data/approvers/*" {
  capabilities = ["read"]
}

path "jitvault/metadata/approvers/*" {
  capabilities = ["list"]
}

# What the worker publishes of each task: its state, and the bytes that approvers sign.
path "jitvault/data/tasks/*" {
  capabilities = ["create", "update", "read"]
}

path "jitvault/metadata/tasks/*" {
  capabilities = ["list", "read", "delete"]
}

# Delivery: write only, never read. The mount keeps one version of a document and deletes it by itself, and nothing that
# the worker writes changes that or keeps it from the next delivery.
path "jitvault-inbox/data/*" {
  capabilities = ["create", "update"]
}

# The probes' own credentials, written by an administrator.
path "jitvault/data/probes/*" {
  capabilities = ["read"]
}

# Results of template checks, written by administrators. Without a passed one the worker grants nothing.
path "jitvault/data/checks/*" {
  capabilities = ["read"]
}

# The templates in use, published for agents.
path "jitvault/data/templates" {
  capabilities = ["create", "update", "read"]
}

# The installation's id, which is in each task token's metadata.
path "jitvault/data/installation" {
  capabilities = ["read"]
}

# Public keys, to verify the signatures of people and of earlier receipts.
path "jitvault-transit/keys/jitvault-signer-*" {
  capabilities = ["read"]
}

path "jitvault-transit/keys/jitvault-receipts" {
  capabilities = ["read"]
}

# Receipts and chain heads are signed with one key. Only `input` may be sent, so that no older key version is used.
path "jitvault-transit/sign/jitvault-receipts" {
  capabilities       = ["update"]
  allowed_parameters = { "input" = [] }
}
