-- Three database roles. The owner (smarter_auth) migrates. A runtime role serves: it reads, counts usage, and appends
-- requests to the audit. A manager role also writes keys, bindings and resources, as the command line and the models do.

-- What a role of each grade is granted, in the words of GRANT. A manager is granted both. Tables are named one by one: a
-- new one is nobody's until it stands here.
CREATE TABLE smarter_auth.privilege (
    grade text COLLATE "C" NOT NULL CHECK (grade IN ('runtime', 'manager')),
    privilege text COLLATE "C" NOT NULL,
    PRIMARY KEY (grade, privilege)
);

CREATE TABLE smarter_auth.database_role (
    name name PRIMARY KEY,
    grade text COLLATE "C" NOT NULL CHECK (grade IN ('runtime', 'manager')),
    is_inherited boolean NOT NULL DEFAULT false
);

COMMENT ON COLUMN smarter_auth.database_role.is_inherited IS
    'from the time when every role could do all of it: nobody has said yet which grade is meant';

INSERT INTO smarter_auth.privilege (grade, privilege) VALUES
    ('runtime', 'USAGE ON SCHEMA smarter_auth'),
    ('runtime', 'SELECT ON smarter_auth.schema_version, smarter_auth.meta, smarter_auth.privilege, smarter_auth.database_role'),
    ('runtime', 'SELECT ON smarter_auth.resource, smarter_auth.key, smarter_auth.token, smarter_auth.token_use'),
    ('runtime', 'SELECT ON smarter_auth.key_use, smarter_auth.key_label, smarter_auth.incarnation'),
    ('runtime', 'SELECT ON smarter_auth.binding, smarter_auth.alias, smarter_auth.change, smarter_auth.audit_event'),
    ('runtime', 'SELECT ON smarter_auth.usage_series, smarter_auth.usage_minute, smarter_auth.usage_hour, smarter_auth.usage_day'),
    ('runtime', 'SELECT ON smarter_auth.platform_table, smarter_auth.platform_trigger, smarter_auth.platform_alias'),
    ('runtime', 'SELECT ON smarter_auth.lost_binding, smarter_auth.lost_token'),
    ('runtime', 'EXECUTE ON FUNCTION smarter_auth.incarnation_now(), smarter_auth.name_incarnation()'),
    ('runtime', 'EXECUTE ON FUNCTION smarter_auth.home(), smarter_auth.missing_triggers(), smarter_auth.purge_changes(interval)'),
    ('runtime', 'EXECUTE ON FUNCTION smarter_auth.write_usage(uuid, interval, text[], text[], uuid[], text[], text[], bigint[], bytea[])'),
    ('runtime', 'EXECUTE ON FUNCTION smarter_auth.write_requests(uuid, float8[], text[], text[], text[], text[], text[], uuid[], text[], text[])'),
    ('runtime', 'EXECUTE ON FUNCTION smarter_auth.drop_old_usage(), smarter_auth.settle_platform()'),
    ('runtime', 'EXECUTE ON FUNCTION smarter_auth.platform_resource(text, text), smarter_auth.platform_bindings(text, text)'),
    ('runtime', 'EXECUTE ON FUNCTION smarter_auth.platform_token(bytea), smarter_auth.platform_keys(uuid[])'),
    ('runtime', 'EXECUTE ON FUNCTION smarter_auth.platform_lookups(text, text, text, text), smarter_auth.platform_domains()'),
    ('runtime', 'EXECUTE ON FUNCTION smarter_auth.platform_protected(), smarter_auth.platform_missing(), smarter_auth.platform_gone()'),
    ('runtime', 'EXECUTE ON FUNCTION smarter_auth.as_id(text), smarter_auth.label_heads(text), smarter_auth.host_label(text)'),
    ('manager', 'INSERT ON smarter_auth.resource, smarter_auth.key, smarter_auth.token, smarter_auth.binding'),
    ('manager', 'UPDATE (account, name, domain, protection, on_error, updated_at) ON smarter_auth.resource'),
    ('manager', 'UPDATE (name, description, is_active, expires_at, revoked_at, updated_at) ON smarter_auth.key'),
    ('manager', 'UPDATE (valid_until) ON smarter_auth.token'),
    ('manager', 'UPDATE (updated_at) ON smarter_auth.binding'),
    ('manager', 'DELETE ON smarter_auth.resource, smarter_auth.binding'),
    ('manager', 'INSERT ON smarter_auth.key_label'),
    ('manager', 'DELETE ON smarter_auth.key_label'),
    ('manager', 'USAGE ON SEQUENCE smarter_auth.resource_id_seq'),
    ('manager', 'EXECUTE ON FUNCTION smarter_auth.release(bigint, text, text), smarter_auth.release_platform(text, text, text, text)'),
    ('manager', 'EXECUTE ON FUNCTION smarter_auth.write_event(text, text, text, text, text, uuid, text, jsonb, jsonb)');

DROP TABLE smarter_auth.runtime_privilege;

DROP FUNCTION smarter_auth.grant_runtime(name);

-- Whoever could write keys so far still can, until somebody says which grade is meant: nobody loses anything unasked.
INSERT INTO smarter_auth.database_role (name, grade, is_inherited)
SELECT DISTINCT rolname, 'manager', true
  FROM pg_catalog.pg_class CROSS JOIN LATERAL pg_catalog.aclexplode(relacl) AS acl
  JOIN pg_catalog.pg_roles ON pg_roles.oid = acl.grantee
 WHERE pg_class.oid = 'smarter_auth.key'::regclass AND acl.privilege_type = 'INSERT' AND acl.grantee <> relowner;

-- What has been revoked stays so. Only the owner takes it back, explicitly: SET ROLE smarter_auth. Not SECURITY DEFINER:
-- by its current_user it knows who asks.
CREATE FUNCTION smarter_auth.hold_revocation() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, smarter_auth, pg_temp AS $$
BEGIN
    IF current_user = 'smarter_auth' THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'The key % is revoked, and stays so.', OLD.key_id
        USING ERRCODE = '55006', HINT = 'Create another: smarter-auth key create';
END
$$;

CREATE TRIGGER hold_revocation_on_update BEFORE UPDATE ON smarter_auth.key FOR EACH ROW
    WHEN (OLD.revoked_at IS NOT NULL AND (NEW.revoked_at, NEW.key_id) IS DISTINCT FROM (OLD.revoked_at, OLD.key_id))
    EXECUTE FUNCTION smarter_auth.hold_revocation();

-- The same for a token that has ended, since a rotation replaced it.
CREATE FUNCTION smarter_auth.hold_end() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, smarter_auth, pg_temp AS $$
BEGIN
    IF current_user = 'smarter_auth' THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'The token that begins with % ended at %, and stays so.', left(OLD.token_key, 4), OLD.valid_until
        USING ERRCODE = '55006', HINT = 'Give the key a new one: smarter-auth key rotate ' || OLD.key_id;
END
$$;

CREATE TRIGGER hold_end_on_update BEFORE UPDATE ON smarter_auth.token FOR EACH ROW
    WHEN (OLD.valid_until <= now() AND (NEW.valid_until IS NULL OR NEW.valid_until > OLD.valid_until
                                        OR NEW.key_id IS DISTINCT FROM OLD.key_id))
    EXECUTE FUNCTION smarter_auth.hold_end();

ALTER TABLE smarter_auth.key ENABLE ALWAYS TRIGGER hold_revocation_on_update;

ALTER TABLE smarter_auth.token ENABLE ALWAYS TRIGGER hold_end_on_update;

CREATE OR REPLACE FUNCTION smarter_auth.missing_triggers() RETURNS SETOF text
LANGUAGE sql STABLE SET search_path = pg_catalog, smarter_auth, pg_temp AS $$
    SELECT expected.relation || '.' || expected.name
      FROM (SELECT relation, unnest(string_to_array(names, ' ')) FROM (VALUES
               ('resource', 'note_insert note_update note_rename note_delete note_truncate'),
               ('resource', 'hold_latch_on_update hold_latch_on_delete hold_latch_on_truncate'),
               ('resource', 'keep_directory_on_insert keep_directory_on_update'),
               ('binding', 'note_insert note_update note_delete note_truncate'),
               ('binding', 'close_latch_on_insert close_latch_on_update'),
               ('key', 'note_update note_delete note_truncate hold_revocation_on_update'),
               ('token', 'note_insert note_update note_delete note_truncate hold_end_on_update'),
               ('alias', 'note_insert note_update note_delete note_truncate')
           ) AS ours (relation, names)) AS expected (relation, name)
      LEFT JOIN pg_trigger ON tgrelid = to_regclass('smarter_auth.' || expected.relation) AND tgname = expected.name
     WHERE tgenabled IS DISTINCT FROM 'A'
$$;

-- Which role wrote an event is known by the database alone; of events before this one nobody knows.
ALTER TABLE smarter_auth.audit_event ADD COLUMN database_role name;

ALTER TABLE smarter_auth.audit_event ALTER COLUMN database_role SET DEFAULT session_user;

COMMENT ON COLUMN smarter_auth.audit_event.actor IS 'who did it, by their own word; of a request the network that it came from';

COMMENT ON COLUMN smarter_auth.audit_event.database_role IS 'who was logged in to the database, by its word';

-- How long ago something was that a worker reports: not in the future, and not longer than an outage lasts.
CREATE FUNCTION smarter_auth.checked_age(age interval) RETURNS interval
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, smarter_auth, pg_temp AS $$
BEGIN
    IF age IS NULL OR age < interval '0' OR age > interval '7 days' THEN
        RAISE EXCEPTION 'An age of % is not between 0 and 7 days.', coalesce(age::text, 'NULL')
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    RETURN age;
END
$$;

-- Append requests to the audit, each with how many seconds ago it was: one batch, once.
CREATE FUNCTION smarter_auth.write_requests(
    batch uuid, ages_s float8[], peers text[], actions text[], kinds text[], refs text[], accounts text[], key_ids uuid[],
    reasons text[], facts text[]
) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, smarter_auth, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT FROM unnest(actions) AS action
                WHERE action NOT IN ('request.deny', 'request.grant', 'request.anonymous', 'request.dropped')) THEN
        RAISE EXCEPTION 'Only requests are written to the audit here.' USING ERRCODE = 'insufficient_privilege';
    END IF;
    INSERT INTO smarter_auth.usage_batch (batch) VALUES (write_requests.batch) ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    INSERT INTO smarter_auth.audit_event (at, actor, action, kind, ref, account, key_id, reason, after)
    SELECT clock_timestamp() - smarter_auth.checked_age(make_interval(secs => age_s)),
           asked.peer, asked.action, asked.kind, asked.ref, asked.account, asked.key_id, asked.reason, asked.fact::jsonb
      FROM unnest(ages_s, peers, actions, kinds, refs, accounts, key_ids, reasons, facts)
           AS asked (age_s, peer, action, kind, ref, account, key_id, reason, fact);
END
$$;

-- Append what a manager did to the audit, now. What only the owner does stays the owner's to write down.
CREATE FUNCTION smarter_auth.write_event(
    actor text, action text, kind text, ref text, account text, key_id uuid, reason text, before jsonb, after jsonb
) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, smarter_auth, pg_temp AS $$
BEGIN
    IF action LIKE 'request.%'
       OR action ~ '^(audit|operator)[.]' AND NOT pg_has_role(session_user, 'smarter_auth', 'MEMBER') THEN
        RAISE EXCEPTION 'The role % may not write % to the audit.', quote_ident(session_user), action
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    INSERT INTO smarter_auth.audit_event (actor, action, kind, ref, account, key_id, reason, before, after)
    VALUES (write_event.actor, write_event.action, write_event.kind, write_event.ref, write_event.account,
            write_event.key_id, write_event.reason, write_event.before, write_event.after);
END
$$;

-- An older release inserts its events itself, by rights that it keeps until its role has a grade. Whatever it says, time,
-- transaction and role are the database's.
CREATE FUNCTION smarter_auth.stamp_event() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, smarter_auth, pg_temp AS $$
BEGIN
    NEW.database_role := session_user;
    NEW.tx := pg_current_xact_id();
    IF NEW.action NOT LIKE 'request.%' OR NEW.at NOT BETWEEN now() - interval '7 days' AND clock_timestamp() THEN
        NEW.at := clock_timestamp();
    END IF;
    RETURN NEW;
END
$$;

CREATE TRIGGER stamp_event_on_insert BEFORE INSERT ON smarter_auth.audit_event FOR EACH ROW
    WHEN (NOT pg_has_role(current_user, 'smarter_auth', 'MEMBER')) EXECUTE FUNCTION smarter_auth.stamp_event();

ALTER TABLE smarter_auth.audit_event ENABLE ALWAYS TRIGGER stamp_event_on_insert;

-- Add a batch of counts, taken this long ago: for each element of the arrays a series, its count, and the digest of the
-- token where one was accepted. Rows are written in one order, so that two workers never wait for each other in a circle.
CREATE OR REPLACE FUNCTION smarter_auth.write_usage(
    batch uuid, age interval, kinds text[], refs text[], key_ids uuid[], token_keys text[], outcomes text[],
    counts bigint[], digests bytea[]
) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, smarter_auth, pg_temp AS $$
DECLARE
    moment CONSTANT timestamptz := clock_timestamp() - smarter_auth.checked_age(age);
    grain text;
    series_ids bigint[];
    sums bigint[];
BEGIN
    IF EXISTS (SELECT FROM unnest(counts) AS count WHERE count NOT BETWEEN 1 AND 1000000000) THEN
        -- A sum past the range of bigint would keep everybody's usage from being written.
        RAISE EXCEPTION 'A count is not between 1 and 1000000000.' USING ERRCODE = 'invalid_parameter_value';
    END IF;
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

-- Grant every role that there is what its grade needs; one that has lost the schema itself was let go by somebody.
CREATE FUNCTION smarter_auth.grant_grades() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, smarter_auth, pg_temp AS $$
DECLARE
    granted text;
BEGIN
    FOR granted IN
        SELECT format('GRANT %s TO %I', privilege.privilege, rolname)
          FROM smarter_auth.database_role
          JOIN pg_roles ON rolname = database_role.name
          JOIN smarter_auth.privilege ON privilege.grade IN ('runtime', database_role.grade)
         WHERE EXISTS (SELECT FROM pg_namespace CROSS JOIN LATERAL aclexplode(nspacl) AS acl
                        WHERE nspname = 'smarter_auth' AND acl.grantee = pg_roles.oid)
    LOOP
        EXECUTE granted;
    END LOOP;
END
$$;

-- Say which grade a role is of: it is granted what that needs, and loses whatever else it had here.
CREATE FUNCTION smarter_auth.assign_grade(role name, grade text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, smarter_auth, pg_temp AS $$
DECLARE
    before CONSTANT text := (SELECT known.grade FROM smarter_auth.database_role AS known WHERE name = role);
BEGIN
    IF role = 'smarter_auth' THEN
        RAISE EXCEPTION 'The role smarter_auth owns the schema, and is no role to work as.'
            USING ERRCODE = 'invalid_grant_operation', HINT = 'Name the role that the app, or the command line, logs in as.';
    END IF;
    EXECUTE format('REVOKE ALL ON ALL TABLES IN SCHEMA smarter_auth FROM %I', role);
    EXECUTE format('REVOKE ALL ON ALL SEQUENCES IN SCHEMA smarter_auth FROM %I', role);
    EXECUTE format('REVOKE ALL ON ALL FUNCTIONS IN SCHEMA smarter_auth FROM %I', role);
    EXECUTE format('GRANT USAGE ON SCHEMA smarter_auth TO %I', role);
    INSERT INTO smarter_auth.database_role (name, grade) VALUES (role, assign_grade.grade)
        ON CONFLICT (name) DO UPDATE SET grade = excluded.grade, is_inherited = false;
    PERFORM smarter_auth.grant_grades();
    IF before = 'manager' AND assign_grade.grade = 'runtime' THEN
        RAISE NOTICE '%', format('%I serves from now on: it can no longer write keys, bindings and resources.'
            ' To let it: smarter-auth db migrate --manager-role %I', role, role);
    END IF;
    IF pg_has_role(role, 'smarter_auth', 'MEMBER') THEN
        RAISE NOTICE '% is a superuser or a member of smarter_auth, and may do all that the owner of the schema may.',
            quote_ident(role);
    END IF;
END
$$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA smarter_auth FROM PUBLIC;

SELECT smarter_auth.grant_grades();
