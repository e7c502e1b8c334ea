-- The statements, by name. Comments have lines of their own, because aiosql looks for parameters in all other text.

-- name: read_schema()^
-- The migration that the database is at, and the oldest one whose code still works on it.
SELECT (SELECT max(version_num)::integer FROM smarter_auth.schema_version) AS version, serves_from
  FROM smarter_auth.meta;

-- name: find_timeline()^
-- Whether this server accepts writes, and its timeline. Each promotion begins a new timeline, so that the primary on the newest
-- one was promoted last.
SELECT pg_is_in_recovery() AS is_standby, current_setting('default_transaction_read_only')::boolean AS is_read_only,
       (SELECT system_identifier FROM pg_control_system())::text AS system,
       CASE WHEN pg_is_in_recovery() THEN (SELECT timeline_id FROM pg_control_checkpoint())
            ELSE ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::integer END AS timeline;

-- name: read_bindings(kind, lookup)
-- The facts for a decision and the snapshot that they are read in. There is one row per token of each bound key; a single row
-- without a key if there is no binding, and without a reference if the resource is unknown.
-- A transaction that began on a standby stays read-only: its snapshot does not list every transaction in progress.
-- The incarnation distinguishes a demoted or recovered server from the one whose changes this worker receives.
-- OFFSET 0 computes these once instead of for each row. The last ten columns describe the key; the store reads them by position.
-- The index is named because pg_restore creates it after all rows are loaded: until then, this statement fails instead of
-- taking a protected resource whose row is still missing for an open one.
-- No VOLATILE function is allowed here: it could see more than the snapshot does. The functions called platform_… are
-- empty, and cost nothing, unless a Smarter platform is attached. A resource that lost a key there counts as declared protected,
-- so that it stays closed even if its other keys are all deactivated.
SELECT asked.*,
       resource.id, coalesce(platform.ref, resource.ref) AS ref, coalesce(platform.account, resource.account) AS account,
       CASE WHEN resource.protection <> 'open' THEN resource.protection
            WHEN platform.is_latched THEN 'declared' ELSE 'open' END AS protection,
       coalesce(resource.on_error, 'stale') AS on_error, platform.sources, bound.*
  FROM (SELECT pg_current_snapshot()::text AS snapshot,
               current_setting('transaction_read_only')::boolean AS is_standby, incarnation
          FROM smarter_auth.incarnation_now() AS incarnation
         WHERE 'smarter_auth.resource_lookup'::regclass IS NOT NULL
        OFFSET 0) AS asked
  LEFT JOIN smarter_auth.resource ON resource.kind = :kind AND replace(resource.ref, '_', '-') = :lookup
  LEFT JOIN smarter_auth.platform_resource(:kind, :lookup) AS platform ON true
  LEFT JOIN LATERAL (
       SELECT key.key_id::text AS key_id, key.name AS key_name, key.account AS key_account, key.is_active,
              key.revoked_at IS NOT NULL AS is_revoked, true AS owner_is_active,
              coalesce(token.digest, '') AS digest, coalesce(token.token_key, '')::text AS token_key,
              coalesce(least(extract(epoch FROM key.expires_at), extract(epoch FROM token.valid_until)), 'infinity')::float8
                  AS expires_at_s, NULL::text[] AS key_sources
         FROM smarter_auth.binding
         JOIN smarter_auth.key ON key.key_id = binding.key_id
         LEFT JOIN smarter_auth.token ON token.key_id = key.key_id
        WHERE binding.resource_id = resource.id
        UNION ALL
       SELECT * FROM smarter_auth.platform_bindings(:kind, :lookup)
       ) AS bound ON true;

-- name: read_alias(kind, form, account, value)
-- The facts as in read_bindings, for the resource of an alias. If two resources claim the alias, there are rows of both.
SELECT asked.*,
       resource.id, coalesce(platform.ref, resource.ref) AS ref, coalesce(platform.account, resource.account) AS account,
       CASE WHEN resource.protection <> 'open' THEN resource.protection
            WHEN platform.is_latched THEN 'declared' ELSE 'open' END AS protection,
       coalesce(resource.on_error, 'stale') AS on_error, platform.sources, bound.*
  FROM (SELECT pg_current_snapshot()::text AS snapshot,
               current_setting('transaction_read_only')::boolean AS is_standby, incarnation
          FROM smarter_auth.incarnation_now() AS incarnation
         WHERE 'smarter_auth.resource_lookup'::regclass IS NOT NULL
        OFFSET 0) AS asked
  LEFT JOIN LATERAL (
       SELECT replace(claimant.ref, '_', '-') AS lookup
         FROM smarter_auth.alias
         JOIN smarter_auth.resource AS claimant ON claimant.id = alias.resource_id
        WHERE alias.kind = :kind AND alias.form = :form AND alias.account = :account AND alias.value = :value
        UNION ALL
       SELECT lookup FROM smarter_auth.platform_lookups(:kind, :form, :account, :value)
       ) AS claim ON true
  LEFT JOIN smarter_auth.resource ON resource.kind = :kind AND replace(resource.ref, '_', '-') = claim.lookup
  LEFT JOIN LATERAL smarter_auth.platform_resource(:kind, claim.lookup) AS platform ON true
  LEFT JOIN LATERAL (
       SELECT key.key_id::text AS key_id, key.name AS key_name, key.account AS key_account, key.is_active,
              key.revoked_at IS NOT NULL AS is_revoked, true AS owner_is_active,
              coalesce(token.digest, '') AS digest, coalesce(token.token_key, '')::text AS token_key,
              coalesce(least(extract(epoch FROM key.expires_at), extract(epoch FROM token.valid_until)), 'infinity')::float8
                  AS expires_at_s, NULL::text[] AS key_sources
         FROM smarter_auth.binding
         JOIN smarter_auth.key ON key.key_id = binding.key_id
         LEFT JOIN smarter_auth.token ON token.key_id = key.key_id
        WHERE binding.resource_id = resource.id
        UNION ALL
       SELECT * FROM smarter_auth.platform_bindings(:kind, claim.lookup)
       ) AS bound ON true;

-- name: may_change_audit()$
-- Whether this role can change or delete events of the audit.
SELECT has_table_privilege('smarter_auth.audit_event', 'UPDATE, DELETE, TRUNCATE');

-- name: read_vitals()^
-- The server's name as in heartbeats, the current role, and possible problems.
SELECT concat_ws(' ', incarnation, meta.epoch, smarter_auth.home()) AS server,
       current_user::text AS role,
       ARRAY(SELECT smarter_auth.missing_triggers()) AS missing_triggers,
       ARRAY(SELECT smarter_auth.platform_missing()) AS platform_missing,
       ARRAY(SELECT smarter_auth.platform_gone()) AS platform_gone,
       (SELECT relpersistence = 'u' FROM pg_class WHERE oid = 'smarter_auth.incarnation'::regclass) AS loses_its_name,
       current_setting('max_connections')::integer - current_setting('superuser_reserved_connections')::integer
           - (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend')::integer AS connections_left
  FROM smarter_auth.meta CROSS JOIN smarter_auth.incarnation_now() AS incarnation;

-- name: read_clock()$
SELECT extract(epoch FROM clock_timestamp())::float8;

-- name: notify(channel, payload)$
SELECT pg_notify(:channel, :payload);

-- name: read_role()^
-- The current role, and its grade if one was granted to this role by name.
SELECT current_user::text AS name, grade, coalesce(is_inherited, false) AS is_inherited
  FROM (SELECT) AS alone LEFT JOIN smarter_auth.database_role ON database_role.name = current_user;

-- name: list_privileges(grade)
-- The privileges of a grade, as GRANT statements.
SELECT privilege FROM smarter_auth.privilege WHERE grade IN ('runtime', :grade) ORDER BY grade DESC, privilege;

-- name: find_lacking(verbs, kinds, objects, columns)
-- Privileges that this role lacks. Tables and columns that no longer exist are ignored.
SELECT asked.verb, asked.kind, asked.object, asked.attribute
  FROM unnest(:verbs::text[], :kinds::text[], :objects::text[], :columns::text[])
       AS asked (verb, kind, object, attribute)
 WHERE NOT CASE asked.kind
       WHEN 'schema' THEN has_schema_privilege(asked.object, asked.verb)
       WHEN 'sequence' THEN has_sequence_privilege(asked.object, asked.verb)
       WHEN 'function' THEN has_function_privilege(asked.object, asked.verb)
       WHEN 'column' THEN (SELECT has_column_privilege(attrelid, attnum, asked.verb) FROM pg_attribute
                            WHERE attrelid = to_regclass(asked.object) AND attname = asked.attribute)
       ELSE has_table_privilege(to_regclass(asked.object), asked.verb)
       END;

-- name: list_protected_kinds()
-- One index probe for each kind, however many resources there are. The last condition is a scalar subquery on
-- purpose: PostgreSQL (13 to 18) may plan EXISTS over a UNION as a semijoin, and then fails with "failed to find unique
-- expression in subplan tlist", depending on the tables' statistics.
WITH RECURSIVE known AS (
    SELECT min(kind) AS kind FROM smarter_auth.resource
     UNION ALL
    SELECT (SELECT min(kind) FROM smarter_auth.resource WHERE kind > known.kind) FROM known WHERE kind IS NOT NULL
)
SELECT kind FROM known
 WHERE EXISTS (SELECT FROM smarter_auth.resource WHERE resource.kind = known.kind AND protection <> 'open')
 UNION
SELECT kind FROM smarter_auth.platform_table
 WHERE part = 'bindings' AND (
       SELECT true FROM smarter_auth.platform_protected() AS bound WHERE bound.kind = platform_table.kind LIMIT 1);

-- name: list_domains()
-- Every custom domain, and the kind of the resource that it belongs to. Fails while a dump is being restored.
SELECT DISTINCT value AS domain, kind FROM smarter_auth.alias
 WHERE form = 'domain' AND 'smarter_auth.resource_lookup'::regclass IS NOT NULL
 UNION
SELECT domain, kind FROM smarter_auth.platform_domains();

-- name: read_token(digest)
-- The columns of read_bindings for one token and its key: one row, without a key if the token is unknown.
SELECT asked.*, known.*
  FROM (SELECT pg_current_snapshot()::text AS snapshot,
               current_setting('transaction_read_only')::boolean AS is_standby, incarnation
          FROM smarter_auth.incarnation_now() AS incarnation
        OFFSET 0) AS asked
  LEFT JOIN LATERAL (
       SELECT key.key_id::text AS key_id, key.name AS key_name, key.account AS key_account, key.is_active,
              key.revoked_at IS NOT NULL AS is_revoked, true AS owner_is_active, token.digest, token.token_key::text AS token_key,
              coalesce(least(extract(epoch FROM key.expires_at), extract(epoch FROM token.valid_until)), 'infinity')::float8
                  AS expires_at_s, NULL::text[] AS key_sources
         FROM smarter_auth.token
         JOIN smarter_auth.key ON key.key_id = token.key_id
        WHERE token.digest = :digest
        UNION ALL
       SELECT * FROM smarter_auth.platform_token(:digest)
       ) AS known ON true;

-- name: beat(previous)^
-- A heartbeat: its snapshot, the server that answers, and the changes that the previous heartbeat's snapshot did not see. Changes
-- from a restored dump are left out, because their transactions are not of this server. The result is marked as incomplete if
-- changes may have been purged. A server that has restarted or recovered from a crash counts as another one: transactions that
-- were not on disk are lost, and their numbers are assigned again, so the server's name must not survive that. The guard includes
-- the tables' names, because missing_triggers() may see that a table was renamed before the heartbeat's snapshot does. All arrays
-- are of type text, because for other types the driver first queries the server.
SELECT pg_current_snapshot()::text AS snapshot,
       current_setting('transaction_read_only')::boolean AS is_standby,
       concat_ws(' ', incarnation, meta.epoch, smarter_auth.home()) AS server,
       EXISTS (SELECT FROM smarter_auth.incarnation) AS is_named,
       (SELECT relpersistence = 'u' FROM pg_class WHERE oid = 'smarter_auth.incarnation'::regclass) AS loses_its_name,
       asked.previous IS NULL
       OR (meta.horizon < pg_snapshot_xmax(asked.previous)
           AND NOT EXISTS (SELECT FROM pg_snapshot_xip(asked.previous) AS running WHERE running <= meta.horizon))
           AS is_complete,
       ARRAY(SELECT smarter_auth.missing_triggers() UNION ALL SELECT smarter_auth.platform_missing()) AS missing_triggers,
       (SELECT encode(sha256(string_agg(concat_ws(' ', pg_trigger.oid, pg_trigger.xmin, pg_proc.xmin, relnamespace, relname), ','
                                        ORDER BY pg_trigger.oid)::bytea), 'hex')
          FROM pg_trigger JOIN pg_proc ON pg_proc.oid = tgfoid JOIN pg_class ON pg_class.oid = tgrelid
         WHERE pronamespace = 'smarter_auth'::regnamespace) AS guard,
       listed.sources, listed.txs::text[] AS txs, listed.ages_s::text[] AS ages_s,
       extract(epoch FROM statement_timestamp())::float8 AS now_s
  FROM smarter_auth.meta
 CROSS JOIN smarter_auth.incarnation_now() AS incarnation
 CROSS JOIN (SELECT :previous::text::pg_snapshot) AS asked (previous)
 CROSS JOIN LATERAL (
       SELECT coalesce(array_agg(source), '{}') AS sources, coalesce(array_agg(tx), '{}') AS txs,
              coalesce(array_agg(extract(epoch FROM statement_timestamp() - at)::float8), '{}') AS ages_s
         FROM (SELECT source, tx, max(at) AS at
                 FROM smarter_auth.change
                WHERE tx >= pg_snapshot_xmin(asked.previous) AND NOT pg_visible_in_snapshot(tx, asked.previous)
                  AND pg_visible_in_snapshot(tx, pg_current_snapshot())
                GROUP BY source, tx
                LIMIT 10001) AS change
       ) AS listed;

-- name: name_incarnation()$
-- Give the server a new name if a crash has erased the previous one.
SELECT smarter_auth.name_incarnation();

-- name: read_secret()$
-- The secret that signs shared cache entries.
SELECT secret FROM smarter_auth.meta;

-- name: purge_changes(keep)$
SELECT smarter_auth.purge_changes(:keep);

-- name: find_resource_id(kind, lookup, scope)$
SELECT id FROM smarter_auth.resource WHERE kind = :kind AND replace(ref, '_', '-') = :lookup AND (:scope::text IS NULL OR account = :scope);

-- name: lock_resource(kind, lookup, scope)$
-- Locks the resource and its bindings against other changes until the transaction ends.
SELECT id FROM smarter_auth.resource WHERE kind = :kind AND replace(ref, '_', '-') = :lookup AND (:scope::text IS NULL OR account = :scope) FOR UPDATE;

-- name: find_claimant(domain, scope)$
-- The resource that has the custom domain.
SELECT kind || ':' || ref FROM smarter_auth.resource WHERE domain = :domain AND (:scope::text IS NULL OR account = :scope);

-- name: list_resource_ids(kind, scope)
-- The resources of the kind, or of all kinds.
SELECT id FROM smarter_auth.resource WHERE kind = coalesce(:kind, kind) AND (:scope::text IS NULL OR account = :scope);

-- name: find_platform_resource(kind, lookup, scope)^
-- A resource's record on an attached platform, and the keys that the platform binds to it.
SELECT ref, account, name, domain, is_latched,
       ARRAY(SELECT DISTINCT key_id::uuid FROM smarter_auth.platform_bindings(:kind, :lookup)) AS key_ids
  FROM smarter_auth.platform_resource(:kind, :lookup)
  LEFT JOIN LATERAL smarter_auth.platform_name(:kind, :lookup) ON true
 WHERE :scope::text IS NULL;

-- name: list_platform_resources(kind, scope)
-- The columns of find_platform_resource for all protected resources of the kind, or of any kind.
SELECT bound.kind, known.ref, known.account, name, domain, known.is_latched,
       ARRAY(SELECT DISTINCT key_id::uuid FROM smarter_auth.platform_bindings(bound.kind, bound.ref)) AS key_ids
  FROM smarter_auth.platform_protected() AS bound
 CROSS JOIN LATERAL smarter_auth.platform_resource(bound.kind, bound.ref) AS known
  LEFT JOIN LATERAL smarter_auth.platform_name(bound.kind, bound.ref) ON true
 WHERE bound.kind = coalesce(:kind, bound.kind) AND :scope::text IS NULL
 ORDER BY bound.kind, known.ref;

-- name: is_platforms(kind)$
-- Whether an attached platform creates the resources of the kind.
SELECT EXISTS (SELECT FROM smarter_auth.platform_table WHERE kind = :kind);

-- name: find_resources(ids, scope)
-- Resources as operators manage them. Resources of an attached platform belong to no scope.
SELECT id, kind, ref, account, name, domain, protection, on_error, created_at, updated_at
  FROM smarter_auth.resource
 WHERE id = ANY (:ids)
   AND (:scope::text IS NULL
        OR account = :scope AND NOT EXISTS (SELECT FROM smarter_auth.platform_table WHERE kind = resource.kind))
 ORDER BY kind, ref;

-- name: insert_resource(kind, ref, account, name, domain, protection, on_error)$
-- Returns no row if its look-up is taken.
INSERT INTO smarter_auth.resource (kind, ref, account, name, domain, protection, on_error)
VALUES (:kind, :ref, :account, :name, :domain, :protection, :on_error)
    ON CONFLICT (kind, replace(ref, '_', '-')) DO NOTHING
RETURNING id;

-- name: update_resource(kind, lookup, name, account, domain, on_error, scope)!
UPDATE smarter_auth.resource
   SET name = :name, account = :account, domain = :domain, on_error = :on_error, updated_at = now()
 WHERE kind = :kind AND replace(ref, '_', '-') = :lookup AND (:scope::text IS NULL OR account = :scope);

-- name: declare_protected(kind, lookup, scope)!
UPDATE smarter_auth.resource SET protection = 'declared', updated_at = now()
 WHERE kind = :kind AND replace(ref, '_', '-') = :lookup AND (:scope::text IS NULL OR account = :scope);

-- name: release_platform(kind, lookup, actor, reason, scope)$
-- Clear the latch of a platform's resource, which has no row of its own.
SELECT smarter_auth.release_platform(:kind, :lookup, :actor, :reason) WHERE :scope::text IS NULL;

-- name: settle_platform()$
SELECT smarter_auth.settle_platform();

-- name: release(kind, lookup, actor, reason, scope)$
SELECT smarter_auth.release(id, :actor, :reason)
  FROM smarter_auth.resource
 WHERE kind = :kind AND replace(ref, '_', '-') = :lookup AND (:scope::text IS NULL OR account = :scope);

-- name: delete_resource(kind, lookup, scope)!
DELETE FROM smarter_auth.resource WHERE kind = :kind AND replace(ref, '_', '-') = :lookup AND (:scope::text IS NULL OR account = :scope);

-- name: insert_key(account, name, description, expires_at)$
-- Returns no row if the account has a key with that name.
INSERT INTO smarter_auth.key (account, name, description, expires_at)
SELECT :account, :name, :description, :expires_at::timestamptz
 WHERE NOT EXISTS (
       SELECT FROM smarter_auth.key WHERE account = :account AND name = :name AND revoked_at IS NULL AND is_namesake)
    ON CONFLICT (account, name) WHERE revoked_at IS NULL AND NOT is_namesake DO NOTHING
RETURNING key_id;

-- name: insert_token(digest, token_key, key_id, account)!
INSERT INTO smarter_auth.token (digest, token_key, key_id, account) VALUES (:digest, :token_key, :key_id, :account);

-- name: insert_binding(kind, lookup, key_id, account, scope)$
-- Returns no row if the key is already bound.
INSERT INTO smarter_auth.binding (resource_id, key_id, account)
SELECT id, :key_id, :account FROM smarter_auth.resource WHERE kind = :kind AND replace(ref, '_', '-') = :lookup AND (:scope::text IS NULL OR resource.account = :scope)
    ON CONFLICT (resource_id, key_id) DO NOTHING
RETURNING id;

-- name: delete_binding(kind, lookup, key_id, scope)$
DELETE FROM smarter_auth.binding USING smarter_auth.resource
 WHERE resource.id = resource_id AND kind = :kind AND replace(ref, '_', '-') = :lookup AND key_id = :key_id
   AND (:scope::text IS NULL OR resource.account = :scope)
RETURNING binding.id;

-- name: lock_key(key_id, scope)$
-- Whether the key exists; it is locked until the transaction ends.
SELECT key_id FROM smarter_auth.key WHERE key_id = :key_id AND (:scope::text IS NULL OR account = :scope) FOR UPDATE;

-- name: list_key_ids(scope)
SELECT key_id FROM smarter_auth.key WHERE :scope::text IS NULL OR account = :scope
 UNION ALL
SELECT key_id FROM smarter_auth.platform_keys(NULL) WHERE :scope IS NULL;

-- name: find_bound_keys(resource_ids, most)
-- The keys that are bound to these resources, at most `most` of each.
SELECT bound.resource_id, key.key_id, account, name, description, is_active, expires_at, revoked_at, created_at, updated_at
  FROM unnest(:resource_ids::bigint[]) AS asked (id)
 CROSS JOIN LATERAL (
       SELECT resource_id, key_id FROM smarter_auth.binding
        WHERE resource_id = asked.id ORDER BY key_id LIMIT :most::bigint) AS bound
  JOIN smarter_auth.key ON key.key_id = bound.key_id;

-- name: find_closures(kinds, lookups)
-- What decides whether resources are protected: the latch, whether a key is bound, and whether one of them was not merely
-- deactivated. The scalar subquery reads key by key, and ends with the first match, regardless of statistics.
SELECT asked.kind, coalesce(platform.ref, resource.ref, asked.lookup) AS ref,
       CASE WHEN resource.protection <> 'open' THEN resource.protection
            WHEN platform.is_latched THEN 'declared' ELSE 'open' END AS protection,
       EXISTS (SELECT FROM smarter_auth.binding WHERE resource_id = resource.id) OR theirs.is_bound AS is_bound,
       EXISTS (SELECT FROM smarter_auth.binding
                WHERE resource_id = resource.id
                  AND (SELECT is_active OR revoked_at IS NOT NULL FROM smarter_auth.key WHERE key_id = binding.key_id))
       OR theirs.is_held AS is_held
  FROM unnest(:kinds::text[], :lookups::text[]) AS asked (kind, lookup)
  LEFT JOIN smarter_auth.resource ON resource.kind = asked.kind AND replace(resource.ref, '_', '-') = asked.lookup
  LEFT JOIN LATERAL smarter_auth.platform_resource(asked.kind, asked.lookup) AS platform ON true
 CROSS JOIN LATERAL (
       SELECT count(*) > 0 AS is_bound, coalesce(bool_or(is_active OR is_revoked), false) AS is_held
         FROM smarter_auth.platform_bindings(asked.kind, asked.lookup)) AS theirs;

-- name: lock_resources_of(key_ids, scope)
-- The resources of the keys, locked until the transaction ends; in a fixed order, to avoid deadlocks.
SELECT kind, ref FROM smarter_auth.resource
 WHERE id IN (SELECT resource_id FROM smarter_auth.binding WHERE key_id = ANY (:key_ids))
   AND (:scope::text IS NULL OR account = :scope)
 ORDER BY kind, ref
   FOR UPDATE;

-- name: unbind_all(kind, lookup, actor, scope)$
-- Unbind every key from a resource, each with its audit event, and return their number.
  WITH gone AS (
       DELETE FROM smarter_auth.binding USING smarter_auth.resource
        WHERE resource.id = resource_id AND kind = :kind AND replace(ref, '_', '-') = :lookup
          AND (:scope::text IS NULL OR resource.account = :scope)
       RETURNING kind, ref, resource.account, key_id)
SELECT count(*)
  FROM gone CROSS JOIN LATERAL smarter_auth.write_event(
       :actor, 'key.unbind', gone.kind, gone.ref, gone.account, gone.key_id, '', NULL, NULL);

-- name: find_first_bound_keys(resource_id, most)
-- At most this many of a resource's keys, each looked up separately: a join may read all keys.
SELECT key.*
  FROM (SELECT key_id FROM smarter_auth.binding WHERE resource_id = :resource_id ORDER BY key_id LIMIT :most::bigint) AS bound
 CROSS JOIN LATERAL (
       SELECT key_id, account, name, description, is_active, expires_at, revoked_at, created_at, updated_at
         FROM smarter_auth.key WHERE key_id = bound.key_id OFFSET 0) AS key;

-- name: list_bound_key_ids(resource_ids)
SELECT DISTINCT key_id FROM smarter_auth.binding WHERE resource_id = ANY (:resource_ids);

-- name: find_keys(key_ids, most, scope)
-- Keys as operators manage them, with their labels and at most `most` of the resources that they are bound to.
SELECT key_id, account, name, description, is_active, expires_at, revoked_at, created_at, updated_at,
       ARRAY(SELECT kind || ':' || ref
               FROM (SELECT resource_id FROM smarter_auth.binding WHERE binding.key_id = key.key_id
                      ORDER BY resource_id LIMIT :most::bigint) AS bound
               JOIN smarter_auth.resource ON resource.id = resource_id ORDER BY kind, ref) AS bindings,
       ARRAY(SELECT label.name || '=' || value FROM smarter_auth.key_label AS label
              WHERE label.key_id = key.key_id ORDER BY label.name) AS labels,
       false AS is_platforms
  FROM smarter_auth.key
 WHERE key_id = ANY (:key_ids) AND (:scope::text IS NULL OR account = :scope)
 UNION ALL
SELECT key_id, account, name, description, is_active, expires_at, NULL, created_at, updated_at, bindings, '{}', true
  FROM smarter_auth.platform_keys(:key_ids)
 WHERE :scope IS NULL
 ORDER BY account, name, created_at;

-- name: set_active(key_id, is_active, scope)!
UPDATE smarter_auth.key SET is_active = :is_active, updated_at = now() WHERE key_id = :key_id AND (:scope::text IS NULL OR account = :scope);

-- name: revoke_key(key_id, scope)!
UPDATE smarter_auth.key SET revoked_at = now(), updated_at = now() WHERE key_id = :key_id AND (:scope::text IS NULL OR account = :scope);

-- name: write_event(actor, action, kind, ref, account, key_id, reason, before, after)$
-- Write a change to the audit. The database sets time and database role.
SELECT smarter_auth.write_event(:actor, :action, :kind, :ref, :account, :key_id, :reason, :before, :after);

-- name: find_tokens(key_ids, scope)
-- The tokens of the keys, the newest one of each last.
SELECT key_id, token_key, created_at, valid_until, last_used_at, token.digest AS digest
  FROM smarter_auth.token
  LEFT JOIN smarter_auth.token_use ON token_use.digest = token.digest
 WHERE key_id = ANY (:key_ids) AND (:scope::text IS NULL OR account = :scope)
 UNION ALL
SELECT key_id, token_key, token_created_at, NULL, greatest(own.last_used_at, token_use.last_used_at), own.digest
  FROM smarter_auth.platform_keys(:key_ids) AS own
  LEFT JOIN smarter_auth.token_use ON token_use.digest = own.digest
 WHERE :scope IS NULL
 ORDER BY created_at, valid_until NULLS LAST;

-- name: find_owners(digests, scope)
-- The keys of the tokens.
SELECT digest, key_id FROM smarter_auth.token WHERE digest = ANY (:digests) AND (:scope::text IS NULL OR account = :scope)
 UNION ALL
SELECT known.digest, known.key_id::uuid
  FROM unnest(:digests::bytea[]) AS asked (digest) CROSS JOIN LATERAL smarter_auth.platform_token(asked.digest) AS known
 WHERE :scope IS NULL;

-- name: expire_tokens(key_id, valid_until, scope)!
-- Only tokens that would be valid for longer are changed.
UPDATE smarter_auth.token SET valid_until = :valid_until
 WHERE key_id = :key_id AND (valid_until IS NULL OR valid_until > :valid_until)
   AND (:scope::text IS NULL OR account = :scope);

-- name: update_key(key_id, account, name, description, expires_at, scope)$
-- Returns no row if another key of the account has that name.
UPDATE smarter_auth.key
   SET name = :name, is_namesake = is_namesake AND name = :name, description = :description, expires_at = :expires_at,
       updated_at = now()
 WHERE key_id = :key_id AND (:scope::text IS NULL OR account = :scope) AND (name = :name OR NOT EXISTS (
       SELECT FROM smarter_auth.key AS other
        WHERE other.account = :account AND other.name = :name AND other.revoked_at IS NULL AND other.key_id <> :key_id))
RETURNING key_id;

-- name: delete_labels(key_id, scope)!
DELETE FROM smarter_auth.key_label WHERE key_id = :key_id AND (:scope::text IS NULL OR account = :scope);

-- name: insert_labels(key_id, names, values, scope)!
INSERT INTO smarter_auth.key_label (key_id, name, value)
SELECT key_id, label.name, value
  FROM smarter_auth.key CROSS JOIN unnest(:names::text[], :values::text[]) AS label (name, value)
 WHERE key_id = :key_id AND (:scope::text IS NULL OR account = :scope);

-- name: touch_key(key_id, scope)!
UPDATE smarter_auth.key SET updated_at = now() WHERE key_id = :key_id AND (:scope::text IS NULL OR account = :scope);

-- name: insert_numbered_resource(kind, account, name)$
-- Register a resource with the next number as its reference. Returns no row if that reference is taken.
  WITH drawn AS MATERIALIZED (SELECT nextval('smarter_auth.resource_id_seq') AS number)
INSERT INTO smarter_auth.resource (id, kind, ref, account, name)
SELECT number, :kind, number::text, :account, :name FROM drawn
    ON CONFLICT (kind, replace(ref, '_', '-')) DO NOTHING
RETURNING ref;

-- name: read_transaction_id()$
SELECT pg_current_xact_id();

-- name: find_resource_ids(kind, name, scope)$
-- The resources of a kind in the order of creation: those with one name, or all.
SELECT ARRAY(SELECT id FROM smarter_auth.resource
              WHERE kind = :kind AND (:name::text IS NULL OR name = :name)
                AND (:scope::text IS NULL OR account = :scope) ORDER BY id);

-- name: find_living_key_ids(name, token_key, scope)$
-- Unrevoked keys in the order of creation: those with one name, the one with a token, or all.
SELECT ARRAY(SELECT key_id FROM smarter_auth.key
              WHERE revoked_at IS NULL AND (:name::text IS NULL OR name = :name) AND (:scope::text IS NULL OR account = :scope)
                AND (:token_key::text IS NULL
                     OR key_id IN (SELECT key_id FROM smarter_auth.token WHERE token_key = :token_key))
              ORDER BY created_at, key_id);

-- name: find_platform_key_ids(scope)$
SELECT ARRAY(SELECT key_id FROM smarter_auth.platform_keys(NULL) WHERE :scope::text IS NULL ORDER BY created_at, key_id);

-- name: find_binding_ids(kind, scope)$
SELECT ARRAY(SELECT binding.id FROM smarter_auth.binding JOIN smarter_auth.resource ON resource.id = resource_id
              WHERE kind = :kind AND (:scope::text IS NULL OR binding.account = :scope) ORDER BY binding.id);

-- name: find_binding_ids_of_resource(kind, lookup, scope)$
SELECT ARRAY(SELECT binding.id FROM smarter_auth.binding JOIN smarter_auth.resource ON resource.id = resource_id
              WHERE kind = :kind AND replace(ref, '_', '-') = :lookup
                AND (:scope::text IS NULL OR binding.account = :scope) ORDER BY binding.id);

-- name: find_binding_ids_of_key(kind, key_id, scope)$
SELECT ARRAY(SELECT binding.id FROM smarter_auth.binding JOIN smarter_auth.resource ON resource.id = resource_id
              WHERE kind = :kind AND key_id = :key_id AND (:scope::text IS NULL OR binding.account = :scope) ORDER BY binding.id);

-- name: find_binding_id(kind, lookup, key_id, scope)$
SELECT binding.id FROM smarter_auth.binding JOIN smarter_auth.resource ON resource.id = resource_id
 WHERE kind = :kind AND replace(ref, '_', '-') = :lookup AND key_id = :key_id
   AND (:scope::text IS NULL OR binding.account = :scope);

-- name: find_bindings(kind, ids, scope)
SELECT binding.id, binding.created_at, binding.updated_at, resource_id, key_id
  FROM smarter_auth.binding
  JOIN smarter_auth.resource ON resource.id = resource_id
 WHERE kind = :kind AND binding.id = ANY (:ids) AND (:scope::text IS NULL OR binding.account = :scope)
 ORDER BY binding.id;

-- name: touch_binding(id, scope)!
UPDATE smarter_auth.binding SET updated_at = now() WHERE id = :id AND (:scope::text IS NULL OR account = :scope);

-- name: write_usage(batch, age, kinds, refs, key_ids, token_keys, outcomes, counts, digests)$
-- Write the request counts of one batch, and when tokens were last used. A repeated batch is ignored.
SELECT smarter_auth.write_usage(
    :batch, :age, :kinds, :refs, :key_ids, :token_keys, :outcomes, :counts, :digests);

-- name: count_keys(most)^
-- Count keys that need attention: those that expire soon, are being rotated, or have not been used for long. At most `most` of
-- each are read, from one end of an index, so that the real number may be larger.
SELECT expiring.*, unused.*, rotating.*
  FROM (SELECT count(*) FILTER (WHERE expires_at < now() + interval '1 day') AS expiring_1d,
               count(*) FILTER (WHERE expires_at < now() + interval '7 days') AS expiring_7d,
               count(*) AS expiring_30d
          FROM (SELECT expires_at FROM smarter_auth.key
                 WHERE revoked_at IS NULL AND expires_at >= now() AND expires_at < now() + interval '30 days'
                 ORDER BY expires_at LIMIT :most) AS key) AS expiring
 CROSS JOIN (SELECT count(*) AS unused_30d,
               count(*) FILTER (WHERE idle_since < now() - interval '90 days') AS unused_90d
          FROM (SELECT idle_since FROM smarter_auth.key_use
                 WHERE idle_since < now() - interval '30 days'
                 ORDER BY idle_since LIMIT :most) AS key_use) AS unused
 CROSS JOIN (SELECT count(DISTINCT key_id) AS rotating
          FROM (SELECT token.key_id FROM smarter_auth.token
                  JOIN smarter_auth.key ON key.key_id = token.key_id AND key.revoked_at IS NULL
                 WHERE token.valid_until >= now()
                 ORDER BY token.valid_until LIMIT :most) AS token) AS rotating;

-- name: drop_old_usage()$
SELECT smarter_auth.drop_old_usage();

-- name: write_requests(batch, ages_s, peers, actions, kinds, refs, accounts, key_ids, reasons, facts)$
-- Write one batch of requests to the audit; a repeated batch is ignored. The peer is a network. Times are given as ages,
-- because clocks differ.
SELECT smarter_auth.write_requests(
    :batch, :ages_s, :peers, :actions, :kinds, :refs, :accounts, :key_ids, :reasons, :facts);

-- name: prune_audit(before, most)$
-- Delete at most `most` events before that time, and return their number.
  WITH gone AS (
       DELETE FROM smarter_auth.audit_event
        WHERE id IN (SELECT id FROM smarter_auth.audit_event WHERE at < :before ORDER BY at LIMIT :most)
       RETURNING id)
SELECT count(*) FROM gone;
