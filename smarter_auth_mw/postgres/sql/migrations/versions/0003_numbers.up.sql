-- A resource that is made without a reference gets its number as one, which is drawn before the row is written.

INSERT INTO smarter_auth.runtime_privilege (privilege) VALUES ('USAGE ON SEQUENCE smarter_auth.resource_id_seq');

SELECT smarter_auth.grant_runtime(rolname)
  FROM pg_catalog.pg_namespace CROSS JOIN LATERAL pg_catalog.aclexplode(nspacl) AS acl
  JOIN pg_catalog.pg_roles ON pg_roles.oid = acl.grantee
 WHERE nspname = 'smarter_auth' AND acl.grantee <> nspowner;
