-- The schema, and all that is made in it from here on, belong to one role, no matter which role runs the migration.
DO $$
BEGIN
    IF to_regnamespace('smarter_auth') IS NULL THEN
        CREATE SCHEMA smarter_auth AUTHORIZATION smarter_auth;
    END IF;
END
$$;

SET LOCAL ROLE smarter_auth;
