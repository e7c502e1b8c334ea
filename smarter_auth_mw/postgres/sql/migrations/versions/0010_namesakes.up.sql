-- Names of keys are unique within an account, except of those that an import brought with their tokens from a database
-- where they are not: of several keys of one name all but one are namesakes.
ALTER TABLE smarter_auth.key ADD COLUMN is_namesake boolean NOT NULL DEFAULT false;

DROP INDEX smarter_auth.key_name;

CREATE UNIQUE INDEX key_name ON smarter_auth.key (account, name) WHERE revoked_at IS NULL AND NOT is_namesake;

-- The name and the verified custom domain of a resource of an attached platform; attaching replaces it.
CREATE FUNCTION smarter_auth.platform_name(kind text, lookup text) RETURNS TABLE (name text, domain text)
LANGUAGE sql STABLE AS $$ SELECT NULL::text, NULL::text WHERE false $$;

REVOKE ALL ON FUNCTION smarter_auth.platform_name(text, text) FROM PUBLIC;

INSERT INTO smarter_auth.privilege (grade, privilege) VALUES
    ('runtime', 'EXECUTE ON FUNCTION smarter_auth.platform_name(text, text)'),
    ('manager', 'UPDATE (is_namesake) ON smarter_auth.key');

SELECT smarter_auth.grant_grades();
