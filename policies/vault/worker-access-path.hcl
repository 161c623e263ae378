
# Leases of $path: late ones are found by listing (Vault asks for sudo) and each is revoked by path.
# A lease_id in the body would override the one in the path, so it is denied.
path "sys/leases/lookup/$path/*" {
  capabilities = ["list", "sudo"]
}

path "sys/leases/revoke/$path/*" {
  capabilities      = ["update"]
  denied_parameters = { "lease_id" = [] }
}

# And renewed by path, in small steps: so that it dies soon without us.
path "sys/leases/renew/$path/*" {
  capabilities        = ["update"]
  required_parameters = ["increment"]
  denied_parameters   = { "lease_id" = [] }
}

# Only when an operator signed for it: Vault forgets a lease that its backend cannot revoke (it asks for sudo). The line
# of it stands in the audit stream, and nothing but the target can prove the lease's end after it.
path "sys/leases/revoke-force/$path/*" {
  capabilities = ["update", "sudo"]
}
