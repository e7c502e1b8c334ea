-- One role owns the schema and every object that is created in it from here on, no matter which role runs the migration.
DO $$
BEGIN
    IF to_regnamespace('smarter_auth') IS NULL THEN
        CREATE SCHEMA smarter_auth AUTHORIZATION smarter_auth;
    END IF;
END
$$;

SET LOCAL ROLE smarter_auth;
