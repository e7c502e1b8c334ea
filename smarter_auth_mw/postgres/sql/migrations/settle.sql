-- Flush all caches if this is a different database now: a restored dump, a clone, or a server after a failover.
SELECT smarter_auth.renew_epoch() FROM smarter_auth.meta WHERE home <> smarter_auth.home();

-- Enable triggers that are disabled, or that do not fire on replicas (as after ENABLE TRIGGER ALL).
DO $$
DECLARE
    enabling text;
BEGIN
    FOR enabling IN
        SELECT format('ALTER TABLE smarter_auth.%I ENABLE ALWAYS TRIGGER %I', relname, tgname)
          FROM pg_catalog.pg_trigger JOIN pg_catalog.pg_class ON pg_class.oid = tgrelid
         WHERE relnamespace = 'smarter_auth'::regnamespace
           AND relname || '.' || tgname IN (SELECT smarter_auth.missing_triggers())
    LOOP
        EXECUTE enabling;
    END LOOP;
END
$$;
