#!/bin/sh
# Ask, wait for approvals, run, give back. The exit code is psql's.
exec jitvault exec count-orders.yaml --preset postgres -- psql -AtXc "SELECT count(*) FROM orders"
