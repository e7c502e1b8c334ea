DO $$
DECLARE
    one record;
BEGIN
    FOR one IN
        SELECT conrelid::regclass AS relation, conname FROM pg_catalog.pg_constraint
         WHERE connamespace = 'smarter_auth'::regnamespace AND contype = 'c' AND conname LIKE '%\_in\_calendar'
    LOOP
        EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', one.relation, one.conname);
    END LOOP;
END
$$;
