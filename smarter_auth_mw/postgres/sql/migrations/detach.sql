-- Detach the platform, and drop everything of ours: the schema, the triggers that call its functions, and our grants.

SET LOCAL lock_timeout = '5s';

-- Only the grantor can revoke: from our role, and from the roles to which it passed the privilege on.
DO $$
DECLARE
    revocations CONSTANT text := (
        SELECT string_agg(revocation, E';\n' ORDER BY revocation) FROM (
            SELECT format('REVOKE ALL ON %I.%I FROM smarter_auth CASCADE', nspname, relname) AS revocation
              FROM pg_catalog.pg_class JOIN pg_catalog.pg_namespace ON pg_namespace.oid = relnamespace
             WHERE nspname <> 'smarter_auth' AND EXISTS (
                   SELECT FROM pg_catalog.aclexplode(relacl) AS acl WHERE acl.grantee = 'smarter_auth'::regrole
                    UNION ALL
                   SELECT FROM pg_catalog.pg_attribute CROSS JOIN LATERAL pg_catalog.aclexplode(attacl) AS acl
                    WHERE attrelid = pg_class.oid AND acl.grantee = 'smarter_auth'::regrole)
             UNION ALL
            SELECT format('REVOKE ALL ON SCHEMA %I FROM smarter_auth CASCADE', nspname)
              FROM pg_catalog.pg_namespace CROSS JOIN LATERAL pg_catalog.aclexplode(nspacl) AS acl
             WHERE nspname <> 'smarter_auth' AND acl.grantee = 'smarter_auth'::regrole
        ) AS granted);
BEGIN
    IF revocations IS NOT NULL THEN
        EXECUTE revocations;
    END IF;
EXCEPTION WHEN insufficient_privilege THEN
    RAISE EXCEPTION 'The role % may not revoke the privileges that were granted to the role smarter_auth.', quote_ident(current_user)
        USING ERRCODE = 'insufficient_privilege', HINT = E'The owner of these tables runs, once:\n' || revocations || ';';
END
$$;

SET LOCAL ROLE smarter_auth;

DROP SCHEMA smarter_auth CASCADE;

SET LOCAL ROLE NONE;

-- Drop the role too, unless other databases of this server use it, or the current user may not drop it.
DO $$
BEGIN
    DROP ROLE smarter_auth;
EXCEPTION WHEN dependent_objects_still_exist OR insufficient_privilege OR object_in_use THEN
    NULL;
END
$$;
