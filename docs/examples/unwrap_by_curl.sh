#!/bin/sh
# As unwrap.sh, without bao: curl needs VAULT_ADDR and VAULT_TOKEN (and CURL_CA_BUNDLE for a CA of your own).
# psql needs PGHOST, PGPORT and PGDATABASE.
#
#     unwrap_by_curl.sh TASK
set -eu
# before the wrapping is taken, which works once
: "${1:?names the task}" "${VAULT_ADDR:?}" "${VAULT_TOKEN:?}" "${PGHOST:?}" "${PGPORT:?}" "${PGDATABASE:?}"
field() { sed -n "s/.*\"$1\": *\"\([^\"]*\)\".*/\1/p"; }
# by whose token, how, and what; the token is on standard input
ask() { printf 'X-Vault-Token: %s\n' "$1" | curl -fsS -H @- -X "$2" "$VAULT_ADDR/v1/$3"; }

entity=$(ask "$VAULT_TOKEN" GET auth/token/lookup-self | field entity_id)
wrapping=$(ask "$VAULT_TOKEN" GET "jitvault-inbox/data/$entity/$1" | field token)
[ -n "$wrapping" ] || { echo "the inbox has no token of task $1" >&2; exit 1; }
# Somebody may have put another wrapping in its place. One that cannot be looked up is opened all the same: the refusal shows
# jitvault that somebody was first. A look-up by the wrapping token itself would use it up.
case $(printf '{"token":"%s"}' "$wrapping" | curl -fsS -d @- "$VAULT_ADDR/v1/sys/wrapping/lookup" | field creation_path) in
auth/token/create/jitvault-* | "") ;;
*) echo "this wrapping token is not jitvault's, and was not opened: tell the operator" >&2; exit 1 ;;
esac
token=$(ask "$wrapping" POST sys/wrapping/unwrap | field client_token)
[ -n "$token" ] || exit 1
# the end of the token ends the login, and the task
trap 'ask "$token" POST auth/token/revoke-self' EXIT
trap 'exit 143' HUP INT TERM
ask "$VAULT_TOKEN" DELETE "jitvault-inbox/metadata/$entity/$1"

# one read, since the task has few of them
login=$(ask "$token" GET database/creds/app-readonly)
PGUSER=$(echo "$login" | field username) PGPASSWORD=$(echo "$login" | field password)
export PGUSER PGPASSWORD
psql -AtXc "SELECT count(*) FROM orders"
