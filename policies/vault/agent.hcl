# managed by jitvault
#
# Agents use what was granted: they fetch it from their inbox, and say when they are done.

# The end of a task, signed by the agent.
path "jitvault/data/requests/{{identity.entity.id}}/+/end" {
  capabilities = ["create", "update", "read"]
}

# What the agent asks for: to hand a part of its task's access on. The worker's policies permit it nothing else.
path "jitvault/data/requests/{{identity.entity.id}}/+/submit" {
  capabilities = ["create", "update", "read"]
}

path "jitvault/data/requests/{{identity.entity.id}}/+/grant" {
  capabilities = ["create", "update", "read"]
}

# More time for a task that the agent has; the worker's policies permit it only where they name agents.
path "jitvault/data/requests/{{identity.entity.id}}/+/extend" {
  capabilities = ["create", "update", "read"]
}

# Their removal, by the author alone. It ends what was asked for: a task that was not granted is cancelled, one that
# holds access is ended. Nothing is granted twice by it: what is written anew is another request, and the ledger knows
# every task that there was.
path "jitvault/metadata/requests/{{identity.entity.id}}/*" {
  capabilities = ["list", "delete"]
}

# Whether a network is provisioned, before a part of a task is asked for from there.
path "auth/token/roles/jitvault-*" {
  capabilities = ["read"]
}

# What the worker delivered to this agent, and its removal once it is fetched.
path "jitvault/data/inbox/{{identity.entity.id}}/*" {
  capabilities = ["read"]
}

path "jitvault/metadata/inbox/{{identity.entity.id}}/*" {
  capabilities = ["delete"]
}

# The state of a task whose name the agent knows; no listing.
path "jitvault/data/tasks/*" {
  capabilities = ["read"]
}

# The agent's own signature, and nobody else's. The path has no hash suffix, and only `input` may be
# sent: an older version of the key cannot be chosen.
path "jitvault-transit/sign/jitvault-signer-{{identity.entity.id}}" {
  capabilities       = ["update"]
  allowed_parameters = { "input" = [] }
}

# The public half of the key of receipts: without a ledger a receipt is all that vouches for what is published.
path "jitvault-transit/keys/jitvault-receipts" {
  capabilities = ["read"]
}

# Who am I: the entity id is part of the paths above.
path "auth/token/lookup-self" {
  capabilities = ["read"]
}

# The agent's own login: renewed while it works, revoked when it is done.
path "auth/token/renew-self" {
  capabilities = ["update"]
}

path "auth/token/revoke-self" {
  capabilities = ["update"]
}

# What was delivered, looked at and opened by an ordinary client, which names the wrapping token in the request's body.
path "sys/wrapping/lookup" {
  capabilities = ["update"]
}

path "sys/wrapping/unwrap" {
  capabilities = ["update"]
}

# How long a credential lives is the worker's to say. Vault's `default` policy lets everybody renew every lease whose id
# they know, by either of these paths; a denial in one of a token's policies beats what the others allow.
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
