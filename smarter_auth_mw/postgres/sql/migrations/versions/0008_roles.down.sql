-- One grade of role again, as before: each gets all of it.

DROP TRIGGER stamp_event_on_insert ON smarter_auth.audit_event;

DROP TRIGGER hold_revocation_on_update ON smarter_auth.key;

DROP TRIGGER hold_end_on_update ON smarter_auth.token;

DROP FUNCTION smarter_auth.stamp_event(), smarter_auth.hold_revocation(), smarter_auth.hold_end(),
    smarter_auth.write_requests(uuid, float8[], text[], text[], text[], text[], text[], uuid[], text[], text[]),
    smarter_auth.write_event(text, text, text, text, text, uuid, text, jsonb, jsonb), smarter_auth.checked_age(interval),
    smarter_auth.assign_grade(name, text), smarter_auth.grant_grades();

ALTER TABLE smarter_auth.audit_event DROP COLUMN database_role;

COMMENT ON COLUMN smarter_auth.audit_event.actor IS NULL;

CREATE OR REPLACE FUNCTION smarter_auth.missing_triggers() RETURNS SETOF text
LANGUAGE sql STABLE SET search_path = pg_catalog, smarter_auth, pg_temp AS $$
    SELECT expected.relation || '.' || expected.name
      FROM (SELECT relation, unnest(string_to_array(names, ' ')) FROM (VALUES
               ('resource', 'note_insert note_update note_rename note_delete note_truncate'),
               ('resource', 'hold_latch_on_update hold_latch_on_delete hold_latch_on_truncate'),
               ('resource', 'keep_directory_on_insert keep_directory_on_update'),
               ('binding', 'note_insert note_update note_delete note_truncate'),
               ('binding', 'close_latch_on_insert close_latch_on_update'),
               ('key', 'note_update note_delete note_truncate'),
               ('token', 'note_insert note_update note_delete note_truncate'),
               ('alias', 'note_insert note_update note_delete note_truncate')
           ) AS ours (relation, names)) AS expected (relation, name)
      LEFT JOIN pg_trigger ON tgrelid = to_regclass('smarter_auth.' || expected.relation) AND tgname = expected.name
     WHERE tgenabled IS DISTINCT FROM 'A'
$$;

-- Add a batch of counts, taken this long ago: for each element of the arrays a series, its count, and the digest of the
-- token where one was accepted. Rows are written in one order, so that two workers never wait for each other in a circle.
CREATE OR REPLACE FUNCTION smarter_auth.write_usage(
    batch uuid, age interval, kinds text[], refs text[], key_ids uuid[], token_keys text[], outcomes text[],
    counts bigint[], digests bytea[]
) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, smarter_auth, pg_temp AS $$
DECLARE
    moment CONSTANT timestamptz := clock_timestamp() - age;
    grain text;
    series_ids bigint[];
    sums bigint[];
BEGIN
    INSERT INTO smarter_auth.usage_batch (batch) VALUES (write_usage.batch) ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    FOREACH grain IN ARRAY ARRAY['minute', 'hour', 'day'] LOOP
        PERFORM smarter_auth.make_usage_partition(grain, moment);
        PERFORM smarter_auth.make_usage_partition(
            grain, moment + CASE grain WHEN 'minute' THEN interval '1 day' ELSE interval '7 days' END);
    END LOOP;
    INSERT INTO smarter_auth.usage_series (kind, ref, key_id, token_key, outcome)
    SELECT DISTINCT kind, ref, key_id, token_key, outcome
      FROM unnest(kinds, refs, key_ids, token_keys, outcomes) AS asked (kind, ref, key_id, token_key, outcome)
     WHERE NOT EXISTS (  -- A conflict would use up a number.
           SELECT FROM smarter_auth.usage_series AS known
            WHERE known.kind = asked.kind AND replace(known.ref, '_', '-') = replace(asked.ref, '_', '-')
              AND coalesce(known.key_id, '00000000-0000-0000-0000-000000000000')
                  = coalesce(asked.key_id, '00000000-0000-0000-0000-000000000000')
              AND known.token_key = asked.token_key AND known.outcome = asked.outcome)
     ORDER BY kind, ref, key_id, token_key, outcome
        ON CONFLICT DO NOTHING;
    SELECT array_agg(id ORDER BY id), array_agg(total ORDER BY id) INTO series_ids, sums
      FROM (SELECT known.id, sum(asked.count)::bigint AS total
              FROM unnest(kinds, refs, key_ids, token_keys, outcomes, counts)
                   AS asked (kind, ref, key_id, token_key, outcome, count)
              JOIN smarter_auth.usage_series AS known
                ON known.kind = asked.kind AND replace(known.ref, '_', '-') = replace(asked.ref, '_', '-')
               AND coalesce(known.key_id, '00000000-0000-0000-0000-000000000000')
                   = coalesce(asked.key_id, '00000000-0000-0000-0000-000000000000')
               AND known.token_key = asked.token_key AND known.outcome = asked.outcome
             GROUP BY known.id) AS summed;
    FOREACH grain IN ARRAY ARRAY['minute', 'hour', 'day'] LOOP
        EXECUTE format(
            'INSERT INTO smarter_auth.%I AS kept (series_id, at, count)'
            ' SELECT series_id, $1, total FROM unnest($2, $3) AS written (series_id, total) ORDER BY series_id'
            ' ON CONFLICT (series_id, at) DO UPDATE SET count = kept.count + excluded.count', 'usage_' || grain)
          USING date_trunc(grain, moment, 'UTC'), series_ids, sums;
    END LOOP;
    INSERT INTO smarter_auth.token_use AS known (digest, last_used_at)
    SELECT DISTINCT digest, moment FROM unnest(digests) AS digest WHERE digest IS NOT NULL ORDER BY digest
        ON CONFLICT (digest) DO UPDATE SET last_used_at = excluded.last_used_at
     WHERE known.last_used_at < excluded.last_used_at;
END
$$;

CREATE TABLE smarter_auth.runtime_privilege (
    privilege text COLLATE "C" PRIMARY KEY
);

INSERT INTO smarter_auth.runtime_privilege (privilege) VALUES
    ('INSERT ON smarter_auth.key_label'),
    ('DELETE ON smarter_auth.key_label'),
    ('EXECUTE ON FUNCTION smarter_auth.incarnation_now(), smarter_auth.name_incarnation()'),
    ('USAGE ON SCHEMA smarter_auth'),
    ('SELECT ON ALL TABLES IN SCHEMA smarter_auth'),
    ('INSERT ON smarter_auth.resource, smarter_auth.key, smarter_auth.token, smarter_auth.binding'),
    ('INSERT ON smarter_auth.token_use, smarter_auth.audit_event'),
    ('UPDATE (account, name, domain, protection, on_error, updated_at) ON smarter_auth.resource'),
    ('UPDATE (name, description, is_active, expires_at, revoked_at, updated_at) ON smarter_auth.key'),
    ('UPDATE (valid_until) ON smarter_auth.token'),
    ('UPDATE (updated_at) ON smarter_auth.binding'),
    ('UPDATE (last_used_at) ON smarter_auth.token_use'),
    ('DELETE ON smarter_auth.resource, smarter_auth.binding'),
    ('EXECUTE ON FUNCTION smarter_auth.release(bigint, text, text)'),
    ('EXECUTE ON FUNCTION smarter_auth.home(), smarter_auth.missing_triggers(), smarter_auth.purge_changes(interval)'),
    ('USAGE ON SEQUENCE smarter_auth.resource_id_seq'),
    ('SELECT ON smarter_auth.usage_series, smarter_auth.usage_minute, smarter_auth.usage_hour, smarter_auth.usage_day'),
    ('EXECUTE ON FUNCTION smarter_auth.write_usage(uuid, interval, text[], text[], uuid[], text[], text[], bigint[], bytea[])'),
    ('EXECUTE ON FUNCTION smarter_auth.drop_old_usage()'),
    ('SELECT ON smarter_auth.platform_table, smarter_auth.platform_trigger, smarter_auth.platform_alias'),
    ('SELECT ON smarter_auth.lost_binding, smarter_auth.lost_token'),
    ('EXECUTE ON FUNCTION smarter_auth.platform_resource(text, text), smarter_auth.platform_bindings(text, text)'),
    ('EXECUTE ON FUNCTION smarter_auth.platform_token(bytea), smarter_auth.platform_keys(uuid[])'),
    ('EXECUTE ON FUNCTION smarter_auth.platform_lookups(text, text, text, text), smarter_auth.platform_domains()'),
    ('EXECUTE ON FUNCTION smarter_auth.platform_protected(), smarter_auth.platform_missing(), smarter_auth.platform_gone()'),
    ('EXECUTE ON FUNCTION smarter_auth.settle_platform(), smarter_auth.release_platform(text, text, text, text)'),
    ('EXECUTE ON FUNCTION smarter_auth.as_id(text), smarter_auth.label_heads(text), smarter_auth.host_label(text)');

CREATE FUNCTION smarter_auth.grant_runtime(runtime_role name) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, smarter_auth, pg_temp AS $$
DECLARE
    granted text;
BEGIN
    FOR granted IN SELECT privilege FROM smarter_auth.runtime_privilege LOOP
        EXECUTE format('GRANT %s TO %I', granted, runtime_role);
    END LOOP;
END
$$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA smarter_auth FROM PUBLIC;

SELECT smarter_auth.grant_runtime(rolname)
  FROM smarter_auth.database_role JOIN pg_catalog.pg_roles ON rolname = name;

DROP TABLE smarter_auth.privilege, smarter_auth.database_role;
