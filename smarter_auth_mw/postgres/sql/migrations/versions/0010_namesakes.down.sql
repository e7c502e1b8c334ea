DELETE FROM smarter_auth.privilege
 WHERE privilege IN ('EXECUTE ON FUNCTION smarter_auth.platform_name(text, text)', 'UPDATE (is_namesake) ON smarter_auth.key');

DROP FUNCTION smarter_auth.platform_name(text, text);

-- The id tells namesakes apart where names have to be unique again.
UPDATE smarter_auth.key SET name = left(name, 218) || ' ' || key_id WHERE is_namesake AND revoked_at IS NULL;

DROP INDEX smarter_auth.key_name;

ALTER TABLE smarter_auth.key DROP COLUMN is_namesake;

CREATE UNIQUE INDEX key_name ON smarter_auth.key (account, name) WHERE revoked_at IS NULL;
