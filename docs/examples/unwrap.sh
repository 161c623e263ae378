#!/bin/sh
# A host without jitvault: take a task's token out of the agent's inbox, count the orders, give everything back.
#
#     unwrap.sh TASK
#
# bao needs VAULT_ADDR and the agent's own login, psql needs PGHOST, PGPORT and PGDATABASE. No secret is an argument, since
# every user of the machine can see those.
set -eu
# before the wrapping is taken, which works once
: "${1:?names the task}" "${BAO_ADDR:-${VAULT_ADDR:?}}" "${PGHOST:?}" "${PGPORT:?}" "${PGDATABASE:?}"
field() { sed -n "s/.*\"$1\": *\"\([^\"]*\)\".*/\1/p"; }

entity=$(bao read -field=entity_id auth/token/lookup-self)
wrapping=$(bao read -format=json "jitvault-inbox/data/$entity/$1" | field token)
[ -n "$wrapping" ] || { echo "the inbox has no token of task $1" >&2; exit 1; }
# Somebody may have put another wrapping in its place. One that cannot be looked up is opened all the same: the refusal shows
# jitvault that somebody was first.
case $(printf %s "$wrapping" | bao write -field=creation_path sys/wrapping/lookup token=-) in
auth/token/create/jitvault-* | "") ;;
*) echo "this wrapping token is not jitvault's, and was not opened: tell the operator" >&2; exit 1 ;;
esac
token=$(BAO_TOKEN=$wrapping bao unwrap -field=token)
# the end of the token ends the login, and the task
trap 'BAO_TOKEN=$token bao token revoke -self >/dev/null' EXIT
trap 'exit 143' HUP INT TERM
bao delete "jitvault-inbox/metadata/$entity/$1" >/dev/null

# one read, since the task has few of them
login=$(BAO_TOKEN=$token bao read -format=json database/creds/app-readonly)
PGUSER=$(echo "$login" | field username) PGPASSWORD=$(echo "$login" | field password)
export PGUSER PGPASSWORD
psql -AtXc "SELECT count(*) FROM orders"
