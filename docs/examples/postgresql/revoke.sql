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
        THEN ALTER ROLE "{{name}}" NOLOGIN PASSWORD NULL; END IF;
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
SET LOCAL statement_timeout = '15s';
SET LOCAL lock_timeout = '100ms';
DO $$ DECLARE few pg_catalog.oid[]; one pg_catalog.record; BEGIN
  IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname OPERATOR(pg_catalog.=) '{{name}}')
    THEN RETURN; END IF;
  GRANT "{{name}}" TO CURRENT_USER;
  FOR one IN SELECT CASE WHEN d.oid IS NULL THEN ''
      ELSE pg_catalog.format('IN DATABASE %I', d.datname) END AS place
    FROM pg_catalog.pg_db_role_setting AS s
    JOIN pg_catalog.pg_roles AS r ON r.oid OPERATOR(pg_catalog.=) s.setrole
    LEFT JOIN pg_catalog.pg_database AS d ON d.oid OPERATOR(pg_catalog.=) s.setdatabase
    WHERE r.rolname OPERATOR(pg_catalog.=) '{{name}}'
  LOOP
    EXIT WHEN pg_catalog.clock_timestamp() OPERATOR(pg_catalog.>)
      (pg_catalog.statement_timestamp() OPERATOR(pg_catalog.+) '2s'::pg_catalog.interval);
    EXECUTE pg_catalog.format('ALTER ROLE %I %s RESET ALL', '{{name}}', one.place);
  END LOOP;
  FOR turn IN 1..5 LOOP
    FOR few IN SELECT pg_catalog.array_agg(s.objid)
      FROM (SELECT d.objid, pg_catalog.row_number() OVER () AS n
        FROM pg_catalog.pg_shdepend AS d
        JOIN pg_catalog.pg_roles AS r ON r.oid OPERATOR(pg_catalog.=) d.refobjid
        JOIN pg_catalog.pg_database AS c ON c.oid OPERATOR(pg_catalog.=) d.dbid
        JOIN pg_catalog.pg_largeobject_metadata AS m ON m.oid OPERATOR(pg_catalog.=) d.objid
        JOIN pg_catalog.pg_roles AS o ON o.oid OPERATOR(pg_catalog.=) m.lomowner
        WHERE r.rolname OPERATOR(pg_catalog.=) '{{name}}'
        AND c.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()
        AND d.refclassid OPERATOR(pg_catalog.=)
          'pg_catalog.pg_authid'::pg_catalog.regclass::pg_catalog.oid
        AND d.classid OPERATOR(pg_catalog.=)
          'pg_catalog.pg_largeobject'::pg_catalog.regclass::pg_catalog.oid
        AND (o.oid OPERATOR(pg_catalog.=) r.oid OR o.rolname OPERATOR(pg_catalog.~)
          '^v-.*-[A-Za-z0-9]{20}-[0-9]{10}$'::pg_catalog.text
          OR pg_catalog.pg_has_role(o.oid, 'USAGE')) LIMIT 10000)
      AS s GROUP BY s.n OPERATOR(pg_catalog./) 100
    LOOP
      EXIT WHEN pg_catalog.clock_timestamp() OPERATOR(pg_catalog.>)
        (pg_catalog.statement_timestamp() OPERATOR(pg_catalog.+) '2s'::pg_catalog.interval);
      BEGIN
        FOR one IN SELECT m.oid, m.lomowner, o.rolname,
            (SELECT pg_catalog.string_agg(DISTINCT CASE
              WHEN g.grantee OPERATOR(pg_catalog.=) 0::pg_catalog.oid THEN 'PUBLIC'
              ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(g.grantee)) END, ', ')
            FROM pg_catalog.aclexplode(m.lomacl) AS g) AS grantees,
            EXISTS (SELECT FROM pg_catalog.pg_roles AS t
              WHERE t.rolname OPERATOR(pg_catalog.=) 'jitvault_leftover'
              AND pg_catalog.pg_has_role(t.oid, 'MEMBER')) AS kept
          FROM pg_catalog.pg_largeobject_metadata AS m
          JOIN pg_catalog.pg_roles AS o ON o.oid OPERATOR(pg_catalog.=) m.lomowner
          WHERE m.oid OPERATOR(pg_catalog.=) ANY (few)
        LOOP
          IF NOT pg_catalog.pg_has_role(one.lomowner, 'USAGE')
            THEN EXECUTE pg_catalog.format('GRANT %I TO CURRENT_USER', one.rolname); END IF;
          IF one.grantees IS NOT NULL THEN
            EXECUTE pg_catalog.format('REVOKE ALL ON LARGE OBJECT %s FROM %s CASCADE',
              one.oid, one.grantees); END IF;
          IF one.kept THEN
            EXECUTE pg_catalog.format('ALTER LARGE OBJECT %s OWNER TO jitvault_leftover', one.oid);
          ELSIF one.rolname OPERATOR(pg_catalog.=) '{{name}}'
            THEN PERFORM pg_catalog.lo_unlink(one.oid); END IF;
        END LOOP;
      EXCEPTION WHEN lock_not_available THEN
        PERFORM pg_catalog.pg_stat_clear_snapshot();
        PERFORM pg_catalog.pg_terminate_backend(l.pid) FROM pg_catalog.pg_locks AS l
          JOIN pg_catalog.pg_stat_activity AS a ON a.pid OPERATOR(pg_catalog.=) l.pid
          JOIN pg_catalog.pg_roles AS o ON o.oid OPERATOR(pg_catalog.=) a.usesysid
          JOIN pg_catalog.pg_roles AS r ON r.rolname OPERATOR(pg_catalog.=) '{{name}}'
          WHERE NOT o.rolsuper AND o.rolname OPERATOR(pg_catalog.<>) CURRENT_USER
          AND (l.locktype OPERATOR(pg_catalog.=) 'object' AND l.objid OPERATOR(pg_catalog.=) r.oid
            AND l.classid OPERATOR(pg_catalog.=)
              'pg_catalog.pg_authid'::pg_catalog.regclass::pg_catalog.oid
            OR l.locktype OPERATOR(pg_catalog.=) 'transactionid'
            AND l.mode OPERATOR(pg_catalog.=) 'ExclusiveLock'
            AND o.rolname OPERATOR(pg_catalog.~)
              '^v-.*-[A-Za-z0-9]{20}-[0-9]{10}$'::pg_catalog.text
            AND EXISTS (SELECT FROM pg_catalog.pg_shdepend AS d
              JOIN pg_catalog.pg_shdepend AS s ON s.dbid OPERATOR(pg_catalog.=) d.dbid
                AND s.classid OPERATOR(pg_catalog.=) d.classid AND s.objid OPERATOR(pg_catalog.=) d.objid
              WHERE d.refclassid OPERATOR(pg_catalog.=)
                'pg_catalog.pg_authid'::pg_catalog.regclass::pg_catalog.oid
              AND d.refobjid OPERATOR(pg_catalog.=) r.oid
              AND d.classid OPERATOR(pg_catalog.=) ANY
                (ARRAY['pg_catalog.pg_largeobject'::pg_catalog.regclass::pg_catalog.oid,
                'pg_catalog.pg_default_acl'::pg_catalog.regclass::pg_catalog.oid])
              AND pg_catalog.pg_has_role(o.oid, s.refobjid, 'USAGE')));
      WHEN OTHERS THEN RAISE WARNING '%', SQLERRM; EXIT; END;
    END LOOP;
    EXIT WHEN NOT FOUND;
  END LOOP;
EXCEPTION WHEN OTHERS THEN RAISE WARNING '%', SQLERRM;
END $$;
COMMIT AND CHAIN;

SET LOCAL search_path = pg_catalog, pg_temp;
SET LOCAL statement_timeout = '5s';
SET LOCAL lock_timeout = '500ms';
DO $$ BEGIN
  IF EXISTS (SELECT FROM pg_catalog.pg_largeobject_metadata AS m
    JOIN pg_catalog.pg_roles AS r ON r.oid OPERATOR(pg_catalog.=) m.lomowner
    WHERE r.rolname OPERATOR(pg_catalog.=) '{{name}}')
    THEN RAISE EXCEPTION 'large objects of {{name}} are not given away yet'; END IF;
  FOR turn IN 1..3 LOOP
    EXIT WHEN NOT EXISTS
      (SELECT FROM pg_catalog.pg_roles WHERE rolname OPERATOR(pg_catalog.=) '{{name}}');
    BEGIN GRANT "{{name}}" TO CURRENT_USER; DROP OWNED BY "{{name}}"; EXIT;
    EXCEPTION WHEN OTHERS THEN RAISE WARNING '%', SQLERRM; END;
    PERFORM pg_catalog.pg_stat_clear_snapshot();
    PERFORM pg_catalog.pg_terminate_backend(l.pid) FROM pg_catalog.pg_locks AS l
      JOIN pg_catalog.pg_stat_activity AS a ON a.pid OPERATOR(pg_catalog.=) l.pid
      JOIN pg_catalog.pg_roles AS o ON o.oid OPERATOR(pg_catalog.=) a.usesysid
      JOIN pg_catalog.pg_roles AS r ON r.rolname OPERATOR(pg_catalog.=) '{{name}}'
      WHERE NOT o.rolsuper AND o.rolname OPERATOR(pg_catalog.<>) CURRENT_USER
      AND (l.locktype OPERATOR(pg_catalog.=) 'object' AND l.objid OPERATOR(pg_catalog.=) r.oid
        AND l.classid OPERATOR(pg_catalog.=)
          'pg_catalog.pg_authid'::pg_catalog.regclass::pg_catalog.oid
        OR l.locktype OPERATOR(pg_catalog.=) 'transactionid'
        AND l.mode OPERATOR(pg_catalog.=) 'ExclusiveLock'
        AND o.rolname OPERATOR(pg_catalog.~)
          '^v-.*-[A-Za-z0-9]{20}-[0-9]{10}$'::pg_catalog.text
        AND EXISTS (SELECT FROM pg_catalog.pg_shdepend AS d
          JOIN pg_catalog.pg_shdepend AS s ON s.dbid OPERATOR(pg_catalog.=) d.dbid
            AND s.classid OPERATOR(pg_catalog.=) d.classid AND s.objid OPERATOR(pg_catalog.=) d.objid
          WHERE d.refclassid OPERATOR(pg_catalog.=)
            'pg_catalog.pg_authid'::pg_catalog.regclass::pg_catalog.oid
          AND d.refobjid OPERATOR(pg_catalog.=) r.oid
          AND d.classid OPERATOR(pg_catalog.=) ANY
            (ARRAY['pg_catalog.pg_largeobject'::pg_catalog.regclass::pg_catalog.oid,
            'pg_catalog.pg_default_acl'::pg_catalog.regclass::pg_catalog.oid])
          AND pg_catalog.pg_has_role(o.oid, s.refobjid, 'USAGE')));
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
      JOIN pg_catalog.pg_stat_activity AS a ON a.pid OPERATOR(pg_catalog.=) l.pid
      JOIN pg_catalog.pg_roles AS o ON o.oid OPERATOR(pg_catalog.=) a.usesysid
      JOIN pg_catalog.pg_roles AS r ON r.rolname OPERATOR(pg_catalog.=) '{{name}}'
      WHERE NOT o.rolsuper AND o.rolname OPERATOR(pg_catalog.<>) CURRENT_USER
      AND (l.locktype OPERATOR(pg_catalog.=) 'object' AND l.objid OPERATOR(pg_catalog.=) r.oid
        AND l.classid OPERATOR(pg_catalog.=)
          'pg_catalog.pg_authid'::pg_catalog.regclass::pg_catalog.oid
        OR l.locktype OPERATOR(pg_catalog.=) 'transactionid'
        AND l.mode OPERATOR(pg_catalog.=) 'ExclusiveLock'
        AND o.rolname OPERATOR(pg_catalog.~)
          '^v-.*-[A-Za-z0-9]{20}-[0-9]{10}$'::pg_catalog.text
        AND EXISTS (SELECT FROM pg_catalog.pg_shdepend AS d
          JOIN pg_catalog.pg_shdepend AS s ON s.dbid OPERATOR(pg_catalog.=) d.dbid
            AND s.classid OPERATOR(pg_catalog.=) d.classid AND s.objid OPERATOR(pg_catalog.=) d.objid
          WHERE d.refclassid OPERATOR(pg_catalog.=)
            'pg_catalog.pg_authid'::pg_catalog.regclass::pg_catalog.oid
          AND d.refobjid OPERATOR(pg_catalog.=) r.oid
          AND d.classid OPERATOR(pg_catalog.=) ANY
            (ARRAY['pg_catalog.pg_largeobject'::pg_catalog.regclass::pg_catalog.oid,
            'pg_catalog.pg_default_acl'::pg_catalog.regclass::pg_catalog.oid])
          AND pg_catalog.pg_has_role(o.oid, s.refobjid, 'USAGE')));
  END LOOP;
END $$;
