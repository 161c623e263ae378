# managed by jitvault
#
# The worker: creates task tokens through the token roles, revokes what they hold, and looks up what is left.
# It writes no policy, role or mount, reads no credential, and decides nothing in anybody's name.
# `jitvault init` appends a stanza for each token role (worker-token-role.hcl), each Vault path that a
# template gives (worker-access-path.hcl) and each engine configuration (worker-read-path.hcl).

# Which networks are provisioned, and whether a role still is what was approved.
path "auth/token/roles" {
  capabilities = ["list"]
}

path "auth/token/roles/jitvault-*" {
  capabilities = ["read"]
}

# After each issue: is the token what was asked? Vault hides its warnings inside the wrapping.
path "auth/token/lookup-accessor" {
  capabilities = ["update"]
}

# The end of a task token. Vault cannot scope this to our tokens; the threat model says so.
path "auth/token/revoke-accessor" {
  capabilities = ["update"]
}

# Rolling lives: a task token gets one step at a time, up to its role's cap. By accessor, as it may not be unwrapped yet;
# it cannot be scoped to our tokens either.
path "auth/token/renew-accessor" {
  capabilities        = ["update"]
  required_parameters = ["accessor", "increment"]
}

# The worker's own token: who am I, live on, and end with me.
path "auth/token/lookup-self" {
  capabilities = ["read"]
}

path "auth/token/renew-self" {
  capabilities = ["update"]
}

path "auth/token/revoke-self" {
  capabilities = ["update"]
}

# Hashes of known values: how they are found in the audit stream, and the canary that shows it is live.
path "sys/audit-hash/jitvault" {
  capabilities = ["update"]
}

# Whether a lease still exists. The lease id goes in the body; a lookup by path does not exist.
path "sys/leases/lookup" {
  capabilities = ["update"]
}

# Drift: is the policy that a task holds still the text that was approved?
path "sys/policies/acl/jitvault-access-*" {
  capabilities = ["read"]
}

# Who asked and who approved: whether the entity is enabled, and which of our groups it is in.
path "identity/entity/id/*" {
  capabilities = ["read"]
}

path "identity/entity/name/*" {
  capabilities = ["read"]
}

path "identity/group/name/jitvault-*" {
  capabilities = ["read"]
}

# Requests and decisions are read and never written: only their authors write them.
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

# Who is registered as an approver: administrators write it, the worker counts nobody else.
path "jitvault/data/approvers/*" {
  capabilities = ["read"]
}

path "jitvault/metadata/approvers/*" {
  capabilities = ["list"]
}

# What the worker publishes of each task: the bytes that approvers sign, and the state.
path "jitvault/data/tasks/*" {
  capabilities = ["create", "update", "read"]
}

path "jitvault/metadata/tasks/*" {
  capabilities = ["list", "read", "delete"]
}

# Delivery: put in, never look in. The metadata make a document keep one version and vanish by itself.
path "jitvault/data/inbox/*" {
  capabilities = ["create", "update"]
}

path "jitvault/metadata/inbox/*" {
  capabilities = ["create", "update"]
}

# The probes' own credentials, which the administrator puts there.
path "jitvault/data/probes/*" {
  capabilities = ["read"]
}

# Whether a template's revocation was seen to work: administrators write it, the worker grants by it.
path "jitvault/data/checks/*" {
  capabilities = ["read"]
}

# Which installation this is: it goes into each task token's metadata.
path "jitvault/data/installation" {
  capabilities = ["read"]
}

# Public keys, to check the signatures of people and of earlier receipts.
path "jitvault-transit/keys/jitvault-signer-*" {
  capabilities = ["read"]
}

path "jitvault-transit/keys/jitvault-receipts" {
  capabilities = ["read"]
}

# Receipts and chain heads are signed with the worker's one key. Only `input`: no older key version.
path "jitvault-transit/sign/jitvault-receipts" {
  capabilities       = ["update"]
  allowed_parameters = { "input" = [] }
}
