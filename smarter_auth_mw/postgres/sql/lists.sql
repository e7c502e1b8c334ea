-- Statements that read pages of keys, resources and the audit, by name. Comments have lines of their own, as in queries.sql.
-- One filter drives a list: it determines the index and the order. The other filters are tested on its candidates, of which at
-- most 1,000 are read. Each branch is an index scan in the order of the list that continues after a place; branches of other
-- drivers are not executed. plan_by_index makes the planner choose these plans, regardless of its statistics. Candidates are
-- tested by scalar subqueries: for EXISTS, PostgreSQL may hash all rows that match, for example every key of a resource for
-- one page of them.

-- name: plan_by_index()^
SELECT set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true),
       set_config('enable_sort', 'off', true), set_config('enable_incremental_sort', 'off', true),
       set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true),
       set_config('max_parallel_workers_per_gather', '0', true);

-- name: list_keys(driver, account, end_text, after_text, after_id, end_time, after_time, label, kind, lookup, token_key, key_id, key_ids, state, now, find_from, find_until, created_before, expires_until, expires_from, is_endless, idle_before, is_never_used, labels, minted_before, is_rotating, most)
-- The keys of one page, in order. If there are fewer than `most`, one more row follows: where the search ended, and after how
-- many candidates.
  WITH candidate AS MATERIALIZED (
       SELECT branch.*, row_number() OVER () AS number FROM (
       (SELECT key AS it, lower(name) AS place, NULL::timestamptz AS place_time
          FROM smarter_auth.key
         WHERE :driver::text = 'name' AND :account::text IS NULL AND revoked_at IS NULL
           AND lower(name) < :end_text::text
           AND (lower(name), key_id) > (:after_text::text, :after_id::uuid)
         ORDER BY lower(name), key_id LIMIT 1000)
        UNION ALL
       (SELECT key, lower(name), NULL
          FROM smarter_auth.key
         WHERE :driver = 'name' AND account = :account AND revoked_at IS NULL
           AND lower(name) < :end_text
           AND (lower(name), key_id) > (:after_text, :after_id)
         ORDER BY lower(name), key_id LIMIT 1000)
        UNION ALL
       (SELECT key, '', created_at
          FROM smarter_auth.key
         WHERE :driver = 'created' AND :account IS NULL AND revoked_at IS NULL
           AND created_at < :end_time::timestamptz
           AND (created_at, key_id) > (:after_time::timestamptz, :after_id)
         ORDER BY created_at, key_id LIMIT 1000)
        UNION ALL
       (SELECT key, '', created_at
          FROM smarter_auth.key
         WHERE :driver = 'created' AND account = :account AND revoked_at IS NULL
           AND created_at < :end_time AND (created_at, key_id) > (:after_time, :after_id)
         ORDER BY created_at, key_id LIMIT 1000)
        UNION ALL
       (SELECT key, '', created_at
          FROM smarter_auth.key
         WHERE :driver = '-created' AND :account IS NULL AND revoked_at IS NULL
           AND (created_at, key_id) < (:after_time, :after_id)
         ORDER BY created_at DESC, key_id DESC LIMIT 1000)
        UNION ALL
       (SELECT key, '', created_at
          FROM smarter_auth.key
         WHERE :driver = '-created' AND account = :account AND revoked_at IS NULL
           AND (created_at, key_id) < (:after_time, :after_id)
         ORDER BY created_at DESC, key_id DESC LIMIT 1000)
        UNION ALL
       (SELECT key, '', expires_at
          FROM smarter_auth.key
         WHERE :driver = 'expires' AND :account IS NULL AND revoked_at IS NULL AND expires_at IS NOT NULL
           AND expires_at < :end_time AND (expires_at, key_id) > (:after_time, :after_id)
         ORDER BY expires_at, key_id LIMIT 1000)
        UNION ALL
       (SELECT key, '', expires_at
          FROM smarter_auth.key
         WHERE :driver = 'expires' AND account = :account AND revoked_at IS NULL AND expires_at IS NOT NULL
           AND expires_at < :end_time AND (expires_at, key_id) > (:after_time, :after_id)
         ORDER BY expires_at, key_id LIMIT 1000)
        UNION ALL
       (SELECT key, '', revoked_at
          FROM smarter_auth.key
         WHERE :driver = '-revoked' AND :account IS NULL AND revoked_at IS NOT NULL
           AND (revoked_at, key_id) < (:after_time, :after_id)
         ORDER BY revoked_at DESC, key_id DESC LIMIT 1000)
        UNION ALL
       (SELECT key, '', revoked_at
          FROM smarter_auth.key
         WHERE :driver = '-revoked' AND account = :account AND revoked_at IS NOT NULL
           AND (revoked_at, key_id) < (:after_time, :after_id)
         ORDER BY revoked_at DESC, key_id DESC LIMIT 1000)
        UNION ALL
       (SELECT key, '', idle_since
          FROM smarter_auth.key_use JOIN smarter_auth.key USING (key_id)
         WHERE :driver = 'idle' AND :account IS NULL
           AND idle_since < :end_time AND (idle_since, key_id) > (:after_time, :after_id)
         ORDER BY idle_since, key_id LIMIT 1000)
        UNION ALL
       (SELECT key, '', idle_since
          FROM smarter_auth.key_use JOIN smarter_auth.key USING (key_id)
         WHERE :driver = 'idle' AND key_use.account = :account
           AND idle_since < :end_time AND (idle_since, key_id) > (:after_time, :after_id)
         ORDER BY idle_since, key_id LIMIT 1000)
        UNION ALL
       (SELECT key, '', idle_since
          FROM smarter_auth.key_use JOIN smarter_auth.key USING (key_id)
         WHERE :driver = 'never used' AND :account IS NULL AND NOT is_used
           AND idle_since < :end_time AND (idle_since, key_id) > (:after_time, :after_id)
         ORDER BY idle_since, key_id LIMIT 1000)
        UNION ALL
       (SELECT key, '', idle_since
          FROM smarter_auth.key_use JOIN smarter_auth.key USING (key_id)
         WHERE :driver = 'never used' AND key_use.account = :account AND NOT is_used
           AND idle_since < :end_time AND (idle_since, key_id) > (:after_time, :after_id)
         ORDER BY idle_since, key_id LIMIT 1000)
        UNION ALL
       (SELECT key, '', valid_until
          FROM smarter_auth.token JOIN smarter_auth.key USING (key_id)
         WHERE :driver = 'rotating' AND :account IS NULL AND valid_until IS NOT NULL
           AND (valid_until, key_id) > (:after_time, :after_id)
           AND NOT EXISTS (SELECT FROM smarter_auth.token AS later
                            WHERE later.key_id = token.key_id
                              AND (later.valid_until, later.digest) > (token.valid_until, token.digest))
         ORDER BY valid_until, key_id LIMIT 1000)
        UNION ALL
       (SELECT key, '', valid_until
          FROM smarter_auth.token JOIN smarter_auth.key USING (key_id)
         WHERE :driver = 'rotating' AND token.account = :account AND valid_until IS NOT NULL
           AND (valid_until, key_id) > (:after_time, :after_id)
           AND NOT EXISTS (SELECT FROM smarter_auth.token AS later
                            WHERE later.key_id = token.key_id
                              AND (later.valid_until, later.digest) > (token.valid_until, token.digest))
         ORDER BY valid_until, key_id LIMIT 1000)
        UNION ALL
       (SELECT key, '', NULL
          FROM smarter_auth.key_label JOIN smarter_auth.key USING (key_id)
         WHERE :driver = 'label' AND :account IS NULL AND is_living
           AND key_label.name = split_part(:label::text, '=', 1) AND value = split_part(:label, '=', 2)
           AND key_id > :after_id
         ORDER BY key_id LIMIT 1000)
        UNION ALL
       (SELECT key, '', NULL
          FROM smarter_auth.key_label JOIN smarter_auth.key USING (key_id)
         WHERE :driver = 'label' AND key_label.account = :account AND is_living
           AND key_label.name = split_part(:label, '=', 1) AND value = split_part(:label, '=', 2)
           AND key_id > :after_id
         ORDER BY key_id LIMIT 1000)
        UNION ALL
       (SELECT key, '', NULL
          FROM smarter_auth.binding JOIN smarter_auth.key USING (key_id)
         WHERE :driver = 'resource' AND key_id > :after_id
           AND resource_id = (SELECT id FROM smarter_auth.resource
                               WHERE kind = :kind AND replace(ref, '_', '-') = :lookup
                                 AND (:account IS NULL OR account = :account))
         ORDER BY key_id LIMIT 1000)
        UNION ALL
       (SELECT key, '', NULL
          FROM smarter_auth.token JOIN smarter_auth.key USING (key_id)
         WHERE :driver = 'token_key' AND token_key = :token_key AND key_id > :after_id
         ORDER BY key_id LIMIT 1000)
        UNION ALL
       SELECT key, '', NULL FROM smarter_auth.key WHERE :driver = 'key_id' AND key_id = :key_id
        UNION ALL
       SELECT key, '', NULL FROM smarter_auth.key WHERE :driver = 'key_ids' AND key_id = ANY (:key_ids::uuid[])
       ) AS branch),
       page AS MATERIALIZED (
       SELECT (it).key_id, place, place_time, number
         FROM candidate
        WHERE (:account IS NULL OR (it).account = :account)
          AND CASE :state::text
              WHEN 'revoked' THEN (it).revoked_at IS NOT NULL
              WHEN 'living' THEN (it).revoked_at IS NULL
              WHEN 'expired' THEN (it).revoked_at IS NULL AND (it).expires_at < :now::timestamptz
              WHEN 'inactive' THEN (it).revoked_at IS NULL AND NOT (it).is_active
                                   AND ((it).expires_at IS NULL OR (it).expires_at >= :now)
              WHEN 'active' THEN (it).revoked_at IS NULL AND (it).is_active
                                 AND ((it).expires_at IS NULL OR (it).expires_at >= :now)
              ELSE true END
          AND lower((it).name) >= :find_from::text AND lower((it).name) < :find_until::text
          AND (it).created_at < :created_before::timestamptz
          AND (:expires_until::timestamptz IS NULL
               OR (it).expires_at >= :expires_from::timestamptz AND (it).expires_at < :expires_until)
          AND (NOT :is_endless::boolean OR (it).expires_at IS NULL)
          AND (:idle_before::timestamptz IS NULL
               OR (SELECT idle_since FROM smarter_auth.key_use WHERE key_id = (it).key_id) < :idle_before)
          AND (NOT :is_never_used::boolean
               OR (SELECT NOT is_used FROM smarter_auth.key_use WHERE key_id = (it).key_id))
          AND (cardinality(:labels::text[]) = 0
               OR (SELECT count(*) FROM smarter_auth.key_label AS label
                    WHERE key_id = (it).key_id AND label.name || '=' || value = ANY (:labels)) = cardinality(:labels))
          AND (:lookup::text IS NULL
               OR (SELECT true FROM smarter_auth.binding
                    WHERE key_id = (it).key_id
                      AND resource_id = (SELECT id FROM smarter_auth.resource
                                          WHERE kind = :kind::text AND replace(ref, '_', '-') = :lookup)))
          AND (:minted_before::timestamptz IS NULL
               OR (SELECT true FROM smarter_auth.token
                    WHERE key_id = (it).key_id AND created_at < :minted_before
                      AND (valid_until IS NULL OR valid_until >= :now) LIMIT 1))
          AND (NOT :is_rotating::boolean
               OR (SELECT true FROM smarter_auth.token WHERE key_id = (it).key_id AND valid_until >= :now LIMIT 1))
        LIMIT :most)
SELECT key_id, place, place_time, number, true AS is_found FROM page
 UNION ALL
(SELECT (it).key_id, place, place_time, number, false FROM candidate
  WHERE (SELECT count(*) FROM page) < :most
  ORDER BY number DESC LIMIT 1);

-- name: count_attention(account, now, expires_until, idle_before, most)^
-- Count what needs attention, each up to the most: an index is read from where the list of the same keys begins, and no
-- further. used_old_tokens are the rotating keys whose old token was used after the rotation. An attached platform's keys
-- are read only if no own key is found.
  WITH rotating AS MATERIALIZED (
       SELECT * FROM (
       (SELECT key_id
          FROM smarter_auth.token JOIN smarter_auth.key USING (key_id)
         WHERE :account::text IS NULL AND valid_until >= :now::timestamptz AND revoked_at IS NULL
           AND NOT EXISTS (SELECT FROM smarter_auth.token AS later
                            WHERE later.key_id = token.key_id
                              AND (later.valid_until, later.digest) > (token.valid_until, token.digest))
         ORDER BY valid_until, key_id LIMIT :most::bigint)
        UNION ALL
       (SELECT key_id
          FROM smarter_auth.token JOIN smarter_auth.key USING (key_id)
         WHERE token.account = :account AND valid_until >= :now AND revoked_at IS NULL
           AND NOT EXISTS (SELECT FROM smarter_auth.token AS later
                            WHERE later.key_id = token.key_id
                              AND (later.valid_until, later.digest) > (token.valid_until, token.digest))
         ORDER BY valid_until, key_id LIMIT :most)) AS branch)
SELECT (SELECT count(*) FROM (
       (SELECT expires_at FROM smarter_auth.key
         WHERE :account IS NULL AND revoked_at IS NULL AND expires_at >= :now AND expires_at < :expires_until::timestamptz
         ORDER BY expires_at, key_id LIMIT :most)
        UNION ALL
       (SELECT expires_at FROM smarter_auth.key
         WHERE account = :account AND revoked_at IS NULL AND expires_at >= :now AND expires_at < :expires_until
         ORDER BY expires_at, key_id LIMIT :most)) AS branch) AS expiring,
       (SELECT count(*) FROM (
       (SELECT idle_since FROM smarter_auth.key_use
         WHERE :account IS NULL AND idle_since < :idle_before::timestamptz
         ORDER BY idle_since, key_id LIMIT :most)
        UNION ALL
       (SELECT idle_since FROM smarter_auth.key_use
         WHERE account = :account AND idle_since < :idle_before
         ORDER BY idle_since, key_id LIMIT :most)) AS branch) AS unused,
       (SELECT count(*) FROM rotating) AS rotating,
       (SELECT count(*) FROM rotating
         WHERE (SELECT true FROM smarter_auth.token AS old JOIN smarter_auth.token_use USING (digest)
                 WHERE old.key_id = rotating.key_id AND old.valid_until >= :now
                   AND token_use.last_used_at > (SELECT max(created_at) FROM smarter_auth.token AS newest
                                                  WHERE newest.key_id = rotating.key_id)
                 LIMIT 1)) AS used_old_tokens,
       (SELECT count(*) FROM (
       (SELECT kind FROM smarter_auth.resource
         WHERE :account IS NULL AND protection = 'open'
         ORDER BY kind, replace(ref, '_', '-') LIMIT :most)
        UNION ALL
       (SELECT kind FROM smarter_auth.resource
         WHERE account = :account AND protection = 'open'
         ORDER BY kind, replace(ref, '_', '-') LIMIT :most)) AS branch) AS open_resources,
       CASE WHEN (SELECT true FROM smarter_auth.key
                   WHERE :account IS NULL AND revoked_at IS NULL ORDER BY lower(name), key_id LIMIT 1) THEN true
            WHEN (SELECT true FROM smarter_auth.key
                   WHERE account = :account AND revoked_at IS NULL ORDER BY lower(name), key_id LIMIT 1) THEN true
            ELSE :account IS NULL AND (SELECT true FROM smarter_auth.platform_keys(NULL) LIMIT 1) IS NOT NULL
            END AS has_keys;

-- name: list_platform_keys(after_id, most)
-- The keys of an attached platform after `after_id`.
SELECT key_id FROM smarter_auth.platform_keys(NULL) WHERE key_id > :after_id ORDER BY key_id LIMIT :most;

-- name: list_resources(driver, account, kind, after_kind, after_lookup, end_kind, end_lookup, after_id, key_id, is_open, find_from, find_until, most)
-- The resources of one page, in order, and where the search ended, as in list_keys. A place without an id is before its
-- reference.
  WITH candidate AS MATERIALIZED (
       SELECT branch.*, row_number() OVER () AS number FROM (
       (SELECT resource AS it
          FROM smarter_auth.resource
         WHERE :driver::text = 'lookup' AND :account::text IS NULL
           AND (kind, replace(ref, '_', '-'), id) > (:after_kind::text, :after_lookup::text, :after_id::bigint)
           AND (kind, replace(ref, '_', '-')) < (:end_kind::text, :end_lookup::text)
         ORDER BY kind, replace(ref, '_', '-') LIMIT 1000)
        UNION ALL
       (SELECT resource
          FROM smarter_auth.resource
         WHERE :driver = 'lookup' AND account = :account
           AND (kind, replace(ref, '_', '-'), id) > (:after_kind, :after_lookup, :after_id)
           AND (kind, replace(ref, '_', '-')) < (:end_kind, :end_lookup)
         ORDER BY kind, replace(ref, '_', '-') LIMIT 1000)
        UNION ALL
       (SELECT resource
          FROM smarter_auth.resource
         WHERE :driver = 'open' AND :account IS NULL AND protection = 'open'
           AND (kind, replace(ref, '_', '-'), id) > (:after_kind, :after_lookup, :after_id)
           AND (kind, replace(ref, '_', '-')) < (:end_kind, :end_lookup)
         ORDER BY kind, replace(ref, '_', '-') LIMIT 1000)
        UNION ALL
       (SELECT resource
          FROM smarter_auth.resource
         WHERE :driver = 'open' AND account = :account AND protection = 'open'
           AND (kind, replace(ref, '_', '-'), id) > (:after_kind, :after_lookup, :after_id)
           AND (kind, replace(ref, '_', '-')) < (:end_kind, :end_lookup)
         ORDER BY kind, replace(ref, '_', '-') LIMIT 1000)
        UNION ALL
       (SELECT resource
          FROM smarter_auth.binding JOIN smarter_auth.resource ON resource.id = resource_id
         WHERE :driver = 'key' AND resource_id > :after_id
           AND key_id = (SELECT key_id FROM smarter_auth.key
                          WHERE key_id = :key_id::uuid AND (:account IS NULL OR account = :account))
         ORDER BY resource_id LIMIT 1000)
       ) AS branch),
       page AS MATERIALIZED (
       SELECT (it).id, (it).kind, replace((it).ref, '_', '-') AS lookup, number
         FROM candidate
        WHERE (:account IS NULL OR (it).account = :account)
          AND (:kind::text IS NULL OR (it).kind = :kind)
          AND (:is_open::boolean IS NULL OR ((it).protection = 'open') = :is_open)
          AND (:key_id::uuid IS NULL
               OR (SELECT true FROM smarter_auth.binding WHERE resource_id = (it).id AND key_id = :key_id))
          AND replace((it).ref, '_', '-') >= :find_from::text AND replace((it).ref, '_', '-') < :find_until::text
        LIMIT :most)
SELECT id, kind, lookup, number, true AS is_found FROM page
 UNION ALL
(SELECT (it).id, (it).kind, replace((it).ref, '_', '-'), number, false FROM candidate
  WHERE (SELECT count(*) FROM page) < :most
  ORDER BY number DESC LIMIT 1);

-- name: list_platform_resources(after_kind, after_lookup, most)
-- The protected resources of an attached platform after that place, without those that have a row of their own.
SELECT kind, ref
  FROM smarter_auth.platform_protected() AS bound
 WHERE (kind, ref) > (:after_kind, :after_lookup)
   AND NOT EXISTS (SELECT FROM smarter_auth.resource
                    WHERE resource.kind = bound.kind AND replace(resource.ref, '_', '-') = replace(bound.ref, '_', '-'))
 ORDER BY kind, ref
 LIMIT :most;

-- name: list_audit(driver, after_time, after_id, end_time, account, kind, lookup, key_id, actor, action, reason, is_act, is_scoped, most)
-- The events of one page in order of time; drivers with a minus begin with the newest event. The last row may be where the
-- search ended, as in list_keys. A search by actor or reason tests candidates. A scope hides events of an attached platform,
-- and treats a key of another account as what it shows of it: an unknown token.
  WITH candidate AS MATERIALIZED (
       SELECT branch.*, row_number() OVER () AS number FROM (
       (SELECT event AS it FROM smarter_auth.audit_event AS event
         WHERE :driver::text = '-time'
           AND (at, id) < (:after_time::timestamptz, :after_id::bigint) AND at >= :end_time::timestamptz
         ORDER BY at DESC, id DESC LIMIT 1000)
        UNION ALL
       (SELECT event AS it FROM smarter_auth.audit_event AS event
         WHERE :driver = '-account' AND account = :account::text
           AND (at, id) < (:after_time, :after_id) AND at >= :end_time
         ORDER BY at DESC, id DESC LIMIT 1000)
        UNION ALL
       (SELECT event AS it FROM smarter_auth.audit_event AS event
         WHERE :driver = '-resource' AND kind = :kind::text AND replace(ref, '_', '-') = :lookup::text
           AND (at, id) < (:after_time, :after_id) AND at >= :end_time
         ORDER BY at DESC, id DESC LIMIT 1000)
        UNION ALL
       (SELECT event AS it FROM smarter_auth.audit_event AS event
         WHERE :driver = '-key' AND key_id = :key_id::uuid
           AND (at, id) < (:after_time, :after_id) AND at >= :end_time
         ORDER BY at DESC, id DESC LIMIT 1000)
        UNION ALL
       (SELECT event AS it FROM smarter_auth.audit_event AS event
         WHERE :driver = '-acts' AND action NOT LIKE 'request.%'
           AND (at, id) < (:after_time, :after_id) AND at >= :end_time
         ORDER BY at DESC, id DESC LIMIT 1000)
        UNION ALL
       (SELECT event AS it FROM smarter_auth.audit_event AS event
         WHERE :driver = '-acts of account' AND account = :account AND action NOT LIKE 'request.%'
           AND (at, id) < (:after_time, :after_id) AND at >= :end_time
         ORDER BY at DESC, id DESC LIMIT 1000)
        UNION ALL
       (SELECT event AS it FROM smarter_auth.audit_event AS event
         WHERE :driver = '-acts of resource' AND kind = :kind AND replace(ref, '_', '-') = :lookup AND action NOT LIKE 'request.%'
           AND (at, id) < (:after_time, :after_id) AND at >= :end_time
         ORDER BY at DESC, id DESC LIMIT 1000)
        UNION ALL
       (SELECT event AS it FROM smarter_auth.audit_event AS event
         WHERE :driver = '-acts on key' AND key_id = :key_id AND action NOT LIKE 'request.%'
           AND (at, id) < (:after_time, :after_id) AND at >= :end_time
         ORDER BY at DESC, id DESC LIMIT 1000)
        UNION ALL
       (SELECT event AS it FROM smarter_auth.audit_event AS event
         WHERE :driver = '-acts by actor' AND actor = :actor::text AND action NOT LIKE 'request.%'
           AND (at, id) < (:after_time, :after_id) AND at >= :end_time
         ORDER BY at DESC, id DESC LIMIT 1000)
        UNION ALL
       (SELECT event AS it FROM smarter_auth.audit_event AS event
         WHERE :driver = 'time'
           AND (at, id) > (:after_time, :after_id) AND at < :end_time
         ORDER BY at, id LIMIT 1000)
        UNION ALL
       (SELECT event AS it FROM smarter_auth.audit_event AS event
         WHERE :driver = 'account' AND account = :account
           AND (at, id) > (:after_time, :after_id) AND at < :end_time
         ORDER BY at, id LIMIT 1000)
        UNION ALL
       (SELECT event AS it FROM smarter_auth.audit_event AS event
         WHERE :driver = 'resource' AND kind = :kind AND replace(ref, '_', '-') = :lookup
           AND (at, id) > (:after_time, :after_id) AND at < :end_time
         ORDER BY at, id LIMIT 1000)
        UNION ALL
       (SELECT event AS it FROM smarter_auth.audit_event AS event
         WHERE :driver = 'key' AND key_id = :key_id
           AND (at, id) > (:after_time, :after_id) AND at < :end_time
         ORDER BY at, id LIMIT 1000)
        UNION ALL
       (SELECT event AS it FROM smarter_auth.audit_event AS event
         WHERE :driver = 'acts' AND action NOT LIKE 'request.%'
           AND (at, id) > (:after_time, :after_id) AND at < :end_time
         ORDER BY at, id LIMIT 1000)
        UNION ALL
       (SELECT event AS it FROM smarter_auth.audit_event AS event
         WHERE :driver = 'acts of account' AND account = :account AND action NOT LIKE 'request.%'
           AND (at, id) > (:after_time, :after_id) AND at < :end_time
         ORDER BY at, id LIMIT 1000)
        UNION ALL
       (SELECT event AS it FROM smarter_auth.audit_event AS event
         WHERE :driver = 'acts of resource' AND kind = :kind AND replace(ref, '_', '-') = :lookup AND action NOT LIKE 'request.%'
           AND (at, id) > (:after_time, :after_id) AND at < :end_time
         ORDER BY at, id LIMIT 1000)
        UNION ALL
       (SELECT event AS it FROM smarter_auth.audit_event AS event
         WHERE :driver = 'acts on key' AND key_id = :key_id AND action NOT LIKE 'request.%'
           AND (at, id) > (:after_time, :after_id) AND at < :end_time
         ORDER BY at, id LIMIT 1000)
        UNION ALL
       (SELECT event AS it FROM smarter_auth.audit_event AS event
         WHERE :driver = 'acts by actor' AND actor = :actor AND action NOT LIKE 'request.%'
           AND (at, id) > (:after_time, :after_id) AND at < :end_time
         ORDER BY at, id LIMIT 1000)
       ) AS branch),
       page AS MATERIALIZED (
       SELECT it, number
         FROM candidate
        WHERE (:account IS NULL OR (it).account = :account)
          AND (:lookup IS NULL OR (it).kind = :kind AND replace((it).ref, '_', '-') = :lookup)
          AND (:key_id IS NULL OR (it).key_id = :key_id AND (NOT :is_scoped::boolean OR (SELECT account FROM smarter_auth.key WHERE key_id = (it).key_id) IS NOT DISTINCT FROM :account))
          AND (:actor IS NULL OR (it).actor = :actor)
          AND (:action::text IS NULL OR (it).action LIKE :action)
          AND (:reason::text IS NULL
               OR :reason = CASE WHEN NOT :is_scoped OR (it).reason = '' OR (it).key_id IS NULL
                                      OR (SELECT account FROM smarter_auth.key WHERE key_id = (it).key_id) IS NOT DISTINCT FROM :account
                                 THEN (it).reason ELSE 'unknown_token' END)
          AND (NOT :is_scoped OR (it).kind IS NULL
               OR (SELECT true FROM smarter_auth.platform_table WHERE kind = (it).kind LIMIT 1) IS NULL)
          AND (NOT :is_act::boolean OR (it).action NOT LIKE 'request.%')
        LIMIT :most)
SELECT (it).id, (it).at, (it).actor, (it).action, (it).kind, (it).ref, (it).account, (it).key_id, (it).reason,
       (it).before, (it).after, (it).database_role, (it).tx::text AS tx, number, true AS is_found
  FROM page
 UNION ALL
(SELECT (it).id, (it).at, (it).actor, (it).action, (it).kind, (it).ref, (it).account, (it).key_id, (it).reason,
        (it).before, (it).after, (it).database_role, (it).tx::text, number, false
   FROM candidate
  WHERE (SELECT count(*) FROM page) < :most
  ORDER BY number DESC LIMIT 1);

-- name: read_moment()^
-- The current snapshot, server and time, as in a heartbeat.
SELECT pg_current_snapshot()::text AS snapshot, clock_timestamp() AS at,
       concat_ws(' ', incarnation, meta.epoch, smarter_auth.home()) AS server
  FROM smarter_auth.meta CROSS JOIN smarter_auth.incarnation_now() AS incarnation;

-- name: follow_audit(done, reading, after_tx, after_id, account, kind, lookup, key_id, actor, action, reason, is_act, is_scoped, since, until, most)
-- The events that were committed between two snapshots, in the order of their transactions, including those of a transaction
-- that began early and committed late. The last row is as in list_keys.
  WITH candidate AS MATERIALIZED (
       SELECT branch.*, row_number() OVER () AS number FROM (
       SELECT event AS it
         FROM smarter_auth.audit_event AS event
        WHERE (tx, id) > (:after_tx::text::xid8, :after_id::bigint) AND tx IS NOT NULL
          AND tx < pg_snapshot_xmax(:reading::text::pg_snapshot)
          AND NOT pg_visible_in_snapshot(tx, :done::text::pg_snapshot)
          AND pg_visible_in_snapshot(tx, :reading::text::pg_snapshot)
        ORDER BY tx, id LIMIT 1000) AS branch),
       page AS MATERIALIZED (
       SELECT it, number
         FROM candidate
        WHERE (:account::text IS NULL OR (it).account = :account)
          AND (:lookup::text IS NULL OR (it).kind = :kind::text AND replace((it).ref, '_', '-') = :lookup)
          AND (:key_id::uuid IS NULL OR (it).key_id = :key_id AND (NOT :is_scoped::boolean OR (SELECT account FROM smarter_auth.key WHERE key_id = (it).key_id) IS NOT DISTINCT FROM :account))
          AND (:actor::text IS NULL OR (it).actor = :actor)
          AND (:action::text IS NULL OR (it).action LIKE :action)
          AND (:reason::text IS NULL
               OR :reason = CASE WHEN NOT :is_scoped OR (it).reason = '' OR (it).key_id IS NULL
                                      OR (SELECT account FROM smarter_auth.key WHERE key_id = (it).key_id) IS NOT DISTINCT FROM :account
                                 THEN (it).reason ELSE 'unknown_token' END)
          AND (NOT :is_scoped OR (it).kind IS NULL
               OR (SELECT true FROM smarter_auth.platform_table WHERE kind = (it).kind LIMIT 1) IS NULL)
          AND (NOT :is_act::boolean OR (it).action NOT LIKE 'request.%')
          AND (it).at >= :since::timestamptz AND (it).at < :until::timestamptz
        LIMIT :most)
SELECT (it).id, (it).at, (it).actor, (it).action, (it).kind, (it).ref, (it).account, (it).key_id, (it).reason,
       (it).before, (it).after, (it).database_role, (it).tx::text AS tx, number, true AS is_found
  FROM page
 UNION ALL
(SELECT (it).id, (it).at, (it).actor, (it).action, (it).kind, (it).ref, (it).account, (it).key_id, (it).reason,
        (it).before, (it).after, (it).database_role, (it).tx::text, number, false
   FROM candidate
  WHERE (SELECT count(*) FROM page) < :most
  ORDER BY number DESC LIMIT 1);

-- name: find_accounts_of_keys(key_ids)
SELECT key_id, account FROM smarter_auth.key WHERE key_id = ANY (:key_ids);

-- name: is_of_account(account, kind, lookup, key_id)$
-- Return whether a key, or if none is given a resource, belongs to this account and not to a platform.
SELECT CASE WHEN :key_id::uuid IS NOT NULL
       THEN EXISTS (SELECT FROM smarter_auth.key WHERE key_id = :key_id AND account = :account)
       ELSE EXISTS (SELECT FROM smarter_auth.resource
                     WHERE kind = :kind AND replace(ref, '_', '-') = :lookup AND account = :account
                       AND NOT EXISTS (SELECT FROM smarter_auth.platform_table WHERE kind = :kind)) END;

-- name: list_series(driver, account, kind, lookup, key_id, from_kind, from_lookup, from_key_id, most)
-- The usage series from that place on, in the order of resource and key.
SELECT branch.*, key.name AS key_name, key.account AS key_account,
       :account::text IS NULL
       OR coalesce((SELECT true FROM smarter_auth.resource
                     WHERE resource.kind = branch.kind
                       AND replace(resource.ref, '_', '-') = replace(branch.ref, '_', '-')
                       AND resource.account = :account
                       AND NOT EXISTS (SELECT FROM smarter_auth.platform_table WHERE kind = branch.kind)), false)
           AS is_shown
  FROM (
       (SELECT id, kind, ref, key_id, token_key, outcome
          FROM smarter_auth.usage_series
         WHERE :driver::text = 'all'
           AND (kind, replace(ref, '_', '-'), coalesce(key_id, '00000000-0000-0000-0000-000000000000'))
               >= (:from_kind::text, :from_lookup::text, :from_key_id::uuid)
         ORDER BY kind, replace(ref, '_', '-'), coalesce(key_id, '00000000-0000-0000-0000-000000000000')
         LIMIT :most::bigint)
        UNION ALL
       (SELECT id, kind, ref, key_id, token_key, outcome
          FROM smarter_auth.usage_series
         WHERE :driver = 'resource' AND kind = :kind::text AND replace(ref, '_', '-') = :lookup::text
           AND coalesce(key_id, '00000000-0000-0000-0000-000000000000') >= :from_key_id
         ORDER BY coalesce(key_id, '00000000-0000-0000-0000-000000000000') LIMIT :most)
        UNION ALL
       (SELECT id, kind, ref, key_id, token_key, outcome
          FROM smarter_auth.usage_series
         WHERE :driver = 'key' AND key_id = :key_id::uuid
           AND (kind, replace(ref, '_', '-')) >= (:from_kind, :from_lookup)
         ORDER BY kind, replace(ref, '_', '-') LIMIT :most)
        UNION ALL
       SELECT id, kind, ref, key_id, token_key, outcome
         FROM smarter_auth.usage_series
        WHERE :driver = 'both' AND kind = :kind AND replace(ref, '_', '-') = :lookup
          AND coalesce(key_id, '00000000-0000-0000-0000-000000000000') = :key_id
       ) AS branch
  LEFT JOIN smarter_auth.key ON key.key_id = branch.key_id;

-- name: count_usage(grain, since, span, until, width, series_ids)
-- The counts of these series since that time, in points of the given width. The first point begins at `begins`.
  WITH asked AS MATERIALIZED (
       SELECT date_trunc(:grain::text, coalesce(:since::timestamptz, clock_timestamp() - :span::interval), 'UTC') AS begins),
       kept AS (
       SELECT series_id, at, count FROM smarter_auth.usage_minute WHERE :grain = 'minute'
        UNION ALL SELECT series_id, at, count FROM smarter_auth.usage_hour WHERE :grain = 'hour'
        UNION ALL SELECT series_id, at, count FROM smarter_auth.usage_day WHERE :grain = 'day'),
       counted AS (
       SELECT series_id, sum(count)::bigint AS count,
              floor(extract(epoch FROM at - (SELECT begins FROM asked)) / extract(epoch FROM :width::interval))::integer
                  AS point
         FROM kept
        WHERE series_id = ANY (:series_ids::bigint[]) AND at >= (SELECT begins FROM asked)
          AND (:until::timestamptz IS NULL OR at < :until)
        GROUP BY series_id, point)
SELECT begins, series_id, array_agg(point) AS points, array_agg(count) AS counts
  FROM asked CROSS JOIN counted
 GROUP BY begins, series_id;

-- name: sum_usage(account, grain, span, width, most, top)
-- All requests of the last hours or days: one row for each step with requests, then one for each of the keys with the most
-- granted requests. If there are `most` series or more, nothing is added up. With a scope, only its own resources count.
  WITH own AS MATERIALIZED (
       SELECT kind, replace(ref, '_', '-') AS lookup
         FROM smarter_auth.resource
        WHERE account = :account::text
          AND (SELECT true FROM smarter_auth.platform_table WHERE kind = resource.kind LIMIT 1) IS NULL
        LIMIT :most::bigint),
       series AS MATERIALIZED (
       (SELECT id, key_id, outcome IN ('grant', 'anonymous') AS is_granted
          FROM smarter_auth.usage_series WHERE :account IS NULL LIMIT :most)
        UNION ALL
       (SELECT id, key_id, outcome IN ('grant', 'anonymous')
          FROM own
          JOIN smarter_auth.usage_series ON usage_series.kind = own.kind AND replace(ref, '_', '-') = own.lookup
         LIMIT :most)),
       asked AS MATERIALIZED (
       SELECT date_trunc(:grain::text, clock_timestamp() - :span::interval, 'UTC') AS begins,
              greatest((SELECT count(*) FROM series), (SELECT count(*) FROM own)) >= :most AS is_cut),
       -- OFFSET prevents a plan that compares each row with each series.
       counted AS MATERIALIZED (
       SELECT at, key_id, CASE WHEN is_granted THEN count ELSE 0 END AS granted,
              CASE WHEN is_granted THEN 0 ELSE count END AS refused
         FROM series
        CROSS JOIN LATERAL (
              SELECT at, count FROM smarter_auth.usage_hour
               WHERE :grain = 'hour' AND series_id = series.id AND at >= (SELECT begins FROM asked)
               UNION ALL
              SELECT at, count FROM smarter_auth.usage_day
               WHERE :grain = 'day' AND series_id = series.id AND at >= (SELECT begins FROM asked)
              OFFSET 0) AS kept
        WHERE NOT (SELECT is_cut FROM asked)),
       step AS (
       SELECT floor(extract(epoch FROM at - (SELECT begins FROM asked)) / extract(epoch FROM :width::interval))::integer
                  AS point, NULL::uuid AS key_id, NULL::text AS key_name, sum(granted)::bigint AS granted,
              sum(refused)::bigint AS refused
         FROM counted GROUP BY at),
       consumer AS (
       SELECT NULL::integer, used.key_id, key.name, used.granted, used.refused
         FROM (SELECT key_id, sum(granted)::bigint AS granted, sum(refused)::bigint AS refused
                 FROM counted WHERE key_id IS NOT NULL GROUP BY key_id) AS used
         LEFT JOIN smarter_auth.key ON key.key_id = used.key_id
        WHERE used.granted > 0 AND (:account IS NULL OR key.account = :account)
        ORDER BY used.granted DESC, used.key_id LIMIT :top)
SELECT begins, is_cut, point, key_id, key_name, granted, refused
  FROM asked LEFT JOIN (SELECT * FROM step UNION ALL SELECT * FROM consumer) AS row ON true;
