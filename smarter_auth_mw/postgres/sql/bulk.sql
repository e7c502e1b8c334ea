-- The statements of import and export, by name. Comments have lines of their own, as in queries.sql.
-- A file is staged in temporary tables, which are dropped when the transaction ends.

-- name: begin_import#
CREATE TEMPORARY TABLE staged_line (
    line bigint NOT NULL,
    account text COLLATE "C" NOT NULL,
    kind text COLLATE "C",
    ref text COLLATE "C",
    lookup text COLLATE "C",
    resource_name text COLLATE "C",
    domain text COLLATE "C",
    protection text COLLATE "C",
    on_error text COLLATE "C",
    key_id uuid,
    key text COLLATE "C",
    description text COLLATE "C",
    labels text COLLATE "C",
    active boolean,
    expires_at timestamptz,
    revoked_at timestamptz,
    digest bytea,
    token_key text COLLATE "C",
    valid_until timestamptz,
    minted_at timestamptz,
    is_tokenless boolean NOT NULL,
    is_derived boolean NOT NULL
) ON COMMIT DROP;

-- name: identify#
-- Find the keys of lines without a key_id. A digest identifies the key that has it in the database; a name identifies the only
-- key of that name in the file, else the only one in the database. A lock lets one import at a time search and write, because
-- two imports of one file would otherwise both find nothing.
SELECT pg_catalog.pg_advisory_xact_lock(7236834505);

ANALYZE pg_temp.staged_line;

UPDATE pg_temp.staged_line SET key_id = held.key_id
  FROM smarter_auth.token JOIN smarter_auth.key AS held USING (key_id)
 WHERE is_derived AND token.digest = staged_line.digest
   AND held.account = staged_line.account AND held.name = staged_line.key;

CREATE TEMPORARY TABLE named_key ON COMMIT DROP AS
  WITH named AS (
       SELECT account, key AS name, min(line) AS line, coalesce(min(revoked_at), 'infinity') AS revoked_at
         FROM pg_temp.staged_line WHERE is_derived AND digest IS NULL
        GROUP BY account, key),
       described AS (
       SELECT account, key AS name, count(DISTINCT key_id) AS number, min(key_id::text)::uuid AS key_id
         FROM pg_temp.staged_line
        WHERE key_id IS NOT NULL AND revoked_at IS NULL AND (NOT is_derived OR digest IS NOT NULL)
        GROUP BY account, key),
       held AS (
       SELECT account, name, named.revoked_at, count(*) AS number, min(key_id::text)::uuid AS key_id
         FROM named JOIN smarter_auth.key USING (account, name)
        WHERE coalesce(key.revoked_at, 'infinity') = named.revoked_at
        GROUP BY account, name, named.revoked_at)
SELECT account, name, line, coalesce(described.key_id, held.key_id) AS key_id,
       coalesce(described.number, held.number) AS number
  FROM named LEFT JOIN described USING (account, name) LEFT JOIN held USING (account, name);

UPDATE pg_temp.staged_line SET key_id = named_key.key_id
  FROM pg_temp.named_key
 WHERE is_derived AND digest IS NULL AND number = 1
   AND named_key.account = staged_line.account AND named_key.name = staged_line.key;

-- name: gather#
-- Collect each resource, key and token once, with its first line and its record in the database. "Torn" marks a value for which
-- two lines differ; min and max ignore lines without the value.
ANALYZE pg_temp.staged_line;

CREATE TEMPORARY TABLE staged_resource ON COMMIT DROP AS
SELECT named.*, held.id AS held_id, held.account AS held_account, held.ref AS held_ref, held.name AS held_name,
       held.domain AS held_domain, held.protection AS held_protection, held.on_error AS held_on_error
  FROM (SELECT kind, lookup, min(line) AS line, min(ref) AS ref, min(account) AS account, min(resource_name) AS name,
               min(domain) AS domain, min(protection) AS protection, min(on_error) AS on_error,
               count(key_id) > 0 AS is_bound,
               (min(ref) <> max(ref) OR min(account) <> max(account) OR min(resource_name) <> max(resource_name)
                OR min(domain) <> max(domain) OR min(protection) <> max(protection)
                OR min(on_error) <> max(on_error)) IS TRUE AS is_torn
          FROM pg_temp.staged_line
         WHERE kind IS NOT NULL
         GROUP BY kind, lookup) AS named
  LEFT JOIN smarter_auth.resource AS held ON held.kind = named.kind AND replace(held.ref, '_', '-') = named.lookup;

CREATE TEMPORARY TABLE staged_key ON COMMIT DROP AS
SELECT told.*, held.key_id AS held_id, held.name AS held_name, coalesce(active, held.is_active) IS FALSE AS is_inactive,
       count_digests = 0 AND NOT is_tokenless AND told.revoked_at IS NULL AND held.key_id IS NULL AS is_to_be_minted,
       CASE WHEN held.key_id IS NOT NULL THEN concat_ws(', ',
            CASE WHEN told.account <> held.account THEN 'account' END,
            CASE WHEN told.name <> held.name THEN 'key' END,
            CASE WHEN told.description <> held.description THEN 'description' END,
            CASE WHEN told.labels IS NOT NULL AND ARRAY(
                      SELECT pair FROM unnest(string_to_array(told.labels, ' ')) AS pair ORDER BY pair COLLATE "C")
                 <> ARRAY(SELECT label.name || '=' || value FROM smarter_auth.key_label AS label
                           WHERE label.key_id = held.key_id
                           ORDER BY (label.name || '=' || value) COLLATE "C") THEN 'labels' END,
            CASE WHEN active <> held.is_active THEN 'active' END,
            CASE WHEN told.expires_at <> coalesce(held.expires_at, 'infinity') THEN 'expires_at' END,
            CASE WHEN told.revoked_at IS DISTINCT FROM held.revoked_at THEN 'revoked_at' END,
            CASE WHEN is_tokenless AND EXISTS (SELECT FROM smarter_auth.token WHERE token.key_id = held.key_id)
                 THEN 'digest' END) END AS differences
  FROM (SELECT key_id, min(line) AS line, min(account) AS account, min(key) AS name, min(description) AS description,
               min(labels) AS labels, bool_and(active) AS active, min(expires_at) AS expires_at,
               min(revoked_at) AS revoked_at, count(digest) AS count_digests, bool_or(is_tokenless) AS is_tokenless,
               (min(account) <> max(account) OR min(key) <> max(key) OR min(description) <> max(description)
                OR min(labels) <> max(labels) OR bool_and(active) <> bool_or(active)
                OR min(expires_at) <> max(expires_at) OR min(revoked_at) <> max(revoked_at)) IS TRUE AS is_torn,
               count(digest) > 0 AND bool_or(is_tokenless) AS is_contradicted
          FROM pg_temp.staged_line
         WHERE key_id IS NOT NULL
         GROUP BY key_id) AS told
  LEFT JOIN smarter_auth.key AS held USING (key_id);

CREATE TEMPORARY TABLE staged_token ON COMMIT DROP AS
SELECT told.*, held.key_id AS held_key_id,
       (told.token_key <> held.token_key OR told.valid_until <> coalesce(held.valid_until, 'infinity')
        OR told.minted_at <> held.created_at) IS TRUE AS is_different
  FROM (SELECT digest, min(line) AS line, max(line) AS last_line, min(key_id::text)::uuid AS key_id,
               min(account) AS account, min(token_key) AS token_key, min(valid_until) AS valid_until,
               min(minted_at) AS minted_at, min(key_id::text) <> max(key_id::text) AS is_shared,
               (min(token_key) <> max(token_key) OR min(valid_until) <> max(valid_until)
                OR min(minted_at) <> max(minted_at)) IS TRUE AS is_torn
          FROM pg_temp.staged_line
         WHERE digest IS NOT NULL
         GROUP BY digest) AS told
  LEFT JOIN smarter_auth.token AS held USING (digest);

ANALYZE pg_temp.staged_resource;

ANALYZE pg_temp.staged_key;

ANALYZE pg_temp.staged_token;

CREATE TEMPORARY TABLE staged_binding ON COMMIT DROP AS
SELECT staged_line.line, kind, lookup, staged_line.key_id, staged_line.account, held.id IS NOT NULL AS is_held
  FROM pg_temp.staged_line
  JOIN pg_temp.staged_resource USING (kind, lookup)
  LEFT JOIN smarter_auth.binding AS held ON held.resource_id = held_id AND held.key_id = staged_line.key_id
 WHERE staged_line.key_id IS NOT NULL;

ANALYZE pg_temp.staged_binding;

-- name: lines_of_torn_resources(most)
SELECT staged_line.*, kind || ':' || lookup AS thing
  FROM pg_temp.staged_line
  JOIN (SELECT kind, lookup FROM pg_temp.staged_resource WHERE is_torn ORDER BY line LIMIT :most) AS torn
       USING (kind, lookup)
 ORDER BY kind, lookup, line
 LIMIT 10000;

-- name: lines_of_torn_keys(most)
SELECT staged_line.*, key_id::text AS thing
  FROM pg_temp.staged_line
  JOIN (SELECT key_id FROM pg_temp.staged_key WHERE is_torn ORDER BY line LIMIT :most) AS torn USING (key_id)
 ORDER BY key_id, line
 LIMIT 10000;

-- name: doubled_lines(most)
-- Lines that repeat a binding, a resource without a key, or a token without a resource.
SELECT max(line) AS line, min(line) AS first_line
  FROM pg_temp.staged_line
 GROUP BY kind, lookup, key_id, CASE WHEN kind IS NULL THEN digest END
HAVING count(*) > 1
 ORDER BY line
 LIMIT :most;

-- name: torn_tokens(most)
SELECT last_line AS line, line AS first_line FROM pg_temp.staged_token WHERE is_torn AND NOT is_shared
 ORDER BY last_line LIMIT :most;

-- name: shared_tokens(most)
SELECT last_line AS line, line AS first_line FROM pg_temp.staged_token WHERE is_shared ORDER BY last_line LIMIT :most;

-- name: taken_tokens(most)
SELECT line, held_key_id AS key_id FROM pg_temp.staged_token WHERE held_key_id <> key_id ORDER BY line LIMIT :most;

-- name: different_tokens(most)
SELECT line, key_id FROM pg_temp.staged_token WHERE held_key_id = key_id AND is_different ORDER BY line LIMIT :most;

-- name: added_tokens(most)
SELECT staged_token.line, name, key_id
  FROM pg_temp.staged_token JOIN pg_temp.staged_key USING (key_id)
 WHERE held_key_id IS NULL AND held_id IS NOT NULL
 ORDER BY line LIMIT :most;

-- name: ambiguous_keys(most)
SELECT line, account, name FROM pg_temp.named_key WHERE number > 1 ORDER BY line LIMIT :most;

-- name: contradicted_keys(most)
SELECT line, name FROM pg_temp.staged_key WHERE is_contradicted ORDER BY line LIMIT :most;

-- name: nameless_keys(most)
SELECT line, key_id FROM pg_temp.staged_key WHERE name IS NULL AND held_id IS NULL ORDER BY line LIMIT :most;

-- name: doubled_key_names(most)
-- Keys with the same name are distinguished by their tokens.
SELECT max(line) AS line, min(line) AS first_line, account, name
  FROM pg_temp.staged_key
 WHERE revoked_at IS NULL AND name IS NOT NULL AND held_id IS NULL
   AND (account, name) NOT IN (SELECT account, name FROM pg_temp.named_key WHERE number > 1)
 GROUP BY account, name
HAVING count(*) > 1 AND bool_or(is_to_be_minted)
 ORDER BY line
 LIMIT :most;

-- name: taken_key_names(most)
SELECT staged_key.line, staged_key.account, staged_key.name
  FROM pg_temp.staged_key
  JOIN smarter_auth.key ON key.account = staged_key.account AND key.name = staged_key.name
 WHERE key.revoked_at IS NULL AND is_to_be_minted
   AND (staged_key.account, staged_key.name) NOT IN (SELECT account, name FROM pg_temp.named_key WHERE number > 1)
 ORDER BY line LIMIT :most;

-- name: different_keys(most)
SELECT line, held_name AS name, key_id, differences
  FROM pg_temp.staged_key WHERE differences <> '' ORDER BY line LIMIT :most;

-- name: foreign_resources(most)
SELECT line, kind, ref, account, held_account FROM pg_temp.staged_resource
 WHERE account <> held_account
 ORDER BY line LIMIT :most;

-- name: misspelled_resources(most)
SELECT line, kind, ref, held_ref FROM pg_temp.staged_resource WHERE ref <> held_ref ORDER BY line LIMIT :most;

-- name: different_resources(most)
SELECT line, kind, ref
  FROM pg_temp.staged_resource
 WHERE held_id IS NOT NULL
   AND (name IS DISTINCT FROM coalesce(held_name, '') AND name IS NOT NULL
        OR domain IS DISTINCT FROM coalesce(held_domain, '') AND domain IS NOT NULL
        OR on_error <> held_on_error
        OR protection <> CASE WHEN held_protection = 'open' AND is_bound THEN 'bound' ELSE held_protection END)
 ORDER BY line LIMIT :most;

-- name: platforms_resources(most)
SELECT line, kind, ref
  FROM pg_temp.staged_resource
 WHERE kind IN (SELECT platform_table.kind FROM smarter_auth.platform_table)
 ORDER BY line LIMIT :most;

-- name: open_bound_resources(most)
SELECT line, kind, ref FROM pg_temp.staged_resource WHERE protection = 'open' AND is_bound ORDER BY line LIMIT :most;

-- name: doubled_domains(most)
SELECT max(line) AS line, min(line) AS first_line, domain
  FROM pg_temp.staged_resource
 WHERE domain IS NOT NULL
 GROUP BY domain
HAVING count(*) > 1
 ORDER BY line
 LIMIT :most;

-- name: taken_domains(most)
SELECT line, staged_resource.domain, held.kind || ':' || held.ref AS claimant
  FROM pg_temp.staged_resource
  JOIN smarter_auth.resource AS held ON held.domain = staged_resource.domain
 WHERE held_id IS DISTINCT FROM held.id
 ORDER BY line LIMIT :most;

-- name: count_staged()^
SELECT (SELECT count(*) FROM pg_temp.staged_line) AS lines,
       (SELECT count(*) FROM pg_temp.staged_resource WHERE held_id IS NULL) AS resources,
       (SELECT count(*) FROM pg_temp.staged_key WHERE held_id IS NULL) AS keys,
       (SELECT count(*) FROM pg_temp.staged_binding WHERE NOT is_held) AS bindings,
       (SELECT count(*) FROM pg_temp.staged_key WHERE is_to_be_minted) AS minted,
       (SELECT count(*)
          FROM pg_temp.staged_line
          LEFT JOIN pg_temp.staged_resource AS resource
                 ON resource.kind = staged_line.kind AND resource.lookup = staged_line.lookup
          LEFT JOIN pg_temp.staged_key AS key ON key.key_id = staged_line.key_id
          LEFT JOIN pg_temp.staged_binding AS binding ON binding.line = staged_line.line
         WHERE (staged_line.kind IS NULL OR resource.held_id IS NOT NULL)
           AND (staged_line.key_id IS NULL OR key.held_id IS NOT NULL)
           AND binding.is_held IS NOT FALSE) AS unchanged;

-- name: keys_to_be_minted()
SELECT key_id, account, name FROM pg_temp.staged_key WHERE is_to_be_minted ORDER BY line;

-- name: lock_held_resources()
-- Lock the registered resources that get a deactivated key, or one that may have been deactivated since it was read, until the
-- transaction ends; in a fixed order, to avoid deadlocks.
SELECT kind, ref FROM smarter_auth.resource
 WHERE id IN (SELECT staged_resource.held_id
                FROM pg_temp.staged_line
                JOIN pg_temp.staged_key USING (key_id)
                JOIN pg_temp.staged_resource USING (kind, lookup)
               WHERE is_inactive OR staged_key.held_id IS NOT NULL)
 ORDER BY kind, ref
   FOR UPDATE;

-- name: insert_resources()!
-- Insert resources with their final latch, so that the triggers on their bindings have nothing to set.
INSERT INTO smarter_auth.resource (kind, ref, account, name, domain, protection, on_error)
SELECT kind, ref, account, name, domain, coalesce(protection, CASE WHEN is_bound THEN 'bound' ELSE 'open' END),
       coalesce(on_error, 'stale')
  FROM pg_temp.staged_resource
 WHERE held_id IS NULL
 ORDER BY line;

-- name: insert_keys(latest)!
-- An unrevoked key without an expiry gets the latest allowed one.
INSERT INTO smarter_auth.key (key_id, account, name, description, is_active, expires_at, revoked_at, is_namesake)
SELECT key_id, account, name, coalesce(description, ''), coalesce(active, true),
       CASE WHEN revoked_at IS NULL THEN coalesce(expires_at, :latest) ELSE expires_at END, revoked_at,
       revoked_at IS NULL AND (
           row_number() OVER (PARTITION BY account, name, revoked_at IS NULL ORDER BY line) > 1
           OR EXISTS (SELECT FROM smarter_auth.key AS other
                       WHERE other.account = staged_key.account AND other.name = staged_key.name
                         AND other.revoked_at IS NULL AND NOT other.is_namesake))
  FROM pg_temp.staged_key
 WHERE held_id IS NULL
 ORDER BY line;

-- name: insert_labels()!
INSERT INTO smarter_auth.key_label (key_id, name, value)
SELECT key_id, split_part(label, '=', 1), split_part(label, '=', 2)
  FROM pg_temp.staged_key CROSS JOIN LATERAL unnest(string_to_array(labels, ' ')) AS label
 WHERE held_id IS NULL;

-- name: insert_tokens()!
INSERT INTO smarter_auth.token (digest, token_key, key_id, account, valid_until, created_at)
SELECT digest, coalesce(token_key, ''), key_id, account, valid_until, coalesce(minted_at, now())
  FROM pg_temp.staged_token
 WHERE held_key_id IS NULL;

-- name: insert_bindings()!
INSERT INTO smarter_auth.binding (resource_id, key_id, account)
SELECT resource.id, key_id, staged_binding.account
  FROM pg_temp.staged_binding
  JOIN smarter_auth.resource ON resource.kind = staged_binding.kind AND replace(resource.ref, '_', '-') = lookup
 WHERE NOT is_held
 ORDER BY line;

-- name: export_lines()
-- A key's tokens and bindings are in adjacent rows, the newest token last. A resource without keys has a row of its own.
  WITH numbered_token AS (
       SELECT key_id, digest, token_key, valid_until, created_at AS minted_at,
              row_number() OVER (PARTITION BY key_id ORDER BY created_at, valid_until NULLS LAST, digest) AS number
         FROM smarter_auth.token),
       numbered_binding AS (
       SELECT key_id, resource_id, row_number() OVER (PARTITION BY key_id ORDER BY id) AS number
         FROM smarter_auth.binding),
       line AS (
       SELECT key_id, number, resource_id, digest, token_key, valid_until, minted_at
         FROM numbered_token FULL JOIN numbered_binding USING (key_id, number))
SELECT resource.kind || ':' || resource.ref AS resource, coalesce(key.account, resource.account) AS account,
       resource.name AS resource_name, resource.domain, resource.protection, resource.on_error,
       key.name AS key, key.key_id, nullif(key.description, '') AS description,
       (SELECT string_agg(label.name || '=' || value, ' ' ORDER BY label.name)
          FROM smarter_auth.key_label AS label WHERE label.key_id = key.key_id) AS labels, key.is_active AS active, key.expires_at,
       key.revoked_at,
       CASE WHEN digest IS NOT NULL THEN encode(digest, 'hex')
            WHEN key.key_id IS NOT NULL AND coalesce(line.number, 1) = 1 THEN 'none' END AS digest,
       nullif(line.token_key, '') AS token_key, line.valid_until, line.minted_at
  FROM smarter_auth.key
  LEFT JOIN line USING (key_id)
  FULL JOIN smarter_auth.resource ON resource.id = line.resource_id
 ORDER BY resource.kind, resource.ref, key.account, key.name, key.key_id, line.number;

-- name: lock_keys(key_ids, scope)
-- Lock those of the keys that are not revoked until the transaction ends; in a fixed order, to avoid deadlocks.
SELECT key_id
  FROM smarter_auth.key
 WHERE key_id = ANY (:key_ids) AND revoked_at IS NULL AND (:scope::text IS NULL OR account = :scope)
 ORDER BY account, key_id
   FOR UPDATE;

-- name: read_keys(key_ids)
-- Keys by account, each with the public head of its newest token and the number of its valid tokens. This is a statement of its
-- own, because a statement that waits for a lock sees other tables as they were before it waited.
SELECT key_id, account, name, is_active, expires_at,
       (SELECT token_key::text FROM smarter_auth.token WHERE token.key_id = key.key_id
         ORDER BY created_at DESC, valid_until DESC NULLS FIRST LIMIT 1) AS token_key,
       (SELECT count(*) FROM smarter_auth.token
         WHERE token.key_id = key.key_id AND (valid_until IS NULL OR valid_until >= now())) AS valid_tokens
  FROM smarter_auth.key
 WHERE key_id = ANY (:key_ids)
 ORDER BY account, key_id;

-- name: revoke_keys(key_ids)!
UPDATE smarter_auth.key SET revoked_at = now(), updated_at = now() WHERE key_id = ANY (:key_ids);

-- name: deactivate_keys(key_ids)!
UPDATE smarter_auth.key SET is_active = false, updated_at = now() WHERE key_id = ANY (:key_ids);

-- name: end_tokens(key_ids, ends)!
-- Change only tokens that would be valid for longer.
UPDATE smarter_auth.token SET valid_until = asked.valid_until
  FROM unnest(:key_ids::uuid[], :ends::timestamptz[]) AS asked (key_id, valid_until)
 WHERE token.key_id = asked.key_id AND (token.valid_until IS NULL OR token.valid_until > asked.valid_until);

-- name: add_tokens(key_ids, accounts, digests, token_keys)!
INSERT INTO smarter_auth.token (digest, token_key, key_id, account)
SELECT digest, token_key, key_id, account
  FROM unnest(:digests::bytea[], :token_keys::text[], :key_ids::uuid[], :accounts::text[])
       AS minted (digest, token_key, key_id, account);

-- name: set_expiries(key_ids, expiries)!
UPDATE smarter_auth.key SET expires_at = asked.expires_at, updated_at = now()
  FROM unnest(:key_ids::uuid[], :expiries::timestamptz[]) AS asked (key_id, expires_at)
 WHERE key.key_id = asked.key_id;

-- name: write_events(actor, action, key_ids, accounts, reasons, befores, afters)$
-- Write the change of each key to the audit.
SELECT count(*)
  FROM unnest(:key_ids::uuid[], :accounts::text[], :reasons::text[], :befores::text[], :afters::text[])
       AS done (key_id, account, reason, before, after)
 CROSS JOIN LATERAL smarter_auth.write_event(
       :actor, :action, NULL, NULL, done.account, done.key_id, done.reason, done.before::jsonb, done.after::jsonb);
