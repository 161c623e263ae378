import psycopg

from jitvault.agent import task

with task("count-orders.yaml") as t, psycopg.connect(**t.psycopg_kwargs()) as connection:
    print(connection.execute("SELECT count(*) FROM orders").fetchone()[0])
