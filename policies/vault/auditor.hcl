# managed by jitvault
#
# Auditors read every request, decision and task, and the public keys that verify their signatures.
# They read no inbox, since it has wrapping tokens.

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

# Public halves only: the keys are not exportable. The list has whose keys `jitvault export-keys` takes.
path "jitvault-transit/keys/*" {
  capabilities = ["read", "list"]
}

# The installation's id: a ledger that is read has to belong to this Vault's installation.
path "jitvault/data/installation" {
  capabilities = ["read"]
}

# For `jitvault export-keys`: the id of jitvault's namespace, and of the entities that the worker logs in as.
path "identity/group/name/jitvault-auditors" {
  capabilities = ["read"]
}

path "identity/entity/name/*" {
  capabilities = ["read"]
}
