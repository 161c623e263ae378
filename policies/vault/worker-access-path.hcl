
# Leases of $path: late ones are found by listing (which needs sudo), and each is revoked by its path.
# A lease_id in the body would override the one in the path, so it is denied.
path "sys/leases/lookup/$path/*" {
  capabilities = ["list", "sudo"]
}

path "sys/leases/revoke/$path/*" {
  capabilities      = ["update"]
  denied_parameters = { "lease_id" = [] }
}

# Renewed by path in small steps, so that leases expire soon without a worker.
path "sys/leases/renew/$path/*" {
  capabilities        = ["update"]
  required_parameters = ["increment"]
  denied_parameters   = { "lease_id" = [] }
}

# Only on an operator's signed request: Vault forgets a lease that its backend cannot revoke (this needs sudo). The act is
# in the audit stream, and after it only the target can prove the lease's end.
path "sys/leases/revoke-force/$path/*" {
  capabilities = ["update", "sudo"]
}
