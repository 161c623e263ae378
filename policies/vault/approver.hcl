# managed by jitvault
#
# Approvers read the exact bytes of a task's revision and sign their digest.

# Decisions, written only by their author. A changed decision is an update; nothing is deleted.
path "jitvault/data/decisions/{{identity.entity.id}}/*" {
  capabilities = ["create", "update", "read"]
}

# The groups for which the approver is registered; only administrators write this.
path "jitvault/data/approvers/{{identity.entity.id}}" {
  capabilities = ["read"]
}

# What waits for a decision: the exact bytes of each task's revision.
path "jitvault/data/tasks/*" {
  capabilities = ["read"]
}

path "jitvault/metadata/tasks/*" {
  capabilities = ["list"]
}

# What operators froze: a task that is approved meanwhile is not granted until the freeze is lifted.
path "jitvault/data/freezes/*" {
  capabilities = ["read"]
}

path "jitvault/metadata/freezes/*" {
  capabilities = ["list"]
}

# The approver's own signature only. The path has no hash suffix and only `input` may be sent, so that nobody can
# choose an older version of the key.
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

# The installation's id: a ledger that is read has to belong to this Vault's installation.
path "jitvault/data/installation" {
  capabilities = ["read"]
}
