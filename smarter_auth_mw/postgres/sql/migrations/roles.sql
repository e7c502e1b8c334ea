-- Report roles of earlier releases, in which every role had all privileges.
DO $$
DECLARE
    inherited name;
BEGIN
    IF to_regclass('smarter_auth.database_role') IS NULL THEN
        RETURN;  -- The run ends at an older schema.
    END IF;
    FOR inherited IN SELECT name FROM smarter_auth.database_role JOIN pg_catalog.pg_roles ON rolname = name WHERE is_inherited LOOP
        RAISE NOTICE '%', format('%1$I can write keys, as every role could. Where it only serves: smarter-auth db migrate'
            ' --runtime-role %1$I; where it writes keys too: --manager-role %1$I', inherited);
    END LOOP;
END
$$;
