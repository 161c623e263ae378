# managed by jitvault
#
# Approvers decide: they read the bytes that a task would be granted by, and sign their digest.

# Decisions, by their author alone. Changing one's mind is an update; nothing is deleted.
path "jitvault/data/decisions/{{identity.entity.id}}/*" {
  capabilities = ["create", "update", "read"]
}

# For which groups the approver is registered; administrators write it.
path "jitvault/data/approvers/{{identity.entity.id}}" {
  capabilities = ["read"]
}

# What there is to decide: the exact bytes of each task's revision.
path "jitvault/data/tasks/*" {
  capabilities = ["read"]
}

path "jitvault/metadata/tasks/*" {
  capabilities = ["list"]
}

# The approver's own signature, and nobody else's. The path has no hash suffix, and only `input` may be
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
