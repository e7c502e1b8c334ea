-- Statements about operators: first those that only the schema's owner may run, then those that a manager role may run.

-- name: act_as_owner()!
SET LOCAL ROLE smarter_auth;

-- name: insert_operator(name, role, account, expires_at)$
INSERT INTO smarter_auth.operator (name, role, account, expires_at) VALUES (:name, :role, :account, :expires_at)
ON CONFLICT (name) DO NOTHING RETURNING operator_id;

-- name: insert_token(digest, operator_id, token_key)!
INSERT INTO smarter_auth.operator_token (digest, operator_id, token_key) VALUES (:digest, :operator_id, :token_key);

-- name: expire_tokens(operator_id, valid_until)!
-- Change only tokens that would be valid for longer.
UPDATE smarter_auth.operator_token SET valid_until = :valid_until
 WHERE operator_id = :operator_id AND (valid_until IS NULL OR valid_until > :valid_until);

-- name: lock_operator(name)^
SELECT operator_id, name, role, account, created_at, expires_at, revoked_at
  FROM smarter_auth.operator WHERE name = :name FOR UPDATE;

-- name: list_operators()
SELECT operator_id, name, role, account, created_at, expires_at, revoked_at FROM smarter_auth.operator ORDER BY name;

-- name: find_tokens(operator_ids)
-- The tokens of these operators, the newest one of each last.
SELECT operator_id, token_key, created_at, valid_until, last_used_at FROM smarter_auth.operator_token
 WHERE operator_id = ANY (:operator_ids) ORDER BY created_at, token_key;

-- name: update_operator(operator_id, role, account, expires_at, revoked_at)!
UPDATE smarter_auth.operator SET role = :role, account = :account, expires_at = :expires_at, revoked_at = :revoked_at
 WHERE operator_id = :operator_id;

-- name: delete_sessions(operator_id)!
DELETE FROM smarter_auth.operator_session
 WHERE token_digest IN (SELECT digest FROM smarter_auth.operator_token WHERE operator_id = :operator_id);

-- name: write_event(actor, action, reason, before, after)$
SELECT smarter_auth.write_event(:actor, :action, NULL, NULL, NULL, NULL, :reason, :before, :after);

-- name: find_by_token(digest)^
SELECT operator_id, name, role, account, expires_at, token_key FROM smarter_auth.operator_by_token(:digest);

-- name: find_by_session(digest)^
SELECT operator_id, name, role, account, expires_at, token_key FROM smarter_auth.operator_by_session(:digest);

-- name: open_session(token_digest, digest)$
SELECT smarter_auth.open_operator_session(:token_digest, :digest);

-- name: end_session(digest)$
SELECT smarter_auth.end_operator_session(:digest);

-- name: end_sessions(digest)$
SELECT smarter_auth.end_operator_sessions(:digest);

-- name: end_tokens(digests, within, actor)$
SELECT smarter_auth.end_operator_tokens(:digests, :within, :actor);
