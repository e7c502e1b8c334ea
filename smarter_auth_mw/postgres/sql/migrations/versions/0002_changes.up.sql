-- What has changed, for caches: a source, and the transaction that changed it. Rows are only ever inserted, and purged.
-- Sources: resource:KIND:LOOKUP (its own row), bindings:RESOURCE_ID, key:KEY_ID (with its tokens), directory:KIND (the
-- aliases of a kind); of many at once account:NAME (all that is known in the account) and kind:KIND (all that is not
-- known of the kind); * is everything.

CREATE TABLE smarter_auth.change (
    source text COLLATE "C" NOT NULL,
    tx xid8 NOT NULL DEFAULT pg_current_xact_id(),
    at timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE INDEX change_tx ON smarter_auth.change (tx);

CREATE INDEX change_at ON smarter_auth.change (at);

COMMENT ON COLUMN smarter_auth.change.at IS 'for purging alone: whether a change is seen is never a question of time';

ALTER TABLE smarter_auth.meta
    ADD COLUMN horizon xid8 NOT NULL DEFAULT '0',
    ADD COLUMN home text NOT NULL DEFAULT '',
    ADD COLUMN secret bytea NOT NULL DEFAULT sha512((gen_random_uuid()::text || gen_random_uuid()::text)::bytea);

COMMENT ON COLUMN smarter_auth.meta.horizon IS 'the newest transaction of which a change was purged';

COMMENT ON COLUMN smarter_auth.meta.home IS 'where the epoch began: another home, by a dump or a failover, is another epoch';

COMMENT ON COLUMN smarter_auth.meta.secret IS 'signs what is shared between the caches of several processes';

-- One function for every trigger. Its arguments: the columns that decide, the source that a row of them is, and the
-- coarse one that stands for very many. An update is the rows that were and are no longer, and those that now are.
-- Nothing is looked up in any other table: who asks another one sees only what is committed there already.
CREATE FUNCTION smarter_auth.note_changes() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, smarter_auth, pg_temp AS $$
DECLARE
    many CONSTANT integer := 100;
    touched text;
    sources text[] := ARRAY['*'];
BEGIN
    IF TG_OP <> 'TRUNCATE' THEN
        touched := format(
            CASE TG_OP
                WHEN 'INSERT' THEN 'SELECT %1$s FROM fresh'
                WHEN 'DELETE' THEN 'SELECT %1$s FROM stale'
                ELSE '(SELECT %1$s FROM stale EXCEPT SELECT %1$s FROM fresh)'
                     ' UNION ALL (SELECT %1$s FROM fresh EXCEPT SELECT %1$s FROM stale)'
            END, TG_ARGV[0]);
        FOR level IN 1 .. 2 LOOP
            EXECUTE format('SELECT array_agg(source) FROM (SELECT DISTINCT %s AS source FROM (%s) AS touched LIMIT %s) AS told',
                           TG_ARGV[level], touched, many + 1) INTO sources;
            EXIT WHEN sources IS NULL OR cardinality(sources) <= many;
        END LOOP;
        IF cardinality(sources) > many THEN
            sources := ARRAY['*'];
        END IF;
    END IF;
    INSERT INTO smarter_auth.change (source) SELECT unnest(sources);
    PERFORM pg_notify('smarter_auth', source || ':' || pg_current_xact_id()) FROM unnest(sources) AS source;
    RETURN NULL;
END
$$;

CREATE TRIGGER note_insert AFTER INSERT ON smarter_auth.resource REFERENCING NEW TABLE AS fresh
    FOR EACH STATEMENT EXECUTE FUNCTION smarter_auth.note_changes(
        'kind, ref', '''resource:'' || kind || '':'' || replace(ref, ''_'', ''-'')', '''kind:'' || kind');

CREATE TRIGGER note_update AFTER UPDATE ON smarter_auth.resource REFERENCING OLD TABLE AS stale NEW TABLE AS fresh
    FOR EACH STATEMENT EXECUTE FUNCTION smarter_auth.note_changes(
        'id, kind, ref, account, protection, on_error', '''resource:'' || kind || '':'' || replace(ref, ''_'', ''-'')',
        '''account:'' || account');

CREATE TRIGGER note_rename AFTER UPDATE ON smarter_auth.resource REFERENCING OLD TABLE AS stale NEW TABLE AS fresh
    FOR EACH STATEMENT EXECUTE FUNCTION smarter_auth.note_changes(
        'kind, ref', '''resource:'' || kind || '':'' || replace(ref, ''_'', ''-'')', '''kind:'' || kind');

CREATE TRIGGER note_delete AFTER DELETE ON smarter_auth.resource REFERENCING OLD TABLE AS stale
    FOR EACH STATEMENT EXECUTE FUNCTION smarter_auth.note_changes(
        'kind, ref, account', '''resource:'' || kind || '':'' || replace(ref, ''_'', ''-'')', '''account:'' || account');

CREATE TRIGGER note_truncate AFTER TRUNCATE ON smarter_auth.resource
    FOR EACH STATEMENT EXECUTE FUNCTION smarter_auth.note_changes();

CREATE TRIGGER note_insert AFTER INSERT ON smarter_auth.binding REFERENCING NEW TABLE AS fresh
    FOR EACH STATEMENT EXECUTE FUNCTION smarter_auth.note_changes(
        'resource_id, account', '''bindings:'' || resource_id', '''account:'' || account');

CREATE TRIGGER note_update AFTER UPDATE ON smarter_auth.binding REFERENCING OLD TABLE AS stale NEW TABLE AS fresh
    FOR EACH STATEMENT EXECUTE FUNCTION smarter_auth.note_changes(
        'resource_id, key_id, account', '''bindings:'' || resource_id', '''account:'' || account');

CREATE TRIGGER note_delete AFTER DELETE ON smarter_auth.binding REFERENCING OLD TABLE AS stale
    FOR EACH STATEMENT EXECUTE FUNCTION smarter_auth.note_changes(
        'resource_id, account', '''bindings:'' || resource_id', '''account:'' || account');

CREATE TRIGGER note_truncate AFTER TRUNCATE ON smarter_auth.binding
    FOR EACH STATEMENT EXECUTE FUNCTION smarter_auth.note_changes();

-- A key that is new is bound to nothing yet: its insert changes no decision.
CREATE TRIGGER note_update AFTER UPDATE ON smarter_auth.key REFERENCING OLD TABLE AS stale NEW TABLE AS fresh
    FOR EACH STATEMENT EXECUTE FUNCTION smarter_auth.note_changes(
        'key_id, account, name, is_active, expires_at, revoked_at', '''key:'' || key_id', '''account:'' || account');

CREATE TRIGGER note_delete AFTER DELETE ON smarter_auth.key REFERENCING OLD TABLE AS stale
    FOR EACH STATEMENT EXECUTE FUNCTION smarter_auth.note_changes(
        'key_id, account', '''key:'' || key_id', '''account:'' || account');

CREATE TRIGGER note_truncate AFTER TRUNCATE ON smarter_auth.key
    FOR EACH STATEMENT EXECUTE FUNCTION smarter_auth.note_changes();

CREATE TRIGGER note_insert AFTER INSERT ON smarter_auth.token REFERENCING NEW TABLE AS fresh
    FOR EACH STATEMENT EXECUTE FUNCTION smarter_auth.note_changes(
        'key_id, account', '''key:'' || key_id', '''account:'' || account');

CREATE TRIGGER note_update AFTER UPDATE ON smarter_auth.token REFERENCING OLD TABLE AS stale NEW TABLE AS fresh
    FOR EACH STATEMENT EXECUTE FUNCTION smarter_auth.note_changes(
        'key_id, account, digest, token_key, valid_until', '''key:'' || key_id', '''account:'' || account');

CREATE TRIGGER note_delete AFTER DELETE ON smarter_auth.token REFERENCING OLD TABLE AS stale
    FOR EACH STATEMENT EXECUTE FUNCTION smarter_auth.note_changes(
        'key_id, account', '''key:'' || key_id', '''account:'' || account');

CREATE TRIGGER note_truncate AFTER TRUNCATE ON smarter_auth.token
    FOR EACH STATEMENT EXECUTE FUNCTION smarter_auth.note_changes();

CREATE TRIGGER note_insert AFTER INSERT ON smarter_auth.alias REFERENCING NEW TABLE AS fresh
    FOR EACH STATEMENT EXECUTE FUNCTION smarter_auth.note_changes('kind', '''directory:'' || kind', '''*''');

CREATE TRIGGER note_update AFTER UPDATE ON smarter_auth.alias REFERENCING OLD TABLE AS stale NEW TABLE AS fresh
    FOR EACH STATEMENT EXECUTE FUNCTION smarter_auth.note_changes(
        'kind, form, account, value, resource_id', '''directory:'' || kind', '''*''');

CREATE TRIGGER note_delete AFTER DELETE ON smarter_auth.alias REFERENCING OLD TABLE AS stale
    FOR EACH STATEMENT EXECUTE FUNCTION smarter_auth.note_changes('kind', '''directory:'' || kind', '''*''');

CREATE TRIGGER note_truncate AFTER TRUNCATE ON smarter_auth.alias
    FOR EACH STATEMENT EXECUTE FUNCTION smarter_auth.note_changes();

ALTER TABLE smarter_auth.resource
    ENABLE ALWAYS TRIGGER note_insert, ENABLE ALWAYS TRIGGER note_update, ENABLE ALWAYS TRIGGER note_rename,
    ENABLE ALWAYS TRIGGER note_delete, ENABLE ALWAYS TRIGGER note_truncate;

ALTER TABLE smarter_auth.binding
    ENABLE ALWAYS TRIGGER note_insert, ENABLE ALWAYS TRIGGER note_update,
    ENABLE ALWAYS TRIGGER note_delete, ENABLE ALWAYS TRIGGER note_truncate;

ALTER TABLE smarter_auth.key
    ENABLE ALWAYS TRIGGER note_update, ENABLE ALWAYS TRIGGER note_delete, ENABLE ALWAYS TRIGGER note_truncate;

ALTER TABLE smarter_auth.token
    ENABLE ALWAYS TRIGGER note_insert, ENABLE ALWAYS TRIGGER note_update,
    ENABLE ALWAYS TRIGGER note_delete, ENABLE ALWAYS TRIGGER note_truncate;

ALTER TABLE smarter_auth.alias
    ENABLE ALWAYS TRIGGER note_insert, ENABLE ALWAYS TRIGGER note_update,
    ENABLE ALWAYS TRIGGER note_delete, ENABLE ALWAYS TRIGGER note_truncate;

-- Which triggers of ours are not there, or do not fire always: as long as there are any, changes go unheard.
CREATE FUNCTION smarter_auth.missing_triggers() RETURNS SETOF text
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

-- Forget changes that are older than any cache needs them for. Never one that a snapshot taken now may not see: who has
-- not heard of one that was purged knows so by the horizon. How many were forgotten.
CREATE FUNCTION smarter_auth.purge_changes(keep interval) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, smarter_auth, pg_temp AS $$
DECLARE
    purged bigint := 0;
    newest xid8;
BEGIN
    IF pg_try_advisory_xact_lock(7236834502) THEN  -- One at a time is enough.
        WITH gone AS (
            DELETE FROM smarter_auth.change
             WHERE at < clock_timestamp() - keep AND tx < pg_snapshot_xmin(pg_current_snapshot())
            RETURNING tx
        )
        SELECT count(*), (SELECT tx FROM gone ORDER BY tx DESC LIMIT 1) INTO purged, newest FROM gone;
        UPDATE smarter_auth.meta SET horizon = newest WHERE newest > horizon;
    END IF;
    RETURN purged;
END
$$;

-- Which database this is: of which system, on which timeline (a failover begins a new one), and which one there.
CREATE FUNCTION smarter_auth.home() RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, smarter_auth, pg_temp AS $$
    SELECT concat_ws(' ', (SELECT system_identifier FROM pg_control_system()),
                     CASE WHEN NOT pg_is_in_recovery() THEN left(pg_walfile_name(pg_current_wal_lsn()), 8) END,
                     (SELECT oid FROM pg_database WHERE datname = current_database()))
$$;

-- The database is another one now, by a restored dump or a clone: what was cached of it counts no more.
CREATE FUNCTION smarter_auth.renew_epoch() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, smarter_auth, pg_temp AS $$
BEGIN
    DELETE FROM smarter_auth.change;
    UPDATE smarter_auth.meta SET
        epoch = gen_random_uuid(),
        secret = sha512((gen_random_uuid()::text || gen_random_uuid()::text)::bytea),
        home = smarter_auth.home(),
        horizon = pg_current_xact_id();
END
$$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA smarter_auth FROM PUBLIC;

INSERT INTO smarter_auth.runtime_privilege (privilege) VALUES
    ('EXECUTE ON FUNCTION smarter_auth.home(), smarter_auth.missing_triggers(), smarter_auth.purge_changes(interval)');

-- Whoever runs on the schema so far gets what is new.
SELECT smarter_auth.grant_runtime(rolname)
  FROM pg_catalog.pg_namespace CROSS JOIN LATERAL pg_catalog.aclexplode(nspacl) AS acl
  JOIN pg_catalog.pg_roles ON pg_roles.oid = acl.grantee
 WHERE nspname = 'smarter_auth' AND acl.grantee <> nspowner;

SELECT smarter_auth.renew_epoch();
