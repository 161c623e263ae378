
# The engine configuration that decides what a credential can do; a change of it is drift.
path "$path" {
  capabilities = ["read"]
}
