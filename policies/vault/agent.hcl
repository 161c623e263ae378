# managed by jitvault
#
# Agents fetch wrapping tokens from their inbox and request the end of their tasks.

# The end of a task, signed by the agent.
path "jitvault/data/requests/{{identity.entity.id}}/+/end" {
  capabilities = ["create", "update", "read"]
}

# The agent's own requests. The worker's policies permit only delegation of a part of its task's access.
path "jitvault/data/requests/{{identity.entity.id}}/+/submit" {
  capabilities = ["create", "update", "read"]
}

path "jitvault/data/requests/{{identity.entity.id}}/+/grant" {
  capabilities = ["create", "update", "read"]
}

# More time for the agent's task. The worker's policies permit that only if they name agents.
path "jitvault/data/requests/{{identity.entity.id}}/+/extend" {
  capabilities = ["create", "update", "read"]
}

# Deleting own requests. It ends the task: one that was not granted is cancelled, one that holds access is ended. A
# request that is written again is a new request and cannot grant the task twice, since the ledger knows every task.
path "jitvault/metadata/requests/{{identity.entity.id}}/*" {
  capabilities = ["list", "delete"]
}

# To check that a network is provisioned before the agent delegates access to it.
path "auth/token/roles/jitvault-*" {
  capabilities = ["read"]
}

# What the worker delivered to this agent, deleted once it is fetched.
path "jitvault-inbox/data/{{identity.entity.id}}/*" {
  capabilities = ["read"]
}

# The names are listed for a task's id that was misspelt.
path "jitvault-inbox/metadata/{{identity.entity.id}}/*" {
  capabilities = ["list", "delete"]
}

# The state of a task whose name the agent knows; no listing.
path "jitvault/data/tasks/*" {
  capabilities = ["read"]
}

# The access templates that the worker uses, to ask by.
path "jitvault/data/templates" {
  capabilities = ["read"]
}

# The agent's own signature only. The path has no hash suffix and only `input` may be sent, so that nobody can choose
# an older version of the key.
path "jitvault-transit/sign/jitvault-signer-{{identity.entity.id}}" {
  capabilities       = ["update"]
  allowed_parameters = { "input" = [] }
}

# The public half of the receipts' key: without a ledger only a receipt vouches for a published task.
path "jitvault-transit/keys/jitvault-receipts" {
  capabilities = ["read"]
}

# To learn the own entity id, which is part of the paths above.
path "auth/token/lookup-self" {
  capabilities = ["read"]
}

# The own entity, by whose name specs and policies know the caller.
path "identity/entity/id/{{identity.entity.id}}" {
  capabilities = ["read"]
}

# The agent's own login: renewed while it works, revoked when it is done.
path "auth/token/renew-self" {
  capabilities = ["update"]
}

path "auth/token/revoke-self" {
  capabilities = ["update"]
}

# An ordinary client names the wrapping token in the request's body when it looks it up and unwraps it.
path "sys/wrapping/lookup" {
  capabilities = ["update"]
}

path "sys/wrapping/unwrap" {
  capabilities = ["update"]
}

# Only the worker renews credentials. Vault's `default` policy lets everybody renew every lease whose id they know, by
# either of these paths. A denial in one policy of a token overrides what its other policies allow.
path "sys/leases/renew" {
  capabilities = ["deny"]
}

path "sys/leases/renew/*" {
  capabilities = ["deny"]
}

path "sys/renew" {
  capabilities = ["deny"]
}

path "sys/renew/*" {
  capabilities = ["deny"]
}

# The installation's id: a ledger that is read has to belong to this Vault's installation.
path "jitvault/data/installation" {
  capabilities = ["read"]
}
