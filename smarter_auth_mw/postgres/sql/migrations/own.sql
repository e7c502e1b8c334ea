-- The beginning of every script that the owner of the schema runs. In these files only a blank line ends a statement.

-- If two migrations run at once, the second waits here until the first is done.
SELECT pg_catalog.pg_advisory_xact_lock(7236834501);

-- Check that the current user may act as the owner of the schema. If not, the error lists the statements that an administrator
-- has to run.
DO $$
DECLARE
    me CONSTANT text := quote_ident(current_user);
    may_act CONSTANT text := CASE WHEN current_setting('server_version_num')::integer >= 160000 THEN 'SET' ELSE 'MEMBER' END;
    schema_owner CONSTANT name := (
        SELECT pg_catalog.pg_get_userbyid(nspowner) FROM pg_catalog.pg_namespace WHERE nspname = 'smarter_auth');
    works_here CONSTANT boolean := EXISTS (
        SELECT FROM pg_catalog.pg_namespace CROSS JOIN LATERAL pg_catalog.aclexplode(nspacl) AS acl
         WHERE nspname = 'smarter_auth' AND acl.grantee = to_regrole(me) AND acl.grantee <> nspowner);
    lacking text[] := '{}';
    owners text;
BEGIN
    IF schema_owner <> 'smarter_auth' THEN
        RAISE EXCEPTION 'The schema smarter_auth exists, and belongs to the role %.', quote_ident(schema_owner)
            USING ERRCODE = 'insufficient_privilege',
                  HINT = 'If smarter_auth_mw should use it, an administrator runs, once: ALTER SCHEMA smarter_auth OWNER TO smarter_auth;';
    END IF;
    IF to_regrole('smarter_auth') IS NULL THEN
        BEGIN
            CREATE ROLE smarter_auth NOLOGIN;
        EXCEPTION
            WHEN duplicate_object OR unique_violation THEN
                NULL;  -- A concurrent migration of another database in this cluster has created it.
            WHEN insufficient_privilege THEN
                lacking := lacking || text 'CREATE ROLE smarter_auth NOLOGIN;' || format('GRANT smarter_auth TO %s;', me);
        END;
    END IF;
    IF to_regrole('smarter_auth') IS NOT NULL AND NOT pg_catalog.pg_has_role(current_user, 'smarter_auth', may_act) THEN
        BEGIN
            IF works_here THEN
                RAISE insufficient_privilege;
            END IF;
            -- Since PostgreSQL 16, the creator of a role can grant it to itself, but cannot act as it before.
            GRANT smarter_auth TO CURRENT_USER;
        EXCEPTION WHEN insufficient_privilege THEN
            lacking := lacking || format('GRANT smarter_auth TO %s;', me);
        END;
    END IF;
    IF schema_owner IS NULL AND NOT has_database_privilege(current_database(), 'CREATE') THEN
        lacking := lacking || format('GRANT CREATE ON DATABASE %I TO %s;', current_database(), me);
    END IF;
    IF lacking = '{}' THEN
        RETURN;
    ELSIF schema_owner IS NULL THEN
        RAISE EXCEPTION 'The role % may not create the schema smarter_auth in this database.', me
            USING ERRCODE = 'insufficient_privilege', HINT = 'Use a role for migrations that does not serve.'
                ' To use this one, a superuser runs, once: ' || array_to_string(lacking, ' ');
    END IF;
    SELECT string_agg(quote_ident(rolname), ', ' ORDER BY rolsuper, rolname) INTO owners FROM pg_catalog.pg_roles
     WHERE rolcanlogin AND pg_catalog.pg_has_role(oid, 'smarter_auth', may_act);
    RAISE EXCEPTION 'The role % does not own the schema smarter_auth.', me
        USING ERRCODE = 'insufficient_privilege', HINT = concat('Use the URL of a role that may act as its owner: ', owners, '.',
            CASE WHEN NOT works_here THEN ' To let this role migrate, an administrator runs, once: '
                || array_to_string(lacking, ' ') END);
END
$$;
