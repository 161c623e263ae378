
# Task tokens of role $role, only in a response wrapping: the bounds make Vault refuse a bare token.
# Only these parameters, so that no request can set another type, period, id or alias.
path "auth/token/create/$role" {
  capabilities        = ["update"]
  required_parameters = ["policies", "meta", "ttl"]
  allowed_parameters  = { "policies" = [], "meta" = [], "ttl" = [] }
  min_wrapping_ttl    = "5s"
  max_wrapping_ttl    = "600s"
}

# Tokens of $role whose accessor was lost in a crash: found by listing (which needs sudo) and revoked by path.
# A lease_id in the body would override the one in the path, so it is denied.
path "sys/leases/lookup/auth/token/create/$role/*" {
  capabilities = ["list", "sudo"]
}

path "sys/leases/revoke/auth/token/create/$role/*" {
  capabilities      = ["update"]
  denied_parameters = { "lease_id" = [] }
}

# The kill switch: every token of $role at once (this needs sudo). Each is proven dead by itself afterwards.
path "sys/leases/revoke-prefix/auth/token/create/$role" {
  capabilities = ["update", "sudo"]
}
