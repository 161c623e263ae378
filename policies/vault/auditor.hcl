# managed by jitvault
#
# Auditors look: every request, decision and task, and the public keys that check their signatures.
# No inbox: wrapping tokens wait there.

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

# Which templates passed their check: nothing is granted by the others.
path "jitvault/data/checks/*" {
  capabilities = ["read"]
}

# Public halves only: the keys are not exportable.
path "jitvault-transit/keys/*" {
  capabilities = ["read"]
}
