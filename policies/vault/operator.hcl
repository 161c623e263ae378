# managed by jitvault
#
# Operators ask: they write signed requests under their own entity and fetch what is delivered to them.
# They create no token and revoke no lease; the worker does, once it has checked the request.

# Requests, by their author alone. Vault puts the entity's id in place of the expression.
path "jitvault/data/requests/{{identity.entity.id}}/*" {
  capabilities = ["create", "update", "read"]
}

# Their removal, by the author alone. It ends what was asked for: a task that was not granted is cancelled, one that
# holds access is ended. Nothing is granted twice by it: what is written anew is another request, and the ledger knows
# every task that there was.
path "jitvault/metadata/requests/{{identity.entity.id}}/*" {
  capabilities = ["list", "delete"]
}

# Freezes and their end, by their author alone; every operator sees what is frozen.
path "jitvault/data/freezes/{{identity.entity.id}}/*" {
  capabilities = ["create", "update", "read"]
}

path "jitvault/data/freezes/*" {
  capabilities = ["read"]
}

path "jitvault/metadata/freezes/*" {
  capabilities = ["list"]
}

# What the worker delivered to this operator, and its removal once it is fetched.
path "jitvault/data/inbox/{{identity.entity.id}}/*" {
  capabilities = ["read"]
}

path "jitvault/metadata/inbox/{{identity.entity.id}}/*" {
  capabilities = ["delete"]
}

# The state of every task, as the worker publishes it.
path "jitvault/data/tasks/*" {
  capabilities = ["read"]
}

path "jitvault/metadata/tasks/*" {
  capabilities = ["list"]
}

# Which templates passed their check: nothing is granted by the others.
path "jitvault/data/checks/*" {
  capabilities = ["read"]
}

# The operator's own signature, and nobody else's. The path has no hash suffix, and only `input` may be
# sent: an older version of the key cannot be chosen.
path "jitvault-transit/sign/jitvault-signer-{{identity.entity.id}}" {
  capabilities       = ["update"]
  allowed_parameters = { "input" = [] }
}

# Whether a network is provisioned, before a request asks for it.
path "auth/token/roles/jitvault-*" {
  capabilities = ["read"]
}

# The public half of the key of receipts: without a ledger a receipt is all that vouches for what is published.
path "jitvault-transit/keys/jitvault-receipts" {
  capabilities = ["read"]
}

# Who am I: the entity id is part of the paths above.
path "auth/token/lookup-self" {
  capabilities = ["read"]
}

# Which installation a request is for: it is part of what is signed.
path "jitvault/data/installation" {
  capabilities = ["read"]
}
