SET LOCAL search_path = pg_catalog, pg_temp;
SET LOCAL statement_timeout = '5s';
SET LOCAL lock_timeout = '500ms';
DO $$ DECLARE held pg_catalog.name; BEGIN
  FOR held IN SELECT g.rolname FROM pg_catalog.pg_auth_members AS m
    JOIN pg_catalog.pg_roles AS g ON g.oid OPERATOR(pg_catalog.=) m.roleid
    JOIN pg_catalog.pg_roles AS r ON r.oid OPERATOR(pg_catalog.=) m.member
    WHERE r.rolname OPERATOR(pg_catalog.=) '{{name}}'
  LOOP
    BEGIN EXECUTE pg_catalog.format('REVOKE %I FROM %I', held, '{{name}}');
    EXCEPTION WHEN OTHERS THEN RAISE WARNING '%', SQLERRM; END;
  END LOOP;
END $$;
COMMIT AND CHAIN;

SET LOCAL search_path = pg_catalog, pg_temp;
SET LOCAL statement_timeout = '5s';
SET LOCAL lock_timeout = '50ms';
DO $$ BEGIN
  FOR turn IN 1..15 LOOP
    PERFORM pg_catalog.pg_stat_clear_snapshot();
    PERFORM pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity
      WHERE usename OPERATOR(pg_catalog.=) '{{name}}';
    BEGIN
      IF EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname OPERATOR(pg_catalog.=) '{{name}}')
        THEN ALTER ROLE "{{name}}" NOLOGIN; END IF;
      EXIT;
    EXCEPTION WHEN OTHERS THEN IF turn OPERATOR(pg_catalog.=) 15 THEN RAISE; END IF; END;
  END LOOP;
END $$;
COMMIT AND CHAIN;

SET LOCAL search_path = pg_catalog, pg_temp;
SET LOCAL statement_timeout = '5s';
DO $$ BEGIN
  FOR turn IN 1..20 LOOP
    PERFORM pg_catalog.pg_stat_clear_snapshot();
    PERFORM pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity
      WHERE usename OPERATOR(pg_catalog.=) '{{name}}';
    EXIT WHEN NOT FOUND;
    IF turn OPERATOR(pg_catalog.=) 20
      THEN RAISE EXCEPTION 'sessions of {{name}} do not end'; END IF;
    PERFORM pg_catalog.pg_sleep(0.025);
  END LOOP;
END $$;
COMMIT AND CHAIN;

SET LOCAL search_path = pg_catalog, pg_temp;
SET LOCAL statement_timeout = '5s';
SET LOCAL lock_timeout = '500ms';
DO $$ DECLARE few pg_catalog.oid[]; BEGIN
  IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname OPERATOR(pg_catalog.=) '{{name}}')
    THEN RETURN; END IF;
  GRANT "{{name}}" TO CURRENT_USER;
  FOR few IN SELECT pg_catalog.array_agg(s.oid)
    FROM (SELECT m.oid, pg_catalog.row_number() OVER () AS n
      FROM pg_catalog.pg_largeobject_metadata AS m
      JOIN pg_catalog.pg_roles AS r ON r.oid OPERATOR(pg_catalog.=) m.lomowner
      WHERE r.rolname OPERATOR(pg_catalog.=) '{{name}}' LIMIT 10000)
    AS s GROUP BY s.n OPERATOR(pg_catalog./) 100
  LOOP
    EXIT WHEN pg_catalog.clock_timestamp() OPERATOR(pg_catalog.>)
      (pg_catalog.statement_timestamp() OPERATOR(pg_catalog.+) '2s'::pg_catalog.interval);
    BEGIN PERFORM pg_catalog.lo_unlink(o) FROM pg_catalog.unnest(few) AS o;
    EXCEPTION WHEN OTHERS THEN RAISE WARNING '%', SQLERRM; EXIT; END;
  END LOOP;
EXCEPTION WHEN OTHERS THEN RAISE WARNING '%', SQLERRM;
END $$;
COMMIT AND CHAIN;

SET LOCAL search_path = pg_catalog, pg_temp;
SET LOCAL statement_timeout = '5s';
SET LOCAL lock_timeout = '500ms';
DO $$ BEGIN
  FOR turn IN 1..3 LOOP
    EXIT WHEN NOT EXISTS
      (SELECT FROM pg_catalog.pg_roles WHERE rolname OPERATOR(pg_catalog.=) '{{name}}');
    BEGIN GRANT "{{name}}" TO CURRENT_USER; DROP OWNED BY "{{name}}"; EXIT;
    EXCEPTION WHEN OTHERS THEN RAISE WARNING '%', SQLERRM; END;
  END LOOP;
END $$;
COMMIT AND CHAIN;

SET LOCAL search_path = pg_catalog, pg_temp;
SET LOCAL statement_timeout = '5s';
SET LOCAL lock_timeout = '250ms';
DO $$ BEGIN
  FOR turn IN 1..4 LOOP
    BEGIN DROP ROLE IF EXISTS "{{name}}"; EXIT;
    EXCEPTION WHEN internal_error OR lock_not_available THEN
      IF turn OPERATOR(pg_catalog.=) 4 THEN RAISE; END IF; END;
    PERFORM pg_catalog.pg_stat_clear_snapshot();
    PERFORM pg_catalog.pg_terminate_backend(l.pid) FROM pg_catalog.pg_locks AS l
      JOIN pg_catalog.pg_roles AS r ON r.oid OPERATOR(pg_catalog.=) l.objid
      JOIN pg_catalog.pg_stat_activity AS a ON a.pid OPERATOR(pg_catalog.=) l.pid
      JOIN pg_catalog.pg_roles AS o ON o.oid OPERATOR(pg_catalog.=) a.usesysid
      WHERE l.locktype OPERATOR(pg_catalog.=) 'object'
      AND l.classid OPERATOR(pg_catalog.=)
        'pg_catalog.pg_authid'::pg_catalog.regclass::pg_catalog.oid
      AND r.rolname OPERATOR(pg_catalog.=) '{{name}}'
      AND NOT o.rolsuper AND o.rolname OPERATOR(pg_catalog.<>) CURRENT_USER;
  END LOOP;
END $$;
