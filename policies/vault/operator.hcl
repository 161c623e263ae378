# managed by jitvault
#
# Operators write signed requests under their own entity and fetch what is delivered to them.
# They create no token and revoke no lease; the worker does that, once it has verified the request.

# Requests, written only by their author. Vault replaces the expression by the entity's id.
path "jitvault/data/requests/{{identity.entity.id}}/*" {
  capabilities = ["create", "update", "read"]
}

# Deleting own requests. It ends the task: one that was not granted is cancelled, one that holds access is ended. A
# request that is written again is a new request and cannot grant the task twice, since the ledger knows every task.
path "jitvault/metadata/requests/{{identity.entity.id}}/*" {
  capabilities = ["list", "delete"]
}

# Freezes and lifts, written only by their author; every operator can read them.
path "jitvault/data/freezes/{{identity.entity.id}}/*" {
  capabilities = ["create", "update", "read"]
}

path "jitvault/data/freezes/*" {
  capabilities = ["read"]
}

path "jitvault/metadata/freezes/*" {
  capabilities = ["list"]
}

# What the worker delivered to this operator, deleted once it is fetched.
path "jitvault-inbox/data/{{identity.entity.id}}/*" {
  capabilities = ["read"]
}

path "jitvault-inbox/metadata/{{identity.entity.id}}/*" {
  capabilities = ["delete"]
}

# The published state of every task.
path "jitvault/data/tasks/*" {
  capabilities = ["read"]
}

path "jitvault/metadata/tasks/*" {
  capabilities = ["list"]
}

# Which templates passed their check; the others grant nothing.
path "jitvault/data/checks/*" {
  capabilities = ["read"]
}

# The operator's own signature only. The path has no hash suffix and only `input` may be sent, so that nobody can
# choose an older version of the key.
path "jitvault-transit/sign/jitvault-signer-{{identity.entity.id}}" {
  capabilities       = ["update"]
  allowed_parameters = { "input" = [] }
}

# To check that a network is provisioned before a request names it.
path "auth/token/roles/jitvault-*" {
  capabilities = ["read"]
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

# The installation's id, which is part of every signed request; a ledger that is read has to belong to it.
path "jitvault/data/installation" {
  capabilities = ["read"]
}
