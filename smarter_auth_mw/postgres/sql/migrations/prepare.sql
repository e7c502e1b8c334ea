-- What every run of the migrations begins with. In these files a blank line ends a statement, and nothing else does.

-- Two runs at once: the second waits here, and then finds nothing left to do.
SELECT pg_catalog.pg_advisory_xact_lock(7236834501);

DO $$
DECLARE
    may_act text := CASE WHEN current_setting('server_version_num')::integer >= 160000 THEN 'SET' ELSE 'MEMBER' END;
    owner_is name;
BEGIN
    BEGIN
        IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'smarter_auth') THEN
            BEGIN
                CREATE ROLE smarter_auth NOLOGIN;
            EXCEPTION WHEN duplicate_object OR unique_violation THEN
                NULL;  -- A migration of another database of this cluster was faster.
            END;
        END IF;
        -- Since PostgreSQL 16 whoever creates a role may grant it to themselves, but does not act as it yet.
        IF NOT pg_catalog.pg_has_role(current_user, 'smarter_auth', may_act) THEN
            GRANT smarter_auth TO CURRENT_USER;
        END IF;
    EXCEPTION WHEN insufficient_privilege THEN
        RAISE EXCEPTION 'The role % may not create the role smarter_auth, or may not act as it.', quote_ident(current_user)
            USING ERRCODE = 'insufficient_privilege', HINT = concat(
                'An administrator of the database runs, once: ',
                CASE WHEN NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'smarter_auth')
                     THEN 'CREATE ROLE smarter_auth NOLOGIN; ' END,
                format('GRANT smarter_auth TO %I;', current_user));
    END;
    SELECT pg_catalog.pg_get_userbyid(nspowner) INTO owner_is FROM pg_catalog.pg_namespace WHERE nspname = 'smarter_auth';
    IF owner_is IS NULL THEN
        CREATE SCHEMA smarter_auth AUTHORIZATION smarter_auth;
    ELSIF owner_is <> 'smarter_auth' THEN
        RAISE EXCEPTION 'The schema smarter_auth exists, and belongs to the role %.', quote_ident(owner_is)
            USING ERRCODE = 'insufficient_privilege',
                  HINT = 'If it is meant for us, an administrator runs, once: ALTER SCHEMA smarter_auth OWNER TO smarter_auth;';
    END IF;
END
$$;

-- All that is made from here on belongs to the owner of the schema, whoever runs the migration.
SET LOCAL ROLE smarter_auth;
